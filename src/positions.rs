//! Sets of positions of a feed: one bit a position in memory, one or two bytes a position in the
//! log, where a batch of a thousand out of a million is a list of gaps and runs.

use std::collections::BTreeMap;

use crate::codec::{push_varint, take_varint};

/// Positions per chunk of the set.
const CHUNK: u64 = 4096;
const WORDS: usize = CHUNK as usize / 64;

/// A set of positions. Its memory is bounded by one bit for every position of the feed.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct Positions {
    chunks: BTreeMap<u64, Box<[u64; WORDS]>>,
}

impl Positions {
    pub(crate) fn insert(&mut self, position: u64) {
        let chunk = self.chunks.entry(position / CHUNK);
        let words = chunk.or_insert_with(|| Box::new([0; WORDS]));
        words[(position % CHUNK / 64) as usize] |= 1 << (position % 64);
    }

    /// Inserts ascending positions; neighbours share the search for their chunk.
    pub(crate) fn extend(&mut self, positions: &[u64]) {
        for run in positions.chunk_by(|a, b| a / CHUNK == b / CHUNK) {
            let Some(first) = run.first() else { continue };
            let chunk = self.chunks.entry(first / CHUNK);
            let words = chunk.or_insert_with(|| Box::new([0; WORDS]));
            for position in run {
                words[(position % CHUNK / 64) as usize] |= 1 << (position % 64);
            }
        }
    }

    pub(crate) fn remove(&mut self, position: u64) {
        if let Some(words) = self.chunks.get_mut(&(position / CHUNK)) {
            words[(position % CHUNK / 64) as usize] &= !(1 << (position % 64));
            if words.iter().all(|word| *word == 0) {
                self.chunks.remove(&(position / CHUNK));
            }
        }
    }

    pub(crate) fn contains(&self, position: u64) -> bool {
        let words = self.chunks.get(&(position / CHUNK));
        words.is_some_and(|words| {
            words[(position % CHUNK / 64) as usize] >> (position % 64) & 1 == 1
        })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// The positions, ascending.
    pub(crate) fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        self.chunks.iter().flat_map(|(chunk, words)| {
            let bits = words.iter().enumerate().flat_map(|(at, word)| {
                (0..64)
                    .filter_map(move |bit| (word >> bit & 1 == 1).then_some(at as u64 * 64 + bit))
            });
            bits.map(move |bit| chunk * CHUNK + bit)
        })
    }
}

impl FromIterator<u64> for Positions {
    fn from_iter<I: IntoIterator<Item = u64>>(positions: I) -> Self {
        let mut set = Self::default();
        positions
            .into_iter()
            .for_each(|position| set.insert(position));
        set
    }
}

/// Appends strictly ascending positions: for each run of neighbours the gap to the one before it,
/// doubled, plus one when the length of the run follows. Both are variable-length integers.
pub(crate) fn encode(positions: impl IntoIterator<Item = u64>, bytes: &mut Vec<u8>) {
    let mut positions = positions.into_iter().peekable();
    let mut next = 0;
    while let Some(start) = positions.next() {
        let mut end = start + 1;
        while positions.next_if_eq(&end).is_some() {
            end += 1;
        }
        let alone = end - start == 1;
        push_varint((start - next) << 1 | u64::from(!alone), bytes);
        if !alone {
            push_varint(end - start, bytes);
        }
        next = end;
    }
}

/// No feed has more records than this. A fuzzer has no checksums between itself and a list, and not the
/// memory for many that are as long.
const COUNT_MAX: u64 = if cfg!(fuzzing) { 1 << 16 } else { 1 << 32 };

/// Reads what [`encode`] wrote; `None` when the bytes are not that, or name a position past `max`.
pub(crate) fn decode(mut bytes: &[u8], max: u64) -> Option<Vec<u64>> {
    let mut positions = Vec::new();
    let mut next = 0u64;
    while !bytes.is_empty() {
        let head = take_varint(&mut bytes)?;
        let start = next.checked_add(head >> 1)?;
        let len = if head & 1 == 1 {
            take_varint(&mut bytes)?
        } else {
            1
        };
        next = start.checked_add(len)?;
        let count = (positions.len() as u64).checked_add(len)?;
        if next > max.saturating_add(1) || count > COUNT_MAX {
            return None;
        }
        // A few bytes can stand for more positions than there is memory for.
        positions.try_reserve(usize::try_from(len).ok()?).ok()?;
        positions.extend(start..next);
    }
    Some(positions)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn more_positions_than_any_feed_has_are_refused() {
        let mut bytes = Vec::new();
        push_varint(1, &mut bytes);
        push_varint(1 << 47, &mut bytes);
        assert_eq!(decode(&bytes, u64::MAX), None);
    }

    /// A chunk's positions go into no other, however alike their numbers are.
    #[test]
    fn chunks_are_told_apart() {
        for (near, far) in [
            (1, CHUNK + 5),
            (1, CHUNK << 12),
            (CHUNK - 1, CHUNK),
            (3, 3 * CHUNK + 1),
        ] {
            let mut set = Positions::default();
            assert!(set.is_empty());
            set.extend(&[near, far]);
            assert_eq!(set.iter().collect::<Vec<_>>(), [near, far]);
            assert!(!set.is_empty());
            set.remove(near);
            set.remove(far);
            assert!(set.is_empty());
        }
    }

    #[test]
    fn a_list_may_name_the_last_position_and_none_after_it() {
        let mut bytes = Vec::new();
        encode([7, 8, 9], &mut bytes);
        assert_eq!(decode(&bytes, 9), Some(vec![7, 8, 9]));
        assert_eq!(decode(&bytes, 8), None);
    }

    proptest! {
        #[test]
        fn a_set_agrees_with_a_set(
            inserted in prop::collection::vec(0u64..20_000, 0..400),
            removed in prop::collection::vec(0u64..20_000, 0..400),
        ) {
            let mut model: BTreeSet<u64> = inserted.iter().copied().collect();
            let sorted: Vec<u64> = model.iter().copied().collect();
            let (half, rest) = sorted.split_at(sorted.len() / 2);
            let mut set: Positions = rest.iter().copied().collect();
            set.extend(half);
            for position in removed {
                model.remove(&position);
                set.remove(position);
                prop_assert!(!set.contains(position));
            }
            prop_assert!(model.iter().all(|position| set.contains(*position)));
            prop_assert_eq!(set.iter().collect::<Vec<_>>(), model.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!(set.is_empty(), model.is_empty());
        }

        #[test]
        fn lists_round_trip(
            positions in prop::collection::btree_set(prop_oneof![0u64..300, 0..=(1u64 << 48)], 0..300),
        ) {
            let mut bytes = Vec::new();
            encode(positions.iter().copied(), &mut bytes);
            prop_assert_eq!(decode(&bytes, 1 << 48), Some(positions.into_iter().collect()));
        }

        #[test]
        fn any_bytes_decode_or_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            if let Some(positions) = decode(&bytes, 1 << 16) {
                prop_assert!(positions.windows(2).all(|pair| pair[0] < pair[1]));
            }
        }
    }

    #[test]
    fn a_seen_mark_takes_two_bytes_at_most_in_a_feed_of_a_million() {
        let mut bytes = Vec::new();
        encode((0..1000).map(|index| 1 + index * 1000), &mut bytes);
        assert!(bytes.len() <= 2000, "{}", bytes.len());
        bytes.clear();
        encode(1..=1000, &mut bytes);
        assert!(bytes.len() <= 3, "{}", bytes.len());
    }
}
