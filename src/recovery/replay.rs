//! Applying frames to what the catalog, or the packs, have of feeds and state.

use std::sync::Arc;

use crate::cursor::{FeedId, StreamId};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::feed::marks::Mark;
use crate::feed::published::Published;
use crate::feed::state::FeedState;
use crate::log::format::{Entry, FrameKind, entry_table};
use crate::log::scan::Scanned;
use crate::publish::Place;
use crate::recovery::packs::Packed;
use crate::state::{Registration, StateKey, StateOp};

/// Takes over a feed as a pack has it.
fn adopt(engine: &Engine, stream: StreamId, known: Registration, published: Published) {
    let StreamId { feed, epoch } = stream;
    let state = FeedState::new(known.key, feed, epoch, Some(known.options), published);
    engine.feeds.lock().streams.insert(stream, Arc::new(state));
}

/// Applies frames to what the catalog or the packs had. Frames they knew of already are passed
/// over.
///
/// A feed is taken over from the packs when the log first names it, because its registration, and
/// which of its epochs count, may stand in the log.
pub(super) fn replay(engine: &Engine, frames: &[Scanned], mut packed: Packed) -> Result<()> {
    let state_lsn = packed.state_lsn;
    for frame in frames {
        match frame.header.kind {
            FrameKind::Close => {}
            FrameKind::State if frame.header.lsn <= state_lsn => {}
            FrameKind::State => {
                let bytes = frame.checked_content()?;
                let operations = StateOp::decode_all(frame.header.count, &bytes);
                let operations = operations.ok_or_else(|| {
                    Error::corrupt(&frame.segment.path, frame.offset, "state operations")
                })?;
                engine.state.publish(&operations);
                let keys = operations.iter().map(|operation| &operation.key);
                let feeds = keys.filter(|key| key.is_feed());
                feeds.for_each(|key| follow(engine, key));
            }
            FrameKind::Records => replay_records(engine, frame, &mut packed)?,
            FrameKind::Marks => replay_marks(engine, frame, &mut packed)?,
            FrameKind::Packed | FrameKind::Feed | FrameKind::Whole | FrameKind::Manifest => {
                let path = &frame.segment.path;
                return Err(Error::corrupt(path, frame.offset, "a frame of a pack"));
            }
        }
    }
    for (stream, published) in packed.feeds {
        let registration = engine.registration(stream.feed);
        if let Some(known) = registration.filter(|known| known.epoch == stream.epoch) {
            adopt(engine, stream, known, published);
        }
    }
    give_up_staged(engine);
    let is_over = |stream: &StreamId| {
        let current = engine.registration(stream.feed);
        current.is_none_or(|current| current.epoch != stream.epoch)
    };
    engine.shelf.lock().forget_where(is_over);
    // A feed may have been configured after its first frame.
    let open: Vec<_> = engine.feeds.lock().streams.values().cloned().collect();
    open.iter()
        .try_for_each(|feed| engine.refresh_options(feed))
}

/// Forgets the epochs of a feed that its registration has gone beyond.
fn follow(engine: &Engine, key: &StateKey) {
    let registration = engine.state.get(key);
    if let Some(registration) = registration.as_deref().and_then(Registration::decode) {
        let id = engine.feed_id(&registration.key);
        forget_epochs(engine, id, |epoch| {
            epoch == registration.epoch || epoch == registration.newest_epoch
        });
    }
}

/// Epochs that were being filled when the store was left are not gone on with.
fn give_up_staged(engine: &Engine) {
    for registration in engine.state.registrations() {
        let id = engine.feed_id(&registration.key);
        forget_epochs(engine, id, |epoch| epoch == registration.epoch);
    }
}

fn forget_epochs(engine: &Engine, feed: FeedId, kept: impl Fn(u32) -> bool) {
    let mut feeds = engine.feeds.lock();
    let over = |stream: &StreamId| stream.feed == feed && !kept(stream.epoch);
    let range = StreamId { feed, epoch: 0 }..=StreamId {
        feed,
        epoch: u32::MAX,
    };
    let rows = feeds.rows.range(range).map(|(stream, _)| *stream);
    let known: Vec<StreamId> = rows.filter(over).collect();
    feeds.dropped.extend(known);
    feeds.streams.retain(|stream, _| !over(stream));
}

/// The state that a frame belongs to; `None` when its epoch is over, or the frame is known.
fn stream_of(
    engine: &Engine,
    frame: &Scanned,
    packed: &mut Packed,
) -> Result<Option<Arc<FeedState>>> {
    let header = &frame.header;
    let damaged = |what| Error::corrupt(&frame.segment.path, frame.offset, what);
    let registration = engine.registration(header.feed);
    let registration = registration.ok_or_else(|| damaged("a frame of an unknown feed"))?;
    if engine.feed_id(&registration.key) != header.feed {
        return Err(damaged("a frame of an unknown feed"));
    }
    let current = header.epoch == registration.epoch;
    if !current && header.epoch != registration.newest_epoch {
        return Ok(None);
    }
    let id = StreamId {
        feed: header.feed,
        epoch: header.epoch,
    };
    if let Some(published) = packed.feeds.remove(&id) {
        adopt(engine, id, registration.clone(), published);
    }
    let state = engine.stream(&registration.key, id)?;
    let is_known = |state: &Arc<FeedState>| header.lsn <= state.published.read().lsn;
    Ok(state.filter(|state| !is_known(state)))
}

fn replay_marks(engine: &Engine, frame: &Scanned, packed: &mut Packed) -> Result<()> {
    if let Some(feed) = stream_of(engine, frame, packed)? {
        let bytes = frame.checked_content()?;
        let marks = Mark::decode_all(frame.header.count, &bytes);
        let damaged = || Error::corrupt(&frame.segment.path, frame.offset, "marks");
        feed.restore_marks(&frame.header, &marks.ok_or_else(damaged)?);
    }
    Ok(())
}

fn replay_records(engine: &Engine, frame: &Scanned, packed: &mut Packed) -> Result<()> {
    let header = &frame.header;
    let Some(feed) = stream_of(engine, frame, packed)? else {
        return Ok(());
    };
    let bytes = frame.checked_content()?;
    let entries = entry_table(&bytes).iter().filter_map(Entry::decode);
    let superseded: Vec<u64> = entries
        .map(|entry| entry.previous)
        .filter(|position| *position != 0)
        .collect();
    let place = Place {
        segment: frame.segment.id(),
        offset: frame.offset,
    };
    feed.restore_frame(header, place, &superseded);
    Ok(())
}
