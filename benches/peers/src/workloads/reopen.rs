//! Opening what a killed process left.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::BATCH;
use super::bench::{Bench, touch};
use crate::cache::{Cache, Durability};
use crate::data;
use crate::measure::{Outcome, Times};

/// What a process prints when it can be killed.
pub(crate) const READY: &str = "ready";

/// Loads a cache and waits to be killed.
pub(super) fn prepare<C: Cache>(bench: Bench<C>) -> Result<()> {
    bench.save_all(&mut Times::default())?;
    println!("{READY}");
    std::thread::sleep(Duration::from_secs(600));
    Ok(())
}

/// Opens the cache, reads its first page and saves a batch that it holds.
pub(super) fn run<C: Cache>(engine: &str, records: usize, dir: &Path) -> Result<()> {
    let batch = data::records(0, BATCH.min(records));
    let start = Instant::now();
    let cache = C::open(dir, Durability::Durable)?;
    let feed = cache.feed(1)?;
    let opened = start.elapsed();
    let mut count = 0;
    cache.page(&feed, None, batch.len(), &mut |shown| {
        count += 1;
        touch(shown);
    })?;
    let read = start.elapsed();
    let totals = cache.save(&feed, &batch)?;
    let saved = start.elapsed();
    ensure!(count == batch.len(), "the first page had {count} records");
    ensure!(totals.unchanged == batch.len() as u64, "{totals:?}");
    let count = super::bench::drain(&cache, &feed, 1000)?;
    ensure!(count == records, "{count} records survived");

    let times = [
        ("reopen", opened),
        ("reopen-page", read),
        ("reopen-save", saved),
    ];
    for (workload, time) in times {
        let outcome = Outcome {
            engine: engine.to_owned(),
            workload: workload.to_owned(),
            value: time.as_secs_f64() * 1e3,
            p50: None,
            p99: None,
            written: None,
            checksum: None,
        };
        outcome.print()?;
    }
    cache.settle()
}
