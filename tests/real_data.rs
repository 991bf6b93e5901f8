//! Successive snapshots of real data, saved and read back through the change feed, compared with
//! what plain maps say. The data is the sample in `data/`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::Path;

use flate2::read::GzDecoder;
use highwater::{Action, Actions, Cursor, Feed, List, Options, Store, Totals};
use serde_json::Value;

const SNAPSHOTS: [&[u8]; 3] = [
    include_bytes!("../data/oui-1.0.10.ndjson.gz"),
    include_bytes!("../data/oui-1.1.396.ndjson.gz"),
    include_bytes!("../data/oui-2.1.9.ndjson.gz"),
];
const BATCH: usize = 250;

type Records = BTreeMap<String, Value>;
type Ids = BTreeSet<String>;

/// The three snapshots, and the second one again, which takes hundreds of records away.
fn days() -> Vec<Records> {
    let [first, second, third] = SNAPSHOTS.map(records);
    vec![first, second.clone(), third, second]
}

fn records(zipped: &[u8]) -> Records {
    let mut text = String::new();
    let mut unzipped = GzDecoder::new(zipped);
    unzipped.read_to_string(&mut text).expect("gzip");
    let record = |line| {
        let record: Value = serde_json::from_str(line).expect("JSON");
        let id = record["id"].as_str().expect("an id").to_owned();
        (id, record)
    };
    text.lines().map(record).collect()
}

/// Ids that were added, updated and deleted from one snapshot to the next.
fn difference(before: &Records, after: &Records) -> [Ids; 3] {
    let keys = |records: &Records| records.keys().cloned().collect::<Ids>();
    let (old, new) = (keys(before), keys(after));
    let differs = |id: &&String| before[*id] != after[*id];
    [
        &new - &old,
        (&new & &old).iter().filter(differs).cloned().collect(),
        &old - &new,
    ]
}

/// Saves a snapshot and deletes what is live and not in it.
fn save(feed: &Feed, snapshot: &Records) -> Totals {
    let mut totals = Totals::default();
    let values: Vec<&Value> = snapshot.values().collect();
    for batch in values.chunks(BATCH) {
        totals += feed.batch_save(batch).expect("saved").totals;
    }
    let live = |record: &highwater::OwnedRecord| record.last_action != Action::Deleted;
    let all = feed.records(None).map(|record| record.expect("a record"));
    let ids = all.filter(live).map(|record| record.id);
    let gone: Vec<String> = ids.filter(|id| !snapshot.contains_key(id)).collect();
    totals += feed.batch_delete(&gone).expect("deleted").totals;
    totals
}

/// A consumer that keeps nothing but its copy and the text of its cursor.
#[derive(Default)]
struct Consumer {
    copy: Records,
    cursor: Option<String>,
}

impl Consumer {
    /// Applies one page to the copy, adds its ids to `changes`, and says whether there is more.
    fn read(&mut self, feed: &Feed, limit: usize, changes: &mut [Ids; 3]) -> bool {
        let after = self.cursor.as_deref().map(|text| text.parse::<Cursor>());
        let after = after.transpose().expect("a cursor");
        let page = feed
            .list(&List::new().after(after).limit(limit).relative(false))
            .expect("a page");
        for record in page.iter() {
            let id = record.id.to_owned();
            assert!(
                changes[record.last_action as usize].insert(id.clone()),
                "{id} came twice"
            );
            if record.is_deleted() {
                assert!(self.copy.remove(&id).is_some(), "{id} was never there");
            } else {
                self.copy.insert(id, record.json().expect("JSON"));
            }
        }
        self.cursor = Some(page.resume_cursor().to_string());
        page.has_more()
    }
}

fn open(path: &Path) -> (Store, Feed) {
    let store = Store::open(path).expect("opened");
    let feed = store.feed("registry", "Company").expect("a feed");
    (store, feed)
}

/// The store is closed and opened again before every page.
#[test]
fn the_feed_tells_what_changed_between_snapshots() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut consumer = Consumer::default();
    let mut before = Records::new();
    for after in days() {
        let (store, feed) = open(dir.path());
        let totals = save(&feed, &after);
        store.close().expect("closed");
        let expected = difference(&before, &after);
        let counts = [totals.added, totals.updated, totals.deleted];
        assert_eq!(counts, expected.each_ref().map(|ids| ids.len() as u64));
        assert_eq!(
            totals.added + totals.updated + totals.unchanged,
            after.len() as u64
        );

        let mut changes = [const { Ids::new() }; 3];
        loop {
            let (store, feed) = open(dir.path());
            let more = consumer.read(&feed, 97, &mut changes);
            store.close().expect("closed");
            if !more {
                break;
            }
        }
        assert_eq!(changes, expected);
        assert_eq!(consumer.copy, after);
        before = after;
    }
}

#[test]
fn the_same_snapshot_again_changes_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let (_store, feed) = open(dir.path());
    let [snapshot, ..] = SNAPSHOTS.map(records);
    assert_eq!(save(&feed, &snapshot).added, snapshot.len() as u64);
    let cursor = feed.last_cursor().expect("a cursor");
    let totals = save(&feed, &snapshot);
    assert_eq!(
        (totals.changed(), totals.unchanged),
        (0, snapshot.len() as u64)
    );
    assert_eq!(feed.last_cursor().expect("a cursor"), cursor);
    let page = feed
        .list(&List::new().after(cursor).relative(false))
        .expect("a page");
    assert!(page.is_empty() && !page.has_more());
}

#[test]
fn filters_and_rebuilds_agree_with_the_whole_feed() {
    let dir = tempfile::tempdir().expect("a directory");
    let (store, feed) = open(dir.path());
    for snapshot in days() {
        save(&feed, &snapshot);
    }
    let all =
        |feed: &Feed| -> Vec<_> { feed.records(None).map(|r| r.expect("a record")).collect() };
    let whole = all(&feed);
    let report = store.verify(|_, _| {}).expect("verified");
    assert!(report.is_clean(), "{report:?}");

    let deleted: Vec<_> = whole.iter().filter(|r| r.deleted_at.is_some()).collect();
    let live = whole.len() - deleted.len();
    assert_eq!(feed.count().expect("a count"), live as u64);
    for (filter, expected) in [
        (Actions::from(Action::Deleted), deleted.len()),
        (Action::Added | Action::Updated, live),
    ] {
        let list = List::new().filter(filter).limit(10_000).metadata_only(true);
        let page = feed.list(&list).expect("a page");
        assert!(
            page.iter()
                .all(|r| filter.contains(r.last_action) && r.payload.is_none())
        );
        assert_eq!((page.len(), page.has_more()), (expected, false));
    }

    drop((store, feed));
    let store = Options::new().rebuild(dir.path()).expect("rebuilt");
    let feed = store.feed("registry", "Company").expect("a feed");
    assert_eq!(all(&feed), whole);
}
