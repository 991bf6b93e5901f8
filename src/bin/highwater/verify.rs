//! `highwater verify`: checks every checksum.

use std::io::{self, Write};
use std::process::ExitCode;

use crate::open::Location;
use crate::terminal::{byte_progress, plural};

pub(crate) fn run(at: &Location) -> anyhow::Result<ExitCode> {
    let store = at.open()?;
    let bar = byte_progress(Some(0))?;
    let verified = store.verify(|done, total| {
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
    if !report.is_clean() {
        return Ok(ExitCode::FAILURE);
    }
    writeln!(out, "no damage")?;
    closed?;
    Ok(ExitCode::SUCCESS)
}
