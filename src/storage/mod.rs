//! The seams to the outside world: files through [`Storage`], time through [`Clock`].
//!
//! Nothing else in the crate opens a file or asks for the time (`clippy.toml` bans it), so a test
//! that replaces these two traits controls everything the engine can observe, and a fault that can
//! be written down here can be injected everywhere.

mod clock;
mod copy;
#[cfg(feature = "simulate")]
mod memory;
mod os;

use std::fmt::Debug;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

#[cfg(feature = "simulate")]
pub use clock::ManualClock;
pub use clock::{Clock, SystemClock};
pub(crate) use copy::{copy, try_link};
#[cfg(feature = "simulate")]
pub use memory::{Counts, Fault, MemoryStorage, Survivors};
pub use os::OsStorage;
pub(crate) use os::is_out_of_descriptors;

/// How [`Storage::open`] treats a file that does or does not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// The file must exist.
    Existing,
    /// The file must not exist; it is created empty.
    CreateNew,
}

/// A place that holds files: the operating system's file system, or a simulated disk.
///
/// Durability is explicit. Bytes of a file are on stable storage only after
/// [`StorageFile::sync_data`]; a created, renamed or removed name only after
/// [`Storage::sync_dir`] of its directory.
pub trait Storage: Debug + Send + Sync + 'static {
    /// Opens or creates a file for reading and writing.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn StorageFile>>;

    /// Creates a directory and its missing parents, readable by the owner only.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;

    /// The names (not paths) of the files in a directory, in ascending order.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;

    /// Removes a file. A file that is still open stays readable through its handle.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Renames a file, replacing the target if it exists.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Gives a file a second name, so that it is one file under two names; the new name must not
    /// exist. Like a created name, it is durable after [`Storage::sync_dir`].
    ///
    /// # Errors
    /// [`io::ErrorKind::Unsupported`] or [`io::ErrorKind::CrossesDevices`] where that cannot be:
    /// then the file has to be copied.
    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let _ = (from, to);
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Makes every create, link, rename and remove in a directory durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// How many bytes can still be written below a directory; `None` where nobody can tell.
    ///
    /// # Errors
    /// Those of the system.
    fn free_space(&self, dir: &Path) -> io::Result<Option<u64>> {
        let _ = dir;
        Ok(None)
    }

    /// Takes the exclusive lock `path` stands for, creating the file if needed; the lock is held
    /// until the returned guard is dropped or the process ends.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] when somebody else holds it.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn StorageLock>>;
}

/// An exclusive lock on a store; dropping it releases the lock.
pub trait StorageLock: Debug + Send + Sync + 'static {}

/// A file opened through [`Storage::open`].
pub trait StorageFile: Debug + Send + Sync + 'static {
    /// Reads up to `buf.len()` bytes at `offset`; fewer only at the end of the file or when the
    /// system chose to, 0 only at or past the end.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes all of `bufs`, one after the other, starting at `offset`.
    ///
    /// On an error any part of them may have been written.
    fn write_all_at(&self, bufs: &[&[u8]], offset: u64) -> io::Result<()>;

    /// Puts every byte written so far, and the length, on stable storage.
    fn sync_data(&self) -> io::Result<()>;

    /// The length in bytes.
    fn len(&self) -> io::Result<u64>;

    /// Whether the length is zero.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Whether the file has more than one [name](Storage::link): whoever writes to it writes to
    /// what somebody else keeps.
    fn is_linked(&self) -> io::Result<bool> {
        Ok(false)
    }

    /// Cuts the file to `len` bytes, or extends it with zeros.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Reserves disk space so that the file is at least `len` bytes long; new bytes read as zero.
    ///
    /// # Errors
    /// [`io::ErrorKind::StorageFull`] when the space is not there; the file may have grown.
    fn allocate(&self, len: u64) -> io::Result<()>;

    /// Makes syncs of what is going to be written to a part of the reserved space cheaper, if the
    /// storage can. What that part says is of no use to anybody; afterwards it reads as zeros, or as
    /// before.
    ///
    /// # Errors
    /// Those of a write; nothing else of the file has changed then.
    fn prepare(&self, space: Range<u64>) -> io::Result<()> {
        let _ = space;
        Ok(())
    }

    /// Reads exactly `buf.len()` bytes at `offset`.
    ///
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`] when the file ends before.
    fn read_exact_at(&self, mut buf: &mut [u8], mut offset: u64) -> io::Result<()> {
        while !buf.is_empty() {
            match self.read_at(buf, offset) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => {
                    buf = buf.split_at_mut(n).1;
                    offset += n as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
