//! Compression of payloads: what is written may be, what is read back says by itself whether it is.
//!
//! * [`Compression`]: the option, per store and for what is written from now on
//! * [`Codec`]: what one epoch of a feed compresses with: nothing until it has a dictionary
//! * `zstd`: the algorithm, behind the feature of that name
//! * `training`: when a feed gets its dictionary, and from what
//!
//! Records are small and alike, so a record compresses little by itself and well against a
//! dictionary of what its feed has in common. There is one dictionary for each epoch of a feed, and
//! no compression without it. It is a [state value](crate::state) that is committed before anything
//! refers to it, so whatever brings back the records brings it back too; it goes when its epoch goes,
//! because it holds pieces of the records.

#[cfg(feature = "zstd")]
mod training;
#[cfg(feature = "zstd")]
mod zstd;

use std::path::Path;
use std::sync::Arc;

use crate::engine::Engine;
use crate::error::Error;
use crate::feed::slot::FeedSlot;
#[cfg(feature = "zstd")]
pub(crate) use training::Thresholds;

/// Whether the payloads of changed records are compressed.
///
/// It is a matter of writing alone: what is stored stays readable whatever a store is opened with,
/// by every build with the feature `zstd`. A feed's payloads are compressed from when it has enough
/// of them to learn from: 100 records and 256 KiB. Everything that is seen of a record, and every
/// limit, is in terms of the payload as it was saved.
///
/// A dictionary holds pieces of the records it was trained from. It goes when the feed is replaced or
/// hard-deleted as a whole, not when some of its records are.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[non_exhaustive]
pub enum Compression {
    /// Payloads are stored as they are: the default.
    #[default]
    None,
    /// With zstd, against a dictionary that is trained from the feed's own records.
    #[cfg(feature = "zstd")]
    Zstd {
        /// From 1, fast, to 19; 3 is as small as pays for records.
        level: i32,
    },
}

/// The longest payload that is compressed has one byte less: an entry has three bytes for it.
#[cfg(feature = "zstd")]
const LEN_MAX: usize = 1 << 24;

/// Why stored bytes could not be turned into the payload they were made from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Undecodable {
    #[cfg_attr(feature = "zstd", allow(dead_code, reason = "this build can"))]
    Unsupported,
    #[cfg_attr(not(feature = "zstd"), allow(dead_code, reason = "nobody looks"))]
    Damaged,
}

impl Undecodable {
    /// The error for a payload at `offset` of a file.
    pub(crate) fn at(self, path: &Path, offset: u64) -> Error {
        match self {
            Self::Unsupported => Error::MissingFeature {
                feature: "zstd",
                path: path.to_owned(),
            },
            Self::Damaged => Error::corrupt(path, offset, "compressed payload"),
        }
    }
}

/// What the payloads of one epoch of a feed are compressed with.
#[derive(Default)]
pub(crate) struct Codec {
    #[cfg(feature = "zstd")]
    dictionary: std::sync::OnceLock<zstd::Dictionary>,
    #[cfg(feature = "zstd")]
    training: crate::primitives::Mutex<training::Attempts>,
}

impl Codec {
    /// Compresses from now on, against a dictionary that the log has.
    #[cfg_attr(not(feature = "zstd"), allow(unused_variables, reason = "of no use"))]
    pub(crate) fn learn(&self, dictionary: Vec<u8>) {
        // There is one for an epoch, ever.
        #[cfg(feature = "zstd")]
        let _ = self.dictionary.set(zstd::Dictionary::new(dictionary));
    }

    /// Compresses a payload into `stored`, which is cleared. `None` when it is to be stored as it is:
    /// compression is off, there is no dictionary yet, or it would not save an eighth.
    #[cfg(feature = "zstd")]
    pub(crate) fn encode<'a>(
        &self,
        compression: Compression,
        body: &[u8],
        stored: &'a mut Vec<u8>,
    ) -> Option<&'a [u8]> {
        let Compression::Zstd { level } = compression else {
            return None;
        };
        let dictionary = self.dictionary.get()?;
        if body.is_empty() || body.len() >= LEN_MAX {
            return None;
        }
        let stored = dictionary.encode(level, body, stored)?;
        (stored.len() <= body.len() - body.len().div_ceil(8)).then_some(stored)
    }

    #[cfg(not(feature = "zstd"))]
    pub(crate) fn encode<'a>(
        &self,
        _: Compression,
        _: &[u8],
        _: &'a mut Vec<u8>,
    ) -> Option<&'a [u8]> {
        None
    }

    /// Appends the payload of `len` bytes that `stored` was made from to a buffer.
    #[cfg(feature = "zstd")]
    pub(crate) fn decode(
        &self,
        stored: &[u8],
        len: u32,
        buffer: &mut Vec<u8>,
    ) -> Result<(), Undecodable> {
        let dictionary = self.dictionary.get().ok_or(Undecodable::Damaged)?;
        dictionary.decode(stored, len as usize, buffer)
    }

    #[cfg(not(feature = "zstd"))]
    pub(crate) fn decode(&self, _: &[u8], _: u32, _: &mut Vec<u8>) -> Result<(), Undecodable> {
        Err(Undecodable::Unsupported)
    }
}

/// After a commit: gives the feed a dictionary if it has enough to learn from now.
#[cfg_attr(not(feature = "zstd"), allow(unused_variables, reason = "of no use"))]
pub(crate) fn after_commit(engine: &Engine, slot: &Arc<FeedSlot>) {
    #[cfg(feature = "zstd")]
    training::train_if_due(engine, slot);
}

#[cfg(all(test, not(feature = "zstd")))]
mod tests {
    use super::*;

    #[test]
    fn a_build_without_the_feature_says_so() {
        let undecodable = Codec::default().decode(b"stored", 9, &mut Vec::new());
        let error = undecodable.map_err(|error| error.at(Path::new("a"), 0));
        assert!(matches!(error, Err(Error::MissingFeature { .. })));
    }
}
