//! What a general engine has to offer for the job: three tables and transactions over them.
//!
//! * by id: `(feed, id)` to [`IdRow`]
//! * by cursor: `(feed, cursor)` to the record
//! * feeds: `feed` to its last cursor

use std::path::Path;

use anyhow::{Context, Result};

use crate::cache::{Action, Durability, Shown, Visit};

/// The cache of blocks or pages that every engine gets, where it has one: as much as Highwater's
/// indexes may take by default.
pub(crate) const CACHE_BYTES: usize = 256 << 20;

/// The content of a record, as far as it is needed to recognise it.
pub(crate) type ContentHash = [u8; 16];

/// What is known of a record by its id.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct IdRow {
    pub(crate) cursor: u64,
    pub(crate) hash: ContentHash,
    pub(crate) first_seen: u64,
    pub(crate) deleted: bool,
}

/// A record that gets a new place in its feed.
#[derive(Debug)]
pub(crate) struct Change<'a> {
    pub(crate) id: &'a str,
    pub(crate) row: IdRow,
    /// The place that the record leaves.
    pub(crate) old_cursor: Option<u64>,
    pub(crate) action: Action,
    pub(crate) modified: u64,
    pub(crate) body: &'a [u8],
}

/// Decides what a transaction writes, from the feed's last cursor and the rows that its ids have.
/// The changes come in the order of their cursors, which are the feed's next ones.
pub(crate) type Plan<'p, 'a> = &'p mut dyn FnMut(u64, &[Option<IdRow>]) -> Vec<Change<'a>>;

/// An engine with the three tables. There is one writer at a time.
pub(crate) trait Tables: Sized + Send + Sync {
    /// Opens the tables, creating them if needed.
    fn open(dir: &Path, durability: Durability) -> Result<Self>;

    /// Looks ids up, which are sorted, and writes what `plan` makes of it, in one transaction. When it makes nothing
    /// of it, nothing is written.
    fn write<'a>(&self, feed: u32, ids: &[&'a str], plan: Plan<'_, 'a>) -> Result<()>;

    /// Goes through the rows by id of a feed.
    fn scan(&self, feed: u32, visit: &mut dyn FnMut(&str, IdRow)) -> Result<()>;

    /// Shows at most `limit` records after a cursor; each comes with its cursor.
    fn page(
        &self,
        feed: u32,
        after: u64,
        limit: usize,
        visit: &mut dyn FnMut(u64, Shown<'_>),
    ) -> Result<()>;

    /// Shows the records with these ids.
    fn get(&self, feed: u32, ids: &[&str], visit: Visit<'_>) -> Result<()>;

    /// The feed's last cursor; 0 when it is empty.
    fn last(&self, feed: u32) -> Result<u64>;

    /// Brings what was written to stable storage.
    fn sync(&self) -> Result<()>;

    /// Closes the engine after the work it put off.
    fn settle(self) -> Result<()>;
}

/// The changes in the order of their ids, in which a tree by id is best written.
pub(crate) fn by_id<'c, 'a>(changes: &'c [Change<'a>]) -> Vec<&'c Change<'a>> {
    let mut sorted: Vec<_> = changes.iter().collect();
    sorted.sort_unstable_by_key(|change| change.id);
    sorted
}

impl IdRow {
    /// The length of an encoded row.
    pub(crate) const LEN: usize = 33;

    /// The row as bytes: cursor, hash, first seen, deleted.
    pub(crate) fn encode(&self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[..8].copy_from_slice(&self.cursor.to_le_bytes());
        bytes[8..24].copy_from_slice(&self.hash);
        bytes[24..32].copy_from_slice(&self.first_seen.to_le_bytes());
        bytes[32] = u8::from(self.deleted);
        bytes
    }

    /// The row of its bytes.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        let bytes: &[u8; Self::LEN] = bytes.try_into().context("a row by id is damaged")?;
        let word =
            |at: usize| -> Result<u64> { Ok(u64::from_le_bytes(bytes[at..at + 8].try_into()?)) };
        Ok(Self {
            cursor: word(0)?,
            hash: bytes[8..24].try_into()?,
            first_seen: word(24)?,
            deleted: bytes[32] != 0,
        })
    }
}

/// Action, length of the id, first seen, modified.
const HEAD: usize = 18;

impl Change<'_> {
    /// Encodes the row by cursor over what the buffer held: the head, the id, the body.
    pub(crate) fn encode(&self, row: &mut Vec<u8>) {
        row.clear();
        row.push(self.action as u8);
        row.push(u8::try_from(self.id.len()).unwrap_or(u8::MAX));
        row.extend_from_slice(&self.row.first_seen.to_le_bytes());
        row.extend_from_slice(&self.modified.to_le_bytes());
        row.extend_from_slice(self.id.as_bytes());
        row.extend_from_slice(self.body);
    }
}

impl<'a> Shown<'a> {
    /// The record of a row by cursor.
    pub(crate) fn decode(row: &'a [u8]) -> Result<Self> {
        let (head, rest) = row.split_at_checked(HEAD).context("a record is damaged")?;
        let id_len = usize::from(head[1]);
        let (id, body) = rest
            .split_at_checked(id_len)
            .context("a record is damaged")?;
        let action = action(i64::from(head[0]))?;
        Ok(Self { id, body, action })
    }
}

/// The action of its number.
pub(crate) fn action(number: i64) -> Result<Action> {
    let all = [Action::Added, Action::Updated, Action::Deleted];
    all.into_iter()
        .find(|action| *action as i64 == number)
        .context("an action is damaged")
}

/// The key of a table by id.
pub(crate) fn id_key(feed: u32, id: &str) -> Vec<u8> {
    let mut key = Vec::with_capacity(4 + id.len());
    write_id_key(feed, id, &mut key);
    key
}

/// Writes the key of a table by id over what the buffer held.
pub(crate) fn write_id_key(feed: u32, id: &str, key: &mut Vec<u8>) {
    key.clear();
    key.extend_from_slice(&feed.to_be_bytes());
    key.extend_from_slice(id.as_bytes());
}

/// The key of a table by cursor: big-endian, so that its order is that of the cursors.
pub(crate) fn cursor_key(feed: u32, cursor: u64) -> [u8; 12] {
    let mut key = [0; 12];
    key[..4].copy_from_slice(&feed.to_be_bytes());
    key[4..].copy_from_slice(&cursor.to_be_bytes());
    key
}

/// The cursor of its key.
pub(crate) fn cursor_of(key: &[u8]) -> Result<u64> {
    let bytes = key.get(4..).context("a key is damaged")?;
    Ok(u64::from_be_bytes(bytes.try_into()?))
}

/// A feed's last cursor from its bytes.
pub(crate) fn counter(bytes: Option<&[u8]>) -> Result<u64> {
    Ok(bytes.map_or(Ok(0), |bytes| bytes.try_into().map(u64::from_le_bytes))?)
}
