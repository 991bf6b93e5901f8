//! The small part of an index, in memory, that takes in what is new.

use hashbrown::HashTable;

use crate::hash::Fingerprint;
use crate::index::entry::IndexEntry;

/// See the module.
#[derive(Default)]
pub(crate) struct Delta {
    entries: Vec<IndexEntry>,
    slots: HashTable<u32>,
}

impl Delta {
    pub(crate) fn entries(&self) -> &[IndexEntry] {
        &self.entries
    }

    /// Takes all entries out. The memory of the table stays for the next ones: it is small, and grew
    /// step by step.
    pub(crate) fn drain(&mut self) -> Vec<IndexEntry> {
        self.slots.clear();
        std::mem::take(&mut self.entries)
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn get_mut(&mut self, at: usize) -> Option<&mut IndexEntry> {
        self.entries.get_mut(at)
    }

    /// Memory held, in bytes.
    pub(crate) fn memory(&self) -> usize {
        self.entries.capacity() * size_of::<IndexEntry>() + self.slots.allocation_size()
    }

    pub(crate) fn find(&self, key: Fingerprint) -> Option<u32> {
        if self.entries.is_empty() {
            return None;
        }
        let is_it = |at: &u32| self.entries[*at as usize].key == key;
        self.slots.find(key.head(), is_it).copied()
    }

    /// Takes in an entry of a key that is not there. Room grows by half each time, but for no more
    /// than `room` further entries.
    pub(crate) fn insert(&mut self, entry: &IndexEntry, room: usize) {
        if self.entries.len() == self.entries.capacity() {
            let half = (self.entries.len() / 2).max(16);
            self.entries.reserve_exact(half.min(room));
        }
        let at = self.entries.len() as u32;
        self.entries.push(*entry);
        let entries = &self.entries;
        let head = |at: &u32| entries[*at as usize].key.head();
        self.slots.insert_unique(entry.key.head(), at, head);
    }
}
