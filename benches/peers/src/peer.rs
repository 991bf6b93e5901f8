//! The records cache on top of a general engine's tables, as a program would write it.

use std::hash::BuildHasher as _;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use hashbrown::HashSet;
use parking_lot::{Condvar, Mutex};

use crate::cache::{Action, Cache, Durability, Page, Record, Shown, Totals, Visit};
use crate::tables::{Change, ContentHash, IdRow, Tables};

/// A records cache on tables.
pub(crate) struct Peer<T> {
    tables: T,
    /// From looking up to committing there is one writer, also on engines that would allow more.
    writing: Mutex<()>,
}

/// A feed, and who waits for it or sweeps it.
pub(crate) struct PeerFeed {
    number: u32,
    /// The last cursor that is known to be committed; 0 before the first write or wait.
    committed: Mutex<u64>,
    commit: Condvar,
    /// Hashes of the ids that were seen, while there is a sweep. Marks in the rows by id would
    /// survive a crash, but each would be a write; a program that fetches everything anyway starts
    /// its sweep again instead.
    seen: Mutex<Option<HashSet<u64>>>,
}

fn content_hash(body: &[u8]) -> ContentHash {
    let hash = *blake3::hash(body).as_bytes();
    hash[..16].try_into().unwrap_or_default()
}

/// The time, never going back.
fn now_micros() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = since.map_or(0, |since| since.as_micros() as u64);
    LAST.fetch_max(now, Ordering::Relaxed).max(now)
}

/// What becomes of a record: its action, or `None` when it is stored like that.
fn classify(stored: Option<&IdRow>, hash: &ContentHash) -> Option<Action> {
    match stored {
        Some(row) if row.deleted => Some(Action::Added),
        Some(row) if row.hash == *hash => None,
        Some(_) => Some(Action::Updated),
        None => Some(Action::Added),
    }
}

impl<T: Tables> Peer<T> {
    /// Announces the cursor of a commit.
    fn announce(&self, feed: &PeerFeed, cursor: u64) {
        *feed.committed.lock() = cursor;
        feed.commit.notify_all();
    }
}

impl<T: Tables> Cache for Peer<T> {
    type Feed = PeerFeed;
    type Cursor = u64;

    fn open(dir: &Path, durability: Durability) -> Result<Self> {
        let tables = T::open(dir, durability)?;
        let writing = Mutex::new(());
        Ok(Self { tables, writing })
    }

    fn feed(&self, number: u32) -> Result<PeerFeed> {
        Ok(PeerFeed {
            number,
            committed: Mutex::new(0),
            commit: Condvar::new(),
            seen: Mutex::new(None),
        })
    }

    fn save(&self, feed: &PeerFeed, batch: &[Record]) -> Result<Totals> {
        let hashes: Vec<ContentHash> = batch.iter().map(|(_, body)| content_hash(body)).collect();
        let mut order: Vec<usize> = (0..batch.len()).collect();
        // Neighbours in a tree are near each other in memory too: it gains every engine more than
        // the sorting takes.
        order.sort_unstable_by_key(|&at| &batch[at].0);
        let ids: Vec<&str> = order.iter().map(|&at| batch[at].0.as_str()).collect();
        if let Some(seen) = &mut *feed.seen.lock() {
            let hasher = seen.hasher().clone();
            seen.extend(ids.iter().map(|id| hasher.hash_one(id)));
        }

        let (mut totals, mut last) = (Totals::default(), None);
        let _one = self.writing.lock();
        self.tables.write(feed.number, &ids, &mut |cursor, rows| {
            let mut stored = vec![None; batch.len()];
            for (&at, row) in order.iter().zip(rows) {
                stored[at] = row.as_ref();
            }
            let (mut changes, modified) = (Vec::new(), now_micros());
            for (((id, body), hash), stored) in batch.iter().zip(&hashes).zip(stored) {
                let Some(action) = classify(stored, hash) else {
                    totals.unchanged += 1;
                    continue;
                };
                let first_seen = match (action, stored) {
                    (Action::Updated, Some(row)) => row.first_seen,
                    _ => modified,
                };
                if action == Action::Added {
                    totals.added += 1;
                } else {
                    totals.updated += 1;
                }
                let row = IdRow {
                    cursor: cursor + 1 + changes.len() as u64,
                    hash: *hash,
                    first_seen,
                    deleted: false,
                };
                last = Some(row.cursor);
                let old_cursor = stored.map(|row| row.cursor);
                changes.push(Change {
                    id,
                    row,
                    old_cursor,
                    action,
                    modified,
                    body,
                });
            }
            changes
        })?;
        if let Some(last) = last {
            self.announce(feed, last);
        }
        Ok(totals)
    }

    fn page(
        &self,
        feed: &PeerFeed,
        after: Option<u64>,
        limit: usize,
        visit: Visit<'_>,
    ) -> Result<Page<u64>> {
        let (mut resume, mut count) = (after.unwrap_or(0), 0);
        self.tables
            .page(feed.number, resume, limit, &mut |cursor, shown| {
                resume = cursor;
                count += 1;
                visit(shown);
            })?;
        let has_more = count == limit;
        Ok(Page { resume, has_more })
    }

    fn get(&self, feed: &PeerFeed, ids: &[&str], visit: Visit<'_>) -> Result<()> {
        self.tables.get(feed.number, ids, visit)
    }

    fn sweep_begin(&self, feed: &PeerFeed) -> Result<()> {
        *feed.seen.lock() = Some(HashSet::new());
        Ok(())
    }

    fn sweep_end(&self, feed: &PeerFeed) -> Result<u64> {
        let seen = feed.seen.lock().take().context("no sweep was begun")?;
        let _one = self.writing.lock();
        let mut unseen = Vec::new();
        self.tables.scan(feed.number, &mut |id, row| {
            if !row.deleted && !seen.contains(&seen.hasher().hash_one(id)) {
                unseen.push((row.cursor, id.to_owned()));
            }
        })?;
        unseen.sort_unstable();
        let ids: Vec<&str> = unseen.iter().map(|(_, id)| id.as_str()).collect();
        // A deletion shows the record's last body.
        let mut bodies = Vec::with_capacity(ids.len());
        let keep = &mut |shown: Shown<'_>| bodies.push(shown.body.to_vec());
        self.tables.get(feed.number, &ids, keep)?;
        ensure!(bodies.len() == ids.len(), "a record has no body");

        let mut last = None;
        self.tables.write(feed.number, &ids, &mut |cursor, rows| {
            let modified = now_micros();
            let delete = |((at, row), body)| {
                let (row, body): (&Option<IdRow>, &Vec<u8>) = (row, body);
                let old = (*row)?;
                let row = IdRow {
                    cursor: cursor + 1 + at as u64,
                    deleted: true,
                    ..old
                };
                last = Some(row.cursor);
                Some(Change {
                    id: ids[at],
                    row,
                    old_cursor: Some(old.cursor),
                    action: Action::Deleted,
                    modified,
                    body,
                })
            };
            let rows = rows.iter().enumerate().zip(&bodies);
            rows.filter_map(delete).collect()
        })?;
        if let Some(last) = last {
            self.announce(feed, last);
        }
        Ok(unseen.len() as u64)
    }

    fn last(&self, feed: &PeerFeed) -> Result<Option<u64>> {
        let last = self.tables.last(feed.number)?;
        Ok((last > 0).then_some(last))
    }

    fn wait(&self, feed: &PeerFeed, after: Option<u64>, timeout: Duration) -> Result<bool> {
        let mut committed = feed.committed.lock();
        if *committed == 0 {
            *committed = self.tables.last(feed.number)?;
        }
        let nothing_new = |committed: &mut u64| *committed <= after.unwrap_or(0);
        let waited = feed
            .commit
            .wait_while_for(&mut committed, nothing_new, timeout);
        Ok(!waited.timed_out())
    }

    fn sync(&self) -> Result<()> {
        self.tables.sync()
    }

    fn settle(self) -> Result<()> {
        self.tables.settle()
    }
}
