//! The parts of an open store, and what reads and writes share: finding feeds, loading indexes,
//! locating versions.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use crate::background::Background;
use crate::branch::Branch;
use crate::budget::Budget;
use crate::catalog::{Catalog, FeedChanges, FeedRow, Save};
use crate::closing::Closing;
use crate::compaction::Compactor;
use crate::cursor::{FIRST_EPOCH, FeedId, StreamId};
use crate::defects::Defect;
use crate::error::{Error, Result};
use crate::events::Events;
use crate::feed::FeedKey;
use crate::feed::directory::FrameRef;
use crate::feed::load::{PayloadHolder, Scratch};
use crate::feed::page::PageContent;
use crate::feed::read::Span;
use crate::feed::slot::FeedSlot;
use crate::feed::state::{FeedState, Published, Writer};
use crate::hash::{Fingerprint, Hasher};
use crate::index::IndexEntry;
use crate::index::run;
use crate::index::shelf::Shelf;
use crate::log::commit::{Log, Stage};
use crate::log::manifest::Manifest;
use crate::options::{FeedOptions, Options};
use crate::pool::Pool;
use crate::primitives::atomic::{AtomicU64, Ordering};
use crate::primitives::{Mutex, MutexGuard};
use crate::state::{Registration, State, StateKey};
use crate::stats::FeedInfo;
use crate::storage::StorageLock;

pub(crate) const INDEX_DIR: &str = "index";

/// An open store.
pub(crate) struct Engine {
    pub(crate) path: PathBuf,
    pub(crate) options: Options,
    pub(crate) hasher: Hasher,
    pub(crate) log: Log,
    pub(crate) state: Arc<State>,
    pub(crate) catalog: Mutex<Catalog>,
    pub(crate) budget: Budget,
    pub(crate) feeds: Mutex<Feeds>,
    pub(crate) events: Arc<Events>,
    pub(crate) background: Mutex<Option<Background>>,
    /// Given up when the store is closed, while handles may still be around.
    pub(crate) lock: Mutex<Option<Box<dyn StorageLock>>>,
    /// Which files of the log are in force. The catalog is saved with it.
    pub(crate) manifest: Mutex<Manifest>,
    pub(crate) compactor: Mutex<Compactor>,
    /// Which runs the indexes of large feeds have, and where these are.
    pub(crate) shelf: Mutex<Shelf>,
    /// Held while runs are merged.
    pub(crate) merging: Mutex<()>,
    pub(crate) index_dir: PathBuf,
    /// Held while the files of the log are being replaced.
    pub(crate) packing: Mutex<()>,
    /// Memory of pages that were read.
    pub(crate) pages: Pool<PageContent>,
    pub(crate) scratch: Pool<Scratch>,
    /// Set when the log was replayed.
    branch: OnceLock<Branch>,
    pub(crate) closing: Closing,
    /// Bytes of log when the catalog was last saved.
    saved_bytes: AtomicU64,
}

/// What an engine is made of when a store is opened.
pub(crate) struct Parts {
    pub(crate) path: PathBuf,
    pub(crate) options: Options,
    pub(crate) hasher: Hasher,
    pub(crate) log: Log,
    pub(crate) state: State,
    pub(crate) catalog: Catalog,
    pub(crate) rows: BTreeMap<StreamId, FeedRow>,
    pub(crate) manifest: Manifest,
    pub(crate) shelf: Shelf,
    pub(crate) lock: Box<dyn StorageLock>,
}

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

impl Engine {
    pub(crate) fn new(parts: Parts) -> Self {
        let forgets_lock = parts.options.defects.has(Defect::ForgetLock);
        let lock = Some(parts.lock).filter(|_| !forgets_lock);
        Self {
            index_dir: parts.path.join(INDEX_DIR),
            shelf: Mutex::new(parts.shelf),
            merging: Mutex::default(),
            path: parts.path,
            budget: Budget::new(parts.options.index_budget),
            options: parts.options,
            hasher: parts.hasher,
            log: parts.log,
            state: Arc::new(parts.state),
            catalog: Mutex::new(parts.catalog),
            feeds: Mutex::new(Feeds {
                rows: parts.rows,
                ..Feeds::default()
            }),
            events: Arc::default(),
            background: Mutex::new(None),
            lock: Mutex::new(lock),
            manifest: Mutex::new(parts.manifest),
            compactor: Mutex::default(),
            packing: Mutex::default(),
            pages: Pool::default(),
            scratch: Pool::default(),
            branch: OnceLock::new(),
            closing: Closing::default(),
            saved_bytes: AtomicU64::new(0),
        }
    }

    pub(crate) fn check_not_closed(&self) -> Result<()> {
        if self.closing.is_closed() {
            Err(Error::Closed)
        } else {
            Ok(())
        }
    }

    /// Which branch of the store's history this is.
    pub(crate) fn branch(&self) -> Branch {
        self.branch.get().copied().unwrap_or_default()
    }

    /// Takes note of the branch once the log was replayed.
    pub(crate) fn set_branch(&self, branch: Branch) {
        // It is set once, before there are readers.
        let _ = self.branch.set(branch);
    }

    /// Closes the log and saves the catalog as of a clean end.
    pub(crate) fn close(&self) -> Result<()> {
        if !self.closing.close() {
            return Ok(());
        }
        drop(self.background.lock().take());
        // Whoever compacts finds out soon. Until then the store is not free for the next opener.
        let _packing = self.packing.lock();
        let saved = self.log.close().and_then(|()| self.save_clean_end());
        self.log.trim();
        for feed in self.feeds.lock().streams.values() {
            feed.close();
        }
        self.events.close();
        // The last writer of the catalog's file is its database, when it is dropped.
        self.catalog.lock().disconnect();
        drop(self.lock.lock().take());
        saved
    }

    /// Notes in the log and in the catalog that the store ends here, unless both say so already.
    fn save_clean_end(&self) -> Result<()> {
        let untouched = {
            let catalog = self.catalog.lock();
            catalog.root.clean && !catalog.stale && self.log.appended_bytes() == 0
        };
        if untouched {
            return Ok(());
        }
        self.log.mark_closed()?;
        self.save_catalog(true)
    }

    /// Bytes of log that the catalog does not know of.
    pub(crate) fn catalog_lag(&self) -> u64 {
        let saved = self.saved_bytes.load(Ordering::Relaxed);
        self.log.appended_bytes().saturating_sub(saved)
    }

    /// Brings the catalog up to date. `clean` says that the log was just closed.
    pub(crate) fn save_catalog(&self, clean: bool) -> Result<()> {
        let mut catalog = self.catalog.lock();
        let whole = catalog.stale;
        let bytes = self.log.appended_bytes();
        let position = self.log.durable_position()?;
        let (open, dropped) = {
            let feeds = self.feeds.lock();
            let open: Vec<Arc<FeedState>> = feeds.streams.values().cloned().collect();
            (open, feeds.dropped.clone())
        };
        let feeds: Vec<FeedChanges> = open
            .iter()
            .filter(|feed| !dropped.contains(&feed.stream()))
            .filter_map(|feed| feed.changes(whole))
            .filter(|_| !self.options.defects.has(Defect::StaleCatalog))
            .collect();
        let state = self.state.changes(whole);
        let manifest = self.manifest.lock().clone();
        let (shelf, obsolete) = self.shelf.lock().save();
        // Read last: rows may know of frames that became durable after the position was taken.
        // What is published is durable, a moment before the log says so.
        let published = feeds.iter().map(|feed| feed.row.lsn).max();
        let durable_lsn = self.log.durable().0.max(published.unwrap_or_default());
        let mut root = catalog.root;
        (root.durable_lsn, root.clean) = (durable_lsn, clean);
        root.set_position(position);
        let saved = catalog.save(Save {
            root,
            feeds,
            manifest: &manifest,
            shelf,
            dropped: &dropped,
            state: &state,
            whole,
        });
        let rows = match saved {
            Ok(rows) => rows,
            Err(error) => {
                self.shelf.lock().keep_obsolete(obsolete);
                return Err(error);
            }
        };
        for id in obsolete {
            // If that fails, the next open removes it.
            let path = run::path_of(&self.index_dir, id);
            let _ = self.options.storage.remove(&path);
        }
        let mut feeds = self.feeds.lock();
        feeds
            .rows
            .extend(rows.into_iter().map(|row| (row.stream(), row)));
        for stream in &dropped {
            feeds.dropped.remove(stream);
            feeds.rows.remove(stream);
        }
        drop(feeds);
        self.saved_bytes.store(bytes, Ordering::Relaxed);
        self.forget_idle();
        Ok(())
    }

    /// Lets go of feeds that nobody has a handle to, and of which the catalog knows everything: they
    /// are read from there when they are wanted again.
    pub(crate) fn forget_idle(&self) {
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

    /// The published value of a state key.
    pub(crate) fn read_state(&self, key: &StateKey) -> Result<Option<Vec<u8>>> {
        self.check_not_closed()?;
        self.make_all_visible();
        Ok(self.state.get(key))
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
            let epoch = known.as_ref().map_or(FIRST_EPOCH, |known| known.epoch);
            let options = known.map(|known| known.options);
            let state = self.stream(key, StreamId { feed: id, epoch }, options)?;
            let mut feeds = self.feeds.lock();
            if state.is_superseded() {
                // Somebody else has opened and replaced it meanwhile.
                continue;
            }
            let slot = || Arc::new(FeedSlot::new(key.clone(), state));
            return Ok(feeds.slots.entry(id).or_insert_with(slot).clone());
        }
    }

    /// The state of a feed in one epoch, as the catalog has it if it is not in use yet.
    pub(crate) fn stream(
        &self,
        key: &FeedKey,
        stream: StreamId,
        options: Option<FeedOptions>,
    ) -> Result<Arc<FeedState>> {
        let row = {
            let feeds = self.feeds.lock();
            if let Some(state) = feeds.streams.get(&stream) {
                return Ok(state.clone());
            }
            feeds.rows.get(&stream).copied()
        };
        // Read without the lock: saving the catalog takes the two the other way round.
        let published = match &row {
            Some(row) => self.restore(row),
            None => Ok(Published::default()),
        };
        let mut feeds = self.feeds.lock();
        if let Some(state) = feeds.streams.get(&stream) {
            // Opened by somebody else meanwhile, whose changes the catalog may have by now: then
            // the row was old, and what was read with it did not fit.
            return Ok(state.clone());
        }
        let state = FeedState::new(key.clone(), stream.feed, stream.epoch, options, published?);
        self.restore_codec(&state);
        let state = Arc::new(state);
        feeds.streams.insert(stream, state.clone());
        Ok(state)
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

    /// Before a read in relaxed durability: what was acknowledged is synced and published, so that
    /// a caller sees its own writes, and nobody sees anything that a power failure could undo.
    pub(crate) fn make_visible(&self, feed: &FeedState) {
        if feed.has_unpublished() {
            self.make_all_visible();
        }
    }

    /// The same for everything the store holds.
    pub(crate) fn make_all_visible(&self) {
        if self.log.acknowledged_stage() == Stage::Written {
            // After a failure there is nothing more to show than what was published.
            let _ = self.log.flush();
        }
    }

    /// Takes the feed's write lock, with queued commits settled. `aborts` is the log's abort count
    /// that the classification is going to rest on.
    pub(crate) fn write_turn<'a>(
        &self,
        feed: &'a FeedState,
        aborts: u64,
    ) -> MutexGuard<'a, Writer> {
        let mut writer = feed.writer.lock();
        writer.settle(feed, aborts, || self.registration(feed.id).is_some());
        writer
    }

    /// Lets the feed's next writer work under the newest options. Of concurrent changes the one
    /// that was committed last counts, whichever comes here last.
    pub(crate) fn refresh_options(&self, feed: &Arc<FeedState>) -> Result<()> {
        self.log.flush()?;
        let mut writer = self.write_turn(feed, self.log.aborts());
        // The index may hold fingerprints of payloads that are equal only under the old options,
        // so it is dropped, which takes that nothing of it is queued.
        let last = feed
            .index
            .read()
            .pending
            .back()
            .map(|pending| pending.ticket.clone());
        if let Some(last) = last {
            self.log.wait(&last, Stage::Durable)?;
        }
        let mut resident = feed.index.write();
        resident.pending.clear();
        resident.index = None;
        self.budget.resize(feed, writer.trail.memory());
        drop(resident);
        if let Some(registration) = self.registration(feed.id) {
            writer.options = registration.options;
            writer.registered = true;
        }
        Ok(())
    }

    /// The published registration of a feed.
    pub(crate) fn registration(&self, feed: FeedId) -> Option<Registration> {
        self.state
            .get(&StateKey::feed(feed))
            .as_deref()
            .and_then(Registration::decode)
    }

    /// The newest visible versions of records.
    pub(crate) fn newest(
        &self,
        feed: &Arc<FeedState>,
        keys: &[Fingerprint],
    ) -> Result<Vec<Option<IndexEntry>>> {
        self.newest_at(feed, keys).map(|(newest, _)| newest)
    }

    fn newest_at(
        &self,
        feed: &Arc<FeedState>,
        keys: &[Fingerprint],
    ) -> Result<(Vec<Option<IndexEntry>>, u64)> {
        loop {
            self.load_index(feed)?;
            let resident = feed.index.read();
            if resident.index.is_none() {
                // Evicted in between by somebody else's load.
                continue;
            }
            let tail = feed.published.read().tail;
            match resident.visible(keys, tail) {
                Ok(newest) => return Ok((newest, tail)),
                Err(error) => {
                    drop(resident);
                    if !self.drop_damaged_index(feed, &error) {
                        return Err(error);
                    }
                }
            }
        }
    }

    /// The positions of the newest visible versions of `ids`, and the tail they were seen at.
    pub(crate) fn positions<'a>(
        &self,
        feed: &Arc<FeedState>,
        ids: impl Iterator<Item = &'a str>,
    ) -> Result<(Vec<Option<u64>>, u64)> {
        let keys: Vec<Fingerprint> = ids.map(|id| self.hasher.id(id.as_bytes())).collect();
        let (newest, tail) = self.newest_at(feed, &keys)?;
        let position = |newest: Option<IndexEntry>| newest.map(|entry| entry.position());
        Ok((newest.into_iter().map(position).collect(), tail))
    }

    /// The state of an epoch, loaded if it is not in memory; `None` when it is over.
    pub(crate) fn stream_in_use(&self, stream: StreamId) -> Result<Option<Arc<FeedState>>> {
        if let Some(state) = self.feeds.lock().streams.get(&stream) {
            return Ok(Some(state.clone()));
        }
        let registration = self.registration(stream.feed);
        match registration.filter(|known| known.epoch == stream.epoch) {
            Some(known) => self
                .stream(&known.key, stream, Some(known.options))
                .map(Some),
            None => Ok(None),
        }
    }

    /// Shows the frames of every feed, and up to where its payloads are pruned.
    pub(crate) fn each_directory(&self, mut show: impl FnMut(&[FrameRef], u64)) -> Result<()> {
        let (loaded, rows) = {
            let feeds = self.feeds.lock();
            let loaded: Vec<Arc<FeedState>> = feeds.streams.values().cloned().collect();
            let rows = feeds.rows.iter();
            let rows = rows.filter(|(stream, _)| !feeds.streams.contains_key(*stream));
            let rows: Vec<FeedRow> = rows.map(|(_, row)| *row).collect();
            (loaded, rows)
        };
        for feed in loaded {
            let published = feed.published.read();
            show(
                published.directory.frames(),
                published.marks.prunes.through(),
            );
        }
        for row in rows {
            let stored = self.catalog.lock().frames(&row);
            let used = self.feeds.lock().streams.get(&row.stream()).cloned();
            match (stored, used) {
                (Ok((frames, marks)), _) => show(&frames, marks.prunes.through()),
                // Opened by somebody meanwhile, whose changes the catalog has by now.
                (Err(_), Some(feed)) => {
                    let published = feed.published.read();
                    let through = published.marks.prunes.through();
                    show(published.directory.frames(), through);
                }
                (Err(error), None) => return Err(error),
            }
        }
        Ok(())
    }

    /// Removes files of the log that the manifest does not count any more. The catalog must have
    /// been saved with it.
    pub(crate) fn remove_retired(&self) -> Result<()> {
        let manifest = self.manifest.lock().clone();
        let segments = self.log.segments();
        let retired = segments.iter().filter(|s| manifest.is_retired(s.id()));
        // All that can be removed are; what cannot is tried again the next time.
        let failures: Vec<Error> = retired
            .filter_map(|segment| self.log.remove(segment).err())
            .collect();
        failures.into_iter().next().map_or(Ok(()), Err)
    }

    /// The frame of a version that somebody has found before.
    pub(crate) fn frame_of<'a>(
        &self,
        published: &'a Published,
        position: u64,
    ) -> Result<&'a FrameRef> {
        let missing = || Error::corrupt(&self.path, 0, "a version is in no frame");
        published.directory.find(position).ok_or_else(missing)
    }

    /// Where the payload of a deleted record is: in the version before its deletion.
    pub(crate) fn payload_holder(&self, feed: &FeedState, position: u64) -> Result<PayloadHolder> {
        let span = {
            let published = feed.published.read();
            let frame = self.frame_of(&published, position)?;
            Span::new(&self.log, frame, vec![(position - frame.first) as u32])?
        };
        let mut located = Vec::new();
        span.locate(&mut Vec::new(), &mut located)?;
        match located.first() {
            Some(&located) => Ok(PayloadHolder { span, located }),
            None => Err(Error::corrupt(span.path(), 0, "record entry")),
        }
    }
}

/// What the user's handles share: the store is closed when the last of them is dropped. The
/// background thread has the engine without it, so it neither keeps a store open nor closes one.
///
/// An engine that never got a handle, because opening it failed, is dropped without a word: it
/// must not write down its half-way state as a clean end.
pub(crate) struct Handle(pub(crate) Arc<Engine>);

impl Deref for Handle {
    type Target = Engine;

    fn deref(&self) -> &Engine {
        &self.0
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // A store that fails to close is recovered by the next open; there is nobody to tell.
        let _ = self.close();
    }
}
