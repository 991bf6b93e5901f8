//! Giving the space of a removed file back step by step. All at once, the file system frees it in one
//! transaction, and may tell the disk of it in that (`discard`); every sync waits for both. RocksDB
//! deletes its files in pieces for the same reason.

use std::sync::Arc;
use std::time::Duration;

use crate::log::format::SEGMENT_HEADER_LEN;
use crate::log::segment::Segment;

/// So much is given back at once.
const STEP: u64 = 512 << 10;
/// So long a background thread waits after each step.
pub(crate) const PAUSE: Duration = Duration::from_millis(1);

/// Gives the space of a removed file back, with a pause after each step. If somebody still reads from
/// it, that is left to the last one who does.
pub(crate) fn release(segment: &Arc<Segment>, pause: Duration) {
    let Ok(mut len) = segment.len() else { return };
    // A crash may bring its name back: the header, which tells what it was, stays to the end.
    let least = SEGMENT_HEADER_LEN as u64;
    // Whoever would read has to find it in a directory first, and none has it.
    while len > least && Arc::strong_count(segment) == 1 {
        len = ((len - 1) / STEP * STEP).max(least);
        if segment.file.set_len(len).is_err() {
            return;
        }
        std::thread::sleep(pause);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::defects::Defects;
    use crate::log::Lsn;
    use crate::log::SegmentId;
    use crate::log::format::{Identity, SegmentHeader};
    use crate::log::segment::Site;
    use crate::storage::OsStorage;

    #[test]
    fn what_nobody_reads_from_is_cut_to_its_header() {
        let dir = tempfile::tempdir().unwrap();
        let identity = Identity::of([7; 32]);
        let header = SegmentHeader::new(identity, SegmentId(1), Lsn(1));
        let (storage, plain) = (OsStorage, None);
        let site = Site::new(&storage, dir.path(), &plain, Defects::default());
        let content = vec![1; 3 * STEP as usize];
        let segment = Segment::create(&site, header, &[&content], 0).unwrap();
        let segment = Arc::new(segment);
        let len = segment.len().unwrap();
        let reader = segment.clone();
        release(&segment, Duration::ZERO);
        assert_eq!(segment.len().unwrap(), len);
        drop(reader);
        release(&segment, Duration::ZERO);
        assert_eq!(segment.len().unwrap(), SEGMENT_HEADER_LEN as u64);
    }
}
