//! The bytes of the log, as `docs/format.md` specifies them: little-endian, fixed offsets,
//! checksums on everything. Decoding is total: bad bytes are an answer, never a panic.
//!
//! * [`segment`]: what a file begins with
//! * [`frame`]: what a frame begins with
//! * [`entry`]: what a frame says of each record

mod entry;
mod frame;
mod segment;

pub(crate) use entry::{Entry, entry_table, sum_records};
pub(crate) use frame::{Author, FrameHeader, FrameKind, SyncId};
pub(crate) use segment::{HeaderError, Identity, SegmentHeader};

/// The format version of plain stores, ...
const PLAIN_VERSION: u32 = 2;
/// ... of encrypted ones, and the newest one this build reads.
pub(crate) const FORMAT_VERSION: u32 = 3;
/// The oldest one it reads. The one before was never released.
pub(crate) const FORMAT_OLDEST: u32 = 2;

pub(crate) const FRAME_MAGIC: [u8; 4] = *b"HWFR";

pub(crate) const SEGMENT_HEADER_LEN: usize = 128;
pub(crate) const FRAME_HEADER_LEN: usize = 120;
pub(crate) const ENTRY_LEN: usize = 56;
/// What a packed frame says of each commit that its records come from.
pub(crate) const ORIGIN_LEN: usize = 40;
/// Frames start at multiples of this.
pub(crate) const FRAME_ALIGN: usize = 8;

const _: () = assert!(SEGMENT_HEADER_LEN.is_multiple_of(FRAME_ALIGN));
const _: () = assert!(FRAME_HEADER_LEN.is_multiple_of(FRAME_ALIGN));

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encryption::Keyring;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes_decode_or_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = FrameHeader::decode(&bytes, 0, 0);
            let _ = SegmentHeader::decode(&bytes, &Keyring::new(None));
            for entry in entry_table(&bytes) {
                let _ = Entry::decode(entry);
            }
        }
    }
}
