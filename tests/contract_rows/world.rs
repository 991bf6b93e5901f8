//! A store on a simulated disk, and short names for what the tests do all the time.

use std::collections::BTreeMap;
use std::sync::Arc;

use highwater::storage::{ManualClock, MemoryStorage, Survivors};
use highwater::{Action, Cursor, Feed, List, Options, Outcome, OwnedRecord, Store, SyncKey};

pub const START: u64 = 1_700_000_000_000_000;
pub const SECOND: u64 = 1_000_000;
pub const DAY: u64 = 24 * 3600 * SECOND;

pub struct World {
    pub disk: MemoryStorage,
    pub clock: Arc<ManualClock>,
    options: Options,
    pub store: Store,
}

impl World {
    pub fn new() -> Self {
        Self::with(Options::new())
    }

    pub fn with(options: Options) -> Self {
        let disk = MemoryStorage::new();
        let clock = Arc::new(ManualClock::new(START));
        let options = options.background(false).secret([3; 32]);
        let options = options.clock(clock.clone());
        let store = Self::open(&disk, &options);
        Self {
            disk,
            clock,
            options,
            store,
        }
    }

    fn open(disk: &MemoryStorage, options: &Options) -> Store {
        let options = options.clone().storage(Arc::new(disk.clone()));
        options.open("/store").unwrap()
    }

    pub fn feed(&self) -> Feed {
        self.store.feed("c", "m").unwrap()
    }

    /// Cuts the power and opens again what is left: only what was synced.
    pub fn crash(&mut self) {
        self.disk = self.disk.crash(Survivors::Synced);
        self.store = Self::open(&self.disk, &self.options);
    }

    pub fn reopen(&mut self) {
        self.store.close().unwrap();
        self.store = Self::open(&self.disk, &self.options);
    }

    /// Lets a test look at the same things in the running store, after a crash and after a reopen.
    pub fn however_it_ends(&mut self, check: impl Fn(&Self)) {
        check(self);
        self.crash();
        check(self);
        self.reopen();
        check(self);
    }
}

pub fn sync() -> SyncKey {
    SyncKey::new("c", "sync", "").unwrap()
}

/// Saves one record with an opaque payload.
pub fn put(feed: &Feed, id: &str, body: &str) -> Outcome {
    feed.batch_save_raw(&[(id, body)]).unwrap().outcomes[0]
}

pub fn delete(feed: &Feed, id: &str) -> Outcome {
    feed.batch_delete(&[id]).unwrap().outcomes[0]
}

pub fn last(feed: &Feed) -> Cursor {
    feed.last_cursor().unwrap().unwrap()
}

/// Prunes everything there is.
pub fn prune_all(feed: &Feed) {
    feed.prune(&highwater::Oldest::all()).unwrap();
}

pub fn record(feed: &Feed, id: &str) -> OwnedRecord {
    let page = feed.get(&[id]).unwrap();
    page.get(0).map(|record| record.to_owned()).unwrap()
}

/// What the feed shows, oldest change first.
pub fn shown(feed: &Feed) -> Vec<OwnedRecord> {
    feed.records(None).map(Result::unwrap).collect()
}

pub fn ids(feed: &Feed) -> Vec<String> {
    shown(feed).into_iter().map(|record| record.id).collect()
}

/// Live records and their payloads; a pruned one has none.
pub fn live(feed: &Feed) -> BTreeMap<String, Option<String>> {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let live = shown(feed)
        .into_iter()
        .filter(|record| record.last_action != Action::Deleted);
    live.map(|record| (record.id, record.payload.map(text)))
        .collect()
}

/// What a reader is told after a cursor: actions and ids.
pub fn told(feed: &Feed, after: Cursor) -> Vec<(Action, String)> {
    let page = feed.list(&List::new().after(after)).unwrap();
    page.iter()
        .map(|record| (record.last_action, record.id.to_owned()))
        .collect()
}
