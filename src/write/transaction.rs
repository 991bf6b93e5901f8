//! One commit under construction: the write turns of its feeds, the state it changes, and how it
//! gets into the queue as a whole.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::compression;
use crate::cursor::StreamId;
use crate::defects::Defect;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::feed::marks::Mark;
use crate::feed::resident::Pending;
use crate::feed::slot::FeedSlot;
use crate::feed::state::FeedState;
use crate::feed::trail::Trail;
use crate::index::IndexEntry;
use crate::log::commit::{Stage, Ticket};
use crate::log::format::Author;
use crate::log::frame::Frame;
use crate::publish::Publication;
use crate::runs::RunReport;
use crate::state::{Registration, StateKey, StateOp, StateTurn};
use crate::write::StateWrite;
use crate::write::turn::FeedTurn;

/// Why an attempt at a commit came to nothing.
pub(crate) enum Stop {
    /// What it rested on is gone: another epoch took a feed's place, or commits in the queue were
    /// aborted. The next attempt finds the world as it is.
    Again,
    Failed(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// See the module.
pub(crate) struct Transaction<'a> {
    pub(crate) engine: &'a Engine,
    pub(crate) author: Author,
    aborts: u64,
    turns: BTreeMap<StreamId, FeedTurn<'a>>,
    /// Taken after all feeds' turns, so that locks have one order.
    state: Option<StateTurn<'a>>,
    operations: Vec<StateOp>,
    swaps: Vec<(Arc<FeedSlot>, Arc<FeedState>)>,
    reports: Vec<RunReport>,
}

/// Carries out one commit on the feeds in `slots`: `body` is called with their write turns until
/// an attempt gets through. Returns what `body` did, once it is acknowledged.
///
/// # Errors
/// What `body` or the log refuses with; nothing was changed then.
pub(crate) fn transact<T>(
    engine: &Engine,
    slots: &[&Arc<FeedSlot>],
    author: Author,
    body: impl FnMut(&mut Transaction<'_>) -> Result<T, Stop>,
) -> Result<T> {
    let value = transact_only(engine, slots, author, body)?;
    for slot in slots {
        compression::after_commit(engine, slot);
    }
    Ok(value)
}

/// [`transact`], without what a commit may bring about.
pub(crate) fn transact_only<T>(
    engine: &Engine,
    slots: &[&Arc<FeedSlot>],
    author: Author,
    mut body: impl FnMut(&mut Transaction<'_>) -> Result<T, Stop>,
) -> Result<T> {
    attempt(engine, slots, author, |mut transaction| {
        let value = body(&mut transaction)?;
        transaction.commit()?;
        Ok(value)
    })
}

/// Does everything that [`transact`] does, and then commits nothing.
pub(crate) fn rehearse<T>(
    engine: &Engine,
    slots: &[&Arc<FeedSlot>],
    author: Author,
    mut body: impl FnMut(&mut Transaction<'_>) -> Result<T, Stop>,
) -> Result<T> {
    attempt(engine, slots, author, |mut transaction| {
        body(&mut transaction)
    })
}

fn attempt<T>(
    engine: &Engine,
    slots: &[&Arc<FeedSlot>],
    author: Author,
    mut carry_out: impl FnMut(Transaction<'_>) -> Result<T, Stop>,
) -> Result<T> {
    loop {
        engine.log.check_open()?;
        for slot in slots {
            slot.check_not_abandoned()?;
        }
        let mut feeds: Vec<Arc<FeedState>> = slots.iter().map(|slot| slot.current()).collect();
        // The order that locks are taken in.
        feeds.sort_by_key(|feed| feed.stream());
        feeds.dedup_by_key(|feed| feed.stream());
        match Transaction::begin(engine, &feeds, author).and_then(&mut carry_out) {
            Ok(value) => return Ok(value),
            Err(Stop::Again) => {}
            Err(Stop::Failed(error)) => return Err(error),
        }
    }
}

impl<'a> Transaction<'a> {
    fn begin(
        engine: &'a Engine,
        feeds: &'a [Arc<FeedState>],
        author: Author,
    ) -> Result<Self, Stop> {
        let aborts = engine.log.aborts();
        let mut turns = BTreeMap::new();
        for feed in feeds {
            turns.insert(feed.stream(), FeedTurn::take(engine, feed, aborts, author)?);
        }
        Ok(Self {
            engine,
            author,
            aborts,
            turns,
            state: None,
            operations: Vec::new(),
            swaps: Vec::new(),
            reports: Vec::new(),
        })
    }

    /// The turn of a feed that the transaction was begun with.
    pub(crate) fn turn(&mut self, slot: &FeedSlot) -> Result<&mut FeedTurn<'a>, Stop> {
        // A swap in between was noticed when the turn was taken, or comes after it.
        let stream = slot.current().stream();
        self.turns.get_mut(&stream).ok_or(Stop::Again)
    }

    /// Whether something is going to be committed so far, seen marks aside.
    pub(crate) fn has_changes(&self) -> bool {
        !self.operations.is_empty() || self.turns.values().any(FeedTurn::has_changes)
    }

    /// The newest value of a state key: in this commit, in the queue, or published.
    pub(crate) fn state(&mut self, key: &StateKey) -> Option<Vec<u8>> {
        let mut earlier = self.operations.iter().rev();
        if let Some(operation) = earlier.find(|operation| operation.key == *key) {
            return operation.value.clone();
        }
        let engine = self.engine;
        self.state
            .get_or_insert_with(|| engine.state.turn())
            .get(key)
    }

    pub(crate) fn put(&mut self, key: StateKey, value: Vec<u8>) {
        self.set(key, Some(value));
    }

    pub(crate) fn remove(&mut self, key: StateKey) {
        self.set(key, None);
    }

    fn set(&mut self, key: StateKey, value: Option<Vec<u8>>) {
        let engine = self.engine;
        self.state.get_or_insert_with(|| engine.state.turn());
        self.operations.push(StateOp { key, value });
    }

    /// Makes a read-modify-write of a state value part of the commit.
    pub(crate) fn change(&mut self, write: &StateWrite<'_>) -> Result<()> {
        let newest = self.state(&write.key);
        if let Some(value) = (write.change)(newest)? {
            self.put(write.key.clone(), value);
        }
        Ok(())
    }

    /// The newest registration of a feed, made up if it has none yet.
    pub(crate) fn registration(&mut self, slot: &FeedSlot) -> Registration {
        let value = self.state(&StateKey::feed(slot.id));
        let known = value.as_deref().and_then(Registration::decode);
        known.unwrap_or_else(|| Registration::new(slot.key.clone()))
    }

    pub(crate) fn register(&mut self, slot: &FeedSlot, registration: &Registration) {
        self.put(StateKey::feed(slot.id), registration.encode());
    }

    /// Lets a feed go on in another epoch from this commit on.
    pub(crate) fn swap(&mut self, slot: &Arc<FeedSlot>, state: Arc<FeedState>) {
        // Dictionaries hold pieces of the records that go, also one that is only in the queue yet.
        let dictionaries = self
            .engine
            .state
            .with_prefix(&StateKey::dictionaries(slot.id));
        let mut over: BTreeSet<StateKey> = dictionaries.into_iter().map(|(key, _)| key).collect();
        over.insert(StateKey::dictionary(slot.current().stream()));
        over.remove(&StateKey::dictionary(state.stream()));
        for key in over {
            if self.state(&key).is_some() {
                self.remove(key);
            }
        }
        self.swaps.push((slot.clone(), state));
    }

    /// Delivers a run's report to subscribers with this commit.
    pub(crate) fn report(&mut self, report: RunReport) {
        self.reports.push(report);
    }

    /// Registers the feeds that the commit makes known to the log.
    fn register_new(&mut self) {
        let new = self.turns.values().filter(|turn| !turn.writer.registered);
        let new: Vec<_> = new.map(|turn| turn.feed.clone()).collect();
        for feed in new {
            let key = StateKey::feed(feed.id);
            if self.state(&key).is_none() {
                let registration = Registration::new(feed.key.clone());
                self.put(key, registration.encode());
            }
        }
    }

    /// Puts everything into the queue as one commit, and waits until it is acknowledged.
    fn commit(mut self) -> Result<(), Stop> {
        let mut rests_on = Vec::new();
        self.turns.retain(|_, turn| {
            if turn.is_idle() || turn.only_names() {
                rests_on.extend(turn.finish_unchanged());
            }
            !turn.is_idle()
        });
        // Marks are needed no sooner than what comes after them in the log: a checkpoint, the end
        // of the window. They are in the file when the call returns; the next sync is theirs too.
        let only_named = self.operations.is_empty()
            && self.turns.values().all(FeedTurn::only_names)
            && !self.turns.is_empty();
        if !self.turns.is_empty() {
            self.register_new();
        }
        let engine = self.engine;
        let acknowledged = engine.log.acknowledged_stage();
        let feeds: Vec<Arc<FeedState>> =
            self.turns.values().map(|turn| turn.feed.clone()).collect();
        if let Some(ticket) = self.enqueue()? {
            let stage = if only_named {
                Stage::Written
            } else {
                acknowledged
            };
            engine.log.wait(&ticket, stage)?;
        }
        for ticket in &rests_on {
            // Also "unchanged" may be said only of a version that will be there after a crash.
            engine.log.wait(ticket, acknowledged)?;
        }
        if let Some(feed) = feeds.first() {
            engine.budget.enforce(feed);
        }
        feeds.iter().for_each(|feed| feed.forget_published());
        Ok(())
    }

    /// Builds the frames and enqueues them; the ticket, when there is anything to commit.
    fn enqueue(self) -> Result<Option<Arc<Ticket>>, Stop> {
        let Self {
            engine,
            author,
            aborts,
            turns,
            mut state,
            operations,
            swaps,
            reports,
        } = self;
        let mut turns: Vec<FeedTurn<'_>> = turns.into_values().collect();
        let mut frames = Vec::new();
        let mut publication = Publication {
            swaps,
            reports,
            events: Some(engine.events.clone()),
            ..Publication::default()
        };
        if !operations.is_empty() {
            let bytes = StateOp::encode_all(&operations);
            frames.push(Frame::state(operations.len() as u32, bytes));
            publication.state = Some((engine.state.clone(), operations.clone()));
        }
        for turn in &mut turns {
            frames.append(&mut turn.changes.frames);
            let part = turn.publication();
            let forgotten =
                engine.options.defects.has(Defect::ForgetSeen) && part.marks.iter().all(only_names);
            if !part.marks.is_empty() && !forgotten {
                let mut frame = Frame::marks(turn.feed, author, &part.marks);
                (frame.header.live, frame.header.live_bytes) = (part.live, part.live_bytes);
                frames.push(frame);
            }
            publication.feeds.push(part);
        }
        if frames.is_empty() {
            return Ok(None);
        }
        let cipher = engine.log.cipher();
        frames.iter_mut().for_each(|frame| frame.seal(cipher));

        // The index changes in the same moment as the queue does: readers of the index find either
        // the version before, or the new one together with what it replaced.
        let mut residents: Vec<_> = turns.iter().map(|turn| turn.feed.index.write()).collect();
        let Ok(ticket) = engine.log.enqueue(aborts, frames, publication)? else {
            return Err(Stop::Again);
        };
        for (turn, resident) in turns.iter_mut().zip(&mut residents) {
            if turn.only_names() {
                turn.apply(resident, &ticket);
                continue;
            }
            let (first, time) = turn.begins_at();
            let replaced = turn.apply(resident, &ticket);
            let positions = || replaced.iter().map(IndexEntry::position);
            resident.pending.push_back(Pending {
                ticket: ticket.clone(),
                first,
                time,
                author,
                oldest_replaced: positions().min().unwrap_or(u64::MAX),
                newest_replaced: positions().max().unwrap_or(0),
                replaced,
            });
            turn.note_memory(resident);
        }
        if let Some(state) = &mut state {
            state.queued(&operations, &ticket);
        }
        drop(state);
        if turns.iter().any(|turn| turn.removes) {
            // The index still has what this commit removes: nobody may look before it is dropped,
            // and it may be dropped only when the commit cannot be undone any more.
            engine.log.wait(&ticket, Stage::Durable)?;
            let turns = turns.iter_mut().zip(&mut residents);
            for (turn, resident) in turns.filter(|(turn, _)| turn.removes) {
                resident.pending.clear();
                resident.index = None;
                turn.writer.trail = Trail::default();
                turn.note_memory(resident);
            }
        }
        Ok(Some(ticket))
    }
}

/// Whether a mark only says that records were named, which is no change of its own.
pub(crate) fn only_names(mark: &Mark) -> bool {
    matches!(mark, Mark::Seen(_) | Mark::Claimed { .. })
}
