//! Syncing what was written, and publishing it after that.

use std::sync::Arc;

use super::queue::Queue;
use super::{Log, Tail};
use crate::defects::Defect;
use crate::error::{Error, Result};
use crate::log::segment::Segment;
use crate::log::ticket::Stage;
use crate::log::unsynced::Left;
use crate::log::{LogPosition, Lsn, SegmentId};
use crate::primitives::MutexGuard;
use crate::primitives::atomic::Ordering;

/// After so many commits a writer who waits for the tail gets it.
const PUBLISHED_AT_ONCE: u32 = 8;

impl Log {
    /// Syncs and publishes everything that was acknowledged before the call. Writers in relaxed
    /// durability go on meanwhile.
    pub(crate) fn flush(&self) -> Result<()> {
        let target = self.written.load(Ordering::Acquire);
        let mut queue = self.queue.lock();
        while self.durable.load(Ordering::Acquire) < target {
            queue.check_healthy()?;
            queue = self.sync_in_turn(queue).0;
        }
        Ok(())
    }

    /// A position between two commits: everything at or before the returned LSN is durable and
    /// published. Writers in relaxed durability go on meanwhile.
    pub(crate) fn durable_position(&self) -> Result<LogPosition> {
        if self.defects.has(Defect::CatalogAheadOfLog) {
            return Ok(self.tail.lock().position(self.durable()));
        }
        let mut queue = self.queue.lock();
        loop {
            queue.check_healthy()?;
            let position;
            (queue, position) = self.sync_in_turn(queue);
            if let Some(position) = position {
                queue.check_healthy()?;
                return Ok(position);
            }
        }
    }

    /// Syncs and publishes what is written by now, or waits for somebody who syncs already. Returns
    /// where the log ended before, if it was this one's turn.
    fn sync_in_turn<'a>(
        &'a self,
        mut queue: MutexGuard<'a, Queue>,
    ) -> (MutexGuard<'a, Queue>, Option<LogPosition>) {
        if queue.syncing {
            self.turn.wait(&mut queue);
            return (queue, None);
        }
        queue.syncing = true;
        drop(queue);
        let synced = self.in_turn(Queue::stop_syncing, || self.sync_behind());
        let mut queue = self.queue.lock();
        queue.syncing = false;
        let position = synced.as_ref().ok().copied();
        self.note(&mut queue, synced.map(drop));
        (queue, position)
    }

    /// Syncs what is written by now, and publishes that much. The tail is free while it syncs. Returns
    /// where the log ended.
    fn sync_behind(&self) -> Result<LogPosition> {
        let (left, segment, position, newest) = {
            let tail = self.tail.lock();
            let position = tail.position(self.durable());
            let newest = tail.unsynced.newest();
            (tail.left.clone(), tail.segment.clone(), position, newest)
        };
        let Some(through) = newest else {
            return Ok(position);
        };
        self.sync_files(&left, &segment)?;
        let mut tail = self.tail.lock();
        tail.left.settle(&left);
        if Arc::ptr_eq(&tail.segment, &segment) {
            tail.synced = tail.synced.max(position.offset);
        }
        let through = match self.defects.has(Defect::PublishPastSync) {
            true => tail.unsynced.newest().unwrap_or(through),
            false => through,
        };
        let mut published = 0;
        while self.publish_next(&mut tail, through) {
            published += 1;
            if published % PUBLISHED_AT_ONCE == 0 {
                MutexGuard::bump(&mut tail);
            }
        }
        Ok(position)
    }

    /// Syncs the open segment and what else there is, and gives new segments their names after that.
    /// What comes later in the log may get to the disk first: no frame vouches for another before that
    /// is synced.
    fn sync_files(&self, left: &Left, open: &Segment) -> Result<()> {
        for it in left.iter() {
            // Gives back what was reserved; harmless if it does not happen.
            let _ = it.segment.file.set_len(it.end);
            if !it.is_synced && !self.defects.has(Defect::LeaveSegmentUnsynced) {
                self.sync(&it.segment)?;
            }
        }
        if self.defects.has(Defect::NameUnsynced) {
            self.name(left, open)?;
        }
        self.sync(open)?;
        self.name(left, open)
    }

    /// Gives new segments, which are synced, their names.
    fn name(&self, left: &Left, open: &Segment) -> Result<()> {
        if self.is_named(open.id()) {
            return Ok(());
        }
        self.sync_one(|named| {
            // Somebody else may have been here since the files were looked at.
            let before = *named;
            let files = left.iter().map(|it| it.segment.as_ref()).chain([open]);
            for segment in files.filter(|it| it.id() > before) {
                segment.name(&self.site())?;
                *named = segment.id();
            }
            self.site().sync_names()
        })
    }

    /// Syncs a file of the log.
    fn sync(&self, segment: &Segment) -> Result<()> {
        self.syncs.fetch_add(1, Ordering::Relaxed);
        match self.defects.has(Defect::AcknowledgeBeforeSync) {
            true => Ok(()),
            false => self.sync_one(|_| segment.sync()),
        }
    }

    /// One sync at a time, and none after one that failed: a later one might succeed although what the
    /// first was for is lost.
    fn sync_one(&self, sync: impl FnOnce(&mut SegmentId) -> Result<()>) -> Result<()> {
        let mut syncing = self.syncing.lock();
        if syncing.failed {
            return Err(Error::Io {
                op: "sync",
                path: self.dir.clone(),
                source: std::io::Error::other("an earlier sync failed"),
            });
        }
        let synced = sync(&mut syncing.named);
        if self.defects.has(Defect::IgnoreFailedSync) {
            return Ok(());
        }
        syncing.failed = synced.is_err();
        synced
    }

    /// The heart of the visibility rule: first the sync, then the readers.
    pub(super) fn sync_and_publish(&self, tail: &mut Tail) -> Result<()> {
        self.sync_files(&tail.left, &tail.segment)?;
        tail.left = Left::default();
        tail.synced = tail.offset;
        if let Some(newest) = tail.unsynced.newest() {
            while self.publish_next(tail, newest) {}
        }
        Ok(())
    }

    /// Publishes the oldest commit up to `through`; false when there is none.
    fn publish_next(&self, tail: &mut Tail, through: Lsn) -> bool {
        tail.synced_once = true;
        let Some(commit) = tail.unsynced.pop(through, self.defects) else {
            return false;
        };
        commit.publication.publish();
        self.durable
            .fetch_max(commit.ticket.lsn.0, Ordering::AcqRel);
        commit.ticket.advance(Stage::Durable);
        commit.publication.let_go();
        true
    }
}
