//! Several writes in one atomic commit.

use serde::Serialize;

use crate::documents::{self, Expected};
use crate::engine::Handle;
use crate::error::{Error, Result};
use crate::feed::Feed;
use crate::record::Applied;
use crate::runs::RunScope;
use crate::state::StateKey;
use crate::write::inputs::{self, Input, JsonText};
use crate::write::{StateWrite, Verb, Write, execute};

use std::borrow::Cow;
use std::sync::Arc;

/// Writes on feeds of one connection, and checkpoints, that are committed together: after any
/// crash all of them are there, or none. Made by [`Store::batch`](crate::Store::batch).
///
/// The writes take effect in the order they were added, and later ones see earlier ones.
///
/// ```
/// use highwater::Expected;
/// use serde_json::json;
///
/// # let dir = tempfile::tempdir().unwrap();
/// # let store = highwater::Store::open(dir.path())?;
/// let contacts = store.feed("conn-42", "Contact")?;
/// let companies = store.feed("conn-42", "Company")?;
///
/// let mut batch = store.batch("conn-42");
/// batch.save(&contacts, &[json!({"id": "ada"})])?;
/// batch.delete(&companies, &["acme"])?;
/// batch.checkpoint("crm-sync", "", &json!({"page": 7}), Expected::Any)?;
/// let applied = batch.commit()?;
/// assert_eq!(applied[0].totals.added, 1);
/// assert_eq!(store.checkpoint("conn-42", "crm-sync", "")?.unwrap().json, br#"{"page":7}"#);
/// # Ok::<(), highwater::Error>(())
/// ```
#[must_use = "a batch writes nothing until it is committed"]
pub struct WriteBatch {
    engine: Arc<Handle>,
    connection: String,
    run: Option<Arc<RunScope>>,
    writes: Vec<(Feed, Verb, Records)>,
    checkpoints: Vec<(StateKey, Option<Vec<u8>>, Expected)>,
}

/// The records of one write, owned until the commit.
enum Records {
    Json(JsonText),
    Raw(Vec<(String, Vec<u8>)>),
}

impl WriteBatch {
    pub(crate) fn new(engine: Arc<Handle>, connection: &str) -> Self {
        let connection = connection.to_owned();
        Self {
            engine,
            connection,
            run: None,
            writes: Vec::new(),
            checkpoints: Vec::new(),
        }
    }

    pub(crate) fn of_run(engine: Arc<Handle>, run: Arc<RunScope>) -> Self {
        let batch = Self::new(engine, &run.key.connection);
        Self {
            run: Some(run),
            ..batch
        }
    }

    /// Adds a [`Feed::batch_save`].
    ///
    /// # Errors
    /// [`Error::MixedBatch`] for a feed of another connection, store or run; those of an invalid
    /// record.
    pub fn save<T: Serialize>(&mut self, feed: &Feed, records: &[T]) -> Result<()> {
        self.add(feed, Verb::SaveJson, Records::Json(self.json(records)?))
    }

    /// Adds a [`Feed::batch_save_raw`].
    ///
    /// # Errors
    /// As for [`WriteBatch::save`].
    pub fn save_raw<I, B>(&mut self, feed: &Feed, records: &[(I, B)]) -> Result<()>
    where
        I: AsRef<str>,
        B: AsRef<[u8]>,
    {
        let inputs = inputs::raw(records, self.engine.options.payload_max)?;
        self.add(feed, Verb::SaveRaw, Records::raw(&inputs))
    }

    /// Adds a [`Feed::batch_update`].
    ///
    /// # Errors
    /// As for [`WriteBatch::save`].
    pub fn update<T: Serialize>(&mut self, feed: &Feed, partials: &[T]) -> Result<()> {
        self.add(feed, Verb::Update, Records::Json(self.json(partials)?))
    }

    /// Adds a [`Feed::batch_delete`].
    ///
    /// # Errors
    /// As for [`WriteBatch::save`].
    pub fn delete<I: AsRef<str>>(&mut self, feed: &Feed, ids: &[I]) -> Result<()> {
        self.add(feed, Verb::Delete, Records::raw(&inputs::ids(ids)?))
    }

    /// Saves a checkpoint of the batch's connection; see
    /// [`Store::save_checkpoint`](crate::Store::save_checkpoint).
    ///
    /// # Errors
    /// [`Error::InvalidDocument`] when it is not a JSON object of at most 64 KiB.
    pub fn checkpoint<T: Serialize>(
        &mut self,
        sync: &str,
        variant: &str,
        value: &T,
        expected: Expected,
    ) -> Result<()> {
        let key = documents::checkpoint_key(&self.connection, sync, variant)?;
        let json = documents::checkpoint_json(value)?;
        self.checkpoints.push((key, Some(json), expected));
        Ok(())
    }

    /// Saves the checkpoint of the run that the batch belongs to: after any crash, it and the
    /// batch's records agree.
    ///
    /// # Errors
    /// As for [`WriteBatch::checkpoint`]; [`Error::MixedBatch`] for a batch that was not made by
    /// [`Run::batch`](crate::Run::batch).
    pub fn run_checkpoint<T: Serialize>(&mut self, value: &T, expected: Expected) -> Result<()> {
        let run = self.run.as_ref().ok_or(Error::MixedBatch)?;
        let key = run.key.checkpoint_key();
        let json = documents::checkpoint_json(value)?;
        self.checkpoints.push((key, Some(json), expected));
        Ok(())
    }

    /// Clears a checkpoint of the batch's connection; clearing an absent one succeeds.
    ///
    /// # Errors
    /// [`Error::InvalidName`].
    pub fn clear_checkpoint(
        &mut self,
        sync: &str,
        variant: &str,
        expected: Expected,
    ) -> Result<()> {
        let key = documents::checkpoint_key(&self.connection, sync, variant)?;
        self.checkpoints.push((key, None, expected));
        Ok(())
    }

    /// Commits everything; one result per write, in the order they were added.
    ///
    /// # Errors
    /// [`Error::CheckpointConflict`] when a checkpoint has another version than expected, and
    /// everything a single write can fail with. Nothing was written then.
    pub fn commit(self) -> Result<Vec<Applied>> {
        let payload_max = self.engine.options.payload_max;
        let ids: Vec<Vec<Cow<'_, str>>> = self
            .writes
            .iter()
            .map(|(_, _, records)| match records {
                Records::Json(text) => text.ids(payload_max),
                Records::Raw(_) => Ok(Vec::new()),
            })
            .collect::<Result<_>>()?;
        let inputs: Vec<Vec<Input<'_>>> = self
            .writes
            .iter()
            .zip(&ids)
            .map(|((_, _, records), ids)| records.inputs(ids))
            .collect();
        let writes: Vec<Write<'_>> = self
            .writes
            .iter()
            .zip(&inputs)
            .map(|((feed, verb, _), inputs)| Write {
                feed: feed.slot.clone(),
                verb: *verb,
                inputs,
                merging: feed.merging,
            })
            .collect();
        let changes: Vec<_> = self
            .checkpoints
            .iter()
            .map(|(_, json, expected)| documents::checkpoint_change(json.as_deref(), *expected))
            .collect();
        let keys = self.checkpoints.iter().map(|(key, _, _)| key.clone());
        let states: Vec<StateWrite<'_>> = keys
            .zip(&changes)
            .map(|(key, change)| StateWrite { key, change })
            .collect();
        execute(&self.engine, self.run.as_deref(), &writes, &states)
    }

    fn json<T: Serialize>(&self, records: &[T]) -> Result<JsonText> {
        let text = JsonText::new(records)?;
        text.ids(self.engine.options.payload_max)?;
        Ok(text)
    }

    fn add(&mut self, feed: &Feed, verb: Verb, records: Records) -> Result<()> {
        let same_store = Arc::ptr_eq(&feed.engine, &self.engine);
        let same_run = match (&feed.run, &self.run) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (None, None) => true,
            _ => false,
        };
        if !same_store || !same_run || feed.key().connection != self.connection {
            return Err(Error::MixedBatch);
        }
        self.writes.push((feed.clone(), verb, records));
        Ok(())
    }
}

impl Records {
    fn raw(inputs: &[Input<'_>]) -> Self {
        let copy = |input: &Input<'_>| (input.id.to_owned(), input.body.to_vec());
        Self::Raw(inputs.iter().map(copy).collect())
    }

    fn inputs<'a>(&'a self, ids: &'a [Cow<'a, str>]) -> Vec<Input<'a>> {
        match self {
            Self::Json(text) => text.inputs(ids),
            Self::Raw(records) => records
                .iter()
                .map(|(id, body)| Input { id, body })
                .collect(),
        }
    }
}
