//! Disks and files that cannot grow.

use std::path::Path;

use highwater::{Error, Options, Store};
use serde_json::json;

use crate::child::{can, plays};

const MOUNT: &str = "mkdir -p \"$PLACE\" && mount -t tmpfs -o size=8m none \"$PLACE\"";

#[test]
fn a_full_file_system_costs_what_did_not_fit_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let trial = "unshare -rm sh -c 'mount -t tmpfs -o size=8m none /tmp'";
    if can("mounting a file system", trial) {
        let shell = format!("exec unshare -rm sh -c '{MOUNT} && exec \"$@\"' sh \"$@\"");
        plays("full disk", &dir.path().join("disk"), &shell);
    }
}

/// In a file system of 8 MiB: fills it, makes room, and goes on.
pub fn fill_a_disk(place: &Path) {
    let ballast = place.join("ballast");
    std::fs::write(&ballast, vec![1; 3 << 20]).unwrap();
    let path = place.join("store");
    let store = Options::new().segment_size(1 << 20).open(&path).unwrap();
    let feed = store.feed("c", "m").unwrap();
    let mut saved = 0;
    let full = loop {
        match save(&store, saved) {
            Ok(()) => saved += 1,
            Err(error) => break error,
        }
        assert!(saved < 1000, "the disk does not fill up");
    };
    assert!(matches!(full, Error::DiskFull { .. }), "{full:?}");
    assert!(saved > 10, "{saved}");
    // Reading goes on, and writing is refused as long as there is no space.
    let again = save(&store, saved);
    assert!(matches!(again, Err(Error::DiskFull { .. })), "{again:?}");
    assert_eq!(feed.count().unwrap(), saved);
    shows(&store, saved);
    std::fs::remove_file(&ballast).unwrap();
    save(&store, saved).unwrap();
    shows(&store, saved + 1);
    assert!(store.verify(|_, _| {}).unwrap().is_clean());
    store.close().unwrap();
    let store = Store::open(&path).unwrap();
    shows(&store, saved + 1);
    // An open, and a close, of a store on a full disk.
    drop(store);
    let mut ballast = 0;
    while std::fs::write(place.join(format!("b{ballast}")), vec![1; 100 << 10]).is_ok() {
        ballast += 1;
    }
    match Store::open(&path) {
        Ok(store) => {
            shows(&store, saved + 1);
            let _ = store.close();
        }
        Err(error) => assert!(
            matches!(
                error,
                Error::DiskFull { .. } | Error::Catalog { .. } | Error::Io { .. }
            ),
            "{error:?}"
        ),
    }
    for at in 0..=ballast {
        std::fs::remove_file(place.join(format!("b{at}"))).unwrap();
    }
    let store = Store::open(&path).unwrap();
    shows(&store, saved + 1);
    save(&store, saved + 1).unwrap();
}

fn save(store: &Store, n: u64) -> highwater::Result<()> {
    let record = (n.to_string(), n.to_string().repeat(20_000));
    let feed = store.feed("c", "m")?;
    let mut batch = store.batch("c");
    batch.save_raw(&feed, &[record])?;
    batch.checkpoint("sync", "", &json!({"n": n}), highwater::Expected::Any)?;
    batch.commit().map(drop)
}

/// The store has exactly the first so many records, and the checkpoint of the last one.
fn shows(store: &Store, saved: u64) {
    let feed = store.feed("c", "m").unwrap();
    let records: Vec<_> = feed.records(None).map(Result::unwrap).collect();
    assert_eq!(records.len() as u64, saved);
    for (n, record) in records.iter().enumerate() {
        assert_eq!(record.id, n.to_string());
        let payload = record.payload.as_deref().unwrap();
        assert!(payload == n.to_string().repeat(20_000).as_bytes(), "{n}");
    }
    let checkpoint = store.checkpoint("c", "sync", "").unwrap();
    let expected = saved
        .checked_sub(1)
        .map(|n| format!("{{\"n\":{n}}}").into_bytes());
    assert_eq!(checkpoint.map(|checkpoint| checkpoint.json), expected);
}

#[test]
fn the_largest_file_that_a_process_may_write_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    // In blocks of 512 bytes, or of 1024: it depends on the shell.
    let shell = "trap '' XFSZ; ulimit -f 4000; exec \"$@\"";
    plays("file size", dir.path(), shell);
    let store = Store::open(dir.path()).unwrap();
    let feed = store.feed("c", "m").unwrap();
    let saved = feed.count().unwrap();
    assert!(saved > 10);
    shows(&store, saved);
    save(&store, saved).unwrap();
    assert!(store.verify(|_, _| {}).unwrap().is_clean());
}

/// Where files may only be a few MiB long: writes until one is not accepted.
pub fn reach_the_largest_file(place: &Path) {
    let store = Options::new().background(false).open(place).unwrap();
    let mut saved = 0;
    let refused = loop {
        match save(&store, saved) {
            Ok(()) => saved += 1,
            Err(error) => break error,
        }
        assert!(saved < 1000, "files grow without limit");
    };
    match &refused {
        Error::Io { path, .. } | Error::DiskFull { path } => assert!(path.starts_with(place)),
        Error::Poisoned { cause } => assert!(matches!(**cause, Error::Io { .. }), "{cause:?}"),
        error => panic!("{error:?}"),
    }
    assert!(save(&store, saved).is_err());
    shows(&store, saved);
    // What was acknowledged is there whatever a close can do about it now.
    let _ = store.close();
}
