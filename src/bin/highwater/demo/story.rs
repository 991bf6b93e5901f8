//! The demo's text: what happens, in the order in which it happens.

use std::io::{self, Write};
use std::time::Instant;

use highwater::{Feed, Store};

use super::check::{self, Difference, Expected};
use super::consumer::{Changes, Consumer};
use super::provider::{Saved, save};
use super::snapshot::{self, Snapshot};
use super::{Day, DemoArgs, open_feed};
use crate::open::Location;
use crate::terminal::{grouped, plural, rate};

/// Tells what is going on.
pub(super) struct Story {
    out: io::Stdout,
    step: u32,
}

impl Story {
    pub(super) fn new() -> Self {
        Self {
            out: io::stdout(),
            step: 0,
        }
    }

    fn title(&mut self, text: &str) -> io::Result<()> {
        self.step += 1;
        writeln!(self.out, "\n{}. {text}", self.step)
    }

    pub(super) fn load(&mut self, args: &DemoArgs) -> anyhow::Result<Vec<Snapshot>> {
        self.title("Read the snapshots: what a provider's API answered on successive days")?;
        let snapshots = match args.snapshots.as_slice() {
            [] => snapshot::sample()?,
            paths => {
                let loaded = paths.iter().map(|path| Snapshot::open(path));
                loaded.collect::<anyhow::Result<_>>()?
            }
        };
        for (at, snapshot) in snapshots.iter().enumerate() {
            let records = plural(snapshot.records.len() as u64, "record");
            writeln!(
                self.out,
                "   day {}  {records:>16}  {}",
                at + 1,
                snapshot.name
            )?;
            if snapshot.repeated > 0 {
                let repeated = plural(snapshot.repeated, "repeated id");
                writeln!(
                    self.out,
                    "          {repeated} left out, the first one counts"
                )?;
            }
        }
        Ok(snapshots)
    }

    pub(super) fn save(
        &mut self,
        feed: &Feed,
        snapshot: &Snapshot,
        batch: usize,
    ) -> anyhow::Result<Saved> {
        self.title(&format!("Save all of {}", snapshot.name))?;
        let saved = save(feed, snapshot, batch)?;
        let totals = &saved.totals;
        writeln!(
            self.out,
            "   batch_save    {} added, {} updated, {} unchanged in {:.2} s ({})",
            grouped(totals.added),
            grouped(totals.updated),
            grouped(totals.unchanged),
            saved.saving.as_secs_f64(),
            rate(snapshot.records.len() as u64, saved.saving),
        )?;
        writeln!(
            self.out,
            "   batch_delete  {} gone from the snapshot, deleted in {:.2} s",
            grouped(saved.deleted),
            saved.deleting.as_secs_f64(),
        )?;
        Ok(saved)
    }

    pub(super) fn start_reading(&mut self, consumer: &Consumer, day: usize) -> anyhow::Result<()> {
        self.title(&format!("A consumer reads what is new on day {day}"))?;
        match &consumer.cursor {
            None => writeln!(self.out, "   it has no cursor yet: from the beginning")?,
            Some(cursor) => writeln!(self.out, "   after its cursor {cursor}")?,
        }
        Ok(())
    }

    pub(super) fn reopen(
        &mut self,
        store: Store,
        at: &Location,
        consumer: &Consumer,
        changes: &Changes,
    ) -> anyhow::Result<Store> {
        let pages = plural(changes.pages, "page");
        let so_far = plural(changes.count(), "change");
        writeln!(
            self.out,
            "   {pages} with {so_far}, then the store is closed under it,"
        )?;
        store.close()?;
        drop(store);
        let started = Instant::now();
        let store = at.open()?;
        let cursor = consumer.cursor.as_deref().unwrap_or_default();
        writeln!(
            self.out,
            "   and opened again in {:.0} ms; all it kept is the text {cursor}",
            started.elapsed().as_secs_f64() * 1e3
        )?;
        Ok(store)
    }

    pub(super) fn finish_reading(
        &mut self,
        changes: &Changes,
        consumer: &Consumer,
    ) -> anyhow::Result<()> {
        writeln!(
            self.out,
            "   in all {} of at most {}: {} ADDED, {} UPDATED, {} DELETED ({})",
            plural(changes.pages, "page"),
            plural(consumer.page as u64, "record"),
            grouped(changes.added.len() as u64),
            grouped(changes.updated.len() as u64),
            grouped(changes.deleted.len() as u64),
            rate(changes.count(), changes.reading),
        )?;
        for example in &changes.examples {
            writeln!(self.out, "     {example}")?;
        }
        Ok(())
    }

    pub(super) fn check(
        &mut self,
        snapshots: &[Snapshot],
        days: &[Day],
        consumer: &Consumer,
        store: &Store,
    ) -> anyhow::Result<bool> {
        self.title("Check: the same files compared as plain maps, without a store")?;
        let mut agreed = true;
        let mut before = Default::default();
        for (snapshot, day) in snapshots.iter().zip(days) {
            let after = check::values(snapshot)?;
            let expected = Expected::between(&before, &after);
            let Difference { text, agrees } = expected.compare(&day.saved, &day.changes);
            writeln!(self.out, "   {}: {text}", day.name)?;
            agreed &= agrees;
            before = after;
        }
        let same = check::equal_maps(&before, &consumer.copy);
        let count = open_feed(store)?.count()?;
        let counted = count == before.len() as u64;
        writeln!(
            self.out,
            "   the consumer's copy has {}, the last snapshot {}: {}",
            plural(consumer.copy.len() as u64, "record"),
            grouped(before.len() as u64),
            if same {
                "equal, value by value"
            } else {
                "THEY DIFFER"
            },
        )?;
        let report = store.verify(|_, _| {})?;
        writeln!(
            self.out,
            "   the store counts {}; {} and {} checked, {}",
            plural(count, "live record"),
            plural(report.frames, "frame"),
            plural(report.versions, "version"),
            match report.damage.len() as u64 {
                0 => "no damage".to_owned(),
                found => format!("DAMAGE IN {}", plural(found, "place")),
            },
        )?;
        agreed = agreed && same && counted && report.is_clean();
        let verdict = match agreed {
            true => "Everything agrees.",
            false => "THERE ARE DIFFERENCES.",
        };
        writeln!(self.out, "\n{verdict}")?;
        Ok(agreed)
    }
}
