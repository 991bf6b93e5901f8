//! Compressed payloads: nobody sees a difference but on the disk, whatever happens to the store, and
//! damage to them is told as damage. The model's histories and crash points run with compression too.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::sync::Arc;

use highwater::storage::{ManualClock, MemoryStorage, Survivors};
use highwater::{Compression, Error, List, Options, OwnedRecord, Store};
use serde_json::{Value, json};

const STORE: &str = "/s";
const ZSTD: Compression = Compression::Zstd { level: 3 };
const ENTRY_LEN: usize = 56;
const HEADER_LEN: usize = 120;

fn options(disk: &MemoryStorage) -> Options {
    Options::new()
        .storage(Arc::new(disk.clone()))
        .background(false)
        .clock(Arc::new(ManualClock::new(1_700_000_000_000_000)))
        .secret([7; 32])
}

fn contact(id: u32, version: u32) -> Value {
    let scattered = u64::from(id * 31 + version).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    json!({
        "id": id,
        "name": format!("Person {scattered:x}"),
        "company": format!("Company {} Incorporated", id % 50),
        "status": (["active", "paused", "left"][id as usize % 3]),
        "version": version,
        "lists": ["newsletter", "customers"],
    })
}

fn save(store: &Store, ids: std::ops::Range<u32>, version: u32) {
    let records: Vec<Value> = ids.map(|id| contact(id, version)).collect();
    for batch in records.chunks(500) {
        let _ = store.feed("c", "m").unwrap().batch_save(batch).unwrap();
    }
}

fn all(store: &Store) -> Vec<OwnedRecord> {
    let feed = store.feed("c", "m").unwrap();
    feed.records(None).map(Result::unwrap).collect()
}

/// Bytes of frames: segments are as long as their space is reserved.
fn log_bytes(disk: &MemoryStorage) -> usize {
    let used = |bytes: Vec<u8>| {
        bytes
            .iter()
            .rposition(|byte| *byte != 0)
            .map_or(0, |at| at + 1)
    };
    log_files(disk)
        .into_iter()
        .map(|(_, bytes)| used(bytes))
        .sum()
}

fn log_files(disk: &MemoryStorage) -> Vec<(String, Vec<u8>)> {
    let paths = disk.files().into_iter().map(|(path, _)| path);
    let paths = paths.filter_map(|path| path.to_str().map(str::to_owned));
    let files = paths.filter(|path| path.ends_with(".seg") || path.ends_with(".pack"));
    files
        .map(|path| (path.clone(), disk.read_file(&path).unwrap()))
        .collect()
}

fn check_clean(store: &Store) {
    let report = store.verify(|_, _| {}).unwrap();
    assert!(report.is_clean(), "{:?}", report.damage);
}

/// A store of 5,000 contacts, of which some were changed once.
fn filled(compression: Compression) -> (MemoryStorage, Store) {
    let disk = MemoryStorage::new();
    let store = options(&disk).compression(compression).open(STORE).unwrap();
    save(&store, 0..5000, 0);
    for id in (0..500).step_by(2) {
        save(&store, id..id + 1, 1);
    }
    (disk, store)
}

#[test]
fn nobody_sees_a_difference_but_on_the_disk() {
    let ((plain, expected), (packed, store)) = (filled(Compression::None), filled(ZSTD));
    assert_eq!(all(&store), all(&expected));
    let [feed, other] = [&store, &expected].map(|store| store.feed("c", "m").unwrap());
    assert_eq!(feed.size().unwrap(), other.size().unwrap());
    let list = List::new().byte_budget(10_000);
    let (page, same) = (feed.list(&list).unwrap(), other.list(&list).unwrap());
    assert_eq!(page.len(), same.len());
    assert_eq!(page.resume_cursor(), same.resume_cursor());
    // What is saved again, spelt in any way, is unchanged.
    let applied = feed.batch_save(&[contact(7, 0), contact(8, 1)]).unwrap();
    assert_eq!(applied.totals.unchanged, 2);
    let text = contact(8, 1).to_string().replace(',', " , ");
    let spelt = serde_json::value::RawValue::from_string(text).unwrap();
    assert_eq!(feed.batch_save(&[spelt]).unwrap().totals.unchanged, 1);
    let (bytes, plain) = (log_bytes(&packed), log_bytes(&plain));
    assert!(bytes * 4 < plain * 3, "{bytes} of {plain} bytes");
    check_clean(&store);
}

#[test]
fn a_store_may_be_opened_with_another_option_every_time() {
    let (disk, store) = filled(ZSTD);
    store.close().unwrap();
    let store = options(&disk).open(STORE).unwrap();
    save(&store, 4000..5500, 2);
    let half = log_bytes(&disk);
    store.close().unwrap();
    let fast = Compression::Zstd { level: 1 };
    let store = options(&disk).compression(fast).rebuild(STORE).unwrap();
    save(&store, 5500..7000, 3);
    let after = log_bytes(&disk) - half;
    let expected = {
        let (_, store) = filled(Compression::None);
        save(&store, 4000..5500, 2);
        save(&store, 5500..7000, 3);
        all(&store)
    };
    // A rebuild counts as an unclean end, after which positions jump.
    let shown = |records: Vec<OwnedRecord>| -> Vec<_> {
        let shown = |record: OwnedRecord| (record.id, record.payload, record.last_action);
        records.into_iter().map(shown).collect()
    };
    assert_eq!(shown(all(&store)), shown(expected));
    let payloads: usize = (2500..4000)
        .map(|id| contact(id, 3).to_string().len())
        .sum();
    assert!(
        after < payloads,
        "they are compressed: {after} of {payloads} bytes"
    );
    check_clean(&store);
}

/// The dictionary is in the log, so it has to come along when compaction removes what it was in.
#[test]
fn the_dictionary_survives_compaction_and_rebuilding() {
    let disk = MemoryStorage::new();
    let open = |disk: &MemoryStorage| {
        let options = options(disk).segment_size(64 << 10).eager_compaction(true);
        options.compression(ZSTD)
    };
    let store = open(&disk).open(STORE).unwrap();
    save(&store, 0..3000, 0);
    let feed = store.feed("c", "m").unwrap();
    let _ = feed.batch_delete(&["5", "6"]).unwrap();
    save(&store, 1000..3000, 1);
    let expected = all(&store);
    let first = "/s/log/0000000001.seg";
    assert!(disk.read_file(first).is_some());
    let compacted = store.compact().unwrap();
    assert!(compacted.removed > 0 && disk.read_file(first).is_none());
    assert_eq!(all(&store), expected);
    save(&store, 0..1000, 2);
    let expected = all(&store);
    check_clean(&store);
    store.close().unwrap();
    let store = open(&disk).rebuild(STORE).unwrap();
    assert_eq!(all(&store), expected);
    let copy = disk.crash(Survivors::Synced);
    assert_eq!(all(&open(&copy).open(STORE).unwrap()), expected);
    let _ = store.compact().unwrap();
    assert_eq!(all(&store), expected);
    check_clean(&store);
}

#[test]
fn compaction_compresses_what_was_stored_plain() {
    let disk = MemoryStorage::new();
    let small = |disk| options(disk).segment_size(64 << 10).eager_compaction(true);
    let store = small(&disk).open(STORE).unwrap();
    save(&store, 0..3000, 0);
    store.close().unwrap();
    let store = small(&disk).compression(ZSTD).open(STORE).unwrap();
    // The next write learns from what is there.
    save(&store, 0..1, 1);
    let (expected, plain) = (all(&store), log_bytes(&disk));
    let _ = store.compact().unwrap();
    assert_eq!(all(&store), expected);
    let bytes = log_bytes(&disk);
    assert!(bytes * 3 < plain * 2, "{bytes} of {plain} bytes");
    check_clean(&store);
}

/// A dictionary holds pieces of records, so it must not stay when they go.
#[test]
fn hard_deletion_of_a_feed_takes_its_dictionary_along() {
    let disk = MemoryStorage::new();
    let open = || options(&disk).segment_size(64 << 10).eager_compaction(true);
    let store = open().compression(ZSTD).open(STORE).unwrap();
    save(&store, 0..3000, 0);
    let holds = |text: &str| {
        let mut files = log_files(&disk).into_iter();
        files.any(|(_, bytes)| {
            bytes
                .windows(text.len())
                .any(|window| window == text.as_bytes())
        })
    };
    assert!(holds("Incorporated"));
    let feed = store.feed("c", "m").unwrap();
    let staged = feed.replace().unwrap();
    let other: Vec<Value> = (0..3000)
        .map(|id| json!({"id": id, "other": "thing ".repeat(20)}))
        .collect();
    for batch in other.chunks(500) {
        let _ = staged.feed().batch_save(batch).unwrap();
    }
    staged.commit().unwrap();
    let expected = all(&store);
    // Everything moves on to new segments, and what it was in goes.
    for round in 0..3 {
        let many: Vec<Value> = (0..200)
            .map(|id| json!({"id": id, "round": round, "x": "y".repeat(600)}))
            .collect();
        let _ = store
            .feed("c", "filler")
            .unwrap()
            .batch_save_raw(
                &many
                    .iter()
                    .map(|record| (record["id"].to_string(), record.to_string()))
                    .collect::<Vec<_>>(),
            )
            .unwrap();
    }
    let _ = store.compact().unwrap();
    assert!(!holds("Incorporated"), "neither records nor dictionary");
    assert_eq!(all(&store), expected);
    store.close().unwrap();
    let store = open().rebuild(STORE).unwrap();
    assert_eq!(all(&store), expected);
    check_clean(&store);
}

#[test]
fn what_does_not_shrink_is_stored_as_it_is() {
    let disk = MemoryStorage::new();
    let store = options(&disk).compression(ZSTD).open(STORE).unwrap();
    let feed = store.feed("c", "noise").unwrap();
    let mut word = 1u64;
    let mut noise = |len: usize| -> Vec<u8> {
        let mut next = || {
            word = word
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (word >> 56) as u8
        };
        (0..len).map(|_| next()).collect()
    };
    let records: Vec<(String, Vec<u8>)> =
        (0..1000).map(|id| (id.to_string(), noise(400))).collect();
    for batch in records.chunks(200) {
        let _ = feed.batch_save_raw(batch).unwrap();
    }
    let got: Vec<Vec<u8>> = feed
        .records(None)
        .map(|record| record.unwrap().payload.unwrap())
        .collect();
    assert!(got.iter().eq(records.iter().map(|(_, body)| body)));
    // No dictionary either: there was nothing to learn.
    let bytes = log_bytes(&disk);
    assert!(bytes < 1000 * (400 + ENTRY_LEN + 8) + 8192, "{bytes} bytes");
    // In a feed that has one, noise and records stand side by side; so do empty payloads.
    save(&store, 0..2000, 0);
    let mixed = store.feed("c", "m").unwrap();
    let raw = [
        ("noise", noise(1000)),
        ("empty", Vec::new()),
        ("text", b"text ".repeat(50)),
    ];
    let _ = mixed.batch_save_raw(&raw).unwrap();
    let page = mixed.get(&["noise", "empty", "text"]).unwrap();
    let payloads: Vec<&[u8]> = page.iter().map(|record| record.payload.unwrap()).collect();
    assert_eq!(
        payloads,
        raw.iter()
            .map(|(_, body)| body.as_slice())
            .collect::<Vec<_>>()
    );
    check_clean(&store);
}

#[test]
fn levels_out_of_range_are_refused() {
    for level in [-5, 0, 20, i32::MAX] {
        let options = options(&MemoryStorage::new()).compression(Compression::Zstd { level });
        assert!(matches!(
            options.open(STORE),
            Err(Error::InvalidArgument { .. })
        ));
    }
}

/// The last frame of the first segment: its offset, its number of records, and the lengths of its
/// ids and payloads.
fn last_frame(bytes: &[u8]) -> (usize, usize, usize) {
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
    let (mut at, mut last) = (128, (0, 0, 0));
    while bytes[at..].starts_with(b"HWFR") {
        let (count, ids, bodies) = (word(at + 76), word(at + 80), word(at + 84));
        let records = bytes[at + 4] == 1;
        if records {
            last = (at, count, ids);
        }
        let entries = if records { count * ENTRY_LEN } else { 0 };
        at = (at + HEADER_LEN + entries + ids + bodies).next_multiple_of(8);
    }
    last
}

/// Every bit of a compressed payload, under an open store. Whatever it becomes, with its checksum
/// wrong or mended, is told as damage at its place, or is another payload of the same length.
#[test]
fn damaged_and_forged_payloads_are_told_as_damage() {
    let disk = MemoryStorage::new();
    let store = options(&disk).compression(ZSTD).open(STORE).unwrap();
    save(&store, 0..2000, 0);
    save(&store, 9000..9001, 0);
    let path = "/s/log/0000000001.seg";
    let intact = disk.read_file(path).unwrap();
    let (frame, count, ids) = last_frame(&intact);
    assert_eq!(count, 1);
    let entry = frame + HEADER_LEN;
    let body = entry + ENTRY_LEN + ids;
    let end =
        body + u32::from_le_bytes(intact[entry + 44..entry + 48].try_into().unwrap()) as usize;
    let first = u64::from_le_bytes(intact[frame + 32..frame + 40].try_into().unwrap());
    let len = contact(9000, 0).to_string().len();
    assert_eq!(
        usize::from(intact[entry + 41]),
        len,
        "the payload is compressed"
    );
    let feed = store.feed("c", "m").unwrap();
    let expect_damage = |what: &str| match feed.get(&["9000"]) {
        Err(Error::Corrupt {
            path: at, offset, ..
        }) => {
            assert_eq!(
                (at.to_str().unwrap(), offset),
                (path, body as u64),
                "{what}"
            );
        }
        Ok(page) => {
            let payload = page.get(0).unwrap().payload.unwrap();
            assert_eq!(payload.len(), len, "{what}");
        }
        Err(error) => panic!("{what}: {error:?}"),
    };
    let forge = |bytes: &mut Vec<u8>| {
        let sum = crc32c::crc32c(&bytes[body..end]);
        bytes[entry + 48..entry + 52].copy_from_slice(&sum.to_le_bytes());
        let seeded = (first ^ first >> 32) as u32;
        let sum = crc32c::crc32c_append(seeded, &bytes[entry..entry + ENTRY_LEN - 4]);
        let sum = crc32c::crc32c_append(sum, &bytes[body - ids..body]);
        bytes[entry + 52..entry + 56].copy_from_slice(&sum.to_le_bytes());
    };
    let mut refused = 0;
    for bit in 8 * body..8 * end {
        let mut bytes = intact.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        disk.write_file(path, &bytes).unwrap();
        assert!(matches!(feed.get(&["9000"]), Err(Error::Corrupt { .. })));
        forge(&mut bytes);
        disk.write_file(path, &bytes).unwrap();
        expect_damage(&format!("bit {bit}"));
        refused += usize::from(feed.get(&["9000"]).is_err());
    }
    assert!(refused > 20);
    // Lengths that are not the payload's, and payloads that are no frames at all.
    for wrong in [[1, 0, 0], [0xff; 3], [len as u8 + 1, 0, 0]] {
        let mut bytes = intact.clone();
        bytes[entry + 41..entry + 44].copy_from_slice(&wrong);
        forge(&mut bytes);
        disk.write_file(path, &bytes).unwrap();
        assert!(matches!(feed.get(&["9000"]), Err(Error::Corrupt { .. })));
    }
    let mut bytes = intact.clone();
    bytes[body..end].fill(0xff);
    forge(&mut bytes);
    disk.write_file(path, &bytes).unwrap();
    assert!(matches!(feed.get(&["9000"]), Err(Error::Corrupt { .. })));
    // `verify` decompresses too. The entries' checksum in the header is not mended, which it says
    // first, so only the payload is forged here.
    disk.write_file(path, &intact).unwrap();
    check_clean(&store);
    disk.write_file(path, &bytes).unwrap();
    let report = store.verify(|_, _| {}).unwrap();
    assert!(!report.is_clean());
}

/// Every 97th bit of the dictionary, where it is in the log: the store says so, or shows what it
/// should.
#[test]
fn a_damaged_dictionary_is_told_as_damage() {
    let (disk, store) = filled(ZSTD);
    let expected = all(&store);
    store.close().unwrap();
    let path = "/s/log/0000000001.seg";
    let intact = disk.read_file(path).unwrap();
    let magic = 0xec30_a437_u32.to_le_bytes();
    let start = intact
        .windows(4)
        .position(|window| window == magic)
        .unwrap();
    disk.remove_file("/s/catalog.redb").unwrap();
    for bit in (8 * start..8 * (start + (8 << 10))).step_by(97) {
        let mut bytes = intact.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let copy = disk.crash(Survivors::All);
        copy.write_file(path, &bytes).unwrap();
        match options(&copy).open(STORE) {
            Err(Error::Corrupt { path: at, .. }) => assert_eq!(at.to_str().unwrap(), path),
            Err(error) => panic!("bit {bit}: {error:?}"),
            Ok(store) => assert_eq!(all(&store), expected, "bit {bit}"),
        }
    }
}
