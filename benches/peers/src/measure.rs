//! What the system says of this process, and times.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// One measured workload of one engine, as a process reports it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Outcome {
    pub(crate) engine: String,
    pub(crate) workload: String,
    /// The figure that engines are compared by, in the workload's unit.
    pub(crate) value: f64,
    /// Milliseconds, of saves or until a commit was visible.
    pub(crate) p50: Option<f64>,
    pub(crate) p99: Option<f64>,
    /// Bytes that the process gave to the block layer.
    pub(crate) written: Option<u64>,
    /// What must be the same for every engine.
    pub(crate) checksum: Option<String>,
}

impl Outcome {
    /// Prints the outcome for the process that collects them.
    pub(crate) fn print(&self) -> Result<()> {
        println!("{}", serde_json::to_string(self)?);
        Ok(())
    }
}

/// The times of calls.
#[derive(Default)]
pub(crate) struct Times(Vec<Duration>);

impl Times {
    /// Runs `call` and notes how long it took.
    pub(crate) fn time<T>(&mut self, call: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let result = call();
        self.0.push(start.elapsed());
        result
    }

    /// Notes a time.
    pub(crate) fn add(&mut self, time: Duration) {
        self.0.push(time);
    }

    /// All calls together, in seconds.
    pub(crate) fn seconds(&self) -> f64 {
        self.0.iter().sum::<Duration>().as_secs_f64()
    }

    /// The time that this part of the calls stayed within, in milliseconds.
    pub(crate) fn percentile(&self, part: f64) -> Option<f64> {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let at = (part * sorted.len() as f64).ceil() as usize;
        let time = sorted.get(at.max(1) - 1)?;
        Some(time.as_secs_f64() * 1e3)
    }
}

/// The number behind a name in a file of `/proc`.
fn proc_number(file: &str, name: &str) -> Result<u64> {
    let text = fs::read_to_string(file).with_context(|| format!("{file} cannot be read"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|rest| rest.split_whitespace().next());
    let number = number.with_context(|| format!("{file} has no {name}"))?;
    Ok(number.parse()?)
}

/// Bytes that this process made the system write to the disk, so far. They are counted when a page
/// of the page cache becomes dirty: a page that is written twice between two write-backs counts
/// once, as it does on the disk.
pub(crate) fn written() -> Result<u64> {
    proc_number("/proc/self/io", "write_bytes:")
}

/// The most memory this process had so far, in bytes, pages of mapped files included.
pub(crate) fn peak_memory() -> Result<u64> {
    Ok(proc_number("/proc/self/status", "VmHWM:")? << 10)
}

/// Forgets the peak so far; the memory that is in use now, in bytes.
pub(crate) fn reset_peak_memory() -> Result<u64> {
    fs::write("/proc/self/clear_refs", "5").context("the peak cannot be reset")?;
    peak_memory()
}

/// The space that the files in a directory take.
pub(crate) fn disk(dir: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        bytes += if metadata.is_dir() {
            disk(&entry.path())?
        } else {
            metadata.blocks() * 512
        };
    }
    Ok(bytes)
}
