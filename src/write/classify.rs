//! Classification: what each input does to its record, under the contract's tables, and the index
//! entries and frames that follow from it.

use std::collections::HashMap;
use std::sync::Arc;

use crate::cursor::Cursor;
use crate::engine::Engine;
use crate::error::{Error, RecordError, Result};
use crate::feed::lives::Lives;
use crate::feed::slot::FeedSlot;
use crate::hash::{Fingerprint, Scratch};
use crate::index::{Index, IndexEntry, Lookup, Slot};
use crate::json;

use crate::log::format::Entry;
use crate::log::frame::Frame;
use crate::record::{Action, Outcome};
use crate::write::inputs::Input;
use crate::write::named::Named;
use crate::write::turn::{Changes, FeedTurn, Put};
use crate::write::{Verb, Write};

thread_local! {
    static SCRATCH: std::cell::RefCell<Scratch> = std::cell::RefCell::default();
}

/// A write with its fingerprints: what can be computed without a lock.
pub(crate) struct Prepared<'a> {
    pub(crate) feed: Arc<FeedSlot>,
    pub(super) verb: Verb,
    inputs: &'a [Input<'a>],
    pub(super) merging: Option<Cursor>,
    pub(super) keys: Vec<Fingerprint>,
    /// Of the payloads of saves; empty otherwise.
    pub(super) contents: Vec<Fingerprint>,
}

impl<'a> Prepared<'a> {
    pub(crate) fn new(engine: &Engine, write: &Write<'a>) -> Self {
        let inputs = write.inputs;
        let (mut keys, mut contents) = (Vec::new(), Vec::new());
        SCRATCH.with_borrow_mut(|scratch| {
            let id = |index: usize| inputs[index].id.as_bytes();
            engine.hasher.ids(scratch, inputs.len(), id, &mut keys);
            if matches!(write.verb, Verb::SaveRaw | Verb::SaveJson) {
                let body = |index: usize| inputs[index].body;
                engine
                    .hasher
                    .contents(scratch, inputs.len(), body, &mut contents);
            }
        });
        Self {
            feed: write.feed.clone(),
            verb: write.verb,
            inputs,
            merging: write.merging,
            keys,
            contents,
        }
    }
}

impl Prepared<'_> {
    pub(crate) fn len(&self) -> usize {
        self.inputs.len()
    }

    pub(crate) fn is_save(&self) -> bool {
        matches!(self.verb, Verb::SaveRaw | Verb::SaveJson)
    }
}

/// A record as a write finds it.
#[derive(Clone, Copy)]
pub(super) struct Found {
    /// Where the index has the record, as it was before this commit; `None` when it has not.
    slot: Option<Slot>,
    pub(super) entry: IndexEntry,
}

/// An input that is going to change its record.
pub(super) struct Change {
    pub(super) index: usize,
    pub(super) found: Option<Found>,
    pub(super) outcome: Outcome,
    /// The merged payload of an update, and its fingerprint.
    pub(super) merged: Option<Box<(Vec<u8>, Fingerprint)>>,
}

impl FeedTurn<'_> {
    /// Decides about every input of a write. One outcome per input.
    pub(crate) fn classify(&mut self, write: &Prepared<'_>) -> Result<Vec<Outcome>> {
        let mut outcomes = vec![Outcome::Unchanged; write.inputs.len()];
        let mut named = Named::of(self, write);
        let mut changes = self.compare_fingerprints(write, &mut named, &mut outcomes)?;
        if matches!(write.verb, Verb::SaveJson | Verb::Update) {
            self.compare_values(write, &mut changes)?;
            for change in changes.iter().filter(|c| c.outcome == Outcome::Unchanged) {
                if let Some(found) = change.found {
                    named.note(self, &self.feed.index.read(), found.entry.position(), true);
                }
            }
        }
        self.marks.extend(named.into_marks(self.author.sync));
        self.frame(write, changes, &mut outcomes)?;
        Ok(outcomes)
    }

    /// Compares values where only bytes were compared so far, and merges partial objects. Changes
    /// that turn out to be none become `Unchanged`.
    fn compare_values(&mut self, write: &Prepared<'_>, changes: &mut [Change]) -> Result<()> {
        // Of a pruned record there is nothing to compare with.
        let pruned_through = self.writer.pruned_through;
        let wanted = |change: &&Change| {
            let comparable = |entry: &IndexEntry| {
                !entry.is_deleted()
                    && !entry.is_pruned(pruned_through)
                    && (write.verb == Verb::Update || entry.is_json())
            };
            change.found.is_some_and(|found| comparable(&found.entry))
        };
        let positions: Vec<u64> = changes
            .iter()
            .filter(wanted)
            .filter_map(|change| change.found.map(|found| found.entry.position()))
            .collect();
        if positions.is_empty() {
            return Ok(());
        }
        let stored = self.stored(positions, true)?;
        let ignored = self.writer.options.ignored_fields.clone();
        for change in changes.iter_mut() {
            let Some(found) = Some(&*change)
                .filter(wanted)
                .and_then(|change| change.found)
            else {
                continue;
            };
            let old = stored.payload(found.entry.position());
            let incoming = write.inputs[change.index].body;
            if write.verb == Verb::Update {
                self.merge(change, found, old, incoming, &ignored)?;
            } else if json::same_value(old, incoming, &ignored).unwrap_or(false) {
                change.outcome = Outcome::Unchanged;
                // What this commit has made is not in the index yet, and must not get there as what
                // the commit has found.
                let slot = found
                    .slot
                    .filter(|_| found.entry.position() < self.begins_at().0);
                let mut alias = found.entry;
                alias.content = write.contents[change.index];
                self.changes.aliases.extend(slot.map(|slot| (slot, alias)));
            }
        }
        Ok(())
    }

    fn merge(
        &self,
        change: &mut Change,
        found: Found,
        old: &[u8],
        partial: &[u8],
        ignored: &[String],
    ) -> Result<()> {
        let refuse = |reason| Error::InvalidRecord {
            index: change.index,
            reason,
        };
        if !found.entry.is_json() {
            return Err(refuse(RecordError::NotJson));
        }
        let merged = json::merge(old, partial).map_err(|error| refuse(error.into()))?;
        let max = self.engine.options.payload_max;
        if merged.len() > max {
            return Err(refuse(RecordError::TooLarge {
                given: merged.len(),
                max,
            }));
        }
        if json::same_value(old, &merged, ignored).unwrap_or(false) {
            change.outcome = Outcome::Unchanged;
        } else {
            let content = self.engine.hasher.content(&merged);
            change.merged = Some(Box::new((merged, content)));
        }
        Ok(())
    }

    /// The earlier lives that changed records carry on, by the change's index in its batch.
    fn lives(&self, changes: &[Change]) -> Result<HashMap<usize, Lives>> {
        let reborn = |change: &&Change| {
            let found = change.found.filter(|_| change.outcome.is_change());
            found.is_some_and(|found| found.entry.is_reborn() || change.outcome == Outcome::Added)
        };
        let mut lives = HashMap::new();
        // Nobody reads a staged epoch before everything in it counts as added.
        if self.feed.is_staged() || !changes.iter().any(|change| reborn(&change)) {
            return Ok(lives);
        }
        let entries = changes
            .iter()
            .filter(reborn)
            .filter_map(|change| change.found);
        let known = entries.filter(|found| found.entry.is_reborn());
        let stored = self.stored(known.map(|found| found.entry.position()).collect(), false)?;
        let resident = self.feed.index.read();
        for change in changes.iter().filter(reborn) {
            let Some(Found { entry, .. }) = change.found else {
                continue;
            };
            let earlier = stored.lives(entry.position());
            let all = if change.outcome == Outcome::Added {
                let ended = self.made(&resident, entry.position()).1;
                earlier.and(entry.first_seen(), ended)
            } else {
                earlier
            };
            lives.insert(change.index, all);
        }
        Ok(lives)
    }

    /// Gives every change its position and puts it into a frame.
    fn frame(
        &mut self,
        write: &Prepared<'_>,
        changes: Vec<Change>,
        outcomes: &mut [Outcome],
    ) -> Result<()> {
        let lives = self.lives(&changes)?;
        let pruned_through = self.writer.pruned_through;
        let staged = self.feed.is_staged();
        let count = changes.len();
        let bytes = |of: fn(&Input<'_>) -> usize| -> usize {
            changes
                .iter()
                .map(|change| of(&write.inputs[change.index]))
                .sum()
        };
        let room = (
            bytes(|input| input.id.len()),
            bytes(|input| input.body.len()),
        );
        let compression = self.engine.options.compression;
        let mut scratch = Vec::new();
        let mut frame: Option<Frame> = None;
        self.changes.puts.reserve(count);
        for change in changes {
            outcomes[change.index] = change.outcome;
            if change.outcome == Outcome::Unchanged {
                continue;
            }
            if frame.as_ref().is_some_and(Frame::is_full) {
                self.finish(frame.take());
            }
            let target = frame.get_or_insert_with(|| {
                let mut frame = Frame::records(
                    self.feed.id,
                    self.feed.epoch,
                    self.author,
                    self.next,
                    self.time,
                    self.engine.log.frames.take(),
                );
                frame.reserve(count, room.0, room.1);
                frame
            });
            let input = write.inputs[change.index];
            let key = write.keys[change.index];
            let merged = change.merged.as_deref();
            let body = match (merged, change.outcome) {
                (_, Outcome::Deleted) => &[],
                (Some((merged, _)), _) => merged.as_slice(),
                (None, _) => input.body,
            };
            let content = match (merged, change.found) {
                (Some((_, content)), _) => *content,
                (None, Some(found)) if change.outcome == Outcome::Deleted => found.entry.content,
                (None, _) => write.contents[change.index],
            };
            let mut entry = log_entry(write.verb, key, content, &change, self.time);
            let pruned = |found: Found| found.entry.is_pruned(pruned_through);
            if entry.action == Action::Deleted && change.found.is_some_and(pruned) {
                (entry.pruned, entry.payload_at_previous) = (true, false);
            } else if staged && entry.action == Action::Updated {
                entry.action = Action::Added;
            }
            let lives = lives.get(&change.index);
            entry.reborn = lives.is_some();
            let lives = lives.map_or_else(Vec::new, |lives| lives.encode(entry.first_seen));
            let stored = self.feed.codec.encode(compression, body, &mut scratch);
            if stored.is_some() {
                entry.plain_len = body.len() as u32;
            }
            target.push(entry, input.id.as_bytes(), &lives, stored.unwrap_or(body));
            self.totals.count(change.outcome);
            let put = IndexEntry::new(&entry, self.next, body.len() as u32);
            self.next += 1;
            self.count(change.found, put);
        }
        self.finish(frame);
        Ok(())
    }

    fn finish(&mut self, frame: Option<Frame>) {
        if let Some(mut frame) = frame {
            frame.header.live = self.live;
            frame.header.live_bytes = self.live_bytes;
            self.changes.frames.push(frame);
        }
    }

    /// Accounts for one change: totals, the superseded version, the index.
    fn count(&mut self, found: Option<Found>, put: IndexEntry) {
        if let Some(found) = found {
            self.changes.superseded.push(found.entry.position());
            if !found.entry.is_deleted() {
                self.live -= 1;
                self.live_bytes -= found.entry.counted_len(self.writer.pruned_through);
            }
        }
        if !put.is_deleted() {
            self.live += 1;
            self.live_bytes += u64::from(put.body_len);
        }
        self.changes.puts.push(Put {
            slot: found.and_then(|found| found.slot),
            old: found.map(|found| found.entry),
            new: put,
        });
        if let Some(earlier) = &mut self.changes.earlier {
            earlier.insert(put.key, put);
        }
    }
}

impl Changes {
    pub(super) fn find(
        &self,
        index: &Index,
        lookup: &Lookup,
        key: Fingerprint,
        slot: Option<Slot>,
    ) -> Option<Found> {
        if let Some(entry) = self.earlier.as_ref().and_then(|earlier| earlier.get(&key)) {
            return Some(Found {
                slot,
                entry: *entry,
            });
        }
        slot.map(|at| Found {
            slot,
            entry: *index.entry(at, lookup),
        })
    }
}

/// Whether a save brings what is stored. JSON and opaque bytes are different content even when
/// the bytes are the same: what was saved as JSON is compared, and merged, as a value.
pub(super) fn same_content(verb: Verb, entry: &IndexEntry, content: Fingerprint) -> bool {
    entry.content == content && entry.is_json() == (verb == Verb::SaveJson)
}

/// The contract's tables, as far as fingerprints decide.
pub(super) fn decide(
    write: &Prepared<'_>,
    at: usize,
    found: Option<Found>,
    pruned_through: u64,
    keep_pruned: bool,
) -> Outcome {
    let live = found.filter(|found| !found.entry.is_deleted());
    let pruned = live.is_some_and(|found| found.entry.is_pruned(pruned_through));
    match (write.verb, live) {
        (Verb::SaveRaw | Verb::SaveJson, None) => Outcome::Added,
        (Verb::SaveRaw | Verb::SaveJson, Some(found)) => {
            match same_content(write.verb, &found.entry, write.contents[at]) {
                true if pruned && !keep_pruned => Outcome::Restored,
                true => Outcome::Unchanged,
                false => Outcome::Updated,
            }
        }
        (Verb::Update, Some(_)) if pruned => Outcome::Pruned,
        (Verb::Update, Some(_)) => Outcome::Updated,
        (Verb::Update, None) => Outcome::NotFound,
        (Verb::Delete, Some(_)) => Outcome::Deleted,
        (Verb::Delete, None) if found.is_some() => Outcome::Unchanged,
        (Verb::Delete, None) => Outcome::NotFound,
    }
}

/// What the log is to say of a change.
// As for `Entry::decode`.
#[inline(always)]
fn log_entry(
    verb: Verb,
    key: Fingerprint,
    content: Fingerprint,
    change: &Change,
    time: u64,
) -> Entry {
    let found = change.found.map(|found| found.entry);
    let deleted = change.outcome == Outcome::Deleted;
    let added = change.outcome == Outcome::Added;
    let first_seen = found
        .filter(|_| !added)
        .map_or(time, |entry| entry.first_seen());
    Entry {
        key,
        content,
        first_seen,
        previous: found.map_or(0, |entry| entry.position()),
        action: match change.outcome {
            Outcome::Added => Action::Added,
            Outcome::Deleted => Action::Deleted,
            _ => Action::Updated,
        },
        json: if deleted {
            found.is_some_and(|e| e.is_json())
        } else {
            verb != Verb::SaveRaw
        },
        payload_at_previous: deleted,
        pruned: false,
        reborn: false,
        plain_len: 0,
        id_end: 0,
        body_end: 0,
        body_sum: 0,
    }
}
