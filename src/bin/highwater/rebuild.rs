//! `highwater rebuild`: derives the catalog from the log.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Instant;

use crate::open::Location;
use crate::terminal::plural;

pub(crate) fn run(at: &Location) -> anyhow::Result<ExitCode> {
    let started = Instant::now();
    let store = at.rebuild()?;
    let stats = store.stats()?;
    store.close()?;
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "rebuilt the catalog from {}: {} with {} ({:.2} s)",
        plural(stats.segments, "segment"),
        plural(stats.feeds, "feed"),
        plural(stats.live, "live record"),
        started.elapsed().as_secs_f64(),
    )?;
    Ok(ExitCode::SUCCESS)
}
