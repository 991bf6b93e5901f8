//! What a frame begins with.

use super::{ENTRY_LEN, FRAME_ALIGN, FRAME_HEADER_LEN, FRAME_MAGIC, ORIGIN_LEN};
use crate::checksum::checksum;
use crate::codec::Decoder;
use crate::cursor::{FeedId, POSITION_MAX};
use crate::log::{Lsn, seal};

/// What a frame holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum FrameKind {
    /// Changed records of one feed: entries, ids, payloads.
    Records,
    /// Changes of the store's small state: feed registrations, checkpoints, metadata, runs.
    State,
    /// What happened to records of one feed without changing them: seen in a deletion window,
    /// pruned, purged.
    Marks,
    /// The store was closed with everything before this frame on stable storage.
    Close,
    /// Records of one feed that compaction kept of several frames. Only in packs, as the rest.
    Packed,
    /// A feed as a whole when a pack was made: its directory, its counts, its marks.
    Feed,
    /// The store's small state as a whole when a pack was made.
    Whole,
    /// Which segments and packs are in force from a pack on.
    Manifest,
}

impl FrameKind {
    /// Whether frames of this kind hold records of a feed.
    pub(crate) fn has_records(self) -> bool {
        matches!(self, Self::Records | Self::Packed)
    }
}

/// Names a sync inside a store: a keyed hash of connection, name and variant. 0 is no sync.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Debug)]
pub(crate) struct SyncId(pub(crate) u64);

/// Who made a commit.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Author {
    /// 0 outside of runs.
    pub(crate) run: u64,
    pub(crate) sync: SyncId,
}

const FLAG_CONTINUES: u8 = 1;
const FLAG_SEALED: u8 = 2;

/// The fixed part of a frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct FrameHeader {
    pub(crate) kind: FrameKind,
    /// Whether the commit continues with the next frame.
    pub(crate) continues: bool,
    /// Whether the frame is encrypted, and has a [seal](crate::log::seal).
    pub(crate) sealed: bool,
    pub(crate) feed: FeedId,
    pub(crate) epoch: u32,
    pub(crate) lsn: Lsn,
    /// A frame known to be on stable storage, with everything before it, when this was written.
    pub(crate) durable_lsn: Lsn,
    /// Position of the first record.
    pub(crate) first: u64,
    /// Commit time in microseconds.
    pub(crate) time: u64,
    /// Number of records, of state operations or of marks.
    pub(crate) count: u32,
    /// Number of commits that the records of a packed frame come from.
    pub(crate) origins: u16,
    pub(crate) ids_len: u32,
    pub(crate) bodies_len: u32,
    /// Live records of the feed after this frame, and the bytes of their payloads.
    pub(crate) live: u64,
    pub(crate) live_bytes: u64,
    /// The run that made the changes; 0 for writes outside of runs.
    pub(crate) author: Author,
    /// Checksum of the entries, the state operations or the marks.
    pub(crate) content_sum: u32,
    /// How often the store was opened after an unclean end before this was written. A feed jumps
    /// over positions when it changes, because cursors handed out before may have been lost.
    pub(crate) generation: u32,
    /// The segment's nonce.
    pub(crate) nonce: u64,
    /// Checksum of the header of the frame before this one.
    pub(crate) chain: u32,
}

impl FrameHeader {
    /// A header without a place in the log yet; the commit leader fills that in.
    pub(crate) fn new(kind: FrameKind) -> Self {
        Self {
            kind,
            continues: false,
            sealed: false,
            feed: FeedId(0),
            epoch: 0,
            lsn: Lsn(0),
            durable_lsn: Lsn(0),
            first: 0,
            time: 0,
            count: 0,
            origins: 0,
            ids_len: 0,
            bodies_len: 0,
            live: 0,
            live_bytes: 0,
            author: Author::default(),
            content_sum: 0,
            generation: 0,
            nonce: 0,
            chain: 0,
        }
    }

    /// The header's bytes at `offset` of its segment. The last four are its checksum, to which the
    /// next frame chains.
    pub(crate) fn encode(&self, offset: u64) -> [u8; FRAME_HEADER_LEN] {
        let kind = match self.kind {
            FrameKind::Records => 1,
            FrameKind::State => 2,
            FrameKind::Close => 3,
            FrameKind::Marks => 4,
            FrameKind::Packed => 5,
            FrameKind::Feed => 6,
            FrameKind::Whole => 7,
            FrameKind::Manifest => 8,
        };
        let mut bytes = [0; FRAME_HEADER_LEN];
        bytes[..4].copy_from_slice(&FRAME_MAGIC);
        bytes[4] = kind;
        bytes[5] = match self.continues {
            true => FLAG_CONTINUES,
            false => 0,
        };
        if self.sealed {
            bytes[5] |= FLAG_SEALED;
        }
        bytes[6..8].copy_from_slice(&self.origins.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.feed.0.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.lsn.0.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.durable_lsn.0.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.first.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.time.to_le_bytes());
        bytes[48..56].copy_from_slice(&self.nonce.to_le_bytes());
        bytes[56..64].copy_from_slice(&self.live.to_le_bytes());
        bytes[64..72].copy_from_slice(&self.live_bytes.to_le_bytes());
        bytes[72..76].copy_from_slice(&self.epoch.to_le_bytes());
        bytes[76..80].copy_from_slice(&self.count.to_le_bytes());
        bytes[80..84].copy_from_slice(&self.ids_len.to_le_bytes());
        bytes[84..88].copy_from_slice(&self.bodies_len.to_le_bytes());
        bytes[88..92].copy_from_slice(&self.content_sum.to_le_bytes());
        bytes[92..96].copy_from_slice(&self.chain.to_le_bytes());
        bytes[96..100].copy_from_slice(&self.generation.to_le_bytes());
        bytes[100..108].copy_from_slice(&self.author.run.to_le_bytes());
        bytes[108..116].copy_from_slice(&self.author.sync.0.to_le_bytes());
        let sum = checksum(offset, &[&bytes[..FRAME_HEADER_LEN - 4]]);
        bytes[FRAME_HEADER_LEN - 4..].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// Reads the header at `offset` of a segment with `nonce`, and its checksum; `None` when there
    /// is no intact one.
    pub(crate) fn decode(bytes: &[u8], offset: u64, nonce: u64) -> Option<(Self, u32)> {
        let bytes = bytes.first_chunk::<FRAME_HEADER_LEN>()?;
        let (body, sum) = bytes.split_last_chunk::<4>()?;
        let sum = u32::from_le_bytes(*sum);
        let mut fields = Decoder::new(body);
        let magic = fields.array::<4>()?;
        let kind = match fields.u8()? {
            1 => FrameKind::Records,
            2 => FrameKind::State,
            3 => FrameKind::Close,
            4 => FrameKind::Marks,
            5 => FrameKind::Packed,
            6 => FrameKind::Feed,
            7 => FrameKind::Whole,
            8 => FrameKind::Manifest,
            _ => return None,
        };
        let flags = fields.u8()?;
        let mut header = Self {
            continues: flags & FLAG_CONTINUES != 0,
            sealed: flags & FLAG_SEALED != 0,
            origins: u16::from_le_bytes(fields.array()?),
            ..Self::new(kind)
        };
        header.feed = FeedId(fields.u64()?);
        header.lsn = Lsn(fields.u64()?);
        header.durable_lsn = Lsn(fields.u64()?);
        header.first = fields.u64()?;
        header.time = fields.u64()?;
        header.nonce = fields.u64()?;
        header.live = fields.u64()?;
        header.live_bytes = fields.u64()?;
        header.epoch = fields.u32()?;
        header.count = fields.u32()?;
        header.ids_len = fields.u32()?;
        header.bodies_len = fields.u32()?;
        header.content_sum = fields.u32()?;
        header.chain = fields.u32()?;
        header.generation = fields.u32()?;
        header.author.run = fields.u64()?;
        header.author.sync = SyncId(fields.u64()?);
        let plausible = header.first.saturating_add(header.count.into()) <= POSITION_MAX + 1
            && (!kind.has_records() || (header.count > 0 && header.first > 0));
        let intact = magic == FRAME_MAGIC
            && flags & !(FLAG_CONTINUES | FLAG_SEALED) == 0
            && header.nonce == nonce
            && plausible
            && sum == checksum(offset, &[body]);
        intact.then_some((header, sum))
    }

    /// Length of the entries, in bytes.
    pub(crate) fn entries_len(&self) -> u64 {
        match self.kind.has_records() {
            true => u64::from(self.count) * ENTRY_LEN as u64,
            false => 0,
        }
    }

    /// Length of what stands between the header and the ids: the entries, and in a packed frame
    /// the records' positions and origins.
    pub(crate) fn columns_len(&self) -> u64 {
        let packing = match self.kind {
            FrameKind::Packed => {
                u64::from(self.count) * 8 + u64::from(self.origins) * ORIGIN_LEN as u64
            }
            _ => 0,
        };
        self.entries_len() + packing
    }

    /// Length of everything between the header and the seal, or the padding.
    pub(crate) fn content_len(&self) -> u64 {
        self.columns_len() + u64::from(self.ids_len) + u64::from(self.bodies_len)
    }

    /// Length of the frame without the padding.
    pub(crate) fn used_len(&self) -> u64 {
        FRAME_HEADER_LEN as u64 + self.content_len() + seal::len(self)
    }

    /// Length of the frame in its segment, in bytes, padding included.
    pub(crate) fn frame_len(&self) -> u64 {
        self.used_len().next_multiple_of(FRAME_ALIGN as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> FrameHeader {
        let mut header = FrameHeader::new(FrameKind::Records);
        header.feed = FeedId(9);
        header.lsn = Lsn(12);
        header.first = 77;
        header.count = 3;
        header.ids_len = 10;
        header.bodies_len = 11;
        header.nonce = 5;
        header
    }

    #[test]
    fn frame_headers_round_trip_at_their_place_only() {
        let bytes = header().encode(4096);
        assert_eq!(FrameHeader::decode(&bytes, 4096, 5).unwrap().0, header());
        assert_eq!(FrameHeader::decode(&bytes, 4104, 5), None, "another offset");
        assert_eq!(FrameHeader::decode(&bytes, 4096, 6), None, "another nonce");
        for at in 0..FRAME_HEADER_LEN {
            let mut damaged = bytes;
            damaged[at] ^= 0x40;
            assert_eq!(FrameHeader::decode(&damaged, 4096, 5), None, "byte {at}");
        }
    }
}
