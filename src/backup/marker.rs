//! The file `BACKUP`: says that a directory is a backup, of what, and whether it is whole.
//!
//! It is there, and says no, before anything else of the backup is, and says yes when everything is
//! on stable storage. Opening the directory as a store turns it into one, and removes the file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::branch::Branch;
use crate::checksum::checksum;
use crate::codec::{Decoder, Encoder};
use crate::error::{Error, Result};
use crate::storage::{OpenMode, Storage};

pub(crate) const NAME: &str = "BACKUP";
const TEMPORARY: &str = "BACKUP.tmp";
const MAGIC: [u8; 8] = *b"HWBACKUP";
/// The version this build writes, and the newest one it reads.
const VERSION: u32 = 1;

/// See the module.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Marker {
    pub(crate) whole: bool,
    pub(crate) store: [u8; 16],
    /// The branch of the store's history that the files are from.
    pub(crate) branch: Branch,
    /// The files of the backup by their paths in it.
    pub(crate) files: BTreeMap<String, File>,
}

/// A file of a backup.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct File {
    pub(crate) len: u64,
    /// Whether it never changes any more, so that a later backup has the same.
    pub(crate) is_final: bool,
}

impl Marker {
    fn encode(&self) -> Vec<u8> {
        let encoder = Encoder::default()
            .array(&MAGIC)
            .u32(VERSION)
            .u8(u8::from(self.whole))
            .array(&self.store)
            .bytes(&self.branch.encode())
            .u32(self.files.len() as u32);
        let files = self.files.iter();
        let encoder = files.fold(encoder, |to, (name, file)| {
            to.bytes(name.as_bytes())
                .u64(file.len)
                .u8(u8::from(file.is_final))
        });
        let mut bytes = encoder.finish();
        let sum = checksum(0, &[&bytes]);
        bytes.extend_from_slice(&sum.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (body, sum) = bytes.split_last_chunk::<4>()?;
        if u32::from_le_bytes(*sum) != checksum(0, &[body]) {
            return None;
        }
        let mut fields = Decoder::new(body);
        let head = (fields.array::<8>()?, fields.u32()?);
        let mut marker = Self {
            whole: fields.u8()? != 0,
            store: fields.array()?,
            branch: Branch::decode(fields.bytes()?)?,
            files: BTreeMap::new(),
        };
        for _ in 0..fields.u32()? {
            let name = fields.string()?;
            let file = File {
                len: fields.u64()?,
                is_final: fields.u8()? != 0,
            };
            marker.files.insert(name, file);
        }
        (head == (MAGIC, VERSION) && fields.is_empty()).then_some(marker)
    }

    /// Reads the marker in a directory; `None` when there is none.
    ///
    /// # Errors
    /// [`Error::UnknownFormat`] when a newer version wrote it; [`Error::Corrupt`].
    pub(crate) fn read(storage: &dyn Storage, dir: &Path) -> Result<Option<Self>> {
        let path = dir.join(NAME);
        let failed = |op| {
            let path = &path;
            move |error| Error::io(op, path, error)
        };
        let file = match storage.open(&path, OpenMode::Existing) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed("open")(error)),
        };
        let len = file.len().map_err(failed("measure"))?;
        let mut bytes = vec![0; len as usize];
        file.read_exact_at(&mut bytes, 0).map_err(failed("read"))?;
        let mut head = Decoder::new(&bytes);
        if head.array() == Some(MAGIC)
            && let Some(found) = head.u32().filter(|found| *found != VERSION)
        {
            return Err(Error::UnknownFormat {
                path,
                found,
                supported: VERSION,
            });
        }
        let damaged = || Error::corrupt(&path, 0, "backup marker");
        Self::decode(&bytes).ok_or_else(damaged).map(Some)
    }

    /// Puts the marker into a directory, in the place of an older one, on stable storage.
    pub(crate) fn write(&self, storage: &dyn Storage, dir: &Path) -> Result<()> {
        let (path, temporary) = (dir.join(NAME), dir.join(TEMPORARY));
        let fill = || -> std::io::Result<()> {
            remove_if_there(storage, &temporary)?;
            let file = storage.open(&temporary, OpenMode::CreateNew)?;
            file.write_all_at(&[&self.encode()], 0)?;
            file.sync_data()?;
            storage.rename(&temporary, &path)?;
            storage.sync_dir(dir)
        };
        fill().map_err(|error| Error::io("write", &path, error))
    }

    /// Removes the marker: what is in the directory is a store like any other.
    pub(crate) fn remove(storage: &dyn Storage, dir: &Path) -> Result<()> {
        let path = dir.join(NAME);
        let remove = || {
            remove_if_there(storage, &path)?;
            storage.sync_dir(dir)
        };
        remove().map_err(|error| Error::io("remove", &path, error))
    }

    /// Checks that the backup in `dir` is whole, and still has its files.
    ///
    /// # Errors
    /// [`Error::Unfinished`]; [`Error::Corrupt`].
    pub(crate) fn check(&self, storage: &dyn Storage, dir: &Path) -> Result<()> {
        if !self.whole {
            return Err(Error::Unfinished {
                path: dir.to_owned(),
            });
        }
        self.check_files(storage, dir)
    }

    /// Checks that the files of the backup in `dir` are there, and as long as they should be.
    pub(crate) fn check_files(&self, storage: &dyn Storage, dir: &Path) -> Result<()> {
        for (name, file) in &self.files {
            let path = path_in(dir, name);
            let found = storage.open(&path, OpenMode::Existing);
            let found = match found {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    return Err(Error::corrupt(&path, 0, "a file of the backup is missing"));
                }
                found => found.map_err(|error| Error::io("open", &path, error))?,
            };
            let len = found.len();
            let len = len.map_err(|error| Error::io("measure", &path, error))?;
            if len < file.len {
                let what = "a file of the backup is shorter than it was";
                return Err(Error::corrupt(&path, len, what));
            }
        }
        Ok(())
    }
}

/// The path of a file of a backup.
pub(crate) fn path_in(dir: &Path, name: &str) -> PathBuf {
    name.split('/')
        .fold(dir.to_owned(), |path, part| path.join(part))
}

pub(crate) fn remove_if_there(storage: &dyn Storage, path: &Path) -> std::io::Result<()> {
    match storage.remove(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markers_round_trip_and_nothing_else_is_one() {
        let file = |len, is_final| File { len, is_final };
        let marker = Marker {
            whole: true,
            store: [1; 16],
            branch: Branch {
                generation: 257,
                id: [2; 8],
            },
            files: BTreeMap::from([
                ("catalog.redb".to_owned(), file(3, false)),
                ("log/0000000001.seg".to_owned(), file(4, true)),
            ]),
        };
        let bytes = marker.encode();
        assert_eq!(Marker::decode(&bytes).as_ref(), Some(&marker));
        for len in 0..bytes.len() {
            assert_eq!(Marker::decode(&bytes[..len]), None);
        }
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert_eq!(Marker::decode(&damaged), None);
        }
    }
}
