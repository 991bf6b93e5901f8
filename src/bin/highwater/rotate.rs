//! `rotate`: changing the key of an encrypted store.

use std::process::ExitCode;

use crate::open::Location;
use crate::terminal::note;

pub(crate) fn run(at: &Location) -> anyhow::Result<ExitCode> {
    let store = at.open()?;
    let before = store.encryption_keys()?;
    let compacted = store.rotate()?;
    let after = store.encryption_keys()?;
    store.close()?;
    for key in before.iter().filter(|key| !after.contains(key)) {
        note(format_args!("key {key} is not needed any more"));
    }
    for key in &after {
        println!("{key}");
    }
    note(format_args!(
        "{} files of {} bytes were written anew",
        compacted.removed, compacted.removed_bytes
    ));
    Ok(ExitCode::SUCCESS)
}
