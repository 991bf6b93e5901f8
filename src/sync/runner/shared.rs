//! What the threads of a runner share, and what they do with it.

use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::options::RunnerOptions;
use super::table::{Entry, Job, Table};
use crate::documents::Expected;
use crate::error::{Error, Result};
use crate::record::Timestamp;
use crate::runs::{RunOptions, RunReport, RunStatus, SyncKey};
use crate::store::Store;
use crate::sync::StopReason;
use crate::sync::context::{self, LogLevel, LogLine, LogSink, SyncContext};
use crate::sync::execute::execute;
#[cfg(feature = "webhook")]
use crate::sync::outbox::Outbox;
use crate::sync::schedule::Schedule;

/// How often a thread that has nothing to do looks at the clock, which may jump.
const POLL: Duration = Duration::from_millis(250);

/// See the module.
pub(super) struct Shared {
    pub(super) store: Store,
    pub(super) table: Mutex<Table>,
    /// Told of every change of the table.
    pub(super) changed: Condvar,
    pub(super) log: LogSink,
    #[cfg(feature = "webhook")]
    pub(super) outbox: Outbox,
}

impl Shared {
    /// Reads what an earlier process has left.
    pub(super) fn open(store: &Store, options: RunnerOptions) -> Result<Self> {
        #[cfg(feature = "webhook")]
        let outbox = Outbox::open(store, options.webhooks, options.client)?;
        let shared = Self {
            store: store.clone(),
            table: Mutex::default(),
            changed: Condvar::new(),
            log: options.log,
            #[cfg(feature = "webhook")]
            outbox,
        };
        for (sync, schedule) in Schedule::load_all(store)? {
            let mut entry = Entry::new(schedule);
            shared.hand_in_reports(&sync, &mut entry)?;
            shared.table.lock().entries.insert(sync, entry);
        }
        Ok(shared)
    }

    pub(super) fn now(&self) -> Timestamp {
        context::now(&self.store)
    }

    pub(super) fn log_error(&self, sync: &SyncKey, error: &Error) {
        (self.log)(&LogLine {
            sync,
            run: 0,
            level: LogLevel::Error,
            message: &error.to_string(),
        });
    }

    /// Makes one run, if one is due at `now`, and returns its report.
    pub(super) fn step(&self, now: Timestamp, except: &[SyncKey]) -> Result<Option<RunReport>> {
        let job = self.table.lock().take_due(&self.store, now, except)?;
        let Some(job) = job else { return Ok(None) };
        self.changed.notify_all();
        let result = self.perform(&job);
        let finished = self.finish(&job, result.as_ref().ok());
        self.changed.notify_all();
        if let Err(error) = result.as_ref().map(drop).and(finished.as_ref().map(drop)) {
            self.log_error(&job.sync, error);
        }
        finished?;
        result.map(Some)
    }

    fn perform(&self, job: &Job) -> Result<RunReport> {
        let trigger = job.trigger;
        let options = RunOptions::new()
            .reset(trigger.reset)
            .replace(trigger.empty_cache);
        let run = self.store.begin_run(&job.sync, options)?;
        let id = run.id();
        let (cancellation, log) = (job.cancellation.clone(), self.log.clone());
        let context = SyncContext::new(self.store.clone(), run, cancellation, log);
        match execute(&*job.function, context, trigger.empty_cache) {
            // Whoever took over has ended it.
            Err(Error::RunFenced { run }) => {
                let reports = self.store.runs(&job.sync)?;
                let mut reports = reports.into_iter();
                let report = reports.find(|report| report.run == id);
                report.ok_or(Error::RunFenced { run })
            }
            Err(error) if trigger.empty_cache => {
                // The staged records are gone, and the checkpoint goes on behind them.
                let SyncKey {
                    connection,
                    name,
                    variant,
                    ..
                } = &job.sync;
                self.store
                    .clear_checkpoint(connection, name, variant, Expected::Any)?;
                Err(error)
            }
            result => result,
        }
    }

    fn finish(&self, job: &Job, report: Option<&RunReport>) -> Result<()> {
        let mut table = self.table.lock();
        let Some(entry) = table.entries.get_mut(&job.sync) else {
            return Ok(());
        };
        entry.running = None;
        if entry.removed {
            let handed_in = self.hand_in_reports(&job.sync, entry);
            table.entries.remove(&job.sync);
            return handed_in;
        }
        let interrupted = report.is_some_and(|report| report.status == RunStatus::Interrupted);
        entry.update(&self.store, |schedule| {
            if interrupted {
                schedule.interrupted(job.cancellation.reason() == Some(StopReason::Shutdown));
            } else {
                schedule.ended();
            }
        })?;
        self.hand_in_reports(&job.sync, entry)
    }

    /// Hands the reports of ended runs to the webhooks, once each: also those that a process which
    /// died has left.
    fn hand_in_reports(&self, sync: &SyncKey, entry: &mut Entry) -> Result<()> {
        let mut newest = entry.schedule.reported;
        for report in self.store.runs(sync)?.into_iter().rev() {
            if report.run > entry.schedule.reported && report.ended.is_some() {
                newest = report.run;
                #[cfg(feature = "webhook")]
                self.outbox.add(&self.store, &report, self.now())?;
            }
        }
        if entry.removed {
            return Ok(());
        }
        entry.update(&self.store, |schedule| schedule.reported = newest)
    }

    /// Waits until a run may be due, or something has changed.
    fn idle(&self) {
        let mut table = self.table.lock();
        if table.stopping {
            return;
        }
        let now = self.now();
        let wait = table.first_due(now).map_or(POLL, |due| {
            Duration::from_micros(due.as_micros().saturating_sub(now.as_micros())).min(POLL)
        });
        self.changed.wait_for(&mut table, wait);
    }

    /// Waits for a while, however much is due.
    fn pause(&self) {
        let mut table = self.table.lock();
        if !table.stopping {
            self.changed.wait_for(&mut table, POLL);
        }
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.table.lock().stopping
    }

    /// What a worker does all day.
    pub(super) fn work(&self) {
        while !self.is_stopping() {
            match self.step(self.now(), &[]) {
                Ok(Some(_)) => {}
                Ok(None) => self.idle(),
                Err(Error::Closed) => return,
                // Such as a full disk: what is due stays due.
                Err(_) => self.pause(),
            }
        }
    }

    /// What the thread for the webhooks does all day.
    #[cfg(feature = "webhook")]
    pub(super) fn deliver(&self) {
        while !self.is_stopping() {
            match self.deliver_due() {
                Err(Error::Closed) => return,
                _ => self.pause(),
            }
        }
    }

    #[cfg(feature = "webhook")]
    pub(super) fn deliver_due(&self) -> Result<usize> {
        let now = || self.now();
        let stop = || self.is_stopping();
        self.outbox.deliver_due(&self.store, &now, &stop, &self.log)
    }
}
