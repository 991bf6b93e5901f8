//! The directory of a feed: its frames in position order, with one bit per record that tells
//! whether the record is still the newest version.

use std::collections::BTreeSet;

use crate::log::format::{Author, ENTRY_LEN, FRAME_HEADER_LEN, FrameHeader};
use crate::log::{Lsn, SegmentId};
use crate::publish::Place;

/// Frames per catalog row: what one changed bit costs to save.
pub(crate) const CHUNK_FRAMES: usize = 256;

/// A frame of records: where it is and which of its records are live versions.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct FrameRef {
    /// Position of the first record.
    pub(crate) first: u64,
    pub(crate) count: u32,
    pub(crate) lsn: Lsn,
    /// Commit time in microseconds.
    pub(crate) time: u64,
    pub(crate) author: Author,
    pub(crate) segment: SegmentId,
    pub(crate) offset: u64,
    pub(crate) ids_len: u32,
    pub(crate) bodies_len: u32,
    /// How many bits of `live` are set.
    pub(crate) live_count: u32,
    /// Bit `i % 64` of word `i / 64`: the record at `first + i` is the newest version of its id.
    pub(crate) live: Box<[u64]>,
}

impl FrameRef {
    pub(crate) fn new(header: &FrameHeader, place: Place) -> Self {
        let mut live = vec![u64::MAX; header.count.div_ceil(64) as usize];
        if let Some(last) = live.last_mut() {
            *last >>= (64 - header.count % 64) % 64;
        }
        Self {
            first: header.first,
            count: header.count,
            lsn: header.lsn,
            time: header.time,
            author: header.author,
            segment: place.segment,
            offset: place.offset,
            ids_len: header.ids_len,
            bodies_len: header.bodies_len,
            live_count: header.count,
            live: live.into(),
        }
    }

    /// Position after the last record.
    pub(crate) fn end(&self) -> u64 {
        self.first + u64::from(self.count)
    }

    pub(crate) fn is_live(&self, index: u32) -> bool {
        self.live
            .get(index as usize / 64)
            .is_some_and(|word| word >> (index % 64) & 1 == 1)
    }

    /// The live records' indexes from `from` on, ascending.
    pub(crate) fn live_from(&self, from: u32) -> impl Iterator<Item = u32> + '_ {
        let start = from as usize / 64;
        let words = self.live.iter().enumerate().skip(start);
        words.flat_map(move |(at, word)| {
            let mut word = *word;
            if at == start {
                word &= u64::MAX << (from % 64);
            }
            std::iter::from_fn(move || {
                (word != 0).then(|| {
                    let bit = word.trailing_zeros();
                    word &= word - 1;
                    at as u32 * 64 + bit
                })
            })
        })
    }

    /// The live records' indexes below `to`, descending.
    pub(crate) fn live_below(&self, to: u32) -> impl Iterator<Item = u32> + '_ {
        (0..to.min(self.count))
            .rev()
            .filter(|index| self.is_live(*index))
    }

    /// Offsets of the entries, the ids and the payloads in the segment.
    pub(crate) fn areas(&self) -> (u64, u64, u64) {
        let entries = self.offset + FRAME_HEADER_LEN as u64;
        let ids = entries + u64::from(self.count) * ENTRY_LEN as u64;
        (entries, ids, ids + u64::from(self.ids_len))
    }

    /// Memory held besides the struct itself, in bytes.
    fn heap(&self) -> usize {
        size_of_val(&*self.live)
    }
}

/// See the module.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct Directory {
    frames: Vec<FrameRef>,
    /// Chunks of frames that the catalog does not have yet, or has in an older state.
    dirty: BTreeSet<usize>,
}

impl Directory {
    /// A directory as the catalog has it.
    pub(crate) fn restore(frames: Vec<FrameRef>) -> Self {
        Self {
            frames,
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
        self.frames.push(FrameRef::new(header, place));
    }

    pub(crate) fn frames(&self) -> &[FrameRef] {
        &self.frames
    }

    /// Index of the first frame that ends after `position`.
    pub(crate) fn frame_after(&self, position: u64) -> usize {
        self.frames.partition_point(|frame| frame.end() <= position)
    }

    /// The frame that holds the record at `position`.
    pub(crate) fn find(&self, position: u64) -> Option<&FrameRef> {
        let frame = self.frames.get(self.frame_after(position))?;
        (frame.first <= position).then_some(frame)
    }

    /// Marks superseded versions as no longer live. Positions that are not there are passed over:
    /// replay meets versions that were retired before.
    pub(crate) fn retire(&mut self, positions: &[u64]) {
        let mut at = 0;
        for position in positions {
            // Batches mostly supersede neighbours, so the last frame is a good guess.
            let holds = |frame: &FrameRef| (frame.first..frame.end()).contains(position);
            if !self.frames.get(at).is_some_and(holds) {
                at = self.frame_after(*position);
            }
            let Some(frame) = self.frames.get_mut(at).filter(|frame| holds(frame)) else {
                continue;
            };
            let index = position - frame.first;
            let mask = 1 << (index % 64);
            let word = &mut frame.live[index as usize / 64];
            if *word & mask != 0 {
                *word &= !mask;
                frame.live_count -= 1;
                self.dirty.insert(at / CHUNK_FRAMES);
            }
        }
    }

    /// Marks every version at or before `position` as no longer live.
    pub(crate) fn retire_through(&mut self, position: u64) {
        let mut retired = Vec::new();
        for frame in self
            .frames
            .iter()
            .take_while(|frame| frame.first <= position)
        {
            let live = frame
                .live_from(0)
                .map(|index| frame.first + u64::from(index));
            retired.extend(live.take_while(|live| *live <= position));
        }
        self.retire(&retired);
    }

    /// Commit time of the newest frame that begins at or before `position`; 0 when there is none.
    pub(crate) fn time_at(&self, position: u64) -> u64 {
        let after = self.frames.partition_point(|frame| frame.first <= position);
        let frame = after.checked_sub(1).and_then(|at| self.frames.get(at));
        frame.map_or(0, |frame| frame.time)
    }

    /// The chunks the catalog lacks, up to the last frame at or before `lsn`; all chunks when
    /// `whole`. A chunk that has later frames stays dirty.
    pub(crate) fn take_dirty(&mut self, lsn: Lsn, whole: bool) -> Vec<(usize, Vec<FrameRef>)> {
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
                chunks.push((chunk, self.frames[start..end.min(visible)].to_vec()));
            }
        }
        chunks
    }

    /// Memory held, in bytes.
    pub(crate) fn memory(&self) -> usize {
        self.frames.capacity() * size_of::<FrameRef>()
            + self.frames.iter().map(FrameRef::heap).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
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

    #[test]
    fn only_durable_frames_reach_the_catalog() {
        let mut directory = Directory::default();
        directory.push(&header(1, 10), PLACE);
        directory.push(&header(11, 10), PLACE);
        let chunks = directory.take_dirty(Lsn(1), false);
        assert_eq!(chunks.len(), 1);
        assert_eq!(chunks[0].1.len(), 1);
        assert_eq!(directory.take_dirty(Lsn(11), false)[0].1.len(), 2);
        assert!(directory.take_dirty(Lsn(11), false).is_empty());
    }
}
