//! `highwater demo`: the cache at work on real snapshots, step by step, and checked at the end.
//!
//! * [`snapshot`]: the files
//! * [`provider`]: the side that saves what it fetched
//! * [`consumer`]: the side that reads the changes
//! * [`check`]: what should have come out, worked out without a store
//! * [`story`]: what is printed about it all

mod check;
mod consumer;
mod provider;
mod snapshot;
mod story;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{self, ExitCode};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use highwater::{Feed, Store};

use self::consumer::{Changes, Consumer};
use self::provider::Saved;
use self::story::Story;
use crate::open::{Keys, Location};

const CONNECTION: &str = "demo";
const MODEL: &str = "Record";
/// Pages a consumer reads before the store is closed under it.
const PAGES_BEFORE_REOPEN: u64 = 1;

/// Show what the cache does with successive snapshots of real data, and check the result
///
/// A snapshot is NDJSON with a field `id`, or one JSON object whose keys are the ids, plain or
/// gzip. They are taken as what a provider's API answered on successive days. Without arguments
/// the demo runs on a small sample of real data that is built in.
///
/// The store is a temporary one that is removed at the end, unless --store is given.
#[derive(Args)]
pub(crate) struct DemoArgs {
    /// Snapshots, oldest first
    #[arg(value_name = "SNAPSHOT")]
    snapshots: Vec<PathBuf>,
    /// Records per batch
    #[arg(long, value_name = "RECORDS", default_value_t = 1000,
        value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    batch: u32,
    /// Records per page of the change feed [default: 500, for the built-in sample 50]
    #[arg(long, value_name = "RECORDS", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    page: Option<u32>,
}

pub(crate) fn run(store: Option<PathBuf>, args: &DemoArgs) -> anyhow::Result<ExitCode> {
    let temporary = store.is_none();
    let path = match store {
        Some(path) => path,
        None => temporary_directory()?,
    };
    let agreed = tell(&path, args);
    if temporary {
        // Left behind it does no harm, and what the demo found matters more.
        let _ = fs::remove_dir_all(&path);
    }
    Ok(match agreed? {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

fn temporary_directory() -> anyhow::Result<PathBuf> {
    let path = std::env::temp_dir().join(format!("highwater-demo-{}", process::id()));
    fs::create_dir(&path).with_context(|| format!("cannot create {}", path.display()))?;
    Ok(path)
}

/// What happened when one snapshot was saved and its changes were read.
struct Day {
    name: String,
    saved: Saved,
    changes: Changes,
}

fn open_feed(store: &Store) -> highwater::Result<Feed> {
    store.feed(CONNECTION, MODEL)
}

fn tell(path: &Path, args: &DemoArgs) -> anyhow::Result<bool> {
    let mut story = Story::new();
    let snapshots = story.load(args)?;
    let sample = args.snapshots.is_empty();
    let page = args.page.unwrap_or(if sample { 50 } else { 500 });
    let at = Location {
        path: path.to_owned(),
        wait: Duration::ZERO,
        keys: Keys::default(),
    };
    let mut store = at.open_or_create(false)?;
    if open_feed(&store)?.last_cursor()?.is_some() {
        bail!("{} has been used by the demo before", path.display());
    }
    let mut consumer = Consumer::new(page as usize);
    let mut days = Vec::new();
    for (at_snapshot, snapshot) in snapshots.iter().enumerate() {
        let feed = open_feed(&store)?;
        let saved = story.save(&feed, snapshot, args.batch as usize)?;
        let mut changes = Changes::default();
        let day = at_snapshot + 1;
        story.start_reading(&consumer, day)?;
        let pages = (day == 2).then_some(PAGES_BEFORE_REOPEN);
        let mut more = consumer.read(&feed, pages, &mut changes)?;
        if day == 2 {
            store = story.reopen(store, &at, &consumer, &changes)?;
            more = true;
        }
        if more {
            let feed = open_feed(&store)?;
            consumer.read(&feed, None, &mut changes)?;
        }
        story.finish_reading(&changes, &consumer)?;
        days.push(Day {
            name: snapshot.name.clone(),
            saved,
            changes,
        });
    }
    let agreed = story.check(&snapshots, &days, &consumer, &store)?;
    store.close()?;
    Ok(agreed)
}
