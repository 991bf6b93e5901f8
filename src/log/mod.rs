//! The log: the truth on disk. Commits are framed, appended in groups, synced and only then
//! published; everything else in a store can be rebuilt from these files.
//!
//! * [`format`]: the bytes of segment headers, frames and record entries
//! * [`frame`]: building a frame from classified records
//! * [`seal`]: the tags of encrypted frames
//! * [`segment`]: one append-only file; [`spares`]: files that become segments again; [`release`]:
//!   giving back the space of those that do not
//! * [`pack`]: the file that compaction writes; [`manifest`]: which files are in force
//! * [`commit`]: the commit queue, its leader, and the durable watermark; [`unsynced`]: what relaxed
//!   durability has written so far
//! * [`scan`]: walking frames after an open, telling a torn tail from damage

pub(crate) mod commit;
pub(crate) mod format;
pub(crate) mod frame;
pub(crate) mod manifest;
pub(crate) mod pack;
pub(crate) mod release;
pub(crate) mod scan;
pub(crate) mod seal;
pub(crate) mod segment;
pub(crate) mod spares;
pub(crate) mod ticket;
pub(crate) mod unsynced;

use std::path::{Path, PathBuf};

/// Log sequence number: orders every frame of a store.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Hash)]
pub(crate) struct Lsn(pub(crate) u64);

impl Lsn {
    pub(crate) fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// Numbers the segments of a store in log order, and its packs in the order they were made, both
/// from 1; never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Hash)]
pub(crate) struct SegmentId(pub(crate) u64);

const SEGMENT_SUFFIX: &str = ".seg";
const PACK_SUFFIX: &str = ".pack";
/// Set in the ids of packs.
const PACK: u64 = 1 << 63;
const TEMPORARY_SUFFIX: &str = ".tmp";
const SPARE_SUFFIX: &str = ".spare";
const UNNAMED_SUFFIX: &str = ".new";

impl SegmentId {
    /// The id of a pack.
    pub(crate) fn pack(number: u64) -> Self {
        Self(number | PACK)
    }

    pub(crate) fn is_pack(self) -> bool {
        self.0 & PACK != 0
    }

    /// The number in the file's name.
    pub(crate) fn number(self) -> u64 {
        self.0 & !PACK
    }

    fn name(self) -> String {
        let suffix = if self.is_pack() {
            PACK_SUFFIX
        } else {
            SEGMENT_SUFFIX
        };
        format!("{:010}{suffix}", self.number())
    }

    pub(crate) fn path(self, dir: &Path) -> PathBuf {
        dir.join(self.name())
    }

    /// The path of the file until it is whole.
    pub(crate) fn temporary_path(self, dir: &Path) -> PathBuf {
        dir.join(self.name() + TEMPORARY_SUFFIX)
    }

    /// The path of a segment that is written to, and not on stable storage with what it begins with.
    pub(crate) fn unnamed_path(self, dir: &Path) -> PathBuf {
        dir.join(self.name() + UNNAMED_SUFFIX)
    }

    /// The path of a file that is kept to become a segment again.
    pub(crate) fn spare_path(self, dir: &Path) -> PathBuf {
        dir.join(self.name() + SPARE_SUFFIX)
    }

    /// Whether a file of this name is no part of the log, so that an open removes it.
    pub(crate) fn is_stray(name: &str) -> bool {
        name.ends_with(TEMPORARY_SUFFIX) || name.ends_with(SPARE_SUFFIX)
    }

    /// The segment that has such a name until it gets its own.
    pub(crate) fn parse_unnamed(name: &str) -> Option<Self> {
        name.strip_suffix(UNNAMED_SUFFIX).and_then(Self::parse)
    }

    pub(crate) fn parse(name: &str) -> Option<Self> {
        let number = |suffix| {
            let digits: &str = name.strip_suffix(suffix)?;
            (digits.len() == 10).then(|| digits.parse().ok())?
        };
        let segment = number(SEGMENT_SUFFIX).map(Self);
        segment.or_else(|| number(PACK_SUFFIX).map(Self::pack))
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
