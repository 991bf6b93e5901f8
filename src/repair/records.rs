//! The records of one frame, each for itself: what is intact of a frame that may not be.

use std::sync::Arc;

use crate::feed::frame_ref::FrameRef;
use crate::feed::lives::Lives;
use crate::log::format::{ENTRY_LEN, Entry, entry_table};
use crate::log::segment::Segment;
use crate::repair::files::read_what_is_there;

/// The bytes of a frame of records.
pub(crate) struct FrameBytes<'a> {
    frame: &'a FrameRef,
    table: Vec<u8>,
    ids: Vec<u8>,
    bodies: Vec<u8>,
}

/// A record whose entry and id are intact.
pub(crate) struct Found<'a> {
    pub(crate) entry: Entry,
    /// The id, and what stands behind it.
    pub(crate) ids: &'a [u8],
    /// The payload as it is stored; `None` when it is damaged.
    pub(crate) body: Option<&'a [u8]>,
}

impl<'a> FrameBytes<'a> {
    pub(crate) fn read(frame: &'a FrameRef, segment: &Arc<Segment>) -> Self {
        let (entries_at, ids_at, bodies_at) = frame.areas();
        let read = |len: usize, offset: u64| {
            let mut bytes = vec![0; len];
            read_what_is_there(segment.file.as_ref(), &mut bytes, offset);
            bytes
        };
        Self {
            frame,
            table: read(frame.count as usize * ENTRY_LEN, entries_at),
            ids: read(frame.ids_len as usize, ids_at),
            bodies: read(frame.bodies_len as usize, bodies_at),
        }
    }

    /// The record at the frame's first position and `bit`; `None` when it is not there, or its entry
    /// or id is damaged, or the entry before it, which says where it begins.
    pub(crate) fn record(&self, bit: u32) -> Option<Found<'_>> {
        let index = self.frame.index_of(bit)? as usize;
        let table = entry_table(&self.table);
        let raw = table.get(index)?;
        let entry = Entry::decode(raw)?;
        let (id_start, body_start) = match index.checked_sub(1).and_then(|at| table.get(at)) {
            Some(before) => Entry::decode(before).map(|before| (before.id_end, before.body_end))?,
            None => (0, 0),
        };
        let ids = self.ids.get(id_start as usize..entry.id_end as usize)?;
        let position = self.frame.first + u64::from(bit);
        if !Entry::is_intact(raw, position, ids) {
            return None;
        }
        let body = self
            .bodies
            .get(body_start as usize..entry.body_end as usize);
        Some(Found {
            entry,
            ids,
            body: body.filter(|body| Entry::sum_of(body) == entry.body_sum),
        })
    }
}

impl Found<'_> {
    /// The id, for people.
    pub(crate) fn id(&self) -> String {
        let len = match self.entry.reborn {
            true => Lives::id_len(self.ids),
            false => Some(self.ids.len()),
        };
        let id = len.and_then(|len| self.ids.get(..len)).unwrap_or_default();
        String::from_utf8_lossy(id).into_owned()
    }
}

/// The entry and the stored payload of one record, if everything of it is intact.
pub(crate) fn body_of(
    frame: &FrameRef,
    segment: &Arc<Segment>,
    bit: u32,
) -> Option<(Entry, Vec<u8>)> {
    let index = frame.index_of(bit)?;
    let (entries_at, ids_at, bodies_at) = frame.areas();
    let read = |from: u32, to: u32, at: u64| {
        let mut bytes = vec![0; to.checked_sub(from)? as usize];
        read_what_is_there(segment.file.as_ref(), &mut bytes, at + u64::from(from));
        Some(bytes)
    };
    let entry_len = ENTRY_LEN as u32;
    let from = index.saturating_sub(1) * entry_len;
    let table = read(from, (index + 1) * entry_len, entries_at)?;
    let table = entry_table(&table);
    let raw = table.last()?;
    let entry = Entry::decode(raw)?;
    let (id_start, body_start) = match index {
        0 => (0, 0),
        _ => Entry::decode(table.first()?).map(|before| (before.id_end, before.body_end))?,
    };
    if entry.id_end > frame.ids_len || entry.body_end > frame.bodies_len {
        return None;
    }
    let ids = read(id_start, entry.id_end, ids_at)?;
    let body = read(body_start, entry.body_end, bodies_at)?;
    let position = frame.first + u64::from(bit);
    let intact = Entry::is_intact(raw, position, &ids) && Entry::sum_of(&body) == entry.body_sum;
    intact.then_some((entry, body))
}
