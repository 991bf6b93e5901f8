//! Walking the files of the log.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Affected, Pace, VerifyReport};
use crate::compression::Undecodable;
use crate::cursor::{Cursor, StreamId};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::log::format::{Entry, FrameKind, SEGMENT_HEADER_LEN};
use crate::log::manifest::Manifest;
use crate::log::scan::{Scanned, damage_or, in_force, read_frame, stray_padding};
use crate::log::segment::Segment;
use crate::log::{LogPosition, Lsn, SegmentId};
use crate::repair::files::next_frame;
use crate::state::{StateKey, StateOp};

/// What the durable part of the log was found to hold.
pub(crate) struct Walked {
    /// Place and count of every frame of records by stream, first position and file: compaction may
    /// have copied a first record.
    pub(crate) places: BTreeMap<(StreamId, u64, SegmentId), (u64, u32)>,
    /// The newest value of every state key that the log tells of.
    pub(crate) state: BTreeMap<StateKey, Option<Vec<u8>>>,
    /// Up to where a pack has the state as a whole.
    whole: Lsn,
    pub(crate) end: LogPosition,
    manifest: Manifest,
}

impl Walked {
    /// Walks the durable part of the log.
    pub(crate) fn of(
        engine: &Engine,
        report: &mut VerifyReport,
        pace: &mut Pace,
        progress: &mut impl FnMut(u64, u64),
    ) -> Result<Self> {
        let manifest = engine.manifest.lock().clone();
        let end = engine.log.durable_position()?;
        let (packs, segments): (Vec<_>, Vec<_>) = engine
            .log
            .segments()
            .into_iter()
            .filter(|segment| segment.id().is_pack() || segment.id() <= end.segment)
            .partition(|segment| segment.id().is_pack());
        let mut walked = Self {
            places: BTreeMap::new(),
            state: BTreeMap::new(),
            whole: Lsn(0),
            end,
            manifest,
        };
        let lens = packs.iter().chain(&segments).map(|segment| segment.len());
        let total = lens.sum::<Result<u64>>()?;
        let mut check = |walked: &mut Self, frame: &Scanned, report: &mut VerifyReport| {
            walked.check_frame(engine, frame, report)?;
            pace.spend(engine, frame.header.frame_len())?;
            progress(report.bytes, total.max(report.bytes));
            Ok(())
        };
        for pack in &packs {
            report.segments += 1;
            walked.walk_pack(pack, report, &mut check)?;
        }
        let live = in_force(&segments, &walked.manifest);
        for (at, (segment, limit)) in live.iter().enumerate() {
            report.segments += 1;
            let next = live.get(at + 1).map(|(next, _)| next);
            walked.walk_segment(segment, *limit, next, report, &mut check)?;
        }
        Ok(walked)
    }

    /// A pack ends where its file ends, so everything in it must be frames.
    fn walk_pack(
        &mut self,
        pack: &Arc<Segment>,
        report: &mut VerifyReport,
        check: &mut impl FnMut(&mut Self, &Scanned, &mut VerifyReport) -> Result<()>,
    ) -> Result<()> {
        let len = pack.len()?;
        let mut at = SEGMENT_HEADER_LEN as u64;
        let mut chain = pack.header.chain;
        while at < len {
            let frame = read_frame(pack, at)?;
            match frame {
                Some(frame) if frame.header.chain == chain => {
                    check(self, &frame, report)?;
                    (at, chain) = (at + frame.header.frame_len(), frame.sum);
                }
                _ => {
                    report.damage.push(Error::corrupt(&pack.path, at, "frame"));
                    let from = at + 1;
                    let Some((offset, header, _)) = next_frame(pack, from) else {
                        return Ok(());
                    };
                    (at, chain) = (offset, header.chain);
                }
            }
        }
        Ok(())
    }

    /// A segment must go on to where the next one, or the end of the log, takes over.
    fn walk_segment(
        &mut self,
        segment: &Arc<Segment>,
        limit: Lsn,
        next: Option<&Arc<Segment>>,
        report: &mut VerifyReport,
        check: &mut impl FnMut(&mut Self, &Scanned, &mut VerifyReport) -> Result<()>,
    ) -> Result<()> {
        let mut at = SEGMENT_HEADER_LEN as u64;
        let mut chain = segment.header.chain;
        let mut lsn = Lsn(segment.header.first_lsn.0.saturating_sub(1));
        loop {
            let counts = |lsn: Lsn| lsn < limit && lsn <= self.end.lsn;
            if let Some(frame) = read_frame(segment, at)?
                && frame.header.chain == chain
                && counts(frame.header.lsn)
            {
                check(self, &frame, report)?;
                (at, chain) = (at + frame.header.frame_len(), frame.sum);
                lsn = frame.header.lsn;
                continue;
            }
            let goes_on = match next {
                Some(next) => next.header.chain == self.manifest.follow(chain, lsn).0,
                None => self.end.segment == segment.id() && self.end.offset == at,
            };
            if goes_on {
                return Ok(());
            }
            report
                .damage
                .push(Error::corrupt(&segment.path, at, "frame"));
            // Everything is looked at, also behind damage.
            match next_frame(segment, at + 1) {
                Some((offset, header, _)) if counts(header.lsn) => {
                    (at, chain) = (offset, header.chain);
                    lsn = Lsn(header.lsn.0.saturating_sub(1));
                }
                _ => return Ok(()),
            }
        }
    }

    fn check_frame(
        &mut self,
        engine: &Engine,
        frame: &Scanned,
        report: &mut VerifyReport,
    ) -> Result<()> {
        let header = &frame.header;
        report.frames += 1;
        report.bytes += header.frame_len();
        match header.kind {
            FrameKind::Whole => self.note_state(frame, report)?,
            FrameKind::State if header.lsn > self.whole => self.note_state(frame, report)?,
            kind if kind.has_records() => {
                report.versions += u64::from(header.count);
                let key = (frame.stream(), header.first, frame.segment.id());
                self.places.insert(key, (frame.offset, header.count));
            }
            _ => {}
        }
        // Of an epoch that is over, the dictionary is gone too.
        let mut feed = None;
        let mut plain = Vec::new();
        let undecodable = |entry: &Entry, stored: &[u8]| {
            if entry.plain_len == 0 {
                return false;
            }
            let load = || engine.stream_in_use(frame.stream()).ok().flatten();
            let Some(feed) = feed.get_or_insert_with(load) else {
                return false;
            };
            plain.clear();
            let decoded = feed.codec.decode(stored, entry.plain_len, &mut plain);
            decoded == Err(Undecodable::Damaged)
        };
        if let Some(offset) = damage_or(frame, undecodable)? {
            let damage = Error::corrupt(&frame.segment.path, offset, "record");
            report.damage.push(damage);
            let last = header.first + u64::from(header.count) - 1;
            affect(engine, report, frame.stream(), (header.first, last));
        } else if let Some(offset) = stray_padding(frame)? {
            let damage = Error::corrupt(&frame.segment.path, offset, "padding");
            report.damage.push(damage);
        }
        Ok(())
    }

    fn note_state(&mut self, frame: &Scanned, report: &mut VerifyReport) -> Result<()> {
        let header = &frame.header;
        let operations = StateOp::decode_all(header.count, &frame.checked_content()?);
        let Some(operations) = operations else {
            let path = &frame.segment.path;
            report
                .damage
                .push(Error::corrupt(path, frame.offset, "state operations"));
            return Ok(());
        };
        if header.kind == FrameKind::Whole {
            // Also what was removed before counts no more, whichever frame said so.
            self.whole = header.lsn;
            self.state.clear();
        }
        let values = operations.into_iter();
        self.state
            .extend(values.map(|operation| (operation.key, operation.value)));
        Ok(())
    }
}

/// Takes note of which changes of a feed are in a damaged place.
pub(super) fn affect(
    engine: &Engine,
    report: &mut VerifyReport,
    stream: StreamId,
    (first, last): (u64, u64),
) {
    let cursor = |position| Cursor {
        feed: stream.feed,
        epoch: stream.epoch,
        position,
        purges: 0,
        base: position,
    };
    let registration = engine.registration(stream.feed);
    if let Some(known) = registration.filter(|known| known.epoch == stream.epoch) {
        report.affected.push(Affected {
            feed: known.key,
            first: cursor(first),
            last: cursor(last),
        });
    }
}
