//! Damage to any byte of any file of a closed store, and to any file as a whole: every answer is
//! either exactly right or an error that names the place. Checks G10 and G17, and G18 for the
//! version field.
//!
//! The store is small and written so that every kind of read depends on every kind of byte: live
//! records next to superseded ones, deletions whose payload lies elsewhere, several segments,
//! feeds, checkpoints and metadata. Each damage is done to a copy of its own.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Once};

use highwater::storage::{ManualClock, MemoryStorage, Survivors};
use highwater::{Error, Expected, List, Options, Order, Result, Store};
use serde_json::json;

const STORE: &str = "/s";
const CATALOG: &str = "/s/catalog.redb";
/// How many questions each feed is asked; see [`answers`].
const QUESTIONS: usize = 11;
const FEEDS: [&str; 3] = ["Contact", "Company", "Blob"];

fn options(disk: &MemoryStorage) -> Options {
    Options::new()
        .storage(Arc::new(disk.clone()))
        .segment_size(4096)
        .background(false)
        .clock(Arc::new(ManualClock::new(1_700_000_000_000_000)))
        .secret([7; 32])
}

/// A closed store with some history.
fn build() -> MemoryStorage {
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

/// Every question one can ask, each with its answer.
fn answers(store: &Store) -> Vec<Result<String>> {
    fn show<T: std::fmt::Debug>(answer: Result<T>) -> Result<String> {
        answer.map(|answer| format!("{answer:?}"))
    }
    let mut answers = vec![
        show(store.checkpoint("c", "sync", "")),
        show(store.checkpoint("c", "other", "")),
        show(store.connection_metadata("c")),
        show(store.feeds()),
    ];
    for model in FEEDS {
        let feed = match store.feed("c", model) {
            Ok(feed) => feed,
            Err(error) => {
                answers.extend((0..QUESTIONS).map(|_| Err(Error::Closed)));
                *answers.last_mut().unwrap() = Err(error);
                continue;
            }
        };
        answers.push(show(feed.count()));
        answers.push(show(feed.size()));
        answers.push(show(feed.first_cursor()));
        answers.push(show(feed.last_cursor()));
        for list in [
            List::new().limit(3),
            List::new(),
            List::new().order(Order::Descending),
            List::new().metadata_only(true),
            List::new().ids(["1", "5", "7", "acme", "blob-2", "nobody"]),
        ] {
            let page = feed.list(&list);
            answers.push(show(page.map(|page| {
                let records: Vec<_> = page.iter().map(|record| record.to_owned()).collect();
                (records, page.resume_cursor(), page.has_more())
            })));
        }
        answers.push(show(feed.records(None).collect::<Result<Vec<_>>>()));
        let page = feed.get(&["blob-4", "8", "3", "5", "nobody", "acme"]);
        let owned = page.map(|page| page.iter().map(|r| r.to_owned()).collect::<Vec<_>>());
        answers.push(show(owned));
    }
    answers
}

/// Whether an error says what damage looks like.
fn names_damage(error: &Error) -> bool {
    match error {
        Error::Corrupt { path, .. } | Error::UnknownFormat { path, .. } => path.starts_with(STORE),
        _ => false,
    }
}

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Runs something that may panic, without the message and without ending the test.
fn quietly<T>(run: impl FnOnce() -> T) -> std::thread::Result<T> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let loud = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !QUIET.get() {
                loud(info);
            }
        }));
    });
    QUIET.set(true);
    let result = catch_unwind(AssertUnwindSafe(run));
    QUIET.set(false);
    result
}

struct Examiner {
    right: Vec<String>,
    refused: usize,
    partial: usize,
    unharmed: usize,
    faults: Vec<String>,
}

impl Examiner {
    fn new(disk: &MemoryStorage) -> Self {
        let store = options(&disk.crash(Survivors::All)).open(STORE).unwrap();
        Self::right(answers(&store).into_iter().map(Result::unwrap).collect())
    }

    fn right(right: Vec<String>) -> Self {
        Self {
            right,
            refused: 0,
            partial: 0,
            unharmed: 0,
            faults: Vec::new(),
        }
    }

    /// Opens a damaged copy and asks everything.
    fn examine(&mut self, disk: &MemoryStorage, what: &str) {
        let run = || {
            let answers = options(disk).open(STORE).map(|store| answers(&store));
            // The copy is thrown away: closing it need not write anything.
            disk.stop_at(disk.operations());
            answers
        };
        match quietly(run) {
            Ok(Ok(answers)) => self.compare(answers, what),
            Ok(Err(error)) => {
                self.refused += 1;
                self.expect_damage(&error, what);
            }
            Err(_) => self.faults.push(format!("{what}: panicked")),
        }
    }

    fn compare(&mut self, answers: Vec<Result<String>>, what: &str) {
        assert_eq!(answers.len(), self.right.len());
        let mut harmed = false;
        for (at, answer) in answers.into_iter().enumerate() {
            match answer {
                Ok(answer) if answer == self.right[at] => {}
                Ok(answer) => {
                    let right = &self.right[at];
                    self.faults
                        .push(format!("{what}: wrong: {answer}, right: {right}"));
                }
                Err(Error::Closed) => {}
                Err(error) => {
                    harmed = true;
                    self.expect_damage(&error, what);
                }
            }
        }
        let counter = if harmed {
            &mut self.partial
        } else {
            &mut self.unharmed
        };
        *counter += 1;
    }

    fn expect_damage(&mut self, error: &Error, what: &str) {
        if !names_damage(error) {
            self.faults.push(format!("{what}: {error:?}"));
        }
    }

    fn finish(self, name: &str) {
        let shown: Vec<_> = self.faults.iter().take(20).collect();
        assert!(
            self.faults.is_empty(),
            "{name}: {} faults, the first ones: {shown:#?}",
            self.faults.len()
        );
        println!(
            "{name}: {} refused, {} served in part, {} unharmed",
            self.refused, self.partial, self.unharmed
        );
    }
}

fn segments(disk: &MemoryStorage) -> Vec<String> {
    let paths = disk.files().into_iter().map(|(path, _)| path);
    let names = paths.filter_map(|path| path.to_str().map(str::to_owned));
    names.filter(|path| path.ends_with(".seg")).collect()
}

/// Damages each byte of each segment in turn, with the catalog in place or without it.
fn every_log_byte(damage: fn(u8, usize) -> u8, keep_catalog: bool, name: &str) {
    let disk = build();
    let mut examiner = Examiner::new(&disk);
    if !keep_catalog {
        disk.remove_file(CATALOG).unwrap();
    }
    let segments = segments(&disk);
    assert!(segments.len() >= 3, "{segments:?}");
    for path in segments {
        let bytes = disk.read_file(&path).unwrap();
        let mut damaged = bytes.clone();
        for at in 0..bytes.len() {
            damaged[at] = damage(bytes[at], at);
            if damaged[at] != bytes[at] {
                let copy = disk.crash(Survivors::All);
                copy.write_file(&path, &damaged).unwrap();
                examiner.examine(&copy, &format!("{path} byte {at}"));
            }
            damaged[at] = bytes[at];
        }
    }
    assert!(examiner.refused + examiner.partial > examiner.unharmed / 4);
    examiner.finish(name);
}

#[test]
fn a_flipped_bit_anywhere_in_the_log() {
    every_log_byte(|byte, at| byte ^ 1 << (at % 8), true, "bit, catalog");
}

#[test]
fn a_flipped_bit_anywhere_in_the_log_without_catalog() {
    every_log_byte(|byte, at| byte ^ 1 << (at % 8), false, "bit, no catalog");
}

/// Damage while the store is open strikes reads without any check that opening makes.
#[test]
fn every_flipped_bit_of_the_log_under_an_open_store() {
    const PATH: &str = "/s/log/0000000001.seg";
    let disk = MemoryStorage::new();
    let store = options(&disk).index_budget(0).open(STORE).unwrap();
    let feed = store.feed("c", "m").unwrap();
    let save = |id: &'static str, body: &'static str| feed.batch_save_raw(&[(id, body)]).unwrap();
    let all = [
        ("a", "11"),
        ("bb", "222"),
        ("c", "3333"),
        ("d", "4"),
        ("e", "55555"),
    ];
    let _ = feed.batch_save_raw(&all).unwrap();
    let (_, _) = (save("bb", "new"), save("other", "index"));
    let _ = feed.batch_delete(&["d"]).unwrap();
    let ask = || {
        let page = feed.list(&List::new()).map(|page| {
            let records: Vec<_> = page.iter().map(|record| record.to_owned()).collect();
            format!("{records:?}")
        });
        let got = feed.get(&["e", "d", "bb"]);
        let got = got.map(|page| format!("{:?}", page.iter().collect::<Vec<_>>()));
        vec![page, got]
    };
    let mut examiner = Examiner::right(ask().into_iter().map(Result::unwrap).collect());
    let bytes = disk.read_file(PATH).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let mut damaged = bytes.clone();
    for bit in 0..8 * end {
        damaged[bit / 8] ^= 1 << (bit % 8);
        disk.write_file(PATH, &damaged[..end]).unwrap();
        damaged[bit / 8] = bytes[bit / 8];
        let what = format!("byte {} bit {}", bit / 8, bit % 8);
        match quietly(ask) {
            Ok(answers) => examiner.compare(answers, &what),
            Err(_) => examiner.faults.push(format!("{what}: panicked")),
        }
    }
    disk.write_file(PATH, &bytes).unwrap();
    assert!(examiner.partial > 1000);
    examiner.finish("open store");
}

/// Cuts the file short, doubles it and so on.
fn misshapen(bytes: &[u8], other: &[u8]) -> Vec<(&'static str, Option<Vec<u8>>)> {
    let len = bytes.len();
    vec![
        ("missing", None),
        ("empty", Some(Vec::new())),
        ("one byte", Some(bytes[..1].to_vec())),
        ("100 bytes", Some(bytes[..100].to_vec())),
        ("half", Some(bytes[..len / 2].to_vec())),
        ("a byte short", Some(bytes[..len - 1].to_vec())),
        ("a byte long", Some([bytes, &[0]].concat())),
        ("a foreign byte long", Some([bytes, &[0xA5]].concat())),
        ("4 KiB long", Some([bytes, &[0; 4096]].concat())),
        ("doubled", Some([bytes, bytes].concat())),
        ("zeroed", Some(vec![0; len])),
        ("another file's", Some(other.to_vec())),
        ("text", Some(b"not what it was".repeat(99))),
    ]
}

#[test]
fn any_file_in_any_wrong_shape() {
    let disk = build();
    let mut examiner = Examiner::new(&disk);
    let mut paths = segments(&disk);
    paths.push(CATALOG.to_owned());
    for (at, path) in paths.iter().enumerate() {
        let bytes = disk.read_file(path).unwrap();
        let next = &paths[(at + 1) % paths.len()];
        let other = disk.read_file(next).unwrap();
        for (shape, content) in misshapen(&bytes, &other) {
            // Without a catalog nothing knows how far the last segment went.
            let last = at + 2 >= paths.len();
            for catalog in [true, last] {
                let copy = disk.crash(Survivors::All);
                if !catalog {
                    copy.remove_file(CATALOG).unwrap();
                }
                match &content {
                    Some(content) => copy.write_file(path, content).unwrap(),
                    None => copy.remove_file(path).unwrap(),
                }
                examiner.examine(&copy, &format!("{path} {shape}, catalog {catalog}"));
            }
        }
        let copy = disk.crash(Survivors::All);
        copy.write_file(path, &other).unwrap();
        copy.write_file(next, &bytes).unwrap();
        examiner.examine(&copy, &format!("{path} swapped with {next}"));
    }
    examiner.finish("shapes");
}

#[test]
fn files_that_do_not_belong() {
    let disk = build();
    let mut examiner = Examiner::new(&disk);
    let foreign = build_foreign();
    let last = segments(&disk).pop().unwrap();
    let extra = disk.read_file(&last).unwrap();
    let theirs = foreign.read_file("/s/log/0000000001.seg").unwrap();
    for (path, bytes) in [
        ("/s/notes.txt", &extra),
        ("/s/log/notes.txt", &extra),
        ("/s/log/0000000009.seg", &extra),
        ("/s/log/0000000009.seg", &theirs),
        ("/s/log/0000000001.seg", &theirs),
        ("/s/log/0000000000.seg", &extra),
        ("/s/log/9.seg", &extra),
        ("/s/log/0000000009.tmp", &extra),
        ("/s/log/0000000001.seg.bak", &theirs),
    ] {
        let copy = disk.crash(Survivors::All);
        copy.write_file(path, bytes).unwrap();
        examiner.examine(&copy, &format!("extra {path}"));
    }
    let copy = disk.crash(Survivors::All);
    let catalog = foreign.read_file(CATALOG).unwrap();
    copy.write_file(CATALOG, &catalog).unwrap();
    examiner.examine(&copy, "another store's catalog");
    // The catalog is derived data: no catalog of any other store gets in the way.
    let counts = (examiner.unharmed, examiner.refused);
    examiner.finish("strangers");
    assert_eq!(counts, (6, 4));
}

/// A store with other data and another identity.
fn build_foreign() -> MemoryStorage {
    let disk = MemoryStorage::new();
    let store = options(&disk).secret([8; 32]).open(STORE).unwrap();
    let feed = store.feed("c", "Contact").unwrap();
    let _ = feed
        .batch_save(&[json!({"id": 1, "foreign": true})])
        .unwrap();
    store.close().unwrap();
    disk
}

/// A catalog can be damaged everywhere: the log has everything, so every open works. Of the bytes
/// in use every 31st is damaged.
#[test]
fn damage_anywhere_in_the_catalog() {
    let disk = build();
    let mut examiner = Examiner::new(&disk);
    let bytes = disk.read_file(CATALOG).unwrap();
    let mut damaged = bytes.clone();
    let used: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at] != 0).collect();
    let unused = (0..bytes.len()).step_by(4099);
    for (n, at) in used.into_iter().chain(unused).enumerate() {
        if n % 31 != 0 {
            continue;
        }
        for byte in [bytes[at] ^ 1 << (at % 8), !bytes[at]] {
            damaged[at] = byte;
            let copy = disk.crash(Survivors::All);
            copy.write_file(CATALOG, &damaged).unwrap();
            examiner.examine(&copy, &format!("catalog byte {at}: {byte}"));
        }
        damaged[at] = bytes[at];
    }
    let refused = examiner.refused;
    examiner.finish("catalog");
    assert_eq!(refused, 0);
}
