//! The command line.

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};

use crate::ENGINES;
use crate::workloads::GROUPS;

const HELP: &str = "\
Compares Highwater with other engines at a records cache's job.

  --records N       records of a feed; 200000 by default
  --reopen N        records that a killed process leaves; 1000000 by default
  --rounds N        how often everything is measured; 3 by default
  --only A,B        these engines only
  --workload A,B    these groups of workloads only
  --dir PATH        where the caches are; on the disk to measure, the current directory by default
  --json PATH       writes every single outcome to a file, one a line";

/// What to do.
#[derive(Debug)]
pub(crate) enum Command {
    /// Everything, and the tables.
    Compare,
    /// One group on one engine, in this process.
    One { engine: String, group: String },
}

/// What the command line says.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) command: Command,
    pub(crate) records: usize,
    pub(crate) reopen: usize,
    pub(crate) rounds: usize,
    pub(crate) engines: Vec<String>,
    pub(crate) groups: Vec<String>,
    pub(crate) dir: PathBuf,
    pub(crate) json: Option<PathBuf>,
}

impl Options {
    /// Reads the command line.
    pub(crate) fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self> {
        let groups = GROUPS.iter().map(|group| group.name.to_owned());
        let mut options = Self {
            command: Command::Compare,
            records: 200_000,
            reopen: 1_000_000,
            rounds: 3,
            engines: ENGINES.iter().map(|&engine| engine.to_owned()).collect(),
            groups: groups.collect(),
            dir: PathBuf::from("."),
            json: None,
        };
        while let Some(argument) = arguments.next() {
            if argument == "--help" {
                println!("{HELP}");
                std::process::exit(0);
            }
            let mut value = || {
                let value = arguments.next();
                value.with_context(|| format!("{argument} needs a value"))
            };
            match argument.as_str() {
                "--records" => options.records = value()?.parse()?,
                "--reopen" => options.reopen = value()?.parse()?,
                "--rounds" => options.rounds = value()?.parse()?,
                "--only" => options.engines = chosen(&value()?, &options.engines)?,
                "--workload" => options.groups = chosen(&value()?, &options.groups)?,
                "--dir" => options.dir = value()?.into(),
                "--json" => options.json = Some(value()?.into()),
                "one" => {
                    let (engine, group) = (value()?, value()?);
                    options.command = Command::One { engine, group };
                }
                _ => bail!("{argument} is unknown\n\n{HELP}"),
            }
        }
        // The figures are per batch of 1000, and the last one is not to be smaller.
        let whole = |records: usize| records > 0 && records.is_multiple_of(1000);
        ensure!(
            whole(options.records) && whole(options.reopen),
            "records come in thousands"
        );
        ensure!(options.rounds > 0, "there is at least one round");
        Ok(options)
    }
}

/// The names of a list with commas, which must be among `all`; in the order of `all`.
fn chosen(list: &str, all: &[String]) -> Result<Vec<String>> {
    let names: Vec<&str> = list.split(',').collect();
    for name in &names {
        let known = all.iter().any(|known| known == name);
        ensure!(known, "{name} is not among {}", all.join(", "));
    }
    let chosen = all.iter().filter(|name| names.contains(&name.as_str()));
    Ok(chosen.cloned().collect())
}
