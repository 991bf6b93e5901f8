//! `highwater prune`, `purge` and `maintain`: letting go of data.

use std::io::{self, Write};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, SystemTime};

use clap::Args;
use highwater::{Cursor, Feed, List, Oldest, Removed, Retention, Timestamp};

use crate::duration;
use crate::open::{FeedArgs, Location};
use crate::terminal::{grouped, note, plural};

/// How far a command goes.
#[derive(Args)]
struct Bounds {
    /// Up to this cursor
    #[arg(long, value_name = "CURSOR")]
    until: Option<Cursor>,
    /// No more than this many records, the oldest first
    #[arg(long, value_name = "RECORDS", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
}

impl Bounds {
    fn oldest(&self, until: Option<Cursor>) -> Oldest {
        let all = until.map_or(Oldest::all(), Oldest::until);
        let limited = self.limit.map_or(all, |limit| all.limit(limit));
        limited.dry_run(self.dry_run)
    }

    fn report(&self, did: &str, removed: &Removed) -> io::Result<()> {
        let would = if self.dry_run { "would have " } else { "" };
        let mut out = io::stdout().lock();
        write!(out, "{would}{did} {}", plural(removed.records, "record"))?;
        if let Some(cursor) = removed.last_cursor {
            write!(out, " up to {cursor}")?;
        }
        writeln!(
            out,
            "{}",
            if removed.has_more {
                ", with more to go"
            } else {
                ""
            }
        )
    }
}

/// Remove the payloads of a feed's oldest records; nothing else changes
#[derive(Args)]
pub(crate) struct PruneArgs {
    #[command(flatten)]
    feed: FeedArgs,
    #[command(flatten)]
    bounds: Bounds,
    /// Records that were not modified for this long, such as 30d
    #[arg(long, value_name = "TIME", value_parser = duration::parse, conflicts_with = "until")]
    older_than: Option<Duration>,
}

pub(crate) fn prune(at: &Location, args: &PruneArgs) -> anyhow::Result<ExitCode> {
    let store = at.open()?;
    let feed = args.feed.of(&store)?;
    let until = match args.older_than {
        Some(age) => newest_before(&feed, age)?,
        None => args.bounds.until,
    };
    let removed = match (args.older_than, until) {
        (Some(_), None) => Removed::default(),
        _ => feed.prune(&args.bounds.oldest(until))?,
    };
    store.close()?;
    args.bounds.report("pruned", &removed)?;
    Ok(ExitCode::SUCCESS)
}

/// The cursor before the oldest record that was modified within `age`.
fn newest_before(feed: &Feed, age: Duration) -> anyhow::Result<Option<Cursor>> {
    let now = now();
    let age = u64::try_from(age.as_micros()).unwrap_or(u64::MAX);
    let moment = Timestamp::from_micros(now.saturating_sub(age));
    let recent = List::new().modified_after(moment).metadata_only(true);
    let first = feed
        .list(&recent.limit(1))?
        .get(0)
        .map(|record| record.cursor);
    Ok(match first {
        None => feed.last_cursor()?,
        Some(first) => {
            let before = List::new().after(first).order(highwater::Order::Descending);
            let page = feed.list(&before.limit(1).metadata_only(true))?;
            page.get(0).map(|record| record.cursor)
        }
    })
}

#[expect(
    clippy::disallowed_methods,
    reason = "the command line has no clock of its own"
)]
fn now() -> u64 {
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    u64::try_from(since_epoch.unwrap_or_default().as_micros()).unwrap_or(u64::MAX)
}

/// Remove deletions that every named consumer of a feed has seen
///
/// A reader without a name that began before, and has not come past them, has to start again.
#[derive(Args)]
pub(crate) struct PurgeArgs {
    #[command(flatten)]
    feed: FeedArgs,
    #[command(flatten)]
    bounds: Bounds,
}

pub(crate) fn purge(at: &Location, args: &PurgeArgs) -> anyhow::Result<ExitCode> {
    let store = at.open()?;
    let removed = args
        .feed
        .of(&store)?
        .purge(&args.bounds.oldest(args.bounds.until))?;
    store.close()?;
    args.bounds.report("purged", &removed)?;
    Ok(ExitCode::SUCCESS)
}

/// Let go of old data in all feeds
///
/// Once, or with --every again and again until interrupted; between two times the store is free
/// for others.
#[derive(Args)]
pub(crate) struct MaintainArgs {
    /// Remove payloads of records that were not modified for this long, such as 30d
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    prune_after: Option<Duration>,
    /// Remove feeds that no successful run has used for this long, such as 60d
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    delete_after: Option<Duration>,
    /// Remove deletions that every named consumer has seen
    #[arg(long)]
    purge: bool,
    /// Time between two rounds, such as 1h
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    every: Option<Duration>,
}

pub(crate) fn maintain(at: &Location, args: &MaintainArgs) -> anyhow::Result<ExitCode> {
    let mut retention = Retention::new().purge(args.purge);
    if let Some(age) = args.prune_after {
        retention = retention.prune_after(age);
    }
    if let Some(age) = args.delete_after {
        retention = retention.delete_after(age);
    }
    loop {
        let store = at.open()?;
        let done = store.maintain(&retention)?;
        store.close()?;
        let mut out = io::stdout().lock();
        let [pruned, purged] = [done.pruned, done.purged].map(grouped);
        writeln!(
            out,
            "pruned {pruned}  purged {purged}  feeds deleted {}",
            grouped(done.feeds_deleted)
        )?;
        out.flush()?;
        drop(out);
        match args.every {
            Some(every) => thread::sleep(every),
            None => return Ok(ExitCode::SUCCESS),
        }
        note(format_args!("maintaining again"));
    }
}
