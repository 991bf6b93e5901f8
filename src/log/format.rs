//! The bytes of the log, as `docs/format.md` specifies them: little-endian, fixed offsets,
//! checksums on everything. Decoding is total: bad bytes are an answer, never a panic.

use crate::checksum::checksum;
use crate::codec::{Decoder, Encoder};
use crate::cursor::{FeedId, POSITION_MAX};
use crate::encryption::{Cipher, ENVELOPE_LEN, Keyring, Sealed};
use crate::hash::Fingerprint;
use crate::log::{Lsn, SegmentId, seal};
use crate::record::Action;

/// The format version of plain stores, ...
const PLAIN_VERSION: u32 = 2;
/// ... of encrypted ones, and the newest one this build reads.
pub(crate) const FORMAT_VERSION: u32 = 3;
/// The oldest one it reads. The one before was never released.
pub(crate) const FORMAT_OLDEST: u32 = 2;

const SEGMENT_MAGIC: [u8; 8] = *b"HWSEGMNT";
pub(crate) const FRAME_MAGIC: [u8; 4] = *b"HWFR";

pub(crate) const SEGMENT_HEADER_LEN: usize = 128;
pub(crate) const FRAME_HEADER_LEN: usize = 120;
pub(crate) const ENTRY_LEN: usize = 56;
/// What a packed frame says of each commit that its records come from.
pub(crate) const ORIGIN_LEN: usize = 40;
/// Frames start at multiples of this.
pub(crate) const FRAME_ALIGN: usize = 8;

/// Where the part of a segment's header stands that depends on the key.
const ENVELOPE_AT: usize = 64;
const _: () = assert!(ENVELOPE_AT + ENVELOPE_LEN <= SEGMENT_HEADER_LEN - 4);

const _: () = assert!(SEGMENT_HEADER_LEN.is_multiple_of(FRAME_ALIGN));
const _: () = assert!(FRAME_HEADER_LEN.is_multiple_of(FRAME_ALIGN));

/// What every segment of a store says about the store, so that the log alone is enough.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Identity {
    /// Tells segments of this store from those of others.
    pub(crate) store: [u8; 16],
    /// The key of the store's fingerprints.
    pub(crate) secret: [u8; 32],
}

impl Identity {
    /// The identity of the store with this secret.
    pub(crate) fn of(secret: [u8; 32]) -> Self {
        let digest = blake3::keyed_hash(&secret, b"highwater store");
        let mut store = [0; 16];
        store.copy_from_slice(&digest.as_bytes()[..16]);
        Self { store, secret }
    }
}

/// The first bytes of a segment file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SegmentHeader {
    pub(crate) identity: Identity,
    pub(crate) id: SegmentId,
    /// Repeated in every frame header of the segment, so that bytes of an older use of the same
    /// disk blocks are never taken for frames.
    pub(crate) nonce: u64,
    /// Frames of earlier segments at or after this LSN are superseded by this segment.
    pub(crate) first_lsn: Lsn,
    /// How often the store was opened after an unclean end before the segment was made.
    pub(crate) generation: u64,
    /// What the segment's first frame chains to.
    pub(crate) chain: u32,
}

fn is_readable(version: u32) -> bool {
    (FORMAT_OLDEST..=FORMAT_VERSION).contains(&version)
}

/// Why a segment header was not accepted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum HeaderError {
    Damaged,
    UnknownVersion(u32),
    Sealed(Sealed),
    NotEncrypted,
}

impl SegmentHeader {
    /// The header's bytes. With a cipher, the store's secret is sealed, and the header as a whole
    /// can be told from every other.
    pub(crate) fn encode(&self, cipher: &Cipher) -> Vec<u8> {
        let version = match cipher {
            Some(_) => FORMAT_VERSION,
            None => PLAIN_VERSION,
        };
        let mut bytes = Encoder::default()
            .u64(u64::from_le_bytes(SEGMENT_MAGIC))
            .u32(version)
            .u32(self.chain)
            .u64(self.id.0)
            .u64(self.nonce)
            .u64(self.first_lsn.0)
            .u64(self.generation)
            .finish();
        bytes.extend_from_slice(&self.identity.store);
        match cipher {
            Some(keys) => {
                let envelope = keys.envelope(&bytes, &self.identity.secret);
                bytes.extend_from_slice(&envelope);
            }
            None => bytes.extend_from_slice(&self.identity.secret),
        }
        bytes.resize(SEGMENT_HEADER_LEN - 4, 0);
        let sum = checksum(0, &[&bytes]);
        bytes.extend_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// Reads a header, and what the segment is sealed under.
    pub(crate) fn decode(bytes: &[u8], keyring: &Keyring) -> Result<(Self, Cipher), HeaderError> {
        let fields = bytes
            .get(..SEGMENT_HEADER_LEN)
            .ok_or(HeaderError::Damaged)?;
        let mut version = Decoder::new(fields.get(8..12).unwrap_or_default());
        let version = version.u32().unwrap_or_default();
        if fields.starts_with(&SEGMENT_MAGIC) && !is_readable(version) {
            return Err(HeaderError::UnknownVersion(version));
        }
        let header = Self::decode_fields(fields).ok_or(HeaderError::Damaged)?;
        match version {
            FORMAT_VERSION => header.unlock(fields, keyring),
            _ if keyring.is_encrypting() => Err(HeaderError::NotEncrypted),
            _ => Ok((header, None)),
        }
    }

    fn unlock(mut self, bytes: &[u8], keyring: &Keyring) -> Result<(Self, Cipher), HeaderError> {
        let (head, rest) = bytes.split_at(ENVELOPE_AT);
        let envelope = rest.first_chunk().ok_or(HeaderError::Damaged)?;
        let unlocked = keyring.unlock(head, &self.identity.store, envelope);
        let (secret, keys) = unlocked.map_err(HeaderError::Sealed)?;
        self.identity.secret = secret;
        Ok((self, Some(keys)))
    }

    /// The fields. What stands in the secret's place in an encrypted store is not it.
    fn decode_fields(bytes: &[u8]) -> Option<Self> {
        let (body, sum) = bytes.split_last_chunk::<4>()?;
        let mut fields = Decoder::new(body);
        let magic = fields.array::<8>()?;
        let version = fields.u32()?;
        let chain = fields.u32()?;
        let id = SegmentId(fields.u64()?);
        let nonce = fields.u64()?;
        let first_lsn = Lsn(fields.u64()?);
        let generation = fields.u64()?;
        let identity = Identity {
            store: fields.array()?,
            secret: fields.array()?,
        };
        let intact = magic == SEGMENT_MAGIC
            && is_readable(version)
            && u32::from_le_bytes(*sum) == checksum(0, &[body]);
        intact.then_some(Self {
            identity,
            id,
            nonce,
            first_lsn,
            generation,
            chain,
        })
    }
}

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

/// One changed record in a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Entry {
    pub(crate) key: Fingerprint,
    pub(crate) content: Fingerprint,
    /// When the record was added, in microseconds.
    pub(crate) first_seen: u64,
    /// Position of the version this one supersedes; 0 when the record was unknown.
    pub(crate) previous: u64,
    pub(crate) action: Action,
    /// Whether the payload was saved as JSON, so that it is compared as a value.
    pub(crate) json: bool,
    /// Whether the payload is the one of the version at `previous`: a deletion copies nothing.
    pub(crate) payload_at_previous: bool,
    /// Whether the payload was pruned before this version: only deletions carry that on.
    pub(crate) pruned: bool,
    /// Whether the record was deleted and added again: behind its id stand its earlier
    /// [lives](crate::feed::lives).
    pub(crate) reborn: bool,
    /// Length of the payload before it was [compressed](crate::compression); 0 when it is stored as
    /// it is. Below 2^24.
    pub(crate) plain_len: u32,
    /// Where the record's id, and what stands behind it, ends among the frame's ids, and its payload among the payloads.
    pub(crate) id_end: u32,
    pub(crate) body_end: u32,
    pub(crate) body_sum: u32,
}

/// In the year 4253.
const FIRST_SEEN_MAX: u64 = (1 << 56) - 1;

const FLAG_JSON: u8 = 4;
const FLAG_PAYLOAD_AT_PREVIOUS: u8 = 8;
const FLAG_PRUNED: u8 = 16;
const FLAG_REBORN: u8 = 32;

impl Entry {
    /// The entry's bytes for the record at `position`; its checksum covers the id too.
    pub(crate) fn encode(&self, position: u64, id: &[u8]) -> [u8; ENTRY_LEN] {
        let mut flags = self.action as u8;
        if self.json {
            flags |= FLAG_JSON;
        }
        if self.payload_at_previous {
            flags |= FLAG_PAYLOAD_AT_PREVIOUS;
        }
        if self.pruned {
            flags |= FLAG_PRUNED;
        }
        if self.reborn {
            flags |= FLAG_REBORN;
        }
        let mut bytes = [0; ENTRY_LEN];
        bytes[..12].copy_from_slice(&self.key.to_bytes());
        bytes[12..24].copy_from_slice(&self.content.to_bytes());
        let first_seen = self.first_seen.min(FIRST_SEEN_MAX);
        bytes[24..31].copy_from_slice(&first_seen.to_le_bytes()[..7]);
        bytes[31] = flags;
        bytes[32..38].copy_from_slice(&self.previous.to_le_bytes()[..6]);
        // Lossless: frames have fewer bytes of ids, and only shorter payloads are compressed.
        bytes[38..41].copy_from_slice(&self.id_end.to_le_bytes()[..3]);
        bytes[41..44].copy_from_slice(&self.plain_len.to_le_bytes()[..3]);
        bytes[44..48].copy_from_slice(&self.body_end.to_le_bytes());
        bytes[48..52].copy_from_slice(&self.body_sum.to_le_bytes());
        let sum = checksum(position, &[&bytes[..ENTRY_LEN - 4], id]);
        bytes[ENTRY_LEN - 4..].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// Reads an entry without its checksum: for readers that verified the whole table.
    pub(crate) fn decode(bytes: &[u8; ENTRY_LEN]) -> Option<Self> {
        let mut fields = Decoder::new(bytes);
        let key = Fingerprint::from_bytes(fields.array()?);
        let content = Fingerprint::from_bytes(fields.array()?);
        let mut first_seen = [0; 8];
        first_seen[..7].copy_from_slice(&fields.array::<7>()?);
        let flags = fields.u8()?;
        let mut previous = [0; 8];
        previous[..6].copy_from_slice(&fields.array::<6>()?);
        let mut three_bytes = || {
            let [low, middle, high] = fields.array::<3>()?;
            Some(u32::from_le_bytes([low, middle, high, 0]))
        };
        let (id_end, plain_len) = (three_bytes()?, three_bytes()?);
        let action = match flags & 3 {
            0 => Action::Added,
            1 => Action::Updated,
            2 => Action::Deleted,
            _ => return None,
        };
        Some(Self {
            key,
            content,
            first_seen: u64::from_le_bytes(first_seen),
            previous: u64::from_le_bytes(previous),
            action,
            json: flags & FLAG_JSON != 0,
            payload_at_previous: flags & FLAG_PAYLOAD_AT_PREVIOUS != 0,
            pruned: flags & FLAG_PRUNED != 0,
            reborn: flags & FLAG_REBORN != 0,
            plain_len,
            id_end,
            body_end: fields.u32()?,
            body_sum: fields.u32()?,
        })
    }

    /// Where the record's id and its payload end.
    pub(crate) fn ends(bytes: &[u8; ENTRY_LEN]) -> (u32, u32) {
        let id = u32::from_le_bytes([bytes[38], bytes[39], bytes[40], 0]);
        let payload = u32::from_le_bytes([bytes[44], bytes[45], bytes[46], bytes[47]]);
        (id, payload)
    }

    /// Whether the entry's checksum holds for the record at `position` with this id.
    pub(crate) fn is_intact(bytes: &[u8; ENTRY_LEN], position: u64, id: &[u8]) -> bool {
        match bytes.split_last_chunk::<4>() {
            Some((body, sum)) => u32::from_le_bytes(*sum) == checksum(position, &[body, id]),
            None => false,
        }
    }

    /// Length of the payload as it was saved, of which `stored` bytes are stored.
    pub(crate) fn payload_len(&self, stored: u32) -> u32 {
        match self.plain_len {
            0 => stored,
            plain => plain,
        }
    }

    /// The checksum of a stored payload, as entries carry it.
    pub(crate) fn sum_of(body: &[u8]) -> u32 {
        checksum(0, &[body])
    }
}

/// Splits a verified or unverified table into its entries' bytes.
pub(crate) fn entry_table(bytes: &[u8]) -> &[[u8; ENTRY_LEN]] {
    bytes.as_chunks::<ENTRY_LEN>().0
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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

    #[test]
    fn segment_headers_round_trip_and_newer_versions_are_named() {
        let header = SegmentHeader {
            identity: Identity {
                store: [1; 16],
                secret: [2; 32],
            },
            id: SegmentId(3),
            nonce: 4,
            first_lsn: Lsn(5),
            generation: 6,
            chain: 7,
        };
        let mut bytes = header.encode(&None);
        let decode = |bytes: &[u8]| {
            let decoded = SegmentHeader::decode(bytes, &Keyring::new(None));
            decoded.map(|(header, _)| header)
        };
        assert_eq!(bytes.len(), SEGMENT_HEADER_LEN);
        assert_eq!(decode(&bytes), Ok(header));
        for other in [1, 4] {
            bytes[8] = other;
            let version = u32::from(other);
            assert_eq!(decode(&bytes), Err(HeaderError::UnknownVersion(version)));
        }
        bytes[8] = 2;
        bytes[60] ^= 1;
        assert_eq!(decode(&bytes), Err(HeaderError::Damaged));
    }

    #[test]
    fn entries_round_trip() {
        let fingerprint = |byte| Fingerprint::from_bytes([byte; 12]);
        let entry = Entry {
            key: fingerprint(1),
            content: fingerprint(2),
            first_seen: FIRST_SEEN_MAX,
            previous: POSITION_MAX,
            action: Action::Updated,
            json: true,
            payload_at_previous: false,
            pruned: false,
            reborn: true,
            plain_len: (1 << 24) - 2,
            id_end: (1 << 24) - 3,
            body_end: u32::MAX - 4,
            body_sum: 0xdead_beef,
        };
        let bytes = entry.encode(7, b"id");
        assert_eq!(Entry::decode(&bytes), Some(entry));
        assert!(Entry::is_intact(&bytes, 7, b"id"));
        assert!(!Entry::is_intact(&bytes, 8, b"id") && !Entry::is_intact(&bytes, 7, b"di"));
    }

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
