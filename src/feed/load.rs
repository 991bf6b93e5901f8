//! Reading the records of a page: filter, limit and byte budget, payloads of deleted records, and
//! what each change means to the reader.

use std::sync::Arc;

use crate::engine::Engine;
use crate::error::Result;
use crate::feed::page::{List, Order, Page, PageRow};
use crate::feed::read::{Bodies, Located, Span};
use crate::feed::scan::Snapshot;
use crate::feed::state::FeedState;
use crate::record::Action;

/// A record that goes onto the page.
struct Chosen {
    record: Located,
    action: Action,
}

/// Adds what a snapshot found to a page, and says whether the page is full before its end.
pub(crate) fn read(
    engine: &Engine,
    feed: &Arc<FeedState>,
    list: &List,
    snapshot: Snapshot,
    page: &mut Page,
) -> Result<bool> {
    page.adopt(list, &snapshot);
    let mut located = Vec::new();
    for span in &snapshot.spans {
        located.clear();
        locate(span, &snapshot, &mut located)?;
        if list.order == Order::Descending {
            located.reverse();
        }
        let mut stop = None;
        let mut chosen: Vec<Chosen> = Vec::with_capacity(located.len());
        for record in &located {
            let action = match &snapshot.since {
                Some(since) => since.action(engine, feed, span, record)?,
                None => Some(record.entry.action),
            };
            let Some(action) = action.filter(|action| list.filter.contains(*action)) else {
                continue;
            };
            let len = if list.metadata_only {
                0
            } else {
                payload_len(engine, feed, record)?
            };
            let count = page.rows.len() + chosen.len();
            let over =
                list.byte_budget != 0 && count > 0 && page.payload_bytes + len > list.byte_budget;
            if count == list.limit || over {
                stop = Some(record.position);
                break;
            }
            page.payload_bytes += len;
            chosen.push(Chosen {
                record: *record,
                action,
            });
        }
        load(engine, feed, span, chosen, list, &snapshot, page)?;
        if let Some(position) = stop {
            // Everything before the record it stopped at was scanned.
            page.stop_at(match list.order {
                Order::Ascending => position - 1,
                Order::Descending => position + 1,
            });
            return Ok(true);
        }
    }
    Ok(false)
}

/// Adds everything that a snapshot found to a page, in the snapshot's order.
pub(crate) fn read_all(
    engine: &Engine,
    feed: &Arc<FeedState>,
    list: &List,
    snapshot: Snapshot,
    page: &mut Page,
) -> Result<()> {
    page.adopt(list, &snapshot);
    let mut located = Vec::new();
    for span in &snapshot.spans {
        located.clear();
        locate(span, &snapshot, &mut located)?;
        let chosen = located.iter().map(|record| Chosen {
            record: *record,
            action: record.entry.action,
        });
        load(engine, feed, span, chosen.collect(), list, &snapshot, page)?;
    }
    Ok(())
}

/// Reads the entries of a span, and tells which payloads are gone.
fn locate(span: &Span, snapshot: &Snapshot, located: &mut Vec<Located>) -> Result<()> {
    span.locate(located)?;
    let through = snapshot.prunes.through();
    for record in located {
        record.pruned |= record.position <= through;
    }
    Ok(())
}

/// Loads chosen records of one span into the page, in page order.
fn load(
    engine: &Engine,
    feed: &Arc<FeedState>,
    span: &Span,
    mut chosen: Vec<Chosen>,
    list: &List,
    snapshot: &Snapshot,
    page: &mut Page,
) -> Result<()> {
    chosen.sort_unstable_by_key(|chosen| chosen.record.position);
    let records: Vec<Located> = chosen.iter().map(|chosen| chosen.record).collect();
    let mut rows = Vec::with_capacity(records.len());
    let bodies = match list.metadata_only {
        true => Bodies::Skipped,
        false => Bodies::Plain(&feed.codec),
    };
    span.load(&records, bodies, &mut page.buffer, &mut rows)?;
    let start = page.rows.len();
    for (mut row, Chosen { record, action }) in rows.into_iter().zip(chosen) {
        if row.entry.payload_at_previous && !record.pruned && !list.metadata_only {
            let holder = engine.payload_holder(feed, row.entry.previous)?;
            row.body = holder.append_payload(bodies, &mut page.buffer)?;
        }
        // A deletion of a pruned record goes on from when that was pruned.
        let pruned = if row.entry.pruned {
            row.entry.previous
        } else {
            row.position
        };
        let pruned_at = snapshot.prunes.at(pruned).filter(|_| record.pruned);
        page.rows.push(PageRow {
            row,
            action,
            pruned_at,
        });
    }
    if list.order == Order::Descending {
        page.rows[start..].reverse();
    }
    Ok(())
}

fn payload_len(engine: &Engine, feed: &Arc<FeedState>, record: &Located) -> Result<usize> {
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
