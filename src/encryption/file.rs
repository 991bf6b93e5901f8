//! A file that is sealed page by page: what a run of an index is written through. Pages are written
//! in any order, each whole; what is left of the last one is zeros.
//!
//! | part | bytes |
//! |---|---|
//! | head | magic `HWSEALED` (8), id of the key (8), salt of the file's key (24) |
//! | pages | salt (24), 1024 bytes, tag (16) each |

use std::fmt;
use std::io;
use std::sync::Arc;

use aes_gcm::Nonce;
use aes_gcm::aead::AeadInOut;

use super::keys::{Derived, made_from};
use super::{SALT_LEN, Salt, StoreKeys, TAG_LEN};
use crate::storage::StorageFile;

const MAGIC: [u8; 8] = *b"HWSEALED";
const HEAD: usize = 8 + 8 + SALT_LEN;
/// Bytes of a page, sealed and plain.
const PAGE: usize = 1024;
const SEALED: usize = SALT_LEN + PAGE + TAG_LEN;

/// See the module.
pub(crate) struct SealedFile {
    inner: Arc<dyn StorageFile>,
    keys: Arc<StoreKeys>,
    key: Derived,
}

impl StoreKeys {
    /// Seals what is written into a new file.
    pub(crate) fn create_file(
        self: &Arc<Self>,
        inner: Arc<dyn StorageFile>,
    ) -> io::Result<Arc<dyn StorageFile>> {
        let salt = self.draw();
        inner.write_all_at(&[&MAGIC, &self.id().0, &salt], 0)?;
        Ok(Arc::new(SealedFile::new(self, inner, &salt)))
    }

    /// Opens what [`StoreKeys::create_file`] has sealed.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`] when it is not sealed under this key.
    pub(crate) fn open_file(
        self: &Arc<Self>,
        inner: Arc<dyn StorageFile>,
    ) -> io::Result<Arc<dyn StorageFile>> {
        let mut head = [0; HEAD];
        inner.read_exact_at(&mut head, 0)?;
        let named = head.strip_prefix(&MAGIC);
        let salt = named.and_then(|rest| rest.strip_prefix(&self.id().0));
        let salt = salt.and_then(|salt| salt.try_into().ok());
        let salt: Salt = salt.ok_or(io::ErrorKind::InvalidData)?;
        Ok(Arc::new(SealedFile::new(self, inner, &salt)))
    }
}

impl SealedFile {
    fn new(keys: &Arc<StoreKeys>, inner: Arc<dyn StorageFile>, salt: &Salt) -> Self {
        Self {
            inner,
            keys: keys.clone(),
            key: Derived::new(*blake3::keyed_hash(&keys.file, salt).as_bytes()),
        }
    }

    fn place(page: u64) -> u64 {
        HEAD as u64 + page * SEALED as u64
    }

    /// Appends a page as it is stored. Each has a key of its own, which seals nothing else, so that
    /// its nonce can be zero.
    fn seal(&self, page: u64, plain: &[u8], sealed: &mut Vec<u8>) {
        let salt = self.keys.draw();
        sealed.extend_from_slice(&salt);
        let start = sealed.len();
        sealed.extend_from_slice(plain);
        sealed.resize(start + PAGE, 0);
        let body = sealed[start..].as_mut().into();
        let cipher = made_from(&self.key, &salt);
        // Sealing fails for more than 64 GiB only.
        let tag = cipher.encrypt_inout_detached(&Nonce::default(), &page.to_le_bytes(), body);
        sealed.extend_from_slice(&tag.unwrap_or_default());
    }

    /// The plain bytes of a sealed page; `None` when it is not what was sealed.
    fn open<'a>(&self, page: u64, sealed: &'a mut [u8; SEALED]) -> Option<&'a [u8]> {
        let (salt, rest) = sealed.split_first_chunk_mut::<SALT_LEN>()?;
        let (body, tag) = rest.split_last_chunk_mut::<TAG_LEN>()?;
        let cipher = made_from(&self.key, salt);
        let (nonce, covered) = (Nonce::default(), page.to_le_bytes());
        let buffer = (&mut *body).into();
        let opened = cipher.decrypt_inout_detached(&nonce, &covered, buffer, (&*tag).into());
        opened.is_ok().then_some(body)
    }
}

impl fmt::Debug for SealedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SealedFile").field(&self.inner).finish()
    }
}

impl StorageFile for SealedFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let (first, skipped) = (offset / PAGE as u64, (offset % PAGE as u64) as usize);
        let pages = (skipped + buf.len()).div_ceil(PAGE);
        let mut sealed = vec![0; pages * SEALED];
        self.inner.read_exact_at(&mut sealed, Self::place(first))?;
        let (mut filled, mut skipped) = (0, skipped);
        for (number, page) in (first..).zip(sealed.as_chunks_mut::<SEALED>().0) {
            let plain = self.open(number, page).ok_or(io::ErrorKind::InvalidData)?;
            let plain = &plain[skipped..];
            let len = plain.len().min(buf.len() - filled);
            buf[filled..][..len].copy_from_slice(&plain[..len]);
            (filled, skipped) = (filled + len, 0);
        }
        Ok(filled)
    }

    fn write_all_at(&self, bufs: &[&[u8]], offset: u64) -> io::Result<()> {
        if !offset.is_multiple_of(PAGE as u64) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let plain = bufs.concat();
        let first = offset / PAGE as u64;
        let mut sealed = Vec::with_capacity(plain.len().div_ceil(PAGE) * SEALED);
        for (page, plain) in (first..).zip(plain.chunks(PAGE)) {
            self.seal(page, plain, &mut sealed);
        }
        self.inner.write_all_at(&[&sealed], Self::place(first))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.inner.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        let sealed = self.inner.len()?.saturating_sub(HEAD as u64);
        Ok(sealed.div_ceil(SEALED as u64) * PAGE as u64)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.inner.set_len(Self::place(len.div_ceil(PAGE as u64)))
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.inner.allocate(Self::place(len.div_ceil(PAGE as u64)))
    }
}

#[cfg(all(test, feature = "simulate"))]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::encryption::Key;
    use crate::storage::{MemoryStorage, OpenMode, Storage};

    #[test]
    fn pages_read_back_at_their_place_and_every_byte_of_them_counts() {
        let disk = MemoryStorage::new();
        disk.create_dir_all(Path::new("/d")).unwrap();
        let path = Path::new("/d/f");
        let inner = disk.open(path, OpenMode::CreateNew).unwrap();
        let keys = |byte| Arc::new(StoreKeys::new(&Key::new(&[byte; 32]), &[2; 16]).unwrap());
        let file = keys(1).create_file(inner.clone()).unwrap();
        let plain: Vec<u8> = (0..3 * PAGE + 100).map(|at| (at % 251) as u8).collect();
        file.write_all_at(&[&plain[PAGE..]], PAGE as u64).unwrap();
        file.write_all_at(&[&plain[..PAGE]], 0).unwrap();
        let file = keys(1).open_file(inner.clone()).unwrap();
        for (from, to) in [(0, plain.len()), (1000, 2100), (1024, 2048), (3000, 3172)] {
            let mut read = vec![0; to - from];
            file.read_exact_at(&mut read, from as u64).unwrap();
            assert_eq!(read, plain[from..to]);
        }
        assert_eq!(file.len().unwrap(), 4 * PAGE as u64);
        assert!(file.write_all_at(&[b"x"], 1).is_err());
        assert!(keys(3).open_file(inner.clone()).is_err(), "another key");
        let bytes = disk.read_file(path).unwrap();
        for at in (0..bytes.len()).step_by(7) {
            inner.write_all_at(&[&[bytes[at] ^ 4]], at as u64).unwrap();
            let read = keys(1)
                .open_file(inner.clone())
                .and_then(|file| file.read_exact_at(&mut vec![0; plain.len()], 0));
            assert_eq!(
                read.unwrap_err().kind(),
                io::ErrorKind::InvalidData,
                "byte {at}"
            );
            inner.write_all_at(&[&bytes[at..=at]], at as u64).unwrap();
        }
        // Pages that change places are noticed.
        let (a, b) = (HEAD, HEAD + SEALED);
        inner
            .write_all_at(&[&bytes[b..b + SEALED], &bytes[a..b]], a as u64)
            .unwrap();
        assert!(file.read_exact_at(&mut [0; 8], 0).is_err());
    }
}
