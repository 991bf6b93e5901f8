//! Counts and sizes of feeds and of the store.

use crate::consumers::ConsumerInfo;
use crate::feed::FeedKey;
use crate::feed::state::FeedState;
use crate::primitives::atomic::Ordering;

/// Counts and sizes of one feed.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
#[non_exhaustive]
pub struct FeedStats {
    /// Live records.
    pub live: u64,
    /// Bytes of the live records' payloads.
    pub live_bytes: u64,
    /// Deleted records that the feed still shows.
    pub deleted: u64,
    /// Frames of the log that hold the feed's records.
    pub frames: u64,
    /// Memory of the feed's index, in bytes; 0 when it is not loaded.
    pub index_bytes: u64,
    /// Memory of the feed's directory of frames, in bytes.
    pub directory_bytes: u64,
    /// Named consumers.
    pub consumers: u64,
    /// How many records the consumer that is furthest behind has yet to see.
    pub max_lag: u64,
    /// Open deletion windows.
    pub windows: u64,
}

impl FeedStats {
    pub(crate) fn of(feed: &FeedState, consumers: &[ConsumerInfo]) -> Self {
        let index_bytes = feed.memory.load(Ordering::Relaxed) as u64;
        let published = feed.published.read();
        let shown = published.directory.live_through(published.tail);
        Self {
            live: published.live,
            live_bytes: published.live_bytes,
            deleted: shown.saturating_sub(published.live),
            frames: published.directory.frames().len() as u64,
            index_bytes,
            directory_bytes: published.directory.memory() as u64,
            consumers: consumers.len() as u64,
            max_lag: consumers.iter().map(|info| info.lag).max().unwrap_or(0),
            windows: published.marks.windows.len() as u64,
        }
    }
}

/// Counts and sizes of a store.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
#[non_exhaustive]
pub struct StoreStats {
    /// Feeds that were ever written to.
    pub feeds: u64,
    /// Live records of all feeds.
    pub live: u64,
    /// Bytes of the live records' payloads of all feeds.
    pub live_bytes: u64,
    /// Segments of the log.
    pub segments: u64,
    /// Bytes of the log's files, space reserved ahead included.
    pub log_bytes: u64,
    /// Bytes of frames appended since the store was opened.
    pub appended_bytes: u64,
    /// Syncs of the log since the store was opened.
    pub syncs: u64,
    /// Memory of all loaded indexes, in bytes.
    pub index_bytes: u64,
}

/// One row of a store's list of feeds.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct FeedInfo {
    /// What names the feed.
    pub key: FeedKey,
    /// Live records.
    pub live: u64,
    /// Bytes of the live records' payloads.
    pub live_bytes: u64,
}
