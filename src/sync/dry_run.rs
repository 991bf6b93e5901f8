//! Running a function without changing anything.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::cancel::Cancellation;
use super::context::{LogLine, LogSink, SyncContext, no_log};
use super::execute::execute;
use super::function::SyncFunction;
use crate::documents::{self, Expected};
use crate::error::Result;
use crate::runs::{RunReport, SyncKey};
use crate::store::Store;

/// A run that changes nothing: the function fetches for real, and what it saves is compared with
/// the cache as it is, counted, and dropped.
///
/// It begins without a checkpoint, and with the connection's metadata, unless told otherwise.
#[derive(Clone)]
#[must_use = "a dry run does nothing until it is run"]
pub struct DryRun {
    connection: String,
    variant: String,
    metadata: Option<Vec<u8>>,
    checkpoint: Option<Vec<u8>>,
    diagnostics: bool,
    cancellation: Cancellation,
    log: LogSink,
}

/// What a dry run would have done.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[non_exhaustive]
pub struct DryRunReport {
    /// The report that the run would have had, with the true counts.
    pub report: RunReport,
    /// What it took; `None` unless it was asked for.
    pub diagnostics: Option<Diagnostics>,
}

/// What a dry run took.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[non_exhaustive]
pub struct Diagnostics {
    /// From beginning to end.
    pub duration: Duration,
    /// What the thread of the function computed; `None` where the system does not tell.
    pub cpu: Option<Duration>,
    /// The most memory that the process had resident since it began, in bytes: with a process of
    /// its own for the dry run, what that took. `None` where the system does not tell.
    pub peak_memory: Option<u64>,
}

impl std::fmt::Debug for DryRun {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DryRun")
            .field("connection", &self.connection)
            .field("variant", &self.variant)
            .finish_non_exhaustive()
    }
}

impl DryRun {
    /// A dry run for a connection.
    pub fn new(connection: impl Into<String>) -> Self {
        Self {
            connection: connection.into(),
            variant: String::new(),
            metadata: None,
            checkpoint: None,
            diagnostics: false,
            cancellation: Cancellation::new(),
            log: no_log(),
        }
    }

    /// Sets the variant; an empty one is `base`.
    pub fn variant(mut self, variant: impl Into<String>) -> Self {
        self.variant = variant.into();
        self
    }

    /// Shows the function this metadata in place of the connection's.
    ///
    /// # Errors
    /// [`Error::InvalidDocument`](crate::Error::InvalidDocument) when it is not a JSON object of at
    /// most 64 KiB.
    pub fn metadata<T: Serialize>(mut self, metadata: &T) -> Result<Self> {
        self.metadata = Some(documents::metadata_json(metadata)?);
        Ok(self)
    }

    /// Has the function go on from this checkpoint.
    ///
    /// # Errors
    /// As for [`metadata`](Self::metadata).
    pub fn checkpoint<T: Serialize>(mut self, checkpoint: &T) -> Result<Self> {
        self.checkpoint = Some(documents::checkpoint_json(checkpoint)?);
        Ok(self)
    }

    /// Also tells what it took.
    pub fn diagnostics(mut self, diagnostics: bool) -> Self {
        self.diagnostics = diagnostics;
        self
    }

    /// Can be interrupted by this.
    pub fn cancellation(mut self, cancellation: Cancellation) -> Self {
        self.cancellation = cancellation;
        self
    }

    /// Where log lines go.
    pub fn log(mut self, sink: impl Fn(&LogLine<'_>) + Send + Sync + 'static) -> Self {
        self.log = Arc::new(sink);
        self
    }

    /// Runs a function, on this thread. An error of the function is in the report.
    ///
    /// ```
    /// use highwater::sync::{DryRun, Frequency, SyncContext, SyncError, SyncFunction};
    /// use serde_json::json;
    ///
    /// struct Contacts;
    ///
    /// impl SyncFunction for Contacts {
    ///     fn name(&self) -> &str {
    ///         "contacts"
    ///     }
    ///     fn models(&self) -> Vec<&str> {
    ///         vec!["Contact"]
    ///     }
    ///     fn frequency(&self) -> Frequency {
    ///         Frequency::MIN
    ///     }
    ///     fn exec(&self, context: &mut SyncContext) -> Result<(), SyncError> {
    ///         let records = [json!({"id": 1}), json!({"id": 2})];
    ///         context.batch_save("Contact", &records).map(drop)
    ///     }
    /// }
    ///
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = highwater::Store::open(dir.path())?;
    /// let dry = DryRun::new("conn-42").diagnostics(true).run(&store, &Contacts)?;
    /// assert_eq!(dry.report.models["Contact"].added, 2);
    /// # Ok::<(), highwater::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::InvalidName`](crate::Error::InvalidName), and a failure of the store.
    pub fn run(self, store: &Store, function: &dyn SyncFunction) -> Result<DryRunReport> {
        let sync = SyncKey::new(&self.connection, function.name(), &self.variant)?;
        let run = store.begin_dry_run(&sync)?;
        if let Some(json) = &self.checkpoint {
            let text = String::from_utf8_lossy(json).into_owned();
            // It was made of JSON, so that it can be read as such.
            if let Ok(raw) = serde_json::value::RawValue::from_string(text) {
                run.save_checkpoint(&raw, Expected::Any)?;
            }
        }
        let mut context = SyncContext::new(store.clone(), run, self.cancellation, self.log);
        context.set_metadata(self.metadata);
        let (began, computed) = (Instant::now(), cpu());
        let report = execute(function, context, false)?;
        let diagnostics = self.diagnostics.then(|| Diagnostics {
            duration: began.elapsed(),
            cpu: cpu()
                .zip(computed)
                .map(|(after, before)| after.saturating_sub(before)),
            peak_memory: peak_memory(),
        });
        Ok(DryRunReport {
            report,
            diagnostics,
        })
    }
}

/// What this thread has computed so far.
#[cfg(target_os = "linux")]
fn cpu() -> Option<Duration> {
    use rustix::time::{ClockId, clock_gettime};
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).ok()
}

#[cfg(not(target_os = "linux"))]
fn cpu() -> Option<Duration> {
    None
}

#[cfg(target_os = "linux")]
fn peak_memory() -> Option<u64> {
    // Asked of the kernel and not of a disk, so that no storage is in between.
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let peak = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = peak.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes << 10)
}

#[cfg(not(target_os = "linux"))]
fn peak_memory() -> Option<u64> {
    None
}
