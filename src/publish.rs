//! What a commit does to the readers' view: its frames get their places when they are written, and
//! show only when they are durable.

use std::sync::Arc;

use crate::feed::state::FeedState;
use crate::log::format::{FrameHeader, FrameKind};
use crate::log::{Lsn, SegmentId};
use crate::state::{State, StateOp};

/// Where a frame was written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    pub(crate) segment: SegmentId,
    pub(crate) offset: u64,
}

/// The change of one feed in a commit.
pub(crate) struct FeedPart {
    pub(crate) feed: Arc<FeedState>,
    /// Positions of the versions that this commit supersedes. They stay visible until it shows.
    pub(crate) superseded: Vec<u64>,
    /// Position of the commit's last change of the feed.
    pub(crate) tail: u64,
    pub(crate) time: u64,
    pub(crate) generation: u32,
    /// Live records after the commit, and the bytes of their payloads.
    pub(crate) live: u64,
    pub(crate) live_bytes: u64,
}

/// Everything a commit makes visible.
#[derive(Default)]
pub(crate) struct Publication {
    /// The last frame of the commit.
    pub(crate) lsn: Lsn,
    pub(crate) feeds: Vec<FeedPart>,
    pub(crate) state: Option<(Arc<State>, Vec<StateOp>)>,
}

impl Publication {
    /// Records where the frames are. Readers do not look past a feed's tail, so nothing shows yet.
    pub(crate) fn place<'a>(&self, frames: impl Iterator<Item = (&'a FrameHeader, Place)>) {
        for (header, place) in frames {
            if header.kind != FrameKind::Records {
                continue;
            }
            let part = self.feeds.iter().find(|part| part.feed.id == header.feed);
            if let Some(part) = part {
                part.feed.published.write().directory.push(header, place);
                part.feed.set_written(self.lsn);
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
            published.tail = part.tail;
            published.time = part.time;
            published.lsn = self.lsn;
            published.generation = part.generation;
            published.live = part.live;
            published.live_bytes = part.live_bytes;
            published.directory.retire(&part.superseded);
        }
        if let Some((state, operations)) = &self.state {
            state.publish(operations);
        }
        drop(feeds);
        for part in &self.feeds {
            part.feed.announce();
        }
    }
}
