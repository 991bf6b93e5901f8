//! A bug that ends a thread of the engine, or a thread inside the engine: nobody waits for it for
//! ever, nothing is acknowledged that may be lost by it, and what was acknowledged is there.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use highwater::storage::{MemoryStorage, Storage};
use highwater::{Durability, Error, Feed, Options, Store};
use serde_json::json;

use crate::hooked::{Hook, Hooked, Operation};

/// A disk that panics once in a thread of this name, before an operation on a file.
type Trapped = Hooked<Trap>;

#[derive(Clone, Debug)]
struct Trap {
    thread: &'static str,
    operation: Operation,
    sprung: Arc<AtomicU64>,
}

impl Trapped {
    fn new(disk: &MemoryStorage, thread: &'static str, operation: Operation) -> Self {
        Self {
            disk: disk.clone(),
            hook: Trap {
                thread,
                operation,
                sprung: Arc::default(),
            },
        }
    }

    fn is_sprung(&self) -> bool {
        self.hook.sprung.load(Ordering::SeqCst) > 0
    }
}

impl Hook for Trap {
    fn before(&self, operation: Operation, _: &Path) -> io::Result<()> {
        let is_here = thread::current().name() == Some(self.thread) && operation == self.operation;
        if is_here && self.sprung.swap(1, Ordering::SeqCst) == 0 {
            panic!("a trap for tests");
        }
        Ok(())
    }
}

fn options(storage: impl Storage) -> Options {
    Options::new()
        .storage(Arc::new(storage))
        .segment_size(4096)
        .index_limits_of(1000, 500)
}

/// Saves a record that replaces an older one.
fn save(feed: &Feed, n: u64) -> highwater::Result<()> {
    let record = json!({"id": n % 40, "n": n, "pad": "x".repeat(200)});
    feed.batch_save(&[record]).map(drop)
}

/// Returns what `run` does, unless it takes for ever.
#[track_caller]
fn in_time<T: Send + 'static>(what: &str, run: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, ended) = channel();
    thread::spawn(move || done.send(run()));
    let answer = ended.recv_timeout(Duration::from_secs(30));
    answer.unwrap_or_else(|_| panic!("{what} hangs"))
}

/// The store shows all saves up to `saved`, and perhaps one more.
fn shows(disk: &MemoryStorage, saved: u64) {
    let store = options(disk.clone()).open("/s").unwrap();
    let feed = store.feed("c", "m").unwrap();
    let newest = feed.records(None).map(|record| {
        let value: serde_json::Value =
            serde_json::from_slice(&record.unwrap().payload.unwrap()).unwrap();
        value["n"].as_u64().unwrap() + 1
    });
    let newest = newest.max().unwrap_or(0);
    assert!((saved..=saved + 1).contains(&newest), "{newest} of {saved}");
    assert!(store.verify(|_, _| {}).unwrap().is_clean());
}

/// Writes until a thread of the store has panicked, and on, and closes the store.
fn a_thread_ends(name: &'static str, trap: Operation, durability: Durability) -> Option<Error> {
    let disk = MemoryStorage::new();
    let trapped = Trapped::new(&disk, name, trap);
    let (saved, refused) = in_time(name, {
        let trapped = trapped.clone();
        move || {
            let store = options(trapped.clone())
                .durability(durability)
                .open("/s")
                .unwrap();
            let feed = store.feed("c", "m").unwrap();
            let (mut saved, mut after) = (0, 0);
            let mut refused = None;
            while after < 50 && refused.is_none() {
                match save(&feed, saved) {
                    Ok(()) => saved += 1,
                    Err(error) => refused = Some(error),
                }
                after += u64::from(trapped.is_sprung());
                thread::sleep(Duration::from_millis(2));
            }
            let _ = store.flush();
            let _ = feed.records(None).count();
            let _ = store.close();
            (saved, refused)
        }
    });
    assert!(trapped.is_sprung());
    shows(&disk, saved);
    refused
}

const RELAXED: Durability = Durability::Relaxed {
    interval: Duration::from_millis(20),
};

#[test]
fn without_the_thread_that_syncs_nothing_more_is_acknowledged() {
    let refused = a_thread_ends("highwater", Operation::Sync, RELAXED);
    assert!(
        matches!(refused, Some(Error::Poisoned { .. })),
        "{refused:?}"
    );
}

#[test]
fn without_the_thread_that_compacts_nobody_hangs() {
    for trap in [Operation::Write, Operation::Sync, Operation::Read] {
        let refused = a_thread_ends("highwater-compact", trap, Durability::Durable);
        assert!(
            matches!(refused, None | Some(Error::Poisoned { .. })),
            "{refused:?}"
        );
    }
}

#[test]
fn without_the_thread_that_merges_indexes_nobody_hangs() {
    let refused = a_thread_ends("highwater-index", Operation::Write, Durability::Durable);
    assert!(
        matches!(refused, None | Some(Error::Poisoned { .. })),
        "{refused:?}"
    );
}

#[test]
fn a_writer_that_panics_in_the_middle_leaves_nobody_waiting() {
    for trap in [Operation::Write, Operation::Sync] {
        let disk = MemoryStorage::new();
        let trapped = Trapped::new(&disk, "a writer", trap);
        let store = options(trapped).background(false).open("/s").unwrap();
        let feed = store.feed("c", "m").unwrap();
        for n in 0..5 {
            save(&feed, n).unwrap();
        }
        let other = feed.clone();
        let panics = move || catch_unwind(AssertUnwindSafe(|| save(&other, 5))).is_err();
        let writer = thread::Builder::new().name("a writer".to_owned());
        assert!(writer.spawn(panics).unwrap().join().unwrap());
        let again = {
            let feed = feed.clone();
            in_time("another writer", move || save(&feed, 6))
        };
        assert!(matches!(again, Err(Error::Poisoned { .. })), "{again:?}");
        let page = feed.records(None).count();
        assert_eq!(page, 5, "what was published stays readable");
        drop(feed);
        in_time("closing", move || drop(close(&store)));
        shows(&disk, 5);
    }
}

fn close(store: &Store) -> highwater::Result<()> {
    store.close()
}
