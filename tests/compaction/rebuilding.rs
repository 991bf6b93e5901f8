//! Compacted stores without their catalog: packs and the rest of the log must say everything.

use highwater::storage::{Fault, MemoryStorage, Storage, Survivors};
use highwater::{Error, Expected};
use serde_json::json;

use crate::world::{STORE, eager, feed, files, options, save, shows_the_same, view};

#[test]
fn a_feed_whose_registration_was_not_packed_survives_a_rebuild() {
    let disk = MemoryStorage::new();
    let store = options(&disk).open(STORE).unwrap();
    let (full, busy) = (feed(&store, "full"), feed(&store, "busy"));
    // The first segment has both registrations and is needed; the others are not.
    save(&full, [1], 3320, 'a');
    save(&busy, [1], 10, 'a');
    for at in 0..12 {
        save(&busy, [1], 1500, char::from(b'b' + at));
        save(&busy, [2], 10, char::from(b'b' + at));
    }
    save(&busy, [3], 3000, 'x');
    store.checkpoint_catalog().unwrap();
    assert!(store.compact().unwrap().removed > 3);
    assert!(files(&disk, "0000000001.seg").len() == 1, "it is needed");
    shows_the_same(&store, &disk);
}

#[test]
fn a_replacement_that_was_packed_while_it_was_filled_survives_a_rebuild() {
    let disk = MemoryStorage::new();
    let store = eager(&disk).open(STORE).unwrap();
    let contacts = feed(&store, "contact");
    save(&contacts, 0..3, 100, 'a');
    let replacement = contacts.replace().unwrap();
    for at in 0..6 {
        save(replacement.feed(), [at], 1500, 'b');
    }
    assert!(store.compact().unwrap().removed > 1);
    let _ = replacement.commit().unwrap();
    save(&feed(&store, "contact"), [7], 100, 'c');
    assert_eq!(feed(&store, "contact").count().unwrap(), 7);
    shows_the_same(&store, &disk);
}

#[test]
fn numbers_of_commits_that_found_no_space_do_not_break_the_chain() {
    let mut gaps = 0;
    for budget in (0..12_000).step_by(411) {
        let disk = MemoryStorage::new();
        let store = eager(&disk).open(STORE).unwrap();
        let contacts = feed(&store, "contact");
        save(&contacts, [0], 3900, 'a');
        disk.fail(Fault::Full { bytes: budget });
        for at in 1..5 {
            // Commits of two frames each, whose numbers are not used again.
            let mut batch = store.batch("c");
            let body = "b".repeat(3000);
            batch
                .save_raw(&contacts, &[(at.to_string(), body)])
                .unwrap();
            batch
                .checkpoint("sync", "", &json!({"at": at}), Expected::Any)
                .unwrap();
            if let Err(error) = batch.commit() {
                assert!(matches!(error, Error::DiskFull { .. }), "{error:?}");
                gaps += 1;
            }
        }
        disk.heal();
        for at in 0..4 {
            save(&contacts, [at], 3000, 'c');
        }
        assert!(store.compact().unwrap().removed > 0);
        save(&contacts, [9], 3000, 'd');
        shows_the_same(&store, &disk);
    }
    assert!(gaps > 20, "{gaps} commits found no space");
}

#[test]
fn a_pack_that_went_missing_is_noticed() {
    let disk = MemoryStorage::new();
    let store = eager(&disk).open(STORE).unwrap();
    let (one, two) = (feed(&store, "one"), feed(&store, "two"));
    for at in 0..12 {
        save(&one, [at], 1500, 'a');
    }
    let _ = store.compact().unwrap();
    drop((store, one, two));
    let store = options(&disk).open(STORE).unwrap();
    let two = feed(&store, "two");
    for at in 0..9 {
        save(&two, [1], 3000, char::from(b'a' + at));
    }
    // The second pack leaves the first one alone.
    let _ = store.compact().unwrap();
    store.close().unwrap();
    let packs = files(&disk, ".pack");
    assert_eq!(packs.len(), 2, "{packs:?}");
    for pack in packs {
        let image = disk.crash(Survivors::All);
        image.remove(&pack).unwrap();
        for rebuild in [false, true] {
            let image = image.crash(Survivors::All);
            let opened = match rebuild {
                false => options(&image).open(STORE),
                true => options(&image).rebuild(STORE),
            };
            let noticed = match opened {
                Err(Error::Corrupt { .. }) => true,
                Err(error) => panic!("{error:?}"),
                Ok(store) => {
                    let report = store.verify(|_, _| {}).unwrap();
                    !rebuild && !report.is_clean()
                }
            };
            assert!(noticed, "{pack:?} rebuild {rebuild}");
        }
    }
}

/// Found by the simulation: a recovery that is interrupted leaves frames in a segment that a later
/// one has superseded; the segment was taken for damaged, and never replaced.
#[test]
fn frames_that_recovery_has_superseded_are_no_damage() {
    let start = MemoryStorage::new();
    let store = eager(&start).open(STORE).unwrap();
    save(&feed(&store, "a"), 0..3, 40, 'a');
    save(&feed(&store, "b"), 0..3, 40, 'b');
    // Written and not synced: a commit of two frames, of which the power failure leaves a part.
    start.stop_at(start.operations() + 1);
    let mut batch = store.batch("c");
    batch.save_raw(&feed(&store, "a"), &[("x", "1")]).unwrap();
    batch.save_raw(&feed(&store, "b"), &[("x", "1")]).unwrap();
    assert!(batch.commit().is_err());
    for bytes in (0..start.unsynced_bytes()).step_by(40) {
        for operations in 0..12 {
            let disk = start.crash(Survivors::Prefix(bytes));
            disk.stop_at(operations);
            drop(eager(&disk).open(STORE));
            let disk = disk.crash(Survivors::All);
            let store = eager(&disk).open(STORE).unwrap();
            for n in 0..5 {
                save(&feed(&store, "a"), 0..3, 900, char::from(b'c' + n));
            }
            let before = view(&store);
            let compacted = store.compact();
            assert!(compacted.is_ok(), "{bytes}, {operations}: {compacted:?}");
            assert_eq!(view(&store), before);
            shows_the_same(&store, &disk);
        }
    }
}
