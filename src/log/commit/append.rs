//! What the leader does to the files: finding places for frames, writing them, going on to a new
//! segment.

use std::sync::Arc;

use super::queue::Commit;
use super::{Log, Tail};
use crate::encryption::same_key;
use crate::error::{Error, Result};
use crate::log::format::{FrameHeader, FrameKind, SEGMENT_HEADER_LEN, SegmentHeader};
use crate::log::frame::{Frame, Head};
use crate::log::segment::Segment;
use crate::log::unsynced::LeftSegment;
use crate::log::{Lsn, SegmentId};

/// Groups of up to so many bytes have space written ahead of them, for so many groups alike, and at
/// least so much. Larger ones are better off without: zeros take as long to write as frames.
const PREPARED_FOR_MAX: u64 = 64 << 10;
const PREPARED_TIMES: u64 = 8;
const PREPARED_MIN: u64 = 32 << 10;

/// A frame's place, decided before anything is written.
pub(super) struct Placed {
    pub(super) segment: Arc<Segment>,
    pub(super) offset: u64,
    /// Up to where the segment's space was written before the segment was begun.
    used: u64,
    head: Head,
}

impl Log {
    /// Finds a place for every frame and reserves the space, before a byte of a frame is written:
    /// a full disk, or a lack of descriptors, is found out here and costs nothing.
    pub(super) fn place(&self, tail: &mut Tail, group: &[Commit]) -> Result<Vec<Placed>> {
        let durable_lsn = self.durable();
        let mut segment = tail.segment.clone();
        let (mut offset, mut chain, mut used) = (tail.offset, tail.chain, 0);
        let mut created: Vec<Arc<Segment>> = Vec::new();
        let mut placed = Vec::new();
        for frame in group.iter().flat_map(|commit| &commit.frames) {
            let len = frame.header.frame_len();
            let is_full = offset + len > self.segment_size() && offset > SEGMENT_HEADER_LEN as u64;
            // A segment has frames under one key only.
            if is_full || !same_key(&segment.cipher, &self.cipher) {
                let next = self.create_segment(&segment, frame.header.lsn, chain, len);
                match next {
                    Ok(next) => (segment, used) = next,
                    Err(error) => return Err(self.discard(created, error)),
                }
                created.push(segment.clone());
                offset = SEGMENT_HEADER_LEN as u64;
            }
            let mut header = frame.header.clone();
            header.durable_lsn = durable_lsn;
            header.generation = self.generation;
            header.nonce = segment.header.nonce;
            header.chain = chain;
            let head = frame.head(&header, offset, &self.cipher);
            chain = head.sum();
            placed.push(Placed {
                segment: segment.clone(),
                offset,
                used,
                head,
            });
            offset += len;
            let mut allocated = if created.is_empty() {
                tail.allocated
            } else {
                0
            };
            if let Err(error) = segment.reserve(&mut allocated, offset) {
                return Err(self.discard(created, error));
            }
            if created.is_empty() {
                tail.allocated = allocated;
            }
        }
        Ok(placed)
    }

    /// Begins the segment after `last`. Returns also up to where its space was written before.
    fn create_segment(
        &self,
        last: &Segment,
        first_lsn: Lsn,
        chain: u32,
        frame_len: u64,
    ) -> Result<(Arc<Segment>, u64)> {
        let id = SegmentId(last.id().0 + 1);
        let header = SegmentHeader {
            generation: u64::from(self.generation),
            chain,
            ..SegmentHeader::new(self.identity, id, first_lsn)
        };
        let reserve = SEGMENT_HEADER_LEN as u64 + frame_len;
        let spare = self.spares.take();
        let used = spare.as_ref().and_then(|spare| spare.file().len().ok());
        let segment = Segment::begin(&self.site(), header, spare.as_ref(), reserve)?;
        Ok((Arc::new(segment), used.unwrap_or_default()))
    }

    /// Removes segments that were made for a group which is not written after all. If even that
    /// fails, the failure to remove is what the caller gets, and it poisons the log: a segment
    /// left behind would hide later frames from recovery.
    fn discard(&self, created: Vec<Arc<Segment>>, error: Error) -> Error {
        if created.is_empty() {
            return error;
        }
        for segment in created {
            let path = segment.id().unnamed_path(&self.dir);
            if let Err(error) = self.storage.remove(&path) {
                return Error::failure("remove", &path, error);
            }
        }
        self.site().sync_names().err().unwrap_or(error)
    }

    /// One gathered write per segment.
    pub(super) fn write(&self, tail: &mut Tail, group: &[Commit], placed: &[Placed]) -> Result<()> {
        let frames: Vec<&Frame> = group.iter().flat_map(|commit| &commit.frames).collect();
        let mut start = 0;
        while let Some(first) = placed.get(start) {
            let run = placed[start..]
                .iter()
                .take_while(|frame| Arc::ptr_eq(&frame.segment, &first.segment))
                .count();
            if !Arc::ptr_eq(&tail.segment, &first.segment) {
                self.leave_segment(tail, first)?;
            }
            let mut bytes: Vec<&[u8]> = Vec::with_capacity(6 * run);
            let mut end = first.offset;
            for (place, frame) in placed[start..start + run].iter().zip(&frames[start..]) {
                let parts = frame.bytes(&place.head).into_iter();
                bytes.extend(parts.filter(|part| !part.is_empty()));
                end = place.offset + frame.header.frame_len();
                tail.chain = place.head.sum();
            }
            tail.segment
                .file
                .write_all_at(&bytes, first.offset)
                .map_err(|source| Error::Io {
                    op: "write",
                    path: tail.segment.path.clone(),
                    source,
                })?;
            tail.offset = end;
            start += run;
        }
        Ok(())
    }

    /// Writes ahead of small groups, which are synced as often as they are written: the sync that
    /// makes the space ready is this group's, and those of the next ones have less to do.
    pub(super) fn prepare(tail: &mut Tail, group: &[Commit]) {
        let headers = || group.iter().flat_map(|it| &it.frames).map(|it| &it.header);
        let len: u64 = headers().map(FrameHeader::frame_len).sum();
        let is_last = headers().any(|header| header.kind == FrameKind::Close);
        if len > PREPARED_FOR_MAX || tail.offset < tail.prepared || is_last {
            return;
        }
        let ahead = (PREPARED_TIMES * len).max(PREPARED_MIN);
        let space = tail.offset..(tail.offset + ahead).min(tail.allocated);
        // Harmless if it does not happen.
        if tail.segment.file.prepare(space.clone()).is_ok() {
            tail.prepared = space.end;
        }
    }

    /// Goes on in the next segment. What is not synced of this one, the space it reserved and did not
    /// use, and giving the next one its name, are left to the next sync: no writer waits for it here.
    fn leave_segment(&self, tail: &mut Tail, first: &Placed) -> Result<()> {
        let next = &first.segment;
        tail.left.push(LeftSegment {
            segment: tail.segment.clone(),
            end: tail.offset,
            is_synced: tail.synced == tail.offset,
        });
        self.segments.write().insert(next.id(), next.clone());
        tail.allocated = next.len()?;
        tail.prepared = first.used;
        tail.segment = next.clone();
        tail.offset = SEGMENT_HEADER_LEN as u64;
        // Not even the header is.
        tail.synced = 0;
        // If compaction was told already, it is on its way.
        let _ = self.rolled.0.try_send(());
        Ok(())
    }
}
