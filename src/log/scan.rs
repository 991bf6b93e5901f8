//! Walking the log after an open: which frames are there, where it ends, and whether what follows
//! the end is the torn tail of a crash or damage to acknowledged data.
//!
//! | next frame                | a later frame vouches for it? | decision                          |
//! |---------------------------|-------------------------------|-----------------------------------|
//! | intact, chains to the last|                               | accept                            |
//! | none or not intact        | no                            | the log ends here                 |
//! | none or not intact        | yes                           | damage: refuse, name the place    |
//!
//! A later frame vouches for everything up to the durable LSN in its header. What nobody vouches
//! for may be torn, so it is verified to the last byte before it is accepted.

use std::sync::Arc;

use crate::checksum::checksum;
use crate::cursor::StreamId;
use crate::defects::{Defect, Defects};
use crate::encryption::StoreKeys;
use crate::error::{Error, Result};
use crate::log::format::{
    Entry, FRAME_ALIGN, FRAME_HEADER_LEN, FRAME_MAGIC, FrameHeader, FrameKind, SEGMENT_HEADER_LEN,
    entry_table,
};
use crate::log::manifest::Manifest;
use crate::log::seal::Seal;
use crate::log::segment::Segment;
use crate::log::{LogPosition, Lsn};

/// A frame that was found intact.
#[derive(Clone, Debug)]
pub(crate) struct Scanned {
    pub(crate) segment: Arc<Segment>,
    pub(crate) offset: u64,
    pub(crate) header: FrameHeader,
    /// The header's checksum: what the next frame chains to.
    pub(crate) sum: u32,
}

/// What a walk found.
pub(crate) struct Scan {
    /// The accepted frames after the start, in log order; whole commits only.
    pub(crate) frames: Vec<Scanned>,
    /// Where the log ends.
    pub(crate) end: LogPosition,
    /// Frames up to here are known to be on stable storage.
    pub(crate) durable: Lsn,
    /// Whether bytes after the end were given up. They have to go, also where the store was closed
    /// before: a frame among them would count again if what is written before it turned out the same.
    pub(crate) torn: bool,
}

/// Walks the log from `start`. `live` are the segments [`in_force`]; what is missing between them
/// must have been retired, as the manifest says. Frames up to `durable` are known from elsewhere to
/// be on stable storage.
pub(crate) fn scan(
    live: &[(Arc<Segment>, Lsn)],
    manifest: &Manifest,
    start: LogPosition,
    durable: Lsn,
    defects: Defects,
) -> Result<Scan> {
    let mut walk = Walk {
        segments: live,
        manifest,
        frames: Vec::new(),
        end: start,
    };
    let stop = walk.run()?;
    let mut frames = walk.frames;
    let mut end = walk.end;
    let vouched = frames
        .iter()
        .map(|frame| frame.header.durable_lsn)
        .max()
        .unwrap_or_default();
    let durable = durable.max(vouched).max(start.lsn);
    let (later, torn_bytes) = later_frames(&live[stop..], end)?;
    let missing = later > end.lsn || durable > end.lsn;
    if missing && !defects.has(Defect::TakeDamageForTear) {
        let path = live
            .get(stop)
            .map_or_else(Default::default, |(s, _)| s.path.clone());
        return Err(Error::corrupt(
            &path,
            end.offset,
            "acknowledged frames are missing from here",
        ));
    }
    let mut accepted = frames.len();
    for (at, frame) in frames.iter().enumerate() {
        let doubtful = frame.header.lsn > durable && !defects.has(Defect::TrustTornTail);
        if doubtful && !content_is_intact(frame)? {
            accepted = at;
            break;
        }
    }
    while accepted > 0 && frames[accepted - 1].header.continues {
        accepted -= 1;
    }
    // Segments behind the end were made for frames that never came: they must go, or they would
    // hide later ones.
    let torn = torn_bytes || accepted < frames.len() || stop + 1 < live.len();
    if let Some(cut) = frames.get(accepted) {
        if cut.header.lsn <= durable {
            let what = "an acknowledged commit is not whole";
            return Err(Error::corrupt(&cut.segment.path, cut.offset, what));
        }
        end = match accepted.checked_sub(1).and_then(|last| frames.get(last)) {
            Some(last) => last.end(),
            None => start,
        };
    }
    frames.truncate(accepted);
    Ok(Scan {
        frames,
        end,
        durable,
        torn,
    })
}

impl Scanned {
    /// The stream that the frame belongs to.
    pub(crate) fn stream(&self) -> StreamId {
        StreamId {
            feed: self.header.feed,
            epoch: self.header.epoch,
        }
    }

    pub(crate) fn end(&self) -> LogPosition {
        LogPosition {
            segment: self.segment.id(),
            offset: self.offset + self.header.frame_len(),
            chain: self.sum,
            lsn: self.header.lsn,
        }
    }

    /// The frame's bytes after its header, as they are in the file. Padding is zero, whatever a torn write has left there.
    pub(crate) fn content(&self) -> Result<Vec<u8>> {
        let len = self.header.frame_len() - FRAME_HEADER_LEN as u64;
        let mut bytes = vec![0; len as usize];
        let used = self.header.used_len() as usize - FRAME_HEADER_LEN;
        self.segment
            .read(&mut bytes[..used], self.offset + FRAME_HEADER_LEN as u64)?;
        Ok(bytes)
    }

    /// The seal of an encrypted frame.
    fn seal(&self) -> Result<Option<Seal>> {
        let read = |buf: &mut [u8], at| self.segment.read(buf, at);
        let keys = self.segment.cipher.as_ref();
        let open = |keys: &Arc<StoreKeys>| {
            Seal::open(keys, &self.segment, &self.header, self.offset, read)
        };
        keys.map(open).transpose()
    }

    /// The verified entries of a frame of records, or the operations or marks of another.
    pub(crate) fn checked_content(&self) -> Result<Vec<u8>> {
        let len = checked_len(&self.header);
        let mut bytes = vec![0; len as usize];
        self.segment
            .read(&mut bytes, self.offset + FRAME_HEADER_LEN as u64)?;
        if checksum(0, &[&bytes]) != self.header.content_sum {
            return Err(Error::corrupt(
                &self.segment.path,
                self.offset,
                "frame content",
            ));
        }
        if let Some(seal) = self.seal()? {
            let read = |buf: &mut [u8], at| self.segment.read(buf, at);
            match self.header.kind.has_records() {
                true => seal.open_columns(&self.segment, 0, &mut bytes, read)?,
                false => seal.open_content(&self.segment, &mut bytes, read)?,
            }
        }
        Ok(bytes)
    }
}

/// How many bytes after the header the header's content checksum covers.
fn checked_len(header: &FrameHeader) -> u64 {
    match header.kind.has_records() {
        true => header.columns_len(),
        false => u64::from(header.bodies_len),
    }
}

/// The segments that count, each with the LSN from which later segments supersede its frames.
///
/// After a crash the doubtful end of a segment is copied to a fresh one, which then holds the
/// frames from its first LSN on, whatever the older segment still has; also when the fresh one was
/// retired since.
pub(crate) fn in_force(segments: &[Arc<Segment>], manifest: &Manifest) -> Vec<(Arc<Segment>, Lsn)> {
    let mut limit = Lsn(u64::MAX);
    let mut live = Vec::new();
    for segment in segments.iter().rev() {
        limit = limit.min(manifest.superseded_from(segment.id()));
        if segment.header.first_lsn < limit {
            live.push((segment.clone(), limit));
            limit = segment.header.first_lsn;
        }
    }
    live.reverse();
    live
}

struct Walk<'a> {
    segments: &'a [(Arc<Segment>, Lsn)],
    manifest: &'a Manifest,
    frames: Vec<Scanned>,
    end: LogPosition,
}

impl Walk<'_> {
    /// Follows the chain as far as it goes; returns the index of the segment it ends in.
    fn run(&mut self) -> Result<usize> {
        let start = self
            .segments
            .iter()
            .position(|(segment, _)| segment.id() >= self.end.segment);
        let mut at = start.unwrap_or(self.segments.len());
        if let Some((segment, _)) = self.segments.get(at)
            && segment.id() > self.end.segment
            && segment.header.chain == self.end.chain
        {
            // The start's segment was superseded whole: the log goes on in the one that did it.
            self.end.segment = segment.id();
            self.end.offset = SEGMENT_HEADER_LEN as u64;
        }
        while let Some((segment, limit)) = self.segments.get(at) {
            if segment.id() == self.end.segment
                && let Some(frame) = read_frame(segment, self.end.offset)?
                && frame.header.chain == self.end.chain
                && frame.header.lsn > self.end.lsn
                && frame.header.lsn < *limit
            {
                self.end = frame.end();
                self.frames.push(frame);
                continue;
            }
            // Over what compaction has replaced, if anything.
            let (chain, lsn) = self.manifest.follow(self.end.chain, self.end.lsn);
            match self.segments.get(at + 1) {
                Some((next, _)) if next.header.chain == chain => {
                    (self.end.chain, self.end.lsn) = (chain, lsn);
                    self.end.segment = next.id();
                    self.end.offset = SEGMENT_HEADER_LEN as u64;
                    at += 1;
                }
                _ => break,
            }
        }
        Ok(at.min(self.segments.len().saturating_sub(1)))
    }
}

/// The intact frame at `offset`, if there is one: header and checked content.
pub(crate) fn read_frame(segment: &Arc<Segment>, offset: u64) -> Result<Option<Scanned>> {
    let len = segment.len()?;
    if offset + FRAME_HEADER_LEN as u64 > len {
        return Ok(None);
    }
    let mut bytes = [0; FRAME_HEADER_LEN];
    segment.read(&mut bytes, offset)?;
    let decoded = FrameHeader::decode(&bytes, offset, segment.header.nonce);
    let Some((header, sum)) = decoded else {
        return Ok(None);
    };
    let sealed = segment.cipher.is_some();
    if offset + header.frame_len() > len || header.sealed != sealed {
        return Ok(None);
    }
    let frame = Scanned {
        segment: segment.clone(),
        offset,
        header,
        sum,
    };
    match frame.checked_content() {
        Ok(_) => Ok(Some(frame)),
        Err(Error::Corrupt { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The positions of a packed frame's records, which stand behind its entries; none of others.
fn packed_positions(header: &FrameHeader, packing: &[u8]) -> impl Iterator<Item = u64> {
    let count = match header.kind {
        FrameKind::Packed => header.count as usize,
        _ => 0,
    };
    let words = packing.as_chunks::<8>().0.iter();
    words.take(count).map(|word| u64::from_le_bytes(*word))
}

/// Whether everything in a frame is as it was written, ids and payloads included.
pub(crate) fn content_is_intact(frame: &Scanned) -> Result<bool> {
    Ok(damage_in(frame)?.is_none())
}

/// The offset of the first record of a frame that is not as it was written.
pub(crate) fn damage_in(frame: &Scanned) -> Result<Option<u64>> {
    damage_or(frame, |_, _| false)
}

/// The same, or of the first record whose intact entry and stored payload are `wrong`.
pub(crate) fn damage_or(
    frame: &Scanned,
    mut wrong: impl FnMut(&Entry, &[u8]) -> bool,
) -> Result<Option<u64>> {
    let header = &frame.header;
    if !header.kind.has_records() {
        return Ok(None);
    }
    let mut content = frame.content()?;
    let columns_len = header.columns_len() as usize;
    let (columns, rest) = content.split_at_mut(columns_len);
    let read = |buf: &mut [u8], at| frame.segment.read(buf, at);
    let sealed = match frame.seal()? {
        None => None,
        Some(seal) => {
            seal.open_columns(&frame.segment, 0, columns, read)?;
            let tags = seal.tags(0..header.count, read)?;
            Some((seal, tags))
        }
    };
    let (table, packing) = columns.split_at(header.entries_len() as usize);
    let (ids, bodies) = rest.split_at_mut(frame.header.ids_len as usize);
    let (mut id_start, mut body_start) = (0, 0);
    let mut positions = packed_positions(header, packing);
    for (index, raw) in entry_table(table).iter().enumerate() {
        let position = positions.next().unwrap_or(header.first + index as u64);
        let intact = Entry::decode(raw).and_then(|entry| {
            let id = ids.get_mut(id_start..entry.id_end as usize)?;
            let body = bodies.get_mut(body_start..entry.body_end as usize)?;
            if let Some((seal, tags)) = &sealed {
                let record = index as u32;
                let open = seal.open_id(tags, record, id) && seal.open_payload(tags, record, body);
                open.then_some(())?;
            }
            let sound =
                Entry::is_intact(raw, position, id) && Entry::sum_of(body) == entry.body_sum;
            (sound && !wrong(&entry, body)).then_some(entry)
        });
        let Some(entry) = intact else {
            let payloads = frame.offset + (FRAME_HEADER_LEN + columns_len + ids.len()) as u64;
            return Ok(Some(payloads + body_start as u64));
        };
        (id_start, body_start) = (entry.id_end as usize, entry.body_end as usize);
    }
    Ok(None)
}

/// The offset of padding that is not zero. No record is affected and no torn write leaves it, so
/// it says nothing about where the log ends; but somebody has written there.
pub(crate) fn stray_padding(frame: &Scanned) -> Result<Option<u64>> {
    let header = &frame.header;
    let used = header.used_len();
    let mut padding = vec![0; (header.frame_len() - used) as usize];
    frame.segment.read(&mut padding, frame.offset + used)?;
    let stray = padding.iter().position(|byte| *byte != 0);
    Ok(stray.map(|at| frame.offset + used + at as u64))
}

/// Looks past the end of the chain: the greatest durable LSN that any intact frame header there
/// vouches for, and whether there is anything but zeros right behind the end.
fn later_frames(segments: &[(Arc<Segment>, Lsn)], end: LogPosition) -> Result<(Lsn, bool)> {
    let mut vouched = Lsn(0);
    let mut torn = false;
    for (at, (segment, limit)) in segments.iter().enumerate() {
        let from = if at == 0 {
            end.offset
        } else {
            SEGMENT_HEADER_LEN as u64
        };
        let len = segment.len()?;
        let mut bytes = vec![0; len.saturating_sub(from) as usize];
        if bytes.is_empty() {
            continue;
        }
        segment.read(&mut bytes, from)?;
        torn |= bytes.iter().any(|byte| *byte != 0);
        for start in (0..bytes.len()).step_by(FRAME_ALIGN) {
            let window = &bytes[start..];
            if !window.starts_with(&FRAME_MAGIC) {
                continue;
            }
            let offset = from + start as u64;
            let decoded = FrameHeader::decode(window, offset, segment.header.nonce);
            if let Some((header, _)) = decoded
                && header.lsn < *limit
            {
                vouched = vouched.max(header.durable_lsn);
            }
        }
    }
    Ok((vouched, torn))
}
