//! The life of a write: inputs are hashed without a lock, classified against the index, framed,
//! put into the commit queue as one commit, and acknowledged.
//!
//! * [`recognise`]: the hot path, what is unchanged
//! * [`classify`]: what each input does to its record
//! * [`inputs`]: records from typed values, JSON and raw bytes
//! * [`transaction`]: one commit under construction
//! * [`turn`]: the right to write to one feed
//! * [`stored`], [`named`]: versions a write reads, and versions it names without changing them
//! * [`batch`]: several writes in one commit

pub(crate) mod batch;
pub(crate) mod classify;
pub(crate) mod inputs;
mod named;
mod recognise;
mod stored;
pub(crate) mod transaction;
pub(crate) mod turn;

use std::sync::Arc;

use crate::cursor::Cursor;
use crate::engine::Engine;
use crate::error::Result;
use crate::feed::slot::FeedSlot;
use crate::log::format::Author;
use crate::record::{Applied, Totals};
use crate::runs::RunScope;
use crate::state::StateKey;
use crate::write::classify::Prepared;
use crate::write::inputs::Input;
use crate::write::transaction::{Stop, Transaction, transact};

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
    pub(crate) feed: Arc<FeedSlot>,
    pub(crate) verb: Verb,
    pub(crate) inputs: &'a [Input<'a>],
    /// Records that another writer changed after this cursor are left alone.
    pub(crate) merging: Option<Cursor>,
}

/// A read-modify-write of one state value: from the newest value to the one to put, if any.
pub(crate) struct StateWrite<'a> {
    pub(crate) key: StateKey,
    pub(crate) change: &'a dyn Fn(Option<Vec<u8>>) -> Result<Option<Vec<u8>>>,
}

/// Carries writes out as one commit. Returns what was applied, per write.
///
/// # Errors
/// When an input does not fit its stored record, when a state change refuses, when the run was
/// fenced, or when the log fails; nothing was changed then.
pub(crate) fn execute(
    engine: &Engine,
    run: Option<&RunScope>,
    writes: &[Write<'_>],
    states: &[StateWrite<'_>],
) -> Result<Vec<Applied>> {
    let prepared: Vec<Prepared<'_>> = writes
        .iter()
        .map(|write| Prepared::new(engine, write))
        .collect();
    if let Some(run) = run
        && let Some(dry) = run.dry()
    {
        run.check_open()?;
        let applied = dry.execute(engine, run.author(), &prepared, states)?;
        for (write, applied) in writes.iter().zip(&applied) {
            run.note(&write.feed.key.model, applied.totals);
        }
        return Ok(applied);
    }
    let slots: Vec<&Arc<FeedSlot>> = writes.iter().map(|write| &write.feed).collect();
    let author = run.map_or_else(Author::default, RunScope::author);
    let mut tally = run.map(RunScope::tally);
    let applied = transact(engine, &slots, author, |transaction| {
        let mut applied = Vec::with_capacity(prepared.len());
        for write in &prepared {
            applied.push(apply(transaction, &prepared, write)?);
        }
        if let Some(tally) = &mut tally {
            tally.check(transaction)?;
        }
        for state in states {
            transaction.change(state)?;
        }
        if let Some(tally) = &mut tally {
            let models = prepared.iter().map(|write| &write.feed.key);
            let totals = applied.iter().map(|applied| applied.totals);
            tally.add(transaction, models.zip(totals));
        }
        Ok(applied)
    })?;
    if let Some(tally) = tally {
        tally.done();
    }
    Ok(applied)
}

/// Classifies one of the writes of a commit.
fn apply(
    transaction: &mut Transaction<'_>,
    all: &[Prepared<'_>],
    write: &Prepared<'_>,
) -> Result<Applied, Stop> {
    let turn = transaction.turn(&write.feed)?;
    if all
        .iter()
        .filter(|other| other.feed.id == write.feed.id)
        .count()
        > 1
    {
        turn.expect_several();
    }
    let outcomes = turn.classify(write)?;
    let mut totals = Totals::default();
    outcomes.iter().for_each(|outcome| totals.count(*outcome));
    let last_cursor = (totals.changed() > 0).then(|| turn.last_cursor());
    Ok(Applied {
        outcomes,
        totals,
        last_cursor,
    })
}
