//! Encryption at rest: everything a store writes can be sealed under a key of the caller's.
//!
//! * [`Encryption`]: the option: the key to write under, and older ones to read with
//! * `keys`: what is derived from a key for one store, and the nonces that are used with it
//! * `envelope`: how the header of a segment hides the store's secret, and tells a wrong key
//! * `frame`: the pieces of frames; `row`: rows of the catalog; `file`: files of the index
//!
//! Everything is AES-256-GCM, under keys that keyed BLAKE3 makes from numbers which are used once. So
//! a nonce is never used twice under a key: `docs/encryption.md` has the argument. Without the feature
//! `encryption` the types below have no values, and nothing of it is compiled in.

#[cfg(not(feature = "encryption"))]
mod absent;
#[cfg(feature = "encryption")]
mod envelope;
#[cfg(feature = "encryption")]
mod file;
#[cfg(feature = "encryption")]
mod frame;
#[cfg(feature = "encryption")]
mod keys;
#[cfg(feature = "encryption")]
mod option;
#[cfg(feature = "encryption")]
mod row;

use std::fmt;
use std::sync::Arc;

#[cfg(not(feature = "encryption"))]
pub(crate) use absent::{Encryption, FrameKey, Keyring, StoreKeys};
#[cfg(feature = "encryption")]
pub(crate) use frame::FrameKey;
#[cfg(feature = "encryption")]
pub(crate) use keys::StoreKeys;
#[cfg(feature = "encryption")]
pub(crate) use option::Keyring;
#[cfg(feature = "encryption")]
pub use option::{Encryption, Key};

/// What a file is sealed under; nothing in a plain store.
pub(crate) type Cipher = Option<Arc<StoreKeys>>;

/// Bytes of what proves that a piece is what was sealed.
pub(crate) const TAG_LEN: usize = 16;
pub(crate) type Tag = [u8; TAG_LEN];
/// Bytes of what a frame's key is made from.
pub(crate) const SALT_LEN: usize = 24;
pub(crate) type Salt = [u8; SALT_LEN];
/// Bytes of a segment's header that depend on the key: its id (8), a salt (16), the sealed seed of
/// the store's secret (16) and its tag (16).
pub(crate) const ENVELOPE_LEN: usize = 56;
/// Bytes of an encrypted store's secret that are random; the others are zero.
pub(crate) const SEED_LEN: usize = 16;

/// Names a key without giving it away: a digest that is stored in every file that the key seals.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub(crate) [u8; 8]);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

/// Why a segment's header does not open.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(
    not(feature = "encryption"),
    allow(dead_code, reason = "a build without keys has one reason")
)]
pub(crate) enum Sealed {
    /// No key was given.
    KeyRequired(KeyId),
    /// None of the keys that were given is the one.
    WrongKey(KeyId),
    /// The key is the one, but the header is not what was sealed.
    Damaged,
    /// This build cannot.
    #[cfg_attr(feature = "encryption", allow(dead_code, reason = "this build can"))]
    Unsupported,
    /// The system gave no random numbers.
    NoRandomness,
}

/// Whether two files are under the same key, or both are plain.
pub(crate) fn same_key(a: &Cipher, b: &Cipher) -> bool {
    key_id(a) == key_id(b)
}

/// The id of the key that a file is under.
pub(crate) fn key_id(cipher: &Cipher) -> Option<KeyId> {
    cipher.as_ref().map(|keys| keys.id())
}

/// What a piece of a frame is. Part of its nonce.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Piece {
    /// A stretch of the columns: entries, and what packing adds.
    Columns = 1,
    /// The id of a record, with what stands behind it.
    Id = 2,
    /// The payload of a record, as it is stored.
    Payload = 3,
    /// All that a frame without records holds.
    Content = 4,
}
