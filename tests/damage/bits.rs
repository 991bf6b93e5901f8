//! Bits that flip.

use highwater::storage::{MemoryStorage, Survivors};
use highwater::{Error, List};

use crate::examiner::{Examiner, names_damage, quietly};
use crate::stores::{CATALOG, STORE, build, build_all_kinds, files, options, segments};

/// Damages each byte of each segment in turn, with the catalog in place or without it.
fn every_log_byte(damage: fn(u8, usize) -> u8, keep_catalog: bool, name: &str) {
    let disk = build();
    let mut examiner = Examiner::new(&disk);
    if !keep_catalog {
        disk.remove_file(CATALOG).unwrap();
    }
    let segments = segments(&disk);
    assert!(segments.len() >= 3, "{segments:?}");
    for path in segments {
        let bytes = disk.read_file(&path).unwrap();
        let mut damaged = bytes.clone();
        for at in 0..bytes.len() {
            damaged[at] = damage(bytes[at], at);
            if damaged[at] != bytes[at] {
                let copy = disk.crash(Survivors::All);
                copy.write_file(&path, &damaged).unwrap();
                examiner.examine(&copy, &format!("{path} byte {at}"));
            }
            damaged[at] = bytes[at];
        }
    }
    assert!(examiner.refused + examiner.partial > examiner.unharmed / 4);
    examiner.finish(name);
}

#[test]
fn a_flipped_bit_anywhere_in_the_log() {
    every_log_byte(|byte, at| byte ^ 1 << (at % 8), true, "bit, catalog");
}

#[test]
fn a_flipped_bit_anywhere_in_the_log_without_catalog() {
    every_log_byte(|byte, at| byte ^ 1 << (at % 8), false, "bit, no catalog");
}

/// Damage while the store is open strikes reads without any check that opening makes.
#[test]
fn every_flipped_bit_of_the_log_under_an_open_store() {
    const PATH: &str = "/s/log/0000000001.seg";
    let disk = MemoryStorage::new();
    let store = options(&disk).index_budget(0).open(STORE).unwrap();
    let feed = store.feed("c", "m").unwrap();
    let save = |id: &'static str, body: &'static str| feed.batch_save_raw(&[(id, body)]).unwrap();
    let all = [
        ("a", "11"),
        ("bb", "222"),
        ("c", "3333"),
        ("d", "4"),
        ("e", "55555"),
    ];
    let _ = feed.batch_save_raw(&all).unwrap();
    let (_, _) = (save("bb", "new"), save("other", "index"));
    let _ = feed.batch_delete(&["d"]).unwrap();
    let ask = || {
        let page = feed.list(&List::new()).map(|page| {
            let records: Vec<_> = page.iter().map(|record| record.to_owned()).collect();
            format!("{records:?}")
        });
        let got = feed.get(&["e", "d", "bb"]);
        let got = got.map(|page| format!("{:?}", page.iter().collect::<Vec<_>>()));
        vec![page, got]
    };
    let mut examiner = Examiner::right(ask().into_iter().map(Result::unwrap).collect());
    let bytes = disk.read_file(PATH).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let mut damaged = bytes.clone();
    for bit in 0..8 * end {
        damaged[bit / 8] ^= 1 << (bit % 8);
        disk.write_file(PATH, &damaged[..end]).unwrap();
        damaged[bit / 8] = bytes[bit / 8];
        let what = format!("byte {} bit {}", bit / 8, bit % 8);
        match quietly(ask) {
            Ok(answers) => examiner.compare(answers, &what),
            Err(_) => examiner.faults.push(format!("{what}: panicked")),
        }
    }
    disk.write_file(PATH, &bytes).unwrap();
    assert!(examiner.partial > 1000);
    examiner.finish("open store");
}

/// Frames are missed where the first of them was, not where the log goes on behind them.
#[test]
fn acknowledged_frames_are_missed_in_their_file_at_their_place() {
    const SEGMENT_HEADER_LEN: usize = 128;
    let disk = build();
    disk.remove_file(CATALOG).unwrap();
    let mut segments = segments(&disk);
    let _last = segments.pop();
    let mut missed = 0;
    for path in &segments {
        let mut bytes = disk.read_file(path).unwrap();
        for at in (SEGMENT_HEADER_LEN..bytes.len()).step_by(31) {
            let copy = disk.crash(Survivors::All);
            bytes[at] ^= 1;
            copy.write_file(path, &bytes).unwrap();
            bytes[at] ^= 1;
            let Err(error) = options(&copy).open(STORE) else {
                continue;
            };
            let Error::Corrupt {
                path: file, offset, ..
            } = error
            else {
                panic!("{path} byte {at}: {error:?}");
            };
            assert_eq!(file.to_str(), Some(path.as_str()), "byte {at}, at {offset}");
            assert!(offset <= at as u64, "{path} byte {at}, at {offset}");
            missed += 1;
        }
    }
    assert!(missed > 20, "{missed}");
}

const FIRST_SEGMENT: &str = "/s/log/0000000001.seg";

/// A disk with a store that is open and has made a commit of each record, and the log's only segment.
fn committed(records: [(&str, &str); 2]) -> (MemoryStorage, Vec<u8>) {
    let disk = MemoryStorage::new();
    let store = options(&disk).open(STORE).unwrap();
    let feed = store.feed("c", "m").unwrap();
    for record in records {
        let _ = feed.batch_save_raw(&[record]).unwrap();
    }
    let left = disk.crash(Survivors::All);
    let bytes = left.read_file(FIRST_SEGMENT).unwrap();
    (left, bytes)
}

/// What a later commit vouches for is no torn tail: the damage costs that record, and nothing else.
#[test]
fn a_damaged_payload_of_an_acknowledged_commit_is_told_of_that_record_alone() {
    let (disk, mut bytes) = committed([("a", "damaged"), ("b", "intact")]);
    let at = bytes.windows(7).position(|bytes| bytes == b"damaged");
    bytes[at.unwrap()] ^= 1;
    disk.write_file(FIRST_SEGMENT, &bytes).unwrap();
    let store = options(&disk).open(STORE).unwrap();
    let feed = store.feed("c", "m").unwrap();
    let page = feed.get(&["b"]).unwrap();
    let found: Vec<_> = page.iter().map(|record| record.payload).collect();
    assert_eq!(found, [Some(&b"intact"[..])]);
    assert!(feed.get(&["a"]).is_err_and(|error| names_damage(&error)));
}

/// A crash may leave a file shorter than what was appended to it.
#[test]
fn a_last_frame_that_its_file_ends_in_is_a_torn_tail() {
    let (disk, bytes) = committed([("a", "whole"), ("b", "cut")]);
    let end = bytes.windows(3).position(|bytes| bytes == b"cut").unwrap() + 3;
    let start = bytes[..end].windows(4).rposition(|bytes| bytes == b"HWFR");
    for len in start.unwrap()..end {
        let copy = disk.crash(Survivors::All);
        copy.write_file(FIRST_SEGMENT, &bytes[..len]).unwrap();
        let store = options(&copy).open(STORE).unwrap();
        let feed = store.feed("c", "m").unwrap();
        let ids: Vec<_> = feed
            .records(None)
            .map(|record| record.unwrap().id)
            .collect();
        assert_eq!(ids, ["a"], "cut at {len}");
    }
}

/// A catalog can be damaged everywhere: the log has everything, so every open works. Of the bytes
/// in use every 31st is damaged.
#[test]
fn damage_anywhere_in_the_catalog() {
    let disk = build();
    let mut examiner = Examiner::new(&disk);
    let bytes = disk.read_file(CATALOG).unwrap();
    let mut damaged = bytes.clone();
    let used: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at] != 0).collect();
    let unused = (0..bytes.len()).step_by(4099);
    for (n, at) in used.into_iter().chain(unused).enumerate() {
        if n % 31 != 0 {
            continue;
        }
        for byte in [bytes[at] ^ 1 << (at % 8), !bytes[at]] {
            damaged[at] = byte;
            let copy = disk.crash(Survivors::All);
            copy.write_file(CATALOG, &damaged).unwrap();
            examiner.examine(&copy, &format!("catalog byte {at}: {byte}"));
        }
        damaged[at] = bytes[at];
    }
    let refused = examiner.refused;
    examiner.finish("catalog");
    assert_eq!(refused, 0);
}

/// What redb notes of a table's types, with their names, is damage like any other when it is wrong.
#[test]
fn damage_in_what_a_catalog_says_of_its_tables() {
    let disk = build();
    let mut examiner = Examiner::new(&disk);
    let bytes = disk.read_file(CATALOG).unwrap();
    let name = b"&[u8]";
    let names: Vec<usize> = (0..bytes.len())
        .filter(|at| bytes[*at..].starts_with(name))
        .collect();
    assert!(names.len() > 4, "{}", names.len());
    let around = |at: usize| at.saturating_sub(24)..(at + name.len()).min(bytes.len());
    for at in names.into_iter().flat_map(around) {
        for bit in [0, 4, 7] {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << bit;
            let copy = disk.crash(Survivors::All);
            copy.write_file(CATALOG, &damaged).unwrap();
            examiner.examine(&copy, &format!("catalog byte {at} bit {bit}"));
        }
    }
    let refused = examiner.refused;
    examiner.finish("tables of the catalog");
    assert_eq!(refused, 0);
}

/// One bit of so many is flipped by default; all of them with `HIGHWATER_DAMAGE=all`.
fn stride() -> usize {
    match std::env::var("HIGHWATER_DAMAGE").is_ok() {
        true => 1,
        false => 101,
    }
}

/// Flips bits of all files of one kind. Returns how often the store was refused, and served in part.
fn flip_bits_of(disk: &MemoryStorage, end: &str, with_catalog: bool) -> (usize, usize) {
    let paths = files(disk, end);
    assert!(!paths.is_empty(), "there is no {end}");
    let mut examiner = Examiner::new(disk);
    let base = disk.crash(Survivors::All);
    if !with_catalog {
        base.remove_file(CATALOG).unwrap();
    }
    let mut flipped = 0;
    for path in paths {
        let mut bytes = disk.read_file(&path).unwrap();
        // Of a catalog most is empty pages.
        let in_use = |at: &usize| end != ".redb" || bytes[*at] != 0;
        let used: Vec<usize> = (0..bytes.len()).filter(in_use).collect();
        for bit in (0..8 * used.len()).step_by(stride()) {
            let at = used[bit / 8];
            bytes[at] ^= 1 << (bit % 8);
            let copy = base.crash(Survivors::All);
            copy.write_file(&path, &bytes).unwrap();
            bytes[at] ^= 1 << (bit % 8);
            examiner.examine(&copy, &format!("{path} byte {at} bit {}", bit % 8));
            flipped += 1;
        }
    }
    let harmed = (examiner.refused, examiner.partial);
    let catalog = if with_catalog { "" } else { ", no catalog" };
    examiner.finish(&format!("{flipped} bits of {end}{catalog}"));
    harmed
}

#[test]
fn any_bit_of_segments_and_packs() {
    let disk = build_all_kinds();
    for end in [".seg", ".pack"] {
        for with_catalog in [true, false] {
            let (refused, partial) = flip_bits_of(&disk, end, with_catalog);
            assert!(refused + partial > 20, "{end}: {refused}, {partial}");
        }
    }
}

/// What they hold is derived from the log, so the store opens. A damaged run is derived again; of a
/// damaged catalog the feed that it says something wrong of is told.
#[test]
fn any_bit_of_catalog_and_runs() {
    let disk = build_all_kinds();
    assert_eq!(flip_bits_of(&disk, ".run", true), (0, 0));
    assert_eq!(flip_bits_of(&disk, ".redb", true).0, 0);
}
