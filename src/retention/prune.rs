//! Pruning: removes the payloads of a feed's oldest records. Nothing else changes, and no cursor
//! moves.

use std::sync::Arc;

use crate::engine::Engine;
use crate::error::Result;
use crate::feed::marks::Mark;
use crate::feed::slot::FeedSlot;
use crate::log::format::Author;
use crate::retention::{Oldest, Removed, check_run, walk};
use crate::runs::RunScope;
use crate::write::transaction::transact;

/// Prunes the oldest records, live or deleted; those that are pruned already are passed over.
pub(crate) fn prune(
    engine: &Engine,
    run: Option<&RunScope>,
    slot: &Arc<FeedSlot>,
    oldest: &Oldest,
) -> Result<Removed> {
    transact(engine, &[slot], Author::default(), |transaction| {
        let turn = transaction.turn(slot)?;
        let pruned_through = turn.writer.pruned_through;
        let walk = walk(turn, oldest, pruned_through, |record| !record.entry.pruned)?;
        let pruned = walk.removed.records > 0 && !oldest.dry_run;
        if pruned {
            turn.live_bytes -= walk.live_bytes;
            turn.marks.push(Mark::Pruned {
                through: walk.last,
                time: turn.engine.options.clock.now_micros(),
            });
        }
        // Not before the walk: it lines up with everything that changes state.
        check_run(run, transaction)?;
        Ok(walk.removed)
    })
}
