//! What is undamaged is saved, under the cursors it had; what is not is told; and nobody misses a
//! change without being told.

use std::collections::{BTreeMap, BTreeSet};

use highwater::storage::{MemoryStorage, Survivors};
use highwater::{Cursor, Error, Expected, Feed, List, Lost, Oldest, OwnedRecord, Result, Store};
use proptest::prelude::*;
use serde_json::json;

use crate::world::{
    BACKUP, CATALOG, FRAME_HEADER_LEN, RESTORED, STORE, View, change, feed, files, frames_of,
    options, place_of, records, repaired, save, verify, view,
};

fn after(feed: &Feed, cursor: Cursor) -> Result<Vec<String>> {
    let page = feed.list(&List::new().after(cursor))?;
    Ok(page.iter().map(|record| record.id.to_owned()).collect())
}

fn is_expired<T>(answer: &Result<T>) -> bool {
    matches!(answer, Err(Error::CursorExpired))
}

/// A closed store with a damaged record's worth of history in two feeds.
fn build() -> MemoryStorage {
    let disk = MemoryStorage::new();
    let store = options(&disk).open(STORE).unwrap();
    let (contacts, company) = (feed(&store, "contact"), feed(&store, "company"));
    for id in 0..8 {
        save(&contacts, [id], 600, char::from(b'a' + id as u8));
        save(&company, [id], 600, char::from(b'A' + id as u8));
    }
    save(&contacts, 2..4, 500, 'x');
    let _ = contacts.batch_delete(&["5"]).unwrap();
    let page = json!({"page": 1});
    store
        .save_checkpoint("c", "s", "", &page, Expected::Absent)
        .unwrap();
    store.close().unwrap();
    disk
}

#[test]
fn an_undamaged_store_is_the_same_after_a_repair() {
    for keep_catalog in [true, false] {
        let disk = build();
        let store = options(&disk).open(STORE).unwrap();
        let expected = view(&store);
        let cursor = feed(&store, "contact").first_cursor().unwrap().unwrap();
        let left = after(&feed(&store, "contact"), cursor).unwrap();
        store.close().unwrap();
        if !keep_catalog {
            disk.remove_file(CATALOG).unwrap();
        }
        let (store, report) = repaired(&disk);
        assert!(report.is_complete(), "{:?}", report.lost);
        assert_eq!(report.damage.len(), usize::from(!keep_catalog));
        assert_eq!(view(&store), expected);
        assert_eq!(after(&feed(&store, "contact"), cursor).unwrap(), left);
        let checkpoint = store.checkpoint("c", "s", "").unwrap().unwrap();
        assert_eq!(checkpoint.json, br#"{"page":1}"#);
        save(&feed(&store, "contact"), 0..30, 300, 'n');
        let _ = store.compact().unwrap();
        verify(&store);
    }
}

#[test]
fn a_damaged_payload_costs_its_record_and_the_readers_of_its_feed_start_over() {
    let disk = build();
    let store = options(&disk).open(STORE).unwrap();
    let contacts = feed(&store, "contact");
    let cursors: Vec<Cursor> = records(&contacts)
        .iter()
        .map(|record| record.cursor)
        .collect();
    let expected: Vec<OwnedRecord> = records(&contacts);
    let (others, other) = (records(&feed(&store, "company")), feed(&store, "company"));
    let cursor_of_other = other.first_cursor().unwrap().unwrap();
    store.close().unwrap();
    let (path, at) = place_of(&disk, &[b'e'; 600]);
    change(&disk, &path, |bytes| bytes[at + 300] ^= 1);

    let (store, report) = repaired(&disk);
    let [
        Lost::Changes {
            feed: key,
            first,
            last,
            ids,
            ..
        },
    ] = report.lost.as_slice()
    else {
        panic!("{:?}", report.lost);
    };
    assert_eq!(
        (key.model.as_str(), ids.as_slice()),
        ("contact", ["4".to_owned()].as_slice())
    );
    assert!(first == last && cursors.contains(first));
    assert!(
        report.lost[0].to_string().ends_with(" of 4"),
        "{}",
        report.lost[0]
    );
    let contacts = feed(&store, "contact");
    let left: Vec<_> = expected
        .into_iter()
        .filter(|record| record.id != "4")
        .collect();
    assert_eq!(records(&contacts), left);
    // Those before the loss would miss it, those behind it know what the store does not.
    assert!(
        cursors
            .iter()
            .all(|cursor| is_expired(&after(&contacts, *cursor)))
    );
    assert_eq!(records(&feed(&store, "company")), others);
    assert!(after(&feed(&store, "company"), cursor_of_other).is_ok());
    // Who starts over goes on from there.
    let page = contacts.list(&List::new().limit(2)).unwrap();
    assert!(after(&contacts, page.resume_cursor()).is_ok());
    save(&contacts, [4], 600, 'e');
    assert_eq!(
        after(&contacts, records(&contacts)[6].cursor).unwrap(),
        ["4"]
    );
}

#[test]
fn damage_to_superseded_versions_costs_nothing() {
    let disk = build();
    for fill in [b'c', b'd'] {
        let (path, at) = place_of(&disk, &[fill; 600]);
        change(&disk, &path, |bytes| bytes[at..at + 600].fill(0));
    }
    let expected = view(&options(&disk.crash(Survivors::All)).open(STORE).unwrap());
    let (store, report) = repaired(&disk);
    assert!(report.is_complete(), "{:?}", report.lost);
    assert_eq!(view(&store), expected);
}

/// The frame of a version is gone, so that nothing says what it superseded.
#[test]
fn an_older_version_does_not_come_back_unnoticed() {
    for keep_catalog in [true, false] {
        let disk = build();
        let store = options(&disk).open(STORE).unwrap();
        let tail = feed(&store, "contact").last_cursor().unwrap().unwrap();
        store.close().unwrap();
        if !keep_catalog {
            disk.remove_file(CATALOG).unwrap();
        }
        // The newest versions of 2 and 3, from the header of their frame on.
        let (path, at) = place_of(&disk, &[b'x'; 500]);
        change(&disk, &path, |bytes| bytes[at - 400..at].fill(0));
        let (store, report) = repaired(&disk);
        let contacts = feed(&store, "contact");
        let ids: Vec<String> = records(&contacts)
            .into_iter()
            .map(|record| record.id)
            .collect();
        let mut unique = ids.clone();
        unique.sort();
        unique.dedup();
        assert_eq!(unique.len(), ids.len(), "{ids:?}");
        if keep_catalog {
            assert!(
                !ids.contains(&"2".to_owned()),
                "it is known to be superseded"
            );
        }
        let told =
            |lost: &Lost| matches!(lost, Lost::Changes { feed, .. } if feed.model == "contact");
        assert!(report.lost.iter().any(told), "{:?}", report.lost);
        assert!(is_expired(&after(&contacts, tail)));
    }
}

#[test]
fn a_lost_end_is_rolled_back_and_its_cursors_are_refused() {
    let disk = MemoryStorage::new();
    let store = options(&disk).open(STORE).unwrap();
    let contacts = feed(&store, "contact");
    for id in 0..12 {
        save(&contacts, [id], 1500, 'a');
    }
    let cursors: Vec<Cursor> = records(&contacts)
        .iter()
        .map(|record| record.cursor)
        .collect();
    store.close().unwrap();
    let segments = files(&disk, "/s/log", ".seg");
    disk.remove_file(segments.last().unwrap()).unwrap();
    assert!(options(&disk).open(STORE).is_err());
    let (store, report) = repaired(&disk);
    let contacts = feed(&store, "contact");
    let left = records(&contacts).len();
    assert!((8..12).contains(&left));
    let [Lost::Changes { first, last, .. }, ..] = report.lost.as_slice() else {
        panic!("{:?}", report.lost);
    };
    assert_eq!(
        (first, last),
        (&cursors[left], &cursors[11]),
        "the catalog knows the end"
    );
    assert!(
        cursors[left..]
            .iter()
            .all(|cursor| is_expired(&after(&contacts, *cursor)))
    );
    save(&contacts, [50], 10, 'z');
    assert!(contacts.last_cursor().unwrap().unwrap() > cursors[11]);
}

#[test]
fn headers_of_segments_are_made_up_for() {
    for keep_catalog in [true, false] {
        let disk = build();
        let expected = view(&options(&disk.crash(Survivors::All)).open(STORE).unwrap());
        if !keep_catalog {
            disk.remove_file(CATALOG).unwrap();
        }
        // Of all but one nothing is left; of that one the secret is.
        for (at, path) in files(&disk, "/s/log", ".seg").iter().enumerate() {
            change(&disk, path, |bytes| match at {
                0 => bytes[20] ^= 1,
                _ => bytes[..128].fill(0),
            });
        }
        let (store, report) = repaired(&disk);
        assert!(report.is_complete(), "{:?}", report.lost);
        assert_eq!(view(&store), expected);
    }
}

#[test]
fn without_a_trace_of_whose_it_is_nothing_can_be_done() {
    let disk = build();
    for path in files(&disk, "/s/log", ".seg") {
        change(&disk, &path, |bytes| bytes[..128].fill(0));
    }
    let refused = options(&disk).repair(STORE, RESTORED);
    assert!(matches!(refused, Err(Error::Corrupt { .. })), "{refused:?}");
    for path in files(&disk, "/s/log", ".seg") {
        let newer = |bytes: &mut Vec<u8>| bytes[..12].copy_from_slice(b"HWSEGMNT\x09\0\0\0");
        change(&disk, &path, newer);
    }
    let refused = options(&disk).repair(STORE, RESTORED);
    assert!(
        matches!(refused, Err(Error::UnknownFormat { found: 9, .. })),
        "{refused:?}"
    );
    let nothing = options(&disk).repair("/nowhere", RESTORED);
    assert!(matches!(nothing, Err(Error::Io { .. })), "{nothing:?}");
    let occupied = options(&disk).repair(STORE, STORE);
    assert!(occupied.is_err(), "{occupied:?}");
}

/// What compaction has packed, and the only descriptions of it.
#[test]
fn packs_are_saved_too() {
    let disk = MemoryStorage::new();
    let store = options(&disk).eager_compaction(true).open(STORE).unwrap();
    let contacts = feed(&store, "contact");
    for id in 0..10 {
        save(&contacts, [id], 900, char::from(b'a' + id as u8));
    }
    let _ = contacts.batch_delete(&["3", "4"]).unwrap();
    let _ = store.compact().unwrap();
    save(&contacts, [20], 900, 'z');
    let _ = contacts.prune(&Oldest::all().limit(1)).unwrap();
    let expected = view(&store);
    store.close().unwrap();
    for keep_catalog in [true, false] {
        let copy = disk.crash(Survivors::All);
        if !keep_catalog {
            copy.remove_file(CATALOG).unwrap();
        }
        let (store, report) = repaired(&copy);
        assert!(report.is_complete(), "{:?}", report.lost);
        assert_eq!(view(&store), expected);

        // One record of a packed frame.
        let copy = disk.crash(Survivors::All);
        if !keep_catalog {
            copy.remove_file(CATALOG).unwrap();
        }
        let (path, at) = place_of(&copy, &[b'h'; 900]);
        assert!(path.ends_with(".pack"), "{path}");
        change(&copy, &path, |bytes| bytes[at] ^= 1);
        let (store, report) = repaired(&copy);
        assert_eq!(report.lost.len(), 1, "{:?}", report.lost);
        let left = records(&feed(&store, "contact"));
        assert_eq!(left.len() + 1, expected["contact"].0.len());
        // The pack as a whole.
        copy.remove_file(&path).unwrap();
        let copy = copy.crash(Survivors::All);
        let report = options(&copy).repair(STORE, "/t").unwrap();
        assert!(!report.is_complete());
        let store = options(&copy).open("/t").unwrap();
        let left = records(&feed(&store, "contact"));
        let known = |it: &OwnedRecord| expected["contact"].0.iter().any(|e| e.cursor == it.cursor);
        assert!(left.len() < 6 && left.iter().all(known));
        // Without both, not even the name of the feed is left.
        assert!(keep_catalog || left.is_empty());
    }
}

/// The payload of a deleted record may be the only thing that is damaged.
#[test]
fn a_deletion_without_its_payload_is_still_a_deletion() {
    let disk = build();
    let (path, at) = place_of(&disk, &[b'f'; 600]);
    change(&disk, &path, |bytes| bytes[at] ^= 1);
    let (store, report) = repaired(&disk);
    assert!(
        matches!(report.lost.as_slice(), [Lost::Payload { .. }]),
        "{:?}",
        report.lost
    );
    let record = records(&feed(&store, "contact")).pop().unwrap();
    assert_eq!((record.id.as_str(), record.payload), ("5", None));
}

#[test]
fn open_windows_are_given_up() {
    let disk = MemoryStorage::new();
    let store = options(&disk).open(STORE).unwrap();
    let contacts = feed(&store, "contact");
    save(&contacts, 0..5, 10, 'a');
    let _ = contacts.track_deletes_start().unwrap();
    save(&contacts, 0..2, 10, 'a');
    store.close().unwrap();
    let (store, _) = repaired(&disk);
    let contacts = feed(&store, "contact");
    let swept = contacts.track_deletes_end(&highwater::Sweep::new());
    assert!(matches!(swept, Err(Error::NoWindow { .. })), "{swept:?}");
    assert_eq!(contacts.count().unwrap(), 5);
}

/// A repaired store does not take an old backup's files for its own.
#[test]
fn a_backup_after_a_repair_keeps_nothing_of_the_one_before() {
    let disk = build();
    let store = options(&disk).open(STORE).unwrap();
    let _ = store.backup(BACKUP, |_, _| {}).unwrap();
    store.close().unwrap();
    let (store, _) = repaired(&disk);
    let done = store.backup(BACKUP, |_, _| {}).unwrap();
    assert_eq!(done.kept, 0);
    assert_eq!(view(&options(&disk).open(BACKUP).unwrap()), view(&store));
}

#[derive(Clone, Debug)]
enum Step {
    Save(u8, u8, u8, u16),
    Delete(u8, u8),
    Prune(u8),
    HardDelete(u8),
    Purge(u8),
    Checkpoint,
    Compact,
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0u8..2, 0u8..12, 1u8..4, 0u16..900)
            .prop_map(|(model, id, count, len)| Step::Save(model, id, count, len)),
        2 => (0u8..2, 0u8..12).prop_map(|(model, id)| Step::Delete(model, id)),
        1 => (0u8..2).prop_map(Step::Prune),
        1 => (0u8..2).prop_map(Step::HardDelete),
        1 => (0u8..2).prop_map(Step::Purge),
        1 => Just(Step::Checkpoint),
        1 => Just(Step::Compact),
        1 => Just(Step::Reopen),
    ]
}

#[derive(Clone, Debug)]
enum Damage {
    Flip(u16, u32),
    Sector(u16, u32),
    Truncate(u16, u32),
    Remove(u16),
    NoCatalog,
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        4 => any::<(u16, u32)>().prop_map(|(file, at)| Damage::Flip(file, at)),
        3 => any::<(u16, u32)>().prop_map(|(file, at)| Damage::Sector(file, at)),
        1 => any::<(u16, u32)>().prop_map(|(file, at)| Damage::Truncate(file, at)),
        1 => any::<u16>().prop_map(Damage::Remove),
        2 => Just(Damage::NoCatalog),
    ]
}

/// The last segment and its length.
fn end_of_log(disk: &MemoryStorage) -> Option<(String, usize)> {
    let last = files(disk, "/s/log", ".seg").pop()?;
    let len = disk.read_file(&last)?.len();
    Some((last, len))
}

/// Which bytes of which files were changed.
type Harmed = BTreeMap<String, BTreeSet<usize>>;

fn harm(disk: &MemoryStorage, damage: &Damage, harmed: &mut Harmed) {
    let all = [files(disk, "/s/log", ""), vec![CATALOG.to_owned()]].concat();
    let all: Vec<String> = all
        .into_iter()
        .filter(|path| disk.read_file(path).is_some())
        .collect();
    if all.is_empty() {
        return;
    }
    let pick = |file: u16| all[usize::from(file) % all.len()].clone();
    let mut write = |path: String, from: usize, to: usize, flip: bool| {
        let mut bytes = disk.read_file(&path).unwrap();
        let noted = harmed.entry(path.clone()).or_default();
        for at in from..to.min(bytes.len()) {
            bytes[at] = if flip { bytes[at] ^ 4 } else { 0 };
            noted.insert(at);
        }
        disk.write_file(&path, &bytes).unwrap();
    };
    match *damage {
        Damage::Flip(file, at) => {
            let path = pick(file);
            let len = disk.read_file(&path).unwrap().len();
            let at = at as usize % len.max(1);
            write(path, at, at + 1, true);
        }
        Damage::Sector(file, at) => {
            let path = pick(file);
            let len = disk.read_file(&path).unwrap().len();
            let at = at as usize % len.max(1) / 512 * 512;
            write(path, at, at + 512, false);
        }
        Damage::Truncate(file, at) => {
            let path = pick(file);
            let bytes = disk.read_file(&path).unwrap();
            let at = at as usize % bytes.len().max(1);
            harmed
                .entry(path.clone())
                .or_default()
                .extend(at..bytes.len());
            disk.write_file(&path, &bytes[..at]).unwrap();
        }
        Damage::Remove(file) => {
            let path = pick(file);
            let len = disk.read_file(&path).unwrap().len();
            harmed.entry(path.clone()).or_default().extend(0..len);
            disk.remove_file(&path).unwrap();
        }
        Damage::NoCatalog => drop(disk.remove_file(CATALOG)),
    }
}

fn covers(lost: &[Lost], record: &OwnedRecord, model: &str, is_there: bool) -> bool {
    lost.iter().any(|lost| match lost {
        // Registrations are part of the state.
        Lost::State => !is_there,
        Lost::Changes {
            feed, first, last, ..
        } => feed.model == model && *first <= record.cursor && record.cursor <= *last,
        Lost::Tail { feed, after } => feed.model == model && record.cursor > *after,
        // Its name is not known, so its records cannot be told from others.
        Lost::Feed { .. } => true,
        _ => false,
    })
}

/// A record that is missing without being told.
fn untold<'a>(
    expected: &'a View,
    shown: &View,
    lost: &[Lost],
) -> Option<(&'a str, &'a OwnedRecord)> {
    let all = expected.iter().flat_map(|(model, (records, _))| {
        records.iter().map(move |record| (model.as_str(), record))
    });
    all.into_iter().find(|(model, record)| {
        let left = shown.get(*model).map(|(records, _)| records);
        let mut left = left.into_iter().flatten();
        let is_there = left.any(|other| other.cursor == record.cursor);
        !is_there && !covers(lost, record, model, shown.contains_key(*model))
    })
}

/// The catalog is gone, and one more thing is: registrations, records, descriptions in packs, a
/// manifest, or the end of the log behind an earlier close.
#[test]
fn whichever_frame_is_damaged_besides_the_catalog_what_is_missing_is_told() {
    for (reopened, compacted) in [(false, false), (true, false), (false, true), (true, true)] {
        let disk = MemoryStorage::new();
        let eager = || options(&disk).eager_compaction(true);
        let mut store = eager().open(STORE).unwrap();
        for (model, ids) in [("a", 0..3), ("b", 0..2), ("a", 1..2), ("b", 5..9)] {
            save(&feed(&store, model), ids, 700, 'x');
        }
        if compacted {
            let _ = store.compact().unwrap();
        }
        if reopened {
            store.close().unwrap();
            store = eager().open(STORE).unwrap();
            save(&feed(&store, "b"), 1..2, 100, 'y');
            save(&feed(&store, "new"), 0..1, 100, 'y');
        }
        let expected = view(&store);
        store.close().unwrap();
        disk.remove_file(CATALOG).unwrap();
        for path in files(&disk, "/s/log", "") {
            for at in frames_of(&disk.read_file(&path).unwrap()) {
                for within in [0, FRAME_HEADER_LEN] {
                    let copy = disk.crash(Survivors::All);
                    change(&copy, &path, |bytes| {
                        let from = (at + within).min(bytes.len() - 8);
                        bytes[from..from + 8].fill(0xaa);
                    });
                    let (store, report) = repaired(&copy);
                    let untold = untold(&expected, &view(&store), &report.lost);
                    assert_eq!(untold, None, "{path} {at}+{within}: {:?}", report.lost);
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn random_damage(
        steps in prop::collection::vec(step(), 1..40),
        damages in prop::collection::vec(damage(), 1..4),
    ) {
        let disk = MemoryStorage::new();
        let eager = || options(&disk).eager_compaction(true);
        let mut store = eager().open(STORE).unwrap();
        // Every version that there ever was, by its cursor, with its payload and pruned.
        let mut versions: BTreeMap<Cursor, Vec<OwnedRecord>> = BTreeMap::new();
        // Where the log ended when the store was closed before.
        let mut ends = BTreeSet::new();
        for (at, step) in steps.iter().enumerate() {
            let of = |store: &Store, model: u8| feed(store, ["a", "b"][usize::from(model)]);
            match *step {
                Step::Save(model, id, count, len) => {
                    let ids = usize::from(id)..usize::from(id + count);
                    // So that each payload is found again.
                    let fill = char::from(b'!' + (at % 90) as u8);
                    save(&of(&store, model), ids, usize::from(len), fill);
                }
                Step::Delete(model, id) => {
                    let _ = of(&store, model).batch_delete(&[id.to_string()]).unwrap();
                }
                Step::Prune(model) => drop(of(&store, model).prune(&Oldest::all().limit(2))),
                Step::HardDelete(model) => {
                    drop(of(&store, model).hard_delete(&Oldest::all().limit(1)));
                }
                Step::Purge(model) => drop(of(&store, model).purge(&Oldest::all())),
                Step::Checkpoint => store.checkpoint_catalog().unwrap(),
                Step::Compact => drop(store.compact().unwrap()),
                Step::Reopen => {
                    store.close().unwrap();
                    ends.insert(end_of_log(&disk));
                    store = eager().open(STORE).unwrap();
                }
            }
            for (records, _) in view(&store).into_values() {
                for record in records {
                    versions.entry(record.cursor).or_default().push(record);
                }
            }
        }
        let expected = view(&store);
        store.close().unwrap();
        let end = end_of_log(&disk);
        let mut harmed = Harmed::new();
        damages.iter().for_each(|damage| harm(&disk, damage, &mut harmed));

        let report = match options(&disk).repair(STORE, RESTORED) {
            Ok(report) => report,
            // The log is small: it may be that every header is gone.
            Err(Error::Corrupt { what, .. }) if what.starts_with("no file of the log") => {
                return Ok(());
            }
            // Or that each one left names a version that it never had.
            Err(Error::UnknownFormat { .. }) if files(&disk, "/s/log", "").iter().all(|path| {
                harmed.get(path).is_some_and(|harmed| harmed.range(8..12).next().is_some())
            }) => return Ok(()),
            Err(error) => panic!("{error:?}"),
        };
        let store = options(&disk).create(false).open(RESTORED).unwrap();
        verify(&store);
        let shown = view(&store);
        // Nothing is invented.
        for (records, _) in shown.values() {
            for record in records {
                let known = versions.get(&record.cursor);
                let known = known.expect("a version that there was");
                // An older version that shows again may be one whose payload was pruned since, or is
                // lost; a newest one without its payload is looked at below.
                let mut without_payload = known[0].clone();
                without_payload.payload = None;
                without_payload.pruned_at = record.pruned_at;
                prop_assert!(known.contains(record) || *record == without_payload, "{:?}", record);
            }
        }
        // Without the catalog, nobody can tell a log that was cut there from one that ends there.
        let is_cut = end_of_log(&disk) != end && ends.contains(&end_of_log(&disk));
        let has_catalog = disk.read_file(CATALOG).is_some() && !harmed.contains_key(CATALOG);
        if is_cut && !has_catalog {
            return Ok(());
        }
        let untold = untold(&expected, &shown, &report.lost);
        prop_assert!(untold.is_none(), "{:?} is gone: {:?}", untold, report.lost);
        for (model, (records, _)) in &expected {
            let empty = Vec::new();
            let left = shown.get(model).map_or(&empty, |(records, _)| records);
            // What is shown besides what should be is in a feed that is known to have lost something.
            let extra = left.iter().any(|record| {
                let of_this =
                    |lost: &Lost| matches!(lost, Lost::Payload { deletion, .. } if *deletion == record.cursor);
                !records.contains(record) && !report.lost.iter().any(of_this)
            });
            let lossy = report.lost.iter().any(|lost| match lost {
                Lost::Changes { feed, .. } | Lost::Tail { feed, .. } | Lost::Marks { feed, .. } => {
                    feed.model == *model
                }
                _ => false,
            });
            prop_assert!(!extra || lossy, "{:?}", report.lost);
            // A reader of before is refused, or told everything that it does not know.
            let contacts = feed(&store, model);
            for record in records {
                if let Ok(page) = contacts.list(&List::new().after(record.cursor).limit(1000)) {
                    let later = records.iter().filter(|other| other.cursor > record.cursor);
                    let lost_tail = |other: &OwnedRecord| covers(&report.lost, other, model, true);
                    for other in later.filter(|other| !lost_tail(other)) {
                        let told = page.iter().any(|told| told.cursor == other.cursor);
                        let skipped = other.last_action == highwater::Action::Deleted;
                        prop_assert!(told || skipped, "{:?}", other);
                    }
                }
            }
        }
        // Only the catalog was harmed: nothing is lost.
        if harmed.keys().all(|path| path == CATALOG) {
            prop_assert!(report.is_complete(), "{:?}", report.lost);
            prop_assert_eq!(&shown, &expected);
        }
    }
}
