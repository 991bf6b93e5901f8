//! The index of a feed: from a record's fingerprint to the newest version of the record.
//!
//! A large sorted **base** and a small hashed **delta** in front of it. The base has no slack and
//! is found by a radix directory of one word per eight keys; what is added goes to the delta, what
//! changes is replaced where it is. When the delta passes an eighth of the base the two are merged
//! in place. The whole index is derived from the entries in the log, so dropping it loses nothing.

use hashbrown::HashTable;

use crate::hash::Fingerprint;
use crate::log::format::Entry;
use crate::record::Action;

/// Keys per word of the radix directory, on average.
const KEYS_PER_BUCKET: usize = 8;
/// The delta is merged when it has this many entries and is an eighth of the base.
const DELTA_MIN: usize = 1024;
const DELTA_FRACTION: usize = 8;

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

const _: () = assert!(size_of::<IndexEntry>() == 44);

const FLAG_DELETED: u16 = 1;
const FLAG_JSON: u16 = 2;
const FLAG_PRUNED: u16 = 4;
const FLAG_REBORN: u16 = 8;

impl IndexEntry {
    /// The index's view of a log entry at `position` whose payload has `body_len` bytes.
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

    /// The bytes of payload that count for the feed's size.
    pub(crate) fn counted_len(&self, pruned_through: u64) -> u64 {
        if self.is_deleted() || self.is_pruned(pruned_through) {
            0
        } else {
            u64::from(self.body_len)
        }
    }
}

/// Where an entry is. Valid until the next [`Index::put`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Slot {
    Base(usize),
    Delta(usize),
}

/// See the module.
#[derive(Default)]
pub(crate) struct Index {
    base: Vec<IndexEntry>,
    /// Where each bucket of the base starts, and at the end its length.
    directory: Vec<u32>,
    /// A key's bucket is its head shifted right by this much; 64 when there is one bucket.
    shift: u32,
    delta: Vec<IndexEntry>,
    delta_slots: HashTable<u32>,
}

impl Index {
    /// Builds an index from entries in any order, every key at most once.
    pub(crate) fn build(entries: Vec<IndexEntry>) -> Self {
        let shift = shift_for(entries.len());
        let (base, directory) = sort(&entries, shift);
        Self {
            base,
            directory,
            shift,
            ..Self::default()
        }
    }

    fn bucket(&self, key: Fingerprint) -> usize {
        bucket(key, self.shift)
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.base.len() + self.delta.len()
    }

    /// All entries, in no order.
    pub(crate) fn entries(&self) -> impl Iterator<Item = &IndexEntry> {
        self.base.iter().chain(&self.delta)
    }

    /// Memory held, in bytes.
    pub(crate) fn memory(&self) -> usize {
        (self.base.capacity() + self.delta.capacity()) * size_of::<IndexEntry>()
            + self.directory.capacity() * size_of::<u32>()
            + self.delta_slots.allocation_size()
    }

    pub(crate) fn entry(&self, slot: Slot) -> &IndexEntry {
        match slot {
            Slot::Base(at) => &self.base[at],
            Slot::Delta(at) => &self.delta[at],
        }
    }

    pub(crate) fn find(&self, key: Fingerprint) -> Option<Slot> {
        let base = self.find_base(key, self.guess(key));
        base.or_else(|| self.find_added(key))
    }

    /// Finds many keys, in passes: first all directory words, then the entries where the keys
    /// should be, then the keys. The cache misses of a pass overlap instead of each waiting for
    /// the comparisons of the one before.
    pub(crate) fn find_all(&self, keys: &[Fingerprint], slots: &mut Vec<Option<Slot>>) {
        let guesses: Vec<usize> = keys.iter().map(|key| self.guess(*key)).collect();
        let touched: Vec<u64> = guesses
            .iter()
            .map(|at| self.head_at(*at).unwrap_or(0))
            .collect();
        slots.clear();
        slots.extend(
            keys.iter()
                .zip(guesses)
                .zip(touched)
                .map(|((key, at), head)| {
                    let there =
                        head == key.head() && self.base.get(at).is_some_and(|e| e.key == *key);
                    let base = if there {
                        Some(Slot::Base(at))
                    } else {
                        self.find_base(*key, at)
                    };
                    base.or_else(|| self.find_added(*key))
                }),
        );
    }

    /// Where in the base a key should be: its bucket's share of the base, interpolated. Keys are
    /// hashes, so inside a bucket this is right to within an entry or two.
    fn guess(&self, key: Fingerprint) -> usize {
        if self.base.is_empty() {
            return 0;
        }
        let bucket = self.bucket(key);
        let Some(&[start, end]) = self.directory.get(bucket..bucket + 2) else {
            return 0;
        };
        let inside = key.head().checked_shl(64 - self.shift).unwrap_or(0) >> 32;
        start as usize + ((inside * u64::from(end - start)) >> 32) as usize
    }

    fn head_at(&self, at: usize) -> Option<u64> {
        self.base.get(at).map(|entry| entry.key.head())
    }

    /// Walks from a guess to where the key is, or would be.
    fn find_base(&self, key: Fingerprint, guess: usize) -> Option<Slot> {
        let mut at = guess;
        while at > 0 && self.head_at(at - 1).is_some_and(|head| head >= key.head()) {
            at -= 1;
        }
        while self.head_at(at).is_some_and(|head| head < key.head()) {
            at += 1;
        }
        // Keys are 96 bits, heads 64: equal heads of different keys stand side by side.
        while let Some(entry) = self.base.get(at).filter(|e| e.key.head() == key.head()) {
            if entry.key == key {
                return Some(Slot::Base(at));
            }
            at += 1;
        }
        None
    }

    /// Finds a key among the entries added since the last merge.
    pub(crate) fn find_added(&self, key: Fingerprint) -> Option<Slot> {
        if self.delta.is_empty() {
            return None;
        }
        let found = self
            .delta_slots
            .find(key.head(), |at| self.delta[*at as usize].key == key);
        found.map(|at| Slot::Delta(*at as usize))
    }

    /// Stores the newest version of a record: at `slot`, where [`Index::find`] saw its key, or as
    /// a new one.
    pub(crate) fn put(&mut self, slot: Option<Slot>, entry: IndexEntry) {
        match slot {
            Some(Slot::Base(at)) => self.base[at] = entry,
            Some(Slot::Delta(at)) => self.delta[at] = entry,
            None => self.insert(entry),
        }
    }

    fn insert(&mut self, entry: IndexEntry) {
        if self.delta.len() == self.delta.capacity() {
            // Doubles as a vector does, but no further than to the next merge.
            let until_merge = self.delta_limit().saturating_sub(self.delta.len());
            let double = self.delta.len().max(16);
            self.delta
                .reserve_exact(double.min(until_merge.max(DELTA_MIN)));
        }
        let at = self.delta.len() as u32;
        self.delta.push(entry);
        let delta = &self.delta;
        self.delta_slots
            .insert_unique(entry.key.head(), at, |at| delta[*at as usize].key.head());
    }

    fn delta_limit(&self) -> usize {
        (self.base.len() / DELTA_FRACTION).max(DELTA_MIN)
    }

    /// Merges the delta into the base when it has grown enough. Ends the validity of all slots.
    pub(crate) fn maintain(&mut self) {
        if self.delta.len() < self.delta_limit() {
            return;
        }
        self.delta_slots = HashTable::new();
        let delta = std::mem::take(&mut self.delta);
        let (delta, _) = sort(&delta, shift_for(delta.len()));
        self.merge(&delta);
        self.build_directory();
    }

    /// Merges backwards from the end, so that the base grows in place.
    fn merge(&mut self, delta: &[IndexEntry]) {
        let mut left = self.base.len();
        let Some(&filler) = delta.first() else { return };
        self.base.reserve_exact(delta.len());
        self.base.resize(left + delta.len(), filler);
        let mut to = self.base.len();
        for entry in delta.iter().rev() {
            while left > 0 && self.base[left - 1].key.head() > entry.key.head() {
                to -= 1;
                left -= 1;
                self.base[to] = self.base[left];
            }
            to -= 1;
            self.base[to] = *entry;
        }
    }

    fn build_directory(&mut self) {
        self.shift = shift_for(self.base.len());
        let buckets = 1 << (64 - self.shift);
        self.directory.clear();
        self.directory.reserve_exact(buckets + 1);
        for (at, entry) in self.base.iter().enumerate() {
            let bucket = bucket(entry.key, self.shift);
            // Every bucket up to this key's that has no start yet starts here.
            while self.directory.len() <= bucket {
                self.directory.push(at as u32);
            }
        }
        self.directory.resize(buckets + 1, self.base.len() as u32);
    }
}

/// The bucket of a key in a base whose keys are shifted by `shift`.
fn bucket(key: Fingerprint, shift: u32) -> usize {
    key.head().checked_shr(shift).unwrap_or(0) as usize
}

/// Sorts entries by key, and returns where each bucket starts.
///
/// A counting sort into buckets leaves only a handful of keys to sort in each: keys are hashes, so
/// buckets are even.
fn sort(entries: &[IndexEntry], shift: u32) -> (Vec<IndexEntry>, Vec<u32>) {
    let mut next = vec![0u32; (1 << (64 - shift)) + 1];
    for entry in entries {
        next[bucket(entry.key, shift) + 1] += 1;
    }
    for bucket in 1..next.len() {
        next[bucket] += next[bucket - 1];
    }
    let directory = next.clone();
    // Every place is filled: the copy only saves the compiler from having to know that.
    let mut sorted = entries.to_vec();
    for entry in entries {
        let at = &mut next[bucket(entry.key, shift)];
        sorted[*at as usize] = *entry;
        *at += 1;
    }
    for bounds in directory.windows(2) {
        let range = bounds[0] as usize..bounds[1] as usize;
        sorted[range].sort_unstable_by_key(|entry| entry.key.head());
    }
    (sorted, directory)
}

/// By how much heads of keys are shifted right to give the buckets of a base of `len` entries.
fn shift_for(len: usize) -> u32 {
    64 - (len / KEYS_PER_BUCKET).next_power_of_two().trailing_zeros()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn entry(key: u64, position: u64) -> IndexEntry {
        let mut bytes = [0; 12];
        // The spread decides which keys share a bucket: small keys all fall into one.
        bytes[..8].copy_from_slice(&key.to_le_bytes());
        let log = Entry {
            key: Fingerprint::from_bytes(bytes),
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
        IndexEntry::new(&log, position, 9)
    }

    #[test]
    fn entries_keep_their_fields() {
        let entry = entry(3, (1 << 48) - 2);
        assert_eq!(entry.position(), (1 << 48) - 2);
        assert_eq!(entry.first_seen(), 1 << 50 | ((1 << 48) - 2));
        assert!(!entry.is_deleted() && !entry.is_json());
    }

    #[test]
    fn memory_stays_under_48_bytes_a_record() {
        let mut index = Index::default();
        for key in 0..300_000u64 {
            let key = key.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            index.put(None, entry(key, key >> 20));
            index.maintain();
            if key % 1000 == 0 && index.len() > 20_000 {
                assert!(
                    index.memory() <= 48 * index.len(),
                    "{}",
                    index.memory() / index.len()
                );
            }
        }
        assert!(index.memory() <= 48 * index.len());
    }

    proptest! {
        #[test]
        fn agrees_with_a_map(
            built in prop::collection::btree_set(any::<u64>(), 0..3000),
            puts in prop::collection::vec((any::<u64>(), any::<bool>()), 0..3000),
            narrow: bool,
        ) {
            let mut model = BTreeMap::new();
            for key in built {
                let key = if narrow { key % 512 } else { key };
                model.insert(key, entry(key, key & 0xffff));
            }
            let mut index = Index::build(model.values().copied().collect());
            for (step, (key, again)) in puts.into_iter().enumerate() {
                let key = if narrow { key % 512 } else { key };
                let key = match model.keys().nth(step % 7) { Some(old) if again => *old, _ => key };
                let new = entry(key, step as u64);
                let slot = index.find(new.key);
                prop_assert_eq!(slot.map(|slot| *index.entry(slot)), model.get(&key).copied());
                index.put(slot, new);
                model.insert(key, new);
                if step % 50 == 0 {
                    index.maintain();
                }
            }
            prop_assert_eq!(index.len(), model.len());
            let keys: Vec<_> = model.values().map(|entry| entry.key).collect();
            let mut slots = Vec::new();
            index.find_all(&keys, &mut slots);
            for (slot, expected) in slots.iter().zip(model.values()) {
                prop_assert_eq!(slot.map(|slot| index.entry(slot)), Some(expected));
            }
        }
    }
}
