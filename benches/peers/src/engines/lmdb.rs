//! LMDB: three databases of one environment, read from its map without a copy.

use std::ops::Bound;
use std::path::Path;

use anyhow::{Context, Result};
use heed::types::Bytes;
use heed::{
    CommitOrAbort, Database, Env, EnvFlags, EnvOpenOptions, PutFlags, RoTxn, RwTxn, WithoutTls,
};

use crate::cache::{Durability, Shown, Visit};
use crate::tables::{
    Change, IdRow, Plan, Tables, by_id, counter, cursor_key, cursor_of, id_key, write_id_key,
};

/// Room in the address space; the file grows as needed.
const MAP_BYTES: usize = 64 << 30;

type Table = Database<'static, Bytes, Bytes>;

/// An environment.
pub(crate) struct Lmdb {
    env: &'static Env<WithoutTls>,
    ids: Table,
    changes: Table,
    feeds: Table,
}

impl Lmdb {
    fn row(&self, txn: &RoTxn<'_>, key: &[u8]) -> Result<Option<IdRow>> {
        self.ids.get(txn, key)?.map(IdRow::decode).transpose()
    }

    fn apply(&self, txn: &mut RwTxn<'_>, feed: u32, changes: &[Change<'_>]) -> Result<()> {
        let (mut key, mut row) = (Vec::new(), Vec::new());
        for change in by_id(changes) {
            write_id_key(feed, change.id, &mut key);
            self.ids.put(txn, &key, &change.row.encode())?;
        }
        for old in changes.iter().filter_map(|change| change.old_cursor) {
            self.changes.delete(txn, &cursor_key(feed, old))?;
        }
        // At the tree's end LMDB fills pages and does not halve them, if it is told.
        let at_end = match (self.changes.last(txn)?, changes.first()) {
            (Some((last, _)), Some(first)) => *last < cursor_key(feed, first.row.cursor)[..],
            _ => true,
        };
        let flags = if at_end {
            PutFlags::APPEND
        } else {
            PutFlags::empty()
        };
        for change in changes {
            change.encode(&mut row);
            let key = cursor_key(feed, change.row.cursor);
            self.changes.put_with_flags(txn, flags, &key, &row)?;
        }
        if let Some(newest) = changes.last() {
            let last = newest.row.cursor.to_le_bytes();
            self.feeds.put(txn, &feed.to_be_bytes(), &last)?;
        }
        Ok(())
    }
}

impl Tables for Lmdb {
    #[expect(
        unsafe_code,
        reason = "no other process touches the file, and a lost sync loses only the benchmark"
    )]
    fn open(dir: &Path, durability: Durability) -> Result<Self> {
        let mut options = EnvOpenOptions::new().read_txn_without_tls();
        options.map_size(MAP_BYTES).max_dbs(3);
        let mut flags = EnvFlags::NO_MEM_INIT;
        if durability == Durability::Relaxed {
            // Writing through the map saves a copy, but makes each sync dearer.
            flags |= EnvFlags::WRITE_MAP | EnvFlags::NO_SYNC | EnvFlags::NO_META_SYNC;
        }
        // The tables borrow the environment, which is open until the process ends.
        let env: &'static Env<WithoutTls> =
            Box::leak(Box::new(unsafe { options.flags(flags).open(dir)? }));
        let tables = env.create_databases_and_commit(env.write_txn()?, |opener, txn| {
            let ids = opener.create_database(txn, Some("ids"))?;
            let changes = opener.create_database(txn, Some("changes"))?;
            let feeds = opener.create_database(txn, Some("feeds"))?;
            heed::Result::Ok(CommitOrAbort::<_, ()>::Commit((ids, changes, feeds)))
        })?;
        let (ids, changes, feeds) = tables.unwrap_commit();
        Ok(Self {
            env,
            ids,
            changes,
            feeds,
        })
    }

    fn write<'a>(&self, feed: u32, ids: &[&'a str], plan: Plan<'_, 'a>) -> Result<()> {
        let mut txn = self.env.write_txn()?;
        let (mut key, mut rows) = (Vec::new(), Vec::with_capacity(ids.len()));
        for id in ids {
            write_id_key(feed, id, &mut key);
            rows.push(self.row(&txn, &key)?);
        }
        let last = counter(self.feeds.get(&txn, &feed.to_be_bytes())?)?;
        let changes = plan(last, &rows);
        if changes.is_empty() {
            txn.abort();
            return Ok(());
        }
        self.apply(&mut txn, feed, &changes)?;
        Ok(txn.commit()?)
    }

    fn scan(&self, feed: u32, visit: &mut dyn FnMut(&str, IdRow)) -> Result<()> {
        let txn = self.env.read_txn()?;
        for row in self.ids.prefix_iter(&txn, &feed.to_be_bytes())? {
            let (key, row) = row?;
            visit(std::str::from_utf8(&key[4..])?, IdRow::decode(row)?);
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
        let txn = self.env.read_txn()?;
        let (from, to) = (cursor_key(feed, after), cursor_key(feed + 1, 0));
        let range = (Bound::Excluded(&from[..]), Bound::Excluded(&to[..]));
        for row in self.changes.range(&txn, &range)?.take(limit) {
            let (key, row) = row?;
            visit(cursor_of(key)?, Shown::decode(row)?);
        }
        Ok(())
    }

    fn get(&self, feed: u32, ids: &[&str], visit: Visit<'_>) -> Result<()> {
        let txn = self.env.read_txn()?;
        for id in ids {
            if let Some(row) = self.row(&txn, &id_key(feed, id))? {
                let change = self.changes.get(&txn, &cursor_key(feed, row.cursor))?;
                visit(Shown::decode(change.context("a change is gone")?)?);
            }
        }
        Ok(())
    }

    fn last(&self, feed: u32) -> Result<u64> {
        let txn = self.env.read_txn()?;
        counter(self.feeds.get(&txn, &feed.to_be_bytes())?)
    }

    fn sync(&self) -> Result<()> {
        Ok(self.env.force_sync()?)
    }

    fn settle(self) -> Result<()> {
        // Nothing is put off; the last syncs are made up for in the relaxed mode.
        Ok(self.env.force_sync()?)
    }
}
