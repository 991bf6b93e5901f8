//! Runs of syncs: who writes, what came of it, and which runs may no longer write.
//!
//! A run's report is made of the same commits as its data: every commit through a run carries
//! what the run has done up to there.

mod dry;
mod report;
mod rows;
mod scope;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde::Serialize;

pub use report::{RunReport, RunStatus, SyncKey};
pub(crate) use rows::{RunRow, SyncRow};
pub(crate) use scope::RunScope;

use crate::documents::{self, Checkpoint, Expected};
use crate::engine::{Engine, Handle};
use crate::error::{Error, Result};
use crate::feed::marks::Mark;
use crate::feed::slot::FeedSlot;
use crate::feed::{Feed, FeedKey};
use crate::log::format::Author;
use crate::record::Timestamp;
use crate::replace;
use crate::state::StateKey;
use crate::write::batch::WriteBatch;
use crate::write::transaction::{Stop, Transaction, transact};
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
    /// [`Error::InvalidName`]; [`Error::ReplaceInProgress`] when the run replaces its feeds and
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
    /// [`Error::Closed`]. A failure to read is never an absent checkpoint.
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
    /// As for [`Store::save_checkpoint`](crate::Store::save_checkpoint); [`Error::RunFenced`].
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
        let value = self.engine.state.get(&self.scope.key.state_key());
        SyncRow::read(value.as_deref()).fenced_below > self.scope.run
    }

    /// Ends the run as succeeded. What it staged, if it replaces its feeds, becomes visible.
    ///
    /// # Errors
    /// [`Error::RunFenced`], and those of any write.
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
                // The next open ends the run in the same way; what it staged goes now.
                for (public, staged) in self.scope.staged() {
                    replace::finish(&self.engine, &public, &staged, false);
                }
            }
        }
    }
}

/// Writes the end of a run, and hands its report to subscribers with the same commit.
fn close_run(
    transaction: &mut Transaction<'_>,
    sync: &SyncKey,
    run: u64,
    end: impl FnOnce(&mut RunRow),
    models: report::Models,
) -> Result<RunReport, Stop> {
    let key = StateKey::run(&sync.runs_key(), run);
    let row = transaction.state(&key);
    let row = row.as_deref().and_then(RunRow::decode);
    let mut row = row.ok_or(Error::RunFenced { run })?;
    end(&mut row);
    row.checkpoint_to = documents::read_checkpoint(transaction.state(&sync.checkpoint_key()))
        .map(|checkpoint| checkpoint.json);
    row.models = models;
    transaction.put(key, row.encode());
    transaction.remove(StateKey::tally(sync.id(transaction.engine), run));
    let report = row.report(sync.clone(), run);
    transaction.report(report.clone());
    Ok(report)
}

/// Begins a run.
pub(crate) fn begin(engine: &Arc<Handle>, sync: &SyncKey, options: RunOptions) -> Result<Run> {
    let started = Timestamp::from_micros(engine.options.clock.now_micros());
    let number = |transaction: &mut Transaction<'_>| {
        if options.reset {
            reset_in(transaction, sync)?;
        }
        let value = transaction.state(&sync.state_key());
        let mut row = SyncRow::read(value.as_deref());
        row.last_run += 1;
        transaction.put(sync.state_key(), row.encode());
        let checkpoint = documents::read_checkpoint(transaction.state(&sync.checkpoint_key()));
        let run = RunRow::begun(started, checkpoint.map(|checkpoint| checkpoint.json));
        transaction.put(StateKey::run(&sync.runs_key(), row.last_run), run.encode());
        forget_old_runs(transaction, sync);
        Ok(row.last_run)
    };
    let run = with_windows(engine, sync, options.reset, number)?;
    let scope = RunScope::new(engine, sync.clone(), run, options.replace);
    Ok(Run {
        engine: engine.clone(),
        scope: Arc::new(scope),
        started,
    })
}

/// Begins a run that commits nothing.
pub(crate) fn begin_dry(engine: &Arc<Handle>, sync: &SyncKey) -> Result<Run> {
    let value = engine.read_state(&sync.state_key())?;
    // The number that the next run is going to have.
    let run = SyncRow::read(value.as_deref()).last_run + 1;
    Ok(Run {
        engine: engine.clone(),
        scope: Arc::new(RunScope::new_dry(engine, sync.clone(), run)),
        started: Timestamp::from_micros(engine.options.clock.now_micros()),
    })
}

/// Runs `body` as a transaction on the feeds that the sync has windows in, if it is to close them.
fn with_windows<T>(
    engine: &Engine,
    sync: &SyncKey,
    close: bool,
    mut body: impl FnMut(&mut Transaction<'_>) -> Result<T, Stop>,
) -> Result<T> {
    let value = engine.read_state(&sync.state_key())?;
    let row = SyncRow::read(value.as_deref());
    let mut slots = Vec::new();
    if close {
        for (model, variant) in &row.windows {
            slots.push(engine.slot(&FeedKey::new(&sync.connection, model, variant)?)?);
        }
    }
    let author = Author {
        run: 0,
        sync: sync.id(engine),
    };
    let borrowed: Vec<&Arc<FeedSlot>> = slots.iter().collect();
    transact(engine, &borrowed, author, |transaction| {
        for slot in &slots {
            let sync = author.sync;
            let turn = transaction.turn(slot)?;
            if turn.writer.windows.contains_key(&sync) {
                turn.marks.push(Mark::WindowClosed { sync });
            }
        }
        body(transaction)
    })
}

/// Clears a sync's checkpoint and windows, and fences its runs.
pub(crate) fn reset(engine: &Engine, sync: &SyncKey) -> Result<()> {
    with_windows(engine, sync, true, |transaction| {
        reset_in(transaction, sync)
    })
}

fn reset_in(transaction: &mut Transaction<'_>, sync: &SyncKey) -> Result<(), Stop> {
    fence_in(transaction, sync)?;
    let change = documents::checkpoint_change(None, Expected::Any);
    transaction.change(&StateWrite {
        key: sync.checkpoint_key(),
        change: &change,
    })?;
    let value = transaction.state(&sync.state_key());
    let mut row = SyncRow::read(value.as_deref());
    row.windows.clear();
    transaction.put(sync.state_key(), row.encode());
    Ok(())
}

/// Declares all runs of a sync so far dead: they end as interrupted, and what they still write is
/// refused.
pub(crate) fn fence(engine: &Engine, sync: &SyncKey) -> Result<()> {
    transact(engine, &[], Author::default(), |transaction| {
        fence_in(transaction, sync)
    })
}

fn fence_in(transaction: &mut Transaction<'_>, sync: &SyncKey) -> Result<(), Stop> {
    let value = transaction.state(&sync.state_key());
    let mut row = SyncRow::read(value.as_deref());
    row.fenced_below = row.last_run + 1;
    transaction.put(sync.state_key(), row.encode());
    interrupt(transaction, sync, "another run took over", row.last_run)
}

/// Ends the runs of a sync that are still going on as interrupted.
fn interrupt(
    transaction: &mut Transaction<'_>,
    sync: &SyncKey,
    reason: &str,
    newest: u64,
) -> Result<(), Stop> {
    let runs_key = sync.runs_key();
    let engine = transaction.engine;
    let now = Timestamp::from_micros(engine.options.clock.now_micros());
    let kept = newest.saturating_sub(engine.options.runs_kept);
    for run in kept..=newest {
        let value = transaction.state(&StateKey::run(&runs_key, run));
        let running = value.as_deref().and_then(RunRow::decode);
        if running.is_none_or(|row| row.status != RunStatus::Running) {
            continue;
        }
        let tally = transaction.state(&StateKey::tally(sync.id(engine), run));
        let models = tally
            .as_deref()
            .and_then(report::decode_models)
            .unwrap_or_default();
        let end = |row: &mut RunRow| {
            row.status = RunStatus::Interrupted;
            row.ended = Some(now);
            row.error = Some(reason.to_owned());
        };
        close_run(transaction, sync, run, end, models)?;
    }
    Ok(())
}

/// Keeps the reports of the newest runs only.
fn forget_old_runs(transaction: &mut Transaction<'_>, sync: &SyncKey) {
    let engine = transaction.engine;
    let known = engine.state.with_prefix(&sync.runs_key());
    // The one that begins now is not among them yet.
    let surplus = (known.len() as u64 + 1).saturating_sub(engine.options.runs_kept);
    for (key, _) in known.into_iter().take(surplus as usize) {
        if let Some(run) = key.run_number() {
            transaction.remove(StateKey::tally(sync.id(engine), run));
        }
        transaction.remove(key);
    }
}

/// When a store is opened: runs that were going on when it was left are over.
pub(crate) fn interrupt_all(engine: &Engine) -> Result<()> {
    let all = engine.state.with_prefix(&StateKey::all_runs());
    let running = all.iter().filter(|(_, value)| RunRow::is_running(value));
    let mut syncs: Vec<SyncKey> = running
        .filter_map(|(key, _)| SyncKey::of_run_key(key))
        .collect();
    syncs.dedup();
    if syncs.is_empty() {
        return Ok(());
    }
    transact(engine, &[], Author::default(), |transaction| {
        for sync in &syncs {
            let value = transaction.state(&sync.state_key());
            let newest = SyncRow::read(value.as_deref()).last_run;
            interrupt(transaction, sync, "the process ended", newest)?;
        }
        Ok(())
    })
}

/// The reports of a sync's newest runs, newest first.
pub(crate) fn reports(engine: &Engine, sync: &SyncKey) -> Result<Vec<RunReport>> {
    engine.check_not_closed()?;
    engine.make_all_visible();
    let known = engine.state.with_prefix(&sync.runs_key());
    let report = |(key, value): &(StateKey, Vec<u8>)| {
        let run = key.run_number()?;
        let mut row = RunRow::decode(value)?;
        if row.status == RunStatus::Running {
            let tally = engine.state.get(&StateKey::tally(sync.id(engine), run));
            row.models = tally
                .as_deref()
                .and_then(report::decode_models)
                .unwrap_or_default();
        }
        Some(row.report(sync.clone(), run))
    };
    Ok(known.iter().rev().filter_map(report).collect())
}

/// All syncs that ever had a run.
pub(crate) fn syncs(engine: &Engine) -> Result<Vec<SyncKey>> {
    engine.check_not_closed()?;
    engine.make_all_visible();
    let all = engine.state.with_prefix(&StateKey::all_runs());
    let mut syncs: Vec<SyncKey> = all
        .iter()
        .filter_map(|(key, _)| SyncKey::of_run_key(key))
        .collect();
    syncs.dedup();
    syncs.sort();
    Ok(syncs)
}
