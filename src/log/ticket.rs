//! What a writer holds of its commit while that is on its way to the disk.

use std::sync::{Arc, OnceLock};

use crate::error::Error;
use crate::log::Lsn;
use crate::primitives::atomic::{AtomicU8, Ordering};

/// How far a commit has come. Written by the leader, under the queue lock.
#[derive(Debug)]
pub(crate) struct Ticket {
    /// The last frame of the commit.
    pub(crate) lsn: Lsn,
    stage: AtomicU8,
    /// What there was not enough of, if it was aborted.
    lack: OnceLock<Arc<Error>>,
}

/// The stages of a commit, in order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub(crate) enum Stage {
    Queued = 0,
    /// Handed to the operating system.
    Written = 1,
    /// On stable storage and published.
    Durable = 2,
    /// Not written for lack of space or of descriptors; nothing of it remains.
    Aborted = 3,
}

impl Ticket {
    /// Of a commit that was just put into the queue.
    pub(crate) fn queued(lsn: Lsn) -> Self {
        Self {
            lsn,
            stage: AtomicU8::new(Stage::Queued as u8),
            lack: OnceLock::new(),
        }
    }

    pub(crate) fn advance(&self, stage: Stage) {
        self.stage.store(stage as u8, Ordering::Release);
    }

    pub(crate) fn abort(&self, lack: Arc<Error>) {
        self.lack.get_or_init(|| lack);
        self.advance(Stage::Aborted);
    }

    /// Why it was aborted, if it was.
    pub(crate) fn lack(&self) -> Option<Error> {
        let lack = self.is_aborted().then(|| self.lack.get())?;
        lack.and_then(|lack| lack.as_lack())
    }

    pub(crate) fn reached(&self, stage: Stage) -> bool {
        self.stage.load(Ordering::Acquire) >= stage as u8
    }

    pub(crate) fn is_published(&self) -> bool {
        self.stage.load(Ordering::Acquire) == Stage::Durable as u8
    }

    pub(crate) fn is_aborted(&self) -> bool {
        self.stage.load(Ordering::Acquire) == Stage::Aborted as u8
    }
}
