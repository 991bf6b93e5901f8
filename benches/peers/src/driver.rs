//! Runs every engine and group in a process of its own, round after round, engines in turn.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::measure::Outcome;
use crate::options::Options;
use crate::report;
use crate::workloads::reopen::READY;

/// The outcomes of one round.
pub(crate) type Round = Vec<Outcome>;

/// Measures everything and prints the tables.
pub(crate) fn compare(options: &Options) -> Result<()> {
    // Written as they come, so that a run that is broken off was not for nothing.
    let mut json = options.json.as_ref().map(File::create).transpose()?;
    let mut rounds = Vec::new();
    for number in 0..options.rounds {
        let round = measure(options, number, json.as_mut())?;
        check(&round)?;
        rounds.push(round);
    }
    report::print(options, &rounds);
    Ok(())
}

fn measure(options: &Options, number: usize, mut json: Option<&mut File>) -> Result<Round> {
    let mut round = Round::new();
    for group in &options.groups {
        // Each engine comes first sometimes: a disk may be slower after another's writes.
        let mut engines = options.engines.clone();
        let first = number % engines.len();
        engines.rotate_left(first);
        for engine in &engines {
            eprintln!("round {}: {group} on {engine}", number + 1);
            let outcomes = one(options, engine, group);
            let outcomes = outcomes.with_context(|| format!("{group} on {engine} failed"))?;
            if let Some(json) = &mut json {
                for outcome in &outcomes {
                    writeln!(json, "{}", serde_json::to_string(outcome)?)?;
                }
            }
            round.extend(outcomes);
        }
    }
    Ok(round)
}

/// Runs a group on an engine in a fresh directory.
fn one(options: &Options, engine: &str, group: &str) -> Result<Vec<Outcome>> {
    let dir = tempfile::Builder::new()
        .prefix("highwater-peers-")
        .tempdir_in(&options.dir)?;
    let records = if group == "reopen" {
        kill(&mut spawn(
            engine,
            "reopen-prepare",
            options.reopen,
            dir.path(),
        )?)?;
        options.reopen
    } else {
        options.records
    };
    let mut child = spawn(engine, group, records, dir.path())?;
    let lines = BufReader::new(child.stdout.take().context("there is no output")?).lines();
    let mut outcomes = Vec::new();
    for line in lines {
        outcomes.push(serde_json::from_str(&line?)?);
    }
    ensure!(child.wait()?.success(), "its process failed");
    Ok(outcomes)
}

fn spawn(engine: &str, group: &str, records: usize, dir: &Path) -> Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["one", engine, group]);
    command.args(["--records", &records.to_string()]);
    command.arg("--dir").arg(dir);
    Ok(command.stdout(Stdio::piped()).spawn()?)
}

/// Kills a process once it is ready: with SIGKILL, so that it can tidy nothing up.
fn kill(child: &mut Child) -> Result<()> {
    let output = child.stdout.take().context("there is no output")?;
    let line = BufReader::new(output).lines().next();
    let ready = line.transpose()?.is_some_and(|line| line == READY);
    child.kill()?;
    child.wait()?;
    ensure!(ready, "its process failed before it was killed");
    Ok(())
}

/// Fails when two engines ended with different feeds.
fn check(round: &Round) -> Result<()> {
    for outcome in round {
        let same = |other: &&Outcome| other.workload == outcome.workload;
        for other in round.iter().filter(same) {
            ensure!(
                other.checksum == outcome.checksum,
                "{} and {} ended {} with different feeds",
                other.engine,
                outcome.engine,
                outcome.workload
            );
        }
    }
    Ok(())
}
