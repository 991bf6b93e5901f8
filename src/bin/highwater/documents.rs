//! `highwater checkpoint` and `metadata`: the small JSON objects beside the records.

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use highwater::Expected;
use serde_json::value::RawValue;

use crate::open::Location;
use crate::terminal::note;

/// Print, save or clear the checkpoint of a sync
///
/// The exit code is 1 when there is none to print.
#[derive(Args)]
pub(crate) struct CheckpointArgs {
    /// Whose data the sync fetches
    #[arg(long, short)]
    connection: String,
    /// Name of the sync
    #[arg(long, short)]
    sync: String,
    /// Variant of the sync
    #[arg(long, default_value = "base")]
    variant: String,
    /// Save this JSON object
    #[arg(long, value_name = "JSON")]
    set: Option<String>,
    /// Clear it
    #[arg(long, conflicts_with = "set")]
    clear: bool,
    /// Only when it has this version; 0 stands for none
    #[arg(long, value_name = "VERSION")]
    expect: Option<u64>,
}

pub(crate) fn checkpoint(at: &Location, args: &CheckpointArgs) -> anyhow::Result<ExitCode> {
    let store = at.open()?;
    let (connection, sync, variant) = (&args.connection, &args.sync, &args.variant);
    let expected = match args.expect {
        None => Expected::Any,
        Some(0) => Expected::Absent,
        Some(version) => Expected::Version(version),
    };
    if let Some(json) = &args.set {
        store.save_checkpoint(connection, sync, variant, &object(json)?, expected)?;
    } else if args.clear {
        store.clear_checkpoint(connection, sync, variant, expected)?;
    }
    let found = store.checkpoint(connection, sync, variant)?;
    store.close()?;
    if args.clear {
        return Ok(ExitCode::SUCCESS);
    }
    let Some(found) = found else {
        note(format_args!("there is no checkpoint"));
        return Ok(ExitCode::FAILURE);
    };
    let json: &RawValue = serde_json::from_slice(&found.json)?;
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "{{\"version\":{},\"checkpoint\":{json}}}",
        found.version
    )?;
    Ok(ExitCode::SUCCESS)
}

/// Print, replace or extend the metadata of a connection
///
/// The exit code is 1 when there is none to print.
#[derive(Args)]
pub(crate) struct MetadataArgs {
    /// The connection
    #[arg(long, short)]
    connection: String,
    /// Replace it with this JSON object
    #[arg(long, value_name = "JSON")]
    set: Option<String>,
    /// Put the fields of this JSON object in
    #[arg(long, value_name = "JSON", conflicts_with = "set")]
    merge: Option<String>,
}

pub(crate) fn metadata(at: &Location, args: &MetadataArgs) -> anyhow::Result<ExitCode> {
    let store = at.open()?;
    if let Some(json) = &args.set {
        store.set_connection_metadata(&args.connection, &object(json)?)?;
    } else if let Some(json) = &args.merge {
        store.update_connection_metadata(&args.connection, &object(json)?)?;
    }
    let found = store.connection_metadata(&args.connection)?;
    store.close()?;
    let Some(found) = found else {
        note(format_args!("there is no metadata"));
        return Ok(ExitCode::FAILURE);
    };
    let mut out = io::stdout().lock();
    out.write_all(&found)?;
    writeln!(out)?;
    Ok(ExitCode::SUCCESS)
}

fn object(text: &str) -> anyhow::Result<Box<RawValue>> {
    RawValue::from_string(text.to_owned()).context("that is not JSON")
}
