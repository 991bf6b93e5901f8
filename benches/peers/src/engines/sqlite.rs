//! SQLite: a write-ahead log, a connection that writes and one that reads, prepared statements.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::Result;
use parking_lot::Mutex;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, TransactionBehavior, params};

use crate::cache::{Durability, Shown, Visit};
use crate::tables::{CACHE_BYTES, Change, IdRow, Plan, Tables, action, by_id};

/// The place of a change is its feed and cursor in one integer, because SQLite's tables with an
/// integer key are its fastest; rows of 300 bytes in the inner pages of a table without row ids
/// would make it deep.
const CURSOR_BITS: u32 = 40;

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS ids (
        feed INTEGER NOT NULL, id TEXT NOT NULL, cursor INTEGER NOT NULL, hash BLOB NOT NULL,
        first_seen INTEGER NOT NULL, deleted INTEGER NOT NULL, PRIMARY KEY (feed, id)
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS changes (
        place INTEGER PRIMARY KEY, id TEXT NOT NULL, action INTEGER NOT NULL,
        first_seen INTEGER NOT NULL, modified INTEGER NOT NULL, body BLOB NOT NULL
    );
    CREATE TABLE IF NOT EXISTS feeds (feed INTEGER PRIMARY KEY, last INTEGER NOT NULL);";

const LOOK_UP: &str = "SELECT cursor, hash, first_seen, deleted FROM ids WHERE feed = ? AND id = ?";
const PUT_ID: &str = "INSERT INTO ids VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET
    cursor = excluded.cursor, hash = excluded.hash, first_seen = excluded.first_seen,
    deleted = excluded.deleted";
const DELETE_CHANGE: &str = "DELETE FROM changes WHERE place = ?";
const PUT_CHANGE: &str = "INSERT INTO changes VALUES (?, ?, ?, ?, ?, ?)";
const PUT_FEED: &str =
    "INSERT INTO feeds VALUES (?, ?) ON CONFLICT DO UPDATE SET last = excluded.last";
const LAST: &str = "SELECT last FROM feeds WHERE feed = ?";
const SCAN: &str = "SELECT cursor, hash, first_seen, deleted, id FROM ids WHERE feed = ?";
const PAGE: &str = "SELECT place, id, action, body FROM changes
    WHERE place > ? AND place < ? ORDER BY place LIMIT ?";
const GET: &str = "SELECT place, c.id, action, body FROM ids i
    JOIN changes c ON c.place = (i.feed << 40 | i.cursor) WHERE i.feed = ? AND i.id = ?";

/// A database.
pub(crate) struct Sqlite {
    writer: Mutex<Connection>,
    reader: Mutex<Connection>,
    log: PathBuf,
}

fn connect(path: &Path, durability: Durability) -> Result<Connection> {
    let connection = Connection::open(path)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    let synchronous = match durability {
        Durability::Durable => "FULL",
        Durability::Relaxed => "NORMAL",
    };
    connection.pragma_update(None, "synchronous", synchronous)?;
    connection.pragma_update(None, "cache_size", -((CACHE_BYTES >> 10) as i64))?;
    connection.pragma_update(None, "mmap_size", 4_i64 << 30)?;
    // 64 MiB of log between checkpoints: a page that is written often is copied back once.
    connection.pragma_update(None, "wal_autocheckpoint", 16_384)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.set_prepared_statement_cache_capacity(32);
    Ok(connection)
}

fn place(feed: u32, cursor: u64) -> i64 {
    i64::from(feed) << CURSOR_BITS | cursor as i64
}

fn id_row(row: &Row<'_>) -> rusqlite::Result<IdRow> {
    Ok(IdRow {
        cursor: row.get(0)?,
        hash: row.get(1)?,
        first_seen: row.get(2)?,
        deleted: row.get(3)?,
    })
}

fn bytes(value: ValueRef<'_>) -> Result<&[u8]> {
    Ok(value.as_bytes()?)
}

fn show(row: &Row<'_>, visit: &mut dyn FnMut(u64, Shown<'_>)) -> Result<()> {
    let cursor = row.get::<_, i64>(0)? & ((1 << CURSOR_BITS) - 1);
    let shown = Shown {
        id: bytes(row.get_ref(1)?)?,
        action: action(row.get(2)?)?,
        body: bytes(row.get_ref(3)?)?,
    };
    visit(cursor as u64, shown);
    Ok(())
}

fn last(connection: &Connection, feed: u32) -> Result<u64> {
    let mut statement = connection.prepare_cached(LAST)?;
    Ok(statement
        .query_row([feed], |row| row.get(0))
        .optional()?
        .unwrap_or(0))
}

fn apply(transaction: &Transaction<'_>, feed: u32, changes: &[Change<'_>]) -> Result<()> {
    let mut delete = transaction.prepare_cached(DELETE_CHANGE)?;
    let mut put = transaction.prepare_cached(PUT_CHANGE)?;
    for change in changes {
        if let Some(old) = change.old_cursor {
            delete.execute([place(feed, old)])?;
        }
        put.execute(params![
            place(feed, change.row.cursor),
            change.id,
            change.action as u8,
            change.row.first_seen,
            change.modified,
            change.body
        ])?;
    }
    let mut put_id = transaction.prepare_cached(PUT_ID)?;
    for change in by_id(changes) {
        let IdRow {
            cursor,
            hash,
            first_seen,
            deleted,
        } = change.row;
        put_id.execute(params![feed, change.id, cursor, hash, first_seen, deleted])?;
    }
    let newest = changes.last().map(|change| change.row.cursor);
    transaction
        .prepare_cached(PUT_FEED)?
        .execute(params![feed, newest])?;
    Ok(())
}

impl Tables for Sqlite {
    fn open(dir: &Path, durability: Durability) -> Result<Self> {
        let path = dir.join("cache.db");
        let writer = connect(&path, durability)?;
        writer.execute_batch(SCHEMA)?;
        Ok(Self {
            writer: Mutex::new(writer),
            reader: Mutex::new(connect(&path, durability)?),
            log: dir.join("cache.db-wal"),
        })
    }

    fn write<'a>(&self, feed: u32, ids: &[&'a str], plan: Plan<'_, 'a>) -> Result<()> {
        let mut writer = self.writer.lock();
        // The transaction becomes a writing one only when there is something to write.
        let transaction = writer.transaction_with_behavior(TransactionBehavior::Deferred)?;
        let mut rows = Vec::with_capacity(ids.len());
        {
            let mut statement = transaction.prepare_cached(LOOK_UP)?;
            for id in ids {
                rows.push(statement.query_row(params![feed, id], id_row).optional()?);
            }
        }
        let changes = plan(last(&transaction, feed)?, &rows);
        if !changes.is_empty() {
            apply(&transaction, feed, &changes)?;
        }
        Ok(transaction.commit()?)
    }

    fn scan(&self, feed: u32, visit: &mut dyn FnMut(&str, IdRow)) -> Result<()> {
        let reader = self.reader.lock();
        let mut statement = reader.prepare_cached(SCAN)?;
        let mut rows = statement.query([feed])?;
        while let Some(row) = rows.next()? {
            visit(row.get_ref(4)?.as_str()?, id_row(row)?);
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
        let reader = self.reader.lock();
        let mut statement = reader.prepare_cached(PAGE)?;
        let mut rows = statement.query(params![
            place(feed, after),
            place(feed + 1, 0),
            limit as i64
        ])?;
        while let Some(row) = rows.next()? {
            show(row, visit)?;
        }
        Ok(())
    }

    fn get(&self, feed: u32, ids: &[&str], visit: Visit<'_>) -> Result<()> {
        let reader = self.reader.lock();
        // One snapshot for all of them, and one lock of the log's index.
        let snapshot = reader.unchecked_transaction()?;
        let mut statement = snapshot.prepare_cached(GET)?;
        for id in ids {
            let mut rows = statement.query(params![feed, id])?;
            while let Some(row) = rows.next()? {
                show(row, &mut |_, shown| visit(shown))?;
            }
        }
        Ok(())
    }

    fn last(&self, feed: u32) -> Result<u64> {
        last(&self.reader.lock(), feed)
    }

    fn sync(&self) -> Result<()> {
        // What a checkpoint would do first; the rest of it is not needed to be durable.
        Ok(File::open(&self.log)?.sync_data()?)
    }

    fn settle(self) -> Result<()> {
        drop(self.reader);
        // The last connection checkpoints when it closes.
        let writer = self.writer.into_inner();
        writer.close().map_err(|(_, error)| error)?;
        Ok(())
    }
}
