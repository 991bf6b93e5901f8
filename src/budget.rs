//! The memory budget of the indexes: a clock over the feeds that have an index or a trail in memory.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::feed::state::FeedState;
use crate::primitives::Mutex;
use crate::primitives::atomic::{AtomicU64, AtomicUsize, Ordering};

/// See the module.
pub(crate) struct Budget {
    limit: usize,
    used: AtomicUsize,
    uses: AtomicU64,
    /// Feeds with an index, with the use count at which each was last passed over.
    clock: Mutex<VecDeque<(u64, Arc<FeedState>)>>,
}

impl Budget {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit,
            used: AtomicUsize::new(0),
            uses: AtomicU64::new(0),
            clock: Mutex::default(),
        }
    }

    /// Bytes of index in memory.
    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Notes a use of the feed's index.
    pub(crate) fn touch(&self, feed: &FeedState) {
        let now = self.uses.fetch_add(1, Ordering::Relaxed);
        feed.last_use.store(now, Ordering::Relaxed);
    }

    /// Notes how much memory the feed takes now.
    pub(crate) fn resize(&self, feed: &Arc<FeedState>, bytes: usize) {
        self.count(feed, bytes);
        if bytes > 0 && !feed.is_counted.swap(true, Ordering::Relaxed) {
            let now = self.uses.load(Ordering::Relaxed);
            self.clock.lock().push_back((now, feed.clone()));
        }
    }

    fn count(&self, feed: &FeedState, bytes: usize) {
        let before = feed.memory.swap(bytes, Ordering::Relaxed);
        self.used.fetch_add(bytes, Ordering::Relaxed);
        self.used.fetch_sub(before, Ordering::Relaxed);
    }

    /// Forgets a feed that is not used any more.
    pub(crate) fn forget(&self, feed: &FeedState) {
        self.clock
            .lock()
            .retain(|(_, held)| !std::ptr::eq(&**held, feed));
        self.count(feed, 0);
    }

    /// Drops indexes, those not used for longest first, until the budget holds or every other
    /// index is in use.
    pub(crate) fn enforce(&self, current: &Arc<FeedState>) {
        if self.used() <= self.limit {
            return;
        }
        let mut clock = self.clock.lock();
        // Twice around: the first pass may only take note of recent uses.
        for _ in 0..2 * clock.len() {
            if self.used() <= self.limit {
                return;
            }
            let Some((seen, feed)) = clock.pop_front() else {
                return;
            };
            let used = feed.last_use.load(Ordering::Relaxed);
            let account = || {
                feed.is_counted.store(false, Ordering::Relaxed);
                self.count(&feed, 0);
            };
            if Arc::ptr_eq(&feed, current) || used > seen || !feed.evict(account) {
                clock.push_back((used, feed));
            }
        }
    }
}
