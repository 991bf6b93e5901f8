//! Reading a feed: draining it, looking records up, and filtering.
#![allow(
    missing_docs,
    reason = "a benchmark has no readers of its documentation"
)]

use std::hint::black_box;
use std::time::Duration;

use common::{
    Random, SMALL, batches, change, directory, feed, fill, open, raw_records, save_raw, write_id,
};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use highwater::{Action, Feed, List};

#[allow(dead_code, reason = "every benchmark uses its part")]
mod common;

const RECORDS: usize = 200_000;

/// Reads from the beginning to the end; how many records there were.
fn drain(feed: &Feed, list: &List) -> usize {
    let (mut records, mut after) = (0, None);
    loop {
        let page = feed.list(&list.clone().after(after));
        let page = page.expect("a page can be read");
        for record in page.iter() {
            black_box((record.id, record.payload));
            records += 1;
        }
        after = Some(page.resume_cursor());
        if !page.has_more() {
            return records;
        }
    }
}

fn read(c: &mut Criterion) {
    let dir = directory();
    fill(dir.path(), RECORDS, SMALL);
    let store = open(dir.path(), false);
    let feed = feed(&store);

    let mut group = c.benchmark_group("drain");
    group
        .sample_size(10)
        .measurement_time(Duration::from_secs(2));
    group.throughput(Throughput::Elements(RECORDS as u64));
    for limit in [100, 1000] {
        let list = List::new().limit(limit);
        group.bench_function(format!("page-{limit}"), |b| {
            b.iter(|| assert_eq!(drain(&feed, &list), RECORDS));
        });
    }
    let list = List::new().limit(1000).metadata_only(true);
    group.bench_function("page-1000/metadata", |b| {
        b.iter(|| assert_eq!(drain(&feed, &list), RECORDS));
    });
    group.finish();

    let mut group = c.benchmark_group("tail");
    group.throughput(Throughput::Elements(100));
    let newest = List::new().order(highwater::Order::Descending).limit(101);
    let newest = feed.list(&newest).expect("a page can be read");
    let after = newest.get(100).map(|record| record.cursor);
    let list = List::new().after(after).limit(100);
    group.bench_function("page-100", |b| {
        b.iter(|| assert_eq!(feed.list(&list).expect("a page can be read").len(), 100));
    });
    group.finish();

    let mut group = c.benchmark_group("get");
    let mut random = Random::new(3);
    for count in [1, 100] {
        group.throughput(Throughput::Elements(count as u64));
        group.bench_function(format!("{count}-records"), |b| {
            let mut ids = vec![String::new(); count];
            b.iter_batched(
                || {
                    for id in &mut ids {
                        write_id(random.next() % RECORDS as u64, id);
                    }
                    ids.clone()
                },
                |ids| assert_eq!(feed.get(&ids).expect("records can be read").len(), count),
                criterion::BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

/// Every tenth record was changed, all over the feed, and only the changed ones are read.
fn filtered(c: &mut Criterion) {
    let dir = directory();
    let store = open(dir.path(), false);
    let feed = feed(&store);
    let mut records = raw_records(0, RECORDS, SMALL);
    for _ in 0..2 {
        for range in batches(RECORDS, 1000) {
            save_raw(&feed, &records[range]);
        }
        change(&mut records, 10, 1);
    }
    let mut group = c.benchmark_group("filtered");
    group
        .sample_size(10)
        .measurement_time(Duration::from_secs(2));
    group.throughput(Throughput::Elements(RECORDS as u64));
    for (name, action, expected) in [
        ("updated", Action::Updated, RECORDS / 10),
        ("added", Action::Added, RECORDS - RECORDS / 10),
        ("deleted", Action::Deleted, 0),
    ] {
        let list = List::new().limit(1000).filter(action);
        group.bench_function(name, |b| {
            b.iter(|| assert_eq!(drain(&feed, &list), expected));
        });
    }
    group.finish();
}

criterion_group!(benches, read, filtered);
criterion_main!(benches);
