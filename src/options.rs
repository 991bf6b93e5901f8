//! How a store is opened, and what can be set per feed.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::backup::restore::{Restored, restore};
use crate::compression::Compression;
use crate::defects::Defects;
use crate::encryption::Encryption;
use crate::error::{Error, Result};
use crate::index::residency::Limits;
use crate::recovery::Opening;
use crate::repair::repair;
use crate::repair::report::Repaired;
use crate::retention::maintain::Retention;
use crate::storage::{Clock, OsStorage, Storage, SystemClock};
use crate::store::Store;

/// When a write call returns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Durability {
    /// Once the change is on stable storage. Concurrent writers share one sync.
    Durable,
    /// Once the change was handed to the operating system: it survives the process, and a power
    /// failure only if the next sync came before it. Every `interval`, on [`Store::flush`] and on
    /// close, everything is synced.
    ///
    /// Readers never see a change that could still be lost: a read that meets changes which are
    /// not synced yet has them synced first. So consumers converge after a power failure too.
    Relaxed {
        /// The time between two syncs.
        interval: Duration,
    },
}

/// Options for opening a store. Each method takes and returns the options.
///
/// ```
/// use highwater::{Durability, Options};
/// use std::time::Duration;
///
/// # let dir = tempfile::tempdir().unwrap();
/// let store = Options::new()
///     .durability(Durability::Relaxed { interval: Duration::from_millis(100) })
///     .index_budget(64 << 20)
///     .open(dir.path())?;
/// # Ok::<(), highwater::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "options do nothing until a store is opened with them"]
pub struct Options {
    pub(crate) durability: Durability,
    pub(crate) index_budget: usize,
    pub(crate) payload_max: usize,
    pub(crate) segment_size: u64,
    pub(crate) checkpoint_bytes: u64,
    pub(crate) background: bool,
    pub(crate) compaction: bool,
    pub(crate) maintenance: Option<(Retention, Duration)>,
    pub(crate) runs_kept: u64,
    pub(crate) compression: Compression,
    #[cfg(feature = "zstd")]
    pub(crate) thresholds: crate::compression::Thresholds,
    pub(crate) encryption: Option<Encryption>,
    pub(crate) create: bool,
    pub(crate) secret: Option<[u8; 32]>,
    pub(crate) defects: Defects,
    #[cfg(feature = "simulate")]
    eager_compaction: bool,
    #[cfg(feature = "simulate")]
    index_limits: Option<Limits>,
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) clock: Arc<dyn Clock>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            durability: Durability::Durable,
            index_budget: 256 << 20,
            payload_max: 16 << 20,
            segment_size: 64 << 20,
            checkpoint_bytes: 64 << 20,
            background: true,
            compaction: true,
            maintenance: None,
            runs_kept: 20,
            compression: Compression::None,
            #[cfg(feature = "zstd")]
            thresholds: crate::compression::Thresholds::default(),
            encryption: None,
            create: true,
            secret: None,
            defects: Defects::default(),
            #[cfg(feature = "simulate")]
            eager_compaction: false,
            #[cfg(feature = "simulate")]
            index_limits: None,
            storage: Arc::new(OsStorage),
            clock: Arc::new(SystemClock),
        }
    }
}

impl Options {
    /// The defaults: durable, 256 MiB for indexes, payloads up to 16 MiB.
    pub fn new() -> Self {
        Self::default()
    }

    /// When a write call returns; [`Durability::Durable`] by default.
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// Memory for the indexes of all feeds together, in bytes; 256 MiB by default. Indexes that
    /// were not used for longest are dropped first, and read back when needed. The index of a feed
    /// that takes more than half of it goes into files, of which about 1.3 bytes a record stay in
    /// memory.
    pub fn index_budget(mut self, bytes: usize) -> Self {
        self.index_budget = bytes;
        self
    }

    /// The largest payload of a record, in bytes; 16 MiB by default, at most 1 GiB.
    pub fn payload_max(mut self, bytes: usize) -> Self {
        self.payload_max = bytes;
        self
    }

    /// The size of a log segment, in bytes; 64 MiB by default, from 4 KiB to 1 GiB. A frame that
    /// is larger gets a segment of its own.
    pub fn segment_size(mut self, bytes: u64) -> Self {
        self.segment_size = bytes;
        self
    }

    /// How many bytes of log may be written before the background thread brings the catalog up to
    /// date; 64 MiB by default. It bounds what an open after a crash has to read.
    pub fn checkpoint_bytes(mut self, bytes: u64) -> Self {
        self.checkpoint_bytes = bytes;
        self
    }

    /// Has the background thread maintain the store by a retention policy, every so often; off by
    /// default, when [`Store::maintain`] does it.
    pub fn maintenance(mut self, retention: Retention, every: Duration) -> Self {
        self.maintenance = Some((retention, every));
        self
    }

    /// How many reports of runs are kept for each sync; 20 by default, at least 1.
    pub fn runs_kept(mut self, runs: u64) -> Self {
        self.runs_kept = runs.max(1);
        self
    }

    /// Whether a background thread syncs (in relaxed durability) and keeps the catalog up to date;
    /// true by default. Without it, call [`Store::flush`] and [`Store::checkpoint_catalog`].
    pub fn background(mut self, background: bool) -> Self {
        self.background = background;
        self
    }

    /// Whether a background thread [compacts](Store::compact) the log as it grows; true by default.
    pub fn compaction(mut self, compaction: bool) -> Self {
        self.compaction = compaction;
        self
    }

    /// Whether the payloads of changed records are compressed from now on; [`Compression::None`] by
    /// default. What is stored already stays readable, and may be compressed when it is compacted.
    pub fn compression(mut self, compression: Compression) -> Self {
        self.compression = compression;
        self
    }

    /// Encrypts everything that is written, and opens encrypted stores only; off by default. A store
    /// is encrypted from its beginning, or not at all: see [`Error::NotEncrypted`].
    #[cfg(feature = "encryption")]
    pub fn encryption(mut self, encryption: Encryption) -> Self {
        self.encryption = Some(encryption);
        self
    }

    /// Has feeds get a dictionary from this many records and bytes on, for tests.
    #[cfg(all(feature = "simulate", feature = "zstd"))]
    #[doc(hidden)]
    pub fn dictionaries_from(mut self, records: u64, bytes: u64) -> Self {
        self.thresholds = crate::compression::Thresholds { records, bytes };
        self
    }

    /// Whether a store that does not exist is created; true by default.
    pub fn create(mut self, create: bool) -> Self {
        self.create = create;
        self
    }

    /// The key of a new store's fingerprints; from the operating system's random numbers by
    /// default. For tests that must repeat exactly. Ignored when the store exists; of an encrypted
    /// store, the first half counts.
    pub fn secret(mut self, secret: [u8; 32]) -> Self {
        self.secret = Some(secret);
        self
    }

    /// Breaks the engine on purpose, so that a test can show that it would notice.
    #[cfg(feature = "simulate")]
    #[doc(hidden)]
    pub fn defect(mut self, defect: crate::defects::Defect) -> Self {
        self.defects = defect.into();
        self
    }

    /// Has compaction replace every file that it may, worth it or not, for tests.
    #[cfg(feature = "simulate")]
    #[doc(hidden)]
    pub fn eager_compaction(mut self, eager: bool) -> Self {
        self.eager_compaction = eager;
        self
    }

    /// How much of one feed's index is in memory before it goes into files, and of what is new since
    /// then, in bytes; for tests.
    #[cfg(feature = "simulate")]
    #[doc(hidden)]
    pub fn index_limits_of(mut self, resident: usize, delta: usize) -> Self {
        self.index_limits = Some(Limits { resident, delta });
        self
    }

    /// How much of the budget one feed may use.
    pub(crate) fn index_limits(&self) -> Limits {
        let shares = Limits::of(self.index_budget);
        #[cfg(feature = "simulate")]
        return self.index_limits.unwrap_or(shares);
        #[cfg(not(feature = "simulate"))]
        shares
    }

    pub(crate) fn compacts_eagerly(&self) -> bool {
        #[cfg(feature = "simulate")]
        return self.eager_compaction;
        #[cfg(not(feature = "simulate"))]
        false
    }

    /// Where the files are; the operating system's file system by default.
    pub fn storage(mut self, storage: Arc<dyn Storage>) -> Self {
        self.storage = storage;
        self
    }

    /// Where the time comes from; the system's clock by default.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Opens the store in the directory `path`, creating it if needed.
    ///
    /// # Errors
    /// [`Error::Locked`] when it is open elsewhere, [`Error::Corrupt`] when acknowledged data is
    /// damaged where it must be read to open, [`Error::UnknownFormat`] when a newer version wrote
    /// it, [`Error::KeyRequired`], [`Error::WrongKey`] or [`Error::NotEncrypted`] when it is not
    /// encrypted as the options say, [`Error::InvalidArgument`] when an option is out of range, or an I/O error.
    pub fn open(self, path: impl AsRef<Path>) -> Result<Store> {
        self.check()?;
        Store::open_with(path.as_ref(), self, Opening::default())
    }

    /// Like [`Options::open`], but throws the catalog away first and derives it from the log.
    ///
    /// # Errors
    /// As for [`Options::open`].
    pub fn rebuild(self, path: impl AsRef<Path>) -> Result<Store> {
        self.check()?;
        let opening = Opening {
            rebuild: true,
            ..Opening::default()
        };
        Store::open_with(path.as_ref(), self, opening)
    }

    /// Makes a store in the directory `to`, which must be empty or not there, of the
    /// [backup](Store::backup) in `from`, and verifies it to the last byte. The backup stays as it
    /// is. `progress` is told the bytes that are copied and the bytes there are.
    ///
    /// The store has the state of the backup, and goes on as a branch of its history: cursors from
    /// before the backup work, those of later changes are refused with [`Error::CursorExpired`], and
    /// none of them is ever given to another change.
    ///
    /// # Errors
    /// [`Error::NotABackup`], [`Error::Unfinished`] when the backup is not whole, [`Error::Occupied`],
    /// the first damage that was found in the backup, or an I/O error; then what is in `to` is
    /// refused when it is opened.
    pub fn restore(
        self,
        from: impl AsRef<Path>,
        to: impl AsRef<Path>,
        progress: impl FnMut(u64, u64),
    ) -> Result<Restored> {
        self.check()?;
        restore(self, from.as_ref(), to.as_ref(), progress)
    }

    /// Makes a store in the directory `to`, which must be empty or not there, of everything that is
    /// undamaged in the store in `from`, which stays as it is; and reports what is lost.
    ///
    /// Cursors stay what they are. Feeds that lost nothing go on as if nothing had happened. A feed
    /// that was cut short refuses the cursors of what it lost; one with changes missing in the middle
    /// refuses all cursors from before: see [`Lost`](crate::Lost). Open deletion windows are given
    /// up.
    ///
    /// ```
    /// use highwater::{Options, Store};
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let (damaged, repaired) = (dir.path().join("damaged"), dir.path().join("repaired"));
    /// # let store = Store::open(&damaged)?;
    /// # let _ = store.feed("conn-42", "Contact")?.batch_save_raw(&[("ada", "1")])?;
    /// # store.close()?;
    /// let report = Options::new().repair(&damaged, &repaired)?;
    /// for lost in &report.lost {
    ///     eprintln!("lost: {lost}");
    /// }
    /// let store = Store::open(&repaired)?;
    /// assert_eq!(store.feed("conn-42", "Contact")?.count()?, report.records);
    /// # Ok::<(), highwater::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Locked`] when the store is open, [`Error::Occupied`], [`Error::UnknownFormat`] when a
    /// newer version wrote it, [`Error::Corrupt`] when not even one file tells which store it is of,
    /// or an I/O error; then what is in `to` is refused when it is opened.
    pub fn repair(self, from: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<Repaired> {
        self.check()?;
        repair(self, from.as_ref(), to.as_ref())
    }

    fn check(&self) -> Result<()> {
        let within = |what, given: u64, min: u64, max: u64| {
            if (min..=max).contains(&given) {
                Ok(())
            } else {
                Err(Error::InvalidArgument {
                    what,
                    given,
                    min,
                    max,
                })
            }
        };
        within("payload_max", self.payload_max as u64, 1, 1 << 30)?;
        #[cfg(feature = "zstd")]
        if let Compression::Zstd { level } = self.compression {
            within("compression level", level.max(0) as u64, 1, 19)?;
        }
        within("segment_size", self.segment_size, 4 << 10, 1 << 30)
    }
}

/// Options of one feed, stored with it.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
#[must_use = "options do nothing until a feed is configured with them"]
pub struct FeedOptions {
    pub(crate) ignored_fields: Vec<String>,
    pub(crate) keep_pruned: bool,
    pub(crate) track_owner: bool,
}

impl FeedOptions {
    /// The defaults: every field counts.
    pub fn new() -> Self {
        Self::default()
    }

    /// Top-level fields of JSON payloads that never count as a change, such as `fetched_at`. A
    /// record that differs only in them is unchanged, and its stored payload stays as it is.
    pub fn ignored_fields<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        self.ignored_fields = names.into_iter().map(Into::into).collect();
        self.ignored_fields.sort();
        self.ignored_fields.dedup();
        self
    }

    /// Whether a pruned record that is saved again with the content it had stays pruned and counts
    /// as unchanged. By default it is restored, and its cursor moves, so that consumers see that
    /// the payload is back.
    pub fn keep_pruned(mut self, keep_pruned: bool) -> Self {
        self.keep_pruned = keep_pruned;
        self
    }

    /// Whether the feed records which sync saved each record last, also when it saved it
    /// unchanged; false by default, when a record belongs to the sync that made its newest change.
    /// Needed where several syncs save the same records, and each sweeps only its own.
    pub fn track_owner(mut self, track_owner: bool) -> Self {
        self.track_owner = track_owner;
        self
    }
}
