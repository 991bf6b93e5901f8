//! Stores to damage.

use std::sync::Arc;

use highwater::storage::{ManualClock, MemoryStorage};
use highwater::{Expected, Options};
use serde_json::json;

pub const STORE: &str = "/s";
pub const CATALOG: &str = "/s/catalog.redb";
pub const FEEDS: [&str; 3] = ["Contact", "Company", "Blob"];

pub fn options(disk: &MemoryStorage) -> Options {
    Options::new()
        .storage(Arc::new(disk.clone()))
        .segment_size(4096)
        .background(false)
        .clock(Arc::new(ManualClock::new(1_700_000_000_000_000)))
        .secret([7; 32])
}

/// A closed store with some history.
pub fn build() -> MemoryStorage {
    let disk = MemoryStorage::new();
    let store = options(&disk).open(STORE).unwrap();
    let [contact, company, blob] = FEEDS.map(|model| store.feed("c", model).unwrap());
    let text = |n: usize| "x".repeat(n);
    let people: Vec<_> = (0..9)
        .map(|i| json!({"id": i, "name": format!("n{i}"), "t": text(i)}))
        .collect();
    let _ = contact.batch_save(&people).unwrap();
    let raw: Vec<_> = (0..5).map(|i| (format!("blob-{i}"), text(500))).collect();
    let _ = blob.batch_save_raw(&raw).unwrap();
    let mut batch = store.batch("c");
    batch.save(&contact, &[json!({"id": 1, "v": 2})]).unwrap();
    batch.save(&company, &[json!({"id": "acme"})]).unwrap();
    batch
        .checkpoint("sync", "", &json!({"page": 1}), Expected::Absent)
        .unwrap();
    let _ = batch.commit().unwrap();
    store
        .set_connection_metadata("c", &json!({"region": "eu"}))
        .unwrap();
    store.checkpoint_catalog().unwrap();
    let _ = contact.batch_delete(&["3", "5"]).unwrap();
    let _ = contact.batch_update(&[json!({"id": 7, "n": 1})]).unwrap();
    let raw: Vec<_> = (1..4).map(|i| (format!("blob-{i}"), text(700))).collect();
    let _ = blob.batch_save_raw(&raw).unwrap();
    store
        .save_checkpoint("c", "sync", "", &json!({"page": 2}), Expected::Version(1))
        .unwrap();
    let _ = blob.batch_delete(&["blob-2"]).unwrap();
    let _ = contact.batch_save(&[json!({"id": 3, "back": 1})]).unwrap();
    store.close().unwrap();
    disk
}

/// A store with other data and another identity.
pub fn build_foreign() -> MemoryStorage {
    let disk = MemoryStorage::new();
    let store = options(&disk).secret([8; 32]).open(STORE).unwrap();
    let feed = store.feed("c", "Contact").unwrap();
    let _ = feed
        .batch_save(&[json!({"id": 1, "foreign": true})])
        .unwrap();
    store.close().unwrap();
    disk
}

/// A closed store with files of every kind, some of which compaction has replaced.
pub fn build_all_kinds() -> MemoryStorage {
    let disk = MemoryStorage::new();
    let small = options(&disk).eager_compaction(true);
    let store = small.index_limits_of(400, 200).open(STORE).unwrap();
    let [contact, company, blob] = FEEDS.map(|model| store.feed("c", model).unwrap());
    let people = |ids: std::ops::Range<u32>, v: u32| {
        let record = |id| json!({"id": id, "v": v, "t": "x".repeat(id as usize)});
        let records: Vec<_> = ids.map(record).collect();
        let _ = contact.batch_save(&records).unwrap();
    };
    people(0..14, 0);
    let raw = |n: usize| -> Vec<_> {
        (0..5)
            .map(|i| (format!("blob-{i}"), "x".repeat(n)))
            .collect()
    };
    let _ = blob.batch_save_raw(&raw(700)).unwrap();
    let _ = contact.batch_delete(&["3", "5"]).unwrap();
    people(6..16, 1);
    let _ = store.compact().unwrap();
    let _ = company.batch_save(&[json!({"id": "acme"})]).unwrap();
    store
        .save_checkpoint("c", "sync", "", &json!({"page": 1}), Expected::Absent)
        .unwrap();
    let _ = blob.batch_save_raw(&raw(710)[1..3]).unwrap();
    people(12..20, 2);
    let _ = blob.batch_delete(&["blob-2"]).unwrap();
    store.close().unwrap();
    disk
}

/// The files whose names end like this.
pub fn files(disk: &MemoryStorage, end: &str) -> Vec<String> {
    let paths = disk.files().into_iter().map(|(path, _)| path);
    let names = paths.filter_map(|path| path.to_str().map(str::to_owned));
    names.filter(|path| path.ends_with(end)).collect()
}

pub fn segments(disk: &MemoryStorage) -> Vec<String> {
    files(disk, ".seg")
}
