//! `highwater feed`: the change feed as NDJSON.

use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, SystemTime};

use clap::Args;
use highwater::{Actions, Cursor, Feed, List};

use crate::line::write_line;
use crate::open::{FeedArgs, Location};
use crate::terminal::note;

const PAGE: usize = 1000;
/// While it follows, the command lets go of the store, so that other processes can write, and
/// looks this often whether one has opened it.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(100);
const FOLLOW_PATIENCE: Duration = Duration::from_secs(365 * 24 * 3600);
/// The file that an opener writes its process id into.
const LOCK_FILE: &str = "LOCK";

/// Print the change feed as NDJSON, from the beginning or after a cursor
///
/// Every record appears once, at the position of its newest change. At the end the cursor to go
/// on from is printed to standard error.
#[derive(Args)]
pub(crate) struct ReadArgs {
    #[command(flatten)]
    feed: FeedArgs,
    /// Start after this cursor
    #[arg(long, value_name = "CURSOR")]
    after: Option<Cursor>,
    /// Stop after this many records
    #[arg(long, value_name = "RECORDS", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// Only these actions: added, updated, deleted, separated by commas
    #[arg(long, value_name = "ACTIONS")]
    filter: Option<Actions>,
    /// Leave the payloads out
    #[arg(long)]
    metadata_only: bool,
    /// At the end wait for more, until stopped. The store is open only while it is read, so that
    /// other commands can write to it (best with `--wait 5`)
    #[arg(long, short)]
    follow: bool,
}

pub(crate) fn run(at: &Location, args: &ReadArgs) -> anyhow::Result<ExitCode> {
    let mut reader = Reader {
        args,
        out: BufWriter::with_capacity(1 << 16, io::stdout()),
        cursor: args.after,
        left: args.limit.unwrap_or(u64::MAX),
        opened: None,
    };
    // Who follows others has time for them to finish.
    let at = Location {
        path: at.path.clone(),
        wait: if args.follow {
            FOLLOW_PATIENCE
        } else {
            at.wait
        },
        keys: at.keys.clone(),
    };
    reader.catch_up(&at)?;
    while args.follow && reader.left > 0 {
        while last_opened(&at.path) == reader.opened {
            thread::sleep(FOLLOW_INTERVAL);
        }
        reader.catch_up(&at)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// When the store was last opened, by whomever. Opening it to see whether it has changed would
/// write to it every time.
fn last_opened(store: &Path) -> Option<SystemTime> {
    let lock = store.join(LOCK_FILE).metadata().ok()?;
    lock.modified().ok()
}

struct Reader<'a, W: Write> {
    args: &'a ReadArgs,
    out: BufWriter<W>,
    cursor: Option<Cursor>,
    left: u64,
    /// When this command opened the store, as its lock file says.
    opened: Option<SystemTime>,
}

impl<W: Write> Reader<'_, W> {
    /// Prints what there is after the cursor, and says where it stopped when that has moved.
    fn catch_up(&mut self, at: &Location) -> anyhow::Result<()> {
        let store = at.open()?;
        // Nobody else can open it before this one is closed.
        self.opened = last_opened(&at.path);
        let before = self.cursor;
        let read = self.pages(&self.args.feed.of(&store)?);
        store.close()?;
        read?;
        self.out.flush()?;
        if let Some(cursor) = self
            .cursor
            .filter(|_| self.cursor != before || !self.args.follow)
        {
            note(format_args!("cursor: {cursor}"));
        }
        Ok(())
    }

    fn pages(&mut self, feed: &Feed) -> anyhow::Result<()> {
        while self.left > 0 {
            let limit = usize::try_from(self.left).unwrap_or(PAGE).min(PAGE);
            let list = List::new()
                .after(self.cursor)
                .limit(limit)
                .filter(self.args.filter.unwrap_or_default())
                .metadata_only(self.args.metadata_only);
            let page = feed.list(&list)?;
            for record in page.iter() {
                write_line(&mut self.out, &record)?;
            }
            self.left -= page.len() as u64;
            self.cursor = Some(page.resume_cursor());
            if !page.has_more() {
                break;
            }
        }
        Ok(())
    }
}
