//! What is wrong in memory alone is found too, so these tests put it there.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::PathBuf;
use std::sync::Arc;

use crate::engine::Engine;
use crate::error::Error;
use crate::feed::published::Published;
use crate::feed::state::FeedState;
use crate::log::SegmentId;
use crate::options::Options;
use crate::state::{StateKey, StateOp};
use crate::storage::MemoryStorage;
use crate::store::Store;

/// A store with a feed in which record 1 was changed, and 2 deleted.
fn store() -> (Store, Arc<FeedState>) {
    let options = Options::new().segment_size(4096).background(false);
    let storage = Arc::new(MemoryStorage::new());
    let store = options.storage(storage).secret([1; 32]).open("/s").unwrap();
    let feed = store.feed("c", "m").unwrap();
    let _ = feed
        .batch_save_raw(&[("1", "a"), ("2", "bb"), ("3", "c")])
        .unwrap();
    let _ = feed.batch_save_raw(&[("1", "d")]).unwrap();
    let _ = feed.batch_delete(&["2"]).unwrap();
    let state = feed.slot.current();
    (store, state)
}

/// What is found once something is changed behind the store's back.
fn found(change: impl FnOnce(&Engine, &mut Published)) -> Vec<&'static str> {
    let (store, feed) = store();
    assert!(store.verify(|_, _| {}).unwrap().is_clean());
    change(&store.engine, &mut feed.published.write());
    let damage = store.verify(|_, _| {}).unwrap().damage;
    let what = |error| match error {
        Error::Corrupt { what, .. } => what,
        error => panic!("{error:?}"),
    };
    damage.into_iter().map(what).collect()
}

/// Where damage is reported when a byte of the only segment is another one.
fn reported_at(at: u64) -> Vec<u64> {
    let (disk, store, path) = three_records();
    disk.flip(&path, at, 1).unwrap();
    let damage = store.verify(|_, _| {}).unwrap().damage;
    let offset = |error| match error {
        Error::Corrupt { offset, .. } => offset,
        error => panic!("{error:?}"),
    };
    damage.into_iter().map(offset).collect()
}

fn three_records() -> (MemoryStorage, Store, PathBuf) {
    let disk = MemoryStorage::new();
    let options = Options::new().background(false).secret([1; 32]);
    let store = options.storage(Arc::new(disk.clone())).open("/s").unwrap();
    let feed = store.feed("c", "m").unwrap();
    let records = [("1", "first"), ("2", "second"), ("3", "third!")];
    let _ = feed.batch_save_raw(&records).unwrap();
    let path = SegmentId(1).path("/s/log".as_ref());
    (disk, store, path)
}

#[test]
fn damage_is_reported_where_it_is() {
    let (disk, _store, path) = three_records();
    let bytes = disk.read_file(&path).unwrap();
    let place = |text: &[u8]| {
        let at = bytes.windows(text.len()).position(|window| window == text);
        at.unwrap() as u64
    };
    // With the start of the payload that is not what was written.
    for payload in [b"first".as_slice(), b"second", b"third!"] {
        let at = place(payload);
        assert_eq!(reported_at(at + 2), [at]);
    }
    // With the byte itself, where no record is.
    let end = place(b"third!") + 6;
    let padding = end..end.next_multiple_of(8);
    assert!(!padding.is_empty());
    for at in padding {
        assert_eq!(reported_at(at), [at]);
    }
}

#[test]
fn live_bits_are_compared_with_the_index() {
    let lost = found(|_, published| published.directory.retire(&[3]));
    assert_eq!(lost, ["a version that is superseded counts as the newest"]);
    let back = found(|_, published| {
        let mut frames = published.directory.to_vec();
        frames[0].revive(1).unwrap();
        published.directory = crate::feed::directory::Directory::restore(frames);
    });
    assert_eq!(back, ["a version that is not the newest counts as it"]);
}

#[test]
fn counts_are_compared_with_the_records() {
    let wrong = ["a feed counts other records than it shows"];
    assert_eq!(found(|_, published| published.live += 1), wrong);
    assert_eq!(found(|_, published| published.live_bytes += 1), wrong);
}

#[test]
fn places_are_compared_with_the_log() {
    let elsewhere = found(|_, published| {
        let mut frames = published.directory.to_vec();
        frames[1].offset += 8;
        published.directory = crate::feed::directory::Directory::restore(frames);
    });
    assert_eq!(elsewhere, ["a feed has a frame here that is not there"]);
}

#[test]
fn the_state_is_compared_with_the_log() {
    let operation = |value: Option<&[u8]>| StateOp {
        key: StateKey::metadata("c"),
        value: value.map(<[u8]>::to_vec),
    };
    let unknown = found(|engine, _| engine.state.publish(&[operation(Some(b"{}"))]));
    assert_eq!(unknown, ["a value of the state is not in the log"]);
    let (store, _) = store();
    store
        .set_connection_metadata("c", &serde_json::json!({"a": 1}))
        .unwrap();
    assert!(store.verify(|_, _| {}).unwrap().is_clean());
    for value in [None, Some(b"{}".as_slice())] {
        store.engine.state.publish(&[operation(value)]);
        let damage = store.verify(|_, _| {}).unwrap().damage;
        assert_eq!(damage.len(), 1, "{damage:?}");
        assert!(damage[0].to_string().ends_with("is not what the log says"));
    }
}

#[test]
fn packs_of_the_manifest_must_be_there() {
    let missing = found(|engine, _| engine.manifest.lock().packs.push(SegmentId::pack(7)));
    assert_eq!(missing, ["the pack is missing"]);
}
