//! Checking a catalog: redb's own check of its tree, and ours of the rows. The check goes over the
//! file through a view whose writes go nowhere, because redb may want to repair what it checks.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use redb::{Database, ReadableDatabase, StorageBackend};

use super::{CACHE_BYTES, Catalog, FEEDS, FRAMES, MARKS_CHUNK, ROOT, ROOT_KEY, STATE};
use super::{chunk_key, guarded, is_damage, rows};
use crate::catalog::rows::{FeedRow, RootRow};
use crate::encryption::Cipher;
use crate::error::{Error, Result};
use crate::log::SegmentId;
use crate::primitives::Mutex;
use crate::storage::{OpenMode, StorageFile};

/// What is written to the view is kept in pieces of this size.
const PAGE: u64 = 4096;

/// A file that shows what was written to it, and is not changed by it.
#[derive(Debug)]
pub(super) struct View {
    file: Arc<dyn StorageFile>,
    written: Mutex<Written>,
}

#[derive(Debug)]
struct Written {
    len: u64,
    pages: BTreeMap<u64, Vec<u8>>,
}

impl View {
    pub(super) fn of(file: Arc<dyn StorageFile>) -> io::Result<Self> {
        let written = Written {
            len: file.len()?,
            pages: BTreeMap::new(),
        };
        Ok(Self {
            written: Mutex::new(written),
            file,
        })
    }

    fn page(&self, written: &Written, page: u64) -> io::Result<Vec<u8>> {
        if let Some(bytes) = written.pages.get(&page) {
            return Ok(bytes.clone());
        }
        let mut bytes = vec![0; PAGE as usize];
        let there = self.file.len()?.saturating_sub(page * PAGE).min(PAGE);
        let there = bytes.split_at_mut(there as usize).0;
        self.file.read_exact_at(there, page * PAGE)?;
        Ok(bytes)
    }
}

impl StorageBackend for View {
    fn len(&self) -> io::Result<u64> {
        Ok(self.written.lock().len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let written = self.written.lock();
        if offset + out.len() as u64 > written.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut at = offset;
        let mut rest = out;
        while !rest.is_empty() {
            let page = self.page(&written, at / PAGE)?;
            let start = (at % PAGE) as usize;
            let len = rest.len().min(page.len() - start);
            let (part, tail) = rest.split_at_mut(len);
            part.copy_from_slice(&page[start..start + len]);
            (at, rest) = (at + len as u64, tail);
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.written.lock().len = len;
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut written = self.written.lock();
        let mut at = offset;
        let mut rest = data;
        while !rest.is_empty() {
            let number = at / PAGE;
            let mut page = self.page(&written, number)?;
            let start = (at % PAGE) as usize;
            let (part, tail) = rest.split_at(rest.len().min(page.len() - start));
            page[start..start + part.len()].copy_from_slice(part);
            written.pages.insert(number, page);
            (at, rest) = (at + part.len() as u64, tail);
        }
        Ok(())
    }
}

impl Catalog {
    /// Checks the file as it is now. Nothing is saved meanwhile.
    ///
    /// # Errors
    /// [`Error::Corrupt`] for what is wrong; an I/O error.
    pub(crate) fn check(&self) -> Result<()> {
        if self.root.position().segment == SegmentId(0) {
            // Nothing was ever saved.
            return Ok(());
        }
        let failed = |error| Error::io("read", &self.path, error);
        let file = self.storage.open(&self.path, OpenMode::Existing);
        let view = file.and_then(View::of).map_err(failed)?;
        let checked = guarded(|| {
            let mut database = Database::builder()
                .set_cache_size(CACHE_BYTES)
                .create_with_backend(view)?;
            let whole = database.check_integrity()?;
            let wrong = check_rows(&database, &self.cipher)?;
            // Closing it writes, which goes nowhere.
            Ok::<_, redb::Error>(match whole {
                true => wrong,
                false => Some("the catalog's tree"),
            })
        });
        match checked {
            Some(Ok(None)) => Ok(()),
            Some(Ok(Some(what))) => Err(Error::corrupt(&self.path, 0, what)),
            Some(Err(error)) => match self.failed(error) {
                error if is_damage(&error) => Err(self.broken()),
                error => Err(error),
            },
            None => Err(self.broken()),
        }
    }
}

/// Checks every row by its checksum, and the tables by their sums; what is wrong, if something is.
fn check_rows(database: &Database, cipher: &Cipher) -> Result<Option<&'static str>, redb::Error> {
    let transaction = database.begin_read()?;
    let root = transaction.open_table(ROOT.definition())?;
    let root = ROOT.get(cipher, &root, ROOT_KEY)?;
    let Some(root) = root.and_then(|root| rows::decode::<RootRow>(ROOT_KEY, &root)) else {
        return Ok(Some("the catalog's root"));
    };
    let feeds = FEEDS.rows(cipher, &transaction.open_table(FEEDS.definition())?)?;
    let state = STATE.rows(cipher, &transaction.open_table(STATE.definition())?)?;
    let (Some(feeds), Some(state)) = (feeds, state) else {
        return Ok(Some("a row of the catalog"));
    };
    let mut sums = [0u64; 2];
    for (known, sum) in [&feeds, &state].into_iter().zip(&mut sums) {
        for (key, value) in known {
            if rows::open(key, value).is_none() {
                return Ok(Some("a row of the catalog"));
            }
            *sum = sum.wrapping_add(rows::weight(value));
        }
    }
    if sums != [root.feeds_sum, root.state_sum] {
        return Ok(Some("a row of the catalog is missing"));
    }
    let frames = transaction.open_table(FRAMES.definition())?;
    for (key, value) in feeds {
        let Some(row) = rows::decode::<FeedRow>(&key, &value) else {
            return Ok(Some("a row of the catalog"));
        };
        let marks = row.marks.then_some(MARKS_CHUNK);
        let mut sum = 0u64;
        for chunk in (0..row.chunks).chain(marks) {
            let key = chunk_key(row.stream(), chunk);
            let value = FRAMES.get(cipher, &frames, &key)?;
            let Some(value) = value.filter(|value| rows::open(&key, value).is_some()) else {
                return Ok(Some("the frames of a feed"));
            };
            sum = sum.wrapping_add(rows::weight(&value));
        }
        if sum != row.chunks_sum {
            return Ok(Some("the frames of a feed"));
        }
    }
    Ok(None)
}
