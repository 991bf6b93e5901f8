//! A feed's description against what is in its frames, and against its index.

use std::sync::Arc;

use super::log::{Walked, affect};
use super::{Pace, VerifyReport};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::feed::frame_ref::FrameRef;
use crate::feed::read::{Bodies, Span};
use crate::feed::state::FeedState;
use crate::hash::Fingerprint;
use crate::state::Registration;

/// What was found of a feed's records, to be compared with what it counts.
#[derive(Default)]
struct Counted {
    live: u64,
    live_bytes: u64,
    /// Whether everything could be read, so that the counts mean something.
    whole: bool,
}

/// Checks one feed. Damage that is met on the way goes into the report; an error ends the feed's
/// check, and is damage too unless it says otherwise.
pub(super) fn check(
    engine: &Engine,
    registration: &Registration,
    walked: &Walked,
    report: &mut VerifyReport,
    pace: &mut Pace,
) -> Result<()> {
    let path = &engine.path;
    let feed = engine.slot(&registration.key)?.current();
    if feed.key != registration.key {
        return Err(Error::corrupt(path, 0, "two feeds have the same id"));
    }
    engine.load_index(&feed)?;
    // As of one moment; files stay where they are for as long as this goes on.
    let published = feed.published.read().clone();
    let frames = published.directory.iter();
    let pruned_through = published.marks.prunes.through();
    let mut counted = Counted {
        whole: true,
        ..Counted::default()
    };
    for frame in frames.filter(|frame| frame.first <= published.tail) {
        let key = (feed.stream(), frame.first, frame.segment);
        // What was written since the walk is not known.
        let since = frame.lsn > walked.end.lsn;
        match walked.places.get(&key) {
            Some(place) if *place == (frame.offset, frame.count) => {}
            None if since => continue,
            _ => {
                let file = frame.segment.path(engine.log.dir());
                let what = "a feed has a frame here that is not there";
                report
                    .damage
                    .push(Error::corrupt(&file, frame.offset, what));
                if frame.live_count > 0 {
                    let changes = (frame.first, frame.end() - 1);
                    affect(engine, report, feed.stream(), changes);
                }
                counted.whole = false;
                continue;
            }
        }
        let checked = check_frame(engine, &feed, frame, pruned_through, &mut counted);
        counted.whole &= checked.is_ok();
        report.note(checked)?;
        pace.spend(engine, frame.columns_len())?;
    }
    let is_complete = published.lsn <= walked.end.lsn;
    let right = (published.live, published.live_bytes) == (counted.live, counted.live_bytes);
    if counted.whole && is_complete && !right {
        let what = "a feed counts other records than it shows";
        return Err(Error::corrupt(path, 0, what));
    }
    Ok(())
}

/// Checks that the live bits of a frame are what the feed's index says of its records, and that
/// payloads of deleted records are where they should be.
fn check_frame(
    engine: &Engine,
    feed: &Arc<FeedState>,
    frame: &FrameRef,
    pruned_through: u64,
    counted: &mut Counted,
) -> Result<()> {
    let there = (0..frame.span).filter(|bit| frame.has(*bit));
    let span = Span::new(&engine.log, frame, there.collect())?;
    let mut located = Vec::new();
    span.locate(&mut Vec::new(), &mut located)?;
    let keys: Vec<Fingerprint> = located.iter().map(|record| record.entry.key).collect();
    let newest = engine.newest(feed, &keys)?;
    for (record, newest) in located.iter().zip(newest) {
        let bit = (record.position - frame.first) as u32;
        let newest = newest.map(|newest| newest.position());
        let damaged = |what| Error::corrupt(span.path(), frame.offset, what);
        if !frame.is_live(bit) {
            let older = newest.filter(|newest| *newest <= record.position);
            if older.is_some() {
                return Err(damaged("a version that is superseded counts as the newest"));
            }
            continue;
        }
        if newest != Some(record.position) && is_live_still(feed, record.position) {
            return Err(damaged("a version that is not the newest counts as it"));
        }
        let pruned = record.pruned || record.position <= pruned_through;
        if !record.is_deleted() {
            counted.live += 1;
            counted.live_bytes += match pruned {
                true => 0,
                false => u64::from(record.body_len()),
            };
        } else if record.entry.payload_at_previous && !pruned {
            let holder = engine.payload_holder(feed, record.entry.previous)?;
            holder.append_payload(Bodies::Stored, &mut Vec::new())?;
        }
    }
    Ok(())
}

/// Whether a version is the newest of its record also after the index was asked: else a writer has
/// changed the record meanwhile.
fn is_live_still(feed: &FeedState, position: u64) -> bool {
    let published = feed.published.read();
    let frame = published.directory.find(position);
    frame.is_some_and(|frame| frame.is_live((position - frame.first) as u32))
}
