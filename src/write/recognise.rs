//! The hot path: recognising what is unchanged, by fingerprints alone. What the feed's
//! [trail](crate::feed::trail) does not meet is looked up in the index, many keys at once.

use std::borrow::Cow;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry as TableEntry;

use crate::error::Result;
use crate::feed::page::check_cursor;
use crate::feed::trail::Source;
use crate::hash::Fingerprint;
use crate::index::{IndexEntry, Lookup};
use crate::log::commit::Stage;
use crate::record::Outcome;
use crate::write::Verb;
use crate::write::classify::{Change, Prepared, decide, same_content};
use crate::write::named::Named;
use crate::write::turn::FeedTurn;

/// Positions that decide whether a version with the same content is unchanged at a glance.
#[derive(Clone, Copy)]
struct Bounds {
    /// Versions at or before this have no payload any more.
    pruned_through: u64,
    /// Versions after this are left alone if somebody else made them.
    untouched_after: u64,
}

impl Bounds {
    /// Whether `entry` is what a save brings, and there is nothing else to consider.
    fn is_unchanged(self, verb: Verb, entry: &IndexEntry, content: Fingerprint) -> bool {
        let position = entry.position();
        let plain = position > self.pruned_through && position <= self.untouched_after;
        plain && same_content(verb, entry, content) && !entry.is_deleted()
    }
}

/// The inputs that the trail recognised, by position of their version.
#[derive(Default)]
struct Met(Vec<(u64, u32)>);

impl Met {
    /// Brings them into order, and drops those that two heads have met: these are duplicates.
    fn sort(&mut self, outcomes: &mut [Outcome]) {
        // Mostly they come in order.
        if self.0.is_sorted_by(|(one, _), (next, _)| one < next) {
            return;
        }
        self.0.sort_unstable();
        self.0.dedup_by(|(next, at), (one, _)| {
            if next == one {
                outcomes[*at as usize] = Outcome::Duplicate;
            }
            next == one
        });
    }

    fn input_at(&self, position: u64) -> Option<u32> {
        let at = self
            .0
            .binary_search_by_key(&position, |(position, _)| *position);
        at.ok().map(|at| self.0[at].1)
    }
}

impl FeedTurn<'_> {
    /// Compares the fingerprints of a write with those of the newest versions. Returns the inputs
    /// that change something as far as fingerprints can tell.
    pub(super) fn compare_fingerprints(
        &mut self,
        write: &Prepared<'_>,
        named: &mut Named,
        outcomes: &mut [Outcome],
    ) -> Result<Vec<Change>> {
        let merging = write.merging.map(|cursor| check_cursor(self.feed, cursor));
        let bounds = Bounds {
            pruned_through: self.writer.pruned_through,
            untouched_after: merging.transpose()?.unwrap_or(u64::MAX),
        };
        let (mut met, rest) = self.follow_trail(write, named, bounds);
        met.sort(outcomes);
        if rest.is_empty() {
            return Ok(Vec::new());
        }
        self.look_up(write, named, outcomes, bounds, &met, &rest)
    }

    /// Follows the trail as far as it leads. Returns what it recognised as unchanged, and which
    /// inputs are left.
    fn follow_trail(
        &mut self,
        write: &Prepared<'_>,
        named: &mut Named,
        bounds: Bounds,
    ) -> (Met, Vec<u32>) {
        let count = write.keys.len() as u32;
        let mut met = Met::default();
        // Only what is saved can be unchanged; and the trail knows nothing of this commit.
        if write.contents.is_empty() || self.changes.earlier.is_some() {
            return (met, (0..count).collect());
        }
        let mut trail = std::mem::take(&mut self.writer.trail);
        let before = trail.memory();
        let resident = self.feed.index.read();
        let source = Source {
            log: &self.engine.log,
            feed: self.feed,
            resident: &resident,
        };
        if resident.index.is_none() && trail.is_at_end(source) {
            // Probably a sync begins, with the first record.
            trail.begin_after(source, 0);
        }
        let mut rest = Vec::new();
        let mut newest = 0;
        for (at, (key, content)) in (0..).zip(write.keys.iter().zip(&write.contents)) {
            if trail.is_empty() {
                rest.extend(at..count);
                break;
            }
            let entry = trail.meet(source, *key, *content);
            match entry.filter(|entry| bounds.is_unchanged(write.verb, entry, *content)) {
                Some(entry) => {
                    let position = entry.position();
                    newest = newest.max(position);
                    named.note(self, &resident, position, true);
                    met.0.push((position, at));
                }
                None => rest.push(at),
            }
        }
        self.rest_on(&resident, newest);
        let after = trail.memory();
        self.writer.trail = trail;
        if before != after {
            self.note_memory(&resident);
            drop(resident);
            self.engine.budget.enforce(self.feed);
        }
        (met, rest)
    }

    /// Looks keys up in the index, which is in memory then, as far as it ever is.
    fn find_all(&mut self, keys: &[Fingerprint], lookup: &mut Lookup) -> Result<()> {
        loop {
            self.engine.load_index(self.feed)?;
            let resident = self.feed.index.read();
            let Some(index) = resident.index.as_ref() else {
                continue;
            };
            let Err(error) = index.find_all(keys, lookup) else {
                return Ok(());
            };
            drop(resident);
            if let Some(newest) = &self.writer.newest {
                // The index may know of queued commits what nobody else does.
                self.engine.log.wait(newest, Stage::Durable)?;
            }
            if !self.engine.drop_damaged_index(self.feed, &error) {
                return Err(error);
            }
        }
    }

    /// Looks the inputs in `rest` up in the index.
    fn look_up(
        &mut self,
        write: &Prepared<'_>,
        named: &mut Named,
        outcomes: &mut [Outcome],
        bounds: Bounds,
        met: &Met,
        rest: &[u32],
    ) -> Result<Vec<Change>> {
        let keys = match rest.len() == write.keys.len() {
            true => Cow::Borrowed(&write.keys),
            false => Cow::Owned(rest.iter().map(|at| write.keys[*at as usize]).collect()),
        };
        let mut lookup = Lookup::default();
        self.find_all(&keys, &mut lookup)?;
        let keep_pruned = self.writer.options.keep_pruned;
        let resident = self.feed.index.read();
        // Loaded just now, and not evicted while a writer is at work.
        let Some(index) = resident.index.as_ref() else {
            return Ok(Vec::new());
        };
        let mut seen = HashTable::with_capacity(keys.len());
        let mut newest = 0;
        let mut changes = Vec::new();
        let mut unchanged = Vec::with_capacity(keys.len());
        let inputs = keys.iter().enumerate().zip(lookup.slots.iter().zip(rest));
        for ((number, key), (slot, at)) in inputs {
            let (slot, at) = (*slot, *at as usize);
            let entry = seen.entry(
                key.head(),
                |other: &u32| keys[*other as usize] == *key,
                |other| keys[*other as usize].head(),
            );
            let TableEntry::Vacant(entry) = entry else {
                outcomes[at] = Outcome::Duplicate;
                continue;
            };
            entry.insert(number as u32);
            if let (Some(slot), None, Some(content)) =
                (slot, &self.changes.earlier, write.contents.get(at))
                && met.0.is_empty()
            {
                // Nine records of ten end here, without their entry being copied.
                let entry = index.entry(slot, &lookup);
                if bounds.is_unchanged(write.verb, entry, *content) {
                    let position = entry.position();
                    newest = newest.max(position);
                    unchanged.push(position);
                    named.note(self, &resident, position, true);
                    continue;
                }
            }
            let found = self.changes.find(index, &lookup, *key, slot);
            let position = found.map(|found| found.entry.position());
            if let Some(other) = position.and_then(|position| met.input_at(position)) {
                // The trail has met the same record elsewhere in the batch.
                let other = other as usize;
                outcomes[at.max(other)] = Outcome::Duplicate;
                if other < at {
                    continue;
                }
                named.retract(position.unwrap_or_default());
            }
            let mut outcome = decide(write, at, found, bounds.pruned_through, keep_pruned);
            if let Some(position) = position {
                newest = newest.max(position);
                let foreign = || self.made(&resident, position).0 != self.author;
                if position > bounds.untouched_after && foreign() {
                    outcome = Outcome::Skipped;
                }
                if !outcome.is_change() {
                    let same = outcome == Outcome::Unchanged;
                    if same {
                        unchanged.push(position);
                    }
                    named.note(self, &resident, position, same);
                }
            }
            outcomes[at] = outcome;
            if outcome.is_change() {
                // Where one record changed, many may have: room for them is made once.
                if changes.is_empty() {
                    changes.reserve(keys.len() - number);
                }
                changes.push(Change {
                    index: at,
                    found,
                    outcome,
                    merged: None,
                });
            }
        }
        self.rest_on(&resident, newest);
        if self.changes.earlier.is_none() {
            let mut trail = std::mem::take(&mut self.writer.trail);
            let source = Source {
                log: &self.engine.log,
                feed: self.feed,
                resident: &resident,
            };
            trail.learn(source, unchanged.into_iter());
            self.writer.trail = trail;
            self.note_memory(&resident);
        }
        Ok(changes)
    }
}
