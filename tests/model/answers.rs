//! An answer is about what is there after a power failure, also when it rests on a commit of somebody
//! else that is still on its way (G1).

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use highwater::storage::{MemoryStorage, Survivors};
use highwater::{Feed, Options, Store, Sweep};

use crate::driver::PATH;
use crate::gate::GatedStorage;

/// Has somebody commit, and answers what another, who comes while that is being synced, does, with
/// the store as a power failure right after the answer leaves it.
fn answer_beside<T: Send + 'static>(
    commit: fn(&Feed),
    answer: impl FnOnce(&Feed) -> T + Send + 'static,
) -> (T, Store) {
    let gate = GatedStorage::new(MemoryStorage::new());
    let options = Options::new().background(false);
    let store = options.clone().storage(Arc::new(gate.clone()));
    let store = store.open(PATH).unwrap();
    let feed = store.feed("c", "m").unwrap();
    let _ = feed.batch_save_raw(&[("before", "1")]).unwrap();

    gate.shut();
    let first = thread::spawn({
        let feed = feed.clone();
        move || commit(&feed)
    });
    gate.await_arrival();
    let second = thread::spawn({
        let disk = gate.disk.clone();
        move || (answer(&feed), disk.crash(Survivors::Synced))
    });
    // Time for a wrong engine to answer; the right one does so after the sync, however long it takes.
    thread::sleep(Duration::from_millis(50));
    gate.open();
    first.join().unwrap();
    let (answer, left) = second.join().unwrap();
    (answer, options.storage(Arc::new(left)).open(PATH).unwrap())
}

#[test]
fn what_is_unchanged_is_there() {
    let save = |feed: &Feed| feed.batch_save_raw(&[("new", "1")]).unwrap();
    let (applied, store) = answer_beside(|feed| drop(feed.batch_save_raw(&[("new", "1")])), save);
    assert_eq!(applied.totals.unchanged, 1);
    assert_eq!(
        store.feed("c", "m").unwrap().get(&["new"]).unwrap().len(),
        1
    );
}

/// Found by reading: whoever asked for a window that was about to be opened was told that it is open.
#[test]
fn a_window_that_was_open_already_is_open() {
    let open = |feed: &Feed| feed.track_deletes_start().unwrap();
    let (opened, store) = answer_beside(|feed| drop(feed.track_deletes_start()), open);
    assert!(!opened);
    let swept = store
        .feed("c", "m")
        .unwrap()
        .track_deletes_end(&Sweep::new());
    assert_eq!(swept.unwrap().deleted, 1);
}
