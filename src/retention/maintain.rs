//! Maintenance: what a retention policy asks for, in steps small enough that nobody waits long.

use std::sync::Arc;
use std::time::Duration;

use crate::engine::Engine;
use crate::error::Result;
use crate::feed::directory::FrameRef;
use crate::feed::slot::FeedSlot;
use crate::retention::prune::prune;
use crate::retention::removal::{hard_delete, purge};
use crate::retention::{Oldest, Removed};
use crate::state::StateKey;

/// What is let go of, and when. By default nothing is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "a policy does nothing until a store is maintained by it"]
pub struct Retention {
    prune_after: Option<Duration>,
    delete_after: Option<Duration>,
    purge: bool,
    step: u64,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            prune_after: None,
            delete_after: None,
            purge: false,
            step: 10_000,
        }
    }
}

impl Retention {
    /// Keeps everything.
    pub fn new() -> Self {
        Self::default()
    }

    /// Prunes the payloads of records that were not modified for this long.
    pub fn prune_after(mut self, age: Duration) -> Self {
        self.prune_after = Some(age);
        self
    }

    /// Hard-deletes feeds that no successful run has used for this long. A feed that was never
    /// used by a successful run is as old as its newest change.
    pub fn delete_after(mut self, age: Duration) -> Self {
        self.delete_after = Some(age);
        self
    }

    /// Purges deletions that every named consumer has passed; feeds without named consumers keep
    /// theirs.
    pub fn purge(mut self, purge: bool) -> Self {
        self.purge = purge;
        self
    }

    /// How many records one step takes up at most; 10 000 by default. A feed's writers wait for
    /// one step at a time.
    pub fn step(mut self, records: u64) -> Self {
        self.step = records.max(1);
        self
    }
}

/// What maintenance has done.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, serde::Serialize)]
#[non_exhaustive]
pub struct Maintained {
    /// Records whose payload was pruned.
    pub pruned: u64,
    /// Deletions that were purged.
    pub purged: u64,
    /// Feeds that were hard-deleted.
    pub feeds_deleted: u64,
}

/// Does what a policy asks for, for all feeds.
pub(crate) fn maintain(engine: &Engine, retention: &Retention) -> Result<Maintained> {
    engine.check_not_closed()?;
    engine.make_all_visible();
    let now = engine.options.clock.now_micros();
    let before = |age: Duration| {
        let age = u64::try_from(age.as_micros()).unwrap_or(u64::MAX);
        now.checked_sub(age)
    };
    let mut done = Maintained::default();
    for registration in engine.state.registrations() {
        let slot = engine.slot(&registration.key)?;
        if let Some(limit) = retention.delete_after.and_then(before)
            && is_abandoned(engine, &slot, limit)
        {
            let _ = hard_delete(engine, None, &slot, &Oldest::all())?;
            done.feeds_deleted += 1;
            continue;
        }
        let old = retention.prune_after.and_then(before);
        if let Some(until) = old.and_then(|limit| newest_before(&slot, limit)) {
            done.pruned += in_steps(retention, Oldest::until(until), |step| {
                prune(engine, None, &slot, step)
            })?;
        }
        if retention.purge && !crate::consumers::list(engine, &slot)?.is_empty() {
            done.purged += in_steps(retention, Oldest::all(), |step| {
                purge(engine, None, &slot, step)
            })?;
        }
    }
    Ok(done)
}

fn in_steps(
    retention: &Retention,
    bounds: Oldest,
    step: impl Fn(&Oldest) -> Result<Removed>,
) -> Result<u64> {
    let mut records = 0;
    loop {
        let removed = step(&bounds.limit(retention.step))?;
        records += removed.records;
        if !removed.has_more {
            return Ok(records);
        }
    }
}

/// Whether a feed has records, but no successful run has used it since `limit`.
fn is_abandoned(engine: &Engine, slot: &FeedSlot, limit: u64) -> bool {
    let used = engine.state.get(&StateKey::feed_use(slot.id));
    let used = used.and_then(|value| value.try_into().ok().map(u64::from_le_bytes));
    let state = slot.current();
    let published = state.published.read();
    let shown = published.directory.iter().any(|frame| frame.live_count > 0);
    shown && used.unwrap_or(published.time) <= limit
}

/// The cursor up to which a feed was last modified before `limit`.
fn newest_before(slot: &Arc<FeedSlot>, limit: u64) -> Option<crate::Cursor> {
    let state = slot.current();
    let published = state.published.read();
    let frames = published.directory.frames();
    let visible = |frame: &FrameRef| frame.first <= published.tail;
    let old = frames.partition_point(|frame| frame.time <= limit && visible(frame));
    // Of a packed frame the older part may be old enough.
    let part = frames.get(old).filter(|frame| visible(frame));
    let origins = part.map_or_else(Vec::new, |frame| frame.origins());
    let young = origins.iter().find(|origin| origin.time > limit);
    let before = young.filter(|young| origins.first() != Some(young));
    let end = match (before, old.checked_sub(1).and_then(|at| frames.get(at))) {
        (Some(young), _) => young.first,
        (None, last) => last?.end(),
    };
    Some(state.cursor(end - 1))
}
