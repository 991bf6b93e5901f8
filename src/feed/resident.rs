//! The index of a feed while it is in memory, together with what is not published yet.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::error::Result;
use crate::hash::Fingerprint;
use crate::index::{Index, IndexEntry, Lookup};
use crate::log::Lsn;
use crate::log::commit::Ticket;
use crate::log::format::Author;

/// See the module.
#[derive(Default)]
pub(crate) struct Resident {
    /// Has queued changes already, so that the next batch is compared with them.
    pub(crate) index: Option<Index>,
    /// Commits in the queue, oldest first.
    pub(crate) pending: VecDeque<Pending>,
}

/// What a queued commit replaced in the index: readers go on seeing this until it is published.
pub(crate) struct Pending {
    pub(crate) ticket: Arc<Ticket>,
    /// Position and time of the commit's first change, and who made it.
    pub(crate) first: u64,
    pub(crate) time: u64,
    pub(crate) author: Author,
    pub(crate) replaced: Vec<IndexEntry>,
    /// The least and the greatest position it supersedes; none when they are the wrong way round.
    pub(crate) oldest_replaced: u64,
    pub(crate) newest_replaced: u64,
}

impl Resident {
    /// Memory that the index takes, in bytes.
    pub(crate) fn memory(&self) -> usize {
        self.index.as_ref().map_or(0, Index::memory)
    }

    /// Drops the index, unless it has changes after `published`.
    pub(crate) fn drop_settled(&mut self, published: Lsn) -> bool {
        let mut queued = self.pending.iter();
        if queued.any(|pending| pending.ticket.lsn > published) {
            return false;
        }
        self.pending.clear();
        self.index = None;
        true
    }

    pub(crate) fn forget_published(&mut self) {
        while self
            .pending
            .front()
            .is_some_and(|p| p.ticket.is_published())
        {
            self.pending.pop_front();
        }
    }

    /// The newest visible versions of records, for readers; the index must be in memory.
    pub(crate) fn visible(
        &self,
        keys: &[Fingerprint],
        tail: u64,
    ) -> Result<Vec<Option<IndexEntry>>> {
        let Some(index) = &self.index else {
            return Ok(vec![None; keys.len()]);
        };
        let mut lookup = Lookup::default();
        index.find_all(keys, &mut lookup)?;
        let newest = keys.iter().zip(&lookup.slots).map(|(key, slot)| {
            let newest = slot.map(|slot| *index.entry(slot, &lookup));
            match newest {
                Some(entry) if entry.position() > tail => self.replaced(*key, tail),
                seen => seen,
            }
        });
        Ok(newest.collect())
    }

    /// The visible version of a record whose newest one is in flight: the oldest queued commit that
    /// changed it knows what was there before.
    fn replaced(&self, key: Fingerprint, tail: u64) -> Option<IndexEntry> {
        let replaced = self.pending.iter().flat_map(|pending| &pending.replaced);
        let mut visible = replaced.filter(|old| old.key == key && old.position() <= tail);
        // The newest of the visible ones: commits already published may still be in the list.
        visible.next_back().copied()
    }
}
