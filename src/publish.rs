//! What a commit does to the readers' view: its frames get their places when they are written, and
//! show only when they are durable.

use std::sync::Arc;

use crate::events::{CommitEvent, Event, Events};
use crate::feed::marks::Mark;
use crate::feed::slot::FeedSlot;
use crate::feed::state::FeedState;
use crate::log::format::{FrameHeader, FrameKind};
use crate::log::{Lsn, SegmentId};
use crate::record::Totals;
use crate::runs::RunReport;
use crate::state::{State, StateOp};
use crate::write::transaction::only_names;

/// Where a frame was written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    pub(crate) segment: SegmentId,
    pub(crate) offset: u64,
}

/// The change of one feed in a commit.
pub(crate) struct FeedPart {
    pub(crate) feed: Arc<FeedState>,
    /// `None` when no record changes its place.
    pub(crate) changes: Option<ChangePart>,
    /// Live records after the commit, and the bytes of their payloads.
    pub(crate) live: u64,
    pub(crate) live_bytes: u64,
    pub(crate) marks: Vec<Mark>,
}

/// The changed records of one feed in a commit.
pub(crate) struct ChangePart {
    /// Positions of the versions that this commit supersedes. They stay visible until it shows.
    pub(crate) superseded: Vec<u64>,
    /// Positions of the commit's first and last change of the feed.
    pub(crate) first: u64,
    pub(crate) tail: u64,
    pub(crate) time: u64,
    pub(crate) generation: u32,
    /// What the changes were.
    pub(crate) totals: Totals,
}

/// Everything a commit makes visible.
#[derive(Default)]
pub(crate) struct Publication {
    /// The last frame of the commit.
    pub(crate) lsn: Lsn,
    pub(crate) feeds: Vec<FeedPart>,
    pub(crate) state: Option<(Arc<State>, Vec<StateOp>)>,
    /// Feeds that go on in another epoch.
    pub(crate) swaps: Vec<(Arc<FeedSlot>, Arc<FeedState>)>,
    /// Runs that end.
    pub(crate) reports: Vec<RunReport>,
    /// Whom to tell.
    pub(crate) events: Option<Arc<Events>>,
}

impl Publication {
    /// Records where the frames are. Readers do not look past a feed's tail, so nothing shows yet.
    pub(crate) fn place<'a>(&self, frames: impl Iterator<Item = (&'a FrameHeader, Place)>) {
        for (header, place) in frames {
            if !matches!(header.kind, FrameKind::Records | FrameKind::Marks) {
                continue;
            }
            let of_frame =
                |part: &&FeedPart| part.feed.id == header.feed && part.feed.epoch == header.epoch;
            let Some(part) = self.feeds.iter().find(of_frame) else {
                continue;
            };
            if header.kind == FrameKind::Records {
                part.feed.published.write().directory.push(header, place);
            }
            // That records were named shows nowhere, so nobody has to wait for it.
            if header.kind == FrameKind::Records || !part.marks.iter().all(only_names) {
                part.feed.set_written(self.lsn);
            }
        }
    }

    /// Takes what the commit supersedes from the readers, for [`Defect::RetireBeforeSync`].
    ///
    /// [`Defect::RetireBeforeSync`]: crate::defects::Defect::RetireBeforeSync
    pub(crate) fn retire(&self) {
        for part in &self.feeds {
            if let Some(changes) = &part.changes {
                part.feed.published.write().retire(&changes.superseded);
            }
        }
    }

    /// Shows the commit: whole, in all its feeds at once.
    pub(crate) fn publish(&self) {
        let mut feeds: Vec<_> = self
            .feeds
            .iter()
            .map(|part| (part, part.feed.published.write()))
            .collect();
        for (part, published) in &mut feeds {
            published.lsn = self.lsn;
            published.live = part.live;
            published.live_bytes = part.live_bytes;
            if let Some(changes) = &part.changes {
                published.tail = changes.tail;
                published.time = changes.time;
                published.generation = changes.generation;
                published.retire(&changes.superseded);
            }
            published.apply(&part.marks);
            part.feed.note_purges(published);
        }
        let swap = |(slot, state): &(Arc<FeedSlot>, Arc<FeedState>)| {
            state.set_staged(false);
            slot.swap(state.clone())
        };
        let superseded: Vec<Arc<FeedState>> = self.swaps.iter().map(swap).collect();
        if let Some((state, operations)) = &self.state {
            state.publish(operations);
        }
        drop(feeds);
        // Who waits there looks at what is published as soon as it is told.
        superseded.iter().for_each(|state| state.supersede());
        for part in &self.feeds {
            part.feed.announce();
        }
        if let Some(events) = &self.events {
            self.tell(events);
        }
    }

    /// Lets go of what was kept for readers until now. In relaxed durability nobody who waited for
    /// the commit comes back to do that.
    pub(crate) fn let_go(&self) {
        let feeds = self.feeds.iter().map(|part| &part.feed);
        feeds.for_each(|feed| feed.forget_published());
    }

    fn tell(&self, events: &Events) {
        if !events.has_subscribers() {
            return;
        }
        for part in self.feeds.iter().filter(|part| !part.feed.is_staged()) {
            if let Some(changes) = &part.changes {
                events.send(&Event::Commit(CommitEvent {
                    feed: part.feed.key.clone(),
                    first_cursor: part.feed.cursor(changes.first),
                    last_cursor: part.feed.cursor(changes.tail),
                    totals: changes.totals,
                }));
            }
        }
        for (slot, state) in &self.swaps {
            events.send(&Event::Replaced(slot.key.clone(), state.epoch));
        }
        for report in &self.reports {
            events.send(&Event::Run(Box::new(report.clone())));
        }
    }
}
