//! What compaction has to keep of a feed: its live records, and the payloads of deleted ones that
//! older versions hold.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::sync::Arc;

use crate::defects::Defect;
use crate::engine::Engine;
use crate::error::Result;
use crate::feed::frame_ref::FrameRef;
use crate::feed::read::{Bodies, Located, Row, Span};
use crate::feed::state::FeedState;
use crate::hash::Fingerprint;
use crate::log::SegmentId;
use crate::log::frame::PackedFrame;
use crate::log::pack::PackWriter;
use crate::primitives::yield_now;

/// After so many records, whoever waits for this processor gets it. Above all that are threads of the
/// system, which have the syncs of writers to finish: otherwise they wait for a time slice to end.
const GIVES_WAY: usize = 32;

/// See the module.
pub(crate) struct Survivors<'a> {
    engine: &'a Engine,
    feed: &'a Arc<FeedState>,
    /// The frames to keep records of, and which frame of the directory each is.
    sources: Vec<(usize, FrameRef)>,
    /// Whether the feed shows deleted records.
    has_deleted: bool,
    pruned_through: u64,
}

/// A packed frame under construction, and those that are written.
struct Packer<'a, 'b> {
    engine: &'a Engine,
    feed: &'a FeedState,
    pack: &'a mut PackWriter<'b>,
    frame: Option<PackedFrame>,
    written: Vec<FrameRef>,
}

impl<'a> Survivors<'a> {
    /// Looks at the feed's frames in the files `ids`.
    pub(crate) fn of(
        engine: &'a Engine,
        feed: &'a Arc<FeedState>,
        ids: &BTreeSet<SegmentId>,
    ) -> Result<Self> {
        let (directory, tail, live, pruned_through) = {
            let published = feed.published.read();
            let pruned_through = published.marks.prunes.through();
            let directory = published.directory.clone();
            (directory, published.tail, published.live, pruned_through)
        };
        let sources = directory.iter().enumerate();
        let sources = sources.filter(|(_, frame)| ids.contains(&frame.segment));
        let shown = directory.live_through(tail);
        Ok(Self {
            engine,
            feed,
            sources: sources.map(|(at, frame)| (at, frame.clone())).collect(),
            has_deleted: shown > live,
            pruned_through,
        })
    }

    /// Copies them. Returns what the feed's directory is going to say of the copies.
    /// `copied` is told what is being copied.
    pub(crate) fn pack(
        self,
        pack: &mut PackWriter<'_>,
        copied: &Cell<Option<SegmentId>>,
    ) -> Result<Vec<FrameRef>> {
        let mut packer = Packer {
            engine: self.engine,
            feed: self.feed,
            pack,
            frame: None,
            written: Vec::new(),
        };
        let mut last = None;
        for (at, frame) in &self.sources {
            self.engine.check_not_closed()?;
            // Ranges of frames must not overlap: what lies between two sources ends a frame.
            if last.is_some_and(|last| last + 1 != *at) {
                packer.finish()?;
            }
            last = Some(*at);
            copied.set(Some(frame.segment));
            self.copy(frame, &mut packer)?;
        }
        packer.finish()?;
        Ok(packer.written)
    }

    fn copy(&self, frame: &FrameRef, packer: &mut Packer<'_, '_>) -> Result<()> {
        let holders = self.holders(frame)?;
        let mut wanted: Vec<u32> = frame.live_from(0).chain(holders.iter().copied()).collect();
        wanted.sort_unstable();
        if wanted.is_empty() {
            return Ok(());
        }
        let span = Span::new(&self.engine.log, frame, wanted)?;
        let mut located = Vec::new();
        span.locate(&mut Vec::new(), &mut located)?;
        for record in &mut located {
            // What a deleted record has its payload from is not covered by pruning that record's
            // older version.
            let holder = holders.contains(&((record.position - frame.first) as u32));
            record.pruned |= !holder && record.position <= self.pruned_through;
        }
        let (mut buffer, mut rows) = (Vec::new(), Vec::new());
        span.load(&located, Bodies::Stored, &mut buffer, &mut rows)?;
        for (at, (record, row)) in located.iter().zip(&rows).enumerate() {
            if at % GIVES_WAY == 0 {
                yield_now();
            }
            let holder = holders.contains(&((record.position - frame.first) as u32));
            self.push(frame, record, row, &mut buffer, holder, packer)?;
        }
        Ok(())
    }

    fn push(
        &self,
        frame: &FrameRef,
        record: &Located,
        row: &Row,
        buffer: &mut Vec<u8>,
        holder: bool,
        packer: &mut Packer<'_, '_>,
    ) -> Result<()> {
        let mut entry = record.entry;
        let mut body = row.body.clone();
        let own = buffer.len();
        if entry.payload_at_previous {
            // From here on the deleted record holds its payload itself.
            entry.payload_at_previous = false;
            if !record.pruned {
                let holder = self.engine.payload_holder(self.feed, entry.previous)?;
                body = holder.append_payload(Bodies::Stored, buffer)?;
                entry.plain_len = holder.located.entry.plain_len;
            }
        }
        if record.pruned {
            entry.plain_len = 0;
        }
        let mut scratch = Vec::new();
        let mut stored = &buffer[body];
        if entry.plain_len == 0 {
            // From before the feed had a dictionary, or the store the option.
            let (codec, len) = (&self.feed.codec, stored.len() as u32);
            let compression = self.engine.options.compression;
            if let Some(compressed) = codec.encode(compression, stored, &mut scratch) {
                (stored, entry.plain_len) = (compressed, len);
            }
        }
        let renumbers = self.engine.options.defects.has(Defect::RenumberRecords);
        let position = record.position + u64::from(renumbers);
        let target = packer.frame_for(position)?;
        let origin = (frame.lsn, frame.origin(record.position));
        // With what stands behind the id.
        let ids = &buffer[row.id.start..][..record.ids_len() as usize];
        target.push(position, origin, entry, ids, stored);
        if holder {
            target.note_holder();
        }
        buffer.truncate(own);
        Ok(())
    }

    /// The records of a frame that are not live, but hold the payload of a deleted record.
    fn holders(&self, frame: &FrameRef) -> Result<Vec<u32>> {
        let dead = |bit: &u32| !frame.is_live(*bit) && frame.has(*bit);
        if !self.has_deleted || frame.live_count == frame.count {
            return Ok(Vec::new());
        }
        if self.engine.options.defects.has(Defect::DropHeldPayloads) {
            return Ok(Vec::new());
        }
        let dead: Vec<u32> = (0..frame.span).filter(dead).collect();
        let mut located = Vec::new();
        Span::new(&self.engine.log, frame, dead)?.locate(&mut Vec::new(), &mut located)?;
        let keys: Vec<Fingerprint> = located.iter().map(|record| record.entry.key).collect();
        let newest = self.engine.newest(self.feed, &keys)?;
        let mut holders = Vec::new();
        for (record, newest) in located.iter().zip(newest) {
            let Some(newest) = newest.filter(|newest| newest.is_deleted()) else {
                continue;
            };
            if newest.is_pruned(self.pruned_through) || newest.position() <= record.position {
                continue;
            }
            let deletion = self.engine.payload_holder(self.feed, newest.position())?;
            let entry = deletion.located.entry;
            if entry.payload_at_previous && entry.previous == record.position {
                holders.push((record.position - frame.first) as u32);
            }
        }
        Ok(holders)
    }
}

impl Packer<'_, '_> {
    /// The frame that the record at `position` goes into.
    fn frame_for(&mut self, position: u64) -> Result<&mut PackedFrame> {
        if self
            .frame
            .as_ref()
            .is_some_and(|frame| frame.is_full_for(position))
        {
            self.finish()?;
        }
        let (feed, epoch) = (self.feed.id, self.feed.epoch);
        let frames = &self.engine.log.frames;
        let new = || PackedFrame::new(feed, epoch, position, frames.take());
        Ok(self.frame.get_or_insert_with(new))
    }

    /// Writes the frame under construction.
    fn finish(&mut self) -> Result<()> {
        if let Some(frame) = self.frame.take() {
            let (frame, mut known) = frame.finish(self.engine.log.cipher());
            let place = self.pack.append(&frame)?;
            (known.segment, known.offset) = (place.segment, place.offset);
            self.written.push(known);
        }
        Ok(())
    }
}
