//! Stores that released versions wrote are read by this one, and files that newer ones wrote are
//! left alone. Checks G18.
//!
//! `tests/fixtures` has one store of each kind for each form that stores were ever written in: all its
//! files in one, compressed, and beside it what it shows. `make_fixtures` writes those of the
//! current one; the others are never written again.
#![expect(clippy::disallowed_methods, reason = "fixtures are no part of a store")]

use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write};
use std::path::PathBuf;

use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use highwater::storage::{MemoryStorage, Survivors};
use highwater::{Error, Expected, List, Oldest, Options, Record, Store, SyncKey};
use serde_json::json;

use crate::world::{STORE, feed, files, options, save, verify};

const VERSION: &str = "v2";
/// The forms that stores of the version were written in, which all show the same; `b` has directories
/// in a quarter of the space.
const FORMS: [&str; 2] = [VERSION, "v2b"];
const CURRENT: &str = FORMS[FORMS.len() - 1];

/// What a store was written with, and is read with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    /// Segments alone.
    Plain,
    /// The same, after a crash.
    Crashed,
    /// Packs, and an index in files.
    Packed,
    /// Payloads compressed with a dictionary.
    Compressed,
}

impl Kind {
    fn all() -> Vec<Self> {
        let mut kinds = vec![Self::Plain, Self::Crashed, Self::Packed];
        if cfg!(feature = "zstd") {
            kinds.push(Self::Compressed);
        }
        kinds
    }

    fn options(self, disk: &MemoryStorage) -> Options {
        let options = options(disk);
        match self {
            Self::Plain | Self::Crashed => options,
            Self::Packed => options.eager_compaction(true).index_limits_of(1000, 500),
            #[cfg(feature = "zstd")]
            Self::Compressed => options
                .compression(highwater::Compression::Zstd { level: 3 })
                .dictionaries_from(50, 4 << 10),
            #[cfg(not(feature = "zstd"))]
            Self::Compressed => options,
        }
    }

    fn path(self, form: &str, extension: &str) -> PathBuf {
        let name = format!("{self:?}").to_lowercase();
        let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
        dir.join(format!("{form}-{name}.{extension}"))
    }
}

/// Some of everything that a store can hold.
fn write(kind: Kind, disk: &MemoryStorage) -> Store {
    let store = kind.options(disk).open(STORE).unwrap();
    let (contacts, blobs) = (feed(&store, "contact"), feed(&store, "blob"));
    let person = |id: usize| json!({"id": id, "name": format!("Person {id}"), "mail": format!("p{id}@example.org")});
    for start in [0, 40, 80] {
        let people: Vec<_> = (start..start + 40).map(person).collect();
        let _ = contacts.batch_save(&people).unwrap();
    }
    save(&blobs, 0..30, 100, 'b');
    let consumer = contacts.consumer("search").unwrap();
    let page = consumer.list(List::new().limit(20)).unwrap();
    consumer.acknowledge(page.resume_cursor()).unwrap();
    let _ = contacts.batch_delete(&["3", "50"]).unwrap();
    let _ = contacts
        .batch_save(&[json!({"id": 3, "back": true}), json!({"id": 7})])
        .unwrap();
    let _ = blobs.prune(&Oldest::all().limit(5)).unwrap();
    let _ = blobs.batch_delete(&["9", "10"]).unwrap();
    let _ = blobs.purge(&Oldest::all().limit(1)).unwrap();
    let run = store
        .begin_run(
            &SyncKey::new("c", "nightly", "").unwrap(),
            Default::default(),
        )
        .unwrap();
    let _ = run
        .feed("contact")
        .unwrap()
        .batch_save(&[person(8), json!({"id": "new"})])
        .unwrap();
    let _ = run.succeed().unwrap();
    let cursor = json!({"page": 7});
    store
        .save_checkpoint("c", "nightly", "", &cursor, Expected::Absent)
        .unwrap();
    store
        .set_connection_metadata("c", &json!({"region": "eu"}))
        .unwrap();
    if kind == Kind::Packed {
        let _ = store.compact().unwrap();
        save(&blobs, 28..33, 100, 'c');
    }
    store
}

/// Everything that a store shows, as text.
fn shown(store: &Store) -> String {
    let mut text = String::new();
    let line = |record: Record<'_>| {
        let payload = record
            .payload
            .map(|payload| String::from_utf8_lossy(payload).into_owned());
        format!(
            "{} {} {} {:?} {:?} {:?} {payload:?}",
            record.cursor,
            record.last_action,
            record.id,
            record.first_seen_at,
            record.last_modified_at,
            record.pruned_at,
        )
    };
    for info in store.feeds().unwrap() {
        let feed = feed(store, &info.key.model);
        writeln!(text, "{} {} {}", info.key, info.live, info.live_bytes).unwrap();
        let page = feed.list(&List::new().limit(1000)).unwrap();
        for record in page.iter() {
            writeln!(text, "{}", line(record)).unwrap();
        }
        for consumer in feed.consumers().unwrap() {
            writeln!(
                text,
                "{} {} {}",
                consumer.name, consumer.cursor, consumer.lag
            )
            .unwrap();
        }
    }
    let checkpoint = store.checkpoint("c", "nightly", "").unwrap();
    let metadata = store.connection_metadata("c").unwrap().unwrap_or_default();
    let runs = store
        .runs(&SyncKey::new("c", "nightly", "").unwrap())
        .unwrap();
    let metadata = String::from_utf8_lossy(&metadata);
    writeln!(text, "{checkpoint:?}\n{metadata}\n{runs:?}").unwrap();
    text
}

fn zip(disk: &MemoryStorage) -> Vec<u8> {
    let mut zip = GzEncoder::new(Vec::new(), flate2::Compression::best());
    for (path, _) in disk.files() {
        let (name, bytes) = (path.to_str().unwrap(), disk.read_file(&path).unwrap());
        writeln!(zip, "{name} {}", bytes.len()).unwrap();
        zip.write_all(&bytes).unwrap();
    }
    zip.finish().unwrap()
}

fn unzip(bytes: &[u8]) -> MemoryStorage {
    let mut all = Vec::new();
    GzDecoder::new(bytes).read_to_end(&mut all).unwrap();
    let (disk, mut rest) = (MemoryStorage::new(), all.as_slice());
    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
        let head = std::str::from_utf8(&rest[..end]).unwrap();
        let (path, len) = head.split_once(' ').unwrap();
        let (bytes, after) = rest[end + 1..].split_at(len.parse().unwrap());
        disk.write_file(path, bytes).unwrap();
        rest = after;
    }
    disk
}

/// The fixtures of a kind, and what each shows.
fn fixtures(kind: Kind) -> Vec<(&'static str, MemoryStorage, String)> {
    let read = |form| {
        let bytes = fs::read(kind.path(form, "gz")).unwrap();
        let text = fs::read_to_string(kind.path(VERSION, "txt")).unwrap();
        (form, unzip(&bytes), text)
    };
    FORMS.map(read).into()
}

/// `cargo test --all-features --test operations make_fixtures -- --ignored` writes the fixtures of
/// the current form, until it is released.
#[test]
#[ignore = "writes files of the repository"]
fn make_fixtures() {
    fs::create_dir_all(Kind::Plain.path(CURRENT, "gz").parent().unwrap()).unwrap();
    for kind in Kind::all() {
        let disk = MemoryStorage::new();
        let store = write(kind, &disk);
        let text = shown(&store);
        let disk = match kind {
            Kind::Crashed => disk.crash(Survivors::Synced),
            _ => store.close().map(|()| disk).unwrap(),
        };
        disk.remove_file("/s/LOCK").unwrap();
        fs::write(kind.path(CURRENT, "gz"), zip(&disk)).unwrap();
        fs::write(kind.path(VERSION, "txt"), text).unwrap();
    }
}

#[test]
fn stores_of_released_versions_are_read_written_and_compacted() {
    for kind in Kind::all() {
        for (form, disk, expected) in fixtures(kind) {
            let what = format!("{kind:?} of {form}");
            if kind == Kind::Packed {
                assert!(!files(&disk, "/s/log", ".pack").is_empty(), "{what}");
                assert!(!files(&disk, "/s/index", ".run").is_empty(), "{what}");
            }
            for rebuild in [false, true] {
                let copy = disk.crash(Survivors::All);
                let opened = match rebuild {
                    false => kind.options(&copy).open(STORE),
                    true => kind.options(&copy).rebuild(STORE),
                };
                let store = opened.unwrap();
                assert_eq!(shown(&store), expected, "{what}, rebuilt: {rebuild}");
                verify(&store);
                let contacts = feed(&store, "contact");
                let again = contacts.batch_save(&[json!({"id": 7}), json!({"id": 8, "n": 1})]);
                let totals = again.unwrap().totals;
                assert_eq!((totals.unchanged, totals.updated), (1, 1), "{what}");
                save(&feed(&store, "blob"), 0..30, 100, 'z');
                let _ = store.compact().unwrap();
                verify(&store);
                let now = shown(&store);
                store.close().unwrap();
                let store = kind.options(&copy).open(STORE).unwrap();
                assert_eq!(shown(&store), now, "{what}");
                verify(&store);
            }
        }
    }
}

/// Backups and repairs of older stores are stores of the current version.
#[test]
fn stores_of_released_versions_are_backed_up_and_repaired() {
    for kind in Kind::all() {
        for (_, disk, expected) in fixtures(kind) {
            let store = kind.options(&disk).open(STORE).unwrap();
            let _ = store.backup("/b", |_, _| {}).unwrap();
            store.close().unwrap();
            let _ = kind.options(&disk).restore("/b", "/r", |_, _| {}).unwrap();
            let report = kind.options(&disk).repair(STORE, "/t").unwrap();
            // Nothing says where the log of a store ends that was not closed.
            let complete = report.is_complete() || kind == Kind::Crashed;
            assert!(complete, "{:?}", report.lost);
            for path in ["/r", "/t"] {
                let store = kind.options(&disk).open(path).unwrap();
                assert_eq!(shown(&store), expected, "{kind:?} {path}");
            }
        }
    }
}

/// What is written today is what the fixture of the current form has. If this fails, the
/// format has changed: count the version up.
#[test]
fn the_current_format_is_that_of_its_fixture() {
    for kind in Kind::all() {
        let disk = MemoryStorage::new();
        let store = write(kind, &disk);
        let path = kind.path(VERSION, "txt");
        assert_eq!(shown(&store), fs::read_to_string(path).unwrap(), "{kind:?}");
    }
}

/// A file of the log, with the version in it counted up, is refused by name, and not touched.
#[test]
fn files_of_newer_versions_are_left_alone() {
    let (_, disk, _) = fixtures(Kind::Packed).pop().unwrap();
    let newer = |bytes: &mut Vec<u8>| bytes[8..12].copy_from_slice(&77u32.to_le_bytes());
    for suffix in [".seg", ".pack"] {
        let path = files(&disk, "/s/log", suffix).pop().unwrap();
        let copy = disk.crash(Survivors::All);
        let mut bytes = copy.read_file(&path).unwrap();
        newer(&mut bytes);
        copy.write_file(&path, &bytes).unwrap();
        match Kind::Packed.options(&copy).open(STORE) {
            Err(Error::UnknownFormat {
                path: named,
                found: 77,
                ..
            }) => {
                assert_eq!(named.to_str(), Some(path.as_str()));
            }
            other => panic!("{path}: {other:?}"),
        }
        assert_eq!(copy.read_file(&path).unwrap(), bytes, "{path}");
    }
}
