//! One file of the log: a header, then frames back to back.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::defects::{Defect, Defects};
use crate::error::{Error, Result};
use crate::log::SegmentId;
use crate::log::format::{HeaderError, SEGMENT_HEADER_LEN, SegmentHeader};
use crate::log::spares::Spare;
use crate::storage::{OpenMode, Storage, StorageFile};

/// Space is reserved in steps of this size, so that most appends change no file metadata.
const ALLOCATION_STEP: u64 = 4 << 20;
/// The first reservation of a segment: small stores stay small.
const FIRST_ALLOCATION: u64 = 256 << 10;

/// An open segment. Readers share it; only the commit leader writes.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) header: SegmentHeader,
    pub(crate) path: PathBuf,
    pub(crate) file: Arc<dyn StorageFile>,
}

impl Segment {
    pub(crate) fn id(&self) -> SegmentId {
        self.header.id
    }

    /// Creates a segment that holds `content` after its header.
    ///
    /// The file appears under its name only when it is whole and on stable storage: a crash leaves
    /// a segment with an intact header, or none.
    pub(crate) fn create(
        storage: &dyn Storage,
        dir: &Path,
        header: SegmentHeader,
        content: &[&[u8]],
        reserve: u64,
        defects: Defects,
    ) -> Result<Self> {
        let path = header.id.path(dir);
        let temporary = header.id.temporary_path(dir);
        let fill = || -> std::io::Result<Arc<dyn StorageFile>> {
            let file = storage.open(&temporary, OpenMode::CreateNew)?;
            file.allocate(reserve.max(FIRST_ALLOCATION))?;
            let encoded = header.encode();
            let mut bytes = vec![encoded.as_slice()];
            bytes.extend_from_slice(content);
            file.write_all_at(&bytes, 0)?;
            file.sync_data()?;
            Ok(file)
        };
        let file = match fill() {
            Ok(file) => file,
            Err(error) => {
                // What is left of it is removed now, or as a stray file at the next open.
                let _ = storage.remove(&temporary);
                return Err(Error::io("create", &path, error));
            }
        };
        Self::name(storage, dir, header, file, defects)
    }

    /// Makes a segment of a file that is in no use any more. What stands behind its header is told
    /// from frames of the segment by the nonce.
    pub(crate) fn reuse(
        storage: &dyn Storage,
        dir: &Path,
        header: SegmentHeader,
        spare: &Spare,
        defects: Defects,
    ) -> Result<Self> {
        let path = header.id.path(dir);
        let temporary = header.id.temporary_path(dir);
        let file = spare.file();
        // Order: the name that it had must be gone for good before the file says something else.
        let prepare = || -> std::io::Result<()> {
            storage.rename(&spare.path, &temporary)?;
            storage.sync_dir(dir)?;
            file.write_all_at(&[&header.encode()], 0)?;
            file.sync_data()
        };
        prepare().map_err(|error| Error::io("create", &path, error))?;
        Self::name(storage, dir, header, file, defects)
    }

    /// Gives a file that is whole and on stable storage its name.
    fn name(
        storage: &dyn Storage,
        dir: &Path,
        header: SegmentHeader,
        file: Arc<dyn StorageFile>,
        defects: Defects,
    ) -> Result<Self> {
        let path = header.id.path(dir);
        // From here on the segment may exist, so even a full disk is a failure that poisons.
        let failed = |op, path: &Path, source| Error::Io {
            op,
            path: path.to_owned(),
            source,
        };
        storage
            .rename(&header.id.temporary_path(dir), &path)
            .map_err(|error| failed("create", &path, error))?;
        if !defects.has(Defect::ForgetSegmentName) {
            storage
                .sync_dir(dir)
                .map_err(|error| failed("sync directory", dir, error))?;
        }
        Ok(Self { header, path, file })
    }

    /// Opens an existing segment and checks that it says what its name says.
    pub(crate) fn open(storage: &dyn Storage, dir: &Path, id: SegmentId) -> Result<Self> {
        let path = id.path(dir);
        let file = storage
            .open(&path, OpenMode::Existing)
            .map_err(|error| Error::io("open", &path, error))?;
        let mut bytes = [0; SEGMENT_HEADER_LEN];
        match file.read_exact_at(&mut bytes, 0) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                return Err(Error::corrupt(
                    &path,
                    0,
                    "the segment ends within its header",
                ));
            }
            Err(error) => return Err(Error::io("read", &path, error)),
        }
        let header = SegmentHeader::decode(&bytes).map_err(|error| match error {
            HeaderError::Damaged => Error::corrupt(&path, 0, "segment header"),
            HeaderError::UnknownVersion(found) => Error::UnknownFormat {
                path: path.clone(),
                found,
                supported: crate::log::format::FORMAT_VERSION,
            },
        })?;
        if header.id != id {
            return Err(Error::corrupt(
                &path,
                0,
                "the segment belongs under another name",
            ));
        }
        Ok(Self { header, path, file })
    }

    /// Makes sure that bytes up to `end` have space on the disk.
    pub(crate) fn reserve(&self, allocated: &mut u64, end: u64) -> Result<()> {
        if end <= *allocated {
            return Ok(());
        }
        let generous = end.next_multiple_of(ALLOCATION_STEP);
        match self.file.allocate(generous) {
            Ok(()) => *allocated = generous,
            Err(_) => {
                self.file
                    .allocate(end)
                    .map_err(|error| Error::io("extend", &self.path, error))?;
                *allocated = end;
            }
        }
        Ok(())
    }

    /// Reads exactly `buf.len()` bytes at `offset`.
    pub(crate) fn read(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.file.read_exact_at(buf, offset).map_err(|error| {
            if error.kind() == std::io::ErrorKind::UnexpectedEof {
                Error::corrupt(&self.path, offset, "the segment is shorter than its frames")
            } else {
                Error::io("read", &self.path, error)
            }
        })
    }

    pub(crate) fn len(&self) -> Result<u64> {
        self.file
            .len()
            .map_err(|error| Error::io("measure", &self.path, error))
    }

    pub(crate) fn sync(&self) -> Result<()> {
        self.file
            .sync_data()
            .map_err(|error| Error::io("sync", &self.path, error))
    }
}
