//! What compaction costs, and what it keeps a store's size to, while everything is rewritten again
//! and again. `cargo bench --bench compaction`; `--quick` makes a smoke test.
//!
//! Latencies with compaction and without are measured in turns in one process. Live bytes are
//! entries, ids and payloads of the live records; space is the length of all files of the store.
#![allow(
    missing_docs,
    reason = "a benchmark has no readers of its documentation"
)]

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::{ID_LEN, Random, Raw, SMALL, directory, feed, raw_records};
use highwater::{Durability, Feed, Options, Store};

#[allow(dead_code, reason = "every benchmark uses its part")]
mod common;

/// Bytes of an entry in the log.
const ENTRY: usize = 56;

/// What is rewritten.
#[derive(Clone, Copy, PartialEq)]
enum Churn {
    /// Every record once a round, in the order of its load.
    Ordered,
    /// Every record once a round, in another order each time.
    Shuffled,
    /// A tenth of the records gets nine tenths of the updates.
    Skewed,
}

#[derive(Clone, Copy)]
struct Case {
    name: &'static str,
    churn: Churn,
    relaxed: bool,
    batch: usize,
}

/// What a stretch of rounds took.
#[derive(Default)]
struct Seen {
    latencies: Vec<Duration>,
    space: Vec<f64>,
    changed: u64,
    written: u64,
}

fn main() {
    let given = |name| std::env::args().any(|arg| arg == name);
    let quick = given("--quick")
        || !given("--bench")
        || std::env::var_os("HIGHWATER_BENCH_QUICK").is_some();
    let (records, rounds) = if quick { (20_000, 3) } else { (200_000, 6) };
    let live = records * (ENTRY + ID_LEN + SMALL);
    println!(
        "{records} records of {SMALL} B, {} MB live, {rounds} rounds of full churn each",
        live / 1_000_000
    );
    println!(
        "{:<30} {:>6} {:>6} {:>8} {:>8}  {:>24}  {:>24}",
        "", "space", "", "written", "without", "with: batch ms", "without: batch ms"
    );
    println!(
        "{:<30} {:>6} {:>6} {:>8} {:>8}  {:>7} {:>7} {:>8}  {:>7} {:>7} {:>8}",
        "", "median", "max", "/changed", "/changed", "p50", "p99", "max", "p50", "p99", "max"
    );
    let only = std::env::var("HIGHWATER_BENCH_ONLY").unwrap_or_default();
    for relaxed in [false, true] {
        for (name, churn, batch) in [
            ("re-sync, same order", Churn::Ordered, 1000),
            ("re-sync, other order", Churn::Shuffled, 1000),
            ("skewed", Churn::Skewed, 1000),
            ("skewed, batches of 100", Churn::Skewed, 100),
        ] {
            let case = Case {
                name,
                churn,
                relaxed,
                batch,
            };
            if only.is_empty() || name.contains(&only) {
                measure(case, records, rounds);
            }
        }
    }
    if only.is_empty() || only == "scattered" {
        scattered(if quick { 2_000 } else { 100_000 });
    }
}

fn open(dir: &Path, relaxed: bool, compaction: bool) -> Store {
    let interval = Duration::from_millis(100);
    let durability = if relaxed {
        Durability::Relaxed { interval }
    } else {
        Durability::Durable
    };
    let options = Options::new().durability(durability).compaction(compaction);
    options.open(dir).expect("a store opens")
}

fn measure(case: Case, count: usize, rounds: usize) {
    // Two stores in turns, so that both see the same machine.
    let dirs = [directory(), directory()];
    let stores = [
        open(dirs[0].path(), case.relaxed, true),
        open(dirs[1].path(), case.relaxed, false),
    ];
    let mut records = [(); 2].map(|()| raw_records(0, count, SMALL));
    let mut seen = [Seen::default(), Seen::default()];
    let live = (count * (ENTRY + ID_LEN + SMALL)) as f64;
    let mut random = Random::new(11);
    for round in 0..rounds {
        for (at, store) in stores.iter().enumerate() {
            let mut part = Random::new(random.next());
            let churned = if round == 0 {
                Churn::Ordered
            } else {
                case.churn
            };
            let order = order(churned, count, &mut part);
            let feed = feed(store);
            // The load, and the round in which nothing can be compacted yet, are not counted.
            let mut uncounted = Seen::default();
            let counted = round >= 2;
            let into = if counted {
                &mut seen[at]
            } else {
                &mut uncounted
            };
            churn(
                &case,
                &feed,
                &mut records[at],
                &order,
                dirs[at].path(),
                live,
                round,
                into,
            );
        }
    }
    let [mut with, mut without] = seen;
    with.space.sort_by(f64::total_cmp);
    let percentiles = |seen: &mut Seen| {
        seen.latencies.sort();
        let at = |part: f64| {
            let index = (seen.latencies.len() as f64 * part) as usize;
            let found = seen.latencies.get(index.min(seen.latencies.len() - 1));
            found.map_or(0.0, |time| time.as_secs_f64() * 1e3)
        };
        format!("{:>7.2} {:>7.2} {:>8.1}", at(0.5), at(0.99), at(1.0))
    };
    let name = format!(
        "{}{}",
        case.name,
        if case.relaxed { ", relaxed" } else { "" }
    );
    let (compacted, plain) = (percentiles(&mut with), percentiles(&mut without));
    println!(
        "{name:<30} {:>6.2} {:>6.2} {:>8.2} {:>8.2}  {compacted}  {plain}",
        with.space[with.space.len() / 2],
        with.space[with.space.len() - 1],
        with.written as f64 / with.changed as f64,
        without.written as f64 / without.changed as f64,
    );
    for store in stores {
        store.close().expect("a store closes");
    }
}

fn order(churn: Churn, count: usize, random: &mut Random) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    match churn {
        Churn::Ordered => {}
        Churn::Shuffled => {
            for at in (1..count).rev() {
                order.swap(at, (random.next() % (at as u64 + 1)) as usize);
            }
        }
        Churn::Skewed => {
            let hot = count as u64 / 10;
            for at in &mut order {
                *at = match random.next() % 10 {
                    0 => (hot + random.next() % (count as u64 - hot)) as usize,
                    _ => (random.next() % hot) as usize,
                };
            }
        }
    }
    order
}

#[allow(clippy::too_many_arguments, reason = "it is one loop of its caller")]
fn churn(
    case: &Case,
    feed: &Feed,
    records: &mut [Raw],
    order: &[usize],
    dir: &Path,
    live: f64,
    round: usize,
    seen: &mut Seen,
) {
    let before = written_bytes();
    let (done, other) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let sampler = scope.spawn(|| {
            let mut space = Vec::new();
            while !done.load(Ordering::Relaxed) {
                space.push(size_of_files(dir) as f64 / live);
                std::thread::sleep(Duration::from_millis(20));
            }
            space
        });
        for (step, batch) in order.chunks(case.batch).enumerate() {
            let mut named = std::collections::BTreeSet::new();
            let mut changed = Vec::with_capacity(batch.len());
            for at in batch.iter().filter(|at| named.insert(**at)) {
                let stamp = (round * 1_000_000 + step + 1) as u64;
                records[*at].1[..8].copy_from_slice(&stamp.to_le_bytes());
                changed.push(records[*at].clone());
            }
            let start = Instant::now();
            let applied = feed.batch_save_raw(&changed).expect("a batch is saved");
            seen.latencies.push(start.elapsed());
            let bytes = applied.totals.changed() * (ENTRY + ID_LEN + SMALL) as u64;
            other.fetch_add(bytes, Ordering::Relaxed);
            // A provider that is asked for pages is slower than a disk.
            std::thread::sleep(Duration::from_micros(case.batch as u64 * 2));
        }
        done.store(true, Ordering::Relaxed);
        seen.space.extend(sampler.join().expect("the sampler ends"));
    });
    seen.changed += other.load(Ordering::Relaxed);
    seen.written += written_bytes().saturating_sub(before);
}

/// What has been written so far: by the disk that `HIGHWATER_BENCH_DISK` names (`vda`), which is exact
/// while nothing else uses it, or else by this process. The latter counts a whole folio of the page
/// cache, up to a megabyte, for each small append into space that was written before.
fn written_bytes() -> u64 {
    if let Some(disk) = std::env::var_os("HIGHWATER_BENCH_DISK") {
        let stat = Path::new("/sys/block").join(disk).join("stat");
        let text = std::fs::read_to_string(stat).expect("the disk has counters");
        let sectors = text.split_whitespace().nth(6).and_then(|n| n.parse().ok());
        return sectors.map_or(0, |sectors: u64| sectors * 512);
    }
    let text = std::fs::read_to_string("/proc/self/io").unwrap_or_default();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("write_bytes: "));
    line.and_then(|bytes| bytes.trim().parse().ok())
        .unwrap_or(0)
}

fn size_of_files(dir: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return 0;
    };
    let len = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(found) if found.is_dir() => size_of_files(&entry.path()),
        Ok(found) => found.len(),
        Err(_) => 0,
    };
    entries.flatten().map(len).sum()
}

/// A feed that was written ten records at a time, before and after its frames are put together.
fn scattered(count: usize) {
    let dir = directory();
    // Nothing but the open segment is left alone.
    let options = Options::new().compaction(false).segment_size(4 << 20);
    let options = options.durability(Durability::Relaxed {
        interval: Duration::from_millis(100),
    });
    let store = options.open(dir.path()).expect("a store opens");
    let feed = feed(&store);
    for batch in raw_records(0, count, SMALL).chunks(10) {
        let _ = feed.batch_save_raw(batch).expect("a batch is saved");
    }
    store.flush().expect("flushed");
    let figures = || {
        let start = Instant::now();
        let mut read = 0;
        for record in feed.records(None) {
            let _ = record.expect("a record");
            read += 1;
        }
        assert_eq!(read, count);
        let stats = feed.stats().expect("statistics");
        (start.elapsed(), stats.frames)
    };
    let _ = figures();
    let (before, frames) = figures();
    let _ = store.compact().expect("compacted");
    let (after, packed) = figures();
    println!(
        "scattered: {count} records in batches of 10: {frames} frames, all read in {:.0} ms; \
         compacted: {packed} frames, {:.0} ms",
        before.as_secs_f64() * 1e3,
        after.as_secs_f64() * 1e3
    );
}
