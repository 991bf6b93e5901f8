//! The seal of an encrypted frame: the tags that stand behind its payloads, and how they are used.
//!
//! What is encrypted is as long as before, so that everything is where it is in a plain frame. It is
//! encrypted in pieces, so that whoever wants one record opens no more than that.
//!
//! | bytes | what |
//! |---|---|
//! | 16 | tag of the frame's header, its place and its salt |
//! | 24 | salt of the frame's key |
//! | 16 each | tags of the columns, 1792 bytes of them each: 32 entries |
//! | 16, 16 each | tags of each record's id and payload; of a payload without bytes, zeros |
//!
//! Of a frame without records, one tag of its content stands behind the salt.

use std::ops::Range;

use crate::encryption::{FrameKey, Piece, SALT_LEN, Salt, StoreKeys, TAG_LEN};
use crate::error::{Error, Result};
use crate::log::format::{ENTRY_LEN, Entry, FRAME_HEADER_LEN, FrameHeader, entry_table};
use crate::log::segment::Segment;

/// How many entries are opened together.
pub(crate) const UNIT_ENTRIES: u32 = 32;
const UNIT: usize = UNIT_ENTRIES as usize * ENTRY_LEN;
/// Bytes of the header's tag and the salt.
const HEAD: usize = TAG_LEN + SALT_LEN;
/// Bytes of the tags of a record.
const RECORD_TAGS: usize = 2 * TAG_LEN;
/// About how many bytes encryption adds to each record.
pub(crate) const PER_RECORD: u64 = (RECORD_TAGS + TAG_LEN / UNIT_ENTRIES as usize) as u64;

/// Length of a frame's seal, in bytes; 0 when it has none.
pub(crate) fn len(header: &FrameHeader) -> u64 {
    if !header.sealed {
        return 0;
    }
    match header.kind.has_records() {
        true => len_of_records(header.columns_len(), header.count),
        false => (HEAD + TAG_LEN) as u64,
    }
}

/// Length of the seal of an encrypted frame of records.
pub(crate) fn len_of_records(columns_len: u64, count: u32) -> u64 {
    let tags = units(columns_len) + 2 * u64::from(count);
    HEAD as u64 + tags * TAG_LEN as u64
}

fn units(columns_len: u64) -> u64 {
    columns_len.div_ceil(UNIT as u64)
}

/// The bytes of columns that are opened together with some entries, from the first to the last
/// included.
pub(crate) fn around(first: u32, last: u32, columns_len: u64) -> Range<u64> {
    let unit = |index: u32| u64::from(index / UNIT_ENTRIES) * UNIT as u64;
    unit(first)..(unit(last) + UNIT as u64).min(columns_len)
}

/// Encrypts what a frame of records holds, in place, and appends its salt and its tags to `seal`.
pub(crate) fn seal_records(
    keys: &StoreKeys,
    entries_len: usize,
    columns: &mut [u8],
    ids: &mut [u8],
    payloads: &mut [u8],
    seal: &mut Vec<u8>,
) {
    let salt = keys.draw();
    let key = keys.frame(&salt);
    seal.extend_from_slice(&salt);
    let tags_at = seal.len() + units(columns.len() as u64) as usize * TAG_LEN;
    let count = entries_len / ENTRY_LEN;
    seal.resize(tags_at + count * RECORD_TAGS, 0);
    let (unit_tags, record_tags) = seal[SALT_LEN..].split_at_mut(tags_at - SALT_LEN);
    let (mut id_start, mut payload_start) = (0, 0);
    let tags = record_tags.as_chunks_mut::<RECORD_TAGS>().0;
    for (number, (raw, tags)) in (0..).zip(entry_table(&columns[..entries_len]).iter().zip(tags)) {
        let (id_end, payload_end) = Entry::ends(raw);
        let id = &mut ids[id_start..id_end as usize];
        tags[..TAG_LEN].copy_from_slice(&key.seal(Piece::Id, number, id));
        let payload = &mut payloads[payload_start..payload_end as usize];
        if !payload.is_empty() {
            tags[TAG_LEN..].copy_from_slice(&key.seal(Piece::Payload, number, payload));
        }
        (id_start, payload_start) = (id_end as usize, payload_end as usize);
    }
    let tags = unit_tags.as_chunks_mut::<TAG_LEN>().0;
    for (number, (unit, tag)) in (0..).zip(columns.chunks_mut(UNIT).zip(tags)) {
        *tag = key.seal(Piece::Columns, number, unit);
    }
}

/// The same of a frame without records.
pub(crate) fn seal_content(keys: &StoreKeys, content: &mut [u8], seal: &mut Vec<u8>) {
    let salt = keys.draw();
    seal.extend_from_slice(&salt);
    seal.extend_from_slice(&keys.frame(&salt).seal(Piece::Content, 0, content));
}

/// A sealed frame whose header was found to be what was written there.
pub(crate) struct Seal {
    key: FrameKey,
    /// Where the frame's content and its seal are in the segment.
    content_at: u64,
    at: u64,
    units: u64,
}

impl Seal {
    /// Reads and checks the head of a frame's seal; `read` reads from the segment.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when the header is not what was sealed.
    pub(crate) fn open(
        keys: &StoreKeys,
        segment: &Segment,
        header: &FrameHeader,
        offset: u64,
        read: impl Fn(&mut [u8], u64) -> Result<()>,
    ) -> Result<Self> {
        let damaged = || Error::corrupt(&segment.path, offset, "frame header");
        let at = offset + FRAME_HEADER_LEN as u64 + header.content_len();
        let mut head = [0; HEAD];
        read(&mut head, at)?;
        let (tag, salt) = head.split_first_chunk::<TAG_LEN>().ok_or_else(damaged)?;
        let salt: &Salt = salt.try_into().map_err(|_| damaged())?;
        if !header.sealed || !keys.vouches(tag, &header.encode(offset), offset, salt) {
            return Err(damaged());
        }
        Ok(Self {
            key: keys.frame(salt),
            content_at: offset + FRAME_HEADER_LEN as u64,
            at,
            units: units(header.columns_len()),
        })
    }

    /// Opens columns that begin `from` bytes after the first, at the beginning of a unit.
    pub(crate) fn open_columns(
        &self,
        segment: &Segment,
        from: u64,
        columns: &mut [u8],
        read: impl Fn(&mut [u8], u64) -> Result<()>,
    ) -> Result<()> {
        let first = from / UNIT as u64;
        let mut tags = vec![0; columns.len().div_ceil(UNIT) * TAG_LEN];
        read(&mut tags, self.at + HEAD as u64 + first * TAG_LEN as u64)?;
        let units = columns.chunks_mut(UNIT).zip(tags.as_chunks::<TAG_LEN>().0);
        for (number, (unit, tag)) in (first..).zip(units) {
            if !self.key.open(Piece::Columns, number as u32, unit, tag) {
                let at = self.content_at + number * UNIT as u64;
                return Err(Error::corrupt(&segment.path, at, "frame entries"));
            }
        }
        Ok(())
    }

    /// Opens the content of a frame without records.
    pub(crate) fn open_content(
        &self,
        segment: &Segment,
        content: &mut [u8],
        read: impl Fn(&mut [u8], u64) -> Result<()>,
    ) -> Result<()> {
        let mut tag = [0; TAG_LEN];
        read(&mut tag, self.at + HEAD as u64)?;
        match self.key.open(Piece::Content, 0, content, &tag) {
            true => Ok(()),
            false => Err(Error::corrupt(
                &segment.path,
                self.content_at,
                "frame content",
            )),
        }
    }

    /// Reads the tags of some records of the frame.
    pub(crate) fn tags(
        &self,
        records: Range<u32>,
        read: impl Fn(&mut [u8], u64) -> Result<()>,
    ) -> Result<RecordTags> {
        let mut tags = vec![0; records.len() * RECORD_TAGS];
        let before = self.units * TAG_LEN as u64 + u64::from(records.start) * RECORD_TAGS as u64;
        read(&mut tags, self.at + HEAD as u64 + before)?;
        Ok(RecordTags {
            first: records.start,
            tags,
        })
    }

    /// Opens the id of a record; false when it is not what was sealed.
    pub(crate) fn open_id(&self, tags: &RecordTags, record: u32, id: &mut [u8]) -> bool {
        let tag = tags.of(record).and_then(<[u8]>::first_chunk::<TAG_LEN>);
        tag.is_some_and(|tag| self.key.open(Piece::Id, record, id, tag))
    }

    /// Opens the payload of a record; false when it is not what was sealed.
    pub(crate) fn open_payload(&self, tags: &RecordTags, record: u32, payload: &mut [u8]) -> bool {
        let Some(tag) = tags.of(record).and_then(<[u8]>::last_chunk::<TAG_LEN>) else {
            return false;
        };
        match payload.is_empty() {
            true => *tag == [0; TAG_LEN],
            false => self.key.open(Piece::Payload, record, payload, tag),
        }
    }
}

/// Tags of neighbouring records.
pub(crate) struct RecordTags {
    first: u32,
    tags: Vec<u8>,
}

impl RecordTags {
    fn of(&self, record: u32) -> Option<&[u8]> {
        let at = record.checked_sub(self.first)? as usize * RECORD_TAGS;
        self.tags.get(at..at + RECORD_TAGS)
    }
}
