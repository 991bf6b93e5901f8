//! A small store whose files are changed: it answers right or not at all.

use std::sync::{Arc, OnceLock};

use highwater::storage::{ManualClock, MemoryStorage, Survivors};
use highwater::{Expected, List, Options, Order, Result, Store};
use serde_json::json;

const CATALOG: &str = "/s/catalog.redb";
const SEGMENT_HEADER_LEN: usize = 128;
const FRAME_HEADER_LEN: usize = 104;
const ENTRY_LEN: usize = 56;

fn options(disk: &MemoryStorage) -> Options {
    Options::new()
        .storage(Arc::new(disk.clone()))
        .segment_size(4096)
        .background(false)
        .clock(Arc::new(ManualClock::new(1_700_000_000_000_000)))
        .secret([7; 32])
}

/// An undamaged store, closed, and what it answers.
struct Sample {
    disk: MemoryStorage,
    /// Every file but the lock, with the bytes up to the last one that is not zero.
    files: Vec<(String, Vec<u8>)>,
    right: Vec<String>,
}

fn sample() -> &'static Sample {
    static SAMPLE: OnceLock<Sample> = OnceLock::new();
    SAMPLE.get_or_init(|| {
        let disk = MemoryStorage::new();
        write(&options(&disk).open("/s").unwrap());
        Sample::of(disk)
    })
}

/// The same after its segments were packed, and with the index in files.
fn packed_sample() -> &'static Sample {
    static SAMPLE: OnceLock<Sample> = OnceLock::new();
    SAMPLE.get_or_init(|| {
        let disk = MemoryStorage::new();
        write(&packing(options(&disk)).open("/s").unwrap());
        let store = packing(options(&disk)).open("/s").unwrap();
        let packed = store.compact().unwrap();
        assert!(packed.written_bytes > 0);
        let contacts = store.feed("c", "Contact").unwrap();
        let more = [json!({"id": 8, "after": "packing"})];
        let _ = contacts.batch_save(&more).unwrap();
        store.close().unwrap();
        let sample = Sample::of(disk);
        assert!(sample.files.iter().any(|(path, _)| path.ends_with(".run")));
        sample
    })
}

fn packing(options: Options) -> Options {
    options.eager_compaction(true).index_limits_of(0, 0)
}

impl Sample {
    fn of(disk: MemoryStorage) -> Self {
        let copy = disk.crash(Survivors::All);
        let store = options(&copy).open("/s").unwrap();
        let right = answers(&store).into_iter().map(Result::unwrap).collect();
        let paths = disk.files().into_iter().map(|(path, _)| path);
        let paths = paths.map(|path| path.to_str().unwrap().to_owned());
        let files = paths.filter(|path| !path.ends_with("LOCK")).map(|path| {
            let bytes = disk.read_file(&path).unwrap();
            (path, bytes)
        });
        let files = files.collect();
        Self { disk, files, right }
    }
}

fn write(store: &Store) {
    let contacts = store.feed("c", "Contact").unwrap();
    let blobs = store.feed("c", "Blob").unwrap();
    let people: Vec<_> = (0..7).map(|i| json!({"id": i, "name": "n"})).collect();
    let _ = contacts.batch_save(&people).unwrap();
    let raw: Vec<_> = (0..4)
        .map(|i| (format!("blob-{i}"), "y".repeat(600)))
        .collect();
    let _ = blobs.batch_save_raw(&raw).unwrap();
    store.checkpoint_catalog().unwrap();
    let mut batch = store.batch("c");
    batch.save(&contacts, &[json!({"id": 1, "v": 2})]).unwrap();
    batch.delete(&contacts, &["3", "5"]).unwrap();
    batch
        .save_raw(&blobs, &[("blob-1", "z".repeat(900))])
        .unwrap();
    let page = json!({"page": 1});
    batch
        .checkpoint("sync", "", &page, Expected::Absent)
        .unwrap();
    let _ = batch.commit().unwrap();
    store
        .set_connection_metadata("c", &json!({"region": "eu"}))
        .unwrap();
    let _ = blobs.batch_delete(&["blob-2"]).unwrap();
    let _ = contacts.batch_save(&[json!({"id": 3, "back": 1})]).unwrap();
    store.close().unwrap();
}

fn answers(store: &Store) -> Vec<Result<String>> {
    fn show<T: std::fmt::Debug>(answer: Result<T>) -> Result<String> {
        answer.map(|answer| format!("{answer:?}"))
    }
    let mut answers = vec![
        show(store.checkpoint("c", "sync", "")),
        show(store.connection_metadata("c")),
        show(store.feeds()),
    ];
    for model in ["Contact", "Blob"] {
        let ask = |question: &dyn Fn(&highwater::Feed) -> Result<String>| {
            store.feed("c", model).and_then(|feed| question(&feed))
        };
        let list = |list: List| {
            ask(&|feed| {
                let page = feed.list(&list)?;
                let records: Vec<_> = page.iter().collect();
                Ok(format!(
                    "{records:?} {} {}",
                    page.resume_cursor(),
                    page.has_more()
                ))
            })
        };
        answers.push(ask(&|feed| {
            show(feed.stats().map(|s| (s.live, s.live_bytes, s.deleted)))
        }));
        answers.push(ask(&|feed| show(feed.last_cursor())));
        answers.push(list(List::new()));
        answers.push(list(List::new().limit(2).order(Order::Descending)));
        answers.push(list(List::new().ids(["1", "5", "blob-2", "nobody"])));
        answers.push(ask(&|feed| {
            let page = feed.get(&["blob-3", "6", "5", "nobody"])?;
            Ok(format!("{:?}", page.iter().collect::<Vec<_>>()))
        }));
    }
    answers
}

/// Edits from the input: which file, where, and what; four or five bytes each.
fn edit(files: &mut [(String, Vec<u8>)], mut data: &[u8]) {
    for _ in 0..8 {
        let Some((&[kind, low, high, value], rest)) = data.split_first_chunk::<4>() else {
            return;
        };
        data = rest;
        let (_, bytes) = &mut files[usize::from(kind >> 3) % files.len()];
        if bytes.is_empty() {
            continue;
        }
        let at = usize::from(low) | usize::from(high) << 8;
        // Most files are mostly zeros at the end; the first 64 KiB are where things are.
        let at = at % bytes.len();
        match kind & 7 {
            0..=2 => bytes[at] ^= value.max(1),
            3 => bytes[at] = value,
            4 => bytes.truncate(at),
            5 => {
                let end = (at + 512).min(bytes.len());
                bytes[at..end].fill(value);
            }
            6 => {
                let from = usize::from(value) * 16 % bytes.len();
                let len = 64.min(bytes.len() - at.max(from));
                bytes.copy_within(from..from + len, at);
            }
            _ => bytes.extend_from_slice(&[value; 32]),
        }
    }
}

fn with_files(sample: &Sample, files: &[(String, Vec<u8>)]) -> MemoryStorage {
    let disk = sample.disk.crash(Survivors::All);
    for (path, bytes) in files {
        disk.write_file(path, bytes).unwrap();
    }
    disk
}

/// Any change to any byte of any file: no panic, and what is read without an error is right.
///
/// One exception is in the nature of things: when the last segment and the catalog are both
/// damaged, nothing knows where the log ended. So only one file is changed at a time.
pub fn store(data: &[u8]) {
    damage(sample(), data);
}

/// The same of packs and of runs of the index.
pub fn packed(data: &[u8]) {
    damage(packed_sample(), data);
}

fn damage(sample: &Sample, data: &[u8]) {
    let Some((&which, data)) = data.split_first() else {
        return;
    };
    let which = usize::from(which) % sample.files.len();
    let mut files = vec![sample.files[which].clone()];
    edit(&mut files, data);
    let disk = with_files(sample, &files);
    for _ in 0..2 {
        if let Ok(store) = options(&disk).open("/s") {
            let answers = answers(&store);
            assert_eq!(answers.len(), sample.right.len());
            for (answer, right) in answers.iter().zip(&sample.right) {
                if let Ok(answer) = answer {
                    assert_eq!(answer, right);
                }
            }
            let _ = store.verify(|_, _| {});
        }
    }
}

/// Changes to the log whose checksums are then made right again, without a catalog: what decoding
/// does with fields that nobody ever wrote. No panic, no endless loop; there is no right answer.
pub fn frame(data: &[u8]) {
    let sample = sample();
    let mut files = sample.files.clone();
    files.retain(|(path, _)| path != CATALOG);
    let (reseal, data) = match data.split_first() {
        Some((&reseal, data)) => (reseal, data),
        None => return,
    };
    let frames: Vec<_> = files.iter().map(|(_, bytes)| frames_of(bytes)).collect();
    edit(&mut files, data);
    for ((_, bytes), frames) in files.iter_mut().zip(&frames) {
        for (offset, count) in frames {
            seal(bytes, *offset, *count, reseal);
        }
    }
    let disk = with_files(sample, &files);
    disk.remove_file(CATALOG).unwrap();
    if let Ok(store) = options(&disk).open("/s") {
        let _ = answers(&store);
        let _ = store.verify(|_, _| {});
        if let Ok(feed) = store.feed("c", "Contact") {
            let _ = feed.batch_save(&[json!({"id": 1, "after": true})]);
            let _ = feed.batch_delete(&["2"]);
        }
    }
}

fn frames_of(bytes: &[u8]) -> Vec<(usize, usize)> {
    let starts = (SEGMENT_HEADER_LEN..bytes.len()).step_by(8);
    let starts = starts.filter(|at| bytes[*at..].starts_with(b"HWFR"));
    starts
        .map(|at| (at, word(bytes, at + 76).unwrap_or(0) as usize))
        .collect()
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at + 4)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}

/// The log's checksum, as the format defines it.
fn checksum(seed: u64, parts: &[&[u8]]) -> u32 {
    let seeded = (seed ^ (seed >> 32)) as u32;
    parts
        .iter()
        .fold(seeded, |sum, part| crc32c::crc32c_append(sum, part))
}

/// Makes the checksums of a frame fit what it says now.
fn seal(bytes: &mut [u8], offset: usize, count: usize, which: u8) {
    let entries = offset + FRAME_HEADER_LEN;
    let ids = entries + count * ENTRY_LEN;
    let Some(first) = word(bytes, offset + 32) else {
        return;
    };
    if which & 1 != 0 && bytes.get(offset + 4) == Some(&1) {
        let mut id_start = 0;
        for index in 0..count {
            let at = entries + index * ENTRY_LEN;
            // Three bytes, before those of the plain length.
            let Some(id_end) = word(bytes, at + 38).map(|word| word & 0xff_ffff) else {
                return;
            };
            let id = bytes
                .get(ids + id_start..ids + id_end as usize)
                .unwrap_or_default();
            let Some(entry) = bytes.get(at..at + ENTRY_LEN - 4) else {
                return;
            };
            let sum = checksum(u64::from(first) + index as u64, &[entry, id]);
            let Some(place) = bytes.get_mut(at + ENTRY_LEN - 4..at + ENTRY_LEN) else {
                return;
            };
            place.copy_from_slice(&sum.to_le_bytes());
            id_start = id_end as usize;
        }
    }
    if which & 2 != 0 {
        // The count may have changed: the reader will look where it says now.
        let records = bytes.get(offset + 4) == Some(&1);
        let len = match (records, word(bytes, offset + 76), word(bytes, offset + 84)) {
            (true, Some(count), _) => (count as usize).saturating_mul(ENTRY_LEN),
            (_, _, Some(bodies)) => bodies as usize,
            _ => return,
        };
        if let Some(content) = bytes.get(entries..entries.saturating_add(len)) {
            let sum = checksum(0, &[content]);
            bytes[offset + 88..offset + 92].copy_from_slice(&sum.to_le_bytes());
        }
    }
    if which & 4 != 0
        && let Some(body) = bytes.get(offset..offset + FRAME_HEADER_LEN - 4)
    {
        let sum = checksum(offset as u64, &[body]);
        if let Some(place) = bytes.get_mut(offset + 100..offset + 104) {
            place.copy_from_slice(&sum.to_le_bytes());
        }
    }
}
