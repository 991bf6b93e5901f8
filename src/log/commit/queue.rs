//! Commits that wait for their turn, and who has it.

use std::sync::Arc;
use std::time::Duration;

use super::Log;
use crate::error::{Error, Result};
use crate::log::Lsn;
use crate::log::frame::Frame;
use crate::log::ticket::Ticket;
use crate::primitives::{Instant, MutexGuard, yield_now};
use crate::publish::Publication;

/// One atomic commit on its way to the disk.
pub(super) struct Commit {
    pub(super) ticket: Arc<Ticket>,
    pub(super) frames: Vec<Frame>,
    pub(super) publication: Publication,
}

pub(super) struct Queue {
    pub(super) next_lsn: Lsn,
    pub(super) waiting: Vec<Commit>,
    /// How many commits took part in the last group, or came while it was on its way.
    pub(super) busy: usize,
    pub(super) leading: bool,
    /// Whether somebody syncs what was written, without being in a writer's way.
    pub(super) syncing: bool,
    /// Set once: no write is accepted any more.
    pub(super) failure: Option<Arc<Error>>,
    pub(super) closed: bool,
}

/// So long a leader gives others the chance to join its group, and so often in a row in vain. A look
/// costs little while cores are free; where they are not, it may cost a slice of somebody's time.
const PATIENCE: Duration = Duration::from_micros(200);
const CHANCES_IN_VAIN: usize = 12;

impl Queue {
    /// Lets writers who were in the last group come back and join this one. They were woken together
    /// with the leader; without this every other group would have one commit.
    pub(super) fn gather(queue: &mut MutexGuard<'_, Self>) {
        let (begun, mut in_vain) = (Instant::now(), 0);
        while queue.waiting.len() < queue.busy && in_vain < CHANCES_IN_VAIN {
            let before = queue.waiting.len();
            MutexGuard::unlocked(queue, yield_now);
            in_vain = match queue.waiting.len() > before {
                true => 0,
                false => in_vain + 1,
            };
            if begun.elapsed() > PATIENCE {
                return;
            }
        }
    }

    /// Enqueues a frame that changes nothing for readers.
    pub(super) fn push_unobserved(&mut self, mut frame: Frame) -> Arc<Ticket> {
        let lsn = self.next_lsn;
        self.next_lsn = lsn.next();
        frame.header.lsn = lsn;
        let ticket = Arc::new(Ticket::queued(lsn));
        let publication = Publication {
            lsn,
            ..Publication::default()
        };
        self.waiting.push(Commit {
            ticket: ticket.clone(),
            frames: vec![frame],
            publication,
        });
        ticket
    }

    pub(super) fn stop_leading(&mut self) {
        self.leading = false;
    }

    pub(super) fn stop_syncing(&mut self) {
        self.syncing = false;
    }

    pub(super) fn check_healthy(&self) -> Result<()> {
        match &self.failure {
            Some(cause) => Err(Error::Poisoned {
                cause: cause.clone(),
            }),
            None => Ok(()),
        }
    }

    pub(super) fn check_open(&self) -> Result<()> {
        self.check_healthy()?;
        if self.closed {
            Err(Error::Closed)
        } else {
            Ok(())
        }
    }
}

impl Log {
    /// Works at the files as the only one who does. Should a panic cut that short, it is not known what
    /// is on the disk, so the log is poisoned, and nobody waits for the turn to end.
    pub(super) fn in_turn<T>(&self, stop: fn(&mut Queue), work: impl FnOnce() -> T) -> T {
        let turn = Turn { log: self, stop };
        let done = work();
        std::mem::forget(turn);
        done
    }

    pub(super) fn step_down(&self, queue: &mut Queue, led: Result<(), Error>) {
        queue.leading = false;
        self.note(queue, led);
    }

    /// Takes note of how a write or a sync ended, and has everybody look again.
    pub(super) fn note(&self, queue: &mut Queue, ended: Result<(), Error>) {
        if let Err(cause) = ended {
            queue.failure.get_or_insert(Arc::new(cause));
        }
        self.turn.notify_all();
    }
}

/// What is to be done should somebody's turn at the files not end as it should.
struct Turn<'a> {
    log: &'a Log,
    stop: fn(&mut Queue),
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut queue = self.log.queue.lock();
        (self.stop)(&mut queue);
        let cut_short = std::io::Error::other("a panic cut it short");
        let failure = Error::failure("write", &self.log.dir, cut_short);
        self.log.note(&mut queue, Err(failure));
    }
}
