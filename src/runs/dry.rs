//! Dry runs: writes are classified against the real cache, and against what the run itself would
//! have written before, and then let go of.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::cursor::FeedId;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::feed::Feed;
use crate::feed::lives::Lives;
use crate::feed::marks::{Mark, Window};
use crate::feed::slot::FeedSlot;
use crate::hash::Fingerprint;
use crate::index::IndexEntry;
use crate::log::format::Author;
use crate::log::frame::Frame;
use crate::primitives::Mutex;
use crate::record::{Applied, Totals};
use crate::state::StateKey;
use crate::windows::{self, Sweep, Swept};
use crate::write::StateWrite;
use crate::write::classify::Prepared;
use crate::write::transaction::{Stop, rehearse};
use crate::write::turn::FeedTurn;

/// Where the positions of changes begin that are never committed: past all real ones.
const FIRST_POSITION: u64 = 1 << 47;
/// Counts of live records and bytes are kept this far from zero, which changes that others make
/// meanwhile could bring them below.
const ROOM: u64 = 1 << 60;

/// What a dry run would have written so far.
#[derive(Default)]
pub(crate) struct DryRun {
    feeds: Mutex<HashMap<FeedId, DryFeed>>,
    state: Mutex<BTreeMap<StateKey, Vec<u8>>>,
}

#[derive(Default)]
struct DryFeed {
    frames: Vec<Frame>,
    earlier: HashMap<Fingerprint, IndexEntry>,
    /// Changes so far.
    changes: u64,
    /// Live records more, or fewer, than the cache has.
    live: i64,
    window: Option<Window>,
}

impl DryRun {
    /// The value of a state key that the run has put.
    pub(crate) fn state(&self, key: &StateKey) -> Option<Vec<u8>> {
        self.state.lock().get(key).cloned()
    }

    /// Finds out what writes would do.
    pub(crate) fn execute(
        &self,
        engine: &Engine,
        author: Author,
        writes: &[Prepared<'_>],
        states: &[StateWrite<'_>],
    ) -> Result<Vec<Applied>> {
        let slots: Vec<&Arc<FeedSlot>> = writes.iter().map(|write| &write.feed).collect();
        let applied = rehearse(engine, &slots, author, |transaction| {
            for slot in &slots {
                // Nothing is taken note of before all turns are known to be there.
                transaction.turn(slot)?;
            }
            let mut feeds = self.feeds.lock();
            let mut applied = Vec::with_capacity(writes.len());
            for write in writes {
                let turn = transaction.turn(&write.feed)?;
                let feed = DryFeed::of(&mut feeds, turn)?;
                let outcomes = feed.within(turn, |_, turn| turn.classify(write))?;
                let mut totals = Totals::default();
                outcomes.iter().for_each(|outcome| totals.count(*outcome));
                applied.push(Applied {
                    outcomes,
                    totals,
                    last_cursor: None,
                });
            }
            Ok(applied)
        })?;
        let mut values = self.state.lock();
        for write in states {
            if let Some(value) = (write.change)(values.get(&write.key).cloned())? {
                values.insert(write.key.clone(), value);
            }
        }
        Ok(applied)
    }

    /// Opens a deletion window, or goes on with the one that is open in the cache.
    pub(crate) fn open_window(&self, feed: &Feed, author: Author) -> Result<bool> {
        rehearse(&feed.engine, &[&feed.slot], author, |transaction| {
            let turn = transaction.turn(&feed.slot)?;
            let mut feeds = self.feeds.lock();
            let dry = DryFeed::of(&mut feeds, turn)?;
            if dry.window.is_some() {
                return Ok(false);
            }
            dry.window = Some(Window {
                start: FIRST_POSITION + dry.changes - 1,
                ..Window::default()
            });
            Ok(true)
        })
    }

    /// Closes a deletion window.
    pub(crate) fn close_window(&self, feed: &Feed, author: Author, sweep: &Sweep) -> Result<Swept> {
        rehearse(&feed.engine, &[&feed.slot], author, |transaction| {
            let turn = transaction.turn(&feed.slot)?;
            turn.settle()?;
            let mut feeds = self.feeds.lock();
            let dry = DryFeed::of(&mut feeds, turn)?;
            let window = dry.window.take().ok_or_else(|| Error::NoWindow {
                feed: feed.key().clone(),
            })?;
            let swept = dry.within(turn, |dry, turn| {
                let live = (turn.live - ROOM).saturating_add_signed(dry.live);
                let ids = unseen(turn, &window, sweep.own_records)?;
                windows::sweep(turn, feed, ids, live, sweep)
            });
            match swept {
                Ok(mut swept) => {
                    swept.last_cursor = None;
                    Ok(swept)
                }
                Err(stop) => {
                    dry.window = Some(window);
                    Err(stop)
                }
            }
        })
    }
}

impl DryFeed {
    /// What the run would have written to a feed; at first, it finds the window that is open there.
    fn of<'f>(
        feeds: &'f mut HashMap<FeedId, Self>,
        turn: &mut FeedTurn<'_>,
    ) -> Result<&'f mut Self, Stop> {
        match feeds.entry(turn.feed.id) {
            Entry::Occupied(known) => Ok(known.into_mut()),
            Entry::Vacant(new) => {
                turn.settle()?;
                let marks = &turn.feed.published.read().marks;
                Ok(new.insert(Self {
                    window: marks.windows.get(&turn.author.sync).cloned(),
                    ..Self::default()
                }))
            }
        }
    }

    /// Does something with a turn as if the run had written what it would have written.
    fn within<T, E: Into<Stop>>(
        &mut self,
        turn: &mut FeedTurn<'_>,
        act: impl FnOnce(&mut Self, &mut FeedTurn<'_>) -> Result<T, E>,
    ) -> Result<T, Stop> {
        let (live, live_bytes) = (turn.live, turn.live_bytes);
        let start = turn.rehearse(FIRST_POSITION + self.changes, FIRST_POSITION);
        turn.changes.frames = std::mem::take(&mut self.frames);
        turn.changes.earlier = Some(std::mem::take(&mut self.earlier));
        turn.seen_up_to = self.window.as_ref().map_or(0, |window| window.start);
        (turn.live, turn.live_bytes) = (live + ROOM, live_bytes + ROOM);
        let acted = act(self, turn);
        self.changes = turn.next - FIRST_POSITION;
        self.live += turn.live as i64 - (live + ROOM) as i64;
        let changes = std::mem::take(&mut turn.changes);
        self.frames = changes.frames;
        self.earlier = changes.earlier.unwrap_or_default();
        for mark in std::mem::take(&mut turn.marks) {
            if let (Mark::Seen(positions), Some(window)) = (mark, &mut self.window) {
                let before = positions.partition_point(|at| *at <= window.start);
                window.seen.extend(&positions[..before]);
            }
        }
        (turn.live, turn.live_bytes) = (live, live_bytes);
        turn.rehearse(start.0, start.1);
        acted.map_err(Into::into)
    }
}

/// The ids of records that a sweep would delete: of those in the cache that the run would not have
/// changed, and of those that it would.
fn unseen(turn: &FeedTurn<'_>, window: &Window, own_records: bool) -> Result<Vec<String>> {
    let mut ids = windows::unseen(turn, window, own_records)?;
    let Some(earlier) = &turn.changes.earlier else {
        return Ok(ids);
    };
    ids.retain(|id| !earlier.contains_key(&turn.engine.hasher.id(id.as_bytes())));
    let is_unseen = |position: &u64| *position <= window.start && !window.seen.contains(*position);
    let live = earlier.values().filter(|entry| !entry.is_deleted());
    let mut positions: Vec<u64> = live.map(IndexEntry::position).filter(is_unseen).collect();
    positions.sort_unstable();
    for position in positions {
        let mut frames = turn.changes.frames.iter();
        let place = frames.find_map(|frame| {
            let (entry, place, _) = frame.record_at(position)?;
            let len = if entry.reborn {
                Lives::id_len(place)?
            } else {
                place.len()
            };
            String::from_utf8(place.get(..len)?.to_vec()).ok()
        });
        ids.extend(place);
    }
    Ok(ids)
}
