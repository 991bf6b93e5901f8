//! What a frame says of each record.

use super::ENTRY_LEN;
use crate::checksum::{checksum, checksums};
use crate::hash::Fingerprint;
use crate::record::Action;

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

/// Of a word, the bytes of an end, or a length, below 2^24.
const LOW_THREE: u32 = (1 << 24) - 1;

const FLAG_JSON: u8 = 4;
const FLAG_PAYLOAD_AT_PREVIOUS: u8 = 8;
const FLAG_PRUNED: u8 = 16;
const FLAG_REBORN: u8 = 32;

impl Entry {
    /// The entry's bytes, without its checksum, which [`sum_records`] fills in.
    // As for `decode`.
    #[inline(always)]
    pub(crate) fn encode(&self) -> [u8; ENTRY_LEN] {
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
        bytes
    }

    /// Reads an entry without its checksum: for readers that verified the whole table.
    // A value that comes back in memory is written there field by field. Who copies it at once, in larger
    // pieces, makes the processor wait until each field has arrived: two thirds of what locating a
    // record took.
    #[inline(always)]
    pub(crate) fn decode(bytes: &[u8; ENTRY_LEN]) -> Option<Self> {
        // The places are known when this is compiled, so that none of them is checked.
        let [mut key, mut content] = [[0; Fingerprint::LEN]; 2];
        key.copy_from_slice(&bytes[..12]);
        content.copy_from_slice(&bytes[12..24]);
        let [mut first_seen, mut previous] = [[0; 8]; 2];
        first_seen[..7].copy_from_slice(&bytes[24..31]);
        previous[..6].copy_from_slice(&bytes[32..38]);
        let flags = bytes[31];
        let action = match flags & 3 {
            0 => Action::Added,
            1 => Action::Updated,
            2 => Action::Deleted,
            _ => return None,
        };
        Some(Self {
            key: Fingerprint::from_bytes(key),
            content: Fingerprint::from_bytes(content),
            first_seen: u64::from_le_bytes(first_seen),
            previous: u64::from_le_bytes(previous),
            action,
            json: flags & FLAG_JSON != 0,
            payload_at_previous: flags & FLAG_PAYLOAD_AT_PREVIOUS != 0,
            pruned: flags & FLAG_PRUNED != 0,
            reborn: flags & FLAG_REBORN != 0,
            plain_len: word(bytes, 41) & LOW_THREE,
            id_end: word(bytes, 38) & LOW_THREE,
            body_end: word(bytes, 44),
            body_sum: word(bytes, 48),
        })
    }

    /// Where the record's id and its payload end.
    pub(crate) fn ends(bytes: &[u8; ENTRY_LEN]) -> (u32, u32) {
        (word(bytes, 38) & LOW_THREE, word(bytes, 44))
    }

    /// Whether the entry's checksum holds for the record at `position` with this id.
    pub(crate) fn is_intact(bytes: &[u8; ENTRY_LEN], position: u64, id: &[u8]) -> bool {
        let (seed, parts) = Self::summed(bytes, position, id);
        Self::sum(bytes) == checksum(seed, &parts)
    }

    /// What the checksum of an entry is of.
    pub(crate) fn summed<'a>(
        bytes: &'a [u8; ENTRY_LEN],
        position: u64,
        id: &'a [u8],
    ) -> (u64, [&'a [u8]; 2]) {
        (position, [&bytes[..ENTRY_LEN - 4], id])
    }

    /// The checksum that an entry has.
    pub(crate) fn sum(bytes: &[u8; ENTRY_LEN]) -> u32 {
        bytes.last_chunk().map_or(0, |sum| u32::from_le_bytes(*sum))
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
        let (seed, parts) = Self::summed_payload(body);
        checksum(seed, &parts)
    }

    /// What the checksum of a stored payload is of.
    pub(crate) fn summed_payload(body: &[u8]) -> (u64, [&[u8]; 1]) {
        (0, [body])
    }
}

/// The four bytes at a place in an entry.
fn word(bytes: &[u8; ENTRY_LEN], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// Fills in the checksums of records in a table of their entries: of the payloads, and of each entry
/// with the id. `position` tells where in the feed a record of the table is.
pub(crate) fn sum_records(
    entries: &mut [[u8; ENTRY_LEN]],
    ids: &[u8],
    bodies: &[u8],
    position: impl Fn(usize) -> u64,
) {
    let mut start = 0;
    let payloads = entries.iter().map(|entry| {
        let (_, end) = Entry::ends(entry);
        let payload = &bodies[start as usize..end as usize];
        start = end;
        Entry::summed_payload(payload)
    });
    let sums: Vec<u32> = checksums(payloads).collect();
    for (entry, sum) in entries.iter_mut().zip(sums) {
        entry[48..52].copy_from_slice(&sum.to_le_bytes());
    }
    let mut start = 0;
    let summed = entries.iter().enumerate().map(|(index, entry)| {
        let (end, _) = Entry::ends(entry);
        let id = &ids[start as usize..end as usize];
        start = end;
        Entry::summed(entry, position(index), id)
    });
    let sums: Vec<u32> = checksums(summed).collect();
    for (entry, sum) in entries.iter_mut().zip(sums) {
        entry[ENTRY_LEN - 4..].copy_from_slice(&sum.to_le_bytes());
    }
}

/// Splits a verified or unverified table into its entries' bytes.
pub(crate) fn entry_table(bytes: &[u8]) -> &[[u8; ENTRY_LEN]] {
    bytes.as_chunks::<ENTRY_LEN>().0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cursor::POSITION_MAX;

    fn sample() -> Entry {
        let fingerprint = |byte| Fingerprint::from_bytes([byte; 12]);
        Entry {
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
        }
    }

    #[test]
    fn entries_round_trip() {
        let entry = sample();
        assert_eq!(Entry::decode(&entry.encode()), Some(entry));
    }

    #[test]
    fn checksums_bind_records_to_their_places() {
        let entry = |id_end, body_end| Entry {
            id_end,
            body_end,
            ..sample()
        };
        let mut table = [entry(2, 3).encode(), entry(5, 4).encode()];
        sum_records(&mut table, b"idid2", b"one2", |index| 7 + index as u64);
        let sums = table.map(|bytes| Entry::decode(&bytes).unwrap().body_sum);
        assert_eq!(sums, [Entry::sum_of(b"one"), Entry::sum_of(b"2")]);
        assert!(Entry::is_intact(&table[0], 7, b"id") && Entry::is_intact(&table[1], 8, b"id2"));
        assert!(!Entry::is_intact(&table[0], 8, b"id") && !Entry::is_intact(&table[0], 7, b"di"));
    }
}
