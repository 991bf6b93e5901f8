//! One feed under test, its records, and what it must hold.

use std::hint::black_box;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};

use super::BATCH;
use crate::cache::{Action, Cache, Durability, Shown, Totals};
use crate::data::{self, BODY_LEN, ID_LEN};
use crate::measure::{self, Outcome, Times};
use crate::model::Model;

/// A cache with one feed.
pub(super) struct Bench<C: Cache> {
    pub(super) engine: String,
    pub(super) dir: PathBuf,
    pub(super) cache: C,
    pub(super) feed: C::Feed,
    pub(super) records: Vec<crate::cache::Record>,
    pub(super) model: Model,
    durability: Durability,
    revision: u64,
    /// The memory that the records take.
    memory: u64,
}

/// A reader that looks at what it reads: at every line of the processor's cache that a body has,
/// so that an engine that shows its map has to bring it in too.
pub(super) fn touch(shown: Shown<'_>) {
    let lines = shown.body.iter().step_by(64);
    black_box(lines.fold(shown.action as u8, |sum, byte| sum ^ byte));
}

/// Drains a feed; how many records there were.
pub(super) fn drain<C: Cache>(cache: &C, feed: &C::Feed, limit: usize) -> Result<usize> {
    let (mut count, mut after, mut has_more) = (0, None, true);
    while has_more {
        let page = cache.page(feed, after, limit, &mut |shown| {
            count += 1;
            touch(shown);
        })?;
        (after, has_more) = (Some(page.resume), page.has_more);
    }
    Ok(count)
}

impl<C: Cache> Bench<C> {
    /// Opens a cache in an empty directory.
    pub(super) fn open(
        engine: &str,
        records: usize,
        dir: &Path,
        durability: Durability,
    ) -> Result<Self> {
        let records = data::records(0, records);
        let memory = measure::reset_peak_memory()?;
        let cache = C::open(dir, durability)?;
        Ok(Self {
            engine: engine.to_owned(),
            dir: dir.to_owned(),
            feed: cache.feed(1)?,
            cache,
            model: Model::new(records.len()),
            records,
            durability,
            revision: 0,
            memory,
        })
    }

    /// An outcome with nothing but its value.
    pub(super) fn outcome(&self, workload: &str, value: f64) -> Outcome {
        Outcome {
            engine: self.engine.clone(),
            workload: workload.to_owned(),
            value,
            p50: None,
            p99: None,
            written: None,
            checksum: None,
        }
    }

    /// The bytes of ids and bodies.
    pub(super) fn live_bytes(&self) -> f64 {
        (self.model.live() * (ID_LEN + BODY_LEN)) as f64
    }

    /// The memory at its peak since the cache was opened, without the records that are saved.
    pub(super) fn peak_memory(&self) -> Result<f64> {
        let bytes = measure::peak_memory()?.saturating_sub(self.memory);
        Ok(bytes as f64 / f64::from(1 << 20))
    }

    /// Saves all records in batches, and in the relaxed mode syncs at the end, in time.
    pub(super) fn save_all(&self, times: &mut Times) -> Result<Totals> {
        let mut totals = Totals::default();
        for batch in self.records.chunks(BATCH) {
            totals += times.time(|| self.cache.save(&self.feed, batch))?;
        }
        if self.durability == Durability::Relaxed {
            times.time(|| self.cache.sync())?;
        }
        Ok(totals)
    }

    /// Measures the first load.
    pub(super) fn load(&mut self, workload: &str) -> Result<()> {
        let (mut times, written) = (Times::default(), measure::written()?);
        let totals = self.save_all(&mut times)?;
        for record in 0..self.records.len() {
            self.model.change(record, Action::Added);
        }
        let added = self.records.len() as u64;
        let expected = Totals {
            added,
            ..Totals::default()
        };
        ensure!(totals == expected, "a load saved {totals:?}");
        self.report_saves(workload, &times, 1, written)
    }

    /// Gives every `stride`-th record other content.
    pub(super) fn revise(&mut self, stride: usize) {
        self.revision += 1;
        for at in (0..self.records.len()).step_by(stride) {
            data::revise(&mut self.records[at], self.revision);
            self.model.change(at, Action::Updated);
        }
    }

    /// Measures re-syncs, each with every `stride`-th record changed; with `None`, nothing is.
    pub(super) fn resync(
        &mut self,
        workload: &str,
        stride: Option<usize>,
        passes: usize,
    ) -> Result<()> {
        let (mut times, written) = (Times::default(), measure::written()?);
        for _ in 0..passes {
            self.pass(stride, &mut times)?;
        }
        self.report_saves(workload, &times, passes, written)
    }

    /// One re-sync.
    pub(super) fn pass(&mut self, stride: Option<usize>, times: &mut Times) -> Result<()> {
        if let Some(stride) = stride {
            self.revise(stride);
        }
        let totals = self.save_all(times)?;
        let count = self.records.len();
        let updated = stride.map_or(0, |stride| count.div_ceil(stride)) as u64;
        let expected = Totals {
            added: 0,
            updated,
            unchanged: count as u64 - updated,
        };
        ensure!(totals == expected, "a re-sync saved {totals:?}");
        Ok(())
    }

    fn report_saves(
        &self,
        workload: &str,
        times: &Times,
        passes: usize,
        written: u64,
    ) -> Result<()> {
        let records = (passes * self.records.len()) as f64;
        let outcome = Outcome {
            p50: times.percentile(0.5),
            p99: times.percentile(0.99),
            written: Some(measure::written()? - written),
            ..self.outcome(workload, records / times.seconds())
        };
        outcome.print()
    }

    /// Fails unless the feed holds exactly what it must; its checksum goes with `outcome`.
    pub(super) fn checked(&self, outcome: Outcome) -> Result<Outcome> {
        let checksum = self.model.check(&self.cache, &self.feed, &self.records)?;
        Ok(Outcome {
            checksum: Some(checksum),
            ..outcome
        })
    }
}
