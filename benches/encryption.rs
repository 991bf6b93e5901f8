//! What encryption costs: nanoseconds a record of loading, of saving again what is unchanged, of
//! reading a feed as a whole, and of looking single records up; plain and encrypted, for two sizes of
//! payloads.
//!
//! `HIGHWATER_BENCH_RECORDS` says how many records, 100,000 by default. The fastest of three rounds
//! counts. Durability is relaxed, so that syncs are not what is measured.
#![allow(
    missing_docs,
    reason = "a benchmark has no readers of its documentation"
)]
#![allow(clippy::disallowed_methods, reason = "a benchmark reads the clock")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use common::{LARGE, Raw, SMALL, raw_records};
use highwater::{Durability, Encryption, Key, List, Options};

#[allow(dead_code, reason = "every benchmark uses its part")]
mod common;

const BATCH: usize = 1000;
const PAGE: usize = 1000;
const LOOKED_UP: usize = 2000;
const ROUNDS: usize = 3;

/// Nanoseconds a record.
#[derive(Clone, Copy)]
struct Costs {
    load: f64,
    unchanged: f64,
    drain: f64,
    get: f64,
}

fn main() {
    let count = std::env::var("HIGHWATER_BENCH_RECORDS").ok();
    let count = count.and_then(|text| text.parse().ok()).unwrap_or(100_000);
    println!("{count} records, ns a record: load, unchanged, drain, get");
    for body_len in [SMALL, LARGE] {
        let records = raw_records(0, count, body_len);
        for (name, key) in [("plain", None), ("encrypted", Some(Key::new(&[7; 32])))] {
            let costs = (0..ROUNDS).map(|_| measure(&records, key.as_ref()));
            let best = costs.reduce(Costs::least).expect("a round");
            println!(
                "{body_len:>5} B {name:<10} {:>8.0} {:>8.0} {:>8.0} {:>8.0}",
                best.load, best.unchanged, best.drain, best.get
            );
        }
    }
}

impl Costs {
    fn least(self, other: Self) -> Self {
        Self {
            load: self.load.min(other.load),
            unchanged: self.unchanged.min(other.unchanged),
            drain: self.drain.min(other.drain),
            get: self.get.min(other.get),
        }
    }
}

fn measure(records: &[Raw], key: Option<&Key>) -> Costs {
    let dir = tempfile::tempdir().expect("a directory");
    let interval = Duration::from_secs(3600);
    let mut options = Options::new()
        .durability(Durability::Relaxed { interval })
        .compaction(false);
    if let Some(key) = key {
        options = options.encryption(Encryption::new(key));
    }
    let store = options.open(dir.path()).expect("a store");
    let feed = store.feed("conn", "Model").expect("a feed");
    let each = |started: Instant, count: usize| started.elapsed().as_nanos() as f64 / count as f64;
    let save = || {
        let started = Instant::now();
        for batch in records.chunks(BATCH) {
            let _ = black_box(feed.batch_save_raw(batch).expect("saved"));
        }
        each(started, records.len())
    };
    let (load, unchanged) = (save(), save());
    store.flush().expect("synced");
    let started = Instant::now();
    let mut cursor = None;
    loop {
        let mut list = List::new().limit(PAGE);
        if let Some(after) = cursor {
            list = list.after(after);
        }
        let page = feed.list(&list).expect("a page");
        for record in page.iter() {
            black_box(record.payload);
        }
        cursor = Some(page.resume_cursor());
        if !page.has_more() {
            break;
        }
    }
    let drain = each(started, records.len());
    let step = (records.len() / LOOKED_UP).max(1);
    let started = Instant::now();
    let wanted = records.iter().step_by(step);
    let looked_up = wanted.clone().count();
    for (id, _) in wanted {
        black_box(feed.get(&[id]).expect("read"));
    }
    Costs {
        load,
        unchanged,
        drain,
        get: each(started, looked_up),
    }
}
