//! A backup is the store as it was at one moment, whatever happens to the store; and a store that
//! was restored from it gives no cursor away twice.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use highwater::storage::{MemoryStorage, Storage, Survivors};
use highwater::{Cursor, Error, Expected, Feed, List, Oldest, Options, Store};
use proptest::prelude::*;
use serde_json::json;

use crate::hooked::{Hook, Hooked, Operation};
use crate::world::{
    BACKUP, RESTORED, STORE, View, feed, files, options, records, save, verify, view,
};

/// Opens a copy of the disk, so that what is on it stays as it is.
fn opened(disk: &MemoryStorage, dir: &str) -> Store {
    options(&disk.crash(Survivors::All)).open(dir).unwrap()
}

fn restored(disk: &MemoryStorage) -> Store {
    let report = options(disk).restore(BACKUP, RESTORED, |_, _| {}).unwrap();
    assert!(report.files > 1 && report.bytes > 0);
    options(disk).open(RESTORED).unwrap()
}

fn after(feed: &Feed, cursor: Cursor) -> Result<Vec<String>, Error> {
    let page = feed.list(&List::new().after(cursor))?;
    Ok(page.iter().map(|record| record.id.to_owned()).collect())
}

fn is_expired<T>(answer: &Result<T, Error>) -> bool {
    matches!(answer, Err(Error::CursorExpired))
}

#[test]
fn a_backup_is_the_store_as_it_was() {
    let disk = MemoryStorage::new();
    let store = options(&disk).open(STORE).unwrap();
    let contacts = feed(&store, "contact");
    (0..20).for_each(|id| save(&contacts, [id], 900, 'a'));
    let _ = contacts.batch_delete(&["3", "4"]).unwrap();
    let page = json!({"page": 3});
    store
        .save_checkpoint("c", "s", "", &page, Expected::Absent)
        .unwrap();
    let before = view(&store);
    let mut told = Vec::new();
    let done = store
        .backup(BACKUP, |done, total| told.push((done, total)))
        .unwrap();
    assert!(
        done.linked > 3 && done.copied == 1 && done.kept == 0,
        "{done:?}"
    );
    assert!(told.windows(2).all(|pair| pair[0].0 <= pair[1].0));
    assert!(told.last().is_some_and(|(done, total)| done == total));

    save(&contacts, 0..30, 900, 'b');
    assert_ne!(view(&store), before);
    let backup = opened(&disk, BACKUP);
    assert_eq!(view(&backup), before);
    verify(&backup);
    let restored = restored(&disk);
    assert_eq!(view(&restored), before);
    let checkpoint = restored.checkpoint("c", "s", "").unwrap().unwrap();
    assert_eq!(checkpoint.json, br#"{"page":3}"#);
    verify(&restored);
    verify(&store);
}

#[test]
fn what_compaction_and_recycling_do_later_does_not_reach_the_backup() {
    let disk = MemoryStorage::new();
    let store = options(&disk).open(STORE).unwrap();
    let contacts = feed(&store, "contact");
    for round in 0..6 {
        save(&contacts, 0..4, 900, char::from(b'a' + round));
    }
    let before = view(&store);
    let _ = store.backup(BACKUP, |_, _| {}).unwrap();
    let backup: Vec<_> = files(&disk, "/b/log", "");
    let bytes = || {
        backup
            .iter()
            .map(|path| disk.read_file(path))
            .collect::<Vec<_>>()
    };
    let bytes_before = bytes();
    // Files are replaced, and new segments made, again and again.
    for round in 0..40 {
        save(&contacts, 0..4, 900, char::from(b'A' + round));
        let _ = store.compact().unwrap();
    }
    assert!(
        bytes() == bytes_before,
        "the backup changed under our hands"
    );
    assert_eq!(view(&opened(&disk, BACKUP)), before);
    // Without a backup, segments are recycled; else this test says nothing.
    let (alone, seen) = (MemoryStorage::new(), AtomicBool::new(false));
    let store = options(&alone).open(STORE).unwrap();
    let contacts = feed(&store, "contact");
    for round in 0..40 {
        save(&contacts, 0..4, 900, char::from(b'A' + round));
        let _ = store.compact().unwrap();
        seen.fetch_or(
            !files(&alone, "/s/log", ".spare").is_empty(),
            Ordering::Relaxed,
        );
    }
    assert!(seen.into_inner());
}

/// Recovery cuts a segment whose end nobody vouches for: the backup may have the same file.
#[test]
fn what_recovery_cuts_off_is_still_in_the_backup() {
    let interval = Duration::from_secs(3600);
    let relaxed = |disk: &MemoryStorage| {
        options(disk).durability(highwater::Durability::Relaxed { interval })
    };
    for kept in 1..12 {
        let disk = MemoryStorage::new();
        let store = relaxed(&disk).open(STORE).unwrap();
        let contacts = feed(&store, "contact");
        for at in 0..12 {
            save(&contacts, [at], 900, 'a');
        }
        let _ = store.backup(BACKUP, |_, _| {}).unwrap();
        let before = view(&opened(&disk, BACKUP));
        // As if the power had failed before later frames vouched for the earlier ones.
        let crashed = disk.crash(Survivors::All);
        let segments = files(&crashed, "/s/log", ".seg");
        for segment in segments.iter().skip(kept) {
            crashed.remove_file(segment).unwrap();
        }
        crashed.remove_file("/s/catalog.redb").unwrap();
        if let Ok(store) = relaxed(&crashed).open(STORE) {
            save(&feed(&store, "contact"), [50], 900, 'z');
        }
        assert_eq!(
            view(&opened(&crashed, BACKUP)),
            before,
            "{kept} segments kept"
        );
    }
}

#[test]
fn readers_of_the_backed_up_state_go_on_and_others_start_over() {
    let disk = MemoryStorage::new();
    let store = options(&disk).open(STORE).unwrap();
    let contacts = feed(&store, "contact");
    save(&contacts, [1], 10, 'a');
    let early = contacts.last_cursor().unwrap().unwrap();
    save(&contacts, [2], 10, 'a');
    let newest = contacts.last_cursor().unwrap().unwrap();
    let _ = store.backup(BACKUP, |_, _| {}).unwrap();
    save(&contacts, [3], 10, 'a');
    let lost = contacts.last_cursor().unwrap().unwrap();
    save(&feed(&store, "company"), [1], 10, 'a');
    let of_new_feed = feed(&store, "company").last_cursor().unwrap().unwrap();
    store.close().unwrap();

    let store = restored(&disk);
    let contacts = feed(&store, "contact");
    let check = |store: &Store| {
        let contacts = feed(store, "contact");
        assert!(is_expired(&after(&contacts, lost)));
        assert!(is_expired(&after(&feed(store, "company"), of_new_feed)));
        assert!(after(&contacts, early).is_ok() && after(&contacts, newest).is_ok());
        let consumer = contacts.consumer("other").unwrap();
        assert!(is_expired(&consumer.acknowledge(lost)));
    };
    check(&store);
    assert_eq!(after(&contacts, early).unwrap(), ["2"]);
    save(&contacts, [4], 10, 'a');
    save(&feed(&store, "company"), [9], 10, 'a');
    assert_eq!(after(&contacts, newest).unwrap(), ["4"]);
    let first = contacts.last_cursor().unwrap().unwrap();
    assert!(first > lost, "a cursor is given out once");
    check(&store);
    // It stays so, also when the catalog is made anew, and when only packs know of it.
    for _ in 0..3 {
        for at in 0..20 {
            save(&feed(&store, "company"), [9], 900, char::from(b'a' + at));
        }
        let _ = store.compact().unwrap();
    }
    check(&store);
    store.close().unwrap();
    let store = options(&disk).rebuild(RESTORED).unwrap();
    check(&store);
    verify(&store);
}

/// A reader that began after a purge the backup does not know of has more behind it than the
/// restored store; what is purged there later must not pass it by.
#[test]
fn purges_that_were_given_up_are_not_taken_for_later_ones() {
    let disk = MemoryStorage::new();
    let store = options(&disk).open(STORE).unwrap();
    let contacts = feed(&store, "contact");
    save(&contacts, 0..10, 10, 'a');
    let _ = contacts.batch_delete(&["7", "8"]).unwrap();
    let _ = store.backup(BACKUP, |_, _| {}).unwrap();
    let _ = contacts.purge(&Oldest::all()).unwrap();
    let page = contacts.list(&List::new().limit(2)).unwrap();
    let begun_after_the_purge = page.resume_cursor();
    store.close().unwrap();
    let store = restored(&disk);
    let contacts = feed(&store, "contact");
    assert!(is_expired(&after(&contacts, begun_after_the_purge)));
    save(&contacts, [20], 10, 'a');
    let _ = contacts.purge(&Oldest::all()).unwrap();
    assert!(is_expired(&after(&contacts, begun_after_the_purge)));
}

#[test]
fn a_backup_that_is_opened_becomes_a_store() {
    let disk = MemoryStorage::new();
    let store = options(&disk).open(STORE).unwrap();
    let contacts = feed(&store, "contact");
    save(&contacts, [1], 10, 'a');
    let _ = store.backup(BACKUP, |_, _| {}).unwrap();
    save(&contacts, [2], 10, 'a');
    let lost = contacts.last_cursor().unwrap().unwrap();
    let own = options(&disk).open(BACKUP).unwrap();
    save(&feed(&own, "contact"), [3], 10, 'a');
    assert!(is_expired(&after(&feed(&own, "contact"), lost)));
    own.close().unwrap();
    assert!(disk.read_file("/b/BACKUP").is_none());
    let gone = options(&disk).restore(BACKUP, RESTORED, |_, _| {});
    assert!(matches!(gone, Err(Error::NotABackup { .. })));
    assert!(matches!(
        store.backup(BACKUP, |_, _| {}),
        Err(Error::Occupied { .. })
    ));
    let own = options(&disk).open(BACKUP).unwrap();
    assert_eq!(records(&feed(&own, "contact")).len(), 2);
}

#[test]
fn a_second_backup_adds_what_is_new() {
    let disk = MemoryStorage::new();
    let store = options(&disk).open(STORE).unwrap();
    let contacts = feed(&store, "contact");
    save(&contacts, 0..20, 900, 'a');
    let first = store.backup(BACKUP, |_, _| {}).unwrap();
    let same = store.backup(BACKUP, |_, _| {}).unwrap();
    assert_eq!((same.kept, same.linked), (first.linked, 0));
    save(&contacts, 20..30, 900, 'a');
    let more = store.backup(BACKUP, |_, _| {}).unwrap();
    assert!(more.kept == first.linked && more.linked > 0, "{more:?}");
    assert_eq!(view(&opened(&disk, BACKUP)), view(&store));
    for at in 0..40 {
        save(&contacts, 0..30, 900, char::from(b'A' + at));
        let _ = store.compact().unwrap();
    }
    let replaced = store.backup(BACKUP, |_, _| {}).unwrap();
    assert_eq!(replaced.kept, 0, "nothing is left of the old files");
    assert_eq!(
        files(&disk, "/b/log", "").len() as u64,
        replaced.linked + replaced.copied
    );
    assert_eq!(view(&opened(&disk, BACKUP)), view(&store));
    verify(&opened(&disk, BACKUP));
}

/// Two stores that were one have files of the same names with different content.
#[test]
fn a_backup_of_another_branch_keeps_nothing() {
    let disk = MemoryStorage::new();
    let store = options(&disk).open(STORE).unwrap();
    save(&feed(&store, "contact"), 0..20, 900, 'a');
    let _ = store.backup(BACKUP, |_, _| {}).unwrap();
    let other = restored(&disk);
    for (store, fill) in [(&store, 'x'), (&other, 'y')] {
        save(&feed(store, "contact"), 0..20, 900, fill);
    }
    let _ = store.backup(BACKUP, |_, _| {}).unwrap();
    let done = other.backup(BACKUP, |_, _| {}).unwrap();
    assert_eq!(done.kept, 0);
    assert_eq!(view(&opened(&disk, BACKUP)), view(&other));
}

#[test]
fn directories_with_something_else_are_refused() {
    let disk = MemoryStorage::new();
    let store = options(&disk).open(STORE).unwrap();
    save(&feed(&store, "contact"), [1], 10, 'a');
    assert!(matches!(
        store.backup(STORE, |_, _| {}),
        Err(Error::Occupied { .. })
    ));
    disk.write_file("/b/photo.jpg", b"x").unwrap();
    assert!(matches!(
        store.backup(BACKUP, |_, _| {}),
        Err(Error::Occupied { .. })
    ));
    assert_eq!(disk.read_file("/b/photo.jpg").unwrap(), b"x");
    disk.remove_file("/b/photo.jpg").unwrap();
    let other = options(&disk).secret([6; 32]).open("/other").unwrap();
    let _ = other.backup(BACKUP, |_, _| {}).unwrap();
    assert!(matches!(
        store.backup(BACKUP, |_, _| {}),
        Err(Error::Occupied { .. })
    ));
    disk.write_file("/r/x", b"x").unwrap();
    let refused = options(&disk).restore(BACKUP, RESTORED, |_, _| {});
    assert!(matches!(refused, Err(Error::Occupied { .. })));
    let nothing = options(&disk).restore("/nowhere", "/t", |_, _| {});
    assert!(matches!(nothing, Err(Error::NotABackup { .. })));
    assert!(
        disk.list(Path::new("/nowhere")).is_err(),
        "no trace of a look"
    );
}

#[test]
fn damage_in_a_backup_stops_the_restore() {
    let disk = MemoryStorage::new();
    let store = options(&disk).open(STORE).unwrap();
    save(&feed(&store, "contact"), 0..20, 900, 'a');
    let _ = store.backup(BACKUP, |_, _| {}).unwrap();
    store.close().unwrap();
    let parts = [files(&disk, "/b/log", ""), vec!["/b/BACKUP".to_owned()]].concat();
    for path in parts {
        let bytes = disk.read_file(&path).unwrap();
        let mut flipped = bytes.clone();
        flipped[bytes.len() / 2] ^= 1;
        for damaged in [Some(flipped), Some(bytes[..bytes.len() - 9].to_vec()), None] {
            if damaged.is_none() && path.ends_with("BACKUP") {
                continue;
            }
            let copy = disk.crash(Survivors::All);
            match damaged {
                Some(bytes) => copy.write_file(&path, &bytes).unwrap(),
                None => copy.remove_file(&path).unwrap(),
            }
            let refused = options(&copy).restore(BACKUP, RESTORED, |_, _| {});
            assert!(
                matches!(refused, Err(Error::Corrupt { .. })),
                "{path}: {refused:?}"
            );
            let opened = options(&copy).create(false).open(RESTORED);
            assert!(opened.is_err(), "{path}: half a store opened");
        }
    }
}

#[test]
fn a_newer_backup_is_refused() {
    let disk = MemoryStorage::new();
    let store = options(&disk).open(STORE).unwrap();
    save(&feed(&store, "contact"), [1], 10, 'a');
    let _ = store.backup(BACKUP, |_, _| {}).unwrap();
    let mut bytes = disk.read_file("/b/BACKUP").unwrap();
    bytes[8] = 9;
    disk.write_file("/b/BACKUP", &bytes).unwrap();
    let newer = |answer: Result<(), Error>| match answer {
        Err(Error::UnknownFormat { path, found: 9, .. }) => path.ends_with("BACKUP"),
        _ => false,
    };
    assert!(newer(store.backup(BACKUP, |_, _| {}).map(drop)));
    assert!(newer(options(&disk).open(BACKUP).map(drop)));
    assert!(newer(
        options(&disk)
            .restore(BACKUP, RESTORED, |_, _| {})
            .map(drop)
    ));
    assert_eq!(disk.read_file("/b/BACKUP").unwrap(), bytes);
}

/// Where the file system cannot link, everything is copied.
#[test]
fn a_backup_to_another_file_system_is_a_copy() {
    #[derive(Clone, Debug)]
    struct NoHook;
    impl Hook for NoHook {
        fn before(&self, _: Operation, _: &Path) -> std::io::Result<()> {
            Ok(())
        }
    }
    let disk = MemoryStorage::new();
    let storage = Arc::new(Hooked {
        disk: disk.clone(),
        hook: NoHook,
    });
    let store = options(&disk).storage(storage).open(STORE).unwrap();
    save(&feed(&store, "contact"), 0..20, 900, 'a');
    let done = store.backup(BACKUP, |_, _| {}).unwrap();
    assert!(done.linked == 0 && done.copied_bytes > 18_000, "{done:?}");
    assert_eq!(view(&opened(&disk, BACKUP)), view(&store));
}

#[derive(Clone, Debug)]
enum Step {
    Save(u8, u8, u16),
    Delete(u8),
    Prune,
    Purge,
    Checkpoint,
    Compact,
    Reopen,
    Backup,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0u8..3, 0u8..12, 0u16..1500).prop_map(|(model, id, len)| Step::Save(model, id, len)),
        2 => (0u8..12).prop_map(Step::Delete),
        1 => Just(Step::Prune),
        1 => Just(Step::Purge),
        1 => Just(Step::Checkpoint),
        2 => Just(Step::Compact),
        1 => Just(Step::Reopen),
        3 => Just(Step::Backup),
    ]
}

const MODELS: [&str; 3] = ["a", "ab", "b"];

fn run(store: &mut Store, disk: &MemoryStorage, at: usize, step: &Step) {
    let of = |store: &Store, model: u8| feed(store, MODELS[usize::from(model)]);
    match *step {
        Step::Save(model, id, len) => {
            let fill = char::from(b'a' + (at % 26) as u8);
            save(&of(store, model), [id.into()], len.into(), fill);
        }
        Step::Delete(id) => drop(of(store, id % 3).batch_delete(&[id.to_string()]).unwrap()),
        Step::Prune => drop(of(store, 0).prune(&Oldest::all().limit(3)).unwrap()),
        Step::Purge => drop(of(store, 1).purge(&Oldest::all()).unwrap()),
        Step::Checkpoint => store.checkpoint_catalog().unwrap(),
        Step::Compact => drop(store.compact().unwrap()),
        Step::Reopen => {
            store.close().unwrap();
            *store = options(disk).eager_compaction(true).open(STORE).unwrap();
        }
        Step::Backup => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// Whatever was done before and is done after, a backup shows what the store showed.
    #[test]
    fn backups_of_random_histories(steps in prop::collection::vec(step(), 1..60), index in any::<bool>()) {
        let disk = MemoryStorage::new();
        let limited = |options: Options| match index {
            true => options.index_limits_of(200, 100),
            false => options,
        };
        let opening = || limited(options(&disk).eager_compaction(true));
        let mut store = opening().open(STORE).unwrap();
        let mut backups: Vec<(String, View)> = Vec::new();
        for (at, step) in steps.iter().enumerate() {
            run(&mut store, &disk, at, step);
            if let Step::Backup = step {
                // Each directory is used more than once.
                let dir = format!("/b{}", backups.len() % 3);
                let _ = store.backup(&dir, |_, _| {}).unwrap();
                backups.retain(|(other, _)| *other != dir);
                backups.push((dir, view(&store)));
            }
        }
        verify(&store);
        for survivors in [Survivors::All, Survivors::Synced] {
            for (dir, expected) in &backups {
                let copy = disk.crash(survivors);
                let store = limited(options(&copy)).open(dir).unwrap();
                prop_assert_eq!(&view(&store), expected);
                verify(&store);
                store.close().unwrap();
                let store = limited(options(&copy)).rebuild(dir).unwrap();
                prop_assert_eq!(&view(&store), expected);
            }
        }
    }
}

/// Ends the threads of a test however it ends.
struct Halt<'a>(&'a AtomicBool);

impl Drop for Halt<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// The round in which all records of a feed were saved last.
fn round_of(feed: &Feed) -> Option<u64> {
    let records = records(feed);
    let round = |payload: &[u8]| {
        let digits = String::from_utf8_lossy(&payload[..8]);
        digits.parse::<u64>().unwrap()
    };
    let payloads = records.iter().map(|record| record.payload.as_deref());
    let rounds: Vec<u64> = payloads.map(|payload| round(payload.unwrap())).collect();
    assert!(
        rounds.windows(2).all(|pair| pair[0] == pair[1]),
        "a batch is whole"
    );
    rounds.first().copied()
}

/// On a real disk, with everything going on at once.
#[test]
fn writers_and_compaction_go_on_during_a_backup() {
    const WRITERS: usize = 3;
    let dir = tempfile::tempdir().unwrap();
    let path = |name: String| dir.path().join(name);
    let options = || Options::new().segment_size(64 << 10).background(false);
    let store = options().open(path("s".to_owned())).unwrap();
    let acknowledged: Vec<AtomicU64> = (0..WRITERS).map(|_| AtomicU64::new(0)).collect();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _halt = Halt(&stop);
        let (store, stop) = (&store, &stop);
        for (writer, acknowledged) in acknowledged.iter().enumerate() {
            scope.spawn(move || {
                let feed = feed(store, &format!("w{writer}"));
                for round in 1.. {
                    let body = format!("{round:08}{}", "x".repeat(400));
                    let batch: Vec<_> = (0..20).map(|id| (id.to_string(), body.clone())).collect();
                    let _ = feed.batch_save_raw(&batch).unwrap();
                    acknowledged.store(round, Ordering::SeqCst);
                    if stop.load(Ordering::SeqCst) {
                        return;
                    }
                }
            });
        }
        scope.spawn(move || {
            while !stop.load(Ordering::SeqCst) {
                let _ = store.compact().unwrap();
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        for round in 0..3 {
            let acknowledged = acknowledged.iter();
            let before: Vec<u64> = acknowledged.map(|it| it.load(Ordering::SeqCst)).collect();
            let (backup, to) = (path(format!("b{}", round % 2)), path(format!("r{round}")));
            let _ = store.backup(&backup, |_, _| {}).unwrap();
            let _ = options().restore(&backup, &to, |_, _| {}).unwrap();
            let restored = options().open(&to).unwrap();
            for (writer, before) in before.iter().enumerate() {
                let round = round_of(&feed(&restored, &format!("w{writer}")));
                assert!(
                    round.unwrap_or(0) >= *before,
                    "what was acknowledged is there"
                );
            }
        }
    });
}
