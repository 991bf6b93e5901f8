//! Writing, by batches and single calls, to the engine and to the model.

use highwater::storage::Clock;
use highwater::{Applied, Error, Expected, Feed, Outcome, RecordError, Result, WriteBatch};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::checker::check_outcomes;
use crate::driver::{Driver, NAMES, RUN_FEEDS};
use crate::reference::{Author, By, Doc, FeedNo, KEEPS_PRUNED, SyncNo, Write};

/// A batch that was begun and is not committed yet.
pub struct OpenBatch {
    batch: WriteBatch,
    author: Author,
    writes: Vec<(FeedNo, Write)>,
}

impl Driver {
    /// Commits writes, with a checkpoint or not, and compares the outcomes with the model's.
    pub fn commit(&mut self, writes: &[(FeedNo, Write)], checkpoint: Option<u64>) {
        self.commit_by(None, false, writes, checkpoint);
    }

    /// The same, through the run of a sync if it has one; `merging` leaves alone what somebody
    /// else changed after the feed's bookmark.
    pub fn commit_by(
        &mut self,
        sync: Option<SyncNo>,
        merging: bool,
        writes: &[(FeedNo, Write)],
        checkpoint: Option<u64>,
    ) {
        let first = writes.first().map_or(0, |(feed, _)| *feed);
        let author = self.author(sync, first);
        let connection = NAMES[first].0;
        let writes = self.fitting(author, connection, writes);
        let checkpoint = checkpoint.filter(|_| connection == "c");
        // One bookmark for all would be foreign to all feeds but one, and to what is filled anew.
        let bookmark = self.bookmark(first);
        let bookmark =
            bookmark.filter(|_| merging && writes.len() == 1 && self.filler(author).is_none());
        let cursor = bookmark.map(|bookmark| bookmark.cursor);
        let mut feeds = Vec::new();
        for (feed, _) in &writes {
            let Some(feed) = self.writer(*feed, author) else {
                return;
            };
            feeds.push(feed.ignore_if_modified_after(cursor));
        }
        let by = By {
            author,
            after: bookmark.map(|bookmark| bookmark.sequence),
        };
        let result = match (&writes[..], checkpoint) {
            ([(_, write)], None) => write_to(&feeds[0], write).map(|applied| vec![applied]),
            _ => {
                let batch = self.begin_batch(author, connection);
                fill_batch(batch, &feeds, &writes, author, checkpoint).and_then(WriteBatch::commit)
            }
        };
        self.conclude_writes(result, by, &writes, checkpoint);
    }

    /// The writes that can be made together.
    fn fitting(
        &self,
        author: Author,
        connection: &str,
        writes: &[(FeedNo, Write)],
    ) -> Vec<(FeedNo, Write)> {
        let together = |feed: FeedNo| match author {
            Some(_) => feed < RUN_FEEDS,
            None => NAMES[feed].0 == connection,
        };
        let writes = writes.iter().filter(|(feed, _)| together(*feed));
        writes
            .map(|(feed, write)| (*feed, write.clone().fit_for(*feed)))
            .collect()
    }

    fn begin_batch(&self, author: Author, connection: &str) -> WriteBatch {
        match author {
            Some((sync, _)) => self.runs[&sync].batch(),
            None => self.store.batch(connection),
        }
    }

    /// Compares what came of writes with what the model says.
    fn conclude_writes(
        &mut self,
        result: Result<Vec<Applied>>,
        by: By,
        writes: &[(FeedNo, Write)],
        checkpoint: Option<u64>,
    ) {
        let now = self.clock.now_micros();
        let filler = self.filler(by.author);
        if writes.iter().any(|(feed, _)| self.is_lost(filler, *feed)) {
            return self.refuses_lost(result);
        }
        let (mut next, expected) = self.next(filler, |model| model.commit(now, by, writes));
        let Some(expected) = expected else {
            let refused = Error::InvalidRecord {
                index: 0,
                reason: RecordError::NotJson,
            };
            match result {
                Ok(_) => panic!("what should be refused is taken: {refused}"),
                Err(Error::InvalidRecord {
                    reason: RecordError::NotJson,
                    ..
                }) => {}
                Err(error) => self.excuse(&error, None),
            }
            return;
        };
        let outcomes = match &result {
            Ok(applied) => applied.iter().map(|of| of.outcomes.clone()).collect(),
            Err(_) => expected.clone(),
        };
        let feeds = writes.iter().map(|(feed, _)| *feed);
        let done: Vec<(FeedNo, Vec<Outcome>)> = feeds.zip(outcomes).collect();
        for ((_, write), ((_, found), expected)) in writes.iter().zip(done.iter().zip(&expected)) {
            check_outcomes(write, found, expected);
        }
        if let Some(value) = checkpoint {
            let sync = by.author.map_or(0, |(sync, _)| sync);
            next.model.checkpoints.insert(sync, value);
        }
        let changes = |(_, outcomes): &(FeedNo, Vec<Outcome>)| {
            outcomes.iter().any(|outcome| outcome.is_change())
        };
        let committed = checkpoint.is_some() || done.iter().any(changes);
        next.model.tally(by.author, &done, committed);
        self.counts_loosely |= result.is_err()
            && expected
                .iter()
                .flatten()
                .any(|outcome| *outcome == Outcome::Restored);
        let Some(applied) = self.conclude(result, next, committed) else {
            return;
        };
        for ((feed, _), applied) in writes.iter().zip(&applied) {
            assert_eq!(applied.last_cursor.is_some(), applied.totals.changed() > 0);
            if let Some(cursor) = applied.last_cursor.filter(|_| filler.is_none()) {
                self.show(*feed, cursor, true);
            }
        }
    }

    /// Has a writer add to the batch that it has open, or begin one.
    pub fn add_to_batch(&mut self, writer: usize, sync: Option<SyncNo>, write: (FeedNo, Write)) {
        let open = self.batches.remove(&writer);
        let author = match &open {
            Some(open) => open.author,
            None => self.author(sync, write.0),
        };
        // Only the newest run of a sync has a handle to take feeds from.
        let current = author.is_none_or(|(sync, _)| self.author(Some(sync), 0) == author);
        let first = open.as_ref().and_then(|open| open.writes.first());
        let connection = NAMES[first.map_or(write.0, |(feed, _)| *feed)].0;
        let writes = self.fitting(author, connection, &[write]);
        let open = open.unwrap_or_else(|| OpenBatch {
            batch: self.begin_batch(author, connection),
            author,
            writes: Vec::new(),
        });
        let OpenBatch {
            batch, writes: all, ..
        } = open;
        let feeds: Option<Vec<Feed>> = match current {
            true => writes
                .iter()
                .map(|(feed, _)| self.writer(*feed, author))
                .collect(),
            false => None,
        };
        let Some(feeds) = feeds else {
            if all.is_empty() {
                // With nothing in it, nothing tells any more whose batch it is.
                return;
            }
            let writes = all;
            let open = OpenBatch {
                batch,
                author,
                writes,
            };
            self.batches.insert(writer, open);
            return;
        };
        let answer = fill_batch(batch, &feeds, &writes, author, None);
        if let Some(batch) = self.look(answer) {
            let writes = [all, writes].concat();
            let open = OpenBatch {
                batch,
                author,
                writes,
            };
            self.batches.insert(writer, open);
        }
    }

    /// Has a writer commit the batch that it has open.
    pub fn commit_batch(&mut self, writer: usize) {
        let Some(open) = self.batches.remove(&writer) else {
            return;
        };
        let OpenBatch {
            batch,
            author,
            writes,
        } = open;
        let result = batch.commit();
        let ended = author.is_some_and(|(sync, _)| self.author(Some(sync), 0) != author);
        match result {
            Err(Error::RunEnded { .. } | Error::RunFenced { .. } | Error::ReplaceLost { .. })
                if ended => {}
            // Both are wrong with it, and either may be found first.
            Err(Error::InvalidRecord {
                reason: RecordError::NotJson,
                ..
            }) if ended => {}
            result => {
                assert!(!ended || result.is_err(), "a run writes after its end");
                let after = None;
                self.conclude_writes(result, By { author, after }, &writes, None);
            }
        }
    }
}

/// Adds writes to a batch, each to its feed, and a checkpoint.
fn fill_batch(
    mut batch: WriteBatch,
    feeds: &[Feed],
    writes: &[(FeedNo, Write)],
    author: Author,
    checkpoint: Option<u64>,
) -> Result<WriteBatch> {
    for (feed, (_, write)) in feeds.iter().zip(writes) {
        match write {
            Write::SaveJson(records) => batch.save(feed, &spelt(records))?,
            Write::SaveRaw(records) => batch.save_raw(feed, records)?,
            Write::Update(partials) => batch.update(feed, &partial_texts(partials))?,
            Write::Delete(ids) => batch.delete(feed, ids)?,
        }
    }
    if let Some(value) = checkpoint {
        let value = serde_json::json!({"at": value});
        match author {
            Some(_) => batch.run_checkpoint(&value, Expected::Any)?,
            None => batch.checkpoint("sync", "", &value, Expected::Any)?,
        }
    }
    Ok(batch)
}

/// One write as a commit of its own.
pub fn write_to(feed: &Feed, write: &Write) -> Result<Applied> {
    match write {
        Write::SaveJson(records) => feed.batch_save(&spelt(records)),
        Write::SaveRaw(records) => feed.batch_save_raw(records),
        Write::Update(partials) => feed.batch_update(&partial_texts(partials)),
        Write::Delete(ids) => feed.batch_delete(ids),
    }
}

impl Write {
    /// Where pruned records stay pruned, outcomes must not hang on spelling; see
    /// [`check_outcomes`].
    pub fn fit_for(self, feed: FeedNo) -> Self {
        match self {
            Self::SaveJson(records) if feed == KEEPS_PRUNED => {
                let raw = |(id, version, _)| (id, vec![version]);
                Self::SaveRaw(records.into_iter().map(raw).collect())
            }
            other => other,
        }
    }
}

fn spelt(records: &[(String, u8, u8)]) -> Vec<Box<RawValue>> {
    let spell = |(id, version, spelling): &(String, u8, u8)| {
        RawValue::from_string(Doc::new(id, *version).spell(*spelling)).unwrap()
    };
    records.iter().map(spell).collect()
}

fn partial_texts(partials: &[(String, Doc)]) -> Vec<Value> {
    partials
        .iter()
        .map(|(_, doc)| Value::Object(doc.0.clone()))
        .collect()
}
