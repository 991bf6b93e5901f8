//! Which feeds a store has, and the epochs of them that are in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Engine;
use crate::catalog::{Catalog, FeedRow};
use crate::cursor::{FIRST_EPOCH, FeedId, StreamId};
use crate::error::Result;
use crate::feed::FeedKey;
use crate::feed::directory::Directory;
use crate::feed::published::Published;
use crate::feed::slot::FeedSlot;
use crate::feed::state::FeedState;
use crate::options::FeedOptions;
use crate::primitives::MutexGuard;
use crate::state::{Registration, StateKey};
use crate::stats::FeedInfo;

/// The feeds of a store: those in use, and what the catalog says of the others. In order, so that
/// the same calls leave the same files.
#[derive(Default)]
pub(crate) struct Feeds {
    pub(crate) slots: BTreeMap<FeedId, Arc<FeedSlot>>,
    /// The epochs in memory: what the slots hold, and what is staged to replace it.
    pub(crate) streams: BTreeMap<StreamId, Arc<FeedState>>,
    pub(crate) rows: BTreeMap<StreamId, FeedRow>,
    /// Feeds that are being replaced.
    pub(crate) replacing: BTreeSet<FeedId>,
    /// Epochs that are over, which the catalog still has.
    pub(crate) dropped: BTreeSet<StreamId>,
}

impl Feeds {
    /// What the catalog says of an epoch that is not over.
    fn row(&self, stream: StreamId) -> Option<FeedRow> {
        let row = self.rows.get(&stream).copied();
        row.filter(|_| !self.dropped.contains(&stream))
    }
}

/// Where an epoch of a feed is.
enum Found<'a> {
    InMemory(Arc<FeedState>),
    /// What the catalog has of it, and the lock without which nobody can take it up meanwhile.
    Stored(Box<Published>, MutexGuard<'a, Feeds>),
}

impl Engine {
    /// The published registration of a feed.
    pub(crate) fn registration(&self, feed: FeedId) -> Option<Registration> {
        self.state
            .get(&StateKey::feed(feed))
            .as_deref()
            .and_then(Registration::decode)
    }

    /// All feeds with their published counts, ordered by key.
    pub(crate) fn feed_infos(&self) -> Vec<FeedInfo> {
        let mut registrations = self.state.registrations();
        registrations.sort_by(|a, b| a.key.cmp(&b.key));
        let feeds = self.feeds.lock();
        let info = |registration: Registration| {
            let stream = StreamId {
                feed: self.feed_id(&registration.key),
                epoch: registration.epoch,
            };
            let (live, live_bytes) = match (feeds.streams.get(&stream), feeds.rows.get(&stream)) {
                (Some(feed), _) => {
                    let published = feed.published.read();
                    (published.live, published.live_bytes)
                }
                (None, Some(row)) => (row.live, row.live_bytes),
                (None, None) => (0, 0),
            };
            FeedInfo {
                key: registration.key,
                live,
                live_bytes,
            }
        };
        registrations.into_iter().map(info).collect()
    }

    /// The id of a feed: a keyed hash of its name, so that it needs no registration.
    pub(crate) fn feed_id(&self, key: &FeedKey) -> FeedId {
        FeedId(self.hasher.id(&key.encode()).head())
    }

    /// The slot of a feed; its current epoch is loaded if it is not in use yet.
    pub(crate) fn slot(&self, key: &FeedKey) -> Result<Arc<FeedSlot>> {
        let id = self.feed_id(key);
        loop {
            if let Some(slot) = self.feeds.lock().slots.get(&id) {
                return Ok(slot.clone());
            }
            let known = self.registration(id);
            let epoch = known.map_or(FIRST_EPOCH, |known| known.epoch);
            let state = self.stream(key, StreamId { feed: id, epoch })?;
            let mut feeds = self.feeds.lock();
            // Else somebody else has opened and replaced it meanwhile.
            let Some(state) = state.filter(|state| !state.is_superseded()) else {
                continue;
            };
            let slot = || Arc::new(FeedSlot::new(key.clone(), state));
            return Ok(feeds.slots.entry(id).or_insert_with(slot).clone());
        }
    }

    /// The state of a feed in one epoch, as the catalog has it if it is not in use yet; `None` when it
    /// is over.
    pub(crate) fn stream(&self, key: &FeedKey, stream: StreamId) -> Result<Option<Arc<FeedState>>> {
        let (published, mut feeds) = match self.find(stream)? {
            Found::InMemory(state) => return Ok(Some(state)),
            Found::Stored(published, feeds) => (published, feeds),
        };
        let known = self.registration(stream.feed);
        if known
            .as_ref()
            .is_some_and(|known| known.epoch > stream.epoch)
        {
            return Ok(None);
        }
        let options = known.map(|known| known.options);
        let state = FeedState::new(key.clone(), stream.feed, stream.epoch, options, *published);
        self.restore_codec(&state);
        let state = Arc::new(state);
        feeds.streams.insert(stream, state.clone());
        Ok(Some(state))
    }

    fn find(&self, stream: StreamId) -> Result<Found<'_>> {
        loop {
            let row = {
                let feeds = self.feeds.lock();
                if let Some(state) = feeds.streams.get(&stream) {
                    return Ok(Found::InMemory(state.clone()));
                }
                feeds.row(stream)
            };
            // Read without the lock: saving the catalog takes the two the other way round.
            let published = match &row {
                Some(row) => self.restore(row),
                None => Ok(Published::default()),
            };
            let feeds = self.feeds.lock();
            // Else it was opened meanwhile, and maybe changed, saved and let go of again: what was
            // read is old, or does not fit its row.
            if !feeds.streams.contains_key(&stream) && feeds.row(stream) == row {
                return Ok(Found::Stored(Box::new(published?), feeds));
            }
        }
    }

    /// Gives an epoch its dictionary, if it has one.
    fn restore_codec(&self, state: &FeedState) {
        let dictionary = self.state.get(&StateKey::dictionary(state.stream()));
        dictionary.into_iter().for_each(|it| state.codec.learn(it));
    }

    /// The same for all epochs in use: the log was replayed, and they may be older than their
    /// dictionaries.
    pub(crate) fn restore_codecs(&self) {
        for state in self.feeds.lock().streams.values() {
            self.restore_codec(state);
        }
    }

    /// An epoch of a feed that has nothing yet.
    pub(crate) fn new_stream(
        &self,
        slot: &FeedSlot,
        epoch: u32,
        options: FeedOptions,
    ) -> Arc<FeedState> {
        let (key, empty) = (slot.key.clone(), Published::default());
        let state = FeedState::new(key, slot.id, epoch, Some(options), empty);
        let state = Arc::new(state);
        self.feeds
            .lock()
            .streams
            .insert(state.stream(), state.clone());
        state
    }

    /// Forgets an epoch that is over. Whoever still writes to it finds out.
    pub(crate) fn forget_stream(&self, state: &FeedState) {
        // A writer who has its turn already goes first.
        let writer = state.writer.lock();
        state.supersede();
        drop(writer);
        let mut feeds = self.feeds.lock();
        feeds.streams.remove(&state.stream());
        feeds.dropped.insert(state.stream());
        drop(feeds);
        self.shelf.lock().forget(state.stream());
        self.budget.forget(state);
    }

    /// Forgets all epochs of a feed before its current one.
    pub(crate) fn forget_streams_of(&self, slot: &FeedSlot) {
        let current = slot.current().epoch;
        let over: Vec<Arc<FeedState>> = {
            let feeds = self.feeds.lock();
            let streams = feeds.streams.values();
            let over = streams.filter(|state| state.id == slot.id && state.epoch < current);
            over.cloned().collect()
        };
        over.iter().for_each(|state| self.forget_stream(state));
    }

    fn restore(&self, row: &FeedRow) -> Result<Published> {
        let (frames, marks) = self.catalog.lock().frames(row)?;
        Ok(Published::of_row(row, frames, marks))
    }

    /// The state of an epoch, loaded if it is not in memory; `None` when it is over.
    pub(crate) fn stream_in_use(&self, stream: StreamId) -> Result<Option<Arc<FeedState>>> {
        if let Some(state) = self.feeds.lock().streams.get(&stream) {
            return Ok(Some(state.clone()));
        }
        let registration = self.registration(stream.feed);
        match registration.filter(|known| known.epoch == stream.epoch) {
            Some(known) => self.stream(&known.key, stream),
            None => Ok(None),
        }
    }

    /// Shows the frames of every feed, and up to where its payloads are pruned. Epochs that are over
    /// have nothing to show, and a save that failed may have taken them from the catalog.
    pub(crate) fn each_directory(&self, mut show: impl FnMut(&Directory, u64)) -> Result<()> {
        let streams: BTreeSet<StreamId> = {
            let feeds = self.feeds.lock();
            let stored = feeds.rows.keys().filter(|it| !feeds.dropped.contains(it));
            feeds.streams.keys().chain(stored).copied().collect()
        };
        for stream in streams {
            let (directory, through) = match self.find(stream)? {
                Found::InMemory(feed) => {
                    let published = feed.published.read();
                    (
                        published.directory.clone(),
                        published.marks.prunes.through(),
                    )
                }
                Found::Stored(published, _) => {
                    (published.directory, published.marks.prunes.through())
                }
            };
            show(&directory, through);
        }
        Ok(())
    }

    /// Lets go of feeds that nobody has a handle to, and of which the catalog knows everything: they
    /// are read from there when they are wanted again.
    pub(crate) fn forget_idle(&self, catalog: &Catalog) {
        if catalog.stale {
            // What the save that failed took from feeds is in memory alone until the next one.
            return;
        }
        let mut feeds = self.feeds.lock();
        let Feeds { slots, streams, .. } = &mut *feeds;
        // Whoever wants one has to come by here, so none can be taken up meanwhile.
        slots.retain(|_, slot| {
            let state = slot.current();
            // Of the slot, the map has one; of the state, the slot, the map, and this function.
            let unused = Arc::strong_count(slot) == 1 && Arc::strong_count(&state) == 3;
            let idle = unused && state.is_saved();
            if idle {
                streams.remove(&state.stream());
            }
            !idle
        });
        // And what was found when the store was opened, and not asked for since.
        streams.retain(|_, state| Arc::strong_count(state) > 1 || !state.is_saved());
    }
}
