//! The part of a segment's header that depends on the key: the seed of the store's secret, sealed,
//! so that the log alone is enough to open a store with its key. Its tag covers the header, and
//! tells a key that is the right one from damage.

use aes_gcm::Nonce;
use aes_gcm::aead::AeadInOut;

use super::keys::made_from;
use super::{ENVELOPE_LEN, SEED_LEN, StoreKeys, TAG_LEN};

const ID: usize = 8;
const SALT: usize = 16;
const _: () = assert!(ID + SALT + SEED_LEN + TAG_LEN == ENVELOPE_LEN);

impl StoreKeys {
    /// Seals the seed of a store's secret for a header that begins with `head`. Each envelope has a
    /// key of its own, which seals nothing else, so that its nonce can be zero.
    pub(crate) fn envelope(&self, head: &[u8], secret: &[u8; 32]) -> [u8; ENVELOPE_LEN] {
        let mut envelope = [0; ENVELOPE_LEN];
        envelope[..ID].copy_from_slice(&self.id().0);
        let drawn = blake3::keyed_hash(&self.envelope, &self.draw());
        envelope[ID..][..SALT].copy_from_slice(&drawn.as_bytes()[..SALT]);
        let (salted, sealed) = envelope.split_at_mut(ID + SALT);
        let (seed, tag) = sealed.split_at_mut(SEED_LEN);
        seed.copy_from_slice(&secret[..SEED_LEN]);
        let covered = [head, salted].concat();
        let cipher = made_from(&self.envelope, &salted[ID..]);
        // Sealing fails for more than 64 GiB only.
        let sealed = cipher.encrypt_inout_detached(&Nonce::default(), &covered, seed.into());
        tag.copy_from_slice(&sealed.unwrap_or_default());
        envelope
    }

    /// The store's secret; `None` when the header is not what was sealed.
    pub(super) fn open_envelope(
        &self,
        head: &[u8],
        envelope: &[u8; ENVELOPE_LEN],
    ) -> Option<[u8; 32]> {
        let (salted, sealed) = envelope.split_at(ID + SALT);
        let (seed, tag) = sealed.split_first_chunk::<SEED_LEN>()?;
        let tag: [u8; TAG_LEN] = tag.try_into().ok()?;
        let covered = [head, salted].concat();
        let mut secret = [0; 32];
        let opened = &mut secret[..SEED_LEN];
        opened.copy_from_slice(seed);
        let cipher = made_from(&self.envelope, &salted[ID..]);
        let nonce = Nonce::default();
        let opened = cipher.decrypt_inout_detached(&nonce, &covered, opened.into(), &tag.into());
        opened.is_ok().then_some(secret)
    }
}
