//! One file of the log: a header, then frames back to back.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::defects::{Defect, Defects};
use crate::encryption::{Cipher, Keyring, Sealed};
use crate::error::{Error, Result};
use crate::log::SegmentId;
use crate::log::format::{HeaderError, SEGMENT_HEADER_LEN, SegmentHeader};
use crate::log::spares::Spare;
use crate::storage::{OpenMode, Storage, StorageFile, copy};

/// Space is reserved in steps of this size, so that most appends change no file metadata.
const ALLOCATION_STEP: u64 = 4 << 20;
/// The first reservation of a segment: small stores stay small.
const FIRST_ALLOCATION: u64 = 256 << 10;

/// Where files of the log are made, and under what.
#[derive(Clone, Copy)]
pub(crate) struct Site<'a> {
    pub(crate) storage: &'a dyn Storage,
    pub(crate) dir: &'a Path,
    pub(crate) cipher: &'a Cipher,
    pub(crate) defects: Defects,
}

impl<'a> Site<'a> {
    pub(crate) fn new(
        storage: &'a dyn Storage,
        dir: &'a Path,
        cipher: &'a Cipher,
        defects: Defects,
    ) -> Self {
        Self {
            storage,
            dir,
            cipher,
            defects,
        }
    }

    /// Makes the names that files have been given durable.
    ///
    /// # Errors
    /// One that poisons: it is not known which names there are.
    pub(crate) fn sync_names(&self) -> Result<()> {
        if self.defects.has(Defect::ForgetSegmentName) {
            return Ok(());
        }
        let synced = self.storage.sync_dir(self.dir);
        synced.map_err(|error| Error::failure("sync directory", self.dir, error))
    }
}

/// An open segment. Readers share it; only the commit leader writes.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) header: SegmentHeader,
    pub(crate) cipher: Cipher,
    /// Where it is, or will be as soon as it has its name.
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
    /// a segment with an intact header, or none. The name is durable after [`Site::sync_names`].
    pub(crate) fn create(
        site: &Site<'_>,
        header: SegmentHeader,
        content: &[&[u8]],
        reserve: u64,
    ) -> Result<Self> {
        let (storage, dir, cipher) = (site.storage, site.dir, site.cipher);
        let path = header.id.path(dir);
        let temporary = header.id.temporary_path(dir);
        let fill = || -> std::io::Result<Arc<dyn StorageFile>> {
            let file = storage.open(&temporary, OpenMode::CreateNew)?;
            file.allocate(reserve.max(FIRST_ALLOCATION))?;
            let encoded = header.encode(cipher);
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
        Self::whole(site, header, file)
    }

    /// Begins a segment that frames are appended to, in a file that is in no use any more if there is
    /// one. What stands behind the header there is told from frames of the segment by the nonce.
    ///
    /// Nothing is on stable storage yet. Until [`Segment::name`] the file has a name by which an open
    /// takes it for a segment only if its header is intact, so that nobody has to wait for a sync here.
    pub(crate) fn begin(
        site: &Site<'_>,
        header: SegmentHeader,
        spare: Option<&Spare>,
        reserve: u64,
    ) -> Result<Self> {
        let (storage, dir, cipher) = (site.storage, site.dir, site.cipher);
        let (path, unnamed) = (header.id.path(dir), header.id.unnamed_path(dir));
        let begin = || -> std::io::Result<Arc<dyn StorageFile>> {
            let file = match spare {
                // The name that it had as a segment is gone for good; see `Spares::keep`.
                Some(spare) => {
                    storage.rename(&spare.path, &unnamed)?;
                    spare.file()
                }
                None => {
                    let file = storage.open(&unnamed, OpenMode::CreateNew)?;
                    file.allocate(reserve.max(FIRST_ALLOCATION))?;
                    file
                }
            };
            file.write_all_at(&[&header.encode(cipher)], 0)?;
            Ok(file)
        };
        match begin() {
            Ok(file) => Ok(Self {
                header,
                cipher: cipher.clone(),
                path,
                file,
            }),
            Err(error) => {
                // Under whichever name it is.
                let _ = storage.remove(&unnamed);
                if let Some(spare) = spare {
                    let _ = storage.remove(&spare.path);
                }
                Err(Error::io("create", &path, error))
            }
        }
    }

    /// Gives a segment that was begun, and is on stable storage, its name. The name is durable after
    /// [`Site::sync_names`].
    ///
    /// # Errors
    /// One that poisons: it is not known which name the file has.
    pub(crate) fn name(&self, site: &Site<'_>) -> Result<()> {
        let renamed = site
            .storage
            .rename(&self.id().unnamed_path(site.dir), &self.path);
        renamed.map_err(|error| Error::failure("create", &self.path, error))
    }

    /// Gives a file that is whole and on stable storage its name.
    fn whole(site: &Site<'_>, header: SegmentHeader, file: Arc<dyn StorageFile>) -> Result<Self> {
        let (storage, dir) = (site.storage, site.dir);
        let path = header.id.path(dir);
        // From here on the segment may exist, so even a full disk is a failure that poisons.
        storage
            .rename(&header.id.temporary_path(dir), &path)
            .map_err(|error| Error::failure("create", &path, error))?;
        Ok(Self {
            header,
            cipher: site.cipher.clone(),
            path,
            file,
        })
    }

    /// Opens an existing segment and checks that it says what its name says.
    ///
    /// # Errors
    /// [`Error::Corrupt`], [`Error::UnknownFormat`], or that it is not under one of the keys.
    pub(crate) fn open(
        storage: &dyn Storage,
        path: PathBuf,
        id: SegmentId,
        keyring: &Keyring,
    ) -> Result<Self> {
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
        let decoded = SegmentHeader::decode(&bytes, keyring).map_err(|error| match error {
            HeaderError::Damaged => Error::corrupt(&path, 0, "segment header"),
            HeaderError::UnknownVersion(found) => Error::UnknownFormat {
                path: path.clone(),
                found,
                supported: crate::log::format::FORMAT_VERSION,
            },
            HeaderError::NotEncrypted => Error::NotEncrypted { path: path.clone() },
            HeaderError::Sealed(sealed) => sealed_as(sealed, &path),
        });
        let (header, cipher) = decoded?;
        if header.id != id {
            return Err(Error::corrupt(
                &path,
                0,
                "the segment belongs under another name",
            ));
        }
        Ok(Self {
            header,
            cipher,
            path,
            file,
        })
    }

    /// Whether a segment that was opened had its name.
    pub(crate) fn has_name(&self, dir: &Path) -> bool {
        self.path == self.id().path(dir)
    }

    /// A segment that was opened without its name, under its name.
    pub(crate) fn renamed(&self, storage: &dyn Storage, dir: &Path) -> Result<Self> {
        let path = self.id().path(dir);
        storage
            .rename(&self.path, &path)
            .map_err(|error| Error::io("rename", &self.path, error))?;
        Ok(Self {
            header: self.header,
            cipher: self.cipher.clone(),
            path,
            file: self.file.clone(),
        })
    }

    /// The segment cut to `len` bytes, for good. A file that a backup has too is left to it, and a
    /// copy takes its place.
    pub(crate) fn cut(
        self: Arc<Self>,
        storage: &dyn Storage,
        dir: &Path,
        len: u64,
    ) -> Result<Arc<Self>> {
        let failed = |error| Error::io("cut", &self.path, error);
        if !self.file.is_linked().map_err(failed)? {
            self.file.set_len(len).map_err(failed)?;
            self.sync()?;
            return Ok(self);
        }
        let temporary = self.id().temporary_path(dir);
        copy(storage, self.file.as_ref(), len, &temporary).map_err(failed)?;
        let file = storage
            .open(&temporary, OpenMode::Existing)
            .map_err(failed)?;
        let site = Site::new(storage, dir, &self.cipher, Defects::default());
        let cut = Self::whole(&site, self.header, file)?;
        site.sync_names()?;
        Ok(Arc::new(cut))
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

/// The error for a header that does not open.
pub(crate) fn sealed_as(sealed: Sealed, path: &Path) -> Error {
    let path = path.to_owned();
    match sealed {
        Sealed::KeyRequired(key) => Error::KeyRequired { path, key },
        Sealed::WrongKey(key) => Error::WrongKey { path, key },
        Sealed::Damaged => Error::corrupt(&path, 0, "segment header"),
        Sealed::Unsupported => Error::MissingFeature {
            feature: "encryption",
            path,
        },
        Sealed::NoRandomness => Error::Io {
            op: "get random numbers for",
            path,
            source: std::io::ErrorKind::Other.into(),
        },
    }
}
