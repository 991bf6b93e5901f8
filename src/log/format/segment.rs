//! What a segment, or a pack, begins with.

use super::{FORMAT_OLDEST, FORMAT_VERSION, PLAIN_VERSION, SEGMENT_HEADER_LEN};
use crate::checksum::checksum;
use crate::codec::{Decoder, Encoder};
use crate::encryption::{Cipher, ENVELOPE_LEN, Keyring, Sealed};
use crate::log::{Lsn, SegmentId};

const SEGMENT_MAGIC: [u8; 8] = *b"HWSEGMNT";

/// Where the part of a segment's header stands that depends on the key.
const ENVELOPE_AT: usize = 64;
const _: () = assert!(ENVELOPE_AT + ENVELOPE_LEN <= SEGMENT_HEADER_LEN - 4);

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

    /// A segment's nonce: unique because segment ids are.
    fn nonce(&self, id: SegmentId) -> u64 {
        let digest = blake3::keyed_hash(&self.secret, &id.0.to_le_bytes());
        let mut nonce = [0; 8];
        nonce.copy_from_slice(&digest.as_bytes()[..8]);
        u64::from_le_bytes(nonce)
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
    /// The header of a file that is no part of a chain, made by a store that was always closed.
    pub(crate) fn new(identity: Identity, id: SegmentId, first_lsn: Lsn) -> Self {
        Self {
            identity,
            id,
            nonce: identity.nonce(id),
            first_lsn,
            generation: 0,
            chain: 0,
        }
    }

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
        // Where the version got lost in a torn write there are zeros.
        if fields.starts_with(&SEGMENT_MAGIC) && version != 0 && !is_readable(version) {
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

#[cfg(test)]
mod tests {
    use super::*;

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
        bytes[60] ^= 1;
        for torn in 0..SEGMENT_HEADER_LEN {
            let mut bytes = bytes.clone();
            bytes[torn..].fill(0);
            assert_eq!(decode(&bytes), Err(HeaderError::Damaged), "at {torn}");
        }
    }
}
