//! `highwater runs`: what runs of syncs did.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Args;
use highwater::{RunReport, SyncKey, Timestamp};

use crate::open::Location;

/// Print the reports of syncs' newest runs, newest first
#[derive(Args)]
pub(crate) struct RunsArgs {
    /// Only syncs of this connection
    #[arg(long, short)]
    connection: Option<String>,
    /// Only this sync
    #[arg(long, short)]
    sync: Option<String>,
    /// Only the newest run of each sync
    #[arg(long)]
    last: bool,
    /// One JSON object per line, as webhooks post it
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(at: &Location, args: &RunsArgs) -> anyhow::Result<ExitCode> {
    let store = at.open()?;
    let mut reports = Vec::new();
    for sync in store.syncs()?.iter().filter(|sync| args.want(sync)) {
        let of_sync = store.runs(sync)?;
        let count = if args.last { 1 } else { of_sync.len() };
        reports.extend(of_sync.into_iter().take(count));
    }
    store.close()?;
    let mut out = io::stdout().lock();
    for report in &reports {
        if args.json {
            serde_json::to_writer(&mut out, report)?;
            writeln!(out)?;
        } else {
            print(&mut out, report)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

impl RunsArgs {
    fn want(&self, sync: &SyncKey) -> bool {
        let is = |wanted: &Option<String>, name: &str| wanted.as_deref().is_none_or(|w| w == name);
        is(&self.connection, &sync.connection) && is(&self.sync, &sync.name)
    }
}

fn print(out: &mut impl Write, report: &RunReport) -> io::Result<()> {
    let status = serde_json::to_value(report.status)?;
    let status = status.as_str().unwrap_or_default();
    let ended = report
        .ended
        .as_ref()
        .map_or(String::new(), Timestamp::to_string);
    writeln!(
        out,
        "{} #{} {status}  {} .. {ended}",
        report.sync, report.run, report.started
    )?;
    for (model, totals) in &report.models {
        let counts = serde_json::to_value(totals)?;
        let counts = counts.as_object().into_iter().flatten();
        write!(out, "  {model}:")?;
        for (name, count) in counts.filter(|(_, count)| count.as_u64() != Some(0)) {
            write!(out, " {name} {count}")?;
        }
        writeln!(out)?;
    }
    match &report.error {
        Some(error) => writeln!(out, "  {}", error.replace('\n', " ")),
        None => Ok(()),
    }
}
