//! Runs beginning, being told to stop, and being remembered.

use std::sync::Arc;

use crate::documents::{self, Expected};
use crate::engine::{Engine, Handle};
use crate::error::{Error, Result};
use crate::feed::FeedKey;
use crate::feed::marks::Mark;
use crate::feed::slot::FeedSlot;
use crate::log::format::Author;
use crate::record::Timestamp;
use crate::runs::report::{Models, RunReport, RunStatus, SyncKey, decode_models};
use crate::runs::rows::{RunRow, SyncRow};
use crate::runs::{Run, RunOptions, RunScope};
use crate::state::StateKey;
use crate::write::StateWrite;
use crate::write::transaction::{Stop, Transaction, transact};

/// Writes the end of a run, and hands its report to subscribers with the same commit.
pub(super) fn close_run(
    transaction: &mut Transaction<'_>,
    sync: &SyncKey,
    run: u64,
    end: impl FnOnce(&mut RunRow),
    models: Models,
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
    let author = Author {
        run: 0,
        sync: sync.id(engine),
    };
    loop {
        let value = engine.read_state(&sync.state_key())?;
        let windows = SyncRow::read(value.as_deref()).windows;
        let mut slots = Vec::new();
        if close {
            for (model, variant) in &windows {
                slots.push(engine.slot(&FeedKey::new(&sync.connection, model, variant)?)?);
            }
        }
        let borrowed: Vec<&Arc<FeedSlot>> = slots.iter().collect();
        let done = transact(engine, &borrowed, author, |transaction| {
            let newest = transaction.state(&sync.state_key());
            if close && SyncRow::read(newest.as_deref()).windows != windows {
                // Some were opened or closed since the feeds were looked up.
                return Ok(None);
            }
            for slot in &slots {
                let sync = author.sync;
                let turn = transaction.turn(slot)?;
                if turn.writer.windows.contains_key(&sync) {
                    turn.marks.push(Mark::WindowClosed { sync });
                }
            }
            body(transaction).map(Some)
        })?;
        if let Some(done) = done {
            return Ok(done);
        }
    }
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
        let models = tally.as_deref().and_then(decode_models).unwrap_or_default();
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
            row.models = tally.as_deref().and_then(decode_models).unwrap_or_default();
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
