//! Saving batches, each kind of work beside its floor: what hashing alone costs, and for changes
//! what hashing and appending to an ordinary file cost.
#![allow(
    missing_docs,
    reason = "a benchmark has no readers of its documentation"
)]

use std::time::Duration;

use common::floor::{Appending, Hashing, Space};
use common::{
    Contact, LARGE, Raw, SMALL, batches, change, contacts, directory, feed, open, raw_records,
    renew, save_raw, timed,
};
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use highwater::Feed;
use serde::Serialize;

#[allow(dead_code, reason = "every benchmark uses its part")]
mod common;

/// Records of a feed that is saved again and again.
fn feed_len(body_len: usize) -> usize {
    if body_len == SMALL { 100_000 } else { 20_000 }
}

fn group<'a>(c: &'a mut Criterion, name: &str, batch: usize) -> BenchmarkGroup<'a, WallTime> {
    let mut group = c.benchmark_group(name);
    group
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .throughput(Throughput::Elements(batch as u64));
    group
}

/// Goes round and round through the batches of a feed.
struct Cycle {
    batches: Vec<std::ops::Range<usize>>,
    next: usize,
}

impl Cycle {
    fn new(count: usize, size: usize) -> Self {
        Self {
            batches: batches(count, size).collect(),
            next: 0,
        }
    }

    fn next(&mut self) -> std::ops::Range<usize> {
        let range = self.batches[self.next].clone();
        self.next = (self.next + 1) % self.batches.len();
        range
    }
}

/// Runs one iteration after the other, of which each says how long its measured part took.
fn sum(iterations: u64, mut one: impl FnMut() -> Duration) -> Duration {
    (0..iterations).map(|_| one()).sum()
}

fn raw(c: &mut Criterion) {
    for body_len in [SMALL, LARGE] {
        for batch in [100, 1000] {
            unchanged(c, body_len, batch);
            for durable in [true, false] {
                changed(c, body_len, batch, durable);
            }
        }
    }
}

/// Durability makes no difference here: nothing is written.
fn unchanged(c: &mut Criterion, body_len: usize, batch: usize) {
    let records = raw_records(0, feed_len(body_len), body_len);
    let dir = directory();
    let store = open(dir.path(), false);
    let feed = feed(&store);
    for range in batches(records.len(), 1000) {
        save_raw(&feed, &records[range]);
    }
    let hashing = Hashing::new(&records);
    let mut cycle = Cycle::new(records.len(), batch);
    let mut group = group(c, &format!("unchanged/{body_len}B/{batch}"), batch);
    group.bench_function("floor", |b| b.iter(|| hashing.run(cycle.next())));
    group.bench_function("highwater", |b| {
        b.iter(|| save_raw(&feed, &records[cycle.next()]));
    });
}

fn changed(c: &mut Criterion, body_len: usize, batch: usize, durable: bool) {
    let mode = if durable { "durable" } else { "relaxed" };
    let name = |kind| format!("{kind}/{body_len}B/{batch}/{mode}");
    let mut records = raw_records(0, feed_len(body_len), body_len);
    let mut cycle = Cycle::new(records.len(), batch);
    let dir = directory();
    let mut initial = group(c, &name("initial"), batch);
    {
        let hashing = Hashing::new(&records);
        let mut appending = Appending::new(dir.path(), &records, Space::Written);
        initial.bench_function("floor", |b| {
            b.iter(|| {
                let range = cycle.next();
                hashing.run(range.clone());
                appending.run(range, durable);
            });
        });
    }
    initial.bench_function("highwater", |b| {
        let (mut next, mut fresh) = (0, records[..batch].to_vec());
        b.iter_custom(|iterations| {
            // A store per sample, so that none grows without end.
            let dir = directory();
            let store = open(dir.path(), durable);
            let feed = feed(&store);
            sum(iterations, || {
                renew(&mut fresh, &mut next);
                timed(|| save_raw(&feed, &fresh)).0
            })
        });
    });
    initial.finish();

    let store = open(dir.path(), durable);
    let feed = feed(&store);
    for range in batches(records.len(), 1000) {
        save_raw(&feed, &records[range]);
    }
    let mut generation = 0;
    for (kind, stride) in [("changed-1%", 100), ("changed-100%", 1)] {
        let mut group = group(c, &name(kind), batch);
        group.bench_function("highwater", |b| {
            b.iter_custom(|iterations| {
                sum(iterations, || {
                    let batch: &mut [Raw] = &mut records[cycle.next()];
                    generation += 1;
                    change(batch, stride, generation);
                    timed(|| save_raw(&feed, batch)).0
                })
            });
        });
        group.finish();
    }
}

fn typed(c: &mut Criterion) {
    let records = contacts(10_000);
    json(
        c,
        "struct",
        records.clone(),
        |batch: &mut [Contact], generation| {
            batch
                .iter_mut()
                .for_each(|contact| contact.change(generation));
        },
    );
    let value = |contact| serde_json::to_value(contact).expect("a contact is JSON");
    let values = records.iter().map(value).collect();
    json(c, "Value", values, |batch, generation| {
        for value in batch {
            value["owner_id"] = (1_000_000 + generation).into();
        }
    });
}

/// Records that are serialized on the way, beside serializing alone.
fn json<T: Serialize>(
    c: &mut Criterion,
    name: &str,
    mut records: Vec<T>,
    change: impl Fn(&mut [T], u64),
) {
    let batch = 1000;
    let dir = directory();
    let store = open(dir.path(), true);
    let feed = feed(&store);
    let save = |feed: &Feed, batch: &[T]| feed.batch_save(batch).expect("a save succeeds").totals;
    for range in batches(records.len(), batch) {
        save(&feed, &records[range]);
    }
    let mut cycle = Cycle::new(records.len(), batch);
    let mut group = group(c, &format!("json/{name}/{batch}"), batch);
    let mut text = Vec::new();
    group.bench_function("serialize", |b| {
        b.iter(|| {
            text.clear();
            for record in &records[cycle.next()] {
                serde_json::to_writer(&mut text, record).expect("a record is JSON");
            }
        });
    });
    group.bench_function("unchanged", |b| {
        b.iter(|| save(&feed, &records[cycle.next()]))
    });
    let mut generation = 0;
    group.bench_function("changed-100%/durable", |b| {
        b.iter_custom(|iterations| {
            sum(iterations, || {
                let batch = &mut records[cycle.next()];
                generation += 1;
                change(batch, generation);
                timed(|| save(&feed, batch)).0
            })
        });
    });
}

criterion_group!(benches, raw, typed);
criterion_main!(benches);
