//! `highwater backup`, `restore` and `repair`: whole stores from one directory into another.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use highwater::Options;

use crate::open::Location;
use crate::terminal::{byte_progress, plural};

/// Back the store up into a directory
///
/// Files that never change any more are shared with the store where the file system can do that. A
/// directory with an earlier backup of the same store gets only what is new.
#[derive(Args)]
pub(crate) struct BackupArgs {
    /// Directory of the backup
    to: PathBuf,
}

/// Make a store of a backup, and verify it
///
/// Readers whose cursors are from before the backup go on; others are told to start over.
#[derive(Args)]
pub(crate) struct RestoreArgs {
    /// Directory of the backup
    from: PathBuf,
    /// Directory of the store to make, which is empty or not there
    to: PathBuf,
}

/// Make a store of everything that is undamaged in another one
///
/// The damaged store stays as it is. What is lost is listed by feed and cursors, and the exit code
/// is 1 then.
#[derive(Args)]
pub(crate) struct RepairArgs {
    /// Directory of the damaged store
    from: PathBuf,
    /// Directory of the store to make, which is empty or not there
    to: PathBuf,
}

pub(crate) fn backup(at: &Location, args: &BackupArgs) -> anyhow::Result<ExitCode> {
    let store = at.open()?;
    let bar = byte_progress(Some(0))?;
    let done = store.backup(&args.to, |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    let done = done?;
    store.close()?;
    writeln!(
        io::stdout().lock(),
        "backed up to {}: {} copied ({}), {} shared, {} there already",
        args.to.display(),
        plural(done.copied, "file"),
        plural(done.copied_bytes, "byte"),
        plural(done.linked, "file"),
        plural(done.kept, "file"),
    )?;
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn restore(args: &RestoreArgs) -> anyhow::Result<ExitCode> {
    let bar = byte_progress(Some(0))?;
    let restored = Options::new().restore(&args.from, &args.to, |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    let restored = restored?;
    writeln!(
        io::stdout().lock(),
        "restored to {}: {}, {}; no damage in {} and {}",
        args.to.display(),
        plural(restored.files, "file"),
        plural(restored.bytes, "byte"),
        plural(restored.verified.frames, "frame"),
        plural(restored.verified.feeds, "feed"),
    )?;
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn repair(args: &RepairArgs) -> anyhow::Result<ExitCode> {
    let repaired = Options::new().repair(&args.from, &args.to)?;
    let mut out = io::stdout().lock();
    for damage in &repaired.damage {
        writeln!(out, "damage: {damage}")?;
    }
    for lost in &repaired.lost {
        writeln!(out, "lost: {lost}")?;
    }
    writeln!(
        out,
        "repaired to {}: {} of {}",
        args.to.display(),
        plural(repaired.records, "record"),
        plural(repaired.feeds, "feed"),
    )?;
    if !repaired.is_complete() {
        return Ok(ExitCode::FAILURE);
    }
    writeln!(out, "nothing is lost")?;
    Ok(ExitCode::SUCCESS)
}
