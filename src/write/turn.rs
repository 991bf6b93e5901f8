//! The right to write to one feed, and what a commit is going to do to it.

use std::collections::HashMap;
use std::sync::Arc;

use crate::defects::Defect;
use crate::engine::Engine;
use crate::feed::marks::Mark;
use crate::feed::resident::Resident;
use crate::feed::state::{FeedState, Writer};
use crate::hash::Fingerprint;
use crate::index::{Index, IndexEntry, Slot};
use crate::log::commit::{Stage, Ticket};
use crate::log::format::Author;
use crate::log::frame::Frame;
use crate::primitives::MutexGuard;
use crate::publish::{ChangePart, FeedPart};
use crate::record::Totals;
use crate::write::transaction::{Stop, only_names};

/// A new version of a record, for the index.
pub(crate) struct Put {
    /// Where the index had the record.
    pub(crate) slot: Option<Slot>,
    pub(crate) old: Option<IndexEntry>,
    pub(crate) new: IndexEntry,
}

/// What a turn has collected so far.
#[derive(Default)]
pub(crate) struct Changes {
    pub(crate) frames: Vec<Frame>,
    pub(crate) puts: Vec<Put>,
    pub(crate) superseded: Vec<u64>,
    /// Entries whose record was saved again with the same value in other bytes: the next save of
    /// those bytes is recognised without comparing values.
    pub(crate) aliases: Vec<(Slot, IndexEntry)>,
    /// The records changed so far, when the commit has several writes on this feed.
    pub(crate) earlier: Option<HashMap<Fingerprint, IndexEntry>>,
}

/// See the module.
pub(crate) struct FeedTurn<'a> {
    pub(crate) engine: &'a Engine,
    pub(crate) feed: &'a Arc<FeedState>,
    pub(crate) writer: MutexGuard<'a, Writer>,
    pub(crate) author: Author,
    pub(crate) changes: Changes,
    pub(crate) marks: Vec<Mark>,
    /// Whether the commit removes records, so that the index has to be built again.
    pub(crate) removes: bool,
    /// Versions up to here are of interest to an open deletion window; 0 when there is none.
    pub(crate) seen_up_to: u64,
    /// Position of the commit's first change.
    first: u64,
    pub(crate) next: u64,
    pub(crate) time: u64,
    pub(crate) live: u64,
    pub(crate) live_bytes: u64,
    pub(crate) totals: Totals,
    /// Position up to which versions were visible when the turn was taken.
    pub(crate) tail: u64,
    /// A queued commit that some "unchanged" outcome rests on.
    pub(crate) rests_on: Option<Arc<Ticket>>,
}

impl<'a> FeedTurn<'a> {
    /// Waits for the feed's write lock.
    pub(crate) fn take(
        engine: &'a Engine,
        feed: &'a Arc<FeedState>,
        aborts: u64,
        author: Author,
    ) -> Result<Self, Stop> {
        let writer = engine.write_turn(feed, aborts);
        if feed.is_superseded() {
            return Err(Stop::Again);
        }
        engine.budget.touch(feed);
        let next = match engine.options.defects.has(Defect::ForgetPositionJump) {
            true => writer.next,
            false => writer.next_position(engine.log.generation()),
        };
        let (live, live_bytes) = (writer.live, writer.live_bytes);
        // Commit times rise strictly along a feed, whatever the clock does.
        let time = engine.options.clock.now_micros().max(writer.time + 1);
        let tail = feed.published.read().tail;
        let seen_up_to = writer.windows.values().copied().max().unwrap_or_default();
        let mut turn = Self {
            engine,
            feed,
            writer,
            author,
            changes: Changes::default(),
            marks: Vec::new(),
            removes: false,
            seen_up_to,
            first: next,
            next,
            time,
            live,
            live_bytes,
            totals: Totals::default(),
            tail,
            rests_on: None,
        };
        if engine.index_outgrown(feed) {
            turn.settle()?;
            engine.spill_index(feed)?;
        }
        Ok(turn)
    }

    /// Prepares for more than one write on the feed: later ones see earlier ones.
    pub(crate) fn expect_several(&mut self) {
        self.changes.earlier.get_or_insert_default();
    }

    /// Lets changes begin at other positions, for a commit that is never made: `first` is its first
    /// one, `next` the next to give out. Returns what they were.
    pub(crate) fn rehearse(&mut self, next: u64, first: u64) -> (u64, u64) {
        (
            std::mem::replace(&mut self.next, next),
            std::mem::replace(&mut self.first, first),
        )
    }

    /// Waits until everything queued for the feed is published, so that the published state is
    /// the newest there is for as long as the turn lasts.
    pub(crate) fn settle(&mut self) -> Result<(), Stop> {
        if let Some(newest) = &self.writer.newest {
            match self.engine.log.wait(newest, Stage::Durable) {
                Err(_) if newest.is_aborted() => {
                    // The next attempt need not wait for it.
                    self.writer.newest = None;
                    return Err(Stop::Again);
                }
                waited => waited?,
            }
        }
        self.tail = self.feed.published.read().tail;
        Ok(())
    }

    /// Whether records change their place in the feed.
    pub(crate) fn has_changes(&self) -> bool {
        !self.changes.puts.is_empty() || !self.marks.iter().all(only_names)
    }

    /// Whether nothing is to be committed, and the turn need not be held until it is.
    pub(crate) fn is_idle(&self) -> bool {
        self.changes.puts.is_empty() && self.marks.is_empty() && !self.removes
    }

    /// Whether the only thing to be committed is that records were named.
    pub(crate) fn only_names(&self) -> bool {
        !self.removes && self.changes.puts.is_empty() && self.marks.iter().all(only_names)
    }

    /// The cursor of the newest change so far.
    pub(crate) fn last_cursor(&self) -> crate::cursor::Cursor {
        self.feed.cursor(self.next - 1)
    }

    /// Takes note that an outcome rests on the version at `newest`: while that is in the queue, so
    /// is the outcome.
    pub(crate) fn rest_on(&mut self, resident: &Resident, newest: u64) {
        if newest > self.tail {
            let last = resident.pending.back();
            self.rests_on = last.map(|pending| pending.ticket.clone());
        }
    }

    /// Takes note that the outcome may rest on anything that is in the queue.
    pub(crate) fn rest_on_newest(&mut self) {
        let newest = self.writer.newest.as_ref();
        self.rests_on = newest.filter(|newest| !newest.is_aborted()).cloned();
    }

    /// Position and time of the commit's first change.
    pub(crate) fn begins_at(&self) -> (u64, u64) {
        (self.first, self.time)
    }

    /// Who made the version at `position`, and when. `resident` is the feed's index, which knows
    /// of commits in the queue.
    pub(crate) fn made(&self, resident: &Resident, position: u64) -> (Author, u64) {
        if position >= self.first {
            return (self.author, self.time);
        }
        // Frames get into the directory when they are written; what is not there is queued.
        let published = self.feed.published.read();
        if let Some(frame) = published.directory.find(position) {
            let origin = frame.origin(position);
            return (origin.author, origin.time);
        }
        let queued = resident.pending.iter().rev();
        let mut before = queued.filter(|pending| pending.first <= position);
        before
            .next()
            .map_or_else(Default::default, |pending| (pending.author, pending.time))
    }

    /// What the commit makes visible of this feed.
    pub(crate) fn publication(&mut self) -> FeedPart {
        let changes = (!self.changes.puts.is_empty()).then(|| ChangePart {
            superseded: std::mem::take(&mut self.changes.superseded),
            first: self.first,
            tail: self.next - 1,
            time: self.time,
            generation: self.engine.log.generation(),
            totals: self.totals,
        });
        let mut marks = std::mem::take(&mut self.marks);
        if changes.is_some() && self.writer.generation < self.engine.branch().generation {
            marks.push(Mark::Forked {
                after: self.writer.next - 1,
                before: self.first,
            });
        }
        // The next writer starts from these.
        let lasting = marks.iter().filter(|mark| !only_names(mark));
        self.marks = lasting.cloned().collect();
        FeedPart {
            feed: self.feed.clone(),
            changes,
            live: self.live,
            live_bytes: self.live_bytes,
            marks,
        }
    }

    /// Puts the changes into the index, now that the commit is queued, and returns what they
    /// replaced there.
    pub(crate) fn apply(
        &mut self,
        resident: &mut Resident,
        ticket: &Arc<Ticket>,
    ) -> Vec<IndexEntry> {
        let writer = &mut *self.writer;
        if !self.changes.puts.is_empty() {
            writer.next = self.next;
            writer.time = self.time;
            writer.generation = self.engine.log.generation();
        }
        writer.live = self.live;
        writer.live_bytes = self.live_bytes;
        writer.registered = true;
        writer.newest = Some(ticket.clone());
        for mark in &self.marks {
            writer.note(mark);
        }
        let Some(index) = resident.index.as_mut() else {
            return Vec::new();
        };
        self.changes.apply_aliases(index);
        let puts = std::mem::take(&mut self.changes.puts);
        let several = self.changes.earlier.is_some();
        let mut replaced = Vec::new();
        for put in &puts {
            // Only an earlier write of this commit, or its alias, can have added the key since it was
            // looked up.
            let in_memory = matches!(put.slot, Some(Slot::Base(_) | Slot::Delta(_)));
            let added = (several && !in_memory).then(|| index.find_added(put.new.key));
            let (slot, old) = match added.flatten() {
                Some((slot, old)) => (Some(slot), Some(old)),
                None => (put.slot, put.old),
            };
            replaced.extend(old);
            index.put(slot, &put.new);
        }
        self.engine.maintain_index(self.feed, index);
        if !self.engine.options.defects.has(Defect::RememberSuperseded) {
            writer
                .trail
                .forget(replaced.iter().map(IndexEntry::position));
        }
        replaced
    }

    /// Tells the budget how much memory the feed's index and trail take now.
    pub(crate) fn note_memory(&self, resident: &Resident) {
        self.engine.note_memory(self.feed, &self.writer, resident);
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
    fn apply_aliases(&mut self, index: &mut Index) {
        for (slot, entry) in self.aliases.drain(..) {
            // Of an index in files, the alias of an earlier write may have added the key.
            let added = matches!(slot, Slot::Run(_)).then(|| index.find_added(entry.key));
            let slot = added.flatten().map_or(slot, |(slot, _)| slot);
            index.put(Some(slot), &entry);
        }
    }
}
