//! What must hold in every interleaving of writers, readers, compaction, eviction, catalog saves,
//! faults and closing. Checks G1 to G6, G11 and G12.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;

use highwater::storage::Fault;
use highwater::{Action, Cursor, Error, Feed, List, Options, Page, Store};
use highwater_shuttle::{FOREVER, World, below, explore, feeds};
use shuttle::thread::{ScopedJoinHandle, scope};

const WRITERS: u64 = 4;
/// So often a payload says its version: a few commits fill a segment.
const COPIES: usize = 300;

/// The records that a writer saves together, in both feeds: they must agree wherever they are seen.
fn pair(writer: u64) -> [String; 2] {
    ["x", "y"].map(|half| format!("{writer}{half}"))
}

fn save_pairs(store: &Store, feeds: &[Feed; 2], writer: u64, version: u64) -> Result<(), Error> {
    let value = version.to_string();
    let records = pair(writer).map(|id| (id, value.repeat(COPIES)));
    let mut batch = store.batch("c");
    for feed in feeds {
        batch.save_raw(feed, &records)?;
    }
    batch.commit().map(drop)
}

fn version(payload: &[u8]) -> u64 {
    let digits = &payload[..payload.len() / COPIES];
    std::str::from_utf8(digits).unwrap().parse().unwrap()
}

/// Versions by id; both halves of a pair are there, and of the same version.
fn versions(page: &Page) -> BTreeMap<String, u64> {
    let seen = page.iter().map(|record| {
        assert_ne!(record.last_action, Action::Deleted);
        (record.id.to_owned(), version(record.payload.unwrap()))
    });
    let seen: BTreeMap<String, u64> = seen.collect();
    for writer in 0..WRITERS {
        let [first, second] = pair(writer);
        assert_eq!(seen.get(&first), seen.get(&second), "half a batch shows");
    }
    seen
}

fn all(feed: &Feed) -> BTreeMap<String, u64> {
    versions(&feed.list(&List::new()).unwrap())
}

/// What a reader was shown, and where it is.
#[derive(Clone, Default)]
struct Reader {
    after: Option<Cursor>,
    seen: BTreeMap<String, u64>,
}

impl Reader {
    fn read_page(&mut self, feed: &Feed) -> Result<bool, Error> {
        let page = feed.list(&List::new().after(self.after).limit(3))?;
        for record in page.iter() {
            assert!(
                self.after < Some(record.cursor),
                "a change behind the reader"
            );
            let version = version(record.payload.unwrap());
            let before = self.seen.insert(record.id.to_owned(), version);
            assert!(before < Some(version), "an older version after a newer one");
        }
        self.after = Some(page.resume_cursor());
        Ok(page.has_more())
    }

    /// Reads until the store is closed.
    fn follow(mut self, feed: &Feed) -> Self {
        loop {
            let read = feed.wait(self.after, FOREVER);
            let read = read.and_then(|_| self.read_page(feed));
            match read {
                Ok(_) => {}
                Err(Error::Closed) => return self,
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Goes on in what the store has become: nothing may be missing in the end.
    fn catch_up(mut self, feed: &Feed) {
        while self.read_page(feed).unwrap() {}
        assert_eq!(self.seen, all(feed), "the reader missed something");
    }
}

fn joined<T>(threads: Vec<ScopedJoinHandle<'_, T>>) -> Vec<T> {
    let results = threads.into_iter().map(|thread| thread.join().unwrap());
    results.collect()
}

fn failing_sync() -> Option<Fault> {
    Some(Fault::Sync {
        after: below(12),
        dropped: below(2) == 0,
    })
}

fn fault() -> Option<Fault> {
    let after = below(12);
    match below(6) {
        0 => failing_sync(),
        1 => Some(Fault::Write { after }),
        2 => Some(Fault::SyncDir { after: after / 4 }),
        3 => Some(Fault::Full {
            bytes: 512 * (1 + below(16)),
        }),
        _ => None,
    }
}

/// Writers, readers, compaction and catalog saves, and perhaps a fault; then the store is closed and
/// the power fails.
fn everything(options: fn(&World) -> Options, fault: fn() -> Option<Fault>) {
    let world = World::new();
    let store = options(&world).open("/s").unwrap();
    let feeds = feeds(&store);
    if let Some(fault) = fault() {
        world.disk.fail(fault);
    }
    let (acknowledged, readers) = scope(|scope| {
        let readers = [0, 1].map(|at| {
            let feed = &feeds[at];
            scope.spawn(move || Reader::default().follow(feed))
        });
        let writers = (0..WRITERS).map(|writer| {
            let (store, feeds) = (&store, &feeds);
            scope.spawn(move || {
                let saved = |version: &u64| save_pairs(store, feeds, writer, *version).is_ok();
                (1..=3).take_while(saved).count() as u64
            })
        });
        let writers: Vec<_> = writers.collect();
        let saver = scope.spawn(|| {
            for _ in 0..2 {
                // Of a failed log neither comes to anything.
                let _ = store.flush();
                let _ = store.checkpoint_catalog();
            }
        });
        let compactor = scope.spawn(|| drop((store.compact(), store.compact())));
        let acknowledged = joined(writers);
        joined(vec![saver, compactor]);
        let closed = store.close();
        let readers = joined(Vec::from(readers));
        // What was acknowledged in relaxed durability is safe when a flush or a close succeeds.
        let safe = !world.relaxed || closed.is_ok();
        (safe.then_some(acknowledged), readers)
    });
    drop((feeds, store));
    let world = world.after_power_loss();
    let store = world.open();
    let feeds = highwater_shuttle::feeds(&store);
    let found = all(&feeds[0]);
    assert_eq!(found, all(&feeds[1]), "half a commit is there");
    for (writer, saved) in acknowledged.into_iter().flatten().enumerate() {
        let found = found.get(&pair(writer as u64)[0]).copied();
        assert!(
            found.unwrap_or(0) >= saved,
            "an acknowledged commit is gone"
        );
    }
    for (reader, feed) in readers.into_iter().zip(&feeds) {
        reader.catch_up(feed);
    }
    assert!(store.verify(|_, _| {}).unwrap().is_clean());
}

#[test]
fn acknowledged_is_durable_and_readers_miss_nothing() {
    explore(|| everything(World::options, fault));
}

/// The same against an engine that is broken: it publishes before it syncs.
#[test]
#[should_panic(expected = "reader")]
fn publishing_before_the_sync_is_caught() {
    let broken = |world: &World| world.options().defect(highwater::Defect::PublishBeforeSync);
    explore(move || everything(broken, failing_sync));
}

/// Saving the catalog lets go of feeds that nobody has a handle to, while others open and change
/// them.
#[test]
fn a_feed_that_is_let_go_of_keeps_every_change() {
    explore(|| {
        let store = World::new().open();
        let save = |model: &str, id: &str| {
            let feed = store.feed("c", model).unwrap();
            let _ = feed.batch_save_raw(&[(id, "1".repeat(COPIES))]).unwrap();
            let _ = store.flush();
        };
        scope(|scope| {
            for id in ["0x", "1x"] {
                let (store, save) = (&store, &save);
                scope.spawn(move || {
                    save("a", id);
                    // Takes the index of the other one out of memory.
                    save("b", id);
                    store.checkpoint_catalog().unwrap();
                });
            }
            scope.spawn(|| store.compact().unwrap());
        });
        store.checkpoint_catalog().unwrap();
        for feed in &feeds(&store) {
            let page = feed.list(&List::new()).unwrap();
            let ids: BTreeMap<&str, &[u8]> =
                page.iter().map(|it| (it.id, it.payload.unwrap())).collect();
            assert_eq!(ids.len(), 2, "a change is gone");
            assert_eq!(feed.get(&["0x", "1x"]).unwrap().len(), 2);
        }
    });
}

/// Whoever saw a commit in one feed sees it in the other.
#[test]
fn a_commit_shows_in_all_its_feeds_at_once() {
    explore(|| {
        let world = World::new();
        let store = world.open();
        let feeds = feeds(&store);
        scope(|scope| {
            for writer in 0..2 {
                let (store, feeds) = (&store, &feeds);
                scope.spawn(move || {
                    (1..4).for_each(|version| save_pairs(store, feeds, writer, version).unwrap());
                });
            }
            for order in [[0, 1], [1, 0]] {
                let feeds = &feeds;
                scope.spawn(move || {
                    for _ in 0..4 {
                        let [first, then] = order.map(|feed| all(&feeds[feed]));
                        let seen = |(id, version): (&String, &u64)| then.get(id) >= Some(version);
                        assert!(first.iter().all(seen), "{first:?}, and later {then:?}");
                    }
                });
            }
        });
    });
}

/// Each writer, told that its commit is durable, has the power fail on a copy of the disk.
fn durable_at_once(relaxed: bool) {
    let world = World {
        relaxed,
        ..World::new()
    };
    let store = world.open();
    let feeds = feeds(&store);
    scope(|scope| {
        for writer in 0..2 {
            let (world, store, feeds) = (&world, &store, &feeds);
            scope.spawn(move || {
                for version in 1..3 {
                    save_pairs(store, feeds, writer, version).unwrap();
                    if relaxed {
                        store.flush().unwrap();
                    }
                    let reopened = world.after_power_loss().open();
                    let found = all(&reopened.feed("c", "b").unwrap());
                    assert_eq!(found.get(&pair(writer)[0]), Some(&version), "it is gone");
                }
            });
        }
    });
}

#[test]
fn acknowledged_is_durable_at_once() {
    explore(|| durable_at_once(false));
}

#[test]
fn what_was_there_before_a_flush_is_durable_after_it() {
    explore(|| durable_at_once(true));
}

/// In relaxed durability a writer goes on while a reader's page has something synced. After each page
/// the power fails on a copy of the disk: what the page showed is there, or a newer version is told.
fn shown_is_durable(options: fn(&World) -> Options) {
    let world = World {
        relaxed: true,
        ..World::new()
    };
    // Room for everything in the open segment and in memory: nothing but the flush syncs.
    let options = options(&world)
        .segment_size(1 << 20)
        .index_limits_of(1 << 20, 1 << 20);
    let store = options.open("/s").unwrap();
    let feeds = feeds(&store);
    scope(|scope| {
        scope.spawn(|| {
            (1..4).for_each(|version| save_pairs(&store, &feeds, 0, version).unwrap());
        });
        scope.spawn(|| {
            let mut reader = Reader::default();
            for _ in 0..3 {
                let _ = reader.read_page(&feeds[0]).unwrap();
                let reopened = world.after_power_loss().open();
                reader.clone().catch_up(&reopened.feed("c", "a").unwrap());
            }
        });
    });
}

#[test]
fn what_a_page_shows_survives_while_a_writer_goes_on() {
    explore(|| shown_is_durable(World::options));
}

/// The same against an engine that is broken: a flush publishes what was written while it synced.
#[test]
#[should_panic(expected = "the reader missed something")]
fn publishing_past_the_sync_is_caught() {
    let broken = |world: &World| world.options().defect(highwater::Defect::PublishPastSync);
    explore(move || shown_is_durable(broken));
}

/// After a failed write or sync everybody who waits is told, nothing more is acknowledged, and
/// what was shown stays.
#[test]
fn a_failure_reaches_everybody() {
    explore(|| {
        let world = World::new();
        let store = world.open();
        let feeds = feeds(&store);
        let after = below(4);
        world.disk.fail(match below(2) {
            0 => Fault::Sync {
                after,
                dropped: true,
            },
            _ => Fault::Write { after },
        });
        let results = scope(|scope| {
            let writers = (0..WRITERS).map(|writer| {
                let (store, feeds) = (&store, &feeds);
                scope.spawn(move || {
                    let saved = save_pairs(store, feeds, writer, 1);
                    saved.and_then(|()| store.flush())
                })
            });
            joined(writers.collect())
        });
        let failed = results.iter().filter(|result| result.is_err()).count();
        let poisoned = |result: &Result<(), Error>| match result {
            Err(Error::Poisoned { .. }) => true,
            // A run of an index could not be written: that write was refused, and the log is well.
            Err(Error::Io { path, .. }) if path.extension().is_some_and(|ext| ext == "run") => {
                false
            }
            Err(error) => panic!("{error}"),
            Ok(()) => false,
        };
        if results.iter().any(poisoned) {
            let refused = save_pairs(&store, &feeds, 0, 2);
            assert!(matches!(refused, Err(Error::Poisoned { .. })));
        }
        let shown = all(&feeds[0]);
        assert!(shown.len() / 2 >= results.len() - failed);
        let world = world.after_power_loss();
        let there = all(&world.open().feed("c", "a").unwrap());
        assert!(
            shown
                .iter()
                .all(|(id, version)| there.get(id) == Some(version))
        );
    });
}

/// A full disk aborts what waits; what is there afterwards is exactly what was acknowledged.
#[test]
fn a_full_disk_loses_nothing_and_adds_nothing() {
    explore(|| {
        let world = World::new();
        let store = world.open();
        let feeds = feeds(&store);
        world.disk.fail(Fault::Full {
            bytes: 512 * below(12),
        });
        let saved = scope(|scope| {
            let writers = (0..WRITERS).map(|writer| {
                let (store, feeds) = (&store, &feeds);
                scope.spawn(move || match save_pairs(store, feeds, writer, 1) {
                    Ok(()) => true,
                    Err(Error::DiskFull { .. }) => false,
                    Err(error) => panic!("{error}"),
                })
            });
            joined(writers.collect())
        });
        let there = all(&feeds[0]);
        for (writer, saved) in saved.into_iter().enumerate() {
            let found = there.get(&pair(writer as u64)[0]);
            assert_eq!(found, saved.then_some(&1));
        }
        world.disk.heal();
        for writer in 0..WRITERS {
            save_pairs(&store, &feeds, writer, 2).unwrap();
        }
        store.close().unwrap();
        let there = all(&world.after_power_loss().open().feed("c", "b").unwrap());
        assert!(there.len() as u64 == 2 * WRITERS && there.values().all(|version| *version == 2));
    });
}

/// Writers and waiting readers are let go by a close at any moment, and nothing acknowledged is
/// lost by it.
#[test]
fn closing_wakes_everybody() {
    explore(|| {
        let world = World::new();
        let store = world.open();
        let feeds = feeds(&store);
        let (acknowledged, readers) = scope(|scope| {
            let readers = [0, 1].map(|at| {
                let feed = &feeds[at];
                scope.spawn(move || Reader::default().follow(feed))
            });
            let writers = (0..3).map(|writer| {
                let (store, feeds) = (&store, &feeds);
                scope.spawn(move || {
                    let saved = |version: &u64| match save_pairs(store, feeds, writer, *version) {
                        Ok(()) => true,
                        Err(Error::Closed) => false,
                        Err(error) => panic!("{error}"),
                    };
                    (1..=4).take_while(saved).count() as u64
                })
            });
            let writers: Vec<_> = writers.collect();
            let compactor = scope.spawn(|| while store.compact().is_ok() && below(4) > 0 {});
            for _ in 0..below(4) {
                shuttle::thread::yield_now();
            }
            store.close().unwrap();
            joined(vec![compactor]);
            (joined(writers), joined(Vec::from(readers)))
        });
        let world = world.after_power_loss();
        let reopened = world.open();
        let feeds = highwater_shuttle::feeds(&reopened);
        let there = all(&feeds[0]);
        for (writer, saved) in acknowledged.into_iter().enumerate() {
            let found = there.get(&pair(writer as u64)[0]).copied();
            assert_eq!(found.unwrap_or(0), saved);
        }
        for (reader, feed) in readers.into_iter().zip(&feeds) {
            reader.catch_up(feed);
        }
    });
}

/// Reads, writes and re-saves while files are packed and removed, runs of indexes are spilled and
/// merged, indexes are evicted, and idle feeds are let go of: every answer is right.
#[test]
fn compaction_and_eviction_disturb_nobody() {
    explore(|| {
        let world = World::new();
        let store = world.open();
        for version in 1..3 {
            for writer in 0..2 {
                save_pairs(&store, &feeds(&store), writer, version).unwrap();
            }
        }
        scope(|scope| {
            for writer in 0..2 {
                let store = &store;
                scope.spawn(move || {
                    for version in 3..5 {
                        // A handle of its own each time: in between the feed may be forgotten.
                        let feeds = feeds(store);
                        save_pairs(store, &feeds, writer, version).unwrap();
                        let found = versions(&feeds[1].get(&pair(writer)).unwrap());
                        assert_eq!(found[&pair(writer)[0]], version);
                        let same = (&pair(writer)[1], version.to_string().repeat(COPIES));
                        let again = feeds[0].batch_save_raw(&[same]).unwrap();
                        assert_eq!(again.totals.unchanged, 1);
                    }
                });
            }
            scope.spawn(|| {
                for _ in 0..2 {
                    let mut reader = Reader::default();
                    let feed = store.feed("c", "a").unwrap();
                    while reader.read_page(&feed).unwrap() {}
                    assert!(reader.seen.len() == 4);
                    assert_eq!(feed.count().unwrap(), 4);
                }
            });
            scope.spawn(|| {
                for _ in 0..2 {
                    store.checkpoint_catalog().unwrap();
                    let _ = store.compact().unwrap();
                }
            });
        });
        assert!(store.verify(|_, _| {}).unwrap().is_clean());
        store.close().unwrap();
        let there = all(&world.open().feed("c", "b").unwrap());
        assert!(there.len() == 4 && there.values().all(|version| *version == 4));
    });
}
