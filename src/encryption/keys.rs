//! What is derived from a key for one store: a key for each use, so that nothing sealed for one use
//! passes in another, and the source of nonces.

use std::fmt;
use std::io;

use aes_gcm::{Aes256Gcm, KeyInit};
use zeroize::Zeroizing;

use super::{Key, KeyId, SALT_LEN, Salt};
use crate::primitives::atomic::{AtomicU64, Ordering};

pub(super) type Derived = Zeroizing<[u8; 32]>;

/// The keys of one store under one of the caller's.
pub(crate) struct StoreKeys {
    id: KeyId,
    store: [u8; 16],
    /// For the seed in headers of segments.
    pub(super) envelope: Derived,
    /// For the tags of headers of frames.
    pub(super) frame_header: Derived,
    /// For what frames hold.
    pub(super) frame: Derived,
    /// For rows of the catalog, and for what their keys are replaced by.
    pub(super) row: Derived,
    pub(super) row_key: Derived,
    /// For files of the index.
    pub(super) file: Derived,
    nonces: Nonces,
}

impl StoreKeys {
    /// # Errors
    /// When the system gives no random numbers.
    pub(super) fn new(key: &Key, store: &[u8; 16]) -> io::Result<Self> {
        let mut material = Zeroizing::new([0; Key::LEN + 16]);
        material[..Key::LEN].copy_from_slice(key.bytes());
        material[Key::LEN..].copy_from_slice(store);
        let derive = |context| Zeroizing::new(blake3::derive_key(context, material.as_ref()));
        Ok(Self {
            id: key.id(),
            store: *store,
            envelope: derive("highwater 2026 encryption segment header"),
            frame_header: derive("highwater 2026 encryption frame header"),
            frame: derive("highwater 2026 encryption frame"),
            row: derive("highwater 2026 encryption catalog row"),
            row_key: derive("highwater 2026 encryption catalog key"),
            file: derive("highwater 2026 encryption index file"),
            nonces: Nonces::new()?,
        })
    }

    pub(crate) fn id(&self) -> KeyId {
        self.id
    }

    pub(super) fn is_of(&self, id: KeyId, store: &[u8; 16]) -> bool {
        self.id == id && self.store == *store
    }

    /// A salt, or a nonce, that was never drawn before.
    pub(crate) fn draw(&self) -> Salt {
        self.nonces.draw()
    }
}

impl fmt::Debug for StoreKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("StoreKeys").field(&self.id).finish()
    }
}

/// The cipher whose key is made from a number: whoever seals with it has just drawn that.
pub(super) fn made_from(key: &[u8; 32], number: &[u8]) -> Aes256Gcm {
    let key = Zeroizing::new(*blake3::keyed_hash(key, number).as_bytes());
    Aes256Gcm::new((&*key).into())
}

/// Numbers that are used once: 128 random bits, drawn each time a store is opened, and a counter. It
/// does not matter what a store remembers of its past: not after a crash, in a copy of it, or in a
/// file that is used again.
struct Nonces {
    opening: [u8; 16],
    counter: AtomicU64,
}

impl Nonces {
    fn new() -> io::Result<Self> {
        let mut opening = [0; 16];
        getrandom::fill(&mut opening).map_err(io::Error::other)?;
        Ok(Self {
            opening,
            counter: AtomicU64::new(0),
        })
    }

    fn draw(&self) -> Salt {
        // 2^64 of them take longer than anybody has.
        let count = self.counter.fetch_add(1, Ordering::Relaxed);
        let mut nonce = [0; SALT_LEN];
        nonce[..16].copy_from_slice(&self.opening);
        nonce[16..].copy_from_slice(&count.to_le_bytes());
        nonce
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_nonce_is_drawn_twice_not_even_by_another_opening() {
        let key = Key::new(&[1; 32]);
        let openings = [(); 3].map(|()| StoreKeys::new(&key, &[2; 16]).unwrap());
        let mut drawn: Vec<Salt> = std::thread::scope(|scope| {
            let draw = |keys| move || [(); 500].map(|()| StoreKeys::draw(keys));
            let threads: Vec<_> = openings.iter().chain(&openings).map(draw).collect();
            let threads: Vec<_> = threads.into_iter().map(|draw| scope.spawn(draw)).collect();
            threads
                .into_iter()
                .flat_map(|thread| thread.join().unwrap())
                .collect()
        });
        let count = drawn.len();
        drawn.sort_unstable();
        drawn.dedup();
        assert_eq!((drawn.len(), count), (3000, 3000));
    }

    #[test]
    fn every_use_and_every_store_has_keys_of_its_own() {
        let key = Key::new(&[1; 32]);
        let mut all: Vec<[u8; 32]> = Vec::new();
        for store in [[2; 16], [3; 16]] {
            let keys = StoreKeys::new(&key, &store).unwrap();
            let uses = [
                &keys.envelope,
                &keys.frame_header,
                &keys.frame,
                &keys.row,
                &keys.row_key,
                &keys.file,
            ];
            all.extend(uses.map(|derived| **derived));
        }
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 12);
    }
}
