//! When a feed gets its dictionary, and from what.
//!
//! Training takes tens of milliseconds, once in the life of an epoch. The writer whose commit made
//! the records enough does it, after that commit was acknowledged and with no lock held: so other
//! writers go on, a program that only loads and closes gets its dictionary early, and a store without
//! background threads gets it too. It learns from records read back from all over the feed, so it
//! makes no difference whether they were saved in this process, or before compression was switched on.

use std::sync::Arc;

use crate::compression::zstd::Dictionary;
use crate::compression::{Codec, Compression};
use crate::engine::Engine;
use crate::error::Result;
use crate::feed::read::{Bodies, Span};
use crate::feed::slot::FeedSlot;
use crate::feed::state::FeedState;
use crate::log::format::Author;
use crate::state::StateKey;
use crate::write::transaction::{Stop, transact_only};

/// What samples come to: of four times as much nothing more is learned.
const SAMPLE_BYTES: usize = 256 << 10;
/// Of longer records the beginning is enough.
const SAMPLE_MAX: usize = 4 << 10;
/// Where training found nothing to learn, it is tried again when the feed has grown by this factor.
const AGAIN_AT: u64 = 4;

/// How many records, and of how many bytes together, a feed needs to be learned from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Thresholds {
    pub(crate) records: u64,
    pub(crate) bytes: u64,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            records: 100,
            bytes: SAMPLE_BYTES as u64,
        }
    }
}

/// What came of earlier attempts. Whoever trains holds its lock.
#[derive(Default)]
pub(super) struct Attempts {
    /// Nothing is tried before the feed has so many bytes.
    not_before: u64,
}

pub(super) fn train_if_due(engine: &Engine, slot: &Arc<FeedSlot>) {
    let Compression::Zstd { level } = engine.options.compression else {
        return;
    };
    let feed = slot.current();
    if feed.codec.dictionary.get().is_some() {
        return;
    }
    let (live, bytes) = {
        let published = feed.published.read();
        (published.live, published.live_bytes)
    };
    let enough = engine.options.thresholds;
    if live < enough.records || bytes < enough.bytes {
        return;
    }
    // Whoever comes while somebody trains goes on without.
    let Some(mut attempts) = feed.codec.training.try_lock() else {
        return;
    };
    if feed.codec.dictionary.get().is_some() || bytes < attempts.not_before {
        return;
    }
    attempts.not_before = bytes.saturating_mul(AGAIN_AT);
    // The commit that brought this about was acknowledged: what fails here concerns nobody. Records
    // are stored as they are until an attempt gets through.
    if let Ok(Some(bytes)) = train(engine, &feed, level)
        && let Ok(true) = commit(engine, slot, &feed, &bytes)
    {
        feed.codec.learn(bytes);
    }
}

/// Trains a dictionary; `None` when none would pay.
fn train(engine: &Engine, feed: &Arc<FeedState>, level: i32) -> Result<Option<Vec<u8>>> {
    let samples = samples(engine, feed)?;
    let lens: Vec<usize> = samples.iter().map(Vec::len).collect();
    let Some(bytes) = Dictionary::train(&samples.concat(), &lens) else {
        return Ok(None);
    };
    let trial = Codec::default();
    trial.learn(bytes.clone());
    let mut stored = Vec::new();
    let compression = Compression::Zstd { level };
    let len = |sample: &Vec<u8>| match trial.encode(compression, sample, &mut stored) {
        Some(stored) => stored.len(),
        None => sample.len(),
    };
    let stored: usize = samples.iter().map(len).sum();
    let plain: usize = lens.iter().sum();
    Ok((stored < plain - plain / 8).then_some(bytes))
}

/// Makes the dictionary durable before anything refers to it: in the log, what comes later is not
/// there without what came before. Returns false when the epoch is over.
fn commit(engine: &Engine, slot: &Arc<FeedSlot>, feed: &FeedState, bytes: &[u8]) -> Result<bool> {
    transact_only(engine, &[slot], Author::default(), |transaction| {
        // A swap needs the turn too, and removes what it finds.
        if transaction.turn(slot)?.feed.stream() != feed.stream() {
            return Ok::<_, Stop>(false);
        }
        transaction.put(StateKey::dictionary(feed.stream()), bytes.to_vec());
        Ok(true)
    })
}

/// Payloads from all over the feed.
fn samples(engine: &Engine, feed: &Arc<FeedState>) -> Result<Vec<Vec<u8>>> {
    let (spans, through) = {
        let published = feed.published.read();
        let count = published.live.max(1);
        let average = (published.live_bytes / count).clamp(1, SAMPLE_MAX as u64);
        let wanted = (SAMPLE_BYTES as u64).div_ceil(average);
        let step = count.div_ceil(wanted) as usize;
        let tail = published.tail;
        let frames = published.directory.iter();
        let mut spans = Vec::new();
        let mut skip = 0;
        for frame in frames.filter(|frame| frame.end() <= tail + 1) {
            let live: Vec<u32> = frame.live_from(0).collect();
            let here: Vec<u32> = live.iter().skip(skip).step_by(step).copied().collect();
            skip = match live.len().checked_sub(skip) {
                Some(rest) => rest.next_multiple_of(step) - rest,
                None => skip - live.len(),
            };
            if !here.is_empty() {
                spans.push(Span::new(&engine.log, frame, here)?);
            }
        }
        (spans, published.marks.prunes.through())
    };
    let mut samples = Vec::new();
    let (mut table, mut buffer) = (Vec::new(), Vec::new());
    let (mut located, mut rows) = (Vec::new(), Vec::new());
    for span in spans {
        located.clear();
        span.locate(&mut table, &mut located)?;
        located.retain(|record| {
            !record.is_deleted() && record.position > through && record.body_len() > 0
        });
        rows.clear();
        buffer.clear();
        span.load(&located, Bodies::Plain(&feed.codec), &mut buffer, &mut rows)?;
        samples.extend(rows.iter().map(|row| {
            let body = &buffer[row.body.clone()];
            body[..body.len().min(SAMPLE_MAX)].to_vec()
        }));
    }
    Ok(samples)
}
