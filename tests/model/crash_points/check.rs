//! What must hold of a store after a crash.

use std::collections::BTreeMap;
use std::sync::Arc;

use highwater::storage::MemoryStorage;
use highwater::{Action, Cursor, Error, List, Options, OwnedRecord, Store};
use serde_json::json;

use crate::driver::PATH;
use crate::scripts::play::Progress;
use crate::scripts::view::{FEEDS, View};

/// What happened to a script.
#[derive(Clone, Debug)]
pub struct Crash {
    /// For the message of a failed check.
    pub what: String,
    pub progress: Progress,
    /// So many commits must have survived.
    pub least: usize,
}

/// Opens a disk after a crash and checks it. Returns the number of commits that survived.
pub fn check(disk: &MemoryStorage, options: &Options, views: &[View], crash: &Crash) -> usize {
    let Crash { what, .. } = crash;
    let at_disk = options.clone().storage(Arc::new(disk.clone()));
    let store = at_disk
        .clone()
        .open(PATH)
        .unwrap_or_else(|error| panic!("{what}: {error:?}"));
    let found = View::of(&store, disk, options).unwrap_or_else(|error| panic!("{what}: {error:?}"));
    let candidates = crash.least..=crash.progress.started.min(views.len() - 1);
    let Some(survived) = candidates.clone().rev().find(|at| views[*at] == found) else {
        let right = &views[*candidates.end()];
        panic!("{what}: at none of the states {candidates:?}: {found:#?}, not {right:#?}");
    };
    readers_converge(&store, &views[..=survived], what);
    let report = store.verify(|_, _| {}).unwrap();
    assert!(report.is_clean(), "{what}: {:?}", report.damage);
    goes_on(&store, &views[..=crash.progress.acknowledged], what);
    let last = |store: &Store| store.feed("c", "contact")?.last_cursor();
    let before = last(&store).unwrap();
    store.close().unwrap();
    assert_eq!(
        last(&at_disk.open(PATH).unwrap()).unwrap(),
        before,
        "{what}"
    );
    survived
}

/// Without its catalog the store must show the same.
pub fn check_rebuilt(disk: &MemoryStorage, options: &Options, expected: &View, crash: &Crash) {
    let Crash { what, .. } = crash;
    let at_disk = options.clone().storage(Arc::new(disk.clone()));
    let store = at_disk
        .rebuild(PATH)
        .unwrap_or_else(|error| panic!("{what}: {error:?}"));
    let found = View::of(&store, disk, options).unwrap();
    assert!(
        found == *expected,
        "{what}, rebuilt: {found:#?}, not {expected:#?}"
    );
    let report = store.verify(|_, _| {}).unwrap();
    assert!(report.is_clean(), "{what}: {:?}", report.damage);
}

/// Consumers that stood at the end of any earlier state converge.
fn readers_converge(store: &Store, views: &[View], what: &str) {
    let now = &views[views.len() - 1];
    for model in FEEDS {
        let feed = store.feed("c", model).unwrap();
        let current = live(&now.feeds[model]);
        let mut stood: Option<Option<Cursor>> = None;
        for (at, view) in views.iter().enumerate() {
            let before = &view.feeds[model];
            let after = before.last().map(|record| record.cursor);
            let is_same = at > 0 && views[at - 1].feeds[model] == *before;
            if is_same && stood == Some(after) {
                continue;
            }
            stood = Some(after);
            let mut copy = live(before);
            let list = List::new().limit(1000);
            let page = match feed.list(&list.clone().after(after)) {
                Err(Error::StaleCursor { .. } | Error::CursorExpired) => {
                    copy.clear();
                    feed.list(&list).unwrap()
                }
                page => page.unwrap(),
            };
            for record in page.iter() {
                match record.last_action {
                    Action::Deleted => copy.remove(record.id),
                    _ => copy.insert(record.id, record.payload),
                };
            }
            let told = |id: &&str| current.contains_key(id) || !forgotten(views, model, id);
            copy.retain(|id, _| told(id));
            let is_right = |(id, payload): (&&str, &Option<&[u8]>)| {
                payload.is_none() || copy[id].is_none() || copy[id] == *payload
            };
            assert!(
                copy.keys().eq(current.keys()) && current.iter().all(is_right),
                "{what}: a reader that stood at {at} has {copy:?}, not {current:?}"
            );
        }
    }
}

/// The store goes on: a new change, with a cursor beyond every one that was ever shown.
fn goes_on(store: &Store, shown: &[View], what: &str) {
    let feed = store.feed("c", "contact").unwrap();
    let applied = feed.batch_save(&[json!({"id": "afterwards"})]).unwrap();
    let last = |view: &View| view.feeds["contact"].last().map(|record| record.cursor);
    let highest = shown.iter().filter_map(last).max();
    assert!(
        applied.last_cursor > highest,
        "{what}: {:?} after {highest:?}",
        applied.last_cursor
    );
}

fn live(records: &[OwnedRecord]) -> BTreeMap<&str, Option<&[u8]>> {
    let live = records
        .iter()
        .filter(|record| record.last_action != Action::Deleted);
    live.map(|record| (record.id.as_str(), record.payload.as_deref()))
        .collect()
}

/// Whether a record was hard-deleted, of which readers are not told: it went while it was live.
fn forgotten(views: &[View], model: &str, id: &str) -> bool {
    let find = |view: &View| {
        let mut records = view.feeds[model].iter();
        records.find(|record| record.id == id).cloned()
    };
    let live = |record: OwnedRecord| record.last_action != Action::Deleted;
    let mut steps = views.windows(2);
    steps.any(|step| find(&step[0]).is_some_and(live) && find(&step[1]).is_none())
}
