//! What threads gain, and what a reader costs a writer: `cargo bench --bench parallel`.
//!
//! One thread and several take turns in every round; figures are medians of the rounds' ratios.
#![allow(
    missing_docs,
    reason = "a benchmark has no readers of its documentation"
)]

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use common::{Raw, change, directory, open, raw_records, save_raw, timed};
use highwater::{Feed, List, Store};

#[allow(dead_code, reason = "every benchmark uses its part")]
mod common;

const BODY: usize = 300;

fn main() {
    let measured = std::env::args().any(|arg| arg == "--bench");
    let (rounds, records) = if measured { (7, 200_000) } else { (1, 2_000) };
    println!("{rounds} rounds, payloads of {BODY} B; records/s of all threads together");
    println!(
        "{:<56} {:>10} {:>10} {:>8}",
        "", "alone", "together", "ratio"
    );
    two_writers(rounds, records);
    shared_syncs(rounds, records / 50);
    beside_a_reader(rounds, records);
}

/// Saves all records of each thread in its own feed, a batch at a time.
fn save_all(store: &Store, threads: &[Vec<Raw>], batch: usize) -> f64 {
    let feeds: Vec<Feed> = (0..threads.len())
        .map(|number| {
            store
                .feed("bench", &format!("Contact{number}"))
                .expect("the name is valid")
        })
        .collect();
    let (time, ()) = timed(|| {
        thread::scope(|scope| {
            for (feed, records) in feeds.iter().zip(threads) {
                scope.spawn(move || {
                    for batch in records.chunks(batch) {
                        save_raw(feed, batch);
                    }
                });
            }
        });
    });
    threads.iter().map(Vec::len).sum::<usize>() as f64 / time.as_secs_f64()
}

fn line(figure: &str, pairs: &[(f64, f64)]) {
    let median = |mut figures: Vec<f64>| {
        figures.sort_by(f64::total_cmp);
        figures[figures.len() / 2]
    };
    let alone = median(pairs.iter().map(|(alone, _)| *alone).collect());
    let together = median(pairs.iter().map(|(_, together)| *together).collect());
    let ratio = median(
        pairs
            .iter()
            .map(|(alone, together)| together / alone)
            .collect(),
    );
    println!("{figure:<56} {alone:>10.0} {together:>10.0} {ratio:>8.2}");
}

/// Two writers on two feeds, against one.
fn two_writers(rounds: usize, records: usize) {
    let mut threads: Vec<Vec<Raw>> = (0..2)
        .map(|number| raw_records((number * records) as u64, records, BODY))
        .collect();
    let (mut loads, mut changes, mut unchanged) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..rounds as u64 {
        let (one, two) = (directory(), directory());
        let (one, two) = (open(one.path(), false), open(two.path(), false));
        let both = |figures: &mut Vec<(f64, f64)>, threads: &[Vec<Raw>]| {
            let alone = save_all(&one, &threads[..1], 1000);
            figures.push((alone, save_all(&two, threads, 1000)));
        };
        both(&mut loads, &threads);
        both(&mut unchanged, &threads);
        threads
            .iter_mut()
            .for_each(|records| change(records, 1, round + 1));
        both(&mut changes, &threads);
    }
    line("2 writers, relaxed, load, batch 1000", &loads);
    line("2 writers, relaxed, 100 % changed, batch 1000", &changes);
    line("2 writers, unchanged, batch 1000", &unchanged);
}

/// Many writers of small batches share syncs.
fn shared_syncs(rounds: usize, records: usize) {
    let threads: Vec<Vec<Raw>> = (0..16)
        .map(|number| raw_records((number * records) as u64, records, BODY))
        .collect();
    let mut figures = Vec::new();
    for _ in 0..rounds {
        let (one, many) = (directory(), directory());
        let (one, many) = (open(one.path(), true), open(many.path(), true));
        let alone = save_all(&one, &threads[..1], 10);
        figures.push((alone, save_all(&many, &threads, 10)));
    }
    line("16 writers, durable, load, batch 10", &figures);
}

/// A writer alone, and one whose feed is tailed.
fn beside_a_reader(rounds: usize, records: usize) {
    for durable in [true, false] {
        let threads = [raw_records(0, records, BODY)];
        let mut figures = Vec::new();
        for _ in 0..rounds {
            let (alone, tailed) = (directory(), directory());
            let (alone, tailed) = (open(alone.path(), durable), open(tailed.path(), durable));
            let feed = tailed.feed("bench", "Contact0").expect("the name is valid");
            let done = AtomicBool::new(false);
            let before = save_all(&alone, &threads, 1000);
            let beside = thread::scope(|scope| {
                let reader = scope.spawn(|| tail(&feed, &done));
                let rate = save_all(&tailed, &threads, 1000);
                done.store(true, Ordering::Release);
                assert_eq!(reader.join().expect("the reader does not panic"), records);
                rate
            });
            figures.push((before, beside));
        }
        let mode = if durable { "durable" } else { "relaxed" };
        line(
            &format!("a writer beside a reader that tails, {mode}"),
            &figures,
        );
    }
}

/// Reads a feed as it grows, until it was told that nothing comes any more.
fn tail(feed: &Feed, done: &AtomicBool) -> usize {
    let (mut records, mut after) = (0, None);
    loop {
        // Looked at first: what was written before is read after.
        let last = done.load(Ordering::Acquire);
        let page = feed
            .list(&List::new().after(after).limit(1000))
            .expect("a page can be read");
        records += page.len();
        let cursor = page.resume_cursor();
        after = Some(cursor);
        if page.has_more() {
            continue;
        }
        if last {
            return records;
        }
        let waited = feed.wait(Some(cursor), Duration::from_millis(50));
        waited.expect("a store that is open can be waited for");
    }
}
