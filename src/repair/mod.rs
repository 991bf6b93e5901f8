//! Repair: what is undamaged of a store, in a new one; and a list of what is not.
//!
//! The damaged store is only read. What is left of it becomes what [compaction](crate::compaction)
//! would make of it: packs with the records that count, descriptions of the feeds, the state, and a
//! manifest; from these the new store derives its catalog as any store can. Positions stay what they
//! are, so cursors do too.
//!
//! * [`files`]: the files of the log, and the frames in them, wherever they can still be made out
//! * [`source`]: what catalog, packs and log tell of the whole store
//! * [`gaps`]: where frames are missing from the log, and what of them can be told
//! * [`history`]: what is left of one feed; [`records`]: what is left of one frame
//!
//! The new store is a [branch](crate::branch) of history: cursors of changes that are lost at the end
//! of a feed are refused. Where something is missing in the middle, nobody can tell what a reader
//! would not hear of, neither one who stands before it nor one who has seen it, for records that
//! appeared and vanished in there. So every cursor of such a feed expires, and its readers start over.

pub(crate) mod files;
pub(crate) mod gaps;
pub(crate) mod history;
pub(crate) mod records;
pub(crate) mod report;
pub(crate) mod source;

use std::collections::BTreeSet;
use std::path::Path;

use crate::backup::marker::Marker;
use crate::backup::restore::accept;
use crate::backup::{Target, is_empty};
use crate::branch::Branch;
use crate::catalog::Catalog;
use crate::cursor::{FeedId, StreamId};
use crate::encryption::{Cipher, Keyring};
use crate::error::{Error, Result};
use crate::feed::frame_ref::FrameRef;
use crate::log::format::{FrameKind, Identity, SegmentHeader};
use crate::log::frame::{Frame, PackedFrame};
use crate::log::manifest::{Manifest, Stretch};
use crate::log::pack::PackWriter;
use crate::log::segment::{Segment, Site};
use crate::log::{Lsn, SegmentId};
use crate::options::Options;
use crate::publish::Place;
use crate::recovery::{LOG_DIR, current, lock};
use crate::repair::history::History;
use crate::repair::report::{Lost, Repaired};
use crate::repair::source::Source;
use crate::state::{Registration, StateKey, StateOp};
use crate::storage::{OpenMode, Storage, copy};

/// See [`Options::repair`].
pub(crate) fn repair(options: Options, from: &Path, to: &Path) -> Result<Repaired> {
    let storage = options.storage.clone();
    let dir = from.join(LOG_DIR);
    // Before the lock file is made: there must be no trace of a look at nothing.
    storage
        .list(&dir)
        .map_err(|error| Error::io("open", from, error))?;
    let _lock = lock(storage.as_ref(), from)?;
    if !is_empty(storage.as_ref(), to)? {
        return Err(Error::Occupied {
            path: to.to_owned(),
        });
    }
    let mut report = Repaired::default();
    let keyring = Keyring::new(options.encryption.clone());
    let mut damage = Vec::new();
    let mut files = files::Files::open(storage.as_ref(), &dir, &keyring, &mut damage)?;
    // Where a backup, a restore or a repair was not finished, or has lost files since, some are missing.
    let marker = Marker::read(storage.as_ref(), from);
    let checked = marker.and_then(|marker| match marker {
        Some(marker) => marker.check(storage.as_ref(), from),
        None => Ok(()),
    });
    files.are_all = checked.is_ok();
    damage.extend(checked.err());
    let cipher = current(&keyring, &files.identity, to)?;
    let target = Target::begin(&storage, to, files.identity.store, Branch::default())?;
    copy_catalog(storage.as_ref(), from, to, &mut report.damage);
    report.damage.append(&mut damage);
    let mut source = Source::read(&storage, files, &dir, to, &mut report.damage)?;
    report.files = source.files.by_id.len() as u64;
    salvage(
        &options,
        &cipher,
        &mut source,
        &to.join(LOG_DIR),
        &mut report,
    )?;
    drop(source);
    target.sync()?;
    drop(target);
    let _ = accept(options, to, true)?;
    Ok(report)
}

/// Opening a catalog may change it, so the salvage reads a copy. The new store gets another one.
fn copy_catalog(storage: &dyn Storage, from: &Path, to: &Path, damage: &mut Vec<Error>) {
    let (from, to) = (Catalog::path_in(from), Catalog::path_in(to));
    let Ok(file) = storage.open(&from, OpenMode::Existing) else {
        return;
    };
    let copied = file
        .len()
        .and_then(|len| copy(storage, file.as_ref(), len, &to));
    if let Err(error) = copied {
        damage.push(Error::io("copy", &from, error));
    }
}

/// Writes what is left of every feed, and of the state, into the log of the new store.
fn salvage(
    options: &Options,
    cipher: &Cipher,
    source: &mut Source,
    dir: &Path,
    report: &mut Repaired,
) -> Result<()> {
    let storage = options.storage.as_ref();
    let mut packs = Packs {
        site: Site::new(storage, dir, cipher, options.defects),
        identity: source.files.identity,
        newest: source.newest.max(Lsn(1)),
        // No number of the old store is given to another file.
        next: source
            .files
            .packs()
            .last()
            .map_or(0, |pack| pack.id().number())
            + 1,
        size: options.segment_size,
        open: None,
        written: 0,
        ids: Vec::new(),
    };
    let mut unknown = BTreeSet::new();
    for stream in source.streams() {
        let value = source.state.get(&StateKey::feed(stream.feed));
        let Some(known) = value.and_then(|value| Registration::decode(value)) else {
            unknown.insert(stream.feed);
            continue;
        };
        if known.epoch == stream.epoch {
            let mut history = History::of(source, stream, &mut report.damage);
            history.examine(source, &mut report.damage);
            history.pack(source, &mut packs)?;
            report.feeds += 1;
            report.records += history.records;
            report.note(&known.key, stream, history);
        }
    }
    let nameless = |feed: FeedId| Lost::Feed { id: feed.0 };
    report.lost.extend(unknown.into_iter().map(nameless));
    if source.lost_state {
        report.lost.push(Lost::State);
    }
    let frames = source.unknown_frames();
    if frames > 0 {
        report.lost.push(Lost::Unknown { frames });
    }
    let operations = source.state.iter().map(|(key, value)| StateOp {
        key: key.clone(),
        value: Some(value.clone()),
    });
    packs.finish(source, &operations.collect::<Vec<_>>())
}

/// The packs of the new store.
pub(crate) struct Packs<'a> {
    site: Site<'a>,
    identity: Identity,
    newest: Lsn,
    /// The number of the next pack.
    next: u64,
    /// The length from which another pack is begun.
    size: u64,
    open: Option<PackWriter<'a>>,
    written: u64,
    ids: Vec<SegmentId>,
}

impl Packs<'_> {
    pub(crate) fn dir(&self) -> &Path {
        self.site.dir
    }

    pub(crate) fn cipher(&self) -> &Cipher {
        self.site.cipher
    }

    /// Appends a sealed frame.
    pub(crate) fn append(&mut self, frame: &Frame) -> Result<Place> {
        if self.written >= self.size
            && let Some(full) = self.open.take()
        {
            full.finish()?;
        }
        let mut pack = match self.open.take() {
            Some(pack) => pack,
            None => {
                let id = SegmentId::pack(self.next);
                self.next += 1;
                self.written = 0;
                self.ids.push(id);
                PackWriter::create(self.site, &self.identity, id, self.newest)?
            }
        };
        self.written += frame.header.frame_len();
        let place = pack.append(frame)?;
        self.open = Some(pack);
        Ok(place)
    }

    /// Appends the frame under construction, if there is one.
    pub(crate) fn close_frame(
        &mut self,
        open: &mut Option<PackedFrame>,
        packed: &mut Vec<FrameRef>,
    ) -> Result<()> {
        if let Some(frame) = open.take() {
            let (frame, mut known) = frame.finish(self.site.cipher);
            let place = self.append(&frame)?;
            (known.segment, known.offset) = (place.segment, place.offset);
            packed.push(known);
        }
        Ok(())
    }

    /// Writes the state and the manifest, and the segment that the log goes on in.
    fn finish(mut self, source: &Source, operations: &[StateOp]) -> Result<()> {
        let mut whole = Frame::of_pack(FrameKind::Whole, StateOp::encode_all(operations));
        whole.header.count = operations.len() as u32;
        whole.header.lsn = self.newest;
        whole.seal(self.site.cipher);
        self.append(&whole)?;
        let mut segments = source.files.by_id.keys().filter(|id| !id.is_pack());
        let last = segments.next_back().map_or(1, |last| last.0);
        // Everything before the new segment counts as replaced by these packs.
        let stretch = Stretch {
            first: SegmentId(1),
            last: SegmentId(last),
            chain: 0,
            first_lsn: Lsn(1),
            end_chain: 0,
            end_lsn: self.newest,
        };
        let manifest = Manifest {
            packs: self.ids.clone(),
            retired: vec![stretch],
        };
        let mut frame = Frame::of_pack(FrameKind::Manifest, manifest.encode());
        frame.header.durable_lsn = self.newest;
        frame.seal(self.site.cipher);
        // In the newest pack: that is where it is looked for.
        let written = std::mem::take(&mut self.written);
        self.append(&frame)?;
        self.written += written;
        if let Some(pack) = self.open.take() {
            pack.finish()?;
        }
        let id = SegmentId(last + 1);
        let header = SegmentHeader {
            generation: source.generation,
            ..SegmentHeader::new(self.identity, id, self.newest.next())
        };
        Segment::create(&self.site, header, &[], 0)?;
        self.site.sync_names()
    }
}

impl Repaired {
    /// Takes note of what is missing of a feed.
    fn note(&mut self, feed: &crate::feed::FeedKey, stream: StreamId, history: History) {
        let cursor = |position| crate::cursor::Cursor {
            feed: stream.feed,
            epoch: stream.epoch,
            position,
            purges: 0,
            base: position,
        };
        let changes = |(first, last), ids| Lost::Changes {
            feed: feed.clone(),
            first: cursor(first),
            last: cursor(last),
            ids,
        };
        let holes = history.holes.iter();
        let mut lost: Vec<Lost> = holes.map(|hole| changes(*hole, Vec::new())).collect();
        let mut run: Option<(u64, u64, Vec<String>)> = None;
        for (position, id) in &history.lost {
            match &mut run {
                Some((_, last, ids)) if *last + 1 == *position => {
                    *last = *position;
                    ids.extend(id.clone());
                }
                _ => {
                    let next = (*position, *position, id.iter().cloned().collect());
                    let done = run.replace(next);
                    lost.extend(done.map(|(first, last, ids)| changes((first, last), ids)));
                }
            }
        }
        lost.extend(run.map(|(first, last, ids)| changes((first, last), ids)));
        if history.may_go_on {
            lost.push(Lost::Tail {
                feed: feed.clone(),
                after: cursor(history.tail()),
            });
        }
        let marks = history.lost_marks.iter();
        lost.extend(marks.map(|(after, before)| Lost::Marks {
            feed: feed.clone(),
            after: cursor(*after),
            before: before.map(cursor),
        }));
        lost.extend(history.lost_payloads.iter().map(|position| Lost::Payload {
            feed: feed.clone(),
            deletion: cursor(*position),
        }));
        self.lost.append(&mut lost);
    }
}
