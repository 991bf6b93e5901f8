//! The commit queue: writers enqueue finished frames, the first that waits leads the whole group
//! through one write and one sync, and publishes it in log order.
//!
//! Publishing comes strictly after the sync. A reader that was shown a change before it was
//! durable would skip the version it superseded, and lose the record for ever if the power failed.
//! This holds in relaxed mode too: there a writer returns before the sync, but readers see the
//! change only after it (see [`Log::flush`]).
//!
//! * [`queue`]: commits that wait for their turn, and who has it
//! * [`append`]: places for frames, writing them, going on to a new segment
//! * [`sync`]: syncing what was written, and publishing it after that

mod append;
mod queue;
mod sync;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};

use self::queue::{Commit, Queue};
use crate::defects::{Defect, Defects};
use crate::encryption::{Cipher, same_key};
use crate::error::{Error, Result};
use crate::feed::frame_ref::FrameRef;
use crate::log::format::Identity;
use crate::log::frame::{Frame, FramePool};
use crate::log::segment::{Segment, Site};
use crate::log::spares::Spares;
pub(crate) use crate::log::ticket::{Stage, Ticket};
use crate::log::unsynced::{Left, Unsynced};
use crate::log::{LogPosition, Lsn, SegmentId};
use crate::options::Durability;
use crate::primitives::atomic::{AtomicU64, Ordering};
use crate::primitives::{Condvar, Mutex, RwLock};
use crate::publish::{Place, Publication};
use crate::storage::Storage;

/// In relaxed mode a group is synced before it is acknowledged once this much would be at risk.
/// Recovery jumps every feed's positions by [`POSITION_JUMP`], so that a cursor which was handed
/// out and then lost in a power failure is never given to another change.
const UNSYNCED_RECORDS_MAX: u64 = 1 << 23;
const UNSYNCED_BYTES_MAX: u64 = 64 << 20;
/// With so much unsynced the background thread is nudged, so that it hardly ever comes to that.
const UNSYNCED_BYTES_NUDGE: u64 = 8 << 20;
pub(crate) const POSITION_JUMP: u64 = 1 << 24;
const _: () = assert!(POSITION_JUMP >= 2 * UNSYNCED_RECORDS_MAX);

/// Where a feed goes on in a log of one generation, whose newest commit was written in another one, with
/// `next` following it.
pub(crate) fn after_jumps(next: u64, written: u32, generation: u32) -> u64 {
    next + u64::from(generation.saturating_sub(written)) * POSITION_JUMP
}

/// Where the leader appends. Guarded by a lock, which others than the leader take for moments only.
struct Tail {
    segment: Arc<Segment>,
    offset: u64,
    allocated: u64,
    /// Up to where the segment's space was written before, if only with zeros.
    prepared: u64,
    chain: u32,
    /// Up to where the segment was synced.
    synced: u64,
    left: Left,
    unsynced: Unsynced,
    /// Whether anything was synced since the store was opened. The first commit always is: if all
    /// trace of it could be lost, the next open would not know to jump over its cursors.
    synced_once: bool,
}

impl Tail {
    /// Where the next frame goes. `durable` is the newest LSN that is, for when nothing is unsynced.
    fn position(&self, durable: Lsn) -> LogPosition {
        LogPosition {
            segment: self.segment.id(),
            offset: self.offset,
            chain: self.chain,
            lsn: self.unsynced.newest().unwrap_or(durable),
        }
    }
}

/// What is known of the files of the log on stable storage.
struct Syncing {
    /// Whether a sync ever failed.
    failed: bool,
    /// The newest segment that has its name.
    named: SegmentId,
}

/// What [`Log::enqueue`] answers when a commit was aborted after the caller looked at the feeds.
pub(crate) struct Retry;

/// The write side of the log.
pub(crate) struct Log {
    storage: Arc<dyn Storage>,
    dir: PathBuf,
    identity: Identity,
    /// What frames are sealed under from now on.
    cipher: Cipher,
    /// The length from which the log goes on in a new segment.
    segment_size: AtomicU64,
    durability: Durability,
    generation: u32,
    pub(crate) defects: Defects,
    queue: Mutex<Queue>,
    turn: Condvar,
    tail: Mutex<Tail>,
    segments: RwLock<BTreeMap<SegmentId, Arc<Segment>>>,
    spares: Spares,
    pub(crate) frames: FramePool,
    /// How many times waiting commits were aborted; see [`Log::enqueue`].
    aborts: AtomicU64,
    written: AtomicU64,
    durable: AtomicU64,
    appended_bytes: AtomicU64,
    syncs: AtomicU64,
    /// Held while a file is synced.
    syncing: Mutex<Syncing>,
    nudge: (Sender<()>, Receiver<()>),
    rolled: (Sender<()>, Receiver<()>),
}

/// What a log is opened with.
pub(crate) struct LogSetup {
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) dir: PathBuf,
    pub(crate) identity: Identity,
    pub(crate) cipher: Cipher,
    pub(crate) segment_size: u64,
    pub(crate) durability: Durability,
    pub(crate) segments: BTreeMap<SegmentId, Arc<Segment>>,
    pub(crate) position: LogPosition,
    pub(crate) generation: u32,
    pub(crate) defects: Defects,
    /// The current segment, which `segments` has too.
    pub(crate) current: Arc<Segment>,
}

impl Log {
    pub(crate) fn new(setup: LogSetup) -> Result<Self> {
        let allocated = setup.current.len()?;
        let named = setup.current.id();
        let durable = setup.position.lsn;
        Ok(Self {
            storage: setup.storage,
            dir: setup.dir,
            identity: setup.identity,
            cipher: setup.cipher,
            segment_size: AtomicU64::new(setup.segment_size),
            durability: setup.durability,
            generation: setup.generation,
            defects: setup.defects,
            queue: Mutex::new(Queue {
                next_lsn: durable.next(),
                waiting: Vec::new(),
                busy: 0,
                leading: false,
                syncing: false,
                failure: None,
                closed: false,
            }),
            turn: Condvar::new(),
            tail: Mutex::new(Tail {
                segment: setup.current,
                offset: setup.position.offset,
                allocated,
                prepared: setup.position.offset,
                chain: setup.position.chain,
                // Recovery has seen to that.
                synced: setup.position.offset,
                left: Left::default(),
                unsynced: Unsynced::default(),
                synced_once: false,
            }),
            segments: RwLock::new(setup.segments),
            spares: Spares::default(),
            frames: FramePool::default(),
            aborts: AtomicU64::new(0),
            written: AtomicU64::new(durable.0),
            durable: AtomicU64::new(durable.0),
            appended_bytes: AtomicU64::new(0),
            syncs: AtomicU64::new(0),
            syncing: Mutex::new(Syncing {
                failed: false,
                named,
            }),
            nudge: bounded(1),
            rolled: bounded(1),
        })
    }

    /// The segment or pack that a frame is in. Compaction takes files away once no directory
    /// names them, so the directory's lock must be held.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when there is no such file.
    pub(crate) fn segment_of(&self, frame: &FrameRef) -> Result<Arc<Segment>> {
        let found = self.segments.read().get(&frame.segment).cloned();
        let path = || frame.segment.path(&self.dir);
        let missing = || Error::corrupt(&path(), frame.offset, "a frame's segment is missing");
        found.ok_or_else(missing)
    }

    /// Takes a new pack in.
    pub(crate) fn adopt(&self, pack: Arc<Segment>) {
        self.segments.write().insert(pack.id(), pack);
    }

    /// Removes a file that no directory names, or keeps it to be a segment again. Who still reads
    /// from it goes on doing so. Returns it if it is gone under all its names.
    pub(crate) fn remove(&self, segment: &Arc<Segment>) -> Result<Option<Arc<Segment>>> {
        let storage = self.storage.as_ref();
        let size = self.segment_size();
        // What is under an older key is to go, not to be overwritten some time.
        let current = same_key(&segment.cipher, &self.cipher);
        if current && self.spares.keep(storage, &self.dir, segment, size) {
            self.segments.write().remove(&segment.id());
            return Ok(None);
        }
        // A backup in the making, which might give it another name, has the segment itself.
        let is_ours = segment.file.is_linked().is_ok_and(|linked| !linked);
        match self.storage.remove(&segment.path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::io("remove", &segment.path, error));
            }
            _ => {}
        }
        self.segments.write().remove(&segment.id());
        Ok(is_ours.then(|| segment.clone()))
    }

    /// The length from which the log goes on in a new segment.
    pub(crate) fn segment_size(&self) -> u64 {
        self.segment_size.load(Ordering::Relaxed)
    }

    pub(crate) fn set_segment_size(&self, bytes: u64) {
        self.segment_size.store(bytes, Ordering::Relaxed);
    }

    pub(crate) fn storage(&self) -> &dyn Storage {
        self.storage.as_ref()
    }

    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Where files of the log are made.
    pub(crate) fn site(&self) -> Site<'_> {
        Site::new(self.storage.as_ref(), &self.dir, &self.cipher, self.defects)
    }

    pub(crate) fn cipher(&self) -> &Cipher {
        &self.cipher
    }

    /// Whether a file of the log has its name.
    pub(crate) fn is_named(&self, id: SegmentId) -> bool {
        id.is_pack() || id <= self.syncing.lock().named
    }

    pub(crate) fn segments(&self) -> Vec<Arc<Segment>> {
        self.segments.read().values().cloned().collect()
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn durable(&self) -> Lsn {
        Lsn(self.durable.load(Ordering::Acquire))
    }

    /// Bytes of frames appended since the store was opened.
    pub(crate) fn appended_bytes(&self) -> u64 {
        self.appended_bytes.load(Ordering::Relaxed)
    }

    /// Syncs of the log since the store was opened.
    pub(crate) fn syncs(&self) -> u64 {
        self.syncs.load(Ordering::Relaxed)
    }

    /// Changes whenever commits that somebody's classification may rest on were aborted.
    pub(crate) fn aborts(&self) -> u64 {
        self.aborts.load(Ordering::Acquire)
    }

    /// The stage at which a write call may return.
    pub(crate) fn acknowledged_stage(&self) -> Stage {
        match self.durability {
            Durability::Durable => Stage::Durable,
            Durability::Relaxed { .. } => Stage::Written,
        }
    }

    /// Puts a commit into the queue; the caller still holds its feeds' write locks, so that log
    /// order is position order in every feed. `aborts` is what [`Log::aborts`] was before the
    /// caller looked at the feeds.
    pub(crate) fn enqueue(
        &self,
        aborts: u64,
        mut frames: Vec<Frame>,
        mut publication: Publication,
    ) -> Result<Result<Arc<Ticket>, Retry>> {
        let mut queue = self.queue.lock();
        queue.check_open()?;
        if self.aborts() != aborts {
            return Ok(Err(Retry));
        }
        let last = frames.len().saturating_sub(1);
        for (index, frame) in frames.iter_mut().enumerate() {
            frame.header.lsn = queue.next_lsn;
            frame.header.continues = index < last && !self.defects.has(Defect::SplitCommits);
            queue.next_lsn = queue.next_lsn.next();
        }
        let lsn = frames
            .last()
            .map_or(self.durable(), |frame| frame.header.lsn);
        publication.lsn = lsn;
        let ticket = Arc::new(Ticket::queued(lsn));
        queue.waiting.push(Commit {
            ticket: ticket.clone(),
            frames,
            publication,
        });
        Ok(Ok(ticket))
    }

    /// Waits until a commit has reached `stage`, leading a group if nobody else does.
    ///
    /// # Errors
    /// [`Error::DiskFull`], or an I/O error for lack of descriptors, when the commit was aborted;
    /// [`Error::Poisoned`] when the log failed.
    pub(crate) fn wait(&self, ticket: &Ticket, stage: Stage) -> Result<()> {
        let mut queue = self.queue.lock();
        loop {
            if let Some(lack) = ticket.lack() {
                return Err(lack);
            }
            if ticket.reached(stage) {
                return Ok(());
            }
            if let Some(cause) = &queue.failure {
                return Err(Error::Poisoned {
                    cause: cause.clone(),
                });
            }
            if queue.leading {
                self.turn.wait(&mut queue);
                continue;
            }
            queue.leading = true;
            if stage == Stage::Durable {
                Queue::gather(&mut queue);
            }
            let group = std::mem::take(&mut queue.waiting);
            let size = group.len();
            drop(queue);
            let led = self.in_turn(Queue::stop_leading, || {
                self.lead(group, stage == Stage::Durable)
            });
            queue = self.queue.lock();
            queue.busy = size + queue.waiting.len();
            self.step_down(&mut queue, led);
        }
    }

    /// Is told something when so much is unsynced that it should not wait for the next interval.
    pub(crate) fn nudged(&self) -> Receiver<()> {
        self.nudge.1.clone()
    }

    /// Is told something when the log goes on in a new segment.
    pub(crate) fn rolled(&self) -> Receiver<()> {
        self.rolled.1.clone()
    }

    /// Refuses writes from now on, waits for a running group, and gives up nothing acknowledged.
    pub(crate) fn close(&self) -> Result<()> {
        {
            let mut queue = self.queue.lock();
            queue.closed = true;
            while queue.leading || !queue.waiting.is_empty() {
                // Whoever enqueued is about to wait for it, and will lead if nobody does.
                self.turn.wait_for(&mut queue, Duration::from_millis(1));
                if queue.failure.is_some() {
                    break;
                }
            }
        }
        self.flush()
    }

    /// Appends the frame of a clean close and syncs it. Called after [`Log::close`].
    pub(crate) fn mark_closed(&self) -> Result<()> {
        let mut frame = Frame::close();
        frame.seal(&self.cipher);
        let mut queue = self.queue.lock();
        queue.check_healthy()?;
        let ticket = queue.push_unobserved(frame);
        drop(queue);
        self.wait(&ticket, Stage::Durable)
    }

    /// Goes on in a segment under the current key, if the open one is under an older one: with a
    /// frame of state that changes nothing.
    #[cfg(feature = "encryption")]
    pub(crate) fn renew(&self) -> Result<()> {
        if same_key(&self.tail.lock().segment.cipher, &self.cipher) {
            return Ok(());
        }
        let mut frame = Frame::state(0, Vec::new());
        frame.seal(&self.cipher);
        let mut queue = self.queue.lock();
        queue.check_open()?;
        let ticket = queue.push_unobserved(frame);
        drop(queue);
        self.wait(&ticket, Stage::Durable)
    }

    /// Gives back the space that was reserved ahead, and what was kept for new segments; harmless if
    /// it fails.
    pub(crate) fn trim(&self) {
        self.spares.give_up(self.storage.as_ref());
        let mut tail = self.tail.lock();
        if self.check_healthy().is_ok() && tail.segment.file.set_len(tail.offset).is_ok() {
            (tail.allocated, tail.prepared) = (tail.offset, tail.offset);
        }
    }

    /// How often the store was opened after an unclean end.
    pub(crate) fn generation(&self) -> u32 {
        self.generation
    }

    /// Writes a group, syncs it when asked or when too much is at risk, and publishes what is
    /// durable. An error from here poisons the log.
    fn lead(&self, group: Vec<Commit>, sync: bool) -> Result<(), Error> {
        let mut tail = self.tail.lock();
        let tail = &mut *tail;
        let placed = match self.place(tail, &group) {
            Ok(placed) => placed,
            Err(error) if error.as_lack().is_some() => return self.abort(tail, group, error),
            Err(error) => return Err(error),
        };
        self.write(tail, &group, &placed)?;
        if sync {
            Self::prepare(tail, &group);
        }
        let mut places = placed.iter().map(|frame| Place {
            segment: frame.segment.id(),
            offset: frame.offset,
        });
        for commit in group {
            for frame in &commit.frames {
                self.appended_bytes
                    .fetch_add(frame.header.frame_len(), Ordering::Relaxed);
            }
            let headers = commit.frames.iter().map(|frame| &frame.header);
            commit.publication.place(headers.zip(&mut places));
            self.written
                .fetch_max(commit.ticket.lsn.0, Ordering::AcqRel);
            if self.defects.has(Defect::PublishBeforeSync) {
                commit.publication.publish();
            }
            if self.defects.has(Defect::RetireBeforeSync) {
                commit.publication.retire();
            }
            tail.unsynced
                .push(commit.ticket, commit.publication, &commit.frames);
            commit
                .frames
                .into_iter()
                .for_each(|frame| self.frames.put_back(frame));
        }
        let (records, bytes) = tail.unsynced.at_risk();
        let at_risk =
            records >= UNSYNCED_RECORDS_MAX || bytes >= UNSYNCED_BYTES_MAX || !tail.synced_once;
        if (sync || at_risk) && !tail.unsynced.is_empty() {
            return self.sync_and_publish(tail);
        }
        if bytes >= UNSYNCED_BYTES_NUDGE {
            // If it was nudged already, it is on its way.
            let _ = self.nudge.0.try_send(());
        }
        // Only now: what had to be synced first is not acknowledged if that sync failed. Waiters
        // look again when the leader steps down.
        tail.unsynced.note_written();
        Ok(())
    }

    /// Gives up a group that found no place, and every commit behind it, which may rest on it.
    ///
    /// Everything written before is synced and published first, so that afterwards whatever a feed
    /// still has pending is known to be aborted.
    fn abort(&self, tail: &mut Tail, group: Vec<Commit>, lack: Error) -> Result<(), Error> {
        if !tail.unsynced.is_empty() {
            self.sync_and_publish(tail)?;
        }
        let lack = Arc::new(lack);
        let mut queue = self.queue.lock();
        let behind = std::mem::take(&mut queue.waiting);
        for commit in group.into_iter().chain(behind) {
            commit.ticket.abort(lack.clone());
        }
        self.aborts.fetch_add(1, Ordering::AcqRel);
        Ok(())
    }

    /// Whether an earlier failure forbids writing.
    fn check_healthy(&self) -> Result<()> {
        self.queue.lock().check_healthy()
    }

    /// Whether writes are accepted.
    pub(crate) fn check_open(&self) -> Result<()> {
        self.queue.lock().check_open()
    }
}
