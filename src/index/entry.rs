//! What the index knows of one record: its newest version.

use crate::codec::Decoder;
use crate::hash::Fingerprint;
use crate::log::format::Entry;
use crate::record::Action;

/// Length of an encoded entry, in bytes.
pub(crate) const INDEX_ENTRY_LEN: usize = 44;

/// The newest version of one record: 44 bytes without padding.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct IndexEntry {
    pub(crate) key: Fingerprint,
    pub(crate) content: Fingerprint,
    position_low: u32,
    position_high: u16,
    flags: u16,
    first_seen: [u32; 2],
    /// Length of the payload; 0 for a deleted record, which no longer counts.
    pub(crate) body_len: u32,
}

const _: () = assert!(size_of::<IndexEntry>() == INDEX_ENTRY_LEN);

const FLAG_DELETED: u16 = 1;
const FLAG_JSON: u16 = 2;
const FLAG_PRUNED: u16 = 4;
const FLAG_REBORN: u16 = 8;
const FLAG_SUPERSEDED: u16 = 16;

impl IndexEntry {
    /// The index's view of a log entry at `position` whose payload has `body_len` bytes.
    // As for `Entry::decode`.
    #[inline(always)]
    pub(crate) fn new(entry: &Entry, position: u64, body_len: u32) -> Self {
        let mut flags = 0;
        if entry.action == Action::Deleted {
            flags |= FLAG_DELETED;
        }
        if entry.json {
            flags |= FLAG_JSON;
        }
        if entry.pruned {
            flags |= FLAG_PRUNED;
        }
        if entry.reborn {
            flags |= FLAG_REBORN;
        }
        Self {
            key: entry.key,
            content: entry.content,
            position_low: position as u32,
            // Positions have 48 bits.
            position_high: (position >> 32) as u16,
            flags,
            first_seen: [entry.first_seen as u32, (entry.first_seen >> 32) as u32],
            body_len,
        }
    }

    pub(crate) fn position(&self) -> u64 {
        u64::from(self.position_low) | u64::from(self.position_high) << 32
    }

    pub(crate) fn first_seen(&self) -> u64 {
        u64::from(self.first_seen[0]) | u64::from(self.first_seen[1]) << 32
    }

    pub(crate) fn is_deleted(&self) -> bool {
        self.flags & FLAG_DELETED != 0
    }

    pub(crate) fn is_json(&self) -> bool {
        self.flags & FLAG_JSON != 0
    }

    /// Whether the payload is gone; `through` is up to where payloads were pruned.
    pub(crate) fn is_pruned(&self, through: u64) -> bool {
        self.flags & FLAG_PRUNED != 0 || self.position() <= through
    }

    /// Whether the record has earlier lives.
    pub(crate) fn is_reborn(&self) -> bool {
        self.flags & FLAG_REBORN != 0
    }

    /// Whether this copy of an entry was overtaken; see [`Trail`](crate::feed::trail::Trail).
    pub(crate) fn is_superseded(&self) -> bool {
        self.flags & FLAG_SUPERSEDED != 0
    }

    pub(crate) fn set_superseded(&mut self) {
        self.flags |= FLAG_SUPERSEDED;
    }

    /// The bytes of payload that count for the feed's size.
    pub(crate) fn counted_len(&self, pruned_through: u64) -> u64 {
        if self.is_deleted() || self.is_pruned(pruned_through) {
            0
        } else {
            u64::from(self.body_len)
        }
    }

    /// The entry as runs hold it.
    pub(crate) fn encode(&self) -> [u8; INDEX_ENTRY_LEN] {
        let mut bytes = [0; INDEX_ENTRY_LEN];
        bytes[..12].copy_from_slice(&self.key.to_bytes());
        bytes[12..24].copy_from_slice(&self.content.to_bytes());
        bytes[24..28].copy_from_slice(&self.position_low.to_le_bytes());
        bytes[28..30].copy_from_slice(&self.position_high.to_le_bytes());
        bytes[30..32].copy_from_slice(&self.flags.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.first_seen().to_le_bytes());
        bytes[40..].copy_from_slice(&self.body_len.to_le_bytes());
        bytes
    }

    /// Reads an entry of a run whose checksum was verified.
    pub(crate) fn decode(bytes: &[u8; INDEX_ENTRY_LEN]) -> Option<Self> {
        let mut fields = Decoder::new(bytes);
        Some(Self {
            key: Fingerprint::from_bytes(fields.array()?),
            content: Fingerprint::from_bytes(fields.array()?),
            position_low: fields.u32()?,
            position_high: u16::from_le_bytes(fields.array()?),
            flags: u16::from_le_bytes(fields.array()?),
            first_seen: [fields.u32()?, fields.u32()?],
            body_len: fields.u32()?,
        })
    }
}

/// An entry for tests.
#[cfg(test)]
pub(crate) fn sample(key: Fingerprint, position: u64) -> IndexEntry {
    let entry = Entry {
        key,
        content: Fingerprint::from_bytes([7; 12]),
        first_seen: 1 << 50 | position,
        previous: 0,
        action: Action::Added,
        json: false,
        payload_at_previous: false,
        pruned: false,
        reborn: false,
        plain_len: 0,
        id_end: 0,
        body_end: 0,
        body_sum: 0,
    };
    IndexEntry::new(&entry, position, 9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_keep_their_fields() {
        let position = (1 << 48) - 2;
        let entry = sample(Fingerprint::from_bytes([1; 12]), position);
        assert_eq!(entry.position(), position);
        assert_eq!(entry.first_seen(), 1 << 50 | position);
        assert!(!entry.is_deleted() && !entry.is_json());
        assert_eq!(IndexEntry::decode(&entry.encode()), Some(entry));
    }
}
