//! Copies of a catalog, row by row, as of one moment.

use std::path::Path;
use std::sync::Arc;

use redb::{ReadTransaction, ReadableDatabase, TableError, WriteTransaction};

use super::rewrite::name_key;
use super::{Catalog, FEEDS, FRAMES, MANIFEST_KEY, ROOT, ROOT_KEY, SHELF_KEY, STATE, Shelf, rows};
use crate::encryption::Cipher;
use crate::error::{Error, Result};
use crate::log::manifest::Manifest;
use crate::storage::Storage;

/// What a copy names that is outside of it.
#[derive(Default)]
pub(crate) struct Named {
    pub(crate) manifest: Manifest,
    /// The runs of indexes.
    pub(crate) runs: Vec<u64>,
}

impl Catalog {
    /// Makes a catalog in `dir` of what was saved last. Nothing is saved meanwhile.
    ///
    /// # Errors
    /// An I/O error, or [`Error::Corrupt`].
    pub(crate) fn copy_to(&mut self, storage: &Arc<dyn Storage>, dir: &Path) -> Result<Named> {
        let copy = Self::create(storage, dir, self.root.store, &self.cipher)?;
        let to = copy.database()?;
        let named = self.run(|from, cipher| {
            let from = from.begin_read()?;
            let transaction = to.begin_write()?;
            // Nothing that is damaged is handed on.
            let whole = copy_rows((&from, cipher), (&transaction, cipher))?;
            let mut named = whole.then(Named::default);
            let root = from.open_table(ROOT.definition())?;
            let read = |key: &[u8]| -> Result<Option<Vec<u8>>, redb::Error> {
                let value = ROOT.get(cipher, &root, key)?;
                Ok(value.and_then(|value| rows::open(key, &value).map(<[u8]>::to_vec)))
            };
            let manifest = match read(MANIFEST_KEY)? {
                Some(bytes) => Manifest::decode(&bytes),
                None => Some(Manifest::default()),
            };
            let shelf = read(SHELF_KEY)?.as_deref().and_then(Shelf::decode);
            let known = read(ROOT_KEY)?.is_some();
            if let Some(named) = &mut named {
                named.runs = shelf.map_or_else(Vec::new, |shelf| shelf.ids());
            }
            transaction.commit()?;
            Ok(named.zip(manifest).filter(|_| known))
        })?;
        match named {
            Some((named, manifest)) => Ok(Named { manifest, ..named }),
            None => Err(Error::corrupt(&self.path, 0, "the catalog's rows")),
        }
    }
}

/// Copies what is under one cipher to where it is under another, or the same; false when a row is
/// damaged.
pub(super) fn copy_rows(
    (from, cipher): (&ReadTransaction, &Cipher),
    (to, to_cipher): (&WriteTransaction, &Cipher),
) -> Result<bool, redb::Error> {
    for kept in [ROOT, FEEDS, FRAMES, STATE] {
        let mut copied = to.open_table(kept.definition())?;
        let original = match from.open_table(kept.definition()) {
            // Nothing was ever saved.
            Err(TableError::TableDoesNotExist(_)) => continue,
            original => original?,
        };
        if !kept.copy((&original, cipher), (&mut copied, to_cipher))? {
            return Ok(false);
        }
    }
    name_key(to, to_cipher)?;
    Ok(true)
}
