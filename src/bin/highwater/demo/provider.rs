//! The side that fetches: saves a whole snapshot, and deletes what is no longer in it.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use anyhow::ensure;
use highwater::{Action, Feed, List, Totals};
use serde_json::value::RawValue;

use super::snapshot::Snapshot;

/// What saving a snapshot did.
pub(super) struct Saved {
    pub(super) totals: Totals,
    pub(super) deleted: u64,
    pub(super) saving: Duration,
    /// Finding out what is missing included.
    pub(super) deleting: Duration,
}

pub(super) fn save(feed: &Feed, snapshot: &Snapshot, batch: usize) -> anyhow::Result<Saved> {
    let started = Instant::now();
    let mut totals = Totals::default();
    for batch in snapshot.records.chunks(batch) {
        let texts: Vec<&RawValue> = batch.iter().map(|(_, text)| text.as_ref()).collect();
        totals += feed.batch_save(&texts)?.totals;
    }
    let saving = started.elapsed();
    let started = Instant::now();
    let missing = missing(feed, snapshot)?;
    let deleted = feed.batch_delete(&missing)?.totals.deleted;
    ensure!(
        deleted == missing.len() as u64,
        "only {deleted} of {} live records could be deleted",
        missing.len()
    );
    Ok(Saved {
        totals,
        deleted,
        saving,
        deleting: started.elapsed(),
    })
}

/// The ids that are live in the feed and not in the snapshot.
fn missing(feed: &Feed, snapshot: &Snapshot) -> highwater::Result<Vec<String>> {
    let present: HashSet<&str> = snapshot.records.iter().map(|(id, _)| id.as_str()).collect();
    let mut missing = Vec::new();
    let mut cursor = None;
    loop {
        let live = List::new()
            .filter(Action::Added | Action::Updated)
            .metadata_only(true)
            .limit(10_000);
        let page = feed.list(&live.after(cursor))?;
        let gone = page.iter().filter(|record| !present.contains(record.id));
        missing.extend(gone.map(|record| record.id.to_owned()));
        cursor = Some(page.resume_cursor());
        if !page.has_more() {
            return Ok(missing);
        }
    }
}
