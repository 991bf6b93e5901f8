//! Reading the records of a page: filter, limit and byte budget, payloads of deleted records, and
//! what each change means to the reader.

use crate::engine::Engine;
use crate::error::Result;
use crate::feed::ahead;
use crate::feed::page::{List, Order, Page, PageRow};
use crate::feed::read::{Bodies, Located, Row, Span};
use crate::feed::scan::Snapshot;
use crate::feed::state::FeedState;
use crate::pool::{Pooled, Reusable};
use crate::record::Action;

/// What reading a page needs memory for, besides the page; used again for later ones.
#[derive(Default)]
pub(crate) struct Scratch {
    table: Vec<u8>,
    /// The records of a span that go onto the page, and what each is to the reader.
    located: Vec<Located>,
    actions: Vec<Action>,
    rows: Vec<Row>,
}

impl Reusable for Scratch {
    fn clear(&mut self) {
        self.table.clear();
        self.located.clear();
        self.actions.clear();
        self.rows.clear();
    }

    fn capacity(&self) -> usize {
        self.table.capacity()
            + self.located.capacity() * size_of::<Located>()
            + self.actions.capacity() * size_of::<Action>()
            + self.rows.capacity() * size_of::<Row>()
    }
}

/// A page being read.
struct Reader<'a> {
    engine: &'a Engine,
    feed: &'a FeedState,
    list: &'a List,
    snapshot: &'a Snapshot,
    page: &'a mut Page,
    scratch: Pooled<Scratch>,
}

/// Adds what a snapshot found to a page, and says whether the page is full before its end.
pub(crate) fn read(
    engine: &Engine,
    feed: &FeedState,
    list: &List,
    mut snapshot: Snapshot,
    page: &mut Page,
) -> Result<bool> {
    let mut spans = std::mem::take(&mut snapshot.spans).into_iter();
    let mut reader = Reader::new(engine, feed, list, &snapshot, page);
    loop {
        if !list.metadata_only {
            ahead::read(spans.as_mut_slice())?;
        }
        let Some(span) = spans.next() else {
            return Ok(false);
        };
        reader.locate(&span)?;
        let stop = reader.choose(&span)?;
        reader.load(&span)?;
        if let Some(position) = stop {
            // Everything before the record it stopped at was scanned.
            page.stop_at(match list.order {
                Order::Ascending => position - 1,
                Order::Descending => position + 1,
            });
            return Ok(true);
        }
    }
}

/// Adds everything that a snapshot found to a page, in the snapshot's order.
pub(crate) fn read_all(
    engine: &Engine,
    feed: &FeedState,
    list: &List,
    snapshot: &Snapshot,
    page: &mut Page,
) -> Result<()> {
    let mut reader = Reader::new(engine, feed, list, snapshot, page);
    for span in &snapshot.spans {
        reader.locate(span)?;
        reader.take_all();
        reader.load(span)?;
    }
    Ok(())
}

impl<'a> Reader<'a> {
    fn new(
        engine: &'a Engine,
        feed: &'a FeedState,
        list: &'a List,
        snapshot: &'a Snapshot,
        page: &'a mut Page,
    ) -> Self {
        page.adopt(list, snapshot);
        Self {
            engine,
            feed,
            list,
            snapshot,
            page,
            scratch: engine.scratch.take(),
        }
    }

    /// Reads the entries of a span, in page order, and tells which payloads are gone.
    fn locate(&mut self, span: &Span) -> Result<()> {
        self.scratch.clear();
        let Scratch { table, located, .. } = &mut *self.scratch;
        span.locate(table, located)?;
        if self.list.order == Order::Descending {
            located.reverse();
        }
        let through = self.snapshot.prunes.through();
        for record in located {
            record.pruned |= record.position <= through;
        }
        Ok(())
    }

    /// Leaves of a span's records those that go onto the page, in ascending order. If it is full
    /// before the span's end: the position of the record that found no place.
    fn choose(&mut self, span: &Span) -> Result<Option<u64>> {
        let (list, page) = (self.list, &mut *self.page);
        let Scratch {
            located, actions, ..
        } = &mut *self.scratch;
        let mut stop = None;
        let mut chosen = 0;
        for at in 0..located.len() {
            let record = &located[at];
            let action = match &self.snapshot.since {
                Some(since) => since.action(self.engine, self.feed, span, record)?,
                None => Some(record.entry.action),
            };
            let Some(action) = action.filter(|action| list.filter.contains(*action)) else {
                continue;
            };
            let len = match list.metadata_only {
                true => 0,
                false => payload_len(self.engine, self.feed, record)?,
            };
            let count = page.len() + chosen;
            let bytes = page.payload_bytes + len;
            let over = list.byte_budget != 0 && count > 0 && bytes > list.byte_budget;
            if count == list.limit || over {
                stop = Some(record.position);
                break;
            }
            page.payload_bytes = bytes;
            if chosen < at {
                located[chosen] = located[at];
            }
            actions.push(action);
            chosen += 1;
        }
        located.truncate(chosen);
        if list.order == Order::Descending {
            located.reverse();
            actions.reverse();
        }
        Ok(stop)
    }

    fn take_all(&mut self) {
        let Scratch {
            located, actions, ..
        } = &mut *self.scratch;
        actions.extend(located.iter().map(|record| record.entry.action));
    }

    /// Loads the chosen records of a span into the page, in page order.
    fn load(&mut self, span: &Span) -> Result<()> {
        let Scratch {
            located,
            actions,
            rows,
            ..
        } = &mut *self.scratch;
        let bodies = match self.list.metadata_only {
            true => Bodies::Skipped,
            false => Bodies::Plain(&self.feed.codec),
        };
        let content = &mut *self.page.content;
        span.load(located, bodies, &mut content.buffer, rows)?;
        let start = content.rows.len();
        content.rows.reserve(rows.len());
        for ((record, row), action) in located.iter().zip(rows).zip(actions) {
            let entry = &record.entry;
            if entry.payload_at_previous && !record.pruned && !self.list.metadata_only {
                let holder = self.engine.payload_holder(self.feed, entry.previous)?;
                row.body = holder.append_payload(bodies, &mut content.buffer)?;
            }
            // A deletion of a pruned record goes on from when that was pruned.
            let pruned = match entry.pruned {
                true => entry.previous,
                false => record.position,
            };
            let prunes = Some(&self.snapshot.prunes).filter(|_| record.pruned);
            // When is not known where a repair has found no payload, but not after the deletion.
            let pruned_at = prunes.map(|prunes| prunes.at(pruned).unwrap_or(record.time));
            content.rows.push(PageRow {
                position: record.position,
                time: record.time,
                first_seen: entry.first_seen,
                pruned_at,
                id: row.id.clone().into(),
                body: row.body.clone().into(),
                action: *action,
                deleted: record.is_deleted(),
            });
        }
        if self.list.order == Order::Descending {
            content.rows[start..].reverse();
        }
        Ok(())
    }
}

fn payload_len(engine: &Engine, feed: &FeedState, record: &Located) -> Result<usize> {
    let len = if record.pruned {
        0
    } else if record.entry.payload_at_previous {
        let holder = engine.payload_holder(feed, record.entry.previous)?;
        holder.located.body_len()
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
    pub(crate) fn append_payload(
        &self,
        bodies: Bodies<'_>,
        buffer: &mut Vec<u8>,
    ) -> Result<std::ops::Range<usize>> {
        let mut rows = Vec::new();
        self.span.load(&[self.located], bodies, buffer, &mut rows)?;
        Ok(rows.first().map_or(0..0, |row| row.body.clone()))
    }
}
