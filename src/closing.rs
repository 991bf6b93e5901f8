//! Whether a store is closed, and waiting that ends as soon as it is.

use std::time::{Duration, Instant};

use crate::primitives::atomic::{AtomicBool, Ordering};
use crate::primitives::{Condvar, Mutex};

/// See the module.
#[derive(Default)]
pub(crate) struct Closing {
    closed: AtomicBool,
    lock: Mutex<()>,
    condition: Condvar,
}

impl Closing {
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Closes, and ends all waits; false when it was closed already.
    pub(crate) fn close(&self) -> bool {
        let first = !self.closed.swap(true, Ordering::AcqRel);
        // Whoever is about to wait has looked before, with the lock.
        drop(self.lock.lock());
        self.condition.notify_all();
        first
    }

    /// Waits for a time, or until the store is closed.
    pub(crate) fn wait(&self, time: Duration) {
        let end = Instant::now() + time;
        let mut guard = self.lock.lock();
        while !self.is_closed() {
            if self.condition.wait_until(&mut guard, end).timed_out() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closing_ends_a_wait() {
        let closing = Closing::default();
        closing.wait(Duration::from_millis(1));
        std::thread::scope(|scope| {
            scope.spawn(|| closing.wait(Duration::from_secs(3600)));
            assert!(closing.close());
        });
        assert!(closing.is_closed() && !closing.close());
        closing.wait(Duration::from_secs(3600));
    }
}
