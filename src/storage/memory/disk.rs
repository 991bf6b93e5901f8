//! The state of a simulated disk: what programs see, what is durable, and what lies in between.
//!
//! Every change is applied to the current state at once and kept as pending, with a sequence number
//! that orders it among all changes of the disk, until a sync replays it on the durable state.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::io;
use std::ops::Range;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use super::crash::crash;
use super::faults::{Faults, io_error};
use super::image::Image;
use super::{Counts, Survivors};
use crate::primitives::Mutex;

/// A change to the bytes or the length of a file.
#[derive(Clone)]
pub(super) enum Op {
    /// Puts `data`, never empty, at `offset`.
    Write { offset: u64, data: Arc<[u8]> },
    /// Makes the file this long.
    SetLen(u64),
    /// Makes the file at least this long.
    Grow(u64),
}

impl Op {
    pub(super) fn apply(&self, image: &mut Image) {
        match self {
            Op::Write { offset, data } => image.write(data, *offset),
            Op::SetLen(len) => image.set_len(*len),
            Op::Grow(len) => image.grow(*len),
        }
    }
}

/// The bytes of a file.
#[derive(Clone, Default)]
pub(super) struct Contents {
    pub(super) current: Image,
    pub(super) durable: Image,
    /// What a sync has yet to make durable, in the order it was issued.
    pub(super) pending: Vec<(u64, Op)>,
}

/// A file, whatever its name. Its contents are locked only while the disk is.
pub(super) struct Inode {
    pub(super) id: u64,
    pub(super) contents: Mutex<Contents>,
}

impl Inode {
    pub(super) fn new(id: u64, contents: Contents) -> Arc<Self> {
        Arc::new(Self {
            id,
            contents: Mutex::new(contents),
        })
    }
}

/// The files of a directory by name.
pub(super) type Names = BTreeMap<String, Arc<Inode>>;

/// A name and the file it stands for.
#[derive(Clone)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) inode: Arc<Inode>,
}

/// A change to the names of one directory; both halves happen together or not at all.
#[derive(Clone)]
pub(super) struct NameChange {
    pub(super) seq: u64,
    pub(super) unlink: Option<Entry>,
    pub(super) link: Option<Entry>,
}

impl NameChange {
    pub(super) fn apply(&self, names: &mut Names) {
        if let Some(Entry { name, inode }) = &self.unlink
            && names.get(name).is_some_and(|found| found.id == inode.id)
        {
            names.remove(name);
        }
        if let Some(Entry { name, inode }) = &self.link {
            names.insert(name.clone(), Arc::clone(inode));
        }
    }
}

/// The names of one directory.
#[derive(Clone, Default)]
pub(super) struct Directory {
    pub(super) current: Names,
    pub(super) durable: Names,
    /// What a sync has yet to make durable, in the order it was issued.
    pub(super) pending: Vec<NameChange>,
}

impl Directory {
    fn change(&mut self, change: NameChange) {
        change.apply(&mut self.current);
        self.pending.push(change);
    }

    /// Makes sure that no pending change touches `name`.
    fn settle(&mut self, name: &str) {
        let other = |entry: &Entry| entry.name != name;
        for change in &mut self.pending {
            change.unlink = change.unlink.take().filter(other);
            change.link = change.link.take().filter(other);
        }
    }
}

/// Everything behind a [`super::MemoryStorage`].
#[derive(Default)]
pub(super) struct Disk {
    pub(super) directories: BTreeMap<PathBuf, Directory>,
    pub(super) locks: BTreeSet<PathBuf>,
    pub(super) next_inode: u64,
    pub(super) next_seq: u64,
    pub(super) operations: u64,
    pub(super) stop_at: Option<u64>,
    /// What was before each operation, while somebody wants to know.
    pub(super) recorded: Option<Vec<Disk>>,
    pub(super) faults: Faults,
    pub(super) counts: Counts,
    pub(super) strikes: BTreeMap<&'static str, u64>,
}

impl Disk {
    /// An empty disk with a root and a working directory.
    pub(super) fn new() -> Self {
        let mut disk = Self::default();
        disk.directories
            .insert(PathBuf::new(), Directory::default());
        disk.directories
            .insert(PathBuf::from("/"), Directory::default());
        disk
    }

    /// Fails if the power is gone.
    pub(super) fn powered(&self) -> io::Result<()> {
        match self.stop_at {
            Some(stop) if self.operations >= stop => Err(io::Error::other("simulated power loss")),
            _ => Ok(()),
        }
    }

    /// Counts a mutating operation that is about to happen, unless the power is gone.
    pub(super) fn begin(&mut self) -> io::Result<()> {
        self.powered()?;
        if let Some(mut recorded) = self.recorded.take() {
            recorded.push(crash(self, Survivors::All));
            self.recorded = Some(recorded);
        }
        self.operations += 1;
        Ok(())
    }

    fn strike(&mut self, what: &'static str) {
        *self.strikes.entry(what).or_default() += 1;
    }

    fn take_seq(&mut self) -> u64 {
        self.next_seq += 1;
        self.next_seq - 1
    }

    fn new_inode(&mut self, contents: Contents) -> Arc<Inode> {
        self.next_inode += 1;
        Inode::new(self.next_inode, contents)
    }

    pub(super) fn directory(&mut self, path: &Path) -> io::Result<&mut Directory> {
        self.directories
            .get_mut(path)
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// The file at `path`.
    pub(super) fn find(&self, path: &Path) -> io::Result<Arc<Inode>> {
        let (dir, name) = locate(path)?;
        let found = self
            .directories
            .get(&dir)
            .and_then(|dir| dir.current.get(&name));
        found.cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    pub(super) fn create(&mut self, path: &Path) -> io::Result<Arc<Inode>> {
        self.begin()?;
        let (dir, name) = self.free_name(path)?;
        let inode = self.new_inode(Contents::default());
        self.name(&dir, name, Arc::clone(&inode))?;
        Ok(inode)
    }

    /// Puts a file under a name that is free.
    fn name(&mut self, dir: &Path, name: String, inode: Arc<Inode>) -> io::Result<()> {
        let link = Some(Entry { name, inode });
        let seq = self.take_seq();
        self.directory(dir)?.change(NameChange {
            seq,
            unlink: None,
            link,
        });
        Ok(())
    }

    pub(super) fn link(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        self.begin()?;
        let inode = self.find(from)?;
        let (dir, name) = self.free_name(to)?;
        self.name(&dir, name, inode)
    }

    /// The directory and the name of a path that nothing has yet.
    fn free_name(&mut self, path: &Path) -> io::Result<(PathBuf, String)> {
        let (dir, name) = locate(path)?;
        let taken = self.directories.contains_key(&dir.join(&name));
        if taken || self.directory(&dir)?.current.contains_key(&name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        Ok((dir, name))
    }

    /// How many names a file has.
    pub(super) fn names_of(&self, inode: &Inode) -> usize {
        let names = self
            .directories
            .values()
            .flat_map(|dir| dir.current.values());
        names.filter(|named| named.id == inode.id).count()
    }

    pub(super) fn remove(&mut self, path: &Path) -> io::Result<()> {
        self.begin()?;
        let (dir, name) = locate(path)?;
        let unlink = Some(Entry {
            name,
            inode: self.find(path)?,
        });
        let seq = self.take_seq();
        self.directory(&dir)?.change(NameChange {
            seq,
            unlink,
            link: None,
        });
        Ok(())
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        self.begin()?;
        let inode = self.find(from)?;
        let (from_dir, from_name) = locate(from)?;
        let (to_dir, to_name) = locate(to)?;
        if self.directories.contains_key(&to_dir.join(&to_name)) {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        self.directory(&to_dir)?;
        let seq = self.take_seq();
        let unlink = Some(Entry {
            name: from_name,
            inode: Arc::clone(&inode),
        });
        let link = Some(Entry {
            name: to_name,
            inode,
        });
        if from_dir == to_dir {
            self.directory(&from_dir)?
                .change(NameChange { seq, unlink, link });
        } else {
            self.directory(&to_dir)?.change(NameChange {
                seq,
                unlink: None,
                link,
            });
            self.directory(&from_dir)?.change(NameChange {
                seq,
                unlink,
                link: None,
            });
        }
        Ok(())
    }

    pub(super) fn create_dir_all(&mut self, path: &Path) -> io::Result<()> {
        let path = normal(path);
        if self.directories.contains_key(&path) {
            return Ok(());
        }
        self.powered()?;
        for dir in path.ancestors() {
            if self.find(dir).is_ok() {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
        }
        for dir in path.ancestors() {
            self.directories.entry(dir.to_path_buf()).or_default();
        }
        Ok(())
    }

    pub(super) fn sync_dir(&mut self, path: &Path) -> io::Result<()> {
        self.begin()?;
        let path = normal(path);
        self.directory(&path)?;
        if self.faults.sync_dir_fails() {
            self.strike("failed syncs of directories");
            return Err(io_error("sync of a directory"));
        }
        self.counts.dir_syncs += 1;
        if self.faults.sync_is_lost() {
            self.strike("lost syncs of directories");
            return Ok(());
        }
        let Directory {
            durable, pending, ..
        } = self.directory(&path)?;
        for change in pending.drain(..) {
            change.apply(durable);
        }
        Ok(())
    }

    pub(super) fn read(&mut self, inode: &Inode, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.counts.reads += 1;
        if self.faults.read_fails() {
            self.strike("failed reads");
            return Err(io_error("read"));
        }
        let wanted = self.faults.read_len(buf.len());
        if !matches!(wanted, Ok(wanted) if wanted == buf.len()) {
            self.strike("short reads");
        }
        let wanted = wanted?;
        let count = inode
            .contents
            .lock()
            .current
            .read(buf.split_at_mut(wanted).0, offset);
        self.counts.bytes_read += count as u64;
        Ok(count)
    }

    pub(super) fn write(
        &mut self,
        inode: &Inode,
        bufs: &[&[u8]],
        mut offset: u64,
    ) -> io::Result<()> {
        self.begin()?;
        if let Some(by) = self.faults.misdirection() {
            self.strike("misdirected writes");
            offset = offset.saturating_add(by);
        }
        let mut data = bufs.concat();
        if offset.checked_add(data.len() as u64).is_none() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.counts.writes += 1;
        let mut result = Ok(());
        if self.faults.write_fails() {
            self.strike("failed writes");
            data.truncate(data.len() / 2);
            result = Err(io_error("write"));
        }
        let longest = self.longest(inode);
        if offset + data.len() as u64 > longest {
            self.strike("full disks");
            data.truncate(longest.saturating_sub(offset) as usize);
            result = result.and(Err(io::ErrorKind::StorageFull.into()));
        }
        if !data.is_empty() {
            self.counts.bytes_written += data.len() as u64;
            self.change(
                inode,
                Op::Write {
                    offset,
                    data: data.into(),
                },
            );
        }
        result
    }

    pub(super) fn set_len(&mut self, inode: &Inode, len: u64) -> io::Result<()> {
        self.begin()?;
        self.check_fits(inode, len)?;
        self.change(inode, Op::SetLen(len));
        Ok(())
    }

    pub(super) fn allocate(&mut self, inode: &Inode, len: u64) -> io::Result<()> {
        self.begin()?;
        self.check_fits(inode, len)?;
        self.change(inode, Op::Grow(len));
        Ok(())
    }

    pub(super) fn prepare(&mut self, inode: &Inode, space: Range<u64>) -> io::Result<()> {
        self.powered()?;
        let mut contents = inode.contents.lock();
        contents.current.clear(space.clone());
        contents.durable.clear(space);
        Ok(())
    }

    pub(super) fn sync(&mut self, inode: &Inode) -> io::Result<()> {
        self.begin()?;
        if let Some(dropped) = self.faults.sync_fails() {
            if dropped {
                self.strike("failed syncs that drop data");
                inode.contents.lock().pending.clear();
            } else {
                self.strike("failed syncs");
            }
            return Err(io_error("sync of a file"));
        }
        self.counts.syncs += 1;
        if self.faults.sync_is_lost() {
            self.strike("lost syncs");
            return Ok(());
        }
        let mut contents = inode.contents.lock();
        let Contents {
            durable, pending, ..
        } = &mut *contents;
        for (_, op) in pending.drain(..) {
            op.apply(durable);
        }
        Ok(())
    }

    fn change(&mut self, inode: &Inode, op: Op) {
        let seq = self.take_seq();
        let mut contents = inode.contents.lock();
        op.apply(&mut contents.current);
        contents.pending.push((seq, op));
    }

    /// The bytes of all files that have a name.
    pub(super) fn total(&self) -> u64 {
        let inodes = self
            .directories
            .values()
            .flat_map(|dir| dir.current.values());
        // A file counts once, however many names it has.
        let inodes: BTreeMap<u64, &Arc<Inode>> = inodes.map(|inode| (inode.id, inode)).collect();
        inodes
            .into_values()
            .map(|inode| inode.contents.lock().current.len())
            .fold(0, u64::saturating_add)
    }

    /// How many bytes fit onto a disk that is limited.
    pub(super) fn room(&self) -> Option<u64> {
        let capacity = self.faults.capacity?;
        Some(capacity.saturating_sub(self.total()))
    }

    /// The length up to which `inode` may grow.
    fn longest(&self, inode: &Inode) -> u64 {
        let Some(capacity) = self.faults.capacity else {
            return u64::MAX;
        };
        let room = capacity.saturating_sub(self.total());
        inode.contents.lock().current.len().saturating_add(room)
    }

    fn check_fits(&mut self, inode: &Inode, len: u64) -> io::Result<()> {
        if len > self.longest(inode) {
            self.strike("full disks");
            Err(io::ErrorKind::StorageFull.into())
        } else {
            Ok(())
        }
    }

    /// Puts a file on the disk behind everybody's back.
    pub(super) fn plant(&mut self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let (dir, name) = locate(path)?;
        let image = Image::from(bytes);
        let contents = Contents {
            current: image.clone(),
            durable: image,
            pending: Vec::new(),
        };
        let inode = match self.find(path) {
            Ok(inode) => {
                *inode.contents.lock() = contents;
                inode
            }
            Err(_) => self.new_inode(contents),
        };
        for dir in dir.ancestors() {
            self.directories.entry(dir.to_path_buf()).or_default();
        }
        let dir = self.directory(&dir)?;
        dir.settle(&name);
        dir.durable.insert(name.clone(), Arc::clone(&inode));
        dir.current.insert(name, inode);
        Ok(())
    }

    /// Changes bits of a byte behind everybody's back.
    pub(super) fn flip(&mut self, path: &Path, offset: u64, mask: u8) -> io::Result<()> {
        let inode = self.find(path)?;
        let mut contents = inode.contents.lock();
        if offset >= contents.current.len() {
            return Err(io::ErrorKind::NotFound.into());
        }
        let Contents {
            current, durable, ..
        } = &mut *contents;
        for image in [current, durable] {
            let mut byte = [0];
            if image.read(&mut byte, offset) == 1 {
                image.put(&[byte[0] ^ mask], offset);
            }
        }
        self.strike("flipped bits");
        Ok(())
    }

    /// Takes a file off the disk behind everybody's back.
    pub(super) fn uproot(&mut self, path: &Path) -> io::Result<()> {
        let (dir, name) = locate(path)?;
        let dir = self.directory(&dir)?;
        dir.settle(&name);
        dir.durable.remove(&name);
        dir.current.remove(&name);
        Ok(())
    }
}

/// The path without its `.` components and doubled separators.
pub(super) fn normal(path: &Path) -> PathBuf {
    path.components()
        .filter(|part| *part != Component::CurDir)
        .collect()
}

/// The directory and the name that `path` consists of.
fn locate(path: &Path) -> io::Result<(PathBuf, String)> {
    let path = normal(path);
    match (path.parent(), path.file_name().and_then(OsStr::to_str)) {
        (Some(dir), Some(name)) => Ok((dir.to_path_buf(), name.to_owned())),
        _ => Err(io::ErrorKind::InvalidInput.into()),
    }
}
