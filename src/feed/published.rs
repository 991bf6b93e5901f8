//! What readers see of a feed.

use std::collections::BTreeSet;

use crate::catalog::FeedRow;
use crate::feed::directory::Directory;
use crate::feed::frame_ref::{FrameRef, Origin};
use crate::feed::marks::{Mark, Marks};
use crate::log::{Lsn, SegmentId};

/// See the module.
#[derive(Clone, Default)]
pub(crate) struct Published {
    /// May have frames past `tail` already; they do not show.
    pub(crate) directory: Directory,
    /// Position of the newest visible change; 0 when there never was one.
    pub(crate) tail: u64,
    pub(crate) time: u64,
    pub(crate) lsn: Lsn,
    pub(crate) generation: u32,
    pub(crate) live: u64,
    pub(crate) live_bytes: u64,
    pub(crate) marks: Marks,
    /// Whether the catalog lacks the newest marks.
    pub(crate) marks_dirty: bool,
}

impl Published {
    /// A feed as the catalog has it.
    pub(crate) fn of_row(row: &FeedRow, frames: Vec<FrameRef>, marks: Marks) -> Self {
        Self {
            directory: Directory::restore(frames),
            tail: row.tail,
            time: row.time,
            lsn: Lsn(row.lsn),
            generation: row.generation,
            live: row.live,
            live_bytes: row.live_bytes,
            marks,
            marks_dirty: false,
        }
    }

    /// Applies marks that are on stable storage.
    pub(crate) fn apply(&mut self, marks: &[Mark]) {
        for mark in marks {
            self.marks.apply(mark, &mut self.directory);
        }
        self.marks_dirty |= !marks.is_empty();
    }

    /// Puts packed frames in the place of those in the files `ids`; `None`, with nothing changed,
    /// when a live record would be lost.
    pub(crate) fn repack(
        &mut self,
        ids: &BTreeSet<SegmentId>,
        packed: Vec<FrameRef>,
    ) -> Option<()> {
        let gone = self.directory.repack(ids, packed)?;
        self.forget_commits(&gone);
        Some(())
    }

    /// Takes note of commits of which no record is left.
    pub(crate) fn forget_commits(&mut self, gone: &[Origin]) {
        self.marks.gone.add(gone);
        self.marks_dirty = true;
    }

    /// Retires versions that newer ones took the place of.
    pub(crate) fn retire(&mut self, superseded: &[u64]) {
        self.directory.retire(superseded);
        self.marks_dirty |= self.marks.forget(superseded);
    }
}
