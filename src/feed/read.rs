//! Reading records back: entries first, then exactly the ids and payloads that are wanted, each
//! verified by its checksum. Neighbouring records share one read.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use crate::checksum::{checksum, checksums};
use crate::compression::Codec;
use crate::defects::{Defect, Defects};
use crate::error::{Error, Result};
use crate::feed::ahead::Ahead;
use crate::feed::directory::FrameRef;
use crate::feed::lives::Lives;
use crate::index::IndexEntry;
use crate::log::Lsn;
use crate::log::commit::Log;
use crate::log::format::{ENTRY_LEN, Entry, FRAME_HEADER_LEN, FrameHeader, entry_table};
use crate::log::seal::{self, RecordTags, Seal};
use crate::log::segment::Segment;
use crate::record::Action;

/// Wanted records of a frame that lie at most this far apart share one read of entries.
const ENTRY_GAP_MAX: u32 = 32;
/// Wanted payloads at most this many bytes apart share one read.
const BODY_GAP_MAX: u64 = 16 << 10;

/// Some records of one frame, to be read without holding a lock.
pub(crate) struct Span {
    segment: Arc<Segment>,
    first: u64,
    lsn: Lsn,
    time: u64,
    count: u32,
    /// Where the frame begins, and its entries, ids and payloads.
    offset: u64,
    entries_at: u64,
    ids_at: u64,
    bodies_at: u64,
    ids_len: u32,
    bodies_len: u32,
    /// The wanted records' positions from `first` on, ascending.
    pub(crate) wanted: Vec<u32>,
    /// Of a packed frame: which record of the frame each of them is, and its commit time.
    packed: Option<Vec<(u32, u64)>>,
    /// What was read before it was needed.
    pub(crate) ahead: Option<Ahead>,
    /// Of an encrypted frame, once it was looked at.
    seal: OnceLock<Box<Seal>>,
    defects: Defects,
}

/// A wanted record whose entry was read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Located {
    pub(crate) position: u64,
    pub(crate) time: u64,
    pub(crate) entry: Entry,
    raw: [u8; ENTRY_LEN],
    id_start: u32,
    body_start: u32,
    /// Which record of the frame it is.
    index: u32,
    entry_at: u64,
    /// Whether the payload is gone, so that it is not read.
    pub(crate) pruned: bool,
}

impl Located {
    pub(crate) fn is_deleted(&self) -> bool {
        self.entry.action == Action::Deleted
    }

    /// Bytes of the id and of what stands behind it.
    pub(crate) fn ids_len(&self) -> u32 {
        self.entry.id_end - self.id_start
    }

    /// Where the id and what stands behind it are in what begins with those of `first`.
    fn ids_in(&self, first: &Self) -> Range<usize> {
        (self.id_start - first.id_start) as usize..(self.entry.id_end - first.id_start) as usize
    }

    /// Where the stored payload is in what begins with that of `first`.
    fn body_in(&self, first: &Self) -> Range<usize> {
        let from = first.body_start;
        (self.body_start - from) as usize..(self.entry.body_end - from) as usize
    }

    /// Bytes of the payload, as it was saved.
    pub(crate) fn body_len(&self) -> u32 {
        let stored = self.entry.body_end - self.body_start;
        self.entry.payload_len(stored)
    }
}

/// What is wanted of payloads.
#[derive(Clone, Copy)]
pub(crate) enum Bodies<'a> {
    /// They are not read.
    Skipped,
    /// As they are stored, for whoever stores them again.
    Stored,
    /// As they were saved.
    Plain(&'a Codec),
}

/// Where a located record is in a buffer.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) id: Range<usize>,
    /// The record's earlier [lives](crate::feed::lives), encoded.
    pub(crate) lives: Range<usize>,
    pub(crate) body: Range<usize>,
}

/// Reads the live entries of a frame, verified as a whole.
pub(crate) fn read_entries(
    frame: &FrameRef,
    segment: &Segment,
    entries: &mut Vec<IndexEntry>,
) -> Result<()> {
    let (_, ids_at, _) = frame.areas();
    let mut bytes = vec![0; (ids_at - frame.offset) as usize];
    segment.read(&mut bytes, frame.offset)?;
    let damaged = |what| Error::corrupt(&segment.path, frame.offset, what);
    let (header, _) = FrameHeader::decode(&bytes, frame.offset, segment.header.nonce)
        .ok_or_else(|| damaged("frame header"))?;
    let columns = &mut bytes[FRAME_HEADER_LEN..];
    if header.first != frame.first || header.content_sum != checksum(0, &[columns]) {
        return Err(damaged("frame entries"));
    }
    if let Some(keys) = &segment.cipher {
        let read = |buf: &mut [u8], at| segment.read(buf, at);
        let seal = Seal::open(keys, segment, &header, frame.offset, read)?;
        if header.lsn != frame.lsn {
            return Err(damaged("frame header"));
        }
        seal.open_columns(segment, 0, columns, read)?;
    }
    let table = entry_table(columns);
    let decode = |index: u32| table.get(index as usize).and_then(Entry::decode);
    for (bit, index) in frame.indexes_of(frame.live_from(0)) {
        let (Some(index), Some(entry)) = (index, index.and_then(decode)) else {
            return Err(damaged("frame entries"));
        };
        let start = index
            .checked_sub(1)
            .and_then(decode)
            .map_or(0, |before| before.body_end);
        let position = frame.first + u64::from(bit);
        let len = entry.payload_len(entry.body_end.saturating_sub(start));
        entries.push(IndexEntry::new(&entry, position, len));
    }
    Ok(())
}

impl Span {
    /// Takes a look at records of a frame: those whose positions, counted from the frame's first
    /// one, are `wanted`.
    pub(crate) fn new(log: &Log, frame: &FrameRef, wanted: Vec<u32>) -> Result<Self> {
        let segment = log.segment_of(frame)?;
        let (entries_at, ids_at, bodies_at) = frame.areas();
        let packed = match &frame.packing {
            None => None,
            Some(_) => {
                let time = |bit| frame.origin(frame.first + u64::from(bit)).time;
                let indexes = frame.indexes_of(wanted.iter().copied());
                let places: Option<Vec<_>> = indexes
                    .map(|(bit, index)| Some((index?, time(bit))))
                    .collect();
                let what = "a record is not in its frame";
                let missing = || Error::corrupt(&segment.path, frame.offset, what);
                Some(places.ok_or_else(missing)?)
            }
        };
        Ok(Self {
            segment,
            packed,
            first: frame.first,
            lsn: frame.lsn,
            time: frame.time,
            count: frame.count,
            offset: frame.offset,
            entries_at,
            ids_at,
            bodies_at,
            ids_len: frame.ids_len,
            bodies_len: frame.bodies_len,
            wanted,
            ahead: None,
            seal: OnceLock::new(),
            defects: log.defects,
        })
    }

    /// The seal of an encrypted frame, of which the header was found to be what the directory says.
    fn seal(&self) -> Result<Option<&Seal>> {
        let Some(keys) = &self.segment.cipher else {
            return Ok(None);
        };
        if let Some(seal) = self.seal.get() {
            return Ok(Some(seal));
        }
        let mut bytes = [0; FRAME_HEADER_LEN];
        self.read(&mut bytes, self.offset)?;
        let header = FrameHeader::decode(&bytes, self.offset, self.segment.header.nonce);
        let known = |header: &FrameHeader| header.lsn == self.lsn && header.first == self.first;
        let header = header.map(|(header, _)| header).filter(known);
        let damaged = || Error::corrupt(&self.segment.path, self.offset, "frame header");
        let header = header.ok_or_else(damaged)?;
        let read = |buf: &mut [u8], at| self.read(buf, at);
        let seal = Seal::open(keys, &self.segment, &header, self.offset, read)?;
        Ok(Some(self.seal.get_or_init(|| Box::new(seal))))
    }

    /// Reads the entries of the wanted records; `table` is memory to read them into.
    pub(crate) fn locate(&self, table: &mut Vec<u8>, located: &mut Vec<Located>) -> Result<()> {
        let mut at = 0;
        while at < self.wanted.len() {
            let start = self.place(at).0;
            let mut end = start;
            let mut after = at + 1;
            while after < self.wanted.len() && self.place(after).0 - end <= ENTRY_GAP_MAX {
                end = self.place(after).0;
                after += 1;
            }
            // The entry before the first tells where the first starts.
            let mut from = start.saturating_sub(1);
            match self.seal()? {
                None => {
                    table.resize((end - from + 1) as usize * ENTRY_LEN, 0);
                    self.read(table, self.entry_at(from))?;
                }
                Some(seal) => from = self.open_entries(seal, from, end, table)?,
            }
            self.locate_run(at..after, from, entry_table(table), located)?;
            at = after;
        }
        Ok(())
    }

    /// Reads encrypted entries with those around them; which record of the frame the table begins
    /// with.
    fn open_entries(&self, seal: &Seal, from: u32, end: u32, table: &mut Vec<u8>) -> Result<u32> {
        let place = seal::around(from, end, self.ids_at - self.entries_at);
        table.resize((place.end - place.start) as usize, 0);
        self.read(table, self.entries_at + place.start)?;
        let read = |buf: &mut [u8], at| self.read(buf, at);
        seal.open_columns(&self.segment, place.start, table, read)?;
        Ok(from / seal::UNIT_ENTRIES * seal::UNIT_ENTRIES)
    }

    /// Which record of the frame the wanted one at `at` is, and its commit time.
    fn place(&self, at: usize) -> (u32, u64) {
        match &self.packed {
            Some(packed) => packed[at],
            None => (self.wanted[at], self.time),
        }
    }

    fn entry_at(&self, index: u32) -> u64 {
        self.entries_at + u64::from(index) * ENTRY_LEN as u64
    }

    /// Locates wanted records whose entries are in a table that begins with the frame's `from`th.
    fn locate_run(
        &self,
        run: Range<usize>,
        from: u32,
        table: &[[u8; ENTRY_LEN]],
        located: &mut Vec<Located>,
    ) -> Result<()> {
        located.reserve(run.len());
        // Which record of the frame comes next, and where its id and its payload start.
        let (mut next, mut id_start, mut body_start) = (0, 0, 0);
        for at in run {
            let (index, time) = self.place(at);
            let entry_at = self.entry_at(index);
            let damaged = || Error::corrupt(&self.segment.path, entry_at, "record entry");
            let raw = |index: u32| table.get((index - from) as usize).ok_or_else(damaged);
            let decode = |raw| Entry::decode(raw).ok_or_else(damaged);
            if index != next {
                let before = decode(raw(index - 1)?)?;
                (id_start, body_start) = (before.id_end, before.body_end);
            }
            let raw = raw(index)?;
            let entry = decode(raw)?;
            let plausible = id_start <= entry.id_end
                && entry.id_end <= self.ids_len
                && body_start <= entry.body_end
                && entry.body_end <= self.bodies_len
                && index < self.count;
            if !plausible {
                return Err(damaged());
            }
            located.push(Located {
                position: self.first + u64::from(self.wanted[at]),
                time,
                entry,
                raw: *raw,
                id_start,
                body_start,
                index,
                entry_at,
                pruned: entry.pruned,
            });
            (next, id_start, body_start) = (index + 1, entry.id_end, entry.body_end);
        }
        Ok(())
    }

    /// Reads ids, and payloads if wanted, of records located in this span into `buffer`.
    pub(crate) fn load(
        &self,
        located: &[Located],
        bodies: Bodies<'_>,
        buffer: &mut Vec<u8>,
        rows: &mut Vec<Row>,
    ) -> Result<()> {
        let (Some(first), Some(last)) = (located.first(), located.last()) else {
            return Ok(());
        };
        // Starts come from entries that are not verified by themselves: of a damaged one, the
        // neighbour's bytes are wrong too, and show here or by their checksums.
        let ascend = located.windows(2).all(|pair| {
            pair[0].entry.id_end <= pair[1].id_start && pair[0].entry.body_end <= pair[1].body_start
        });
        if !ascend {
            return Err(Error::corrupt(
                &self.segment.path,
                first.entry_at,
                "record entry",
            ));
        }
        let ids_start = buffer.len();
        buffer.resize(ids_start + (last.entry.id_end - first.id_start) as usize, 0);
        let ids_at = self.ids_at + u64::from(first.id_start);
        self.read(&mut buffer[ids_start..], ids_at)?;
        let tags = self.open_ids(located, &mut buffer[ids_start..])?;
        // Where all are text, a part of it is text if it starts and ends between characters.
        let ids = &buffer[ids_start..];
        let all = std::str::from_utf8(ids).ok();
        let is_text = |id: Range<usize>| match all {
            Some(all) => all.is_char_boundary(id.start) && all.is_char_boundary(id.end),
            None => std::str::from_utf8(&ids[id]).is_ok(),
        };
        let first_row = rows.len();
        rows.reserve(located.len());
        let summed = located.iter().map(|record| {
            let place = &ids[record.ids_in(first)];
            Entry::summed(&record.raw, record.position, place)
        });
        for (record, sum) in located.iter().zip(checksums(summed)) {
            let Range { start, end } = record.ids_in(first);
            let place = &ids[start..end];
            let id_len = match record.entry.reborn {
                true => Lives::id_len(place),
                false => Some(place.len()),
            };
            let id_len = id_len.filter(|len| is_text(start..start + len));
            let Some(id_len) = id_len.filter(|_| Entry::sum(&record.raw) == sum) else {
                let path = &self.segment.path;
                return Err(Error::corrupt(path, record.entry_at, "record entry or id"));
            };
            let start = ids_start + start;
            let end = start + id_len;
            let behind = Lives::behind(&record.entry, place).len();
            rows.push(Row {
                id: start..end,
                lives: end..end + behind,
                body: 0..0,
            });
        }
        let rows = &mut rows[first_row..];
        match bodies {
            Bodies::Skipped => Ok(()),
            Bodies::Stored => self.load_bodies(located, &tags, None, buffer, rows),
            Bodies::Plain(codec) => self.load_bodies(located, &tags, Some(codec), buffer, rows),
        }
    }

    /// Opens the ids of located records of an encrypted frame, of which `ids` begins with the first.
    /// The tags, with which payloads are opened too; nothing in a plain frame.
    fn open_ids(&self, located: &[Located], ids: &mut [u8]) -> Result<Option<RecordTags>> {
        let (Some(seal), [first, ..]) = (self.seal()?, located) else {
            return Ok(None);
        };
        let last = located.last().unwrap_or(first);
        let tags = seal.tags(first.index..last.index + 1, |buf, at| self.read(buf, at))?;
        for record in located {
            let id = &mut ids[record.ids_in(first)];
            if !seal.open_id(&tags, record.index, id) {
                let offset = self.ids_at + u64::from(record.id_start);
                return Err(Error::corrupt(&self.segment.path, offset, "record id"));
            }
        }
        Ok(Some(tags))
    }

    /// Opens the payloads of a run of records of an encrypted frame, of which `stored` begins with
    /// the first.
    fn open_bodies(
        &self,
        run: &[Located],
        tags: &Option<RecordTags>,
        stored: &mut [u8],
    ) -> Result<()> {
        let (Some(seal), Some(tags), [first, ..]) = (self.seal()?, tags, run) else {
            return Ok(());
        };
        for record in run.iter().filter(|record| !record.pruned) {
            let body = &mut stored[record.body_in(first)];
            if !seal.open_payload(tags, record.index, body) {
                let offset = self.bodies_at + u64::from(record.body_start);
                return Err(Error::corrupt(&self.segment.path, offset, "payload"));
            }
        }
        Ok(())
    }

    /// With a codec, payloads are decompressed.
    fn load_bodies(
        &self,
        located: &[Located],
        tags: &Option<RecordTags>,
        codec: Option<&Codec>,
        buffer: &mut Vec<u8>,
        rows: &mut [Row],
    ) -> Result<()> {
        let mut at = 0;
        while at < located.len() {
            let near = located[at..].windows(2).take_while(|pair| {
                u64::from(pair[1].body_start - pair[0].entry.body_end) <= BODY_GAP_MAX
            });
            let end = at + near.count() + 1;
            let run = &located[at..end];
            let from = run[0].body_start;
            let to = run[run.len() - 1].entry.body_end;
            let is_compressed = |record: &Located| record.entry.plain_len != 0 && !record.pruned;
            if let Some(codec) = codec.filter(|_| run.iter().any(is_compressed)) {
                self.decode_bodies((run, tags), to, codec, buffer, &mut rows[at..end])?;
                at = end;
                continue;
            }
            let start = buffer.len();
            buffer.resize(start + (to - from) as usize, 0);
            self.read(&mut buffer[start..], self.bodies_at + u64::from(from))?;
            self.open_bodies(run, tags, &mut buffer[start..])?;
            self.check_bodies(run, &buffer[start..])?;
            for (record, row) in run.iter().zip(&mut rows[at..end]) {
                if !record.pruned {
                    let place = record.body_in(&run[0]);
                    row.body = start + place.start..start + place.end;
                }
            }
            at = end;
        }
        Ok(())
    }

    /// Reads the payloads of a run of records, which ends at `to`, and decompresses those that are
    /// compressed.
    fn decode_bodies(
        &self,
        (run, tags): (&[Located], &Option<RecordTags>),
        to: u32,
        codec: &Codec,
        buffer: &mut Vec<u8>,
        rows: &mut [Row],
    ) -> Result<()> {
        let from = run[0].body_start;
        let mut stored = vec![0; (to - from) as usize];
        self.read(&mut stored, self.bodies_at + u64::from(from))?;
        self.open_bodies(run, tags, &mut stored)?;
        self.check_bodies(run, &stored)?;
        for (record, row) in run.iter().zip(rows).filter(|(record, _)| !record.pruned) {
            let body = &stored[record.body_in(&run[0])];
            let start = buffer.len();
            match record.entry.plain_len {
                0 => buffer.extend_from_slice(body),
                len => codec.decode(body, len, buffer).map_err(|undecodable| {
                    let offset = self.bodies_at + u64::from(record.body_start);
                    undecodable.at(&self.segment.path, offset)
                })?,
            }
            row.body = start..buffer.len();
        }
        Ok(())
    }

    /// Verifies the payloads of a run of records, of which `stored` begins with the first.
    fn check_bodies(&self, run: &[Located], stored: &[u8]) -> Result<()> {
        let Some(first) = run.first() else {
            return Ok(());
        };
        let present = || run.iter().filter(|record| !record.pruned);
        let summed = |record: &Located| Entry::summed_payload(&stored[record.body_in(first)]);
        let mut sums = present().zip(checksums(present().map(summed)));
        let damaged = sums.find(|(record, sum)| record.entry.body_sum != *sum);
        match damaged.filter(|_| !self.defects.has(Defect::TrustPayloads)) {
            None => Ok(()),
            Some((record, _)) => {
                let offset = self.bodies_at + u64::from(record.body_start);
                Err(Error::corrupt(&self.segment.path, offset, "payload"))
            }
        }
    }

    /// Reads from the span's segment.
    pub(crate) fn read(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let ahead = self.ahead.as_ref();
        match ahead.and_then(|ahead| ahead.get(offset, buf.len())) {
            Some(bytes) => buf.copy_from_slice(bytes),
            None => self.segment.read(buf, offset)?,
        }
        Ok(())
    }

    /// Where the frame's records are in its segment, from the first entry to the last payload, or
    /// with what it takes to decrypt them.
    pub(crate) fn content(&self) -> Range<u64> {
        let end = self.bodies_at + u64::from(self.bodies_len);
        match self.segment.cipher {
            None => self.entries_at..end,
            Some(_) => {
                let columns_len = self.ids_at - self.entries_at;
                self.offset..end + seal::len_of_records(columns_len, self.count)
            }
        }
    }

    /// Whether another span is of the same segment.
    pub(crate) fn is_beside(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.segment, &other.segment)
    }

    pub(crate) fn is_mostly_wanted(&self) -> bool {
        self.wanted.len() * 2 >= self.count as usize
    }

    /// The path of the span's segment, for errors.
    pub(crate) fn path(&self) -> &std::path::Path {
        &self.segment.path
    }
}
