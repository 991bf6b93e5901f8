//! How a schedule stands.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::record::Timestamp;
use crate::runs::{RunReport, RunStatus, SyncKey};

/// How a schedule stands, in a word.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SyncState {
    /// It runs now.
    Running,
    /// It does not run, unless it is triggered.
    Paused,
    /// It waits for its next tick; the last run succeeded.
    Success,
    /// It waits for its next tick; the last run failed.
    Error,
    /// It waits for a first run, or to make up for one that was interrupted.
    Pending,
}

impl SyncState {
    pub(super) fn new(running: bool, paused: bool, last: Option<&RunReport>) -> Self {
        match last.map(|report| report.status) {
            _ if running => Self::Running,
            _ if paused => Self::Paused,
            Some(RunStatus::Succeeded) => Self::Success,
            Some(RunStatus::Failed) => Self::Error,
            Some(RunStatus::Interrupted | RunStatus::Running) | None => Self::Pending,
        }
    }
}

/// What a runner knows of a schedule.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[non_exhaustive]
pub struct SyncStatus {
    /// Of which sync.
    pub sync: SyncKey,
    /// How it stands.
    pub state: SyncState,
    /// The function's version; `None` while no function of this name is registered, and nothing
    /// runs.
    pub version: Option<String>,
    /// How often it runs, as text; `None` when only its function could say.
    pub frequency: Option<String>,
    /// When it runs next, which is in the past while it waits for a worker. `None` while it is
    /// running or paused, or no function is registered.
    pub next_due: Option<Timestamp>,
    /// The report of the newest run that has ended.
    pub last_report: Option<RunReport>,
    /// How many live records its models have.
    pub records: BTreeMap<String, u64>,
}
