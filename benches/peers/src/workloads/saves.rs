//! Loads, re-syncs, drains, look-ups and sweeps of one feed.

use anyhow::{Result, ensure};

use super::BATCH;
use super::bench::{Bench, drain, touch};
use crate::cache::{Action, Cache, Totals};
use crate::data::{BODY_LEN, ID_LEN, Random};
use crate::measure::{self, Times};

/// Re-syncs that write little are short, and measured more than once.
const SHORT_PASSES: usize = 3;
const CHURN_PASSES: usize = 5;

/// Everything that a durable cache does.
pub(super) fn durable<C: Cache>(mut bench: Bench<C>) -> Result<()> {
    bench.load("load-durable")?;
    bench.resync("unchanged", None, SHORT_PASSES)?;
    bench.resync("1%-durable", Some(100), SHORT_PASSES)?;
    bench.resync("10%-durable", Some(10), 1)?;
    bench.resync("100%-durable", Some(1), 1)?;
    drains(&bench)?;
    gets(&bench, "get-100", 100)?;
    gets(&bench, "get-1", 1)?;
    sweep(&mut bench)?;
    bench.outcome("memory", bench.peak_memory()?).print()?;
    close(bench, "disk")
}

/// Saves that leave syncing to the end.
pub(super) fn relaxed<C: Cache>(mut bench: Bench<C>) -> Result<()> {
    bench.load("load-relaxed")?;
    bench.resync("1%-relaxed", Some(100), SHORT_PASSES)?;
    bench.resync("10%-relaxed", Some(10), 1)?;
    bench.resync("100%-relaxed", Some(1), 1)?;
    bench
        .model
        .check(&bench.cache, &bench.feed, &bench.records)?;
    bench.cache.settle()
}

/// Changes everything again and again, until what an engine puts off has to be done.
pub(super) fn churn<C: Cache>(mut bench: Bench<C>) -> Result<()> {
    bench.save_all(&mut Times::default())?;
    for record in 0..bench.records.len() {
        bench.model.change(record, Action::Added);
    }
    let (mut times, before) = (Times::default(), measure::written()?);
    for _ in 0..CHURN_PASSES {
        bench.pass(Some(1), &mut times)?;
    }
    let records = CHURN_PASSES * bench.records.len();
    let outcome = bench.outcome("churn", records as f64 / times.seconds());
    bench.checked(outcome)?.print()?;

    let changed = (records * (ID_LEN + BODY_LEN)) as f64;
    let (dir, live) = (bench.dir.clone(), bench.live_bytes());
    let mut figure = bench.outcome("churn-written", 0.0);
    bench.cache.settle()?;
    figure.value = (measure::written()? - before) as f64 / changed;
    figure.print()?;
    "churn-disk".clone_into(&mut figure.workload);
    figure.value = measure::disk(&dir)? as f64 / live;
    figure.print()
}

fn drains<C: Cache>(bench: &Bench<C>) -> Result<()> {
    for (workload, limit) in [("drain-1000", 1000), ("drain-100", 100)] {
        let mut times = Times::default();
        for _ in 0..SHORT_PASSES {
            let count = times.time(|| drain(&bench.cache, &bench.feed, limit))?;
            ensure!(count == bench.records.len(), "a drain had {count} records");
        }
        let records = SHORT_PASSES * bench.records.len();
        let outcome = bench.outcome(workload, records as f64 / times.seconds());
        bench.checked(outcome)?.print()?;
    }
    Ok(())
}

fn gets<C: Cache>(bench: &Bench<C>, workload: &str, size: usize) -> Result<()> {
    let (mut times, mut random) = (Times::default(), Random::new(size as u64));
    let calls = bench.records.len() / 10 / size.min(10);
    let mut count = 0;
    for _ in 0..calls {
        let any = |_| {
            let at = random.next() % bench.records.len() as u64;
            bench.records[at as usize].0.as_str()
        };
        let ids: Vec<&str> = (0..size).map(any).collect();
        times.time(|| {
            bench.cache.get(&bench.feed, &ids, &mut |shown| {
                count += 1;
                touch(shown);
            })
        })?;
    }
    ensure!(count == calls * size, "{count} records were found");
    let mut outcome = bench.outcome(workload, count as f64 / times.seconds());
    outcome.p50 = times.percentile(0.5);
    outcome.p99 = times.percentile(0.99);
    outcome.print()
}

/// A full re-sync that does not bring every hundredth record, which is then deleted.
fn sweep<C: Cache>(bench: &mut Bench<C>) -> Result<()> {
    let kept = |at: usize| at % 100 != 7;
    let numbered = bench.records.iter().enumerate();
    let brought = numbered.filter(|(at, _)| kept(*at));
    let brought: Vec<_> = brought.map(|(_, record)| record.clone()).collect();
    let mut times = Times::default();
    times.time(|| bench.cache.sweep_begin(&bench.feed))?;
    let mut totals = Totals::default();
    for batch in brought.chunks(BATCH) {
        totals += times.time(|| bench.cache.save(&bench.feed, batch))?;
    }
    ensure!(totals.unchanged == brought.len() as u64, "{totals:?}");
    let mut end = Times::default();
    let deleted = end.time(|| bench.cache.sweep_end(&bench.feed))?;
    let unseen = bench.records.len() - brought.len();
    ensure!(deleted == unseen as u64, "{deleted} records were deleted");

    for at in (0..bench.records.len()).filter(|at| !kept(*at)) {
        bench.model.change(at, Action::Deleted);
    }
    let seconds = times.seconds() + end.seconds();
    let outcome = bench.outcome("sweep", brought.len() as f64 / seconds);
    bench.checked(outcome)?.print()?;
    bench.outcome("sweep-end", end.seconds() * 1e3).print()
}

fn close<C: Cache>(bench: Bench<C>, workload: &str) -> Result<()> {
    let (dir, live) = (bench.dir.clone(), bench.live_bytes());
    let mut figure = bench.outcome(workload, 0.0);
    bench.cache.settle()?;
    figure.value = measure::disk(&dir)? as f64 / live;
    figure.print()
}
