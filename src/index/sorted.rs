//! The base of an index that fits into memory: entries sorted by key, without slack, found by a
//! radix directory of one word per eight keys.

use crate::hash::Fingerprint;
use crate::index::entry::IndexEntry;

/// Keys per word of the radix directory, on average.
const KEYS_PER_BUCKET: usize = 8;

/// See the module.
pub(crate) struct Sorted {
    entries: Vec<IndexEntry>,
    /// Where each bucket starts, and at the end the number of entries.
    directory: Vec<u32>,
    /// A key's bucket is its head shifted right by this much; 64 when there is one bucket.
    shift: u32,
}

impl Default for Sorted {
    fn default() -> Self {
        Self::build(&[])
    }
}

impl Sorted {
    /// From entries in any order, every key at most once.
    pub(crate) fn build(entries: &[IndexEntry]) -> Self {
        let shift = shift_for(entries.len());
        let (entries, directory) = sort(entries, shift);
        Self {
            entries,
            directory,
            shift,
        }
    }

    pub(crate) fn entries(&self) -> &[IndexEntry] {
        &self.entries
    }

    pub(crate) fn get_mut(&mut self, at: usize) -> Option<&mut IndexEntry> {
        self.entries.get_mut(at)
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Memory held, in bytes.
    pub(crate) fn memory(&self) -> usize {
        self.entries.capacity() * size_of::<IndexEntry>()
            + self.directory.capacity() * size_of::<u32>()
    }

    /// Where a key should be: its bucket's share of the entries, interpolated. Keys are hashes, so
    /// inside a bucket this is right to within an entry or two.
    pub(crate) fn guess(&self, key: Fingerprint) -> usize {
        let bucket = bucket(key, self.shift);
        let Some(&[start, end]) = self.directory.get(bucket..bucket + 2) else {
            return 0;
        };
        let inside = key.head().checked_shl(64 - self.shift).unwrap_or(0) >> 32;
        start as usize + ((inside * u64::from(end - start)) >> 32) as usize
    }

    fn head_at(&self, at: usize) -> Option<u64> {
        self.entries.get(at).map(|entry| entry.key.head())
    }

    /// Walks from a guess to where the key is, or would be.
    pub(crate) fn find(&self, key: Fingerprint, guess: usize) -> Option<usize> {
        let mut at = guess;
        while at > 0 && self.head_at(at - 1).is_some_and(|head| head >= key.head()) {
            at -= 1;
        }
        while self.head_at(at).is_some_and(|head| head < key.head()) {
            at += 1;
        }
        // Keys are 96 bits, heads 64: equal heads of different keys stand side by side.
        while let Some(entry) = self.entries.get(at).filter(|e| e.key.head() == key.head()) {
            if entry.key == key {
                return Some(at);
            }
            at += 1;
        }
        None
    }

    /// Takes in entries with other keys, in any order.
    pub(crate) fn merge(&mut self, added: &[IndexEntry]) {
        let (added, starts) = sort(added, self.shift);
        self.take_in(&added, &starts);
        for (place, start) in self.directory.iter_mut().zip(&starts) {
            *place += start;
        }
        if shift_for(self.entries.len()) != self.shift {
            self.build_directory();
        }
    }

    /// Merges sorted entries, of which `starts` tells where each bucket's are: bucket by bucket,
    /// backwards from the end, so that the entries grow in place.
    fn take_in(&mut self, added: &[IndexEntry], starts: &[u32]) {
        let Some(filler) = added.first() else { return };
        let mut end = self.entries.len();
        self.entries.reserve_exact(added.len());
        self.entries.resize(end + added.len(), *filler);
        for (start, bounds) in self.directory.iter().zip(starts.windows(2)).rev() {
            let (start, before, through) =
                (*start as usize, bounds[0] as usize, bounds[1] as usize);
            for (earlier, entry) in (before..through).zip(&added[before..through]).rev() {
                let is_less = |other: &IndexEntry| order(other) < order(entry);
                let at = start + self.entries[start..end].partition_point(is_less);
                // Later ones go up by as many as are added before them.
                self.entries.copy_within(at..end, at + earlier + 1);
                self.entries[at + earlier] = *entry;
                end = at;
            }
            self.entries.copy_within(start..end, start + before);
            end = start;
        }
    }

    fn build_directory(&mut self) {
        self.shift = shift_for(self.entries.len());
        let buckets = 1 << (64 - self.shift);
        self.directory.clear();
        self.directory.reserve_exact(buckets + 1);
        for (at, entry) in self.entries.iter().enumerate() {
            let bucket = bucket(entry.key, self.shift);
            // Every bucket up to this key's that has no start yet starts here.
            while self.directory.len() <= bucket {
                self.directory.push(at as u32);
            }
        }
        self.directory
            .resize(buckets + 1, self.entries.len() as u32);
    }
}

/// The bucket of a key among entries whose keys are shifted by `shift`.
fn bucket(key: Fingerprint, shift: u32) -> usize {
    key.head().checked_shr(shift).unwrap_or(0) as usize
}

/// What entries are sorted by, here and in runs: heads, and whole keys where heads are the same.
pub(crate) fn order(entry: &IndexEntry) -> (u64, Fingerprint) {
    (entry.key.head(), entry.key)
}

/// Sorts entries by key.
pub(crate) fn sorted(entries: &[IndexEntry]) -> Vec<IndexEntry> {
    sort(entries, shift_for(entries.len())).0
}

/// Sorts entries by key, and returns where each bucket starts.
///
/// A counting sort into buckets leaves only a handful of keys to sort in each: keys are hashes, so
/// buckets are even.
fn sort(entries: &[IndexEntry], shift: u32) -> (Vec<IndexEntry>, Vec<u32>) {
    let mut starts = vec![0u32; (1 << (64 - shift)) + 1];
    for entry in entries {
        starts[bucket(entry.key, shift) + 1] += 1;
    }
    for bucket in 1..starts.len() {
        starts[bucket] += starts[bucket - 1];
    }
    let mut next = starts.clone();
    let mut places = vec![0u32; entries.len()];
    for (at, entry) in (0..).zip(entries) {
        let place = &mut next[bucket(entry.key, shift)];
        places[*place as usize] = at;
        *place += 1;
    }
    let mut sorted: Vec<IndexEntry> = places.iter().map(|at| entries[*at as usize]).collect();
    for bounds in starts.windows(2) {
        let range = bounds[0] as usize..bounds[1] as usize;
        sorted[range].sort_unstable_by_key(order);
    }
    (sorted, starts)
}

/// By how much heads of keys are shifted right to give the buckets of a base of `len` entries.
fn shift_for(len: usize) -> u32 {
    64 - (len / KEYS_PER_BUCKET).next_power_of_two().trailing_zeros()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::entry::sample;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::collections::btree_map::Entry;

    /// Few heads, so that buckets fill unevenly and keys share heads, or any.
    fn key() -> impl Strategy<Value = Fingerprint> {
        let from = |(head, tail): (u64, u32)| {
            let mut bytes = [0; Fingerprint::LEN];
            bytes[..8].copy_from_slice(&head.to_le_bytes());
            bytes[8..].copy_from_slice(&tail.to_le_bytes());
            Fingerprint::from_bytes(bytes)
        };
        let near = (0..9u64).prop_map(|at| at << 60 | at);
        prop_oneof![(any::<u64>(), Just(0)), (near, 0..9u32)].prop_map(from)
    }

    proptest! {
        #[test]
        fn merging_is_building_with_all(
            steps in prop::collection::vec(prop::collection::vec(key(), 0..400), 1..5),
            missing in prop::collection::vec(key(), 0..20),
        ) {
            let mut model = BTreeMap::new();
            let mut base = Sorted::default();
            for keys in steps {
                let mut added = Vec::new();
                for key in keys {
                    let entry = sample(key, model.len() as u64);
                    if let Entry::Vacant(vacant) = model.entry((key.head(), key)) {
                        added.push(*vacant.insert(entry));
                    }
                }
                base.merge(&added);
            }
            let all: Vec<IndexEntry> = model.values().copied().collect();
            prop_assert_eq!(base.entries(), &all);
            let built = Sorted::build(&all);
            prop_assert_eq!((&base.directory, base.shift), (&built.directory, built.shift));
            for (at, entry) in all.iter().enumerate() {
                prop_assert_eq!(base.find(entry.key, base.guess(entry.key)), Some(at));
            }
            for key in missing.iter().filter(|key| !model.contains_key(&(key.head(), **key))) {
                prop_assert_eq!(base.find(*key, base.guess(*key)), None);
            }
        }
    }
}
