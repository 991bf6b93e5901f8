//! A build without the feature `encryption`: no key can be given, so nothing is sealed, and every
//! method of what would seal is a case that does not arise.

use std::io;
use std::sync::Arc;

use super::{Cipher, ENVELOPE_LEN, KeyId, Piece, Salt, Sealed, Tag};
use crate::storage::StorageFile;

/// No key.
#[derive(Clone, Debug)]
pub(crate) enum Encryption {}

/// No keys.
#[derive(Debug)]
pub(crate) enum StoreKeys {}

/// No key of a frame.
pub(crate) enum FrameKey {}

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
        match *self {}
    }

    pub(crate) fn draw(&self) -> Salt {
        match *self {}
    }

    pub(crate) fn envelope(&self, _: &[u8], _: &[u8; 32]) -> [u8; ENVELOPE_LEN] {
        match *self {}
    }

    pub(crate) fn frame(&self, _: &Salt) -> FrameKey {
        match *self {}
    }

    pub(crate) fn header_tag(&self, _: &[u8], _: u64, _: &Salt) -> Tag {
        match *self {}
    }

    pub(crate) fn vouches(&self, _: &Tag, _: &[u8], _: u64, _: &Salt) -> bool {
        match *self {}
    }

    pub(crate) fn hide(&self, _: &[u8]) -> [u8; 16] {
        match *self {}
    }

    pub(crate) fn seal_row(&self, _: &str, _: &[u8], _: &[u8]) -> Vec<u8> {
        match *self {}
    }

    pub(crate) fn open_row(&self, _: &str, _: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
        match *self {}
    }

    pub(crate) fn create_file(
        self: &Arc<Self>,
        _: Arc<dyn StorageFile>,
    ) -> io::Result<Arc<dyn StorageFile>> {
        match **self {}
    }

    pub(crate) fn open_file(
        self: &Arc<Self>,
        _: Arc<dyn StorageFile>,
    ) -> io::Result<Arc<dyn StorageFile>> {
        match **self {}
    }
}

impl FrameKey {
    pub(crate) fn seal(&self, _: Piece, _: u32, _: &mut [u8]) -> Tag {
        match *self {}
    }

    pub(crate) fn open(&self, _: Piece, _: u32, _: &mut [u8], _: &Tag) -> bool {
        match *self {}
    }
}
