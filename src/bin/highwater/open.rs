//! Where the store is, how it is opened, and which feed is meant.

#[cfg(feature = "encryption")]
use std::path::Path;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Args;
use highwater::{Durability, Error, Feed, Options, Store, SyncKey};
#[cfg(feature = "encryption")]
use highwater::{Encryption, Key};
#[cfg(feature = "encryption")]
use zeroize::Zeroizing;

/// Between two attempts to open a store that another process has open.
const RETRY: Duration = Duration::from_millis(20);
/// Between two syncs of a relaxed import.
const SYNC_INTERVAL: Duration = Duration::from_millis(200);

/// The store a command works on.
pub(crate) struct Location {
    pub(crate) path: PathBuf,
    pub(crate) wait: Duration,
    pub(crate) keys: Keys,
}

/// The keys of an encrypted store.
#[derive(Args, Clone, Default)]
pub(crate) struct Keys {
    /// File with the key of an encrypted store: 32 bytes, or 64 hexadecimal digits
    #[cfg(feature = "encryption")]
    #[arg(long, global = true, value_name = "FILE", env = "HIGHWATER_KEY_FILE")]
    key_file: Option<PathBuf>,
    /// File with an older key, which is still needed to read; may be given several times
    #[cfg(feature = "encryption")]
    #[arg(long, global = true, value_name = "FILE", requires = "key_file")]
    old_key_file: Vec<PathBuf>,
}

impl Keys {
    #[cfg(feature = "encryption")]
    fn add_to(&self, options: Options) -> anyhow::Result<Options> {
        let Some(current) = &self.key_file else {
            return Ok(options);
        };
        let mut keys = Encryption::new(&read_key(current)?);
        for older in &self.old_key_file {
            keys = keys.or_older(&read_key(older)?);
        }
        Ok(options.encryption(keys))
    }

    #[cfg(not(feature = "encryption"))]
    #[expect(clippy::unnecessary_wraps, reason = "reading keys can fail")]
    fn add_to(&self, options: Options) -> anyhow::Result<Options> {
        Ok(options)
    }
}

#[cfg(feature = "encryption")]
#[expect(clippy::disallowed_methods, reason = "a key is no part of a store")]
fn read_key(path: &Path) -> anyhow::Result<Key> {
    let text = std::fs::read(path).map(Zeroizing::new);
    let text = text.with_context(|| format!("cannot read the key file {}", path.display()))?;
    let key = Key::parse(&text);
    let wrong = || format!("{} holds neither 32 bytes nor 64 digits", path.display());
    key.with_context(wrong)
}

impl Location {
    /// Opens the store for writing, and creates it if there is none.
    pub(crate) fn open_or_create(&self, relaxed: bool) -> anyhow::Result<Store> {
        let interval = SYNC_INTERVAL;
        let durability = match relaxed {
            true => Durability::Relaxed { interval },
            false => Durability::Durable,
        };
        let options = self.keys.add_to(Options::new().durability(durability))?;
        self.attempt(|| options.clone().open(&self.path))
    }

    /// Opens a store that must exist: a mistyped directory is an error, not an empty store.
    pub(crate) fn open(&self) -> anyhow::Result<Store> {
        self.must_exist()?;
        let options = self.keys.add_to(Options::new().create(false))?;
        self.attempt(|| options.clone().open(&self.path))
    }

    /// Opens a store whose catalog is derived from the log first.
    pub(crate) fn rebuild(&self) -> anyhow::Result<Store> {
        self.must_exist()?;
        let options = self.keys.add_to(Options::new().create(false))?;
        self.attempt(|| options.clone().rebuild(&self.path))
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
