//! A simulated disk that knows what is durable: it can lose power, fail, fill up and lie.

mod crash;
mod disk;
mod faults;
mod image;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt::{self, Debug, Formatter};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use self::disk::{Disk, Inode, normal};
use super::{OpenMode, Storage, StorageFile, StorageLock};
use crate::primitives::Mutex;

/// Which of the changes that were not synced a [`MemoryStorage::crash`] leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Survivors {
    /// None of them: the power was lost and the caches with it.
    Synced,
    /// All of them: the process was killed, the system and its page cache live on.
    ///
    /// What was pending before is pending after: a later power loss can still take it, and data
    /// that a failed sync dropped stays readable and can still not become durable.
    All,
    /// Those issued first, until this many of [`MemoryStorage::unsynced_bytes`] are used up.
    ///
    /// Writes to all files count, in the order they were issued; the first one that does not fit is
    /// torn at exactly that byte, and nothing issued after it survives. Changes of names and
    /// lengths count as zero bytes.
    Prefix(u64),
    /// A random subset, the same for the same seed.
    ///
    /// Each change of a name survives or not, as does each change of a length and, apart from that,
    /// each 512-byte sector of each write. A sector reaches the disk as a whole, with everything
    /// written to it until then: it never tears, and never holds a later write without an earlier
    /// one. A length that survives without its data reads as the older bytes or zeros; data that
    /// survives without its length is cut off. The seed also decides how likely survival is, from
    /// one eighth to seven eighths.
    Sectors(u64),
    /// As [`Survivors::Sectors`], but a sector may also tear in its middle, either half surviving.
    HalfSectors(u64),
    /// Those issued last, until this many of [`MemoryStorage::unsynced_bytes`] are used up: the
    /// opposite of [`Survivors::Prefix`], and the device that writes what came last first.
    Suffix(u64),
    /// Every change of a name, and nothing of what is in the files.
    Names,
    /// Everything in the files, and no change of a name.
    Contents,
    /// Every change of a name and of a length, those by writes included, but no data: where nothing
    /// was before, files are zeros.
    Lengths,
    /// Every change of a name and all data, but no change of a length: what lies beyond the length
    /// that was synced is cut off.
    Data,
}

/// Something that goes wrong until [`MemoryStorage::heal`]. Each kind is armed at most once: arming
/// it again replaces it. In each, `after` operations of that kind still succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// After `after` writes every write fails, having written the first half of its bytes.
    Write {
        /// How many writes still succeed.
        after: u64,
    },
    /// After `after` syncs of a file one fails.
    Sync {
        /// How many syncs still succeed.
        after: u64,
        /// Whether everything the file had pending can never become durable any more, although
        /// reads still see it. If not, the next sync makes it durable.
        dropped: bool,
    },
    /// After `after` syncs of a directory one fails, and its names stay pending.
    SyncDir {
        /// How many syncs still succeed.
        after: u64,
    },
    /// After `after` calls of [`StorageFile::read_at`] one fails.
    Read {
        /// How many reads still succeed.
        after: u64,
    },
    /// The files that have a name may grow by `bytes` bytes in total. Beyond that everything fails
    /// with [`io::ErrorKind::StorageFull`]: a write after the part that fits, other calls at once.
    Full {
        /// How much space is left.
        bytes: u64,
    },
    /// Syncs of files and directories say that they succeeded, and do nothing.
    LostSyncs {
        /// Decides which ones.
        seed: u64,
        /// How many of a hundred.
        percent: u64,
    },
    /// After `after` writes one lands `by` bytes further on in its file than it should, and the
    /// place that it was meant for keeps what it had.
    Misdirected {
        /// How many writes still go where they should.
        after: u64,
        /// How far off it lands.
        by: u64,
    },
    /// Reads return fewer bytes than asked for, or [`io::ErrorKind::Interrupted`].
    ShortReads {
        /// Decides which ones.
        seed: u64,
    },
}

/// What a [`MemoryStorage`] did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Calls of [`StorageFile::write_all_at`], failed ones included.
    pub writes: u64,
    /// Bytes that reached a file.
    pub bytes_written: u64,
    /// Successful calls of [`StorageFile::sync_data`].
    pub syncs: u64,
    /// Successful calls of [`Storage::sync_dir`].
    pub dir_syncs: u64,
    /// Calls of [`StorageFile::read_at`], failed ones included.
    pub reads: u64,
    /// Bytes that reads returned.
    pub bytes_read: u64,
}

/// A simulated disk. A clone is the same disk; [`crash`](Self::crash) makes a new one.
///
/// It is stricter than most file systems. Syncing a file does not make its name durable, and a file
/// renamed into another directory is, until both are synced, durable in either, both or neither.
/// Only directories exist durably as soon as they are created. The root and the working directory
/// (the empty path) always exist.
///
/// The file of a lock stays empty. Nothing depends on time, threads or addresses: the same calls
/// leave the same disk.
#[derive(Clone)]
pub struct MemoryStorage {
    disk: Arc<Mutex<Disk>>,
}

impl MemoryStorage {
    /// An empty disk.
    pub fn new() -> Self {
        Self::from_disk(Disk::new())
    }

    fn from_disk(disk: Disk) -> Self {
        Self {
            disk: Arc::new(Mutex::new(disk)),
        }
    }

    /// The disk that a crash at this moment would leave: without faults, stops and locks, and with
    /// every counter at zero. This disk, its handles and its locks go on as if nothing happened.
    pub fn crash(&self, survivors: Survivors) -> Self {
        Self::from_disk(crash::crash(&self.disk.lock(), survivors))
    }

    /// Whether both disks hold the same bytes under the same names durably, and nothing besides:
    /// then whoever opens them cannot tell them apart, now or after another crash.
    pub fn is_same(&self, other: &Self) -> bool {
        if Arc::ptr_eq(&self.disk, &other.disk) {
            return true;
        }
        crash::is_same(&self.disk.lock(), &other.disk.lock())
    }

    /// From now on keeps the disk as it is before each operation, for
    /// [`recorded`](Self::recorded).
    pub fn record(&self) {
        self.disk.lock().recorded = Some(Vec::new());
    }

    /// Ends the recording. For each operation since it began, in order, the disk that a process
    /// killed right before it leaves: what was pending is pending still, so that
    /// [`crash`](Self::crash) makes of it whatever a loss of power at that moment could.
    pub fn recorded(&self) -> Vec<Self> {
        let recorded = self.disk.lock().recorded.take();
        let disks = recorded.unwrap_or_default().into_iter();
        disks.map(Self::from_disk).collect()
    }

    /// How many bytes of writes are not synced: [`Survivors::Prefix`] leaves something else for
    /// each number up to this one.
    pub fn unsynced_bytes(&self) -> u64 {
        crash::unsynced_bytes(&self.disk.lock())
    }

    /// Arms a fault.
    pub fn fail(&self, fault: Fault) {
        let mut disk = self.disk.lock();
        let total = disk.total();
        disk.faults.arm(fault, total);
    }

    /// Disarms every fault. What a fault did stays done.
    pub fn heal(&self) {
        self.disk.lock().faults = faults::Faults::default();
    }

    /// How many mutating operations were started so far: creates, links, renames, removes, writes, changes
    /// of length, allocations and syncs of files and directories. Those that failed count, those
    /// that [`stop_at`](Self::stop_at) prevented do not.
    pub fn operations(&self) -> u64 {
        self.disk.lock().operations
    }

    /// Cuts the power once [`operations`](Self::operations) reaches `n`: the first `n` operations
    /// happen, every mutating one after them fails and does nothing. Reading goes on.
    pub fn stop_at(&self, n: u64) {
        self.disk.lock().stop_at = Some(n);
    }

    /// What happened so far.
    pub fn counts(&self) -> Counts {
        self.disk.lock().counts
    }

    /// The bytes of a file as programs see them, without any fault.
    pub fn read_file(&self, path: impl AsRef<Path>) -> Option<Vec<u8>> {
        let disk = self.disk.lock();
        let inode = disk.find(path.as_ref()).ok()?;
        let contents = inode.contents.lock();
        Some(contents.current.to_vec())
    }

    /// Makes `bytes` the durable content of a file, creating it and its directories durably.
    /// Faults, counters and stops do not apply, and open handles see the new bytes.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidInput`] when the path does not end in a name.
    pub fn write_file(&self, path: impl AsRef<Path>, bytes: &[u8]) -> io::Result<()> {
        self.disk.lock().plant(path.as_ref(), bytes)
    }

    /// Changes the bits in `mask` of one byte of a file, in the page cache and at rest. What is
    /// pending stays so, and open handles see the change.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] when there is no such file, or it ends before `offset`.
    pub fn flip(&self, path: impl AsRef<Path>, offset: u64, mask: u8) -> io::Result<()> {
        self.disk.lock().flip(path.as_ref(), offset, mask)
    }

    /// How often a fault has struck since this disk was made, by the name of its kind. Short reads
    /// count each time.
    pub fn strikes(&self) -> BTreeMap<&'static str, u64> {
        self.disk.lock().strikes.clone()
    }

    /// Removes a file durably. Faults, counters and stops do not apply.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] when its directory does not exist.
    pub fn remove_file(&self, path: impl AsRef<Path>) -> io::Result<()> {
        self.disk.lock().uproot(path.as_ref())
    }

    /// Path and length of every file as programs see them, in ascending order.
    pub fn files(&self) -> Vec<(PathBuf, u64)> {
        let disk = self.disk.lock();
        let mut files = Vec::new();
        for (path, dir) in &disk.directories {
            for (name, inode) in &dir.current {
                files.push((path.join(name), inode.contents.lock().current.len()));
            }
        }
        files.sort_unstable();
        files
    }
}

impl Default for MemoryStorage {
    fn default() -> Self {
        Self::new()
    }
}

impl Debug for MemoryStorage {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStorage").finish_non_exhaustive()
    }
}

impl Storage for MemoryStorage {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn StorageFile>> {
        let mut disk = self.disk.lock();
        let inode = match mode {
            OpenMode::Existing => disk.find(path)?,
            OpenMode::CreateNew => disk.create(path)?,
        };
        Ok(Arc::new(MemoryFile {
            disk: Arc::clone(&self.disk),
            inode,
            path: normal(path),
        }))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.disk.lock().create_dir_all(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        Ok(self
            .disk
            .lock()
            .directory(&normal(dir))?
            .current
            .keys()
            .cloned()
            .collect())
    }

    fn free_space(&self, _dir: &Path) -> io::Result<Option<u64>> {
        Ok(self.disk.lock().room())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.lock().remove(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.lock().rename(from, to)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.lock().link(from, to)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.lock().sync_dir(dir)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn StorageLock>> {
        let path = normal(path);
        let mut disk = self.disk.lock();
        if disk.locks.contains(&path) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        if disk.find(&path).is_err() {
            disk.create(&path)?;
        }
        disk.locks.insert(path.clone());
        Ok(Box::new(MemoryLock {
            disk: Arc::clone(&self.disk),
            path,
        }))
    }
}

/// A held lock.
struct MemoryLock {
    disk: Arc<Mutex<Disk>>,
    path: PathBuf,
}

impl StorageLock for MemoryLock {}

impl Debug for MemoryLock {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryLock")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl Drop for MemoryLock {
    fn drop(&mut self) {
        self.disk.lock().locks.remove(&self.path);
    }
}

/// An open file; `path` is where it was opened.
struct MemoryFile {
    disk: Arc<Mutex<Disk>>,
    inode: Arc<Inode>,
    path: PathBuf,
}

impl Debug for MemoryFile {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryFile")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl StorageFile for MemoryFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.disk.lock().read(&self.inode, buf, offset)
    }

    fn write_all_at(&self, bufs: &[&[u8]], offset: u64) -> io::Result<()> {
        self.disk.lock().write(&self.inode, bufs, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk.lock().sync(&self.inode)
    }

    fn len(&self) -> io::Result<u64> {
        let _disk = self.disk.lock();
        Ok(self.inode.contents.lock().current.len())
    }

    fn is_linked(&self) -> io::Result<bool> {
        Ok(self.disk.lock().names_of(&self.inode) > 1)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.disk.lock().set_len(&self.inode, len)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.disk.lock().allocate(&self.inode, len)
    }

    /// Clears the space as it is and as it would be after a crash, whatever crash that is: what
    /// anybody still needs of it is gone.
    fn prepare(&self, space: Range<u64>) -> io::Result<()> {
        self.disk.lock().prepare(&self.inode, space)
    }
}
