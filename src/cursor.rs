//! Cursors: positions in a change feed, small values inside and opaque text outside.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use data_encoding::BASE64URL_NOPAD;

use crate::checksum::checksum;
use crate::error::Error;

/// Names a feed inside a store: a keyed hash of connection, model and variant, so that it needs no
/// registration and differs between stores.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(crate) struct FeedId(pub(crate) u64);

/// The changes of one feed in one epoch: what has an order of positions of its own.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(crate) struct StreamId {
    pub(crate) feed: FeedId,
    pub(crate) epoch: u32,
}

/// The first epoch of every feed; replacing or hard-deleting a feed starts the next one.
pub(crate) const FIRST_EPOCH: u32 = 1;

/// Positions fit into 48 bits, in frames and in the index.
pub(crate) const POSITION_MAX: u64 = (1 << 48) - 1;

/// A position in one feed's change order.
///
/// Every committed change of a feed has its own cursor, and later changes have greater ones.
/// Cursors of the same feed compare in change order; comparing cursors of different feeds has no
/// meaning beyond being consistent.
///
/// As text (`Display`, `FromStr`, serde) a cursor is URL-safe and under 64 characters. It carries
/// its feed and epoch and a checksum, so text that was damaged, or given to the wrong feed, is
/// refused instead of silently restarting a consumer.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let store = highwater::Store::open(dir.path())?;
/// let feed = store.feed("conn-42", "Contact")?;
/// feed.batch_save_raw(&[("a", b"1")])?;
/// let cursor = feed.last_cursor()?.expect("the feed has a change");
/// let text = cursor.to_string();
/// assert_eq!(text.parse::<highwater::Cursor>()?, cursor);
/// assert!("not-a-cursor".parse::<highwater::Cursor>().is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Cursor {
    pub(crate) feed: FeedId,
    pub(crate) epoch: u32,
    pub(crate) position: u64,
    /// How many times deletions had been purged from the feed when the reader that holds this
    /// cursor began. It tells a reader that may have missed a purged deletion from one that began
    /// after the purge; it is no part of the place in the feed.
    pub(crate) purges: u32,
    /// Where the reader that holds this cursor was last known to have seen everything. Between
    /// there and the position it has seen what was there when it came by, which is not the state
    /// of the feed at any one moment. No part of the place in the feed either.
    pub(crate) base: u64,
}

/// version 1, feed 8, epoch 4, position 6, base 6, purges 4, checksum 4
const BINARY_LEN: usize = 33;
const SUMMED_LEN: usize = BINARY_LEN - 4;
const VERSION: u8 = 1;

impl Cursor {
    /// The same position in another epoch, for tests of how stale cursors are refused.
    #[cfg(feature = "simulate")]
    #[doc(hidden)]
    pub fn in_epoch(self, epoch: u32) -> Self {
        Self { epoch, ..self }
    }

    /// Another place of the same reader, which has seen everything up to the same base.
    pub(crate) fn at(self, position: u64) -> Self {
        Self { position, ..self }
    }

    fn place(&self) -> (FeedId, u32, u64) {
        (self.feed, self.epoch, self.position)
    }

    fn to_binary(self) -> [u8; BINARY_LEN] {
        let mut bytes = [0; BINARY_LEN];
        bytes[0] = VERSION;
        bytes[1..9].copy_from_slice(&self.feed.0.to_le_bytes());
        bytes[9..13].copy_from_slice(&self.epoch.to_le_bytes());
        bytes[13..19].copy_from_slice(&self.position.to_le_bytes()[..6]);
        bytes[19..25].copy_from_slice(&self.base.to_le_bytes()[..6]);
        bytes[25..29].copy_from_slice(&self.purges.to_le_bytes());
        let sum = checksum(0, &[&bytes[..SUMMED_LEN]]);
        bytes[SUMMED_LEN..].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    fn from_binary(bytes: &[u8; BINARY_LEN]) -> Option<Self> {
        let mut fields = crate::codec::Decoder::new(bytes);
        let version = fields.u8()?;
        let feed = FeedId(fields.u64()?);
        let epoch = fields.u32()?;
        let mut place = || {
            let mut bytes = [0; 8];
            bytes[..6].copy_from_slice(&fields.array::<6>()?);
            Some(u64::from_le_bytes(bytes))
        };
        let (position, base) = (place()?, place()?);
        let purges = fields.u32()?;
        let sum = fields.u32()?;
        let intact = version == VERSION && sum == checksum(0, &[&bytes[..SUMMED_LEN]]);
        intact.then_some(Self {
            feed,
            epoch,
            position,
            purges,
            base,
        })
    }
}

impl PartialEq for Cursor {
    fn eq(&self, other: &Self) -> bool {
        self.place() == other.place()
    }
}

impl Eq for Cursor {}

impl Hash for Cursor {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.place().hash(state);
    }
}

impl PartialOrd for Cursor {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Cursor {
    fn cmp(&self, other: &Self) -> Ordering {
        self.place().cmp(&other.place())
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&BASE64URL_NOPAD.encode(&self.to_binary()))
    }
}

impl FromStr for Cursor {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let bytes = BASE64URL_NOPAD
            .decode(text.as_bytes())
            .map_err(|_| Error::InvalidCursor)?;
        let bytes = bytes.try_into().map_err(|_| Error::InvalidCursor)?;
        Self::from_binary(&bytes).ok_or(Error::InvalidCursor)
    }
}

impl serde::Serialize for Cursor {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Cursor {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cursor(feed: u64, epoch: u32, position: u64) -> Cursor {
        Cursor {
            feed: FeedId(feed),
            epoch,
            position,
            purges: 0,
            base: position / 2,
        }
    }

    proptest! {
        #[test]
        fn text_round_trips(feed: u64, epoch: u32, position in 0..=POSITION_MAX, purges: u32) {
            let cursor = Cursor { purges, ..cursor(feed, epoch, position) };
            let text = cursor.to_string();
            prop_assert!(text.len() < 64);
            prop_assert!(text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b)));
            let parsed = text.parse::<Cursor>().unwrap();
            prop_assert_eq!((parsed, parsed.purges, parsed.base), (cursor, purges, cursor.base));
        }

        #[test]
        fn any_text_parses_or_is_refused(text in "\\PC{0,80}") {
            let _ = text.parse::<Cursor>();
        }
    }

    #[test]
    fn every_changed_character_is_noticed() {
        let text = cursor(0x0123_4567_89ab_cdef, 7, 123_456_789).to_string();
        for at in 0..text.len() {
            for letter in b'!'..=b'~' {
                let mut damaged = text.clone().into_bytes();
                if damaged[at] == letter {
                    continue;
                }
                damaged[at] = letter;
                let damaged = String::from_utf8(damaged).unwrap();
                assert!(matches!(
                    damaged.parse::<Cursor>(),
                    Err(Error::InvalidCursor)
                ));
            }
        }
    }

    #[test]
    fn order_is_change_order() {
        assert!(cursor(1, 1, 9) < cursor(1, 1, 10));
        assert!(cursor(1, 1, 10) < cursor(1, 2, 1));
    }
}
