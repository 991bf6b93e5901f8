//! One engine on a simulated disk, the model beside it, and readers that stand in the feeds while
//! everything happens to them.
//!
//! Calls may fail when the [`Trust`] in the disk says so. The driver then finds out what that means:
//! nothing was done, or the store is poisoned and the commit may be there after the next open.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use highwater::storage::{ManualClock, MemoryStorage, Survivors};
use highwater::{
    Cursor, Durability, Error, Feed, FeedOptions, Options, Replacement, Result, Run, Store, SyncKey,
};

use crate::checker::{check_feed, syncs_agree};
use crate::reader::Reader;
use crate::reference::{Author, FeedNo, KEEPS_PRUNED, Model, ModelFeed, SyncNo, TRACKS_OWNER};
use crate::writing::OpenBatch;

pub const PATH: &str = "/store";
pub const NAMES: [(&str, &str, &str); 4] = [
    ("c", "contact", ""),
    ("c", "company", ""),
    ("c", "contact", "eu"),
    ("cc", "ontact", ""),
];
pub const FEEDS: usize = NAMES.len();
/// Runs write to the first feeds only: those of their connection and variant.
pub const RUN_FEEDS: usize = 2;
pub const SYNCS: [&str; 2] = ["sync", "other"];

pub fn feed_of(store: &Store, feed: FeedNo) -> Result<Feed> {
    let (connection, model, variant) = NAMES[feed];
    store.feed_variant(connection, model, variant)
}

pub fn sync_key(sync: SyncNo) -> SyncKey {
    SyncKey::new("c", SYNCS[sync], "").unwrap()
}

/// A place in a feed, for the engine and for the model.
#[derive(Clone, Copy, Debug)]
pub struct Bookmark {
    pub cursor: Cursor,
    pub sequence: u64,
    pub epoch: u64,
    pub purges: u64,
}

/// What is known of the disk, and so what calls may answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trust {
    /// It does what it says: every call gets through.
    Sound,
    /// It fails, and says so: calls may fail, and what fails at the worst moment poisons the store.
    Failing,
    /// It says that it has synced, and has not: a crash may leave any older state, or damage.
    Lying,
    /// It changed what it was given: that may be reported as damage.
    Damaged,
}

/// Who fills epochs that nobody reads yet: a run of a sync, or a replacement outside of runs.
pub type Filler = Option<SyncNo>;

/// Epochs that are being filled, and the model of what they are filled with.
#[derive(Default)]
pub struct Filling {
    pub model: Model,
    pub feeds: BTreeSet<FeedNo>,
    /// Those of them that were hard-deleted meanwhile: nothing takes their place any more.
    pub lost: BTreeSet<FeedNo>,
}

/// Where the models stand if an operation gets through.
pub struct Next {
    pub model: Model,
    pub filling: Option<(Filler, Model)>,
}

pub struct Driver {
    pub disk: MemoryStorage,
    pub clock: Arc<ManualClock>,
    pub options: Options,
    pub store: Store,
    pub model: Model,
    pub readers: Vec<Reader>,
    pub runs: BTreeMap<SyncNo, Run>,
    pub replacement: Option<(FeedNo, Replacement)>,
    pub fillings: BTreeMap<Filler, Filling>,
    pub batches: BTreeMap<usize, OpenBatch>,
    pub bookmarks: BTreeMap<FeedNo, Bookmark>,
    /// Records that were ever hard-deleted: readers may go on having them.
    pub forgotten: BTreeMap<FeedNo, BTreeSet<String>>,
    pub trust: Trust,
    /// Whether a write or a sync has failed since the store was opened.
    pub poisoned: bool,
    /// What the engine said of damage.
    pub reported: Option<String>,
    pub is_durable: bool,
    /// Models as of each commit since the last one that is known to be on stable storage, and one
    /// that may be when the store is poisoned.
    pub history: Vec<Rc<Model>>,
    /// Models that recovery may take for the newest if the log's last frames are damaged: nothing
    /// later in the log vouches for them.
    pub unvouched: Vec<Rc<Model>>,
    /// Whether frames were written since the newest state was known to be durable.
    pub has_written: bool,
    /// The greatest cursor of each feed that anybody was ever shown.
    pub shown: BTreeMap<FeedNo, Cursor>,
    /// Whether what a commit counted as restored, or as updated, was never answered.
    pub counts_loosely: bool,
    /// How often each fault has struck on disks that were left.
    pub strikes: BTreeMap<&'static str, u64>,
}

impl Driver {
    pub fn new(options: Options) -> Self {
        let disk = MemoryStorage::new();
        let clock = Arc::new(ManualClock::new(1_700_000_000_000_000));
        let options = options
            .background(false)
            .secret([7; 32])
            .clock(clock.clone());
        let store = options
            .clone()
            .storage(Arc::new(disk.clone()))
            .open(PATH)
            .unwrap();
        let is_durable = !format!("{options:?}").contains("Relaxed");
        let driver = Self {
            disk,
            clock,
            options,
            store,
            model: Model::default(),
            readers: (0..FEEDS).map(Reader::of).collect(),
            runs: BTreeMap::new(),
            replacement: None,
            fillings: BTreeMap::new(),
            batches: BTreeMap::new(),
            bookmarks: BTreeMap::new(),
            forgotten: BTreeMap::new(),
            trust: Trust::Sound,
            poisoned: false,
            reported: None,
            is_durable,
            history: vec![Rc::default()],
            unvouched: vec![Rc::default()],
            has_written: false,
            shown: BTreeMap::new(),
            counts_loosely: false,
            strikes: BTreeMap::new(),
        };
        let configure = |feed, options| driver.feed(feed).configure(options).unwrap();
        configure(KEEPS_PRUNED, FeedOptions::new().keep_pruned(true));
        configure(TRACKS_OWNER, FeedOptions::new().track_owner(true));
        driver.store.flush().unwrap();
        driver
    }

    pub fn relaxed() -> Durability {
        Durability::Relaxed {
            interval: Duration::from_secs(3600),
        }
    }

    pub fn feed(&self, feed: FeedNo) -> Feed {
        self.try_feed(feed).unwrap()
    }

    pub fn try_feed(&self, feed: FeedNo) -> Result<Feed> {
        feed_of(&self.store, feed)
    }

    /// The feed as a run, or somebody else, writes to it; `None` when it cannot be had.
    pub fn writer(&mut self, feed: FeedNo, author: Author) -> Option<Feed> {
        let Some((sync, _)) = author else {
            let feed = self.try_feed(feed);
            return self.look(feed);
        };
        let answer = self.runs[&sync].feed(NAMES[feed].1);
        let Some(filling) = self.fillings.get(&Some(sync)) else {
            return self.look(answer);
        };
        if filling.feeds.contains(&feed) {
            return self.look(answer);
        }
        if self.is_being_filled(feed) {
            assert!(
                matches!(
                    answer,
                    Err(Error::ReplaceInProgress { .. }) | Err(Error::Poisoned { .. })
                ),
                "{answer:?}"
            );
            return None;
        }
        let found = self.look(answer)?;
        self.fillings.get_mut(&Some(sync))?.feeds.insert(feed);
        Some(found)
    }

    pub fn is_being_filled(&self, feed: FeedNo) -> bool {
        let mut all = self.fillings.values();
        all.any(|filling| filling.feeds.contains(&feed))
    }

    /// Whether what is filled of a feed was lost, so that writing to it is refused.
    pub fn is_lost(&self, filler: Option<Filler>, feed: FeedNo) -> bool {
        let filling = filler.and_then(|filler| self.fillings.get(&filler));
        filling.is_some_and(|filling| filling.lost.contains(&feed))
    }

    /// The author that a run of a sync is, if there is one and it writes to the feed.
    pub fn author(&self, sync: Option<SyncNo>, feed: FeedNo) -> Author {
        let sync = sync.filter(|_| feed < RUN_FEEDS)?;
        self.runs.get(&sync).map(|run| (sync, run.id()))
    }

    /// Who fills the epochs that an author writes to, if they are not those that everybody reads.
    pub fn filler(&self, author: Author) -> Option<Filler> {
        let filler = author.map(|(sync, _)| Some(sync));
        filler.filter(|filler| self.fillings.contains_key(filler))
    }

    /// Lets the model go on where an author writes: in the feeds, or in what is filled anew.
    pub fn next<T>(
        &self,
        filler: Option<Filler>,
        go_on: impl FnOnce(&mut Model) -> T,
    ) -> (Next, T) {
        let mut model = self.model.clone();
        let Some(filler) = filler else {
            let value = go_on(&mut model);
            let filling = None;
            return (Next { model, filling }, value);
        };
        let mut filled = self.fillings[&filler].model.clone();
        // Times and order go on; what is in the feeds now does not matter.
        filled.sequence = model.sequence;
        let value = go_on(&mut filled);
        model.sequence = filled.sequence;
        let filling = Some((filler, filled));
        (Next { model, filling }, value)
    }

    /// The engine has answered. `durably` says that what it did is a commit of its own, and not
    /// only as durable as the next one.
    pub fn conclude<T>(&mut self, answer: Result<T>, next: Next, durably: bool) -> Option<T> {
        match answer {
            Ok(value) => {
                let changed = next.model != self.model || next.filling.is_some();
                assert!(
                    !(self.poisoned && changed),
                    "something is acknowledged after a failure"
                );
                self.model = next.model;
                if let Some((filler, model)) = next.filling
                    && let Some(filling) = self.fillings.get_mut(&filler)
                {
                    filling.model = model;
                }
                self.committed(durably);
                Some(value)
            }
            Err(error) => {
                self.excuse(&error, Some(next.model));
                None
            }
        }
    }

    /// The answer to a call that changes nothing.
    pub fn look<T>(&mut self, answer: Result<T>) -> Option<T> {
        answer.map_err(|error| self.excuse(&error, None)).ok()
    }

    /// Something has failed, for which there must be a reason. When that poisons the store, what was
    /// on its way may be there after the next open: `next`.
    pub fn excuse(&mut self, error: &Error, next: impl IntoIterator<Item = Model>) {
        let damaged = matches!(self.trust, Trust::Lying | Trust::Damaged);
        let excused = match error {
            // `Closed` is a store that failed to open, or whose power is gone.
            Error::Io { .. }
            | Error::DiskFull { .. }
            | Error::Catalog { .. }
            | Error::Closed
            | Error::Poisoned { .. } => self.trust != Trust::Sound,
            Error::Corrupt { .. } | Error::UnknownFormat { .. } => damaged,
            // In relaxed durability it was acknowledged, and could not be synced to be seen.
            Error::UnknownConsumer { .. } => self.trust != Trust::Sound && self.is_poisoned(),
            _ => false,
        };
        let poisoned = self.poisoned && matches!(error, Error::Poisoned { .. });
        assert!(excused || poisoned, "without a reason: {error:?}");
        if damaged {
            self.reported.get_or_insert(error.to_string());
        }
        if !self.poisoned && self.is_poisoned() {
            self.poisoned = true;
            self.history.extend(next.into_iter().map(Rc::new));
        }
    }

    /// Finds out whether a failure that nobody was told of has poisoned the store.
    pub fn notice_poison(&mut self) {
        self.poisoned |= self.is_poisoned();
    }

    fn is_poisoned(&self) -> bool {
        let nothing: [(&str, &str); 0] = [];
        let answer = self
            .try_feed(0)
            .and_then(|feed| feed.batch_save_raw(&nothing));
        matches!(answer, Err(Error::Poisoned { .. }))
    }

    /// A bookmark that is still good.
    pub fn bookmark(&self, feed: FeedNo) -> Option<Bookmark> {
        let epoch = self.model.feeds.get(&feed).map_or(0, |feed| feed.epoch);
        let bookmark = self.bookmarks.get(&feed).copied();
        bookmark.filter(|bookmark| bookmark.epoch == epoch)
    }

    /// Marks the place where a feed ends now.
    pub fn set_bookmark(&mut self, feed: FeedNo) {
        let cursor = self.try_feed(feed).and_then(|feed| feed.last_cursor());
        let Some(cursor) = self.look(cursor).flatten() else {
            return;
        };
        // It was shown, so it has to be durable, with everything before it.
        self.mark_durable();
        if self.poisoned {
            return;
        }
        self.show(feed, cursor, false);
        let model = self.model.feeds[&feed].clone();
        let newest = model.records.values().map(|record| record.sequence).max();
        let bookmark = Bookmark {
            cursor,
            sequence: newest.unwrap(),
            epoch: model.epoch,
            purges: model.purges,
        };
        self.bookmarks.insert(feed, bookmark);
    }

    /// The model has just gone on by an acknowledged commit, or only by what is as durable as the
    /// next commit after it.
    pub fn committed(&mut self, durably: bool) {
        let now = Rc::new(self.model.clone());
        if self.history.last() != Some(&now) {
            // What changes nothing, or waits for the next commit, may have written no frame.
            self.has_written |= durably;
            self.history.push(now.clone());
            self.unvouched.push(now);
        }
        if durably && self.is_durable {
            self.forget_history();
        }
    }

    /// The newest state is on stable storage, and so is what vouches for those before it.
    pub fn forget_history(&mut self) {
        if std::mem::take(&mut self.has_written) {
            self.unvouched.clone_from(&self.history);
        }
        // Of a disk that lies, nothing is known to be durable.
        if self.trust != Trust::Lying {
            self.history.drain(..self.history.len() - 1);
        }
    }

    /// Notes that a cursor was shown; a `fresh` one must be newer than every one before.
    pub fn show(&mut self, feed: FeedNo, cursor: Cursor, fresh: bool) {
        let shown = self.shown.entry(feed).or_insert(cursor);
        if fresh && *shown != cursor {
            assert!(
                *shown < cursor,
                "a cursor that was shown is given out again"
            );
        }
        *shown = (*shown).max(cursor);
    }

    /// Everything a reader can ask, against the model.
    pub fn check(&mut self) {
        self.mark_durable();
        let checked = self.checked();
        self.look(checked);
    }

    fn checked(&mut self) -> Result<()> {
        if self.poisoned {
            return self.check_published();
        }
        for feed in 0..FEEDS {
            let empty = ModelFeed::default();
            let expected = self.model.feeds.get(&feed).unwrap_or(&empty).clone();
            let handle = self.try_feed(feed)?;
            check_feed(&handle, &expected)?;
            if let Some(cursor) = handle.last_cursor()? {
                self.show(feed, cursor, false);
            }
        }
        assert!(
            syncs_agree(&self.store, &self.model, self.counts_loosely)?,
            "checkpoints and reports are those of the model"
        );
        if self.trust == Trust::Damaged {
            // The copy of the store may end earlier, where nothing vouches for what is damaged.
            return Ok(());
        }
        let probe = self.disk.crash(Survivors::All);
        assert!(
            self.windows_agree(&probe, &self.model)?,
            "windows have seen what the model says"
        );
        Ok(())
    }

    /// What readers see of a poisoned store is what was published: everything acknowledged, when
    /// that is the same as durable, and never what failed.
    fn check_published(&self) -> Result<()> {
        let is_newest = |state: &Rc<Model>| **state == self.model;
        let acknowledged = self.history.iter().rposition(is_newest);
        let acknowledged = acknowledged.map_or(0, |at| at + 1);
        let mut states = self.history[..acknowledged].iter().rev();
        for state in &mut states {
            if self.shows(state)? {
                return Ok(());
            }
        }
        panic!("a poisoned store shows none of {acknowledged} states")
    }

    /// A read has just been answered from what is on stable storage, or a flush has.
    pub fn mark_durable(&mut self) {
        let flushed = self.store.flush();
        if self.look(flushed).is_some() && !self.poisoned {
            self.committed(false);
            self.forget_history();
        }
    }

    pub fn step_reader(&mut self, reader: usize, limit: usize) {
        let at = reader % self.readers.len();
        let mut reader = std::mem::take(&mut self.readers[at]);
        let unsynced_before = self.history.len() > 1;
        let forgotten = self.forgotten.entry(reader.feed).or_default().clone();
        let feed = self.try_feed(reader.feed);
        let before = reader.clone();
        let stepped = feed.and_then(|feed| reader.step(&feed, limit, &forgotten));
        if self.look(stepped).is_none() {
            self.readers[at] = before;
            return;
        }
        if unsynced_before {
            // The page may have shown anything up to now; so it must all be durable.
            self.mark_durable();
        }
        if let Some(cursor) = reader.cursor {
            self.show(reader.feed, cursor, false);
        }
        self.readers[at] = reader;
    }

    /// Every reader catches up, and must then have exactly the live records.
    pub fn converge(&mut self, limit: usize) {
        for at in 0..self.readers.len() {
            let mut reader = self.readers[at].clone();
            let forgotten = self.forgotten.entry(reader.feed).or_default().clone();
            let feed = self.try_feed(reader.feed);
            let drained = feed.and_then(|feed| reader.drain(&feed, limit, &forgotten));
            if self.look(drained).is_none() {
                return;
            }
            let empty = ModelFeed::default();
            let expected = self.model.feeds.get(&reader.feed).unwrap_or(&empty);
            reader.check(expected, &forgotten);
            self.readers[at] = reader;
        }
    }
}

impl Trust {
    /// The same for a moment in which the disk may fail besides.
    pub fn or_failing(self) -> Self {
        match self {
            Self::Sound => Self::Failing,
            other => other,
        }
    }
}
