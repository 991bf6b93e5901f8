//! The one checksum of the format: CRC-32C (Castagnoli), which every current processor computes in
//! hardware. It guards against accidents; the keyed fingerprints in [`crate::hash`] identify data.

use crate::intrinsics::{self, LANES};

/// The checksum of `parts`, one after the other, starting from `seed`.
///
/// The seed ties bytes to their place (a file offset, a cursor position), so that intact bytes
/// found in the wrong place do not pass.
pub(crate) fn checksum(seed: u64, parts: &[&[u8]]) -> u32 {
    parts
        .iter()
        .fold(begin(seed), |sum, part| append(sum, part))
}

/// The checksums of many messages, in their order; each is a seed and parts as [`checksum`] takes
/// them. Of short messages it takes half the time.
pub(crate) fn checksums<'a, const PARTS: usize>(
    mut messages: impl Iterator<Item = (u64, [&'a [u8]; PARTS])>,
) -> impl Iterator<Item = u32> {
    let (mut ready, mut at, mut end) = ([0; LANES], 0, 0);
    std::iter::from_fn(move || {
        if at == end {
            let mut sums = [0; LANES];
            let mut parts = [[&[][..]; LANES]; PARTS];
            (at, end) = (0, 0);
            for (seed, message) in messages.by_ref().take(LANES) {
                sums[end] = begin(seed);
                for (lanes, part) in parts.iter_mut().zip(message) {
                    lanes[end] = part;
                }
                end += 1;
            }
            for lanes in parts {
                sums = intrinsics::crc32c(sums, lanes);
            }
            ready = sums;
        }
        let sum = ready[..end].get(at).copied();
        at += usize::from(sum.is_some());
        sum
    })
}

/// The checksum of nothing, to be appended to.
pub(crate) fn begin(seed: u64) -> u32 {
    (seed ^ (seed >> 32)) as u32
}

/// The checksum of what `sum` is of, and of `part` behind it.
pub(crate) fn append(sum: u32, part: &[u8]) -> u32 {
    crc32c::crc32c_append(sum, part)
}

#[cfg(test)]
mod tests {
    use super::{begin, checksum, checksums};
    use proptest::prelude::*;

    #[test]
    fn matches_the_published_check_value() {
        assert_eq!(checksum(0, &[b"123456789"]), 0xe306_9283);
    }

    #[test]
    fn parts_read_as_one_and_the_seed_matters() {
        assert_eq!(
            checksum(7, &[b"12345", b"6789"]),
            checksum(7, &[b"123456789"])
        );
        assert_ne!(checksum(7, &[b"123456789"]), checksum(8, &[b"123456789"]));
    }

    #[test]
    fn both_halves_of_a_seed_count() {
        assert_eq!(begin(3 << 32 | 5), 3 ^ 5);
    }

    proptest! {
        #[test]
        fn many_are_what_each_is(
            messages in prop::collection::vec((any::<u64>(), prop::array::uniform2(
                prop::collection::vec(any::<u8>(), 0..100),
            )), 0..10),
        ) {
            let parts = |(seed, [one, other]): &(u64, [Vec<u8>; 2])| (*seed, [one.clone(), other.clone()]);
            let messages: Vec<_> = messages.iter().map(parts).collect();
            let given = messages.iter().map(|(seed, [one, other])| (*seed, [&one[..], &other[..]]));
            let each: Vec<u32> = given.clone().map(|(seed, parts)| checksum(seed, &parts)).collect();
            prop_assert_eq!(checksums(given).collect::<Vec<_>>(), each);
        }
    }
}
