//! The `highwater` command: a store's records from the shell.
//!
//! Results go to standard output, progress and remarks to standard error. The exit code is 0 when
//! all went well, 1 for a failure (damage that `verify` found, losses that `repair` could not avoid
//! and ids that `get` did not find included), 2 for a command line that was not understood, and 3 when another process has the
//! store open, so that a script can try again.

mod consumers;
mod demo;
mod documents;
mod duration;
mod feed;
mod get;
mod import;
mod input;
mod line;
mod open;
mod operations;
mod rebuild;
mod retention;
#[cfg(feature = "encryption")]
mod rotate;
mod runs;
mod stats;
mod terminal;
mod verify;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

use crate::open::{Keys, Location};
use crate::terminal::note;

const STORE_DEFAULT: &str = "./highwater-store";
const EXIT_LOCKED: u8 = 3;

/// A records cache: change detection, cursors, and a change feed that never loses a change.
#[derive(Parser)]
#[command(name = "highwater", version, about, max_term_width = 100)]
struct Cli {
    /// Directory of the store [default: ./highwater-store; demo: a temporary one]
    #[arg(long, global = true, value_name = "DIR")]
    store: Option<PathBuf>,
    /// How long to wait while another process has the store open
    #[arg(long, global = true, value_name = "SECONDS", default_value_t = 0)]
    wait: u64,
    #[command(flatten)]
    keys: Keys,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Import(import::ImportArgs),
    Feed(feed::ReadArgs),
    Get(get::GetArgs),
    Stats(stats::StatsArgs),
    Runs(runs::RunsArgs),
    Consumers(consumers::ConsumersArgs),
    Checkpoint(documents::CheckpointArgs),
    Metadata(documents::MetadataArgs),
    Prune(retention::PruneArgs),
    Purge(retention::PurgeArgs),
    Maintain(retention::MaintainArgs),
    Verify(verify::VerifyArgs),
    Backup(operations::BackupArgs),
    Restore(operations::RestoreArgs),
    Repair(operations::RepairArgs),
    /// Throw the catalog away and derive it from the log; the records stay as they are
    Rebuild,
    /// Write everything anew that is encrypted under an old key
    #[cfg(feature = "encryption")]
    Rotate,
    Demo(demo::DemoArgs),
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let (given, keys) = (cli.store, cli.keys);
    let at = |path: Option<PathBuf>| Location {
        path: path.unwrap_or_else(|| STORE_DEFAULT.into()),
        wait: Duration::from_secs(cli.wait),
        keys: keys.clone(),
    };
    match cli.command {
        Command::Import(args) => import::run(&at(given), &args),
        Command::Feed(args) => feed::run(&at(given), &args),
        Command::Get(args) => get::run(&at(given), &args),
        Command::Stats(args) => stats::run(&at(given), &args),
        Command::Runs(args) => runs::run(&at(given), &args),
        Command::Consumers(args) => consumers::run(&at(given), &args),
        Command::Checkpoint(args) => documents::checkpoint(&at(given), &args),
        Command::Metadata(args) => documents::metadata(&at(given), &args),
        Command::Prune(args) => retention::prune(&at(given), &args),
        Command::Purge(args) => retention::purge(&at(given), &args),
        Command::Maintain(args) => retention::maintain(&at(given), &args),
        Command::Verify(args) => verify::run(&at(given), &args),
        Command::Backup(args) => operations::backup(&at(given), &args),
        Command::Restore(args) => operations::restore(&args),
        Command::Repair(args) => operations::repair(&args),
        Command::Rebuild => rebuild::run(&at(given)),
        #[cfg(feature = "encryption")]
        Command::Rotate => rotate::run(&at(given)),
        Command::Demo(args) => demo::run(given, &args),
    }
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(code) => code,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            note(format_args!("highwater: {}", one_line(&error)));
            match error.downcast_ref() {
                Some(highwater::Error::Locked { .. }) => ExitCode::from(EXIT_LOCKED),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

/// Whoever read our output has seen enough, as in `highwater feed ... | head`.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let io = cause.downcast_ref::<io::Error>();
        let json = cause.downcast_ref::<serde_json::Error>();
        let kind = io.map(io::Error::kind);
        kind.or_else(|| json.and_then(serde_json::Error::io_error_kind))
            == Some(io::ErrorKind::BrokenPipe)
    })
}

/// An error with its causes, each said once: many errors quote their cause themselves.
fn one_line(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if text.contains(&cause) {
            continue;
        }
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&cause);
    }
    text.replace('\n', " ")
}
