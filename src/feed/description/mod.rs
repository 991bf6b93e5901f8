//! How a stretch of a directory is written down, in the catalog and in packs. It is rewritten whenever
//! one of its records has changed, so it is short: what a frame has in common with the one before it,
//! and what follows from something else, takes a byte or nothing.

mod fixed;

use crate::codec::{push_varint, take_varint};
use crate::feed::frame_ref::{FrameRef, Origin, Packing, bits_from, set};
use crate::log::format::{Author, SyncId};
use crate::log::{Lsn, SegmentId};

/// Set in the number of frames: they are written as here, and not with [fields of fixed
/// length](fixed).
const SHORT: u32 = 1 << 31;

/// Bits of a frame's first byte: no record is live, or not all are, ...
const NONE_LIVE: u8 = 1;
const SOME_LIVE: u8 = 2;
/// ... compaction has packed it, ...
const PACKED: u8 = 4;
/// ... and its author is not the one of the frame before.
const OTHER_AUTHOR: u8 = 8;

/// The frame before, as far as the next one is told by it.
#[derive(Default)]
struct Before {
    end: u64,
    time: u64,
    author: Author,
    lsn: u64,
    segment: u64,
    offset: u64,
}

impl Before {
    fn of(frame: &FrameRef) -> Self {
        Self {
            end: frame.end(),
            time: frame.time,
            author: frame.author,
            lsn: frame.lsn.0,
            segment: frame.segment.0,
            offset: frame.offset,
        }
    }
}

/// Appends how far it is from one value to another, whichever is larger.
fn push_step(from: u64, to: u64, bytes: &mut Vec<u8>) {
    let step = to.wrapping_sub(from);
    let backwards = (step as i64 >> 63) as u64;
    push_varint(step << 1 ^ backwards, bytes);
}

fn take_step(from: u64, bytes: &mut &[u8]) -> Option<u64> {
    let step = take_varint(bytes)?;
    let backwards = (step & 1).wrapping_neg();
    Some(from.wrapping_add(step >> 1 ^ backwards))
}

fn push_author(author: Author, bytes: &mut Vec<u8>) {
    push_varint(author.run, bytes);
    push_varint(author.sync.0, bytes);
}

fn take_author(bytes: &mut &[u8]) -> Option<Author> {
    Some(Author {
        run: take_varint(bytes)?,
        sync: SyncId(take_varint(bytes)?),
    })
}

fn take_u32(bytes: &mut &[u8]) -> Option<u32> {
    take_varint(bytes)?.try_into().ok()
}

/// Appends as many bits as there are items, eight a byte.
fn push_bits(bits: impl Iterator<Item = bool>, bytes: &mut Vec<u8>) {
    let (mut byte, mut len) = (0, 0);
    for bit in bits {
        byte |= u8::from(bit) << len;
        len += 1;
        if len == 8 {
            bytes.push(byte);
            (byte, len) = (0, 0);
        }
    }
    if len > 0 {
        bytes.push(byte);
    }
}

/// Takes `len` bits.
fn take_bits<'a>(len: u32, bytes: &mut &'a [u8]) -> Option<impl Iterator<Item = bool> + use<'a>> {
    let bits = bytes.split_off(..len.div_ceil(8) as usize)?;
    let unused = bits.last().map_or(0, |last| last >> ((len + 7) % 8) >> 1);
    let bit = |at: u32| bits[at as usize / 8] >> (at % 8) & 1 == 1;
    (unused == 0).then(|| (0..len).map(bit))
}

/// Whether the positions of `count` records among `span` take less space as the gaps between them, most
/// of which take a byte, than as a bit each.
fn is_sparse(count: u32, span: u32) -> bool {
    count < span / 8
}

impl FrameRef {
    /// Writes a stretch of a directory down.
    pub(crate) fn encode_all(frames: &[Self]) -> Vec<u8> {
        let mut bytes = (frames.len() as u32 | SHORT).to_le_bytes().to_vec();
        let mut before = Before::default();
        for frame in frames {
            frame.encode(&before, &mut bytes);
            before = Before::of(frame);
        }
        bytes
    }

    /// Reads a stretch of a directory; `None` when it is damaged.
    pub(crate) fn decode_all(bytes: &[u8]) -> Option<Vec<Self>> {
        let (count, mut rest) = bytes.split_first_chunk()?;
        let count = u32::from_le_bytes(*count);
        if count & SHORT == 0 {
            return fixed::decode(count, rest);
        }
        let mut before = Before::default();
        let mut frames = Vec::new();
        for _ in 0..count & !SHORT {
            let frame = Self::decode(&before, &mut rest)?;
            before = Before::of(&frame);
            frames.push(frame);
        }
        rest.is_empty().then_some(frames)
    }

    /// About how long that is.
    pub(crate) fn described_len(&self) -> u64 {
        let live = match self.live_count {
            some if some == 0 || some == self.count => 0,
            _ => self.count / 8,
        };
        let packing = self.packing.as_ref().map_or(0, |packing| {
            self.count.min(self.span / 8) as usize + 8 * packing.origins.len()
        });
        24 + u64::from(live) + packing as u64
    }

    fn encode(&self, before: &Before, bytes: &mut Vec<u8>) {
        let live = match self.live_count {
            0 => NONE_LIVE,
            all if all == self.count => 0,
            _ => SOME_LIVE,
        };
        let packed = if self.packing.is_some() { PACKED } else { 0 };
        let is_other = self.author != before.author;
        let author = if is_other { OTHER_AUTHOR } else { 0 };
        bytes.push(live | packed | author);
        push_step(before.end, self.first, bytes);
        push_varint(u64::from(self.span), bytes);
        push_step(before.time, self.time, bytes);
        push_step(before.lsn, self.lsn.0, bytes);
        push_step(before.segment, self.segment.0, bytes);
        push_step(before.offset, self.offset, bytes);
        push_varint(u64::from(self.ids_len), bytes);
        push_varint(u64::from(self.bodies_len), bytes);
        if is_other {
            push_author(self.author, bytes);
        }
        if let Some(packing) = &self.packing {
            push_varint(u64::from(self.count), bytes);
            self.encode_packing(packing, bytes);
        }
        if live == SOME_LIVE {
            let all = self.present();
            push_bits(bits_from(&all, 0).map(|bit| self.is_live(bit)), bytes);
        }
    }

    fn decode(before: &Before, bytes: &mut &[u8]) -> Option<Self> {
        let flags = bytes.split_off_first()?;
        let has = |flag| flags & flag != 0;
        let known = NONE_LIVE | SOME_LIVE | PACKED | OTHER_AUTHOR;
        if flags & !known != 0 || has(NONE_LIVE) && has(SOME_LIVE) {
            return None;
        }
        let first = take_step(before.end, bytes)?;
        let span = take_u32(bytes)?;
        let mut frame = Self {
            first,
            span,
            count: span,
            time: take_step(before.time, bytes)?,
            lsn: Lsn(take_step(before.lsn, bytes)?),
            segment: SegmentId(take_step(before.segment, bytes)?),
            offset: take_step(before.offset, bytes)?,
            ids_len: take_u32(bytes)?,
            bodies_len: take_u32(bytes)?,
            author: before.author,
            live_count: 0,
            live: Box::default(),
            packing: None,
        };
        if has(OTHER_AUTHOR) {
            frame.author = take_author(bytes)?;
        }
        if has(PACKED) {
            frame.count = take_u32(bytes)?;
        }
        if !frame.is_plausible() {
            return None;
        }
        if has(PACKED) {
            frame.packing = Some(Box::new(frame.decode_packing(bytes)?));
        }
        let all = frame.present().into_owned();
        if flags & (NONE_LIVE | SOME_LIVE) == 0 {
            (frame.live, frame.live_count) = (all.into(), frame.count);
            return Some(frame);
        }
        let mut live = vec![0; all.len()];
        if has(SOME_LIVE) {
            let bits = bits_from(&all, 0).zip(take_bits(frame.count, bytes)?);
            for (bit, _) in bits.filter(|(_, is_live)| *is_live) {
                set(&mut live, bit);
                frame.live_count += 1;
            }
        }
        frame.live = live.into();
        Some(frame)
    }

    fn encode_packing(&self, packing: &Packing, bytes: &mut Vec<u8>) {
        push_varint(u64::from(packing.holders), bytes);
        push_varint(packing.origins.len() as u64, bytes);
        let (mut end, mut time, mut author) = (self.first, self.time, self.author);
        for origin in &packing.origins {
            let is_other = origin.author != author;
            push_step(end, origin.first, bytes);
            push_step(origin.first, origin.end, bytes);
            push_step(time, origin.time, bytes);
            bytes.push(u8::from(is_other));
            if is_other {
                push_author(origin.author, bytes);
            }
            (end, time, author) = (origin.end, origin.time, origin.author);
        }
        if is_sparse(self.count, self.span) {
            let mut next = 0;
            for bit in bits_from(&packing.present, 0) {
                push_varint(u64::from(bit - next), bytes);
                next = bit + 1;
            }
        } else {
            let words = packing.present.iter().flat_map(|word| word.to_le_bytes());
            bytes.extend(words.take(self.span.div_ceil(8) as usize));
        }
    }

    fn decode_packing(&self, bytes: &mut &[u8]) -> Option<Packing> {
        let holders = take_u32(bytes)?;
        let (mut end, mut time, mut author) = (self.first, self.time, self.author);
        let mut origins = Vec::new();
        for _ in 0..take_varint(bytes)? {
            let first = take_step(end, bytes)?;
            end = take_step(first, bytes)?;
            time = take_step(time, bytes)?;
            match bytes.split_off_first()? {
                0 => {}
                1 => author = take_author(bytes)?,
                _ => return None,
            }
            origins.push(Origin {
                first,
                end,
                time,
                author,
            });
        }
        Some(Packing {
            present: self.decode_present(bytes)?,
            origins: origins.into(),
            holders,
        })
    }

    fn decode_present(&self, bytes: &mut &[u8]) -> Option<Box<[u64]>> {
        let mut present = vec![0u64; self.span.div_ceil(64) as usize];
        if !is_sparse(self.count, self.span) {
            let there = take_bits(self.span, bytes)?;
            for (bit, _) in (0..).zip(there).filter(|(_, is_there)| *is_there) {
                set(&mut present, bit);
            }
            let count = present.iter().map(|word| word.count_ones()).sum::<u32>();
            return (count == self.count).then_some(present.into());
        }
        let mut next = 0;
        for _ in 0..self.count {
            let bit = take_u32(bytes)?.checked_add(next)?;
            next = bit.checked_add(1).filter(|next| *next <= self.span)?;
            set(&mut present, bit);
        }
        Some(present.into())
    }
}

#[cfg(test)]
mod tests;
