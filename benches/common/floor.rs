//! The floors: what the work costs at least, without an engine around it.

use std::fs::{File, OpenOptions};
use std::hint::black_box;
use std::io::{Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::Path;

use blake3::platform::Platform;
use blake3::{BLOCK_LEN, CHUNK_LEN, IncrementCounter, OUT_LEN};

use super::{ID_LEN, LARGE, Random, Raw, SMALL};

const LANES: usize = 16;
/// A small payload, padded to whole blocks.
const SMALL_PADDED: usize = SMALL.next_multiple_of(BLOCK_LEN);
const LARGE_CHUNKS: usize = LARGE / CHUNK_LEN;
const _: () = assert!(ID_LEN <= BLOCK_LEN && SMALL_PADDED <= CHUNK_LEN);
const _: () = assert!(LARGE_CHUNKS * CHUNK_LEN == LARGE && LARGE_CHUNKS == 2);

// The flags of the BLAKE3 specification.
const CHUNK_START: u8 = 1 << 0;
const CHUNK_END: u8 = 1 << 1;
const PARENT: u8 = 1 << 2;
const ROOT: u8 = 1 << 3;
const KEYED_HASH: u8 = 1 << 4;

/// BLAKE3 alone, in the fastest arrangement there is: ids and payloads lie padded in memory
/// already, and sixteen messages of one length are hashed side by side. Nothing is copied or
/// compared, and no digest is kept.
pub(crate) struct Hashing {
    platform: Platform,
    key: [u32; 8],
    ids: Vec<Padded<BLOCK_LEN>>,
    bodies: Bodies,
}

/// A message, aligned so that no vector straddles cache lines.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Padded<const N: usize>([u8; N]);

enum Bodies {
    Small(Vec<Padded<SMALL_PADDED>>),
    /// The first chunks, and the second chunks.
    Large([Vec<Padded<CHUNK_LEN>>; LARGE_CHUNKS]),
}

fn padded<const N: usize>(bytes: &[u8]) -> Padded<N> {
    let mut message = Padded([0; N]);
    message.0[..bytes.len()].copy_from_slice(bytes);
    message
}

impl Hashing {
    /// Lays the records out. Their payloads have `SMALL` or `LARGE` bytes.
    pub(crate) fn new(records: &[Raw]) -> Self {
        let ids = records.iter().map(|(id, _)| padded(id.as_bytes()));
        let bodies = || records.iter().map(|(_, body)| body.as_slice());
        let small = bodies().all(|body| body.len() == SMALL);
        assert!(small || bodies().all(|body| body.len() == LARGE));
        let chunk = |at: usize| {
            bodies()
                .map(|body| padded(&body[at * CHUNK_LEN..][..CHUNK_LEN]))
                .collect()
        };
        let key = [3; 32];
        let floor = Self {
            platform: Platform::detect(),
            key: [u32::from_le_bytes([3; 4]); 8],
            ids: ids.collect(),
            bodies: if small {
                Bodies::Small(bodies().map(padded).collect())
            } else {
                Bodies::Large([chunk(0), chunk(1)])
            },
        };
        // It would not be a floor if it hashed something else.
        if let Some((id, body)) = records.first() {
            let reference = |message: &[u8]| *blake3::keyed_hash(&key, message).as_bytes();
            let mut out = [0; LANES * OUT_LEN];
            floor.ids(0..1, &mut out);
            assert_eq!(
                out[..OUT_LEN],
                reference(&padded::<BLOCK_LEN>(id.as_bytes()).0)
            );
            floor.bodies(0..1, &mut out);
            let expected = if small {
                reference(&padded::<SMALL_PADDED>(body).0)
            } else {
                reference(body)
            };
            assert_eq!(out[..OUT_LEN], expected);
        }
        floor
    }

    /// Hashes the ids and the payloads of a batch.
    pub(crate) fn run(&self, batch: Range<usize>) {
        let mut out = [0; LANES * OUT_LEN];
        let groups = || {
            let end = batch.end;
            let starts = batch.clone().step_by(LANES);
            starts.map(move |start| start..end.min(start + LANES))
        };
        // As the engine has to: ids and payloads have keys of their own.
        for group in groups() {
            self.ids(group, &mut out);
            black_box(&out);
        }
        for group in groups() {
            self.bodies(group, &mut out);
            black_box(&out);
        }
    }

    fn ids(&self, group: Range<usize>, out: &mut [u8]) {
        let flags = [KEYED_HASH, CHUNK_START, CHUNK_END | ROOT];
        self.kernel(&self.ids[group], 0, flags, out);
    }

    fn bodies(&self, group: Range<usize>, out: &mut [u8]) {
        match &self.bodies {
            Bodies::Small(bodies) => {
                let flags = [KEYED_HASH, CHUNK_START, CHUNK_END | ROOT];
                self.kernel(&bodies[group], 0, flags, out);
            }
            Bodies::Large(chunks) => {
                let mut pairs = [Padded([0; BLOCK_LEN]); LANES];
                for (at, chunks) in chunks.iter().enumerate() {
                    let flags = [KEYED_HASH, CHUNK_START, CHUNK_END];
                    self.kernel(&chunks[group.clone()], at as u64, flags, out);
                    for (pair, value) in pairs.iter_mut().zip(out.as_chunks::<OUT_LEN>().0) {
                        pair.0[at * OUT_LEN..][..OUT_LEN].copy_from_slice(value);
                    }
                }
                let flags = [KEYED_HASH | PARENT | ROOT, 0, 0];
                self.kernel(&pairs[..group.len()], 0, flags, out);
            }
        }
    }

    fn kernel<const N: usize>(
        &self,
        messages: &[Padded<N>],
        counter: u64,
        [flags, start, end]: [u8; 3],
        out: &mut [u8],
    ) {
        let mut lanes = [&[0; N]; LANES];
        for (lane, message) in lanes.iter_mut().zip(messages) {
            *lane = &message.0;
        }
        let (lanes, no) = (&lanes[..messages.len()], IncrementCounter::No);
        let key = &self.key;
        self.platform
            .hash_many(lanes, key, counter, no, flags, start, end, out);
    }
}

/// What the space that a floor appends to is like.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Space {
    /// Allocated and written before, so that a sync has no metadata to write.
    Written,
    /// Allocated only: the first sync after a write also notes that the space is in use now.
    Allocated,
}

/// Appending alone: batches that lie ready in one piece go one after the other into a file.
pub(crate) struct Appending {
    space: Space,
    file: File,
    len: u64,
    at: u64,
    /// All ids and payloads, batch by batch.
    bytes: Vec<u8>,
    record_len: usize,
}

impl Appending {
    /// Makes the file, with room for all records once; then it starts over.
    #[expect(
        clippy::disallowed_methods,
        reason = "the floor is the operating system's file, without the engine's storage"
    )]
    pub(crate) fn new(dir: &Path, records: &[Raw], space: Space) -> Self {
        let mut bytes = Vec::new();
        for (id, body) in records {
            bytes.extend_from_slice(id.as_bytes());
            bytes.extend_from_slice(body);
        }
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true);
        let path = dir.join("floor");
        let mut file = options.open(path).expect("a file can be made");
        let mut old = vec![0; bytes.len()];
        Random::new(0xf1).fill(&mut old);
        file.write_all(&old).expect("there is space");
        file.sync_all().expect("a file can be synced");
        file.rewind().expect("a file has a beginning");
        Self {
            space,
            file,
            len: old.len() as u64,
            at: 0,
            record_len: bytes.len() / records.len(),
            bytes,
        }
    }

    /// Starts over, with fresh space if that is what is measured.
    pub(crate) fn renew(&mut self) {
        if self.space == Space::Allocated {
            self.file.set_len(0).expect("a file can be cut");
            let flags = rustix::fs::FallocateFlags::empty();
            rustix::fs::fallocate(&self.file, flags, 0, self.len).expect("there is space");
            self.file.sync_all().expect("a file can be synced");
        }
        self.at = 0;
        self.file.rewind().expect("a file has a beginning");
    }

    /// Appends a batch, and syncs it when `durable`.
    pub(crate) fn run(&mut self, batch: Range<usize>, durable: bool) {
        let bytes = &self.bytes[batch.start * self.record_len..batch.end * self.record_len];
        if self.at + bytes.len() as u64 > self.len {
            self.at = 0;
            self.file
                .seek(SeekFrom::Start(0))
                .expect("a file has a beginning");
        }
        self.file.write_all(bytes).expect("a write succeeds");
        self.at += bytes.len() as u64;
        if durable {
            self.file.sync_data().expect("a sync succeeds");
        }
    }
}
