//! Where the store is, how it is opened, and which feed is meant.

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Args;
use highwater::{Durability, Error, Feed, Options, Store, SyncKey};

/// Between two attempts to open a store that another process has open.
const RETRY: Duration = Duration::from_millis(20);
/// Between two syncs of a relaxed import.
const SYNC_INTERVAL: Duration = Duration::from_millis(200);

/// The store a command works on.
pub(crate) struct Location {
    pub(crate) path: PathBuf,
    pub(crate) wait: Duration,
}

impl Location {
    /// Opens the store for writing, and creates it if there is none.
    pub(crate) fn open_or_create(&self, relaxed: bool) -> anyhow::Result<Store> {
        let interval = SYNC_INTERVAL;
        let durability = match relaxed {
            true => Durability::Relaxed { interval },
            false => Durability::Durable,
        };
        self.attempt(|| Options::new().durability(durability).open(&self.path))
    }

    /// Opens a store that must exist: a mistyped directory is an error, not an empty store.
    pub(crate) fn open(&self) -> anyhow::Result<Store> {
        self.must_exist()?;
        self.attempt(|| Options::new().create(false).open(&self.path))
    }

    /// Opens a store whose catalog is derived from the log first.
    pub(crate) fn rebuild(&self) -> anyhow::Result<Store> {
        self.must_exist()?;
        self.attempt(|| Options::new().create(false).rebuild(&self.path))
    }

    fn must_exist(&self) -> anyhow::Result<()> {
        let path = self.path.display();
        ensure!(
            self.path.is_dir(),
            "there is no store in {path}; `import` creates one"
        );
        Ok(())
    }

    fn attempt(&self, open: impl Fn() -> highwater::Result<Store>) -> anyhow::Result<Store> {
        let started = Instant::now();
        loop {
            match open() {
                Err(Error::Locked { .. }) if started.elapsed() < self.wait => thread::sleep(RETRY),
                opened => {
                    return opened
                        .with_context(|| format!("cannot open the store {}", self.path.display()));
                }
            }
        }
    }
}

/// The feed a command works on.
#[derive(Args)]
pub(crate) struct FeedArgs {
    /// Whose data it is
    #[arg(long, short)]
    connection: String,
    /// What the records are
    #[arg(long, short)]
    model: String,
    /// A dataset of its own under the same model
    #[arg(long, default_value = "base")]
    variant: String,
}

impl FeedArgs {
    /// A sync that fills this feed.
    pub(crate) fn sync(&self, name: &str) -> highwater::Result<SyncKey> {
        SyncKey::new(&self.connection, name, &self.variant)
    }

    pub(crate) fn model(&self) -> &str {
        &self.model
    }

    pub(crate) fn of(&self, store: &Store) -> highwater::Result<Feed> {
        store.feed_variant(&self.connection, &self.model, &self.variant)
    }
}
