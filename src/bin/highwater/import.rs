//! `highwater import`: saves records from NDJSON.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, anyhow, bail};
use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use highwater::{Error, Feed, RunOptions, Sweep, Totals};
use indicatif::ProgressBar;
use serde_json::value::RawValue;

use crate::input::{self, Lines};
use crate::open::{FeedArgs, Location};
use crate::terminal::{grouped, plural, rate};

const ID_FIELD: &str = "id";
/// A batch is saved early when its text has grown to this size, whatever its number of records.
const BATCH_BYTES: usize = 32 << 20;

/// Save records from NDJSON: one JSON object per line, plain or gzip
///
/// Each batch is saved whole or not at all. A bad line stops the import with its number; nothing
/// of its batch is saved, batches before it are. Importing again is harmless: what is the same
/// is counted as unchanged.
///
/// Of several lines with the same id in one batch the first one counts; a later batch overwrites.
///
/// An import is a run of a sync: `highwater runs` tells what it did.
#[derive(Args)]
pub(crate) struct ImportArgs {
    #[command(flatten)]
    feed: FeedArgs,
    /// NDJSON file; `-` is standard input
    #[arg(default_value = "-")]
    file: PathBuf,
    /// Field that holds each record's id, a string or a number. When it is not `id`, the saved
    /// object gets a field `id` with the same value in front; it must not have one already
    #[arg(long, value_name = "FIELD", default_value = ID_FIELD,
        value_parser = NonEmptyStringValueParser::new())]
    id_field: String,
    /// Records per batch
    #[arg(long, value_name = "RECORDS", default_value_t = 1000,
        value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    batch: u32,
    /// Do not wait for the disk after each batch, only at the end
    #[arg(long)]
    relaxed: bool,
    /// Delete records that are not in the file, in one commit at its end. An import that stops
    /// early deletes nothing, and is gone on with by the next one
    #[arg(long)]
    track_deletes: bool,
    /// Delete nothing when it would be more records than this
    #[arg(long, value_name = "RECORDS", requires = "track_deletes")]
    max_deleted: Option<u64>,
    /// Delete nothing when it would be more than this part of the feed, from 0.0 to 1.0
    #[arg(long, value_name = "PART", requires = "track_deletes")]
    max_fraction: Option<f64>,
    /// Delete in spite of the limits
    #[arg(long, requires = "track_deletes")]
    force: bool,
    /// Name of the sync that this is a run of
    #[arg(long, value_name = "NAME", default_value = "import")]
    sync: String,
}

pub(crate) fn run(at: &Location, args: &ImportArgs) -> anyhow::Result<ExitCode> {
    let input = input::open(&args.file)?;
    let store = at.open_or_create(args.relaxed)?;
    let started = Instant::now();
    let run = store.begin_run(&args.feed.sync(&args.sync)?, RunOptions::new())?;
    let feed = run.feed(args.feed.model())?;
    if args.track_deletes {
        feed.track_deletes_start()?;
    }
    let mut import = Import {
        feed,
        id_field: &args.id_field,
        batch: Vec::new(),
        lines: Vec::new(),
        bytes: 0,
        totals: Totals::default(),
        progress: input.progress,
    };
    let read = import
        .read(Lines::new(input.reader), args.batch as usize)
        .with_context(|| input.name);
    import.progress.finish_and_clear();
    let done = read.and_then(|()| import.sweep(args));
    // What was saved is made safe and reported also when a line was bad.
    let ended = match &done {
        Ok(()) => run.succeed(),
        Err(error) => run.fail(&format!("{error:#}")),
    };
    let closed = store.close();
    report(&import.totals, started)?;
    done?;
    ended?;
    closed?;
    Ok(ExitCode::SUCCESS)
}

struct Import<'a> {
    feed: Feed,
    id_field: &'a str,
    batch: Vec<Box<RawValue>>,
    /// The line of each record of the batch.
    lines: Vec<u64>,
    bytes: usize,
    totals: Totals,
    progress: ProgressBar,
}

impl Import<'_> {
    fn read(&mut self, mut lines: Lines<impl io::Read>, batch: usize) -> anyhow::Result<()> {
        while let Some((number, line)) = lines.next()? {
            let record = record(line, self.id_field).map_err(|why| self.bad_line(number, &why))?;
            self.bytes += record.get().len();
            self.batch.push(record);
            self.lines.push(number);
            if self.batch.len() >= batch || self.bytes >= BATCH_BYTES {
                self.save()?;
            }
        }
        self.save()
    }

    /// Deletes what was not in the file, if that is asked for.
    fn sweep(&mut self, args: &ImportArgs) -> anyhow::Result<()> {
        if !args.track_deletes {
            return Ok(());
        }
        let mut sweep = Sweep::new().force(args.force);
        if let Some(records) = args.max_deleted {
            sweep = sweep.max_deleted(records);
        }
        if let Some(fraction) = args.max_fraction {
            sweep = sweep.max_fraction(fraction);
        }
        let swept = self.feed.track_deletes_end(&sweep)?;
        self.totals.deleted += swept.deleted;
        Ok(())
    }

    fn save(&mut self) -> anyhow::Result<()> {
        let applied = self.feed.batch_save(&self.batch).map_err(|error| {
            let Error::InvalidRecord { index, reason } = &error else {
                return anyhow::Error::new(error);
            };
            let line = self.lines.get(*index).copied().unwrap_or_default();
            self.bad_line(line, &anyhow!("{reason}"))
        })?;
        self.totals += applied.totals;
        self.batch.clear();
        self.lines.clear();
        self.bytes = 0;
        let saved = inputs(&self.totals);
        self.progress.set_message(plural(saved, "record"));
        Ok(())
    }

    fn bad_line(&self, line: u64, why: &anyhow::Error) -> anyhow::Error {
        let first = self.lines.first().copied().unwrap_or(line);
        anyhow!("line {line}: {why}; nothing from line {first} on was imported")
    }
}

/// The record of a line, as text. With an id field of another name it gets a field `id` with that
/// field's value, so that it is saved as JSON and compared as a value like any other.
fn record(line: &[u8], id_field: &str) -> anyhow::Result<Box<RawValue>> {
    let syntax = |error: serde_json::Error| match error.is_eof() {
        true => anyhow!("it is not JSON: it ends in the middle"),
        false => anyhow!("it is not JSON, at column {}", error.column()),
    };
    let text: &RawValue = serde_json::from_slice(line).map_err(syntax)?;
    if id_field == ID_FIELD {
        return Ok(text.to_owned());
    }
    let text = text.get();
    let Some(members) = text.strip_prefix('{') else {
        bail!("it is not a JSON object");
    };
    let fields: BTreeMap<String, &RawValue> = serde_json::from_str(text).map_err(syntax)?;
    if fields.contains_key(ID_FIELD) {
        bail!("it has a field `id` already, so `{id_field}` cannot become its id");
    }
    let Some(id) = fields.get(id_field) else {
        bail!("it has no field `{id_field}`");
    };
    Ok(RawValue::from_string(format!(
        "{{\"{ID_FIELD}\":{},{members}",
        id.get()
    ))?)
}

fn inputs(totals: &Totals) -> u64 {
    totals.added + totals.updated + totals.restored + totals.unchanged + totals.duplicate
}

fn report(totals: &Totals, started: Instant) -> anyhow::Result<()> {
    let elapsed = started.elapsed();
    let mut out = io::stdout().lock();
    let [added, updated] = [totals.added, totals.updated].map(grouped);
    let [unchanged, duplicate] = [totals.unchanged, totals.duplicate].map(grouped);
    // Only an import that looks for deletions has any.
    let deleted = match totals.deleted {
        0 => String::new(),
        deleted => format!("deleted {}  ", grouped(deleted)),
    };
    let (seconds, rate) = (elapsed.as_secs_f64(), rate(inputs(totals), elapsed));
    writeln!(
        out,
        "added {added}  updated {updated}  unchanged {unchanged}  duplicate {duplicate}  \
         {deleted}({seconds:.2} s, {rate})"
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_id_field_becomes_the_id() {
        let text = |line: &str| record(line.as_bytes(), "key").map(|text| text.get().to_owned());
        assert_eq!(
            text(r#" {"a": 1.0, "key": "x"} "#).unwrap(),
            r#"{"id":"x","a": 1.0, "key": "x"}"#
        );
        for line in [r#"{"id":1,"key":2}"#, r#"{"a":1}"#, "{}", "[1]", "{", "1 2"] {
            assert!(text(line).is_err(), "{line}");
        }
    }
}
