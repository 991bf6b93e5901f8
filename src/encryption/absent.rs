//! A build without the feature `encryption`: no key can be given, so nothing is sealed, and every
//! method of what would seal is a case that does not arise.

use std::io;
use std::sync::Arc;

use super::{Cipher, ENVELOPE_LEN, KeyId, Piece, Salt, Sealed, Tag};
use crate::storage::StorageFile;

/// What there is none of. It is inside of the others, so that code that uses them is not found to be
/// unreachable.
#[derive(Clone, Copy, Debug)]
enum Never {}

/// No key.
#[derive(Clone, Debug)]
pub(crate) struct Encryption(#[allow(dead_code, reason = "there is none")] Never);

/// No keys.
#[derive(Debug)]
pub(crate) struct StoreKeys(Never);

/// No key of a frame.
pub(crate) struct FrameKey(Never);

/// A ring without keys.
pub(crate) struct Keyring;

impl Keyring {
    pub(crate) fn new(_: Option<Encryption>) -> Self {
        Self
    }

    pub(crate) fn is_encrypting(&self) -> bool {
        false
    }

    pub(crate) fn current(&self, _: &[u8; 16]) -> io::Result<Cipher> {
        Ok(None)
    }

    pub(crate) fn unlock(
        &self,
        _: &[u8],
        _: &[u8; 16],
        _: &[u8; ENVELOPE_LEN],
    ) -> Result<([u8; 32], Arc<StoreKeys>), Sealed> {
        Err(Sealed::Unsupported)
    }
}

impl StoreKeys {
    pub(crate) fn id(&self) -> KeyId {
        match self.0 {}
    }

    pub(crate) fn draw(&self) -> Salt {
        match self.0 {}
    }

    pub(crate) fn envelope(&self, _: &[u8], _: &[u8; 32]) -> [u8; ENVELOPE_LEN] {
        match self.0 {}
    }

    pub(crate) fn frame(&self, _: &Salt) -> FrameKey {
        match self.0 {}
    }

    pub(crate) fn header_tag(&self, _: &[u8], _: u64, _: &Salt) -> Tag {
        match self.0 {}
    }

    pub(crate) fn vouches(&self, _: &Tag, _: &[u8], _: u64, _: &Salt) -> bool {
        match self.0 {}
    }

    pub(crate) fn hide(&self, _: &[u8]) -> [u8; 16] {
        match self.0 {}
    }

    pub(crate) fn seal_row(&self, _: &str, _: &[u8], _: &[u8]) -> Vec<u8> {
        match self.0 {}
    }

    pub(crate) fn open_row(&self, _: &str, _: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
        match self.0 {}
    }

    pub(crate) fn create_file(
        self: &Arc<Self>,
        _: Arc<dyn StorageFile>,
    ) -> io::Result<Arc<dyn StorageFile>> {
        match self.0 {}
    }

    pub(crate) fn open_file(
        self: &Arc<Self>,
        _: Arc<dyn StorageFile>,
    ) -> io::Result<Arc<dyn StorageFile>> {
        match self.0 {}
    }
}

impl FrameKey {
    pub(crate) fn seal(&self, _: Piece, _: u32, _: &mut [u8]) -> Tag {
        match self.0 {}
    }

    pub(crate) fn open(&self, _: Piece, _: u32, _: &mut [u8], _: &Tag) -> bool {
        match self.0 {}
    }
}
