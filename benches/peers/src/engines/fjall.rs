//! fjall: three keyspaces with filters, one write batch per save.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use fjall::config::{BlockSizePolicy, CompressionPolicy, HashRatioPolicy};
use fjall::{CompressionType, Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use crate::cache::{Durability, Shown, Visit};
use crate::tables::{
    CACHE_BYTES, IdRow, Plan, Tables, by_id, counter, cursor_key, cursor_of, id_key,
};

/// A database.
pub(crate) struct Fjall {
    db: Database,
    ids: Keyspace,
    changes: Keyspace,
    feeds: Keyspace,
    persist: PersistMode,
}

fn row(ids: &Keyspace, feed: u32, id: &str) -> Result<Option<IdRow>> {
    let row = ids.get(id_key(feed, id))?;
    row.map(|row| IdRow::decode(&row)).transpose()
}

impl Tables for Fjall {
    fn open(dir: &Path, durability: Durability) -> Result<Self> {
        let db = Database::builder(dir)
            .cache_size(CACHE_BYTES as u64)
            .open()?;
        // Filters of 10 bits a key are the default, as is LZ4, which cursors and hashes gain
        // nothing from.
        let ids = || {
            KeyspaceCreateOptions::default()
                .data_block_hash_ratio_policy(HashRatioPolicy::all(8.0))
                .data_block_compression_policy(CompressionPolicy::all(CompressionType::None))
        };
        let changes = || {
            KeyspaceCreateOptions::default().data_block_size_policy(BlockSizePolicy::all(16 << 10))
        };
        Ok(Self {
            ids: db.keyspace("ids", ids)?,
            changes: db.keyspace("changes", changes)?,
            feeds: db.keyspace("feeds", KeyspaceCreateOptions::default)?,
            db,
            persist: match durability {
                Durability::Durable => PersistMode::SyncData,
                Durability::Relaxed => PersistMode::Buffer,
            },
        })
    }

    fn write<'a>(&self, feed: u32, ids: &[&'a str], plan: Plan<'_, 'a>) -> Result<()> {
        let rows: Result<Vec<_>> = ids.iter().map(|id| row(&self.ids, feed, id)).collect();
        let changes = plan(self.last(feed)?, &rows?);
        let Some(newest) = changes.last().map(|change| change.row.cursor) else {
            return Ok(());
        };
        let mut batch = self.db.batch().durability(Some(self.persist));
        let mut row = Vec::new();
        for change in by_id(&changes) {
            batch.insert(&self.ids, id_key(feed, change.id), change.row.encode());
        }
        for change in &changes {
            if let Some(old) = change.old_cursor {
                batch.remove(&self.changes, cursor_key(feed, old));
            }
            change.encode(&mut row);
            let key = cursor_key(feed, change.row.cursor);
            batch.insert(&self.changes, key, &row[..]);
        }
        batch.insert(&self.feeds, feed.to_be_bytes(), newest.to_le_bytes());
        Ok(batch.commit()?)
    }

    fn scan(&self, feed: u32, visit: &mut dyn FnMut(&str, IdRow)) -> Result<()> {
        for row in self.ids.prefix(feed.to_be_bytes()) {
            let (key, row) = row.into_inner()?;
            visit(std::str::from_utf8(&key[4..])?, IdRow::decode(&row)?);
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
        let range = cursor_key(feed, after + 1)..cursor_key(feed + 1, 0);
        for row in self.changes.range(range).take(limit) {
            let (key, row) = row.into_inner()?;
            visit(cursor_of(&key)?, Shown::decode(&row)?);
        }
        Ok(())
    }

    fn get(&self, feed: u32, ids: &[&str], visit: Visit<'_>) -> Result<()> {
        for id in ids {
            if let Some(row) = row(&self.ids, feed, id)? {
                let change = self.changes.get(cursor_key(feed, row.cursor))?;
                visit(Shown::decode(&change.context("a change is gone")?)?);
            }
        }
        Ok(())
    }

    fn last(&self, feed: u32) -> Result<u64> {
        counter(self.feeds.get(feed.to_be_bytes())?.as_deref())
    }

    fn sync(&self) -> Result<()> {
        Ok(self.db.persist(PersistMode::SyncData)?)
    }

    fn settle(self) -> Result<()> {
        // What is in the journal alone is written out, as RocksDB does, and then compacted.
        for keyspace in [&self.ids, &self.changes, &self.feeds] {
            keyspace.rotate_memtable_and_wait()?;
        }
        while self.db.outstanding_flushes() > 0 || self.db.active_compactions() > 0 {
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(self.db.persist(PersistMode::SyncAll)?)
    }
}
