//! Waiting for a change without holding a thread.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::cursor::Cursor;
use crate::error::Result;
use crate::feed::Feed;
use crate::feed::page::check_cursor;

/// A future that is ready when something newer than a cursor is visible; see [`Feed::changed`].
#[derive(Debug)]
#[must_use = "futures do nothing until they are polled"]
pub struct Changed {
    feed: Feed,
    after: Option<Cursor>,
}

impl Feed {
    /// Waits until something newer than `after` is visible (`None`: until anything is), on any
    /// runtime: the commit that shows it wakes the task. Dropping the future ends the wait.
    ///
    /// Resolves to an error for a cursor that is not of this feed, also when the feed is replaced
    /// meanwhile, and when the store is closed.
    pub fn changed(&self, after: Option<Cursor>) -> Changed {
        Changed {
            feed: self.clone(),
            after,
        }
    }
}

impl Future for Changed {
    type Output = Result<()>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        loop {
            let state = match self.feed.state() {
                Ok(state) => state,
                Err(error) => return Poll::Ready(Err(error)),
            };
            let position = match self
                .after
                .map(|cursor| check_cursor(&state, cursor))
                .transpose()
            {
                Ok(position) => position.unwrap_or(0),
                Err(error) => return Poll::Ready(Err(error)),
            };
            self.feed.engine.make_visible(&state);
            // Before looking: a change that comes between the two wakes the task.
            state.wake_at_change(context.waker());
            if state.is_past(position) {
                return Poll::Ready(Ok(()));
            }
            if let Err(error) = self.feed.engine.check_not_closed() {
                return Poll::Ready(Err(error));
            }
            if !state.is_superseded() {
                return Poll::Pending;
            }
            if let Err(error) = self.feed.slot.check_not_abandoned() {
                return Poll::Ready(Err(error));
            }
        }
    }
}
