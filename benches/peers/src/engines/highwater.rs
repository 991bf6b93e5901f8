//! Highwater does the job itself. Only the durability is not the default.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use highwater::{Cursor, Feed, List, Options, Record as Row, Store, Sweep};

use crate::cache::{Action, Cache, Durability, Page, Record, Shown, Totals, Visit};

/// A store.
pub(crate) struct Highwater(Store);

fn shown<'a>(row: &'a Row<'a>) -> Shown<'a> {
    Shown {
        id: row.id.as_bytes(),
        body: row.payload.unwrap_or_default(),
        action: match row.last_action {
            highwater::Action::Added => Action::Added,
            highwater::Action::Updated => Action::Updated,
            highwater::Action::Deleted => Action::Deleted,
        },
    }
}

impl Cache for Highwater {
    type Feed = Feed;
    type Cursor = Cursor;

    fn open(dir: &Path, durability: Durability) -> Result<Self> {
        let durability = match durability {
            Durability::Durable => highwater::Durability::Durable,
            Durability::Relaxed => highwater::Durability::Relaxed {
                interval: Duration::from_millis(500),
            },
        };
        Ok(Self(Options::new().durability(durability).open(dir)?))
    }

    fn feed(&self, number: u32) -> Result<Feed> {
        Ok(self.0.feed(&format!("connection-{number}"), "Contact")?)
    }

    fn save(&self, feed: &Feed, batch: &[Record]) -> Result<Totals> {
        let totals = feed.batch_save_raw(batch)?.totals;
        ensure!(totals.duplicate == 0, "ids of a batch differ");
        Ok(Totals {
            added: totals.added,
            updated: totals.updated,
            unchanged: totals.unchanged,
        })
    }

    fn page(
        &self,
        feed: &Feed,
        after: Option<Cursor>,
        limit: usize,
        visit: Visit<'_>,
    ) -> Result<Page<Cursor>> {
        // The action of the newest change, which is what the others can tell.
        let list = List::new().after(after).limit(limit).relative(false);
        let page = feed.list(&list)?;
        for row in page.iter() {
            visit(shown(&row));
        }
        Ok(Page {
            resume: page.resume_cursor(),
            has_more: page.has_more(),
        })
    }

    fn get(&self, feed: &Feed, ids: &[&str], visit: Visit<'_>) -> Result<()> {
        for row in feed.get(ids)?.iter() {
            visit(shown(&row));
        }
        Ok(())
    }

    fn sweep_begin(&self, feed: &Feed) -> Result<()> {
        feed.track_deletes_start()?;
        Ok(())
    }

    fn sweep_end(&self, feed: &Feed) -> Result<u64> {
        Ok(feed.track_deletes_end(&Sweep::new())?.deleted)
    }

    fn last(&self, feed: &Feed) -> Result<Option<Cursor>> {
        Ok(feed.last_cursor()?)
    }

    fn wait(&self, feed: &Feed, after: Option<Cursor>, timeout: Duration) -> Result<bool> {
        Ok(feed.wait(after, timeout)?)
    }

    fn sync(&self) -> Result<()> {
        Ok(self.0.flush()?)
    }

    fn settle(self) -> Result<()> {
        Ok(self.0.close()?)
    }
}
