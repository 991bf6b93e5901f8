//! What a page of the change feed is asked for, and what it holds. [`scan`](super::scan) finds the
//! records, [`load`](super::load) reads them.

use std::ops::Range;
use std::sync::Arc;

use crate::cursor::Cursor;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::feed::directory::FrameRef;
use crate::feed::load;
use crate::feed::published::Published;
use crate::feed::scan::{self, Snapshot};
use crate::feed::state::FeedState;
use crate::pool::{Pooled, Reusable};
use crate::record::{Action, Actions, Record, Timestamp};

/// The largest page.
pub(crate) const LIMIT_MAX: usize = 10_000;
const LIMIT_DEFAULT: usize = 100;
const BYTE_BUDGET_DEFAULT: usize = 16 << 20;
/// A filtered page looks at no more than this many records per call.
pub(crate) const SCAN_MAX: usize = 1 << 16;

/// The order of a page.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Order {
    /// Oldest change first; the order a consumer reads in.
    #[default]
    Ascending,
    /// Newest change first.
    Descending,
}

/// What a page should hold. See [`Feed::list`](crate::Feed::list).
///
/// ```
/// use highwater::{Action, List};
/// let list = List::new().limit(500).filter(Action::Added | Action::Deleted).metadata_only(true);
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
#[must_use = "a list request does nothing until a feed reads it"]
pub struct List {
    pub(crate) after: Option<Cursor>,
    pub(crate) limit: usize,
    pub(crate) filter: Actions,
    pub(crate) modified_after: Option<Timestamp>,
    pub(crate) ids: Option<Vec<String>>,
    pub(crate) order: Order,
    pub(crate) metadata_only: bool,
    pub(crate) byte_budget: usize,
    pub(crate) relative: bool,
}

impl Default for List {
    fn default() -> Self {
        Self {
            after: None,
            limit: LIMIT_DEFAULT,
            filter: Actions::ALL,
            modified_after: None,
            ids: None,
            order: Order::Ascending,
            metadata_only: false,
            byte_budget: BYTE_BUDGET_DEFAULT,
            relative: true,
        }
    }
}

impl List {
    /// The first 100 records of the feed.
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts strictly after this cursor (strictly before it in descending order); `None` starts
    /// at the feed's beginning (its end).
    pub fn after(mut self, cursor: impl Into<Option<Cursor>>) -> Self {
        self.after = cursor.into();
        self
    }

    /// At most this many records, from 1 to 10 000; 100 by default.
    pub fn limit(mut self, records: usize) -> Self {
        self.limit = records;
        self
    }

    /// Only records whose newest change is one of these actions; all by default. A filtered page
    /// looks at a bounded number of records, so it can be short, or empty, with more to come:
    /// go on from its resume cursor.
    pub fn filter(mut self, actions: impl Into<Actions>) -> Self {
        self.filter = actions.into();
        self
    }

    /// Only records whose newest change was committed strictly after this moment.
    pub fn modified_after(mut self, moment: Timestamp) -> Self {
        self.modified_after = Some(moment);
        self
    }

    /// Only records with these ids.
    pub fn ids<S: Into<String>>(mut self, ids: impl IntoIterator<Item = S>) -> Self {
        self.ids = Some(ids.into_iter().map(Into::into).collect());
        self
    }

    /// The order of the page; ascending by default.
    pub fn order(mut self, order: Order) -> Self {
        self.order = order;
        self
    }

    /// Leaves the payloads out.
    pub fn metadata_only(mut self, metadata_only: bool) -> Self {
        self.metadata_only = metadata_only;
        self
    }

    /// Whether actions are told relative to the reader when the page starts after a cursor; true by
    /// default. Then a record that was first added after the cursor is `ADDED`, however often it
    /// changed since; one that was added and deleted after it is left out; one that was there at
    /// the cursor, was deleted and added again is `UPDATED`. With false, and on pages from the
    /// beginning or in descending order, the action is that of the record's newest change.
    pub fn relative(mut self, relative: bool) -> Self {
        self.relative = relative;
        self
    }

    /// The page stops before the record whose payload would take it past this many bytes, but
    /// always holds at least one; 16 MiB by default, 0 for no limit.
    pub fn byte_budget(mut self, bytes: usize) -> Self {
        self.byte_budget = bytes;
        self
    }
}

/// A page of records in one buffer, and where to go on.
#[derive(Clone, Debug)]
pub struct Page {
    pub(crate) content: Pooled<PageContent>,
    has_payloads: bool,
    /// The feed and epoch, and when the reader began, that the page's cursors have in common.
    feed: Cursor,
    pub(crate) resume: Cursor,
    pub(crate) has_more: bool,
    /// Bytes of payload so far, for the byte budget.
    pub(crate) payload_bytes: usize,
}

/// The records of a page, in memory that later pages use again.
#[derive(Clone, Default, Debug)]
pub(crate) struct PageContent {
    /// Ids and payloads.
    pub(crate) buffer: Vec<u8>,
    pub(crate) rows: Vec<PageRow>,
}

impl Reusable for PageContent {
    fn clear(&mut self) {
        self.buffer.clear();
        self.rows.clear();
    }

    fn capacity(&self) -> usize {
        self.buffer.capacity() + self.rows.capacity() * size_of::<PageRow>()
    }
}

/// A record of a page.
#[derive(Clone, Debug)]
pub(crate) struct PageRow {
    pub(crate) position: u64,
    /// Commit time of the record's newest change.
    pub(crate) time: u64,
    pub(crate) first_seen: u64,
    pub(crate) pruned_at: Option<u64>,
    pub(crate) id: Place,
    pub(crate) body: Place,
    /// What happened to the record, as the reader is told.
    pub(crate) action: Action,
    pub(crate) deleted: bool,
}

/// Where an id or a payload is in a page's buffer. Neither is ever longer than 4 GiB.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    start: usize,
    len: u32,
}

impl From<Range<usize>> for Place {
    fn from(range: Range<usize>) -> Self {
        Self {
            start: range.start,
            len: range.len() as u32,
        }
    }
}

impl Place {
    fn of(self, buffer: &[u8]) -> Option<&[u8]> {
        buffer.get(self.start..self.start + self.len as usize)
    }
}

impl Page {
    fn empty(engine: &Engine, feed: &FeedState, list: &List) -> Self {
        Self {
            content: engine.pages.take(),
            has_payloads: !list.metadata_only,
            feed: list.after.unwrap_or(feed.cursor(0)),
            resume: feed.cursor(0),
            has_more: false,
            payload_bytes: 0,
        }
    }

    /// Takes over where a snapshot ends. A reader that has no cursor begins with its first page.
    pub(crate) fn adopt(&mut self, list: &List, snapshot: &Snapshot) {
        if list.after.is_none() && self.resume.position == 0 {
            self.feed.purges = snapshot.purges;
        }
        self.resume = self.feed.at(snapshot.resume);
        if !snapshot.has_more {
            // Whatever a record's newest change is, the reader has come by it.
            self.resume.base = snapshot.resume;
        }
        self.has_more = snapshot.has_more;
    }

    /// Ends the page before the snapshot's end.
    pub(crate) fn stop_at(&mut self, position: u64) {
        self.resume = self.feed.at(position);
        self.has_more = true;
    }

    /// How many records the page holds.
    pub fn len(&self) -> usize {
        self.content.rows.len()
    }

    /// Whether the page holds no record. There may be more after its resume cursor all the same.
    pub fn is_empty(&self) -> bool {
        self.content.rows.is_empty()
    }

    /// The record at `index` of the page.
    pub fn get(&self, index: usize) -> Option<Record<'_>> {
        self.content.rows.get(index).map(|row| self.record(row))
    }

    /// The records, in the page's order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Record<'_>> + DoubleEndedIterator {
        self.content.rows.iter().map(|row| self.record(row))
    }

    /// The position up to which the feed was scanned: what to pass as `after` for the next page.
    pub fn resume_cursor(&self) -> Cursor {
        self.resume
    }

    /// Whether there was anything after the resume cursor when the page was read.
    pub fn has_more(&self) -> bool {
        self.has_more
    }

    fn record(&self, row: &PageRow) -> Record<'_> {
        let buffer = &self.content.buffer;
        let id = row.id.of(buffer).unwrap_or_default();
        let modified = Timestamp::from_micros(row.time);
        Record {
            // Verified to be UTF-8 when it was read.
            id: std::str::from_utf8(id).unwrap_or_default(),
            payload: if self.has_payloads && row.pruned_at.is_none() {
                row.body.of(buffer)
            } else {
                None
            },
            last_action: row.action,
            cursor: self.feed.at(row.position),
            first_seen_at: Timestamp::from_micros(row.first_seen),
            last_modified_at: modified,
            deleted_at: row.deleted.then_some(modified),
            pruned_at: row.pruned_at.map(Timestamp::from_micros),
        }
    }
}

/// Reads a page.
pub(crate) fn list(engine: &Engine, feed: &Arc<FeedState>, list: &List) -> Result<Page> {
    if !(1..=LIMIT_MAX).contains(&list.limit) {
        let (min, max) = (1, LIMIT_MAX as u64);
        return Err(Error::InvalidArgument {
            what: "limit",
            given: list.limit as u64,
            min,
            max,
        });
    }
    let after = list
        .after
        .map(|cursor| check_cursor(feed, cursor))
        .transpose()?;
    engine.make_visible(feed);
    feed.steadily(|| read(engine, feed, list, after))
}

fn read(
    engine: &Engine,
    feed: &Arc<FeedState>,
    list: &List,
    mut after: Option<u64>,
) -> Result<Page> {
    let mut page = Page::empty(engine, feed, list);
    let Some(ids) = &list.ids else {
        let mut scanned = 0;
        // What a reader need not be told of makes room for what comes after it.
        loop {
            let wanted = if list.filter == Actions::ALL {
                list.limit - page.len()
            } else {
                SCAN_MAX - scanned
            };
            let snapshot = scan::scan(engine, feed, list, after, wanted)?;
            scanned += snapshot.records();
            let (resume, more) = (snapshot.resume, snapshot.has_more);
            let stopped = load::read(engine, feed, list, snapshot, &mut page)?;
            if stopped || !more || page.len() == list.limit || scanned >= SCAN_MAX {
                return Ok(page);
            }
            after = Some(resume);
        }
    };
    let snapshot = scan::by_ids(engine, feed, list, after, ids)?;
    load::read(engine, feed, list, snapshot, &mut page)?;
    Ok(page)
}

/// Records read by id, for `get`: every found one, in the order of `ids`.
pub(crate) fn get(engine: &Engine, feed: &Arc<FeedState>, ids: &[&str]) -> Result<Page> {
    engine.make_visible(feed);
    let list = List::new().byte_budget(0);
    feed.steadily(|| {
        let mut page = Page::empty(engine, feed, &list);
        let snapshot = scan::each(engine, feed, ids)?;
        load::read_all(engine, feed, &list, &snapshot, &mut page)?;
        Ok(page)
    })
}

/// The position of a cursor that was given for this feed.
pub(crate) fn check_cursor(feed: &FeedState, cursor: Cursor) -> Result<u64> {
    if cursor.feed != feed.id {
        return Err(Error::ForeignCursor);
    }
    if cursor.epoch != feed.epoch {
        return Err(Error::StaleCursor {
            given: cursor.epoch,
            current: feed.epoch,
        });
    }
    Ok(cursor.position)
}

/// Refuses a cursor whose reader may have missed a deletion that was purged, or has seen changes of
/// a history that was given up.
pub(crate) fn check_not_expired(
    engine: &Engine,
    published: &Published,
    cursor: Cursor,
) -> Result<()> {
    let marks = &published.marks;
    let missed = cursor.purges < marks.purges && cursor.position < marks.purged_through;
    // Until the feed changes for the first time on this branch, nothing says where it begins.
    let unknown = published.generation < engine.branch().generation
        && (cursor.position > published.tail || cursor.purges > marks.purges);
    if missed || unknown || marks.is_forked_off(cursor.position) {
        return Err(Error::CursorExpired);
    }
    Ok(())
}

/// How many records a reader at `position` has yet to see.
pub(crate) fn count_after(published: &Published, position: u64) -> u64 {
    let directory = &published.directory;
    let frames = directory.iter().skip(directory.frame_after(position));
    let visible = frames.take_while(|frame| frame.first <= published.tail);
    let after = |frame: &FrameRef| {
        if frame.first > position {
            return u64::from(frame.live_count);
        }
        frame.live_from((position + 1 - frame.first) as u32).count() as u64
    };
    visible.map(after).sum()
}
