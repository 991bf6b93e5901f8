//! One engine on a simulated disk, the model beside it, and readers that stand in the feeds while
//! everything happens to them.
//!
//! Calls may fail when the [`Trust`] in the disk says so. The driver then finds out what that means:
//! nothing was done, or the store is poisoned and the commit may be there after the next open.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use highwater::storage::{Clock, Fault, ManualClock, MemoryStorage, Survivors};
use highwater::{
    Applied, Cursor, Durability, Error, Expected, Feed, FeedOptions, Options, Outcome, RecordError,
    Replacement, Result, Run, RunOptions, Store, Sweep, SyncKey, WriteBatch,
};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::checker::{check_feed, check_outcomes, feed_agrees, status_of, syncs_agree};
use crate::reader::Reader;
use crate::reference::{
    Author, By, Doc, FeedNo, KEEPS_PRUNED, Model, ModelFeed, Status, SyncNo, TRACKS_OWNER, Write,
};

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

/// A batch that was begun and is not committed yet.
pub struct OpenBatch {
    batch: WriteBatch,
    author: Author,
    writes: Vec<(FeedNo, Write)>,
}

/// What keeps an open from coming to its end.
#[derive(Clone, Copy, Debug)]
pub enum Interruption {
    /// The power fails after so many operations, and leaves this of the disk.
    Power(u64, Survivors),
    /// A fault strikes; the next attempt is made in the same boot.
    Fault(Fault),
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
    is_durable: bool,
    /// Models as of each commit since the last one that is known to be on stable storage, and one
    /// that may be when the store is poisoned.
    history: Vec<Rc<Model>>,
    /// Models that recovery may take for the newest if the log's last frames are damaged: nothing
    /// later in the log vouches for them.
    unvouched: Vec<Rc<Model>>,
    /// Whether frames were written since the newest state was known to be durable.
    has_written: bool,
    /// The greatest cursor of each feed that anybody was ever shown.
    shown: BTreeMap<FeedNo, Cursor>,
    /// Whether what a commit counted as restored, or as updated, was never answered.
    counts_loosely: bool,
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
        let (connection, model, variant) = NAMES[feed];
        self.store.feed_variant(connection, model, variant)
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

    /// Commits writes, with a checkpoint or not, and compares the outcomes with the model's.
    pub fn commit(&mut self, writes: &[(FeedNo, Write)], checkpoint: Option<u64>) {
        self.commit_by(None, false, writes, checkpoint);
    }

    /// The same, through the run of a sync if it has one; `merging` leaves alone what somebody
    /// else changed after the feed's bookmark.
    pub fn commit_by(
        &mut self,
        sync: Option<SyncNo>,
        merging: bool,
        writes: &[(FeedNo, Write)],
        checkpoint: Option<u64>,
    ) {
        let first = writes.first().map_or(0, |(feed, _)| *feed);
        let author = self.author(sync, first);
        let connection = NAMES[first].0;
        let writes = self.fitting(author, connection, writes);
        let checkpoint = checkpoint.filter(|_| connection == "c");
        // One bookmark for all would be foreign to all feeds but one, and to what is filled anew.
        let bookmark = self.bookmark(first);
        let bookmark =
            bookmark.filter(|_| merging && writes.len() == 1 && self.filler(author).is_none());
        let cursor = bookmark.map(|bookmark| bookmark.cursor);
        let mut feeds = Vec::new();
        for (feed, _) in &writes {
            let Some(feed) = self.writer(*feed, author) else {
                return;
            };
            feeds.push(feed.ignore_if_modified_after(cursor));
        }
        let by = By {
            author,
            after: bookmark.map(|bookmark| bookmark.sequence),
        };
        let result = match (&writes[..], checkpoint) {
            ([(_, write)], None) => write_to(&feeds[0], write).map(|applied| vec![applied]),
            _ => {
                let batch = self.begin_batch(author, connection);
                fill_batch(batch, &feeds, &writes, author, checkpoint).and_then(WriteBatch::commit)
            }
        };
        self.conclude_writes(result, by, &writes, checkpoint);
    }

    /// The writes that can be made together.
    fn fitting(
        &self,
        author: Author,
        connection: &str,
        writes: &[(FeedNo, Write)],
    ) -> Vec<(FeedNo, Write)> {
        let together = |feed: FeedNo| match author {
            Some(_) => feed < RUN_FEEDS,
            None => NAMES[feed].0 == connection,
        };
        let writes = writes.iter().filter(|(feed, _)| together(*feed));
        writes
            .map(|(feed, write)| (*feed, write.clone().fit_for(*feed)))
            .collect()
    }

    fn begin_batch(&self, author: Author, connection: &str) -> WriteBatch {
        match author {
            Some((sync, _)) => self.runs[&sync].batch(),
            None => self.store.batch(connection),
        }
    }

    /// Compares what came of writes with what the model says.
    fn conclude_writes(
        &mut self,
        result: Result<Vec<Applied>>,
        by: By,
        writes: &[(FeedNo, Write)],
        checkpoint: Option<u64>,
    ) {
        let now = self.clock.now_micros();
        let filler = self.filler(by.author);
        if writes.iter().any(|(feed, _)| self.is_lost(filler, *feed)) {
            return self.refuses_lost(result);
        }
        let (mut next, expected) = self.next(filler, |model| model.commit(now, by, writes));
        let Some(expected) = expected else {
            let refused = Error::InvalidRecord {
                index: 0,
                reason: RecordError::NotJson,
            };
            match result {
                Ok(_) => panic!("what should be refused is taken: {refused}"),
                Err(Error::InvalidRecord {
                    reason: RecordError::NotJson,
                    ..
                }) => {}
                Err(error) => self.excuse(&error, None),
            }
            return;
        };
        let outcomes = match &result {
            Ok(applied) => applied.iter().map(|of| of.outcomes.clone()).collect(),
            Err(_) => expected.clone(),
        };
        let feeds = writes.iter().map(|(feed, _)| *feed);
        let done: Vec<(FeedNo, Vec<Outcome>)> = feeds.zip(outcomes).collect();
        for ((_, write), ((_, found), expected)) in writes.iter().zip(done.iter().zip(&expected)) {
            check_outcomes(write, found, expected);
        }
        if let Some(value) = checkpoint {
            let sync = by.author.map_or(0, |(sync, _)| sync);
            next.model.checkpoints.insert(sync, value);
        }
        let changes = |(_, outcomes): &(FeedNo, Vec<Outcome>)| {
            outcomes.iter().any(|outcome| outcome.is_change())
        };
        let committed = checkpoint.is_some() || done.iter().any(changes);
        next.model.tally(by.author, &done, committed);
        self.counts_loosely |= result.is_err()
            && expected
                .iter()
                .flatten()
                .any(|outcome| *outcome == Outcome::Restored);
        let Some(applied) = self.conclude(result, next, committed) else {
            return;
        };
        for ((feed, _), applied) in writes.iter().zip(&applied) {
            assert_eq!(applied.last_cursor.is_some(), applied.totals.changed() > 0);
            if let Some(cursor) = applied.last_cursor.filter(|_| filler.is_none()) {
                self.show(*feed, cursor, true);
            }
        }
    }

    /// Has a writer add to the batch that it has open, or begin one.
    pub fn add_to_batch(&mut self, writer: usize, sync: Option<SyncNo>, write: (FeedNo, Write)) {
        let open = self.batches.remove(&writer);
        let author = match &open {
            Some(open) => open.author,
            None => self.author(sync, write.0),
        };
        // Only the newest run of a sync has a handle to take feeds from.
        let current = author.is_none_or(|(sync, _)| self.author(Some(sync), 0) == author);
        let first = open.as_ref().and_then(|open| open.writes.first());
        let connection = NAMES[first.map_or(write.0, |(feed, _)| *feed)].0;
        let writes = self.fitting(author, connection, &[write]);
        let open = open.unwrap_or_else(|| OpenBatch {
            batch: self.begin_batch(author, connection),
            author,
            writes: Vec::new(),
        });
        let OpenBatch {
            batch, writes: all, ..
        } = open;
        let feeds: Option<Vec<Feed>> = match current {
            true => writes
                .iter()
                .map(|(feed, _)| self.writer(*feed, author))
                .collect(),
            false => None,
        };
        let Some(feeds) = feeds else {
            if all.is_empty() {
                // With nothing in it, nothing tells any more whose batch it is.
                return;
            }
            let writes = all;
            let open = OpenBatch {
                batch,
                author,
                writes,
            };
            self.batches.insert(writer, open);
            return;
        };
        let answer = fill_batch(batch, &feeds, &writes, author, None);
        if let Some(batch) = self.look(answer) {
            let writes = [all, writes].concat();
            let open = OpenBatch {
                batch,
                author,
                writes,
            };
            self.batches.insert(writer, open);
        }
    }

    /// Has a writer commit the batch that it has open.
    pub fn commit_batch(&mut self, writer: usize) {
        let Some(open) = self.batches.remove(&writer) else {
            return;
        };
        let OpenBatch {
            batch,
            author,
            writes,
        } = open;
        let result = batch.commit();
        let ended = author.is_some_and(|(sync, _)| self.author(Some(sync), 0) != author);
        match result {
            Err(Error::RunEnded { .. } | Error::RunFenced { .. } | Error::ReplaceLost { .. })
                if ended => {}
            result => {
                assert!(!ended || result.is_err(), "a run writes after its end");
                let after = None;
                self.conclude_writes(result, By { author, after }, &writes, None);
            }
        }
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
    fn forget_history(&mut self) {
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

    pub fn close_and_open(&mut self) {
        self.reopen(false);
    }

    pub fn rebuild(&mut self) {
        self.reopen(true);
    }

    /// Closes the store, and opens it again in the same boot; again when that fails.
    fn reopen(&mut self, rebuild: bool) {
        let closed = self.store.close();
        let closed = self.look(closed).is_some();
        let probe = self.disk.crash(Survivors::All);
        let opened = self.open_again(rebuild);
        if self.look(opened).is_none() {
            if self.reported.is_some() {
                return;
            }
            self.disk.heal();
            if let Err(error) = self.open_again(rebuild) {
                // The power may be gone.
                self.excuse(&error, None);
                return;
            }
        }
        if closed && !self.poisoned {
            self.settle(self.reopened(&self.model));
        } else {
            self.find_survivors(&probe, Survivors::All);
        }
    }

    pub fn compact(&mut self) {
        let compacted = self.store.compact();
        if self.look(compacted).is_some() {
            self.mark_durable();
        }
    }

    pub fn save_catalog(&mut self) {
        let saved = self.store.checkpoint_catalog();
        if self.look(saved).is_some() {
            self.mark_durable();
        }
    }

    /// Nobody else can open the store.
    pub fn open_twice(&mut self) {
        let options = self.options.clone().storage(Arc::new(self.disk.clone()));
        match options.open(PATH) {
            Ok(_) => panic!("two have the store open"),
            Err(Error::Locked { .. }) => {}
            Err(error) => self.excuse(&error, None),
        }
    }

    fn open_again(&mut self, rebuild: bool) -> Result<()> {
        // Handles of the store that was left are good for nothing.
        self.runs.clear();
        self.replacement = None;
        self.fillings.clear();
        self.batches.clear();
        let options = self.options.clone().storage(Arc::new(self.disk.clone()));
        self.store = match rebuild {
            true => options.rebuild(PATH),
            false => options.open(PATH),
        }?;
        Ok(())
    }

    /// A state as it is when the store is open again.
    fn reopened(&self, state: &Model) -> Model {
        let goes_on = |sync: &SyncNo| {
            let reports = self.store.runs(&sync_key(*sync)).unwrap_or_default();
            let newest = reports.first().map(|report| status_of(report.status));
            newest == Some(Status::Running)
        };
        let left = (0..SYNCS.len()).filter(|sync| self.trust != Trust::Sound && goes_on(sync));
        state.clone().reopened(&left.collect())
    }

    /// Everything up to here is on stable storage.
    fn settle(&mut self, model: Model) {
        self.model = model;
        self.poisoned = false;
        self.history.push(Rc::new(self.model.clone()));
        self.forget_history();
        self.unvouched.clone_from(&self.history);
    }

    /// Cuts the power (or kills the process), opens again, and finds out which commits survived:
    /// a prefix of the history that has at least everything known to be durable.
    pub fn crash(&mut self, survivors: Survivors) {
        self.crash_through(survivors, &[]);
    }

    /// The same, with opens that are interrupted before the last one.
    pub fn crash_through(&mut self, mut survivors: Survivors, interruptions: &[Interruption]) {
        self.leave(survivors);
        for interruption in interruptions {
            let trust = self.trust;
            self.trust = trust.or_failing();
            let left = match *interruption {
                Interruption::Power(after, survivors) => {
                    self.disk.stop_at(after);
                    survivors
                }
                Interruption::Fault(fault) => {
                    self.disk.fail(fault);
                    Survivors::All
                }
            };
            self.open_and_look(survivors);
            self.trust = trust;
            if self.reported.is_some() {
                return;
            }
            if left != Survivors::All {
                survivors = left;
            }
            self.leave(left);
        }
        self.open_and_look(survivors);
    }

    /// The process ends, or everything does; whoever still has handles finds no disk behind them.
    fn leave(&mut self, survivors: Survivors) {
        let left = self.disk.crash(survivors);
        let dead = std::mem::replace(&mut self.disk, left);
        dead.stop_at(0);
        for (fault, times) in dead.strikes() {
            *self.strikes.entry(fault).or_default() += times;
        }
    }

    fn open_and_look(&mut self, survivors: Survivors) {
        let probe = self.disk.crash(Survivors::All);
        let opened = self.open_again(false);
        if self.look(opened).is_some() {
            self.find_survivors(&probe, survivors);
        }
    }

    /// The store was opened after an unclean end: it must be in one of the states that the history
    /// allows. `probe` is the disk before.
    fn find_survivors(&mut self, probe: &MemoryStorage, survivors: Survivors) {
        let found = self.survivors(probe, survivors);
        if let Some(found) = self.look(found) {
            if found != self.reopened(&self.model) && self.trust != Trust::Sound {
                // What readers were given is gone: the disk did not do what it said.
                self.bookmarks.clear();
                self.shown.clear();
                let afresh = |reader: &mut Reader| *reader = Reader::of(reader.feed);
                self.readers.iter_mut().for_each(afresh);
            }
            // Nothing has been written yet that vouches for what was found.
            let (found_at, states) = (Rc::new(found.clone()), self.states());
            let at = states.iter().rposition(|state| *state == found_at);
            self.settle(found);
            self.unvouched = states;
            self.unvouched.truncate(at.map_or(0, |at| at + 1));
        }
    }

    /// The states that the store may be in after an unclean end, as they are when it is open again.
    fn states(&self) -> Vec<Rc<Model>> {
        let older = match self.trust {
            Trust::Lying => &[],
            _ => &self.unvouched[..],
        };
        let states = older.iter().chain(&self.history);
        let states = states.map(|state| Rc::new(self.reopened(state)));
        states.collect()
    }

    fn survivors(&self, probe: &MemoryStorage, survivors: Survivors) -> Result<Model> {
        let mut states = self.states();
        if self.trust != Trust::Damaged {
            states.drain(..states.len() - self.history.len());
        }
        let is_newest = |state: &Rc<Model>| **state == self.model;
        let acknowledged = self.history.iter().rposition(is_newest);
        let acknowledged = acknowledged.map(|at| states.len() - self.history.len() + at);
        for state in states.iter().rev() {
            if !self.agrees(probe, state)? {
                continue;
            }
            let found = states.iter().rposition(|other| other == state);
            assert!(
                survivors != Survivors::All || self.trust != Trust::Sound || found >= acknowledged,
                "a killed process loses nothing"
            );
            return Ok(Model::clone(state));
        }
        let newest = states.last().map(|state| self.difference(state));
        let newest = newest.transpose()?.flatten();
        panic!(
            "after {survivors:?} the store is at none of {} states; the newest has {}",
            states.len(),
            newest.unwrap_or("other windows")
        )
    }

    fn agrees(&self, probe: &MemoryStorage, model: &Model) -> Result<bool> {
        Ok(self.shows(model)?
            && self.windows_agree(probe, model)?
            && self.times_agree(probe, model)?)
    }

    /// Whether the next changes would be as late as the model says. Only that tells a feed from which
    /// everything was removed from one that was emptied as a whole.
    fn times_agree(&self, probe: &MemoryStorage, model: &Model) -> Result<bool> {
        let now = self.clock.now_micros();
        for (feed, (connection, name, variant)) in NAMES.into_iter().enumerate() {
            let next = |model: &Model| {
                let known = model.feeds.get(&feed).map_or(0, |feed| feed.time);
                now.max(known + 1)
            };
            let expected = next(model);
            let mut others = self.history.iter().chain(&self.unvouched);
            if others.all(|other| next(other) == expected) {
                continue;
            }
            let written = self.on_copy(probe, |store| {
                let feed = store.feed_variant(connection, name, variant)?;
                let _ = feed.batch_save_raw(&[("next", "1")])?;
                feed.get(&["next"])
            })?;
            let time = written.get(0).unwrap().last_modified_at.as_micros();
            if time != expected {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// What somebody would do with the store, done with a copy of it.
    fn on_copy<T>(
        &self,
        probe: &MemoryStorage,
        act: impl FnOnce(&Store) -> Result<T>,
    ) -> Result<T> {
        let disk = probe.crash(Survivors::All);
        let options = self.options.clone().storage(Arc::new(disk.clone()));
        let store = options.open(PATH)?;
        let done = act(&store);
        disk.stop_at(0);
        done
    }

    /// Whether readers see what the model says.
    fn shows(&self, model: &Model) -> Result<bool> {
        Ok(self.difference(model)?.is_none())
    }

    /// What of the model readers do not see, if anything.
    fn difference(&self, model: &Model) -> Result<Option<&'static str>> {
        let empty = ModelFeed::default();
        for (feed, (_, name, _)) in NAMES.iter().enumerate() {
            let expected = model.feeds.get(&feed).unwrap_or(&empty);
            if !feed_agrees(&self.try_feed(feed)?, expected)? {
                return Ok(Some(name));
            }
        }
        let same = syncs_agree(&self.store, model, self.counts_loosely)?;
        Ok((!same).then_some("other checkpoints or reports"))
    }

    /// Whether closing each open window would delete what the model says: tried on a copy of the
    /// store, as nobody can look into a window.
    fn windows_agree(&self, probe: &MemoryStorage, model: &Model) -> Result<bool> {
        for (feed, expected) in &model.feeds {
            let windows = self.try_feed(*feed)?.stats()?.windows;
            if windows != expected.windows.len() as u64 {
                return Ok(false);
            }
            for sync in expected.windows.keys() {
                if self.swept_of(probe, *feed, *sync)? != expected.unseen(*sync, false) {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// What a sweep deletes in a copy of the store.
    fn swept_of(
        &self,
        probe: &MemoryStorage,
        feed: FeedNo,
        sync: Option<SyncNo>,
    ) -> Result<Option<Vec<String>>> {
        let swept = self.on_copy(probe, |store| {
            let begin = |sync| store.begin_run(&sync_key(sync), RunOptions::new());
            let run = sync.map(begin).transpose()?;
            let (connection, name, variant) = NAMES[feed];
            let feed = match &run {
                Some(run) => run.feed(name)?,
                None => store.feed_variant(connection, name, variant)?,
            };
            // A refusal says that there is no such window.
            Ok(feed.track_deletes_end(&Sweep::new().return_ids(true)))
        })?;
        match swept {
            Ok(swept) => Ok(Some(swept.ids)),
            Err(Error::NoWindow { .. }) => Ok(None),
            Err(error) => Err(error),
        }
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

/// Adds writes to a batch, each to its feed, and a checkpoint.
fn fill_batch(
    mut batch: WriteBatch,
    feeds: &[Feed],
    writes: &[(FeedNo, Write)],
    author: Author,
    checkpoint: Option<u64>,
) -> Result<WriteBatch> {
    for (feed, (_, write)) in feeds.iter().zip(writes) {
        match write {
            Write::SaveJson(records) => batch.save(feed, &spelt(records))?,
            Write::SaveRaw(records) => batch.save_raw(feed, records)?,
            Write::Update(partials) => batch.update(feed, &partial_texts(partials))?,
            Write::Delete(ids) => batch.delete(feed, ids)?,
        }
    }
    if let Some(value) = checkpoint {
        let value = serde_json::json!({"at": value});
        match author {
            Some(_) => batch.run_checkpoint(&value, Expected::Any)?,
            None => batch.checkpoint("sync", "", &value, Expected::Any)?,
        }
    }
    Ok(batch)
}

/// One write as a commit of its own.
pub fn write_to(feed: &Feed, write: &Write) -> Result<Applied> {
    match write {
        Write::SaveJson(records) => feed.batch_save(&spelt(records)),
        Write::SaveRaw(records) => feed.batch_save_raw(records),
        Write::Update(partials) => feed.batch_update(&partial_texts(partials)),
        Write::Delete(ids) => feed.batch_delete(ids),
    }
}

impl Write {
    /// Where pruned records stay pruned, outcomes must not hang on spelling; see
    /// [`check_outcomes`].
    pub fn fit_for(self, feed: FeedNo) -> Self {
        match self {
            Self::SaveJson(records) if feed == KEEPS_PRUNED => {
                let raw = |(id, version, _)| (id, vec![version]);
                Self::SaveRaw(records.into_iter().map(raw).collect())
            }
            other => other,
        }
    }
}

fn spelt(records: &[(String, u8, u8)]) -> Vec<Box<RawValue>> {
    let spell = |(id, version, spelling): &(String, u8, u8)| {
        RawValue::from_string(Doc::new(id, *version).spell(*spelling)).unwrap()
    };
    records.iter().map(spell).collect()
}

fn partial_texts(partials: &[(String, Doc)]) -> Vec<Value> {
    partials
        .iter()
        .map(|(_, doc)| Value::Object(doc.0.clone()))
        .collect()
}
