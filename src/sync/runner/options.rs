//! How a runner is made.

use std::fmt;
use std::sync::Arc;

#[cfg(feature = "webhook")]
use crate::sync::HttpClient;
#[cfg(feature = "webhook")]
use crate::sync::Webhook;
use crate::sync::context::{LogLine, LogSink, no_log};

/// Options of a [`Runner`](super::Runner).
#[derive(Clone)]
#[must_use = "options do nothing until a runner is made with them"]
pub struct RunnerOptions {
    pub(super) workers: usize,
    pub(super) log: LogSink,
    #[cfg(feature = "webhook")]
    pub(super) webhooks: Vec<Webhook>,
    #[cfg(feature = "webhook")]
    pub(super) client: Option<Arc<dyn HttpClient>>,
}

impl fmt::Debug for RunnerOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunnerOptions")
            .field("workers", &self.workers)
            .finish_non_exhaustive()
    }
}

impl Default for RunnerOptions {
    fn default() -> Self {
        Self {
            workers: 4,
            log: no_log(),
            #[cfg(feature = "webhook")]
            webhooks: Vec::new(),
            #[cfg(feature = "webhook")]
            client: None,
        }
    }
}

impl RunnerOptions {
    /// Four workers, and a log that nobody reads.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many syncs run at the same time at most, each in a thread of its own. With 0, nothing
    /// runs by itself: see [`Runner::run_due`](super::Runner::run_due).
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = workers;
        self
    }

    /// Where log lines go. It is called by the threads that sync, so it should not take long.
    pub fn log(mut self, sink: impl Fn(&LogLine<'_>) + Send + Sync + 'static) -> Self {
        self.log = Arc::new(sink);
        self
    }

    /// Has the report of every run posted by `client`; may be called for several webhooks, and the
    /// last client is used for all of them. It should not retry on its own account.
    ///
    /// Reports wait in the store, also across restarts, until they are delivered or given up. The
    /// URL names the webhook: what waits for one that is not set any more is dropped.
    #[cfg(feature = "webhook")]
    pub fn webhook(mut self, webhook: Webhook, client: Arc<dyn HttpClient>) -> Self {
        self.webhooks.push(webhook);
        self.client = Some(client);
        self
    }
}
