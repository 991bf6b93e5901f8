//! `highwater consumers`: who reads a feed, and how far each has got.

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::ensure;
use clap::Args;
use highwater::{Cursor, Feed};

use crate::open::{FeedArgs, Location};
use crate::terminal::grouped;

/// List a feed's named consumers, or move one of them
#[derive(Args)]
pub(crate) struct ConsumersArgs {
    #[command(flatten)]
    feed: FeedArgs,
    /// The consumer to move; it is made if it does not exist and acknowledges something
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Everything up to this cursor was dealt with
    #[arg(long, value_name = "CURSOR", requires = "name")]
    acknowledge: Option<Cursor>,
    /// Begin again at the feed's beginning
    #[arg(long, requires = "name", conflicts_with = "acknowledge")]
    restart: bool,
    /// Forget the consumer; it holds no deletions back any more
    #[arg(long, requires = "name", conflicts_with_all = ["acknowledge", "restart"])]
    remove: bool,
    /// One JSON object per line
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(at: &Location, args: &ConsumersArgs) -> anyhow::Result<ExitCode> {
    let store = at.open()?;
    let feed = args.feed.of(&store)?;
    if let Some(name) = &args.name {
        change(&feed, name, args)?;
    }
    let mut consumers = feed.consumers()?;
    store.close()?;
    consumers.retain(|info| args.name.as_ref().is_none_or(|name| info.name == *name));
    let mut out = io::stdout().lock();
    for info in consumers {
        if args.json {
            serde_json::to_writer(&mut out, &info)?;
            writeln!(out)?;
        } else {
            let lag = grouped(info.lag);
            writeln!(
                out,
                "{}  {lag} behind  since {}  {}",
                info.name, info.acknowledged_at, info.cursor
            )?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn change(feed: &Feed, name: &str, args: &ConsumersArgs) -> anyhow::Result<()> {
    let known = feed.consumers()?.iter().any(|info| info.name == name);
    ensure!(
        known || args.acknowledge.is_some(),
        "there is no consumer {name}"
    );
    let consumer = feed.consumer(name)?;
    if let Some(cursor) = args.acknowledge {
        consumer.acknowledge(cursor)?;
    } else if args.restart {
        consumer.restart()?;
    } else if args.remove {
        consumer.remove()?;
    }
    Ok(())
}
