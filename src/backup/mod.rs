//! Backups: a store as it was at one moment, in a directory of its own, while writers go on.
//!
//! Files of the log and of the index that never change any more are given a second name there, or
//! copied where the file system cannot do that. The open segment is copied up to where it is on
//! stable storage, and the catalog row by row. What is linked is never written to again: nobody
//! [recycles](crate::log::spares) or [cuts](crate::log::segment::Segment::cut) it.
//!
//! * [`marker`]: whether a backup is whole
//! * [`cut`]: the files that are the store at one moment
//! * [`restore`]: the way back

pub(crate) mod cut;
pub(crate) mod marker;
pub(crate) mod restore;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::backup::cut::{Cut, Part};
use crate::backup::marker::{File, Marker, path_in, remove_if_there};
use crate::branch::Branch;
use crate::engine::{Engine, INDEX_DIR};
use crate::error::{Error, Result};
use crate::recovery::{LOCK_NAME, LOG_DIR, lock};
use crate::storage::{OpenMode, Storage, StorageLock, copy, try_link};

/// What a backup did. See [`Store::backup`](crate::Store::backup).
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, serde::Serialize)]
#[non_exhaustive]
pub struct BackedUp {
    /// Files of the store that an earlier backup in the directory had already.
    pub kept: u64,
    /// Files that the backup shares with the store.
    pub linked: u64,
    /// Files that were copied.
    pub copied: u64,
    /// Their bytes.
    pub copied_bytes: u64,
}

/// Backs the store up into a directory. `progress` is told the bytes that are done and the bytes
/// there are.
pub(crate) fn backup(
    engine: &Engine,
    to: &Path,
    mut progress: impl FnMut(u64, u64),
) -> Result<BackedUp> {
    let store = engine.log.identity().store;
    let mut target = Target::begin(&engine.options.storage, to, store, engine.branch())?;
    let cut = Cut::take(engine, to)?;
    target.remove_strays(&cut.parts)?;
    let total: u64 = cut.parts.iter().map(|part| part.len).sum();
    let mut done = 0;
    for part in &cut.parts {
        engine.check_not_closed()?;
        target.add(part)?;
        done += part.len;
        progress(done, total);
    }
    // Somebody else may have changed what was read after the store was closed.
    engine.check_not_closed()?;
    target.finish()
}

/// A directory that is being filled, and is marked so.
pub(crate) struct Target {
    storage: Arc<dyn Storage>,
    dir: PathBuf,
    /// Says that the backup is not whole, and lists what of an earlier one is still good.
    marker: Marker,
    files: BTreeMap<String, File>,
    done: BackedUp,
    _lock: Box<dyn StorageLock>,
}

impl Target {
    /// Takes a directory that is empty, or has a backup of the same store; creates it if needed.
    pub(crate) fn begin(
        storage: &Arc<dyn Storage>,
        dir: &Path,
        store: [u8; 16],
        branch: Branch,
    ) -> Result<Self> {
        let before = match is_empty(storage.as_ref(), dir)? {
            true => None,
            false => Marker::read(storage.as_ref(), dir)?.filter(|before| before.store == store),
        };
        if before.is_none() && !is_empty(storage.as_ref(), dir)? {
            return Err(Error::Occupied {
                path: dir.to_owned(),
            });
        }
        create_dirs(storage.as_ref(), dir)?;
        let lock = lock(storage.as_ref(), dir)?;
        // On another branch, files of the same name hold something else.
        let same_branch = before.filter(|before| before.branch == branch);
        let mut kept = same_branch.map(|before| before.files).unwrap_or_default();
        kept.retain(|_, file| file.is_final);
        let marker = Marker {
            whole: false,
            store,
            branch,
            files: kept,
        };
        marker.write(storage.as_ref(), dir)?;
        Ok(Self {
            storage: storage.clone(),
            dir: dir.to_owned(),
            marker,
            files: BTreeMap::new(),
            done: BackedUp::default(),
            _lock: lock,
        })
    }

    /// Removes what is neither part of the new backup nor good for it.
    fn remove_strays(&mut self, parts: &[Part]) -> Result<()> {
        let good = |name: &str| {
            let part = parts.iter().find(|part| part.name == name);
            let known = self.marker.files.get(name);
            part.zip(known)
                .is_some_and(|(part, known)| part.is_final && part.len == known.len)
        };
        for folder in [LOG_DIR, INDEX_DIR] {
            let dir = self.dir.join(folder);
            let failed = |error| Error::io("remove files from", &dir, error);
            for name in self.storage.list(&dir).map_err(failed)? {
                if !good(&format!("{folder}/{name}")) {
                    self.storage.remove(&dir.join(name)).map_err(failed)?;
                }
            }
        }
        Ok(())
    }

    /// Adds a file, unless it is there from an earlier backup.
    pub(crate) fn add(&mut self, part: &Part) -> Result<()> {
        let path = path_in(&self.dir, &part.name);
        let file = File {
            len: part.len,
            is_final: part.is_final,
        };
        self.files.insert(part.name.clone(), file);
        if part.is_there {
            return Ok(());
        }
        if self.marker.files.get(&part.name) == Some(&file) && self.has(&path, part.len) {
            self.done.kept += 1;
            return Ok(());
        }
        let storage = self.storage.as_ref();
        let add = || -> std::io::Result<bool> {
            remove_if_there(storage, &path)?;
            if part.is_final && try_link(storage, &part.path, &path)? {
                return Ok(true);
            }
            copy(storage, part.file.as_ref(), part.len, &path)?;
            Ok(false)
        };
        match add().map_err(|error| Error::io("copy to", &path, error))? {
            true => self.done.linked += 1,
            false => {
                self.done.copied += 1;
                self.done.copied_bytes += part.len;
            }
        }
        Ok(())
    }

    fn has(&self, path: &Path, len: u64) -> bool {
        let file = self.storage.open(path, OpenMode::Existing);
        file.is_ok_and(|file| file.len().is_ok_and(|found| found == len))
    }

    /// Puts everything on stable storage, and says that the backup is whole.
    fn finish(self) -> Result<BackedUp> {
        self.sync()?;
        let marker = Marker {
            whole: true,
            files: self.files,
            ..self.marker
        };
        marker.write(self.storage.as_ref(), &self.dir)?;
        Ok(self.done)
    }

    /// Puts everything on stable storage.
    pub(crate) fn sync(&self) -> Result<()> {
        for dir in [
            self.dir.join(LOG_DIR),
            self.dir.join(INDEX_DIR),
            self.dir.clone(),
        ] {
            let synced = self.storage.sync_dir(&dir);
            synced.map_err(|error| Error::io("sync directory", &dir, error))?;
        }
        Ok(())
    }
}

/// Whether a directory is empty, or not there. A lock without anything locked is nothing.
pub(crate) fn is_empty(storage: &dyn Storage, dir: &Path) -> Result<bool> {
    for dir in [dir.to_owned(), dir.join(LOG_DIR), dir.join(INDEX_DIR)] {
        let names = match storage.list(&dir) {
            Ok(names) => names,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(Error::io("list", &dir, error)),
        };
        let left = |name: &String| name != LOCK_NAME && !name.ends_with(".tmp");
        if names.iter().any(left) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn create_dirs(storage: &dyn Storage, dir: &Path) -> Result<()> {
    for dir in [dir.join(LOG_DIR), dir.join(INDEX_DIR)] {
        let created = storage.create_dir_all(&dir);
        created.map_err(|error| Error::io("create", &dir, error))?;
    }
    for dir in dir.parent().into_iter().chain([dir]) {
        let synced = storage.sync_dir(dir);
        synced.map_err(|error| Error::io("sync directory", dir, error))?;
    }
    Ok(())
}
