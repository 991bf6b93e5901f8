//! Opening a store of a million records after a clean close, and the first save then.
#![allow(
    missing_docs,
    reason = "a benchmark has no readers of its documentation"
)]

use std::time::Duration;

use common::{SMALL, change, directory, feed, fill, open, raw_records, save_raw, timed};
use criterion::{Criterion, criterion_group, criterion_main};

#[allow(dead_code, reason = "every benchmark uses its part")]
mod common;

const RECORDS: usize = 1_000_000;
const BATCH: usize = 1000;

fn reopen(c: &mut Criterion) {
    let dir = directory();
    fill(dir.path(), RECORDS, SMALL);
    let mut group = c.benchmark_group("open");
    group
        .sample_size(10)
        .measurement_time(Duration::from_secs(3));
    group.bench_function("after-close", |b| {
        b.iter_custom(|iterations| {
            let one = |_| {
                let (time, store) = timed(|| open(dir.path(), true));
                store.close().expect("a store closes");
                time
            };
            (0..iterations).map(one).sum()
        });
    });
    let mut batch = raw_records(0, BATCH, SMALL);
    let mut generation = 0;
    group.bench_function("first-save", |b| {
        b.iter_custom(|iterations| {
            let one = |_| {
                let store = open(dir.path(), true);
                generation += 1;
                change(&mut batch, 100, generation);
                let (time, changed) = timed(|| save_raw(&feed(&store), &batch));
                assert!(changed > 0);
                store.close().expect("a store closes");
                time
            };
            (0..iterations).map(one).sum()
        });
    });
    group.finish();
}

criterion_group!(benches, reopen);
criterion_main!(benches);
