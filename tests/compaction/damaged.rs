//! Damage to what is compacted, and to what came of it.

use std::path::Path;

use highwater::Error;
use highwater::storage::{MemoryStorage, OpenMode, Storage, Survivors};

use crate::world::{STORE, feed, files, line, options, save, view, worth_it};

/// Flips a bit in the middle of a file.
fn damage(disk: &MemoryStorage, path: &Path, at: u64) {
    let file = disk.open(path, OpenMode::Existing).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[&[byte[0] ^ 1]], at).unwrap();
    file.sync_data().unwrap();
}

#[test]
fn damage_stops_the_compaction_of_its_file_and_of_no_other() {
    // Damaged is a file that is to be replaced, or one that holds the payload of a deleted record
    // which another file has.
    for holder in [false, true] {
        let disk = MemoryStorage::new();
        let store = options(&disk).open(STORE).unwrap();
        let (full, busy) = (feed(&store, "full"), feed(&store, "busy"));
        let mut all = vec![("dead".to_owned(), "p".repeat(3000))];
        all.push(("full".to_owned(), "p".repeat(500)));
        let _ = full.batch_save_raw(&all).unwrap();
        let _ = full.batch_delete(&["dead"]).unwrap();
        for at in 0..40 {
            save(&busy, [at % 3], 1500, char::from(b'a' + at as u8 % 26));
        }
        store.checkpoint_catalog().unwrap();
        let segments = files(&disk, ".seg");
        let broken = if holder { &segments[0] } else { &segments[5] };
        // A payload, which only its reader sees, or an entry.
        damage(&disk, broken, if holder { 2500 } else { 290 });
        let before = segments.len();
        let compacted = store.compact();
        let left = files(&disk, ".seg").len();
        assert!(left <= 3, "holder {holder}: {left} of {before} are left");
        match compacted {
            Err(Error::Corrupt { path, .. }) => assert_eq!(path, *broken),
            other => panic!("{other:?}"),
        }
        let _ = store.compact().unwrap();
        assert!(files(&disk, ".seg").contains(broken), "nothing is lost");
        let whole = store.verify(|_, _| {}).unwrap().damage;
        assert!(!whole.is_empty());
        assert_eq!(busy.count().unwrap(), 3);
    }
}

#[test]
fn a_bit_that_flips_in_a_pack_is_told_with_its_place() {
    let disk = MemoryStorage::new();
    let store = worth_it(&disk);
    let _ = store.compact().unwrap();
    let expected = view(&store);
    store.close().unwrap();
    let pack = files(&disk, ".pack").remove(0);
    let len = disk.open(&pack, OpenMode::Existing).unwrap().len().unwrap();
    let mut told = 0;
    for at in (0..len).step_by(3) {
        for rebuild in [false, true] {
            let image = disk.crash(Survivors::All);
            damage(&image, &pack, at);
            let opened = match rebuild {
                false => options(&image).open(STORE),
                true => options(&image).rebuild(STORE),
            };
            let names_it = |error: &Error| match error {
                Error::Corrupt { path, .. } | Error::UnknownFormat { path, .. } => *path == pack,
                _ => false,
            };
            let store = match opened {
                Ok(store) => store,
                Err(error) => {
                    assert!(names_it(&error), "byte {at}: {error:?}");
                    told += 1;
                    continue;
                }
            };
            let report = store.verify(|_, _| {}).unwrap();
            assert!(
                report.damage.iter().any(names_it),
                "byte {at}: {:?}",
                report.damage
            );
            // What is shown is right, or an error.
            let contacts = feed(&store, "contact");
            for record in contacts.records(None) {
                match record {
                    Ok(record) => assert!(expected["contact"].contains(&line(&record))),
                    Err(error) => {
                        assert!(names_it(&error), "byte {at}: {error:?}");
                        break;
                    }
                }
            }
            // Nor does it spread: what is damaged is not copied as if it were whole.
            if let Err(error) = store.compact() {
                assert!(
                    matches!(error, Error::Corrupt { .. }),
                    "byte {at}: {error:?}"
                );
                assert!(files(&image, ".pack").contains(&pack));
            }
            told += 1;
        }
    }
    assert_eq!(told, 2 * len.div_ceil(3));
}
