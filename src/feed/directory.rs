//! The directory of a feed: its frames in position order, with one bit per record that tells
//! whether the record is still the newest version.

use std::collections::BTreeSet;
use std::sync::Arc;

pub(crate) use crate::feed::frame_ref::FrameRef;
use crate::feed::frame_ref::Origin;
use crate::log::format::FrameHeader;
use crate::log::{Lsn, SegmentId};
use crate::publish::Place;

/// Frames per catalog row: what one changed bit costs to save.
pub(crate) const CHUNK_FRAMES: usize = 256;

/// A frame with its two counts.
const ARC_FRAME: usize = size_of::<FrameRef>() + 2 * size_of::<usize>();

/// See the module. A copy shares its frames with the original, until one of them changes there: who
/// has to look at all of them takes one, and keeps nobody waiting.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct Directory {
    frames: Vec<Arc<FrameRef>>,
    /// Chunks of frames that the catalog does not have yet, or has in an older state.
    dirty: BTreeSet<usize>,
}

impl Directory {
    /// A directory as the catalog has it.
    pub(crate) fn restore(frames: Vec<FrameRef>) -> Self {
        Self {
            frames: frames.into_iter().map(Arc::new).collect(),
            dirty: BTreeSet::new(),
        }
    }

    /// Appends a frame; frames come in position order.
    pub(crate) fn push(&mut self, header: &FrameHeader, place: Place) {
        debug_assert!(
            self.frames
                .last()
                .is_none_or(|last| last.end() <= header.first)
        );
        self.dirty.insert(self.frames.len() / CHUNK_FRAMES);
        self.frames.push(Arc::new(FrameRef::new(header, place)));
    }

    /// Whether the catalog lacks something.
    pub(crate) fn is_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    pub(crate) fn frames(&self) -> &[Arc<FrameRef>] {
        &self.frames
    }

    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = &FrameRef> + ExactSizeIterator {
        self.frames.iter().map(Arc::as_ref)
    }

    /// All frames, as they are now.
    pub(crate) fn to_vec(&self) -> Vec<FrameRef> {
        self.iter().cloned().collect()
    }

    /// How many newest versions there are up to a position, which a frame ends at: live records, and
    /// deletions.
    pub(crate) fn live_through(&self, position: u64) -> u64 {
        let visible = self.iter().take_while(|frame| frame.first <= position);
        visible.map(|frame| u64::from(frame.live_count)).sum()
    }

    /// Index of the first frame that ends after `position`.
    pub(crate) fn frame_after(&self, position: u64) -> usize {
        self.frames.partition_point(|frame| frame.end() <= position)
    }

    /// The frame that holds the record at `position`.
    pub(crate) fn find(&self, position: u64) -> Option<&FrameRef> {
        let frame = self.frames.get(self.frame_after(position))?;
        (frame.first <= position).then_some(frame.as_ref())
    }

    /// Marks superseded versions as no longer live. Positions that are not there are passed over:
    /// replay meets versions that were retired before.
    pub(crate) fn retire(&mut self, positions: &[u64]) {
        let mut at = 0;
        for position in positions {
            // Batches mostly supersede neighbours, so the last frame is a good guess.
            let holds = |frame: &FrameRef| (frame.first..frame.end()).contains(position);
            if !self.frames.get(at).is_some_and(|frame| holds(frame)) {
                at = self.frame_after(*position);
            }
            let Some(frame) = self.frames.get_mut(at).filter(|frame| holds(frame)) else {
                continue;
            };
            if frame.is_live((position - frame.first) as u32) {
                Arc::make_mut(frame).retire(*position);
                self.dirty.insert(at / CHUNK_FRAMES);
            }
        }
    }

    /// Marks every version at or before `position` as no longer live.
    pub(crate) fn retire_through(&mut self, position: u64) {
        let mut retired = Vec::new();
        for frame in self.iter().take_while(|frame| frame.first <= position) {
            retired.extend(frame.live_positions().take_while(|live| *live <= position));
        }
        self.retire(&retired);
    }

    /// The newest commit that begins at or before `position`, and the oldest one after that, of
    /// those that have records left.
    pub(crate) fn commits_around(&self, position: u64) -> (Option<Origin>, Option<Origin>) {
        let after = self.frames.partition_point(|frame| frame.first <= position);
        // A packed frame's first commit may begin before its first record that is left.
        let near = after.saturating_sub(1)..(after + 1).min(self.frames.len());
        let (mut before, mut next) = (None, None);
        for origin in self.frames[near].iter().flat_map(|frame| frame.origins()) {
            if origin.first <= position {
                before = Some(origin);
            } else {
                next = next.or(Some(origin));
            }
        }
        (before, next)
    }

    /// Puts packed frames in the place of those that are in `segments`. What was retired meanwhile
    /// stays so. Returns the commits of which no record is left; `None`, with nothing changed, when
    /// a live record would be lost.
    pub(crate) fn repack(
        &mut self,
        segments: &BTreeSet<SegmentId>,
        mut packed: Vec<FrameRef>,
    ) -> Option<Vec<Origin>> {
        let replaced = |frame: &FrameRef| segments.contains(&frame.segment);
        for frame in &mut packed {
            frame.live.fill(0);
            frame.live_count = 0;
        }
        let mut gone = Vec::new();
        let mut at = 0;
        for frame in self.iter().filter(|frame| replaced(frame)) {
            for position in frame.live_positions() {
                while packed.get(at).is_some_and(|to| to.end() <= position) {
                    at += 1;
                }
                packed.get_mut(at)?.revive(position)?;
            }
            gone.extend(frame.origins());
        }
        let kept: BTreeSet<u64> = packed
            .iter()
            .flat_map(FrameRef::origins)
            .map(|origin| origin.first)
            .collect();
        gone.retain(|origin| !kept.contains(&origin.first));
        let Some(first) = self.iter().position(replaced) else {
            return Some(gone);
        };
        let chunks = self.frames.len().div_ceil(CHUNK_FRAMES);
        self.frames
            .retain(|frame| !segments.contains(&frame.segment));
        self.frames.extend(packed.into_iter().map(Arc::new));
        self.frames.sort_by_key(|frame| frame.first);
        // Also the chunks that are gone, or new: one frame may have become several.
        let chunks = chunks.max(self.frames.len().div_ceil(CHUNK_FRAMES));
        self.dirty.extend(first / CHUNK_FRAMES..chunks);
        Some(gone)
    }

    /// Becomes what was made of `before`, a copy of this directory, by repacking it. What was pushed
    /// and retired since then is so there too.
    pub(crate) fn catch_up(&mut self, before: &Self, mut repacked: Self) {
        let since = before.frames.iter().zip(&self.frames);
        let changed = since.filter(|(old, new)| !Arc::ptr_eq(old, new));
        let retired = |(old, new): (&Arc<FrameRef>, &Arc<FrameRef>)| {
            let gone = |position: &u64| !new.is_live((position - new.first) as u32);
            old.live_positions().filter(gone).collect::<Vec<u64>>()
        };
        let retired: Vec<u64> = changed.flat_map(retired).collect();
        let pushed = &self.frames[before.frames.len()..];
        repacked.frames.extend(pushed.iter().cloned());
        repacked.dirty.clone_from(&self.dirty);
        repacked.retire(&retired);
        let same = repacked.frames.iter().zip(&self.frames);
        let first =
            same.take_while(|(new, old)| new.first == old.first && new.segment == old.segment);
        let first = first.count();
        let most = self.frames.len().max(repacked.frames.len());
        if first < most {
            repacked
                .dirty
                .extend(first / CHUNK_FRAMES..most.div_ceil(CHUNK_FRAMES));
        }
        *self = repacked;
    }

    /// The chunks the catalog lacks, up to the last frame at or before `lsn`, and how many chunks
    /// there are until there; all chunks when `whole`. A chunk that has later frames stays dirty.
    pub(crate) fn take_dirty(
        &mut self,
        lsn: Lsn,
        whole: bool,
    ) -> (Vec<(usize, Vec<FrameRef>)>, usize) {
        let visible = self.frames.partition_point(|frame| frame.lsn <= lsn);
        if whole {
            self.dirty = (0..self.frames.len().div_ceil(CHUNK_FRAMES)).collect();
        }
        let dirty = std::mem::take(&mut self.dirty);
        let mut chunks = Vec::new();
        for chunk in dirty {
            let start = chunk * CHUNK_FRAMES;
            let end = (start + CHUNK_FRAMES).min(self.frames.len());
            if visible < end {
                self.dirty.insert(chunk);
            }
            if start < visible {
                let frames = self.frames[start..end.min(visible)].iter();
                chunks.push((chunk, frames.map(|frame| FrameRef::clone(frame)).collect()));
            }
        }
        (chunks, visible.div_ceil(CHUNK_FRAMES))
    }

    /// Memory held, in bytes.
    pub(crate) fn memory(&self) -> usize {
        let frame = |frame: &Arc<FrameRef>| ARC_FRAME + frame.heap();
        self.frames.capacity() * size_of::<Arc<FrameRef>>()
            + self.frames.iter().map(frame).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::log::format::FrameKind;
    use proptest::prelude::*;

    fn header(first: u64, count: u32) -> FrameHeader {
        let mut header = FrameHeader::new(FrameKind::Records);
        header.first = first;
        header.count = count;
        header.lsn = Lsn(first);
        header
    }

    const PLACE: Place = Place {
        segment: SegmentId(1),
        offset: 0,
    };

    proptest! {
        #[test]
        fn live_bits_agree_with_a_set(
            counts in prop::collection::vec(1u32..200, 1..20),
            retired in prop::collection::vec(0u64..2500, 0..300),
        ) {
            let mut directory = Directory::default();
            let mut model = BTreeSet::new();
            let mut first = 1;
            for count in counts {
                directory.push(&header(first, count), PLACE);
                model.extend(first..first + u64::from(count));
                first += u64::from(count) + u64::from(count % 3);
            }
            directory.retire(&retired);
            for position in retired {
                model.remove(&position);
            }
            let mut up = Vec::new();
            let mut down = Vec::new();
            for frame in directory.frames() {
                up.extend(frame.live_from(0).map(|index| frame.first + u64::from(index)));
                let back = frame.live_below(frame.count);
                down.splice(0..0, back.map(|index| frame.first + u64::from(index)));
                prop_assert_eq!(frame.live_from(0).count(), frame.live_count as usize);
            }
            prop_assert_eq!(&up, &model.into_iter().collect::<Vec<_>>());
            down.sort_unstable();
            prop_assert_eq!(down, up);
        }
    }

    /// Frames of a record or a few, one after the other, each of a commit of its own.
    fn pushed(counts: &[u32]) -> Directory {
        let mut directory = Directory::default();
        let mut first = 1;
        for count in counts {
            directory.push(&header(first, *count), PLACE);
            first += u64::from(*count) + u64::from(*count % 3);
        }
        directory
    }

    proptest! {
        #[test]
        fn records_and_commits_are_found_at_their_positions(
            counts in prop::collection::vec(1u32..9, 1..40),
            position in 0u64..200,
        ) {
            let directory = pushed(&counts);
            let holds = |frame: &&FrameRef| (frame.first..frame.end()).contains(&position);
            prop_assert_eq!(directory.find(position), directory.iter().find(holds));
            let origins = || directory.iter().flat_map(FrameRef::origins);
            let before = origins().rfind(|origin| origin.first <= position);
            let next = origins().find(|origin| origin.first > position);
            prop_assert_eq!(directory.commits_around(position), (before, next));
        }

        #[test]
        fn what_is_removed_up_to_a_position_ends_there(
            counts in prop::collection::vec(1u32..9, 1..40),
            through in 0u64..200,
        ) {
            let mut directory = pushed(&counts);
            let live = |directory: &Directory| -> Vec<u64> {
                directory.iter().flat_map(FrameRef::live_positions).collect()
            };
            let mut kept = live(&directory);
            kept.retain(|position| *position > through);
            directory.retire_through(through);
            prop_assert_eq!(live(&directory), kept);
        }

        /// Saved in pieces, while frames come and records are superseded, the catalog has what is
        /// durable of the directory, to the last bit.
        #[test]
        fn what_the_catalog_takes_adds_up_to_the_directory(
            rounds in prop::collection::vec(
                (0usize..300, prop::collection::vec(0.0..1.0, 0..20), prop_oneof![Just(1.0), 0.0..1.0]),
                1..8,
            ),
        ) {
            let mut directory = Directory::default();
            let mut catalog: Vec<Vec<FrameRef>> = Vec::new();
            let (mut next, mut durable) = (1, 0);
            for (pushes, retired, synced) in rounds {
                for _ in 0..pushes {
                    directory.push(&header(next, 2), PLACE);
                    next += 2;
                }
                let place = |share: f64, end: u64| (share * end as f64) as u64;
                let mut retired: Vec<u64> = retired.iter().map(|at| place(*at, next)).collect();
                retired.sort_unstable();
                directory.retire(&retired);
                durable = durable.max(place(synced, next));
                let (chunks, len) = directory.take_dirty(Lsn(durable), false);
                catalog.resize(catalog.len().max(len), Vec::new());
                for (chunk, frames) in chunks {
                    catalog[chunk] = frames;
                }
                let frames = directory.iter().filter(|frame| frame.lsn <= Lsn(durable));
                prop_assert_eq!(catalog.concat(), frames.cloned().collect::<Vec<_>>());
                let lacks = directory.frames().last().is_some_and(|frame| frame.lsn > Lsn(durable));
                prop_assert_eq!(directory.is_dirty(), lacks);
            }
        }
    }

    proptest! {
        /// Repacked aside, while frames come and records are superseded, it is what it would be had
        /// everybody waited; and the catalog gets to know all of it.
        #[test]
        fn repacking_aside_is_like_repacking_at_once(
            counts in prop::collection::vec((1u32..4, 1u64..3), 1..600),
            (early, late) in (prop::collection::vec(0u64..1800, 0..40), prop::collection::vec(0u64..1800, 0..40)),
            pushes in 0u32..300,
            saved in any::<bool>(),
        ) {
            let mut directory = Directory::default();
            let mut next = 1;
            let mut push = |directory: &mut Directory, count: u32, segment| {
                directory.push(&header(next, count), Place { segment: SegmentId(segment), offset: next });
                next += u64::from(count);
            };
            counts.iter().for_each(|(count, segment)| push(&mut directory, *count, *segment));
            directory.retire(&early);
            let mut catalog: BTreeMap<usize, Vec<FrameRef>> =
                directory.take_dirty(Lsn(u64::MAX), false).0.into_iter().collect();
            let replaced = BTreeSet::from([SegmentId(1)]);
            let place = Place { segment: SegmentId::pack(1), offset: 0 };
            let moved = directory.iter().filter(|frame| frame.segment == SegmentId(1));
            let moved = moved.map(|frame| FrameRef::new(&header(frame.first, frame.count), place));
            let packed: Vec<FrameRef> = moved.filter(|frame| frame.first % 5 != 0
                || directory.find(frame.first).is_some_and(|old| old.live_count > 0)).collect();
            let before = directory.clone();
            let mut repacked = before.clone();
            let gone = repacked.repack(&replaced, packed.clone());
            prop_assert!(gone.is_some());
            directory.retire(&late);
            (0..pushes).for_each(|_| push(&mut directory, 2, 3));
            if saved {
                catalog.extend(directory.take_dirty(Lsn(u64::MAX), false).0);
            }
            let mut at_once = directory.clone();
            prop_assert!(at_once.repack(&replaced, packed).is_some());
            directory.catch_up(&before, repacked);
            prop_assert_eq!(directory.to_vec(), at_once.to_vec());
            let (chunks, len) = directory.take_dirty(Lsn(u64::MAX), false);
            catalog.extend(chunks);
            let known: Vec<FrameRef> = catalog.into_values().take(len).flatten().collect();
            prop_assert_eq!(known, directory.to_vec());
        }
    }

    /// A frame of many records may become many packed ones.
    #[test]
    fn a_directory_that_grew_reaches_the_catalog_whole() {
        let many = CHUNK_FRAMES as u64 - 1;
        let mut directory = Directory::default();
        (0..many).for_each(|at| directory.push(&header(1 + 10 * at, 10), PLACE));
        let _ = directory.take_dirty(Lsn(u64::MAX), false);
        let moved = Place {
            segment: SegmentId::pack(1),
            offset: 0,
        };
        let parts = (0..2 * many).map(|at| FrameRef::new(&header(1 + 5 * at, 5), moved));
        let gone = directory.repack(&BTreeSet::from([SegmentId(1)]), parts.collect());
        assert_eq!(gone, Some(Vec::new()));
        let (chunks, len) = directory.take_dirty(Lsn(u64::MAX), false);
        let frames: usize = chunks.iter().map(|(_, frames)| frames.len()).sum();
        assert_eq!((frames as u64, len), (2 * many, 2));
    }

    #[test]
    fn only_durable_frames_reach_the_catalog() {
        let mut directory = Directory::default();
        directory.push(&header(1, 10), PLACE);
        directory.push(&header(11, 10), PLACE);
        let (chunks, len) = directory.take_dirty(Lsn(1), false);
        assert_eq!((chunks.len(), len), (1, 1));
        assert_eq!(chunks[0].1.len(), 1);
        assert_eq!(directory.take_dirty(Lsn(11), false).0[0].1.len(), 2);
        assert!(directory.take_dirty(Lsn(11), false).0.is_empty());
    }
}
