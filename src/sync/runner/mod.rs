//! What runs sync functions: schedules, and the threads that keep them.
//!
//! * [`table`]: the functions and schedules, and which is due
//! * [`shared`]: making a run, and what the threads do

mod error;
mod options;
mod shared;
mod status;
mod table;

use std::fmt;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

pub use error::RunnerError;
pub use options::RunnerOptions;
pub use status::{SyncState, SyncStatus};

use self::shared::Shared;
use self::table::{Entry, Registered};
use super::Trigger;
use super::cancel::StopReason;
use super::frequency::Frequency;
use super::function::SyncFunction;
use super::schedule::Schedule;
use crate::feed::check_name;
use crate::runs::{RunReport, SyncKey};
use crate::store::Store;

type Result<T> = std::result::Result<T, RunnerError>;

/// Runs sync functions on schedules. A store has one runner at a time.
///
/// A schedule is a [function](Runner::register) for a connection and variant. Its ticks are a grid
/// that begins when it is created; ticks that pass while it cannot run become one, and it never
/// runs twice at the same time. A run that succeeds or fails has done its tick. One that was
/// interrupted, because of a pause, a reset, a shutdown or a crash, has not: the tick is due again.
///
/// Schedules and how they stand are kept in the store, and are there again after a restart as soon
/// as their functions are registered.
///
/// A panic in a function fails its run, unless the program is built to abort on panics.
///
/// Dropping the runner shuts it down; see [`Runner::shutdown`].
pub struct Runner {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl fmt::Debug for Runner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Runner").field(&self.shared.store).finish()
    }
}

impl Runner {
    /// Makes the runner of a store, with its schedules, and starts its workers.
    ///
    /// # Errors
    /// [`RunnerError::Store`] when the schedules cannot be read; [`RunnerError::Thread`].
    pub fn new(store: &Store, options: RunnerOptions) -> Result<Self> {
        let workers = options.workers;
        let runner = Self {
            shared: Arc::new(Shared::open(store, options)?),
            threads: Mutex::default(),
        };
        for _ in 0..workers {
            runner.spawn("highwater-sync", Shared::work)?;
        }
        #[cfg(feature = "webhook")]
        if workers > 0 && !runner.shared.outbox.is_idle() {
            runner.spawn("highwater-webhook", Shared::deliver)?;
        }
        Ok(runner)
    }

    fn spawn(&self, name: &str, work: fn(&Shared)) -> Result<()> {
        let shared = self.shared.clone();
        let thread = Builder::new().name(name.to_owned());
        let thread = thread.spawn(move || work(&shared));
        self.threads
            .lock()
            .push(thread.map_err(RunnerError::Thread)?);
        Ok(())
    }

    /// Makes a function known under its name, in place of one that was. Its schedules, if any are
    /// kept in the store, go on from now.
    ///
    /// # Errors
    /// [`Error::InvalidName`](crate::Error::InvalidName) when its name, or that of a model, is not
    /// one.
    pub fn register(&self, function: Arc<dyn SyncFunction>) -> Result<()> {
        let name = function.name().to_owned();
        check_name("sync", &name)?;
        let registered = Registered::new(function);
        for model in &registered.models {
            check_name("model", model)?;
        }
        self.shared.table.lock().functions.insert(name, registered);
        self.shared.changed.notify_all();
        Ok(())
    }

    /// Schedules a function for a connection and variant (empty: `base`). Its first tick is now.
    ///
    /// When it is scheduled already, only its frequency is set, so that a program can say at every
    /// start what it wants. `None` stands for the function's own.
    ///
    /// # Errors
    /// [`RunnerError::NotRegistered`]; [`RunnerError::Running`] when it was unscheduled and still
    /// runs; [`Error::InvalidName`](crate::Error::InvalidName), and those of any write.
    pub fn schedule(
        &self,
        connection: &str,
        variant: &str,
        sync: &str,
        frequency: Option<Frequency>,
    ) -> Result<SyncKey> {
        let key = SyncKey::new(connection, sync, variant)?;
        let Shared { store, table, .. } = &*self.shared;
        let now = self.shared.now();
        let mut table = table.lock();
        let registered = table.functions.get(sync);
        let registered = registered.ok_or_else(|| RunnerError::NotRegistered {
            name: sync.to_owned(),
        })?;
        let paused = !registered.auto_start;
        match table.entries.get_mut(&key) {
            Some(entry) if entry.removed => return Err(RunnerError::Running { sync: key }),
            Some(entry) => entry.update(store, |schedule| schedule.frequency = frequency)?,
            None => {
                // Runs that were not this schedule's are not its to report.
                let newest = store.runs(&key)?.first().map_or(0, |report| report.run);
                let mut schedule = Schedule::new(&key, now, paused, newest);
                schedule.frequency = frequency;
                schedule.save(store)?;
                table.entries.insert(key.clone(), Entry::new(schedule));
            }
        }
        self.shared.changed.notify_all();
        Ok(key)
    }

    /// Ends a schedule: its run, if there is one, is asked to stop. Records and checkpoint stay.
    ///
    /// # Errors
    /// [`RunnerError::NotScheduled`], and those of any write.
    pub fn unschedule(&self, sync: &SyncKey) -> Result<()> {
        let Shared { store, table, .. } = &*self.shared;
        let mut table = table.lock();
        let not_scheduled = || RunnerError::NotScheduled { sync: sync.clone() };
        let entry = table.scheduled(sync).ok_or_else(not_scheduled)?;
        Schedule::remove(store, sync)?;
        match &entry.running {
            Some(cancellation) => {
                cancellation.cancel(StopReason::Unscheduled);
                entry.removed = true;
            }
            None => drop(table.entries.remove(sync)),
        }
        self.shared.changed.notify_all();
        Ok(())
    }

    /// Starts a paused schedule. What was missed meanwhile, or interrupted by the pause, is one
    /// tick that is due now.
    ///
    /// # Errors
    /// As for [`unschedule`](Self::unschedule).
    pub fn start(&self, sync: &SyncKey) -> Result<()> {
        self.change(sync, |entry, store| {
            Ok(entry.update(store, |schedule| schedule.paused = false)?)
        })
    }

    /// Pauses a schedule. A run that is going on is asked to stop, which it does at its next
    /// checkpoint.
    ///
    /// # Errors
    /// As for [`unschedule`](Self::unschedule).
    pub fn pause(&self, sync: &SyncKey) -> Result<()> {
        self.change(sync, |entry, store| {
            entry.update(store, |schedule| schedule.paused = true)?;
            if let Some(cancellation) = &entry.running {
                cancellation.cancel(StopReason::Paused);
            }
            Ok(())
        })
    }

    /// Has a schedule run once as soon as a worker is free, also when it is paused. Its grid stays
    /// as it is. What was asked for survives a restart.
    ///
    /// ```
    /// use highwater::sync::{Runner, RunnerError, RunnerOptions, Trigger};
    /// # use highwater::sync::{Frequency, SyncContext, SyncError, SyncFunction};
    /// # struct Contacts;
    /// # impl SyncFunction for Contacts {
    /// #     fn name(&self) -> &str { "contacts" }
    /// #     fn models(&self) -> Vec<&str> { vec!["Contact"] }
    /// #     fn frequency(&self) -> Frequency { Frequency::MAX }
    /// #     fn exec(&self, _: &mut SyncContext) -> Result<(), SyncError> { Ok(()) }
    /// # }
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = highwater::Store::open(dir.path())?;
    /// # let runner = Runner::new(&store, RunnerOptions::new().workers(0))?;
    /// # runner.register(std::sync::Arc::new(Contacts))?;
    /// let contacts = runner.schedule("conn-42", "", "contacts", None)?;
    /// runner.trigger(&contacts, Trigger::new().reset(true))?;
    /// let again = runner.trigger(&contacts, Trigger::new());
    /// assert!(matches!(again, Err(RunnerError::AlreadyTriggered { .. })));
    /// # Ok::<(), RunnerError>(())
    /// ```
    ///
    /// # Errors
    /// [`RunnerError::EmptyCacheWithoutReset`]; [`RunnerError::Running`] and
    /// [`RunnerError::AlreadyTriggered`]; [`RunnerError::NotRegistered`] when nothing could run;
    /// as for [`unschedule`](Self::unschedule).
    pub fn trigger(&self, sync: &SyncKey, trigger: Trigger) -> Result<()> {
        if trigger.empty_cache && !trigger.reset {
            return Err(RunnerError::EmptyCacheWithoutReset);
        }
        let registered = self.shared.table.lock().functions.contains_key(&sync.name);
        self.change(sync, |entry, store| {
            let sync = sync.clone();
            if !registered {
                return Err(RunnerError::NotRegistered { name: sync.name });
            }
            if entry.running.is_some() {
                return Err(RunnerError::Running { sync });
            }
            if entry.schedule.requested.is_some() {
                return Err(RunnerError::AlreadyTriggered { sync });
            }
            Ok(entry.update(store, |schedule| schedule.requested = Some(trigger))?)
        })
    }

    fn change(
        &self,
        sync: &SyncKey,
        change: impl FnOnce(&mut Entry, &Store) -> Result<()>,
    ) -> Result<()> {
        let Shared { store, table, .. } = &*self.shared;
        let mut table = table.lock();
        let not_scheduled = || RunnerError::NotScheduled { sync: sync.clone() };
        change(table.scheduled(sync).ok_or_else(not_scheduled)?, store)?;
        self.shared.changed.notify_all();
        Ok(())
    }

    /// How a schedule stands.
    ///
    /// # Errors
    /// [`RunnerError::NotScheduled`], and a failure to read.
    pub fn status(&self, sync: &SyncKey) -> Result<SyncStatus> {
        let now = self.shared.now();
        let store = &self.shared.store;
        // Read before the reports: that of a run which ends meanwhile is there then.
        let table = self.shared.table.lock();
        let not_scheduled = || RunnerError::NotScheduled { sync: sync.clone() };
        let entry = table.entries.get(sync).filter(|entry| !entry.removed);
        let entry = entry.ok_or_else(not_scheduled)?;
        let next_due = table.next_due(sync, entry, now);
        let (running, paused) = (entry.running.is_some(), entry.schedule.paused);
        let registered = table.functions.get(&sync.name);
        let own = registered.map(|registered| registered.frequency);
        let frequency = entry.schedule.frequency.or(own);
        let version = registered.map(|registered| registered.version.clone());
        let models = registered.map_or_else(Vec::new, |registered| registered.models.clone());
        drop(table);

        let mut reports = store.runs(sync)?.into_iter();
        let last_report = reports.find(|report| report.ended.is_some());
        let count = |model: String| {
            let feed = store.feed_variant(&sync.connection, &model, &sync.variant)?;
            Ok((model, feed.count()?))
        };
        Ok(SyncStatus {
            sync: sync.clone(),
            state: SyncState::new(running, paused, last_report.as_ref()),
            version,
            frequency: frequency.map(|frequency| frequency.to_string()),
            next_due,
            last_report,
            records: models.into_iter().map(count).collect::<Result<_>>()?,
        })
    }

    /// How all schedules stand, ordered by their keys.
    ///
    /// # Errors
    /// A failure to read.
    pub fn statuses(&self) -> Result<Vec<SyncStatus>> {
        let table = self.shared.table.lock();
        let scheduled = table.entries.iter().filter(|(_, entry)| !entry.removed);
        let syncs: Vec<SyncKey> = scheduled.map(|(sync, _)| sync.clone()).collect();
        drop(table);
        let statuses = syncs.iter().map(|sync| self.status(sync));
        statuses
            .filter(|status| !matches!(status, Err(RunnerError::NotScheduled { .. })))
            .collect()
    }

    /// Runs everything that is due by the store's clock, each schedule at most once, on this
    /// thread, and returns the reports in the order of the runs. It is what the workers do, for
    /// programs that have threads of their own and for tests.
    ///
    /// # Errors
    /// When a run could not be begun or ended; what else is due stays due.
    pub fn run_due(&self) -> Result<Vec<RunReport>> {
        let now = self.shared.now();
        let mut reports: Vec<RunReport> = Vec::new();
        let mut done = Vec::new();
        while let Some(report) = self.shared.step(now, &done)? {
            done.push(report.sync.clone());
            reports.push(report);
        }
        Ok(reports)
    }

    /// Makes the attempts to deliver reports that are due by the store's clock, on this thread, and
    /// returns how many reports were delivered. With workers, there is a thread that does it.
    ///
    /// # Errors
    /// Those of any write. A report that is not delivered is not an error; it is tried again, or
    /// given up with a line in the log.
    #[cfg(feature = "webhook")]
    pub fn deliver_due(&self) -> Result<usize> {
        Ok(self.shared.deliver_due()?)
    }

    /// Waits until a schedule neither runs nor was triggered; false when `timeout` passed first.
    pub fn wait_idle(&self, sync: &SyncKey, timeout: Duration) -> bool {
        // No deadline at all when the time-out is too long to be represented.
        let deadline = Instant::now().checked_add(timeout);
        let mut table = self.shared.table.lock();
        loop {
            let busy = table
                .entries
                .get(sync)
                .is_some_and(|entry| entry.running.is_some() || entry.schedule.requested.is_some());
            if !busy {
                return true;
            }
            match deadline {
                Some(deadline) => {
                    let changed = &self.shared.changed;
                    if changed.wait_until(&mut table, deadline).timed_out() {
                        return false;
                    }
                }
                None => self.shared.changed.wait(&mut table),
            }
        }
    }

    /// Asks all runs to stop, waits until they have, and starts no others. What was interrupted is
    /// due again when the next runner is made. Also waits for an attempt to deliver a report.
    ///
    /// It takes as long as the functions take to their next checkpoint.
    pub fn shutdown(&self) {
        self.shared.table.lock().stop();
        self.shared.changed.notify_all();
        let threads = std::mem::take(&mut *self.threads.lock());
        for thread in threads {
            // A function may hold the last handle of its own runner.
            if thread.thread().id() != std::thread::current().id() {
                // Panics of functions are caught, so that there is none to pass on.
                let _ = thread.join();
            }
        }
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        self.shutdown();
    }
}
