//! Records that a write names without changing them: a deletion window has to know them, and so
//! has a feed that records which sync saved a record last.

use crate::feed::marks::Mark;
use crate::feed::resident::Resident;
use crate::log::format::SyncId;
use crate::write::classify::Prepared;
use crate::write::turn::FeedTurn;

/// See the module. Costs a comparison a record while nobody is interested.
pub(crate) struct Named {
    /// Versions up to here are of interest to an open window; 0 when there is none.
    window_start: u64,
    tracks_owner: bool,
    seen: Vec<u64>,
    claimed: Vec<u64>,
}

impl Named {
    pub(crate) fn of(turn: &FeedTurn<'_>, write: &Prepared<'_>) -> Self {
        let window_start = turn.seen_up_to;
        let room = if window_start > 0 { write.len() } else { 0 };
        Self {
            window_start,
            // Only saving makes a record one's own.
            tracks_owner: turn.writer.options.track_owner
                && turn.author.sync != SyncId::default()
                && write.is_save(),
            seen: Vec::with_capacity(room),
            claimed: Vec::new(),
        }
    }

    /// Notes the version that a write found and left as it is; `same` says that it is what the
    /// write brings, and was not only left alone.
    pub(crate) fn note(
        &mut self,
        turn: &FeedTurn<'_>,
        resident: &Resident,
        position: u64,
        same: bool,
    ) {
        if position <= self.window_start {
            self.seen.push(position);
        }
        if self.tracks_owner && same {
            let claimed = turn.feed.published.read().marks.claimed_by(position);
            let owner = claimed.unwrap_or_else(|| turn.made(resident, position).0.sync);
            if owner != turn.author.sync {
                self.claimed.push(position);
            }
        }
    }

    /// Takes a note back: the record was named, but the write changes it.
    pub(crate) fn retract(&mut self, position: u64) {
        self.seen.retain(|seen| *seen != position);
        self.claimed.retain(|claimed| *claimed != position);
    }

    pub(crate) fn into_marks(mut self, sync: SyncId) -> impl Iterator<Item = Mark> {
        // A record may have come twice.
        self.seen.sort_unstable();
        self.seen.dedup();
        self.claimed.sort_unstable();
        self.claimed.dedup();
        let seen = (!self.seen.is_empty()).then_some(Mark::Seen(self.seen));
        let claimed = (!self.claimed.is_empty()).then_some(Mark::Claimed {
            sync,
            positions: self.claimed,
        });
        seen.into_iter().chain(claimed)
    }
}
