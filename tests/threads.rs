//! Writers and tailing readers in real threads, on a simulated and on a real disk: readers never
//! miss a change, converge to exactly the live records, and durable means synced. Checks G1, G2,
//! G4, G5 and G7.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use highwater::storage::{MemoryStorage, Survivors};
use highwater::{Action, Cursor, Durability, Feed, List, Options, Outcome, Store};
use serde_json::{Value, json};

const WRITERS: u64 = 4;
const BATCHES: u64 = 60;
const IDS: u64 = 40;

struct Rng(u64);

impl Rng {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

/// Saves the same values in changing spellings, updates and deletes. Writer 3 stalls in between.
fn writer(feeds: &[Feed; 2], writer: u64) {
    let mut rng = Rng(0x9E37_79B9 + writer);
    let mut own = 0;
    for n in 0..BATCHES {
        let feed = &feeds[(n % 2) as usize];
        let ids: Vec<u64> = (0..1 + rng.below(6)).map(|_| rng.below(IDS)).collect();
        let applied = match rng.below(6) {
            0 => feed.batch_delete(&ids.iter().map(u64::to_string).collect::<Vec<_>>()),
            1 => {
                let partials: Vec<_> = ids.iter().map(|id| json!({"id": id, "up": n})).collect();
                feed.batch_update(&partials)
            }
            2 => {
                let texts = ids
                    .iter()
                    .map(|id| format!(r#"{{ "v": 1e0, "id": {id} }}"#));
                let raw = texts.map(|text| serde_json::value::RawValue::from_string(text).unwrap());
                feed.batch_save(&raw.collect::<Vec<_>>())
            }
            3 => {
                let records: Vec<_> = ids.iter().map(|id| json!({"id": id, "v": 1.0})).collect();
                feed.batch_save(&records)
            }
            _ => {
                let records: Vec<_> = ids.iter().map(|id| json!({"id": id, "w": n})).collect();
                feed.batch_save(&records)
            }
        };
        let applied = applied.unwrap();
        assert_eq!(applied.outcomes.len(), ids.len());
        assert_eq!(applied.last_cursor.is_some(), applied.totals.changed() > 0);
        // Nobody else writes this record: its history is this thread's alone.
        let record = json!({"id": format!("own-{writer}"), "n": n / 2, "feed": n % 2});
        let applied = feed.batch_save(&[record]).unwrap();
        let expected = if n < 2 {
            Outcome::Added
        } else {
            Outcome::Updated
        };
        assert_eq!(applied.outcomes, [expected]);
        let again = json!({"feed": n % 2, "n": n / 2, "id": format!("own-{writer}")});
        assert_eq!(
            feed.batch_save(&[again]).unwrap().outcomes,
            [Outcome::Unchanged]
        );
        assert!(applied.last_cursor.unwrap().to_string().len() < 64);
        own += 1;
        if writer == 3 && n % 8 == 0 {
            std::thread::sleep(Duration::from_millis(15));
        }
    }
    assert_eq!(own, BATCHES);
}

/// Everything a reader was ever shown, by cursor.
#[derive(Default)]
struct Reader {
    after: Option<Cursor>,
    shown: BTreeMap<Cursor, (String, Action, Vec<u8>)>,
    records: BTreeMap<String, (Cursor, Action, Vec<u8>)>,
}

impl Reader {
    fn read_page(&mut self, feed: &Feed, limit: usize) -> bool {
        let page = feed
            .list(&List::new().after(self.after).limit(limit).relative(false))
            .unwrap();
        for record in page.iter() {
            assert!(
                Some(record.cursor) > self.after,
                "a change at or before a cursor"
            );
            self.after = Some(record.cursor);
            let payload = record.payload.unwrap().to_vec();
            let seen = (record.id.to_owned(), record.last_action, payload.clone());
            assert_eq!(
                self.shown.insert(record.cursor, seen),
                None,
                "a cursor was reused"
            );
            let seen = (record.cursor, record.last_action, payload);
            self.records.insert(record.id.to_owned(), seen);
        }
        assert!(Some(page.resume_cursor()) >= self.after);
        self.after = Some(page.resume_cursor());
        page.has_more()
    }

    /// Lists from the beginning up to where this reader is: nothing may be new to it.
    fn look_back(&self, feed: &Feed) {
        let Some(after) = self.after else { return };
        for record in feed.records(None).map(Result::unwrap) {
            if record.cursor <= after {
                let seen = (record.id, record.last_action, record.payload.unwrap());
                assert_eq!(
                    self.shown.get(&record.cursor),
                    Some(&seen),
                    "a change was missed"
                );
            }
        }
    }

    fn follow(mut self, feed: &Feed, limit: usize, done: &AtomicBool) -> Self {
        for turn in 0.. {
            let finished = done.load(Ordering::SeqCst);
            feed.wait(self.after, Duration::from_millis(20)).unwrap();
            let more = self.read_page(feed, limit);
            if turn % 16 == 0 {
                self.look_back(feed);
            }
            if finished && !more {
                return self;
            }
        }
        self
    }

    fn assert_converged(&self, feed: &Feed) {
        let whole: Vec<_> = feed.records(None).map(Result::unwrap).collect();
        assert_eq!(self.records.len(), whole.len());
        for record in &whole {
            let seen = (
                record.cursor,
                record.last_action,
                record.payload.clone().unwrap(),
            );
            assert_eq!(self.records.get(&record.id), Some(&seen));
        }
        let live = whole.iter().filter(|record| record.deleted_at.is_none());
        let sizes = live.map(|record| record.payload.as_ref().unwrap().len() as u64);
        let sizes: Vec<u64> = sizes.collect();
        assert_eq!(feed.count().unwrap(), sizes.len() as u64);
        assert_eq!(feed.size().unwrap(), sizes.iter().sum::<u64>());
    }
}

fn run(store: &Store) -> Vec<Reader> {
    let feeds = ["a", "b"].map(|model| store.feed("c", model).unwrap());
    let done = AtomicBool::new(false);
    let readers = std::thread::scope(|scope| {
        let tails: Vec<_> = (0..2)
            .map(|at| {
                let (feed, done) = (&feeds[at], &done);
                scope.spawn(move || Reader::default().follow(feed, [7, 1000][at], done))
            })
            .collect();
        let writers: Vec<_> = (0..WRITERS)
            .map(|at| {
                let feeds = &feeds;
                scope.spawn(move || writer(feeds, at))
            })
            .collect();
        let failed = writers
            .into_iter()
            .filter_map(|writer| writer.join().err())
            .count();
        store.flush().unwrap();
        done.store(true, Ordering::SeqCst);
        assert_eq!(failed, 0, "writers failed");
        tails
            .into_iter()
            .map(|tail| tail.join().unwrap())
            .collect::<Vec<_>>()
    });
    for (reader, feed) in readers.iter().zip(&feeds) {
        reader.look_back(feed);
        reader.assert_converged(feed);
        assert!(reader.shown.len() > reader.records.len());
    }
    assert!(store.verify(|_, _| {}).unwrap().is_clean());
    readers
}

fn durabilities() -> [Durability; 2] {
    let interval = Duration::from_millis(2);
    [Durability::Durable, Durability::Relaxed { interval }]
}

#[test]
fn readers_miss_nothing_on_the_simulated_disk() {
    for durability in durabilities() {
        for index_budget in [0, 1 << 20] {
            let disk = MemoryStorage::new();
            let options = || {
                Options::new()
                    .storage(Arc::new(disk.clone()))
                    .durability(durability)
            };
            let options = || {
                let options = options();
                options.segment_size(16 << 10).checkpoint_bytes(30 << 10)
            };
            let store = options().index_budget(index_budget).open("/s").unwrap();
            let readers = run(&store);
            // Everything the readers were shown is on stable storage.
            let crashed = Arc::new(disk.crash(Survivors::Synced));
            let store = Options::new().storage(crashed).open("/s").unwrap();
            for (reader, model) in readers.iter().zip(["a", "b"]) {
                reader.assert_converged(&store.feed("c", model).unwrap());
            }
        }
    }
}

#[test]
fn readers_miss_nothing_on_the_real_disk() {
    for durability in durabilities() {
        let dir = tempfile::tempdir().unwrap();
        let options = || Options::new().durability(durability).segment_size(64 << 10);
        let store = options().open(dir.path()).unwrap();
        let readers = run(&store);
        store.close().unwrap();
        let store = options().open(dir.path()).unwrap();
        for (reader, model) in readers.iter().zip(["a", "b"]) {
            reader.assert_converged(&store.feed("c", model).unwrap());
        }
    }
}

/// Each writer, told that its batch is there, pulls the plug on a copy and looks.
#[test]
fn acknowledged_means_synced_also_when_writers_share_syncs() {
    let disk = MemoryStorage::new();
    let options = |disk: &MemoryStorage| {
        let options = Options::new().storage(Arc::new(disk.clone()));
        options.background(false).segment_size(8 << 10)
    };
    let store = options(&disk).open("/s").unwrap();
    let before = disk.counts().syncs;
    let commits = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (store, disk, commits) = (&store, &disk, &commits);
            scope.spawn(move || {
                let feed = store.feed("c", &format!("m{}", writer % 2)).unwrap();
                for n in 0..25 {
                    let syncs = disk.counts().syncs;
                    let id = format!("{writer}-{n}");
                    let record = json!({"id": id, "pad": "x".repeat(100)});
                    let _ = feed
                        .batch_save(&[record, json!({"id": id.clone() + "b"})])
                        .unwrap();
                    assert!(disk.counts().syncs > syncs, "acknowledged without a sync");
                    commits.fetch_add(1, Ordering::Relaxed);
                    if n % 5 != 0 {
                        continue;
                    }
                    let crashed = disk.crash(Survivors::Synced);
                    let store = options(&crashed).open("/s").unwrap();
                    let feed = store.feed("c", &format!("m{}", writer % 2)).unwrap();
                    let page = feed.get(&[id.clone(), id + "b"]).unwrap();
                    assert_eq!(page.len(), 2, "an acknowledged batch is gone");
                    for record in page.iter() {
                        let _: Value = record.json().unwrap();
                    }
                }
            });
        }
    });
    let syncs = disk.counts().syncs - before;
    let stats = store.stats().unwrap();
    assert!(stats.syncs > 0 && stats.syncs <= syncs);
    assert_eq!(commits.into_inner(), WRITERS * 25);
}

/// A feed may be opened by several threads at once, while others write to it already and have the
/// catalog saved: what the catalog said of it before is out of date then, and no damage.
#[test]
fn a_feed_opened_by_many_at_once_is_not_taken_for_damaged() {
    let disk = Arc::new(MemoryStorage::new());
    let open = || {
        let options = Options::new().storage(disk.clone()).background(false);
        options.open("/s").unwrap()
    };
    let round = AtomicU64::new(0);
    for _ in 0..100 {
        let store = open();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let feed = store.feed("c", "m").unwrap();
                    let number = round.fetch_add(1, Ordering::SeqCst).to_string();
                    let _ = feed.batch_save_raw(&[(&number, "1")]).unwrap();
                    store.checkpoint_catalog().unwrap();
                });
            }
        });
        store.close().unwrap();
    }
    assert_eq!(open().feed("c", "m").unwrap().count().unwrap(), 400);
}

/// What is new in an index is merged into the rest of it while the commit is on its way to the disk:
/// every record is known all the time, to writers and to readers.
#[test]
fn indexes_that_grow_behind_commits_know_every_record() {
    const NEW: u64 = 200;
    let store = Options::new().storage(Arc::new(MemoryStorage::new()));
    let store = store.open("/s").unwrap();
    let feed = store.feed("c", "m").unwrap();
    let batches = 80;
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let feed = &feed;
            scope.spawn(move || {
                let mut rng = Rng(0xBEEF + writer);
                let name = |number: u64| format!("{writer}-{number}");
                for batch in 0..batches {
                    let new = (batch * NEW..(batch + 1) * NEW).map(|it| (name(it), "1"));
                    let new: Vec<_> = new.collect();
                    let applied = feed.batch_save_raw(&new).unwrap();
                    assert_eq!(applied.totals.added, NEW);
                    let earlier = rng.below((batch + 1) * NEW);
                    let read = feed.get(&[name(earlier)]).unwrap();
                    assert_eq!(read.len(), 1);
                    assert_eq!(read.iter().next().unwrap().payload, Some(&b"1"[..]));
                    let again = (0..50).map(|_| name(rng.below((batch + 1) * NEW)));
                    let again: Vec<_> = again.map(|id| (id, "1")).collect();
                    let totals = feed.batch_save_raw(&again).unwrap().totals;
                    assert_eq!(totals.unchanged + totals.duplicate, 50, "{totals:?}");
                }
            });
        }
    });
    assert_eq!(feed.count().unwrap(), WRITERS * batches * NEW);
}
