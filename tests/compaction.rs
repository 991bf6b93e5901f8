//! What compaction must never do: lose a record, bring one back, move one, hold up or disturb a
//! reader. Each test here is a way in which it might (G1, G5, G6, G10, G12, G17).
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use highwater::storage::{
    Fault, ManualClock, MemoryStorage, OpenMode, Storage, StorageFile, StorageLock, Survivors,
};
use highwater::{
    Action, Cursor, Error, Expected, Feed, List, Oldest, Options, Order, OwnedRecord, Result, Store,
};
use proptest::prelude::*;
use serde_json::json;

const STORE: &str = "/s";

fn options(disk: &MemoryStorage) -> Options {
    Options::new()
        .storage(Arc::new(disk.clone()))
        .segment_size(4096)
        .background(false)
        .clock(Arc::new(ManualClock::new(1_700_000_000_000_000)))
        .secret([3; 32])
}

fn eager(disk: &MemoryStorage) -> Options {
    options(disk).eager_compaction(true)
}

fn feed(store: &Store, model: &str) -> Feed {
    store.feed("c", model).unwrap()
}

/// Saves records of `len` bytes under ids of a number each.
fn save(feed: &Feed, ids: impl IntoIterator<Item = usize>, len: usize, fill: char) {
    let body = fill.to_string().repeat(len);
    let records: Vec<_> = ids
        .into_iter()
        .map(|id| (id.to_string(), body.clone()))
        .collect();
    let _ = feed.batch_save_raw(&records).unwrap();
}

fn records(feed: &Feed) -> Vec<OwnedRecord> {
    feed.records(None).collect::<Result<_>>().unwrap()
}

/// A record on one line.
fn line(record: &OwnedRecord) -> String {
    let payload = record.payload.as_deref().map(|payload| {
        let first = payload.first().map(|byte| char::from(*byte));
        (
            payload.len(),
            first,
            payload.iter().all(|byte| payload[0] == *byte),
        )
    });
    let OwnedRecord {
        id,
        last_action,
        cursor,
        ..
    } = record;
    let times = (
        record.first_seen_at,
        record.last_modified_at,
        record.pruned_at,
    );
    format!("{id} {last_action} {cursor} {times:?} {payload:?}")
}

/// Everything that some feeds show.
fn view(store: &Store) -> BTreeMap<String, Vec<String>> {
    let infos = store.feeds().unwrap();
    let view = infos.into_iter().map(|info| {
        let feed = store.feed(&info.key.connection, &info.key.model).unwrap();
        assert_eq!(feed.count().unwrap(), info.live);
        (info.key.model, records(&feed).iter().map(line).collect())
    });
    view.collect()
}

fn files(disk: &MemoryStorage, suffix: &str) -> Vec<PathBuf> {
    let dir = Path::new(STORE).join("log");
    let names = disk.list(&dir).unwrap();
    let names = names.into_iter().filter(|name| name.ends_with(suffix));
    names.map(|name| dir.join(name)).collect()
}

/// The store must show the same when it is opened, when it is rebuilt, and after a crash.
#[track_caller]
fn shows_the_same(store: &Store, disk: &MemoryStorage) {
    let expected = view(store);
    let crashed = disk.crash(Survivors::Synced);
    assert!(store.verify(|_, _| {}).unwrap().is_clean());
    store.close().unwrap();
    for (image, what) in [(crashed, "crashed"), (disk.clone(), "closed")] {
        for rebuild in [false, true] {
            let image = image.crash(Survivors::All);
            let store = match rebuild {
                false => options(&image).open(STORE),
                true => options(&image).rebuild(STORE),
            };
            let store = store.unwrap();
            assert_eq!(view(&store), expected, "{what}, rebuilt: {rebuild}");
            let report = store.verify(|_, _| {}).unwrap();
            assert!(report.is_clean(), "{what}: {:?}", report.damage);
            store.close().unwrap();
        }
    }
}

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
    *stuck.refuse.lock().unwrap() = true;
    assert!(matches!(
        store.compact(),
        Err(Error::Io { op: "remove", .. })
    ));
    let before = files(&disk, ".seg").len();
    *stuck.refuse.lock().unwrap() = false;
    let _ = store.compact().unwrap();
    assert_eq!(files(&disk, ".seg").len(), 1, "of {before}");
    assert_eq!(files(&disk, ".pack").len(), 1);
    shows_the_same(&store, &disk);
}

/// A disk that refuses to remove files of the log, and lets somebody in between two reads.
#[derive(Clone)]
struct Stuck {
    disk: MemoryStorage,
    refuse: Arc<Mutex<bool>>,
    hook: Hook,
}

type Action_ = Box<dyn FnOnce() + Send>;
type Hook = Arc<Mutex<Option<(u64, Action_)>>>;

impl Debug for Stuck {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Stuck")
    }
}

impl Stuck {
    fn new(disk: MemoryStorage) -> Self {
        Self {
            disk,
            refuse: Arc::default(),
            hook: Arc::default(),
        }
    }

    /// Calls `action` before the read after the next `reads`.
    fn interrupt(&self, reads: u64, action: impl FnOnce() + Send + 'static) {
        *self.hook.lock().unwrap() = Some((reads, Box::new(action)));
    }

    /// Whether the action was not called.
    fn is_armed(&self) -> bool {
        self.hook.lock().unwrap().take().is_some()
    }
}

struct HookedFile(Arc<dyn StorageFile>, Hook);

impl Debug for HookedFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HookedFile")
    }
}

impl StorageFile for HookedFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let due = {
            let mut hook = self.1.lock().unwrap();
            match &mut *hook {
                Some((0, _)) => hook.take().map(|(_, action)| action),
                Some((reads, _)) => {
                    *reads -= 1;
                    None
                }
                None => None,
            }
        };
        if let Some(action) = due {
            action();
        }
        self.0.read_at(buf, offset)
    }

    fn write_all_at(&self, bufs: &[&[u8]], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bufs, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.0.allocate(len)
    }
}

impl Storage for Stuck {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn StorageFile>> {
        let file = self.disk.open(path, mode)?;
        Ok(Arc::new(HookedFile(file, self.hook.clone())))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.disk.create_dir_all(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.disk.list(dir)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        if *self.refuse.lock().unwrap() && path.extension().is_some_and(|end| end != "tmp") {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        self.disk.remove(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.sync_dir(dir)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn StorageLock>> {
        self.disk.lock(path)
    }
}

fn owned(page: &highwater::Page) -> Vec<OwnedRecord> {
    page.iter().map(|record| record.to_owned()).collect()
}

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

fn page_lines(feed: &Feed, list: &List) -> (Vec<String>, Cursor, bool) {
    let page = feed.list(list).unwrap();
    let lines = owned(&page).iter().map(line).collect();
    (lines, page.resume_cursor(), page.has_more())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, max_shrink_iters: 500, ..ProptestConfig::default() })]

    /// G6: compaction changes no cursor and no page, wherever a reader stands. (Actions relative
    /// to a reader that stands in the middle of a commit may be told more cautiously.)
    #[test]
    fn pages_are_the_same_before_and_after(
        writes in prop::collection::vec((0u8..8, 0usize..20, 1usize..12, 0usize..1500), 4..30),
        again in any::<bool>(),
    ) {
        let disk = MemoryStorage::new();
        let store = eager(&disk).open(STORE).unwrap();
        let contacts = feed(&store, "contact");
        let mut ends = Vec::new();
        let apply = |writes: &[(u8, usize, usize, usize)], ends: &mut Vec<Cursor>| {
            for (what, from, count, len) in writes {
                let ids = *from..from + count;
                match what {
                    0 => {
                        let ids: Vec<String> = ids.map(|id| id.to_string()).collect();
                        let _ = contacts.batch_delete(&ids).unwrap();
                    }
                    1 => drop(contacts.prune(&Oldest::all().limit(*count as u64)).unwrap()),
                    _ => save(&contacts, ids, *len, char::from(b'a' + (*len % 26) as u8)),
                }
                ends.extend(contacts.last_cursor().unwrap());
            }
        };
        let (first, second) = writes.split_at(writes.len() / 2);
        apply(first, &mut ends);
        if again {
            let _ = store.compact().unwrap();
        }
        apply(second, &mut ends);
        let mut lists = Vec::new();
        let places: Vec<Cursor> = records(&contacts).iter().map(|record| record.cursor).collect();
        for after in places.iter().copied().map(Some).chain([None]) {
            for limit in [1, 7, 1000] {
                lists.push(List::new().after(after).limit(limit).relative(false));
                lists.push(List::new().after(after).limit(limit).order(Order::Descending));
            }
            lists.push(List::new().after(after).relative(false).filter(Action::Deleted));
        }
        // At the ends of commits actions are exact.
        lists.extend(ends.iter().map(|end| List::new().after(*end)));
        let before: Vec<_> = lists.iter().map(|list| page_lines(&contacts, list)).collect();
        let _ = store.compact().unwrap();
        for (list, before) in lists.iter().zip(before) {
            prop_assert_eq!(page_lines(&contacts, list), before);
        }
        let shown = (contacts.count().unwrap(), contacts.size().unwrap());
        drop(store.close());
        for rebuild in [false, true] {
            let store = match rebuild {
                false => options(&disk).open(STORE).unwrap(),
                true => options(&disk).rebuild(STORE).unwrap(),
            };
            let contacts = feed(&store, "contact");
            prop_assert_eq!((contacts.count().unwrap(), contacts.size().unwrap()), shown);
            let report = store.verify(|_, _| {}).unwrap();
            prop_assert!(report.is_clean(), "{:?}", report.damage);
        }
    }
}

/// A store in which there is something to compact, with the pack of an earlier compaction.
fn worth_it(disk: &MemoryStorage) -> Store {
    let store = eager(disk).open(STORE).unwrap();
    let contacts = feed(&store, "contact");
    for at in 0..8 {
        save(
            &contacts,
            [at % 5, 10 + at],
            900,
            char::from(b'a' + at as u8),
        );
    }
    let _ = contacts.batch_delete(&["1", "12"]).unwrap();
    let _ = store.compact().unwrap();
    for at in 0..8 {
        save(
            &contacts,
            [at % 3, 20 + at],
            900,
            char::from(b'm' + at as u8),
        );
    }
    store.checkpoint_catalog().unwrap();
    store
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

#[test]
fn a_feed_in_many_small_frames_is_put_together() {
    let disk = MemoryStorage::new();
    let store = options(&disk).segment_size(64 << 10).open(STORE).unwrap();
    let contacts = feed(&store, "contact");
    for at in 0..3000 {
        save(&contacts, 10 * at..10 * at + 10, 20, 'a');
    }
    let before = (contacts.stats().unwrap(), view(&store));
    let done = store.compact().unwrap();
    assert!(done.removed > 1);
    let after = (contacts.stats().unwrap(), view(&store));
    assert_eq!(after.1, before.1);
    assert!(after.0.frames * 2 < before.0.frames, "{:?}", after.0);
    // What the packs said of the whole feed, each anew, may be given back; then it is done.
    let _ = store.compact().unwrap();
    let again = store.compact().unwrap();
    assert!(
        again.written_bytes <= done.written_bytes / 2,
        "{again:?}, {done:?}"
    );
    assert_eq!(view(&store), before.1);
    shows_the_same(&store, &disk);
}
