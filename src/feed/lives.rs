//! The earlier lives of a record that was deleted and added again: when each began and ended.
//!
//! A consumer that reads on after a cursor is told what a change means *for it*: a record that it
//! knew at its cursor is updated or deleted, one that it did not know is added, or not worth
//! mentioning. Commit times rise strictly along a feed, so "at its cursor" is a moment, and a
//! record existed then if one of its lives has that moment in it. The newest life begins at
//! `first_seen`; the earlier ones are kept with every version, behind its id.

use crate::codec::{push_varint, take_varint};
use crate::log::format::Entry;

/// More lives than this are not told apart: the oldest ones are taken for one long life. A
/// consumer may then be told of an update or a deletion of a record it did not know at its cursor,
/// which is harmless; the other way round would not be.
const LIVES_MAX: usize = 8;

/// Earlier lives of a record, newest first: each from its beginning until before its end, in
/// microseconds of commit time.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct Lives(Vec<(u64, u64)>);

impl Lives {
    /// The lives before one that begins now, when the last one went from `began` to `ended`.
    pub(crate) fn and(mut self, began: u64, ended: u64) -> Self {
        self.0.insert(0, (began, ended));
        if self.0.len() > LIVES_MAX
            && let Some((oldest, _)) = self.0.pop()
            && let Some(last) = self.0.last_mut()
        {
            last.0 = oldest;
        }
        self
    }

    /// Whether the record existed in one of these lives at any moment from `from` to `to`.
    pub(crate) fn overlap(&self, from: u64, to: u64) -> bool {
        let mut lives = self.0.iter();
        lives.any(|(began, ended)| *began <= to && from < *ended)
    }

    /// What stands behind the id of a version whose life began at `first_seen`: the lengths of the
    /// pauses and lives going back from there, then how many bytes that takes.
    pub(crate) fn encode(&self, first_seen: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut from = first_seen;
        for (began, ended) in &self.0 {
            push_varint(from.saturating_sub(*ended), &mut bytes);
            push_varint(ended.saturating_sub(*began), &mut bytes);
            from = *began;
        }
        // Two varints of at most ten bytes each for eight lives.
        bytes.push(bytes.len() as u8);
        bytes
    }

    pub(crate) fn decode(first_seen: u64, mut bytes: &[u8]) -> Option<Self> {
        let mut lives = Vec::new();
        let mut from = first_seen;
        while !bytes.is_empty() {
            let ended = from.checked_sub(take_varint(&mut bytes)?)?;
            let began = ended.checked_sub(take_varint(&mut bytes)?)?;
            lives.push((began, ended));
            from = began;
        }
        Some(Self(lives))
    }

    /// What stands behind the id in the bytes of its place, without the length at the end.
    pub(crate) fn behind<'a>(entry: &Entry, place: &'a [u8]) -> &'a [u8] {
        let start = Self::id_len(place).filter(|_| entry.reborn);
        start
            .and_then(|start| place.get(start..place.len() - 1))
            .unwrap_or_default()
    }

    /// How many of the bytes in an id's place are the id, when the record is reborn.
    pub(crate) fn id_len(bytes: &[u8]) -> Option<usize> {
        let (len, rest) = bytes.split_last()?;
        rest.len().checked_sub(usize::from(*len))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn lives_round_trip_and_tell_when_the_record_existed(
            lengths in prop::collection::vec((1u64..1000, 1u64..1000), 0..20),
        ) {
            let mut lives = Lives::default();
            let mut model = Vec::new();
            let mut now = 1;
            for (lived, gone) in lengths {
                lives = lives.and(now, now + lived);
                model.push((now, now + lived));
                now += lived + gone;
            }
            let mut stored = b"the id".to_vec();
            let behind = lives.encode(now);
            stored.extend_from_slice(&behind);
            prop_assert_eq!(Lives::id_len(&stored), Some(6));
            prop_assert_eq!(Lives::decode(now, &stored[6..stored.len() - 1]), Some(lives.clone()));
            let exact = model.len() <= LIVES_MAX;
            for time in 0..now {
                let existed = model.iter().any(|(a, b)| (*a..*b).contains(&time));
                prop_assert!(lives.overlap(time, time) == existed || (!exact && !existed));
                let existed = model.iter().any(|(a, b)| *a <= time + 9 && time < *b);
                prop_assert!(lives.overlap(time, time + 9) == existed || (!exact && !existed));
            }
        }

        #[test]
        fn any_bytes_decode_or_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = Lives::decode(1 << 40, &bytes);
            let _ = Lives::id_len(&bytes);
        }
    }
}
