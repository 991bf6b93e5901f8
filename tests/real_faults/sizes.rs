//! Ids, payloads and numbers of feeds at their limits, on a real disk.

use std::sync::Arc;

use highwater::storage::ManualClock;
use highwater::{Durability, Error, Options, RecordError, Store};
use serde_json::json;

fn relaxed() -> Options {
    Options::new().durability(Durability::Relaxed {
        interval: std::time::Duration::from_millis(50),
    })
}

#[test]
fn ids_up_to_255_bytes_are_kept_and_longer_ones_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = relaxed().open(dir.path()).unwrap();
    let feed = store.feed("c", "m").unwrap();
    let longest = [
        "a".repeat(255),
        "ä".repeat(127) + "b",
        "🦀".repeat(63) + "ccc",
    ];
    let raw = longest.clone().map(|id| (id, "raw"));
    let _ = feed.batch_save_raw(&raw).unwrap();
    let _ = feed.batch_save(&[json!({"id": "j".repeat(255)})]).unwrap();
    for id in [
        "a".repeat(256),
        "ä".repeat(128),
        "x".repeat(70_000),
        String::new(),
    ] {
        let given = id.len();
        let refusals = [
            feed.batch_save_raw(&[("fine", "1"), (id.as_str(), "1")]),
            feed.batch_save(&[json!({"id": "fine"}), json!({"id": id})]),
        ];
        for refused in refusals {
            let Err(Error::InvalidRecord { index: 1, reason }) = refused else {
                panic!("{given}: {refused:?}");
            };
            assert_eq!(reason, RecordError::IdLength { given });
        }
    }
    store.close().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let feed = store.feed("c", "m").unwrap();
    assert_eq!(
        feed.count().unwrap(),
        4,
        "of a refused batch nothing is saved"
    );
    assert_eq!(feed.get(&longest).unwrap().len(), 3);
}

#[test]
fn payloads_up_to_the_limit_are_kept_whole_whatever_a_segment_holds() {
    const MAX: usize = 16 << 20;
    let dir = tempfile::tempdir().unwrap();
    let options = || relaxed().segment_size(1 << 20);
    let store = options().open(dir.path()).unwrap();
    let feed = store.feed("c", "m").unwrap();
    let body: Vec<u8> = (0..MAX).map(|at| (at % 251) as u8).collect();
    let _ = feed
        .batch_save_raw(&[("a", body.as_slice()), ("b", &body[1..])])
        .unwrap();
    let text = "x".repeat(MAX - 17);
    let _ = feed.batch_save(&[json!({"id": "c", "t": text})]).unwrap();
    let longer = [body.as_slice(), &[0]].concat();
    let refused = feed.batch_save_raw(&[("a", longer.as_slice())]);
    let Err(Error::InvalidRecord { index: 0, reason }) = refused else {
        panic!("{refused:?}");
    };
    let (given, max) = (MAX + 1, MAX);
    assert_eq!(reason, RecordError::TooLarge { given, max });
    let refused = feed.batch_save(&[json!({"id": "c", "t": text + "1234"})]);
    assert!(
        matches!(refused, Err(Error::InvalidRecord { .. })),
        "{refused:?}"
    );
    store.flush().unwrap();
    drop((feed, store));
    let store = options().open(dir.path()).unwrap();
    let feed = store.feed("c", "m").unwrap();
    let _ = store.compact().unwrap();
    let page = feed.get(&["a", "b", "c"]).unwrap();
    let payloads: Vec<_> = page.iter().map(|record| record.payload.unwrap()).collect();
    assert!(payloads[0] == body && payloads[1] == &body[1..]);
    assert!(payloads[2].len() <= MAX && payloads[2].len() > MAX - 10);
    assert!(store.verify(|_, _| {}).unwrap().is_clean());
}

#[test]
fn a_hundred_thousand_feeds_are_all_there_after_a_reopen() {
    const FEEDS: usize = 100_000;
    const PART: usize = 5000;
    let dir = tempfile::tempdir().unwrap();
    let store = relaxed().open(dir.path()).unwrap();
    let name = |feed: usize| format!("feed-{feed}");
    for part in (0..FEEDS).step_by(PART) {
        let mut batch = store.batch("c");
        for feed in part..part + PART {
            let id = feed.to_string();
            let target = store.feed("c", &name(feed)).unwrap();
            batch.save_raw(&target, &[(id.as_str(), "1")]).unwrap();
        }
        let _ = batch.commit().unwrap();
    }
    store.close().unwrap();
    let store = relaxed().open(dir.path()).unwrap();
    assert_eq!(store.feeds().unwrap().len(), FEEDS);
    for feed in (0..FEEDS).step_by(997) {
        let target = store.feed("c", &name(feed)).unwrap();
        assert_eq!(target.count().unwrap(), 1);
        let page = target.get(&[feed.to_string()]).unwrap();
        assert_eq!(page.iter().next().unwrap().payload, Some(&b"1"[..]));
    }
}

#[test]
fn a_clock_that_was_set_back_between_sessions_changes_no_order() {
    let dir = tempfile::tempdir().unwrap();
    let start = 1_700_000_000_000_000;
    let mut last = None;
    let mut times = Vec::new();
    // Ten years back, to the epoch, and forward again.
    for (round, now) in [start, start - 315_000_000_000_000, 0, start + 1]
        .into_iter()
        .enumerate()
    {
        let clock = Arc::new(ManualClock::new(now));
        let store = Options::new()
            .clock(clock.clone())
            .open(dir.path())
            .unwrap();
        let feed = store.feed("c", "m").unwrap();
        for at in 0..3 {
            let record = json!({"id": at, "round": round});
            let applied = feed.batch_save(&[record]).unwrap();
            assert!(applied.last_cursor > last);
            last = applied.last_cursor;
            clock.set(now.saturating_sub(at * 1000));
        }
        let records: Vec<_> = feed.records(None).map(Result::unwrap).collect();
        assert_eq!(records.len(), 3);
        times.extend(records.iter().map(|record| record.last_modified_at));
        assert!(store.verify(|_, _| {}).unwrap().is_clean());
        // Half of the times the store is just dropped.
        if round % 2 == 0 {
            store.close().unwrap();
        }
    }
    assert!(times.is_sorted(), "{times:?}");
}
