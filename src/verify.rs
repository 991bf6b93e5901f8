//! Walking every checksum of a store, and every reference between its parts.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::compression::Undecodable;
use crate::cursor::StreamId;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::feed::state::FeedState;
use crate::log::Lsn;
use crate::log::format::{Entry, SEGMENT_HEADER_LEN};
use crate::log::scan::{Scanned, damage_or, read_frame, stray_padding};
use crate::recovery::packs::for_each_frame;
use crate::state::Registration;

/// What a verification looked at and found. See [`Store::verify`](crate::Store::verify).
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct VerifyReport {
    /// Segments walked.
    pub segments: u64,
    /// Frames whose every byte was checked.
    pub frames: u64,
    /// Versions of records in those frames, superseded ones included.
    pub versions: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Feeds whose directory was compared with the frames.
    pub feeds: u64,
    /// Everything that did not hold, with file and offset.
    pub damage: Vec<Error>,
}

impl VerifyReport {
    /// Whether nothing was found.
    pub fn is_clean(&self) -> bool {
        self.damage.is_empty()
    }
}

/// Walks the durable part of the log, then the feeds. `progress` is told the bytes walked so far
/// and the bytes there are.
pub(crate) fn verify(engine: &Engine, mut progress: impl FnMut(u64, u64)) -> Result<VerifyReport> {
    let mut report = VerifyReport::default();
    // Nothing is to be replaced while it is being looked at.
    let _compactor = engine.compactor.lock();
    let manifest = engine.manifest.lock().clone();
    let end = engine.log.durable_position()?;
    let segments = engine.log.segments();
    let total = segments.iter().map(|s| s.len()).sum::<Result<u64>>()?;
    let mut places = BTreeMap::new();
    let (packs, segments): (Vec<_>, Vec<_>) = segments.into_iter().partition(|s| s.id().is_pack());
    for id in &manifest.packs {
        if !packs.iter().any(|pack| pack.id() == *id) {
            let path = id.path(engine.log.dir());
            let missing = Error::corrupt(&path, 0, "the pack is missing");
            report.damage.push(missing);
        }
    }
    for pack in &packs {
        report.segments += 1;
        let walked = for_each_frame(pack, |frame| {
            check_frame(engine, &frame, &mut report, &mut places)?;
            progress(report.bytes, total);
            Ok(())
        });
        match walked {
            Err(damage @ Error::Corrupt { .. }) => report.damage.push(damage),
            walked => walked?,
        }
    }
    for (at, segment) in segments.iter().enumerate() {
        report.segments += 1;
        let next = segments.get(at + 1);
        let limit = next.map_or(Lsn(u64::MAX), |next| next.header.first_lsn);
        let limit = limit.min(manifest.superseded_from(segment.id()));
        let mut offset = SEGMENT_HEADER_LEN as u64;
        let mut chain = segment.header.chain;
        let mut lsn = Lsn(segment.header.first_lsn.0 - 1);
        while let Some(frame) = read_frame(segment, offset)? {
            engine.check_not_closed()?;
            let superseded = frame.header.lsn >= limit;
            if frame.header.chain != chain || superseded || frame.header.lsn > end.lsn {
                break;
            }
            check_frame(engine, &frame, &mut report, &mut places)?;
            offset += frame.header.frame_len();
            chain = frame.sum;
            lsn = frame.header.lsn;
            progress(report.bytes, total);
        }
        // The segment must go on to where the next one, or the end of the log, takes over.
        let goes_on = match next {
            Some(next) => next.header.chain == manifest.follow(chain, lsn).0,
            None => end.segment == segment.id() && end.offset == offset,
        };
        if !goes_on {
            report
                .damage
                .push(Error::corrupt(&segment.path, offset, "frame"));
        }
    }
    for registration in engine.state.registrations() {
        report.feeds += 1;
        let slot = engine.slot(&registration.key);
        let checked = slot
            .and_then(|slot| check_feed(engine, &slot.current(), &registration, &places, end.lsn));
        report.damage.extend(checked.err());
    }
    progress(total, total);
    Ok(report)
}

/// The frames by feed, first position and file: compaction may have copied a first record.
type Places = BTreeMap<(StreamId, u64, u64), (u64, u64, u32)>;

fn check_frame(
    engine: &Engine,
    frame: &Scanned,
    report: &mut VerifyReport,
    places: &mut Places,
) -> Result<()> {
    report.frames += 1;
    report.bytes += frame.header.frame_len();
    if frame.header.kind.has_records() {
        report.versions += u64::from(frame.header.count);
        let place = (frame.segment.id().0, frame.offset, frame.header.count);
        let stream = StreamId {
            feed: frame.header.feed,
            epoch: frame.header.epoch,
        };
        places.insert((stream, frame.header.first, place.0), place);
    }
    // Of an epoch that is over, the dictionary is gone too.
    let stream = StreamId {
        feed: frame.header.feed,
        epoch: frame.header.epoch,
    };
    let mut feed = None;
    let mut plain = Vec::new();
    let undecodable = |entry: &Entry, stored: &[u8]| {
        if entry.plain_len == 0 {
            return false;
        }
        let load = || engine.stream_in_use(stream).ok().flatten();
        let Some(feed) = feed.get_or_insert_with(load) else {
            return false;
        };
        plain.clear();
        let decoded = feed.codec.decode(stored, entry.plain_len, &mut plain);
        decoded == Err(Undecodable::Damaged)
    };
    let damage = match damage_or(frame, undecodable)? {
        Some(offset) => Some(offset),
        None => stray_padding(frame)?,
    };
    if let Some(offset) = damage {
        report
            .damage
            .push(Error::corrupt(&frame.segment.path, offset, "record"));
    }
    Ok(())
}

/// Compares a feed's directory with the frames, and its counts with its records.
fn check_feed(
    engine: &Engine,
    feed: &Arc<FeedState>,
    registration: &Registration,
    places: &Places,
    end: Lsn,
) -> Result<()> {
    let path = &engine.path;
    if feed.key != registration.key {
        return Err(Error::corrupt(path, 0, "two feeds have the same id"));
    }
    engine.load_index(feed)?;
    let published = feed.published.read();
    for frame in published
        .directory
        .frames()
        .iter()
        .filter(|f| f.first <= published.tail)
    {
        let expected = (frame.segment.0, frame.offset, frame.count);
        let place = places.get(&(feed.stream(), frame.first, frame.segment.0));
        // What was written since the walk is not known.
        let walked = frame.lsn <= end;
        if place.map_or(walked, |place| *place != expected) {
            return Err(Error::corrupt(
                path,
                0,
                "a directory entry names the wrong place",
            ));
        }
    }
    let shown: u64 = published
        .directory
        .frames()
        .iter()
        .map(|f| u64::from(f.live_count))
        .sum();
    if shown < published.live {
        return Err(Error::corrupt(
            path,
            0,
            "a feed counts more records than it shows",
        ));
    }
    Ok(())
}
