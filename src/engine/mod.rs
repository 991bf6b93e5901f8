//! The parts of an open store, and what reads and writes share.
//!
//! * [`feeds`]: which feeds there are, and which of them are in memory
//! * [`saving`]: bringing the catalog up to date, closing

mod feeds;
mod saving;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use crossbeam_channel::{Receiver, Sender, bounded};

pub(crate) use self::feeds::Feeds;
use crate::background::Background;
use crate::branch::Branch;
use crate::budget::Budget;
use crate::catalog::{Catalog, FeedRow};
use crate::closing::Closing;
use crate::compaction::Compactor;
use crate::cursor::StreamId;
use crate::defects::Defect;
use crate::error::{Error, Result};
use crate::events::Events;
use crate::feed::directory::FrameRef;
use crate::feed::load::{PayloadHolder, Scratch};
use crate::feed::page::PageContent;
use crate::feed::published::Published;
use crate::feed::read::Span;
use crate::feed::state::{FeedState, Writer};
use crate::hash::{Fingerprint, Hasher};
use crate::index::IndexEntry;
use crate::index::shelf::Shelf;
use crate::log::commit::{Log, Stage};
use crate::log::manifest::Manifest;
use crate::options::Options;
use crate::pool::Pool;
use crate::primitives::atomic::AtomicU64;
use crate::primitives::{Mutex, MutexGuard};
use crate::state::{State, StateKey};
use crate::storage::StorageLock;

pub(crate) const INDEX_DIR: &str = "index";
/// So many feeds wait for somebody to merge their index's delta; more do it themselves.
const UNMERGED_MAX: usize = 16;

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
    /// Feeds whose index has a delta to merge.
    pub(crate) unmerged: (Sender<Arc<FeedState>>, Receiver<Arc<FeedState>>),
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

impl Engine {
    pub(crate) fn new(parts: Parts) -> Self {
        let forgets_lock = parts.options.defects.has(Defect::ForgetLock);
        let lock = Some(parts.lock).filter(|_| !forgets_lock);
        Self {
            index_dir: parts.path.join(INDEX_DIR),
            shelf: Mutex::new(parts.shelf),
            merging: Mutex::default(),
            unmerged: bounded(UNMERGED_MAX),
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

    /// The published value of a state key.
    pub(crate) fn read_state(&self, key: &StateKey) -> Result<Option<Vec<u8>>> {
        self.check_not_closed()?;
        self.make_all_visible();
        Ok(self.state.get(key))
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
        self.note_memory(feed, &writer, &resident);
        drop(resident);
        if let Some(registration) = self.registration(feed.id) {
            writer.options = registration.options;
            writer.registered = true;
        }
        Ok(())
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
