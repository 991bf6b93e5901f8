//! `highwater stats`: counts and sizes.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Args;
use highwater::{Cursor, FeedKey, FeedStats, Store, StoreStats};
use serde::Serialize;

use crate::open::Location;
use crate::terminal::grouped;

/// Print counts and sizes of the store and of its feeds
#[derive(Args)]
pub(crate) struct StatsArgs {
    /// As one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    store: StoreStats,
    feeds: Vec<FeedRow>,
}

#[derive(Serialize)]
struct FeedRow {
    connection: String,
    model: String,
    variant: String,
    #[serde(flatten)]
    stats: FeedStats,
    first_cursor: Option<Cursor>,
    last_cursor: Option<Cursor>,
}

pub(crate) fn run(at: &Location, args: &StatsArgs) -> anyhow::Result<ExitCode> {
    let store = at.open()?;
    let report = report(&store)?;
    store.close()?;
    let mut out = io::stdout().lock();
    if args.json {
        serde_json::to_writer(&mut out, &report)?;
        writeln!(out)?;
    } else {
        print(&mut out, &report)?;
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

fn report(store: &Store) -> highwater::Result<Report> {
    let mut feeds = Vec::new();
    for info in store.feeds()? {
        let FeedKey {
            connection,
            model,
            variant,
            ..
        } = info.key;
        let feed = store.feed_variant(&connection, &model, &variant)?;
        feeds.push(FeedRow {
            stats: feed.stats()?,
            first_cursor: feed.first_cursor()?,
            last_cursor: feed.last_cursor()?,
            connection,
            model,
            variant,
        });
    }
    let store = store.stats()?;
    Ok(Report { store, feeds })
}

fn print(out: &mut impl Write, report: &Report) -> io::Result<()> {
    let store = &report.store;
    let [feeds, live, bytes] = [store.feeds, store.live, store.live_bytes].map(grouped);
    let [segments, log] = [store.segments, store.log_bytes].map(grouped);
    writeln!(out, "feeds            {feeds:>16}")?;
    writeln!(out, "live records     {live:>16}")?;
    writeln!(out, "live bytes       {bytes:>16}")?;
    writeln!(out, "log segments     {segments:>16}")?;
    writeln!(out, "log bytes        {log:>16}   reserved space included")?;
    if report.feeds.is_empty() {
        return Ok(());
    }
    let head = [
        "feed",
        "live",
        "live bytes",
        "deleted",
        "frames",
        "consumers",
        "behind",
        "windows",
    ];
    let mut rows = vec![head.map(str::to_owned)];
    for feed in &report.feeds {
        let FeedStats {
            live,
            live_bytes,
            deleted,
            frames,
            consumers,
            max_lag,
            windows,
            ..
        } = feed.stats;
        let [live, live_bytes, deleted, frames] = [live, live_bytes, deleted, frames].map(grouped);
        let [consumers, max_lag, windows] = [consumers, max_lag, windows].map(grouped);
        let mut name = format!("{}/{}", feed.connection, feed.model);
        if feed.variant != "base" {
            name = format!("{name}/{}", feed.variant);
        }
        rows.push([
            name, live, live_bytes, deleted, frames, consumers, max_lag, windows,
        ]);
    }
    let widths: [usize; 8] = std::array::from_fn(|column| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.max().unwrap_or_default()
    });
    writeln!(out)?;
    for [name, numbers @ ..] in rows {
        write!(out, "{name:<0$}", widths[0])?;
        for (number, width) in numbers.iter().zip(&widths[1..]) {
            write!(out, "  {number:>width$}")?;
        }
        writeln!(out)?;
    }
    Ok(())
}
