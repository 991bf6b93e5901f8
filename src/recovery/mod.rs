//! Opening a store: lock, catalog, the end of the log, and the replay of what the catalog lacks.
//!
//! After an unclean end, what nobody vouches for is copied to a fresh segment and synced there:
//! after a failed sync the system may still show bytes that the disk never got.

pub(crate) mod packs;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::backup::marker::Marker;
use crate::branch::{BRANCH_GENERATIONS, Branch};
use crate::catalog::{Catalog, Contents, RootRow};
use crate::cursor::{FeedId, StreamId};
use crate::defects::Defect;
use crate::encryption::{Cipher, Keyring, SEED_LEN, TAG_LEN, same_key};
use crate::engine::{Engine, INDEX_DIR, Parts};
use crate::error::{Error, Result};
use crate::feed::marks::Mark;
use crate::feed::state::{FeedState, Published};
use crate::hash::Hasher;
use crate::index::run;
use crate::index::shelf::Shelf;
use crate::log::commit::{Log, LogSetup, segment_nonce};
use crate::log::format::{
    Entry, FrameKind, Identity, SEGMENT_HEADER_LEN, SegmentHeader, entry_table,
};
use crate::log::frame::Head;
use crate::log::manifest::Manifest;
use crate::log::scan::{Scan, Scanned, in_force, scan};
use crate::log::segment::{Segment, Site};
use crate::log::{LogPosition, Lsn, SegmentId};
use crate::options::Options;
use crate::publish::Place;
use crate::recovery::packs::Packed;
use crate::state::{Registration, State, StateKey, StateOp};
use crate::storage::{OpenMode, Storage, StorageLock};

pub(crate) const LOCK_NAME: &str = "LOCK";
pub(crate) const LOG_DIR: &str = "log";

/// How a store is opened.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Opening {
    /// Whether the catalog is derived anew.
    pub(crate) rebuild: bool,
    /// Whether the directory was just filled from a backup or by a repair. Its marker stays until
    /// whoever did that is content with it.
    pub(crate) filled: bool,
}

/// Opens or creates the store in `path`.
pub(crate) fn open(path: &Path, options: Options, opening: Opening) -> Result<Arc<Engine>> {
    let storage = options.storage.clone();
    let storage = storage.as_ref();
    let dir = path.join(LOG_DIR);
    if options.create {
        let create = |dir: &Path| {
            storage
                .create_dir_all(dir)
                .map_err(|error| Error::io("create", dir, error))
        };
        create(path)?;
        create(&dir)?;
        storage
            .sync_dir(path)
            .map_err(|error| Error::io("sync directory", path, error))?;
    } else {
        // Before the lock file is made: there must be no trace of a look at nothing.
        storage
            .list(&dir)
            .map_err(|error| Error::io("open", path, error))?;
    }
    let lock = lock(storage, path)?;
    let is_backup = match Marker::read(storage, path)? {
        Some(marker) if !marker.whole && !opening.filled => {
            return Err(Error::Unfinished {
                path: path.to_owned(),
            });
        }
        Some(marker) => marker.check_files(storage, path).map(|()| true)?,
        None => false,
    };
    let keyring = Keyring::new(options.encryption.clone());
    let (mut segments, mut packs) = open_segments(storage, &dir, &keyring)?;
    let fresh = segments.is_empty() && packs.is_empty();
    if fresh {
        create_first_segment(storage, path, &dir, (&options, &keyring), &mut segments)?;
    }
    let identity = identity(segments.iter().chain(&packs))?;
    let cipher = current(&keyring, &identity, path)?;
    let catalog = match opening.rebuild {
        true => None,
        false => {
            // It may be under any key that was in use before.
            let known = segments.iter().chain(&packs).map(|segment| &segment.cipher);
            let ciphers: Vec<Cipher> = [&cipher].into_iter().chain(known).cloned().collect();
            Catalog::open(&options.storage, path, identity.store, &ciphers)?
        }
    };
    let derived = catalog.is_none();
    let (catalog, mut contents) = match catalog {
        Some(found) => found,
        None => {
            let empty = Catalog::create(&options.storage, path, identity.store, &cipher)?;
            (empty, Contents::default())
        }
    };
    let mut durable = Lsn(catalog.root.durable_lsn);
    if derived && let Some((manifest, known)) = packs::manifest(&packs)? {
        (contents.manifest, durable) = (manifest, known);
    }
    let manifest = &contents.manifest;
    remove_retired(storage, manifest, &mut segments)?;
    remove_retired(storage, manifest, &mut packs)?;
    let mut packed = match derived {
        true => packs::read(&packs, manifest, &dir)?,
        false => Packed::default(),
    };
    contents.state.append(&mut packed.state);
    let start = start_of_scan(&segments, manifest, &dir, &catalog.root, derived)?;
    let scan = scan(&segments, manifest, start, durable, options.defects)?;
    let mut generation = segments
        .iter()
        .map(|s| s.header.generation)
        .max()
        .unwrap_or_default();
    // Where a recovery was cut short, what it copied may end with the frame of a clean close, and the
    // originals are still to be put away.
    let closed = match scan.frames.last() {
        Some(last) => {
            let is_original = u64::from(last.header.generation) == generation;
            // One that the catalog does not know of may be in the page cache only, and so may what it
            // was to be synced with.
            let is_durable = last.header.lsn <= scan.durable;
            last.header.kind == FrameKind::Close && is_original && is_durable
        }
        None => {
            let newest = segments.last().map(|segment| segment.id());
            let is_there = newest == Some(catalog.root.position().segment);
            catalog.root.clean && !derived && is_there
        }
    };
    let (mut frames, mut end) = (scan.frames.clone(), scan.end);
    if !fresh && (scan.torn || !closed || is_backup) {
        generation += if is_backup { BRANCH_GENERATIONS } else { 1 };
        if !options.defects.has(Defect::TrustPageCache) {
            let files = (&mut segments, manifest);
            (frames, end) = relocate(&options, &dir, files, &scan, generation, &cipher)?;
        }
    }
    let by_id: BTreeMap<SegmentId, Arc<Segment>> = segments
        .iter()
        .chain(&packs)
        .map(|segment| (segment.id(), segment.clone()))
        .collect();
    let current = by_id.get(&end.segment).cloned();
    let current = current.ok_or_else(|| Error::corrupt(&dir, 0, "the last segment is missing"))?;
    let log = Log::new(LogSetup {
        storage: options.storage.clone(),
        dir,
        identity,
        cipher,
        segment_size: options.segment_size,
        durability: options.durability,
        defects: options.defects,
        segments: by_id,
        position: end,
        // One more with every crash: it stays far below 32 bits.
        generation: generation as u32,
        current,
    })?;
    remove_stray_runs(storage, path, &mut contents.shelf)?;
    let engine = Arc::new(Engine::new(Parts {
        path: path.to_owned(),
        options,
        hasher: Hasher::new(&identity.secret),
        log,
        state: State::restore(contents.state),
        catalog,
        rows: contents.feeds,
        manifest: contents.manifest,
        shelf: contents.shelf,
        lock,
    }));
    replay(&engine, &frames, packed)?;
    engine.restore_codecs();
    engine.set_branch(match is_backup {
        true => Branch::begin(&engine)?,
        false => Branch::of(&engine),
    });
    if derived && !fresh {
        engine.save_catalog(false)?;
    }
    if is_backup && !opening.filled {
        // From here on it is a store like any other.
        Marker::remove(engine.options.storage.as_ref(), path)?;
    }
    Ok(engine)
}

pub(crate) fn lock(storage: &dyn Storage, path: &Path) -> Result<Box<dyn StorageLock>> {
    let file = path.join(LOCK_NAME);
    storage.lock(&file).map_err(|error| {
        if error.kind() != io::ErrorKind::WouldBlock {
            return Error::io("lock", &file, error);
        }
        Error::Locked {
            path: path.to_owned(),
            pid: holder(storage, &file),
        }
    })
}

/// The process id that the lock's holder has written into the file.
fn holder(storage: &dyn Storage, file: &Path) -> Option<u32> {
    let file = storage.open(file, OpenMode::Existing).ok()?;
    let mut text = [0; 16];
    let len = file.read_at(&mut text, 0).ok()?;
    std::str::from_utf8(text.get(..len)?)
        .ok()?
        .trim()
        .parse()
        .ok()
}

type Files = Vec<Arc<Segment>>;

/// Opens all segments and all packs in id order, and removes what a crash left half-made. Whoever has
/// not the key removes nothing.
fn open_segments(storage: &dyn Storage, dir: &Path, keyring: &Keyring) -> Result<(Files, Files)> {
    let names = storage
        .list(dir)
        .map_err(|error| Error::io("list", dir, error))?;
    let ids = names.iter().filter_map(|name| SegmentId::parse(name));
    let open = |id| Segment::open(storage, dir, id, keyring).map(Arc::new);
    let mut segments = ids.map(open).collect::<Result<Vec<_>>>()?;
    for name in names.iter().filter(|name| SegmentId::is_stray(name)) {
        let path = dir.join(name);
        storage
            .remove(&path)
            .map_err(|error| Error::io("remove", &path, error))?;
    }
    segments.sort_by_key(|segment| segment.id());
    Ok(segments
        .into_iter()
        .partition(|segment| !segment.id().is_pack()))
}

/// Removes files that compaction had replaced when the store was left, or was about to make.
fn remove_retired(
    storage: &dyn Storage,
    manifest: &Manifest,
    segments: &mut Vec<Arc<Segment>>,
) -> Result<()> {
    for segment in segments.iter().filter(|s| manifest.is_retired(s.id())) {
        storage
            .remove(&segment.path)
            .map_err(|error| Error::io("remove", &segment.path, error))?;
    }
    segments.retain(|segment| !manifest.is_retired(segment.id()));
    Ok(())
}

/// Removes files of the index that the catalog does not name.
fn remove_stray_runs(storage: &dyn Storage, path: &Path, shelf: &mut Shelf) -> Result<()> {
    let dir = path.join(INDEX_DIR);
    // There is no such directory before an index outgrows the memory.
    for name in storage.list(&dir).unwrap_or_default() {
        let Some(id) = run::id_in(&name) else {
            continue;
        };
        shelf.note_id(id);
        if !shelf.has(id) {
            let path = dir.join(&name);
            storage
                .remove(&path)
                .map_err(|error| Error::io("remove", &path, error))?;
        }
    }
    Ok(())
}

/// Takes over a feed as a pack has it.
fn adopt(engine: &Engine, stream: StreamId, known: Registration, published: Published) {
    let StreamId { feed, epoch } = stream;
    let state = FeedState::new(known.key, feed, epoch, Some(known.options), published);
    engine.feeds.lock().streams.insert(stream, Arc::new(state));
}

fn create_first_segment(
    storage: &dyn Storage,
    path: &Path,
    dir: &Path,
    (options, keyring): (&Options, &Keyring),
    segments: &mut Vec<Arc<Segment>>,
) -> Result<()> {
    let catalog = Catalog::path_in(path);
    if storage.open(&catalog, OpenMode::Existing).is_ok() {
        return Err(Error::corrupt(
            dir,
            0,
            "there is a catalog, but the log is gone",
        ));
    }
    if !options.create {
        let source = io::ErrorKind::NotFound.into();
        return Err(Error::Io {
            op: "open",
            path: path.to_owned(),
            source,
        });
    }
    let mut secret = match options.secret {
        Some(secret) => secret,
        None => {
            let mut secret = [0; 32];
            getrandom::fill(&mut secret).map_err(|error| Error::Io {
                op: "get random numbers for",
                path: path.to_owned(),
                source: io::Error::other(error),
            })?;
            secret
        }
    };
    if keyring.is_encrypting() {
        secret[SEED_LEN..].fill(0);
    }
    let identity = Identity::of(secret);
    let id = SegmentId(1);
    let header = SegmentHeader {
        identity,
        id,
        nonce: segment_nonce(&identity, id),
        first_lsn: Lsn(1),
        generation: 0,
        chain: 0,
    };
    let cipher = current(keyring, &identity, path)?;
    let site = Site::new(storage, dir, &cipher, options.defects);
    segments.push(Arc::new(Segment::create(&site, header, &[], 0)?));
    Ok(())
}

/// What is written under from now on.
pub(crate) fn current(keyring: &Keyring, identity: &Identity, path: &Path) -> Result<Cipher> {
    let cipher = keyring.current(&identity.store);
    cipher.map_err(|error| Error::io("get random numbers for", path, error))
}

fn identity<'a>(segments: impl IntoIterator<Item = &'a Arc<Segment>>) -> Result<Identity> {
    let mut identities = segments
        .into_iter()
        .map(|segment| (segment, segment.header.identity));
    let Some((_, first)) = identities.next() else {
        return Err(Error::corrupt(
            &PathBuf::from(LOG_DIR),
            0,
            "the log has no segment",
        ));
    };
    match identities.find(|(_, identity)| *identity != first) {
        Some((segment, _)) => Err(Error::corrupt(
            &segment.path,
            0,
            "the segment belongs to another store",
        )),
        None => Ok(first),
    }
}

/// Where the scan begins: where the catalog says, or at the very beginning.
fn start_of_scan(
    segments: &[Arc<Segment>],
    manifest: &Manifest,
    dir: &Path,
    root: &RootRow,
    derived: bool,
) -> Result<LogPosition> {
    let position = root.position();
    if !derived && position.segment != SegmentId(0) {
        // It may have been superseded whole, and removed, since the catalog was saved.
        if segments
            .iter()
            .any(|segment| segment.id() >= position.segment)
        {
            return Ok(position);
        }
        let path = position.segment.path(dir);
        return Err(Error::corrupt(&path, 0, "the segment is missing"));
    }
    // What is before the first segment must have been replaced. The numbers of commits that found
    // no space were never written, so only the very first one is known beforehand.
    let (chain, lsn) = manifest.follow(0, Lsn(0));
    let goes_on = |first: &&Arc<Segment>| {
        let header = &first.header;
        match lsn {
            Lsn(0) => header.first_lsn == Lsn(1),
            _ => header.first_lsn > lsn && header.chain == chain,
        }
    };
    match segments.first().filter(goes_on) {
        Some(first) => Ok(LogPosition {
            segment: first.id(),
            offset: SEGMENT_HEADER_LEN as u64,
            chain: first.header.chain,
            lsn,
        }),
        _ => Err(Error::corrupt(dir, 0, "the first segments are missing")),
    }
}

/// Copies the frames nobody vouches for to a fresh segment, and puts the rest of the tail away.
///
/// Order: the fresh segment is durable before anything old is touched, and its first LSN makes
/// later scans ignore the old copies. A crash anywhere in here leads to the same frames again.
fn relocate(
    options: &Options,
    dir: &Path,
    (segments, manifest): (&mut Vec<Arc<Segment>>, &Manifest),
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
    let nonce = segment_nonce(&identity, id);
    let first_lsn = suffix
        .first()
        .map_or(scan.end.lsn.next(), |frame| frame.header.lsn);
    let header = SegmentHeader {
        identity,
        id,
        nonce,
        first_lsn,
        generation,
        chain: cut.chain,
    };
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
    for (header, offset, sum) in moved {
        frames.push(Scanned {
            segment: segment.clone(),
            offset,
            header,
            sum,
        });
    }
    put_away(storage, dir, (segments, manifest), cut)?;
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
/// tail off the last one that stays.
fn put_away(
    storage: &dyn Storage,
    dir: &Path,
    (segments, manifest): (&mut Vec<Arc<Segment>>, &Manifest),
    cut: LogPosition,
) -> Result<()> {
    let live = in_force(segments, manifest);
    let counts: Vec<SegmentId> = live.iter().map(|(segment, _)| segment.id()).collect();
    let keep =
        |segment: &Arc<Segment>| segment.id() <= cut.segment && counts.contains(&segment.id());
    for segment in segments.iter().filter(|segment| !keep(segment)) {
        storage
            .remove(&segment.path)
            .map_err(|error| Error::io("remove", &segment.path, error))?;
    }
    storage
        .sync_dir(dir)
        .map_err(|error| Error::io("sync directory", dir, error))?;
    segments.retain(keep);
    if let Some(segment) = segments.last_mut()
        && segment.id() == cut.segment
        && segment.len()? > cut.offset
    {
        *segment = segment.clone().cut(storage, dir, cut.offset)?;
    }
    Ok(())
}

/// Applies frames to what the catalog or the packs had. Frames they knew of already are passed
/// over.
///
/// A feed is taken over from the packs when the log first names it, because its registration, and
/// which of its epochs count, may stand in the log.
fn replay(engine: &Engine, frames: &[Scanned], mut packed: Packed) -> Result<()> {
    let state_lsn = packed.state_lsn;
    for frame in frames {
        match frame.header.kind {
            FrameKind::Close => {}
            FrameKind::State if frame.header.lsn <= state_lsn => {}
            FrameKind::State => {
                let bytes = frame.checked_content()?;
                let operations = StateOp::decode_all(frame.header.count, &bytes);
                let operations = operations.ok_or_else(|| {
                    Error::corrupt(&frame.segment.path, frame.offset, "state operations")
                })?;
                engine.state.publish(&operations);
                let keys = operations.iter().map(|operation| &operation.key);
                let feeds = keys.filter(|key| key.is_feed());
                feeds.for_each(|key| follow(engine, key));
            }
            FrameKind::Records => replay_records(engine, frame, &mut packed)?,
            FrameKind::Marks => replay_marks(engine, frame, &mut packed)?,
            FrameKind::Packed | FrameKind::Feed | FrameKind::Whole | FrameKind::Manifest => {
                let path = &frame.segment.path;
                return Err(Error::corrupt(path, frame.offset, "a frame of a pack"));
            }
        }
    }
    for (stream, published) in packed.feeds {
        let registration = engine.registration(stream.feed);
        if let Some(known) = registration.filter(|known| known.epoch == stream.epoch) {
            adopt(engine, stream, known, published);
        }
    }
    give_up_staged(engine);
    let is_over = |stream: &StreamId| {
        let current = engine.registration(stream.feed);
        current.is_none_or(|current| current.epoch != stream.epoch)
    };
    engine.shelf.lock().forget_where(is_over);
    // A feed may have been configured after its first frame.
    let open: Vec<_> = engine.feeds.lock().streams.values().cloned().collect();
    open.iter()
        .try_for_each(|feed| engine.refresh_options(feed))
}

/// Forgets the epochs of a feed that its registration has gone beyond.
fn follow(engine: &Engine, key: &StateKey) {
    let registration = engine.state.get(key);
    if let Some(registration) = registration.as_deref().and_then(Registration::decode) {
        let id = engine.feed_id(&registration.key);
        forget_epochs(engine, id, |epoch| {
            epoch == registration.epoch || epoch == registration.newest_epoch
        });
    }
}

/// Epochs that were being filled when the store was left are not gone on with.
fn give_up_staged(engine: &Engine) {
    for registration in engine.state.registrations() {
        let id = engine.feed_id(&registration.key);
        forget_epochs(engine, id, |epoch| epoch == registration.epoch);
    }
}

fn forget_epochs(engine: &Engine, feed: FeedId, kept: impl Fn(u32) -> bool) {
    let mut feeds = engine.feeds.lock();
    let over = |stream: &StreamId| stream.feed == feed && !kept(stream.epoch);
    let range = StreamId { feed, epoch: 0 }..=StreamId {
        feed,
        epoch: u32::MAX,
    };
    let rows = feeds.rows.range(range).map(|(stream, _)| *stream);
    let known: Vec<StreamId> = rows.filter(over).collect();
    feeds.dropped.extend(known);
    feeds.streams.retain(|stream, _| !over(stream));
}

/// The state that a frame belongs to; `None` when its epoch is over, or the frame is known.
fn stream_of(
    engine: &Engine,
    frame: &Scanned,
    packed: &mut Packed,
) -> Result<Option<Arc<FeedState>>> {
    let header = &frame.header;
    let damaged = |what| Error::corrupt(&frame.segment.path, frame.offset, what);
    let registration = engine.registration(header.feed);
    let registration = registration.ok_or_else(|| damaged("a frame of an unknown feed"))?;
    if engine.feed_id(&registration.key) != header.feed {
        return Err(damaged("a frame of an unknown feed"));
    }
    let current = header.epoch == registration.epoch;
    if !current && header.epoch != registration.newest_epoch {
        return Ok(None);
    }
    let id = StreamId {
        feed: header.feed,
        epoch: header.epoch,
    };
    if let Some(published) = packed.feeds.remove(&id) {
        adopt(engine, id, registration.clone(), published);
    }
    let options = Some(registration.options);
    let state = engine.stream(&registration.key, id, options)?;
    let known = header.lsn <= state.published.read().lsn;
    Ok((!known).then_some(state))
}

fn replay_marks(engine: &Engine, frame: &Scanned, packed: &mut Packed) -> Result<()> {
    if let Some(feed) = stream_of(engine, frame, packed)? {
        let bytes = frame.checked_content()?;
        let marks = Mark::decode_all(frame.header.count, &bytes);
        let damaged = || Error::corrupt(&frame.segment.path, frame.offset, "marks");
        feed.restore_marks(&frame.header, &marks.ok_or_else(damaged)?);
    }
    Ok(())
}

fn replay_records(engine: &Engine, frame: &Scanned, packed: &mut Packed) -> Result<()> {
    let header = &frame.header;
    let Some(feed) = stream_of(engine, frame, packed)? else {
        return Ok(());
    };
    let bytes = frame.checked_content()?;
    let entries = entry_table(&bytes).iter().filter_map(Entry::decode);
    let superseded: Vec<u64> = entries
        .map(|entry| entry.previous)
        .filter(|position| *position != 0)
        .collect();
    let place = Place {
        segment: frame.segment.id(),
        offset: frame.offset,
    };
    feed.restore_frame(header, place, &superseded);
    Ok(())
}
