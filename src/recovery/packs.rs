//! Reading packs when there is no catalog: which files are in force, feeds and state as they were
//! when each pack was made. The log has what came later.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use crate::codec::Decoder;
use crate::cursor::StreamId;
use crate::error::{Error, Result};
use crate::feed::directory::Directory;
use crate::feed::frame_ref::FrameRef;
use crate::feed::marks::Marks;
use crate::feed::published::Published;
use crate::log::format::{FrameKind, SEGMENT_HEADER_LEN};
use crate::log::manifest::Manifest;
use crate::log::scan::{Scanned, read_frame};
use crate::log::segment::Segment;
use crate::log::{Lsn, SegmentId};
use crate::state::{StateKey, StateOp};

/// What packs know.
#[derive(Default)]
pub(crate) struct Packed {
    pub(crate) feeds: BTreeMap<StreamId, Published>,
    pub(crate) state: BTreeMap<StateKey, Vec<u8>>,
    /// The last frame of the log that the state has for sure.
    pub(crate) state_lsn: Lsn,
}

/// The newest manifest, and up to where the log was durable when it was written.
pub(crate) fn manifest(packs: &[Arc<Segment>]) -> Result<Option<(Manifest, Lsn)>> {
    let Some(newest) = packs.last() else {
        return Ok(None);
    };
    let mut found = None;
    for_each_frame(newest, |frame| {
        if frame.header.kind == FrameKind::Manifest {
            let bytes = frame.checked_content()?;
            let manifest = Manifest::decode(&bytes).ok_or_else(|| damaged(&frame))?;
            found = Some((manifest, frame.header.durable_lsn));
        }
        Ok(())
    })?;
    let missing = || Error::corrupt(&newest.path, 0, "the pack has no manifest");
    found.ok_or_else(missing).map(Some)
}

/// Reads the packs in force, oldest first: what a later one says of a feed or the state counts.
pub(crate) fn read(packs: &[Arc<Segment>], manifest: &Manifest, dir: &Path) -> Result<Packed> {
    let there = |id: &SegmentId| packs.iter().any(|pack| pack.id() == *id);
    if let Some(missing) = manifest.packs.iter().find(|id| !there(id)) {
        let path = missing.path(dir);
        return Err(Error::corrupt(&path, 0, "the pack is missing"));
    }
    let mut feeds = BTreeMap::new();
    let mut state = None;
    for pack in packs {
        for_each_frame(pack, |frame| {
            match frame.header.kind {
                FrameKind::Feed => {
                    feeds.insert(frame.stream(), frame);
                }
                FrameKind::Whole => state = Some(frame),
                _ => {}
            }
            Ok(())
        })?;
    }
    let mut packed = Packed::default();
    for (stream, frame) in feeds {
        packed.feeds.insert(stream, feed(&frame)?);
    }
    if let Some(frame) = state {
        let operations = StateOp::decode_all(frame.header.count, &frame.checked_content()?);
        let operations = operations.ok_or_else(|| damaged(&frame))?;
        let values = operations.into_iter();
        packed.state = values.filter_map(|op| Some((op.key, op.value?))).collect();
        packed.state_lsn = frame.header.lsn;
    }
    Ok(packed)
}

/// Reads the description of a feed.
pub(crate) fn feed(frame: &Scanned) -> Result<Published> {
    let bytes = frame.checked_content()?;
    let mut fields = Decoder::new(&bytes);
    let marks = fields.bytes().and_then(Marks::decode);
    let frames = fields.bytes().and_then(FrameRef::decode_all);
    let (Some(marks), Some(frames)) = (marks, frames) else {
        return Err(damaged(frame));
    };
    let header = &frame.header;
    Ok(Published {
        directory: Directory::restore(frames),
        tail: header.first,
        time: header.time,
        lsn: header.lsn,
        generation: header.generation,
        live: header.live,
        live_bytes: header.live_bytes,
        marks,
        marks_dirty: true,
    })
}

fn damaged(frame: &Scanned) -> Error {
    Error::corrupt(&frame.segment.path, frame.offset, "frame content")
}

/// Walks a pack from its beginning to its end.
pub(crate) fn for_each_frame(
    pack: &Arc<Segment>,
    mut visit: impl FnMut(Scanned) -> Result<()>,
) -> Result<()> {
    let mut offset = SEGMENT_HEADER_LEN as u64;
    let mut chain = pack.header.chain;
    let len = pack.len()?;
    while offset < len {
        let frame = read_frame(pack, offset)?.filter(|frame| frame.header.chain == chain);
        let missing = || Error::corrupt(&pack.path, offset, "frame");
        let frame = frame.ok_or_else(missing)?;
        offset += frame.header.frame_len();
        chain = frame.sum;
        visit(frame)?;
    }
    Ok(())
}
