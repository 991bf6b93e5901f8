//! What scripts consist of.

use std::ops::Range;

use highwater::{Expected, Feed, Replacement, Run, RunOptions, Store};
use serde_json::json;

use crate::driver::sync_key;

/// A write that is acknowledged as a whole.
pub type Commit = fn(&mut Hands<'_>) -> highwater::Result<()>;

/// One step of a script.
pub enum Step {
    Commit(Commit),
    Flush,
    SaveCatalog,
    Compact,
    /// Compacts, and commits one of these at each moment when the compaction is at its files.
    CompactDuring(Vec<Commit>),
    Reopen,
    Rebuild,
}

/// What a script holds on to between its steps.
pub struct Hands<'a> {
    pub store: &'a Store,
    pub run: &'a mut Option<Run>,
    pub replacement: &'a mut Option<Replacement>,
}

impl Hands<'_> {
    pub fn feed(&self, model: &str) -> highwater::Result<Feed> {
        self.store.feed("c", model)
    }

    /// A feed, written to by the run.
    pub fn run_feed(&self, model: &str) -> highwater::Result<Feed> {
        self.run.as_ref().unwrap().feed(model)
    }

    pub fn begin(&mut self, options: RunOptions) -> highwater::Result<()> {
        *self.run = Some(self.store.begin_run(&sync_key(0), options)?);
        Ok(())
    }

    /// Saves records that another `v` changes.
    pub fn save(&self, model: &str, ids: Range<u32>, v: u32) -> highwater::Result<()> {
        self.feed(model)?.batch_save(&records(ids, v)).map(drop)
    }

    pub fn delete(&self, model: &str, ids: &[&str]) -> highwater::Result<()> {
        self.feed(model)?.batch_delete(ids).map(drop)
    }

    /// A record of `len` bytes.
    pub fn save_large(&self, model: &str, id: &str, len: usize) -> highwater::Result<()> {
        let record = (id, "x".repeat(len));
        self.feed(model)?.batch_save_raw(&[record]).map(drop)
    }

    /// Records, a deletion and a checkpoint in two feeds, in one commit.
    pub fn page(&self, at: u32) -> highwater::Result<()> {
        let mut batch = self.store.batch("c");
        let news = [
            json!({"id": format!("page-{at}")}),
            json!({"id": 1, "at": at}),
        ];
        batch.save(&self.feed("contact")?, &news)?;
        batch.delete(&self.feed("company")?, &[at.to_string()])?;
        batch.checkpoint("sync", "", &json!({"page": at}), Expected::Any)?;
        batch.commit().map(drop)
    }

    /// Saves through the run, with its checkpoint in the same commit.
    pub fn run_page(&self, ids: Range<u32>, page: u32) -> highwater::Result<()> {
        let mut batch = self.run.as_ref().unwrap().batch();
        batch.save(&self.run_feed("contact")?, &records(ids, 1))?;
        batch.run_checkpoint(&json!({"page": page}), Expected::Any)?;
        batch.commit().map(drop)
    }

    pub fn replace(&mut self, model: &str) -> highwater::Result<()> {
        *self.replacement = Some(self.feed(model)?.replace()?);
        Ok(())
    }

    /// Saves into the replacement.
    pub fn stage(&self, ids: Range<u32>, v: u32) -> highwater::Result<()> {
        let staged = self.replacement.as_ref().unwrap().feed();
        staged.batch_save(&records(ids, v)).map(drop)
    }

    pub fn finish_replacement(&mut self) -> highwater::Result<()> {
        self.replacement.take().unwrap().commit().map(drop)
    }
}

fn records(ids: Range<u32>, v: u32) -> Vec<serde_json::Value> {
    let record = |id| json!({"id": id, "v": v, "pad": "x".repeat(40)});
    ids.map(record).collect()
}
