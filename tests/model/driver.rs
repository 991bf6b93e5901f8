//! One engine on a simulated disk, the model beside it, and readers that stand in the feeds while
//! everything happens to them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use highwater::storage::{ManualClock, MemoryStorage, Survivors};
use highwater::{
    Action, Cursor, Durability, Error, Expected, Feed, List, Options, Order, OwnedRecord, Record,
    RecordError, Store,
};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::reference::{Doc, FeedNo, Model, ModelFeed, Payload, Write};

pub const PATH: &str = "/store";
const NAMES: [(&str, &str, &str); 4] = [
    ("c", "contact", ""),
    ("c", "company", ""),
    ("c", "contact", "eu"),
    ("cc", "ontact", ""),
];
pub const FEEDS: usize = NAMES.len();

/// A consumer: applies pages in order to its own copy.
#[derive(Clone, Debug, Default)]
pub struct Reader {
    pub feed: FeedNo,
    pub cursor: Option<Cursor>,
    pub copy: BTreeMap<String, Vec<u8>>,
}

impl Reader {
    /// Reads one page and applies it. Returns whether there is more.
    pub fn step(&mut self, feed: &Feed, limit: usize) -> bool {
        let page = feed
            .list(&List::new().after(self.cursor).limit(limit))
            .unwrap();
        let mut last = self.cursor;
        for record in page.iter() {
            assert!(
                last < Some(record.cursor),
                "pages ascend strictly and start after the cursor"
            );
            last = Some(record.cursor);
            match record.last_action {
                Action::Deleted => self.copy.remove(record.id),
                _ => self
                    .copy
                    .insert(record.id.to_owned(), record.payload.unwrap().to_vec()),
            };
        }
        assert!(page.len() <= limit);
        assert!(Some(page.resume_cursor()) >= last);
        self.cursor = Some(page.resume_cursor());
        page.has_more()
    }
}

pub struct Driver {
    pub disk: MemoryStorage,
    pub clock: Arc<ManualClock>,
    pub options: Options,
    pub store: Store,
    pub model: Model,
    pub readers: Vec<Reader>,
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
        Self {
            disk,
            clock,
            options,
            store,
            model: Model::default(),
            readers,
            history: vec![Model::default()],
            shown: BTreeMap::new(),
        }
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

    /// Commits writes, with a checkpoint or not, and compares the outcomes with the model's.
    pub fn commit(&mut self, writes: &[(FeedNo, Write)], checkpoint: Option<u64>) {
        use highwater::storage::Clock;
        let connection = NAMES[writes.first().map_or(0, |(feed, _)| *feed)].0;
        let writes: Vec<_> = writes
            .iter()
            .filter(|(feed, _)| NAMES[*feed].0 == connection)
            .cloned()
            .collect();
        let checkpoint = checkpoint.filter(|_| connection == "c");
        let before = self.model.clone();
        let expected = self.model.commit(self.clock.now_micros(), &writes);
        let result = self.commit_to_engine(connection, &writes, checkpoint);
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
        let outcomes: Vec<_> = applied
            .iter()
            .map(|applied| applied.outcomes.clone())
            .collect();
        assert_eq!(outcomes, expected, "{writes:?}");
        if let Some(value) = checkpoint {
            self.model.checkpoint = Some(value);
        }
        for ((feed, _), applied) in writes.iter().zip(applied) {
            assert_eq!(applied.last_cursor.is_some(), applied.totals.changed() > 0);
            if let Some(cursor) = applied.last_cursor {
                self.show(*feed, cursor, true);
            }
        }
        if self.options_are_durable() {
            self.history.clear();
        }
        self.history.push(self.model.clone());
    }

    fn options_are_durable(&self) -> bool {
        !format!("{:?}", self.options).contains("Relaxed")
    }

    fn commit_to_engine(
        &self,
        connection: &str,
        writes: &[(FeedNo, Write)],
        checkpoint: Option<u64>,
    ) -> highwater::Result<Vec<highwater::Applied>> {
        if let ([(feed, write)], None) = (writes, checkpoint) {
            let feed = self.feed(*feed);
            let applied = match write {
                Write::SaveJson(records) => feed.batch_save(&spelt(records)),
                Write::SaveRaw(records) => feed.batch_save_raw(records),
                Write::Update(partials) => feed.batch_update(&partial_texts(partials)),
                Write::Delete(ids) => feed.batch_delete(ids),
            };
            return applied.map(|applied| vec![applied]);
        }
        let mut batch = self.store.batch(connection);
        for (feed, write) in writes {
            let feed = self.feed(*feed);
            match write {
                Write::SaveJson(records) => batch.save(&feed, &spelt(records))?,
                Write::SaveRaw(records) => batch.save_raw(&feed, records)?,
                Write::Update(partials) => batch.update(&feed, &partial_texts(partials))?,
                Write::Delete(ids) => batch.delete(&feed, ids)?,
            }
        }
        if let Some(value) = checkpoint {
            batch.checkpoint("sync", "", &serde_json::json!({"at": value}), Expected::Any)?;
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
        let checkpoint = self.store.checkpoint("c", "sync", "").unwrap();
        let value = checkpoint.map(|found| {
            let json: Value = serde_json::from_slice(&found.json).unwrap();
            json["at"].as_u64().unwrap()
        });
        assert_eq!(value, self.model.checkpoint);
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
        reader.step(&feed, limit);
        if unsynced_before {
            // The page may have shown anything up to now; so it must all be durable.
            self.mark_durable();
        }
        self.show(reader.feed, reader.cursor.unwrap(), false);
        self.readers[at] = reader;
    }

    pub fn close_and_open(&mut self) {
        self.store.close().unwrap();
        self.open_again();
        self.history.clear();
        self.history.push(self.model.clone());
    }

    fn open_again(&mut self) {
        let options = self.options.clone().storage(Arc::new(self.disk.clone()));
        self.store = options.open(PATH).unwrap();
    }

    pub fn rebuild(&mut self) {
        self.store.close().unwrap();
        let options = self.options.clone().storage(Arc::new(self.disk.clone()));
        self.store = options.rebuild(PATH).unwrap();
        self.history.clear();
        self.history.push(self.model.clone());
    }

    /// Cuts the power (or kills the process), opens again, and finds out which commits survived:
    /// a prefix of the history that has at least everything known to be durable.
    pub fn crash(&mut self, survivors: Survivors) {
        self.disk = self.disk.crash(survivors);
        self.open_again();
        let survived = self.history.iter().rposition(|model| self.agrees(model));
        let Some(survived) = survived else {
            panic!(
                "after {survivors:?} the store is at none of {} states",
                self.history.len()
            )
        };
        if survivors == Survivors::All {
            assert_eq!(
                survived,
                self.history.len() - 1,
                "a killed process loses nothing"
            );
        }
        self.model = self.history[survived].clone();
        self.history = vec![self.model.clone()];
    }

    fn agrees(&self, model: &Model) -> bool {
        let empty = ModelFeed::default();
        (0..FEEDS).all(|feed| {
            let expected = model.feeds.get(&feed).unwrap_or(&empty);
            let found: Vec<OwnedRecord> = self
                .feed(feed)
                .records(None)
                .map(|record| record.unwrap())
                .collect();
            let expected = expected.in_order();
            found.len() == expected.len()
                && found.iter().zip(expected).all(|(found, (id, expected))| {
                    found.id == *id
                        && found.last_action == expected.action
                        && found.last_modified_at.as_micros() == expected.modified
                        && same_payload(found.payload.as_deref().unwrap(), &expected.payload)
                })
        }) && {
            let found = self.store.checkpoint("c", "sync", "").unwrap();
            let value = found.map(|found| {
                serde_json::from_slice::<Value>(&found.json).unwrap()["at"]
                    .as_u64()
                    .unwrap()
            });
            value == model.checkpoint
        }
    }

    /// Every reader catches up, and must then have exactly the live records.
    pub fn converge(&mut self, limit: usize) {
        for at in 0..self.readers.len() {
            let mut reader = self.readers[at].clone();
            let feed = self.feed(reader.feed);
            while reader.step(&feed, limit) {}
            let empty = ModelFeed::default();
            let expected = self.model.feeds.get(&reader.feed).unwrap_or(&empty);
            let live: BTreeMap<_, _> = expected
                .records
                .iter()
                .filter(|(_, record)| record.is_live())
                .collect();
            assert!(
                reader.copy.keys().eq(live.keys().copied()),
                "the consumer converges"
            );
            for (id, record) in live {
                assert!(same_payload(&reader.copy[id], &record.payload));
            }
            self.readers[at] = reader;
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

fn check_record(found: Record<'_>, id: &str, expected: &crate::reference::ModelRecord) {
    assert_eq!(found.id, id);
    assert_eq!(found.last_action, expected.action);
    assert_eq!(found.first_seen_at.as_micros(), expected.first_seen);
    assert_eq!(found.last_modified_at.as_micros(), expected.modified);
    let deleted = (!expected.is_live()).then_some(expected.modified);
    assert_eq!(found.deleted_at.map(|moment| moment.as_micros()), deleted);
    assert!(same_payload(found.payload.unwrap(), &expected.payload));
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
        size += if record.is_live() {
            found.payload.unwrap().len() as u64
        } else {
            0
        };
    }
    assert_eq!(feed.size().unwrap(), size);
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
