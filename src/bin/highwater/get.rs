//! `highwater get`: records by id.

use std::collections::HashSet;
use std::io::{self, BufWriter, Write};
use std::process::ExitCode;

use clap::Args;

use crate::line::write_line;
use crate::open::{FeedArgs, Location};
use crate::terminal::note;

/// Print records by id as NDJSON, deleted ones included
///
/// The exit code is 1 when a record was never saved.
#[derive(Args)]
pub(crate) struct GetArgs {
    #[command(flatten)]
    feed: FeedArgs,
    /// Ids of the records
    #[arg(required = true, value_name = "ID")]
    ids: Vec<String>,
}

pub(crate) fn run(at: &Location, args: &GetArgs) -> anyhow::Result<ExitCode> {
    let store = at.open()?;
    let page = args.feed.of(&store)?.get(&args.ids)?;
    store.close()?;
    let mut out = BufWriter::new(io::stdout());
    let mut found = HashSet::new();
    for record in page.iter() {
        write_line(&mut out, &record)?;
        found.insert(record.id);
    }
    out.flush()?;
    let missing = args.ids.iter().filter(|id| !found.contains(id.as_str()));
    let mut code = ExitCode::SUCCESS;
    for id in missing {
        note(format_args!("not found: {id}"));
        code = ExitCode::FAILURE;
    }
    Ok(code)
}
