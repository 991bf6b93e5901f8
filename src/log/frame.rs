//! Building frames: classified records in, the bytes of a frame out.

use std::sync::Arc;

use crate::checksum::checksum;
use crate::primitives::Mutex;

use crate::catalog::FeedRow;
use crate::codec::Encoder;
use crate::cursor::FeedId;
use crate::encryption::{Cipher, SALT_LEN, StoreKeys, TAG_LEN, Tag};
use crate::feed::frame_ref::{FrameRef, Origin, Packing, set};
use crate::feed::marks::Mark;
use crate::feed::state::FeedState;
use crate::log::format::{
    Author, ENTRY_LEN, Entry, FRAME_ALIGN, FRAME_HEADER_LEN, FrameHeader, FrameKind, entry_table,
    sum_records,
};
use crate::log::{Lsn, SegmentId, seal};
use crate::publish::Place;

/// A frame takes no further record once its payloads have this many bytes.
const FRAME_BODIES_SOFT_MAX: usize = 4 << 20;
/// Nor once its ids have this many: an entry has three bytes for where its id ends.
const FRAME_IDS_SOFT_MAX: usize = 8 << 20;
/// And never more records than this.
pub(crate) const FRAME_RECORDS_MAX: usize = 1 << 16;

/// A packed frame takes no further record once it has this many: they are found by counting bits.
const PACKED_RECORDS_MAX: usize = 4096;
/// Nor when it comes to a position this far from its first one, ...
const SPAN_MIN: u64 = 4096;
/// ... unless it has a record for every so many positions: each costs two bits of memory.
const SPAN_PER_RECORD: u64 = 64;
/// The widest a frame gets, in positions.
pub(crate) const SPAN_MAX: u32 = 1 << 19;
const _: () = assert!(SPAN_MAX as u64 > SPAN_MIN + PACKED_RECORDS_MAX as u64 * SPAN_PER_RECORD);
const _: () = assert!(SPAN_MAX as usize > FRAME_RECORDS_MAX);

/// A frame that is ready to be written, apart from the place-dependent fields of its header.
pub(crate) struct Frame {
    pub(crate) header: FrameHeader,
    content: FrameBuffers,
}

/// The memory of a frame's content. It is used again for later frames: memory fresh from the
/// system costs a page fault every 4 KiB.
#[derive(Default)]
pub(crate) struct FrameBuffers {
    entries: Vec<u8>,
    ids: Vec<u8>,
    bodies: Vec<u8>,
    /// Of an encrypted frame, its salt and its tags.
    seal: Vec<u8>,
}

/// A frame's header at its place, and of an encrypted frame the tag that vouches for it.
pub(crate) struct Head {
    bytes: [u8; FRAME_HEADER_LEN],
    tag: Option<Tag>,
}

impl Head {
    /// The header at `offset` of a segment under `cipher`; `seal` begins with the frame's salt.
    pub(crate) fn new(header: &FrameHeader, offset: u64, seal: &[u8], cipher: &Cipher) -> Self {
        let bytes = header.encode(offset);
        let salt = || seal.first_chunk::<SALT_LEN>().copied().unwrap_or_default();
        let tag = |keys: &Arc<StoreKeys>| keys.header_tag(&bytes, offset, &salt());
        let tag = cipher.as_ref().map(tag);
        Self { bytes, tag }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The header's checksum, which the next frame chains to.
    pub(crate) fn sum(&self) -> u32 {
        let sum = self.bytes.last_chunk();
        sum.map_or(0, |sum| u32::from_le_bytes(*sum))
    }

    /// What stands before the salt of an encrypted frame; nothing in a plain one.
    pub(crate) fn tag(&self) -> &[u8] {
        self.tag.as_ref().map_or(&[], <[u8; TAG_LEN]>::as_slice)
    }
}

/// Buffers of frames that were written, kept for the next ones.
#[derive(Default)]
pub(crate) struct FramePool(Mutex<Vec<FrameBuffers>>);

/// A frame's ids rarely have more bytes; if they do, the buffer grows.
const FRAME_IDS_RESERVE: usize = 1 << 20;

/// How many buffers are kept, and up to which size.
const POOL_BUFFERS_MAX: usize = 8;
const POOL_BYTES_MAX: usize = 1 << 20;

impl FramePool {
    pub(crate) fn take(&self) -> FrameBuffers {
        self.0.lock().pop().unwrap_or_default()
    }

    pub(crate) fn put_back(&self, frame: Frame) {
        let mut buffers = frame.content;
        let mut pool = self.0.lock();
        if pool.len() < POOL_BUFFERS_MAX && buffers.bodies.capacity() <= POOL_BYTES_MAX {
            buffers.entries.clear();
            buffers.ids.clear();
            buffers.bodies.clear();
            buffers.seal.clear();
            pool.push(buffers);
        }
    }
}

impl Frame {
    /// A frame of records of one feed, the first at position `first`.
    pub(crate) fn records(
        feed: FeedId,
        epoch: u32,
        author: Author,
        first: u64,
        time: u64,
        content: FrameBuffers,
    ) -> Self {
        let mut header = FrameHeader::new(FrameKind::Records);
        header.feed = feed;
        header.epoch = epoch;
        header.author = author;
        header.first = first;
        header.time = time;
        Self { header, content }
    }

    /// A frame of `count` encoded state operations.
    pub(crate) fn state(count: u32, operations: Vec<u8>) -> Self {
        let mut header = FrameHeader::new(FrameKind::State);
        header.count = count;
        let content = FrameBuffers {
            bodies: operations,
            ..FrameBuffers::default()
        };
        Self { header, content }
    }

    /// A frame of marks of one feed.
    pub(crate) fn marks(feed: &FeedState, author: Author, marks: &[Mark]) -> Self {
        let mut header = FrameHeader::new(FrameKind::Marks);
        header.feed = feed.id;
        header.epoch = feed.epoch;
        header.author = author;
        header.count = marks.len() as u32;
        let content = FrameBuffers {
            bodies: Mark::encode_all(marks),
            ..FrameBuffers::default()
        };
        Self { header, content }
    }

    /// A feed as a whole: its counts are in the header, `first` being its newest position.
    pub(crate) fn feed(row: &FeedRow, frames: &[FrameRef], marks: &[u8]) -> Self {
        let bytes = Encoder::default()
            .bytes(marks)
            .bytes(&FrameRef::encode_all(frames));
        let mut frame = Self::of_pack(FrameKind::Feed, bytes.finish());
        frame.header.feed = FeedId(row.feed);
        frame.header.epoch = row.epoch;
        frame.header.lsn = Lsn(row.lsn);
        frame.header.first = row.tail;
        frame.header.time = row.time;
        frame.header.generation = row.generation;
        frame.header.live = row.live;
        frame.header.live_bytes = row.live_bytes;
        frame
    }

    /// A frame of a pack that holds `bytes`.
    pub(crate) fn of_pack(kind: FrameKind, bytes: Vec<u8>) -> Self {
        let content = FrameBuffers {
            bodies: bytes,
            ..FrameBuffers::default()
        };
        Self {
            header: FrameHeader::new(kind),
            content,
        }
    }

    /// The frame of a clean close.
    pub(crate) fn close() -> Self {
        let header = FrameHeader::new(FrameKind::Close);
        Self {
            header,
            content: FrameBuffers::default(),
        }
    }

    /// Makes room for records of about this size, so that the batch is copied once.
    pub(crate) fn reserve(&mut self, records: usize, id_bytes: usize, body_bytes: usize) {
        self.content
            .entries
            .reserve(records.min(FRAME_RECORDS_MAX) * ENTRY_LEN);
        self.content.ids.reserve(id_bytes.min(FRAME_IDS_RESERVE));
        // Padding is appended later.
        self.content
            .bodies
            .reserve(body_bytes.min(FRAME_BODIES_SOFT_MAX) + FRAME_ALIGN);
    }

    /// Whether the frame should take no more records.
    pub(crate) fn is_full(&self) -> bool {
        self.content.bodies.len() >= FRAME_BODIES_SOFT_MAX
            || self.content.ids.len() >= FRAME_IDS_SOFT_MAX
            || self.count() >= FRAME_RECORDS_MAX
    }

    pub(crate) fn count(&self) -> usize {
        self.content.entries.len() / ENTRY_LEN
    }

    /// Appends a record; `entry`'s end offsets are filled in here, checksums when all records are
    /// there. `lives` is what stands behind the id of a reborn record, `body` its payload as it is to
    /// be stored.
    // As for `Entry::decode`.
    #[inline(always)]
    pub(crate) fn push(&mut self, mut entry: Entry, id: &[u8], lives: &[u8], body: &[u8]) {
        self.content.ids.extend_from_slice(id);
        self.content.ids.extend_from_slice(lives);
        self.content.bodies.extend_from_slice(body);
        // Lossless: `is_full` keeps the bodies below 4 MiB plus one payload, ids below 9 MiB.
        entry.id_end = self.content.ids.len() as u32;
        entry.body_end = self.content.bodies.len() as u32;
        self.content.entries.extend_from_slice(&entry.encode());
    }

    /// The entry, what is in the id's place and the payload at `position`, while the frame has not
    /// left this process's memory.
    pub(crate) fn record_at(&self, position: u64) -> Option<(Entry, &[u8], &[u8])> {
        let index = usize::try_from(position.checked_sub(self.header.first)?).ok()?;
        let table = entry_table(&self.content.entries);
        let entry = Entry::decode(table.get(index)?)?;
        let (id_start, body_start) = match index.checked_sub(1).and_then(|at| table.get(at)) {
            Some(before) => Entry::decode(before).map(|before| (before.id_end, before.body_end))?,
            None => (0, 0),
        };
        let id = id_start as usize..entry.id_end as usize;
        let body = body_start as usize..entry.body_end as usize;
        Some((
            entry,
            self.content.ids.get(id)?,
            self.content.bodies.get(body)?,
        ))
    }

    /// Fills in lengths and checksums, and encrypts with a cipher; called once, after the last
    /// record.
    pub(crate) fn seal(&mut self, cipher: &Cipher) {
        if self.header.kind == FrameKind::Records {
            self.header.count = self.count() as u32;
            let first = self.header.first;
            self.sum_records(|index| first + index as u64);
        }
        if let Some(keys) = cipher {
            self.encrypt(keys);
        }
        if self.header.kind.has_records() {
            self.header.content_sum = checksum(0, &[&self.content.entries]);
        } else {
            self.header.content_sum = checksum(0, &[&self.content.bodies]);
        }
        self.header.ids_len = self.content.ids.len() as u32;
        self.header.bodies_len = self.content.bodies.len() as u32;
        let padding = (self.header.frame_len() - self.header.used_len()) as usize;
        let last = match cipher {
            Some(_) => &mut self.content.seal,
            None => &mut self.content.bodies,
        };
        last.resize(last.len() + padding, 0);
    }

    fn sum_records(&mut self, position: impl Fn(usize) -> u64) {
        let FrameBuffers {
            entries,
            ids,
            bodies,
            ..
        } = &mut self.content;
        sum_records(entries.as_chunks_mut().0, ids, bodies, position);
    }

    fn encrypt(&mut self, keys: &StoreKeys) {
        self.header.sealed = true;
        let records = self.header.count as usize * ENTRY_LEN;
        let FrameBuffers {
            entries,
            ids,
            bodies,
            seal,
        } = &mut self.content;
        match self.header.kind.has_records() {
            true => seal::seal_records(keys, records, entries, ids, bodies, seal),
            false => seal::seal_content(keys, bodies, seal),
        }
    }

    /// The frame's header at its place.
    pub(crate) fn head(&self, header: &FrameHeader, offset: u64, cipher: &Cipher) -> Head {
        Head::new(header, offset, &self.content.seal, cipher)
    }

    /// The frame's bytes with this head, in file order.
    pub(crate) fn bytes<'a>(&'a self, head: &'a Head) -> [&'a [u8]; 6] {
        [
            head.bytes(),
            &self.content.entries,
            &self.content.ids,
            &self.content.bodies,
            head.tag(),
            &self.content.seal,
        ]
    }
}

/// A frame under construction of what compaction keeps of several.
pub(crate) struct PackedFrame {
    frame: Frame,
    positions: Vec<u64>,
    origins: Vec<Origin>,
    holders: u32,
}

impl PackedFrame {
    /// An empty frame whose first record is going to be at `first`.
    pub(crate) fn new(feed: FeedId, epoch: u32, first: u64, content: FrameBuffers) -> Self {
        let author = Author::default();
        let mut frame = Frame::records(feed, epoch, author, first, 0, content);
        frame.header.kind = FrameKind::Packed;
        Self {
            frame,
            positions: Vec::new(),
            origins: Vec::new(),
            holders: 0,
        }
    }

    /// Whether the record at `position` belongs into another frame.
    pub(crate) fn is_full_for(&self, position: u64) -> bool {
        let count = self.positions.len();
        let span = position - self.frame.header.first;
        self.frame.is_full()
            || count >= PACKED_RECORDS_MAX
            || span > SPAN_MIN + SPAN_PER_RECORD * count as u64
    }

    /// Appends a record of a commit; `ids` is what stands in its id's place. Positions ascend.
    pub(crate) fn push(
        &mut self,
        position: u64,
        (lsn, origin): (Lsn, Origin),
        entry: Entry,
        ids: &[u8],
        body: &[u8],
    ) {
        self.frame.push(entry, ids, &[], body);
        self.positions.push(position);
        self.frame.header.lsn = self.frame.header.lsn.max(lsn);
        if self.origins.last() != Some(&origin) {
            self.origins.push(origin);
        }
    }

    /// Notes that the last record is not live, but holds the payload of a deleted one.
    pub(crate) fn note_holder(&mut self) {
        self.holders += 1;
    }

    /// The frame to write, and what a directory is going to say of it once it has its place. None
    /// of its records counts as live yet.
    pub(crate) fn finish(mut self, cipher: &Cipher) -> (Frame, FrameRef) {
        let header = &mut self.frame.header;
        let newest = self.origins.last();
        (header.time, header.author) =
            newest.map_or_else(Default::default, |newest| (newest.time, newest.author));
        header.count = self.positions.len() as u32;
        // A frame has fewer records than that.
        header.origins = self.origins.len() as u16;
        self.frame.sum_records(|index| self.positions[index]);
        let columns = &mut self.frame.content.entries;
        let mut packing = Encoder::default();
        packing = self.positions.iter().fold(packing, |to, at| to.u64(*at));
        packing = self
            .origins
            .iter()
            .fold(packing, |to, origin| origin.encode(to));
        columns.extend_from_slice(&packing.finish());
        self.frame.seal(cipher);
        let header = &self.frame.header;
        let nowhere = Place {
            segment: SegmentId::default(),
            offset: 0,
        };
        let mut known = FrameRef::new(header, nowhere);
        let bit = |position: &u64| (position - header.first) as u32;
        known.span = self.positions.last().map_or(0, bit) + 1;
        let mut present = vec![0; known.span.div_ceil(64) as usize];
        for bit in self.positions.iter().map(bit) {
            set(&mut present, bit);
        }
        known.live = vec![0; present.len()].into();
        known.live_count = 0;
        known.packing = Some(Box::new(Packing {
            present: present.into(),
            origins: self.origins.into(),
            holders: self.holders,
        }));
        (self.frame, known)
    }
}
