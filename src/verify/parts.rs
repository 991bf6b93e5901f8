//! What is besides the records: the catalog, the state, the runs of indexes, and which files there
//! are.

use std::collections::BTreeMap;

use super::log::Walked;
use super::{Pace, VerifyReport};
use crate::encryption::Keyring;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::index::run;
use crate::log::SegmentId;
use crate::log::segment::Segment;
use crate::state::{Registration, StateKey, StateOp};

/// Compares the files in the directory of the log with those that the store knows.
pub(super) fn check_files(engine: &Engine, report: &mut VerifyReport) -> Result<()> {
    let (storage, dir) = (engine.log.storage(), engine.log.dir());
    let names = storage
        .list(dir)
        .map_err(|error| Error::io("list", dir, error))?;
    // Listed first: what is made after that is known, but not in the list.
    let manifest = engine.manifest.lock().clone();
    let known = engine.log.segments();
    for id in names.iter().filter_map(|name| SegmentId::parse(name)) {
        let path = id.path(dir);
        if !known.iter().any(|segment| segment.id() == id) && !manifest.is_retired(id) {
            let what = "the file is no part of the store";
            report.damage.push(Error::corrupt(&path, 0, what));
        }
    }
    let keyring = Keyring::new(engine.options.encryption.clone());
    for segment in known
        .iter()
        .filter(|segment| engine.log.is_named(segment.id()))
    {
        let opened = Segment::open(storage, segment.path.clone(), segment.id(), &keyring);
        let opened = opened.and_then(|opened| match opened.header == segment.header {
            true => Ok(()),
            false => Err(Error::corrupt(&segment.path, 0, "segment header")),
        });
        match opened {
            Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                // Somebody may have left it in this moment.
                if engine
                    .log
                    .segments()
                    .iter()
                    .any(|it| it.id() == segment.id())
                {
                    let what = "the file is missing";
                    report.damage.push(Error::corrupt(&segment.path, 0, what));
                }
            }
            opened => report.note(opened)?,
        }
    }
    for id in &manifest.packs {
        if !known.iter().any(|pack| pack.id() == *id) {
            let missing = Error::corrupt(&id.path(dir), 0, "the pack is missing");
            report.damage.push(missing);
        }
    }
    Ok(())
}

/// The state before the log is walked.
pub(super) struct StateBefore(Vec<StateOp>);

impl StateBefore {
    pub(super) fn of(engine: &Engine) -> Self {
        Self(engine.state.all())
    }

    /// Compares the values that have not changed since with what the log says.
    pub(super) fn compare(self, engine: &Engine, walked: &Walked) -> Result<()> {
        let damaged = |what| Error::corrupt(&engine.path, 0, what);
        let before: BTreeMap<StateKey, Vec<u8>> = self
            .0
            .into_iter()
            .filter_map(|operation| Some((operation.key, operation.value?)))
            .collect();
        for (key, value) in &walked.state {
            let now = engine.state.get(key);
            if now.as_ref() == before.get(key) && now != *value {
                return Err(damaged("a value of the state is not what the log says"));
            }
        }
        for (key, value) in &before {
            let unchanged = engine.state.get(key).as_ref() == Some(value);
            if unchanged && !walked.state.contains_key(key) {
                return Err(damaged("a value of the state is not in the log"));
            }
            if unchanged && key.is_feed() && Registration::decode(value).is_none() {
                return Err(damaged("the registration of a feed"));
            }
        }
        Ok(())
    }
}

/// Reads every block of every run.
pub(super) fn check_runs(
    engine: &Engine,
    report: &mut VerifyReport,
    pace: &mut Pace,
) -> Result<()> {
    let named = engine.shelf.lock().named();
    for (stream, id) in named {
        let name = engine.run_name(stream, id);
        let storage = engine.options.storage.as_ref();
        let checked = run::Run::open(storage, &engine.index_dir, name, engine.log.cipher())
            .and_then(|run| run.check(|bytes| pace.spend(engine, bytes)));
        // Runs come and go while writers are at work.
        if checked.is_err() && !engine.shelf.lock().has(id) {
            continue;
        }
        report.runs += 1;
        report.note(checked)?;
    }
    Ok(())
}

/// Checks the catalog's tree, and the sums over its rows.
pub(super) fn check_catalog(engine: &Engine, report: &mut VerifyReport) -> Result<()> {
    let checked = engine.catalog.lock().check();
    report.note(checked)
}
