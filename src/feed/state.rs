//! What the engine keeps in memory for a feed that is in use, and its three locks.
//!
//! * `writer` lines writers up; it is held while a batch is classified, also across disk reads.
//! * `index` is held for moments: to look keys up, and to put a batch's changes in.
//! * `published` is what readers see; the commit leader changes it, readers copy from it.
//!
//! Locks are taken in this order, and feeds in the order of their ids.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use crate::catalog::{FeedChanges, FeedRow};
use crate::compression::Codec;
use crate::cursor::{Cursor, FeedId, StreamId};
use crate::error::{Error, Result};
use crate::feed::FeedKey;
use crate::feed::frame_ref::FrameRef;
use crate::feed::marks::{Mark, Marks};
use crate::feed::published::Published;
use crate::feed::read::read_entries;
use crate::feed::resident::Resident;
use crate::feed::trail::Trail;
use crate::index::IndexEntry;
use crate::log::commit::{Log, Ticket, after_jumps};
use crate::log::format::{FrameHeader, SyncId};
use crate::log::segment::Segment;
use crate::log::{Lsn, SegmentId};
use crate::options::FeedOptions;
use crate::primitives::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use crate::primitives::{Condvar, Mutex, RwLock};
use crate::publish::Place;

/// See the module.
pub(crate) struct FeedState {
    pub(crate) id: FeedId,
    pub(crate) key: FeedKey,
    pub(crate) epoch: u32,
    pub(crate) writer: Mutex<Writer>,
    pub(crate) index: RwLock<Resident>,
    pub(crate) published: RwLock<Published>,
    pub(crate) codec: Codec,
    /// The newest commit of this feed that was handed to the operating system.
    written: AtomicU64,
    /// When the index was last used, in uses of any index; for eviction.
    pub(crate) last_use: AtomicU64,
    /// Bytes of index and trail in memory, and whether the budget knows that there are any.
    pub(crate) memory: AtomicUsize,
    pub(crate) is_counted: AtomicBool,
    bell: Bell,
    closed: AtomicBool,
    /// Set when another epoch has taken this one's place.
    superseded: AtomicBool,
    /// Whether no reader sees this epoch yet: it is being filled to replace the current one.
    staged: AtomicBool,
    /// The published count of purges; see [`Cursor`].
    purges: AtomicU32,
    /// How many times compaction has changed the directory.
    repacks: AtomicU64,
}

/// What the next writer starts from: the published state plus everything in the commit queue.
pub(crate) struct Writer {
    /// The next free position.
    pub(crate) next: u64,
    /// Commit time of the newest commit, in microseconds.
    pub(crate) time: u64,
    pub(crate) live: u64,
    pub(crate) live_bytes: u64,
    /// Whether the log has the feed's registration.
    pub(crate) registered: bool,
    pub(crate) options: FeedOptions,
    /// The open deletion windows, with the position each began at.
    pub(crate) windows: BTreeMap<SyncId, u64>,
    /// Records at or before this position have no payload.
    pub(crate) pruned_through: u64,
    /// The generation of the log that the newest commit was written in.
    pub(crate) generation: u32,
    /// [`crate::log::commit::Log::aborts`] when the feed was last settled.
    pub(crate) aborts: u64,
    /// The newest commit of the feed, in the queue or past it.
    pub(crate) newest: Option<Arc<Ticket>>,
    pub(crate) trail: Trail,
}

impl FeedState {
    pub(crate) fn new(
        key: FeedKey,
        id: FeedId,
        epoch: u32,
        options: Option<FeedOptions>,
        published: Published,
    ) -> Self {
        let writer = Writer {
            next: published.tail + 1,
            time: published.time,
            live: published.live,
            live_bytes: published.live_bytes,
            registered: options.is_some(),
            options: options.unwrap_or_default(),
            windows: published.marks.window_starts(),
            pruned_through: published.marks.prunes.through(),
            generation: published.generation,
            aborts: 0,
            newest: None,
            trail: Trail::default(),
        };
        Self {
            id,
            key,
            epoch,
            writer: Mutex::new(writer),
            index: RwLock::default(),
            codec: Codec::default(),
            purges: AtomicU32::new(published.marks.purges),
            written: AtomicU64::new(published.lsn.0),
            published: RwLock::new(published),
            last_use: AtomicU64::new(0),
            memory: AtomicUsize::new(0),
            is_counted: AtomicBool::new(false),
            bell: Bell::default(),
            closed: AtomicBool::new(false),
            superseded: AtomicBool::new(false),
            repacks: AtomicU64::new(0),
            staged: AtomicBool::new(false),
        }
    }

    pub(crate) fn stream(&self) -> StreamId {
        StreamId {
            feed: self.id,
            epoch: self.epoch,
        }
    }

    pub(crate) fn cursor(&self, position: u64) -> Cursor {
        Cursor {
            feed: self.id,
            epoch: self.epoch,
            position,
            purges: self.purges.load(Ordering::Acquire),
            base: position,
        }
    }

    pub(crate) fn is_superseded(&self) -> bool {
        self.superseded.load(Ordering::Acquire)
    }

    /// Notes that another epoch has taken this one's place, and sends everybody who waits here to
    /// look again.
    pub(crate) fn supersede(&self) {
        self.superseded.store(true, Ordering::Release);
        self.announce();
    }

    pub(crate) fn is_staged(&self) -> bool {
        self.staged.load(Ordering::Acquire)
    }

    pub(crate) fn set_staged(&self, staged: bool) {
        self.staged.store(staged, Ordering::Release);
    }

    /// Takes over the published count of purges.
    pub(crate) fn note_purges(&self, published: &Published) {
        self.purges.store(published.marks.purges, Ordering::Release);
    }

    /// Whether a commit of this feed was acknowledged that readers do not see yet. Only in relaxed
    /// durability can that be.
    pub(crate) fn has_unpublished(&self) -> bool {
        self.has_written_past(self.published.read().lsn)
    }

    fn has_written_past(&self, lsn: Lsn) -> bool {
        self.written.load(Ordering::Acquire) > lsn.0
    }

    pub(crate) fn set_written(&self, lsn: Lsn) {
        self.written.fetch_max(lsn.0, Ordering::AcqRel);
    }

    /// Wakes everybody who waits for a change.
    pub(crate) fn announce(&self) {
        self.bell.ring();
    }

    /// Has a task woken at the next change, or when waiting has no sense any more.
    #[cfg(feature = "async")]
    pub(crate) fn wake_at_change(&self, waker: &std::task::Waker) {
        let mut tasks = self.bell.tasks.lock();
        if !tasks.iter().any(|task| task.will_wake(waker)) {
            tasks.push(waker.clone());
        }
    }

    /// Sends everybody who waits for a change away.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.announce();
    }

    /// Whether something newer than `position` is visible.
    pub(crate) fn is_past(&self, position: u64) -> bool {
        self.published.read().tail > position
    }

    /// Waits until something newer than `position` is visible; false when `deadline` came first,
    /// the store was closed, or another epoch took this one's place.
    pub(crate) fn wait_past(&self, position: u64, deadline: Option<Instant>) -> bool {
        let mut guard = self.bell.lock.lock();
        while !self.is_past(position) {
            if self.closed.load(Ordering::Acquire) || self.is_superseded() {
                return false;
            }
            let timed_out = match deadline {
                Some(deadline) => self
                    .bell
                    .condition
                    .wait_until(&mut guard, deadline)
                    .timed_out(),
                None => {
                    self.bell.condition.wait(&mut guard);
                    false
                }
            };
            if timed_out {
                return self.is_past(position);
            }
        }
        true
    }

    /// Applies a frame that was found in the log when the store was opened.
    pub(crate) fn restore_frame(&self, header: &FrameHeader, place: Place, superseded: &[u64]) {
        let mut published = self.published.write();
        published.directory.push(header, place);
        published.retire(superseded);
        published.tail = header.first + u64::from(header.count) - 1;
        published.time = header.time;
        published.lsn = header.lsn;
        published.generation = header.generation;
        published.live = header.live;
        published.live_bytes = header.live_bytes;
        self.set_written(header.lsn);
        let mut writer = self.writer.lock();
        writer.next = published.tail + 1;
        writer.time = header.time;
        writer.live = header.live;
        writer.live_bytes = header.live_bytes;
        writer.generation = header.generation;
    }

    /// Applies a frame of marks that was found in the log when the store was opened.
    pub(crate) fn restore_marks(&self, header: &FrameHeader, marks: &[Mark]) {
        let mut published = self.published.write();
        published.apply(marks);
        published.lsn = header.lsn;
        published.live = header.live;
        published.live_bytes = header.live_bytes;
        self.note_purges(&published);
        let mut writer = self.writer.lock();
        writer.live = header.live;
        writer.live_bytes = header.live_bytes;
        writer.take_marks(&published.marks);
    }

    /// Whether the catalog has all there is, and nothing is in memory but what it has.
    pub(crate) fn is_saved(&self) -> bool {
        let Some(resident) = self.index.try_read() else {
            return false;
        };
        let in_memory = resident.index.is_some() || !resident.pending.is_empty();
        let published = self.published.read();
        let saved = !published.directory.is_dirty() && !published.marks_dirty;
        saved
            && !in_memory
            && published.lsn > Lsn(0)
            && !self.is_staged()
            && !self.has_written_past(published.lsn)
    }

    /// What the catalog lacks of this feed; everything when `whole`.
    pub(crate) fn changes(&self, whole: bool) -> Option<FeedChanges> {
        self.changes_of(&mut self.published.write(), whole)
    }

    fn changes_of(&self, published: &mut Published, whole: bool) -> Option<FeedChanges> {
        let lsn = published.lsn;
        let (chunks, chunks_len) = published.directory.take_dirty(lsn, whole);
        // Also marks that are gone: a save that failed may have been the one to say so.
        let wanted = published.marks_dirty || whole && lsn > Lsn(0);
        let marks = wanted.then(|| published.marks.encode());
        published.marks_dirty = false;
        if chunks.is_empty() && marks.is_none() {
            return None;
        }
        let row = FeedRow {
            feed: self.id.0,
            epoch: self.epoch,
            tail: published.tail,
            time: published.time,
            lsn: lsn.0,
            generation: published.generation,
            live: published.live,
            live_bytes: published.live_bytes,
            // The catalog knows these.
            chunks: 0,
            chunks_sum: 0,
            marks: false,
        };
        Some(FeedChanges {
            row,
            chunks,
            chunks_len,
            marks,
        })
    }

    /// What the catalog would have of the feed, if packed frames took the place of those in the
    /// files `ids`; `None` when a live record would be lost.
    pub(crate) fn preview(
        &self,
        ids: &BTreeSet<SegmentId>,
        packed: Vec<FrameRef>,
    ) -> Option<FeedChanges> {
        let mut preview = {
            let published = self.published.read();
            published.clone()
        };
        preview.repack(ids, packed)?;
        self.changes_of(&mut preview, true)
    }

    /// Puts packed frames in the place of those in the files `ids`; false, with nothing changed,
    /// when a live record would be lost.
    pub(crate) fn repack(&self, ids: &BTreeSet<SegmentId>, packed: Vec<FrameRef>) -> bool {
        let before = self.published.read().directory.clone();
        let mut repacked = before.clone();
        let Some(gone) = repacked.repack(ids, packed) else {
            return false;
        };
        let mut published = self.published.write();
        // Before the lock is given up: who saw the old directory finds that it has changed.
        self.repacks.fetch_add(1, Ordering::AcqRel);
        published.directory.catch_up(&before, repacked);
        published.forget_commits(&gone);
        true
    }

    /// Reads something of the feed by several looks at its directory, again if compaction took
    /// away between two of them what the first had found.
    pub(crate) fn steadily<T>(&self, read: impl Fn() -> Result<T>) -> Result<T> {
        loop {
            let before = self.repacks.load(Ordering::Acquire);
            match read() {
                Err(Error::Corrupt { .. }) if self.repacks.load(Ordering::Acquire) != before => {}
                answer => return answer,
            }
        }
    }

    /// The positions of all deletions that the feed shows, ascending.
    pub(crate) fn deleted(&self, log: &Log) -> Result<Vec<u64>> {
        let frames: Vec<(FrameRef, Arc<Segment>)> = {
            let published = self.published.read();
            if published.directory.live_through(published.tail) == published.live {
                return Ok(Vec::new());
            }
            let frames = published
                .directory
                .iter()
                .filter(|frame| frame.live_count > 0);
            let with_file = |frame: &FrameRef| Ok((frame.clone(), log.segment_of(frame)?));
            frames.map(with_file).collect::<Result<_>>()?
        };
        let (mut deleted, mut entries) = (Vec::new(), Vec::new());
        for (frame, segment) in &frames {
            entries.clear();
            read_entries(frame, segment, &mut entries)?;
            let gone = entries.iter().filter(|entry| entry.is_deleted());
            deleted.extend(gone.map(IndexEntry::position));
        }
        Ok(deleted)
    }

    /// Forgets what published commits replaced in the index, when nobody is using it right now.
    pub(crate) fn forget_published(&self) {
        if let Some(mut resident) = self.index.try_write() {
            resident.forget_published();
        }
    }

    /// Drops index and trail to free their memory, unless they are in use or have queued changes.
    /// `account` is called before anybody can load them again.
    pub(crate) fn evict(&self, account: impl FnOnce()) -> bool {
        // A writer remembers slots of the index while it classifies.
        let Some(mut writer) = self.writer.try_lock() else {
            return false;
        };
        let Some(mut resident) = self.index.try_write() else {
            return false;
        };
        if !resident.drop_settled(self.published.read().lsn) {
            return false;
        }
        writer.trail = Trail::default();
        account();
        true
    }
}

impl Writer {
    /// Takes note of what became of queued commits: forgets the published ones, and starts over
    /// from the published state when some were aborted. `aborts` must have been read before;
    /// `registered` says whether the published state has the feed's registration.
    pub(crate) fn settle(&mut self, feed: &FeedState, aborts: u64, registered: impl Fn() -> bool) {
        let mut resident = feed.index.write();
        // Every commit that was not aborted was published before the abort count went up.
        if aborts != self.aborts && resident.pending.iter().any(|p| p.ticket.is_aborted()) {
            resident.pending.clear();
            resident.index = None;
            self.trail = Trail::default();
            let published = feed.published.read();
            // Aborted positions were never given out.
            self.next = published.tail + 1;
            self.time = published.time;
            self.live = published.live;
            self.live_bytes = published.live_bytes;
            self.generation = published.generation;
            self.take_marks(&published.marks);
            self.registered = registered();
        }
        self.aborts = aborts;
        resident.forget_published();
    }

    pub(crate) fn take_marks(&mut self, marks: &Marks) {
        self.windows = marks.window_starts();
        self.pruned_through = marks.prunes.through();
    }

    /// Takes over a mark that is in the queue now.
    pub(crate) fn note(&mut self, mark: &Mark) {
        match mark {
            Mark::WindowOpened { sync, start, .. } => {
                self.windows.insert(*sync, *start);
            }
            Mark::WindowClosed { sync } => {
                self.windows.remove(sync);
            }
            Mark::Pruned { through, .. } => self.pruned_through = *through,
            _ => {}
        }
    }

    /// The next position to give out. With every unclean end of the store since the feed's newest
    /// commit it jumps past all positions that may have been shown and lost.
    pub(crate) fn next_position(&self, generation: u32) -> u64 {
        after_jumps(self.next, self.generation, generation)
    }
}

/// What wakes those who wait for a change: threads, and tasks.
#[derive(Default)]
struct Bell {
    lock: Mutex<()>,
    condition: Condvar,
    #[cfg(feature = "async")]
    tasks: Mutex<Vec<std::task::Waker>>,
}

impl Bell {
    fn ring(&self) {
        let guard = self.lock.lock();
        self.condition.notify_all();
        drop(guard);
        #[cfg(feature = "async")]
        for task in std::mem::take(&mut *self.tasks.lock()) {
            task.wake();
        }
    }
}
