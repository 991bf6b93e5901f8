//! Why the runner refuses.

use std::fmt;

use crate::error::Error;
use crate::runs::SyncKey;

/// Why a runner did not do what it was asked to. Unless it is [`Store`](Self::Store), nothing has
/// changed.
#[derive(Debug)]
#[non_exhaustive]
pub enum RunnerError {
    /// No function of this name was registered.
    NotRegistered {
        /// The name.
        name: String,
    },
    /// There is no schedule of this sync.
    NotScheduled {
        /// The sync.
        sync: SyncKey,
    },
    /// The sync is running; wait until it has ended, or pause it first.
    Running {
        /// The sync.
        sync: SyncKey,
    },
    /// The sync was triggered already, and will run as soon as a worker is free.
    AlreadyTriggered {
        /// The sync.
        sync: SyncKey,
    },
    /// The cache cannot be emptied without a reset: what was fetched before the checkpoint would
    /// be gone.
    EmptyCacheWithoutReset,
    /// The system could not start a thread.
    Thread(std::io::Error),
    /// The store refused a read or write.
    Store(Error),
}

impl fmt::Display for RunnerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotRegistered { name } => write!(f, "no function {name:?} is registered"),
            Self::NotScheduled { sync } => write!(f, "{sync} is not scheduled"),
            Self::Running { sync } => write!(f, "{sync} is running"),
            Self::AlreadyTriggered { sync } => write!(f, "{sync} was triggered already"),
            Self::EmptyCacheWithoutReset => {
                f.write_str("the cache can be emptied only together with a reset")
            }
            Self::Thread(source) => write!(f, "could not start a thread: {source}"),
            Self::Store(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for RunnerError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            // The text names the immediate cause, so the chain goes on behind it.
            Self::Store(error) => error.source(),
            Self::Thread(source) => source.source(),
            _ => None,
        }
    }
}

impl From<Error> for RunnerError {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}
