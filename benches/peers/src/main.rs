//! The records cache's job on Highwater and on five general engines, measured alike.
//!
//! Without a subcommand this runs everything, each engine and group of workloads in a process of
//! its own, and prints the tables; see `README.md`.

mod cache;
mod data;
mod driver;
mod engines;
mod measure;
mod model;
mod options;
mod peer;
mod report;
mod tables;
mod workloads;

use anyhow::{Result, bail};

use engines::{fjall::Fjall, highwater::Highwater, lmdb::Lmdb, redb::Redb, sqlite::Sqlite};
use options::{Command, Options};
use peer::Peer;

/// The engines, ours first.
const ENGINES: &[&str] = &[
    "highwater",
    "sqlite",
    #[cfg(feature = "rocksdb")]
    "rocksdb",
    "lmdb",
    "redb",
    "fjall",
];

fn main() -> Result<()> {
    let options = Options::parse(std::env::args().skip(1))?;
    match &options.command {
        Command::Compare => driver::compare(&options),
        Command::One { engine, group } => {
            let run = match engine.as_str() {
                "highwater" => workloads::run::<Highwater>,
                "sqlite" => workloads::run::<Peer<Sqlite>>,
                #[cfg(feature = "rocksdb")]
                "rocksdb" => workloads::run::<Peer<engines::rocksdb::Rocks>>,
                "lmdb" => workloads::run::<Peer<Lmdb>>,
                "redb" => workloads::run::<Peer<Redb>>,
                "fjall" => workloads::run::<Peer<Fjall>>,
                _ => bail!("there is no engine {engine}"),
            };
            run(engine, group, options.records, &options.dir)
        }
    }
}
