//! A process that has no file descriptors left.

use std::fs::File;
use std::path::Path;

use highwater::{Error, Options, Store};
use serde_json::json;

use crate::child::plays;

#[test]
fn a_lack_of_descriptors_is_an_error_that_passes() {
    let dir = tempfile::tempdir().unwrap();
    plays("descriptors", dir.path(), "ulimit -n 60; exec \"$@\"");
}

fn save(store: &Store, n: u64) -> highwater::Result<()> {
    let feed = store.feed("c", "m")?;
    let record = json!({"id": n, "pad": "x".repeat(2000)});
    feed.batch_save(&[record]).map(drop)
}

fn shows(store: &Store, saved: u64) {
    let feed = store.feed("c", "m").unwrap();
    let records: Vec<_> = feed.records(None).map(Result::unwrap).collect();
    let ids: Vec<String> = records.into_iter().map(|record| record.id).collect();
    let expected: Vec<String> = (0..saved).map(|n| n.to_string()).collect();
    assert_eq!(ids, expected);
}

/// Every descriptor that is left.
fn take_all() -> Vec<File> {
    std::iter::from_fn(|| File::open("/dev/null").ok()).collect()
}

/// Where few descriptors are allowed.
pub fn run_out(place: &Path) {
    let store = Options::new().segment_size(16 << 10).background(false);
    let store = store.open(place).unwrap();
    let mut saved = 0;
    for round in 0..3 {
        for _ in 0..10 {
            save(&store, saved).unwrap();
            saved += 1;
        }
        let taken = take_all();
        assert!(taken.len() > 5, "round {round}");
        // The open segment takes some more; the next one cannot be made.
        let refused = loop {
            match save(&store, saved) {
                Ok(()) => saved += 1,
                Err(error) => break error,
            }
        };
        assert!(
            matches!(&refused, Error::Io { path, .. } if path.starts_with(place)),
            "{refused:?}"
        );
        shows(&store, saved);
        // Catalogs are saved through the descriptor that is open already.
        let _ = store.checkpoint_catalog();
        let _ = store.compact();
        drop(taken);
        save(&store, saved).unwrap();
        saved += 1;
        shows(&store, saved);
    }
    assert!(store.verify(|_, _| {}).unwrap().is_clean());
    store.close().unwrap();
    let taken = take_all();
    match Store::open(place) {
        Err(Error::Io { path, .. } | Error::Catalog { path, .. }) => {
            assert!(path.starts_with(place))
        }
        other => panic!("{other:?}"),
    }
    drop(taken);
    let store = Store::open(place).unwrap();
    shows(&store, saved);
}
