//! The tables, in Markdown: medians of the rounds, and Highwater beside the best of the others.

use crate::driver::Round;
use crate::measure::Outcome;
use crate::options::Options;
use crate::workloads::{GROUPS, Unit};

/// The engine that the others are compared with.
const OURS: &str = "highwater";

/// Prints all tables.
pub(crate) fn print(options: &Options, rounds: &[Round]) {
    let groups = || {
        let chosen = |name: &str| options.groups.iter().any(|group| group == name);
        GROUPS.iter().filter(move |group| chosen(group.name))
    };
    let workloads = || groups().flat_map(|group| group.workloads);

    println!("## Ratios\n");
    println!("Highwater against the best peer of the same round; above 1, Highwater is better.\n");
    println!("| workload | unit | Highwater | best peer | its figure | ratio | least to most |");
    println!("|---|---|---|---|---|---|---|");
    for (name, title, unit) in workloads() {
        if let Some(row) = ratio_row(rounds, name, title, *unit, &options.engines) {
            println!("{row}");
        }
    }

    println!("\n## Figures\n");
    header(&options.engines, "workload | unit");
    for (name, title, unit) in workloads() {
        let cell = |engine: &String| {
            let value = median(of(rounds, engine, name).map(|outcome| outcome.value));
            value.map_or("-".to_owned(), |value| figure(value, *unit))
        };
        let cells: Vec<String> = options.engines.iter().map(cell).collect();
        println!("| {title} | {} | {} |", unit_name(*unit), cells.join(" | "));
    }

    println!("\n## Latencies: p50 / p99, in milliseconds\n");
    print_details(options, rounds, |outcome| {
        let (p50, p99) = (outcome.p50?, outcome.p99?);
        Some((p50, Some(p99)))
    });
    println!("\n## Bytes written during the saves, in MiB, without what is put off\n");
    print_details(options, rounds, |outcome| {
        Some((outcome.written? as f64 / f64::from(1 << 20), None))
    });
}

fn header(engines: &[String], first: &str) {
    println!("| {first} | {} |", engines.join(" | "));
    let columns = first.matches('|').count() + 1 + engines.len();
    println!("|{}", "---|".repeat(columns));
}

/// A table of one or two numbers of the outcomes that have them.
fn print_details(
    options: &Options,
    rounds: &[Round],
    detail: impl Fn(&Outcome) -> Option<(f64, Option<f64>)>,
) {
    header(&options.engines, "workload");
    for (name, title, _) in GROUPS.iter().flat_map(|group| group.workloads) {
        let cell = |engine: &String| {
            let details = || of(rounds, engine, name).filter_map(&detail);
            let first = median(details().map(|(first, _)| first))?;
            let second = median(details().filter_map(|(_, second)| second));
            Some(match second {
                Some(second) => format!("{} / {}", short(first), short(second)),
                None => short(first),
            })
        };
        let cells: Option<Vec<String>> = options.engines.iter().map(cell).collect();
        if let Some(cells) = cells {
            println!("| {title} | {} |", cells.join(" | "));
        }
    }
}

/// The outcomes of a workload on an engine, in all rounds.
fn of<'r>(
    rounds: &'r [Round],
    engine: &'r str,
    workload: &'r str,
) -> impl Iterator<Item = &'r Outcome> {
    let wanted = move |outcome: &&Outcome| outcome.engine == engine && outcome.workload == workload;
    rounds.iter().flatten().filter(wanted)
}

fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    let (low, high) = (values.len().checked_sub(1)? / 2, values.len() / 2);
    Some(f64::midpoint(values[low], values[high]))
}

/// How many times better `ours` is.
fn advantage(ours: f64, theirs: f64, unit: Unit) -> f64 {
    match unit {
        Unit::RecordsPerSecond => ours / theirs,
        Unit::Milliseconds | Unit::Factor | Unit::Mebibytes => theirs / ours,
    }
}

/// The row of a workload: the best peer is that of each round, and named after the medians.
fn ratio_row(
    rounds: &[Round],
    name: &str,
    title: &str,
    unit: Unit,
    engines: &[String],
) -> Option<String> {
    let ours = median(of(rounds, OURS, name).map(|outcome| outcome.value))?;
    let peers = || engines.iter().filter(|engine| *engine != OURS);
    let figures = peers().filter_map(|engine| {
        let theirs = median(of(rounds, engine, name).map(|outcome| outcome.value))?;
        Some((engine, theirs, advantage(ours, theirs, unit)))
    });
    let (best, theirs, _) = figures.min_by(|a, b| a.2.total_cmp(&b.2))?;
    let in_round = |round: &Round| {
        let round = std::slice::from_ref(round);
        let ours = of(round, OURS, name).next()?.value;
        let peers = peers().flat_map(|engine| of(round, engine, name));
        let ratios = peers.map(|outcome| advantage(ours, outcome.value, unit));
        ratios.min_by(f64::total_cmp)
    };
    let ratios: Vec<f64> = rounds.iter().filter_map(in_round).collect();
    let least = ratios.iter().copied().min_by(f64::total_cmp)?;
    let most = ratios.iter().copied().max_by(f64::total_cmp)?;
    let ratio = median(ratios.into_iter())?;
    let (unit_name, ours, theirs) = (unit_name(unit), figure(ours, unit), figure(theirs, unit));
    Some(format!(
        "| {title} | {unit_name} | {ours} | {best} | {theirs} | {ratio:.2} | {least:.2} to {most:.2} |"
    ))
}

fn unit_name(unit: Unit) -> &'static str {
    match unit {
        Unit::RecordsPerSecond => "1000/s",
        Unit::Milliseconds => "ms",
        Unit::Factor => "x",
        Unit::Mebibytes => "MiB",
    }
}

fn figure(value: f64, unit: Unit) -> String {
    match unit {
        Unit::RecordsPerSecond => short(value / 1e3),
        Unit::Milliseconds | Unit::Factor | Unit::Mebibytes => short(value),
    }
}

/// Three digits at least.
fn short(value: f64) -> String {
    match value {
        ..10.0 => format!("{value:.2}"),
        ..100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}
