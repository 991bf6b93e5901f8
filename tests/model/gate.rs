//! A simulated disk with a gate, to stall whoever is at it at the worst moment.

use std::io;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, ThreadId};

use highwater::storage::{MemoryStorage, OpenMode, Storage, StorageFile, StorageLock};

/// What is about to be done to a file, or to a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Open,
    Write,
    Sync,
    SyncDir,
    Rename,
    Remove,
}

/// Says what has to wait, by the operation and the name of the file.
type Rule = fn(Operation, &str) -> bool;

#[derive(Debug, Default)]
struct Gate {
    shut: Option<Rule>,
    /// If set, nobody else has to wait.
    only: Option<ThreadId>,
    /// Whether that thread is done.
    ended: bool,
    waiting: usize,
    /// How many of those that wait may pass.
    passes: usize,
}

#[derive(Clone, Debug)]
pub struct GatedStorage {
    disk: MemoryStorage,
    gate: Arc<(Mutex<Gate>, Condvar)>,
}

/// While it lives, the gate is shut for the thread that holds it alone.
pub struct OnlyThisThread(GatedStorage);

impl Drop for OnlyThisThread {
    fn drop(&mut self) {
        self.0.change(|gate| gate.ended = true);
    }
}

impl GatedStorage {
    pub fn new(disk: MemoryStorage) -> Self {
        Self {
            disk,
            gate: Arc::default(),
        }
    }

    fn change(&self, change: impl FnOnce(&mut Gate)) {
        change(&mut self.gate.0.lock().unwrap());
        self.gate.1.notify_all();
    }

    /// From now on every sync of a file waits.
    pub fn shut(&self) {
        self.shut_for(|operation, _| operation == Operation::Sync);
    }

    /// From now on everything waits that the rule says.
    pub fn shut_for(&self, rule: Rule) {
        self.change(|gate| {
            *gate = Gate {
                shut: Some(rule),
                ..Gate::default()
            };
        });
    }

    pub fn open(&self) {
        self.change(|gate| gate.shut = None);
    }

    /// From now on only this thread waits, until the guard is dropped, and then nobody.
    pub fn only_for_this_thread(&self) -> OnlyThisThread {
        self.change(|gate| gate.only = Some(thread::current().id()));
        OnlyThisThread(self.clone())
    }

    /// Returns once somebody waits.
    pub fn await_arrival(&self) {
        let mut gate = self.gate.0.lock().unwrap();
        while gate.waiting == 0 {
            gate = self.gate.1.wait(gate).unwrap();
        }
    }

    /// Returns once the only thread that has to wait does so, or is done.
    pub fn await_arrival_or_end(&self) {
        let mut gate = self.gate.0.lock().unwrap();
        while !gate.ended && (gate.waiting == 0 || gate.passes > 0) {
            gate = self.gate.1.wait(gate).unwrap();
        }
    }

    /// Lets one of those that wait go on.
    pub fn let_one_pass(&self) {
        self.change(|gate| gate.passes = gate.waiting.min(1));
    }

    /// Waits if it has to.
    fn pass(&self, operation: Operation, path: &Path) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let mut gate = self.gate.0.lock().unwrap();
        let me = thread::current().id();
        let holds = |gate: &Gate| {
            let shut = gate.shut.is_some_and(|rule| rule(operation, &name));
            shut && gate.only.is_none_or(|only| only == me)
        };
        if !holds(&gate) {
            return;
        }
        gate.waiting += 1;
        self.gate.1.notify_all();
        while holds(&gate) && gate.passes == 0 {
            gate = self.gate.1.wait(gate).unwrap();
        }
        gate.passes = 0;
        gate.waiting -= 1;
        self.gate.1.notify_all();
    }
}

impl Storage for GatedStorage {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn StorageFile>> {
        self.pass(Operation::Open, path);
        let file = self.disk.open(path, mode)?;
        Ok(Arc::new(GatedFile {
            file,
            name: path.into(),
            storage: self.clone(),
        }))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.disk.create_dir_all(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.disk.list(dir)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.pass(Operation::Remove, path);
        self.disk.remove(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.pass(Operation::Rename, from);
        self.disk.rename(from, to)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.pass(Operation::SyncDir, dir);
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
struct GatedFile {
    file: Arc<dyn StorageFile>,
    /// What it was opened as.
    name: Box<Path>,
    storage: GatedStorage,
}

impl StorageFile for GatedFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buf, offset)
    }

    fn write_all_at(&self, bufs: &[&[u8]], offset: u64) -> io::Result<()> {
        self.storage.pass(Operation::Write, &self.name);
        self.file.write_all_at(bufs, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.storage.pass(Operation::Sync, &self.name);
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
