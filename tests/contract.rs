//! Rows of the contract that a history does not show well: values, options, checkpoints (G7).
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::sync::Arc;

use highwater::storage::{MemoryStorage, Survivors};
use highwater::{Action, Error, Expected, Feed, FeedOptions, List, Options, Outcome, Store};
use serde_json::json;
use serde_json::value::RawValue;

fn open(disk: &MemoryStorage) -> Store {
    let options = Options::new().background(false).secret([5; 32]);
    options
        .storage(Arc::new(disk.clone()))
        .open("/store")
        .unwrap()
}

fn save(feed: &Feed, text: &str) -> Outcome {
    let record = RawValue::from_string(text.to_owned()).unwrap();
    feed.batch_save(&[record]).unwrap().outcomes[0]
}

#[test]
fn json_is_compared_as_a_value_with_exact_numbers() {
    let feed = open(&MemoryStorage::new()).feed("c", "m").unwrap();
    assert_eq!(
        save(&feed, r#"{"id":1,"n":9007199254740992,"a":[1,2]}"#),
        Outcome::Added
    );
    for same in [
        r#"{"n":9007199254740992.0, "a":[1e0,2], "id":"1"}"#,
        r#"{"a":[1,20e-1],"id":1.0,"n":9007199254740992}"#,
    ] {
        // The id is compared as part of the value too: 1 and "1" name the same record.
        let expected = if same.contains(r#""1""#) {
            Outcome::Updated
        } else {
            Outcome::Unchanged
        };
        let _ = save(&feed, r#"{"id":1,"n":9007199254740992,"a":[1,2]}"#);
        assert_eq!(save(&feed, same), expected, "{same}");
    }
    assert_eq!(
        save(&feed, r#"{"id":1,"n":9007199254740993,"a":[1,2]}"#),
        Outcome::Updated
    );
    assert_eq!(
        save(&feed, r#"{"id":1,"n":9007199254740993,"a":[2,1]}"#),
        Outcome::Updated
    );
}

#[test]
fn ignored_fields_are_no_change_and_survive_a_crash() {
    let disk = MemoryStorage::new();
    let store = open(&disk);
    let feed = store.feed("c", "m").unwrap();
    assert_eq!(
        save(&feed, r#"{"id":"a","v":1,"fetched_at":1}"#),
        Outcome::Added
    );
    assert_eq!(
        save(&feed, r#"{"id":"a","v":1,"fetched_at":2}"#),
        Outcome::Updated
    );
    feed.configure(FeedOptions::new().ignored_fields(["fetched_at"]))
        .unwrap();
    for store in [store, open(&disk.crash(Survivors::Synced))] {
        let feed = store.feed("c", "m").unwrap();
        assert_eq!(
            feed.options(),
            FeedOptions::new().ignored_fields(["fetched_at"])
        );
        assert_eq!(
            save(&feed, r#"{"id":"a","v":1,"fetched_at":3}"#),
            Outcome::Unchanged
        );
        assert_eq!(
            save(&feed, r#"{"id":"a","v":2,"fetched_at":3}"#),
            Outcome::Updated
        );
        // What was equal only because of the option is a change again without it.
        assert_eq!(
            save(&feed, r#"{"id":"a","v":2,"fetched_at":4}"#),
            Outcome::Unchanged
        );
        feed.configure(FeedOptions::new()).unwrap();
        assert_eq!(
            save(&feed, r#"{"id":"a","v":2,"fetched_at":4}"#),
            Outcome::Updated
        );
    }
}

#[test]
fn raw_and_json_are_different_content() {
    let feed = open(&MemoryStorage::new()).feed("c", "m").unwrap();
    let text = r#"{"id":"a","v":1}"#;
    let raw = |text: &str| feed.batch_save_raw(&[("a", text)]).unwrap().outcomes[0];
    assert_eq!(save(&feed, text), Outcome::Added);
    assert_eq!(save(&feed, r#"{"v":1,"id":"a"}"#), Outcome::Unchanged);
    assert_eq!(raw(r#"{"v":1,"id":"a"}"#), Outcome::Updated);
    assert_eq!(raw(r#"{"v":1,"id":"a"}"#), Outcome::Unchanged);
    assert_eq!(save(&feed, r#"{"v":1,"id":"a"}"#), Outcome::Updated);
    let updated = feed.batch_update(&[json!({"id": "a", "v": 2})]).unwrap();
    assert_eq!(updated.outcomes, [Outcome::Updated]);
}

#[test]
fn checkpoints_have_versions_and_a_batch_sees_its_own() {
    let store = open(&MemoryStorage::new());
    let read = || store.checkpoint("c", "s", "").unwrap();
    let write =
        |value: u32, expected| store.save_checkpoint("c", "s", "", &json!({"at": value}), expected);
    write(1, Expected::Absent).unwrap();
    assert!(matches!(
        write(2, Expected::Absent),
        Err(Error::CheckpointConflict { found: Some(1) })
    ));
    write(2, Expected::Version(1)).unwrap();
    assert_eq!(read().map(|found| found.version), Some(2));
    store
        .clear_checkpoint("c", "s", "", Expected::Version(2))
        .unwrap();
    store.clear_checkpoint("c", "s", "", Expected::Any).unwrap();
    assert_eq!(read(), None);

    let mut batch = store.batch("c");
    batch
        .checkpoint("s", "", &json!({"at": 3}), Expected::Absent)
        .unwrap();
    batch.clear_checkpoint("s", "", Expected::Any).unwrap();
    let _ = batch.commit().unwrap();
    assert_eq!(read(), None, "the clear comes after the save");
    write(4, Expected::Absent).unwrap();
    assert!(read().unwrap().version > 3, "no version comes back");
}

#[test]
fn connection_metadata_is_replaced_or_merged_field_by_field() {
    let store = open(&MemoryStorage::new());
    assert_eq!(store.connection_metadata("c").unwrap(), None);
    store
        .set_connection_metadata("c", &json!({"a": 1, "b": {"x": 1}}))
        .unwrap();
    store
        .update_connection_metadata("c", &json!({"b": 2, "n": null}))
        .unwrap();
    let found = store.connection_metadata("c").unwrap().unwrap();
    let found: serde_json::Value = serde_json::from_slice(&found).unwrap();
    assert_eq!(found, json!({"a": 1, "b": 2, "n": null}));
    assert!(matches!(
        store.set_connection_metadata("c", &json!([1])),
        Err(Error::InvalidDocument { .. })
    ));
}

#[test]
fn one_invalid_record_refuses_the_whole_batch() {
    let feed = open(&MemoryStorage::new()).feed("c", "m").unwrap();
    let refused = feed.batch_save(&[json!({"id": "a"}), json!({"id": ""})]);
    assert!(matches!(
        refused,
        Err(Error::InvalidRecord { index: 1, .. })
    ));
    let refused = feed.batch_save_raw(&[("a", ""), ("b\0", "")]);
    assert!(matches!(
        refused,
        Err(Error::InvalidRecord { index: 1, .. })
    ));
    assert_eq!(feed.count().unwrap(), 0);
    let applied = feed.batch_save(&Vec::<serde_json::Value>::new()).unwrap();
    assert!(applied.outcomes.is_empty());
}

/// A segment that was made for a commit which never came must not hide the commits after it.
#[test]
fn a_segment_without_frames_hides_nothing() {
    let options = || {
        Options::new()
            .background(false)
            .secret([5; 32])
            .segment_size(4096)
    };
    let open = |disk: &MemoryStorage| {
        options()
            .storage(Arc::new(disk.clone()))
            .open("/store")
            .unwrap()
    };
    let body = "x".repeat(700);
    let large: Vec<(String, &str)> = (0..4).map(|n| (format!("big{n}"), body.as_str())).collect();
    for stop in 0..12 {
        let disk = MemoryStorage::new();
        let store = open(&disk);
        let _ = store
            .feed("c", "m")
            .unwrap()
            .batch_save_raw(&large[..2])
            .unwrap();
        store.close().unwrap();
        let store = open(&disk);
        let (m, n) = (store.feed("c", "m").unwrap(), store.feed("c", "n").unwrap());
        disk.stop_at(disk.operations() + stop);
        // Several frames, of which the first fits into the segment and a later one does not.
        let mut batch = store.batch("c");
        batch.save_raw(&m, &[("small", "1")]).unwrap();
        batch.save_raw(&n, &large).unwrap();
        let _ = batch.commit();
        for survivors in [Survivors::Synced, Survivors::All] {
            let disk = disk.crash(survivors);
            let store = open(&disk);
            let feed = store.feed("c", "m").unwrap();
            for round in 0..6 {
                let _ = feed
                    .batch_save_raw(&[("after", round.to_string())])
                    .unwrap();
            }
            let expected: Vec<_> = feed.records(None).map(Result::unwrap).collect();
            let store = open(&disk.crash(Survivors::Synced));
            let found: Vec<_> = store
                .feed("c", "m")
                .unwrap()
                .records(None)
                .map(Result::unwrap)
                .collect();
            assert_eq!(found, expected, "stopped at {stop}, {survivors:?}");
        }
    }
}

#[test]
fn small_commits_share_reads_and_each_feed_sees_its_own() {
    let disk = MemoryStorage::new();
    let store = open(&disk);
    let feeds = ["a", "b"].map(|model| store.feed("c", model).unwrap());
    for n in 0..50 {
        let record = (format!("id {n}"), format!("payload {n}"));
        for feed in &feeds {
            let _ = feed.batch_save_raw(std::slice::from_ref(&record)).unwrap();
        }
    }
    let _ = feeds[0].batch_delete(&["id 7"]).unwrap();
    for feed in &feeds {
        let before = disk.counts().reads;
        let page = feed.list(&List::new().filter(Action::Added)).unwrap();
        let reads = disk.counts().reads - before;
        assert!(reads <= 3, "{reads} reads");
        let expected = if feed.key().model == "a" { 49 } else { 50 };
        assert_eq!(page.len(), expected);
        for record in page.iter() {
            let payload = record.id.replace("id", "payload");
            assert_eq!(record.payload, Some(payload.as_bytes()));
        }
    }
}
