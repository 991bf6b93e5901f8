//! A store from the outside: write, read, reopen.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
use highwater::*;
use serde_json::json;

#[test]
fn a_store_reopens_with_everything() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let feed = store.feed("c", "m").unwrap();
    let applied = feed
        .batch_save(
            &(0..3000)
                .map(|i| json!({"id": i, "name": format!("n{i}")}))
                .collect::<Vec<_>>(),
        )
        .unwrap();
    assert_eq!(applied.totals.added, 3000);
    let applied = feed
        .batch_save(&[json!({"name": "n1", "id": 1.0}), json!({"id": 2})])
        .unwrap();
    assert_eq!(applied.outcomes, [Outcome::Unchanged, Outcome::Updated]);
    let _ = feed.batch_delete(&["7"]).unwrap();
    let applied = feed
        .batch_update(&[json!({"id": 8, "x": {"y": 1}})])
        .unwrap();
    assert_eq!(applied.totals.updated, 1);
    let before: Vec<_> = feed.records(None).map(|r| r.unwrap()).collect();
    assert_eq!(before.len(), 3000);
    assert_eq!(feed.count().unwrap(), 2999);
    let c = feed.last_cursor().unwrap();
    store.close().unwrap();
    assert!(matches!(feed.count(), Err(Error::Closed)));
    let store = Store::open(dir.path()).unwrap();
    let feed = store.feed("c", "m").unwrap();
    let after: Vec<_> = feed.records(None).map(|r| r.unwrap()).collect();
    assert_eq!(before, after);
    assert_eq!(feed.last_cursor().unwrap(), c);
    let got = feed.get(&["7", "8", "nope"]).unwrap();
    assert_eq!(got.len(), 2);
    assert!(got.get(0).unwrap().is_deleted());
    assert_eq!(
        got.get(1).unwrap().payload.unwrap(),
        br#"{"id":8,"name":"n8","x":{"y":1}}"#
    );
    let report = store.verify(|_, _| {}).unwrap();
    assert!(report.is_clean(), "{report:?}");
    drop((store, feed));
    let store = Options::new().rebuild(dir.path()).unwrap();
    let feed = store.feed("c", "m").unwrap();
    let after: Vec<_> = feed.records(None).map(|r| r.unwrap()).collect();
    assert_eq!(before, after);
}
