//! Walking every checksum of a store, and every reference between its parts.
//!
//! * [`log`]: every byte of every file of the log, and whether its files lead to one another
//! * [`feeds`]: each feed's description against the entries in its frames, and against its index
//! * [`parts`]: the catalog, the state, the runs of indexes, and which files there are
//!
//! Writers go on meanwhile, compaction does not: nothing is replaced while it is being looked at.

mod feeds;
mod log;
mod pace;
mod parts;
#[cfg(all(test, feature = "simulate"))]
mod tests;

use crate::cursor::Cursor;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::feed::FeedKey;
use crate::verify::log::Walked;
use crate::verify::pace::Pace;

/// What a verification looked at and found. See [`Store::verify`](crate::Store::verify).
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct VerifyReport {
    /// Files of the log that were walked.
    pub segments: u64,
    /// Frames whose every byte was checked.
    pub frames: u64,
    /// Versions of records in those frames, superseded ones included.
    pub versions: u64,
    /// Bytes read from the log.
    pub bytes: u64,
    /// Feeds that were compared with the frames, and with their indexes.
    pub feeds: u64,
    /// Runs of indexes whose every block was checked.
    pub runs: u64,
    /// Everything that did not hold, with file and offset.
    pub damage: Vec<Error>,
    /// The changes of feeds that are in damaged places, as far as that is known.
    pub affected: Vec<Affected>,
}

/// Changes of a feed that are in a damaged place. Not all of them need be damaged, and superseded
/// ones may be among them.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Affected {
    /// The feed.
    pub feed: FeedKey,
    /// The first of them.
    pub first: Cursor,
    /// The last of them.
    pub last: Cursor,
}

/// How a store is verified. Each method takes and returns the options.
#[derive(Clone, Copy, Default, Debug)]
#[must_use = "options do nothing until a store is verified with them"]
pub struct VerifyOptions {
    bytes_per_second: Option<u64>,
}

impl VerifyOptions {
    /// As fast as the disk allows.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads no more of the log than so many bytes a second, to leave the disk to others.
    pub fn bytes_per_second(mut self, bytes: u64) -> Self {
        self.bytes_per_second = Some(bytes);
        self
    }
}

impl VerifyReport {
    /// Whether nothing was found.
    pub fn is_clean(&self) -> bool {
        self.damage.is_empty()
    }

    /// Takes note of what a check that ended early found; an error that is no damage ends it all.
    fn note(&mut self, checked: Result<()>) -> Result<()> {
        match checked {
            Err(damage @ (Error::Corrupt { .. } | Error::UnknownFormat { .. })) => {
                self.damage.push(damage);
                Ok(())
            }
            checked => checked,
        }
    }
}

/// Verifies a store; see [`Store::verify`](crate::Store::verify).
pub(crate) fn verify(
    engine: &Engine,
    options: VerifyOptions,
    mut progress: impl FnMut(u64, u64),
) -> Result<VerifyReport> {
    let mut report = VerifyReport::default();
    let mut pace = Pace::new(options.bytes_per_second);
    // Nothing is to be replaced while it is being looked at.
    let _compactor = engine.compactor.lock();
    parts::check_files(engine, &mut report)?;
    let before = parts::StateBefore::of(engine);
    let walked = Walked::of(engine, &mut report, &mut pace, &mut progress)?;
    let checked = before.compare(engine, &walked);
    report.note(checked)?;
    for registration in engine.state.registrations() {
        report.feeds += 1;
        let checked = feeds::check(engine, &registration, &walked, &mut report, &mut pace);
        report.note(checked)?;
    }
    parts::check_runs(engine, &mut report, &mut pace)?;
    parts::check_catalog(engine, &mut report)?;
    progress(report.bytes, report.bytes);
    Ok(report)
}
