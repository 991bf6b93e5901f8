//! Subscriptions: being told of commits and ended runs as soon as they are visible.
//!
//! Events are hints. A subscriber that is too slow loses some, and is told how many; nothing is
//! lost with them, because every change is in its feed and every report can be read again.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::cursor::Cursor;
use crate::feed::FeedKey;
use crate::primitives::Mutex;
use crate::primitives::atomic::{AtomicU64, AtomicUsize, Ordering};
use crate::record::Totals;
use crate::runs::RunReport;

/// How many events wait for a slow subscriber before it loses some.
const CAPACITY: usize = 4096;

/// Something that just became visible.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub enum Event {
    /// A commit changed records of a feed; one event for each feed it changed.
    Commit(CommitEvent),
    /// A feed was replaced or hard-deleted whole: it goes on in this epoch, and cursors given out
    /// before are refused.
    Replaced(FeedKey, u32),
    /// A run ended, however it ended.
    Run(Box<RunReport>),
}

/// The changes of one feed in one commit.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub struct CommitEvent {
    /// Which feed.
    pub feed: FeedKey,
    /// The first change.
    pub first_cursor: Cursor,
    /// The last change.
    pub last_cursor: Cursor,
    /// How many records were added, updated, deleted and restored; the other counts are 0.
    pub totals: Totals,
}

/// A stream of events; see [`Store::subscribe`](crate::Store::subscribe). Dropping it ends it.
#[derive(Debug)]
pub struct Subscription {
    receiver: Receiver<Event>,
    line: Arc<Line>,
}

impl Subscription {
    /// The next event, if there is one now.
    pub fn try_next(&self) -> Option<Event> {
        self.receiver.try_recv().ok()
    }

    /// Waits for the next event; `None` when `timeout` passed, or the store was closed, first.
    pub fn next_timeout(&self, timeout: Duration) -> Option<Event> {
        self.receiver.recv_timeout(timeout).ok()
    }

    /// How many events this subscription has lost so far because it was not read fast enough.
    pub fn missed(&self) -> u64 {
        self.line.missed.load(Ordering::Relaxed)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.line.gone.store(1, Ordering::Release);
    }
}

#[derive(Default, Debug)]
struct Line {
    missed: AtomicU64,
    gone: AtomicUsize,
}

/// All subscriptions of a store.
#[derive(Default)]
pub(crate) struct Events {
    lines: Mutex<Vec<(Sender<Event>, Arc<Line>)>>,
    count: AtomicUsize,
}

impl Events {
    pub(crate) fn subscribe(&self) -> Subscription {
        let (sender, receiver) = bounded(CAPACITY);
        let line = Arc::new(Line::default());
        let mut lines = self.lines.lock();
        lines.push((sender, line.clone()));
        self.count.store(lines.len(), Ordering::Release);
        Subscription { receiver, line }
    }

    /// Whether anybody may be listening: most stores need not make events at all.
    pub(crate) fn has_subscribers(&self) -> bool {
        self.count.load(Ordering::Acquire) > 0
    }

    pub(crate) fn send(&self, event: &Event) {
        let mut lines = self.lines.lock();
        lines.retain(|(_, line)| line.gone.load(Ordering::Acquire) == 0);
        for (sender, line) in lines.iter() {
            if sender.try_send(event.clone()).is_err() {
                line.missed.fetch_add(1, Ordering::Relaxed);
            }
        }
        self.count.store(lines.len(), Ordering::Release);
    }

    /// Ends all subscriptions.
    pub(crate) fn close(&self) {
        self.lines.lock().clear();
        self.count.store(0, Ordering::Release);
    }
}
