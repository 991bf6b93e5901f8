//! A dry run says exactly what the same run then does, and leaves no trace.
#![allow(clippy::unwrap_used, missing_docs)]

use std::sync::Arc;

use highwater::storage::{ManualClock, MemoryStorage};
use highwater::{
    Error, Expected, Feed, Options, Run, RunOptions, RunReport, Store, Sweep, SyncKey,
};
use proptest::prelude::*;
use serde_json::{Value, json};

#[derive(Clone, Debug)]
enum Step {
    Save(Vec<(u8, u8)>),
    SaveRaw(Vec<(u8, u8)>),
    Update(Vec<(u8, u8)>),
    Delete(Vec<u8>),
    Open,
    Close,
}

fn step() -> impl Strategy<Value = Step> {
    let pairs = || prop::collection::vec((0u8..12, 0u8..3), 0..6);
    prop_oneof![
        4 => pairs().prop_map(Step::Save),
        2 => pairs().prop_map(Step::SaveRaw),
        2 => pairs().prop_map(Step::Update),
        2 => prop::collection::vec(0u8..12, 0..4).prop_map(Step::Delete),
        1 => Just(Step::Open),
        1 => Just(Step::Close),
    ]
}

fn values(pairs: &[(u8, u8)]) -> Vec<Value> {
    let value = |(id, version): &(u8, u8)| json!({"id": id, "version": version});
    pairs.iter().map(value).collect()
}

/// Carries a step out, and tells what came of it.
fn apply(feed: &Feed, step: &Step) -> String {
    let raw = |pairs: &[(u8, u8)]| -> Vec<(String, Vec<u8>)> {
        let pair = |(id, version): &(u8, u8)| (id.to_string(), vec![*version]);
        pairs.iter().map(pair).collect()
    };
    let ids = |ids: &[u8]| -> Vec<String> { ids.iter().map(u8::to_string).collect() };
    let applied = match step {
        Step::Save(pairs) => feed.batch_save(&values(pairs)),
        Step::SaveRaw(pairs) => feed.batch_save_raw(&raw(pairs)),
        Step::Update(pairs) => feed.batch_update(&values(pairs)),
        Step::Delete(gone) => feed.batch_delete(&ids(gone)),
        Step::Open => return format!("opened {:?}", feed.track_deletes_start()),
        Step::Close => {
            let swept = feed.track_deletes_end(&Sweep::new().max_deleted(6).return_ids(true));
            return match swept {
                Ok(swept) => format!("swept {:?}", swept.ids),
                Err(error) => error.to_string(),
            };
        }
    };
    match applied {
        Ok(applied) => format!("{:?}", applied.outcomes),
        Err(error) => error.to_string(),
    }
}

fn run_all(run: Run, steps: &[Step]) -> (Vec<String>, RunReport) {
    let feed = run.feed("m").unwrap();
    let results = steps.iter().map(|step| apply(&feed, step)).collect();
    run.save_checkpoint(&json!({"at": 1}), Expected::Any)
        .unwrap();
    assert_eq!(run.checkpoint().unwrap().unwrap().json, br#"{"at":1}"#);
    (results, run.succeed().unwrap())
}

fn store() -> Store {
    let clock = Arc::new(ManualClock::new(1_000_000));
    let options = Options::new()
        .storage(Arc::new(MemoryStorage::new()))
        .clock(clock)
        .background(false);
    options.open("/s").unwrap()
}

fn all(store: &Store) -> Vec<highwater::OwnedRecord> {
    let feed = store.feed("c", "m").unwrap();
    feed.records(None).map(Result::unwrap).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn a_dry_run_says_what_the_run_then_does(
        before in prop::collection::vec(step(), 0..8),
        open in any::<bool>(),
        steps in prop::collection::vec(step(), 0..16),
    ) {
        let store = store();
        let sync = SyncKey::new("c", "s", "").unwrap();
        let first = store.begin_run(&sync, RunOptions::new()).unwrap();
        let feed = first.feed("m").unwrap();
        before.iter().for_each(|step| drop(apply(&feed, step)));
        if open {
            feed.track_deletes_start().unwrap();
        }
        first.succeed().unwrap();

        let (records, runs) = (all(&store), store.runs(&sync).unwrap());
        let (would, would_report) = run_all(store.begin_dry_run(&sync).unwrap(), &steps);
        prop_assert_eq!(all(&store), records);
        prop_assert_eq!(store.runs(&sync).unwrap(), runs);
        prop_assert_eq!(store.checkpoint("c", "s", "").unwrap(), None);

        let run = store.begin_run(&sync, RunOptions::new()).unwrap();
        let (did, report) = run_all(run, &steps);
        prop_assert_eq!(would, did);
        prop_assert_eq!(would_report, report);
    }
}

#[test]
fn others_may_write_while_a_dry_run_goes_on() {
    let store = store();
    let feed = store.feed("c", "m").unwrap();
    let _ = feed.batch_save_raw(&[("a", "1"), ("b", "1")]).unwrap();
    let run = store
        .begin_dry_run(&SyncKey::new("c", "s", "").unwrap())
        .unwrap();
    let dry = run.feed("m").unwrap();
    let _ = dry.batch_delete(&["a", "b"]).unwrap();
    let _ = feed.batch_delete(&["a", "b"]).unwrap();
    let applied = dry.batch_save_raw(&[("a", "1"), ("c", "1")]).unwrap();
    assert_eq!(applied.totals.added, 2);
    drop(run);
    assert!(matches!(
        dry.batch_delete(&["a"]),
        Err(Error::RunEnded { .. })
    ));
    assert_eq!(feed.count().unwrap(), 0);
}
