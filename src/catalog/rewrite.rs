//! Writing a catalog anew, in a file of its own: under another key, or because nobody knows what of
//! its file is on stable storage.

use redb::{ReadableDatabase, TableDefinition, TableError, WriteTransaction};

use super::copy::copy_rows;
use super::{Catalog, remove};
use crate::encryption::{Cipher, KeyId};
use crate::error::{Error, Result};
use crate::storage::OpenMode;

/// The id of the key that all rows of the other tables are sealed under, in the clear.
const KEY_ID: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("key");
const KEY_ID_KEY: &[u8] = b"key";
/// The name of the catalog's file while it is being written.
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

    /// Puts a copy in the place of a file that was not closed after what was saved last; false when a
    /// row is damaged.
    ///
    /// A sync that failed may have dropped what it was to make durable, and left it readable: redb
    /// finds all as it should be, saves more in the same file, and after a power failure there are
    /// older pages in the middle of its tree. What was read into a file of its own and synced with it
    /// does not change any more. On a full disk the file has to do as it is.
    pub(super) fn renew(&mut self) -> Result<bool> {
        match self.rewrite(&self.cipher.clone()) {
            Err(Error::DiskFull { .. }) => {
                let _ = remove(&self.storage, &self.dir, &[TEMPORARY_NAME]);
                if self.database.is_none() {
                    self.connect(OpenMode::Existing)?;
                }
                Ok(true)
            }
            renewed => renewed,
        }
    }

    /// Copies all rows into a file under a cipher, which takes the place of this one when it is whole
    /// and on stable storage; false when a row is damaged, or the copy was not closed. What a file
    /// under an old key has in pages that are free would stay there for ever.
    pub(super) fn rewrite(&mut self, cipher: &Cipher) -> Result<bool> {
        let dir = &self.dir;
        remove(&self.storage, dir, &[TEMPORARY_NAME])?;
        let mut copy = Self::at(&self.storage, dir, TEMPORARY_NAME, cipher.clone());
        copy.connect(OpenMode::CreateNew)?;
        let (from, to) = (self.database()?, copy.database()?);
        let copied = copy.guard(|| {
            let (read, write) = (from.begin_read()?, to.begin_write()?);
            let copied = copy_rows((&read, &self.cipher), (&write, cipher))?;
            if copied {
                write.commit()?;
            }
            Ok(copied)
        })?;
        if !copied {
            return Ok(false);
        }
        // Both are closed before their files change names.
        copy.database = None;
        self.database = None;
        self.named = false;
        self.storage
            .rename(&copy.path, &self.path)
            .map_err(|error| Error::io("rename", &copy.path, error))?;
        self.sync_name()?;
        self.cipher = cipher.clone();
        self.connect(OpenMode::Existing)
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
