//! A filter in front of a run: says of a key that it is not there, without a read, or that it may
//! be. Bits of one key lie in one cache line (blocked Bloom filter; Putze, Sanders and Singler,
//! 2007): about one key in a hundred that is not there passes, at ten bits a key.

use crate::hash::Fingerprint;
use crate::intrinsics::prefetch;

/// Bits per key.
const BITS: u64 = 10;
/// Bits set per key.
const PROBES: u32 = 6;
/// Bits of a block's bit number.
const PLACE: u32 = 9;
const WORDS: usize = 8;
const _: () = assert!(1 << PLACE == WORDS * 64);
/// Bytes of a block as it is stored.
pub(crate) const BLOCK: usize = WORDS * 8;

/// One cache line, and not parts of two.
#[repr(align(64))]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
struct Block([u64; WORDS]);
const _: () = assert!(size_of::<Block>() == BLOCK);

/// See the module.
pub(crate) struct Filter(Vec<Block>);

impl Filter {
    /// An empty filter for this many keys.
    pub(crate) fn for_keys(count: u64) -> Self {
        Self(vec![Block::default(); Self::blocks(count)])
    }

    /// How many blocks a filter for this many keys has.
    pub(crate) fn blocks(count: u64) -> usize {
        (count * BITS).div_ceil(1 << PLACE).max(1) as usize
    }

    /// How many blocks there are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Memory held, in bytes.
    pub(crate) fn memory(&self) -> usize {
        self.0.capacity() * BLOCK
    }

    /// A key's block, from the high bits of its head.
    fn block(&self, key: Fingerprint) -> usize {
        ((u128::from(key.head()) * self.0.len() as u128) >> 64) as usize
    }

    /// The key's bits in its block, each a word and a mask.
    fn bits(key: Fingerprint) -> impl Iterator<Item = (usize, u64)> {
        // Bits that say nothing about the block.
        let bits = key.tail();
        (0..PROBES).map(move |probe| {
            let place = bits >> (probe * PLACE) & ((1 << PLACE) - 1);
            ((place / 64) as usize, 1 << (place % 64))
        })
    }

    pub(crate) fn insert(&mut self, key: Fingerprint) {
        let at = self.block(key);
        if let Some(block) = self.0.get_mut(at) {
            Self::bits(key).for_each(|(word, mask)| block.0[word] |= mask);
        }
    }

    /// Begins to fetch what [`Filter::may_have`] is going to look at.
    pub(crate) fn prefetch(&self, key: Fingerprint) {
        self.0.get(self.block(key)).into_iter().for_each(prefetch);
    }

    pub(crate) fn may_have(&self, key: Fingerprint) -> bool {
        let Some(Block(words)) = self.0.get(self.block(key)) else {
            return false;
        };
        // All of them: whether to go on after each would be a guess that is wrong half the time.
        Self::bits(key).fold(true, |found, (word, mask)| {
            found & (words[word] & mask != 0)
        })
    }

    /// The filter as runs hold it, in pieces of this many blocks: it may be large.
    pub(crate) fn encode(&self, blocks: usize) -> impl Iterator<Item = Vec<u8>> + '_ {
        let words = |piece: &[Block]| {
            let words = piece.iter().flat_map(|block| block.0);
            words.flat_map(u64::to_le_bytes).collect()
        };
        self.0.chunks(blocks).map(words)
    }

    /// A filter of so many blocks to come.
    pub(crate) fn decoder(blocks: usize) -> Self {
        Self(Vec::with_capacity(blocks))
    }

    /// Takes in the next piece of what [`Filter::encode`] gave.
    pub(crate) fn decode(&mut self, piece: &[u8]) {
        let (blocks, _) = piece.as_chunks::<BLOCK>();
        self.0.extend(blocks.iter().map(|block| {
            let (words, _) = block.as_chunks::<8>();
            Block(std::array::from_fn(|at| u64::from_le_bytes(words[at])))
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::Hasher;

    #[test]
    fn what_is_there_passes_and_little_else() {
        let hasher = Hasher::new(&[1; 32]);
        let key = |number: u32| hasher.id(&number.to_le_bytes());
        let mut filter = Filter::for_keys(20_000);
        (0..20_000).for_each(|number| filter.insert(key(number)));
        assert!((0..20_000).all(|number| filter.may_have(key(number))));
        let passed = (20_000..120_000).filter(|number| filter.may_have(key(*number)));
        assert!(passed.count() < 2_000, "under 2 % of 100,000");
        let mut again = Filter::decoder(filter.len());
        filter.encode(7).for_each(|piece| again.decode(&piece));
        assert_eq!(again.0, filter.0);
    }
}
