//! Stores on a simulated disk, and what they show.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use highwater::storage::{ManualClock, MemoryStorage, Storage};
use highwater::{Feed, List, Options, OwnedRecord, Repaired, Result, Store};

const FRAME_MAGIC: &[u8] = b"HWFR";
pub(crate) const FRAME_HEADER_LEN: usize = 120;

pub(crate) const STORE: &str = "/s";
pub(crate) const CATALOG: &str = "/s/catalog.redb";
pub(crate) const BACKUP: &str = "/b";
pub(crate) const RESTORED: &str = "/r";

pub(crate) fn options(disk: &MemoryStorage) -> Options {
    Options::new()
        .storage(Arc::new(disk.clone()))
        .segment_size(4096)
        .background(false)
        .clock(Arc::new(ManualClock::new(1_700_000_000_000_000)))
        .secret([5; 32])
}

pub(crate) fn feed(store: &Store, model: &str) -> Feed {
    store.feed("c", model).unwrap()
}

/// Saves records of `len` bytes under ids of a number each.
pub(crate) fn save(feed: &Feed, ids: impl IntoIterator<Item = usize>, len: usize, fill: char) {
    let body = fill.to_string().repeat(len);
    let ids = ids.into_iter();
    let records: Vec<_> = ids.map(|id| (id.to_string(), body.clone())).collect();
    let _ = feed.batch_save_raw(&records).unwrap();
}

pub(crate) fn records(feed: &Feed) -> Vec<OwnedRecord> {
    feed.records(None).collect::<Result<_>>().unwrap()
}

/// Everything that a store's feeds show, and where that ends.
pub(crate) type View = BTreeMap<String, (Vec<OwnedRecord>, Option<String>)>;

pub(crate) fn view(store: &Store) -> View {
    let infos = store.feeds().unwrap();
    let view = infos.into_iter().map(|info| {
        let feed = feed(store, &info.key.model);
        assert_eq!(feed.count().unwrap(), info.live);
        let end = feed.list(&List::new().limit(10_000)).unwrap();
        let end = (!end.is_empty()).then(|| end.resume_cursor().to_string());
        (info.key.model, (records(&feed), end))
    });
    view.collect()
}

pub(crate) fn files(disk: &MemoryStorage, dir: &str, suffix: &str) -> Vec<String> {
    let names = disk.list(Path::new(dir)).unwrap();
    names
        .into_iter()
        .filter(|name| name.ends_with(suffix))
        .map(|name| format!("{dir}/{name}"))
        .collect()
}

/// The files of the store, and what is in them.
pub(crate) fn contents(disk: &MemoryStorage) -> Vec<(String, Option<Vec<u8>>)> {
    let dirs = ["/s", "/s/log", "/s/index"];
    let dirs = dirs
        .into_iter()
        .filter(|dir| disk.list(Path::new(dir)).is_ok());
    let paths = dirs.flat_map(|dir| files(disk, dir, ""));
    paths
        .map(|path| (path.clone(), disk.read_file(&path)))
        .collect()
}

/// Writes a file anew, changed.
pub(crate) fn change(disk: &MemoryStorage, path: &str, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = disk.read_file(path).unwrap();
    change(&mut bytes);
    disk.write_file(path, &bytes).unwrap();
}

/// Where some bytes are in the log: the file and the offset.
pub(crate) fn place_of(disk: &MemoryStorage, wanted: &[u8]) -> (String, usize) {
    for path in files(disk, "/s/log", "") {
        let bytes = disk.read_file(&path).unwrap();
        let mut windows = bytes.windows(wanted.len());
        if let Some(at) = windows.position(|bytes| bytes == wanted) {
            return (path, at);
        }
    }
    panic!("not in the log");
}

/// Where the frames of a file are.
pub(crate) fn frames_of(bytes: &[u8]) -> Vec<usize> {
    let starts = (0..bytes.len()).step_by(8);
    starts
        .filter(|at| bytes[*at..].starts_with(FRAME_MAGIC))
        .collect()
}

#[track_caller]
pub(crate) fn verify(store: &Store) {
    let report = store.verify(|_, _| {}).unwrap();
    assert!(report.is_clean(), "{:?}", report.damage);
}

/// Repairs the store, which must stay as it is, into a new one.
pub(crate) fn repaired(disk: &MemoryStorage) -> (Store, Repaired) {
    let before: Vec<_> = contents(disk);
    let report = options(disk).repair(STORE, RESTORED).unwrap();
    assert!(contents(disk) == before, "the damaged store was changed");
    let store = options(disk).create(false).open(RESTORED).unwrap();
    verify(&store);
    (store, report)
}
