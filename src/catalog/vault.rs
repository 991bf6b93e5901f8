//! The catalog's tables as they are stored: in an encrypted store, values are sealed, and what stands
//! in the place of keys that are names is a keyed hash.

use std::borrow::Cow;

use redb::{ReadableTable, Table, TableDefinition};

use crate::catalog::rows;
use crate::encryption::Cipher;

/// A table, and whether its keys are names.
#[derive(Clone, Copy)]
pub(crate) struct Kept {
    pub(crate) name: &'static str,
    pub(crate) hides_keys: bool,
}

/// A key and its value.
pub(crate) type Row = (Vec<u8>, Vec<u8>);

type Bytes<'a> = Table<'a, &'static [u8], &'static [u8]>;

impl Kept {
    pub(crate) fn definition(self) -> TableDefinition<'static, &'static [u8], &'static [u8]> {
        TableDefinition::new(self.name)
    }

    /// What stands in a key's place.
    fn stored_key<'a>(self, cipher: &Cipher, key: &'a [u8]) -> Cow<'a, [u8]> {
        match cipher {
            Some(keys) if self.hides_keys => Cow::Owned(keys.hide(key).to_vec()),
            _ => Cow::Borrowed(key),
        }
    }

    /// What a stored row counts in the sum of its table; nothing when it is damaged.
    fn weight(self, cipher: &Cipher, key: &[u8], value: &[u8]) -> u64 {
        match cipher {
            None => rows::weight(value),
            Some(_) => self
                .row(cipher, key, value)
                .map_or(0, |(_, value)| rows::weight(&value)),
        }
    }

    /// A row out of what is stored; `None` when it is damaged.
    fn row(self, cipher: &Cipher, key: &[u8], value: &[u8]) -> Option<Row> {
        let Some(keys) = cipher else {
            return Some((key.to_vec(), value.to_vec()));
        };
        let row = keys.open_row(self.name, value)?;
        (*self.stored_key(cipher, &row.0) == *key).then_some(row)
    }

    /// All rows; `None` when one is damaged.
    pub(crate) fn rows(
        self,
        cipher: &Cipher,
        table: &impl ReadableTable<&'static [u8], &'static [u8]>,
    ) -> Result<Option<Vec<Row>>, redb::Error> {
        let mut rows = Vec::new();
        for stored in table.iter()? {
            let (key, value) = stored?;
            match self.row(cipher, key.value(), value.value()) {
                Some(row) => rows.push(row),
                None => return Ok(None),
            }
        }
        Ok(Some(rows))
    }

    /// Copies all rows into a table under another cipher or the same; false when one is damaged.
    pub(crate) fn copy(
        self,
        (from, cipher): (&impl ReadableTable<&'static [u8], &'static [u8]>, &Cipher),
        (to, to_cipher): (&mut Bytes<'_>, &Cipher),
    ) -> Result<bool, redb::Error> {
        for stored in from.iter()? {
            let (key, value) = stored?;
            let row = self.row(cipher, key.value(), value.value());
            match row.filter(|(key, value)| rows::open(key, value).is_some()) {
                Some((key, value)) => self.insert(to_cipher, to, &key, &value)?,
                None => return Ok(false),
            };
        }
        Ok(true)
    }

    /// The value of a key; also `None` when it is damaged.
    pub(crate) fn get(
        self,
        cipher: &Cipher,
        table: &impl ReadableTable<&'static [u8], &'static [u8]>,
        key: &[u8],
    ) -> Result<Option<Vec<u8>>, redb::Error> {
        let stored_key = self.stored_key(cipher, key);
        let Some(stored) = table.get(&*stored_key)? else {
            return Ok(None);
        };
        let row = self.row(cipher, &stored_key, stored.value());
        Ok(row.map(|(_, value)| value))
    }

    /// Puts a value in the place of an older one, and returns what that counted.
    pub(crate) fn insert(
        self,
        cipher: &Cipher,
        table: &mut Bytes<'_>,
        key: &[u8],
        value: &[u8],
    ) -> Result<u64, redb::Error> {
        let stored_key = self.stored_key(cipher, key);
        let sealed = cipher
            .as_ref()
            .map(|keys| keys.seal_row(self.name, key, value));
        let stored = sealed.as_deref().unwrap_or(value);
        let old = table.insert(&*stored_key, stored)?;
        Ok(old.map_or(0, |old| self.weight(cipher, &stored_key, old.value())))
    }

    /// Removes a row, and returns what it counted.
    pub(crate) fn remove(
        self,
        cipher: &Cipher,
        table: &mut Bytes<'_>,
        key: &[u8],
    ) -> Result<u64, redb::Error> {
        let stored_key = self.stored_key(cipher, key);
        let old = table.remove(&*stored_key)?;
        Ok(old.map_or(0, |old| self.weight(cipher, &stored_key, old.value())))
    }
}

/// A table whose rows are summed up.
pub(crate) struct Sums<'a> {
    kept: Kept,
    cipher: &'a Cipher,
    pub(crate) table: Bytes<'a>,
}

impl<'a> Sums<'a> {
    pub(crate) fn of(kept: Kept, cipher: &'a Cipher, table: Bytes<'a>) -> Self {
        Self {
            kept,
            cipher,
            table,
        }
    }

    /// Puts a row in the place of an older one, and keeps the table's sum.
    pub(crate) fn replace(
        &mut self,
        key: &[u8],
        value: &[u8],
        sum: &mut u64,
    ) -> Result<(), redb::Error> {
        let lost = self.kept.insert(self.cipher, &mut self.table, key, value)?;
        *sum = sum.wrapping_sub(lost).wrapping_add(rows::weight(value));
        Ok(())
    }

    /// Removes a row, and keeps the table's sum.
    pub(crate) fn remove(&mut self, key: &[u8], sum: &mut u64) -> Result<(), redb::Error> {
        let lost = self.kept.remove(self.cipher, &mut self.table, key)?;
        *sum = sum.wrapping_sub(lost);
        Ok(())
    }
}
