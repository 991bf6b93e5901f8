//! The life of a write: inputs are hashed without a lock, classified against the index, framed,
//! put into the commit queue as one commit, and acknowledged.
//!
//! * [`classify`]: what each input does to its record
//! * [`inputs`]: records from typed values, JSON and raw bytes
//! * [`batch`]: several writes in one commit

pub(crate) mod batch;
pub(crate) mod classify;
pub(crate) mod inputs;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::cursor::FeedId;
use crate::engine::Engine;
use crate::error::Result;
use crate::feed::state::{FeedState, Pending};
use crate::log::commit::{Stage, Ticket};
use crate::log::frame::Frame;
use crate::publish::Publication;
use crate::record::{Applied, Totals};
use crate::state::{Registration, StateKey, StateOp};
use crate::write::classify::{FeedTurn, Prepared};
use crate::write::inputs::Input;

/// What a write does with its inputs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verb {
    /// Payloads are opaque bytes.
    SaveRaw,
    /// Payloads are JSON objects, compared as values.
    SaveJson,
    /// Payloads are partial JSON objects, merged into what is stored.
    Update,
    /// There are no payloads.
    Delete,
}

/// One write on one feed.
pub(crate) struct Write<'a> {
    pub(crate) feed: Arc<FeedState>,
    pub(crate) verb: Verb,
    pub(crate) inputs: &'a [Input<'a>],
}

/// A read-modify-write of one state value: from the newest value to the one to put, if any.
pub(crate) struct StateWrite<'a> {
    pub(crate) key: StateKey,
    pub(crate) change: &'a dyn Fn(Option<Vec<u8>>) -> Result<Option<Vec<u8>>>,
}

/// Carries writes out as one commit. Returns what was applied, per write.
///
/// # Errors
/// When an input does not fit its stored record, when a state change refuses, or when the log
/// does; nothing was changed then.
pub(crate) fn execute(
    engine: &Engine,
    writes: &[Write<'_>],
    states: &[StateWrite<'_>],
) -> Result<Vec<Applied>> {
    let prepared: Vec<Prepared<'_>> = writes
        .iter()
        .map(|write| Prepared::new(engine, write))
        .collect();
    // Sorted by id, which is the order locks are taken in.
    let feeds: BTreeMap<FeedId, Arc<FeedState>> = writes
        .iter()
        .map(|write| (write.feed.id, write.feed.clone()))
        .collect();
    loop {
        if let Some(applied) = attempt(engine, &prepared, &feeds, states)? {
            return Ok(applied);
        }
    }
}

/// One attempt; `None` when commits that it rested on were aborted meanwhile.
fn attempt(
    engine: &Engine,
    writes: &[Prepared<'_>],
    feeds: &BTreeMap<FeedId, Arc<FeedState>>,
    states: &[StateWrite<'_>],
) -> Result<Option<Vec<Applied>>> {
    engine.log.check_open()?;
    let aborts = engine.log.aborts();
    let mut turns: BTreeMap<FeedId, FeedTurn<'_>> = BTreeMap::new();
    for (id, feed) in feeds {
        let several = writes.iter().filter(|write| write.feed.id == *id).count() > 1;
        turns.insert(*id, FeedTurn::take(engine, feed, aborts, several)?);
    }
    let mut rests_on = Vec::new();
    let mut applied = Vec::with_capacity(writes.len());
    for write in writes {
        // Every write's feed has a turn.
        let Some(turn) = turns.get_mut(&write.feed.id) else {
            continue;
        };
        let outcomes = turn.classify(write)?;
        let mut totals = Totals::default();
        outcomes.iter().for_each(|outcome| totals.count(*outcome));
        let last_cursor = (totals.changed() > 0).then(|| turn.last_cursor());
        applied.push(Applied {
            outcomes,
            totals,
            last_cursor,
        });
    }
    turns.retain(|_, turn| {
        if !turn.has_changes() {
            rests_on.extend(turn.finish_unchanged());
        }
        turn.has_changes()
    });
    if !turns.is_empty() || !states.is_empty() {
        let Some(queued) = commit(engine, aborts, turns, states)? else {
            return Ok(None);
        };
        rests_on.extend(queued);
    }
    for ticket in &rests_on {
        // Also "unchanged" may be said only of a version that will be there after a crash.
        engine.log.wait(ticket, engine.log.acknowledged_stage())?;
    }
    for feed in feeds.values().filter(|_| !rests_on.is_empty()) {
        feed.forget_published();
    }
    Ok(Some(applied))
}

/// A commit's ticket; `None` when there turned out to be nothing to commit.
type Queued = Option<Arc<Ticket>>;

/// Puts the changes of all turns and states into the queue as one commit; `None` when the turns
/// rest on commits that were aborted.
fn commit(
    engine: &Engine,
    aborts: u64,
    mut turns: BTreeMap<FeedId, FeedTurn<'_>>,
    states: &[StateWrite<'_>],
) -> Result<Option<Queued>> {
    let registers = turns.values().any(|turn| !turn.writer.registered);
    let mut state_turn = (registers || !states.is_empty()).then(|| engine.state.turn());
    let mut operations = Vec::new();
    if let Some(state_turn) = &mut state_turn {
        for state in states {
            let earlier = operations
                .iter()
                .rev()
                .find(|earlier: &&StateOp| earlier.key == state.key);
            let newest = earlier.map(|earlier| earlier.value.clone());
            let value = (state.change)(newest.or_else(|| state_turn.get(&state.key)))?;
            operations.extend(value.map(|value| StateOp {
                key: state.key.clone(),
                value,
            }));
        }
        for turn in turns.values().filter(|turn| !turn.writer.registered) {
            let key = StateKey::feed(turn.feed.id);
            if state_turn.get(&key).is_none() {
                operations.push(StateOp {
                    key,
                    value: registration(turn.feed).encode(),
                });
            }
        }
    }
    let mut frames = Vec::new();
    let mut publication = Publication::default();
    if !operations.is_empty() {
        let bytes = StateOp::encode_all(&operations);
        frames.push(Frame::state(operations.len() as u32, bytes));
        publication.state = Some((engine.state.clone(), operations.clone()));
    }
    for turn in turns.values_mut() {
        publication.feeds.push(turn.publication());
        frames.append(&mut turn.changes.frames);
    }
    if frames.is_empty() {
        return Ok(Some(None));
    }
    frames.iter_mut().for_each(Frame::seal);

    // The index changes in the same moment as the queue does: readers of the index find either
    // the version before, or the new one together with what it replaced.
    let mut turns: Vec<FeedTurn<'_>> = turns.into_values().collect();
    let mut residents: Vec<_> = turns.iter().map(|turn| turn.feed.index.write()).collect();
    let Ok(ticket) = engine.log.enqueue(aborts, frames, publication)? else {
        return Ok(None);
    };
    for (turn, resident) in turns.iter_mut().zip(&mut residents) {
        let before = turn.apply(resident);
        resident.pending.push_back(Pending {
            ticket: ticket.clone(),
            before,
        });
        engine.note_memory(turn.feed, resident);
    }
    if let Some(state_turn) = &mut state_turn {
        state_turn.queued(&operations, &ticket);
    }
    drop(residents);
    let current = turns.first().map(|turn| turn.feed);
    drop(state_turn);
    if let Some(feed) = current {
        engine.budget.enforce(feed);
    }
    debug_assert!(engine.log.acknowledged_stage() >= Stage::Written);
    Ok(Some(Some(ticket)))
}

fn registration(feed: &FeedState) -> Registration {
    Registration {
        key: feed.key.clone(),
        epoch: feed.epoch,
        options: crate::options::FeedOptions::default(),
    }
}
