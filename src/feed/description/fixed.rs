//! How directories were written down before: with fields of fixed length, and a bit for every position.

use crate::codec::Decoder;
use crate::feed::frame_ref::{FrameRef, Origin, Packing, ones};
use crate::log::format::{Author, SyncId};
use crate::log::{Lsn, SegmentId};

const BITS_NONE: u8 = 0;
const BITS_ALL: u8 = 1;
const BITS_SOME: u8 = 2;

/// Reads `count` frames; `None` when they are damaged.
pub(super) fn decode(count: u32, bytes: &[u8]) -> Option<Vec<FrameRef>> {
    let mut fields = Decoder::new(bytes);
    let mut frames = Vec::new();
    for _ in 0..count {
        frames.push(decode_frame(&mut fields)?);
    }
    fields.is_empty().then_some(frames)
}

/// Reads a bit set of `len` bits, and how many are set.
fn decode_bits(fields: &mut Decoder<'_>, len: u32) -> Option<(Box<[u64]>, u32)> {
    // A frame has no more records than a list of them has bytes, so this allocates little.
    let words: Box<[u64]> = match fields.u8()? {
        BITS_NONE => vec![0; len.div_ceil(64) as usize].into(),
        BITS_ALL => ones(len),
        BITS_SOME => {
            let words = fields
                .take(len.div_ceil(64) as usize * 8)?
                .as_chunks::<8>()
                .0;
            words.iter().map(|word| u64::from_le_bytes(*word)).collect()
        }
        _ => return None,
    };
    let set = words.iter().map(|word| word.count_ones()).sum();
    let inside = ones(len);
    let plausible = words
        .iter()
        .zip(&inside)
        .all(|(word, mask)| word & !mask == 0);
    plausible.then_some((words, set))
}

fn decode_origin(fields: &mut Decoder<'_>) -> Option<Origin> {
    Some(Origin {
        first: fields.u64()?,
        end: fields.u64()?,
        time: fields.u64()?,
        author: Author {
            run: fields.u64()?,
            sync: SyncId(fields.u64()?),
        },
    })
}

fn decode_frame(fields: &mut Decoder<'_>) -> Option<FrameRef> {
    let Origin {
        first,
        time,
        author,
        ..
    } = decode_origin(fields)?;
    let (span, count) = (fields.u32()?, fields.u32()?);
    let mut frame = FrameRef {
        first,
        span,
        count,
        lsn: Lsn(fields.u64()?),
        time,
        author,
        segment: SegmentId(fields.u64()?),
        offset: fields.u64()?,
        ids_len: fields.u32()?,
        bodies_len: fields.u32()?,
        live_count: 0,
        live: Box::default(),
        packing: None,
    };
    if !frame.is_plausible() {
        return None;
    }
    (frame.live, frame.live_count) = decode_bits(fields, span)?;
    let origins = fields.u32()?;
    if origins == 0 {
        return (span == count).then_some(frame);
    }
    let origins: Option<_> = (0..origins).map(|_| decode_origin(fields)).collect();
    let (present, there) = decode_bits(fields, span)?;
    let packing = Packing {
        present,
        origins: origins?,
        holders: fields.u32()?,
    };
    frame.packing = Some(Box::new(packing));
    (there == count).then_some(frame)
}
