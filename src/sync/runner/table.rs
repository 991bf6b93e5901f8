//! What a runner keeps in memory: its functions, and how each schedule stands.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::error::Result;
use crate::record::Timestamp;
use crate::runs::SyncKey;
use crate::store::Store;
use crate::sync::cancel::Cancellation;
use crate::sync::function::SyncFunction;
use crate::sync::schedule::{Schedule, Trigger};
use crate::sync::{Frequency, StopReason};

/// A registered function, with what it says of itself: asked once, outside of all locks.
pub(super) struct Registered {
    pub(super) function: Arc<dyn SyncFunction>,
    pub(super) version: String,
    pub(super) models: Vec<String>,
    pub(super) frequency: Frequency,
    pub(super) auto_start: bool,
}

impl Registered {
    pub(super) fn new(function: Arc<dyn SyncFunction>) -> Self {
        Self {
            version: function.version().to_owned(),
            models: function.models().into_iter().map(str::to_owned).collect(),
            frequency: function.frequency(),
            auto_start: function.auto_start(),
            function,
        }
    }
}

/// A schedule, and whether it runs.
pub(super) struct Entry {
    pub(super) schedule: Schedule,
    /// There while a run is going on: what tells it to stop.
    pub(super) running: Option<Cancellation>,
    /// It was unscheduled, and is forgotten when its run has ended.
    pub(super) removed: bool,
}

impl Entry {
    pub(super) fn new(schedule: Schedule) -> Self {
        Self {
            schedule,
            running: None,
            removed: false,
        }
    }

    /// Changes the schedule in the store and then in memory, so that a failure changes neither.
    pub(super) fn update(
        &mut self,
        store: &Store,
        change: impl FnOnce(&mut Schedule),
    ) -> Result<()> {
        let mut schedule = self.schedule.clone();
        change(&mut schedule);
        if schedule != self.schedule {
            schedule.save(store)?;
            self.schedule = schedule;
        }
        Ok(())
    }
}

/// A run that is to be made.
pub(super) struct Job {
    pub(super) sync: SyncKey,
    pub(super) function: Arc<dyn SyncFunction>,
    pub(super) trigger: Trigger,
    pub(super) cancellation: Cancellation,
}

/// See the module.
#[derive(Default)]
pub(super) struct Table {
    pub(super) functions: BTreeMap<String, Registered>,
    pub(super) entries: BTreeMap<SyncKey, Entry>,
    pub(super) stopping: bool,
}

impl Table {
    /// The entry of a sync that is scheduled.
    pub(super) fn scheduled(&mut self, sync: &SyncKey) -> Option<&mut Entry> {
        self.entries.get_mut(sync).filter(|entry| !entry.removed)
    }

    /// When a schedule starts next, unless it is running, paused, or has no function.
    pub(super) fn next_due(
        &self,
        sync: &SyncKey,
        entry: &Entry,
        now: Timestamp,
    ) -> Option<Timestamp> {
        let registered = self.functions.get(&sync.name)?;
        let idle = entry.running.is_none() && !entry.removed;
        idle.then(|| entry.schedule.next_due(registered.frequency, now))?
    }

    /// When the first of all schedules starts next.
    pub(super) fn first_due(&self, now: Timestamp) -> Option<Timestamp> {
        let entries = self.entries.iter();
        entries
            .filter_map(|(sync, entry)| self.next_due(sync, entry, now))
            .min()
    }

    /// Starts the schedule that waits for longest, if one is due; those that somebody asked for
    /// come first. None of `except` is started.
    pub(super) fn take_due(
        &mut self,
        store: &Store,
        now: Timestamp,
        except: &[SyncKey],
    ) -> Result<Option<Job>> {
        if self.stopping {
            return Ok(None);
        }
        let due = self.entries.iter().filter_map(|(sync, entry)| {
            let due = self.next_due(sync, entry, now)?;
            let order = (entry.schedule.requested.is_none(), due, sync);
            (due <= now && !except.contains(sync)).then_some(order)
        });
        let Some((_, _, sync)) = due.min() else {
            return Ok(None);
        };
        let sync = sync.clone();
        let function = self.functions.get(&sync.name);
        let function = function.map(|registered| registered.function.clone());
        let (Some(function), Some(entry)) = (function, self.entries.get_mut(&sync)) else {
            return Ok(None);
        };
        entry.update(store, |schedule| schedule.started(now))?;
        let cancellation = Cancellation::new();
        entry.running = Some(cancellation.clone());
        Ok(Some(Job {
            trigger: entry.schedule.requested.unwrap_or_default(),
            sync,
            function,
            cancellation,
        }))
    }

    /// Asks every run to stop, and starts no other.
    pub(super) fn stop(&mut self) {
        self.stopping = true;
        for entry in self.entries.values() {
            if let Some(cancellation) = &entry.running {
                cancellation.cancel(StopReason::Shutdown);
            }
        }
    }
}
