//! Stores to compact, and what they show.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use highwater::storage::{ManualClock, MemoryStorage, Storage, Survivors};
use highwater::{Feed, Options, OwnedRecord, Result, Store};

pub const STORE: &str = "/s";

pub fn options(disk: &MemoryStorage) -> Options {
    Options::new()
        .storage(Arc::new(disk.clone()))
        .segment_size(4096)
        .background(false)
        .clock(Arc::new(ManualClock::new(1_700_000_000_000_000)))
        .secret([3; 32])
}

pub fn eager(disk: &MemoryStorage) -> Options {
    options(disk).eager_compaction(true)
}

pub fn feed(store: &Store, model: &str) -> Feed {
    store.feed("c", model).unwrap()
}

/// Saves records of `len` bytes under ids of a number each.
pub fn save(feed: &Feed, ids: impl IntoIterator<Item = usize>, len: usize, fill: char) {
    let body = fill.to_string().repeat(len);
    let records: Vec<_> = ids
        .into_iter()
        .map(|id| (id.to_string(), body.clone()))
        .collect();
    let _ = feed.batch_save_raw(&records).unwrap();
}

pub fn records(feed: &Feed) -> Vec<OwnedRecord> {
    feed.records(None).collect::<Result<_>>().unwrap()
}

/// A record on one line.
pub fn line(record: &OwnedRecord) -> String {
    let payload = record.payload.as_deref().map(|payload| {
        let first = payload.first().map(|byte| char::from(*byte));
        (
            payload.len(),
            first,
            payload.iter().all(|byte| payload[0] == *byte),
        )
    });
    let OwnedRecord {
        id,
        last_action,
        cursor,
        ..
    } = record;
    let times = (
        record.first_seen_at,
        record.last_modified_at,
        record.pruned_at,
    );
    format!("{id} {last_action} {cursor} {times:?} {payload:?}")
}

/// Everything that some feeds show.
pub fn view(store: &Store) -> BTreeMap<String, Vec<String>> {
    let infos = store.feeds().unwrap();
    let view = infos.into_iter().map(|info| {
        let feed = store.feed(&info.key.connection, &info.key.model).unwrap();
        assert_eq!(feed.count().unwrap(), info.live);
        (info.key.model, records(&feed).iter().map(line).collect())
    });
    view.collect()
}

pub fn files(disk: &MemoryStorage, suffix: &str) -> Vec<PathBuf> {
    let dir = Path::new(STORE).join("log");
    let names = disk.list(&dir).unwrap();
    let names = names.into_iter().filter(|name| name.ends_with(suffix));
    names.map(|name| dir.join(name)).collect()
}

/// The store must show the same when it is opened, when it is rebuilt, and after a crash.
#[track_caller]
pub fn shows_the_same(store: &Store, disk: &MemoryStorage) {
    let expected = view(store);
    let crashed = disk.crash(Survivors::Synced);
    let report = store.verify(|_, _| {}).unwrap();
    assert!(report.is_clean(), "{:?}", report.damage);
    store.close().unwrap();
    for (image, what) in [(crashed, "crashed"), (disk.clone(), "closed")] {
        for rebuild in [false, true] {
            let image = image.crash(Survivors::All);
            let store = match rebuild {
                false => options(&image).open(STORE),
                true => options(&image).rebuild(STORE),
            };
            let store = store.unwrap();
            assert_eq!(view(&store), expected, "{what}, rebuilt: {rebuild}");
            let report = store.verify(|_, _| {}).unwrap();
            assert!(report.is_clean(), "{what}: {:?}", report.damage);
            store.close().unwrap();
        }
    }
}

pub fn owned(page: &highwater::Page) -> Vec<OwnedRecord> {
    page.iter().map(|record| record.to_owned()).collect()
}

/// A store in which there is something to compact, with the pack of an earlier compaction.
pub fn worth_it(disk: &MemoryStorage) -> Store {
    let store = eager(disk).open(STORE).unwrap();
    let contacts = feed(&store, "contact");
    for at in 0..8 {
        save(
            &contacts,
            [at % 5, 10 + at],
            900,
            char::from(b'a' + at as u8),
        );
    }
    let _ = contacts.batch_delete(&["1", "12"]).unwrap();
    let _ = store.compact().unwrap();
    for at in 0..8 {
        save(
            &contacts,
            [at % 3, 20 + at],
            900,
            char::from(b'm' + at as u8),
        );
    }
    store.checkpoint_catalog().unwrap();
    store
}
