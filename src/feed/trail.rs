//! Where a re-sync is going: a provider returns records mostly in the order of the last time, so
//! after the record at one position the one at the next is likely to be due.
//!
//! A trail holds the entries of the frames that saves are walking through, read from the log, and
//! offers them to the next saves before the index is asked. An unchanged record then costs a
//! comparison with its neighbour in memory instead of a cache miss, or a read, somewhere in the
//! index; a feed that is only seen again needs no index at all. What the trail does not know, the
//! index does: it is a short cut and never an authority on what is absent.
//!
//! The changes of one sync lie in order as well, behind everything older. So there are several
//! *heads*: one walks through the old records, others through what earlier syncs have changed.

use crate::error::Result;
use crate::feed::read::read_entries;
use crate::feed::resident::Resident;
use crate::feed::state::FeedState;
use crate::hash::Fingerprint;
use crate::index::IndexEntry;
use crate::log::commit::Log;

/// How many places are followed at once.
const HEADS_MAX: usize = 4;
/// How many records a provider may leave out before a head is lost.
const AHEAD: usize = 8;
/// Two records found this close to each other make a new head.
const STEP_MAX: u64 = 8;
/// A frame is followed into only if it has this many live records ...
const LIVE_MIN: u32 = 32;
/// ... and one in so many is live: all its entries are read.
const DENSITY: u32 = 8;
/// One in so many of a stretch's records must have been met unchanged, or its head is given up.
const USE: usize = 4;
/// How many frames without live records are passed over.
const DEAD_MAX: usize = 1024;

/// See the module. Belongs to the writer of a feed.
#[derive(Default)]
pub(crate) struct Trail {
    /// The one that met a record last comes first.
    heads: Vec<Head>,
    /// Where the index found a record last.
    found: u64,
}

/// One place that saves are walking through.
struct Head {
    stretch: Stretch,
    /// The entry that is due.
    next: usize,
    /// How many entries of the stretch were met unchanged.
    met: usize,
}

/// The newest versions in one frame.
struct Stretch {
    first: u64,
    /// After the frame's last position.
    end: u64,
    /// In the order of their positions; superseded ones are marked.
    entries: Vec<IndexEntry>,
}

/// What a trail reads from.
#[derive(Clone, Copy)]
pub(crate) struct Source<'a> {
    pub(crate) log: &'a Log,
    pub(crate) feed: &'a FeedState,
    /// Knows which versions commits in the queue are going to supersede.
    pub(crate) resident: &'a Resident,
}

impl Trail {
    /// Whether there is anything to follow.
    pub(crate) fn is_empty(&self) -> bool {
        self.heads.is_empty()
    }

    /// Whether there is nothing to follow any more: every head has come to the end of the feed.
    pub(crate) fn is_at_end(&mut self, source: Source<'_>) -> bool {
        self.heads
            .retain_mut(|head| !head.is_at_end() || head.go_on(source));
        self.heads.is_empty()
    }

    /// Memory held, in bytes.
    pub(crate) fn memory(&self) -> usize {
        let entries = self
            .heads
            .iter()
            .map(|head| head.stretch.entries.capacity());
        entries.sum::<usize>() * size_of::<IndexEntry>()
    }

    /// Goes to the first record after `position`, from where the next save may go on.
    pub(crate) fn begin_after(&mut self, source: Source<'_>, position: u64) {
        let follows = |head: &Head| {
            let stretch = &head.stretch;
            (stretch.first..stretch.end).contains(&(position + 1))
        };
        if let Some(head) = self.heads.iter_mut().find(|head| follows(head)) {
            return head.go_to(position + 1);
        }
        if let Some(head) = Head::after(source, position) {
            self.heads.truncate(HEADS_MAX - 1);
            self.heads.insert(0, head);
        }
    }

    /// The newest version of the record with this key, if it is due, or nearly so, at some head.
    /// `content` is what the save brings.
    pub(crate) fn meet(
        &mut self,
        source: Source<'_>,
        key: Fingerprint,
        content: Fingerprint,
    ) -> Option<IndexEntry> {
        let mut at = 0;
        while let Some(head) = self.heads.get_mut(at) {
            if head.is_at_end() && !head.go_on(source) {
                self.heads.remove(at);
                continue;
            }
            if let Some(entry) = head.meet(key, content) {
                // Mostly it is the first one.
                if at > 0 {
                    self.heads.swap(0, at);
                }
                return Some(entry);
            }
            at += 1;
        }
        None
    }

    /// Takes note of where the index found records that no head met, in the order of the save: if
    /// the last of them are neighbours, a head follows them from here on.
    pub(crate) fn learn(&mut self, source: Source<'_>, positions: impl Iterator<Item = u64>) {
        let mut begins = None;
        for position in positions {
            let step = position.wrapping_sub(self.found);
            begins = (1..=STEP_MAX).contains(&step).then_some(position);
            self.found = position;
        }
        if let Some(position) = begins {
            self.begin_after(source, position);
        }
    }

    /// Takes note that versions are not the newest ones any more.
    pub(crate) fn forget(&mut self, positions: impl Iterator<Item = u64>) {
        if self.heads.is_empty() {
            return;
        }
        for position in positions {
            for head in &mut self.heads {
                head.stretch.forget(position);
            }
        }
    }
}

impl Head {
    fn after(source: Source<'_>, position: u64) -> Option<Self> {
        let stretch = Stretch::after(source, position)?;
        let mut head = Self {
            stretch,
            next: 0,
            met: 0,
        };
        head.go_to(position + 1);
        Some(head)
    }

    fn is_at_end(&self) -> bool {
        self.next >= self.stretch.entries.len()
    }

    fn go_to(&mut self, position: u64) {
        let entries = &self.stretch.entries;
        self.next = entries.partition_point(|entry| entry.position() < position);
    }

    /// Goes on to the next frame; false when there is none, or following has not paid.
    fn go_on(&mut self, source: Source<'_>) -> bool {
        if self.met * USE < self.stretch.entries.len() {
            return false;
        }
        let Some(next) = Stretch::after(source, self.stretch.end - 1) else {
            return false;
        };
        *self = Self {
            stretch: next,
            next: 0,
            met: 0,
        };
        true
    }

    fn meet(&mut self, key: Fingerprint, content: Fingerprint) -> Option<IndexEntry> {
        let due = self.stretch.entries.get(self.next..)?;
        let ahead = due.iter().take(AHEAD).position(|entry| entry.key == key)?;
        let entry = due[ahead];
        self.next += ahead + 1;
        self.met += usize::from(entry.content == content);
        (!entry.is_superseded()).then_some(entry)
    }
}

impl Stretch {
    /// The next frame after `position` that is worth following into. What cannot be read is not
    /// followed: whoever needs what is there is told why.
    fn after(source: Source<'_>, position: u64) -> Option<Self> {
        Self::read(source, position).ok().flatten()
    }

    fn read(source: Source<'_>, position: u64) -> Result<Option<Self>> {
        let (frame, segment) = {
            let published = source.feed.published.read();
            let directory = &published.directory;
            let later = directory.iter();
            let mut later = later
                .skip(directory.frame_after(position + 1))
                .take(DEAD_MAX);
            let Some(frame) = later.find(|frame| frame.live_count > 0) else {
                return Ok(None);
            };
            if frame.live_count < LIVE_MIN || frame.live_count < frame.count / DENSITY {
                return Ok(None);
            }
            (frame.clone(), source.log.segment_of(frame)?)
        };
        let mut entries = Vec::with_capacity(frame.live_count as usize);
        read_entries(&frame, &segment, &mut entries)?;
        let mut stretch = Self {
            first: frame.first,
            end: frame.end(),
            entries,
        };
        let (first, end) = (stretch.first, stretch.end);
        let queued = source.resident.pending.iter();
        let queued = queued
            .filter(|pending| pending.oldest_replaced < end && pending.newest_replaced >= first);
        for old in queued.flat_map(|pending| &pending.replaced) {
            stretch.forget(old.position());
        }
        Ok(Some(stretch))
    }

    fn forget(&mut self, position: u64) {
        if !(self.first..self.end).contains(&position) {
            return;
        }
        // In a frame of which all records are live, the place is the position.
        let guess = (position - self.first) as usize;
        let is_it = |entry: &IndexEntry| entry.position() == position;
        let at = match self.entries.get(guess).is_some_and(is_it) {
            true => guess,
            false => self
                .entries
                .partition_point(|entry| entry.position() < position),
        };
        if let Some(entry) = self.entries.get_mut(at).filter(|entry| is_it(entry)) {
            entry.set_superseded();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::Arc;

    use crate::options::Options;
    use crate::storage::MemoryStorage;
    use crate::store::Store;

    const COUNT: usize = 8000;
    const BATCH: usize = 500;

    /// Saves every record once, in batches; returns how many were unchanged, and the memory that the
    /// index and the trail take at the end.
    fn save_all(store: &Store, order: impl Fn(usize) -> usize, value: &str) -> (u64, u64) {
        let feed = store.feed("c", "m").unwrap();
        let ids: Vec<String> = (0..COUNT)
            .map(|at| format!("record {}", order(at)))
            .collect();
        let mut unchanged = 0;
        for batch in ids.chunks(BATCH) {
            let records: Vec<_> = batch.iter().map(|id| (id.as_str(), value)).collect();
            unchanged += feed.batch_save_raw(&records).unwrap().totals.unchanged;
        }
        (unchanged, feed.stats().unwrap().index_bytes)
    }

    fn open(disk: &MemoryStorage) -> Store {
        let options = Options::new().background(false).secret([1; 32]);
        options.storage(Arc::new(disk.clone())).open("/s").unwrap()
    }

    #[test]
    fn saves_in_the_order_of_the_last_ones_need_no_index() {
        let disk = MemoryStorage::new();
        let all = COUNT as u64;
        let store = open(&disk);
        let (unchanged, index) = save_all(&store, |at| at, "a");
        assert_eq!(unchanged, 0);
        store.close().unwrap();
        for _ in 0..2 {
            let store = open(&disk);
            for _ in 0..2 {
                let (unchanged, memory) = save_all(&store, |at| at, "a");
                assert_eq!(unchanged, all);
                assert!(memory > 0 && memory < index / 4, "{memory} of {index}");
            }
            store.close().unwrap();
        }
        // In another order it takes the index, and the same answers come out.
        let (unchanged, memory) = save_all(&open(&disk), |at| at * 3001 % COUNT, "a");
        assert_eq!(unchanged, all);
        assert!(memory >= index / 2, "{memory} of {index}");
    }
}
