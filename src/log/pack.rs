//! The file that compaction writes: a segment outside of the chain of the log, which appears under
//! its name only when it is whole and on stable storage.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::defects::{Defect, Defects};
use crate::error::{Error, Result};
use crate::log::commit::{Log, segment_nonce};
use crate::log::format::{SEGMENT_HEADER_LEN, SegmentHeader};
use crate::log::frame::Frame;
use crate::log::segment::Segment;
use crate::log::{Lsn, SegmentId};
use crate::publish::Place;
use crate::storage::{OpenMode, Storage, StorageFile};

/// So much is written before it is synced: writers of the log, who sync too, need not wait for
/// more of it.
const SYNC_STEP: u64 = 1 << 20;
/// After each such step a pack that is written at a pace waits for as long as that took, so that
/// it has half of the disk at most; but no longer than this.
const PAUSE_MAX: Duration = Duration::from_millis(50);

/// A pack under construction; dropping it leaves nothing behind.
pub(crate) struct PackWriter<'a> {
    storage: &'a dyn Storage,
    dir: &'a Path,
    header: SegmentHeader,
    temporary: PathBuf,
    file: Arc<dyn StorageFile>,
    offset: u64,
    synced: u64,
    chain: u32,
    /// When the step that is being written began, if it is written at a pace.
    pace: Option<Instant>,
    finished: bool,
    defects: Defects,
}

impl<'a> PackWriter<'a> {
    /// Begins a pack whose newest record has the LSN `newest`.
    pub(crate) fn create(log: &'a Log, id: SegmentId, newest: Lsn) -> Result<Self> {
        let (storage, dir, identity) = (log.storage(), log.dir(), log.identity());
        let header = SegmentHeader {
            identity: *identity,
            id,
            nonce: segment_nonce(identity, id),
            first_lsn: newest,
            generation: 0,
            chain: 0,
        };
        let temporary = id.temporary_path(dir);
        let failed = |error| Error::io("create", &temporary, error);
        let file = storage
            .open(&temporary, OpenMode::CreateNew)
            .map_err(failed)?;
        let pack = Self {
            storage,
            dir,
            header,
            temporary: temporary.clone(),
            file,
            offset: SEGMENT_HEADER_LEN as u64,
            synced: 0,
            chain: 0,
            pace: None,
            finished: false,
            defects: log.defects,
        };
        pack.write(&[&pack.header.encode()], 0)?;
        Ok(pack)
    }

    /// Whether to leave writers of the log the better part of the disk.
    pub(crate) fn set_pace(&mut self, pace: bool) {
        self.pace = pace.then(Instant::now);
    }

    fn write(&self, bytes: &[&[u8]], offset: u64) -> Result<()> {
        let failed = |error| Error::io("write", &self.temporary, error);
        self.file.write_all_at(bytes, offset).map_err(failed)
    }

    fn sync(&mut self) -> Result<()> {
        let failed = |error| Error::io("sync", &self.temporary, error);
        self.file.sync_data().map_err(failed)?;
        self.synced = self.offset;
        Ok(())
    }

    /// Appends a sealed frame.
    pub(crate) fn append(&mut self, frame: &Frame) -> Result<Place> {
        let mut header = frame.header.clone();
        (header.nonce, header.chain) = (self.header.nonce, self.chain);
        let encoded = header.encode(self.offset);
        let [entries, ids, bodies] = frame.bytes();
        self.write(&[&encoded, entries, ids, bodies], self.offset)?;
        let place = Place {
            segment: self.header.id,
            offset: self.offset,
        };
        self.offset += header.frame_len();
        self.chain = encoded
            .last_chunk()
            .map_or(0, |sum| u32::from_le_bytes(*sum));
        if self.offset - self.synced >= SYNC_STEP {
            self.sync()?;
            if let Some(began) = self.pace {
                std::thread::sleep(began.elapsed().min(PAUSE_MAX));
                self.pace = Some(Instant::now());
            }
        }
        Ok(place)
    }

    /// Gives the pack its name. It is on stable storage then.
    pub(crate) fn finish(mut self) -> Result<Segment> {
        self.sync()?;
        let path = self.header.id.path(self.dir);
        self.storage
            .rename(&self.temporary, &path)
            .map_err(|error| Error::io("create", &path, error))?;
        self.finished = true;
        if !self.defects.has(Defect::ForgetPackName) {
            self.storage
                .sync_dir(self.dir)
                .map_err(|error| Error::io("sync directory", self.dir, error))?;
        }
        Ok(Segment {
            header: self.header,
            path,
            file: self.file.clone(),
        })
    }
}

impl Drop for PackWriter<'_> {
    fn drop(&mut self) {
        if !self.finished {
            // If that fails, the next open removes it.
            let _ = self.storage.remove(&self.temporary);
        }
    }
}
