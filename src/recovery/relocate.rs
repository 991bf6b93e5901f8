//! After an unclean end: what nobody vouches for is copied to a fresh segment and synced there. After
//! a failed sync the system may still show bytes that the disk never got.

use std::path::Path;
use std::sync::Arc;

use crate::encryption::{Cipher, TAG_LEN, same_key};
use crate::error::{Error, Result};
use crate::log::format::{SEGMENT_HEADER_LEN, SegmentHeader};
use crate::log::frame::Head;
use crate::log::scan::{Scan, Scanned};
use crate::log::segment::{Segment, Site};
use crate::log::{LogPosition, Lsn, SegmentId};
use crate::options::Options;
use crate::recovery::files::{Files, identity};
use crate::storage::Storage;

/// Copies the frames nobody vouches for to a fresh segment, and puts the rest of the tail away.
///
/// Order: the fresh segment is durable before anything old is touched, and its first LSN makes
/// later scans ignore the old copies. A crash anywhere in here leads to the same frames again.
pub(super) fn relocate(
    options: &Options,
    dir: &Path,
    (segments, live): (&mut Files, &[(Arc<Segment>, Lsn)]),
    scan: &Scan,
    generation: u64,
    current: &Cipher,
) -> Result<(Vec<Scanned>, LogPosition)> {
    let doubtful = scan
        .frames
        .partition_point(|frame| frame.header.lsn <= scan.durable);
    let (kept, suffix) = scan.frames.split_at(doubtful);
    let cut = match (kept.last(), suffix.first()) {
        (_, None) => scan.end,
        // Compaction may have replaced what was between the two.
        (Some(last), Some(first)) => LogPosition {
            chain: first.header.chain,
            ..last.end()
        },
        // Nothing was accepted before the first doubtful frame: it starts where the scan did.
        (None, Some(first)) => LogPosition {
            segment: first.segment.id(),
            offset: first.offset,
            chain: first.header.chain,
            lsn: Lsn(first.header.lsn.0 - 1),
        },
    };
    let id = SegmentId(segments.last().map_or(0, |segment| segment.id().0) + 1);
    let identity = identity(segments.iter())?;
    let first_lsn = suffix
        .first()
        .map_or(scan.end.lsn.next(), |frame| frame.header.lsn);
    let header = SegmentHeader {
        generation,
        chain: cut.chain,
        ..SegmentHeader::new(identity, id, first_lsn)
    };
    let nonce = header.nonce;
    // Frames are copied as they are, so the copy is under the key that they are under. They are of one
    // opening of the store: what was written before it, it had synced.
    let cipher = suffix
        .first()
        .map_or(current, |frame| &frame.segment.cipher);
    let mut bytes: Vec<Vec<u8>> = Vec::new();
    let mut frames = kept.to_vec();
    let (mut offset, mut chain) = (SEGMENT_HEADER_LEN as u64, cut.chain);
    let mut moved = Vec::new();
    for frame in suffix {
        let mut header = frame.header.clone();
        (header.nonce, header.chain, header.durable_lsn) = (nonce, chain, scan.durable);
        let mut content = frame.content()?;
        if !same_key(&frame.segment.cipher, cipher) {
            let what = "frames of one opening are under several keys";
            return Err(Error::corrupt(&frame.segment.path, frame.offset, what));
        }
        let (_, seal) = content.split_at_mut(header.content_len() as usize);
        let salt = seal.get(TAG_LEN..).unwrap_or_default();
        let head = Head::new(&header, offset, salt, cipher);
        chain = head.sum();
        seal[..head.tag().len()].copy_from_slice(head.tag());
        bytes.push(head.bytes().to_vec());
        bytes.push(content);
        moved.push((header, offset, chain));
        offset += frame.header.frame_len();
    }
    let content: Vec<&[u8]> = bytes.iter().map(Vec::as_slice).collect();
    let storage = options.storage.as_ref();
    let site = Site::new(storage, dir, cipher, options.defects);
    let segment = Arc::new(Segment::create(&site, header, &content, offset)?);
    site.sync_names()?;
    for (header, offset, sum) in moved {
        frames.push(Scanned {
            segment: segment.clone(),
            offset,
            header,
            sum,
        });
    }
    put_away(storage, dir, (segments, live), scan.durable, cut)?;
    segments.push(segment);
    Ok((
        frames,
        LogPosition {
            segment: id,
            offset,
            chain,
            lsn: scan.end.lsn,
        },
    ))
}

/// Removes segments that hold nothing but the torn tail, or were superseded whole, and cuts the
/// tail off the last one that stays. Those without their names stay, and get them, if somebody vouches
/// for what is in them: only then are they on stable storage.
fn put_away(
    storage: &dyn Storage,
    dir: &Path,
    (segments, live): (&mut Files, &[(Arc<Segment>, Lsn)]),
    durable: Lsn,
    cut: LogPosition,
) -> Result<()> {
    let counts: Vec<SegmentId> = live.iter().map(|(segment, _)| segment.id()).collect();
    let keep = |segment: &Arc<Segment>| {
        let is_whole = segment.has_name(dir) || segment.header.first_lsn <= durable;
        segment.id() <= cut.segment && counts.contains(&segment.id()) && is_whole
    };
    for segment in segments.iter().filter(|segment| !keep(segment)) {
        storage
            .remove(&segment.path)
            .map_err(|error| Error::io("remove", &segment.path, error))?;
    }
    segments.retain(keep);
    for segment in segments.iter_mut() {
        if !segment.has_name(dir) {
            *segment = Arc::new(segment.renamed(storage, dir)?);
        }
    }
    storage
        .sync_dir(dir)
        .map_err(|error| Error::io("sync directory", dir, error))?;
    if let Some(segment) = segments.last_mut()
        && segment.id() == cut.segment
        && segment.len()? > cut.offset
    {
        *segment = segment.clone().cut(storage, dir, cut.offset)?;
    }
    Ok(())
}
