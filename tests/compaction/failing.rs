//! Operations that fail under a compaction, and disks that are full.

use std::path::PathBuf;
use std::sync::Arc;

use highwater::Error;
use highwater::storage::{Fault, MemoryStorage, Survivors};

use crate::stuck::Stuck;
use crate::world::{STORE, eager, feed, files, options, save, shows_the_same, view, worth_it};

#[test]
fn files_that_could_not_be_removed_are_removed_the_next_time() {
    let disk = MemoryStorage::new();
    let stuck = Stuck::new(disk.clone());
    let store = eager(&disk).storage(Arc::new(stuck.clone())).open(STORE);
    let store = store.unwrap();
    let contacts = feed(&store, "contact");
    // Two are kept for new segments, and need not be removed.
    for at in 0..20 {
        save(&contacts, [at % 4], 1500, char::from(b'a' + at as u8));
    }
    *stuck.hook.refuse.lock().unwrap() = true;
    assert!(matches!(
        store.compact(),
        Err(Error::Io { op: "remove", .. })
    ));
    let before = files(&disk, ".seg").len();
    *stuck.hook.refuse.lock().unwrap() = false;
    let _ = store.compact().unwrap();
    assert_eq!(files(&disk, ".seg").len(), 1, "of {before}");
    assert_eq!(files(&disk, ".pack").len(), 1);
    shows_the_same(&store, &disk);
}

/// Compacts with a fault armed: nothing is lost, the store goes on, and a later compaction works.
/// Whether the fault struck.
fn struck(fault: Fault, is_right: impl Fn(&Error) -> bool) -> bool {
    let disk = MemoryStorage::new();
    let store = worth_it(&disk);
    let expected = view(&store);
    disk.fail(fault);
    let compacted = store.compact();
    if let Err(error) = &compacted {
        assert!(is_right(error), "{fault:?}: {error:?}");
    }
    let temporary = files(&disk, ".tmp");
    assert_eq!(temporary, Vec::<PathBuf>::new(), "{fault:?}");
    disk.heal();
    assert_eq!(view(&store), expected, "{fault:?}");
    assert!(store.verify(|_, _| {}).unwrap().is_clean(), "{fault:?}");
    for rebuild in [false, true] {
        let image = disk.crash(Survivors::Synced);
        let store = match rebuild {
            false => options(&image).open(STORE).unwrap(),
            true => options(&image).rebuild(STORE).unwrap(),
        };
        assert_eq!(view(&store), expected, "{fault:?}, rebuilt: {rebuild}");
        store.close().unwrap();
    }
    // Writing goes on, and the next compaction gives the space back.
    save(&feed(&store, "contact"), [1, 40], 900, 'z');
    let _ = store.compact().unwrap();
    assert!(files(&disk, ".pack").len() == 1, "{fault:?}");
    shows_the_same(&store, &disk);
    compacted.is_err()
}

#[test]
fn a_failed_write_or_sync_costs_the_compaction_and_nothing_else() {
    let catalog_or_io = |error: &Error| matches!(error, Error::Io { .. } | Error::Catalog { .. });
    let count = |fault: &dyn Fn(u64) -> Fault| {
        let hits = (0..).take_while(|after| struck(fault(*after), catalog_or_io));
        hits.count()
    };
    assert!(count(&|after| Fault::Write { after }) > 5);
    assert!(count(&|after| Fault::SyncDir { after }) > 0);
    assert!(count(&|after| Fault::Read { after }) > 10);
    for dropped in [false, true] {
        assert!(count(&|after| Fault::Sync { after, dropped }) > 1);
    }
}

#[test]
fn a_full_disk_costs_the_compaction_and_nothing_else() {
    let full = |error: &Error| {
        matches!(
            error,
            Error::DiskFull { .. } | Error::Io { .. } | Error::Catalog { .. }
        )
    };
    let mut refused = 0;
    for bytes in (0..60_000).step_by(997) {
        refused += u64::from(struck(Fault::Full { bytes }, full));
    }
    assert!(refused > 10, "{refused}");
}
