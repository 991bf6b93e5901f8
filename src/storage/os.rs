//! Files of the operating system.
//!
//! Errors are those of the system, unchanged: whoever calls knows the path and adds it.

#![expect(
    clippy::disallowed_methods,
    reason = "this is the storage the ban points to"
)]

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::ops::Range;
use std::path::Path;
use std::process;
use std::sync::Arc;

use super::{OpenMode, Storage, StorageFile, StorageLock};

/// The file system of the machine. Files are created with mode 0600, directories with 0700.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsStorage;

impl Storage for OsStorage {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn StorageFile>> {
        let mut options = private_options();
        if mode == OpenMode::CreateNew {
            options.create_new(true);
        }
        Ok(Arc::new(OsFile {
            file: options.open(path)?,
        }))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut builder = DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(or_here(dir))? {
            let entry = entry?;
            if !entry.file_type()?.is_dir() {
                // The engine's own names are ASCII; a lossy name is still good for reporting.
                names.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    /// Only where the links of a file can be counted too, so that none is written to unawares.
    #[cfg(unix)]
    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to)
    }

    #[cfg(unix)]
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(or_here(dir))?.sync_all()
    }

    #[cfg(unix)]
    fn free_space(&self, dir: &Path) -> io::Result<Option<u64>> {
        let found = rustix::fs::statvfs(or_here(dir))?;
        Ok(Some(found.f_bavail.saturating_mul(found.f_frsize)))
    }

    /// Only Unix can sync a directory; elsewhere the file system orders its own metadata.
    #[cfg(not(unix))]
    fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }

    /// The holder's process id is written into the file as decimal text, for whoever comes second.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn StorageLock>> {
        let file = private_options().create(true).truncate(false).open(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(io::ErrorKind::WouldBlock.into()),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        let lock = OsLock { file };
        // The process id is a courtesy: a full disk must not keep a store from being opened.
        let _ = lock.write_holder(process::id());
        Ok(Box::new(lock))
    }
}

/// Whether the process, or the system, has as many files open as it may.
pub(crate) fn is_out_of_descriptors(error: &io::Error) -> bool {
    #[cfg(unix)]
    {
        use rustix::io::Errno;
        matches!(
            Errno::from_io_error(error),
            Some(Errno::MFILE | Errno::NFILE)
        )
    }
    // ERROR_TOO_MANY_OPEN_FILES
    #[cfg(not(unix))]
    {
        error.raw_os_error() == Some(4)
    }
}

/// Read and write, for the owner only.
fn private_options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// The directory of a bare file name is the empty path, which the system does not know.
fn or_here(dir: &Path) -> &Path {
    if dir.as_os_str().is_empty() {
        Path::new(".")
    } else {
        dir
    }
}

/// A held lock file.
#[derive(Debug)]
struct OsLock {
    file: File,
}

impl OsLock {
    fn write_holder(&self, pid: u32) -> io::Result<()> {
        self.file.set_len(0)?;
        sys::write_all_at(&self.file, &[pid.to_string().as_bytes()], 0)
    }
}

impl StorageLock for OsLock {}

impl Drop for OsLock {
    fn drop(&mut self) {
        // Closing is not enough while a child that was forked but has not yet called exec still
        // shares the descriptor. Nothing can be done about a failure here, and closing follows.
        let _ = self.file.unlock();
    }
}

/// An open file.
#[derive(Debug)]
struct OsFile {
    file: File,
}

impl StorageFile for OsFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        sys::read_at(&self.file, buf, offset)
    }

    fn write_all_at(&self, bufs: &[&[u8]], offset: u64) -> io::Result<()> {
        sys::write_all_at(&self.file, bufs, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    #[cfg(unix)]
    fn is_linked(&self) -> io::Result<bool> {
        let metadata = self.file.metadata()?;
        Ok(std::os::unix::fs::MetadataExt::nlink(&metadata) > 1)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        if sys::reserve(&self.file, len)? {
            return Ok(());
        }
        if self.file.metadata()?.len() < len {
            self.file.set_len(len)?;
        }
        Ok(())
    }

    /// File systems that write in place note which reserved blocks hold data, in a journal. A sync of
    /// blocks that hold some already, be it zeros, has nothing to note.
    fn prepare(&self, space: Range<u64>) -> io::Result<()> {
        if !sys::writes_in_place(&self.file) {
            return Ok(());
        }
        // At once, so that the pages lie together in memory: a quarter less time than page by page.
        let zeros = vec![0; space.end.saturating_sub(space.start) as usize];
        self.write_all_at(&[&zeros], space.start)
    }
}

/// Positioned input and output on Unix.
#[cfg(unix)]
mod sys {
    use std::fs::File;
    use std::io::{self, IoSlice};
    use std::os::unix::fs::FileExt;

    use rustix::io::Errno;

    /// The most buffers one `pwritev` takes (`IOV_MAX` on Linux and macOS).
    const MAX_SLICES: usize = 1024;

    pub(super) fn read_at(file: &File, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        file.read_at(buf, offset)
    }

    pub(super) fn write_all_at(file: &File, bufs: &[&[u8]], mut offset: u64) -> io::Result<()> {
        let mut slices = Vec::with_capacity(bufs.len().min(MAX_SLICES));
        for batch in bufs.chunks(MAX_SLICES) {
            slices.clear();
            slices.extend(
                batch
                    .iter()
                    .filter(|buf| !buf.is_empty())
                    .map(|buf| IoSlice::new(buf)),
            );
            let mut rest = slices.as_mut_slice();
            while !rest.is_empty() {
                match rustix::io::pwritev(file, rest, offset) {
                    Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                    Ok(written) => {
                        offset += written as u64;
                        IoSlice::advance_slices(&mut rest, written);
                    }
                    Err(Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }

    /// Reserves `len` bytes and extends the file to them; `false` where the system cannot.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    pub(super) fn reserve(file: &File, len: u64) -> io::Result<bool> {
        use rustix::fs::{FallocateFlags, fallocate};

        if len == 0 {
            return Ok(true);
        }
        loop {
            match fallocate(file, FallocateFlags::empty(), 0, len) {
                Ok(()) => return Ok(true),
                Err(Errno::INTR) => {}
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
    }

    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    pub(super) fn reserve(_file: &File, _len: u64) -> io::Result<bool> {
        Ok(false)
    }

    /// Whether blocks stay where they are when they are written again. Where they do not, writing
    /// them ahead would be for nothing.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    pub(super) fn writes_in_place(file: &File) -> bool {
        /// `EXT4_SUPER_MAGIC`, which ext2 and ext3 have too, and `XFS_SUPER_MAGIC`; see statfs(2).
        const IN_PLACE: [rustix::fs::FsWord; 2] = [0xef53, 0x5846_5342];
        rustix::fs::fstatfs(file).is_ok_and(|it| IN_PLACE.contains(&it.f_type))
    }

    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    pub(super) fn writes_in_place(_file: &File) -> bool {
        false
    }
}

/// Positioned input and output on Windows.
#[cfg(windows)]
mod sys {
    use std::fs::File;
    use std::io;
    use std::os::windows::fs::FileExt;

    pub(super) fn read_at(file: &File, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        match file.seek_read(buf, offset) {
            // ERROR_HANDLE_EOF
            Err(error) if error.raw_os_error() == Some(38) => Ok(0),
            result => result,
        }
    }

    pub(super) fn write_all_at(file: &File, bufs: &[&[u8]], mut offset: u64) -> io::Result<()> {
        for buf in bufs {
            let mut rest = *buf;
            while !rest.is_empty() {
                match file.seek_write(rest, offset) {
                    Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                    Ok(written) => {
                        offset += written as u64;
                        rest = rest.split_at(written).1;
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    pub(super) fn reserve(_file: &File, _len: u64) -> io::Result<bool> {
        Ok(false)
    }

    pub(super) fn writes_in_place(_file: &File) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn create(dir: &Path, name: &str) -> Arc<dyn StorageFile> {
        OsStorage
            .open(&dir.join(name), OpenMode::CreateNew)
            .unwrap()
    }

    #[test]
    fn reads_back_what_thousands_of_buffers_wrote() {
        let dir = tempfile::tempdir().unwrap();
        let file = create(dir.path(), "a");
        let parts: Vec<Vec<u8>> = (0..3000_usize).map(|i| vec![i as u8; i % 7]).collect();
        let bufs: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        file.write_all_at(&bufs, 5).unwrap();
        file.sync_data().unwrap();
        let expected = [vec![0; 5], parts.concat()].concat();
        assert_eq!(file.len().unwrap(), expected.len() as u64);
        let mut actual = vec![1; expected.len()];
        file.read_exact_at(&mut actual, 0).unwrap();
        assert_eq!(actual, expected);
        let error = file
            .read_exact_at(&mut [0; 2], expected.len() as u64 - 1)
            .unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(file.read_at(&mut [0; 2], 1 << 40).unwrap(), 0);
    }

    #[test]
    fn allocates_and_truncates() {
        let dir = tempfile::tempdir().unwrap();
        let file = create(dir.path(), "a");
        assert!(file.is_empty().unwrap());
        file.allocate(0).unwrap();
        file.write_all_at(&[b"abc"], 0).unwrap();
        file.allocate(10_000).unwrap();
        file.allocate(100).unwrap();
        assert_eq!(file.len().unwrap(), 10_000);
        let mut bytes = [1; 4];
        file.read_exact_at(&mut bytes, 1).unwrap();
        assert_eq!(bytes, *b"bc\0\0");
        file.set_len(2).unwrap();
        assert_eq!(file.len().unwrap(), 2);
    }

    #[test]
    fn prepared_space_holds_nothing_and_the_rest_is_as_before() {
        let dir = tempfile::tempdir().unwrap();
        let file = create(dir.path(), "a");
        file.allocate(20_000).unwrap();
        file.write_all_at(&[b"before"], 4_090).unwrap();
        file.write_all_at(&[b"behind"], 15_000).unwrap();
        file.prepare(4_096..15_000).unwrap();
        file.prepare(15_006..15_006).unwrap();
        assert_eq!(file.len().unwrap(), 20_000);
        let mut bytes = vec![1; 20_000];
        file.read_exact_at(&mut bytes, 0).unwrap();
        let mut expected = vec![0; 20_000];
        expected[4_090..4_096].copy_from_slice(b"before");
        expected[15_000..15_006].copy_from_slice(b"behind");
        assert!(bytes == expected);
    }

    #[test]
    fn names_follow_create_rename_remove() {
        let dir = tempfile::tempdir().unwrap();
        let nested = dir.path().join("x").join("y");
        OsStorage.create_dir_all(&nested).unwrap();
        OsStorage.create_dir_all(&nested).unwrap();
        assert_eq!(
            OsStorage.list(&dir.path().join("x")).unwrap(),
            Vec::<String>::new()
        );
        let file = create(&nested, "b");
        create(&nested, "a");
        let again = OsStorage
            .open(&nested.join("a"), OpenMode::CreateNew)
            .unwrap_err();
        assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
        let missing = OsStorage
            .open(&nested.join("c"), OpenMode::Existing)
            .unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
        assert_eq!(OsStorage.list(&nested).unwrap(), ["a", "b"]);
        file.write_all_at(&[b"kept"], 0).unwrap();
        OsStorage
            .rename(&nested.join("b"), &nested.join("a"))
            .unwrap();
        OsStorage.sync_dir(&nested).unwrap();
        OsStorage.sync_dir(Path::new("")).unwrap();
        OsStorage.remove(&nested.join("a")).unwrap();
        assert!(OsStorage.list(&nested).unwrap().is_empty());
        let mut bytes = [0; 4];
        file.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(bytes, *b"kept");
    }

    #[cfg(unix)]
    #[test]
    fn a_linked_file_is_one_file_until_one_name_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (dir.path().join("one"), dir.path().join("two"));
        let file = create(dir.path(), "one");
        assert!(!file.is_linked().unwrap());
        OsStorage.link(&one, &two).unwrap();
        assert!(file.is_linked().unwrap());
        file.write_all_at(&[b"both"], 0).unwrap();
        assert_eq!(fs::read(&two).unwrap(), b"both");
        let taken = OsStorage.link(&one, &two).unwrap_err();
        assert_eq!(taken.kind(), io::ErrorKind::AlreadyExists);
        OsStorage.remove(&one).unwrap();
        assert!(!file.is_linked().unwrap());
    }

    #[cfg(unix)]
    #[test]
    fn only_the_owner_may_look() {
        use std::os::unix::fs::PermissionsExt;

        let dir = tempfile::tempdir().unwrap();
        let nested = dir.path().join("x").join("y");
        OsStorage.create_dir_all(&nested).unwrap();
        create(&nested, "a");
        let _lock = OsStorage.lock(&nested.join("l")).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&dir.path().join("x")), 0o700);
        assert_eq!(mode(&nested), 0o700);
        assert_eq!(mode(&nested.join("a")), 0o600);
        assert_eq!(mode(&nested.join("l")), 0o600);
    }

    #[cfg(unix)]
    #[test]
    fn the_lock_is_exclusive_and_names_its_holder() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        fs::write(&path, "a longer text than any process id").unwrap();
        let lock = OsStorage.lock(&path).unwrap();
        let error = OsStorage.lock(&path).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            process::id().to_string()
        );
        drop(lock);
        OsStorage.lock(&path).unwrap();
    }
}
