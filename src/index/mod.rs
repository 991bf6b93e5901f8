//! The index of a feed: from a record's fingerprint to the newest version of the record.
//!
//! A large **base** and a small **delta** in memory that takes in what is new.
//!
//! * [`entry`]: what is known of a record
//! * [`delta`]: the delta
//! * [`sorted`]: the base in memory; what changes is replaced where it is, and the delta is merged in
//!   when it passes an eighth of it
//! * [`run`]: the base in files, when it outgrows its share of the memory budget; the delta becomes a
//!   run of its own when it is full, newer runs go before older ones, and many small ones are merged
//!   into larger ones; [`filter`] tells without a read which runs do not have a key
//! * [`shelf`]: which runs each feed has
//! * [`residency`]: bringing indexes into memory, and out of it
//!
//! The whole index is derived from the entries in the log, so dropping it loses nothing.

pub(crate) mod delta;
pub(crate) mod entry;
mod filter;
pub(crate) mod residency;
pub(crate) mod run;
pub(crate) mod shelf;
pub(crate) mod sorted;

use std::sync::Arc;

pub(crate) use crate::index::entry::IndexEntry;

use crate::error::Result;
use crate::hash::Fingerprint;
use crate::index::delta::Delta;
use crate::index::run::Run;
use crate::index::sorted::{Sorted, order};
use crate::intrinsics::prefetch;

/// The delta is merged into a base in memory when it has this many entries and is an eighth of it.
const DELTA_MIN: usize = 1024;
const DELTA_FRACTION: usize = 8;

/// Where an entry is. Valid until the next [`Index::put`]. Of what is in memory, or found at once, there
/// are fewer than 2^32.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Slot {
    Base(u32),
    Delta(u32),
    /// In a run; a place in the [`Lookup`] that found it.
    Run(u32),
}

/// The answers to many questions at once.
#[derive(Default)]
pub(crate) struct Lookup {
    pub(crate) slots: Vec<Option<Slot>>,
    from_runs: Vec<IndexEntry>,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Index {
    base: Base,
    delta: Delta,
}

enum Base {
    Sorted(Sorted),
    /// Oldest first.
    Runs(Vec<Arc<Run>>),
}

impl Default for Base {
    fn default() -> Self {
        Self::Sorted(Sorted::default())
    }
}

impl Index {
    /// An index in memory, from entries in any order, every key at most once.
    pub(crate) fn build(entries: &[IndexEntry]) -> Self {
        Self {
            base: Base::Sorted(Sorted::build(entries)),
            delta: Delta::default(),
        }
    }

    /// An index whose base is in files, oldest first, with newer entries, every key at most once.
    pub(crate) fn paged(runs: Vec<Arc<Run>>, newer: &[IndexEntry]) -> Self {
        let mut delta = Delta::default();
        let room = newer.len();
        newer.iter().for_each(|entry| delta.insert(entry, room));
        Self {
            base: Base::Runs(runs),
            delta,
        }
    }

    /// Entries held in memory.
    pub(crate) fn len(&self) -> usize {
        let base = match &self.base {
            Base::Sorted(base) => base.len(),
            Base::Runs(_) => 0,
        };
        base + self.delta.len()
    }

    /// Memory held, in bytes.
    pub(crate) fn memory(&self) -> usize {
        let base = match &self.base {
            Base::Sorted(base) => base.memory(),
            Base::Runs(runs) => runs.iter().map(|run| run.memory()).sum(),
        };
        base + self.delta.memory()
    }

    /// The runs, oldest first; none when the base is in memory.
    pub(crate) fn runs(&self) -> &[Arc<Run>] {
        match &self.base {
            Base::Sorted(_) => &[],
            Base::Runs(runs) => runs,
        }
    }

    /// Bytes of entries that are held in memory and could go into a run.
    pub(crate) fn spillable(&self) -> usize {
        self.len() * size_of::<IndexEntry>()
    }

    /// Everything that is held in memory, in the order of runs.
    pub(crate) fn in_order(&self) -> impl Iterator<Item = IndexEntry> {
        let base = match &self.base {
            Base::Sorted(base) => base.entries(),
            Base::Runs(_) => &[],
        };
        let mut base = base.iter().copied().peekable();
        let mut added = sorted::sorted(self.delta.entries()).into_iter().peekable();
        std::iter::from_fn(move || match (base.peek(), added.peek()) {
            (Some(one), Some(other)) if order(other) < order(one) => added.next(),
            (Some(_), _) => base.next(),
            (None, _) => added.next(),
        })
    }

    /// Puts a run in the place of those with these ids, which are neighbours.
    pub(crate) fn replace_runs(&mut self, ids: &[u64], merged: Arc<Run>) {
        if let Base::Runs(runs) = &mut self.base
            && let Some(first) = runs.iter().position(|run| ids.contains(&run.id()))
        {
            runs.retain(|run| !ids.contains(&run.id()));
            runs.insert(first, merged);
        }
    }

    /// The entry at a slot that `lookup` has found.
    pub(crate) fn entry<'a>(&'a self, slot: Slot, lookup: &'a Lookup) -> &'a IndexEntry {
        match (slot, &self.base) {
            (Slot::Base(at), Base::Sorted(base)) => &base.entries()[at as usize],
            (Slot::Delta(at), _) => &self.delta.entries()[at as usize],
            (Slot::Run(at) | Slot::Base(at), _) => &lookup.from_runs[at as usize],
        }
    }

    /// Finds many keys.
    pub(crate) fn find_all(&self, keys: &[Fingerprint], lookup: &mut Lookup) -> Result<()> {
        lookup.slots.clear();
        lookup.from_runs.clear();
        match &self.base {
            Base::Sorted(base) => self.find_in_memory(base, keys, &mut lookup.slots),
            Base::Runs(runs) => self.find_in_runs(runs, keys, lookup)?,
        }
        Ok(())
    }

    /// In passes: first all directory words, then the entries where the keys should be are fetched,
    /// then the keys compared. The cache misses of a pass overlap instead of each waiting for the
    /// comparisons of the one before.
    fn find_in_memory(&self, base: &Sorted, keys: &[Fingerprint], slots: &mut Vec<Option<Slot>>) {
        let guesses: Vec<usize> = keys.iter().map(|key| base.guess(*key)).collect();
        for entry in guesses.iter().filter_map(|at| base.entries().get(*at)) {
            prefetch(entry);
        }
        slots.extend(keys.iter().zip(guesses).map(|(key, at)| {
            let there = base.entries().get(at).is_some_and(|it| it.key == *key);
            let place = if there { Some(at) } else { base.find(*key, at) };
            let added = || self.delta.find(*key).map(Slot::Delta);
            place.map(|at| Slot::Base(at as u32)).or_else(added)
        }));
    }

    /// The delta first, then run by run, newest first: the first that has a key has its newest
    /// version. All filters of a run are asked before the first read.
    fn find_in_runs(
        &self,
        runs: &[Arc<Run>],
        keys: &[Fingerprint],
        lookup: &mut Lookup,
    ) -> Result<()> {
        let Lookup { slots, from_runs } = lookup;
        slots.extend(
            keys.iter()
                .map(|key| self.delta.find(*key).map(Slot::Delta)),
        );
        let mut open: Vec<u32> = (0..keys.len() as u32)
            .filter(|at| slots[*at as usize].is_none())
            .collect();
        let mut likely = Vec::with_capacity(open.len());
        for run in runs.iter().rev() {
            let may_have = |at: &u32| run.may_have(keys[*at as usize]);
            open.iter().for_each(|at| run.prefetch(keys[*at as usize]));
            likely.clear();
            likely.extend(open.iter().copied().filter(may_have));
            for at in &likely {
                if let Some(entry) = run.find(keys[*at as usize])? {
                    slots[*at as usize] = Some(Slot::Run(from_runs.len() as u32));
                    from_runs.push(entry);
                }
            }
            open.retain(|at| slots[*at as usize].is_none());
        }
        Ok(())
    }

    /// Finds a key among the entries added since the last merge.
    pub(crate) fn find_added(&self, key: Fingerprint) -> Option<(Slot, IndexEntry)> {
        let at = self.delta.find(key)?;
        let entry = self.delta.entries().get(at as usize)?;
        Some((Slot::Delta(at), *entry))
    }

    /// Stores the newest version of a record: at `slot`, where its key was found, or as a new one.
    pub(crate) fn put(&mut self, slot: Option<Slot>, entry: &IndexEntry) {
        let place = match (slot, &mut self.base) {
            (Some(Slot::Base(at)), Base::Sorted(base)) => base.get_mut(at as usize),
            (Some(Slot::Delta(at)), _) => self.delta.get_mut(at as usize),
            _ => None,
        };
        match place {
            Some(place) => *place = *entry,
            None => {
                let room = self.delta_limit().saturating_sub(self.delta.len());
                self.delta.insert(entry, room.max(DELTA_MIN));
            }
        }
    }

    fn delta_limit(&self) -> usize {
        match &self.base {
            Base::Sorted(base) => (base.len() / DELTA_FRACTION).max(DELTA_MIN),
            Base::Runs(_) => usize::MAX,
        }
    }

    /// Whether the delta is so many `times` as large as one that is merged into a base in memory.
    pub(crate) fn is_due(&self, times: usize) -> bool {
        self.delta.len() >= self.delta_limit().saturating_mul(times)
    }

    /// Merges the delta into a base in memory when it has grown enough. Ends the validity of all
    /// slots.
    pub(crate) fn maintain(&mut self) {
        if !self.is_due(1) {
            return;
        }
        if let Base::Sorted(base) = &mut self.base {
            base.merge(&self.delta.drain());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::entry::sample;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn entry(key: u64, position: u64) -> IndexEntry {
        let mut bytes = [0; 12];
        // The spread decides which keys share a bucket: small keys all fall into one.
        bytes[..8].copy_from_slice(&key.to_le_bytes());
        sample(Fingerprint::from_bytes(bytes), position)
    }

    #[test]
    fn memory_stays_under_48_bytes_a_record() {
        let mut index = Index::default();
        for key in 0..300_000u64 {
            let key = key.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            index.put(None, &entry(key, key >> 20));
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
            let built: Vec<IndexEntry> = model.values().copied().collect();
            let mut index = Index::build(&built);
            for (step, (key, again)) in puts.into_iter().enumerate() {
                let key = if narrow { key % 512 } else { key };
                let key = match model.keys().nth(step % 7) { Some(old) if again => *old, _ => key };
                let new = entry(key, step as u64);
                let mut lookup = Lookup::default();
                index.find_all(&[new.key], &mut lookup).unwrap();
                let slot = lookup.slots[0];
                prop_assert_eq!(slot.map(|slot| *index.entry(slot, &lookup)), model.get(&key).copied());
                index.put(slot, &new);
                model.insert(key, new);
                if step % 50 == 0 {
                    index.maintain();
                }
            }
            prop_assert_eq!(index.len(), model.len());
            prop_assert_eq!(index.spillable(), model.len() * size_of::<IndexEntry>());
            let mut in_order: Vec<_> = model.values().copied().collect();
            in_order.sort_by_key(order);
            prop_assert_eq!(index.in_order().collect::<Vec<_>>(), in_order);
            for added in index.delta.entries() {
                let found = index.find_added(added.key);
                prop_assert_eq!(found.map(|(_, entry)| entry), Some(*added));
            }
            let keys: Vec<_> = model.values().map(|entry| entry.key).collect();
            let mut lookup = Lookup::default();
            index.find_all(&keys, &mut lookup).unwrap();
            for (slot, expected) in lookup.slots.iter().zip(model.values()) {
                prop_assert_eq!(slot.map(|slot| index.entry(slot, &lookup)), Some(expected));
            }
        }
    }
}
