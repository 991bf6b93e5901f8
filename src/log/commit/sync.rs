//! Syncing what was written, and publishing it after that.

use std::sync::Arc;

use super::queue::Queue;
use super::{Log, Tail};
use crate::defects::Defect;
use crate::error::{Error, Result};
use crate::log::Lsn;
use crate::log::segment::Segment;
use crate::log::ticket::Stage;
use crate::log::unsynced::Left;
use crate::primitives::atomic::Ordering;

impl Log {
    /// Syncs and publishes everything that was acknowledged before the call. Writers in relaxed
    /// durability go on meanwhile.
    pub(crate) fn flush(&self) -> Result<()> {
        let target = self.written.load(Ordering::Acquire);
        let mut queue = self.queue.lock();
        while self.durable.load(Ordering::Acquire) < target {
            queue.check_healthy()?;
            if queue.syncing {
                self.turn.wait(&mut queue);
                continue;
            }
            queue.syncing = true;
            drop(queue);
            let synced = self.in_turn(Queue::stop_syncing, || self.sync_behind());
            queue = self.queue.lock();
            queue.syncing = false;
            self.note(&mut queue, synced);
        }
        Ok(())
    }

    /// Syncs what is written by now, and publishes that much. The tail is free while it syncs.
    fn sync_behind(&self) -> Result<()> {
        let (left, segment, offset, through) = {
            let tail = self.tail.lock();
            let Some(newest) = tail.unsynced.newest() else {
                return Ok(());
            };
            (tail.left.clone(), tail.segment.clone(), tail.offset, newest)
        };
        self.sync_files(&left, &segment)?;
        let mut tail = self.tail.lock();
        tail.left.settle(&left);
        if Arc::ptr_eq(&tail.segment, &segment) {
            tail.synced = tail.synced.max(offset);
        }
        let through = match self.defects.has(Defect::PublishPastSync) {
            true => tail.unsynced.newest().unwrap_or(through),
            false => through,
        };
        self.publish_through(&mut tail, through);
        Ok(())
    }

    /// Syncs the open segment and what else there is. What comes later in the log may get to the disk
    /// first: no frame vouches for another before that is synced.
    fn sync_files(&self, left: &Left, open: &Segment) -> Result<()> {
        if !self.defects.has(Defect::LeaveSegmentUnsynced) {
            left.segments.iter().try_for_each(|it| self.sync(it))?;
        }
        if left.named.is_some() {
            self.sync_one(|| self.site().sync_names())?;
        }
        self.sync(open)
    }

    /// Syncs a file of the log.
    fn sync(&self, segment: &Segment) -> Result<()> {
        self.syncs.fetch_add(1, Ordering::Relaxed);
        match self.defects.has(Defect::AcknowledgeBeforeSync) {
            true => Ok(()),
            false => self.sync_one(|| segment.sync()),
        }
    }

    /// One sync at a time, and none after one that failed: a later one might succeed although what the
    /// first was for is lost.
    fn sync_one(&self, sync: impl FnOnce() -> Result<()>) -> Result<()> {
        let mut failed = self.sync_failed.lock();
        if *failed {
            return Err(Error::Io {
                op: "sync",
                path: self.dir.clone(),
                source: std::io::Error::other("an earlier sync failed"),
            });
        }
        let synced = sync();
        if self.defects.has(Defect::IgnoreFailedSync) {
            return Ok(());
        }
        *failed = synced.is_err();
        synced
    }

    /// The heart of the visibility rule: first the sync, then the readers.
    pub(super) fn sync_and_publish(&self, tail: &mut Tail) -> Result<()> {
        self.sync_files(&tail.left, &tail.segment)?;
        tail.left = Left::default();
        tail.synced = tail.offset;
        if let Some(newest) = tail.unsynced.newest() {
            self.publish_through(tail, newest);
        }
        Ok(())
    }

    fn publish_through(&self, tail: &mut Tail, through: Lsn) {
        tail.synced_once = true;
        while let Some(commit) = tail.unsynced.pop(through, self.defects) {
            commit.publication.publish();
            self.durable
                .fetch_max(commit.ticket.lsn.0, Ordering::AcqRel);
            commit.ticket.advance(Stage::Durable);
            commit.publication.let_go();
        }
    }
}
