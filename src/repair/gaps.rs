//! Where frames are missing from a log, and what can be told of them.
//!
//! Frames are numbered, so it is known how many are missing, or how many at most: numbers of commits
//! that found no space are in no frame. Records are numbered in their feed as well; so a hole in the
//! positions of a feed tells that at least one of the missing frames held records of that feed. If
//! there are no more missing frames than holes, that is all that was in them. Otherwise the others may
//! have held anything: marks of any feed, state, a feed's newest records.

use std::collections::HashMap;

use crate::log::Lsn;
use crate::log::commit::after_jumps;
use crate::log::format::{FrameHeader, FrameKind};
use crate::log::manifest::Manifest;
use crate::log::scan::Scanned;

/// Missing frames: those with the numbers between two others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Gap {
    pub(crate) before: Lsn,
    /// How many of them nothing tells of.
    pub(crate) unknown: u64,
}

impl Gap {
    fn new(after: Lsn, before: Lsn) -> Self {
        Self {
            before,
            // One at least: what does not fit together is no whole log, whatever the numbers are.
            unknown: before.0.saturating_sub(after.0 + 1).max(1),
        }
    }

    /// Whether it may have held something that is not told of, for somebody who knows what there was
    /// `through` a frame.
    pub(crate) fn may_hide(&self, through: Lsn) -> bool {
        self.unknown > 0 && self.before > through.next()
    }
}

/// The gaps between the `frames` of a log of which everything through `durable` was on stable storage,
/// and the number it ends with.
pub(crate) fn gaps_in(frames: &[Scanned], manifest: &Manifest, durable: Lsn) -> (Vec<Gap>, Lsn) {
    let mut gaps = Gaps::default();
    let (mut chain, mut lsn) = (0, Lsn(0));
    for frame in frames {
        let header = &frame.header;
        if header.chain != chain {
            let retired = manifest.follow(chain, lsn);
            if retired != (chain, lsn) {
                gaps.skip();
            }
            (chain, lsn) = retired;
        }
        if header.chain != chain {
            gaps.add(Gap::new(lsn, header.lsn));
        }
        gaps.note(header);
        (chain, lsn) = (frame.sum, header.lsn);
    }
    let (_, end) = manifest.follow(chain, lsn);
    if durable > end {
        gaps.add(Gap::new(end, durable.next()));
    }
    (gaps.all, end)
}

#[derive(Default)]
struct Gaps {
    all: Vec<Gap>,
    /// By feed and epoch: how many gaps there were before its newest records, and what follows those.
    next: HashMap<(u64, u32), (usize, u64, u32)>,
}

impl Gaps {
    fn add(&mut self, gap: Gap) {
        self.all.push(gap);
    }

    /// Forgets where the positions of feeds go on: what comes next was packed.
    fn skip(&mut self) {
        self.next.clear();
    }

    fn note(&mut self, header: &FrameHeader) {
        if header.kind != FrameKind::Records {
            return;
        }
        let after = header.first + u64::from(header.count);
        let next = (self.all.len(), after, header.generation);
        let before = self.next.insert((header.feed.0, header.epoch), next);
        let Some((gaps, expected, generation)) = before else {
            return;
        };
        let expected = after_jumps(expected, generation, header.generation);
        // With several gaps in between it may be in either.
        if header.first > expected
            && let [gap] = &mut self.all[gaps..]
        {
            gap.unknown = gap.unknown.saturating_sub(1);
        }
    }
}
