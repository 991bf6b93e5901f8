//! What a feed's directory knows of one frame: where it is, who made its changes and when, and
//! which of its records are still the newest versions.

use std::borrow::Cow;

use crate::codec::Encoder;
use crate::log::format::{Author, ENTRY_LEN, FRAME_HEADER_LEN, FrameHeader, ORIGIN_LEN};
use crate::log::frame::{FRAME_RECORDS_MAX, SPAN_MAX};
use crate::log::{Lsn, SegmentId};
use crate::publish::Place;

/// A frame of records.
///
/// In a frame as a commit wrote it, record `i` has position `first + i`. A packed frame holds what
/// compaction kept of several frames: positions ascend, with gaps.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct FrameRef {
    /// Position of the first record.
    pub(crate) first: u64,
    /// From the first record's position to the last one's, both included.
    pub(crate) span: u32,
    /// How many records there are.
    pub(crate) count: u32,
    pub(crate) lsn: Lsn,
    /// Commit time of the newest record, in microseconds.
    pub(crate) time: u64,
    /// Who made the newest record.
    pub(crate) author: Author,
    pub(crate) segment: SegmentId,
    pub(crate) offset: u64,
    pub(crate) ids_len: u32,
    pub(crate) bodies_len: u32,
    /// How many bits of `live` are set.
    pub(crate) live_count: u32,
    /// Bit `i % 64` of word `i / 64`: the record at `first + i` is the newest version of its id.
    pub(crate) live: Box<[u64]>,
    /// What is different about a packed frame.
    pub(crate) packing: Option<Box<Packing>>,
}

/// What there is to know of a packed frame besides.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Packing {
    /// Bit `i`: the frame has a record at `first + i`.
    pub(crate) present: Box<[u64]>,
    /// The commits that the records come from, in the order of their positions.
    pub(crate) origins: Box<[Origin]>,
    /// How many records were not live when they were packed: they hold payloads of deleted ones.
    pub(crate) holders: u32,
}

/// A commit's part in a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Origin {
    /// Position of the commit's first record in the frame it was written in, and after its last.
    pub(crate) first: u64,
    pub(crate) end: u64,
    /// Commit time in microseconds.
    pub(crate) time: u64,
    pub(crate) author: Author,
}

/// A bit set with the bits below `len` set.
pub(crate) fn ones(len: u32) -> Box<[u64]> {
    let mut words = vec![u64::MAX; len.div_ceil(64) as usize];
    if let Some(last) = words.last_mut() {
        *last >>= (64 - len % 64) % 64;
    }
    words.into()
}

/// The bits that are set, from `from` on, ascending.
pub(crate) fn bits_from(words: &[u64], from: u32) -> impl Iterator<Item = u32> + '_ {
    let start = from as usize / 64;
    let words = words.iter().enumerate().skip(start);
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

/// Sets a bit, which must be there.
pub(crate) fn set(words: &mut [u64], bit: u32) {
    words[bit as usize / 64] |= 1 << (bit % 64);
}

fn is_set(words: &[u64], bit: u32) -> bool {
    let word = words.get(bit as usize / 64);
    word.is_some_and(|word| word >> (bit % 64) & 1 == 1)
}

impl FrameRef {
    /// A frame that a commit has just written: all its records are live.
    pub(crate) fn new(header: &FrameHeader, place: Place) -> Self {
        Self {
            first: header.first,
            span: header.count,
            count: header.count,
            lsn: header.lsn,
            time: header.time,
            author: header.author,
            segment: place.segment,
            offset: place.offset,
            ids_len: header.ids_len,
            bodies_len: header.bodies_len,
            live_count: header.count,
            live: ones(header.count),
            packing: None,
        }
    }

    /// Whether a frame can be as large as it says, and be where it says.
    pub(crate) fn is_plausible(&self) -> bool {
        self.count <= FRAME_RECORDS_MAX as u32 + 1
            && self.count <= self.span
            && self.span <= SPAN_MAX
            && self.first.checked_add(u64::from(self.span)).is_some()
    }

    /// Position after the last record.
    pub(crate) fn end(&self) -> u64 {
        self.first + u64::from(self.span)
    }

    /// Whether the record at `first + bit` is the newest version of its id.
    pub(crate) fn is_live(&self, bit: u32) -> bool {
        is_set(&self.live, bit)
    }

    /// A bit for each position from the first record's on: whether there is a record.
    pub(crate) fn present(&self) -> Cow<'_, [u64]> {
        match &self.packing {
            Some(packing) => Cow::Borrowed(&packing.present),
            None => Cow::Owned(ones(self.span).into()),
        }
    }

    /// Whether there is a record at `first + bit`.
    pub(crate) fn has(&self, bit: u32) -> bool {
        match &self.packing {
            Some(packing) => is_set(&packing.present, bit),
            None => bit < self.count,
        }
    }

    /// Which record of the frame is at `first + bit`, if it is there.
    pub(crate) fn index_of(&self, bit: u32) -> Option<u32> {
        self.indexes_of([bit].into_iter()).next()?.1
    }

    /// The same of several bits, each with its bit: for little more than one, if they ascend.
    pub(crate) fn indexes_of(
        &self,
        bits: impl Iterator<Item = u32>,
    ) -> impl Iterator<Item = (u32, Option<u32>)> {
        // How many records there are in the words before one.
        let (mut counted, mut before) = (0, 0);
        bits.map(move |bit| {
            let Some(packing) = &self.packing else {
                return (bit, (bit < self.count).then_some(bit));
            };
            if !is_set(&packing.present, bit) {
                return (bit, None);
            }
            let at = bit as usize / 64;
            if at < counted {
                (counted, before) = (0, 0);
            }
            let passed = packing.present[counted..at].iter();
            before += passed.map(|word| word.count_ones()).sum::<u32>();
            counted = at;
            let inside = packing.present[at] & ((1 << (bit % 64)) - 1);
            (bit, Some(before + inside.count_ones()))
        })
    }

    /// Marks the record at `position` as no longer live.
    pub(crate) fn retire(&mut self, position: u64) {
        let bit = position - self.first;
        let mask = 1 << (bit % 64);
        let word = &mut self.live[bit as usize / 64];
        let was_live = *word & mask != 0;
        *word &= !mask;
        self.live_count -= u32::from(was_live);
    }

    /// Marks the record at `position` as live again; `None` when the frame does not have it.
    pub(crate) fn revive(&mut self, position: u64) -> Option<()> {
        let bit = u32::try_from(position.checked_sub(self.first)?).ok()?;
        if !self.has(bit) {
            return None;
        }
        set(&mut self.live, bit);
        self.live_count += 1;
        Some(())
    }

    /// The commit that wrote the record at `position`.
    pub(crate) fn origin(&self, position: u64) -> Origin {
        let origins = self.packing.as_ref().map(|packing| &*packing.origins);
        let origins = origins.unwrap_or_default();
        let after = origins.partition_point(|origin| origin.first <= position);
        let known = after.checked_sub(1).and_then(|at| origins.get(at));
        known.copied().unwrap_or_else(|| self.newest_origin())
    }

    fn newest_origin(&self) -> Origin {
        Origin {
            first: self.first,
            end: self.end(),
            time: self.time,
            author: self.author,
        }
    }

    /// All commits with records in the frame, in order.
    pub(crate) fn origins(&self) -> Vec<Origin> {
        match &self.packing {
            Some(packing) => packing.origins.to_vec(),
            None => vec![self.newest_origin()],
        }
    }

    /// The live records' positions, ascending.
    pub(crate) fn live_positions(&self) -> impl Iterator<Item = u64> + '_ {
        self.live_from(0).map(|bit| self.first + u64::from(bit))
    }

    /// The live records' bits from `from` on, ascending.
    pub(crate) fn live_from(&self, from: u32) -> impl Iterator<Item = u32> + '_ {
        bits_from(&self.live, from)
    }

    /// The position of the first live record.
    pub(crate) fn first_live(&self) -> Option<u64> {
        self.live_positions().next()
    }

    /// The live records' bits below `to`, descending.
    pub(crate) fn live_below(&self, to: u32) -> impl Iterator<Item = u32> + '_ {
        (0..to.min(self.span))
            .rev()
            .filter(|bit| self.is_live(*bit))
    }

    /// Length of what stands between the header and the ids: entries, and what packing adds.
    pub(crate) fn columns_len(&self) -> u64 {
        let count = u64::from(self.count);
        let entries = count * ENTRY_LEN as u64;
        match &self.packing {
            Some(packing) => entries + count * 8 + (packing.origins.len() * ORIGIN_LEN) as u64,
            None => entries,
        }
    }

    /// Offsets of the entries, the ids and the payloads in the segment.
    pub(crate) fn areas(&self) -> (u64, u64, u64) {
        let entries = self.offset + FRAME_HEADER_LEN as u64;
        let ids = entries + self.columns_len();
        (entries, ids, ids + u64::from(self.ids_len))
    }

    /// About how many of its bytes are still needed, when payloads at or before `pruned_through`
    /// are not, and encryption adds `sealing` to each record.
    pub(crate) fn needed_len(&self, pruned_through: u64, sealing: u64) -> u64 {
        let holders = self.packing.as_ref().map_or(0, |packing| packing.holders);
        let needed = u64::from(self.live_count.saturating_add(holders).min(self.count));
        if needed == 0 {
            return 0;
        }
        let pruned = self.end() <= pruned_through + 1;
        let bodies = if pruned {
            0
        } else {
            u64::from(self.bodies_len)
        };
        let each = (self.columns_len() + u64::from(self.ids_len) + bodies) / u64::from(self.count);
        (each + sealing) * needed + FRAME_HEADER_LEN as u64
    }

    /// Memory held besides the struct itself, in bytes.
    pub(crate) fn heap(&self) -> usize {
        let packing = self.packing.as_ref().map_or(0, |packing| {
            size_of::<Packing>() + size_of_val(&*packing.present) + size_of_val(&*packing.origins)
        });
        size_of_val(&*self.live) + packing
    }
}

impl Origin {
    /// As packed frames have it.
    pub(crate) fn encode(&self, encoder: Encoder) -> Encoder {
        let Author { run, sync } = self.author;
        let encoder = encoder.u64(self.first).u64(self.end).u64(self.time);
        encoder.u64(run).u64(sync.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::format::FrameKind;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_index_of_a_record_is_how_many_are_before_it(
            bits in prop::collection::btree_set(0u32..700, 1..200),
            asked in prop::collection::btree_set(0u32..800, 0..30),
        ) {
            let mut header = FrameHeader::new(FrameKind::Packed);
            header.count = bits.len() as u32;
            let mut frame = FrameRef::new(&header, Place { segment: SegmentId(1), offset: 0 });
            frame.span = bits.last().map_or(0, |last| last + 1);
            let mut present = vec![0; frame.span.div_ceil(64) as usize];
            bits.iter().for_each(|bit| set(&mut present, *bit));
            frame.packing = Some(Box::new(Packing {
                present: present.into(),
                origins: Box::default(),
                holders: 0,
            }));
            let all = bits.iter().copied().zip((0..frame.count).map(Some));
            prop_assert!(frame.indexes_of(bits.iter().copied()).eq(all));
            for bit in &asked {
                let before = bits.range(..bit).count() as u32;
                prop_assert_eq!(frame.has(*bit), bits.contains(bit));
                prop_assert_eq!(frame.index_of(*bit), bits.contains(bit).then_some(before));
            }
            let backwards = asked.iter().rev().chain(&asked).copied();
            let each = backwards.clone().map(|bit| (bit, frame.index_of(bit)));
            prop_assert!(frame.indexes_of(backwards).eq(each));
        }
    }
}
