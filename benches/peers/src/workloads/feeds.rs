//! Many small feeds, each saved in one batch.

use std::path::Path;

use anyhow::{Result, ensure};

use super::bench::{Bench, drain};
use crate::cache::{Cache, Durability, Totals};
use crate::measure::{self, Outcome, Times};

/// The records of a feed.
const FEED: usize = 100;
/// How many records the feeds have together, for each record of the other workloads: 10,000 feeds
/// beside 200,000 records.
const TIMES: usize = 5;

pub(super) fn run<C: Cache>(
    engine: &str,
    records: usize,
    dir: &Path,
    durability: Durability,
) -> Result<()> {
    let bench = Bench::<C>::open(engine, records * TIMES, dir, durability)?;
    let workload = match durability {
        Durability::Durable => "feeds-load",
        Durability::Relaxed => "feeds-load-relaxed",
    };
    let count = bench.records.len() as u64;
    let loaded = save(&bench, workload, durability)?;
    let expected = Totals {
        added: count,
        ..Totals::default()
    };
    ensure!(loaded == expected, "feeds were loaded as {loaded:?}");
    if durability == Durability::Durable {
        let again = save(&bench, "feeds-unchanged", durability)?;
        let unchanged = again.unchanged;
        ensure!(unchanged == count, "{unchanged} records were unchanged");
        drains(&bench)?;
        let memory = bench.peak_memory()?;
        bench.outcome("feeds-memory", memory).print()?;
    }
    bench.cache.settle()
}

/// Saves each feed in a batch.
fn save<C: Cache>(bench: &Bench<C>, workload: &str, durability: Durability) -> Result<Totals> {
    let (mut times, written) = (Times::default(), measure::written()?);
    let mut totals = Totals::default();
    for (number, batch) in (0..).zip(bench.records.chunks(FEED)) {
        totals += times.time(|| {
            let feed = bench.cache.feed(number)?;
            bench.cache.save(&feed, batch)
        })?;
    }
    if durability == Durability::Relaxed {
        times.time(|| bench.cache.sync())?;
    }
    let outcome = Outcome {
        p50: times.percentile(0.5),
        p99: times.percentile(0.99),
        written: Some(measure::written()? - written),
        ..bench.outcome(workload, bench.records.len() as f64 / times.seconds())
    };
    outcome.print()?;
    Ok(totals)
}

/// Drains each feed.
fn drains<C: Cache>(bench: &Bench<C>) -> Result<()> {
    let mut times = Times::default();
    for (number, batch) in (0..).zip(bench.records.chunks(FEED)) {
        let count = times.time(|| {
            let feed = bench.cache.feed(number)?;
            drain(&bench.cache, &feed, 1000)
        })?;
        ensure!(count == batch.len(), "feed {number} has {count} records");
    }
    let rate = bench.records.len() as f64 / times.seconds();
    bench.outcome("feeds-drain", rate).print()
}
