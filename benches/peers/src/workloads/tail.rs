//! A reader that follows a writer: how soon it sees a commit, and what it costs the writer.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::bench::{Bench, touch};
use crate::cache::{Action, Cache};
use crate::measure::{Outcome, Times};

/// The records of a batch here.
const BATCH: usize = 100;
const BATCHES: usize = 1000;

/// When each cursor was reached.
type Reached<C> = Vec<(<C as Cache>::Cursor, Instant)>;

pub(super) fn run<C: Cache>(mut bench: Bench<C>) -> Result<()> {
    bench.save_all(&mut Times::default())?;
    for record in 0..bench.records.len() {
        bench.model.change(record, Action::Added);
    }
    // Each record changes once at most, so the reader gets each change.
    let batches = BATCHES.min(bench.records.len() / BATCH);
    let start = bench.cache.last(&bench.feed)?;
    bench.revise(1);

    let (mut times, failed) = (Times::default(), AtomicBool::new(false));
    let (saved, seen) = std::thread::scope(|scope| {
        let reader = scope.spawn(|| read(&bench, start, batches * BATCH, &failed));
        let saved = write(&bench, batches, &mut times);
        failed.store(saved.is_err(), Ordering::Relaxed);
        let seen = reader.join().ok().context("the reader panicked")?;
        anyhow::Ok((saved?, seen?))
    })?;

    let visible = visible(&saved, &seen)?;
    let rate = (batches * BATCH) as f64 / times.seconds();
    let outcome = Outcome {
        p50: times.percentile(0.5),
        p99: times.percentile(0.99),
        ..bench.outcome("tail", rate)
    };
    outcome.print()?;
    let p99 = visible.percentile(0.99);
    let outcome = Outcome {
        p50: visible.percentile(0.5),
        p99,
        ..bench.outcome("tail-visible", p99.unwrap_or_default())
    };
    outcome.print()?;
    bench.cache.settle()
}

/// Saves batches, and notes when each save returned and where the feed ended then.
fn write<C: Cache>(bench: &Bench<C>, batches: usize, times: &mut Times) -> Result<Reached<C>> {
    let mut saved = Vec::new();
    for batch in bench.records.chunks(BATCH).take(batches) {
        let totals = times.time(|| bench.cache.save(&bench.feed, batch))?;
        let now = Instant::now();
        ensure!(totals.updated == BATCH as u64, "a batch saved {totals:?}");
        let last = bench.cache.last(&bench.feed)?;
        saved.push((last.context("the feed is empty")?, now));
    }
    Ok(saved)
}

/// Follows the feed until it has seen `expected` changes.
fn read<C: Cache>(
    bench: &Bench<C>,
    mut after: Option<C::Cursor>,
    expected: usize,
    failed: &AtomicBool,
) -> Result<Reached<C>> {
    let (mut seen, mut count) = (Vec::new(), 0);
    while count < expected {
        ensure!(!failed.load(Ordering::Relaxed), "the writer failed");
        let (cache, timeout) = (&bench.cache, Duration::from_millis(100));
        if !cache.wait(&bench.feed, after, timeout)? {
            continue;
        }
        let page = cache.page(&bench.feed, after, 1000, &mut |shown| {
            count += 1;
            touch(shown);
        })?;
        after = Some(page.resume);
        seen.push((page.resume, Instant::now()));
    }
    ensure!(count == expected, "the reader saw {count} changes");
    Ok(seen)
}

/// How long after each save returned the reader had seen its last change. A reader that is faster
/// than the way back from the save has waited for nothing.
fn visible<K: Ord>(saved: &[(K, Instant)], seen: &[(K, Instant)]) -> Result<Times> {
    let mut times = Times::default();
    for (cursor, returned) in saved {
        let at = seen.partition_point(|(reached, _)| reached < cursor);
        let (_, reached) = seen.get(at).context("a change was never seen")?;
        times.add(reached.saturating_duration_since(*returned));
    }
    Ok(times)
}
