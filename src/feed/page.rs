//! Pages of the change feed: from a cursor, in order, filtered, bounded in records, bytes and work.

use std::sync::Arc;

use crate::cursor::Cursor;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::feed::directory::FrameRef;
use crate::feed::read::{Located, Row, Span};
use crate::feed::state::{FeedState, Published};
use crate::record::{Action, Actions, Record, Timestamp};

/// The largest page.
pub(crate) const LIMIT_MAX: usize = 10_000;
const LIMIT_DEFAULT: usize = 100;
const BYTE_BUDGET_DEFAULT: usize = 16 << 20;
/// A filtered page looks at no more than this many records per call.
const SCAN_MAX: usize = 1 << 16;

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
    buffer: Vec<u8>,
    rows: Vec<Row>,
    has_payloads: bool,
    feed: Cursor,
    resume: Cursor,
    has_more: bool,
}

impl Page {
    /// How many records the page holds.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether the page holds no record. There may be more after its resume cursor all the same.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The record at `index` of the page.
    pub fn get(&self, index: usize) -> Option<Record<'_>> {
        self.rows.get(index).map(|row| self.record(row))
    }

    /// The records, in the page's order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Record<'_>> + DoubleEndedIterator {
        self.rows.iter().map(|row| self.record(row))
    }

    /// The position up to which the feed was scanned: what to pass as `after` for the next page.
    pub fn resume_cursor(&self) -> Cursor {
        self.resume
    }

    /// Whether there was anything after the resume cursor when the page was read.
    pub fn has_more(&self) -> bool {
        self.has_more
    }

    fn record(&self, row: &Row) -> Record<'_> {
        let id = self.buffer.get(row.id.clone()).unwrap_or_default();
        let deleted = row.entry.action == Action::Deleted;
        let modified = Timestamp::from_micros(row.time);
        Record {
            // Verified to be UTF-8 when it was read.
            id: std::str::from_utf8(id).unwrap_or_default(),
            payload: if self.has_payloads {
                self.buffer.get(row.body.clone())
            } else {
                None
            },
            last_action: row.entry.action,
            cursor: Cursor {
                position: row.position,
                ..self.feed
            },
            first_seen_at: Timestamp::from_micros(row.entry.first_seen),
            last_modified_at: modified,
            deleted_at: deleted.then_some(modified),
        }
    }
}

/// What one consistent look at a feed found for a page.
struct Snapshot {
    spans: Vec<Span>,
    /// Where the scan ended.
    resume: u64,
    has_more: bool,
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
    let snapshot = match &list.ids {
        Some(ids) => by_ids(engine, feed, list, after, ids)?,
        None => scan(engine, feed, list, after)?,
    };
    read_page(engine, feed, list, snapshot)
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

/// Collects the next live records in page order, without reading them.
fn scan(engine: &Engine, feed: &FeedState, list: &List, after: Option<u64>) -> Result<Snapshot> {
    let published = feed.published.read();
    let wanted = if list.filter == Actions::ALL {
        list.limit
    } else {
        SCAN_MAX
    };
    let mut spans = Vec::new();
    let mut left = wanted;
    let mut resume = None;
    let mut has_more = false;
    for frame in frames(&published, list.order, after) {
        if frame.live_count == 0 || too_old(frame, list) {
            continue;
        }
        let mut indexes: Vec<u32> = match list.order {
            Order::Ascending => {
                let from = after.map_or(0, |after| (after + 1).saturating_sub(frame.first));
                frame.live_from(from as u32).take(left + 1).collect()
            }
            Order::Descending => {
                let to = after.map_or(u64::MAX, |after| after.saturating_sub(frame.first));
                frame
                    .live_below(to.min(u64::from(u32::MAX)) as u32)
                    .take(left + 1)
                    .collect()
            }
        };
        if indexes.len() > left {
            indexes.truncate(left);
            has_more = true;
        }
        if let Some(last) = indexes.last() {
            left -= indexes.len();
            resume = Some(frame.first + u64::from(*last));
            indexes.sort_unstable();
            spans.push(Span::new(&engine.log, frame, indexes)?);
        }
        if has_more {
            break;
        }
    }
    let end = match list.order {
        Order::Ascending => published.tail.max(after.unwrap_or(0)),
        Order::Descending => 0,
    };
    let resume = if has_more {
        resume.or(after).unwrap_or(end)
    } else {
        end
    };
    Ok(Snapshot {
        spans,
        resume,
        has_more,
    })
}

/// The visible frames in page order, from the one that holds the first record to look at.
fn frames<'a>(
    published: &'a Published,
    order: Order,
    after: Option<u64>,
) -> Box<dyn Iterator<Item = &'a FrameRef> + 'a> {
    let all = published.directory.frames();
    let visible = &all[..all.partition_point(|frame| frame.first <= published.tail)];
    match order {
        Order::Ascending => {
            let start = published
                .directory
                .frame_after(after.unwrap_or(0))
                .min(visible.len());
            Box::new(visible[start..].iter())
        }
        Order::Descending => {
            let after = after.unwrap_or(u64::MAX);
            let end = visible.partition_point(|frame| frame.first < after);
            Box::new(visible[..end].iter().rev())
        }
    }
}

fn too_old(frame: &FrameRef, list: &List) -> bool {
    list.modified_after
        .is_some_and(|moment| frame.time <= moment.as_micros())
}

/// Finds records by id and puts them into page order.
fn by_ids(
    engine: &Engine,
    feed: &Arc<FeedState>,
    list: &List,
    after: Option<u64>,
    ids: &[String],
) -> Result<Snapshot> {
    let beyond = |position: &u64| match (list.order, after) {
        (_, None) => true,
        (Order::Ascending, Some(after)) => *position > after,
        (Order::Descending, Some(after)) => *position < after,
    };
    let (positions, tail) = engine.positions(feed, ids.iter().map(String::as_str))?;
    let mut positions: Vec<u64> = positions.into_iter().flatten().filter(beyond).collect();
    positions.sort_unstable();
    positions.dedup();
    if list.order == Order::Descending {
        positions.reverse();
    }
    let wanted = if list.filter == Actions::ALL {
        list.limit
    } else {
        SCAN_MAX
    };
    let has_more = positions.len() > wanted;
    positions.truncate(wanted);
    let end = match list.order {
        Order::Ascending => tail.max(after.unwrap_or(0)),
        Order::Descending => 0,
    };
    let resume = if has_more {
        positions.last().copied().unwrap_or(end)
    } else {
        end
    };
    let published = feed.published.read();
    let mut spans = Vec::new();
    for position in positions {
        if let Some(frame) = published.directory.find(position)
            && !too_old(frame, list)
        {
            spans.push(Span::new(
                &engine.log,
                frame,
                vec![(position - frame.first) as u32],
            )?);
        }
    }
    Ok(Snapshot {
        spans,
        resume,
        has_more,
    })
}

/// Reads what a snapshot found, applies filter, limit and budget, and says where it stopped.
fn read_page(
    engine: &Engine,
    feed: &Arc<FeedState>,
    list: &List,
    snapshot: Snapshot,
) -> Result<Page> {
    let mut page = Page {
        buffer: Vec::new(),
        rows: Vec::with_capacity(list.limit.min(1024)),
        has_payloads: !list.metadata_only,
        feed: feed.cursor(0),
        resume: feed.cursor(snapshot.resume),
        has_more: snapshot.has_more,
    };
    let mut bytes = 0usize;
    let mut located = Vec::new();
    for span in &snapshot.spans {
        located.clear();
        span.locate(&mut located)?;
        if list.order == Order::Descending {
            located.reverse();
        }
        let mut stop = None;
        let mut chosen: Vec<Located> = Vec::with_capacity(located.len());
        for record in located
            .iter()
            .filter(|r| list.filter.contains(r.entry.action))
        {
            let len = if list.metadata_only {
                0
            } else {
                payload_len(engine, feed, record)?
            };
            let count = page.rows.len() + chosen.len();
            let over = list.byte_budget != 0 && count > 0 && bytes + len > list.byte_budget;
            if count == list.limit || over {
                stop = Some(record.position);
                break;
            }
            bytes += len;
            chosen.push(*record);
        }
        load(engine, feed, span, &mut chosen, list, &mut page)?;
        if let Some(position) = stop {
            // Everything before the record it stopped at was scanned.
            page.resume = feed.cursor(match list.order {
                Order::Ascending => position - 1,
                Order::Descending => position + 1,
            });
            page.has_more = true;
            break;
        }
    }
    Ok(page)
}

/// Loads chosen records of one span into the page, in page order.
fn load(
    engine: &Engine,
    feed: &Arc<FeedState>,
    span: &Span,
    chosen: &mut [Located],
    list: &List,
    page: &mut Page,
) -> Result<()> {
    chosen.sort_unstable_by_key(|record| record.position);
    let start = page.rows.len();
    span.load(
        chosen,
        !list.metadata_only,
        &mut page.buffer,
        &mut page.rows,
    )?;
    if !list.metadata_only {
        for row in &mut page.rows[start..] {
            if row.entry.payload_at_previous {
                let holder = engine.payload_holder(feed, row.entry.previous)?;
                row.body = holder.append_payload(&mut page.buffer)?;
            }
        }
    }
    if list.order == Order::Descending {
        page.rows[start..].reverse();
    }
    Ok(())
}

fn payload_len(engine: &Engine, feed: &Arc<FeedState>, record: &Located) -> Result<usize> {
    let len = if record.entry.payload_at_previous {
        engine
            .payload_holder(feed, record.entry.previous)?
            .located
            .body_len()
    } else {
        record.body_len()
    };
    Ok(len as usize)
}

/// The version that holds the payload of a deleted record.
pub(crate) struct PayloadHolder {
    pub(crate) span: Span,
    pub(crate) located: Located,
}

impl PayloadHolder {
    /// Appends the payload to a buffer and says where it is.
    pub(crate) fn append_payload(&self, buffer: &mut Vec<u8>) -> Result<std::ops::Range<usize>> {
        let mut rows = Vec::new();
        self.span.load(&[self.located], true, buffer, &mut rows)?;
        Ok(rows.first().map_or(0..0, |row| row.body.clone()))
    }
}

/// Records read by id, for `get`: every found one, in the order of their positions in `ids`.
pub(crate) fn get(engine: &Engine, feed: &Arc<FeedState>, ids: &[&str]) -> Result<Page> {
    engine.make_visible(feed);
    let (positions, tail) = engine.positions(feed, ids.iter().copied())?;
    let spans = {
        let published = feed.published.read();
        let found = positions.into_iter().flatten();
        let frames = found.filter_map(|at| Some((at, published.directory.find(at)?)));
        let span = |(at, frame): (u64, &FrameRef)| {
            Span::new(&engine.log, frame, vec![(at - frame.first) as u32])
        };
        frames.map(span).collect::<Result<Vec<_>>>()?
    };
    let mut page = Page {
        buffer: Vec::new(),
        rows: Vec::with_capacity(spans.len()),
        has_payloads: true,
        feed: feed.cursor(0),
        resume: feed.cursor(tail),
        has_more: false,
    };
    let list = List::new();
    let mut located = Vec::new();
    for span in spans {
        located.clear();
        span.locate(&mut located)?;
        load(engine, feed, &span, &mut located, &list, &mut page)?;
    }
    Ok(page)
}
