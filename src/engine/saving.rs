//! Bringing the catalog up to date, and closing a store.

use std::sync::Arc;

use super::Engine;
use crate::catalog::{FeedChanges, Save};
use crate::defects::Defect;
use crate::error::Result;
use crate::feed::state::FeedState;
use crate::index::run;
use crate::log::segment::Segment;
use crate::primitives::atomic::Ordering;

impl Engine {
    /// Closes the log and saves the catalog as of a clean end.
    pub(crate) fn close(&self) -> Result<()> {
        if !self.closing.close() {
            return Ok(());
        }
        drop(self.background.lock().take());
        // Whoever compacts finds out soon. Until then the store is not free for the next opener.
        let _packing = self.packing.lock();
        let saved = self.log.close().and_then(|()| self.save_clean_end());
        self.log.trim();
        for feed in self.feeds.lock().streams.values() {
            feed.close();
        }
        self.events.close();
        // The last writer of the catalog's file is its database, when it is dropped.
        self.catalog.lock().disconnect();
        drop(self.lock.lock().take());
        saved
    }

    /// Notes in the log and in the catalog that the store ends here, unless both say so already.
    fn save_clean_end(&self) -> Result<()> {
        let untouched = {
            let catalog = self.catalog.lock();
            catalog.root.clean && !catalog.stale && self.log.appended_bytes() == 0
        };
        if untouched {
            return Ok(());
        }
        self.log.mark_closed()?;
        self.save_catalog(true)
    }

    /// Bytes of log that the catalog does not know of.
    pub(crate) fn catalog_lag(&self) -> u64 {
        let saved = self.saved_bytes.load(Ordering::Relaxed);
        self.log.appended_bytes().saturating_sub(saved)
    }

    /// Brings the catalog up to date. `clean` says that the log was just closed.
    pub(crate) fn save_catalog(&self, clean: bool) -> Result<()> {
        let mut catalog = self.catalog.lock();
        let whole = catalog.stale;
        let bytes = self.log.appended_bytes();
        let position = self.log.durable_position()?;
        let (open, dropped) = {
            let feeds = self.feeds.lock();
            let open: Vec<Arc<FeedState>> = feeds.streams.values().cloned().collect();
            (open, feeds.dropped.clone())
        };
        let feeds: Vec<FeedChanges> = open
            .iter()
            .filter(|feed| !dropped.contains(&feed.stream()))
            .filter_map(|feed| feed.changes(whole))
            .filter(|_| !self.options.defects.has(Defect::StaleCatalog))
            .collect();
        let state = self.state.changes(whole);
        let manifest = self.manifest.lock().clone();
        let (shelf, obsolete) = self.shelf.lock().save();
        // Read last: rows may know of frames that became durable after the position was taken.
        // What is published is durable, a moment before the log says so.
        let published = feeds.iter().map(|feed| feed.row.lsn).max();
        let durable_lsn = self.log.durable().0.max(published.unwrap_or_default());
        let mut root = catalog.root;
        (root.durable_lsn, root.clean) = (durable_lsn, clean);
        root.set_position(position);
        let saved = catalog.save(Save {
            root,
            feeds,
            manifest: &manifest,
            shelf,
            dropped: &dropped,
            state: &state,
            whole,
        });
        let rows = match saved {
            Ok(rows) => rows,
            Err(error) => {
                self.shelf.lock().keep_obsolete(obsolete);
                return Err(error);
            }
        };
        for id in obsolete {
            // If that fails, the next open removes it.
            let path = run::path_of(&self.index_dir, id);
            let _ = self.options.storage.remove(&path);
        }
        let mut feeds = self.feeds.lock();
        feeds
            .rows
            .extend(rows.into_iter().map(|row| (row.stream(), row)));
        for stream in &dropped {
            feeds.dropped.remove(stream);
            feeds.rows.remove(stream);
        }
        drop(feeds);
        drop(open);
        self.saved_bytes.store(bytes, Ordering::Relaxed);
        self.forget_idle(&catalog);
        Ok(())
    }

    /// Removes files of the log that the manifest does not count any more. The catalog must have
    /// been saved with it. Returns those that are gone, whose space can be [given
    /// back](crate::log::release).
    pub(crate) fn remove_retired(&self) -> Result<Vec<Arc<Segment>>> {
        let manifest = self.manifest.lock().clone();
        let segments = self.log.segments();
        let retired = segments.iter().filter(|s| manifest.is_retired(s.id()));
        // All that can be removed are; what cannot is tried again the next time.
        let removed: Vec<_> = retired.map(|segment| self.log.remove(segment)).collect();
        let removed: Result<Vec<_>> = removed.into_iter().collect();
        Ok(removed?.into_iter().flatten().collect())
    }
}
