//! Writing a run: block by block in the order of the keys, then the filter, and the header last.

use std::path::Path;

use super::{
    BLOCK, BLOCK_HEADER, BUFFER, FILL, HEADER, MAGIC, ROOM, Run, RunName, VERSION, block_sum, home,
    path_of,
};
use crate::checksum::{self, checksum};
use crate::encryption::Cipher;
use crate::error::{Error, Result};
use crate::index::entry::{INDEX_ENTRY_LEN, IndexEntry};
use crate::index::filter::{self, Filter};
use crate::storage::{OpenMode, Storage};

/// So much is written before it is synced: writers of the log, who sync too, need not wait for
/// more of it.
const SYNC_STEP: u64 = 8 << 20;

/// A run under construction.
pub(crate) struct RunWriter<'a> {
    storage: &'a dyn Storage,
    dir: &'a Path,
    run: Run,
    /// The block that entries go into, and what it has.
    block: u64,
    entries: Vec<[u8; INDEX_ENTRY_LEN]>,
    buffer: Vec<u8>,
    written: u64,
    synced: u64,
    finished: bool,
}

impl<'a> RunWriter<'a> {
    /// Begins a run of at most `count` entries.
    pub(crate) fn create(
        storage: &'a dyn Storage,
        dir: &'a Path,
        name: RunName,
        count: u64,
        cipher: &Cipher,
    ) -> Result<Self> {
        let path = path_of(dir, name.id);
        let failed = |error| Error::io("create", &path, error);
        let mut file = storage.open(&path, OpenMode::CreateNew).map_err(failed)?;
        if let Some(keys) = cipher {
            file = keys.create_file(file).map_err(failed)?;
        }
        let run = Run {
            name,
            path,
            file,
            count: 0,
            homes: count.div_ceil(FILL).max(1),
            blocks: 0,
            filter: Filter::for_keys(count),
        };
        Ok(Self {
            storage,
            dir,
            run,
            block: 0,
            entries: Vec::with_capacity(ROOM),
            buffer: Vec::with_capacity(BUFFER + BLOCK),
            written: BLOCK as u64,
            synced: 0,
            finished: false,
        })
    }

    /// Adds an entry; keys ascend.
    pub(crate) fn push(&mut self, entry: &IndexEntry) -> Result<()> {
        let home = home(entry.key, self.run.homes);
        while self.block < home {
            self.end_block(false)?;
        }
        if self.entries.len() == ROOM {
            self.end_block(true)?;
        }
        self.entries.push(entry.encode());
        self.run.filter.insert(entry.key);
        self.run.count += 1;
        Ok(())
    }

    fn end_block(&mut self, overflows: bool) -> Result<()> {
        let mut bytes = [0; BLOCK];
        bytes[4..6].copy_from_slice(&(self.entries.len() as u16).to_le_bytes());
        bytes[6] = u8::from(overflows);
        let entries = self.entries.as_flattened();
        bytes[BLOCK_HEADER..][..entries.len()].copy_from_slice(entries);
        let sum = block_sum(self.run.name.id, self.block, &bytes);
        bytes[..4].copy_from_slice(&sum.to_le_bytes());
        self.buffer.extend_from_slice(&bytes);
        self.entries.clear();
        self.block += 1;
        if self.buffer.len() >= BUFFER {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        let failed = |error| Error::io("write", &self.run.path, error);
        self.run
            .file
            .write_all_at(&[&self.buffer], self.written)
            .map_err(failed)?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        if self.written - self.synced >= SYNC_STEP {
            self.sync()?;
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<()> {
        let failed = |error| Error::io("sync", &self.run.path, error);
        self.run.file.sync_data().map_err(failed)?;
        self.synced = self.written;
        Ok(())
    }

    /// Ends the run, which is on stable storage then. How many keys there were may be less than was
    /// said; then the filter is made anew, to be as small as it can be.
    pub(crate) fn finish(mut self) -> Result<Run> {
        self.end_block(false)?;
        self.flush()?;
        self.run.blocks = self.block;
        let count = self.run.count;
        if Filter::blocks(count) != self.run.filter.len() {
            let mut filter = Filter::for_keys(count);
            let mut entries = self.run.scan();
            while let Some(entry) = entries.next()? {
                filter.insert(entry.key);
            }
            self.run.filter = filter;
        }
        let mut sum = checksum::begin(self.run.name.id);
        let filter = std::mem::replace(&mut self.run.filter, Filter::decoder(0));
        for piece in filter.encode(BUFFER / filter::BLOCK) {
            sum = checksum::append(sum, &piece);
            self.buffer = piece;
            self.flush()?;
        }
        self.run.filter = filter;
        let header = self.header(sum);
        let failed = |error| Error::io("write", &self.run.path, error);
        self.run.file.write_all_at(&[&header], 0).map_err(failed)?;
        self.sync()?;
        self.storage
            .sync_dir(self.dir)
            .map_err(|error| Error::io("sync directory", self.dir, error))?;
        self.finished = true;
        let run = &mut self.run;
        Ok(Run {
            name: run.name,
            path: std::mem::take(&mut run.path),
            file: run.file.clone(),
            filter: std::mem::replace(&mut run.filter, Filter::decoder(0)),
            ..*run
        })
    }

    fn header(&self, filter_sum: u32) -> [u8; HEADER] {
        let Run {
            name,
            count,
            homes,
            blocks,
            ..
        } = &self.run;
        let bytes = crate::codec::Encoder::default()
            .array(&MAGIC)
            .u32(VERSION)
            .array(&name.store)
            .u64(name.stream.feed.0)
            .u32(name.stream.epoch)
            .u64(name.id)
            .u64(*count)
            .u64(*homes)
            .u64(*blocks)
            .u64(self.run.filter.len() as u64)
            .u32(filter_sum)
            .finish();
        let mut header = [0; HEADER];
        header[..bytes.len()].copy_from_slice(&bytes);
        let sum = checksum(name.id, &[&header[..HEADER - 4]]);
        header[HEADER - 4..].copy_from_slice(&sum.to_le_bytes());
        header
    }
}

impl Drop for RunWriter<'_> {
    fn drop(&mut self) {
        if !self.finished {
            // If that fails, the next open removes it.
            let _ = self.storage.remove(&self.run.path);
        }
    }
}
