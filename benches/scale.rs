//! What a record costs as a feed, or the number of feeds, grows, under a fixed index budget:
//! `cargo bench --bench scale`.
//!
//! Sizes are given as arguments: `one=1e6,1e7` for feeds of that many records, `many=1e4` for that
//! many feeds of a thousand. `one=1e8 many=1e5` takes 15 GB of disk and some minutes. Payloads are
//! small, and made on the way, outside of the measured time.
#![allow(
    missing_docs,
    reason = "a benchmark has no readers of its documentation"
)]

use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use common::{Raw, directory};
use highwater::{Durability, Feed, List, Options, Outcome, Store};

#[allow(dead_code, reason = "every benchmark uses its part")]
mod common;

const BATCH: u64 = 1000;
const BUDGET: usize = 512 << 20;
const BODY: usize = 32;

fn main() {
    let given = |name: &str| {
        let argument = std::env::args().find_map(|a| Some(a.strip_prefix(name)?.to_owned()));
        let sizes = argument.unwrap_or_default();
        let size = |text: &str| text.parse::<f64>().expect("a size is a number") as u64;
        sizes
            .split(',')
            .filter(|text| !text.is_empty())
            .map(size)
            .collect::<Vec<u64>>()
    };
    let (mut one, mut many) = (given("one="), given("many="));
    if one.is_empty() && many.is_empty() {
        let measured = std::env::args().any(|arg| arg == "--bench");
        (one, many) = if measured {
            (vec![1_000_000, 10_000_000], vec![10_000])
        } else {
            (vec![20_000], vec![20])
        };
    }
    println!(
        "index budget {} MiB, batches of {BATCH}, payloads of {BODY} B",
        BUDGET >> 20
    );
    one.into_iter().for_each(one_feed);
    many.into_iter().for_each(many_feeds);
}

fn open(path: &Path) -> Store {
    let interval = Duration::from_millis(500);
    let options = Options::new().durability(Durability::Relaxed { interval });
    let options = options.index_budget(BUDGET).secret([7; 32]);
    options.open(path).expect("a store can be opened")
}

/// Fills a batch with these records.
fn fill(batch: &mut Vec<Raw>, numbers: impl Iterator<Item = u64>) {
    use std::io::Write;
    batch.resize_with(BATCH as usize, || (String::new(), Vec::new()));
    for ((id, body), number) in batch.iter_mut().zip(numbers) {
        id.clear();
        id.push_str("record-");
        id.push_str(itoa(number, &mut [0; 20]));
        body.clear();
        write!(
            body,
            "{:0BODY$x}",
            number.wrapping_mul(0x9e37_79b9_7f4a_7c15)
        )
        .expect("a vector can be written to");
    }
}

fn itoa(mut number: u64, buffer: &mut [u8; 20]) -> &str {
    let mut at = buffer.len();
    loop {
        at -= 1;
        buffer[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    std::str::from_utf8(&buffer[at..]).expect("digits are UTF-8")
}

/// A number's place in an order that looks random: an affine permutation of `0..count`.
fn scattered(number: u64, count: u64) -> u64 {
    // The golden ratio's share of the count, made prime to it.
    let mut step = (count as f64 * 0.618_033_988_75) as u64 | 1;
    while gcd(step, count) != 1 {
        step += 2;
    }
    (u128::from(number) * u128::from(step) % u128::from(count)) as u64
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Saves `count` records, a batch at a time, and says what each cost, in nanoseconds.
fn save(feed: &Feed, count: u64, expected: Outcome, place: impl Fn(u64) -> u64) -> f64 {
    let mut batch = Vec::new();
    let mut time = Duration::ZERO;
    for start in (0..count).step_by(BATCH as usize) {
        fill(&mut batch, (start..start + BATCH).map(&place));
        let begun = Instant::now();
        let applied = feed.batch_save_raw(&batch).expect("a save succeeds");
        time += begun.elapsed();
        assert!(applied.outcomes.iter().all(|outcome| *outcome == expected));
    }
    each(time, count)
}

fn each(time: Duration, count: u64) -> f64 {
    time.as_secs_f64() * 1e9 / count as f64
}

/// A line of the kernel's account of this process, in bytes.
fn account(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with(name));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

fn resident() -> u64 {
    account("VmRSS:")
}

fn memory() -> String {
    let (now, most) = (resident() >> 20, account("VmHWM:") >> 20);
    format!("resident {now} MiB, at most {most} MiB")
}

fn drain(feed: &Feed) -> (u64, Duration) {
    let begun = Instant::now();
    let (mut records, mut after) = (0, None);
    loop {
        let page = feed
            .list(&List::new().after(after).limit(1000))
            .expect("a page can be read");
        records += page
            .iter()
            .map(|record| black_box(record.id).len().min(1) as u64)
            .sum::<u64>();
        after = Some(page.resume_cursor());
        if !page.has_more() {
            return (records, begun.elapsed());
        }
    }
}

fn one_feed(count: u64) {
    let dir = directory();
    let store = open(dir.path());
    let feed = store.feed("bench", "Record").expect("the name is valid");
    println!("\none feed of {count} records, nanoseconds a record");
    let load = save(&feed, count, Outcome::Added, |number| number);
    let index = || store.stats().expect("a store has statistics").index_bytes >> 20;
    println!(
        "  load                        {load:>8.0}   index {} MiB, {}",
        index(),
        memory()
    );
    let again = save(&feed, count, Outcome::Unchanged, |number| number);
    println!(
        "  unchanged, in order         {again:>8.0}   index {} MiB",
        index()
    );
    let part = count.min(5_000_000);
    let random = save(&feed, part, Outcome::Unchanged, |number| {
        scattered(number, count)
    });
    println!(
        "  unchanged, in random order  {random:>8.0}   index {} MiB ({part} of them)",
        index()
    );
    let begun = Instant::now();
    let _ = store.compact().expect("a store compacts");
    println!("  compact: {:.1} s", begun.elapsed().as_secs_f64());
    let random = save(&feed, part, Outcome::Unchanged, |number| {
        scattered(number, count)
    });
    println!(
        "  unchanged, random, compacted{random:>8.0}   index {} MiB",
        index()
    );
    let (records, time) = drain(&feed);
    assert_eq!(records, count);
    println!(
        "  drain, page 1000            {:>8.0}   {}",
        each(time, count),
        memory()
    );
    store.close().expect("a store closes");
    drop((feed, store));
    let begun = Instant::now();
    let store = open(dir.path());
    let opened = begun.elapsed();
    let feed = store.feed("bench", "Record").expect("the name is valid");
    let begun = Instant::now();
    save(&feed, BATCH, Outcome::Unchanged, |number| number);
    let first = begun.elapsed();
    let begun = Instant::now();
    save(&feed, BATCH, Outcome::Added, |number| count + number);
    let new = begun.elapsed();
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    println!(
        "  reopen {:.1} ms, first batch {:.1} ms, first new batch {:.1} ms; files {} MiB",
        ms(opened),
        ms(first),
        ms(new),
        bytes(dir.path()) >> 20
    );
}

fn many_feeds(count: u64) {
    let dir = directory();
    let store = open(dir.path());
    println!("\n{count} feeds of {BATCH} records, nanoseconds a record");
    let before = resident();
    let records = count * BATCH;
    let (mut batch, mut expected) = (Vec::new(), Outcome::Added);
    for name in ["load", "unchanged", "unchanged, again"] {
        let mut time = Duration::ZERO;
        for number in 0..count {
            fill(&mut batch, (0..BATCH).map(|at| number * BATCH + at));
            let begun = Instant::now();
            let feed = store.feed(&format!("connection-{number}"), "Record");
            let applied = feed.expect("the name is valid").batch_save_raw(&batch);
            time += begun.elapsed();
            let applied = applied.expect("a save succeeds");
            assert!(applied.outcomes.iter().all(|outcome| *outcome == expected));
        }
        expected = Outcome::Unchanged;
        let index = store.stats().expect("a store has statistics").index_bytes >> 20;
        let besides = resident().saturating_sub(before + (index << 20)) / count;
        println!(
            "  {name:<28}{:>8.0}   index {index} MiB, {}, {besides} B a feed besides the index",
            each(time, records),
            memory()
        );
    }
    store.close().expect("a store closes");
    drop(store);
    let begun = Instant::now();
    let store = open(dir.path());
    let time = begun.elapsed().as_secs_f64() * 1e3;
    println!("  reopen {time:.1} ms; {}", memory());
    drop(store);
}

/// The bytes of all files below a directory.
fn bytes(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).expect("a directory can be listed");
    entries
        .map(|entry| {
            let entry = entry.expect("a directory can be listed");
            let meta = entry.metadata().expect("a file has a length");
            if meta.is_dir() {
                bytes(&entry.path())
            } else {
                meta.len()
            }
        })
        .sum()
}
