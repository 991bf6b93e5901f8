//! RocksDB: column families, Bloom filters, batched look-ups, one write batch per save.

use std::path::Path;

use anyhow::{Context, Result};
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB, DBCompressionType,
    DataBlockIndexType, Options, ReadOptions, WaitForCompactOptions, WriteBatch, WriteOptions,
};

use crate::cache::{Durability, Shown, Visit};
use crate::tables::{
    CACHE_BYTES, IdRow, Plan, Tables, by_id, counter, cursor_key, cursor_of, id_key, write_id_key,
};

const IDS: &str = "ids";
const CHANGES: &str = "changes";
const FEEDS: &str = "feeds";

/// A database.
pub(crate) struct Rocks {
    db: DB,
    write: WriteOptions,
}

/// What both large column families have in common.
fn family(blocks: &mut BlockBasedOptions, cache: &Cache) -> Options {
    blocks.set_block_cache(cache);
    blocks.set_format_version(6);
    blocks.set_cache_index_and_filter_blocks(true);
    blocks.set_cache_index_and_filter_blocks_with_high_priority(true);
    blocks.set_pin_l0_filter_and_index_blocks_in_cache(true);
    let mut options = Options::default();
    options.set_write_buffer_size(64 << 20);
    options.set_max_write_buffer_number(4);
    options.set_compression_type(DBCompressionType::Lz4);
    options
}

/// Point look-ups only, which mostly find their key in a re-sync, and never in a first load.
fn ids(cache: &Cache) -> Options {
    let mut blocks = BlockBasedOptions::default();
    blocks.set_bloom_filter(10.0, false);
    blocks.set_block_size(4 << 10);
    blocks.set_data_block_index_type(DataBlockIndexType::BinaryAndHash);
    let mut options = family(&mut blocks, cache);
    options.set_memtable_whole_key_filtering(true);
    options.set_memtable_prefix_bloom_ratio(0.02);
    // Cursors and hashes do not compress.
    options.set_compression_type(DBCompressionType::None);
    options.set_block_based_table_factory(&blocks);
    options
}

/// Scans, and look-ups of keys that are there.
fn changes(cache: &Cache) -> Options {
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_size(16 << 10);
    let mut options = family(&mut blocks, cache);
    options.set_block_based_table_factory(&blocks);
    options
}

impl Rocks {
    fn family(&self, name: &str) -> Result<&ColumnFamily> {
        self.db.cf_handle(name).context("a column family is gone")
    }

    /// Looks ids up, in the order of their keys.
    fn look_up(&self, feed: u32, ids: &[&str]) -> Result<Vec<Option<IdRow>>> {
        let keys: Vec<Vec<u8>> = ids.iter().map(|id| id_key(feed, id)).collect();
        let found = self
            .db
            .batched_multi_get_cf(self.family(IDS)?, &keys, ids.is_sorted());
        let decode = |row: std::result::Result<Option<_>, _>| -> Result<Option<IdRow>> {
            let row: Option<rocksdb::DBPinnableSlice<'_>> = row?;
            row.map(|row| IdRow::decode(&row)).transpose()
        };
        found.into_iter().map(decode).collect()
    }
}

impl Tables for Rocks {
    fn open(dir: &Path, durability: Durability) -> Result<Self> {
        let cache = Cache::new_hyper_clock_cache(CACHE_BYTES, 0);
        let mut options = Options::default();
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        options.set_max_background_jobs(4);
        options.set_bytes_per_sync(1 << 20);
        // A log that is written over needs no new blocks, so a sync has less to write.
        options.set_recycle_log_file_num(4);
        options.set_max_total_wal_size(512 << 20);
        let families = [
            ColumnFamilyDescriptor::new(IDS, ids(&cache)),
            ColumnFamilyDescriptor::new(CHANGES, changes(&cache)),
            ColumnFamilyDescriptor::new(FEEDS, Options::default()),
        ];
        let db = DB::open_cf_descriptors(&options, dir, families)?;
        let mut write = WriteOptions::default();
        write.set_sync(durability == Durability::Durable);
        Ok(Self { db, write })
    }

    fn write<'a>(&self, feed: u32, ids: &[&'a str], plan: Plan<'_, 'a>) -> Result<()> {
        let rows = self.look_up(feed, ids)?;
        let planned = plan(self.last(feed)?, &rows);
        let Some(newest) = planned.last().map(|change| change.row.cursor) else {
            return Ok(());
        };
        let (ids, changes) = (self.family(IDS)?, self.family(CHANGES)?);
        let mut batch = WriteBatch::default();
        let (mut key, mut row) = (Vec::new(), Vec::new());
        for change in by_id(&planned) {
            write_id_key(feed, change.id, &mut key);
            batch.put_cf(ids, &key, change.row.encode());
        }
        for change in &planned {
            if let Some(old) = change.old_cursor {
                batch.delete_cf(changes, cursor_key(feed, old));
            }
            change.encode(&mut row);
            batch.put_cf(changes, cursor_key(feed, change.row.cursor), &row);
        }
        let feeds = self.family(FEEDS)?;
        batch.put_cf(feeds, feed.to_be_bytes(), newest.to_le_bytes());
        Ok(self.db.write_opt(batch, &self.write)?)
    }

    fn scan(&self, feed: u32, visit: &mut dyn FnMut(&str, IdRow)) -> Result<()> {
        let mut options = ReadOptions::default();
        options.set_iterate_upper_bound((feed + 1).to_be_bytes());
        // A scan of everything would only push out what look-ups need.
        options.fill_cache(false);
        let mut rows = self.db.raw_iterator_cf_opt(self.family(IDS)?, options);
        rows.seek(feed.to_be_bytes());
        while let Some((key, row)) = rows.item() {
            visit(std::str::from_utf8(&key[4..])?, IdRow::decode(row)?);
            rows.next();
        }
        Ok(rows.status()?)
    }

    fn page(
        &self,
        feed: u32,
        after: u64,
        limit: usize,
        visit: &mut dyn FnMut(u64, Shown<'_>),
    ) -> Result<()> {
        let mut options = ReadOptions::default();
        options.set_iterate_upper_bound((feed + 1).to_be_bytes());
        let mut rows = self.db.raw_iterator_cf_opt(self.family(CHANGES)?, options);
        rows.seek(cursor_key(feed, after + 1));
        for _ in 0..limit {
            let Some((key, row)) = rows.item() else { break };
            visit(cursor_of(key)?, Shown::decode(row)?);
            rows.next();
        }
        Ok(rows.status()?)
    }

    fn get(&self, feed: u32, ids: &[&str], visit: Visit<'_>) -> Result<()> {
        let rows = self.look_up(feed, ids)?;
        let key = |row: &IdRow| cursor_key(feed, row.cursor);
        let keys: Vec<[u8; 12]> = rows.iter().flatten().map(key).collect();
        let found = self
            .db
            .batched_multi_get_cf(self.family(CHANGES)?, &keys, false);
        for row in found {
            visit(Shown::decode(&row?.context("a change is gone")?)?);
        }
        Ok(())
    }

    fn last(&self, feed: u32) -> Result<u64> {
        let key = feed.to_be_bytes();
        counter(self.db.get_pinned_cf(self.family(FEEDS)?, key)?.as_deref())
    }

    fn sync(&self) -> Result<()> {
        Ok(self.db.flush_wal(true)?)
    }

    fn settle(self) -> Result<()> {
        let mut options = WaitForCompactOptions::default();
        options.set_flush(true);
        Ok(self.db.wait_for_compact(&options)?)
    }
}
