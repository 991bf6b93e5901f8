//! Rows of the catalog. A sealed value has the row's key in it, because some keys are names, and what
//! stands in the key's place then is a keyed hash.

use aes_gcm::Nonce;
use aes_gcm::aead::AeadInOut;

use super::keys::made_from;
use super::{SALT_LEN, StoreKeys, TAG_LEN};
use crate::codec::{Decoder, Encoder};

impl StoreKeys {
    /// What stands in the place of a row's key.
    pub(crate) fn hide(&self, key: &[u8]) -> [u8; 16] {
        let mut hidden = [0; 16];
        hidden.copy_from_slice(&blake3::keyed_hash(&self.row_key, key).as_bytes()[..16]);
        hidden
    }

    /// Seals a row of a table: salt, key and value, tag. Each row has a key of its own, which seals
    /// nothing else, so that its nonce can be zero.
    pub(crate) fn seal_row(&self, table: &str, key: &[u8], value: &[u8]) -> Vec<u8> {
        let salt = self.draw();
        let mut sealed = Encoder::default().array(&salt).bytes(key).finish();
        sealed.reserve_exact(value.len() + TAG_LEN);
        sealed.extend_from_slice(value);
        let body = sealed[SALT_LEN..].as_mut().into();
        let cipher = made_from(&self.row, &salt);
        // Sealing fails for more than 64 GiB only.
        let tag = cipher.encrypt_inout_detached(&Nonce::default(), table.as_bytes(), body);
        sealed.extend_from_slice(&tag.unwrap_or_default());
        sealed
    }

    /// The key and value of a row; `None` when it is not what was sealed.
    pub(crate) fn open_row(&self, table: &str, sealed: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
        let (salt, rest) = sealed.split_first_chunk::<SALT_LEN>()?;
        let (body, tag) = rest.split_last_chunk::<TAG_LEN>()?;
        let mut body = body.to_vec();
        let cipher = made_from(&self.row, salt);
        let (nonce, covered) = (Nonce::default(), table.as_bytes());
        let buffer = body.as_mut_slice().into();
        let opened = cipher.decrypt_inout_detached(&nonce, covered, buffer, tag.into());
        opened.ok()?;
        let key = Decoder::new(&body).bytes()?.to_vec();
        let value = body.split_off(size_of::<u32>() + key.len());
        Some((key, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encryption::Key;

    #[test]
    fn rows_open_in_their_table_only_and_every_byte_of_them_counts() {
        let keys = StoreKeys::new(&Key::new(&[1; 32]), &[2; 16]).unwrap();
        let sealed = keys.seal_row("state", b"name", b"value");
        let row = (b"name".to_vec(), b"value".to_vec());
        assert_eq!(keys.open_row("state", &sealed), Some(row));
        assert_eq!(keys.open_row("feeds", &sealed), None);
        assert_ne!(keys.seal_row("state", b"name", b"value"), sealed);
        for at in 0..sealed.len() {
            let mut damaged = sealed.clone();
            damaged[at] ^= 1;
            assert_eq!(keys.open_row("state", &damaged), None, "byte {at}");
            assert_eq!(keys.open_row("state", &sealed[..at]), None, "cut at {at}");
        }
    }
}
