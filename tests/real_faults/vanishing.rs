//! Files deleted under an open store.

use std::path::{Path, PathBuf};

use highwater::{Durability, Error, Feed, Options, OwnedRecord, Store};
use serde_json::json;

fn options() -> Options {
    let relaxed = Durability::Relaxed {
        interval: std::time::Duration::from_secs(3600),
    };
    Options::new()
        .durability(relaxed)
        .segment_size(16 << 10)
        .background(false)
        .index_limits_of(4000, 2000)
}

fn save(feed: &Feed, round: u64) -> highwater::Result<()> {
    let record = |id| json!({"id": id, "round": round, "pad": "x".repeat(100)});
    let records: Vec<_> = (10 * round..10 * round + 30).map(record).collect();
    feed.batch_save(&records).map(drop)
}

/// Several segments, a catalog, and an index in files.
fn create(path: &Path) -> Store {
    let store = options().open(path).unwrap();
    let feed = store.feed("c", "m").unwrap();
    for round in 0..20 {
        save(&feed, round).unwrap();
    }
    store.checkpoint_catalog().unwrap();
    store
}

fn records(store: &Store) -> highwater::Result<Vec<OwnedRecord>> {
    store.feed("c", "m")?.records(None).collect()
}

/// The files of a store whose names end like this.
fn files(path: &Path, end: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for dir in [path.to_owned(), path.join("log"), path.join("index")] {
        for entry in std::fs::read_dir(dir).into_iter().flatten() {
            found.push(entry.unwrap().path());
        }
    }
    found.retain(|path| path.is_file() && path.to_string_lossy().ends_with(end));
    found
}

/// Deletes files of an open store. What it shows stays right, and whatever it is asked to do is
/// done or refused with an error that says where. Returns whether it went on writing to the end.
fn goes_on_without(path: &Path, gone: &[PathBuf]) -> bool {
    let store = create(path);
    let expected = records(&store).unwrap();
    for file in gone {
        match file.is_dir() {
            true => std::fs::remove_dir_all(file).unwrap(),
            false => std::fs::remove_file(file).unwrap(),
        }
    }
    assert_eq!(
        records(&store).unwrap(),
        expected,
        "what is open stays readable"
    );
    let feed = store.feed("c", "m").unwrap();
    let found = feed.get(&["0", "100", "219", "220"]).unwrap();
    assert_eq!(found.len(), 3);
    let told = |error: &Error| match error {
        Error::Io { path: at, .. } | Error::Corrupt { path: at, .. } => at.starts_with(path),
        Error::Catalog { path: at, .. } => at.starts_with(path),
        Error::Poisoned { .. } => true,
        _ => false,
    };
    let mut went_on = true;
    for round in 20..40 {
        if let Err(error) = save(&feed, round) {
            assert!(told(&error), "{error:?}");
            went_on = false;
        }
    }
    for done in [
        store.checkpoint_catalog(),
        store.compact().map(drop),
        store.verify(|_, _| {}).map(drop),
        store.flush(),
    ] {
        if let Err(error) = done {
            assert!(told(&error), "{error:?}");
        }
    }
    if let Err(error) = store.close() {
        assert!(told(&error), "{error:?}");
    }
    went_on
}

/// What a store shows that is opened after files of it were deleted while it was open.
fn left(path: &Path) -> highwater::Result<Vec<OwnedRecord>> {
    records(&options().open(path)?)
}

fn store_in(dir: &tempfile::TempDir) -> PathBuf {
    dir.path().join("store")
}

#[test]
fn a_deleted_catalog_is_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let path = store_in(&dir);
    assert!(goes_on_without(&path, &[path.join("catalog.redb")]));
    assert_eq!(left(&path).unwrap().len(), 420);
}

#[test]
fn deleted_runs_of_indexes_are_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let path = store_in(&dir);
    drop(create(&path));
    let runs = files(&path, ".run");
    assert!(!runs.is_empty());
    goes_on_without(&path, &[path.join("index")]);
    let found = left(&path).unwrap();
    assert!(found.len() >= 220);
    let store = options().open(&path).unwrap();
    let feed = store.feed("c", "m").unwrap();
    let ids: Vec<&String> = found.iter().map(|record| &record.id).collect();
    assert_eq!(feed.get(&ids).unwrap().len(), ids.len());
}

#[test]
fn a_deleted_segment_is_told_by_the_next_open() {
    let names = {
        let dir = tempfile::tempdir().unwrap();
        drop(create(&store_in(&dir)));
        let names = files(&store_in(&dir), ".seg").into_iter();
        names
            .map(|path| path.file_name().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert!(names.len() > 3, "{names:?}");
    for name in &names[..names.len() - 1] {
        let dir = tempfile::tempdir().unwrap();
        let path = store_in(&dir);
        goes_on_without(&path, &[path.join("log").join(name)]);
        // Or compaction had copied what it held, through the handle that was open.
        match left(&path) {
            Err(Error::Corrupt { path: at, .. } | Error::Io { path: at, .. }) => {
                assert!(at.starts_with(&path));
            }
            Ok(records) => assert!(records.len() >= 220, "{name:?}: {}", records.len()),
            Err(error) => panic!("{name:?}: {error:?}"),
        }
    }
}

#[test]
fn a_deleted_log_is_not_an_empty_store() {
    let dir = tempfile::tempdir().unwrap();
    let path = store_in(&dir);
    let went_on = goes_on_without(&path, &[path.join("log")]);
    assert!(!went_on, "segments were made in a directory that is gone");
}

#[test]
fn a_deleted_store_is_gone_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let path = store_in(&dir);
    assert!(!goes_on_without(&path, std::slice::from_ref(&path)));
    assert!(left(&path).unwrap().is_empty(), "it is a new one");
}

#[test]
fn a_deleted_lock_file_harms_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = store_in(&dir);
    assert!(goes_on_without(&path, &[path.join("LOCK")]));
    assert_eq!(left(&path).unwrap().len(), 420);
}
