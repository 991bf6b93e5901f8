//! Compaction: gives back the space of versions that nobody reads any more.
//!
//! Segments of the log are never rewritten. What is still needed of the emptiest ones is copied
//! into a pack, feed by feed; then the directories point there, and the segments go. Positions stay
//! what they are, so no cursor notices, and pages in the making hold on to the files they read.
//!
//! * [`usage`]: how full each segment is, and which ones are worth it
//! * [`survivors`]: what is still needed of a feed
//!
//! In order: the pack is on stable storage under its name, the directories change in memory, the
//! catalog takes over directories and [manifest](crate::log::manifest) in one transaction, the
//! files go. A crash before the transaction leaves a pack that nobody knows, and after it segments
//! that are known to be retired; the next open removes either. A version counts as dead only when
//! its successor is durable and published: live bits say nothing else.

mod survivors;
mod usage;

use std::cell::Cell;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::catalog::FeedChanges;
use crate::compaction::survivors::Survivors;
use crate::compaction::usage::{Plan, Usage};
use crate::cursor::StreamId;
use crate::defects::Defect;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::feed::frame_ref::FrameRef;
use crate::feed::state::FeedState;
use crate::log::format::{FrameKind, SEGMENT_HEADER_LEN};
use crate::log::frame::Frame;
use crate::log::manifest::{Manifest, Stretch};
use crate::log::pack::PackWriter;
use crate::log::release::{PAUSE, release};
use crate::log::scan::{in_force, read_frame};
use crate::log::segment::Segment;
use crate::log::{Lsn, SegmentId};

/// What a compaction did. See [`Store::compact`](crate::Store::compact).
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, serde::Serialize)]
#[non_exhaustive]
pub struct Compacted {
    /// Files of the log that were replaced and removed.
    pub removed: u64,
    /// Their bytes.
    pub removed_bytes: u64,
    /// Bytes written into the files that replace them.
    pub written_bytes: u64,
}

/// What compaction remembers from one time to the next; whoever compacts holds its lock.
#[derive(Default)]
pub(crate) struct Compactor {
    /// Files that are damaged, or cannot be copied without something that is: they are left as they
    /// are.
    damaged: BTreeSet<SegmentId>,
}

/// When compaction looks at the store again.
pub(crate) struct Due {
    /// Bytes appended to the log when it last looked, and when that was.
    looked_at: (u64, Instant),
    /// How much had to be appended from there on before there could be something to do.
    patience: u64,
}

/// So long after it looked it does so again if the log has grown by a segment: it may be deletions
/// that it has grown by, which leave more behind than they add.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

impl Default for Due {
    fn default() -> Self {
        Self {
            looked_at: (0, Instant::now()),
            patience: 0,
        }
    }
}

impl Due {
    /// A segment is a fixed part of what is needed, and so is what a log may grow by: looking at all
    /// feeds does not cost more in a larger store.
    fn is_due(&self, engine: &Engine) -> bool {
        let (appended, at) = self.looked_at;
        let grown = engine.log.appended_bytes() - appended;
        grown >= engine.log.segment_size()
            && (grown >= self.patience || at.elapsed() >= LOOK_INTERVAL)
    }
}

/// Compacts until the log has little that is not needed. Damage keeps the files it is in from being
/// replaced, and no others; it is reported when those are done.
pub(crate) fn compact(engine: &Engine) -> Result<Compacted> {
    run(engine, &mut engine.compactor.lock(), None)
}

/// The same if it may be necessary, unless somebody is at it, or at verifying, already; slowly, as
/// long as there is not much to do.
pub(crate) fn compact_if_due(engine: &Engine, due: &mut Due) -> Result<Compacted> {
    if !due.is_due(engine) {
        return Ok(Compacted::default());
    }
    due.looked_at = (engine.log.appended_bytes(), Instant::now());
    match engine.compactor.try_lock() {
        Some(mut compactor) => run(engine, &mut compactor, Some(&mut due.patience)),
        None => Ok(Compacted::default()),
    }
}

/// With somewhere to put how much may be appended until the next time, it goes about it gently.
fn run(
    engine: &Engine,
    compactor: &mut Compactor,
    mut patience: Option<&mut u64>,
) -> Result<Compacted> {
    let mut done = Compacted::default();
    let mut damage = None;
    let mut is_saved = false;
    // Set when there is no space left to gain.
    let mut spent = false;
    loop {
        // Closing waits for this, so that nothing is written once the store is given up.
        let packing = engine.packing.lock();
        engine.check_not_closed()?;
        let usage = Usage::of(engine, &compactor.damaged, is_saved)?;
        engine.log.set_segment_size(usage.step());
        if let Some(patience) = patience.as_deref_mut() {
            *patience = usage.room();
        }
        let plan = usage.plan(spent);
        if plan.victims.is_empty() {
            return damage.map_or(Ok(done), Err);
        }
        // Only what the catalog covers may be replaced, so if there is something to do it has to catch
        // up, and in relaxed durability the log has to be synced. A round ends with that too.
        if !std::mem::replace(&mut is_saved, true) {
            catch_up(engine)?;
            continue;
        }
        check_space(engine, &plan)?;
        let copied = Cell::new(None);
        let pace = patience.is_some() && !plan.urgent;
        match round(engine, &plan.victims, &copied, pace) {
            Ok((round, removed)) => {
                done.removed += round.removed;
                done.removed_bytes += round.removed_bytes;
                done.written_bytes += round.written_bytes;
                spent |= round.written_bytes >= round.removed_bytes && !plan.gathers;
                // Only readers have them still.
                drop((plan, packing));
                let pause = if pace { PAUSE } else { Duration::ZERO };
                removed.iter().for_each(|removed| release(removed, pause));
            }
            Err(error) if compactor.note(&plan.victims, copied.get(), &error) => {
                damage = damage.or(Some(error));
            }
            Err(error) => return Err(error),
        }
    }
}

/// Lets the catalog catch up with the log, and removes what it does not count any more.
fn catch_up(engine: &Engine) -> Result<Vec<Arc<Segment>>> {
    engine.save_catalog(false)?;
    engine.remove_retired()
}

/// A pack takes space before it gives any back, so it is not begun when that may be all there is:
/// writers need it more.
fn check_space(engine: &Engine, plan: &Plan) -> Result<()> {
    let dir = engine.log.dir();
    let free = engine.log.storage().free_space(dir);
    let Some(free) = free.map_err(|error| Error::io("measure", dir, error))? else {
        return Ok(());
    };
    if free < 2 * plan.copied + engine.log.segment_size() {
        return Err(Error::DiskFull {
            path: dir.to_owned(),
        });
    }
    Ok(())
}

impl Compactor {
    /// Takes note of which file damage was found in, or is needed for `copied`; whether that is
    /// known.
    fn note(&mut self, victims: &[Arc<Segment>], copied: Option<SegmentId>, error: &Error) -> bool {
        let Error::Corrupt { path, .. } = error else {
            return false;
        };
        let damaged = victims.iter().find(|victim| victim.path == *path);
        let file = damaged.map(|victim| victim.id()).or(copied);
        file.is_some_and(|file| self.damaged.insert(file))
    }
}

/// What is in some files, as far as their headers tell.
#[derive(Default)]
struct Survey {
    streams: BTreeSet<StreamId>,
    has_state: bool,
    newest: Lsn,
    stretches: Vec<Stretch>,
}

impl Survey {
    /// Frames at or after `limit` are superseded: a later segment has them.
    fn add(&mut self, segment: &Arc<Segment>, limit: Lsn) -> Result<()> {
        let header = segment.header;
        let mut stretch = Stretch {
            first: header.id,
            last: header.id,
            chain: header.chain,
            first_lsn: header.first_lsn,
            end_chain: header.chain,
            // A pack of nothing begins at 0.
            end_lsn: Lsn(header.first_lsn.0.saturating_sub(1)),
        };
        let mut offset = SEGMENT_HEADER_LEN as u64;
        while let Some(frame) = read_frame(segment, offset)? {
            if frame.header.chain != stretch.end_chain || frame.header.lsn >= limit {
                break;
            }
            match frame.header.kind {
                FrameKind::State | FrameKind::Whole => self.has_state = true,
                FrameKind::Close | FrameKind::Manifest => {}
                _ => {
                    self.streams.insert(StreamId {
                        feed: frame.header.feed,
                        epoch: frame.header.epoch,
                    });
                }
            }
            if frame.header.kind.has_records() {
                self.newest = self.newest.max(frame.header.lsn);
            }
            (stretch.end_chain, stretch.end_lsn) = (frame.sum, frame.header.lsn);
            offset += frame.header.frame_len();
        }
        if header.id.is_pack() && offset != segment.len()? {
            return Err(Error::corrupt(&segment.path, offset, "frame"));
        }
        if !header.id.is_pack() {
            self.stretches.push(stretch);
        }
        Ok(())
    }
}

/// Replaces some files by one pack. Returns those that were removed, besides what it did.
fn round(
    engine: &Engine,
    victims: &[Arc<Segment>],
    copied: &Cell<Option<SegmentId>>,
    pace: bool,
) -> Result<(Compacted, Vec<Arc<Segment>>)> {
    let mut survey = Survey::default();
    let mut segments = engine.log.segments();
    segments.retain(|segment| !segment.id().is_pack());
    let live = in_force(&segments, &engine.manifest.lock());
    for victim in victims {
        let limit = match live.iter().find(|(segment, _)| segment.id() == victim.id()) {
            Some((_, limit)) => *limit,
            None if victim.id().is_pack() => Lsn(u64::MAX),
            // A segment that was superseded whole leads on from where it begins.
            None => victim.header.first_lsn,
        };
        survey.add(victim, limit)?;
    }
    let ids: BTreeSet<SegmentId> = victims.iter().map(|victim| victim.id()).collect();
    let manifest = next_manifest(engine, &survey, &ids)?;
    let log = &engine.log;
    let id = engine.manifest.lock().next_pack();
    let mut pack = PackWriter::create(log.site(), log.identity(), id, survey.newest)?;
    pack.set_pace(pace);
    let mut moved = Vec::new();
    let mut newest = Lsn(0);
    for stream in &survey.streams {
        if let Some(feed) = engine.stream_in_use(*stream)? {
            let packed = Survivors::of(engine, &feed, &ids)?.pack(&mut pack, copied)?;
            copied.set(None);
            let frame = feed_frame(engine, &feed, &ids, packed.clone())?;
            newest = newest.max(frame.header.lsn);
            pack.append(&frame)?;
            moved.push((feed, packed));
        }
    }
    if survey.has_state {
        pack.append(&state_frame(engine))?;
    }
    let mut frame = Frame::of_pack(FrameKind::Manifest, manifest.encode());
    // What is published is durable, a moment before the log says so.
    frame.header.durable_lsn = log.durable().max(newest);
    frame.seal(log.cipher());
    pack.append(&frame)?;
    let removed_bytes = victims
        .iter()
        .map(|victim| victim.len())
        .sum::<Result<u64>>()?;
    let pack = Arc::new(pack.finish()?);
    let written_bytes = pack.len()?;
    log.adopt(pack);
    // Order: whoever saves the catalog from here on may find the pack in some directories and what
    // it replaces in others, so both count until all directories have changed.
    engine.manifest.lock().packs.push(id);
    let whole = moved
        .into_iter()
        .all(|(feed, packed)| feed.repack(&ids, packed));
    if !whole {
        // Then a bug has forgotten a record: what it is in stays.
        return Err(Error::corrupt(&engine.path, 0, "a record was not packed"));
    }
    *engine.manifest.lock() = manifest;
    if engine.options.defects.has(Defect::RemoveEarly) {
        engine.remove_retired()?;
    }
    let gone = catch_up(engine)?;
    let done = Compacted {
        removed: victims.len() as u64,
        removed_bytes,
        written_bytes,
    };
    Ok((done, gone))
}

/// The manifest once the files in `ids` are replaced. Refuses when one of them does not lead to
/// what follows it: then it is damaged.
fn next_manifest(engine: &Engine, survey: &Survey, ids: &BTreeSet<SegmentId>) -> Result<Manifest> {
    let mut manifest = engine.manifest.lock().clone();
    let pack = manifest.next_pack();
    manifest.packs.retain(|pack| !ids.contains(pack));
    manifest.packs.push(pack);
    let before = manifest.clone();
    let segments = engine.log.segments();
    for stretch in &survey.stretches {
        let (chain, _) = before.follow(stretch.end_chain, stretch.end_lsn);
        let next = segments.iter().find(|next| next.id() > stretch.last);
        if next.is_none_or(|next| next.header.chain != chain) {
            let path = stretch.last.path(engine.log.dir());
            return Err(Error::corrupt(&path, 0, "the segment does not lead on"));
        }
        manifest.retire(*stretch);
    }
    Ok(manifest)
}

/// The feed as a whole, as it is going to be: what it takes to read the log without a catalog.
fn feed_frame(
    engine: &Engine,
    feed: &FeedState,
    ids: &BTreeSet<SegmentId>,
    packed: Vec<FrameRef>,
) -> Result<Frame> {
    let forgotten = || Error::corrupt(&engine.path, 0, "a record was not packed");
    let FeedChanges {
        row, chunks, marks, ..
    } = feed.preview(ids, packed).ok_or_else(forgotten)?;
    let frames: Vec<FrameRef> = chunks.into_iter().flat_map(|(_, frames)| frames).collect();
    let mut frame = Frame::feed(&row, &frames, &marks.unwrap_or_default());
    frame.seal(engine.log.cipher());
    Ok(frame)
}

fn state_frame(engine: &Engine) -> Frame {
    // Read first: what is published later is replayed on top.
    let lsn = engine.log.durable();
    let operations = engine.state.all();
    let bytes = crate::state::StateOp::encode_all(&operations);
    let mut frame = Frame::of_pack(FrameKind::Whole, bytes);
    frame.header.count = operations.len() as u32;
    frame.header.lsn = lsn;
    frame.seal(engine.log.cipher());
    frame
}
