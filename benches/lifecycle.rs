//! What happens to records besides saving and reading: deletion windows, pruning, replacement.
//! `cargo bench --bench lifecycle`; `--quick` (or `HIGHWATER_BENCH_QUICK=1`) makes a smoke test.
//!
//! As in `figures`, what must hold is a ratio, measured in turns in one process.
#![allow(
    missing_docs,
    reason = "a benchmark has no readers of its documentation"
)]

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::{Random, Raw, SMALL, batches, directory, feed, open, raw_records, save_raw, timed};
use highwater::{Feed, List, Oldest, Store, Sweep};

#[allow(dead_code, reason = "every benchmark uses its part")]
mod common;

const BATCH: usize = 1000;

fn main() {
    let given = |name| std::env::args().any(|arg| arg == name);
    let quick = given("--quick")
        || !given("--bench")
        || std::env::var_os("HIGHWATER_BENCH_QUICK").is_some();
    let (records, rounds) = if quick { (20_000, 3) } else { (1_000_000, 9) };
    println!(
        "{records} records of {SMALL} B, batches of {BATCH}, {rounds} rounds where it says median"
    );
    let only = std::env::var("HIGHWATER_BENCH_ONLY").unwrap_or_default();
    let wanted = |name| only.is_empty() || only == name;
    if wanted("window") {
        window(records, rounds);
    }
    if wanted("sweep") {
        sweep(records, 100);
        sweep(records, 1);
    }
    if wanted("prune") {
        prune(records);
    }
    if wanted("replace") {
        replace(records);
    }
}

fn row(figure: &str, value: String) {
    println!("{figure:<76} {value}");
}

fn millis(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

fn filled(records: &[Raw]) -> (tempfile::TempDir, Store, Feed) {
    let dir = directory();
    let store = open(dir.path(), false);
    save_all(&feed(&store), records);
    store.close().expect("a store closes");
    let store = open(dir.path(), true);
    let feed = feed(&store);
    // Has the index loaded.
    let _ = feed.get(&[&records[0].0]).expect("a record");
    (dir, store, feed)
}

fn save_all(feed: &Feed, records: &[Raw]) {
    for batch in batches(records.len(), BATCH) {
        save_raw(feed, &records[batch]);
    }
}

/// Saving what is unchanged, inside and outside of an open window, and what the marks cost.
fn window(count: usize, rounds: usize) {
    let loaded = raw_records(0, count.min(200_000), SMALL);
    let (_dir, store, feed) = filled(&loaded);
    let mut scattered = loaded.clone();
    let mut random = Random::new(7);
    for at in (1..scattered.len()).rev() {
        scattered.swap(at, (random.next() % (at as u64 + 1)) as usize);
    }
    for (order, records) in [
        ("in the order they were saved", &loaded),
        ("in random order", &scattered),
    ] {
        let mut ratios = Vec::new();
        let mut bytes = 0;
        for _ in 0..rounds {
            let outside = timed(|| save_all(&feed, records)).0;
            feed.track_deletes_start().expect("a window opens");
            let before = store.stats().expect("statistics").appended_bytes;
            let inside = timed(|| save_all(&feed, records)).0;
            bytes = store.stats().expect("statistics").appended_bytes - before;
            let _ = feed
                .track_deletes_end(&Sweep::new())
                .expect("a window closes");
            ratios.push(inside.as_secs_f64() / outside.as_secs_f64());
        }
        row(
            &format!("unchanged {order}: time inside a window / outside, median (<= 1.25)"),
            format!("{:.2}", median(ratios)),
        );
        row(
            &format!("unchanged {order}: bytes of log a record (about <= 2)"),
            format!("{:.2}", bytes as f64 / records.len() as f64),
        );
    }
}

/// Closing a window in which every `gone`-th record was not seen, while somebody reads.
fn sweep(count: usize, gone: usize) {
    let records = raw_records(0, count, SMALL);
    let (_dir, store, feed) = filled(&records);
    feed.track_deletes_start().expect("a window opens");
    let seen: Vec<Raw> = if gone == 1 {
        Vec::new()
    } else {
        let kept = records
            .into_iter()
            .enumerate()
            .filter(|(at, _)| at % gone != 0);
        kept.map(|(_, record)| record).collect()
    };
    for batch in seen.chunks(BATCH) {
        save_raw(&feed, batch);
    }
    let before = store.stats().expect("statistics").appended_bytes;
    let done = AtomicBool::new(false);
    let (time, swept, held_up) = std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut longest = Duration::ZERO;
            while !done.load(Ordering::Relaxed) {
                let start = Instant::now();
                let page = feed.list(&List::new()).expect("a page");
                assert_eq!(page.len(), 100);
                longest = longest.max(start.elapsed());
                std::thread::sleep(Duration::from_micros(200));
            }
            longest
        });
        let start = Instant::now();
        let swept = feed
            .track_deletes_end(&Sweep::new())
            .expect("a window closes");
        let time = start.elapsed();
        done.store(true, Ordering::Relaxed);
        (time, swept, reader.join().expect("the reader ends"))
    });
    let bytes = store.stats().expect("statistics").appended_bytes - before;
    let what = format!("track_deletes_end over {count}, {} deleted", swept.deleted);
    row(&what, millis(time));
    row(
        &format!("{what}: bytes of log a deletion"),
        format!("{:.1}", bytes as f64 / swept.deleted as f64),
    );
    row(
        &format!("{what}: longest page of a reader meanwhile"),
        millis(held_up),
    );
}

fn prune(count: usize) {
    let (_dir, _store, feed) = filled(&raw_records(0, count, SMALL));
    let until = feed.last_cursor().expect("a cursor").expect("records");
    let all = Oldest::until(until);
    let (dry, ()) = timed(|| drop(feed.prune(&all.dry_run(true))));
    row(&format!("prune of {count}, dry run"), millis(dry));
    let (time, ()) = timed(|| {
        let pruned = feed.prune(&all).expect("pruned");
        assert_eq!(pruned.records, count as u64);
    });
    row(&format!("prune of {count}"), millis(time));
}

fn replace(count: usize) {
    let records = raw_records(0, count, SMALL);
    let (_dir, store, feed) = filled(&records);
    let other = store.feed("bench", "Other").expect("the name is valid");
    let (plain, ()) = timed(|| save_all(&other, &records));
    row(
        &format!("load of {count} into another feed, to compare"),
        millis(plain),
    );
    let replacement = feed.replace().expect("a replacement begins");
    let (load, ()) = timed(|| save_all(replacement.feed(), &records));
    row(
        &format!("replace of {count}: filling the new epoch"),
        millis(load),
    );
    let (commit, _) = timed(|| replacement.commit().expect("committed"));
    row(&format!("replace of {count}: the commit"), millis(commit));
    assert_eq!(feed.count().expect("a count"), count as u64);
}
