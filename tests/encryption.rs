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

fn has_key_id(disk: &MemoryStorage, id: highwater::KeyId) -> bool {
    let id = data_encoding::HEXLOWER
        .decode(id.to_string().as_bytes())
        .unwrap();
    files(disk).values().any(|bytes| contains(bytes, &id))
}

#[test]
fn after_rotating_the_old_key_is_not_needed_any_more() {
    let disk = MemoryStorage::new();
    let limits = |options: Options| options.index_limits_of(2 << 10, 1 << 10);
    let store = filled(limits(current(&disk))).unwrap();
    let expected = all(&store).unwrap();
    assert_eq!(store.encryption_keys().unwrap(), [key(1).id()]);
    store.close().unwrap();
    let cursors = |records: &[OwnedRecord]| -> Vec<_> {
        records.iter().map(|record| record.cursor).collect()
    };

    let store = limits(rotating(&disk)).open(STORE).unwrap();
    assert_eq!(store.encryption_keys().unwrap(), [key(1).id()]);
    let feed = store.feed("secret-connection", "secret-model").unwrap();
    let again = feed.batch_save_raw(&records(56, 8)).unwrap();
    assert_eq!(again.totals.unchanged, 40, "hashes are what they were");
    let mut both = [key(1).id(), key(2).id()];
    both.sort();
    let _ = feed.batch_save_raw(&[("new", "new")]).unwrap();
    assert_eq!(store.encryption_keys().unwrap(), both);
    let compacted = store.rotate().unwrap();
    assert!(compacted.removed > 0);
    assert_eq!(store.encryption_keys().unwrap(), [key(2).id()]);
    check_clean(&store);
    store.close().unwrap();
    assert!(!has_key_id(&disk, key(1).id()), "a file names the old key");
    assert!(has_key_id(&disk, key(2).id()));
    assert_eq!(readable(&files(&disk)), []);

    assert!(matches!(refused(current(&disk)), Error::WrongKey { .. }));
    for rebuild in [false, true] {
        let options = under(&disk, Encryption::new(&key(2)));
        let store = match rebuild {
            true => options.rebuild(STORE).unwrap(),
            false => options.open(STORE).unwrap(),
        };
        let found = all(&store).unwrap();
        assert!(found[..expected.len()] == expected[..]);
        assert_eq!(cursors(&found)[..expected.len()], cursors(&expected));
        check_clean(&store);
        store.close().unwrap();
    }
}

#[test]
fn compaction_rotates_all_but_the_open_segment_by_itself() {
    let disk = MemoryStorage::new();
    filled(current(&disk)).unwrap().close().unwrap();
    let store = rotating(&disk).open(STORE).unwrap();
    fill(&store, 9).unwrap();
    let _ = store.compact().unwrap();
    assert_eq!(store.encryption_keys().unwrap(), [key(2).id()]);
}

#[test]
fn nothing_is_rotated_twice() {
    let disk = MemoryStorage::new();
    filled(current(&disk)).unwrap().close().unwrap();
    let store = rotating(&disk).open(STORE).unwrap();
    let _ = store.rotate().unwrap();
    assert_eq!(store.rotate().unwrap().removed, 0);
}

/// A smaller store, for tests that do something at every operation or byte.
fn small(options: Options) -> Result<Store> {
    let store = options.segment_size(4096).open(STORE)?;
    let feed = store.feed("secret-connection", "secret-model")?;
    for version in 0..4 {
        let _ = feed.batch_save_raw(&records(version, version)[..12])?;
    }
    let _ = feed.batch_delete(&["secret-id-2"])?;
    store.checkpoint_catalog()?;
    Ok(store)
}

#[test]
fn a_crash_at_any_operation_of_rotating_loses_nothing() {
    let origin = MemoryStorage::new();
    let store = small(current(&origin)).unwrap();
    let expected = all(&store).unwrap();
    store.close().unwrap();
    let rotate = |disk: &MemoryStorage| -> Result<()> {
        let store = rotating(disk).segment_size(4096).open(STORE)?;
        let feed = store.feed("secret-connection", "secret-model")?;
        let _ = feed.batch_save_raw(&[("late", "late")])?;
        let _ = store.rotate()?;
        store.close()
    };
    let (mut at, mut crashes) = (0, 0);
    loop {
        let disk = origin.crash(Survivors::All);
        disk.stop_at(disk.operations() + at);
        let done = rotate(&disk).is_ok();
        let unsynced = disk.unsynced_bytes();
        for survivors in [
            Survivors::Synced,
            Survivors::All,
            Survivors::Prefix(unsynced / 2),
            Survivors::Sectors(at),
            Survivors::Sectors(at + 1),
        ] {
            crashes += 1;
            let disk = disk.crash(survivors);
            let options = rotating(&disk).segment_size(4096);
            let store = match crashes % 3 {
                0 => options.rebuild(STORE).unwrap(),
                _ => options.open(STORE).unwrap(),
            };
            let found = all(&store).unwrap();
            assert!(
                found[..expected.len()] == expected[..],
                "{at}, {survivors:?}"
            );
            let late = &found[expected.len()..];
            assert!(late.len() <= 1 && late.iter().all(|record| record.id == "late"));
            let _ = store.rotate().unwrap();
            check_clean(&store);
            store.close().unwrap();
            assert!(!has_key_id(&disk, key(1).id()), "{at}, {survivors:?}");
            let store = under(&disk, Encryption::new(&key(2))).open(STORE).unwrap();
            assert!(all(&store).unwrap() == found);
        }
        if done {
            break;
        }
        at += 1;
    }
    println!("{at} operations, {crashes} crashes");
    assert!(at > 40);
}

/// A frame in a file of the log.
#[derive(Clone, Debug, PartialEq)]
struct Frame {
    at: usize,
    kind: u8,
    count: usize,
    ids: usize,
    payloads: usize,
    seal: usize,
    len: usize,
}

fn number(bytes: &[u8]) -> usize {
    bytes
        .iter()
        .rev()
        .fold(0, |sum, byte| sum << 8 | usize::from(*byte))
}

/// The frames of a file, from the beginning to the first place where there is none.
fn frames(file: &[u8]) -> Vec<Frame> {
    let mut frames = Vec::new();
    let mut at = SEGMENT_HEADER_LEN;
    while file.get(at..at + 4) == Some(b"HWFR") {
        let field = |from: usize, to: usize| number(&file[at + from..at + to]);
        let kind = file[at + 4];
        let (count, origins) = (field(76, 80), field(6, 8));
        let (ids_len, payloads_len) = (field(80, 84), field(84, 88));
        let has_records = kind == 1 || kind == 5;
        let entries_len = if has_records { count * ENTRY_LEN } else { 0 };
        let packing = if kind == 5 {
            count * 8 + origins * 40
        } else {
            0
        };
        let ids = at + HEADER_LEN + entries_len + packing;
        let seal = ids + ids_len + payloads_len;
        let tags = match has_records {
            true => (entries_len + packing).div_ceil(32 * ENTRY_LEN) + 2 * count,
            false => 1,
        };
        let end = (seal + 40 + 16 * tags).next_multiple_of(8);
        frames.push(Frame {
            at,
            kind,
            count,
            ids,
            payloads: ids + ids_len,
            seal,
            len: end - at,
        });
        at = end;
    }
    frames
}

fn log_files(disk: &MemoryStorage) -> Vec<(PathBuf, Vec<u8>)> {
    let is_log = |path: &PathBuf| path.starts_with("/s/log");
    files(disk)
        .into_iter()
        .filter(|(path, _)| is_log(path))
        .collect()
}

/// What became of a store with this log: the records, or that something was told.
fn look(disk: &MemoryStorage, rebuild: bool) -> Result<Vec<OwnedRecord>> {
    let options = current(disk);
    let store = match rebuild {
        true => options.rebuild(STORE)?,
        false => options.open(STORE)?,
    };
    let found = all(&store)?;
    match store.verify(|_, _| {})?.damage.into_iter().next() {
        None => Ok(found),
        Some(damage) => Err(damage),
    }
}

#[test]
fn a_flipped_bit_anywhere_is_told_and_never_returned() {
    let origin = MemoryStorage::new();
    let store = small(current(&origin)).unwrap();
    let _ = store.compact().unwrap();
    let feed = store.feed("secret-connection", "secret-model").unwrap();
    let _ = feed.batch_save_raw(&[("late", "late")]).unwrap();
    let expected = all(&store).unwrap();
    store.close().unwrap();
    let (mut told, mut harmless) = (0, 0);
    let log = log_files(&origin);
    for (path, bytes) in &log {
        let end = frames(bytes).into_iter().rfind(|frame| frame.kind == 3);
        for at in 0..bytes.len() {
            let disk = origin.crash(Survivors::All);
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << (at % 8);
            disk.write_file(path, &damaged).unwrap();
            match look(&disk, at % 2 == 0) {
                Err(Error::Corrupt { .. } | Error::UnknownFormat { .. }) => told += 1,
                // The key that the header names is another one then.
                Err(Error::WrongKey { .. }) if (64..72).contains(&at) => told += 1,
                Err(error) => panic!("byte {at} of {path:?}: {error}"),
                // The frame of the close says nothing that a crash would not leave out.
                Ok(found) => {
                    let is_end = end.as_ref().is_some_and(|end| at >= end.at);
                    assert!(is_end && found == expected, "byte {at} of {path:?}");
                    harmless += 1;
                }
            }
        }
    }
    println!("{told} told, {harmless} without consequence");
    assert!(told > 20 * harmless);
}

/// Gives every frame from `from` on the chain and the checksums that it should have.
fn chain_anew(file: &mut [u8]) {
    let sum_of =
        |seed: u64, bytes: &[u8]| crc32c::crc32c_append((seed ^ (seed >> 32)) as u32, bytes);
    let all = frames(file);
    let mut chain = number(&file[12..16]) as u32;
    for Frame { at, .. } in all {
        file[at + 92..at + 96].copy_from_slice(&chain.to_le_bytes());
        chain = sum_of(at as u64, &file[at..at + 116]);
        file[at + 116..at + 120].copy_from_slice(&chain.to_le_bytes());
    }
}

/// A store with one segment, of frames with records of one length, in two feeds.
fn uniform() -> (MemoryStorage, PathBuf, Vec<u8>) {
    let disk = MemoryStorage::new();
    let store = current(&disk).open(STORE).unwrap();
    for round in 0..2 {
        for model in ["secret-model", "other-model!"] {
            let feed = store.feed("secret-connection", model).unwrap();
            let record = |id| (format!("id-{round}-{id}"), format!("payload {round}"));
            let records: Vec<_> = (0..4).map(record).collect();
            let _ = feed.batch_save_raw(&records).unwrap();
        }
    }
    store.close().unwrap();
    let [(path, bytes)] = log_files(&disk).try_into().unwrap();
    (disk, path, bytes)
}

fn told(disk: &MemoryStorage, path: &PathBuf, bytes: &[u8]) {
    for rebuild in [false, true] {
        let disk = disk.crash(Survivors::All);
        disk.write_file(path, bytes).unwrap();
        let found = look(&disk, rebuild);
        assert!(
            matches!(found, Err(Error::Corrupt { .. })),
            "{:?}",
            found.map(|all| all.len())
        );
    }
}

#[test]
fn records_that_change_places_are_noticed() {
    let (disk, path, bytes) = uniform();
    let of_records: Vec<Frame> = frames(&bytes)
        .into_iter()
        .filter(|frame| frame.kind == 1)
        .collect();
    let swap = |file: &mut Vec<u8>, a: usize, b: usize, len: usize| {
        let kept = file[a..a + len].to_vec();
        file.copy_within(b..b + len, a);
        file[b..b + len].copy_from_slice(&kept);
    };
    let frame = &of_records[0];
    let (id, payload) = (
        (frame.payloads - frame.ids) / frame.count,
        (frame.seal - frame.payloads) / frame.count,
    );
    let tags = frame.seal + 40 + 16;
    for (wrong, pieces) in [
        ("ids", vec![(frame.ids, id), (tags, 16)]),
        ("payloads", vec![(frame.payloads, payload), (tags + 16, 16)]),
        (
            "records",
            vec![(frame.ids, id), (frame.payloads, payload), (tags, 32)],
        ),
    ] {
        let mut file = bytes.clone();
        for (at, len) in pieces {
            let step = if at >= tags { 32 } else { len };
            swap(&mut file, at, at + step, len);
        }
        assert!(file != bytes, "{wrong}");
        told(&disk, &path, &file);
    }
}

#[test]
fn frames_that_change_places_or_headers_are_noticed() {
    let (disk, path, bytes) = uniform();
    let of_records: Vec<Frame> = frames(&bytes)
        .into_iter()
        .filter(|frame| frame.kind == 1)
        .collect();
    let mut same = bytes.clone();
    chain_anew(&mut same);
    assert!(same == bytes, "the checksums are understood");
    let put = |file: &mut Vec<u8>, from: &Frame, to: &Frame| {
        file[to.at..to.at + to.len].copy_from_slice(&bytes[from.at..from.at + from.len]);
    };
    // Of the same feed, and of another one.
    for (a, b) in [(0, 2), (0, 1), (1, 2)] {
        let (a, b) = (&of_records[a], &of_records[b]);
        assert_eq!(a.len, b.len);
        let mut file = bytes.clone();
        put(&mut file, a, b);
        put(&mut file, b, a);
        chain_anew(&mut file);
        told(&disk, &path, &file);
        // Under the headers that were there.
        for frame in [a, b] {
            let header = frame.at..frame.at + HEADER_LEN;
            file[header.clone()].copy_from_slice(&bytes[header]);
        }
        told(&disk, &path, &file);
    }
    // Feed, LSN, time, live records, epoch, run.
    for field in [8, 16, 40, 56, 72, 100] {
        let mut file = bytes.clone();
        file[of_records[1].at + field] ^= 1;
        chain_anew(&mut file);
        told(&disk, &path, &file);
    }
}

/// What was sealed under each salt, in all the files that were ever seen.
#[derive(Default)]
struct Seen(BTreeMap<Vec<u8>, Vec<u8>>);

impl Seen {
    fn look_at(&mut self, disk: &MemoryStorage) {
        for (_, file) in log_files(disk) {
            for frame in frames(&file) {
                let salt = file[frame.seal + 16..frame.seal + 40].to_vec();
                let content = file[frame.at + HEADER_LEN..frame.seal].to_vec();
                let known = self.0.entry(salt).or_insert_with(|| content.clone());
                assert!(*known == content, "a salt was used twice");
            }
        }
    }
}

#[test]
fn no_frame_has_the_salt_of_another_whatever_happens_to_the_files() {
    let mut seen = Seen::default();
    let mut disk = MemoryStorage::new();
    for crash in 0..12u32 {
        let store = current(&disk).segment_size(4096).open(STORE).unwrap();
        let feed = store.feed("secret-connection", "secret-model").unwrap();
        for round in 0..12 {
            let _ = feed
                .batch_save_raw(&records(round, crash * 100 + round)[..8])
                .unwrap();
            seen.look_at(&disk);
            // Files that compaction has replaced become segments again.
            if round % 4 == 3 {
                let _ = store.compact().unwrap();
                seen.look_at(&disk);
            }
        }
        // A frame that is written, torn by the crash, and written again with something else.
        disk.stop_at(disk.operations() + 1);
        assert!(
            feed.batch_save_raw(&[("torn", crash.to_string().repeat(200))])
                .is_err()
        );
        seen.look_at(&disk);
        let unsynced = disk.unsynced_bytes();
        disk = disk.crash(match crash % 3 {
            0 => Survivors::Synced,
            1 => Survivors::Prefix(unsynced * 2 / 3),
            _ => Survivors::Sectors(u64::from(crash)),
        });
    }
    assert!(seen.0.len() > 100, "{} frames", seen.0.len());
}

#[test]
fn what_is_no_frame_any_more_is_not_readable_either() {
    let disk = MemoryStorage::new();
    let store = current(&disk).segment_size(4096).open(STORE).unwrap();
    let feed = store.feed("secret-connection", "secret-model").unwrap();
    let mut reused = false;
    for round in 0..60 {
        let _ = feed.batch_save_raw(&records(0, round)[..12]).unwrap();
        if round % 5 == 4 {
            let _ = store.compact().unwrap();
        }
        let now = files(&disk);
        reused |= now
            .keys()
            .any(|path| path.extension().is_some_and(|it| it == "spare"));
        assert_eq!(readable(&now), []);
    }
    assert!(reused, "compaction kept files to be used again");
}
