//! The file that compaction writes: a segment outside of the chain of the log, which appears under
//! its name only when it is whole and on stable storage.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::defects::Defect;
use crate::error::{Error, Result};
use crate::log::format::{Identity, SEGMENT_HEADER_LEN, SegmentHeader};
use crate::log::frame::Frame;
use crate::log::segment::{Segment, Site};
use crate::log::{Lsn, SegmentId};
use crate::publish::Place;
use crate::storage::{OpenMode, StorageFile};

/// So much is written before it is synced: writers of the log, who sync too, need not wait for
/// more of it.
const SYNC_STEP: u64 = 256 << 10;
/// After each such step a pack that is written at a pace waits for as long as that took, so that
/// it has half of the disk at most; but no longer than this.
const PAUSE_MAX: Duration = Duration::from_millis(50);

/// A pack under construction; dropping it leaves nothing behind.
pub(crate) struct PackWriter<'a> {
    site: Site<'a>,
    header: SegmentHeader,
    temporary: PathBuf,
    file: Arc<dyn StorageFile>,
    offset: u64,
    synced: u64,
    chain: u32,
    /// When the step that is being written began, if it is written at a pace.
    pace: Option<Instant>,
    finished: bool,
}

impl<'a> PackWriter<'a> {
    /// Begins a pack whose newest record has the LSN `newest`.
    pub(crate) fn create(
        site: Site<'a>,
        identity: &Identity,
        id: SegmentId,
        newest: Lsn,
    ) -> Result<Self> {
        let (storage, dir) = (site.storage, site.dir);
        let header = SegmentHeader::new(*identity, id, newest);
        let temporary = id.temporary_path(dir);
        let failed = |error| Error::io("create", &temporary, error);
        let file = storage
            .open(&temporary, OpenMode::CreateNew)
            .map_err(failed)?;
        let pack = Self {
            site,
            header,
            temporary: temporary.clone(),
            file,
            offset: SEGMENT_HEADER_LEN as u64,
            synced: 0,
            chain: 0,
            pace: None,
            finished: false,
        };
        pack.write(&pack.header.encode(site.cipher), 0)?;
        Ok(pack)
    }

    /// Whether to leave writers of the log the better part of the disk.
    pub(crate) fn set_pace(&mut self, pace: bool) {
        self.pace = pace.then(Instant::now);
    }

    fn write(&self, bytes: &[u8], offset: u64) -> Result<()> {
        let failed = |error| Error::io("write", &self.temporary, error);
        self.file.write_all_at(&[bytes], offset).map_err(failed)
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
        let head = frame.head(&header, self.offset, self.site.cipher);
        let place = Place {
            segment: self.header.id,
            offset: self.offset,
        };
        for part in frame.bytes(&head) {
            // A frame may be several steps long.
            for piece in part.chunks(SYNC_STEP as usize) {
                self.write(piece, self.offset)?;
                self.offset += piece.len() as u64;
                self.keep_step()?;
            }
        }
        self.chain = head.sum();
        Ok(place)
    }

    /// Syncs what was written when it is enough for that.
    fn keep_step(&mut self) -> Result<()> {
        if self.offset - self.synced < SYNC_STEP {
            return Ok(());
        }
        self.sync()?;
        if let Some(began) = self.pace {
            std::thread::sleep(began.elapsed().min(PAUSE_MAX));
            self.pace = Some(Instant::now());
        }
        Ok(())
    }

    /// Gives the pack its name. It is on stable storage then.
    pub(crate) fn finish(mut self) -> Result<Segment> {
        self.sync()?;
        let path = self.header.id.path(self.site.dir);
        self.site
            .storage
            .rename(&self.temporary, &path)
            .map_err(|error| Error::io("create", &path, error))?;
        self.finished = true;
        if !self.site.defects.has(Defect::ForgetPackName) {
            self.site
                .storage
                .sync_dir(self.site.dir)
                .map_err(|error| Error::io("sync directory", self.site.dir, error))?;
        }
        Ok(Segment {
            header: self.header,
            cipher: self.site.cipher.clone(),
            path,
            file: self.file.clone(),
        })
    }
}

impl Drop for PackWriter<'_> {
    fn drop(&mut self) {
        if !self.finished {
            // If that fails, the next open removes it.
            let _ = self.site.storage.remove(&self.temporary);
        }
    }
}
