//! The keys a caller gives, and finding the one that a file needs among them.

use std::fmt;
use std::io;
use std::sync::Arc;

use zeroize::Zeroizing;

use super::{Cipher, ENVELOPE_LEN, KeyId, Sealed, StoreKeys};
use crate::primitives::Mutex;

/// A key of 256 bits, wiped from memory when it is dropped. It must come from a generator of random
/// numbers, or from a key management system: a passphrase is none.
#[derive(Clone)]
pub struct Key(Arc<Zeroizing<[u8; Key::LEN]>>);

impl Key {
    /// Bytes of a key.
    pub const LEN: usize = 32;

    /// The key made of these bytes. The caller's copy is the caller's to wipe.
    pub fn new(bytes: &[u8; Self::LEN]) -> Self {
        Self(Arc::new(Zeroizing::new(*bytes)))
    }

    /// A key from a file: 32 bytes as they are, or 64 hexadecimal digits, with white space around
    /// them; `None` when it is neither.
    pub fn parse(text: &[u8]) -> Option<Self> {
        if let Ok(bytes) = text.try_into() {
            return Some(Self::new(bytes));
        }
        let digits = text.trim_ascii();
        let mut bytes = Zeroizing::new([0; Self::LEN]);
        if digits.len() != 2 * Self::LEN {
            return None;
        }
        let permissive = data_encoding::HEXLOWER_PERMISSIVE;
        permissive.decode_mut(digits, bytes.as_mut()).ok()?;
        Some(Self::new(&bytes))
    }

    /// The name of this key, as errors and [`Store::encryption_keys`](crate::Store::encryption_keys)
    /// give it.
    pub fn id(&self) -> KeyId {
        let digest = blake3::derive_key("highwater 2026 encryption key id", self.bytes());
        let mut id = [0; 8];
        id.copy_from_slice(&digest[..8]);
        KeyId(id)
    }

    pub(super) fn bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.id())
    }
}

/// Under which key a store is encrypted. See [`Options::encryption`](crate::Options::encryption).
///
/// ```
/// use highwater::{Encryption, Error, Key, Options};
///
/// # let dir = tempfile::tempdir().unwrap();
/// let old = Key::new(&[1; 32]); // From a key management system, not from the source.
/// let store = Options::new().encryption(Encryption::new(&old)).open(dir.path())?;
/// let _ = store.feed("conn-42", "Contact")?.batch_save_raw(&[("ada", "secret")])?;
/// store.close()?;
///
/// // Nobody opens it without the key.
/// let refused = Options::new().open(dir.path());
/// assert!(matches!(refused, Err(Error::KeyRequired { key, .. }) if key == old.id()));
///
/// // To change keys, open with both, and rewrite what is under the old one.
/// let new = Key::new(&[2; 32]);
/// let keys = Encryption::new(&new).or_older(&old);
/// let store = Options::new().encryption(keys).open(dir.path())?;
/// assert!(store.encryption_keys()?.contains(&old.id()));
/// let _ = store.rotate()?;
/// assert_eq!(store.encryption_keys()?, [new.id()]);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Encryption {
    current: Key,
    older: Vec<Key>,
}

impl Encryption {
    /// Writes under `key`, and reads what is under it.
    pub fn new(key: &Key) -> Self {
        Self {
            current: key.clone(),
            older: Vec::new(),
        }
    }

    /// Also reads what is under an older key, until [`Store::rotate`](crate::Store::rotate) or
    /// compaction has written it anew.
    #[must_use]
    pub fn or_older(mut self, key: &Key) -> Self {
        self.older.push(key.clone());
        self
    }

    fn find(&self, id: KeyId) -> Option<&Key> {
        let mut keys = std::iter::once(&self.current).chain(&self.older);
        keys.find(|key| key.id() == id)
    }
}

/// The keys that a store is opened with. What is derived from one is derived once.
pub(crate) struct Keyring {
    encryption: Option<Encryption>,
    derived: Mutex<Vec<Arc<StoreKeys>>>,
}

impl Keyring {
    pub(crate) fn new(encryption: Option<Encryption>) -> Self {
        Self {
            encryption,
            derived: Mutex::default(),
        }
    }

    /// Whether new stores are encrypted, and only encrypted ones opened.
    pub(crate) fn is_encrypting(&self) -> bool {
        self.encryption.is_some()
    }

    /// What to write under in a store.
    ///
    /// # Errors
    /// When the system gives no random numbers.
    pub(crate) fn current(&self, store: &[u8; 16]) -> io::Result<Cipher> {
        let key = self.encryption.as_ref().map(|keys| &keys.current);
        key.map(|key| self.derive(key, store)).transpose()
    }

    /// The store's secret out of a segment's header, of which `head` are the bytes before the
    /// envelope, and what the segment is sealed under.
    pub(crate) fn unlock(
        &self,
        head: &[u8],
        store: &[u8; 16],
        envelope: &[u8; ENVELOPE_LEN],
    ) -> Result<([u8; 32], Arc<StoreKeys>), Sealed> {
        let mut id = [0; 8];
        id.copy_from_slice(&envelope[..8]);
        let id = KeyId(id);
        let encryption = self.encryption.as_ref().ok_or(Sealed::KeyRequired(id))?;
        let key = encryption.find(id).ok_or(Sealed::WrongKey(id))?;
        let keys = self.derive(key, store).map_err(|_| Sealed::NoRandomness)?;
        let secret = keys.open_envelope(head, envelope).ok_or(Sealed::Damaged)?;
        Ok((secret, keys))
    }

    fn derive(&self, key: &Key, store: &[u8; 16]) -> io::Result<Arc<StoreKeys>> {
        let mut derived = self.derived.lock();
        if let Some(known) = derived.iter().find(|known| known.is_of(key.id(), store)) {
            return Ok(known.clone());
        }
        let keys = Arc::new(StoreKeys::new(key, store)?);
        derived.push(keys.clone());
        Ok(keys)
    }
}
