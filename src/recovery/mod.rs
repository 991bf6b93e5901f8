//! Opening a store: lock, catalog, the end of the log, and the replay of what the catalog lacks.
//!
//! * [`files`]: which files there are
//! * [`packs`]: what packs know when there is no catalog
//! * [`relocate`]: the end of a log that was not closed
//! * [`replay`]: what the log says beyond the catalog

mod files;
pub(crate) mod packs;
mod relocate;
mod replay;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::backup::marker::Marker;
use crate::branch::{BRANCH_GENERATIONS, Branch};
use crate::catalog::{Catalog, Contents, RootRow};
use crate::defects::Defect;
use crate::encryption::{Cipher, Keyring};
use crate::engine::{Engine, Parts};
use crate::error::{Error, Result};
use crate::hash::Hasher;
use crate::log::commit::{Log, LogSetup};
use crate::log::format::{FrameKind, Identity, SEGMENT_HEADER_LEN};
use crate::log::manifest::Manifest;
use crate::log::scan::{Scan, in_force, scan};
use crate::log::segment::Segment;
use crate::log::{LogPosition, Lsn, SegmentId};
use crate::options::Options;
use crate::recovery::files::{
    create_first_segment, identity, open_segments, remove_retired, remove_stray_runs,
};
use crate::recovery::packs::Packed;
use crate::recovery::relocate::relocate;
use crate::recovery::replay::replay;
use crate::state::State;
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
    make_directories(storage, path, &dir, options.create)?;
    let lock = lock(storage, path)?;
    let marker = Marker::read(storage, path)?;
    if let Some(marker) = &marker {
        match opening.filled {
            true => marker.check_files(storage, path)?,
            false => marker.check(storage, path)?,
        }
    }
    let is_backup = marker.is_some();
    let keyring = Keyring::new(options.encryption.clone());
    let (mut segments, mut packs) = open_segments(storage, &dir, &keyring)?;
    let fresh = segments.is_empty() && packs.is_empty();
    if fresh {
        create_first_segment(storage, path, &dir, (&options, &keyring), &mut segments)?;
    }
    let identity = identity(segments.iter().chain(&packs))?;
    let cipher = current(&keyring, &identity, path)?;
    let found = match opening.rebuild {
        true => None,
        false => {
            // It may be under any key that was in use before.
            let known = segments.iter().chain(&packs).map(|segment| &segment.cipher);
            let ciphers: Vec<Cipher> = [&cipher].into_iter().chain(known).cloned().collect();
            Catalog::open(&options.storage, path, identity.store, &ciphers)?
        }
    };
    let derived = found.is_none();
    let (mut catalog, mut contents) = match found {
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
    let root = (!derived).then_some(&catalog.root);
    let live = in_force(&segments, manifest);
    let start = start_of_scan(&segments, &live, manifest, &dir, root)?;
    let scan = scan(&live, manifest, start, durable, options.defects)?;
    let mut generation = segments
        .iter()
        .map(|s| s.header.generation)
        .max()
        .unwrap_or_default();
    let closed = was_closed(&scan, &segments, generation, root);
    let (mut frames, mut end) = (scan.frames.clone(), scan.end);
    let all_named = segments.iter().all(|segment| segment.has_name(&dir));
    if !fresh && (scan.torn || !closed || !all_named || is_backup) {
        generation += if is_backup { BRANCH_GENERATIONS } else { 1 };
        // Closed with nothing new, it is closed all the same: that is what vouches for the log's end.
        catalog.root.clean = false;
        if !options.defects.has(Defect::TrustPageCache) {
            let files = (&mut segments, live.as_slice());
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

/// Makes the store's directories, or makes sure that they are there.
fn make_directories(storage: &dyn Storage, path: &Path, dir: &Path, create: bool) -> Result<()> {
    if !create {
        // Before the lock file is made: there must be no trace of a look at nothing.
        let listed = storage.list(dir);
        listed.map_err(|error| Error::io("open", path, error))?;
    } else {
        for dir in [path, dir] {
            let created = storage.create_dir_all(dir);
            created.map_err(|error| Error::io("create", dir, error))?;
        }
    }
    // Also for names that were changed by an opener before this one, and not synced.
    let synced = storage.sync_dir(path);
    synced.map_err(|error| Error::io("sync directory", path, error))
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

/// Whether the store was closed when it was left. `root` is what the catalog says, if there is one;
/// `generation` the log's newest.
fn was_closed(
    scan: &Scan,
    segments: &[Arc<Segment>],
    generation: u64,
    root: Option<&RootRow>,
) -> bool {
    match scan.frames.last() {
        Some(last) => {
            // Where a recovery was cut short, what it copied may end with the frame of a clean close,
            // and the originals are still to be put away.
            let is_original = u64::from(last.header.generation) == generation;
            // One that the catalog does not know of may be in the page cache only, and so may what it
            // was to be synced with.
            let is_durable = last.header.lsn <= scan.durable;
            last.header.kind == FrameKind::Close && is_original && is_durable
        }
        None => {
            let newest = segments.last().map(|segment| segment.id());
            root.is_some_and(|root| root.clean && newest == Some(root.position().segment))
        }
    }
}

/// What is written under from now on.
pub(crate) fn current(keyring: &Keyring, identity: &Identity, path: &Path) -> Result<Cipher> {
    let cipher = keyring.current(&identity.store);
    cipher.map_err(|error| Error::io("get random numbers for", path, error))
}

/// Where the scan begins: where the catalog says, if there is one, or at the very beginning. `live` are
/// the segments in force.
fn start_of_scan(
    segments: &[Arc<Segment>],
    live: &[(Arc<Segment>, Lsn)],
    manifest: &Manifest,
    dir: &Path,
    root: Option<&RootRow>,
) -> Result<LogPosition> {
    let saved = root.map(RootRow::position);
    if let Some(position) = saved.filter(|position| position.segment != SegmentId(0)) {
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
    // A recovery that was cut short may have put away the first of several that one later segment
    // supersedes.
    match live.first().map(|(first, _)| first).filter(goes_on) {
        Some(first) => Ok(LogPosition {
            segment: first.id(),
            offset: SEGMENT_HEADER_LEN as u64,
            chain: first.header.chain,
            lsn,
        }),
        _ => Err(Error::corrupt(dir, 0, "the first segments are missing")),
    }
}
