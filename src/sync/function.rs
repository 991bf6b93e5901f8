//! What the author of a sync writes.

use std::error::Error as StdError;
use std::fmt;

use super::context::SyncContext;
use super::frequency::Frequency;
use super::http::{Cancelled, HttpError};
use super::paginate::PageError;
use crate::error::Error;

/// Fetches records from a provider and saves them: the part of a sync that is different for every
/// provider. What calls it is a [`Runner`](super::Runner), or a [`DryRun`](super::DryRun).
///
/// The same function serves any number of connections, several of them at the same time. It keeps
/// where it is in the checkpoint and not in itself, so that any run can be interrupted.
///
/// ```
/// use highwater::sync::{Frequency, SyncContext, SyncError, SyncFunction};
/// use serde::{Deserialize, Serialize};
/// use serde_json::json;
///
/// struct Contacts;
///
/// #[derive(Serialize, Deserialize)]
/// struct Checkpoint {
///     page: u64,
/// }
///
/// impl SyncFunction for Contacts {
///     fn name(&self) -> &str {
///         "contacts"
///     }
///
///     fn models(&self) -> Vec<&str> {
///         vec!["Contact"]
///     }
///
///     fn frequency(&self) -> Frequency {
///         Frequency::MIN
///     }
///
///     fn exec(&self, context: &mut SyncContext) -> Result<(), SyncError> {
///         let from = context.checkpoint::<Checkpoint>()?.map_or(0, |checkpoint| checkpoint.page);
///         for page in from..3 {
///             // Here a provider is asked.
///             let records = [json!({"id": page, "name": "Ada"})];
///             // The records and how far they go, in one commit.
///             context.save_with_checkpoint("Contact", &records, &Checkpoint { page: page + 1 })?;
///         }
///         context.clear_checkpoint()
///     }
/// }
///
/// use highwater::sync::{Runner, RunnerOptions};
/// # let dir = tempfile::tempdir().unwrap();
/// # let store = highwater::Store::open(dir.path())?;
/// let runner = Runner::new(&store, RunnerOptions::new().workers(0))?;
/// runner.register(std::sync::Arc::new(Contacts))?;
/// runner.schedule("conn-42", "", "contacts", None)?;
/// let reports = runner.run_due()?;
/// assert_eq!(reports[0].models["Contact"].added, 3);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait SyncFunction: Send + Sync {
    /// What the sync is called; together with connection and variant it names the checkpoint.
    fn name(&self) -> &str;

    /// What it does, in a sentence.
    fn description(&self) -> &str {
        ""
    }

    /// The version of the function, which is shown with its status. Nothing is done about a new
    /// one; if it needs everything fetched again, trigger it with a reset.
    fn version(&self) -> &str {
        "1"
    }

    /// The models it writes to.
    fn models(&self) -> Vec<&str>;

    /// How often it runs, unless its schedule says otherwise.
    fn frequency(&self) -> Frequency;

    /// Whether new schedules of it begin started; otherwise they begin paused.
    fn auto_start(&self) -> bool {
        true
    }

    /// Runs once. `Ok` ends the run as succeeded, and an error, or a panic, as failed; what was
    /// saved until then stays. [`SyncError::Stopped`] ends it as interrupted.
    ///
    /// # Errors
    /// Whatever went wrong. Errors of the context, of clients and of pages convert with `?`, and
    /// others by [`SyncError::failed`].
    fn exec(&self, context: &mut SyncContext) -> Result<(), SyncError>;
}

/// Why a run did not get to its end.
#[derive(Debug)]
#[non_exhaustive]
pub enum SyncError {
    /// The run was asked to stop: the function should pass this on.
    Stopped,
    /// The store refused a read or write.
    Store(Error),
    /// The function has not named this model among its [`models`](SyncFunction::models).
    UnknownModel {
        /// The model.
        model: String,
    },
    /// The checkpoint, or the metadata, is not of the type it was asked for as.
    Document {
        /// Which of them.
        what: &'static str,
        /// What does not fit.
        source: serde_json::Error,
    },
    /// Anything else.
    Failed(Box<dyn StdError + Send + Sync>),
}

impl SyncError {
    /// An error of the function's own: a text or another error.
    pub fn failed(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::Failed(source.into())
    }
}

impl fmt::Display for SyncError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stopped => f.write_str("the run was asked to stop"),
            Self::Store(error) => error.fmt(f),
            Self::UnknownModel { model } => {
                write!(f, "{model:?} is not among the models of the sync")
            }
            Self::Document { what, source } => write!(f, "{what} has another shape: {source}"),
            Self::Failed(error) => error.fmt(f),
        }
    }
}

impl StdError for SyncError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            // The text names the immediate cause, so the chain goes on behind it.
            Self::Store(error) => error.source(),
            Self::Document { source, .. } => source.source(),
            Self::Failed(error) => error.source(),
            Self::Stopped | Self::UnknownModel { .. } => None,
        }
    }
}

impl From<Error> for SyncError {
    fn from(error: Error) -> Self {
        match error {
            Error::RunFenced { .. } => Self::Stopped,
            error => Self::Store(error),
        }
    }
}

impl From<Cancelled> for SyncError {
    fn from(_: Cancelled) -> Self {
        Self::Stopped
    }
}

impl From<HttpError> for SyncError {
    fn from(error: HttpError) -> Self {
        match error {
            HttpError::Cancelled => Self::Stopped,
            error => Self::failed(error),
        }
    }
}

impl From<PageError> for SyncError {
    fn from(error: PageError) -> Self {
        match error {
            PageError::Http(error) => error.into(),
            error => Self::failed(error),
        }
    }
}

impl From<serde_json::Error> for SyncError {
    fn from(error: serde_json::Error) -> Self {
        Self::failed(error)
    }
}
