//! What a damaged store still says of itself: its catalog, the descriptions in its packs, and the
//! log, with the places where something is missing from it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use crate::catalog::{Catalog, Contents};
use crate::cursor::StreamId;
use crate::encryption::Cipher;
use crate::error::{Error, Result};
use crate::feed::published::Published;
use crate::log::format::FrameKind;
use crate::log::manifest::Manifest;
use crate::log::scan::{Scanned, content_is_intact};
use crate::log::segment::Segment;
use crate::log::{Lsn, SegmentId};
use crate::recovery::packs;
use crate::repair::files::{Files, frames_in};
use crate::repair::gaps::{Gap, gaps_in};
use crate::state::{Registration, StateKey, StateOp};
use crate::storage::Storage;

/// See the module.
pub(crate) struct Source {
    pub(crate) files: Files,
    pub(crate) state: BTreeMap<StateKey, Vec<u8>>,
    /// Frames of records and marks in the log, by stream, in the order of the log.
    pub(crate) frames: BTreeMap<StreamId, Vec<Scanned>>,
    /// Where frames are missing from the log.
    pub(crate) gaps: Vec<Gap>,
    /// Whether nothing says that the log ends where it does.
    pub(crate) ends_anywhere: bool,
    /// Whether all descriptions of feeds are there that packs ever had.
    has_descriptions: bool,
    /// Whether some of the state may be lost.
    pub(crate) lost_state: bool,
    /// The newest frame that anything in the store tells of, and the greatest generation.
    pub(crate) newest: Lsn,
    pub(crate) generation: u64,
    /// The newest description of each stream in a pack.
    described: BTreeMap<StreamId, Scanned>,
    catalog: Option<Catalog>,
    rows: BTreeMap<StreamId, crate::catalog::FeedRow>,
    /// What the catalog holds up to.
    covered: Lsn,
}

/// A stream as something describes it, and up to where that holds.
pub(crate) struct Described {
    pub(crate) published: Published,
    pub(crate) through: Lsn,
    /// The newest position that anything tells of.
    pub(crate) tail: u64,
    /// Whether there was no newer description, which is lost.
    pub(crate) is_certain: bool,
}

impl Source {
    /// Reads the `files` of the log in `dir`. `copied` is a directory with a copy of the catalog, which is opened
    /// there: opening it may change it.
    pub(crate) fn read(
        storage: &Arc<dyn Storage>,
        files: Files,
        dir: &Path,
        copied: &Path,
        damage: &mut Vec<Error>,
    ) -> Result<Self> {
        // It may be under any key that was in use before.
        let known = files.by_id.values().rev().map(|file| file.cipher.clone());
        let ciphers: Vec<Cipher> = known.collect();
        let opened = Catalog::open(storage, copied, files.identity.store, &ciphers);
        let opened = opened.unwrap_or_else(|error| {
            damage.push(error);
            None
        });
        if opened.is_none() {
            let path = dir.parent().map(Catalog::path_in).unwrap_or_default();
            damage.push(Error::corrupt(
                &path,
                0,
                "the catalog is missing or damaged",
            ));
        }
        let (catalog, contents) = opened.unzip();
        let contents: Contents = contents.unwrap_or_default();
        let root = catalog.as_ref().map(|catalog| catalog.root);
        let covered = root.map_or(Lsn(0), |root| root.position().lsn);
        let mut source = Self {
            files,
            state: contents.state,
            frames: BTreeMap::new(),
            gaps: Vec::new(),
            ends_anywhere: false,
            has_descriptions: true,
            lost_state: false,
            newest: Lsn(root.map_or(0, |root| root.durable_lsn)),
            generation: 0,
            described: BTreeMap::new(),
            catalog,
            rows: contents.feeds,
            covered,
        };
        let known = source.catalog.is_some().then_some(contents.manifest);
        let (manifest, state_through) = source.read_packs(dir, known, damage);
        source.read_log(&manifest, state_through, damage);
        Ok(source)
    }

    /// Reads what packs describe. Returns which files count, and up to where the state is known.
    fn read_packs(
        &mut self,
        dir: &Path,
        known: Option<Manifest>,
        damage: &mut Vec<Error>,
    ) -> (Manifest, Lsn) {
        let (mut newest_manifest, mut whole) = (None, None);
        let (mut descriptions_are_whole, mut state_is_whole) = (true, true);
        let packs = self.files.packs();
        for pack in &packs {
            let frames = frames_in(pack, damage);
            let is_newest = packs.last().is_some_and(|last| last.id() == pack.id());
            descriptions_are_whole &= has_all_frames(&frames, is_newest);
            for frame in frames {
                let header = &frame.header;
                self.newest = self.newest.max(header.lsn).max(header.durable_lsn);
                if header.kind.has_records() {
                    continue;
                }
                let Ok(bytes) = frame.checked_content() else {
                    damage.push(Error::corrupt(&pack.path, frame.offset, "frame content"));
                    descriptions_are_whole &= header.kind != FrameKind::Feed;
                    state_is_whole &= header.kind != FrameKind::Whole;
                    continue;
                };
                match header.kind {
                    FrameKind::Manifest => {
                        newest_manifest = Manifest::decode(&bytes).or(newest_manifest);
                    }
                    FrameKind::Whole => {
                        let operations = StateOp::decode_all(header.count, &bytes);
                        whole = operations.map(|all| (header.lsn, all)).or(whole);
                    }
                    FrameKind::Feed => {
                        let stream = frame.stream();
                        let older = self.described.get(&stream);
                        if older.is_none_or(|older| older.header.lsn <= header.lsn) {
                            self.described.insert(stream, frame);
                        }
                    }
                    _ => {}
                }
            }
        }
        let manifest = known.or(newest_manifest).unwrap_or_default();
        for id in &manifest.packs {
            if !self.files.by_id.contains_key(id) {
                let path = id.path(dir);
                damage.push(Error::corrupt(&path, 0, "the pack is missing"));
                descriptions_are_whole = false;
            }
        }
        descriptions_are_whole &= self.files.are_all;
        self.has_descriptions = descriptions_are_whole;
        // A catalog that names a pack has what is described in it.
        if self.catalog.is_none() {
            self.lost_state = !(descriptions_are_whole && state_is_whole);
        }
        let mut state_through = self.covered;
        if let Some((lsn, operations)) = whole
            && (self.catalog.is_none() || lsn > self.covered)
        {
            self.state = operations
                .into_iter()
                .filter_map(|operation| Some((operation.key, operation.value?)))
                .collect();
            state_through = lsn;
        }
        (manifest, state_through)
    }

    /// Sorts the frames of the log by stream, applies those of state, and notes what is missing.
    fn read_log(&mut self, manifest: &Manifest, state_through: Lsn, damage: &mut Vec<Error>) {
        let mut frames: Vec<Scanned> = Vec::new();
        for (segment, limit) in self.files.log(manifest) {
            self.generation = self.generation.max(segment.header.generation);
            if manifest.is_retired(segment.id()) {
                continue;
            }
            for frame in frames_in(&segment, damage) {
                let newest = frames.last().map_or(Lsn(0), |last| last.header.lsn);
                if frame.header.lsn > newest && frame.header.lsn < limit {
                    frames.push(frame);
                }
            }
        }
        let vouched = frames.iter().map(|frame| frame.header.durable_lsn).max();
        let durable = self.newest.max(vouched.unwrap_or_default());
        let found = frames.len();
        cut_torn_end(&mut frames, durable);
        let is_torn = frames.len() < found;
        let end;
        (self.gaps, end) = gaps_in(&frames, manifest, durable);
        let is_close = |last: &Scanned| {
            let is_last = self.files.last == Some(last.segment.id()) && ends_with(last);
            last.header.kind == FrameKind::Close && is_last && !is_torn
        };
        let root = self.catalog.as_ref().map(|catalog| catalog.root);
        let known = root.is_some_and(|root| root.clean && root.position().lsn >= end);
        let known = known || frames.last().is_some_and(is_close);
        self.ends_anywhere = !(known && self.files.are_all);
        let mut gaps = self.gaps.iter();
        self.lost_state |= self.ends_anywhere || gaps.any(|gap| gap.may_hide(state_through));
        self.newest = durable.max(frames.last().map_or(Lsn(0), |last| last.header.lsn));
        for frame in frames {
            self.generation = self.generation.max(frame.header.generation.into());
            match frame.header.kind {
                FrameKind::State if frame.header.lsn > state_through => {
                    self.apply_state(&frame, damage);
                }
                FrameKind::Records | FrameKind::Marks => {
                    self.frames.entry(frame.stream()).or_default().push(frame);
                }
                _ => {}
            }
        }
    }

    fn apply_state(&mut self, frame: &Scanned, damage: &mut Vec<Error>) {
        let bytes = frame.checked_content().ok();
        let operations = bytes.and_then(|bytes| StateOp::decode_all(frame.header.count, &bytes));
        let Some(operations) = operations else {
            damage.push(Error::corrupt(
                &frame.segment.path,
                frame.offset,
                "state operations",
            ));
            self.lost_state = true;
            return;
        };
        for StateOp { key, value } in operations {
            match value {
                Some(value) => self.state.insert(key, value),
                None => self.state.remove(&key),
            };
        }
    }

    /// All streams that anything tells of, be it a registration only.
    pub(crate) fn streams(&self) -> Vec<StreamId> {
        let mut streams: Vec<StreamId> = self.rows.keys().copied().collect();
        let registered = self.state.iter().filter_map(|(key, value)| {
            let feed = key.as_feed()?;
            let epoch = Registration::decode(value)?.epoch;
            Some(StreamId { feed, epoch })
        });
        streams.extend(registered);
        streams.extend(self.described.keys());
        streams.extend(self.frames.keys());
        streams.sort_unstable();
        streams.dedup();
        streams
    }

    /// The newest description of a stream: the catalog's, or that of a pack.
    pub(crate) fn described(&mut self, stream: StreamId, damage: &mut Vec<Error>) -> Described {
        let packed = self.described.get(&stream);
        let packed = packed.and_then(|frame| packs::feed(frame).ok());
        let row = self.rows.get(&stream).copied();
        let mut tail = row.map_or(0, |row| row.tail);
        tail = tail.max(packed.as_ref().map_or(0, |packed| packed.tail));
        let newer = |row: &crate::catalog::FeedRow| {
            packed.as_ref().is_none_or(|packed| packed.lsn.0 <= row.lsn)
        };
        let mut is_certain = self.has_descriptions || self.catalog.is_some();
        if let Some(row) = row.filter(newer)
            && let Some(catalog) = &mut self.catalog
        {
            match catalog.frames(&row) {
                Ok((frames, marks)) => {
                    return Described {
                        published: Published::of_row(&row, frames, marks),
                        through: self.covered.max(Lsn(row.lsn)),
                        tail,
                        is_certain,
                    };
                }
                Err(error) => {
                    damage.push(error);
                    is_certain = self.has_descriptions;
                }
            }
        }
        let published = packed.unwrap_or_default();
        Described {
            through: published.lsn,
            published,
            tail,
            is_certain,
        }
    }

    /// How many frames are missing from the log of which nothing tells what they held, and nothing what
    /// came of that.
    pub(crate) fn unknown_frames(&self) -> u64 {
        let gaps = self.gaps.iter().filter(|gap| gap.may_hide(self.covered));
        gaps.map(|gap| gap.unknown).sum()
    }

    /// The file of a frame.
    pub(crate) fn file(&self, id: SegmentId) -> Option<Arc<Segment>> {
        self.files.by_id.get(&id).cloned()
    }
}

/// Whether nothing is missing between the frames of a pack, or behind them.
fn has_all_frames(frames: &[Scanned], is_newest: bool) -> bool {
    let before = std::iter::once(0).chain(frames.iter().map(|frame| frame.sum));
    let is_chained = frames
        .iter()
        .zip(before)
        .all(|(frame, chain)| frame.header.chain == chain);
    let is_whole = frames.last().is_some_and(|last| {
        ends_with(last) && (!is_newest || last.header.kind == FrameKind::Manifest)
    });
    is_chained && is_whole
}

/// Whether a frame is the end of its file.
fn ends_with(frame: &Scanned) -> bool {
    let end = frame.offset + frame.header.frame_len();
    frame.segment.len().is_ok_and(|len| len == end)
}

/// Cuts what a crash has torn: frames at the end that nobody vouches for, as far as they are not
/// whole, or their commits are not.
fn cut_torn_end(frames: &mut Vec<Scanned>, durable: Lsn) {
    let mut whole = frames.partition_point(|frame| frame.header.lsn <= durable);
    let vouched = whole;
    let intact = |frame: &Scanned| {
        frame.checked_content().is_ok() && content_is_intact(frame).is_ok_and(|intact| intact)
    };
    while frames.get(whole).is_some_and(intact) {
        whole += 1;
    }
    while whole > vouched && frames[whole - 1].header.continues {
        whole -= 1;
    }
    frames.truncate(whole);
}
