//! Full disks, failed writes, failed syncs and failed reads, each at every place of a history. A
//! full disk costs the batch and nothing else; after a failed write or sync nothing more is
//! acknowledged until the store is reopened; a failed read is that one call's. Checks G1, G2, G11
//! and G12.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use highwater::storage::{Fault, ManualClock, MemoryStorage, Storage, Survivors};
use highwater::{
    Applied, Durability, Error, Expected, List, Oldest, Options, OwnedRecord, Result, RunOptions,
    RunStatus, Store, Sweep, SyncKey,
};
use serde_json::json;

const STORE: &str = "/s";
const STEPS: usize = 14;
const FEEDS: [&str; 2] = ["a", "b"];

fn options(disk: &MemoryStorage) -> Options {
    Options::new()
        .storage(Arc::new(disk.clone()))
        .segment_size(4096)
        .background(false)
        .clock(Arc::new(ManualClock::new(1_700_000_000_000_000)))
        .secret([1; 32])
}

/// One step of the history; every step writes.
fn step(store: &Store, n: usize) -> Result<Vec<Applied>> {
    let [a, b] = [store.feed("c", FEEDS[0])?, store.feed("c", FEEDS[1])?];
    let text = "x".repeat(700);
    let some = |from: usize, to: usize| -> Vec<_> {
        (from..to)
            .map(|i| json!({"id": i, "n": n, "t": text}))
            .collect()
    };
    let mut batch = store.batch("c");
    match n % 4 {
        0 => batch.save(&a, &some(n, n + 3))?,
        1 => {
            batch.save(&b, &some(0, 2))?;
            batch.delete(&a, &[(n - 1).to_string()])?;
        }
        2 => {
            batch.save(&a, &some(n, n + 1))?;
            batch.save(&b, &some(n, n + 8))?;
        }
        _ => batch.update(
            &a,
            &[json!({"id": n - 1, "more": n}), json!({"id": "none"})],
        )?,
    }
    batch.checkpoint("sync", "", &json!({"step": n}), Expected::Any)?;
    batch.commit()
}

/// What a store shows: the checkpoint and the records.
type View = (Option<Vec<u8>>, BTreeMap<String, Vec<OwnedRecord>>);

fn view(store: &Store) -> Result<View> {
    let mut feeds = BTreeMap::new();
    for model in FEEDS {
        let feed = store.feed("c", model)?;
        let records = feed.records(None).collect::<Result<Vec<_>>>()?;
        let live = records.iter().filter(|record| record.deleted_at.is_none());
        assert_eq!(feed.count()?, live.count() as u64);
        feeds.insert(model.to_owned(), records);
    }
    let checkpoint = store.checkpoint("c", "sync", "")?;
    Ok((checkpoint.map(|checkpoint| checkpoint.json), feeds))
}

/// The view after each number of steps, without cursors and times, which a crash may move.
fn plain((checkpoint, feeds): View) -> String {
    let mut lines = vec![format!("{checkpoint:?}")];
    for (model, records) in feeds {
        for record in records {
            let payload = String::from_utf8(record.payload.unwrap()).unwrap();
            lines.push(format!(
                "{model} {} {} {payload}",
                record.id, record.last_action
            ));
        }
    }
    lines.join("\n")
}

fn views() -> Vec<String> {
    let store = options(&MemoryStorage::new()).open(STORE).unwrap();
    let mut views = vec![plain(view(&store).unwrap())];
    for n in 0..STEPS {
        let _ = step(&store, n).unwrap();
        views.push(plain(view(&store).unwrap()));
    }
    views
}

/// A history with saves of the catalog in it; returns how many steps were acknowledged.
fn run(store: &Store, from: usize) -> (usize, Option<Error>) {
    for n in from..STEPS {
        if let Err(error) = step(store, n) {
            return (n, Some(error));
        }
        if n % 5 == 2
            && let Err(error) = store.checkpoint_catalog()
        {
            return (n + 1, Some(error));
        }
    }
    (STEPS, None)
}

fn reopened(disk: &MemoryStorage) -> String {
    let store = options(disk).open(STORE).unwrap();
    assert!(store.verify(|_, _| {}).unwrap().is_clean());
    plain(view(&store).unwrap())
}

#[test]
fn a_full_disk_costs_the_batch_and_nothing_else() {
    let right = views();
    let mut full = 0;
    let mut budget = 0;
    loop {
        let disk = MemoryStorage::new();
        let store = options(&disk).open(STORE).unwrap();
        let _ = step(&store, 0).unwrap();
        disk.fail(Fault::Full { bytes: budget });
        let (done, error) = run(&store, 1);
        match &error {
            None => {
                assert!(full > 40, "the sweep found {full} full disks");
                return;
            }
            Some(Error::DiskFull { path }) => assert!(path.starts_with(STORE)),
            // redb does not always say why it failed.
            Some(Error::Catalog { .. } | Error::Io { .. }) if (done - 1) % 5 == 2 => {}
            Some(error) => panic!("budget {budget}: {error:?}"),
        }
        full += 1;
        let before = view(&store).unwrap();
        assert_eq!(plain(before.clone()), right[done], "budget {budget}");
        // Once more: a smaller batch may find space, another full disk is no harm either.
        match step(&store, done.min(STEPS - 1)) {
            Ok(_) | Err(Error::DiskFull { .. }) => {}
            Err(error) => panic!("budget {budget}: {error:?}"),
        }
        let done = position(&right, plain(view(&store).unwrap()), budget);
        // A crash now, and an open that finds the disk still full.
        let crashed = disk.crash(Survivors::Synced);
        assert_eq!(reopened(&crashed), right[done], "budget {budget}");
        disk.heal();
        let (all, error) = run(&store, done);
        assert!(error.is_none(), "budget {budget}: {error:?}");
        assert_eq!(all, STEPS);
        assert_eq!(plain(view(&store).unwrap()), right[STEPS]);
        assert!(store.verify(|_, _| {}).unwrap().is_clean());
        let crashed = disk.crash(Survivors::Synced);
        assert_eq!(reopened(&crashed), right[STEPS], "budget {budget}");
        store.close().unwrap();
        assert_eq!(reopened(&disk), right[STEPS], "budget {budget}");
        budget += if budget < 8192 { 499 } else { 8_191 };
    }
}

fn position(right: &[String], view: String, what: u64) -> usize {
    let found = right.iter().position(|right| *right == view);
    found.unwrap_or_else(|| panic!("{what}: no prefix of the history looks like {view}"))
}

#[test]
fn opening_and_closing_on_a_full_disk_loses_nothing() {
    let right = views();
    let built = MemoryStorage::new();
    let store = options(&built).open(STORE).unwrap();
    assert!(run(&store, 0).1.is_none());
    for (image, clean) in [(built.crash(Survivors::Synced), false), (built, true)] {
        if clean {
            store.close().unwrap();
        }
        let mut opened = 0;
        for budget in (0..600_000).step_by(9973) {
            let disk = image.crash(Survivors::All);
            disk.fail(Fault::Full { bytes: budget });
            match options(&disk).open(STORE) {
                Ok(store) => {
                    opened += 1;
                    assert_eq!(plain(view(&store).unwrap()), right[STEPS]);
                    // May fail, but must not lose anything.
                    let _ = store.close();
                }
                Err(Error::DiskFull { .. } | Error::Catalog { .. } | Error::Io { .. }) => {}
                Err(error) => panic!("budget {budget}: {error:?}"),
            }
            disk.heal();
            assert_eq!(reopened(&disk), right[STEPS], "budget {budget}");
        }
        assert!(opened > 0);
    }
}

/// Runs the history with a fault armed, and checks everything that must hold afterwards.
fn struck(right: &[String], fault: Fault) -> bool {
    let disk = MemoryStorage::new();
    let store = options(&disk).open(STORE).unwrap();
    let _ = step(&store, 0).unwrap();
    disk.fail(fault);
    let (done, error) = run(&store, 1);
    let Some(error) = error else {
        disk.heal();
        return false;
    };
    let poisoned = matches!(step(&store, 0), Err(Error::Poisoned { .. }));
    if !poisoned {
        // Only the catalog failed: derived data, and no reason to stop writing.
        assert!(matches!(error, Error::Catalog { .. } | Error::Io { .. }));
        assert_eq!((done - 1) % 5, 2, "{fault:?}: {error:?} and writes go on");
        disk.heal();
        return true;
    }
    for n in 0..3 {
        let refused = step(&store, n);
        assert!(
            matches!(refused, Err(Error::Poisoned { .. })),
            "{fault:?}: {refused:?}"
        );
    }
    disk.heal();
    // Also when the disk is well again: what it holds is not known.
    assert!(matches!(step(&store, 0), Err(Error::Poisoned { .. })));
    let flushed = store.flush();
    assert!(matches!(flushed, Ok(()) | Err(Error::Poisoned { .. })));
    let shown = plain(view(&store).unwrap());
    assert_eq!(
        shown, right[done],
        "{fault:?}: published data stays readable"
    );
    assert!(
        store.feeds().is_ok(),
        "{fault:?}: published counts stay readable"
    );
    assert!(
        store.stats().is_ok(),
        "{fault:?}: published counts stay readable"
    );
    let lost_power = disk.crash(Survivors::Synced);
    drop(store);
    for (disk, what) in [(lost_power, "power loss"), (disk, "reopen")] {
        let found = reopened(&disk);
        // The batch that failed may be there, whole; nothing acknowledged may be missing.
        let at = right.iter().position(|right| *right == found);
        let at = at.unwrap_or_else(|| panic!("{fault:?}, {what}: not a prefix: {found}"));
        assert!(
            at == done || at == done + 1,
            "{fault:?}, {what}: {at} of {done}"
        );
        // What the reopened store shows is on the disk for good.
        let store = options(&disk).open(STORE).unwrap();
        assert_eq!(plain(view(&store).unwrap()), found);
        let again = disk.crash(Survivors::Synced);
        assert_eq!(reopened(&again), found, "{fault:?}, {what}, power loss");
        assert!(run(&store, at).1.is_none());
        assert_eq!(plain(view(&store).unwrap()), right[STEPS]);
    }
    true
}

#[test]
fn after_a_failed_write_nothing_is_acknowledged_until_reopened() {
    let right = views();
    let hits = (0..).take_while(|after| struck(&right, Fault::Write { after: *after }));
    assert!(hits.count() > STEPS);
}

#[test]
fn after_a_failed_sync_nothing_is_acknowledged_until_reopened() {
    let right = views();
    for dropped in [false, true] {
        let hits = (0..).take_while(|after| {
            let after = *after;
            struck(&right, Fault::Sync { after, dropped })
        });
        assert!(hits.count() > STEPS);
    }
}

#[test]
fn after_a_failed_directory_sync_nothing_is_acknowledged_until_reopened() {
    let right = views();
    let hits = (0..).take_while(|after| struck(&right, Fault::SyncDir { after: *after }));
    assert!(hits.count() > 2);
}

#[test]
fn a_failed_read_is_one_failed_call() {
    let right = views();
    let disk = MemoryStorage::new();
    let store = options(&disk).index_budget(0).open(STORE).unwrap();
    assert!(run(&store, 0).1.is_none());
    let mut failed = 0;
    for after in 0.. {
        disk.fail(Fault::Read { after });
        let seen = view(&store);
        disk.heal();
        match seen {
            Ok(seen) => {
                assert_eq!(plain(seen), right[STEPS]);
                break;
            }
            Err(Error::Io { path, .. }) => assert!(path.starts_with(STORE)),
            Err(error) => panic!("read {after}: {error:?}"),
        }
        failed += 1;
        assert_eq!(plain(view(&store).unwrap()), right[STEPS], "read {after}");
    }
    assert!(failed > 3);
    // A write that had to read fails as a whole, and harms nothing.
    for after in 0..40 {
        disk.fail(Fault::Read { after });
        let written = store
            .feed("c", "a")
            .and_then(|feed| feed.batch_delete(&["0"]));
        disk.heal();
        match written {
            Ok(_) => break,
            Err(error) => assert!(matches!(error, Error::Io { .. }), "{error:?}"),
        }
    }
    let _ = step(&store, 0).unwrap();
    assert!(store.verify(|_, _| {}).unwrap().is_clean());
}

#[test]
fn a_failed_read_while_opening_is_an_error_and_harms_nothing() {
    let right = views();
    let built = MemoryStorage::new();
    let store = options(&built).open(STORE).unwrap();
    assert!(run(&store, 0).1.is_none());
    for image in [built.crash(Survivors::Synced), {
        store.close().unwrap();
        built
    }] {
        for after in 0.. {
            let disk = image.crash(Survivors::All);
            disk.fail(Fault::Read { after });
            let opened = options(&disk).open(STORE);
            let done = opened.is_ok();
            if let Err(error) = &opened {
                assert!(matches!(error, Error::Io { .. }), "read {after}: {error:?}");
            }
            drop(opened);
            disk.heal();
            assert_eq!(reopened(&disk), right[STEPS], "read {after}");
            if done && after > 200 {
                break;
            }
        }
    }
}

#[test]
fn short_and_interrupted_reads_go_unnoticed() {
    let right = views();
    for seed in 0..30 {
        let disk = MemoryStorage::new();
        disk.fail(Fault::ShortReads { seed });
        let store = options(&disk).index_budget(0).open(STORE).unwrap();
        let mut after = None;
        let mut followed = 0;
        for n in 0..STEPS {
            let _ = step(&store, n).unwrap();
            let feed = store.feed("c", "a").unwrap();
            let page = feed.list(&List::new().after(after)).unwrap();
            after = Some(page.resume_cursor());
            followed += page.len();
            assert_eq!(plain(view(&store).unwrap()), right[n + 1], "seed {seed}");
        }
        assert!(followed > 10);
        assert!(store.verify(|_, _| {}).unwrap().is_clean());
        let crashed = disk.crash(Survivors::Synced);
        crashed.fail(Fault::ShortReads { seed });
        assert_eq!(reopened(&crashed), right[STEPS], "seed {seed}");
        store.close().unwrap();
        assert_eq!(reopened(&disk), right[STEPS], "seed {seed}");
    }
}

/// Found by the simulation: the store shows a close frame that the disk never got, with marks before
/// it; taken for a clean end, later commits stood behind a hole.
#[test]
fn a_failed_sync_while_closing_is_no_clean_end() {
    for dropped in [false, true] {
        let disk = MemoryStorage::new();
        let store = options(&disk).open(STORE).unwrap();
        let _ = step(&store, 0).unwrap();
        let feed = store.feed("c", "a").unwrap();
        assert!(feed.track_deletes_start().unwrap());
        // That it was seen is needed no sooner than what comes after it.
        let again = feed.batch_delete(&["never saved"]).unwrap();
        assert_eq!(again.totals.not_found, 1);
        let seen = json!({"id": 0, "n": 0, "t": "x".repeat(700)});
        assert_eq!(feed.batch_save(&[seen]).unwrap().totals.unchanged, 1);
        disk.fail(Fault::Sync { after: 0, dropped });
        let closed = store.close();
        assert!(closed.is_err(), "{closed:?}");
        disk.heal();
        let store = options(&disk).open(STORE).unwrap();
        for n in 1..STEPS {
            let _ = step(&store, n).unwrap();
        }
        let shown = plain(view(&store).unwrap());
        let crashed = disk.crash(Survivors::Synced);
        assert_eq!(reopened(&crashed), shown);
        let rebuilt = options(&disk.crash(Survivors::Synced)).rebuild(STORE);
        assert_eq!(plain(view(&rebuilt.unwrap()).unwrap()), shown);
    }
}

/// Found by the simulation: a store that was recovered and closed without a new commit was not marked as
/// closed, and damage of its newest commit was taken for the torn end of a crash.
#[test]
fn closing_after_a_recovery_vouches_for_what_was_recovered() {
    let disk = MemoryStorage::new();
    let store = options(&disk).open(STORE).unwrap();
    let _ = step(&store, 0).unwrap();
    store.close().unwrap();
    let store = options(&disk).open(STORE).unwrap();
    let _ = step(&store, 1).unwrap();
    let killed = disk.crash(Survivors::All);
    options(&killed).open(STORE).unwrap().close().unwrap();
    let log = killed.files().into_iter().map(|(path, _)| path);
    let newest = log.filter(|path| path.extension().is_some_and(|it| it == "seg"));
    let newest = newest.max().unwrap();
    // In the header of the first frame there.
    killed.flip(&newest, 128 + 16, 1).unwrap();
    let rebuilt = options(&killed.crash(Survivors::All)).rebuild(STORE);
    assert!(matches!(rebuilt, Err(Error::Corrupt { .. })), "{rebuilt:?}");
    let store = options(&killed).open(STORE).unwrap();
    assert_eq!(plain(view(&store).unwrap()), views()[2]);
}

/// Found by the simulation: what a save of the catalog wrote, and a failed sync dropped, was still
/// there when the store was opened after a kill, and was saved upon; the next power failure took older
/// pages into the middle of the tree.
#[test]
fn a_failed_sync_of_the_catalog_is_not_saved_upon() {
    let write = |store: &Store, feeds: &[&str], id: usize| {
        for feed in feeds {
            let feed = store.feed("c", feed).unwrap();
            let _ = feed.batch_save(&[json!({"id": id})]).unwrap();
        }
    };
    for after in 0..6 {
        let disk = MemoryStorage::new();
        let store = options(&disk).open(STORE).unwrap();
        // Enough frames that what the catalog has of the two feeds is not in one page.
        (0..400).for_each(|id| write(&store, &FEEDS, id));
        store.close().unwrap();
        let store = options(&disk).open(STORE).unwrap();
        write(&store, &FEEDS, 400);
        let dropped = true;
        disk.fail(Fault::Sync { after, dropped });
        let _ = store.close();
        let killed = disk.crash(Survivors::All);
        let store = options(&killed).open(STORE).unwrap();
        write(&store, &FEEDS[..1], 401);
        store.close().unwrap();
        let store = options(&killed.crash(Survivors::Synced))
            .open(STORE)
            .unwrap();
        let report = store.verify(|_, _| {}).unwrap();
        assert!(report.is_clean(), "{after}: {:?}", report.damage);
        write(&store, &FEEDS, 402);
        store.close().unwrap();
    }
}

/// Found by the simulation: a read that failed while a catalog was copied left it of no use until the
/// store was reopened.
#[test]
fn a_catalog_is_copied_again_after_a_failed_read() {
    for after in 0.. {
        let disk = MemoryStorage::new();
        let store = options(&disk).open(STORE).unwrap();
        let _ = step(&store, 0).unwrap();
        let dropped = false;
        disk.fail(Fault::Sync { after: 0, dropped });
        let _ = store.checkpoint_catalog().unwrap_err();
        disk.heal();
        disk.fail(Fault::Read { after });
        let saved = store.checkpoint_catalog();
        disk.heal();
        store.checkpoint_catalog().unwrap();
        store.close().unwrap();
        if saved.is_ok() {
            assert!(after > 2, "{after} reads");
            break;
        }
    }
}

/// Found by the simulation: whoever waits for the feed's newest commit before it goes on found that
/// aborted, again and again; and the commit's time was not given back.
#[test]
fn after_a_full_disk_everything_else_works_too() {
    type Operation = fn(&highwater::Feed) -> Result<bool>;
    let operations: [(&str, Operation); 5] = [
        ("prune", |feed| {
            feed.prune(&Oldest::all()).map(|done| done.records > 0)
        }),
        ("purge", |feed| {
            feed.purge(&Oldest::all()).map(|done| done.records == 0)
        }),
        ("hard_delete", |feed| {
            feed.hard_delete(&Oldest::all().limit(1))
                .map(|done| done.records == 1)
        }),
        ("sweep", |feed| {
            feed.track_deletes_end(&Sweep::new())
                .map(|swept| swept.deleted == 3)
        }),
        ("replace", |feed| {
            feed.replace()?
                .commit()
                .map(|replaced| replaced.removed == 3)
        }),
    ];
    for (what, operation) in operations {
        let disk = MemoryStorage::new();
        let store = options(&disk).open(STORE).unwrap();
        let _ = step(&store, 0).unwrap();
        let feed = store.feed("c", "a").unwrap();
        assert!(feed.track_deletes_start().unwrap());
        let before = feed.list(&List::new()).unwrap();
        let newest = before.iter().next_back().unwrap().last_modified_at;
        disk.fail(Fault::Full { bytes: 0 });
        let large = "y".repeat(9000);
        let refused = feed.batch_save_raw(&[("large", &large)]);
        assert!(
            matches!(refused, Err(Error::DiskFull { .. })),
            "{refused:?}"
        );
        disk.heal();
        assert!(operation(&feed).unwrap(), "{what}");
        let saved = feed.batch_save_raw(&[("small", "1")]).unwrap();
        assert_eq!(saved.totals.added, 1, "{what}");
        let page = feed.get(&["small"]).unwrap();
        let time = page.get(0).unwrap().last_modified_at.as_micros();
        assert!(time <= newest.as_micros() + 2, "{what}: at {time}");
    }
}

/// Found by the simulation: a reader that brought the feed's index into memory made the feed's
/// writer forget that the window was refused.
#[test]
fn a_window_that_a_full_disk_refused_is_not_open() {
    let mut refusals = 0;
    for len in (0..4000).step_by(200) {
        let disk = MemoryStorage::new();
        let store = options(&disk).open(STORE).unwrap();
        let feed = store.feed("c", "a").unwrap();
        let _ = feed.batch_save_raw(&[("some", "x".repeat(len))]).unwrap();
        store.close().unwrap();
        let store = options(&disk).open(STORE).unwrap();
        let feed = store.feed("c", "a").unwrap();
        disk.fail(Fault::Full { bytes: 0 });
        let opened = feed.track_deletes_start();
        assert_eq!(feed.get(&["some"]).unwrap().len(), 1);
        disk.heal();
        match opened {
            Ok(opened) => assert!(opened),
            Err(error) => {
                assert!(matches!(error, Error::DiskFull { .. }), "{error:?}");
                assert!(feed.track_deletes_start().unwrap(), "it is open already");
                refusals += 1;
            }
        }
        assert_eq!(feed.track_deletes_end(&Sweep::new()).unwrap().deleted, 1);
    }
    assert!(refusals > 0);
}

/// Found by the simulation: a record that a commit had changed, and then saved once more with the
/// same value in other bytes, was gone for `get` when a full disk refused the commit.
#[test]
fn a_refused_commit_leaves_every_record_to_be_found() {
    let disk = MemoryStorage::new();
    // The index is in files as soon as it has a few records.
    let store = options(&disk).index_limits_of(200, 100);
    let store = store.open(STORE).unwrap();
    let feed = store.feed("c", "a").unwrap();
    let value = |n: usize, text: &str| json!({"id": n, "a": text, "b": 1});
    let some: Vec<_> = (0..20).map(|n| value(n, "before")).collect();
    let _ = feed.batch_save(&some).unwrap();
    let _ = feed.batch_save(&[value(20, "before")]).unwrap();

    let long = "x".repeat(9000);
    let mut batch = store.batch("c");
    batch.save(&feed, &[value(7, &long)]).unwrap();
    let reordered = format!(r#"{{"b":1,"a":"{long}","id":7}}"#);
    let reordered: Box<serde_json::value::RawValue> = serde_json::from_str(&reordered).unwrap();
    batch.save(&feed, &[reordered]).unwrap();
    disk.fail(Fault::Full { bytes: 0 });
    let refused = batch.commit();
    assert!(
        matches!(refused, Err(Error::DiskFull { .. })),
        "{refused:?}"
    );
    let found = feed.get(&["7"]).unwrap();
    assert_eq!(found.len(), 1);
    let expected = serde_json::to_vec(&value(7, "before")).unwrap();
    assert_eq!(found.get(0).unwrap().payload, Some(&*expected));
}

/// Found by the simulation: what to let go of was chosen by entries that nobody had verified, so
/// the feed's counts went wrong, and a record that looked like a deletion could have been purged.
#[test]
fn what_is_damaged_is_let_go_of_only_as_a_whole() {
    let disk = MemoryStorage::new();
    let store = options(&disk).open(STORE).unwrap();
    let feed = store.feed("c", "a").unwrap();
    let some = [("1", "x"), ("2", "x"), ("3", "x")];
    let _ = feed.batch_save_raw(&some[..1]).unwrap();
    disk.fail(Fault::Misdirected { after: 0, by: 512 });
    let _ = feed.batch_save_raw(&some[1..]).unwrap();
    for refused in [
        feed.prune(&Oldest::all()),
        feed.hard_delete(&Oldest::all().limit(3)),
        feed.purge(&Oldest::all()),
    ] {
        assert!(matches!(refused, Err(Error::Corrupt { .. })), "{refused:?}");
    }
    assert_eq!(feed.count().unwrap(), 3);
    let removed = feed.hard_delete(&Oldest::all()).unwrap();
    assert_eq!((removed.records, removed.live), (3, 3));
    assert_eq!((feed.count().unwrap(), feed.size().unwrap()), (0, 0));
}

/// Found by the simulation: a run that was dropped on a full disk, so that its end could not be
/// recorded, went on writing through a batch that was left of it.
#[test]
fn a_run_that_was_dropped_on_a_full_disk_writes_no_more() {
    let disk = MemoryStorage::new();
    let store = options(&disk).open(STORE).unwrap();
    let sync = SyncKey::new("c", "s", "").unwrap();
    let run = store.begin_run(&sync, RunOptions::new()).unwrap();
    let feed = run.feed("m").unwrap();
    let mut batch = run.batch();
    batch.save_raw(&feed, &[("left", "over")]).unwrap();
    disk.fail(Fault::Full { bytes: 0 });
    // What was reserved ahead is used up, until not even the end of a run finds space.
    let other = store.feed("c", "other").unwrap();
    let fits = |n: &u32| other.batch_save_raw(&[(n.to_string(), "x")]).is_ok();
    assert!((0..100_000).take_while(fits).count() < 100_000);
    drop(run);
    disk.heal();
    for refused in [
        batch.commit().map(drop),
        feed.batch_save_raw(&[("1", "x")]).map(drop),
    ] {
        assert!(
            matches!(refused, Err(Error::RunEnded { .. })),
            "{refused:?}"
        );
    }
    let store = {
        drop((feed, other, store));
        options(&disk).open(STORE).unwrap()
    };
    let reports = store.runs(&sync).unwrap();
    assert_eq!(reports[0].status, RunStatus::Interrupted);
}

/// A store of which nothing is synced but the first commit.
fn open_relaxed(disk: &MemoryStorage) -> Result<Store> {
    let relaxed = Durability::Relaxed {
        interval: Duration::from_secs(3600),
    };
    options(disk).durability(relaxed).open(STORE)
}

/// Opens a copy of a store until it is stopped; what that leaves, and whether it came to its end.
fn cut_short(disk: &MemoryStorage, operations: u64) -> (MemoryStorage, bool) {
    let disk = disk.crash(Survivors::All);
    disk.stop_at(disk.operations() + operations);
    let whole = open_relaxed(&disk).is_ok();
    (disk.crash(Survivors::All), whole)
}

fn ids(store: &Store) -> Vec<String> {
    let records = store.feed("c", "m").unwrap().records(None);
    records.map(|record| record.unwrap().id).collect()
}

/// Whatever a recovery was at when it was cut short, the next one finds what the first one found,
/// and leaves nothing behind that it has superseded.
#[test]
fn a_recovery_that_is_cut_short_anywhere_loses_nothing_that_was_there() {
    // Nobody vouches for the only commit, whose segment goes then, or for all but the first one.
    for (saved, segments_max) in [(&["a"][..], 2), (&["a", "b", "c", "d"], 3)] {
        let disk = MemoryStorage::new();
        let store = open_relaxed(&disk).unwrap();
        let feed = store.feed("c", "m").unwrap();
        for id in saved {
            let _ = feed.batch_save_raw(&[(id, "1")]).unwrap();
        }
        for operation in 0.. {
            let (left, whole) = cut_short(&disk, operation);
            let store = open_relaxed(&left).unwrap();
            assert_eq!(ids(&store), saved, "cut short at {operation}");
            let names = left.files().into_iter().map(|(path, _)| path);
            let segments = names.filter(|path| path.extension().is_some_and(|end| end == "seg"));
            assert!(segments.count() <= segments_max, "cut short at {operation}");
            if whole {
                break;
            }
        }
    }
}

/// Found by the crash points: of several segments that one later segment supersedes the first was put
/// away when the power failed again, and without a catalog the next one was taken for the beginning.
#[test]
fn recoveries_that_are_cut_short_one_after_another_lose_nothing() {
    let disk = MemoryStorage::new();
    let store = open_relaxed(&disk).unwrap();
    let feed = store.feed("c", "m").unwrap();
    let _ = feed.batch_save_raw(&[("kept", "1")]).unwrap();
    // In a segment of its own, of which only the name is left.
    let _ = feed.batch_save_raw(&[("lost", "x".repeat(4000))]).unwrap();
    let left = disk.crash(Survivors::Names);
    left.remove(&Path::new(STORE).join("catalog.redb")).unwrap();
    left.sync_dir(Path::new(STORE)).unwrap();
    for one in 0.. {
        let (first, first_is_whole) = cut_short(&left, one);
        for other in 0.. {
            let (second, second_is_whole) = cut_short(&first, other);
            let opened = open_relaxed(&second);
            let store = opened.unwrap_or_else(|error| panic!("{one}, {other}: {error}"));
            assert_eq!(ids(&store), ["kept"], "cut short at {one}, then at {other}");
            if second_is_whole {
                break;
            }
        }
        if first_is_whole {
            break;
        }
    }
}
