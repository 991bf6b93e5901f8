//! What compressing the payloads of real JSON records gives and costs: ratio and time per record,
//! for two algorithms, with and without a trained dictionary, record by record and in blocks.
//!
//! The records are the sample in `data/`, and whatever files `HIGHWATER_BENCH_JSON` names, separated
//! by colons: NDJSON, plain or with gzip, or package indexes as Debian publishes them (`Packages`,
//! a paragraph a package, made into an object of its fields). A dictionary is trained from records
//! of the first tenth, and only the others are measured. Then stores with compression and without
//! take in and give out all of them. `HIGHWATER_BENCH_ONLY` (`algorithms` or `store`) runs one part.
#![allow(
    missing_docs,
    reason = "a benchmark has no readers of its documentation"
)]
#![allow(clippy::disallowed_methods, reason = "a benchmark reads the clock")]

use std::hint::black_box;
use std::io::Read;
use std::time::{Duration, Instant};

use highwater::{Compression, Durability, Options};
use serde_json::value::RawValue;
use zstd_safe::{CCtx, CDict, DCtx, DDict};

/// What a page of records comes to when they are compressed together: the upper bound.
const BLOCK: usize = 64 << 10;
/// A set is cut to this many records, so that a run takes a minute.
const RECORDS_MAX: usize = 40_000;
/// As often as this, and the fastest counts.
const ROUNDS: usize = 3;

#[allow(dead_code, reason = "every benchmark uses its part")]
mod common;

struct Set {
    name: String,
    records: Vec<Vec<u8>>,
}

fn main() {
    let mut files: Vec<String> = ["oui-1.0.10", "oui-1.1.396", "oui-2.1.9"]
        .map(|name| format!("{}/data/{name}.ndjson.gz", env!("CARGO_MANIFEST_DIR")))
        .into();
    let sample: Vec<Vec<u8>> = files.drain(..).flat_map(|file| read(&file)).collect();
    let mut sets = vec![Set {
        name: "data/oui-*.ndjson.gz".to_owned(),
        records: sample,
    }];
    let given = std::env::var("HIGHWATER_BENCH_JSON").unwrap_or_default();
    sets.extend(
        given
            .split(':')
            .filter(|file| !file.is_empty())
            .map(|file| {
                let mut records = read(file);
                thin(&mut records, RECORDS_MAX);
                Set {
                    name: file.rsplit('/').next().unwrap_or(file).to_owned(),
                    records,
                }
            }),
    );
    let only = std::env::var("HIGHWATER_BENCH_ONLY").unwrap_or_default();
    for set in &sets {
        if only != "store" {
            measure(set);
        }
    }
    for set in &sets {
        if only != "algorithms" {
            use_stores(set);
        }
    }
}

/// What a store costs with compression and without, the two in turn.
fn use_stores(set: &Set) {
    let bytes: usize = set.records.iter().map(Vec::len).sum();
    println!(
        "\n{}: {} records, {:.1} MB of payloads, batches of 1000, relaxed\n",
        set.name,
        set.records.len(),
        bytes as f64 / 1e6
    );
    println!("| compression | load | 100 % changed | unchanged | drain | log after load |");
    println!("|---|---:|---:|---:|---:|---:|");
    for compression in [
        Compression::None,
        Compression::Zstd { level: 1 },
        Compression::Zstd { level: 3 },
    ] {
        let mut fastest = [f64::MAX; 4];
        let mut log = 0;
        for _ in 0..ROUNDS {
            let (times, bytes) = use_store(set, compression);
            for (fastest, time) in fastest.iter_mut().zip(times) {
                *fastest = fastest.min(time);
            }
            log = bytes;
        }
        let [load, changed, unchanged, drain] =
            fastest.map(|seconds| seconds * 1e9 / set.records.len() as f64);
        println!(
            "| {compression:?} | {load:.0} ns | {changed:.0} ns | {unchanged:.0} ns | {drain:.0} ns | {:.2} MB |",
            log as f64 / 1e6
        );
    }
}

/// Seconds to load, change all, save all unchanged and read all; and the bytes of the log's frames
/// after the load.
fn use_store(set: &Set, compression: Compression) -> ([f64; 4], u64) {
    let dir = common::directory();
    let store = Options::new()
        .compression(compression)
        .compaction(false)
        .durability(Durability::Relaxed {
            interval: Duration::from_millis(100),
        })
        .open(dir.path())
        .expect("a new store");
    let feed = store.feed("c", "m").expect("a feed");
    let raw = |record: &[u8]| {
        let text = String::from_utf8(record.to_vec()).expect("text");
        RawValue::from_string(text).expect("JSON")
    };
    let records: Vec<Box<RawValue>> = set.records.iter().map(|record| raw(record)).collect();
    let again = set
        .records
        .iter()
        .map(|record| raw(&[b"{\"changed\":true,", &record[1..]].concat()));
    let changed: Vec<Box<RawValue>> = again.collect();
    let save = |records: &[Box<RawValue>]| {
        let begun = Instant::now();
        for batch in records.chunks(1000) {
            let _ = black_box(feed.batch_save(batch).expect("saved"));
        }
        begun.elapsed().as_secs_f64()
    };
    let load = save(&records);
    store.flush().expect("flushed");
    let bytes = store.stats().expect("statistics").appended_bytes;
    let changing = save(&changed);
    let unchanged = save(&changed);
    store.flush().expect("flushed");
    let begun = Instant::now();
    for record in feed.records(None) {
        black_box(record.expect("read"));
    }
    let drain = begun.elapsed().as_secs_f64();
    ([load, changing, unchanged, drain], bytes)
}

/// Keeps at most `count` records, evenly spread.
fn thin(records: &mut Vec<Vec<u8>>, count: usize) {
    let all = records.len();
    if all > count {
        *records = (0..count)
            .map(|at| std::mem::take(&mut records[at * all / count]))
            .collect();
    }
}

fn read(file: &str) -> Vec<Vec<u8>> {
    let bytes = std::fs::read(file).expect("the file can be read");
    let text = if file.ends_with(".gz") {
        let mut text = Vec::new();
        let mut decoder = flate2::read::GzDecoder::new(bytes.as_slice());
        decoder.read_to_end(&mut text).expect("the file is gzip");
        text
    } else {
        bytes
    };
    let text = String::from_utf8(text).expect("the file is text");
    if text.starts_with("Package: ") {
        return text.split("\n\n").filter_map(package).collect();
    }
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    lines.map(|line| line.as_bytes().to_vec()).collect()
}

/// A paragraph of a package index as a JSON object.
fn package(paragraph: &str) -> Option<Vec<u8>> {
    let mut fields: Vec<(String, String)> = Vec::new();
    for line in paragraph.lines() {
        match (line.strip_prefix(' '), fields.last_mut()) {
            (Some(more), Some((_, value))) => {
                value.push('\n');
                value.push_str(more);
            }
            _ => {
                let (name, value) = line.split_once(": ").or(line.split_once(':'))?;
                let name = if name == "Package" { "id" } else { name };
                fields.push((name.to_ascii_lowercase(), value.to_owned()));
            }
        }
    }
    let object = fields
        .into_iter()
        .map(|(name, value)| (name, value.into()))
        .collect::<serde_json::Map<_, _>>();
    (!object.is_empty()).then(|| serde_json::Value::Object(object).to_string().into_bytes())
}

fn measure(set: &Set) {
    let (learned, records) = set.records.split_at(set.records.len() / 10);
    let bytes: usize = records.iter().map(Vec::len).sum();
    println!(
        "\n{}: {} records of {} B on average, dictionaries from {} others\n",
        set.name,
        records.len(),
        bytes / records.len(),
        learned.len()
    );
    println!(
        "| per | method | dictionary | ratio | compress, ns a record | decompress, ns a record |"
    );
    println!("|---|---|---:|---:|---:|---:|");
    let one_by_one: Vec<&[u8]> = records.iter().map(Vec::as_slice).collect();
    let count = records.len();
    row("record", "lz4", 0, count, &one_by_one, lz4(None));
    for level in [1, 3, 6] {
        let name = format!("zstd {level}");
        row("record", &name, 0, count, &one_by_one, zstd(level, None));
    }
    let sample_bytes: usize = learned.iter().map(Vec::len).sum();
    for (size, from) in [
        (4, 256),
        (8, 256),
        (16, 256),
        (32, 256),
        (16, 1024),
        (32, 1024),
        (64, 1024),
        (32, 8192),
        (64, 8192),
        (110, 8192),
    ] {
        let (size, from) = (size << 10, from << 10);
        // Of a smaller set there is nothing more to learn.
        if from > 2 * sample_bytes && from > 256 << 10 {
            continue;
        }
        let step = sample_bytes.div_ceil(from);
        let samples: Vec<&[u8]> = learned.iter().step_by(step).map(Vec::as_slice).collect();
        let begun = Instant::now();
        let dictionary = train(&samples, size);
        println!(
            "| | trained in {:.0} ms from {} records, {} KiB | | | | |",
            begun.elapsed().as_secs_f64() * 1e3,
            samples.len(),
            samples.iter().map(|sample| sample.len()).sum::<usize>() >> 10,
        );
        let len = dictionary.len();
        if size == 16 << 10 || size == 64 << 10 {
            row(
                "record",
                "lz4",
                len,
                count,
                &one_by_one,
                lz4(Some(&dictionary)),
            );
        }
        for level in [1, 3, 6] {
            let name = format!("zstd {level}");
            let codec = zstd(level, Some(&dictionary));
            row("record", &name, len, count, &one_by_one, codec);
        }
    }
    let mut blocks: Vec<Vec<u8>> = vec![Vec::new()];
    for record in records {
        if blocks.last().is_some_and(|block| block.len() >= BLOCK) {
            blocks.push(Vec::new());
        }
        if let Some(block) = blocks.last_mut() {
            block.extend_from_slice(record);
        }
    }
    let blocks: Vec<&[u8]> = blocks.iter().map(Vec::as_slice).collect();
    row("64 KiB", "lz4", 0, count, &blocks, lz4(None));
    for level in [1, 3, 6] {
        let name = format!("zstd {level}");
        row("64 KiB", &name, 0, count, &blocks, zstd(level, None));
    }
}

fn train(samples: &[&[u8]], size: usize) -> Vec<u8> {
    let (joined, sizes) = (
        samples.concat(),
        samples
            .iter()
            .map(|sample| sample.len())
            .collect::<Vec<_>>(),
    );
    let mut dictionary = Vec::with_capacity(size);
    zstd_safe::train_from_buffer(&mut dictionary, &joined, &sizes)
        .map_err(zstd_safe::get_error_name)
        .expect("there are enough records");
    dictionary
}

/// Puts the compressed, or the original, bytes of an input into a buffer that is large enough.
type Step<'a> = Box<dyn FnMut(&[u8], &mut Vec<u8>) + 'a>;

fn zstd(level: i32, dictionary: Option<&[u8]>) -> (Step<'_>, Step<'_>) {
    let name = zstd_safe::get_error_name;
    let (mut coder, mut decoder) = (CCtx::create(), DCtx::create());
    match dictionary {
        None => (
            Box::new(move |from, to| {
                coder
                    .compress(to, from, level)
                    .map_err(name)
                    .expect("it fits");
            }),
            Box::new(move |from, to| {
                decoder
                    .decompress(to, from)
                    .map_err(name)
                    .expect("it is intact");
            }),
        ),
        Some(dictionary) => {
            let (coding, decoding) = (CDict::create(dictionary, level), DDict::create(dictionary));
            (
                Box::new(move |from, to| {
                    let done = coder.compress_using_cdict(to, from, &coding);
                    done.map_err(name).expect("it fits");
                }),
                Box::new(move |from, to| {
                    let done = decoder.decompress_using_ddict(to, from, &decoding);
                    done.map_err(name).expect("it is intact");
                }),
            )
        }
    }
}

/// As a dictionary lz4 takes plain text; what zstd trains ends with that.
fn lz4(dictionary: Option<&[u8]>) -> (Step<'_>, Step<'_>) {
    use lz4_flex::block;
    (
        Box::new(move |from, to| {
            to.resize(block::get_maximum_output_size(from.len()), 0);
            let len = match dictionary {
                None => block::compress_into(from, to),
                Some(dictionary) => block::compress_into_with_dict(from, to, dictionary),
            };
            to.truncate(len.expect("it fits"));
        }),
        Box::new(move |from, to| {
            to.resize(to.capacity(), 0);
            let len = match dictionary {
                None => block::decompress_into(from, to),
                Some(dictionary) => block::decompress_into_with_dict(from, to, dictionary),
            };
            to.truncate(len.expect("it is intact"));
        }),
    )
}

fn row(
    per: &str,
    method: &str,
    dictionary: usize,
    count: usize,
    inputs: &[&[u8]],
    (mut compress, mut decompress): (Step<'_>, Step<'_>),
) {
    let longest = inputs.iter().map(|input| input.len()).max().unwrap_or(0);
    let mut buffer = Vec::with_capacity(zstd_safe::compress_bound(longest) + (64 << 10));
    let mut stored = Vec::with_capacity(inputs.len());
    let mut fastest = [f64::MAX; 2];
    for round in 0..ROUNDS {
        let begun = Instant::now();
        for input in inputs {
            buffer.clear();
            compress(input, &mut buffer);
            black_box(&buffer);
        }
        fastest[0] = fastest[0].min(begun.elapsed().as_secs_f64());
        if round == 0 {
            for input in inputs {
                buffer.clear();
                compress(input, &mut buffer);
                stored.push(buffer.clone());
            }
        }
        let begun = Instant::now();
        for (compressed, input) in stored.iter().zip(inputs) {
            buffer.clear();
            // A reader knows the length.
            buffer.reserve(input.len());
            decompress(compressed, &mut buffer);
            black_box(&buffer);
        }
        fastest[1] = fastest[1].min(begun.elapsed().as_secs_f64());
    }
    for (compressed, input) in stored.iter().zip(inputs).take(100) {
        buffer.clear();
        decompress(compressed, &mut buffer);
        assert_eq!(buffer.as_slice(), *input, "{method} gives back what it got");
    }
    let (plain, kept) = inputs
        .iter()
        .zip(&stored)
        .fold((0, 0), |sums, (input, now)| {
            (sums.0 + input.len(), sums.1 + now.len().min(input.len()))
        });
    let [compressing, decompressing] = fastest.map(|seconds| seconds * 1e9 / count as f64);
    println!(
        "| {per} | {method} | {} | {:.2} | {compressing:.0} | {decompressing:.0} |",
        if dictionary == 0 {
            "-".to_owned()
        } else {
            format!("{:.0} KiB", dictionary as f64 / 1024.0)
        },
        plain as f64 / kept as f64,
    );
}
