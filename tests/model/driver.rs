//! One engine on a simulated disk, the model beside it, and readers that stand in the feeds while
//! everything happens to them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use highwater::storage::{Clock, ManualClock, MemoryStorage, Survivors};
use highwater::{
    Action, Cursor, Durability, Error, Expected, Feed, FeedOptions, List, Options, Order, Outcome,
    OwnedRecord, Record, RecordError, Replacement, Run, RunOptions, RunStatus, Store, Sweep,
    SyncKey,
};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::reference::{
    Author, By, Doc, FeedNo, KEEPS_PRUNED, Model, ModelFeed, ModelRecord, OUTCOMES, Payload,
    Report, Status, SyncNo, TRACKS_OWNER, Write,
};

pub const PATH: &str = "/store";
const NAMES: [(&str, &str, &str); 4] = [
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

/// A consumer: applies pages in order to its own copy. Of a pruned record it knows no payload.
#[derive(Clone, Debug, Default)]
pub struct Reader {
    pub feed: FeedNo,
    pub cursor: Option<Cursor>,
    pub copy: BTreeMap<String, Option<Vec<u8>>>,
    /// Whether it had seen everything when it was given its cursor.
    caught_up: bool,
}

impl Reader {
    /// Reads one page and applies it; starts over when it is told to. Returns whether there is
    /// more. `forgotten` are records that were hard-deleted, of which readers are not told.
    pub fn step(&mut self, feed: &Feed, limit: usize, forgotten: &BTreeSet<String>) -> bool {
        let page = match feed.list(&List::new().after(self.cursor).limit(limit)) {
            Err(Error::StaleCursor { .. } | Error::CursorExpired) if self.cursor.is_some() => {
                let feed = self.feed;
                *self = Self {
                    feed,
                    ..Self::default()
                };
                return true;
            }
            page => page.unwrap(),
        };
        let mut last = self.cursor;
        for record in page.iter() {
            assert!(
                last < Some(record.cursor),
                "pages ascend strictly and start after the cursor"
            );
            last = Some(record.cursor);
            let known = self.copy.contains_key(record.id);
            if self.cursor.is_some() && !forgotten.contains(record.id) {
                let added = record.last_action == Action::Added;
                assert!(!(added && known), "{} is no news to the reader", record.id);
                assert!(
                    added || known || !self.caught_up,
                    "{} is news to the reader: {:?}",
                    record.id,
                    record.last_action
                );
            }
            if record.is_deleted() {
                self.copy.remove(record.id);
            } else {
                let payload = record.payload.map(<[u8]>::to_vec);
                self.copy.insert(record.id.to_owned(), payload);
            }
        }
        assert!(page.len() <= limit);
        assert!(Some(page.resume_cursor()) >= last);
        self.cursor = Some(page.resume_cursor());
        self.caught_up = !page.has_more();
        page.has_more()
    }
}

/// A place in a feed, for the engine and for the model.
#[derive(Clone, Copy, Debug)]
pub struct Bookmark {
    pub cursor: Cursor,
    pub sequence: u64,
    pub epoch: u64,
    pub purges: u64,
}

/// A feed being filled anew, and the model of what it is filled with.
pub struct Staged {
    pub feed: FeedNo,
    pub replacement: Replacement,
    pub model: Model,
    /// Whether the feed was hard-deleted meanwhile.
    pub lost: bool,
}

pub struct Driver {
    pub disk: MemoryStorage,
    pub clock: Arc<ManualClock>,
    pub options: Options,
    pub store: Store,
    pub model: Model,
    pub readers: Vec<Reader>,
    pub runs: BTreeMap<SyncNo, Run>,
    pub staged: Option<Staged>,
    pub bookmarks: BTreeMap<FeedNo, Bookmark>,
    /// Records that were ever hard-deleted: readers may go on having them.
    pub forgotten: BTreeMap<FeedNo, BTreeSet<String>>,
    /// Models as of each commit since the last one that is known to be on stable storage.
    history: Vec<Model>,
    /// The greatest cursor of each feed that anybody was ever shown.
    shown: BTreeMap<FeedNo, Cursor>,
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
        let readers = (0..FEEDS)
            .map(|feed| Reader {
                feed,
                ..Reader::default()
            })
            .collect();
        let driver = Self {
            disk,
            clock,
            options,
            store,
            model: Model::default(),
            readers,
            runs: BTreeMap::new(),
            staged: None,
            bookmarks: BTreeMap::new(),
            forgotten: BTreeMap::new(),
            history: vec![Model::default()],
            shown: BTreeMap::new(),
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
        let (connection, model, variant) = NAMES[feed];
        self.store.feed_variant(connection, model, variant).unwrap()
    }

    /// The feed as a run, or somebody else, writes to it.
    pub fn writer(&self, feed: FeedNo, author: Author) -> Feed {
        match author {
            Some((sync, _)) => self.runs[&sync].feed(NAMES[feed].1).unwrap(),
            None => self.feed(feed),
        }
    }

    /// The author that a run of a sync is, if there is one and it writes to the feed.
    pub fn author(&self, sync: Option<SyncNo>, feed: FeedNo) -> Author {
        let sync = sync.filter(|_| feed < RUN_FEEDS)?;
        self.runs.get(&sync).map(|run| (sync, run.id()))
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
        let together = |feed: FeedNo| match author {
            Some(_) => feed < RUN_FEEDS,
            None => NAMES[feed].0 == connection,
        };
        let writes: Vec<_> = writes
            .iter()
            .filter(|(feed, _)| together(*feed))
            .map(|(feed, write)| (*feed, write.clone().fit_for(*feed)))
            .collect();
        let checkpoint = checkpoint.filter(|_| connection == "c");
        // One bookmark for all would be foreign to all feeds but one.
        let bookmark = self
            .bookmark(first)
            .filter(|_| merging && writes.len() == 1);
        let by = By {
            author,
            after: bookmark.map(|bookmark| bookmark.sequence),
        };
        let before = self.model.clone();
        let expected = self.model.commit(self.clock.now_micros(), by, &writes);
        let result = self.commit_to_engine(author, bookmark, connection, &writes, checkpoint);
        let Some(expected) = expected else {
            let refused = matches!(
                result,
                Err(Error::InvalidRecord {
                    reason: RecordError::NotJson,
                    ..
                })
            );
            assert!(refused, "{result:?}");
            assert_eq!(self.model, before);
            return;
        };
        let applied = result.unwrap();
        let mut done = Vec::new();
        for (((feed, write), applied), expected) in writes.iter().zip(&applied).zip(&expected) {
            check_outcomes(write, &applied.outcomes, expected);
            assert_eq!(applied.last_cursor.is_some(), applied.totals.changed() > 0);
            if let Some(cursor) = applied.last_cursor {
                self.show(*feed, cursor, true);
            }
            done.push((*feed, applied.outcomes.clone()));
        }
        if let Some(value) = checkpoint {
            let sync = author.map_or(0, |(sync, _)| sync);
            self.model.checkpoints.insert(sync, value);
        }
        let changes = |(_, outcomes): &(FeedNo, Vec<Outcome>)| {
            outcomes.iter().any(|outcome| outcome.is_change())
        };
        let committed = checkpoint.is_some() || done.iter().any(changes);
        self.model.tally(author, &done, committed);
        self.committed(committed);
    }

    /// A bookmark that is still good.
    pub fn bookmark(&self, feed: FeedNo) -> Option<Bookmark> {
        let epoch = self.model.feeds.get(&feed).map_or(0, |feed| feed.epoch);
        let bookmark = self.bookmarks.get(&feed).copied();
        bookmark.filter(|bookmark| bookmark.epoch == epoch)
    }

    /// Marks the place where a feed ends now.
    pub fn set_bookmark(&mut self, feed: FeedNo) {
        let Some(cursor) = self.feed(feed).last_cursor().unwrap() else {
            return;
        };
        // It was shown, so it has to be durable, with everything before it.
        self.mark_durable();
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
        if durably && self.options_are_durable() {
            self.history.clear();
        }
        self.history.push(self.model.clone());
    }

    fn options_are_durable(&self) -> bool {
        !format!("{:?}", self.options).contains("Relaxed")
    }

    fn commit_to_engine(
        &self,
        author: Author,
        bookmark: Option<Bookmark>,
        connection: &str,
        writes: &[(FeedNo, Write)],
        checkpoint: Option<u64>,
    ) -> highwater::Result<Vec<highwater::Applied>> {
        if let ([(feed, write)], None) = (writes, checkpoint) {
            let feed = self.writer(*feed, author);
            let feed = feed.ignore_if_modified_after(bookmark.map(|bookmark| bookmark.cursor));
            return write_to(&feed, write).map(|applied| vec![applied]);
        }
        let mut batch = match author {
            Some((sync, _)) => self.runs[&sync].batch(),
            None => self.store.batch(connection),
        };
        for (feed, write) in writes {
            let feed = self.writer(*feed, author);
            let feed = feed.ignore_if_modified_after(bookmark.map(|bookmark| bookmark.cursor));
            match write {
                Write::SaveJson(records) => batch.save(&feed, &spelt(records))?,
                Write::SaveRaw(records) => batch.save_raw(&feed, records)?,
                Write::Update(partials) => batch.update(&feed, &partial_texts(partials))?,
                Write::Delete(ids) => batch.delete(&feed, ids)?,
            }
        }
        if let Some(value) = checkpoint {
            let value = serde_json::json!({"at": value});
            match author {
                Some(_) => batch.run_checkpoint(&value, Expected::Any)?,
                None => batch.checkpoint("sync", "", &value, Expected::Any)?,
            }
        }
        batch.commit()
    }

    /// Notes that a cursor was shown; a `fresh` one must be newer than every one before.
    fn show(&mut self, feed: FeedNo, cursor: Cursor, fresh: bool) {
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
        for feed in 0..FEEDS {
            let empty = ModelFeed::default();
            let expected = self.model.feeds.get(&feed).unwrap_or(&empty).clone();
            let handle = self.feed(feed);
            check_feed(&handle, &expected);
            if let Some(cursor) = handle.last_cursor().unwrap() {
                self.show(feed, cursor, false);
            }
        }
        assert!(syncs_agree(&self.store, &self.model));
        let probe = self.disk.crash(Survivors::All);
        assert!(self.windows_agree(&probe, &self.model));
    }

    /// A read has just been answered from what is on stable storage, or a flush has.
    pub fn mark_durable(&mut self) {
        self.store.flush().unwrap();
        self.history.clear();
        self.history.push(self.model.clone());
    }

    pub fn step_reader(&mut self, reader: usize, limit: usize) {
        let at = reader % self.readers.len();
        let mut reader = std::mem::take(&mut self.readers[at]);
        let feed = self.feed(reader.feed);
        let unsynced_before = self.history.len() > 1;
        let forgotten = self.forgotten.entry(reader.feed).or_default().clone();
        reader.step(&feed, limit, &forgotten);
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
        self.store.close().unwrap();
        self.open_again(false);
        self.settle(self.model.clone().reopened());
    }

    pub fn compact(&mut self) {
        self.store.compact().unwrap();
        self.mark_durable();
    }

    pub fn rebuild(&mut self) {
        self.store.close().unwrap();
        self.open_again(true);
        self.settle(self.model.clone().reopened());
    }

    fn open_again(&mut self, rebuild: bool) {
        // Handles of the store that was left are good for nothing.
        self.runs.clear();
        self.staged = None;
        let options = self.options.clone().storage(Arc::new(self.disk.clone()));
        self.store = match rebuild {
            true => options.rebuild(PATH),
            false => options.open(PATH),
        }
        .unwrap();
    }

    /// Everything up to here is on stable storage.
    fn settle(&mut self, model: Model) {
        self.model = model;
        self.history = vec![self.model.clone()];
    }

    /// Cuts the power (or kills the process), opens again, and finds out which commits survived:
    /// a prefix of the history that has at least everything known to be durable.
    pub fn crash(&mut self, survivors: Survivors) {
        let probe = self.disk.crash(survivors);
        self.disk = probe.crash(Survivors::All);
        self.open_again(false);
        let states: Vec<Model> = self.history.drain(..).map(Model::reopened).collect();
        let agrees = |model: &Model| self.agrees(&probe, model);
        let survived = states.iter().rposition(agrees);
        let Some(survived) = survived else {
            panic!(
                "after {survivors:?} the store is at none of {} states",
                states.len()
            )
        };
        if survivors == Survivors::All {
            assert_eq!(
                states[survived],
                states[states.len() - 1],
                "a killed process loses nothing"
            );
        }
        self.settle(states[survived].clone());
    }

    fn agrees(&self, probe: &MemoryStorage, model: &Model) -> bool {
        let empty = ModelFeed::default();
        let feeds = (0..FEEDS).all(|feed| {
            let expected = model.feeds.get(&feed).unwrap_or(&empty);
            let found: Vec<OwnedRecord> = self
                .feed(feed)
                .records(None)
                .map(|record| record.unwrap())
                .collect();
            let records = expected.in_order();
            found.len() == records.len()
                && lag(&self.feed(feed)) == expected.lag()
                && found.iter().zip(records).all(|(found, (id, expected))| {
                    found.id == *id
                        && found.last_action == expected.action
                        && found.last_modified_at.as_micros() == expected.modified
                        && found.pruned_at.map(|moment| moment.as_micros()) == expected.pruned
                        && found
                            .payload
                            .as_deref()
                            .is_none_or(|found| same_payload(found, &expected.payload))
                })
        });
        feeds && syncs_agree(&self.store, model) && self.windows_agree(probe, model)
    }

    /// Whether closing each open window would delete what the model says: tried on a copy of the
    /// store, as nobody can look into a window.
    fn windows_agree(&self, probe: &MemoryStorage, model: &Model) -> bool {
        model.feeds.iter().all(|(feed, expected)| {
            let windows = self.feed(*feed).stats().unwrap().windows;
            let swept = |sync: &Option<SyncNo>| self.swept_of(probe, *feed, *sync);
            windows == expected.windows.len() as u64
                && expected
                    .windows
                    .keys()
                    .all(|sync| swept(sync) == expected.unseen(*sync, false))
        })
    }

    /// What a sweep deletes in a copy of the store.
    fn swept_of(
        &self,
        probe: &MemoryStorage,
        feed: FeedNo,
        sync: Option<SyncNo>,
    ) -> Option<Vec<String>> {
        let disk = probe.crash(Survivors::All);
        let options = self.options.clone().storage(Arc::new(disk));
        let store = options.open(PATH).unwrap();
        let run = sync.map(|sync| {
            let run = store.begin_run(&sync_key(sync), RunOptions::new());
            run.unwrap()
        });
        let (connection, name, variant) = NAMES[feed];
        let feed = match &run {
            Some(run) => run.feed(name).unwrap(),
            None => store.feed_variant(connection, name, variant).unwrap(),
        };
        let swept = feed.track_deletes_end(&Sweep::new().return_ids(true));
        swept.ok().map(|swept| swept.ids)
    }

    /// Every reader catches up, and must then have exactly the live records.
    pub fn converge(&mut self, limit: usize) {
        for at in 0..self.readers.len() {
            let mut reader = self.readers[at].clone();
            let feed = self.feed(reader.feed);
            let forgotten = self.forgotten.entry(reader.feed).or_default();
            while reader.step(&feed, limit, forgotten) {}
            let empty = ModelFeed::default();
            let expected = self.model.feeds.get(&reader.feed).unwrap_or(&empty);
            let live: BTreeMap<_, _> = expected
                .records
                .iter()
                .filter(|(_, record)| record.is_live())
                .collect();
            let extra = |id: &&String| !live.contains_key(id) && !forgotten.contains(*id);
            assert_eq!(
                reader.copy.keys().find(extra),
                None,
                "the consumer converges"
            );
            for (id, record) in live {
                match &reader.copy.get(id) {
                    Some(Some(found)) => assert!(same_payload(found, &record.payload)),
                    Some(None) => assert!(record.pruned.is_some(), "{id} has a payload"),
                    // Hard-deleted and not there again, or never come by.
                    None => panic!("the consumer lacks {id}"),
                }
            }
            self.readers[at] = reader;
        }
    }
}

/// One write as a commit of its own.
pub fn write_to(feed: &Feed, write: &Write) -> highwater::Result<highwater::Applied> {
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

/// Numbers in the generated documents are small integers, in one of two spellings.
fn normalized(value: Value) -> Value {
    match value {
        Value::Number(number) => Value::from(number.as_f64().unwrap() as i64),
        Value::Array(items) => items.into_iter().map(normalized).collect(),
        Value::Object(fields) => Value::Object(
            fields
                .into_iter()
                .map(|(key, v)| (key, normalized(v)))
                .collect(),
        ),
        other => other,
    }
}

pub fn same_payload(found: &[u8], expected: &Payload) -> bool {
    match expected {
        Payload::Raw(bytes) => found == bytes,
        Payload::Json(doc) => {
            let value: Value = serde_json::from_slice(found).unwrap();
            normalized(value) == normalized(Value::Object(doc.0.clone()))
        }
    }
}

/// The outcomes are those of the model, but for one: of a pruned JSON record there is nothing to
/// compare the value with, so in other bytes it counts as another one.
pub fn check_outcomes(write: &Write, found: &[Outcome], expected: &[Outcome]) {
    assert_eq!(found.len(), expected.len());
    for (at, (found, expected)) in found.iter().zip(expected).enumerate() {
        let json = matches!(write, Write::SaveJson(_));
        let spelt = json && *expected == Outcome::Restored && *found == Outcome::Updated;
        assert!(
            found == expected || spelt,
            "{found:?}, not {expected:?}, for input {at} of {write:?}"
        );
    }
}

fn lag(feed: &Feed) -> Option<u64> {
    feed.consumers().unwrap().first().map(|info| info.lag)
}

/// Whether checkpoints and run reports are those of the model.
fn syncs_agree(store: &Store, model: &Model) -> bool {
    let checkpoint = |value: Option<u64>| value.map(|at| format!("{{\"at\":{at}}}"));
    (0..SYNCS.len()).all(|sync| {
        let found = store.checkpoint("c", SYNCS[sync], "").unwrap();
        let found = found.map(|found| String::from_utf8(found.json).unwrap());
        let reports = store.runs(&sync_key(sync)).unwrap();
        let no_runs = Vec::new();
        let runs = model.runs.get(&sync).unwrap_or(&no_runs);
        found == checkpoint(model.checkpoints.get(&sync).copied())
            && reports.len() == runs.len()
            && reports.iter().rev().zip(runs).all(|(found, expected)| {
                let status = match expected.status {
                    Status::Running => RunStatus::Running,
                    Status::Succeeded => RunStatus::Succeeded,
                    Status::Failed => RunStatus::Failed,
                    Status::Interrupted => RunStatus::Interrupted,
                };
                found.status == status
                    && found.checkpoint_from == checkpoint(expected.from)
                    && found.checkpoint_to == checkpoint(expected.to)
                    && report_of(&found.models) == expected.report
            })
    })
}

fn report_of(models: &BTreeMap<String, highwater::Totals>) -> Report {
    let counts = |totals: &highwater::Totals| {
        OUTCOMES.map(|outcome| match outcome {
            Outcome::Added => totals.added,
            Outcome::Updated => totals.updated,
            Outcome::Deleted => totals.deleted,
            Outcome::Unchanged => totals.unchanged,
            Outcome::Duplicate => totals.duplicate,
            Outcome::NotFound => totals.not_found,
            Outcome::Restored => totals.restored,
            Outcome::Skipped => totals.skipped,
            _ => totals.pruned,
        })
    };
    let number = |model: &String| NAMES.iter().position(|(_, name, _)| name == model);
    let models = models.iter();
    models
        .map(|(model, totals)| (number(model).unwrap(), counts(totals)))
        .collect()
}

fn check_record(found: Record<'_>, id: &str, expected: &ModelRecord) {
    assert_eq!(found.id, id);
    assert_eq!(found.last_action, expected.action);
    assert_eq!(found.first_seen_at.as_micros(), expected.first_seen);
    assert_eq!(found.last_modified_at.as_micros(), expected.modified);
    let deleted = (!expected.is_live()).then_some(expected.modified);
    assert_eq!(found.deleted_at.map(|moment| moment.as_micros()), deleted);
    assert_eq!(
        found.pruned_at.map(|moment| moment.as_micros()),
        expected.pruned
    );
    match found.payload {
        Some(payload) => assert!(same_payload(payload, &expected.payload)),
        None => assert!(expected.pruned.is_some(), "{id} lacks its payload"),
    }
}

fn check_feed(feed: &Feed, expected: &ModelFeed) {
    let in_order = expected.in_order();
    assert_eq!(feed.count().unwrap(), expected.live() as u64);
    assert_eq!(
        feed.stats().unwrap().deleted,
        (in_order.len() - expected.live()) as u64
    );
    let all = feed.list(&List::new().limit(10_000)).unwrap();
    assert_eq!(all.len(), in_order.len());
    assert!(!all.has_more());
    let mut size = 0;
    for (found, (id, record)) in all.iter().zip(&in_order) {
        check_record(found, id, record);
        size += match found.payload {
            Some(payload) if record.is_live() => payload.len() as u64,
            _ => 0,
        };
    }
    assert_eq!(feed.size().unwrap(), size);
    assert_eq!(lag(feed), expected.lag());
    assert_eq!(
        feed.first_cursor().unwrap(),
        all.get(0).map(|record| record.cursor)
    );
    let last = all.iter().next_back().map(|record| record.cursor);
    assert_eq!(feed.last_cursor().unwrap(), last);

    let ids: Vec<&String> = in_order.iter().map(|(id, _)| *id).collect();
    let got = feed.get(&ids).unwrap();
    assert_eq!(got.len(), ids.len());
    for (found, (id, record)) in got.iter().zip(&in_order) {
        check_record(found, id, record);
    }
    let back = feed
        .list(&List::new().limit(10_000).order(Order::Descending))
        .unwrap();
    assert!(
        back.iter().rev().eq(all.iter()),
        "descending is ascending, reversed"
    );
    for filter in [Action::Added | Action::Deleted, Action::Updated.into()] {
        let page = feed
            .list(&List::new().limit(10_000).filter(filter))
            .unwrap();
        let expected = all
            .iter()
            .filter(|record| filter.contains(record.last_action));
        assert!(page.iter().eq(expected));
    }
    if let Some(middle) = all.get(all.len() / 2) {
        let moment = middle.last_modified_at;
        let page = feed
            .list(&List::new().limit(10_000).modified_after(moment))
            .unwrap();
        let expected = all.iter().filter(|r| r.last_modified_at > moment);
        assert!(page.iter().eq(expected));
        let some = [middle.id, "never saved"];
        let page = feed
            .list(&List::new().ids(some).metadata_only(true))
            .unwrap();
        assert_eq!(
            page.iter().map(|r| (r.id, r.payload)).collect::<Vec<_>>(),
            [(middle.id, None)]
        );
    }
}
