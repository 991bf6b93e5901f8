//! Fingerprints: the keyed digests that stand for record ids and record contents.
//!
//! The digest is part of the on-disk format. It is keyed BLAKE3 of
//!
//! ```text
//! input length as u32, little endian || input || zero bytes up to a multiple of 64
//! ```
//!
//! cut to its first 12 bytes. Ids and contents have a key each, derived from the store's secret.
//! The length keeps inputs apart that differ only by trailing zeros. The padding is there for
//! speed: BLAKE3's vector kernel takes whole blocks only, and with them it hashes records of one
//! block count side by side, where the crate's ordinary interface cannot fill its lanes.

use std::array;

use blake3::platform::Platform;
use blake3::{BLOCK_LEN, CHUNK_LEN, IncrementCounter, KEY_LEN, OUT_LEN};

const CHUNK_BLOCKS: usize = CHUNK_LEN / BLOCK_LEN;
/// Bytes of the input's length, which the message starts with.
const PREFIX: usize = size_of::<u32>();
/// Records hashed by one call of the kernel: the lanes of the widest one, AVX-512.
const LANES: usize = 16;
/// Longer messages go one by one, because their own chunks are enough to fill the lanes.
const MAX_CHUNKS: usize = 16;
/// Stands for every block count that is too large for hashing side by side.
const LONG: usize = MAX_CHUNKS * CHUNK_BLOCKS + 1;
/// Fewer messages of several chunks than the narrowest kernel has lanes are faster one by one.
const MIN_LANES: usize = 4;
/// Copied of a message that goes by itself. The rest then starts at a whole subtree.
const HEAD_LEN: usize = 4 * CHUNK_LEN;

// The flags of the BLAKE3 specification, which the crate keeps private.
const CHUNK_START: u8 = 1 << 0;
const CHUNK_END: u8 = 1 << 1;
const PARENT: u8 = 1 << 2;
const ROOT: u8 = 1 << 3;
const KEYED_HASH: u8 = 1 << 4;

/// 96 bits of a keyed BLAKE3 digest, as three little-endian words.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, PartialOrd, Ord)]
pub(crate) struct Fingerprint([u32; 3]);

impl Fingerprint {
    pub(crate) const LEN: usize = 12;

    pub(crate) fn to_bytes(self) -> [u8; Self::LEN] {
        let words = self.0.map(u32::to_le_bytes);
        array::from_fn(|at| words[at / 4][at % 4])
    }

    pub(crate) fn from_bytes(bytes: [u8; Self::LEN]) -> Fingerprint {
        Fingerprint(words(&bytes))
    }

    /// The first two words as one uniformly distributed number, to partition and sort by.
    pub(crate) fn head(self) -> u64 {
        u64::from(self.0[1]) << 32 | u64::from(self.0[0])
    }

    /// The other word, and behind it the low half of the head: independent of the head's high bits.
    pub(crate) fn tail(self) -> u64 {
        u64::from(self.0[2]) << 32 | u64::from(self.0[0])
    }
}

/// Hashes ids and contents with the keys of one store. Has no `Debug`, which would print them.
pub(crate) struct Hasher {
    id: Keyed,
    content: Keyed,
}

/// Memory of the batch hasher, which the caller keeps so that a warm batch allocates nothing.
#[derive(Default)]
pub(crate) struct Scratch {
    lanes: Box<Lanes>,
    /// Record numbers by block count.
    order: Vec<usize>,
}

impl Hasher {
    pub(crate) fn new(secret: &[u8; KEY_LEN]) -> Hasher {
        let contexts = ["highwater 2026 record id", "highwater 2026 record content"];
        let [id, content] = contexts.map(|context| Keyed {
            platform: Platform::detect(),
            key: blake3::derive_key(context, secret),
        });
        Hasher { id, content }
    }

    /// Replaces `out` by the fingerprints of the ids `input(0)` to `input(count - 1)`, in order.
    pub(crate) fn ids<'a>(
        &self,
        scratch: &mut Scratch,
        count: usize,
        input: impl Fn(usize) -> &'a [u8],
        out: &mut Vec<Fingerprint>,
    ) {
        self.id.batch(scratch, count, input, out);
    }

    /// As `ids`, of bodies.
    pub(crate) fn contents<'a>(
        &self,
        scratch: &mut Scratch,
        count: usize,
        input: impl Fn(usize) -> &'a [u8],
        out: &mut Vec<Fingerprint>,
    ) {
        self.content.batch(scratch, count, input, out);
    }

    pub(crate) fn id(&self, id: &[u8]) -> Fingerprint {
        self.id.single(id)
    }

    pub(crate) fn content(&self, body: &[u8]) -> Fingerprint {
        self.content.single(body)
    }
}

/// Memory of the kernel, aligned so that no vector straddles cache lines. The arrays are nested
/// because `Default` ends at 32 elements.
#[derive(Default)]
#[repr(align(64))]
struct Lanes {
    /// One chunk of each record of a group.
    staging: [[[u8; 32]; CHUNK_LEN / 32]; LANES],
    out: [[u8; OUT_LEN]; LANES],
    /// Chaining values of the tree's current level by pair and lane: messages of the next level.
    pairs: [[[[u8; OUT_LEN]; 2]; LANES]; MAX_CHUNKS / 2],
}

/// One key, and the kernel that this machine has.
struct Keyed {
    platform: Platform,
    key: [u8; KEY_LEN],
}

impl Keyed {
    fn single(&self, input: &[u8]) -> Fingerprint {
        let message = (PREFIX + input.len()).next_multiple_of(BLOCK_LEN);
        if message <= CHUNK_LEN {
            return self.single_chunk(input, message - BLOCK_LEN);
        }
        let mut head = [0; HEAD_LEN];
        stage(&mut head, 0, input);
        let head = &head[..message.min(HEAD_LEN)];
        let rest = &input[input.len().min(HEAD_LEN - PREFIX)..];
        let padding = &[0; BLOCK_LEN][..message - head.len() - rest.len()];
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(head).update(rest).update(padding);
        Fingerprint(words(hasher.finalize().as_bytes()))
    }

    /// Goes around the crate's hasher, whose setup costs as much as hashing an id.
    fn single_chunk(&self, input: &[u8], last: usize) -> Fingerprint {
        let mut value = words(&self.key);
        for offset in (0..=last).step_by(BLOCK_LEN) {
            let mut block = [0; BLOCK_LEN];
            stage(&mut block, offset, input);
            let start = if offset == 0 { CHUNK_START } else { 0 };
            let end = if offset == last { CHUNK_END | ROOT } else { 0 };
            let (platform, flags) = (self.platform, KEYED_HASH | start | end);
            platform.compress_in_place(&mut value, &block, BLOCK_LEN as u8, 0, flags);
        }
        Fingerprint([value[0], value[1], value[2]])
    }

    fn batch<'a>(
        &self,
        scratch: &mut Scratch,
        count: usize,
        input: impl Fn(usize) -> &'a [u8],
        out: &mut Vec<Fingerprint>,
    ) {
        let Scratch { lanes, order } = scratch;
        let blocks = |at| block_count(input(at));
        out.clear();
        out.resize(count, Fingerprint::default());
        order.clear();
        order.extend(0..count);
        let uniform = (1..count).all(|at| blocks(at) == blocks(0));
        if !uniform {
            // A counting sort. Filling each range from its end turns ends into starts.
            let mut ends = [0; LONG + 1];
            (0..count).for_each(|at| ends[blocks(at)] += 1);
            for blocks in 1..ends.len() {
                ends[blocks] += ends[blocks - 1];
            }
            for at in (0..count).rev() {
                let end = &mut ends[blocks(at)];
                *end -= 1;
                order[*end] = at;
            }
        }
        let runs = order.chunk_by(|&left, &right| uniform || blocks(left) == blocks(right));
        for records in runs.flat_map(|run| run.chunks(LANES)) {
            let (blocks, count) = (blocks(records[0]), records.len());
            if blocks == LONG || (blocks > CHUNK_BLOCKS && count < MIN_LANES) {
                for &at in records {
                    out[at] = self.single(input(at));
                }
                continue;
            }
            let mut inputs = [&[][..]; LANES];
            for (slot, &at) in inputs.iter_mut().zip(records) {
                *slot = input(at);
            }
            self.group(lanes, blocks, &inputs[..count]);
            for (digest, &at) in lanes.out.iter().zip(records) {
                out[at] = Fingerprint(words(digest));
            }
        }
    }

    /// Hashes up to `LANES` inputs of one block count side by side.
    fn group(&self, lanes: &mut Lanes, blocks: usize, inputs: &[&[u8]]) {
        if blocks <= CHUNK_BLOCKS {
            return self.chunks(lanes, blocks, 0, ROOT, inputs);
        }
        let mut width = blocks.div_ceil(CHUNK_BLOCKS);
        for index in 0..width {
            let blocks = CHUNK_BLOCKS.min(blocks - index * CHUNK_BLOCKS);
            self.chunks(lanes, blocks, index, 0, inputs);
            place(lanes, index);
        }
        while width > 1 {
            let root = if width == 2 { ROOT } else { 0 };
            let flags = [KEYED_HASH | PARENT | root, 0, 0];
            for index in 0..width / 2 {
                let (messages, out) = (lanes.pairs[index].as_flattened(), &mut lanes.out);
                self.kernel(messages.as_flattened(), 1, inputs.len(), 0, flags, out);
                place(lanes, index);
            }
            if width % 2 == 1 {
                // Without a neighbor a value moves up as it is, as in BLAKE3's left-leaning tree.
                lanes.out = lanes.pairs[width / 2].map(|pair| pair[0]);
                place(lanes, width / 2);
            }
            width = width.div_ceil(2);
        }
    }

    /// Hashes chunk `index` of each input, which has this many blocks.
    fn chunks(&self, lanes: &mut Lanes, blocks: usize, index: usize, root: u8, inputs: &[&[u8]]) {
        let staging = lanes.staging.as_flattened_mut().as_flattened_mut();
        for (slot, input) in staging.chunks_exact_mut(blocks * BLOCK_LEN).zip(inputs) {
            stage(slot, index * CHUNK_LEN, input);
        }
        let flags = [KEYED_HASH, CHUNK_START, CHUNK_END | root];
        self.kernel(staging, blocks, inputs.len(), index, flags, &mut lanes.out);
    }

    /// Hashes the first `count` of `messages`, with the flags of all, first and last blocks.
    fn kernel(
        &self,
        messages: &[u8],
        blocks: usize,
        count: usize,
        index: usize,
        [flags, first, last]: [u8; 3],
        out: &mut [[u8; OUT_LEN]; LANES],
    ) {
        // The kernel hashes a remainder in ever narrower calls, which together cost more than a
        // wide one with stale lanes.
        let degree = self.platform.simd_degree();
        let count = count.next_multiple_of(count.next_power_of_two().min(degree));
        let (key, at, no) = (&words(&self.key), index as u64, IncrementCounter::No);
        let (platform, out) = (self.platform, out.as_flattened_mut());
        macro_rules! dispatch {
            ($($blocks:literal)*) => {
                match blocks {
                    $($blocks => {
                        let (messages, _) = messages.as_chunks::<{ $blocks * BLOCK_LEN }>();
                        let lanes: [_; LANES] = array::from_fn(|lane| &messages[lane]);
                        platform.hash_many(&lanes[..count], key, at, no, flags, first, last, out);
                    })*
                    _ => unreachable!("a chunk has 1 to 16 blocks"),
                }
            };
        }
        dispatch!(1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16);
    }
}

/// Files the chaining values of node `index` under its pair.
fn place(lanes: &mut Lanes, index: usize) {
    for (pair, value) in lanes.pairs[index / 2].iter_mut().zip(lanes.out) {
        pair[index % 2] = value;
    }
}

/// Blocks of the padded message, at least one.
fn block_count(input: &[u8]) -> usize {
    (PREFIX + input.len()).div_ceil(BLOCK_LEN).min(LONG)
}

fn words<const N: usize>(bytes: &[u8]) -> [u32; N] {
    let (words, _) = bytes.as_chunks();
    array::from_fn(|at| u32::from_le_bytes(words[at]))
}

/// Writes the bytes of the padded message from `offset` on, as many as it has and `slot` takes.
#[inline]
fn stage(slot: &mut [u8], offset: usize, input: &[u8]) {
    // The zero bytes that end a message all lie in its last block. Clearing the whole of it has a
    // constant size, which is cheaper than clearing just them.
    let last = slot.len() - BLOCK_LEN;
    slot[last..].fill(0);
    if offset == 0 {
        debug_assert!(u32::try_from(input.len()).is_ok());
        slot[..PREFIX].copy_from_slice(&(input.len() as u32).to_le_bytes());
    }
    let to = &mut slot[PREFIX.saturating_sub(offset)..];
    let from = &input[offset.saturating_sub(PREFIX)..];
    let taken = to.len().min(from.len());
    to[..taken].copy_from_slice(&from[..taken]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    const SECRET: [u8; 32] = [7; 32];

    /// The definition in the module head, word for word.
    fn reference(context: &str, input: &[u8]) -> Fingerprint {
        let mut message = [&(input.len() as u32).to_le_bytes(), input].concat();
        message.resize(message.len().next_multiple_of(64), 0);
        let digest = blake3::keyed_hash(&blake3::derive_key(context, &SECRET), &message);
        Fingerprint::from_bytes(array::from_fn(|at| digest.as_bytes()[at]))
    }

    fn random(state: &mut u64) -> usize {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        (*state >> 16) as usize
    }

    fn check(hasher: &Hasher, scratch: &mut Scratch, lens: impl Iterator<Item = usize>) {
        let mut state = 0x9E37_79B9_7F4A_7C15;
        let mut bytes = |len| (0..len).map(|_| random(&mut state) as u8).collect();
        let inputs: Vec<Vec<u8>> = lens.map(&mut bytes).collect();
        let (mut ids, mut contents) = (vec![Fingerprint([1; 3])], Vec::new());
        hasher.ids(scratch, inputs.len(), |at| &inputs[at], &mut ids);
        hasher.contents(scratch, inputs.len(), |at| &inputs[at], &mut contents);
        assert_eq!((ids.len(), contents.len()), (inputs.len(), inputs.len()));
        for ((input, id), content) in inputs.iter().zip(ids).zip(contents) {
            assert_eq!(id, reference("highwater 2026 record id", input));
            assert_eq!(content, reference("highwater 2026 record content", input));
            assert_eq!((hasher.id(input), hasher.content(input)), (id, content));
            assert_eq!(Fingerprint::from_bytes(id.to_bytes()), id);
        }
    }

    #[test]
    fn every_length_matches_blake3() {
        let (hasher, mut scratch) = (Hasher::new(&SECRET), Scratch::default());
        let around_chunks = (3..=18).flat_map(|chunks| chunks * 1024 - 5..chunks * 1024 - 2);
        for len in (0..=3000).chain(around_chunks).chain([40_000, 100_000]) {
            check(&hasher, &mut scratch, [len].into_iter());
            check(&hasher, &mut scratch, (0..4 + len % 13).map(|_| len));
        }
    }

    #[test]
    fn mixed_batches_match_blake3_on_every_platform() {
        let mut platforms = vec![Platform::detect(), Platform::portable()];
        #[cfg(target_arch = "x86_64")]
        platforms.extend([Platform::sse41(), Platform::avx2()].iter().flatten());
        let (mut hasher, mut scratch) = (Hasher::new(&SECRET), Scratch::default());
        let mut state = 1;
        for round in 0..200 {
            hasher.id.platform = platforms[round % platforms.len()];
            hasher.content.platform = hasher.id.platform;
            let longest = [60, 400, 1100, 5000, 20_000][round % 5];
            let count = random(&mut state) % 101;
            let lens = (0..count).map(|_| random(&mut state) % longest);
            check(&hasher, &mut scratch, lens);
        }
    }

    #[test]
    fn keys_are_separate() {
        let mut seen = HashSet::new();
        for bit in 0..256 {
            let mut secret = SECRET;
            secret[bit / 8] ^= 1 << (bit % 8);
            let hasher = Hasher::new(&secret);
            assert!(seen.insert(hasher.id(b"same")) && seen.insert(hasher.content(b"same")));
        }
    }

    #[test]
    fn trailing_zeros_count() {
        let hasher = Hasher::new(&SECRET);
        for start in [&b""[..], b"body", &[1; 59], &[1; 1019]] {
            let digest = |count| hasher.content(&[start, &vec![0; count]].concat());
            assert_eq!((0..200).map(digest).collect::<HashSet<_>>().len(), 200);
        }
    }
}
