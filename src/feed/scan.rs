//! Finding the records of a page: one short look at the directory, under its lock, tells which
//! records to read and where the page ends.

use std::sync::Arc;

use crate::defects::Defect;
use crate::engine::Engine;
use crate::error::Result;
use crate::feed::directory::FrameRef;
use crate::feed::marks::Prunes;
use crate::feed::page::{List, Order, SCAN_MAX, check_not_expired};
use crate::feed::published::Published;
use crate::feed::read::Span;
use crate::feed::since::Since;
use crate::feed::state::FeedState;
use crate::record::Actions;

/// What one consistent look at a feed found for a page.
pub(crate) struct Snapshot {
    pub(crate) spans: Vec<Span>,
    /// Where the scan ended.
    pub(crate) resume: u64,
    pub(crate) has_more: bool,
    /// The reader's place, if actions are to be told relative to it.
    pub(crate) since: Option<Since>,
    pub(crate) prunes: Arc<Prunes>,
    /// How often deletions were purged before the look.
    pub(crate) purges: u32,
}

impl Snapshot {
    fn of(engine: &Engine, published: &Published, list: &List) -> Result<Self> {
        let ignores_purge = engine.options.defects.has(Defect::IgnorePurge);
        if let Some(cursor) = list.after.filter(|_| !ignores_purge) {
            check_not_expired(engine, published, cursor)?;
        }
        let relative = list.relative && list.order == Order::Ascending;
        let since = list.after.filter(|_| relative);
        Ok(Self {
            spans: Vec::new(),
            resume: 0,
            has_more: false,
            since: since.map(|cursor| Since::new(published, cursor)),
            prunes: published.marks.prunes.clone(),
            purges: published.marks.purges,
        })
    }

    /// How many records there are to look at.
    pub(crate) fn records(&self) -> usize {
        self.spans.iter().map(|span| span.wanted.len()).sum()
    }
}

/// Collects the next live records in page order, without reading them.
pub(crate) fn scan(
    engine: &Engine,
    feed: &FeedState,
    list: &List,
    after: Option<u64>,
    wanted: usize,
) -> Result<Snapshot> {
    let published = feed.published.read();
    let mut snapshot = Snapshot::of(engine, &published, list)?;
    let mut left = wanted;
    let mut resume = None;
    for frame in frames(&published, list.order, after) {
        if frame.live_count == 0 || too_old(frame, list) {
            continue;
        }
        // A packed frame has older records beside newer ones.
        let new_enough = |bit: &u32| frame.packing.is_none() || !is_too_old(frame, *bit, list);
        let mut indexes = Vec::with_capacity(left.min(frame.live_count as usize) + 1);
        match list.order {
            Order::Ascending => {
                let from = after.map_or(0, |after| (after + 1).saturating_sub(frame.first));
                let live = frame.live_from(from as u32).filter(new_enough);
                indexes.extend(live.take(left + 1));
            }
            Order::Descending => {
                let to = after.map_or(u64::MAX, |after| after.saturating_sub(frame.first));
                let to = to.min(u64::from(u32::MAX)) as u32;
                let live = frame.live_below(to).filter(new_enough);
                indexes.extend(live.take(left + 1));
            }
        }
        if indexes.len() > left {
            indexes.truncate(left);
            snapshot.has_more = true;
        }
        if let Some(last) = indexes.last() {
            left -= indexes.len();
            resume = Some(frame.first + u64::from(*last));
            if list.order == Order::Descending {
                indexes.reverse();
            }
            snapshot.spans.push(Span::new(&engine.log, frame, indexes)?);
        }
        if snapshot.has_more {
            break;
        }
    }
    let end = end(&published, list.order, after);
    snapshot.resume = match snapshot.has_more {
        true => resume.or(after).unwrap_or(end),
        false => end,
    };
    Ok(snapshot)
}

/// Where a scan that found everything there is ends.
fn end(published: &Published, order: Order, after: Option<u64>) -> u64 {
    match order {
        Order::Ascending => published.tail.max(after.unwrap_or(0)),
        Order::Descending => 0,
    }
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
            let start = published.directory.frame_after(after.unwrap_or(0));
            let frames = visible[start.min(visible.len())..].iter();
            Box::new(frames.map(Arc::as_ref))
        }
        Order::Descending => {
            let after = after.unwrap_or(u64::MAX);
            let end = visible.partition_point(|frame| frame.first < after);
            Box::new(visible[..end].iter().rev().map(Arc::as_ref))
        }
    }
}

fn too_old(frame: &FrameRef, list: &List) -> bool {
    list.modified_after
        .is_some_and(|moment| frame.time <= moment.as_micros())
}

fn is_too_old(frame: &FrameRef, bit: u32, list: &List) -> bool {
    let time = || frame.origin(frame.first + u64::from(bit)).time;
    list.modified_after
        .is_some_and(|moment| time() <= moment.as_micros())
}

/// Finds records by id and puts them into page order.
pub(crate) fn by_ids(
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
    let published = feed.published.read();
    let mut snapshot = Snapshot::of(engine, &published, list)?;
    snapshot.has_more = positions.len() > wanted;
    positions.truncate(wanted);
    let end = match list.order {
        Order::Ascending => tail.max(after.unwrap_or(0)),
        Order::Descending => 0,
    };
    snapshot.resume = match snapshot.has_more {
        true => positions.last().copied().unwrap_or(end),
        false => end,
    };
    for position in positions {
        let frame = engine.frame_of(&published, position)?;
        let bit = (position - frame.first) as u32;
        if !is_too_old(frame, bit, list) {
            snapshot
                .spans
                .push(Span::new(&engine.log, frame, vec![bit])?);
        }
    }
    Ok(snapshot)
}

/// Finds records by id, in the order of the ids.
pub(crate) fn each(engine: &Engine, feed: &Arc<FeedState>, ids: &[&str]) -> Result<Snapshot> {
    let (positions, tail) = engine.positions(feed, ids.iter().copied())?;
    let published = feed.published.read();
    let mut snapshot = Snapshot::of(engine, &published, &List::new())?;
    snapshot.resume = tail;
    for position in positions.into_iter().flatten() {
        let frame = engine.frame_of(&published, position)?;
        let here = vec![(position - frame.first) as u32];
        snapshot.spans.push(Span::new(&engine.log, frame, here)?);
    }
    Ok(snapshot)
}
