//! What is left of one feed: its description, the frames that came after it, and which of its
//! changes are missing.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::cursor::StreamId;
use crate::error::{Error, Result};
use crate::feed::frame_ref::FrameRef;
use crate::feed::marks::Mark;
use crate::feed::published::Published;
use crate::hash::Fingerprint;
use crate::log::commit::after_jumps;
use crate::log::format::{Entry, FrameKind, entry_table};
use crate::log::frame::{Frame, FrameBuffers, PackedFrame};
use crate::log::scan::Scanned;
use crate::log::{Lsn, SegmentId};
use crate::publish::Place;
use crate::repair::Packs;
use crate::repair::records::{FrameBytes, body_of};
use crate::repair::source::Source;
use crate::state::StateKey;

/// See the module.
pub(crate) struct History {
    stream: StreamId,
    published: Published,
    /// Changes that are missing: from the first of these positions to the second.
    pub(crate) holes: Vec<(u64, u64)>,
    /// Positions of records that were shown and are damaged, with the id where that is known.
    pub(crate) lost: BTreeMap<u64, Option<String>>,
    /// Whether changes after the newest one may be missing.
    pub(crate) may_go_on: bool,
    /// When marks may be missing: after a change, and before the next one that there is.
    pub(crate) lost_marks: Vec<(u64, Option<u64>)>,
    /// Deletions whose payload is lost.
    pub(crate) lost_payloads: Vec<u64>,
    /// Records that are left.
    pub(crate) records: u64,
    has_dictionary: bool,
    /// Whether some entries that say what they supersede are damaged.
    is_doubtful: bool,
    /// Positions of those of which no later entry says what record they are of.
    nameless: BTreeSet<u64>,
}

impl History {
    /// Puts together what the source tells of a stream.
    pub(crate) fn of(source: &mut Source, stream: StreamId, damage: &mut Vec<Error>) -> Self {
        let described = source.described(stream, damage);
        let mut history = Self {
            stream,
            published: described.published,
            holes: Vec::new(),
            lost: BTreeMap::new(),
            may_go_on: false,
            lost_marks: Vec::new(),
            lost_payloads: Vec::new(),
            records: 0,
            has_dictionary: source.state.contains_key(&StateKey::dictionary(stream)),
            is_doubtful: false,
            nameless: BTreeSet::new(),
        };
        if !described.is_certain {
            history.note_lost_marks();
        }
        let mut through = described.through;
        let hiding = source.gaps.iter();
        let mut hiding = hiding
            .filter(|gap| gap.may_hide(described.through))
            .peekable();
        for frame in source.frames.remove(&stream).unwrap_or_default() {
            let lsn = frame.header.lsn;
            while hiding.next_if(|gap| gap.before <= lsn).is_some() {
                history.note_lost_marks();
            }
            if lsn > history.published.lsn {
                history.apply(&frame, damage);
            }
            // Records follow one another by their positions; marks tell nothing of records before them.
            if frame.header.kind == FrameKind::Records {
                through = through.max(lsn);
            }
        }
        if described.tail > history.published.tail {
            let after = history.published.tail + 1;
            history.holes.push((after, described.tail));
        }
        let mut gaps = source.gaps.iter();
        history.may_go_on =
            source.ends_anywhere || !described.is_certain || gaps.any(|gap| gap.may_hide(through));
        // What was seen in them may be lost, and nothing must be deleted for that.
        history.published.marks.windows.clear();
        history
    }

    fn apply(&mut self, frame: &Scanned, damage: &mut Vec<Error>) {
        let header = &frame.header;
        let content = frame.checked_content();
        if content.is_err() {
            let path = &frame.segment.path;
            damage.push(Error::corrupt(path, frame.offset, "frame content"));
        }
        if header.kind == FrameKind::Marks {
            let marks = content.ok();
            match marks.and_then(|bytes| Mark::decode_all(header.count, &bytes)) {
                Some(marks) => self.published.apply(&marks),
                None => self.note_lost_marks(),
            }
            self.published.lsn = header.lsn;
            return;
        }
        let published = &mut self.published;
        if header.first <= published.tail {
            return;
        }
        if let Some((_, before @ None)) = self.lost_marks.last_mut() {
            *before = Some(header.first);
        }
        let expected = after_jumps(published.tail + 1, published.generation, header.generation);
        if header.first != expected {
            self.holes.push((published.tail + 1, header.first - 1));
        }
        let place = Place {
            segment: frame.segment.id(),
            offset: frame.offset,
        };
        let superseded: Vec<u64> = match content {
            Ok(bytes) => previous(entry_table(&bytes).iter().filter_map(Entry::decode)),
            Err(_) => {
                self.is_doubtful = true;
                let whole = FrameRef::new(header, place);
                let bytes = FrameBytes::read(&whole, &frame.segment);
                let mut found = Vec::new();
                for bit in 0..header.count {
                    match bytes.record(bit) {
                        Some(record) => found.push(record.entry),
                        None => drop(self.nameless.insert(header.first + u64::from(bit))),
                    }
                }
                previous(found.into_iter())
            }
        };
        for position in &superseded {
            self.nameless.remove(position);
        }
        published.directory.push(header, place);
        published.retire(&superseded);
        published.tail = header.first + u64::from(header.count) - 1;
        published.time = header.time;
        published.lsn = header.lsn;
        published.generation = header.generation;
    }

    /// Marks may be missing between the newest change so far and the next one.
    fn note_lost_marks(&mut self) {
        let now = (self.published.tail, None);
        if self.lost_marks.last() != Some(&now) {
            self.lost_marks.push(now);
        }
    }

    /// Takes out what is shown and should not be: records that are damaged, and where it is not
    /// known what a missing version superseded, older versions beside newer ones.
    pub(crate) fn examine(&mut self, source: &Source, damage: &mut Vec<Error>) {
        self.take_out_damaged(source, damage);
        if self.is_holed() || self.is_doubtful {
            self.take_out_older(source);
        }
        self.note_revenants();
    }

    fn take_out_damaged(&mut self, source: &Source, damage: &mut Vec<Error>) {
        let pruned_through = self.published.marks.prunes.through();
        for frame in shown(&self.published) {
            let segment = source.file(frame.segment);
            let bytes = segment.as_ref().map(|file| FrameBytes::read(frame, file));
            let before = self.lost.len();
            for bit in frame.live_from(0) {
                let position = frame.first + u64::from(bit);
                let found = bytes.as_ref().and_then(|bytes| bytes.record(bit));
                let whole = found.as_ref().is_some_and(|found| {
                    let readable = found.entry.plain_len == 0 || self.has_dictionary;
                    position <= pruned_through || (found.body.is_some() && readable)
                });
                if !whole {
                    self.lost.insert(position, found.map(|found| found.id()));
                }
            }
            if self.lost.len() > before {
                let path = segment.as_ref().map(|file| file.path.clone());
                let path = path.unwrap_or_default();
                damage.push(Error::corrupt(&path, frame.offset, "records of a frame"));
            }
        }
        let lost: Vec<u64> = self.lost.keys().copied().collect();
        self.published.retire(&lost);
    }

    fn take_out_older(&mut self, source: &Source) {
        let mut newest: HashMap<Fingerprint, u64> = HashMap::new();
        let mut older = BTreeSet::new();
        // Those that are not shown, too: a deletion that was purged still ends what came before it.
        for frame in self.published.directory.iter() {
            let Some(segment) = source.file(frame.segment) else {
                continue;
            };
            let bytes = FrameBytes::read(frame, &segment);
            // Frames and their records come in the order of their positions.
            for bit in 0..frame.span {
                if let Some(found) = bytes.record(bit) {
                    let position = frame.first + u64::from(bit);
                    older.extend(newest.insert(found.entry.key, position));
                }
            }
        }
        let older: Vec<u64> = older.into_iter().collect();
        self.published.retire(&older);
    }

    /// Takes note of versions that would not be shown anyway, like a deletion that was purged, but of
    /// which it is not known what they superseded: that may be shown again.
    fn note_revenants(&mut self) {
        let Some(oldest) = shown(&self.published).next().and_then(FrameRef::first_live) else {
            return;
        };
        for position in self.nameless.range(oldest..) {
            self.lost.entry(*position).or_insert(None);
        }
    }

    /// Whether something is missing between changes that are left, or was shown, so that no reader
    /// knows what it would miss.
    fn is_holed(&self) -> bool {
        !self.holes.is_empty() || !self.lost.is_empty() || !self.lost_marks.is_empty()
    }

    /// The position of the newest change that is left.
    pub(crate) fn tail(&self) -> u64 {
        self.published.tail
    }

    /// Writes what is left into packs, and the description of the feed behind it.
    pub(crate) fn pack(&mut self, source: &Source, packs: &mut Packs<'_>) -> Result<()> {
        let mut packed = Vec::new();
        let mut open: Option<PackedFrame> = None;
        let (mut live, mut live_bytes) = (0, 0);
        let pruned_through = self.published.marks.prunes.through();
        for frame in shown(&self.published) {
            let Some(segment) = source.file(frame.segment) else {
                continue;
            };
            let bytes = FrameBytes::read(frame, &segment);
            for bit in frame.live_from(0) {
                let position = frame.first + u64::from(bit);
                let vanished = || Error::corrupt(&segment.path, frame.offset, "record");
                let found = bytes.record(bit).ok_or_else(vanished)?;
                let mut entry = found.entry;
                let mut body = found.body.unwrap_or_default().to_vec();
                let pruned = entry.pruned || position <= pruned_through;
                if entry.payload_at_previous {
                    // From here on a deleted record holds its payload itself.
                    entry.payload_at_previous = false;
                    if !pruned {
                        match self.payload_at(source, entry.previous) {
                            Some((holder, payload)) => {
                                (entry.plain_len, body) = (holder.plain_len, payload);
                            }
                            None => {
                                entry.pruned = true;
                                self.lost_payloads.push(position);
                            }
                        }
                    }
                }
                if pruned {
                    entry.plain_len = 0;
                    body.clear();
                }
                if entry.action != crate::record::Action::Deleted {
                    live += 1;
                    live_bytes += u64::from(entry.payload_len(body.len() as u32));
                }
                if open.as_ref().is_some_and(|open| open.is_full_for(position)) {
                    packs.close_frame(&mut open, &mut packed)?;
                }
                let StreamId { feed, epoch } = self.stream;
                let new = || PackedFrame::new(feed, epoch, position, FrameBuffers::default());
                let origin = (frame.lsn, frame.origin(position));
                let target = open.get_or_insert_with(new);
                target.push(position, origin, entry, found.ids, &body);
                self.records += 1;
            }
        }
        packs.close_frame(&mut open, &mut packed)?;
        self.describe(packed, (live, live_bytes), packs)
    }

    /// The payload of a version, and its entry.
    fn payload_at(&self, source: &Source, position: u64) -> Option<(Entry, Vec<u8>)> {
        let frame = self.published.directory.find(position)?;
        let segment = source.file(frame.segment)?;
        let (entry, body) = body_of(frame, &segment, (position - frame.first) as u32)?;
        (entry.plain_len == 0 || self.has_dictionary).then_some((entry, body))
    }

    fn describe(
        &mut self,
        packed: Vec<FrameRef>,
        (live, live_bytes): (u64, u64),
        packs: &mut Packs<'_>,
    ) -> Result<()> {
        let is_holed = self.is_holed();
        let published = &mut self.published;
        let frames = published.directory.iter();
        let all: BTreeSet<SegmentId> = frames.map(|frame| frame.segment).collect();
        let forgotten = || Error::corrupt(packs.dir(), 0, "a record was not packed");
        published.repack(&all, packed).ok_or_else(forgotten)?;
        if is_holed {
            published.marks.expire_readers(published.tail);
        }
        published.lsn = published.lsn.max(Lsn(1));
        let row = crate::catalog::FeedRow {
            feed: self.stream.feed.0,
            epoch: self.stream.epoch,
            tail: published.tail,
            time: published.time,
            lsn: published.lsn.0,
            generation: published.generation,
            live,
            live_bytes,
            marks: false,
            chunks: 0,
            chunks_sum: 0,
        };
        let frames = published.directory.to_vec();
        let mut frame = Frame::feed(&row, &frames, &published.marks.encode());
        frame.seal(packs.cipher());
        packs.append(&frame).map(drop)
    }
}

/// The frames with records that are shown.
fn shown(published: &Published) -> impl Iterator<Item = &FrameRef> {
    let frames = published.directory.iter();
    frames.filter(|frame| frame.live_count > 0)
}

fn previous(entries: impl Iterator<Item = Entry>) -> Vec<u64> {
    let previous = entries.map(|entry| entry.previous);
    previous.filter(|position| *position != 0).collect()
}
