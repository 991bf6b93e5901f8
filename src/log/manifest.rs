//! Which files of the log are in force once compaction has replaced some of them.
//!
//! The catalog has the manifest, and every pack the one it begins to count with, so that the log
//! can be read without a catalog too: what is missing from the chain of segments must have been
//! retired, or it was lost.

use crate::codec::{Decoder, Encoder};
use crate::log::{Lsn, SegmentId};

/// See the module.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct Manifest {
    /// The packs in force, ascending.
    pub(crate) packs: Vec<SegmentId>,
    /// Stretches of the log whose segments were replaced, ascending.
    pub(crate) retired: Vec<Stretch>,
}

/// Some segments in a row, and how they are chained to what is before and after them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Stretch {
    pub(crate) first: SegmentId,
    pub(crate) last: SegmentId,
    /// What its first frame chains to, and that frame's LSN.
    pub(crate) chain: u32,
    pub(crate) first_lsn: Lsn,
    /// Checksum of the header of its last frame, and that frame's LSN.
    pub(crate) end_chain: u32,
    pub(crate) end_lsn: Lsn,
}

impl Manifest {
    /// The id of the next pack.
    pub(crate) fn next_pack(&self) -> SegmentId {
        SegmentId::pack(self.packs.last().map_or(0, |pack| pack.number()) + 1)
    }

    /// Whether a file of this id was replaced.
    pub(crate) fn is_retired(&self, id: SegmentId) -> bool {
        match id.is_pack() {
            true => !self.packs.contains(&id),
            false => self
                .retired
                .iter()
                .any(|stretch| (stretch.first..=stretch.last).contains(&id)),
        }
    }

    /// Takes note that a segment was replaced.
    pub(crate) fn retire(&mut self, stretch: Stretch) {
        self.retired.push(stretch);
        self.retired.sort_by_key(|stretch| stretch.first);
        let stretches = std::mem::take(&mut self.retired);
        for stretch in stretches {
            match self.retired.last_mut() {
                Some(last)
                    if last.end_chain == stretch.chain && last.end_lsn < stretch.first_lsn =>
                {
                    last.last = stretch.last;
                    last.end_chain = stretch.end_chain;
                    last.end_lsn = stretch.end_lsn;
                }
                _ => self.retired.push(stretch),
            }
        }
    }

    /// Follows the chain over what was retired: from the checksum and LSN of a last frame to those
    /// that the next segment goes on from. Numbers may be missing in between: those of commits that
    /// found no space.
    pub(crate) fn follow(&self, mut chain: u32, mut lsn: Lsn) -> (u32, Lsn) {
        for stretch in &self.retired {
            if stretch.chain == chain && stretch.first_lsn > lsn && stretch.end_lsn > lsn {
                (chain, lsn) = (stretch.end_chain, stretch.end_lsn);
            }
        }
        (chain, lsn)
    }

    /// From which LSN on the frames of a segment are superseded by later ones that were retired.
    pub(crate) fn superseded_from(&self, id: SegmentId) -> Lsn {
        let later = self.retired.iter().filter(|stretch| stretch.first > id);
        let first = later.map(|stretch| stretch.first_lsn).min();
        first.unwrap_or(Lsn(u64::MAX))
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut encoder = Encoder::default().u32(self.packs.len() as u32);
        for pack in &self.packs {
            encoder = encoder.u64(pack.0);
        }
        encoder = encoder.u32(self.retired.len() as u32);
        for stretch in &self.retired {
            encoder = encoder
                .u64(stretch.first.0)
                .u64(stretch.last.0)
                .u32(stretch.chain)
                .u64(stretch.first_lsn.0)
                .u32(stretch.end_chain)
                .u64(stretch.end_lsn.0);
        }
        encoder.finish()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = Decoder::new(bytes);
        let mut manifest = Self::default();
        for _ in 0..fields.u32()? {
            manifest.packs.push(SegmentId(fields.u64()?));
        }
        for _ in 0..fields.u32()? {
            manifest.retired.push(Stretch {
                first: SegmentId(fields.u64()?),
                last: SegmentId(fields.u64()?),
                chain: fields.u32()?,
                first_lsn: Lsn(fields.u64()?),
                end_chain: fields.u32()?,
                end_lsn: Lsn(fields.u64()?),
            });
        }
        fields.is_empty().then_some(manifest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ops::Range;

    fn stretch(id: u64, lsns: Range<u64>) -> Stretch {
        Stretch {
            first: SegmentId(id),
            last: SegmentId(id),
            chain: id as u32,
            first_lsn: Lsn(lsns.start),
            end_chain: id as u32 + 1,
            end_lsn: Lsn(lsns.end - 1),
        }
    }

    #[test]
    fn neighbours_are_one_stretch_and_the_chain_leads_over_it() {
        let mut manifest = Manifest::default();
        manifest.retire(stretch(1, 1..10));
        manifest.retire(stretch(3, 15..20));
        assert_eq!(manifest.retired.len(), 2);
        assert_eq!(manifest.follow(1, Lsn(0)), (2, Lsn(9)));
        assert_eq!(
            manifest.follow(2, Lsn(9)),
            (2, Lsn(9)),
            "segment 2 is there"
        );
        manifest.retire(stretch(2, 10..15));
        assert_eq!(manifest.retired.len(), 1);
        assert_eq!(manifest.follow(1, Lsn(0)), (4, Lsn(19)));
        assert!(manifest.is_retired(SegmentId(2)) && !manifest.is_retired(SegmentId(4)));
        manifest.packs = vec![SegmentId::pack(2), SegmentId::pack(5)];
        assert_eq!(manifest.next_pack(), SegmentId::pack(6));
        assert!(manifest.is_retired(SegmentId::pack(4)));
        assert_eq!(Manifest::decode(&manifest.encode()), Some(manifest));
    }
}
