//! `highwater verify`: checks every checksum, and every reference between the parts of the store.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Args;
use highwater::VerifyOptions;

use crate::open::Location;
use crate::terminal::{byte_progress, plural};

/// Check every checksum of the store, and every reference between its parts
///
/// Damage is listed with file and offset, and with the changes of feeds that are there; the exit
/// code is 1 then.
#[derive(Args)]
pub(crate) struct VerifyArgs {
    /// Read no more than so many MiB a second
    #[arg(long, value_name = "MIB")]
    rate: Option<u64>,
}

pub(crate) fn run(at: &Location, args: &VerifyArgs) -> anyhow::Result<ExitCode> {
    let store = at.open()?;
    let bar = byte_progress(Some(0))?;
    let options = match args.rate {
        Some(rate) => VerifyOptions::new().bytes_per_second(rate.saturating_mul(1 << 20)),
        None => VerifyOptions::new(),
    };
    let verified = store.verify_with(options, |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    let report = verified?;
    // A store that is damaged may not close well, which must not hide the list.
    let closed = store.close();
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "checked {}, {}, {}, {} in {}",
        plural(report.bytes, "byte"),
        plural(report.frames, "frame"),
        plural(report.versions, "version"),
        plural(report.feeds, "feed"),
        plural(report.segments, "segment"),
    )?;
    for damage in &report.damage {
        writeln!(out, "damage: {damage}")?;
    }
    for affected in &report.affected {
        writeln!(
            out,
            "affected: {}, changes {} to {}",
            affected.feed, affected.first, affected.last
        )?;
    }
    if !report.is_clean() {
        return Ok(ExitCode::FAILURE);
    }
    writeln!(out, "no damage")?;
    closed?;
    Ok(ExitCode::SUCCESS)
}
