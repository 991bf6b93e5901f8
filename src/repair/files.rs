//! The files of a damaged log: every one that can be opened, whatever its header says, and the
//! frames in it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use crate::encryption::{Cipher, Keyring, Sealed};
use crate::error::{Error, Result};
use crate::log::format::{
    FORMAT_VERSION, FRAME_ALIGN, FRAME_HEADER_LEN, FRAME_MAGIC, FrameHeader, HeaderError, Identity,
    SEGMENT_HEADER_LEN, SegmentHeader,
};
use crate::log::manifest::Manifest;
use crate::log::scan::Scanned;
use crate::log::segment::{Segment, sealed_as};
use crate::log::{Lsn, SegmentId};
use crate::storage::{OpenMode, Storage, StorageFile};

/// What is read at once when frames are looked for.
const WINDOW: u64 = 1 << 20;
/// What is given up at once where the disk refuses to read.
const SECTOR: usize = 4096;

/// See the module.
pub(crate) struct Files {
    pub(crate) identity: Identity,
    /// Segments and packs by their ids.
    pub(crate) by_id: BTreeMap<SegmentId, Arc<Segment>>,
    /// The last segment, whether or not it could be opened.
    pub(crate) last: Option<SegmentId>,
    /// Whether there is no sign that some are missing that were never there.
    pub(crate) are_all: bool,
    /// Those whose header is not intact, so that where they begin has to be guessed.
    guessed: BTreeSet<SegmentId>,
}

/// A file as it was found.
struct Candidate {
    id: SegmentId,
    file: Arc<dyn StorageFile>,
    path: std::path::PathBuf,
    bytes: [u8; SEGMENT_HEADER_LEN],
    header: Result<(SegmentHeader, Cipher), HeaderError>,
}

impl Files {
    /// Opens everything in the directory of a log.
    ///
    /// # Errors
    /// [`Error::UnknownFormat`] when a newer version wrote the store; [`Error::Corrupt`] when no file
    /// tells whose it is.
    pub(crate) fn open(
        storage: &dyn Storage,
        dir: &Path,
        keyring: &Keyring,
        damage: &mut Vec<Error>,
    ) -> Result<Self> {
        let names = storage.list(dir);
        let names = names.map_err(|error| Error::io("list", dir, error))?;
        let mut candidates = Vec::new();
        let ids = || names.iter().filter_map(|name| SegmentId::parse(name));
        for id in ids() {
            let path = id.path(dir);
            match storage.open(&path, OpenMode::Existing) {
                Ok(file) => candidates.push(Candidate::read(id, path, file, keyring)),
                Err(error) => damage.push(Error::io("open", &path, error)),
            }
        }
        for id in names
            .iter()
            .filter_map(|name| SegmentId::parse_unnamed(name))
        {
            let path = id.unnamed_path(dir);
            let file = storage.open(&path, OpenMode::Existing);
            let file = file.map_err(|error| Error::io("open", &path, error))?;
            let found = Candidate::read(id, path, file, keyring);
            // One whose header never got to the disk is no damage.
            if found.header.is_ok() {
                candidates.push(found);
            }
        }
        let begun: Vec<SegmentId> = candidates.iter().map(|candidate| candidate.id).collect();
        let identity = identity(&candidates, dir)?;
        let opened = candidates.iter().rev();
        let newest = opened
            .filter_map(|candidate| candidate.header.as_ref().ok())
            .next();
        let newest = newest.and_then(|(_, cipher)| cipher.clone());
        let mut files = Self {
            identity,
            by_id: BTreeMap::new(),
            last: ids().chain(begun).filter(|id| !id.is_pack()).max(),
            are_all: true,
            guessed: BTreeSet::new(),
        };
        for candidate in candidates {
            files.add(candidate, &newest, damage);
        }
        Ok(files)
    }

    /// A file whose header is damaged is taken to be under the cipher that the newest one is under.
    fn add(&mut self, candidate: Candidate, newest: &Cipher, damage: &mut Vec<Error>) {
        let Candidate { id, file, path, .. } = candidate;
        let mut header = SegmentHeader::new(self.identity, id, Lsn(0));
        let mut cipher = newest.clone();
        match candidate.header {
            Ok((intact, _)) if intact.identity != self.identity => {
                damage.push(Error::corrupt(
                    &path,
                    0,
                    "the file belongs to another store",
                ));
                return;
            }
            Ok((intact, sealed)) if intact.id == id => (header, cipher) = (intact, sealed),
            Ok(_) => {
                damage.push(Error::corrupt(
                    &path,
                    0,
                    "the file belongs under another name",
                ));
                return;
            }
            Err(_) => {
                damage.push(Error::corrupt(&path, 0, "segment header"));
                self.guessed.insert(id);
            }
        }
        let mut segment = Segment {
            header,
            cipher,
            path,
            file,
        };
        if self.guessed.contains(&id) && !id.is_pack() {
            // A segment begins with its first frame, which repeats what the header says.
            let found = first_frame(&segment);
            let Some(found) = found else {
                return;
            };
            segment.header.first_lsn = found.lsn;
            segment.header.chain = found.chain;
            segment.header.generation = found.generation.into();
        }
        self.by_id.insert(id, Arc::new(segment));
    }

    /// The segments of the log that count, each with the LSN from which a later one supersedes it.
    pub(crate) fn log(&self, manifest: &Manifest) -> Vec<(Arc<Segment>, Lsn)> {
        let segments = self
            .by_id
            .values()
            .filter(|segment| !segment.id().is_pack());
        let segments: Vec<Arc<Segment>> = segments.cloned().collect();
        crate::log::scan::in_force(&segments, manifest)
    }

    /// The packs, oldest first.
    pub(crate) fn packs(&self) -> Vec<Arc<Segment>> {
        let packs = self.by_id.values().filter(|segment| segment.id().is_pack());
        packs.cloned().collect()
    }
}

impl Candidate {
    fn read(
        id: SegmentId,
        path: std::path::PathBuf,
        file: Arc<dyn StorageFile>,
        keyring: &Keyring,
    ) -> Self {
        let mut bytes = [0; SEGMENT_HEADER_LEN];
        read_what_is_there(file.as_ref(), &mut bytes, 0);
        Self {
            id,
            file,
            path,
            header: SegmentHeader::decode(&bytes, keyring),
            bytes,
        }
    }

    /// Whether a newer version wrote it.
    fn is_newer(&self) -> bool {
        matches!(self.header, Err(HeaderError::UnknownVersion(_)))
    }
}

/// Whose log it is: what most headers say, or else a damaged one whose secret fits the frames.
fn identity(candidates: &[Candidate], dir: &Path) -> Result<Identity> {
    let mut votes: Vec<(usize, Identity)> = Vec::new();
    for (header, _) in candidates
        .iter()
        .filter_map(|candidate| candidate.header.as_ref().ok())
    {
        match votes
            .iter_mut()
            .find(|(_, known)| *known == header.identity)
        {
            Some((votes, _)) => *votes += 1,
            None => votes.push((1, header.identity)),
        }
    }
    if let Some((_, identity)) = votes.iter().max_by_key(|(votes, _)| *votes) {
        return Ok(*identity);
    }
    for candidate in candidates {
        let path = candidate.path.clone();
        match candidate.header {
            Err(HeaderError::UnknownVersion(found))
                if candidates.iter().all(Candidate::is_newer) =>
            {
                return Err(Error::UnknownFormat {
                    path,
                    found,
                    supported: FORMAT_VERSION,
                });
            }
            Err(HeaderError::NotEncrypted) => return Err(Error::NotEncrypted { path }),
            Err(HeaderError::Sealed(sealed)) if sealed != Sealed::Damaged => {
                return Err(sealed_as(sealed, &path));
            }
            _ => {}
        }
    }
    for candidate in candidates {
        let Some(secret) = candidate.bytes.get(64..96).and_then(|it| it.first_chunk()) else {
            continue;
        };
        let identity = Identity::of(*secret);
        let fits = |other: &Candidate| {
            let header = SegmentHeader::new(identity, other.id, Lsn(0));
            let (path, file) = (other.path.clone(), other.file.clone());
            let cipher = None;
            first_frame(&Segment {
                header,
                cipher,
                path,
                file,
            })
            .is_some()
        };
        if candidates.iter().any(fits) {
            return Ok(identity);
        }
    }
    Err(Error::corrupt(
        dir,
        0,
        "no file of the log says which store it is of",
    ))
}

fn first_frame(segment: &Segment) -> Option<FrameHeader> {
    next_frame(segment, SEGMENT_HEADER_LEN as u64).map(|(_, header, _)| header)
}

/// The first frame header at or after `from`: where it is, what it says, and its checksum.
pub(crate) fn next_frame(segment: &Segment, from: u64) -> Option<(u64, FrameHeader, u32)> {
    let len = segment.len().unwrap_or(0);
    let mut at = from.next_multiple_of(FRAME_ALIGN as u64);
    // Mostly it is right there.
    let mut head = [0; FRAME_HEADER_LEN];
    read_what_is_there(segment.file.as_ref(), &mut head, at);
    if let Some((header, sum)) = FrameHeader::decode(&head, at, segment.header.nonce) {
        return Some((at, header, sum));
    }
    let mut window = Vec::new();
    while at + FRAME_HEADER_LEN as u64 <= len {
        // Windows overlap, so that no header is cut in two.
        window.resize((len - at).min(WINDOW) as usize, 0);
        read_what_is_there(segment.file.as_ref(), &mut window, at);
        let last = window.len() - FRAME_HEADER_LEN;
        for start in (0..=last).step_by(FRAME_ALIGN) {
            let bytes = &window[start..];
            if !bytes.starts_with(&FRAME_MAGIC) {
                continue;
            }
            let offset = at + start as u64;
            if let Some((header, sum)) = FrameHeader::decode(bytes, offset, segment.header.nonce) {
                return Some((offset, header, sum));
            }
        }
        at += (last / FRAME_ALIGN * FRAME_ALIGN + FRAME_ALIGN) as u64;
    }
    None
}

/// All frames of a file whose headers are intact, in order. What is between them and is none is
/// damage, unless it is the end.
pub(crate) fn frames_in(segment: &Arc<Segment>, damage: &mut Vec<Error>) -> Vec<Scanned> {
    let mut frames = Vec::new();
    let mut at = SEGMENT_HEADER_LEN as u64;
    while let Some((offset, header, sum)) = next_frame(segment, at) {
        if offset != at {
            damage.push(Error::corrupt(&segment.path, at, "frame"));
        }
        at = offset + header.frame_len();
        frames.push(Scanned {
            segment: segment.clone(),
            offset,
            header,
            sum,
        });
    }
    frames
}

/// Reads as much as there is; the rest is zero, and so is what the disk refuses to read. Whoever
/// reads this way checks what it got.
pub(crate) fn read_what_is_there(file: &dyn StorageFile, bytes: &mut [u8], offset: u64) {
    bytes.fill(0);
    let len = file.len().unwrap_or(0).saturating_sub(offset);
    let there = len.min(bytes.len() as u64) as usize;
    let bytes = &mut bytes[..there];
    if file.read_exact_at(bytes, offset).is_ok() {
        return;
    }
    let mut at = offset;
    for sector in bytes.chunks_mut(SECTOR) {
        if file.read_exact_at(sector, at).is_err() {
            sector.fill(0);
        }
        at += sector.len() as u64;
    }
}
