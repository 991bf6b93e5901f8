//! The base of an index that fits into memory: entries sorted by key, without slack, found by a
//! radix directory of one word per eight keys.

use crate::hash::Fingerprint;
use crate::index::entry::IndexEntry;

/// Keys per word of the radix directory, on average.
const KEYS_PER_BUCKET: usize = 8;

/// See the module.
#[derive(Default)]
pub(crate) struct Sorted {
    entries: Vec<IndexEntry>,
    /// Where each bucket starts, and at the end the number of entries.
    directory: Vec<u32>,
    /// A key's bucket is its head shifted right by this much; 64 when there is one bucket.
    shift: u32,
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
        if self.entries.is_empty() {
            return 0;
        }
        let bucket = bucket(key, self.shift);
        let Some(&[start, end]) = self.directory.get(bucket..bucket + 2) else {
            return 0;
        };
        let inside = key.head().checked_shl(64 - self.shift).unwrap_or(0) >> 32;
        start as usize + ((inside * u64::from(end - start)) >> 32) as usize
    }

    pub(crate) fn head_at(&self, at: usize) -> Option<u64> {
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
        let (added, _) = sort(added, shift_for(added.len()));
        self.merge_sorted(&added);
        self.build_directory();
    }

    /// Merges backwards from the end, so that the entries grow in place.
    fn merge_sorted(&mut self, added: &[IndexEntry]) {
        let mut left = self.entries.len();
        let Some(&filler) = added.first() else { return };
        self.entries.reserve_exact(added.len());
        self.entries.resize(left + added.len(), filler);
        let mut to = self.entries.len();
        for entry in added.iter().rev() {
            while left > 0 && order(&self.entries[left - 1]) > order(entry) {
                to -= 1;
                left -= 1;
                self.entries[to] = self.entries[left];
            }
            to -= 1;
            self.entries[to] = *entry;
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
        sorted[range].sort_unstable_by_key(order);
    }
    (sorted, directory)
}

/// By how much heads of keys are shifted right to give the buckets of a base of `len` entries.
fn shift_for(len: usize) -> u32 {
    64 - (len / KEYS_PER_BUCKET).next_power_of_two().trailing_zeros()
}
