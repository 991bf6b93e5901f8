//! Whoever is at the store while it is compacted.

use std::path::Path;
use std::sync::Arc;

use highwater::storage::{MemoryStorage, Storage};
use highwater::{List, OwnedRecord};

use crate::stuck::Stuck;
use crate::world::{STORE, eager, feed, files, line, options, owned, save};

#[test]
fn a_page_in_the_making_is_not_disturbed() {
    // Between any two reads of a page or of a look-up, everything is compacted; also after
    // what is being read was superseded, so that nothing of it is left.
    let mut interrupted = 0;
    for change in [false, true] {
        for ids in [false, true] {
            for at in 0.. {
                let disk = MemoryStorage::new();
                let stuck = Stuck::new(disk.clone());
                let store = eager(&disk).storage(Arc::new(stuck.clone())).open(STORE);
                let store = store.unwrap();
                let contacts = feed(&store, "contact");
                for at in 0..12 {
                    save(&contacts, [at], 900, 'a');
                }
                let _ = contacts.batch_delete(&["3", "5", "7"]).unwrap();
                save(&contacts, [12, 13], 2500, 'b');
                let names = ["1", "3", "5", "12"];
                // The index is loaded, as its load holds a lock.
                let before = owned(&contacts.get(&names).unwrap());
                let all = owned(&contacts.list(&List::new()).unwrap());
                {
                    let (store, contacts) = (store.clone(), contacts.clone());
                    stuck.interrupt(at, move || {
                        if change {
                            save(&contacts, [1, 3, 5, 6], 800, 'c');
                            save(&contacts, [14, 15], 2500, 'b');
                        }
                        let _ = store.compact().unwrap();
                    });
                }
                let found = if ids {
                    owned(&contacts.get(&names).unwrap())
                } else {
                    owned(&contacts.list(&List::new()).unwrap())
                };
                if stuck.is_armed() {
                    break;
                }
                interrupted += 1;
                let after = owned(&contacts.list(&List::new()).unwrap());
                let after = match ids {
                    false => after,
                    true => owned(&contacts.get(&names).unwrap()),
                };
                let before = if ids { before } else { all };
                let lines =
                    |records: &[OwnedRecord]| -> Vec<String> { records.iter().map(line).collect() };
                let [found, before, after] = [&found, &before, &after].map(|some| lines(some));
                assert!(
                    found == before || found == after,
                    "read {at}: {found:#?}, neither {before:#?} nor {after:#?}"
                );
            }
        }
    }
    assert!(interrupted > 20, "{interrupted} reads");
}

#[test]
fn closing_waits_until_nothing_is_written_any_more() {
    let disk = MemoryStorage::new();
    let stuck = Stuck::new(disk.clone());
    let store = eager(&disk).storage(Arc::new(stuck.clone())).open(STORE);
    let store = store.unwrap();
    let contacts = feed(&store, "contact");
    for at in 0..9 {
        save(&contacts, [at % 4], 1500, 'a');
    }
    store.checkpoint_catalog().unwrap();
    // In the middle of a compaction somebody else closes the store.
    let (reached, reach) = std::sync::mpsc::channel();
    let (go, went) = std::sync::mpsc::channel::<()>();
    stuck.interrupt(3, move || {
        reached.send(()).unwrap();
        let _ = went.recv_timeout(std::time::Duration::from_millis(200));
    });
    std::thread::scope(|scope| {
        let compacting = scope.spawn(|| store.compact());
        reach
            .recv_timeout(std::time::Duration::from_secs(20))
            .unwrap();
        store.close().unwrap();
        // Now it is free for the next opener, and nothing of the old one comes in between.
        let listed = disk.list(&Path::new(STORE).join("log")).unwrap();
        assert!(
            compacting.is_finished() || listed == disk.list(&Path::new(STORE).join("log")).unwrap()
        );
        drop(go);
        let answer = compacting.join().unwrap();
        let after = disk.list(&Path::new(STORE).join("log")).unwrap();
        assert_eq!(listed, after, "{answer:?}");
        assert!(
            listed.iter().all(|name| !name.ends_with(".tmp")),
            "{listed:?}"
        );
    });
    let store = options(&disk).open(STORE).unwrap();
    assert_eq!(feed(&store, "contact").count().unwrap(), 4);
}

/// What was replaced is gone from the disk, but for one file that is to be a segment again; and that
/// goes when the store is closed.
#[test]
fn nothing_stays_that_is_not_needed() {
    let disk = MemoryStorage::new();
    let store = eager(&disk).open(STORE).unwrap();
    let contacts = feed(&store, "contact");
    for round in 0..6 {
        for at in 0..20 {
            save(&contacts, [at % 4], 1500, char::from(b'a' + round));
        }
        let _ = store.compact().unwrap();
        let log = files(&disk, ".seg").len() + files(&disk, ".pack").len();
        assert_eq!(log as u64, store.stats().unwrap().segments);
        assert_eq!(files(&disk, ".spare").len(), 1);
    }
    store.close().unwrap();
    assert_eq!(files(&disk, ".spare").len() + files(&disk, ".new").len(), 0);
}
