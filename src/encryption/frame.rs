//! Sealing and opening the pieces of a frame. Each frame has a key of its own, made from a salt that
//! is drawn when the frame is sealed; a piece's nonce is what it is and its number.

use aes_gcm::aead::AeadInOut;
use aes_gcm::aead::consts::U12;
use aes_gcm::{Aes256Gcm, Nonce};

use super::keys::made_from;
use super::{Piece, Salt, StoreKeys, TAG_LEN, Tag};

/// The key of one frame.
pub(crate) struct FrameKey(Aes256Gcm);

impl StoreKeys {
    /// The key of the frame with this salt. Whoever seals with it has just drawn the salt.
    pub(crate) fn frame(&self, salt: &Salt) -> FrameKey {
        FrameKey(made_from(&self.frame, salt))
    }

    /// What vouches for a frame's header at `offset` of its segment, and for its salt: a message
    /// authentication code.
    pub(crate) fn header_tag(&self, header: &[u8], offset: u64, salt: &Salt) -> Tag {
        let mut hasher = blake3::Hasher::new_keyed(&self.frame_header);
        hasher
            .update(&offset.to_le_bytes())
            .update(salt)
            .update(header);
        let mut tag = [0; TAG_LEN];
        tag.copy_from_slice(&hasher.finalize().as_bytes()[..TAG_LEN]);
        tag
    }

    /// Whether a tag vouches for a header, in constant time.
    pub(crate) fn vouches(&self, tag: &Tag, header: &[u8], offset: u64, salt: &Salt) -> bool {
        let right = self.header_tag(header, offset, salt);
        let difference = tag.iter().zip(right).fold(0, |sum, (a, b)| sum | (a ^ b));
        std::hint::black_box(difference) == 0
    }
}

impl FrameKey {
    /// Encrypts a piece in place; its tag.
    pub(crate) fn seal(&self, piece: Piece, number: u32, bytes: &mut [u8]) -> Tag {
        let nonce = nonce(piece, number);
        // Sealing fails for more than 64 GiB only.
        let sealed = self.0.encrypt_inout_detached(&nonce, &[], bytes.into());
        sealed.unwrap_or_default().into()
    }

    /// Decrypts a piece in place; false when it is not what was sealed.
    pub(crate) fn open(&self, piece: Piece, number: u32, bytes: &mut [u8], tag: &Tag) -> bool {
        let nonce = nonce(piece, number);
        let opened = self
            .0
            .decrypt_inout_detached(&nonce, &[], bytes.into(), tag.into());
        opened.is_ok()
    }
}

fn nonce(piece: Piece, number: u32) -> Nonce<U12> {
    let mut nonce = Nonce::default();
    nonce[0] = piece as u8;
    nonce[4..8].copy_from_slice(&number.to_le_bytes());
    nonce
}
