//! A run: a file of index entries sorted by key, for feeds whose index does not fit into memory.
//!
//! Keys are hashes, so where an entry should be follows from its key alone: its *home* block is the
//! key's share of all blocks. Blocks have room to spare; what a block has no room for goes into the
//! next, and the block says so. A look-up is one read, rarely two, and needs nothing in memory but
//! the [filter] that answers most questions for keys that are not there.
//!
//! | part | bytes |
//! |---|---|
//! | header | one block |
//! | blocks of entries | 1024 each: checksum (4), count (2), overflow (1), zero (5), 23 entries of 44 |
//! | filter | 64 each |
//!
//! Runs are derived from the log, and named by the catalog only when they are on stable storage.
//! [`writer`] makes them.
//!
//! [filter]: crate::index::filter

mod writer;

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::checksum::{self, checksum};
use crate::codec::Decoder;
use crate::cursor::{FeedId, StreamId};
use crate::encryption::Cipher;
use crate::error::{Error, Result};
use crate::hash::Fingerprint;
use crate::index::entry::{INDEX_ENTRY_LEN, IndexEntry};
use crate::index::filter::{self, Filter};
use crate::index::sorted::order;
use crate::storage::{OpenMode, Storage, StorageFile};

pub(crate) use self::writer::RunWriter;

const MAGIC: [u8; 8] = *b"HWINDRUN";
const VERSION: u32 = 1;
/// Bytes of a block.
const BLOCK: usize = 1024;
const BLOCK_HEADER: usize = 12;
/// Entries that a block has room for, and how many it has on average.
const ROOM: usize = 23;
const FILL: u64 = 18;
const _: () = assert!(BLOCK_HEADER + ROOM * INDEX_ENTRY_LEN == BLOCK);
const HEADER: usize = 128;
/// So much is written, and read in order, at once.
const BUFFER: usize = 256 << 10;

/// What a run is of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct RunName {
    pub(crate) store: [u8; 16],
    pub(crate) stream: StreamId,
    /// The number in the file's name; never given to another run as long as the catalog knows it.
    pub(crate) id: u64,
}

/// A run that is open for look-ups.
pub(crate) struct Run {
    name: RunName,
    path: PathBuf,
    file: Arc<dyn StorageFile>,
    count: u64,
    /// Blocks that are the home of some key's share, and blocks there are, with what overflows.
    homes: u64,
    blocks: u64,
    filter: Filter,
}

/// The path of a run in the directory of the index.
pub(crate) fn path_of(dir: &Path, id: u64) -> PathBuf {
    dir.join(format!("{id:010}.run"))
}

/// The id in the name of a run's file.
pub(crate) fn id_in(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".run")?;
    (digits.len() == 10).then(|| digits.parse().ok())?
}

/// The block that a key belongs into.
fn home(key: Fingerprint, homes: u64) -> u64 {
    // Less than `homes`.
    ((u128::from(key.head()) * u128::from(homes)) >> 64) as u64
}

fn block_at(block: u64) -> u64 {
    (block + 1) * BLOCK as u64
}

fn block_sum(id: u64, block: u64, bytes: &[u8; BLOCK]) -> u32 {
    checksum(id.rotate_left(32) ^ block, &[&bytes[4..]])
}

/// A block that was read and verified.
struct Block<'a> {
    entries: &'a [[u8; INDEX_ENTRY_LEN]],
    overflows: bool,
}

impl Run {
    pub(crate) fn id(&self) -> u64 {
        self.name.id
    }

    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    pub(crate) fn memory(&self) -> usize {
        self.filter.memory()
    }

    /// Opens a run, and reads its filter.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when it is not what `name` says, as a whole.
    pub(crate) fn open(
        storage: &dyn Storage,
        dir: &Path,
        name: RunName,
        cipher: &Cipher,
    ) -> Result<Self> {
        let path = path_of(dir, name.id);
        let failed = |op| {
            let path = path.clone();
            move |error: std::io::Error| match error.kind() {
                ErrorKind::NotFound | ErrorKind::UnexpectedEof | ErrorKind::InvalidData => {
                    Error::corrupt(&path, 0, "index run")
                }
                _ => Error::io(op, &path, error),
            }
        };
        let mut file = storage
            .open(&path, OpenMode::Existing)
            .map_err(failed("open"))?;
        if let Some(keys) = cipher {
            file = keys.open_file(file).map_err(failed("read"))?;
        }
        let mut header = [0; HEADER];
        file.read_exact_at(&mut header, 0).map_err(failed("read"))?;
        if let Some(found) = newer_version(&header, name) {
            return Err(Error::UnknownFormat {
                path,
                found,
                supported: VERSION,
            });
        }
        let damaged = || Error::corrupt(&path, 0, "index run");
        let (shape, filter_blocks, filter_sum) =
            decode_header(&header, name).ok_or_else(damaged)?;
        let [count, homes, blocks] = shape;
        let mut filter = Filter::decoder(filter_blocks as usize);
        let (mut at, mut sum) = (block_at(blocks), checksum::begin(name.id));
        let end = at + filter_blocks * filter::BLOCK as u64;
        let mut piece = vec![0; BUFFER];
        while at < end {
            let len = (end - at).min(BUFFER as u64);
            let piece = &mut piece[..len as usize];
            file.read_exact_at(piece, at).map_err(failed("read"))?;
            sum = checksum::append(sum, piece);
            filter.decode(piece);
            at += len;
        }
        if sum != filter_sum {
            return Err(Error::corrupt(&path, block_at(blocks), "index filter"));
        }
        Ok(Self {
            name,
            path,
            file,
            count,
            homes,
            blocks,
            filter,
        })
    }

    /// Whether the run may have a key; no read is needed to say no.
    pub(crate) fn may_have(&self, key: Fingerprint) -> bool {
        self.filter.may_have(key)
    }

    /// Begins to fetch what [`Run::may_have`] is going to look at.
    pub(crate) fn prefetch(&self, key: Fingerprint) {
        self.filter.prefetch(key);
    }

    pub(crate) fn find(&self, key: Fingerprint) -> Result<Option<IndexEntry>> {
        let wanted = key.to_bytes();
        let mut bytes = [0; BLOCK];
        for number in home(key, self.homes)..self.blocks {
            self.read(&mut bytes, block_at(number))?;
            let block = self.block(&bytes, number)?;
            let mut entries = block.entries.iter();
            if let Some(entry) = entries.find(|entry| entry[..Fingerprint::LEN] == wanted) {
                return Ok(IndexEntry::decode(entry));
            }
            if !block.overflows {
                break;
            }
        }
        Ok(None)
    }

    /// All entries in the order of their keys.
    pub(crate) fn scan(&self) -> RunScan<'_> {
        RunScan {
            run: self,
            block: 0,
            buffer: Vec::new(),
            at: 0,
            entry: 0,
        }
    }

    /// Reads every block: checksums, the order of keys, whether each is where it is looked for, and
    /// known to the filter. `read` is told the bytes that were read.
    pub(crate) fn check(&self, mut read: impl FnMut(u64) -> Result<()>) -> Result<()> {
        let damaged = |number| Error::corrupt(&self.path, block_at(number), "index block");
        let mut bytes = [0; BLOCK];
        let (mut count, mut before, mut overflows) = (0, None, false);
        for number in 0..self.blocks {
            self.read(&mut bytes, block_at(number))?;
            let block = self.block(&bytes, number)?;
            for entry in block.entries {
                let entry = IndexEntry::decode(entry).ok_or_else(|| damaged(number))?;
                let home = home(entry.key, self.homes);
                let found = home == number || (home < number && overflows);
                let ascends = before.is_none_or(|before| order(&before) < order(&entry));
                if !found || !ascends || !self.may_have(entry.key) {
                    return Err(damaged(number));
                }
                before = Some(entry);
                count += 1;
            }
            overflows = block.overflows;
            read(BLOCK as u64)?;
        }
        match count == self.count {
            true => Ok(()),
            false => Err(Error::corrupt(&self.path, 0, "index run")),
        }
    }

    fn read(&self, bytes: &mut [u8], offset: u64) -> Result<()> {
        let failed = |error: std::io::Error| match error.kind() {
            ErrorKind::UnexpectedEof => {
                Error::corrupt(&self.path, offset, "the index run is too short")
            }
            // What does not decrypt.
            ErrorKind::InvalidData => Error::corrupt(&self.path, offset, "index block"),
            _ => Error::io("read", &self.path, error),
        };
        self.file.read_exact_at(bytes, offset).map_err(failed)
    }

    fn block<'a>(&self, bytes: &'a [u8; BLOCK], number: u64) -> Result<Block<'a>> {
        let damaged = || Error::corrupt(&self.path, block_at(number), "index block");
        let (sum, rest) = bytes.split_first_chunk::<4>().ok_or_else(damaged)?;
        if u32::from_le_bytes(*sum) != block_sum(self.name.id, number, bytes) {
            return Err(damaged());
        }
        let count = u16::from_le_bytes([rest[0], rest[1]]) as usize;
        let (entries, _) = bytes[BLOCK_HEADER..].as_chunks::<INDEX_ENTRY_LEN>();
        Ok(Block {
            entries: entries.get(..count).ok_or_else(damaged)?,
            overflows: rest[2] != 0,
        })
    }
}

/// See [`Run::scan`].
pub(crate) struct RunScan<'a> {
    run: &'a Run,
    /// The next block to read.
    block: u64,
    buffer: Vec<u8>,
    /// The block in the buffer, and the entry in that, which come next.
    at: usize,
    entry: usize,
}

impl RunScan<'_> {
    /// The next entry.
    pub(crate) fn next(&mut self) -> Result<Option<IndexEntry>> {
        loop {
            let (blocks, _) = self.buffer.as_chunks::<BLOCK>();
            let Some(bytes) = blocks.get(self.at) else {
                if !self.fill()? {
                    return Ok(None);
                }
                continue;
            };
            if self.entry == 0 {
                let number = self.block - (blocks.len() - self.at) as u64;
                self.run.block(bytes, number)?;
            }
            // Verified when the block was begun.
            let count = u16::from_le_bytes([bytes[4], bytes[5]]) as usize;
            let (entries, _) = bytes[BLOCK_HEADER..].as_chunks::<INDEX_ENTRY_LEN>();
            if let Some(entry) = entries[..count].get(self.entry) {
                self.entry += 1;
                return Ok(IndexEntry::decode(entry));
            }
            self.at += 1;
            self.entry = 0;
        }
    }

    fn fill(&mut self) -> Result<bool> {
        let blocks = (self.run.blocks - self.block).min((BUFFER / BLOCK) as u64);
        self.buffer.resize(blocks as usize * BLOCK, 0);
        self.run.read(&mut self.buffer, block_at(self.block))?;
        self.block += blocks;
        self.at = 0;
        Ok(blocks > 0)
    }
}

/// The version in a header, if a newer build wrote it. Its headers end with a checksum where ours do:
/// a version that a flipped bit makes newer is damage, and then the run is derived anew.
fn newer_version(bytes: &[u8; HEADER], name: RunName) -> Option<u32> {
    let (body, sum) = bytes.split_last_chunk::<4>()?;
    let mut fields = Decoder::new(body);
    let ours = fields.array::<8>()? == MAGIC;
    let version = fields.u32()?;
    let intact = u32::from_le_bytes(*sum) == checksum(name.id, &[body]);
    (ours && intact && version > VERSION).then_some(version)
}

/// Count, homes and blocks; then the blocks of the filter and their checksum.
fn decode_header(bytes: &[u8; HEADER], name: RunName) -> Option<([u64; 3], u64, u32)> {
    let (body, sum) = bytes.split_last_chunk::<4>()?;
    if u32::from_le_bytes(*sum) != checksum(name.id, &[body]) {
        return None;
    }
    let mut fields = Decoder::new(body);
    let magic = fields.array::<8>()?;
    let version = fields.u32()?;
    let store = fields.array::<16>()?;
    let stream = StreamId {
        feed: FeedId(fields.u64()?),
        epoch: fields.u32()?,
    };
    let id = fields.u64()?;
    let shape = [fields.u64()?, fields.u64()?, fields.u64()?];
    let filter = (fields.u64()?, fields.u32()?);
    let right = (magic, version) == (MAGIC, VERSION) && name == RunName { store, stream, id };
    // A damaged header does not come this far, so this only bounds what is allocated.
    let plausible = filter.0 == Filter::blocks(shape[0]) as u64;
    (right && plausible).then_some((shape, filter.0, filter.1))
}

#[cfg(test)]
#[cfg(feature = "simulate")]
mod tests {
    use super::*;
    use crate::hash::Hasher;
    use crate::index::entry::sample as entry;
    use crate::index::sorted::sorted;
    use crate::storage::MemoryStorage;
    use proptest::prelude::*;

    const NAME: RunName = RunName {
        store: [3; 16],
        stream: StreamId {
            feed: FeedId(7),
            epoch: 2,
        },
        id: 5,
    };

    /// Hashes, or keys whose heads are crowded into one end of the space.
    fn key(number: u32, crowded: bool) -> Fingerprint {
        if crowded {
            let mut bytes = [0; 12];
            bytes[..4].copy_from_slice(&(number % 100).to_le_bytes());
            bytes[8..].copy_from_slice(&number.to_le_bytes());
            Fingerprint::from_bytes(bytes)
        } else {
            Hasher::new(&[1; 32]).id(&number.to_le_bytes())
        }
    }

    fn write(disk: &MemoryStorage, entries: &[IndexEntry], said: u64) -> Run {
        let dir = Path::new("/index");
        disk.create_dir_all(dir).unwrap();
        let mut writer = RunWriter::create(disk, dir, NAME, said, &None).unwrap();
        for entry in sorted(entries) {
            writer.push(&entry).unwrap();
        }
        writer.finish().unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

        #[test]
        fn a_run_has_what_was_put_into_it(count in 0u32..2000, more in 0u64..3000, crowded: bool) {
            let entries: Vec<IndexEntry> = (0..count)
                .map(|number| entry(key(number, crowded), u64::from(number) + 1))
                .collect();
            let disk = MemoryStorage::new();
            let run = write(&disk, &entries, u64::from(count) + more);
            prop_assert_eq!(run.count(), u64::from(count));
            for entry in &entries {
                prop_assert!(run.may_have(entry.key));
                prop_assert_eq!(run.find(entry.key).unwrap(), Some(*entry));
            }
            for number in count..count + 300 {
                prop_assert_eq!(run.find(key(number, crowded)).unwrap(), None);
            }
            let mut scan = run.scan();
            for entry in sorted(&entries) {
                prop_assert_eq!(scan.next().unwrap(), Some(entry));
            }
            prop_assert_eq!(scan.next().unwrap(), None);
        }
    }

    #[test]
    fn a_run_of_a_newer_version_is_named() {
        let disk = MemoryStorage::new();
        let run = write(&disk, &[entry(key(7, false), 1)], 10);
        let mut header = [0; HEADER];
        run.file.read_exact_at(&mut header, 0).unwrap();
        header[8..12].copy_from_slice(&(VERSION + 1).to_le_bytes());
        let (body, sum) = header.split_last_chunk_mut::<4>().unwrap();
        *sum = checksum(NAME.id, &[body]).to_le_bytes();
        run.file.write_all_at(&[&header], 0).unwrap();
        let opened = Run::open(&disk, Path::new("/index"), NAME, &None);
        assert!(matches!(opened, Err(Error::UnknownFormat { found, .. }) if found == VERSION + 1));
    }

    #[test]
    fn every_damaged_byte_is_noticed_where_it_matters() {
        let entries: Vec<IndexEntry> = (0..200).map(|n| entry(key(n, false), 1)).collect();
        let disk = MemoryStorage::new();
        let run = write(&disk, &entries, 200);
        let (dir, len) = (Path::new("/index"), run.file.len().unwrap());
        for at in 0..len {
            let mut byte = [0];
            run.file.read_exact_at(&mut byte, at).unwrap();
            run.file.write_all_at(&[&[byte[0] ^ 8]], at).unwrap();
            let found = Run::open(&disk, dir, NAME, &None).and_then(|run| {
                let find = |entry: &IndexEntry| run.find(entry.key);
                entries.iter().map(find).collect::<Result<Vec<_>>>()
            });
            let unused = (HEADER as u64..BLOCK as u64).contains(&at);
            match found {
                Ok(found) => {
                    assert!(unused, "byte {at}");
                    assert!(
                        found.iter().eq(entries
                            .iter()
                            .map(|e| Some(*e))
                            .collect::<Vec<_>>()
                            .iter())
                    );
                }
                Err(error) => assert!(matches!(error, Error::Corrupt { .. }), "byte {at}: {error}"),
            }
            run.file.write_all_at(&[&byte], at).unwrap();
        }
        let other = RunName { id: 6, ..NAME };
        disk.rename(&path_of(dir, 5), &path_of(dir, 6)).unwrap();
        assert!(
            Run::open(&disk, dir, other, &None).is_err(),
            "another run's file"
        );
    }
}
