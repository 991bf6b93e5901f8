//! The engine's figures against their targets, as one table: `cargo bench --bench figures`.
//!
//! A machine is noisy and shared, so what counts are ratios to a floor that was measured in the
//! same process at nearly the same time: floor, engine, floor, engine. Every figure is the median
//! of the rounds. `--quick` (or `HIGHWATER_BENCH_QUICK=1`) makes a smoke test of it.
#![allow(
    missing_docs,
    reason = "a benchmark has no readers of its documentation"
)]

use std::cell::RefCell;
use std::hint::black_box;
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use common::floor::{Appending, Hashing, Space};
use common::{
    Contact, ID_LEN, LARGE, Raw, SMALL, batches, change, contacts, directory, feed, fill, open,
    raw_records, renew, save_raw, timed,
};
use highwater::{Feed, List};
use serde::Serialize;

#[allow(dead_code, reason = "every benchmark uses its part")]
mod common;

const BATCH: usize = 1000;
/// What a tailed writer or a sync of many small feeds brings at a time.
const SMALL_BATCH: usize = 100;

/// How much is measured.
#[derive(Clone, Copy)]
struct Scale {
    rounds: usize,
    /// Records of the feeds that fit into caches only partly.
    records: usize,
    /// Records of the large feed.
    large: usize,
}

fn main() {
    let given = |name| std::env::args().any(|arg| arg == name);
    // Cargo passes `--bench` when it is to measure, and nothing when it only tests all targets.
    let quick = given("--quick")
        || !given("--bench")
        || std::env::var_os("HIGHWATER_BENCH_QUICK").is_some();
    let scale = if quick {
        Scale {
            rounds: 3,
            records: 10_000,
            large: 50_000,
        }
    } else {
        Scale {
            rounds: 9,
            records: 100_000,
            large: 1_000_000,
        }
    };
    let only = std::env::var("HIGHWATER_BENCH_ONLY").unwrap_or_default();
    println!(
        "{} rounds, batches of {BATCH}, ids of {ID_LEN} B",
        scale.rounds
    );
    println!(
        "{:<72} {:>12} {:>12} {:>22}  target",
        "figure", "floor", "engine", "median (least..most)"
    );
    type Section = (&'static str, fn(Scale));
    let sections: [Section; 6] = [
        ("unchanged", unchanged),
        ("changed", changed),
        ("drain", drain),
        ("reopen", reopen),
        ("memory", memory),
        ("typed", typed),
    ];
    for (name, section) in sections {
        if only.is_empty() || name == only {
            section(scale);
        }
    }
}

/// The least, the median and the largest of some figures.
#[derive(Clone, Copy)]
struct Spread {
    least: f64,
    median: f64,
    most: f64,
}

impl Spread {
    fn of(mut figures: Vec<f64>) -> Self {
        figures.sort_by(f64::total_cmp);
        Self {
            least: figures[0],
            median: figures[figures.len() / 2],
            most: figures[figures.len() - 1],
        }
    }
}

/// What is asked of a figure.
#[derive(Clone, Copy)]
enum Target {
    AtLeast(f64),
    AtMost(f64),
    None,
}

/// Times of a floor and of the engine, in nanoseconds a record, one of each a round.
#[derive(Default)]
struct Pairs {
    floor: Vec<f64>,
    engine: Vec<f64>,
}

impl Pairs {
    fn push(&mut self, floor: Duration, engine: Duration, records: usize) {
        let each = |time: Duration| time.as_secs_f64() * 1e9 / records as f64;
        self.floor.push(each(floor));
        self.engine.push(each(engine));
    }

    /// Prints the rate of the engine as a share of the floor's.
    fn print(self, figure: &str, target: Target) {
        let pairs = self.floor.iter().zip(&self.engine);
        let ratio = Spread::of(
            pairs
                .map(|(floor, engine)| 100.0 * floor / engine)
                .collect(),
        );
        let each = |times| format!("{:.0} ns/rec", Spread::of(times).median);
        line(
            figure,
            &each(self.floor),
            &each(self.engine),
            ratio,
            "%",
            target,
        );
    }
}

fn line(figure: &str, floor: &str, engine: &str, value: Spread, unit: &str, target: Target) {
    let (target, met) = match target {
        Target::AtLeast(target) => (format!(">= {target} {unit}"), value.median >= target),
        Target::AtMost(target) => (format!("<= {target} {unit}"), value.median <= target),
        Target::None => (String::new(), true),
    };
    let digits = if value.median < 10.0 { 2 } else { 1 };
    let Spread {
        least,
        median,
        most,
    } = value;
    let spread = if least == most {
        format!("{median:.digits$} {unit}")
    } else {
        format!("{median:.digits$} {unit} ({least:.digits$}..{most:.digits$})")
    };
    let verdict = if met { "" } else { "  MISSED" };
    println!("{figure:<72} {floor:>12} {engine:>12} {spread:>22}  {target}{verdict}");
}

fn plain(figure: &str, values: Vec<f64>, unit: &str, target: Target) {
    line(figure, "", "", Spread::of(values), unit, target);
}

/// Runs the floor and the engine over the same batches, some of the one and then some of the
/// other, so that a moment when the machine is slow hits both. The time of each, and how many
/// records the engine changed.
fn in_turn(
    batches: impl Iterator<Item = Range<usize>>,
    mut floor: impl FnMut(Range<usize>),
    mut save: impl FnMut(Range<usize>) -> u64,
) -> (Duration, Duration, u64) {
    const SLICE: usize = 10;
    let batches: Vec<_> = batches.collect();
    let (mut floor_time, mut save_time, mut changed) = (Duration::ZERO, Duration::ZERO, 0);
    for slice in batches.chunks(SLICE) {
        floor_time += timed(|| slice.iter().cloned().for_each(&mut floor)).0;
        let (time, count) = timed(|| slice.iter().cloned().map(&mut save).sum::<u64>());
        save_time += time;
        changed += count;
    }
    (floor_time, save_time, changed)
}

/// The hot path: everything is as it was.
fn unchanged(scale: Scale) {
    for (count, body_len, batch, target) in [
        (scale.records, SMALL, BATCH, Target::AtLeast(35.0)),
        (scale.large, SMALL, BATCH, Target::None),
        (scale.records, SMALL, 100, Target::None),
        (scale.records / 4, LARGE, BATCH, Target::None),
    ] {
        let dir = directory();
        let store = open(dir.path(), true);
        let feed = feed(&store);
        let records = raw_records(0, count, body_len);
        for range in batches(count, BATCH) {
            save_raw(&feed, &records[range]);
        }
        let floor = Hashing::new(&records);
        let mut pairs = Pairs::default();
        for round in 0..=2 * scale.rounds {
            let floor = |range| floor.run(range);
            let save = |range| save_raw(&feed, &records[range]);
            let (hash, save, changed) = in_turn(batches(count, batch), floor, save);
            assert_eq!(changed, 0);
            // The first round warms up.
            if round > 0 {
                pairs.push(hash, save, count);
            }
        }
        let figure = format!("unchanged, {count} records of {body_len} B, batch {batch}, vs hash");
        pairs.print(&figure, target);
    }
}

/// The other path: everything is new, or everything changed.
fn changed(scale: Scale) {
    for (body_len, durable, space, batch) in [
        (SMALL, true, Space::Allocated, BATCH),
        (SMALL, true, Space::Allocated, SMALL_BATCH),
        (SMALL, true, Space::Written, BATCH),
        (LARGE, true, Space::Allocated, BATCH),
        (LARGE, true, Space::Written, BATCH),
        (SMALL, false, Space::Written, BATCH),
        (LARGE, false, Space::Written, BATCH),
    ] {
        // Of what takes long there are fewer.
        let count = match (body_len, batch) {
            (SMALL, BATCH) => scale.records,
            (_, BATCH) => scale.records / 2,
            _ => scale.records / 5,
        };
        let mut records = raw_records(0, count, body_len);
        let hashing = Hashing::new(&records);
        let floor_dir = directory();
        let appending = Appending::new(floor_dir.path(), &records, space);
        let appending = RefCell::new(appending);
        let floor = |range: Range<usize>, share: usize| {
            hashing.run(range.clone());
            let range = range.start..range.start + range.len() / share;
            appending.borrow_mut().run(range, durable);
        };
        batches(count, batch).for_each(|range| floor(range, 1));

        let (mut initial, mut updated, mut one_percent) =
            (Pairs::default(), Pairs::default(), Pairs::default());
        let (mut framed, mut on_disk) = (Vec::new(), Vec::new());
        let mut generation = 0;
        let measure = |feed: &Feed, records: &[Raw], share: usize, pairs: &mut Pairs| {
            let save = |range| save_raw(feed, &records[range]);
            let ranges = batches(count, batch);
            appending.borrow_mut().renew();
            let (least, time, saved) = in_turn(ranges, |range| floor(range, share), save);
            assert_eq!(saved, count.div_ceil(share) as u64);
            pairs.push(least, time, count);
        };
        for _ in 0..scale.rounds {
            let dir = directory();
            let store = open(dir.path(), durable);
            let feed = feed(&store);
            measure(&feed, &records, 1, &mut initial);

            let before = store
                .stats()
                .expect("a store has statistics")
                .appended_bytes;
            store.flush().expect("a store flushes");
            generation += 1;
            change(&mut records, 1, generation);
            measure(&feed, &records, 1, &mut updated);
            let after = store
                .stats()
                .expect("a store has statistics")
                .appended_bytes;
            framed.push((after - before) as f64 / count as f64);

            store.flush().expect("a store flushes");
            generation += 1;
            change(&mut records, 100, generation);
            measure(&feed, &records, 100, &mut one_percent);
            store.close().expect("a store closes");
            let versions = 2 * count + count.div_ceil(100);
            on_disk.push(file_bytes(dir.path()) as f64 / versions as f64);
        }
        let mode = if durable { "durable" } else { "relaxed" };
        let sync = match (durable, space) {
            (false, _) => "",
            (true, Space::Allocated) => " + sync, allocated",
            (true, Space::Written) => " + sync, written before",
        };
        let small = match batch {
            BATCH => String::new(),
            batch => format!(", batch {batch}"),
        };
        let floor = format!("{mode}, {body_len} B{small}, vs hash + append{sync}");
        let target = if durable {
            Target::AtLeast(40.0)
        } else {
            Target::None
        };
        initial.print(&format!("initial load, {floor}"), target);
        updated.print(&format!("100 % changed, {floor}"), target);
        one_percent.print(&format!("1 % changed, {floor}"), Target::None);
        if durable {
            let limit = Target::AtMost((ID_LEN + body_len + 120) as f64);
            let figure = format!("bytes framed per changed record, {body_len} B");
            plain(&figure, framed, "B", limit);
            let figure = format!("bytes of all files per version, {body_len} B");
            plain(&figure, on_disk, "B", limit);
        }
    }
}

/// The bytes of all files of a store.
fn file_bytes(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).expect("the store's directory can be listed");
    let len = |entry: std::io::Result<std::fs::DirEntry>| {
        let entry = entry.expect("the store's directory can be listed");
        let meta = entry.metadata().expect("a file has a length");
        if meta.is_dir() {
            file_bytes(&entry.path())
        } else {
            meta.len()
        }
    };
    entries.map(len).sum()
}

/// A consumer that reads everything.
fn drain(scale: Scale) {
    let count = scale.large;
    let dir = directory();
    fill(dir.path(), count, SMALL);
    let store = open(dir.path(), true);
    let feed = feed(&store);
    for (limit, target) in [(1000, Target::AtLeast(2.0)), (100, Target::None)] {
        let mut rates = Vec::new();
        for round in 0..=scale.rounds {
            let (time, (records, bytes)) = timed(|| drain_all(&feed, limit));
            assert_eq!((records, bytes), (count, count * SMALL));
            if round > 0 {
                rates.push(count as f64 / 1e6 / time.as_secs_f64());
            }
        }
        plain(
            &format!("drain of {count}, {SMALL} B, page {limit}"),
            rates,
            "M/s",
            target,
        );
    }
}

/// Reads a feed from its beginning; records and bytes of payload.
fn drain_all(feed: &Feed, limit: usize) -> (usize, usize) {
    let (mut records, mut bytes) = (0, 0);
    let mut after = None;
    loop {
        let list = List::new().after(after).limit(limit);
        let page = feed.list(&list).expect("a page can be read");
        for record in page.iter() {
            records += black_box(record.id).len() / ID_LEN;
            bytes += record.payload.map_or(0, <[u8]>::len);
        }
        after = Some(page.resume_cursor());
        if !page.has_more() {
            return (records, bytes);
        }
    }
}

/// Opening a large store after a clean close, and the first save then.
fn reopen(scale: Scale) {
    let count = scale.large;
    let dir = directory();
    fill(dir.path(), count, SMALL);
    let mut batch = raw_records(0, BATCH, SMALL);
    let mut generation = 0;
    for cold in [false, true] {
        let (mut opens, mut saves) = (Vec::new(), Vec::new());
        for _ in 0..scale.rounds {
            if cold && !drop_cache(dir.path()) {
                return;
            }
            // One record in a hundred is another than in the round before.
            renew(&mut batch, &mut 0);
            generation += 1;
            change(&mut batch, 100, generation);
            let (time, store) = timed(|| open(dir.path(), true));
            opens.push(time.as_secs_f64() * 1e3);
            let (time, changed) = timed(|| save_raw(&feed(&store), &batch));
            assert!(changed > 0);
            saves.push(time.as_secs_f64() * 1e3);
            store.close().expect("a store closes");
        }
        let cache = if cold { "cold" } else { "warm" };
        let figure = format!("open {count} records after a clean close, {cache}");
        plain(&figure, opens, "ms", Target::AtMost(100.0));
        plain(
            &format!("first save after it, {cache}"),
            saves,
            "ms",
            Target::AtMost(300.0),
        );
    }
}

/// Makes the operating system forget what it has read of the files; whether it can.
#[cfg(target_os = "linux")]
#[expect(
    clippy::disallowed_methods,
    reason = "the files' pages are dropped behind the engine's back"
)]
fn drop_cache(dir: &Path) -> bool {
    for entry in std::fs::read_dir(dir).expect("the store's directory can be listed") {
        let path = entry.expect("the store's directory can be listed").path();
        if path.is_dir() {
            drop_cache(&path);
            continue;
        }
        let file = std::fs::File::open(path).expect("a file can be opened");
        file.sync_all().expect("a file can be synced");
        let advice = rustix::fs::Advice::DontNeed;
        rustix::fs::fadvise(&file, 0, None, advice).expect("advice is taken");
    }
    true
}

#[cfg(not(target_os = "linux"))]
fn drop_cache(_dir: &Path) -> bool {
    false
}

/// Memory of the index: as it grew, and as it was loaded.
fn memory(scale: Scale) {
    let count = scale.large;
    let dir = directory();
    let each = |feed: &Feed, live: usize| {
        let stats = feed.stats().expect("a feed has statistics");
        assert_eq!(stats.live, live as u64);
        stats.index_bytes as f64 / live as f64
    };
    let store = open(dir.path(), false);
    let contacts = feed(&store);
    let mut batch = raw_records(0, BATCH, 8);
    let (mut next, mut growing) = (0, Vec::new());
    for saved in 1..=count / BATCH {
        renew(&mut batch, &mut next);
        save_raw(&contacts, &batch);
        if saved * 4 > count / BATCH {
            growing.push(each(&contacts, saved * BATCH));
        }
    }
    let loaded = each(&contacts, count);
    drop(contacts);
    store.close().expect("a store closes");
    let store = open(dir.path(), false);
    let contacts = feed(&store);
    save_raw(&contacts, &batch);
    let target = Target::AtMost(48.0);
    plain(
        &format!("index per record, {count} saved"),
        vec![loaded],
        "B",
        target,
    );
    plain(
        "index per record, at any moment of the load",
        growing,
        "B",
        target,
    );
    let reopened = each(&contacts, count);
    plain("index per record, reopened", vec![reopened], "B", target);
}

/// Typed values and JSON values, and what of their cost is not the engine's.
fn typed(scale: Scale) {
    let records = contacts(scale.records);
    let values: Vec<serde_json::Value> = records
        .iter()
        .map(|contact| serde_json::to_value(contact).expect("a contact is JSON"))
        .collect();
    json("typed", &records, scale, |records, generation| {
        records
            .iter_mut()
            .for_each(|c: &mut Contact| c.change(generation));
    });
    json("Value", &values, scale, |records, generation| {
        for record in records {
            record["owner_id"] = (1_000_000 + generation).into();
        }
    });
}

fn json<T: Serialize + Clone>(
    name: &str,
    records: &[T],
    scale: Scale,
    change: impl Fn(&mut [T], u64),
) {
    let count = records.len();
    let mut records = records.to_vec();
    let dir = directory();
    let store = open(dir.path(), true);
    let contacts = store.feed("bench", name).expect("the name is valid");
    let opaque = store.feed("bench", "raw").expect("the name is valid");
    let (mut raw, mut share, mut both) = (Pairs::default(), Pairs::default(), Pairs::default());
    let mut text = Vec::new();
    for round in 0..=scale.rounds as u64 {
        change(&mut records, round);
        let (mut saving, mut serializing) = (Duration::ZERO, Duration::ZERO);
        let (mut opaque_saving, mut saving_changed) = (Duration::ZERO, Duration::ZERO);
        for range in batches(count, BATCH) {
            let batch = &records[range];
            let save = || contacts.batch_save(batch).expect("a save succeeds").totals;
            let (time, totals) = timed(save);
            assert_eq!(totals.changed(), BATCH as u64);
            saving_changed += time;
            let (time, totals) = timed(save);
            assert_eq!(totals.unchanged, BATCH as u64);
            saving += time;
            // The same bytes through the raw interface: what remains is the engine itself.
            let bodies: Vec<Raw> = batch
                .iter()
                .map(|record| {
                    let body = serde_json::to_vec(record).expect("a contact is JSON");
                    let id = serde_json::to_value(record).expect("a contact is JSON")["id"].clone();
                    (id.as_str().unwrap_or_default().to_owned(), body)
                })
                .collect();
            save_raw(&opaque, &bodies);
            let (time, changed) = timed(|| save_raw(&opaque, &bodies));
            assert_eq!(changed, 0);
            opaque_saving += time;
            let (time, ()) = timed(|| {
                text.clear();
                for record in batch {
                    serde_json::to_writer(&mut text, record).expect("a contact is JSON");
                }
                black_box(&text);
            });
            serializing += time;
        }
        if round > 0 {
            raw.push(opaque_saving, saving, count);
            share.push(serializing, saving, count);
            both.push(serializing, saving_changed, count);
        }
    }
    let len = text.len() / BATCH;
    let rest = share.engine.iter().zip(&share.floor).zip(&raw.floor);
    let ids: Vec<f64> = rest.map(|((save, text), raw)| save - text - raw).collect();
    let figure = format!("{name}, unchanged, {len} B: serde_json::to_writer, share");
    share.print(&figure, Target::None);
    raw.print(
        &format!("{name}, unchanged, {len} B: raw save of the text, share"),
        Target::None,
    );
    plain(
        &format!("{name}, unchanged: the rest (finding ids)"),
        ids,
        "ns/rec",
        Target::None,
    );
    let figure = format!("{name}, 100 % changed, durable: serde_json::to_writer, share");
    both.print(&figure, Target::None);
}
