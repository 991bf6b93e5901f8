//! The catalog's rows. The one place where bincode is used, with a pinned configuration; frames
//! never depend on it. Every row ends with a checksum that covers its key too.

use bincode::{Decode, Encode};

use crate::checksum::checksum;
use crate::cursor::{FeedId, StreamId};
use crate::feed::frame_ref::FrameRef;
use crate::log::{LogPosition, Lsn, SegmentId};

/// The one row that says what the catalog as a whole stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Encode, Decode)]
pub(crate) struct RootRow {
    pub(crate) store: [u8; 16],
    segment: u64,
    offset: u64,
    chain: u32,
    lsn: u64,
    /// Frames up to here are on stable storage, and some rows may know of them already.
    pub(crate) durable_lsn: u64,
    /// Whether the store was closed at the position.
    pub(crate) clean: bool,
    /// Sums over the other tables, so that a row that went missing is noticed.
    pub(crate) feeds_sum: u64,
    pub(crate) state_sum: u64,
    /// The same of the manifest's row.
    pub(crate) manifest_sum: u64,
    /// The same of the row with the runs of the index.
    pub(crate) shelf_sum: u64,
}

impl RootRow {
    /// The root of a catalog that knows nothing yet.
    pub(crate) fn of(store: [u8; 16]) -> Self {
        Self {
            store,
            ..Self::default()
        }
    }

    pub(crate) fn position(&self) -> LogPosition {
        LogPosition {
            segment: SegmentId(self.segment),
            offset: self.offset,
            chain: self.chain,
            lsn: Lsn(self.lsn),
        }
    }

    pub(crate) fn set_position(&mut self, position: LogPosition) {
        self.segment = position.segment.0;
        self.offset = position.offset;
        self.chain = position.chain;
        self.lsn = position.lsn.0;
    }
}

impl FeedRow {
    pub(crate) fn stream(&self) -> StreamId {
        StreamId {
            feed: FeedId(self.feed),
            epoch: self.epoch,
        }
    }
}

/// What the catalog knows of a feed in one epoch, besides its frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
pub(crate) struct FeedRow {
    pub(crate) feed: u64,
    pub(crate) epoch: u32,
    pub(crate) tail: u64,
    /// Commit time of the newest commit, in microseconds.
    pub(crate) time: u64,
    /// The newest commit.
    pub(crate) lsn: u64,
    /// The generation of the log it was written in.
    pub(crate) generation: u32,
    pub(crate) live: u64,
    pub(crate) live_bytes: u64,
    /// Whether there is a row of marks.
    pub(crate) marks: bool,
    /// How many rows of frames there are, and the sum over them and the marks.
    pub(crate) chunks: u64,
    pub(crate) chunks_sum: u64,
}

const CONFIG: bincode::config::Configuration<
    bincode::config::LittleEndian,
    bincode::config::Varint,
    bincode::config::Limit<{ 64 << 20 }>,
> = bincode::config::standard().with_limit::<{ 64 << 20 }>();

/// Encodes a row for the key it is stored under.
pub(crate) fn encode<T: Encode>(key: &[u8], row: &T) -> Vec<u8> {
    // Encoding into memory fails only past the limit, which no row comes near; an empty value
    // would be refused as damaged, and the catalog derived again.
    seal(key, bincode::encode_to_vec(row, CONFIG).unwrap_or_default())
}

/// Decodes the row stored under `key`; `None` when it is damaged.
pub(crate) fn decode<T: Decode<()>>(key: &[u8], value: &[u8]) -> Option<T> {
    let body = open(key, value)?;
    let (row, read) = bincode::decode_from_slice(body, CONFIG).ok()?;
    (read == body.len()).then_some(row)
}

/// Appends the checksum of a key and value.
pub(crate) fn seal(key: &[u8], mut value: Vec<u8>) -> Vec<u8> {
    let sum = checksum(0, &[key, &value]);
    value.extend_from_slice(&sum.to_le_bytes());
    value
}

/// Checks and removes the checksum.
pub(crate) fn open<'a>(key: &[u8], value: &'a [u8]) -> Option<&'a [u8]> {
    let (body, sum) = value.split_last_chunk::<4>()?;
    (u32::from_le_bytes(*sum) == checksum(0, &[key, body])).then_some(body)
}

/// What a sealed row adds to its table's sum: its own checksum, which covers key and value.
pub(crate) fn weight(value: &[u8]) -> u64 {
    value
        .last_chunk::<4>()
        .map_or(0, |sum| 1 + u64::from(u32::from_le_bytes(*sum)))
}

/// Encodes a chunk of a feed's directory.
pub(crate) fn encode_frames(key: &[u8], frames: &[FrameRef]) -> Vec<u8> {
    seal(key, FrameRef::encode_all(frames))
}

/// Decodes a chunk of a feed's directory.
pub(crate) fn decode_frames(key: &[u8], value: &[u8]) -> Option<Vec<FrameRef>> {
    FrameRef::decode_all(open(key, value)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::feed::frame_ref::{Origin, Packing};
    use crate::log::format::{Author, SyncId};
    use proptest::prelude::*;

    #[test]
    fn rows_round_trip_under_their_key_only() {
        let author = Author {
            run: 8,
            sync: SyncId(9),
        };
        let dense = FrameRef {
            first: 1,
            span: 70,
            count: 70,
            lsn: Lsn(2),
            time: 3,
            author,
            segment: SegmentId(4),
            offset: 5,
            ids_len: 6,
            bodies_len: 7,
            live_count: 2,
            live: vec![1, 1].into(),
            packing: None,
        };
        let mut packed = dense.clone();
        packed.count = 3;
        packed.packing = Some(Box::new(Packing {
            present: vec![3, 1].into(),
            origins: [Origin {
                first: 1,
                end: 70,
                time: 3,
                author,
            }]
            .into(),
            holders: 1,
        }));
        let frames = vec![dense, packed];
        let value = encode_frames(b"k", &frames);
        assert_eq!(decode_frames(b"k", &value), Some(frames));
        assert_eq!(decode_frames(b"j", &value), None);
        for at in 0..value.len() {
            let mut damaged = value.clone();
            damaged[at] ^= 1;
            assert_eq!(decode_frames(b"k", &damaged), None);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_decode_or_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let sealed = seal(b"k", bytes);
            let _ = decode::<RootRow>(b"k", &sealed);
            let _ = decode::<FeedRow>(b"k", &sealed);
            let _ = decode_frames(b"k", &sealed);
        }
    }
}
