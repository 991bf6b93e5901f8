//! A simulated disk whose syncs can be held up, to stall a writer at the worst moment.

use std::io;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};

use highwater::storage::{MemoryStorage, OpenMode, Storage, StorageFile, StorageLock};

#[derive(Debug, Default)]
struct Gate {
    shut: bool,
    waiting: usize,
}

#[derive(Clone, Debug)]
pub struct GatedStorage {
    disk: MemoryStorage,
    gate: Arc<(Mutex<Gate>, Condvar)>,
}

impl GatedStorage {
    pub fn new(disk: MemoryStorage) -> Self {
        Self {
            disk,
            gate: Arc::default(),
        }
    }

    /// From now on every sync waits.
    pub fn shut(&self) {
        self.gate.0.lock().unwrap().shut = true;
    }

    pub fn open(&self) {
        self.gate.0.lock().unwrap().shut = false;
        self.gate.1.notify_all();
    }

    /// Returns once somebody waits in a sync.
    pub fn await_arrival(&self) {
        let mut gate = self.gate.0.lock().unwrap();
        while gate.waiting == 0 {
            gate = self.gate.1.wait(gate).unwrap();
        }
    }
}

impl Storage for GatedStorage {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn StorageFile>> {
        let file = self.disk.open(path, mode)?;
        Ok(Arc::new(GatedFile {
            file,
            gate: self.gate.clone(),
        }))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.disk.create_dir_all(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.disk.list(dir)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
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

#[derive(Debug)]
struct GatedFile {
    file: Arc<dyn StorageFile>,
    gate: Arc<(Mutex<Gate>, Condvar)>,
}

impl StorageFile for GatedFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buf, offset)
    }

    fn write_all_at(&self, bufs: &[&[u8]], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bufs, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut gate = self.gate.0.lock().unwrap();
        gate.waiting += 1;
        self.gate.1.notify_all();
        while gate.shut {
            gate = self.gate.1.wait(gate).unwrap();
        }
        gate.waiting -= 1;
        drop(gate);
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
}
