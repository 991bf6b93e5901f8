//! redb: three tables, looked up in a read transaction, written in one write transaction.

use std::path::Path;

use anyhow::{Context, Result};
use redb::{Database, ReadableDatabase as _, TableDefinition, TableError};

use crate::cache::{Durability, Shown, Visit};
use crate::tables::{
    CACHE_BYTES, Change, IdRow, Plan, Tables, by_id, counter, cursor_key, cursor_of, id_key,
    write_id_key,
};

type Definition = TableDefinition<'static, &'static [u8], &'static [u8]>;
type Table = redb::ReadOnlyTable<&'static [u8], &'static [u8]>;

const IDS: Definition = TableDefinition::new("ids");
const CHANGES: Definition = TableDefinition::new("changes");
const FEEDS: Definition = TableDefinition::new("feeds");

/// A database.
pub(crate) struct Redb {
    db: Database,
    durability: redb::Durability,
}

fn row(ids: &Table, key: &[u8]) -> Result<Option<IdRow>> {
    let row = ids.get(key)?;
    row.map(|row| IdRow::decode(row.value())).transpose()
}

impl Redb {
    fn table(&self, definition: Definition) -> Result<Table> {
        Ok(self.db.begin_read()?.open_table(definition)?)
    }

    fn apply(&self, feed: u32, changes: &[Change<'_>], newest: u64) -> Result<()> {
        let mut txn = self.db.begin_write()?;
        txn.set_durability(self.durability)?;
        {
            let (mut key, mut row) = (Vec::new(), Vec::new());
            let mut ids = txn.open_table(IDS)?;
            for change in by_id(changes) {
                write_id_key(feed, change.id, &mut key);
                ids.insert(&key[..], &change.row.encode()[..])?;
            }
            let mut table = txn.open_table(CHANGES)?;
            for old in changes.iter().filter_map(|change| change.old_cursor) {
                table.remove(&cursor_key(feed, old)[..])?;
            }
            for change in changes {
                change.encode(&mut row);
                table.insert(&cursor_key(feed, change.row.cursor)[..], &row[..])?;
            }
            let mut feeds = txn.open_table(FEEDS)?;
            feeds.insert(&feed.to_be_bytes()[..], &newest.to_le_bytes()[..])?;
        }
        Ok(txn.commit()?)
    }
}

impl Tables for Redb {
    fn open(dir: &Path, durability: Durability) -> Result<Self> {
        let mut builder = Database::builder();
        builder.set_cache_size(CACHE_BYTES);
        let db = builder.create(dir.join("cache.redb"))?;
        // Tables exist once they were opened for writing.
        if let Err(TableError::TableDoesNotExist(_)) = db.begin_read()?.open_table(FEEDS) {
            let txn = db.begin_write()?;
            for table in [IDS, CHANGES, FEEDS] {
                txn.open_table(table)?;
            }
            txn.commit()?;
        }
        let durability = match durability {
            Durability::Durable => redb::Durability::Immediate,
            Durability::Relaxed => redb::Durability::None,
        };
        Ok(Self { db, durability })
    }

    fn write<'a>(&self, feed: u32, ids: &[&'a str], plan: Plan<'_, 'a>) -> Result<()> {
        // A write transaction costs more than a read one, and mostly there is nothing to write.
        let txn = self.db.begin_read()?;
        let table = txn.open_table(IDS)?;
        let (mut key, mut rows) = (Vec::new(), Vec::with_capacity(ids.len()));
        for id in ids {
            write_id_key(feed, id, &mut key);
            rows.push(row(&table, &key)?);
        }
        let last = txn.open_table(FEEDS)?.get(&feed.to_be_bytes()[..])?;
        let last = counter(last.as_ref().map(|last| last.value()))?;
        let changes = plan(last, &rows);
        // Pages that a reader may read cannot be used again.
        drop((table, txn));
        match changes.last() {
            Some(newest) => self.apply(feed, &changes, newest.row.cursor),
            None => Ok(()),
        }
    }

    fn scan(&self, feed: u32, visit: &mut dyn FnMut(&str, IdRow)) -> Result<()> {
        let (from, to) = (feed.to_be_bytes(), (feed + 1).to_be_bytes());
        for row in self.table(IDS)?.range(&from[..]..&to[..])? {
            let (key, row) = row?;
            let id = std::str::from_utf8(&key.value()[4..])?;
            visit(id, IdRow::decode(row.value())?);
        }
        Ok(())
    }

    fn page(
        &self,
        feed: u32,
        after: u64,
        limit: usize,
        visit: &mut dyn FnMut(u64, Shown<'_>),
    ) -> Result<()> {
        let (from, to) = (cursor_key(feed, after + 1), cursor_key(feed + 1, 0));
        let rows = self.table(CHANGES)?.range(&from[..]..&to[..])?;
        for row in rows.take(limit) {
            let (key, row) = row?;
            visit(cursor_of(key.value())?, Shown::decode(row.value())?);
        }
        Ok(())
    }

    fn get(&self, feed: u32, ids: &[&str], visit: Visit<'_>) -> Result<()> {
        let txn = self.db.begin_read()?;
        let (by_id, changes) = (txn.open_table(IDS)?, txn.open_table(CHANGES)?);
        for id in ids {
            if let Some(row) = row(&by_id, &id_key(feed, id))? {
                let change = changes.get(&cursor_key(feed, row.cursor)[..])?;
                visit(Shown::decode(change.context("a change is gone")?.value())?);
            }
        }
        Ok(())
    }

    fn last(&self, feed: u32) -> Result<u64> {
        let last = self.table(FEEDS)?.get(&feed.to_be_bytes()[..])?;
        counter(last.as_ref().map(|last| last.value()))
    }

    fn sync(&self) -> Result<()> {
        // A commit that is durable makes those before it durable too.
        let mut txn = self.db.begin_write()?;
        txn.set_durability(redb::Durability::Immediate)?;
        Ok(txn.commit()?)
    }

    fn settle(self) -> Result<()> {
        Ok(self.db.close()?)
    }
}
