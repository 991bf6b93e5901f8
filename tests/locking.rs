//! One opener at a time: a second one is told who holds the store, and a holder that is gone, by
//! closing, dropping or dying, holds nothing. Checks G13.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use highwater::storage::MemoryStorage;
use highwater::{Error, Expected, List, Options, Store};
use serde_json::json;

/// Set in a child process: the store it is to open and hold.
const HOLD: &str = "HIGHWATER_TEST_HOLD";

fn assert_locked(path: &Path, holder: Option<u32>) {
    match Store::open(path) {
        Err(Error::Locked { path: named, pid }) => {
            assert_eq!(named, path);
            assert_eq!(pid, holder);
        }
        other => panic!("expected Locked, got {other:?}"),
    }
}

/// Not a test of its own: what the child processes run.
#[test]
fn child_holds_the_store() {
    let Some(path) = std::env::var_os(HOLD) else {
        return;
    };
    let store = Store::open(path).unwrap();
    let feed = store.feed("c", "m").unwrap();
    let _ = feed.batch_save(&[json!({"id": "from-child"})]).unwrap();
    println!("\nholding");
    std::thread::sleep(Duration::from_secs(60));
}

/// Starts a process that opens the store, and returns when it has.
fn holder(path: &Path) -> Child {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_holds_the_store", "--nocapture"])
        .env(HOLD, path)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    let ready = output.lines().any(|line| line.unwrap() == "holding");
    assert!(ready, "the child could not open the store");
    child
}

#[test]
fn another_process_is_named_and_its_death_releases_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = holder(dir.path());
    assert_locked(dir.path(), Some(child.id()));
    assert_locked(dir.path(), Some(child.id()));
    child.kill().unwrap();
    child.wait().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let feed = store.feed("c", "m").unwrap();
    assert_eq!(feed.get(&["from-child"]).unwrap().len(), 1);
    assert_locked(dir.path(), Some(std::process::id()));
}

#[cfg(unix)]
#[test]
fn another_process_is_named_through_a_link_as_well() {
    let dir = tempfile::tempdir().unwrap();
    let [real, link] = ["real", "link"].map(|name| dir.path().join(name));
    std::fs::create_dir(&real).unwrap();
    std::os::unix::fs::symlink(&real, &link).unwrap();
    for (held, opened) in [(&real, &link), (&link, &real)] {
        let mut child = holder(held);
        assert_locked(opened, Some(child.id()));
        child.kill().unwrap();
        child.wait().unwrap();
        Store::open(opened).unwrap().close().unwrap();
    }
}

/// A program that is started while a store is open inherits neither the lock nor a file.
#[cfg(unix)]
#[test]
fn a_program_started_meanwhile_holds_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let feed = store.feed("c", "m").unwrap();
    let _ = feed.batch_save(&[json!({"id": 1})]).unwrap();
    let mut program = Command::new("sleep").arg("60").spawn().unwrap();
    let descriptors = Path::new("/proc").join(program.id().to_string()).join("fd");
    for descriptor in std::fs::read_dir(descriptors).into_iter().flatten() {
        let target = std::fs::read_link(descriptor.unwrap().path()).unwrap_or_default();
        assert!(!target.starts_with(dir.path()), "{target:?} was inherited");
    }
    store.close().unwrap();
    drop((store, feed));
    let store = Store::open(dir.path()).unwrap();
    assert_eq!(store.feed("c", "m").unwrap().count().unwrap(), 1);
    program.kill().unwrap();
    program.wait().unwrap();
}

#[test]
fn a_second_open_in_the_same_process_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let me = Some(std::process::id());
    let store = Store::open(dir.path()).unwrap();
    assert_locked(dir.path(), me);
    let other_options = Options::new().create(false).index_budget(0);
    assert!(matches!(
        other_options.open(dir.path()),
        Err(Error::Locked { .. })
    ));
    assert!(matches!(
        Options::new().rebuild(dir.path()),
        Err(Error::Locked { .. })
    ));
    // Being refused did no harm.
    let feed = store.feed("c", "m").unwrap();
    let _ = feed.batch_save(&[json!({"id": 1})]).unwrap();
    assert!(store.verify(|_, _| {}).unwrap().is_clean());
    let text = Error::Locked {
        path: dir.path().to_owned(),
        pid: me,
    };
    assert!(text.to_string().contains(&std::process::id().to_string()));
}

#[cfg(unix)]
#[test]
fn another_path_to_the_same_store_is_the_same_store() {
    let dir = tempfile::tempdir().unwrap();
    let real = dir.path().join("real");
    let link = dir.path().join("link");
    let store = Store::open(&real).unwrap();
    std::os::unix::fs::symlink(&real, &link).unwrap();
    assert_locked(&link, Some(std::process::id()));
    assert_locked(&real.join("..").join("real"), Some(std::process::id()));
    drop(store);
    let store = Store::open(&link).unwrap();
    assert_locked(&real, Some(std::process::id()));
    drop(store);
}

#[test]
fn closing_or_dropping_the_last_handle_releases_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    let store = Store::open(path).unwrap();
    let again = store.clone();
    drop(store);
    assert_locked(path, Some(std::process::id()));
    let feed = again.feed("c", "m").unwrap();
    let records = feed.records(None);
    drop(again);
    assert_locked(path, Some(std::process::id()));
    drop(feed);
    assert_locked(path, Some(std::process::id()));
    drop(records);
    let store = Store::open(path).unwrap();
    store.close().unwrap();
    store.close().unwrap();
    let next = Store::open(path).unwrap();
    drop(store);
    assert_locked(path, Some(std::process::id()));
    drop(next);
    Store::open(path).unwrap();
}

#[test]
fn handles_of_a_closed_store_say_so_and_touch_nothing() {
    let disk = MemoryStorage::new();
    let options = || Options::new().storage(Arc::new(disk.clone()));
    let store = options().open("/s").unwrap();
    let feed = store.feed("c", "m").unwrap();
    let _ = feed.batch_save(&[json!({"id": 1})]).unwrap();
    let mut batch = store.batch("c");
    batch.save(&feed, &[json!({"id": 2})]).unwrap();
    let mut records = feed.records(None);
    store.close().unwrap();
    let operations = disk.operations();
    let none: [&str; 0] = [];
    assert!(matches!(
        feed.batch_save(&[json!({"id": 1})]),
        Err(Error::Closed)
    ));
    assert!(matches!(feed.batch_delete(&["1"]), Err(Error::Closed)));
    assert!(matches!(feed.batch_delete(&none), Err(Error::Closed)));
    assert!(matches!(
        feed.batch_update(&[json!({"id": 1})]),
        Err(Error::Closed)
    ));
    assert!(matches!(batch.commit(), Err(Error::Closed)));
    assert!(matches!(feed.list(&List::new()), Err(Error::Closed)));
    assert!(matches!(feed.get(&["1"]), Err(Error::Closed)));
    assert!(matches!(feed.count(), Err(Error::Closed)));
    assert!(matches!(feed.size(), Err(Error::Closed)));
    assert!(matches!(feed.stats(), Err(Error::Closed)));
    assert!(matches!(feed.first_cursor(), Err(Error::Closed)));
    assert!(matches!(feed.last_cursor(), Err(Error::Closed)));
    assert!(matches!(
        feed.wait(None, Duration::ZERO),
        Err(Error::Closed)
    ));
    assert!(matches!(records.next(), Some(Err(Error::Closed))));
    assert!(matches!(store.feed("c", "m"), Err(Error::Closed)));
    assert!(matches!(store.feeds(), Err(Error::Closed)));
    assert!(matches!(store.stats(), Err(Error::Closed)));
    assert!(matches!(store.flush(), Err(Error::Closed)));
    assert!(matches!(store.checkpoint_catalog(), Err(Error::Closed)));
    assert!(matches!(store.checkpoint("c", "s", ""), Err(Error::Closed)));
    assert!(matches!(store.connection_metadata("c"), Err(Error::Closed)));
    assert!(matches!(store.verify(|_, _| {}), Err(Error::Closed)));
    let saved = store.save_checkpoint("c", "s", "", &json!({}), Expected::Any);
    assert!(matches!(saved, Err(Error::Closed)));
    assert!(matches!(
        store.set_connection_metadata("c", &json!({})),
        Err(Error::Closed)
    ));
    assert!(store.close().is_ok());
    assert_eq!(disk.operations(), operations);
}

/// The lock is gone when `close` returns, so from then on the files belong to the next opener.
#[test]
fn handles_of_a_closed_store_write_nothing_when_they_are_dropped() {
    let disk = MemoryStorage::new();
    let options = || {
        Options::new()
            .storage(Arc::new(disk.clone()))
            .background(false)
    };
    let store = options().open("/s").unwrap();
    let feed = store.feed("c", "m").unwrap();
    let _ = feed.batch_save(&[json!({"id": 1})]).unwrap();
    store.close().unwrap();
    let next = options().open("/s").unwrap();
    let feed_of_next = next.feed("c", "m").unwrap();
    for id in 2..50 {
        let _ = feed_of_next.batch_save(&[json!({"id": id})]).unwrap();
    }
    next.checkpoint_catalog().unwrap();
    let operations = disk.operations();
    drop((store, feed));
    assert_eq!(disk.operations(), operations, "a closed store wrote");
    next.close().unwrap();
    let store = options().open("/s").unwrap();
    assert_eq!(store.feed("c", "m").unwrap().count().unwrap(), 49);
}

/// Closing ends every wait: nothing will ever come.
#[test]
fn closing_wakes_those_who_wait() {
    let store = Options::new()
        .storage(Arc::new(MemoryStorage::new()))
        .open("/s")
        .unwrap();
    let feed = store.feed("c", "m").unwrap();
    let (done, result) = std::sync::mpsc::channel();
    std::thread::spawn(move || done.send(feed.wait(None, Duration::MAX)));
    std::thread::sleep(Duration::from_millis(50));
    store.close().unwrap();
    let woken = result.recv_timeout(Duration::from_secs(10));
    assert!(matches!(woken, Ok(Err(Error::Closed))), "{woken:?}");
}
