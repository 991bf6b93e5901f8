//! Removing records: hard deletion, which leaves nothing behind, and the purge of deletions that
//! every named consumer has passed.

use std::sync::Arc;

use crate::consumers;
use crate::engine::Engine;
use crate::error::Result;
use crate::feed::marks::Mark;
use crate::feed::slot::FeedSlot;
use crate::log::format::Author;
use crate::retention::{Oldest, Removed, check_run, everything, walk};
use crate::runs::RunScope;
use crate::state::StateKey;
use crate::write::transaction::transact;

/// Removes the oldest records entirely, without an event in the feed. Without bounds the whole feed
/// goes, and starts over in a new epoch.
pub(crate) fn hard_delete(
    engine: &Engine,
    run: Option<&RunScope>,
    slot: &Arc<FeedSlot>,
    oldest: &Oldest,
) -> Result<Removed> {
    // What is staged is no feed of its own: emptying it starts nothing over.
    let is_public = Arc::ptr_eq(&engine.slot(&slot.key)?, slot);
    let whole = is_public && oldest.until.is_none() && oldest.limit.is_none();
    let removed = transact(engine, &[slot], Author::default(), |transaction| {
        check_run(run, transaction)?;
        let turn = transaction.turn(slot)?;
        let walk = match whole {
            true => everything(turn)?,
            false => walk(turn, oldest, 0, |_| true)?,
        };
        if oldest.dry_run || (walk.removed.records == 0 && !whole) {
            return Ok(walk.removed);
        }
        turn.removes = true;
        if whole {
            let mut registration = transaction.registration(slot);
            registration.newest_epoch += 1;
            registration.epoch = registration.newest_epoch;
            transaction.register(slot, &registration);
            // What used the old data says nothing about what comes now.
            transaction.remove(StateKey::feed_use(slot.id));
            let epoch = registration.epoch;
            let state = engine.new_stream(slot, epoch, registration.options);
            transaction.swap(slot, state);
        } else {
            turn.live -= walk.removed.live;
            turn.live_bytes -= walk.live_bytes;
            turn.marks.push(Mark::Removed { through: walk.last });
        }
        Ok(walk.removed)
    })?;
    if whole && !oldest.dry_run {
        engine.forget_streams_of(slot);
    }
    Ok(removed)
}

/// Removes the oldest deletions that every named consumer has passed.
pub(crate) fn purge(
    engine: &Engine,
    run: Option<&RunScope>,
    slot: &Arc<FeedSlot>,
    oldest: &Oldest,
) -> Result<Removed> {
    let passed = consumers::passed_by_all(engine, slot)?;
    let Some(passed) = passed else {
        return Ok(Removed::default());
    };
    let bounds = Oldest {
        until: match oldest.until {
            Some(until) => Some(passed.map_or(until, |passed| until.min(passed))),
            None => passed,
        },
        ..*oldest
    };
    transact(engine, &[slot], Author::default(), |transaction| {
        check_run(run, transaction)?;
        let turn = transaction.turn(slot)?;
        let walk = walk(turn, &bounds, 0, |record| record.is_deleted())?;
        if walk.removed.records > 0 && !oldest.dry_run {
            turn.removes = true;
            turn.marks.push(Mark::Purged(walk.positions));
        }
        Ok(walk.removed)
    })
}
