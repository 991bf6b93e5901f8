//! `kill -9`: a child process writes to a real disk from several threads and reports each batch
//! when it is acknowledged, while readers read, indexes go into files and the log is compacted; it
//! is killed at a random moment and the store reopened, again and again over the same store. Checks
//! G1, G2, G4, G5 and G13. `HIGHWATER_KILL_ROUNDS` says how often, in each durability.
//!
//! Every batch is one commit of three records and a checkpoint. The records of thread `t`'s batch
//! `n` are `t-n%KEYS-0..3`, with `n` in the payload, so that new batches replace older ones.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use highwater::{Cursor, Durability, Expected, List, Options, Store};
use serde_json::{Value, json};

const CHILD: &str = "HIGHWATER_TEST_KILL";
const THREADS: u64 = 3;
const KEYS: u64 = 5;

/// How often a child is killed.
fn rounds() -> u64 {
    let given = std::env::var("HIGHWATER_KILL_ROUNDS").ok();
    given.map_or(40, |text| text.parse().unwrap())
}

fn open(path: &Path, relaxed: bool) -> Store {
    let durability = if relaxed {
        Durability::Relaxed {
            interval: Duration::from_millis(3),
        }
    } else {
        Durability::Durable
    };
    let options = Options::new().durability(durability).segment_size(16 << 10);
    let options = options
        .checkpoint_bytes(20 << 10)
        .index_limits_of(1000, 500);
    options.open(path).unwrap()
}

/// The newest batch of a thread, as its checkpoint says.
fn checkpoint(store: &Store, thread: u64) -> Option<u64> {
    let checkpoint = store.checkpoint("c", &format!("t{thread}"), "").unwrap()?;
    let value: Value = serde_json::from_slice(&checkpoint.json).unwrap();
    value["n"].as_u64()
}

fn write(store: &Store, thread: u64, n: u64) {
    let feed = store.feed("c", &format!("m{}", thread % 2)).unwrap();
    let key = n % KEYS;
    let pad = "x".repeat((n * 37 % 200) as usize);
    let records: Vec<Value> = (0..3)
        .map(|part| json!({"id": format!("{thread}-{key}-{part}"), "n": n, "pad": pad}))
        .collect();
    let mut batch = store.batch("c");
    batch.save(&feed, &records).unwrap();
    let sync = format!("t{thread}");
    batch
        .checkpoint(&sync, "", &json!({"n": n}), Expected::Any)
        .unwrap();
    let applied = batch.commit().unwrap();
    assert_eq!(applied[0].totals.changed(), 3);
}

/// Not a test of its own: what the child processes run until they are killed.
#[test]
fn child_writes_until_killed() {
    let Some(setup) = std::env::var(CHILD).ok() else {
        return;
    };
    let (mode, path) = setup.split_once(' ').unwrap();
    let store = open(Path::new(path), mode == "relaxed");
    std::thread::scope(|scope| {
        scope.spawn(|| read_and_compact(&store));
        for thread in 0..THREADS {
            let store = &store;
            scope.spawn(move || {
                let first = checkpoint(store, thread).map_or(0, |n| n + 1);
                for n in first.. {
                    write(store, thread, n);
                    let line = format!("\nack {thread} {n}\n");
                    // The parent may be gone or have closed the pipe: then this is the end.
                    if std::io::stdout().lock().write_all(line.as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
}

/// Reads everything and compacts, again and again: whole batches only, in rising order.
fn read_and_compact(store: &Store) {
    loop {
        for model in ["m0", "m1"] {
            let feed = store.feed("c", model).unwrap();
            let (count, mut after, mut seen) = (feed.count().unwrap(), None, 0);
            loop {
                let page = feed.list(&List::new().after(after).limit(5)).unwrap();
                for record in page.iter() {
                    assert!(after.is_none_or(|after| record.cursor > after));
                    after = Some(record.cursor);
                    seen += 1;
                }
                if !page.has_more() {
                    break;
                }
            }
            // Nothing is deleted, and readers see what comes meanwhile more than once.
            assert!(
                seen >= count,
                "a record that moves on is met where it is now"
            );
        }
        let _ = store.compact().unwrap();
    }
}

/// Runs a child for some time, kills it, and returns the newest batch each thread reported.
fn killed(path: &Path, mode: &str, lifetime: Duration) -> BTreeMap<u64, u64> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_writes_until_killed", "--nocapture"])
        .env(CHILD, format!("{mode} {}", path.display()))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = child.stdout.take().unwrap();
    let reader = std::thread::spawn(move || {
        let mut text = Vec::new();
        output.read_to_end(&mut text).unwrap();
        text
    });
    std::thread::sleep(lifetime);
    child.kill().unwrap();
    let status = child.wait().unwrap();
    assert_eq!(status.code(), None, "the child ended by itself");
    let text = reader.join().unwrap();
    let mut acknowledged = BTreeMap::new();
    for line in BufReader::new(text.as_slice()).split(b'\n') {
        let line = String::from_utf8(line.unwrap()).unwrap();
        // A line is written to the pipe in one piece, or not at all.
        if let Some(numbers) = line.strip_prefix("ack ") {
            let (thread, n) = numbers.split_once(' ').unwrap();
            acknowledged.insert(thread.parse().unwrap(), n.parse().unwrap());
        }
    }
    acknowledged
}

/// A consumer that lives through all the kills.
#[derive(Default)]
struct Follower {
    cursors: BTreeMap<String, Cursor>,
    records: BTreeMap<String, (Cursor, u64)>,
}

impl Follower {
    /// Reads on from where it was, and then compares with the whole feed.
    fn catch_up(&mut self, store: &Store, model: &str) {
        let feed = store.feed("c", model).unwrap();
        let mut after = self.cursors.get(model).copied();
        loop {
            let page = feed.list(&List::new().after(after).limit(7)).unwrap();
            for record in page.iter() {
                assert!(after.is_none_or(|after| record.cursor > after));
                after = Some(record.cursor);
                let value: Value = record.json().unwrap();
                let n = value["n"].as_u64().unwrap();
                self.records
                    .insert(record.id.to_owned(), (record.cursor, n));
            }
            after = Some(page.resume_cursor());
            if !page.has_more() {
                break;
            }
        }
        self.cursors.insert(model.to_owned(), after.unwrap());
        let whole: Vec<_> = feed.records(None).map(Result::unwrap).collect();
        assert_eq!(feed.count().unwrap(), whole.len() as u64);
        let mut cursor = None;
        for record in &whole {
            assert!(Some(record.cursor) > cursor, "cursors rise strictly");
            cursor = Some(record.cursor);
            let value: Value = serde_json::from_slice(record.payload.as_ref().unwrap()).unwrap();
            let seen = (record.cursor, value["n"].as_u64().unwrap());
            assert_eq!(self.records.get(&record.id), Some(&seen), "{}", record.id);
        }
    }
}

/// No batch in part, and the checkpoint of every thread is that of its newest batch.
fn check_batches(store: &Store, follower: &Follower, acknowledged: &BTreeMap<u64, u64>) {
    for thread in 0..THREADS {
        let newest = checkpoint(store, thread);
        let reported = acknowledged.get(&thread).copied();
        assert!(
            newest >= reported,
            "{thread}: {newest:?} after {reported:?} was acknowledged"
        );
        // A thread has at most one batch under way.
        if let (Some(newest), Some(reported)) = (newest, reported) {
            assert!(
                newest <= reported + 1,
                "{thread}: {newest} after {reported}"
            );
        }
        for key in 0..KEYS {
            let expected = newest.and_then(|newest| (0..=newest).rev().find(|n| n % KEYS == key));
            for part in 0..3 {
                let record = follower.records.get(&format!("{thread}-{key}-{part}"));
                let found = record.map(|(_, n)| *n);
                assert_eq!(
                    found, expected,
                    "batch of thread {thread}, key {key}, part {part}"
                );
            }
        }
    }
}

fn kill_again_and_again(mode: &str) {
    let dir = tempfile::tempdir().unwrap();
    let mut follower = Follower::default();
    let mut acknowledged = BTreeMap::new();
    let mut reports = 0;
    let rounds = rounds();
    for round in 0..rounds {
        let lifetime = Duration::from_millis(30 + round * 7919 % 240);
        let new = killed(dir.path(), mode, lifetime);
        reports += new.len();
        acknowledged.extend(new);
        let store = open(dir.path(), mode == "relaxed");
        for model in ["m0", "m1"] {
            follower.catch_up(&store, model);
        }
        check_batches(&store, &follower, &acknowledged);
        let report = store.verify(|_, _| {}).unwrap();
        assert!(report.is_clean(), "round {round}: {report:?}");
        // Sometimes the next child finds a closed store, sometimes one that was opened and left.
        if round % 3 == 0 {
            write(&store, 9, round);
            for model in ["m0", "m1"] {
                follower.catch_up(&store, model);
            }
            store.close().unwrap();
        }
    }
    assert!(
        reports > rounds as usize,
        "the children hardly wrote: {reports}"
    );
    println!("{mode}: {rounds} kills");
    let store = Options::new().rebuild(dir.path()).unwrap();
    for model in ["m0", "m1"] {
        follower.catch_up(&store, model);
    }
    check_batches(&store, &follower, &acknowledged);
}

#[test]
fn killed_while_writing_durably() {
    kill_again_and_again("durable");
}

#[test]
fn killed_while_writing_relaxed() {
    kill_again_and_again("relaxed");
}
