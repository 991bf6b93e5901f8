//! A store on a simulated disk and clock, and functions made of closures.

use std::sync::Arc;

use highwater::storage::{Clock, ManualClock, MemoryStorage};
use highwater::sync::{Frequency, Runner, RunnerOptions, SyncContext, SyncError, SyncFunction};
use highwater::{List, Options, Store, SyncKey};
use serde_json::{Value, json};

pub(crate) const MINUTE: u64 = 60_000_000;
pub(crate) const HOUR: u64 = 60 * MINUTE;
pub(crate) const START: u64 = 1_700_000_000_000_000;

type Exec = dyn Fn(&mut SyncContext) -> Result<(), SyncError> + Send + Sync;

/// A function that runs hourly and writes to `Contact`.
pub(crate) struct Function {
    pub(crate) name: &'static str,
    pub(crate) auto_start: bool,
    pub(crate) exec: Box<Exec>,
}

impl SyncFunction for Function {
    fn name(&self) -> &str {
        self.name
    }

    fn models(&self) -> Vec<&str> {
        vec!["Contact"]
    }

    fn frequency(&self) -> Frequency {
        "1h".parse().unwrap()
    }

    fn auto_start(&self) -> bool {
        self.auto_start
    }

    fn exec(&self, context: &mut SyncContext) -> Result<(), SyncError> {
        (self.exec)(context)
    }
}

pub(crate) fn function(
    exec: impl Fn(&mut SyncContext) -> Result<(), SyncError> + Send + Sync + 'static,
) -> Arc<Function> {
    named("contacts", exec)
}

pub(crate) fn named(
    name: &'static str,
    exec: impl Fn(&mut SyncContext) -> Result<(), SyncError> + Send + Sync + 'static,
) -> Arc<Function> {
    Arc::new(Function {
        name,
        auto_start: true,
        exec: Box::new(exec),
    })
}

pub(crate) struct World {
    pub(crate) disk: MemoryStorage,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) store: Store,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::on(MemoryStorage::new(), Arc::new(ManualClock::new(START)))
    }

    /// The store on a disk, which may be what a crash has left.
    pub(crate) fn on(disk: MemoryStorage, clock: Arc<ManualClock>) -> Self {
        let options = Options::new().background(false).secret([7; 32]);
        let options = options.storage(Arc::new(disk.clone())).clock(clock.clone());
        let store = options.open("/store").unwrap();
        Self { disk, clock, store }
    }

    pub(crate) fn clock_now(&self) -> u64 {
        self.clock.now_micros()
    }

    /// A runner that does nothing by itself.
    pub(crate) fn runner(&self) -> Runner {
        Runner::new(&self.store, RunnerOptions::new().workers(0)).unwrap()
    }

    /// A runner with a function that is scheduled.
    pub(crate) fn scheduled(&self, function: Arc<Function>) -> (Runner, SyncKey) {
        let runner = self.runner();
        let name = function.name;
        runner.register(function).unwrap();
        let key = runner.schedule("conn", "", name, None).unwrap();
        (runner, key)
    }

    pub(crate) fn reopen(self) -> Self {
        self.store.close().unwrap();
        Self::on(self.disk, self.clock)
    }

    pub(crate) fn checkpoint(&self) -> Option<Value> {
        let checkpoint = self.store.checkpoint("conn", "contacts", "").unwrap();
        checkpoint.map(|checkpoint| serde_json::from_slice(&checkpoint.json).unwrap())
    }

    pub(crate) fn set_checkpoint(&self, checkpoint: &Value) {
        let any = highwater::Expected::Any;
        self.store
            .save_checkpoint("conn", "contacts", "", checkpoint, any)
            .unwrap();
    }

    /// The ids of the live contacts, in the order of the feed.
    pub(crate) fn contacts(&self) -> Vec<String> {
        let feed = self.store.feed("conn", "Contact").unwrap();
        let page = feed.list(&List::new().limit(1000)).unwrap();
        let live = page.iter().filter(|record| !record.is_deleted());
        live.map(|record| record.id.to_owned()).collect()
    }

    pub(crate) fn save_contacts(&self, ids: &[&str]) {
        let feed = self.store.feed("conn", "Contact").unwrap();
        let _ = feed.batch_save(&records(ids)).unwrap();
    }
}

pub(crate) fn records(ids: &[&str]) -> Vec<Value> {
    ids.iter().map(|id| json!({"id": id})).collect()
}
