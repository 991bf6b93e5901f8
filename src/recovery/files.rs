//! Which files there are when a store is opened, and putting away those that are none of its.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::catalog::Catalog;
use crate::encryption::{Keyring, SEED_LEN};
use crate::engine::INDEX_DIR;
use crate::error::{Error, Result};
use crate::index::run;
use crate::index::shelf::Shelf;
use crate::log::format::{Identity, SegmentHeader};
use crate::log::manifest::Manifest;
use crate::log::segment::{Segment, Site};
use crate::log::{Lsn, SegmentId};
use crate::options::Options;
use crate::recovery::{LOG_DIR, current};
use crate::storage::{OpenMode, Storage};

pub(super) type Files = Vec<Arc<Segment>>;

/// Opens all segments and all packs in id order, and removes what a crash left half-made. Whoever has
/// not the key removes nothing. Segments may be among them that have not got their names.
pub(super) fn open_segments(
    storage: &dyn Storage,
    dir: &Path,
    keyring: &Keyring,
) -> Result<(Files, Files)> {
    let names = storage
        .list(dir)
        .map_err(|error| Error::io("list", dir, error))?;
    let ids = names.iter().filter_map(|name| SegmentId::parse(name));
    let open = |id: SegmentId| Segment::open(storage, id.path(dir), id, keyring).map(Arc::new);
    let mut segments = ids.map(open).collect::<Result<Vec<_>>>()?;
    let mut strays: Vec<PathBuf> = names
        .iter()
        .filter(|name| SegmentId::is_stray(name))
        .map(|name| dir.join(name))
        .collect();
    for id in names
        .iter()
        .filter_map(|name| SegmentId::parse_unnamed(name))
    {
        let path = id.unnamed_path(dir);
        match Segment::open(storage, path.clone(), id, keyring) {
            Ok(segment) => segments.push(Arc::new(segment)),
            // Its header never got to the disk, and nobody was told of anything in it.
            Err(Error::Corrupt { .. }) => strays.push(path),
            Err(error) => return Err(error),
        }
    }
    for path in strays {
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
pub(super) fn remove_retired(
    storage: &dyn Storage,
    manifest: &Manifest,
    segments: &mut Files,
) -> Result<()> {
    for segment in segments.iter().filter(|s| manifest.is_retired(s.id())) {
        storage
            .remove(&segment.path)
            .map_err(|error| Error::io("remove", &segment.path, error))?;
    }
    segments.retain(|segment| !manifest.is_retired(segment.id()));
    Ok(())
}

/// The log's beginning, if there may be one.
pub(super) fn create_first_segment(
    storage: &dyn Storage,
    path: &Path,
    dir: &Path,
    (options, keyring): (&Options, &Keyring),
    segments: &mut Files,
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
    let header = SegmentHeader::new(identity, SegmentId(1), Lsn(1));
    let cipher = current(keyring, &identity, path)?;
    let site = Site::new(storage, dir, &cipher, options.defects);
    segments.push(Arc::new(Segment::create(&site, header, &[], 0)?));
    site.sync_names()
}

/// The identity that all files share.
pub(super) fn identity<'a>(
    segments: impl IntoIterator<Item = &'a Arc<Segment>>,
) -> Result<Identity> {
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

/// Removes files of the index that the catalog does not name.
pub(super) fn remove_stray_runs(
    storage: &dyn Storage,
    path: &Path,
    shelf: &mut Shelf,
) -> Result<()> {
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
