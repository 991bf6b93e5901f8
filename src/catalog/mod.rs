//! The catalog: what an open needs to know without reading the log. Feeds, their frames, the
//! store's state, and the log position up to which all that holds.
//!
//! It is derived data, kept in redb, written about once per 64 MiB of log and on close, never on
//! the commit path. Whatever is wrong with it, the answer is to derive it again from the log; so
//! every row carries a checksum, and the root row a sum over all rows, to notice what is wrong.

mod backend;
mod check;
mod copy;
mod rewrite;
pub(crate) mod rows;
mod vault;

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use redb::{Database, ReadableDatabase};

pub(crate) use rows::{FeedRow, RootRow};

use crate::catalog::backend::Backend;
use crate::catalog::rewrite::{TEMPORARY_NAME, name_key};
use crate::catalog::vault::{Kept, Sums};
use crate::cursor::StreamId;
use crate::encryption::{Cipher, key_id, same_key};
use crate::error::{Error, Result};
use crate::feed::directory::FrameRef;
use crate::feed::marks::Marks;
use crate::index::shelf::Shelf;
use crate::log::manifest::Manifest;
use crate::state::{StateKey, StateOp};
use crate::storage::{OpenMode, Storage};

const ROOT: Kept = table("root", false);
const FEEDS: Kept = table("feeds", false);
const FRAMES: Kept = table("frames", false);
const STATE: Kept = table("state", true);

const fn table(name: &'static str, hides_keys: bool) -> Kept {
    Kept { name, hides_keys }
}

const ROOT_KEY: &[u8] = b"root";
const MANIFEST_KEY: &[u8] = b"manifest";
const SHELF_KEY: &[u8] = b"index runs";
const VERSION_KEY: &[u8] = b"version";
/// The version this build writes, and the newest one it reads. A catalog that says nothing is of
/// the first one.
const VERSION: u32 = 1;

const FILE_NAME: &str = "catalog.redb";
/// The catalog is read once and written now and then: it needs no large cache.
const CACHE_BYTES: usize = 4 << 20;

/// The open catalog of a store.
pub(crate) struct Catalog {
    storage: Arc<dyn Storage>,
    dir: PathBuf,
    path: PathBuf,
    cipher: Cipher,
    /// `None` after a failure, until the next use opens it again.
    database: Option<Guarded>,
    pub(crate) root: RootRow,
    /// Set while a save may have failed: the next one writes everything that is in memory.
    pub(crate) stale: bool,
    /// Whether the file's name is on stable storage.
    named: bool,
    /// Set when the store is closed: the file may be another opener's by now.
    disconnected: bool,
}

/// Runs redb code; `None` when it panics. On a damaged file redb can, and for this crate that is
/// damage like any other.
fn guarded<T>(run: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(run)).ok()
}

/// A database that is also dropped under guard: redb writes when it is dropped.
struct Guarded(Option<Database>);

impl Drop for Guarded {
    fn drop(&mut self) {
        let database = self.0.take();
        guarded(|| drop(database));
    }
}

/// What an open reads from the catalog.
#[derive(Default)]
pub(crate) struct Contents {
    pub(crate) feeds: BTreeMap<StreamId, FeedRow>,
    pub(crate) state: BTreeMap<StateKey, Vec<u8>>,
    pub(crate) manifest: Manifest,
    pub(crate) shelf: Shelf,
}

/// The changes of one feed since the last save.
pub(crate) struct FeedChanges {
    pub(crate) row: FeedRow,
    pub(crate) chunks: Vec<(usize, Vec<FrameRef>)>,
    /// How many chunks there are in all.
    pub(crate) chunks_len: usize,
    /// The feed's marks, if they changed.
    pub(crate) marks: Option<Vec<u8>>,
}

/// What a save writes.
pub(crate) struct Save<'a> {
    /// Its sums are worked out by the save.
    pub(crate) root: RootRow,
    pub(crate) feeds: Vec<FeedChanges>,
    pub(crate) manifest: &'a Manifest,
    /// Encoded.
    pub(crate) shelf: Vec<u8>,
    /// Epochs of feeds that are over.
    pub(crate) dropped: &'a BTreeSet<StreamId>,
    pub(crate) state: &'a [StateOp],
    /// Whether `state` is all there is, and not only what changed.
    pub(crate) whole: bool,
}

/// Whether an error says that the file is not what was written, rather than not accessible.
fn is_damage(error: &Error) -> bool {
    use std::io::ErrorKind::{InvalidData, UnexpectedEof};
    match error {
        Error::Io { source, .. } => matches!(source.kind(), InvalidData | UnexpectedEof),
        Error::DiskFull { .. } => false,
        _ => true,
    }
}

/// Removes those of some files of the catalog that are there.
fn remove(storage: &Arc<dyn Storage>, dir: &Path, files: &[&str]) -> Result<()> {
    let names = storage
        .list(dir)
        .map_err(|error| Error::io("list", dir, error))?;
    for name in names.iter().filter(|name| files.contains(&name.as_str())) {
        let path = dir.join(name);
        storage
            .remove(&path)
            .map_err(|error| Error::io("remove", &path, error))?;
    }
    Ok(())
}

/// Where a feed's marks are among its chunks of frames.
const MARKS_CHUNK: u64 = u64::MAX;

fn feed_key(stream: StreamId) -> [u8; 12] {
    let mut key = [0; 12];
    key[..8].copy_from_slice(&stream.feed.0.to_le_bytes());
    key[8..].copy_from_slice(&stream.epoch.to_le_bytes());
    key
}

fn chunk_key(stream: StreamId, chunk: u64) -> [u8; 20] {
    let mut key = [0; 20];
    key[..12].copy_from_slice(&feed_key(stream));
    key[12..].copy_from_slice(&chunk.to_le_bytes());
    key
}

impl Catalog {
    pub(crate) fn path_in(store: &Path) -> PathBuf {
        store.join(FILE_NAME)
    }

    /// Opens the catalog of the store in `dir`; `None` when there is none, or when it is damaged,
    /// so that it must be derived from the log. One that is under another of the `ciphers` than the
    /// first is sealed anew, and without what it knew of the index.
    pub(crate) fn open(
        storage: &Arc<dyn Storage>,
        dir: &Path,
        store: [u8; 16],
        ciphers: &[Cipher],
    ) -> Result<Option<(Self, Contents)>> {
        if !storage
            .list(dir)
            .is_ok_and(|names| names.iter().any(|name| name == FILE_NAME))
        {
            return Ok(None);
        }
        let mut catalog = Self::at(storage, dir, FILE_NAME, None);
        let read = catalog
            .connect(OpenMode::Existing)
            .and_then(|closed| catalog.read(closed, ciphers));
        match read {
            Err(error @ Error::UnknownFormat { .. }) => Err(error),
            Ok(Some(contents)) if catalog.root.store == store => Ok(Some((catalog, contents))),
            Ok(_) => Ok(None),
            Err(error) if is_damage(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn at(storage: &Arc<dyn Storage>, dir: &Path, name: &str, cipher: Cipher) -> Self {
        Self {
            storage: storage.clone(),
            dir: dir.to_owned(),
            path: dir.join(name),
            cipher,
            database: None,
            root: RootRow::default(),
            stale: false,
            named: true,
            disconnected: false,
        }
    }

    /// Makes the name that the file has been given durable.
    fn sync_name(&mut self) -> Result<()> {
        let synced = self.storage.sync_dir(&self.dir);
        synced.map_err(|error| Error::io("sync directory", &self.dir, error))?;
        self.named = true;
        Ok(())
    }

    /// Finds out which cipher it is under, and reads it; `None` when something is wrong.
    fn read(&mut self, closed: bool, ciphers: &[Cipher]) -> Result<Option<Contents>> {
        let sealed = self.sealed_under()?;
        let Some(cipher) = ciphers.iter().find(|cipher| key_id(cipher) == sealed) else {
            return Ok(None);
        };
        self.cipher = cipher.clone();
        let Some(mut contents) = self.read_all()? else {
            return Ok(None);
        };
        if let Some(current) = ciphers.first().filter(|current| !same_key(current, cipher)) {
            if !self.rewrite(current)? {
                return Ok(None);
            }
            contents.shelf = Shelf::default();
        } else if !closed && !self.renew()? {
            return Ok(None);
        }
        Ok(Some(contents))
    }

    /// Makes an empty catalog in the place of whatever is there.
    pub(crate) fn create(
        storage: &Arc<dyn Storage>,
        dir: &Path,
        store: [u8; 16],
        cipher: &Cipher,
    ) -> Result<Self> {
        remove(storage, dir, &[FILE_NAME, TEMPORARY_NAME])?;
        let mut catalog = Self::at(storage, dir, FILE_NAME, cipher.clone());
        (catalog.root, catalog.stale) = (RootRow::of(store), true);
        catalog.connect(OpenMode::CreateNew)?;
        catalog.sync_name()?;
        Ok(catalog)
    }

    /// Opens the file. False when it was not closed after what was saved last.
    fn connect(&mut self, mode: OpenMode) -> Result<bool> {
        if self.disconnected {
            return Err(Error::Closed);
        }
        let file = self
            .storage
            .open(&self.path, mode)
            .map_err(|error| Error::io("open", &self.path, error))?;
        let closed = Rc::new(Cell::new(true));
        let seen = closed.clone();
        let database = self.guard(|| {
            let mut builder = Database::builder();
            builder.set_cache_size(CACHE_BYTES);
            builder.set_repair_callback(move |_| seen.set(false));
            Ok(builder.create_with_backend(Backend(file))?)
        })?;
        self.database = Some(Guarded(Some(database)));
        Ok(closed.get())
    }

    /// Runs redb code.
    fn guard<T>(&self, run: impl FnOnce() -> Result<T, redb::Error>) -> Result<T> {
        match guarded(run) {
            Some(result) => result.map_err(|source| self.failed(source)),
            None => Err(self.broken()),
        }
    }

    fn broken(&self) -> Error {
        Error::corrupt(&self.path, 0, "the catalog's tree")
    }

    fn failed(&self, source: redb::Error) -> Error {
        match source {
            redb::Error::Io(source) => Error::io("use", &self.path, source),
            // The tables and their types never change.
            redb::Error::TableDoesNotExist(_)
            | redb::Error::TableTypeMismatch { .. }
            | redb::Error::TypeDefinitionChanged { .. }
            | redb::Error::TableIsMultimap(_)
            | redb::Error::TableIsNotMultimap(_)
            | redb::Error::Corrupted(_) => self.broken(),
            source => Error::Catalog {
                path: self.path.clone(),
                source: Box::new(source),
            },
        }
    }

    /// Opens a file again that was given up.
    fn reopen(&mut self) -> Result<()> {
        if self.connect(OpenMode::Existing)? {
            return Ok(());
        }
        match self.renew() {
            Ok(true) => Ok(()),
            failed => {
                self.database = None;
                failed.and(Err(self.broken()))
            }
        }
    }

    /// Runs redb code on the database, opened again if it was given up. It is given up when that
    /// fails: redb accepts nothing more after an I/O error.
    fn run<T>(
        &mut self,
        run: impl FnOnce(&Database, &Cipher) -> Result<T, redb::Error>,
    ) -> Result<T> {
        if self.database.is_none() {
            self.reopen()?;
        }
        if !self.named {
            self.sync_name()?;
        }
        let database = self.database()?;
        let result = self.guard(|| run(database, &self.cipher));
        if result.is_err() {
            self.database = None;
        }
        result
    }

    fn database(&self) -> Result<&Database> {
        let database = self
            .database
            .as_ref()
            .and_then(|guarded| guarded.0.as_ref());
        database.ok_or_else(|| self.broken())
    }

    /// Refuses a catalog that a newer build wrote.
    fn check_version(&self) -> Result<()> {
        let database = self.database()?;
        let found = self.guard(|| {
            let transaction = database.begin_read()?;
            let table = transaction.open_table(ROOT.definition())?;
            let value = ROOT.get(&self.cipher, &table, VERSION_KEY)?;
            Ok(value.and_then(|value| {
                let body = rows::open(VERSION_KEY, &value)?;
                body.first_chunk::<4>()
                    .map(|version| u32::from_le_bytes(*version))
            }))
        })?;
        match found.filter(|found| *found > VERSION) {
            Some(found) => Err(Error::UnknownFormat {
                path: self.path.clone(),
                found,
                supported: VERSION,
            }),
            None => Ok(()),
        }
    }

    /// Reads and checks the root, the feeds and the state; `None` when something is wrong.
    fn read_all(&mut self) -> Result<Option<Contents>> {
        self.check_version()?;
        let read = self.run(|database, cipher| {
            let transaction = database.begin_read()?;
            let table = transaction.open_table(ROOT.definition())?;
            let Some(value) = ROOT.get(cipher, &table, ROOT_KEY)? else {
                return Ok(None);
            };
            let Some(root) = rows::decode::<RootRow>(ROOT_KEY, &value) else {
                return Ok(None);
            };
            let mut contents = Contents::default();
            if let Some(value) = ROOT.get(cipher, &table, MANIFEST_KEY)? {
                let body = rows::open(MANIFEST_KEY, &value);
                let known = rows::weight(&value) == root.manifest_sum;
                let Some(manifest) = body.filter(|_| known).and_then(Manifest::decode) else {
                    return Ok(None);
                };
                contents.manifest = manifest;
            } else if root.manifest_sum != 0 {
                return Ok(None);
            }
            // What is wrong with this is no reason to read the log: indexes are built again.
            if let Some(value) = ROOT.get(cipher, &table, SHELF_KEY)?
                && rows::weight(&value) == root.shelf_sum
                && let Some(body) = rows::open(SHELF_KEY, &value)
            {
                contents.shelf = Shelf::decode(body).unwrap_or_default();
            }
            let (mut feeds_sum, mut state_sum) = (0u64, 0u64);
            let feeds = transaction.open_table(FEEDS.definition())?;
            let state = transaction.open_table(STATE.definition())?;
            let feeds = FEEDS.rows(cipher, &feeds)?;
            let state = STATE.rows(cipher, &state)?;
            let (Some(feeds), Some(state)) = (feeds, state) else {
                return Ok(None);
            };
            for (key, value) in feeds {
                let Some(row) = rows::decode::<FeedRow>(&key, &value) else {
                    return Ok(None);
                };
                feeds_sum = feeds_sum.wrapping_add(rows::weight(&value));
                contents.feeds.insert(row.stream(), row);
            }
            for (key, value) in state {
                let Some(body) = rows::open(&key, &value) else {
                    return Ok(None);
                };
                state_sum = state_sum.wrapping_add(rows::weight(&value));
                let body = body.to_vec();
                contents.state.insert(StateKey::from_bytes(key), body);
            }
            let whole = feeds_sum == root.feeds_sum && state_sum == root.state_sum;
            Ok(whole.then_some((root, contents)))
        })?;
        Ok(read.map(|(root, contents)| {
            self.root = root;
            contents
        }))
    }

    /// Reads the frames and the marks of a feed.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when they are not what the feed's row says; a rebuild derives them again.
    pub(crate) fn frames(&mut self, row: &FeedRow) -> Result<(Vec<FrameRef>, Marks)> {
        let frames = self.run(|database, cipher| {
            let transaction = database.begin_read()?;
            let table = transaction.open_table(FRAMES.definition())?;
            let mut frames = Vec::new();
            let mut sum = 0u64;
            for chunk in 0..row.chunks {
                let key = chunk_key(row.stream(), chunk);
                let Some(value) = FRAMES.get(cipher, &table, &key)? else {
                    return Ok(None);
                };
                let Some(chunk) = rows::decode_frames(&key, &value) else {
                    return Ok(None);
                };
                sum = sum.wrapping_add(rows::weight(&value));
                frames.extend(chunk);
            }
            let mut marks = Marks::default();
            if row.marks {
                let key = chunk_key(row.stream(), MARKS_CHUNK);
                let Some(value) = FRAMES.get(cipher, &table, &key)? else {
                    return Ok(None);
                };
                let body = rows::open(&key, &value);
                let Some(known) = body.and_then(Marks::decode) else {
                    return Ok(None);
                };
                sum = sum.wrapping_add(rows::weight(&value));
                marks = known;
            }
            Ok((sum == row.chunks_sum).then_some((frames, marks)))
        })?;
        frames.ok_or_else(|| Error::corrupt(&self.path, 0, "the frames of a feed"))
    }

    /// Gives the file up; nothing is written to it afterwards.
    pub(crate) fn disconnect(&mut self) {
        self.database = None;
        self.disconnected = true;
    }

    /// Saves changes in one transaction. Returns the feeds' rows as they are stored now.
    pub(crate) fn save(&mut self, save: Save<'_>) -> Result<Vec<FeedRow>> {
        self.stale = true;
        let (root, rows) = self.run(|database, cipher| write_all(database, cipher, save))?;
        self.root = root;
        self.stale = false;
        Ok(rows)
    }
}

fn write_all(
    database: &Database,
    cipher: &Cipher,
    save: Save<'_>,
) -> Result<(RootRow, Vec<FeedRow>), redb::Error> {
    let mut root = save.root;
    let transaction = database.begin_write()?;
    {
        // As they are there: a save that failed may have become durable all the same.
        let table = transaction.open_table(ROOT.definition())?;
        let stored = ROOT.get(cipher, &table, ROOT_KEY)?;
        let stored = stored.and_then(|row| rows::decode::<RootRow>(ROOT_KEY, &row));
        (root.feeds_sum, root.state_sum) =
            stored.map_or((0, 0), |row| (row.feeds_sum, row.state_sum));
    }
    let mut rows_now = Vec::with_capacity(save.feeds.len());
    {
        let mut feed_table = Sums::of(FEEDS, cipher, transaction.open_table(FEEDS.definition())?);
        let frames = transaction.open_table(FRAMES.definition())?;
        let mut frame_table = Sums::of(FRAMES, cipher, frames);
        for stream in save.dropped {
            feed_table.remove(&feed_key(*stream), &mut root.feeds_sum)?;
            let chunks = chunk_key(*stream, 0)..=chunk_key(*stream, MARKS_CHUNK);
            let (first, last) = (chunks.start().as_slice(), chunks.end().as_slice());
            // Chunk numbers are little-endian, so the range has other keys of this feed at most.
            frame_table
                .table
                .retain_in::<&[u8], _>(first..=last, |key, _| {
                    !key.starts_with(&feed_key(*stream))
                })?;
        }
        for changes in save.feeds {
            let FeedChanges {
                mut row,
                chunks,
                chunks_len,
                marks,
            } = changes;
            let feed_key = feed_key(row.stream());
            let known = FEEDS.get(cipher, &feed_table.table, &feed_key)?;
            let known = known.and_then(|old| rows::decode::<FeedRow>(&feed_key, &old));
            row.chunks = known.map_or(0, |known| known.chunks);
            row.chunks_sum = known.map_or(0, |known| known.chunks_sum);
            row.marks = known.is_some_and(|known| known.marks);
            for (chunk, frames) in chunks {
                let key = chunk_key(row.stream(), chunk as u64);
                let value = rows::encode_frames(&key, &frames);
                frame_table.replace(&key, &value, &mut row.chunks_sum)?;
                row.chunks = row.chunks.max(chunk as u64 + 1);
            }
            // Compaction leaves fewer of them.
            for chunk in chunks_len as u64..row.chunks {
                let key = chunk_key(row.stream(), chunk);
                frame_table.remove(&key, &mut row.chunks_sum)?;
            }
            row.chunks = row.chunks.min(chunks_len as u64);
            if let Some(marks) = marks {
                let key = chunk_key(row.stream(), MARKS_CHUNK);
                let value = rows::seal(&key, marks);
                frame_table.replace(&key, &value, &mut row.chunks_sum)?;
                row.marks = true;
            }
            let value = rows::encode(&feed_key, &row);
            feed_table.replace(&feed_key, &value, &mut root.feeds_sum)?;
            rows_now.push(row);
        }
        let mut state_table = Sums::of(STATE, cipher, transaction.open_table(STATE.definition())?);
        if save.whole {
            // Also what should have been removed by a save that failed.
            state_table.table.retain(|_, _| false)?;
            root.state_sum = 0;
        }
        for operation in save.state {
            let key = operation.key.as_bytes();
            match &operation.value {
                Some(value) => {
                    let value = rows::seal(key, value.clone());
                    state_table.replace(key, &value, &mut root.state_sum)?;
                }
                None => state_table.remove(key, &mut root.state_sum)?,
            }
        }
        let mut root_table = transaction.open_table(ROOT.definition())?;
        let manifest = rows::seal(MANIFEST_KEY, save.manifest.encode());
        root.manifest_sum = rows::weight(&manifest);
        let shelf = rows::seal(SHELF_KEY, save.shelf);
        root.shelf_sum = rows::weight(&shelf);
        let version = rows::seal(VERSION_KEY, VERSION.to_le_bytes().to_vec());
        let own = rows::encode(ROOT_KEY, &root);
        for (key, value) in [
            (MANIFEST_KEY, manifest),
            (SHELF_KEY, shelf),
            (VERSION_KEY, version),
            (ROOT_KEY, own),
        ] {
            ROOT.insert(cipher, &mut root_table, key, &value)?;
        }
    }
    name_key(&transaction, cipher)?;
    transaction.commit()?;
    Ok((root, rows_now))
}
