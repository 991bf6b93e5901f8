//! Doors for the fuzzers in `fuzz/`, into what only damaged files and odd records reach otherwise.

use crate::catalog::rows::{self, FeedRow, RootRow};
use crate::encryption::Keyring;
use crate::feed::frame_ref::FrameRef;
use crate::feed::lives::Lives;
use crate::feed::marks::{Mark, Marks};
use crate::index::IndexEntry;
use crate::index::shelf::Shelf;
use crate::log::format::{Entry, SegmentHeader};
use crate::log::manifest::Manifest;
use crate::runs::rows::RunRow;
use crate::state::{CheckpointRow, Registration, StateOp};
use crate::{json, positions};

/// How many kinds of value [`decode`] knows.
pub const KINDS: u8 = 16;

/// Decodes bytes as one kind of what a store keeps on disk, and encodes the value again; `None` when they
/// are refused. Checksums are made right first where a value has one.
pub fn decode(kind: u8, bytes: &[u8]) -> Option<Vec<u8>> {
    let sealed = || rows::seal(b"key", bytes.to_vec());
    let unsealed = |mut row: Vec<u8>| {
        row.truncate(row.len().saturating_sub(4));
        row
    };
    Some(match kind {
        0 => unsealed(rows::encode(
            b"key",
            &rows::decode::<RootRow>(b"key", &sealed())?,
        )),
        1 => unsealed(rows::encode(
            b"key",
            &rows::decode::<FeedRow>(b"key", &sealed())?,
        )),
        2 => FrameRef::encode_all(&FrameRef::decode_all(bytes)?),
        3 => Manifest::decode(bytes)?.encode(),
        4 => Marks::decode(bytes)?.encode(),
        5 => Shelf::decode(bytes)?.save().0,
        6 => Registration::decode(bytes)?.encode(),
        7 => CheckpointRow::decode(bytes)?.encode(),
        8 => RunRow::decode(bytes)?.encode(),
        9 => {
            let (count, operations) = bytes.split_first()?;
            let operations = StateOp::decode_all(u32::from(*count), operations)?;
            [&[*count], &StateOp::encode_all(&operations)[..]].concat()
        }
        10 => {
            let (count, marks) = bytes.split_first()?;
            let marks = Mark::decode_all(u32::from(*count), marks)?;
            [&[*count], &Mark::encode_all(&marks)[..]].concat()
        }
        11 => IndexEntry::decode(bytes.try_into().ok()?)?
            .encode()
            .to_vec(),
        12 => {
            let (header, cipher) = SegmentHeader::decode(bytes, &Keyring::new(None)).ok()?;
            header.encode(&cipher)
        }
        13 => {
            // Its length, at the end, is read by somebody else.
            let mut lives = Lives::decode(1 << 40, bytes)?.encode(1 << 40);
            lives.pop();
            lives
        }
        14 => {
            let mut encoded = Vec::new();
            positions::encode(positions::decode(bytes, 1 << 16)?, &mut encoded);
            encoded
        }
        _ => Entry::decode(bytes.try_into().ok()?)?.encode().to_vec(),
    })
}

/// Whether two JSON texts say the same; `None` when one is refused.
pub fn same_json(a: &[u8], b: &[u8]) -> Option<bool> {
    json::same_value(a, b, &[]).ok()
}

/// A partial record merged into a stored one; `None` when one is refused.
pub fn merge_json(stored: &[u8], partial: &[u8]) -> Option<Vec<u8>> {
    json::merge(stored, partial).ok()
}
