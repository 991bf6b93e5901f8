//! The store: the entry to everything.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use serde::Serialize;

use crate::background::Background;
use crate::backup::restore::Restored;
use crate::backup::{self, BackedUp};
use crate::compaction::{Compacted, compact};
use crate::documents::{self, Checkpoint, Expected};
#[cfg(feature = "encryption")]
use crate::encryption::{KeyId, key_id};
use crate::engine::Handle;
use crate::error::{Error, Result};
use crate::events::Subscription;
use crate::feed::{Feed, FeedKey};
use crate::options::Options;
use crate::recovery::{self, Opening};
use crate::retention::maintain::{Maintained, Retention, maintain};
use crate::runs::ledger;
use crate::runs::{Run, RunOptions, RunReport, SyncKey};
use crate::stats::{FeedInfo, StoreStats};
use crate::verify::{self, VerifyOptions, VerifyReport};
use crate::write::batch::WriteBatch;
use crate::write::{StateWrite, execute};

/// An open store: a directory that one process at a time has open.
///
/// Cheap to clone and to share between threads. The store is closed by [`Store::close`], or when
/// the last handle to it, feeds included, is dropped.
#[derive(Clone)]
pub struct Store {
    pub(crate) engine: Arc<Handle>,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Store").field(&self.engine.path).finish()
    }
}

impl Store {
    /// Opens the store in the directory `path` with default options, creating it if needed.
    ///
    /// # Errors
    /// See [`Options::open`].
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// let store = highwater::Store::open(dir.path())?;
    /// let feed = store.feed("conn-42", "Contact")?;
    /// assert_eq!(feed.count()?, 0);
    /// # Ok::<(), highwater::Error>(())
    /// ```
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Options::new().open(path)
    }

    pub(crate) fn open_with(path: &Path, options: Options, opening: Opening) -> Result<Self> {
        let engine = recovery::open(path, options, opening)?;
        let engine = Arc::new(Handle(engine));
        if engine.options.background {
            let background = Background::start(&engine.0).map_err(|source| Error::Io {
                op: "start a thread for",
                path: path.to_owned(),
                source,
            })?;
            *engine.background.lock() = Some(background);
        }
        match ledger::interrupt_all(&engine) {
            // Reading works on a full disk; the next open says that the runs are over.
            Err(error) if error.as_lack().is_some() => {}
            interrupted => interrupted?,
        }
        Ok(Self { engine })
    }

    /// The feed of a connection and model. It need not exist: a feed appears with its first record.
    ///
    /// # Errors
    /// [`Error::InvalidName`]; [`Error::Corrupt`] when the catalog's entry of the feed is damaged.
    pub fn feed(&self, connection: &str, model: &str) -> Result<Feed> {
        self.feed_variant(connection, model, "")
    }

    /// The feed of a connection, model and variant; an empty variant is `base`.
    ///
    /// # Errors
    /// As for [`Store::feed`].
    pub fn feed_variant(&self, connection: &str, model: &str, variant: &str) -> Result<Feed> {
        self.engine.check_not_closed()?;
        let key = FeedKey::new(connection, model, variant)?;
        let slot = self.engine.slot(&key)?;
        Ok(Feed {
            engine: self.engine.clone(),
            slot,
            run: None,
            merging: None,
        })
    }

    /// All feeds that were ever written to, ordered by their keys.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub fn feeds(&self) -> Result<Vec<FeedInfo>> {
        self.engine.check_not_closed()?;
        self.engine.make_all_visible();
        Ok(self.engine.feed_infos())
    }

    /// Starts a batch of writes on feeds of one connection, to be committed together.
    pub fn batch(&self, connection: &str) -> WriteBatch {
        WriteBatch::new(self.engine.clone(), connection)
    }

    /// The checkpoint of a sync; `None` when there is none. An empty variant is `base`.
    ///
    /// # Errors
    /// [`Error::InvalidName`], [`Error::Closed`]. A failure to read is never an absent checkpoint.
    pub fn checkpoint(
        &self,
        connection: &str,
        sync: &str,
        variant: &str,
    ) -> Result<Option<Checkpoint>> {
        let key = documents::checkpoint_key(connection, sync, variant)?;
        Ok(documents::read_checkpoint(self.engine.read_state(&key)?))
    }

    /// Saves the checkpoint of a sync: a JSON object of at most 64 KiB. To save it together with
    /// records, use [`Store::batch`].
    ///
    /// # Errors
    /// [`Error::CheckpointConflict`] when it is not what `expected` says,
    /// [`Error::InvalidDocument`], and those of any write.
    pub fn save_checkpoint<T: Serialize>(
        &self,
        connection: &str,
        sync: &str,
        variant: &str,
        value: &T,
        expected: Expected,
    ) -> Result<()> {
        let mut batch = self.batch(connection);
        batch.checkpoint(sync, variant, value, expected)?;
        batch.commit().map(drop)
    }

    /// Clears the checkpoint of a sync; clearing an absent one succeeds.
    ///
    /// # Errors
    /// [`Error::CheckpointConflict`] when it is not what `expected` says, and those of any write.
    pub fn clear_checkpoint(
        &self,
        connection: &str,
        sync: &str,
        variant: &str,
        expected: Expected,
    ) -> Result<()> {
        let mut batch = self.batch(connection);
        batch.clear_checkpoint(sync, variant, expected)?;
        batch.commit().map(drop)
    }

    /// The metadata of a connection, as JSON text; `None` when none was ever set.
    ///
    /// # Errors
    /// [`Error::InvalidName`], [`Error::Closed`].
    pub fn connection_metadata(&self, connection: &str) -> Result<Option<Vec<u8>>> {
        self.engine
            .read_state(&documents::metadata_key(connection)?)
    }

    /// Replaces the metadata of a connection: a JSON object of at most 64 KiB.
    ///
    /// # Errors
    /// [`Error::InvalidDocument`], and those of any write.
    pub fn set_connection_metadata<T: Serialize>(&self, connection: &str, value: &T) -> Result<()> {
        let json = documents::metadata_json(value)?;
        let key = documents::metadata_key(connection)?;
        let change = |_| Ok(Some(json.clone()));
        self.change_state(StateWrite {
            key,
            change: &change,
        })
    }

    /// Merges an object into the metadata of a connection, field by field, atomically.
    ///
    /// # Errors
    /// As for [`Store::set_connection_metadata`].
    pub fn update_connection_metadata<T: Serialize>(
        &self,
        connection: &str,
        partial: &T,
    ) -> Result<()> {
        let json = documents::metadata_json(partial)?;
        let key = documents::metadata_key(connection)?;
        let change = documents::metadata_merge(&json);
        self.change_state(StateWrite {
            key,
            change: &change,
        })
    }

    fn change_state(&self, write: StateWrite<'_>) -> Result<()> {
        execute(&self.engine, None, &[], &[write]).map(drop)
    }

    /// Begins a run of a sync.
    ///
    /// # Errors
    /// Those of any write.
    pub fn begin_run(&self, sync: &SyncKey, options: RunOptions) -> Result<Run> {
        ledger::begin(&self.engine, sync, options)
    }

    /// Begins a run that changes nothing: what is written through it is compared with the cache,
    /// and with what the run itself would have written before, and its report says what would have
    /// become of it. Deletion windows count, and an open one of the sync is gone on with; the
    /// checkpoint begins as absent and lives in memory. Reading shows the cache as it is. Payloads
    /// of records that would change are held in memory until the run ends.
    ///
    /// ```
    /// use highwater::SyncKey;
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = highwater::Store::open(dir.path())?;
    /// let _ = store.feed("conn-42", "Contact")?.batch_save_raw(&[("ada", "1"), ("bob", "1")])?;
    /// let run = store.begin_dry_run(&SyncKey::new("conn-42", "contacts", "")?)?;
    /// let contacts = run.feed("Contact")?;
    /// let _ = contacts.batch_save_raw(&[("ada", "2"), ("eve", "1")])?;
    /// let _ = contacts.batch_save_raw(&[("ada", "2")])?;
    /// let would = run.succeed()?.models["Contact"];
    /// assert_eq!((would.added, would.updated, would.unchanged), (1, 1, 1));
    /// assert_eq!(contacts.count()?, 2);
    /// # Ok::<(), highwater::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub fn begin_dry_run(&self, sync: &SyncKey) -> Result<Run> {
        ledger::begin_dry(&self.engine, sync)
    }

    /// Declares all runs of a sync so far dead: those that did not end are interrupted, and what
    /// they still write is refused.
    ///
    /// # Errors
    /// Those of any write.
    pub fn fence_runs(&self, sync: &SyncKey) -> Result<()> {
        ledger::fence(&self.engine, sync)
    }

    /// Clears exactly this sync's checkpoint and deletion windows, and fences its runs. The cached
    /// records stay, so that fetching everything again reports true changes only.
    ///
    /// # Errors
    /// Those of any write.
    pub fn reset_sync(&self, sync: &SyncKey) -> Result<()> {
        ledger::reset(&self.engine, sync)
    }

    /// The reports of a sync's runs, newest first; as many as [`Options::runs_kept`] says.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub fn runs(&self, sync: &SyncKey) -> Result<Vec<RunReport>> {
        ledger::reports(&self.engine, sync)
    }

    /// All syncs that ever had a run, ordered by their keys.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub fn syncs(&self) -> Result<Vec<SyncKey>> {
        ledger::syncs(&self.engine)
    }

    /// Subscribes to what becomes visible from now on: commits, replacements, ended runs.
    ///
    /// ```
    /// use highwater::Event;
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = highwater::Store::open(dir.path())?;
    /// let events = store.subscribe()?;
    /// let feed = store.feed("conn-42", "Contact")?;
    /// let applied = feed.batch_save_raw(&[("a", "1")])?;
    /// match events.try_next() {
    ///     Some(Event::Commit(commit)) => assert_eq!(Some(commit.last_cursor), applied.last_cursor),
    ///     other => panic!("not a commit: {other:?}"),
    /// }
    /// # Ok::<(), highwater::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub fn subscribe(&self) -> Result<Subscription> {
        self.engine.check_not_closed()?;
        Ok(self.engine.events.subscribe())
    }

    /// Lets go of what a retention policy says, in small steps. The background thread can do it
    /// too: see [`Options::maintenance`].
    ///
    /// # Errors
    /// Those of any write; what was done until then stays done.
    pub fn maintain(&self, retention: &Retention) -> Result<Maintained> {
        maintain(&self.engine, retention)
    }

    /// Puts everything acknowledged so far on stable storage. In durable mode it is there already.
    ///
    /// # Errors
    /// [`Error::Poisoned`] when that cannot be promised any more.
    pub fn flush(&self) -> Result<()> {
        self.engine.check_not_closed()?;
        self.engine.log.flush()
    }

    /// Brings the catalog up to date with the log, so that the next open has less to read. The
    /// background thread does it now and then, and [`Store::close`] at the end.
    ///
    /// # Errors
    /// An I/O error, or [`Error::Catalog`]; no record is affected.
    pub fn checkpoint_catalog(&self) -> Result<()> {
        self.engine.check_not_closed()?;
        self.engine.save_catalog(false)
    }

    /// Gives back the space of versions that nobody reads any more. The background thread does it
    /// too, unless [told not to](Options::compaction). Nothing that readers or writers see changes.
    ///
    /// # Errors
    /// An I/O error, or damage found on the way; then what was to be given back stays.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let options = highwater::Options::new().segment_size(4096).compaction(false);
    /// # let store = options.open(dir.path())?;
    /// # let feed = store.feed("conn-42", "Contact")?;
    /// for sync in 0..100 {
    ///     let _ = feed.batch_save_raw(&[("ada", sync.to_string().repeat(100))])?;
    /// }
    /// let compacted = store.compact()?;
    /// assert!(compacted.removed_bytes > compacted.written_bytes);
    /// # Ok::<(), highwater::Error>(())
    /// ```
    pub fn compact(&self) -> Result<Compacted> {
        self.engine.check_not_closed()?;
        self.engine.tidy_indexes(true)?;
        compact(&self.engine)
    }

    /// Writes everything anew that is under another key than the [current
    /// one](crate::Encryption::new): when it returns, older keys are not needed any more.
    /// Compaction in the background does the same bit by bit, except to the segment that is being
    /// written to. Nothing that readers or writers see changes.
    ///
    /// # Errors
    /// As for [`Store::compact`]; then older keys may be needed still.
    #[cfg(feature = "encryption")]
    pub fn rotate(&self) -> Result<Compacted> {
        self.engine.check_not_closed()?;
        self.engine.log.renew()?;
        compact(&self.engine)
    }

    /// The keys that files of the store are encrypted under, each once; none when it is not encrypted.
    ///
    /// # Errors
    /// [`Error::Closed`].
    #[cfg(feature = "encryption")]
    pub fn encryption_keys(&self) -> Result<Vec<KeyId>> {
        self.engine.check_not_closed()?;
        let segments = self.engine.log.segments();
        let keys = segments.iter().filter_map(|file| key_id(&file.cipher));
        let keys: std::collections::BTreeSet<KeyId> = keys.collect();
        Ok(keys.into_iter().collect())
    }

    /// Reads every byte of the store and checks every checksum, and every reference between its
    /// parts: files and manifest, the log and its chain, feeds and their frames, indexes and the
    /// newest versions, counts, state, catalog. `progress` is told the bytes walked so far and the
    /// bytes there are. Writers and readers go on meanwhile, compaction waits.
    ///
    /// # Errors
    /// An I/O error. Damage is not an error but part of the report.
    pub fn verify(&self, progress: impl FnMut(u64, u64)) -> Result<VerifyReport> {
        self.verify_with(VerifyOptions::new(), progress)
    }

    /// The same, as the options say.
    ///
    /// ```
    /// use highwater::VerifyOptions;
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = highwater::Store::open(dir.path())?;
    /// # let _ = store.feed("conn-42", "Contact")?.batch_save_raw(&[("ada", "1")])?;
    /// let gently = VerifyOptions::new().bytes_per_second(20 << 20);
    /// let report = store.verify_with(gently, |_, _| {})?;
    /// for damage in &report.damage {
    ///     eprintln!("{damage}");
    /// }
    /// assert!(report.is_clean());
    /// # Ok::<(), highwater::Error>(())
    /// ```
    ///
    /// # Errors
    /// As for [`Store::verify`].
    pub fn verify_with(
        &self,
        options: VerifyOptions,
        progress: impl FnMut(u64, u64),
    ) -> Result<VerifyReport> {
        self.engine.check_not_closed()?;
        verify::verify(&self.engine, options, progress)
    }

    /// Backs the store up into a directory, which is created if needed: everything acknowledged
    /// before the call, and perhaps some of what comes meanwhile, as one consistent state. Writers
    /// and readers go on. `progress` is told the bytes that are done and the bytes there are.
    ///
    /// The backup shares files that never change any more with the store, where the file system
    /// can give a file two names; it takes little space then, and is no protection against a disk
    /// that fails. If the directory has an earlier backup of the same store, only what is new is
    /// added; until that is done there is no usable backup in it.
    ///
    /// A backup is a store itself: [`Store::restore`] makes one of it elsewhere and leaves the
    /// backup as it is, [`Store::open`] turns the directory into one.
    ///
    /// ```
    /// use highwater::{List, Store};
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let (path, backup, restored) =
    /// #     (dir.path().join("store"), dir.path().join("backup"), dir.path().join("restored"));
    /// let store = Store::open(&path)?;
    /// let feed = store.feed("conn-42", "Contact")?;
    /// let cursor = feed.batch_save_raw(&[("ada", "1")])?.last_cursor;
    /// store.backup(&backup, |_, _| {})?;
    /// let lost = feed.batch_save_raw(&[("bob", "1")])?.last_cursor;
    ///
    /// Store::restore(&backup, &restored)?;
    /// let feed = Store::open(&restored)?.feed("conn-42", "Contact")?;
    /// assert_eq!(feed.count()?, 1);
    /// // Readers of the backed-up state go on; whoever saw more has to start over.
    /// assert!(feed.list(&List::new().after(cursor)).is_ok());
    /// assert!(feed.list(&List::new().after(lost)).is_err());
    /// # Ok::<(), highwater::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Occupied`] when the directory holds something else, [`Error::Locked`] when somebody
    /// else is at it, [`Error::Poisoned`], or an I/O error: then the directory has no usable backup,
    /// and says so when it is opened.
    pub fn backup(&self, to: impl AsRef<Path>, progress: impl FnMut(u64, u64)) -> Result<BackedUp> {
        self.engine.check_not_closed()?;
        backup::backup(&self.engine, to.as_ref(), progress)
    }

    /// Makes a store in the empty directory `to` of the backup in `from`, with default options; see
    /// [`Options::restore`].
    ///
    /// # Errors
    /// As for [`Options::restore`].
    pub fn restore(from: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<Restored> {
        Options::new().restore(from, to, |_, _| {})
    }

    /// Counts and sizes of the whole store.
    ///
    /// # Errors
    /// [`Error::Closed`], or an I/O error.
    pub fn stats(&self) -> Result<StoreStats> {
        let feeds = self.feeds()?;
        let segments = self.engine.log.segments();
        Ok(StoreStats {
            feeds: feeds.len() as u64,
            live: feeds.iter().map(|feed| feed.live).sum(),
            live_bytes: feeds.iter().map(|feed| feed.live_bytes).sum(),
            segments: segments.len() as u64,
            log_bytes: segments.iter().map(|s| s.len()).sum::<Result<u64>>()?,
            appended_bytes: self.engine.log.appended_bytes(),
            syncs: self.engine.log.syncs(),
            index_bytes: self.engine.budget.used() as u64,
        })
    }

    /// Closes the store: syncs everything, saves the catalog, gives up the lock. Other handles
    /// answer [`Error::Closed`] afterwards. Closing twice is fine.
    ///
    /// # Errors
    /// When something could not be written; the store is closed all the same, and what was
    /// acknowledged is as safe as its durability promises.
    pub fn close(&self) -> Result<()> {
        self.engine.close()
    }
}
