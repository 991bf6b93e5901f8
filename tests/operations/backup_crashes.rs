//! A backup that is interrupted anywhere harms nobody, and is never taken for one.

use highwater::Error;
use highwater::storage::{MemoryStorage, Survivors};

use crate::world::{BACKUP, RESTORED, STORE, View, feed, options, save, verify, view};

const SURVIVORS: [Survivors; 5] = [
    Survivors::Synced,
    Survivors::All,
    Survivors::Prefix(3000),
    Survivors::Sectors(1),
    Survivors::Sectors(2),
];

/// A store with some history, and an earlier backup if wanted.
fn build(with_backup: bool) -> (MemoryStorage, Option<View>) {
    let disk = MemoryStorage::new();
    let store = options(&disk).open(STORE).unwrap();
    let contacts = feed(&store, "contact");
    save(&contacts, 0..10, 900, 'a');
    let before = with_backup.then(|| {
        let _ = store.backup(BACKUP, |_, _| {}).unwrap();
        view(&store)
    });
    save(&contacts, 5..15, 900, 'b');
    let _ = store.compact().unwrap();
    store.close().unwrap();
    (disk, before)
}

fn each_stop(with_backup: bool) -> usize {
    let mut crashes = 0;
    for stop in 0.. {
        let (disk, _) = build(with_backup);
        let store = options(&disk).open(STORE).unwrap();
        let expected = view(&store);
        disk.stop_at(disk.operations() + stop);
        let done = store.backup(BACKUP, |_, _| {}).is_ok();
        for survivors in SURVIVORS {
            crashes += 1;
            let crashed = disk.crash(survivors);
            let source = options(&crashed).open(STORE).unwrap();
            assert_eq!(view(&source), expected, "stop {stop}");
            verify(&source);
            match options(&crashed).create(false).open(BACKUP) {
                Ok(backup) => {
                    let shown = view(&backup);
                    // The earlier one counts until the marker of the next is there.
                    assert!(shown == expected || with_backup && !done, "stop {stop}");
                    verify(&backup);
                    if let (_, Some(before)) = build(with_backup)
                        && shown != expected
                    {
                        assert_eq!(shown, before);
                    }
                    backup.close().unwrap();
                }
                Err(Error::Unfinished { .. } | Error::Io { .. }) if !done => {
                    // It is gone on with.
                    let _ = source.backup(BACKUP, |_, _| {}).unwrap();
                    let backup = options(&crashed).open(BACKUP).unwrap();
                    assert_eq!(view(&backup), expected, "stop {stop}");
                }
                other => panic!("stop {stop}, {survivors:?}, done: {done}: {other:?}"),
            }
        }
        if done {
            break;
        }
    }
    crashes
}

#[test]
fn a_crash_at_any_operation_of_a_backup() {
    let crashes = each_stop(false);
    println!("{crashes} crashes in a first backup");
    assert!(crashes > 100);
}

#[test]
fn a_crash_at_any_operation_of_a_second_backup() {
    let crashes = each_stop(true);
    println!("{crashes} crashes in a second backup");
    assert!(crashes > 100);
}

#[test]
fn a_crash_at_any_operation_of_a_restore() {
    let (disk, before) = build(true);
    let mut crashes = 0;
    for stop in 0.. {
        let copy = disk.crash(Survivors::All);
        copy.stop_at(stop);
        let done = options(&copy).restore(BACKUP, RESTORED, |_, _| {}).is_ok();
        for survivors in SURVIVORS {
            crashes += 1;
            let crashed = copy.crash(survivors);
            match options(&crashed).create(false).open(RESTORED) {
                Ok(restored) => {
                    assert_eq!(Some(view(&restored)), before, "stop {stop}");
                    verify(&restored);
                }
                Err(Error::Unfinished { .. } | Error::Io { .. }) if !done => {}
                other => panic!("stop {stop}, {survivors:?}, done: {done}: {other:?}"),
            }
            // The backup is as good as before.
            let again = options(&crashed).restore(BACKUP, "/again", |_, _| {});
            assert!(again.is_ok(), "stop {stop}: {again:?}");
        }
        if done {
            break;
        }
    }
    println!("{crashes} crashes in a restore");
    assert!(crashes > 100);
}

/// A backup that is opened as a store is one or the other after a crash, and never gives the
/// original's cursors away.
#[test]
fn a_crash_at_any_operation_of_opening_a_backup() {
    let (disk, before) = build(true);
    let lost = {
        let copy = disk.crash(Survivors::All);
        let store = options(&copy).open(STORE).unwrap();
        save(&feed(&store, "contact"), 0..3, 10, 'z');
        feed(&store, "contact").last_cursor().unwrap().unwrap()
    };
    for stop in 0.. {
        let copy = disk.crash(Survivors::All);
        copy.stop_at(stop);
        let opened = options(&copy).open(BACKUP);
        let done = opened.is_ok();
        for survivors in SURVIVORS {
            let crashed = copy.crash(survivors);
            let store = options(&crashed).open(BACKUP).unwrap();
            assert_eq!(Some(view(&store)), before, "stop {stop}");
            let contacts = feed(&store, "contact");
            save(&contacts, 0..3, 10, 'y');
            assert!(
                contacts.last_cursor().unwrap().unwrap() > lost,
                "stop {stop}"
            );
            let after = contacts.list(&highwater::List::new().after(lost));
            assert!(matches!(after, Err(Error::CursorExpired)), "stop {stop}");
        }
        if done {
            break;
        }
    }
}
