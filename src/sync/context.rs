//! What a sync function is given to work with.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::cancel::{Cancellation, StopReason};
use super::function::SyncError;
use crate::cursor::Cursor;
use crate::documents::Expected;
use crate::error::{Error, Result as StoreResult};
use crate::feed::Feed;
use crate::feed::page::{List, Page};
use crate::record::{Applied, Timestamp};
use crate::runs::{Run, SyncKey};
use crate::store::Store;
use crate::windows::{Sweep, Swept};
use crate::write::batch::WriteBatch;

/// How much a log line matters.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum LogLevel {
    /// For whoever looks for a mistake.
    Debug,
    /// How it goes.
    Info,
    /// Something to look at.
    Warn,
    /// Something that went wrong.
    Error,
}

/// What a function, or the runner, has to say about a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct LogLine<'a> {
    /// Of which sync.
    pub sync: &'a SyncKey,
    /// In which run; 0 for what happened outside of one.
    pub run: u64,
    /// How much it matters.
    pub level: LogLevel,
    /// What it is.
    pub message: &'a str,
}

/// Where log lines go.
pub(super) type LogSink = Arc<dyn Fn(&LogLine<'_>) + Send + Sync>;

/// A sink that drops everything.
pub(super) fn no_log() -> LogSink {
    Arc::new(|_| {})
}

/// What a record is worth that somebody else changed while the run was fetching it.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Merging {
    /// Less than what the run fetched: it is overwritten.
    #[default]
    Override,
    /// More, when it was changed after the cursor: it stays, and the outcome is `Skipped`. See
    /// [`Feed::ignore_if_modified_after`].
    IgnoreIfModifiedAfter(Cursor),
}

/// One run as its function sees it: the sync's connection, checkpoint and records.
///
/// Everything that is written goes through the run: it counts in its report, and is refused once
/// another run took over. Every call that concerns the checkpoint ends with
/// [`SyncError::Stopped`] when the run is asked to stop, after it has done what it was called for:
/// no progress is lost, and the next run goes on from there.
pub struct SyncContext {
    store: Store,
    run: Run,
    feeds: BTreeMap<String, Feed>,
    /// Takes the place of the connection's metadata.
    metadata: Option<Vec<u8>>,
    cancellation: Cancellation,
    log: LogSink,
}

impl fmt::Debug for SyncContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SyncContext").field(&self.run).finish()
    }
}

impl SyncContext {
    pub(super) fn new(store: Store, run: Run, cancellation: Cancellation, log: LogSink) -> Self {
        Self {
            store,
            run,
            feeds: BTreeMap::new(),
            metadata: None,
            cancellation,
            log,
        }
    }

    /// Opens the feeds of all models, so that a run which replaces its feeds replaces also those
    /// that it has nothing to write to.
    pub(super) fn open_feeds(&mut self, models: &[&str]) -> StoreResult<()> {
        for model in models {
            self.feeds
                .insert((*model).to_owned(), self.run.feed(model)?);
        }
        Ok(())
    }

    pub(super) fn set_metadata(&mut self, json: Option<Vec<u8>>) {
        self.metadata = json;
    }

    pub(super) fn into_run(self) -> Run {
        self.run
    }

    /// The sync: connection, name and variant.
    pub fn sync(&self) -> &SyncKey {
        self.run.sync()
    }

    /// The number of the run.
    pub fn run_id(&self) -> u64 {
        self.run.id()
    }

    /// The time, from the store's clock.
    pub fn now(&self) -> Timestamp {
        now(&self.store)
    }

    /// The metadata of the connection; `None` when none was ever set.
    ///
    /// # Errors
    /// [`SyncError::Document`] when it is not of this type; a failure to read.
    pub fn metadata<T: DeserializeOwned>(&self) -> Result<Option<T>, SyncError> {
        let json = match &self.metadata {
            Some(json) => Some(json.clone()),
            None => self.store.connection_metadata(&self.sync().connection)?,
        };
        document("the connection's metadata", json)
    }

    /// Where the last run got to; `None` when everything is to be fetched.
    ///
    /// # Errors
    /// [`SyncError::Document`] when it is not of this type; [`SyncError::Stopped`]; a failure to
    /// read, which is never an absent checkpoint.
    pub fn checkpoint<T: DeserializeOwned>(&self) -> Result<Option<T>, SyncError> {
        let checkpoint = self.run.checkpoint()?;
        self.check_stop()?;
        document(
            "the checkpoint",
            checkpoint.map(|checkpoint| checkpoint.json),
        )
    }

    /// Saves where this run got to: a JSON object.
    ///
    /// # Errors
    /// [`SyncError::Stopped`], with the checkpoint saved unless another run took over; those of
    /// any write.
    pub fn save_checkpoint<T: Serialize>(&self, checkpoint: &T) -> Result<(), SyncError> {
        self.run.save_checkpoint(checkpoint, Expected::Any)?;
        self.check_stop()
    }

    /// Clears the checkpoint: the next run fetches everything.
    ///
    /// # Errors
    /// As for [`save_checkpoint`](Self::save_checkpoint).
    pub fn clear_checkpoint(&self) -> Result<(), SyncError> {
        self.run.clear_checkpoint(Expected::Any)?;
        self.check_stop()
    }

    /// Saves records and how far they go in one commit: after any crash, both are there or none.
    ///
    /// # Errors
    /// As for [`batch_save`](Self::batch_save) and [`save_checkpoint`](Self::save_checkpoint).
    pub fn save_with_checkpoint<T: Serialize, C: Serialize>(
        &self,
        model: &str,
        records: &[T],
        checkpoint: &C,
    ) -> Result<Applied, SyncError> {
        let mut batch = self.batch();
        batch.save(self.feed(model)?, records)?;
        batch.run_checkpoint(checkpoint, Expected::Any)?;
        let mut applied = batch.commit()?;
        self.check_stop()?;
        // One write, one result.
        Ok(applied.pop().ok_or(Error::Closed)?)
    }

    /// Saves records; see [`Feed::batch_save`].
    ///
    /// # Errors
    /// [`SyncError::UnknownModel`], and those of any write.
    pub fn batch_save<T: Serialize>(
        &self,
        model: &str,
        records: &[T],
    ) -> Result<Applied, SyncError> {
        Ok(self.feed(model)?.batch_save(records)?)
    }

    /// Merges partial records; see [`Feed::batch_update`].
    ///
    /// # Errors
    /// As for [`batch_save`](Self::batch_save).
    pub fn batch_update<T: Serialize>(
        &self,
        model: &str,
        partials: &[T],
    ) -> Result<Applied, SyncError> {
        Ok(self.feed(model)?.batch_update(partials)?)
    }

    /// Deletes records; see [`Feed::batch_delete`].
    ///
    /// # Errors
    /// As for [`batch_save`](Self::batch_save).
    pub fn batch_delete<I: AsRef<str>>(
        &self,
        model: &str,
        ids: &[I],
    ) -> Result<Applied, SyncError> {
        Ok(self.feed(model)?.batch_delete(ids)?)
    }

    /// Starts a batch of several writes to be committed together, also with
    /// [the checkpoint](WriteBatch::run_checkpoint).
    pub fn batch(&self) -> WriteBatch {
        self.run.batch()
    }

    /// Begins to note which records a full fetch brings; see [`Feed::track_deletes_start`].
    ///
    /// # Errors
    /// As for [`batch_save`](Self::batch_save).
    pub fn track_deletes_start(&self, model: &str) -> Result<bool, SyncError> {
        Ok(self.feed(model)?.track_deletes_start()?)
    }

    /// Deletes what the full fetch did not bring; see [`Feed::track_deletes_end`].
    ///
    /// # Errors
    /// As for [`batch_save`](Self::batch_save), and of the feed's method.
    pub fn track_deletes_end(&self, model: &str, sweep: &Sweep) -> Result<Swept, SyncError> {
        Ok(self.feed(model)?.track_deletes_end(sweep)?)
    }

    /// Says what becomes of records that somebody else changed meanwhile, in this run from now on.
    ///
    /// # Errors
    /// [`SyncError::UnknownModel`].
    pub fn set_merging(&mut self, model: &str, merging: Merging) -> Result<(), SyncError> {
        let cursor = match merging {
            Merging::Override => None,
            Merging::IgnoreIfModifiedAfter(cursor) => Some(cursor),
        };
        let feed = self.feed(model)?.ignore_if_modified_after(cursor);
        self.feeds.insert(model.to_owned(), feed);
        Ok(())
    }

    /// Reads a page of the cached records as this run has left them; see [`Feed::list`].
    ///
    /// # Errors
    /// As for [`batch_save`](Self::batch_save), and of the feed's method.
    pub fn list(&self, model: &str, list: &List) -> Result<Page, SyncError> {
        Ok(self.feed(model)?.list(list)?)
    }

    /// Reads cached records by id; see [`Feed::get`].
    ///
    /// # Errors
    /// As for [`list`](Self::list).
    pub fn get<I: AsRef<str>>(&self, model: &str, ids: &[I]) -> Result<Page, SyncError> {
        Ok(self.feed(model)?.get(ids)?)
    }

    /// The feed of a model, for everything else.
    ///
    /// # Errors
    /// [`SyncError::UnknownModel`].
    pub fn feed(&self, model: &str) -> Result<&Feed, SyncError> {
        self.feeds
            .get(model)
            .ok_or_else(|| SyncError::UnknownModel {
                model: model.to_owned(),
            })
    }

    /// Tells whoever reads the log.
    pub fn log(&self, level: LogLevel, message: impl fmt::Display) {
        (self.log)(&LogLine {
            sync: self.sync(),
            run: self.run_id(),
            level,
            message: &message.to_string(),
        });
    }

    /// Asks whether to stop, for a function that goes long without a checkpoint.
    ///
    /// # Errors
    /// [`SyncError::Stopped`] when it is so.
    pub fn check_stop(&self) -> Result<(), SyncError> {
        match self.stop_reason() {
            Some(_) => Err(SyncError::Stopped),
            None => Ok(()),
        }
    }

    pub(super) fn stop_reason(&self) -> Option<StopReason> {
        if self.run.is_fenced() {
            self.cancellation.cancel(StopReason::Fenced);
        }
        self.cancellation.reason()
    }

    /// What is told when the run is asked to stop; hand it to [`Retrying`](super::Retrying) to
    /// sleep with.
    pub fn cancellation(&self) -> Cancellation {
        self.cancellation.clone()
    }
}

pub(super) fn now(store: &Store) -> Timestamp {
    Timestamp::from_micros(store.engine.options.clock.now_micros())
}

fn document<T: DeserializeOwned>(
    what: &'static str,
    json: Option<Vec<u8>>,
) -> Result<Option<T>, SyncError> {
    let value = json.map(|json| serde_json::from_slice(&json)).transpose();
    value.map_err(|source| SyncError::Document { what, source })
}
