//! Making a store of a backup.

use std::path::Path;

use crate::backup::cut::Part;
use crate::backup::marker::{Marker, path_in};
use crate::backup::{Target, is_empty};
use crate::error::{Error, Result};
use crate::options::Options;
use crate::recovery::{Opening, lock};
use crate::storage::OpenMode;
use crate::store::Store;
use crate::verify::VerifyReport;

/// What was restored. See [`Options::restore`].
#[derive(Debug)]
#[non_exhaustive]
pub struct Restored {
    /// Files that were copied.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// What the verification of the restored store looked at; nothing was damaged.
    pub verified: VerifyReport,
}

/// See [`Options::restore`].
pub(crate) fn restore(
    options: Options,
    from: &Path,
    to: &Path,
    mut progress: impl FnMut(u64, u64),
) -> Result<Restored> {
    let storage = options.storage.clone();
    let missing = || Error::NotABackup {
        path: from.to_owned(),
    };
    // Before the lock file is made: there must be no trace of a look at nothing.
    Marker::read(storage.as_ref(), from)?.ok_or_else(missing)?;
    let _lock = lock(storage.as_ref(), from)?;
    let marker = Marker::read(storage.as_ref(), from)?.ok_or_else(missing)?;
    marker.check(storage.as_ref(), from)?;
    if !is_empty(storage.as_ref(), to)? {
        return Err(Error::Occupied {
            path: to.to_owned(),
        });
    }
    let mut target = Target::begin(&storage, to, marker.store, marker.branch)?;
    let total: u64 = marker.files.values().map(|file| file.len).sum();
    let mut done = 0;
    for (name, file) in &marker.files {
        let path = path_in(from, name);
        let source = storage.open(&path, OpenMode::Existing);
        let source = source.map_err(|error| Error::io("open", &path, error))?;
        target.add(&Part {
            name: name.clone(),
            path,
            file: source,
            len: file.len,
            // What is damaged in one of the two must not be damaged in the other.
            is_final: false,
            is_there: false,
        })?;
        done += file.len;
        progress(done, total);
    }
    target.sync()?;
    drop(target);
    Ok(Restored {
        files: marker.files.len() as u64,
        bytes: total,
        verified: accept(options, to, false)?,
    })
}

/// Opens a store that was just made of something else, verifies it, and lets it be one.
pub(crate) fn accept(options: Options, dir: &Path, rebuild: bool) -> Result<VerifyReport> {
    let storage = options.storage.clone();
    let opening = Opening {
        rebuild,
        filled: true,
    };
    let options = options.background(false).create(false);
    let store = Store::open_with(dir, options, opening)?;
    let mut report = store.verify(|_, _| {})?;
    if !report.is_clean() {
        return Err(report.damage.swap_remove(0));
    }
    store.close()?;
    Marker::remove(storage.as_ref(), dir)?;
    Ok(report)
}
