//! Encryption at rest: nothing readable in any file, the wrong key refused before anything is
//! written, keys changed without losing anything, and whatever was tampered with told as damage. The
//! model's histories and crash points run with encryption too.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use highwater::storage::{ManualClock, MemoryStorage, Survivors};
use highwater::{
    Encryption, Error, Expected, Key, List, Options, OwnedRecord, Result, RunOptions, Store,
    SyncKey,
};
use serde_json::json;

const STORE: &str = "/s";
const LOCK: &str = "/s/LOCK";
const ENTRY_LEN: usize = 56;
const HEADER_LEN: usize = 120;
const SEGMENT_HEADER_LEN: usize = 128;

/// What nobody may find in a file.
const SECRETS: [&str; 9] = [
    "secret-id",
    "secret-payload",
    "secret-connection",
    "secret-model",
    "secret-sync",
    "secret-checkpoint",
    "secret-metadata",
    "secret-consumer",
    "secret-error",
];

fn key(byte: u8) -> Key {
    Key::new(&[byte; Key::LEN])
}

fn plain(disk: &MemoryStorage) -> Options {
    Options::new()
        .storage(Arc::new(disk.clone()))
        .clock(Arc::new(ManualClock::new(1_700_000_000_000_000)))
        .background(false)
        .secret(std::array::from_fn(|at| if at < 16 { 7 } else { 0 }))
        .segment_size(16 << 10)
}

fn under(disk: &MemoryStorage, keys: Encryption) -> Options {
    plain(disk).encryption(keys)
}

fn current(disk: &MemoryStorage) -> Options {
    under(disk, Encryption::new(&key(1)))
}

fn rotating(disk: &MemoryStorage) -> Options {
    under(disk, Encryption::new(&key(2)).or_older(&key(1)))
}

type Files = BTreeMap<PathBuf, Vec<u8>>;

fn files(disk: &MemoryStorage) -> Files {
    let paths = disk.files().into_iter().map(|(path, _)| path);
    let paths = paths.filter(|path| path.to_str() != Some(LOCK));
    paths
        .map(|path| (path.clone(), disk.read_file(&path).unwrap()))
        .collect()
}

fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|window| window == wanted)
}

/// The files that have any of the secrets, and which.
fn readable(files: &Files) -> Vec<(PathBuf, &'static str)> {
    let mut found = Vec::new();
    for (path, bytes) in files {
        for secret in SECRETS {
            if contains(bytes, secret.as_bytes()) {
                found.push((path.clone(), secret));
            }
        }
    }
    found
}

fn records(from: u32, version: u32) -> Vec<(String, String)> {
    let record = |id| {
        let payload = format!("secret-payload {version} of {id}, and more of it");
        (format!("secret-id-{id}"), payload)
    };
    (from..from + 40).map(record).collect()
}

/// Writes a bit of everything that a store can hold.
fn fill(store: &Store, version: u32) -> Result<()> {
    let sync = SyncKey::new("secret-connection", "secret-sync", "")?;
    let run = store.begin_run(&sync, RunOptions::new())?;
    let feed = run.feed("secret-model")?;
    let _ = feed.batch_save_raw(&records(0, version))?;
    let _ = feed.batch_save_raw(&records(version * 7, version))?;
    let _ = feed.batch_delete(&["secret-id-3", "secret-id-4"])?;
    run.save_checkpoint(&json!({"at": "secret-checkpoint"}), Expected::Any)?;
    let _ = run.fail("secret-error")?;
    let metadata = json!({"of": "secret-metadata", "version": version});
    store.set_connection_metadata("secret-connection", &metadata)?;
    let feed = store.feed("secret-connection", "secret-model")?;
    let consumer = feed.consumer("secret-consumer")?;
    let page = consumer.list(List::new().limit(20))?;
    consumer.acknowledge(page.resume_cursor())
}

fn filled(options: Options) -> Result<Store> {
    let store = options.open(STORE)?;
    (1..6).try_for_each(|version| fill(&store, version))?;
    store.checkpoint_catalog()?;
    let _ = store.compact()?;
    (6..9).try_for_each(|version| fill(&store, version))?;
    Ok(store)
}

fn all(store: &Store) -> Result<Vec<OwnedRecord>> {
    let feed = store.feed("secret-connection", "secret-model")?;
    feed.records(None).collect()
}

fn ids(store: &Store) -> Vec<String> {
    all(store)
        .unwrap()
        .into_iter()
        .map(|record| record.id)
        .collect()
}

fn check_clean(store: &Store) {
    let report = store.verify(|_, _| {}).unwrap();
    assert!(report.is_clean(), "{:?}", report.damage);
}

#[test]
fn nobody_sees_a_difference_but_in_the_files() {
    let (plain_disk, disk) = (MemoryStorage::new(), MemoryStorage::new());
    let expected = filled(plain(&plain_disk)).unwrap();
    let store = filled(current(&disk)).unwrap();
    assert!(all(&store).unwrap() == all(&expected).unwrap());
    check_clean(&store);
    store.close().unwrap();
    for rebuild in [false, true] {
        let options = current(&disk);
        let store = match rebuild {
            true => options.rebuild(STORE).unwrap(),
            false => options.open(STORE).unwrap(),
        };
        assert!(all(&store).unwrap() == all(&expected).unwrap());
        let sync = SyncKey::new("secret-connection", "secret-sync", "").unwrap();
        assert_eq!(store.runs(&sync).unwrap(), expected.runs(&sync).unwrap());
        check_clean(&store);
        store.close().unwrap();
    }
}

#[test]
fn no_file_has_anything_readable() {
    let disk = MemoryStorage::new();
    let _store = filled(plain(&disk)).unwrap();
    let in_plain = readable(&files(&disk));
    for secret in SECRETS {
        let found = in_plain.iter().any(|(_, found)| *found == secret);
        assert!(found, "the search finds {secret:?} in a plain store");
    }

    let disk = MemoryStorage::new();
    let options = current(&disk).index_limits_of(2 << 10, 1 << 10);
    let store = filled(options).unwrap();
    store.checkpoint_catalog().unwrap();
    let open = files(&disk);
    let is_run = |path: &PathBuf| path.extension().is_some_and(|it| it == "run");
    assert!(open.keys().any(is_run), "the index has files");
    assert_eq!(readable(&open), []);
    store.close().unwrap();
    assert_eq!(readable(&files(&disk)), []);
}

#[test]
fn the_secret_of_an_encrypted_store_is_in_no_file() {
    let secret: [u8; 32] = std::array::from_fn(|at| at as u8 * 3 + 1);
    let disk = MemoryStorage::new();
    let _plain = plain(&disk).secret(secret).open(STORE).unwrap();
    let found = files(&disk).values().any(|bytes| contains(bytes, &secret));
    assert!(found, "a plain store has it in the header of each segment");
    let disk = MemoryStorage::new();
    let store = filled(current(&disk).secret(secret)).unwrap();
    store.close().unwrap();
    for bytes in files(&disk).values() {
        assert!(!contains(bytes, &secret[..8]));
    }
}

#[test]
fn equal_records_do_not_look_alike() {
    let disk = MemoryStorage::new();
    let store = current(&disk).open(STORE).unwrap();
    let feeds = ["a", "b"].map(|model| store.feed("c", model).unwrap());
    for feed in &feeds {
        let _ = feed
            .batch_save_raw(&[("same", "payload ".repeat(8))])
            .unwrap();
    }
    let log = files(&disk)
        .remove(&PathBuf::from("/s/log/0000000001.seg"))
        .unwrap();
    let used = &log[SEGMENT_HEADER_LEN..];
    let repeats = |bytes: &[u8]| {
        let mut pieces: Vec<&[u8]> = bytes
            .windows(8)
            .filter(|w| w.iter().all(|b| *b != 0))
            .collect();
        let count = pieces.len();
        pieces.sort_unstable();
        pieces.dedup();
        count - pieces.len()
    };
    // Headers have the nonce of the segment in common, and the magic with what is beside it.
    let headers = used.windows(4).filter(|window| window == b"HWFR").count();
    assert!(repeats(used) <= headers * 16, "{} repeats", repeats(used));
}

fn refused(options: Options) -> Error {
    options.open(STORE).err().unwrap()
}

#[test]
fn a_wrong_key_is_refused_and_nothing_is_written() {
    let disk = MemoryStorage::new();
    filled(current(&disk)).unwrap().close().unwrap();
    // What an open with the key would remove.
    disk.write_file("/s/log/0000000099.seg.tmp", b"left by a crash")
        .unwrap();
    let before = files(&disk);
    let wrong = refused(under(&disk, Encryption::new(&key(2)).or_older(&key(3))));
    assert!(matches!(&wrong, Error::WrongKey { key: needed, .. } if *needed == key(1).id()));
    assert!(wrong.to_string().contains(&key(1).id().to_string()));
    let missing = refused(plain(&disk));
    assert!(matches!(missing, Error::KeyRequired { key: needed, .. } if needed == key(1).id()));
    assert!(files(&disk) == before);
    assert_eq!(ids(&current(&disk).open(STORE).unwrap()).len(), 96);
}

#[test]
fn a_plain_store_is_not_opened_with_a_key() {
    let disk = MemoryStorage::new();
    filled(plain(&disk)).unwrap().close().unwrap();
    let before = files(&disk);
    assert!(matches!(
        refused(current(&disk)),
        Error::NotEncrypted { .. }
    ));
    assert!(files(&disk) == before);
    assert!(!ids(&plain(&disk).open(STORE).unwrap()).is_empty());
}

#[test]
fn keys_are_read_from_text_and_do_not_show() {
    assert_eq!(Key::parse(&[7; 32]).unwrap().id(), key(7).id());
    let digits = format!("  {}\n", "07".repeat(32));
    assert_eq!(Key::parse(digits.as_bytes()).unwrap().id(), key(7).id());
    let upper = "AB".repeat(32);
    assert_eq!(Key::parse(upper.as_bytes()).unwrap().id(), key(0xab).id());
    for wrong in [
        "",
        "07",
        &"07".repeat(31),
        &"0g".repeat(32),
        &"07".repeat(33),
    ] {
        assert!(Key::parse(wrong.as_bytes()).is_none(), "{wrong:?}");
    }
    let shown = format!("{:?}", current(&MemoryStorage::new()));
    assert!(shown.contains(&key(1).id().to_string()));
    assert!(!shown.contains("1, 1, 1"), "{shown}");
}
