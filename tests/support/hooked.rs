//! A simulated disk with somebody who is asked before each operation, and may wait, panic or refuse.
#![allow(unreachable_pub)]

use std::fmt::Debug;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use highwater::storage::{MemoryStorage, OpenMode, Storage, StorageFile, StorageLock};

/// What is about to be done to a file, or to a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Open,
    Read,
    Write,
    Sync,
    SyncDir,
    Rename,
    Remove,
    /// Of the space between two offsets.
    Prepare(u64, u64),
}

pub trait Hook: Clone + Debug + Send + Sync + 'static {
    /// Called before an operation, which is not done if this fails. A file goes by the name that it
    /// was opened as.
    fn before(&self, operation: Operation, path: &Path) -> io::Result<()>;
}

/// See the module. Files cannot be linked on it.
#[derive(Clone, Debug)]
pub struct Hooked<H> {
    pub disk: MemoryStorage,
    pub hook: H,
}

impl<H: Hook> Storage for Hooked<H> {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn StorageFile>> {
        self.hook.before(Operation::Open, path)?;
        Ok(Arc::new(HookedFile {
            file: self.disk.open(path, mode)?,
            path: path.into(),
            hook: self.hook.clone(),
        }))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.disk.create_dir_all(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.disk.list(dir)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.hook.before(Operation::Remove, path)?;
        self.disk.remove(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.hook.before(Operation::Rename, from)?;
        self.disk.rename(from, to)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.hook.before(Operation::SyncDir, dir)?;
        self.disk.sync_dir(dir)
    }

    fn free_space(&self, dir: &Path) -> io::Result<Option<u64>> {
        self.disk.free_space(dir)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn StorageLock>> {
        self.disk.lock(path)
    }
}

#[derive(Debug)]
struct HookedFile<H> {
    file: Arc<dyn StorageFile>,
    path: Box<Path>,
    hook: H,
}

impl<H: Hook> StorageFile for HookedFile<H> {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.hook.before(Operation::Read, &self.path)?;
        self.file.read_at(buf, offset)
    }

    fn write_all_at(&self, bufs: &[&[u8]], offset: u64) -> io::Result<()> {
        self.hook.before(Operation::Write, &self.path)?;
        self.file.write_all_at(bufs, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.hook.before(Operation::Sync, &self.path)?;
        self.file.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.file.allocate(len)
    }

    fn prepare(&self, space: Range<u64>) -> io::Result<()> {
        let operation = Operation::Prepare(space.start, space.end);
        self.hook.before(operation, &self.path)?;
        self.file.prepare(space)
    }
}
