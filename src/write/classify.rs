//! Classification: what each input does to its record, under the contract's tables, and the index
//! entries and frames that follow from it.

use std::collections::HashMap;
use std::sync::Arc;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry as TableEntry;
use parking_lot::MutexGuard;

use crate::engine::Engine;
use crate::error::{Error, RecordError, Result};
use crate::feed::read::{Row, Span};
use crate::feed::state::{FeedState, Resident, Writer};
use crate::hash::{Fingerprint, Scratch};
use crate::index::{Index, IndexEntry, Slot};
use crate::json;

use crate::log::commit::{Stage, Ticket};
use crate::log::format::Entry;
use crate::log::frame::Frame;
use crate::publish::FeedPart;
use crate::record::{Action, Outcome};
use crate::write::inputs::Input;
use crate::write::{Verb, Write};

thread_local! {
    static SCRATCH: std::cell::RefCell<Scratch> = std::cell::RefCell::default();
}

/// A write with its fingerprints: what can be computed without a lock.
pub(crate) struct Prepared<'a> {
    pub(crate) feed: Arc<FeedState>,
    verb: Verb,
    inputs: &'a [Input<'a>],
    keys: Vec<Fingerprint>,
    /// Of the payloads of saves; empty otherwise.
    contents: Vec<Fingerprint>,
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
            keys,
            contents,
        }
    }
}

/// A record as a write finds it.
#[derive(Clone, Copy)]
struct Found {
    /// `None` when the record came earlier in this commit.
    slot: Option<Slot>,
    entry: IndexEntry,
}

/// An input that is going to change its record.
struct Change {
    index: usize,
    found: Option<Found>,
    outcome: Outcome,
    /// The merged payload of an update, and its fingerprint.
    merged: Option<(Vec<u8>, Fingerprint)>,
}

/// What a turn has collected so far.
#[derive(Default)]
pub(crate) struct Changes {
    pub(crate) frames: Vec<Frame>,
    puts: Vec<(Option<Slot>, IndexEntry)>,
    superseded: Vec<u64>,
    /// Entries whose record was saved again with the same value in other bytes: the next save of
    /// those bytes is recognised without comparing values.
    aliases: Vec<(Slot, Fingerprint)>,
    /// The records changed so far, when the commit has several writes on this feed.
    earlier: Option<HashMap<Fingerprint, IndexEntry>>,
}

/// The right to write to one feed, and the changes of the commit under construction.
pub(crate) struct FeedTurn<'a> {
    engine: &'a Engine,
    pub(crate) feed: &'a Arc<FeedState>,
    pub(crate) writer: MutexGuard<'a, Writer>,
    pub(crate) changes: Changes,
    next: u64,
    time: u64,
    live: u64,
    live_bytes: u64,
    /// Position up to which versions were visible when the turn was taken.
    tail: u64,
    /// A queued commit that some "unchanged" outcome rests on.
    rests_on: Option<Arc<Ticket>>,
}

impl<'a> FeedTurn<'a> {
    /// Waits for the feed's write lock and loads its index. `several` says that the commit has
    /// more than one write on this feed.
    pub(crate) fn take(
        engine: &'a Engine,
        feed: &'a Arc<FeedState>,
        aborts: u64,
        several: bool,
    ) -> Result<Self> {
        let writer = engine.write_turn(feed, aborts);
        engine.load_index(feed)?;
        let next = writer.next_position(engine.log.generation());
        let (live, live_bytes) = (writer.live, writer.live_bytes);
        // Commit times rise strictly along a feed, whatever the clock does.
        let time = engine.options.clock.now_micros().max(writer.time + 1);
        let tail = feed.published.read().tail;
        let changes = Changes {
            earlier: several.then(HashMap::new),
            ..Changes::default()
        };
        let rests_on = None;
        Ok(Self {
            engine,
            feed,
            writer,
            changes,
            next,
            time,
            live,
            live_bytes,
            tail,
            rests_on,
        })
    }

    pub(crate) fn has_changes(&self) -> bool {
        !self.changes.puts.is_empty()
    }

    /// The cursor of the newest change so far.
    pub(crate) fn last_cursor(&self) -> crate::cursor::Cursor {
        self.feed.cursor(self.next - 1)
    }

    /// Decides about every input of a write. One outcome per input.
    pub(crate) fn classify(&mut self, write: &Prepared<'_>) -> Result<Vec<Outcome>> {
        let mut outcomes = vec![Outcome::Unchanged; write.inputs.len()];
        let mut changes = self.compare_fingerprints(write, &mut outcomes);
        if matches!(write.verb, Verb::SaveJson | Verb::Update) {
            self.compare_values(write, &mut changes)?;
        }
        self.frame(write, changes, &mut outcomes);
        Ok(outcomes)
    }

    /// The hot path: looks every key up and compares fingerprints. Returns the inputs that change
    /// something as far as fingerprints can tell.
    fn compare_fingerprints(
        &mut self,
        write: &Prepared<'_>,
        outcomes: &mut [Outcome],
    ) -> Vec<Change> {
        let resident = self.feed.index.read();
        // Loaded when the turn was taken, and not evicted while a writer is at work.
        let Some(index) = resident.index.as_ref() else {
            return Vec::new();
        };
        let mut slots = Vec::with_capacity(write.keys.len());
        index.find_all(&write.keys, &mut slots);
        let mut seen = HashTable::with_capacity(write.keys.len());
        let mut newest_seen = 0;
        let mut changes = Vec::new();
        for (at, (key, slot)) in write.keys.iter().zip(slots).enumerate() {
            let entry = seen.entry(
                key.head(),
                |other: &u32| write.keys[*other as usize] == *key,
                |other| write.keys[*other as usize].head(),
            );
            let TableEntry::Vacant(entry) = entry else {
                outcomes[at] = Outcome::Duplicate;
                continue;
            };
            entry.insert(at as u32);
            if let (Some(slot), None, Some(content)) =
                (slot, &self.changes.earlier, write.contents.get(at))
            {
                // Nine records of ten end here, without their entry being copied.
                let entry = index.entry(slot);
                newest_seen = newest_seen.max(entry.position());
                if same_content(write.verb, entry, *content) && !entry.is_deleted() {
                    continue;
                }
            }
            let found = self.changes.find(index, *key, slot);
            let outcome = decide(write, at, found);
            outcomes[at] = outcome;
            if let Some(found) = found {
                newest_seen = newest_seen.max(found.entry.position());
            }
            if matches!(
                outcome,
                Outcome::Added | Outcome::Updated | Outcome::Deleted
            ) {
                changes.push(Change {
                    index: at,
                    found,
                    outcome,
                    merged: None,
                });
            }
        }
        if newest_seen > self.tail {
            self.rests_on = resident
                .pending
                .back()
                .map(|pending| pending.ticket.clone());
        }
        changes
    }

    /// Compares values where only bytes were compared so far, and merges partial objects. Changes
    /// that turn out to be none become `Unchanged`.
    fn compare_values(&mut self, write: &Prepared<'_>, changes: &mut [Change]) -> Result<()> {
        let wanted = |change: &&Change| {
            let found = change.found.filter(|found| !found.entry.is_deleted());
            found.is_some_and(|found| write.verb == Verb::Update || found.entry.is_json())
        };
        let positions: Vec<u64> = changes
            .iter()
            .filter(wanted)
            .filter_map(|change| change.found.map(|found| found.entry.position()))
            .collect();
        if positions.is_empty() {
            return Ok(());
        }
        let stored = self.payloads(positions)?;
        let ignored = self.writer.options.ignored_fields.clone();
        for change in changes.iter_mut() {
            let Some(found) = Some(&*change)
                .filter(wanted)
                .and_then(|change| change.found)
            else {
                continue;
            };
            let old = stored.get(found.entry.position());
            let incoming = write.inputs[change.index].body;
            if write.verb == Verb::Update {
                self.merge(change, found, old, incoming, &ignored)?;
            } else if json::same_value(old, incoming, &ignored).unwrap_or(false) {
                change.outcome = Outcome::Unchanged;
                let content = write.contents[change.index];
                self.changes
                    .aliases
                    .extend(found.slot.map(|slot| (slot, content)));
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
            change.merged = Some((merged, content));
        }
        Ok(())
    }

    /// Reads stored payloads, also those of commits on their way to the disk.
    fn payloads(&self, mut positions: Vec<u64>) -> Result<Stored> {
        positions.sort_unstable();
        positions.dedup();
        let mut stored = Stored::default();
        for frame in &self.changes.frames {
            for position in &positions {
                if let Some((_, body)) = frame.body_at(*position) {
                    stored.insert(*position, body);
                }
            }
        }
        positions.retain(|position| !stored.has(*position));
        self.await_written(&positions)?;
        let spans = {
            let published = self.feed.published.read();
            let mut spans = Vec::new();
            let mut rest = positions.as_slice();
            while let Some(first) = rest.first() {
                let Some(frame) = published.directory.find(*first) else {
                    let path = &self.engine.path;
                    return Err(Error::corrupt(path, 0, "a stored record is in no frame"));
                };
                let (here, later) = rest.split_at(rest.partition_point(|at| *at < frame.end()));
                let wanted = here.iter().map(|at| (at - frame.first) as u32).collect();
                spans.push(Span::new(&self.engine.log, frame, wanted)?);
                rest = later;
            }
            spans
        };
        let (mut located, mut rows) = (Vec::new(), Vec::new());
        for span in spans {
            located.clear();
            span.locate(&mut located)?;
            span.load(&located, true, &mut stored.buffer, &mut rows)?;
        }
        stored
            .rows
            .extend(rows.into_iter().map(|row: Row| (row.position, row.body)));
        Ok(stored)
    }

    /// Waits until the versions at `positions` are in the log's files, whether visible or not.
    fn await_written(&self, positions: &[u64]) -> Result<()> {
        let Some(last) = positions.last() else {
            return Ok(());
        };
        let placed = self
            .feed
            .published
            .read()
            .directory
            .frames()
            .last()
            .map_or(0, |f| f.end());
        if *last < placed {
            return Ok(());
        }
        let ticket = self
            .feed
            .index
            .read()
            .pending
            .back()
            .map(|pending| pending.ticket.clone());
        ticket.map_or(Ok(()), |ticket| {
            self.engine.log.wait(&ticket, Stage::Written)
        })
    }

    /// Gives every change its position and puts it into a frame.
    fn frame(&mut self, write: &Prepared<'_>, changes: Vec<Change>, outcomes: &mut [Outcome]) {
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
        let mut frame: Option<Frame> = None;
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
                    self.next,
                    self.time,
                    self.engine.log.frames.take(),
                );
                frame.reserve(count, room.0, room.1);
                frame
            });
            let input = write.inputs[change.index];
            let key = write.keys[change.index];
            let body = match (&change.merged, change.outcome) {
                (_, Outcome::Deleted) => &[],
                (Some((merged, _)), _) => merged.as_slice(),
                (None, _) => input.body,
            };
            let content = match (&change.merged, change.found) {
                (Some((_, content)), _) => *content,
                (None, Some(found)) if change.outcome == Outcome::Deleted => found.entry.content,
                (None, _) => write.contents[change.index],
            };
            let entry = log_entry(write.verb, key, content, &change, self.time);
            target.push(entry, input.id.as_bytes(), body);
            let put = IndexEntry::new(&entry, self.next, body.len() as u32);
            self.next += 1;
            self.count(change.found, put);
        }
        self.finish(frame);
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
                self.live_bytes -= u64::from(found.entry.body_len);
            }
        }
        if !put.is_deleted() {
            self.live += 1;
            self.live_bytes += u64::from(put.body_len);
        }
        self.changes
            .puts
            .push((found.and_then(|found| found.slot), put));
        if let Some(earlier) = &mut self.changes.earlier {
            earlier.insert(put.key, put);
        }
    }

    /// What the commit makes visible of this feed.
    pub(crate) fn publication(&mut self) -> FeedPart {
        FeedPart {
            feed: self.feed.clone(),
            superseded: std::mem::take(&mut self.changes.superseded),
            tail: self.next - 1,
            time: self.time,
            generation: self.engine.log.generation(),
            live: self.live,
            live_bytes: self.live_bytes,
        }
    }

    /// Puts the changes into the index, now that the commit is queued, and returns what they
    /// replaced there.
    pub(crate) fn apply(
        &mut self,
        resident: &mut Resident,
    ) -> Vec<(Fingerprint, Option<IndexEntry>)> {
        self.writer.next = self.next;
        self.writer.time = self.time;
        self.writer.live = self.live;
        self.writer.live_bytes = self.live_bytes;
        self.writer.registered = true;
        self.writer.generation = self.engine.log.generation();
        let Some(index) = resident.index.as_mut() else {
            return Vec::new();
        };
        self.changes.apply_aliases(index);
        let puts = std::mem::take(&mut self.changes.puts);
        let several = self.changes.earlier.is_some();
        let mut before = Vec::with_capacity(puts.len());
        for (slot, put) in puts {
            // Only an earlier write of this commit can have added the key since it was looked up.
            let added = || several.then(|| index.find_added(put.key)).flatten();
            let slot = slot.or_else(added);
            before.push((put.key, slot.map(|slot| *index.entry(slot))));
            index.put(slot, put);
        }
        index.maintain();
        before
    }

    /// Ends a turn that changed nothing; the ticket to wait for, if an outcome rests on one.
    pub(crate) fn finish_unchanged(&mut self) -> Option<Arc<Ticket>> {
        if !self.changes.aliases.is_empty()
            && let Some(index) = self.feed.index.write().index.as_mut()
        {
            self.changes.apply_aliases(index);
        }
        self.rests_on.take()
    }
}

impl Changes {
    fn find(&self, index: &Index, key: Fingerprint, slot: Option<Slot>) -> Option<Found> {
        if let Some(entry) = self.earlier.as_ref().and_then(|earlier| earlier.get(&key)) {
            return Some(Found {
                slot,
                entry: *entry,
            });
        }
        slot.map(|at| Found {
            slot,
            entry: *index.entry(at),
        })
    }

    fn apply_aliases(&mut self, index: &mut Index) {
        for (slot, content) in self.aliases.drain(..) {
            let mut entry = *index.entry(slot);
            entry.content = content;
            index.put(Some(slot), entry);
        }
    }
}

/// Whether a save brings what is stored. JSON and opaque bytes are different content even when
/// the bytes are the same: what was saved as JSON is compared, and merged, as a value.
fn same_content(verb: Verb, entry: &IndexEntry, content: Fingerprint) -> bool {
    entry.content == content && entry.is_json() == (verb == Verb::SaveJson)
}

/// The contract's tables, as far as fingerprints decide.
fn decide(write: &Prepared<'_>, at: usize, found: Option<Found>) -> Outcome {
    let live = found.filter(|found| !found.entry.is_deleted());
    match (write.verb, live) {
        (Verb::SaveRaw | Verb::SaveJson, None) => Outcome::Added,
        (Verb::SaveRaw | Verb::SaveJson, Some(found)) => {
            if same_content(write.verb, &found.entry, write.contents[at]) {
                Outcome::Unchanged
            } else {
                Outcome::Updated
            }
        }
        (Verb::Update, Some(_)) => Outcome::Updated,
        (Verb::Update, None) => Outcome::NotFound,
        (Verb::Delete, Some(_)) => Outcome::Deleted,
        (Verb::Delete, None) if found.is_some() => Outcome::Unchanged,
        (Verb::Delete, None) => Outcome::NotFound,
    }
}

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
        id_end: 0,
        body_end: 0,
        body_sum: 0,
    }
}

/// Payloads by position.
#[derive(Default)]
struct Stored {
    buffer: Vec<u8>,
    rows: HashMap<u64, std::ops::Range<usize>>,
}

impl Stored {
    fn insert(&mut self, position: u64, body: &[u8]) {
        let start = self.buffer.len();
        self.buffer.extend_from_slice(body);
        self.rows.insert(position, start..self.buffer.len());
    }

    fn has(&self, position: u64) -> bool {
        self.rows.contains_key(&position)
    }

    fn get(&self, position: u64) -> &[u8] {
        let range = self.rows.get(&position).cloned().unwrap_or_default();
        self.buffer.get(range).unwrap_or_default()
    }
}
