//! Runs of syncs: who writes, what came of it, and which runs may no longer write.
//!
//! A run's report is made of the same commits as its data: every commit through a run carries
//! what the run has done up to there.

mod dry;
pub(crate) mod ledger;
mod report;
pub(crate) mod rows;
mod scope;

use std::sync::Arc;

use serde::Serialize;

pub use report::{RunReport, RunStatus, SyncKey};
pub(crate) use rows::{RunRow, SyncRow};
pub(crate) use scope::RunScope;

use crate::documents::{self, Checkpoint, Expected};
use crate::engine::Handle;
use crate::error::Result;
use crate::feed::slot::FeedSlot;
use crate::feed::{Feed, FeedKey};
use crate::primitives::atomic::Ordering;
use crate::record::Timestamp;
use crate::replace;
use crate::runs::ledger::close_run;
use crate::state::StateKey;
use crate::write::batch::WriteBatch;
use crate::write::transaction::transact;
use crate::write::{StateWrite, execute};

/// How a run is begun.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[must_use = "options do nothing until a run is begun with them"]
pub struct RunOptions {
    reset: bool,
    replace: bool,
}

impl RunOptions {
    /// The defaults: the run goes on from the sync's checkpoint, into the data there is.
    pub fn new() -> Self {
        Self::default()
    }

    /// Clears the sync's checkpoint and closes its deletion windows, in the commit that begins the
    /// run, and fences its older runs: what they still write is refused. The cached records stay,
    /// so that fetching everything again reports true changes only.
    pub fn reset(mut self, reset: bool) -> Self {
        self.reset = reset;
        self
    }

    /// Has the run fill its feeds anew: what it writes is staged, no reader sees it, and the end of
    /// a successful run puts it in the place of the old data, all feeds in one commit. Any other
    /// end leaves the old data as it was.
    pub fn replace(mut self, replace: bool) -> Self {
        self.replace = replace;
        self
    }
}

/// One run of a sync: what is written through it carries its number and counts in its report.
/// Made by [`Store::begin_run`](crate::Store::begin_run).
///
/// A run that is dropped before it was ended counts as interrupted, and so does one that was going
/// on when the process died.
///
/// ```
/// use highwater::{Expected, RunOptions, SyncKey};
/// use serde_json::json;
///
/// # let dir = tempfile::tempdir().unwrap();
/// # let store = highwater::Store::open(dir.path())?;
/// let sync = SyncKey::new("conn-42", "contacts", "")?;
/// let run = store.begin_run(&sync, RunOptions::new())?;
/// let contacts = run.feed("Contact")?;
/// contacts.track_deletes_start()?;
/// let _ = contacts.batch_save(&[json!({"id": 1}), json!({"id": 2})])?;
/// run.save_checkpoint(&json!({"updated_after": "2026-01-01"}), Expected::Any)?;
/// contacts.track_deletes_end(&highwater::Sweep::new())?;
/// let report = run.succeed()?;
/// assert_eq!(report.models["Contact"].added, 2);
/// # Ok::<(), highwater::Error>(())
/// ```
pub struct Run {
    engine: Arc<Handle>,
    scope: Arc<RunScope>,
    started: Timestamp,
}

impl std::fmt::Debug for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Run({} #{})", self.scope.key, self.scope.run)
    }
}

impl Run {
    /// The sync this is a run of.
    pub fn sync(&self) -> &SyncKey {
        &self.scope.key
    }

    /// The run's number: later runs of the sync have greater ones.
    pub fn id(&self) -> u64 {
        self.scope.run
    }

    /// The feed of a model, in the sync's connection and variant, to be written through this run.
    ///
    /// # Errors
    /// [`Error::InvalidName`](crate::Error::InvalidName); [`Error::ReplaceInProgress`](crate::Error::ReplaceInProgress) when the run replaces its feeds and
    /// somebody else is replacing this one.
    pub fn feed(&self, model: &str) -> Result<Feed> {
        self.scope.check_open()?;
        let sync = &self.scope.key;
        let key = FeedKey::new(&sync.connection, model, &sync.variant)?;
        let slot = self.scope.feed(&self.engine, &key)?;
        Ok(Feed {
            engine: self.engine.clone(),
            slot,
            run: Some(self.scope.clone()),
            merging: None,
        })
    }

    /// Starts a batch of writes through this run, to be committed together with its checkpoint; see
    /// [`WriteBatch::run_checkpoint`].
    pub fn batch(&self) -> WriteBatch {
        WriteBatch::of_run(self.engine.clone(), self.scope.clone())
    }

    /// The sync's checkpoint.
    ///
    /// # Errors
    /// [`Error::Closed`](crate::Error::Closed). A failure to read is never an absent checkpoint.
    pub fn checkpoint(&self) -> Result<Option<Checkpoint>> {
        let key = self.scope.key.checkpoint_key();
        if let Some(dry) = self.scope.dry() {
            return Ok(documents::read_checkpoint(dry.state(&key)));
        }
        Ok(documents::read_checkpoint(self.engine.read_state(&key)?))
    }

    /// Saves the sync's checkpoint.
    ///
    /// # Errors
    /// As for [`Store::save_checkpoint`](crate::Store::save_checkpoint); [`Error::RunFenced`](crate::Error::RunFenced).
    pub fn save_checkpoint<T: Serialize>(&self, value: &T, expected: Expected) -> Result<()> {
        let json = documents::checkpoint_json(value)?;
        self.set_checkpoint(Some(&json), expected)
    }

    /// Clears the sync's checkpoint; clearing an absent one succeeds.
    ///
    /// # Errors
    /// As for [`Run::save_checkpoint`].
    pub fn clear_checkpoint(&self, expected: Expected) -> Result<()> {
        self.set_checkpoint(None, expected)
    }

    fn set_checkpoint(&self, json: Option<&[u8]>, expected: Expected) -> Result<()> {
        let key = self.scope.key.checkpoint_key();
        let change = documents::checkpoint_change(json, expected);
        let write = StateWrite {
            key,
            change: &change,
        };
        execute(&self.engine, Some(&self.scope), &[], &[write]).map(drop)
    }

    /// Whether an older run was told to stop: what it still writes is refused.
    pub fn is_fenced(&self) -> bool {
        // Also what is not published yet: it was acknowledged.
        let value = self.engine.state.turn().get(&self.scope.key.state_key());
        SyncRow::read(value.as_deref()).fenced_below > self.scope.run
    }

    /// Ends the run as succeeded. What it staged, if it replaces its feeds, becomes visible.
    ///
    /// # Errors
    /// [`Error::RunFenced`](crate::Error::RunFenced), and those of any write.
    pub fn succeed(self) -> Result<RunReport> {
        self.end(RunStatus::Succeeded, None)
    }

    /// Ends the run as failed. What it has committed stays.
    ///
    /// # Errors
    /// As for [`Run::succeed`].
    pub fn fail(self, error: &str) -> Result<RunReport> {
        self.end(RunStatus::Failed, Some(error))
    }

    /// Ends the run as interrupted: it was told to stop.
    ///
    /// # Errors
    /// As for [`Run::succeed`].
    pub fn interrupt(self, reason: &str) -> Result<RunReport> {
        self.end(RunStatus::Interrupted, Some(reason))
    }

    fn end(&self, status: RunStatus, error: Option<&str>) -> Result<RunReport> {
        let scope = &self.scope;
        scope.check_open()?;
        if scope.dry().is_some() {
            return self.end_dry(status, error);
        }
        let succeeded = status == RunStatus::Succeeded;
        let staged = scope.staged();
        let slots: Vec<&Arc<FeedSlot>> = match succeeded {
            true => staged
                .iter()
                .flat_map(|(public, staged)| [public, staged])
                .collect(),
            false => Vec::new(),
        };
        let ended = Timestamp::from_micros(self.engine.options.clock.now_micros());
        let mut tally = scope.tally();
        let report = transact(&self.engine, &slots, scope.author(), |transaction| {
            if succeeded {
                for (public, staged) in &staged {
                    replace::swap_in(transaction, public, staged)?;
                }
                for feed in scope.feeds() {
                    let time = ended.as_micros().to_le_bytes().to_vec();
                    transaction.put(StateKey::feed_use(feed), time);
                }
            }
            tally.check(transaction)?;
            let models = tally.models(transaction);
            let report = close_run(
                transaction,
                &scope.key,
                scope.run,
                |row| {
                    (row.status, row.ended, row.error) =
                        (status, Some(ended), error.map(str::to_owned))
                },
                models,
            )?;
            Ok(report)
        })?;
        tally.done();
        scope.ended.store(true, Ordering::Release);
        for (public, staged) in staged {
            replace::finish(&self.engine, &public, &staged, succeeded);
        }
        Ok(report)
    }
}

impl Run {
    fn end_dry(&self, status: RunStatus, error: Option<&str>) -> Result<RunReport> {
        let mut row = RunRow::begun(self.started, None);
        row.status = status;
        row.ended = Some(Timestamp::from_micros(
            self.engine.options.clock.now_micros(),
        ));
        row.error = error.map(str::to_owned);
        row.checkpoint_to = self.checkpoint()?.map(|checkpoint| checkpoint.json);
        row.models = self.scope.noted();
        self.scope.ended.store(true, Ordering::Release);
        Ok(row.report(self.scope.key.clone(), self.scope.run))
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if !self.scope.ended.load(Ordering::Acquire) {
            let ended = self.end(RunStatus::Interrupted, Some("the run was dropped"));
            if ended.is_err() {
                // The next open ends the run in the same way. Until then nobody who is left with a
                // feed or a batch of it writes any more, and what it staged goes.
                self.scope.ended.store(true, Ordering::Release);
                for (public, staged) in self.scope.staged() {
                    replace::finish(&self.engine, &public, &staged, false);
                }
            }
        }
    }
}
