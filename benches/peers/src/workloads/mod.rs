//! What is measured. A group of workloads runs in one process, on one fresh directory.

mod bench;
mod feeds;
pub(crate) mod reopen;
mod saves;
mod tail;

use std::path::Path;

use anyhow::{Result, bail};

use crate::cache::{Cache, Durability};
use bench::Bench;

/// The records of a batch.
const BATCH: usize = 1000;

/// Which way a figure is better.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Unit {
    /// More is better.
    RecordsPerSecond,
    /// Less is better.
    Milliseconds,
    /// Bytes for each byte of what there is or what changed; less is better.
    Factor,
    /// Less is better.
    Mebibytes,
}

/// A group of workloads: its name, and the names, titles and units of what it measures.
pub(crate) struct Group {
    pub(crate) name: &'static str,
    pub(crate) workloads: &'static [(&'static str, &'static str, Unit)],
}

use Unit::{Factor, Mebibytes, Milliseconds, RecordsPerSecond};

/// All there is to measure.
pub(crate) const GROUPS: &[Group] = &[
    Group {
        name: "durable",
        workloads: &[
            ("load-durable", "initial load, durable", RecordsPerSecond),
            ("unchanged", "re-sync, unchanged", RecordsPerSecond),
            (
                "1%-durable",
                "re-sync, 1 % changed, durable",
                RecordsPerSecond,
            ),
            (
                "10%-durable",
                "re-sync, 10 % changed, durable",
                RecordsPerSecond,
            ),
            (
                "100%-durable",
                "re-sync, 100 % changed, durable",
                RecordsPerSecond,
            ),
            ("drain-1000", "drain, page 1000", RecordsPerSecond),
            ("drain-100", "drain, page 100", RecordsPerSecond),
            ("get-100", "get, 100 ids a call", RecordsPerSecond),
            ("get-1", "get, 1 id a call", RecordsPerSecond),
            (
                "sweep",
                "re-sync with 1 % unseen, and sweep",
                RecordsPerSecond,
            ),
            ("sweep-end", "the sweep alone", Milliseconds),
            ("memory", "peak memory of all of this", Mebibytes),
            (
                "disk",
                "disk for each live byte, closed after all of this",
                Factor,
            ),
        ],
    },
    Group {
        name: "relaxed",
        workloads: &[
            ("load-relaxed", "initial load, relaxed", RecordsPerSecond),
            (
                "1%-relaxed",
                "re-sync, 1 % changed, relaxed",
                RecordsPerSecond,
            ),
            (
                "10%-relaxed",
                "re-sync, 10 % changed, relaxed",
                RecordsPerSecond,
            ),
            (
                "100%-relaxed",
                "re-sync, 100 % changed, relaxed",
                RecordsPerSecond,
            ),
        ],
    },
    Group {
        name: "churn",
        workloads: &[
            (
                "churn",
                "churn, 100 % changed five times, durable",
                RecordsPerSecond,
            ),
            (
                "churn-written",
                "bytes written for each byte changed",
                Factor,
            ),
            ("churn-disk", "disk for each live byte after it", Factor),
        ],
    },
    Group {
        name: "tail",
        workloads: &[
            (
                "tail",
                "tail: the writer, batches of 100, durable",
                RecordsPerSecond,
            ),
            (
                "tail-visible",
                "tail: from the end of a save to the reader, p99",
                Milliseconds,
            ),
        ],
    },
    Group {
        name: "feeds",
        workloads: &[
            (
                "feeds-load",
                "10,000 feeds of 100 records, load, durable",
                RecordsPerSecond,
            ),
            (
                "feeds-unchanged",
                "10,000 feeds, re-sync, unchanged",
                RecordsPerSecond,
            ),
            ("feeds-drain", "10,000 feeds, drain", RecordsPerSecond),
            ("feeds-memory", "10,000 feeds, peak memory", Mebibytes),
        ],
    },
    Group {
        name: "feeds-relaxed",
        workloads: &[(
            "feeds-load-relaxed",
            "10,000 feeds, load, relaxed",
            RecordsPerSecond,
        )],
    },
    Group {
        name: "reopen",
        workloads: &[
            ("reopen", "open after kill -9", Milliseconds),
            (
                "reopen-page",
                "open after kill -9, and a page",
                Milliseconds,
            ),
            (
                "reopen-save",
                "open after kill -9, a page and an unchanged batch",
                Milliseconds,
            ),
        ],
    },
];

/// Runs a group in this process.
pub(crate) fn run<C: Cache>(engine: &str, group: &str, records: usize, dir: &Path) -> Result<()> {
    use Durability::{Durable, Relaxed};
    match group {
        "durable" => saves::durable(Bench::<C>::open(engine, records, dir, Durable)?),
        "relaxed" => saves::relaxed(Bench::<C>::open(engine, records, dir, Relaxed)?),
        "churn" => saves::churn(Bench::<C>::open(engine, records, dir, Durable)?),
        "tail" => tail::run(Bench::<C>::open(engine, records, dir, Durable)?),
        "feeds" => feeds::run::<C>(engine, records, dir, Durable),
        "feeds-relaxed" => feeds::run::<C>(engine, records, dir, Relaxed),
        "reopen-prepare" => reopen::prepare(Bench::<C>::open(engine, records, dir, Durable)?),
        "reopen" => reopen::run::<C>(engine, records, dir),
        _ => bail!("there is no group {group}"),
    }
}
