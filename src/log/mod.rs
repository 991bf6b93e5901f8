//! The log: the truth on disk. Commits are framed, appended in groups, synced and only then
//! published; everything else in a store can be rebuilt from these files.
//!
//! * [`format`]: the bytes of segment headers, frames and record entries
//! * [`frame`]: building a frame from classified records
//! * [`segment`]: one append-only file
//! * [`commit`]: the commit queue, its leader, and the durable watermark
//! * [`scan`]: walking frames after an open, telling a torn tail from damage

pub(crate) mod commit;
pub(crate) mod format;
pub(crate) mod frame;
pub(crate) mod scan;
pub(crate) mod segment;

use std::path::{Path, PathBuf};

/// Log sequence number: orders every frame of a store.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Hash)]
pub(crate) struct Lsn(pub(crate) u64);

impl Lsn {
    pub(crate) fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// Numbers the segments of a store in log order, from 1; never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Hash)]
pub(crate) struct SegmentId(pub(crate) u64);

const SEGMENT_SUFFIX: &str = ".seg";
pub(crate) const TEMPORARY_SUFFIX: &str = ".tmp";

impl SegmentId {
    pub(crate) fn path(self, dir: &Path) -> PathBuf {
        dir.join(format!("{:010}{SEGMENT_SUFFIX}", self.0))
    }

    pub(crate) fn parse(name: &str) -> Option<Self> {
        let digits = name.strip_suffix(SEGMENT_SUFFIX)?;
        (digits.len() == 10).then(|| digits.parse().ok().map(Self))?
    }
}

/// Where the next frame goes, and what it must chain to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct LogPosition {
    pub(crate) segment: SegmentId,
    /// In bytes from the start of the segment.
    pub(crate) offset: u64,
    /// Checksum of the header of the last frame before this position.
    pub(crate) chain: u32,
    /// The last frame before this position.
    pub(crate) lsn: Lsn,
}
