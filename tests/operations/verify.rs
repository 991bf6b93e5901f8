//! Verification finds every damage, not only the first, says which changes are there, and is in
//! nobody's way.

use std::sync::atomic::{AtomicBool, Ordering};

use highwater::storage::{MemoryStorage, Survivors};
use highwater::{Error, Options, Store, VerifyOptions, VerifyReport};

use crate::world::{STORE, feed, files, options, save, verify};

fn report(store: &Store) -> VerifyReport {
    store.verify(|_, _| {}).unwrap()
}

fn names(report: &VerifyReport, path: &str) -> usize {
    let is_there = |error: &&Error| match error {
        Error::Corrupt { path: named, .. } => named.to_str() == Some(path),
        _ => false,
    };
    report.damage.iter().filter(is_there).count()
}

/// An open store with records of 900 bytes in several segments, three in each.
fn build(disk: &MemoryStorage) -> Store {
    let store = options(disk).open(STORE).unwrap();
    let contacts = feed(&store, "contact");
    for id in 0..12 {
        save(&contacts, [id], 900, char::from(b'a' + id as u8));
    }
    store
}

fn flip(disk: &MemoryStorage, path: &str, at: usize) {
    let mut bytes = disk.read_file(path).unwrap();
    bytes[at] ^= 1;
    disk.write_file(path, &bytes).unwrap();
}

fn place_of(disk: &MemoryStorage, letter: u8) -> (String, usize) {
    let find = |path: String| {
        let bytes = disk.read_file(&path)?;
        let at = bytes.windows(900).position(|it| it == [letter; 900])?;
        Some((path, at))
    };
    files(disk, "/s/log", "")
        .into_iter()
        .find_map(find)
        .unwrap()
}

#[test]
fn all_damage_is_found_and_the_changes_that_are_there() {
    let disk = MemoryStorage::new();
    let store = build(&disk);
    verify(&store);
    // In the first segment: a payload, the header of the frame behind it, and a payload behind that.
    let (path, a) = place_of(&disk, b'a');
    let (same, b) = place_of(&disk, b'b');
    assert_eq!(path, same);
    let (_, c) = place_of(&disk, b'c');
    flip(&disk, &path, a + 10);
    flip(&disk, &path, b - 100);
    flip(&disk, &path, c + 10);
    // And one elsewhere.
    let (other, k) = place_of(&disk, b'k');
    flip(&disk, &other, k);
    let report = report(&store);
    assert!(
        names(&report, &path) >= 3 && names(&report, &other) == 1,
        "{:?}",
        report.damage
    );
    assert_eq!(report.affected.len(), 4, "{:?}", report.affected);
    assert!(
        report
            .affected
            .iter()
            .all(|it| it.feed.model == "contact" && it.first == it.last)
    );
}

#[test]
fn files_that_do_not_belong_there_or_are_gone_are_told() {
    let disk = MemoryStorage::new();
    let store = build(&disk);
    disk.write_file("/s/log/0000000099.seg", b"x").unwrap();
    let found = report(&store);
    assert_eq!(
        names(&found, "/s/log/0000000099.seg"),
        1,
        "{:?}",
        found.damage
    );
    disk.remove_file("/s/log/0000000099.seg").unwrap();
    verify(&store);
    let segments = files(&disk, "/s/log", ".seg");
    flip(&disk, &segments[1], 30);
    let found = report(&store);
    assert_eq!(names(&found, &segments[1]), 1, "{:?}", found.damage);
    flip(&disk, &segments[1], 30);
    disk.remove_file(&segments[1]).unwrap();
    let found = report(&store);
    assert_eq!(names(&found, &segments[1]), 1, "{:?}", found.damage);
}

#[test]
fn every_block_of_an_index_is_checked() {
    let disk = MemoryStorage::new();
    let limited = |disk: &MemoryStorage| options(disk).index_limits_of(400, 200);
    let store = limited(&disk).open(STORE).unwrap();
    let contacts = feed(&store, "contact");
    for start in 0..6 {
        save(&contacts, start * 20..start * 20 + 20, 10, 'a');
    }
    let runs = files(&disk, "/s/index", ".run");
    assert!(!runs.is_empty());
    verify(&store);
    let clean = report(&store);
    assert!(clean.runs > 0);
    store.close().unwrap();
    let path = files(&disk, "/s/index", ".run").pop().unwrap();
    let bytes = disk.read_file(&path).unwrap();
    // Blocks and filters; what is between the header and the first block is nothing.
    for at in (0..128).chain(1024..bytes.len()).step_by(37) {
        let copy = disk.crash(Survivors::All);
        let store = limited(&copy).open(STORE).unwrap();
        flip(&copy, &path, at);
        let found = store.verify(|_, _| {}).unwrap();
        let told = !found.is_clean();
        // Or the index was derived anew before it was looked at.
        let rebuilt = files(&copy, "/s/index", ".run") != [path.clone()];
        assert!(told || rebuilt, "byte {at}");
    }
}

#[test]
fn the_catalog_is_checked_and_not_changed() {
    let disk = MemoryStorage::new();
    let store = build(&disk);
    store.checkpoint_catalog().unwrap();
    let path = "/s/catalog.redb";
    let bytes = disk.read_file(path).unwrap();
    verify(&store);
    assert!(disk.read_file(path).unwrap() == bytes);
    let used: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at] != 0).collect();
    let mut told = 0;
    for at in used.iter().step_by(used.len() / 60 + 1) {
        flip(&disk, path, *at);
        let found = report(&store);
        let of_catalog = |error: &Error| error.to_string().contains(path);
        assert!(
            found.damage.iter().all(of_catalog),
            "byte {at}: {:?}",
            found.damage
        );
        told += usize::from(!found.is_clean());
        flip(&disk, path, *at);
    }
    println!("{told} flips were told");
    // Most of the file is what redb has left behind.
    assert!(told > 0);
    verify(&store);
}

#[test]
fn closing_the_store_ends_a_slow_verification() {
    let disk = MemoryStorage::new();
    let store = build(&disk);
    let slow = VerifyOptions::new().bytes_per_second(1);
    std::thread::scope(|scope| {
        let verifier = store.clone();
        let ended = scope.spawn(move || verifier.verify_with(slow, |_, _| {}).map(drop));
        // Before it begins, or while it waits.
        std::thread::yield_now();
        store.close().unwrap();
        assert!(matches!(ended.join().unwrap(), Err(Error::Closed)));
    });
}

#[test]
fn writers_go_on_during_a_verification() {
    let dir = tempfile::tempdir().unwrap();
    let store = Options::new()
        .segment_size(64 << 10)
        .open(dir.path())
        .unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for writer in 0..2 {
            let (store, stop) = (&store, &stop);
            scope.spawn(move || {
                let feed = feed(store, &format!("w{writer}"));
                let mut round = 0;
                while !stop.load(Ordering::SeqCst) {
                    round += 1;
                    let body = format!("{round}{}", "x".repeat(300));
                    let ids = (0..30).map(|id| ((id * 7 + round) % 50).to_string());
                    let batch: Vec<_> = ids.map(|id| (id, body.clone())).collect();
                    let _ = feed.batch_save_raw(&batch).unwrap();
                    let gone = (round % 50).to_string();
                    let _ = feed.batch_delete(&[gone]).unwrap();
                }
            });
        }
        let checked: Vec<VerifyReport> = (0..10).map(|_| report(&store)).collect();
        stop.store(true, Ordering::SeqCst);
        for report in checked {
            assert!(report.is_clean(), "{:?}", report.damage);
        }
    });
    store.close().unwrap();
}
