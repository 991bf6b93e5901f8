//! Space that is written ahead of small durable commits: it holds nothing yet, there is little of it,
//! and nobody needs it.

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use highwater::storage::{MemoryStorage, Survivors};
use highwater::{Durability, Feed, List, Options, Store};

use crate::hooked::{Hook, Hooked, Operation};

const COMMITS: usize = 300;
const RECORDS: usize = 10;

/// Notes which space of the log is prepared, or refuses to.
#[derive(Clone, Debug, Default)]
struct Preparing {
    refuse: bool,
    prepared: Arc<Mutex<Vec<Range<u64>>>>,
}

impl Hook for Preparing {
    fn before(&self, operation: Operation, _: &Path) -> io::Result<()> {
        if let Operation::Prepare(from, to) = operation {
            self.prepared.lock().unwrap().push(from..to);
            if self.refuse {
                return Err(io::ErrorKind::StorageFull.into());
            }
        }
        Ok(())
    }
}

fn open(disk: &MemoryStorage, hook: &Preparing, durability: Durability) -> Store {
    let (disk, hook) = (disk.clone(), hook.clone());
    Options::new()
        .storage(Arc::new(Hooked { disk, hook }))
        .segment_size(1 << 20)
        .durability(durability)
        .background(false)
        .open("/s")
        .unwrap()
}

/// The records of a commit; their payloads have `len` bytes.
fn records(commit: usize, len: usize) -> Vec<(String, Vec<u8>)> {
    let record = |at| (format!("{commit}-{at}"), vec![commit as u8; len]);
    (0..RECORDS).map(record).collect()
}

fn save(store: &Store, commits: Range<usize>, len: usize) {
    let feed = store.feed("c", "m").unwrap();
    for commit in commits {
        let saved = feed.batch_save_raw(&records(commit, len)).unwrap();
        assert_eq!(saved.totals.added, RECORDS as u64);
    }
}

fn has_all(feed: &Feed, len: usize) {
    let (mut after, mut commit) = (None, 0);
    while commit < COMMITS {
        let page = feed.list(&List::new().after(after).limit(RECORDS)).unwrap();
        let held = page
            .iter()
            .map(|it| (it.id.to_owned(), it.payload.unwrap().to_vec()));
        assert_eq!(held.collect::<Vec<_>>(), records(commit, len));
        (after, commit) = (Some(page.resume_cursor()), commit + 1);
    }
}

/// Saves half of the commits, opens the store again without having closed it, and saves the rest.
fn history(hook: &Preparing, durability: Durability, len: usize) -> u64 {
    let left = match durability {
        Durability::Durable => Survivors::Synced,
        Durability::Relaxed { .. } => Survivors::All,
    };
    let disk = MemoryStorage::default();
    let store = open(&disk, hook, durability);
    save(&store, 0..COMMITS / 2, len);
    let crashed = disk.crash(left);
    let store = open(&crashed, hook, durability);
    save(&store, COMMITS / 2..COMMITS, len);
    has_all(&store.feed("c", "m").unwrap(), len);
    let crashed = crashed.crash(left);
    let store = open(&crashed, hook, durability);
    has_all(&store.feed("c", "m").unwrap(), len);
    store.stats().unwrap().log_bytes
}

#[test]
fn little_space_is_prepared_for_many_small_commits() {
    for refuse in [false, true] {
        let hook = Preparing {
            refuse,
            ..Preparing::default()
        };
        let bytes = history(&hook, Durability::Durable, 300);
        let prepared = hook.prepared.lock().unwrap();
        assert!(!prepared.is_empty());
        if !refuse {
            let total: u64 = prepared.iter().map(|space| space.end - space.start).sum();
            assert!(prepared.len() < COMMITS / 5, "{prepared:?}");
            assert!(total < 2 * bytes + (1 << 20), "{total} of {bytes}");
        }
    }
}

#[test]
fn nothing_is_prepared_for_large_commits_and_late_syncs() {
    let hook = Preparing::default();
    history(&hook, Durability::Durable, 20_000);
    let interval = Duration::from_secs(3600);
    history(&hook, Durability::Relaxed { interval }, 300);
    assert!(hook.prepared.lock().unwrap().is_empty());
}
