//! Where the time comes from: the system, or a test.

use std::fmt::Debug;
#[cfg(feature = "simulate")]
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// A source of wall-clock time; it may stand still, jump and go backwards.
pub trait Clock: Debug + Send + Sync + 'static {
    /// Microseconds since the Unix epoch.
    fn now_micros(&self) -> u64;
}

/// The clock of the operating system.
///
/// A time before the epoch reads as 0.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the clock the ban points to"
    )]
    fn now_micros(&self) -> u64 {
        let since_epoch = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        u64::try_from(since_epoch.as_micros()).unwrap_or(u64::MAX)
    }
}

/// A clock that stands still until it is moved, forwards or backwards.
#[cfg(feature = "simulate")]
#[derive(Debug, Default)]
pub struct ManualClock {
    micros: AtomicU64,
}

#[cfg(feature = "simulate")]
impl ManualClock {
    /// A clock that shows `micros` microseconds since the Unix epoch.
    pub fn new(micros: u64) -> Self {
        Self {
            micros: AtomicU64::new(micros),
        }
    }

    /// Moves the clock to `micros`, which may lie in its past.
    pub fn set(&self, micros: u64) {
        self.micros.store(micros, Ordering::SeqCst);
    }

    /// Moves the clock forwards by `micros`.
    pub fn advance(&self, micros: u64) {
        self.micros.fetch_add(micros, Ordering::SeqCst);
    }
}

#[cfg(feature = "simulate")]
impl Clock for ManualClock {
    fn now_micros(&self) -> u64 {
        self.micros.load(Ordering::SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn system_clock_is_past_2020() {
        assert!(SystemClock.now_micros() > 1_577_836_800_000_000);
    }

    #[cfg(feature = "simulate")]
    #[test]
    fn manual_clock_moves_only_when_told() {
        let clock = ManualClock::new(10);
        assert_eq!((clock.now_micros(), clock.now_micros()), (10, 10));
        clock.advance(5);
        assert_eq!(clock.now_micros(), 15);
        clock.set(3);
        assert_eq!(clock.now_micros(), 3);
    }
}
