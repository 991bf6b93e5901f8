//! Which key a catalog is under, and changing that.

use std::path::Path;

use redb::{ReadableDatabase, TableDefinition, TableError, WriteTransaction};

use super::{Catalog, FEEDS, FRAMES, ROOT, STATE, remove};
use crate::encryption::{Cipher, KeyId};
use crate::error::{Error, Result};
use crate::storage::OpenMode;

/// The id of the key that all rows of the other tables are sealed under, in the clear.
const KEY_ID: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("key");
const KEY_ID_KEY: &[u8] = b"key";
/// The name of the catalog's file while it is being sealed anew.
pub(super) const TEMPORARY_NAME: &str = "catalog.redb.tmp";

impl Catalog {
    /// The key that the rows are under; nothing in a plain store.
    pub(super) fn sealed_under(&self) -> Result<Option<KeyId>> {
        let database = self.database()?;
        self.guard(|| {
            let transaction = database.begin_read()?;
            let table = match transaction.open_table(KEY_ID) {
                Err(TableError::TableDoesNotExist(_)) => return Ok(None),
                table => table?,
            };
            let id = table.get(KEY_ID_KEY)?;
            Ok(id.and_then(|id| id.value().try_into().ok()).map(KeyId))
        })
    }

    /// Copies all rows into a file under another cipher, which takes the place of this one when it
    /// is whole and on stable storage; false when a row is damaged. What a file under the old key
    /// has in pages that are free would stay there for ever.
    pub(super) fn reseal(&mut self, dir: &Path, cipher: &Cipher) -> Result<bool> {
        remove(&self.storage, dir, &[TEMPORARY_NAME])?;
        let mut copy = Self::at(&self.storage, dir.join(TEMPORARY_NAME), cipher.clone());
        copy.connect(OpenMode::CreateNew)?;
        let (from, to) = (self.database()?, copy.database()?);
        let copied = copy.guard(|| {
            let (read, write) = (from.begin_read()?, to.begin_write()?);
            for kept in [ROOT, FEEDS, FRAMES, STATE] {
                let mut table = write.open_table(kept.definition())?;
                let source = read.open_table(kept.definition())?;
                let Some(rows) = kept.rows(&self.cipher, &source)? else {
                    return Ok(false);
                };
                for (key, value) in rows {
                    kept.insert(cipher, &mut table, &key, &value)?;
                }
            }
            name_key(&write, cipher)?;
            write.commit()?;
            Ok(true)
        })?;
        // Both are closed before their files change names.
        copy.database = None;
        self.database = None;
        if copied {
            self.storage
                .rename(&copy.path, &self.path)
                .map_err(|error| Error::io("rename", &copy.path, error))?;
            self.storage
                .sync_dir(dir)
                .map_err(|error| Error::io("sync directory", dir, error))?;
            self.cipher = cipher.clone();
            self.connect(OpenMode::Existing)?;
        }
        Ok(copied)
    }
}

/// Writes down which key the rows are under, in the clear.
pub(super) fn name_key(transaction: &WriteTransaction, cipher: &Cipher) -> Result<(), redb::Error> {
    if let Some(keys) = cipher {
        let mut table = transaction.open_table(KEY_ID)?;
        table.insert(KEY_ID_KEY, keys.id().0.as_slice())?;
    }
    Ok(())
}
