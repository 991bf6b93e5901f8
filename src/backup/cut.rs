//! The files that are a store at one moment, held open so that nothing can take them away.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::catalog::Catalog;
use crate::engine::{Engine, INDEX_DIR};
use crate::error::{Error, Result};
use crate::index::run;
use crate::log::segment::Segment;
use crate::recovery::LOG_DIR;
use crate::storage::{OpenMode, StorageFile};

/// A file of a backup.
pub(crate) struct Part {
    /// Its path in a backup.
    pub(crate) name: String,
    /// Where it is, as long as nobody has moved it.
    pub(crate) path: PathBuf,
    pub(crate) file: Arc<dyn StorageFile>,
    pub(crate) len: u64,
    /// Whether it never changes any more.
    pub(crate) is_final: bool,
    /// Whether the backup has it already.
    pub(crate) is_there: bool,
}

/// See the module.
pub(crate) struct Cut {
    pub(crate) parts: Vec<Part>,
    /// As long as somebody has them, no file is made a segment of again.
    _segments: Vec<Arc<Segment>>,
}

impl Cut {
    /// Looks which files are the store now, and copies the catalog into `to`.
    ///
    /// Order: the catalog first, then the end of the log, which is past everything that the catalog
    /// knows of. No file is replaced in between; compaction goes on after that.
    pub(crate) fn take(engine: &Engine, to: &Path) -> Result<Self> {
        let _packing = engine.packing.lock();
        engine.save_catalog(false)?;
        let storage = &engine.options.storage;
        let mut parts = Vec::new();
        let manifest = {
            let mut catalog = engine.catalog.lock();
            let named = catalog.copy_to(storage, to)?;
            // Runs that are obsolete go when the catalog is saved, which waits for this.
            for id in named.runs {
                let path = run::path_of(&engine.index_dir, id);
                // Without one the index is derived from the log.
                if let Ok(file) = storage.open(&path, OpenMode::Existing) {
                    parts.push(Part::of(INDEX_DIR, path, file, None)?);
                }
            }
            named.manifest
        };
        let end = engine.log.durable_position()?;
        let mut segments = engine.log.segments();
        segments.retain(|segment| {
            let id = segment.id();
            !manifest.is_retired(id) && (id.is_pack() || id <= end.segment)
        });
        for segment in &segments {
            let open_until = (segment.id() == end.segment).then_some(end.offset);
            let (path, file) = (segment.path.clone(), segment.file.clone());
            parts.push(Part::of(LOG_DIR, path, file, open_until)?);
        }
        parts.push(Part::catalog(engine, to)?);
        Ok(Self {
            parts,
            _segments: segments,
        })
    }
}

impl Part {
    /// A file in one of the store's folders; `open_until` is how much counts of one that is still
    /// written to.
    pub(crate) fn of(
        folder: &str,
        path: PathBuf,
        file: Arc<dyn StorageFile>,
        open_until: Option<u64>,
    ) -> Result<Self> {
        let len = match open_until {
            Some(len) => len,
            None => file
                .len()
                .map_err(|error| Error::io("measure", &path, error))?,
        };
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        Ok(Self {
            name: format!("{folder}/{name}"),
            path,
            file,
            len,
            is_final: open_until.is_none(),
            is_there: false,
        })
    }

    fn catalog(engine: &Engine, to: &Path) -> Result<Self> {
        let path = Catalog::path_in(to);
        let failed = |error| Error::io("open", &path, error);
        let file = engine.options.storage.open(&path, OpenMode::Existing);
        let file = file.map_err(failed)?;
        let len = file.len().map_err(failed)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        Ok(Self {
            name: name.into_owned(),
            path: path.clone(),
            file,
            len,
            is_final: false,
            is_there: true,
        })
    }
}
