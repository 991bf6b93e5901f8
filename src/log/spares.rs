//! Files that compaction has replaced, kept to become segments again: a sync into space that was
//! written before has no metadata to write, and takes little more than half the time.
//!
//! A spare has a name of its own: the next open removes it, if it is still there then. What it holds is told from what is appended to it as a new segment by the nonce
//! in every frame.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::log::segment::Segment;
use crate::primitives::Mutex;
use crate::storage::{Storage, StorageFile};

/// How many files are kept.
const SPARES_MAX: usize = 1;

/// See the module.
#[derive(Default)]
pub(crate) struct Spares(Mutex<Vec<Spare>>);

/// A file to make a segment of.
pub(crate) struct Spare {
    pub(crate) path: PathBuf,
    was: Arc<Segment>,
}

impl Spare {
    pub(crate) fn file(&self) -> Arc<dyn StorageFile> {
        self.was.file.clone()
    }
}

impl Spares {
    /// Keeps a file that no directory names any more, if there is room for one more, it is about as
    /// large as a segment, and no backup has it; false when it should be removed.
    pub(crate) fn keep(
        &self,
        storage: &dyn Storage,
        dir: &Path,
        file: &Arc<Segment>,
        segment_size: u64,
    ) -> bool {
        let mut spares = self.0.lock();
        let fits = |len: u64| (segment_size / 2..=2 * segment_size).contains(&len);
        if spares.len() == SPARES_MAX || !file.len().is_ok_and(fits) {
            return false;
        }
        // A backup that knows the file by its old name cannot begin to share it under the new one.
        if !file.file.is_linked().is_ok_and(|linked| !linked) {
            return false;
        }
        let path = file.id().spare_path(dir);
        if storage.rename(&file.path, &path).is_err() {
            return false;
        }
        // Order: the name that it had must be gone for good before the file says something else. Here
        // no writer waits for it.
        if storage.sync_dir(dir).is_ok() {
            let was = file.clone();
            spares.push(Spare { path, was });
        } else {
            // No spare then. If it cannot be removed either, the next open does it.
            let _ = storage.remove(&path);
        }
        true
    }

    /// A file that nobody reads from any more.
    pub(crate) fn take(&self) -> Option<Spare> {
        let mut spares = self.0.lock();
        // Whoever would read has to find it in a directory first, and none has it.
        let unread = |spare: &Spare| Arc::strong_count(&spare.was) == 1;
        let at = spares.iter().position(unread)?;
        Some(spares.swap_remove(at))
    }

    /// Removes all of them; harmless if it fails.
    pub(crate) fn give_up(&self, storage: &dyn Storage) {
        for spare in self.0.lock().drain(..) {
            let _ = storage.remove(&spare.path);
        }
    }
}
