//! Commits that are written but not synced, in relaxed durability: nobody sees them yet, and a power
//! failure may take them.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::defects::{Defect, Defects};
use crate::log::Lsn;
use crate::log::frame::Frame;
use crate::log::segment::Segment;
use crate::log::ticket::{Stage, Ticket};
use crate::publish::Publication;

/// See the module.
#[derive(Default)]
pub(crate) struct Unsynced {
    /// Oldest first.
    commits: VecDeque<Written>,
    records: u64,
    bytes: u64,
}

/// Segments that the log went on from and that a sync has to see to, oldest first.
#[derive(Clone, Default)]
pub(crate) struct Left(Vec<LeftSegment>);

/// See [`Left`].
#[derive(Clone)]
pub(crate) struct LeftSegment {
    pub(crate) segment: Arc<Segment>,
    /// Where its frames end.
    pub(crate) end: u64,
    pub(crate) is_synced: bool,
}

impl Left {
    pub(crate) fn push(&mut self, left: LeftSegment) {
        self.0.push(left);
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &LeftSegment> {
        self.0.iter()
    }

    /// Takes note that so much of it was seen to.
    pub(crate) fn settle(&mut self, done: &Self) {
        let is_done = |left: &LeftSegment| {
            done.iter()
                .any(|it| Arc::ptr_eq(&it.segment, &left.segment))
        };
        self.0.retain(|left| !is_done(left));
    }
}

/// A commit in the log's files.
pub(crate) struct Written {
    pub(crate) ticket: Arc<Ticket>,
    pub(crate) publication: Publication,
    records: u64,
    bytes: u64,
}

impl Unsynced {
    pub(crate) fn push(&mut self, ticket: Arc<Ticket>, publication: Publication, frames: &[Frame]) {
        let headers = || frames.iter().map(|frame| &frame.header);
        let commit = Written {
            ticket,
            publication,
            records: headers().map(|header| u64::from(header.count)).sum(),
            bytes: headers().map(|header| header.frame_len()).sum(),
        };
        self.records += commit.records;
        self.bytes += commit.bytes;
        self.commits.push_back(commit);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.commits.is_empty()
    }

    /// Records, and bytes of frames, that are at risk.
    pub(crate) fn at_risk(&self) -> (u64, u64) {
        (self.records, self.bytes)
    }

    /// The last frame of the newest of them.
    pub(crate) fn newest(&self) -> Option<Lsn> {
        self.commits.back().map(|commit| commit.ticket.lsn)
    }

    /// Lets those who wait for no more than that know that everything is written.
    pub(crate) fn note_written(&self) {
        // What was noted before is at the front.
        let new = self.commits.iter().rev();
        new.take_while(|commit| !commit.ticket.reached(Stage::Written))
            .for_each(|commit| commit.ticket.advance(Stage::Written));
    }

    /// Takes out the oldest one, unless it is newer than `through`.
    pub(crate) fn pop(&mut self, through: Lsn, defects: Defects) -> Option<Written> {
        let oldest = self.commits.front()?;
        if oldest.ticket.lsn > through {
            return None;
        }
        let commit = match defects.has(Defect::PublishBackwards) {
            true => self.commits.pop_back()?,
            false => self.commits.pop_front()?,
        };
        self.records -= commit.records;
        self.bytes -= commit.bytes;
        Some(commit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// How much may be at risk bounds how many positions a crash can take, and with that which
        /// cursors are never given out again.
        #[test]
        fn what_is_at_risk_is_what_was_written_and_not_synced(
            counts in prop::collection::vec(prop::collection::vec(1u32..9, 1..4), 1..12),
            through in 0u64..14,
        ) {
            let at_risk = |commits: &[Vec<Frame>]| {
                let headers = || commits.iter().flatten().map(|frame| &frame.header);
                let records: u64 = headers().map(|header| u64::from(header.count)).sum();
                (records, headers().map(|header| header.frame_len()).sum::<u64>())
            };
            let frame = |count: &u32| Frame::state(*count, vec![0; 99 * *count as usize]);
            let commits: Vec<Vec<Frame>> =
                counts.iter().map(|counts| counts.iter().map(frame).collect()).collect();
            let tickets: Vec<_> =
                (1..).take(commits.len()).map(|lsn| Arc::new(Ticket::queued(Lsn(lsn)))).collect();
            let mut unsynced = Unsynced::default();
            for (ticket, frames) in tickets.iter().zip(&commits) {
                unsynced.push(ticket.clone(), Publication::default(), frames);
                unsynced.note_written();
                prop_assert!(ticket.reached(Stage::Written));
            }
            prop_assert_eq!(unsynced.newest(), Some(Lsn(commits.len() as u64)));
            prop_assert_eq!(unsynced.at_risk(), at_risk(&commits));
            let popped = std::iter::from_fn(|| unsynced.pop(Lsn(through), Defects::default()));
            let popped: Vec<u64> = popped.map(|commit| commit.ticket.lsn.0).collect();
            let synced = commits.len().min(through as usize);
            prop_assert_eq!(popped, (1..=synced as u64).collect::<Vec<_>>());
            prop_assert_eq!(unsynced.at_risk(), at_risk(&commits[synced..]));
            prop_assert_eq!(unsynced.is_empty(), synced == commits.len());
        }
    }
}
