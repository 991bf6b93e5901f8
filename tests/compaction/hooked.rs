//! A disk that refuses to remove files, and lets somebody in between two reads.

use std::fmt::Debug;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use highwater::storage::{MemoryStorage, OpenMode, Storage, StorageFile, StorageLock};

/// A disk that refuses to remove files of the log, and lets somebody in between two reads.
#[derive(Clone)]
pub struct Stuck {
    disk: MemoryStorage,
    pub refuse: Arc<Mutex<bool>>,
    hook: Hook,
}

type Action = Box<dyn FnOnce() + Send>;
type Hook = Arc<Mutex<Option<(u64, Action)>>>;

impl Debug for Stuck {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Stuck")
    }
}

impl Stuck {
    pub fn new(disk: MemoryStorage) -> Self {
        Self {
            disk,
            refuse: Arc::default(),
            hook: Arc::default(),
        }
    }

    /// Calls `action` before the read after the next `reads`.
    pub fn interrupt(&self, reads: u64, action: impl FnOnce() + Send + 'static) {
        *self.hook.lock().unwrap() = Some((reads, Box::new(action)));
    }

    /// Whether the action was not called.
    pub fn is_armed(&self) -> bool {
        self.hook.lock().unwrap().take().is_some()
    }
}

struct HookedFile(Arc<dyn StorageFile>, Hook);

impl Debug for HookedFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HookedFile")
    }
}

impl StorageFile for HookedFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let due = {
            let mut hook = self.1.lock().unwrap();
            match &mut *hook {
                Some((0, _)) => hook.take().map(|(_, action)| action),
                Some((reads, _)) => {
                    *reads -= 1;
                    None
                }
                None => None,
            }
        };
        if let Some(action) = due {
            action();
        }
        self.0.read_at(buf, offset)
    }

    fn write_all_at(&self, bufs: &[&[u8]], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bufs, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.0.allocate(len)
    }
}

impl Storage for Stuck {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn StorageFile>> {
        let file = self.disk.open(path, mode)?;
        Ok(Arc::new(HookedFile(file, self.hook.clone())))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.disk.create_dir_all(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.disk.list(dir)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        if *self.refuse.lock().unwrap() && path.extension().is_some_and(|end| end != "tmp") {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        self.disk.remove(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.sync_dir(dir)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn StorageLock>> {
        self.disk.lock(path)
    }
}
