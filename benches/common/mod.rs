//! What the benchmarks share: the records, the directories, and the floors that the engine is
//! measured against.

use std::fmt::Write as _;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use highwater::{Durability, Feed, Options, Store};
use serde::Serialize;
use tempfile::TempDir;

pub(crate) mod floor;

/// The size of the payloads that most figures are about.
pub(crate) const SMALL: usize = 300;
/// The larger payloads.
pub(crate) const LARGE: usize = 2048;
/// The length of every id.
pub(crate) const ID_LEN: usize = 24;

/// A record of the raw interface.
pub(crate) type Raw = (String, Vec<u8>);

/// A sequence of pseudo-random numbers, the same in every run.
pub(crate) struct Random(u64);

impl Random {
    /// The sequence of a seed.
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number (SplitMix64).
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// Fills a buffer.
    pub(crate) fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.next().to_le_bytes()[..chunk.len()]);
        }
    }
}

/// Writes the id of record `number`: 24 characters, in no order that an index could profit from.
pub(crate) fn write_id(number: u64, id: &mut String) {
    id.clear();
    let scattered = Random::new(number).next();
    write!(id, "{scattered:016x}{number:08x}").expect("writing to a string succeeds");
}

/// Records with numbers from `first` on, with pseudo-random payloads of one length.
pub(crate) fn raw_records(first: u64, count: usize, body_len: usize) -> Vec<Raw> {
    let mut random = Random::new(first ^ 0xb0d7);
    let record = |number| {
        let mut id = String::with_capacity(ID_LEN);
        write_id(number, &mut id);
        let mut body = vec![0; body_len];
        random.fill(&mut body);
        (id, body)
    };
    (first..first + count as u64).map(record).collect()
}

/// Gives every `stride`-th record another payload, different from all it had before.
pub(crate) fn change(records: &mut [Raw], stride: usize, generation: u64) {
    for (_, body) in records.iter_mut().step_by(stride) {
        body[..8].copy_from_slice(&generation.to_le_bytes());
    }
}

/// Gives every record of a batch an id that no record had before.
pub(crate) fn renew(records: &mut [Raw], next: &mut u64) {
    for (id, _) in records {
        write_id(*next, id);
        *next += 1;
    }
}

/// A record as a program has it: about 300 bytes of JSON.
#[derive(Clone, Serialize)]
pub(crate) struct Contact {
    /// The id in its feed.
    pub(crate) id: String,
    name: String,
    email: String,
    company: String,
    phone: String,
    owner_id: u64,
    score: f64,
    active: bool,
    tags: Vec<String>,
    created_at: String,
    notes: Option<String>,
}

impl Contact {
    fn new(number: u64) -> Self {
        let mut random = Random::new(number ^ 0xc0de);
        let mut id = String::new();
        write_id(number, &mut id);
        let (name, company) = (random.next(), random.next() % 10_000);
        Self {
            id,
            name: format!("Person {name:x}"),
            email: format!("person.{name:x}@company-{company}.example.com"),
            company: format!("Company {company} Incorporated"),
            phone: format!("+49 30 {:08}", random.next() % 100_000_000),
            owner_id: random.next() % 1_000_000,
            score: (random.next() % 10_000) as f64 / 100.0,
            active: random.next().is_multiple_of(2),
            tags: vec!["customer".to_owned(), format!("tier-{}", random.next() % 5)],
            created_at: format!("2024-05-{:02}T12:34:56Z", random.next() % 28 + 1),
            notes: None,
        }
    }

    /// Gives the record a value that it did not have before.
    pub(crate) fn change(&mut self, generation: u64) {
        self.owner_id = 1_000_000 + generation;
    }
}

/// Typed records.
pub(crate) fn contacts(count: usize) -> Vec<Contact> {
    (0..count as u64).map(Contact::new).collect()
}

/// A directory for one store. In `HIGHWATER_BENCH_DIR`, or else beside the build: a directory for
/// temporary files may be in memory, where a sync costs nothing.
pub(crate) fn directory() -> TempDir {
    let parent = std::env::var_os("HIGHWATER_BENCH_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
    std::fs::create_dir_all(&parent).expect("the directory for benchmarks can be made");
    tempfile::tempdir_in(parent).expect("the directory for benchmarks is writable")
}

/// Opens a store.
pub(crate) fn open(path: &Path, durable: bool) -> Store {
    let durability = if durable {
        Durability::Durable
    } else {
        Durability::Relaxed {
            interval: Duration::from_millis(500),
        }
    };
    // The same secret every time, so that every run has the same index.
    let options = Options::new().durability(durability).secret([7; 32]);
    options.open(path).expect("a store can be opened")
}

/// The one feed of a benchmark's store.
pub(crate) fn feed(store: &Store) -> Feed {
    store.feed("bench", "Contact").expect("the name is valid")
}

/// Saves a batch; the number of records it changed.
pub(crate) fn save_raw(feed: &Feed, batch: &[Raw]) -> u64 {
    let applied = feed.batch_save_raw(batch).expect("a save succeeds");
    applied.totals.changed()
}

/// Fills a feed, without waiting for the disk at every batch.
pub(crate) fn fill(path: &Path, count: usize, body_len: usize) {
    let store = open(path, false);
    let feed = feed(&store);
    let mut batch = raw_records(0, 1000, body_len);
    let mut next = 0;
    for _ in 0..count / 1000 {
        renew(&mut batch, &mut next);
        save_raw(&feed, &batch);
    }
    store.close().expect("a store closes");
}

/// Runs `work` and says how long it took.
pub(crate) fn timed<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let start = Instant::now();
    let result = work();
    (start.elapsed(), result)
}

/// The ranges of the batches of `count` records.
pub(crate) fn batches(count: usize, size: usize) -> impl Iterator<Item = Range<usize>> {
    (0..count / size).map(move |at| at * size..(at + 1) * size)
}
