//! Asking a run to stop.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::http::{Cancelled, Sleep};

/// Why a run is asked to stop.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum StopReason {
    /// The schedule was paused.
    Paused,
    /// The schedule was removed.
    Unscheduled,
    /// The runner is shut down.
    Shutdown,
    /// Another run took over, after a reset or because this one was declared dead.
    Fenced,
}

impl fmt::Display for StopReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Paused => "the schedule was paused",
            Self::Unscheduled => "the schedule was removed",
            Self::Shutdown => "the runner was shut down",
            Self::Fenced => "another run took over",
        })
    }
}

/// Whether a run was asked to stop. Cheap to clone; all clones are the same.
///
/// It is a [`Sleep`] that ends early when the run is asked to stop, so that a client which waits to
/// try again does not hold up a pause.
///
/// ```
/// use highwater::sync::{Cancellation, Sleep, StopReason};
/// use std::time::Duration;
///
/// let cancellation = Cancellation::new();
/// assert!(cancellation.sleep(Duration::from_millis(1)).is_ok());
/// cancellation.cancel(StopReason::Paused);
/// assert!(cancellation.sleep(Duration::from_secs(3600)).is_err());
/// ```
#[derive(Clone, Default, Debug)]
pub struct Cancellation(Arc<Shared>);

#[derive(Default, Debug)]
struct Shared {
    reason: Mutex<Option<StopReason>>,
    cancelled: Condvar,
}

impl Cancellation {
    /// Nobody asks to stop yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks to stop; the first reason stays.
    pub fn cancel(&self, reason: StopReason) {
        self.0.reason.lock().get_or_insert(reason);
        self.0.cancelled.notify_all();
    }

    /// Why to stop; `None` when there is no need to.
    pub fn reason(&self) -> Option<StopReason> {
        *self.0.reason.lock()
    }
}

impl Sleep for Cancellation {
    fn sleep(&self, duration: Duration) -> Result<(), Cancelled> {
        // Waits until it is cancelled when the time is too long to be represented.
        let deadline = Instant::now().checked_add(duration);
        let mut reason = self.0.reason.lock();
        while reason.is_none() {
            match deadline {
                Some(deadline) => {
                    if self
                        .0
                        .cancelled
                        .wait_until(&mut reason, deadline)
                        .timed_out()
                    {
                        break;
                    }
                }
                None => self.0.cancelled.wait(&mut reason),
            }
        }
        match *reason {
            Some(_) => Err(Cancelled),
            None => Ok(()),
        }
    }
}
