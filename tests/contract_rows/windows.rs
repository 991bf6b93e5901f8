//! Deletion detection.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use highwater::{
    Action, Error, Event, Feed, FeedOptions, List, Outcome, RunOptions, Sweep, SyncKey,
};
use serde_json::json;

use crate::world::{World, delete, ids, last, live, prune_all, put, shown, sync};

fn with_three(world: &World) -> Feed {
    let feed = world.feed();
    let _ = feed
        .batch_save_raw(&[("a", "1"), ("b", "1"), ("c", "1")])
        .unwrap();
    feed
}

fn sweep(feed: &Feed) -> Vec<String> {
    let swept = feed
        .track_deletes_end(&Sweep::new().return_ids(true))
        .unwrap();
    assert_eq!(swept.deleted, swept.ids.len() as u64);
    assert_eq!(swept.last_cursor.is_some(), swept.deleted > 0);
    swept.ids
}

#[test]
fn a_sweep_deletes_what_was_neither_seen_nor_added() {
    let mut world = World::new();
    let feed = with_three(&world);
    assert!(feed.track_deletes_start().unwrap());
    assert_eq!(put(&feed, "b", "1"), Outcome::Unchanged);
    assert_eq!(put(&feed, "d", "1"), Outcome::Added);
    assert_eq!(sweep(&feed), ["a", "c"]);
    world.however_it_ends(|world| {
        assert_eq!(ids(&world.feed()), ["b", "d", "a", "c"]);
        assert_eq!(world.feed().count().unwrap(), 2);
        let deleted = &shown(&world.feed())[2];
        assert_eq!(deleted.last_action, Action::Deleted);
        assert_eq!(deleted.payload.as_deref(), Some(b"1".as_slice()));
    });
}

/// Whatever became of the id: a name is a sign of life.
#[test]
fn every_write_marks_the_ids_it_names_whatever_the_outcome() {
    let world = World::new();
    let feed = world.feed();
    let names = [
        "same",
        "other-spelling",
        "updated",
        "unchanged",
        "pruned",
        "skipped",
        "twice",
    ];
    let json: Vec<_> = names.map(|id| json!({"id": id, "v": 1})).to_vec();
    let _ = feed.batch_save(&json[4..5]).unwrap();
    prune_all(&feed);
    let _ = feed.batch_save(&[&json[..4], &json[5..]].concat()).unwrap();
    put(&feed, "unseen", "1");
    let before = last(&feed);
    let run = world.store.begin_run(&sync(), RunOptions::new()).unwrap();
    let _ = run
        .feed("m")
        .unwrap()
        .batch_save(&[json!({"id": "skipped", "v": 2})])
        .unwrap();
    feed.track_deletes_start().unwrap();
    let outcome = |applied: highwater::Result<highwater::Applied>| applied.unwrap().outcomes[0];
    assert_eq!(outcome(feed.batch_save(&json[..1])), Outcome::Unchanged);
    let spelt =
        serde_json::value::RawValue::from_string(r#"{"v":1.0,"id":"other-spelling"}"#.into());
    assert_eq!(
        outcome(feed.batch_save(&[spelt.unwrap()])),
        Outcome::Unchanged
    );
    assert_eq!(
        outcome(feed.batch_update(&[json!({"id": "updated", "v": 2})])),
        Outcome::Updated
    );
    assert_eq!(
        outcome(feed.batch_update(&[json!({"id": "unchanged", "v": 1})])),
        Outcome::Unchanged
    );
    assert_eq!(
        outcome(feed.batch_update(&[json!({"id": "pruned", "v": 2})])),
        Outcome::Pruned
    );
    let merging = feed.ignore_if_modified_after(before);
    assert_eq!(
        outcome(merging.batch_save(&[json!({"id": "skipped", "v": 3})])),
        Outcome::Skipped
    );
    let twice = feed.batch_save(&[&json[6], &json[6]]).unwrap();
    assert_eq!(twice.outcomes, [Outcome::Unchanged, Outcome::Duplicate]);
    assert_eq!(sweep(&feed), ["unseen"]);
}

#[test]
fn a_window_is_opened_once_and_survives_crashes_and_reopens() {
    let mut world = World::new();
    let feed = with_three(&world);
    assert!(feed.track_deletes_start().unwrap());
    put(&feed, "a", "1");
    assert!(!feed.track_deletes_start().unwrap(), "it goes on as it was");
    // Marks are as durable as the next thing that is saved after them.
    put(&feed, "d", "1");
    drop(feed);
    world.crash();
    assert!(!world.feed().track_deletes_start().unwrap());
    put(&world.feed(), "b", "1");
    world.store.checkpoint_catalog().unwrap();
    world.reopen();
    let feed = world.feed();
    assert_eq!(feed.stats().unwrap().windows, 1);
    assert_eq!(sweep(&feed), ["c"]);
    assert_eq!(feed.stats().unwrap().windows, 0);
}

#[test]
fn seen_marks_are_as_durable_as_the_checkpoint_next_to_them() {
    let mut world = World::new();
    let feed = with_three(&world);
    feed.track_deletes_start().unwrap();
    put(&feed, "a", "1");
    let expected = highwater::Expected::Any;
    let at = json!({"page": 1});
    world
        .store
        .save_checkpoint("c", "sync", "", &at, expected)
        .unwrap();
    drop(feed);
    world.crash();
    assert!(world.store.checkpoint("c", "sync", "").unwrap().is_some());
    assert_eq!(sweep(&world.feed()), ["b", "c"]);
}

#[test]
fn ending_without_a_start_is_an_error() {
    let world = World::new();
    let feed = with_three(&world);
    assert!(matches!(
        feed.track_deletes_end(&Sweep::new()),
        Err(Error::NoWindow { .. })
    ));
    feed.track_deletes_start().unwrap();
    assert_eq!(sweep(&feed), ["a", "b", "c"]);
    assert!(matches!(
        feed.track_deletes_end(&Sweep::new()),
        Err(Error::NoWindow { .. })
    ));
}

#[test]
fn an_interrupted_full_fetch_deletes_nothing() {
    let mut world = World::new();
    let feed = with_three(&world);
    feed.track_deletes_start().unwrap();
    drop(feed);
    world.however_it_ends(|world| assert_eq!(world.feed().count().unwrap(), 3));
}

#[test]
fn changed_a_sweep_is_one_commit_that_readers_see_whole() {
    let world = World::new();
    let feed = world.feed();
    let records: Vec<(String, &str)> = (0..3000).map(|n| (format!("r{n}"), "1")).collect();
    let _ = feed.batch_save_raw(&records).unwrap();
    let before = last(&feed);
    feed.track_deletes_start().unwrap();
    let done = Arc::new(AtomicBool::new(false));
    let reader = {
        let (feed, done) = (feed.clone(), done.clone());
        std::thread::spawn(move || {
            while !done.load(Ordering::Acquire) {
                let count = feed.count().unwrap();
                assert!(count == 3000 || count == 0, "{count} of 3000 left");
                let page = feed.list(&List::new().after(before).limit(10_000)).unwrap();
                assert!(page.is_empty() || page.len() == 3000);
            }
        })
    };
    let events = world.store.subscribe().unwrap();
    assert_eq!(feed.track_deletes_end(&Sweep::new()).unwrap().deleted, 3000);
    done.store(true, Ordering::Release);
    reader.join().unwrap();
    let Some(Event::Commit(commit)) = events.try_next() else {
        panic!("the sweep is a commit")
    };
    assert_eq!(commit.totals.deleted, 3000);
    assert_eq!(commit.last_cursor, last(&feed));
    assert_eq!(events.try_next(), None);
}

#[test]
fn new_a_sweep_guard_refuses_keeps_the_window_open_and_can_be_forced() {
    let mut world = World::new();
    let feed = with_three(&world);
    put(&feed, "d", "1");
    feed.track_deletes_start().unwrap();
    put(&feed, "d", "1");
    let before = shown(&feed);
    for guarded in [
        Sweep::new().max_deleted(2),
        Sweep::new().max_fraction(0.74),
        Sweep::new().max_deleted(3).max_fraction(0.5),
    ] {
        let refused = feed.track_deletes_end(&guarded);
        assert!(matches!(
            refused,
            Err(Error::SweepRefused {
                would_delete: 3,
                live: 4
            })
        ));
        assert_eq!(shown(&feed), before, "nothing was deleted");
    }
    drop(feed);
    world.crash();
    let feed = world.feed();
    // Still open, and it goes on seeing.
    put(&feed, "c", "1");
    assert!(
        feed.track_deletes_end(&Sweep::new().max_deleted(1))
            .is_err()
    );
    let forced = Sweep::new().max_deleted(0).force(true).return_ids(true);
    let swept = feed.track_deletes_end(&forced).unwrap();
    assert!(
        swept.ids.starts_with(&["a".to_owned(), "b".to_owned()]),
        "{swept:?}"
    );
    assert!(!live(&feed).contains_key("a"));
}

#[test]
fn new_a_sweep_at_the_guard_is_allowed() {
    let world = World::new();
    let feed = with_three(&world);
    put(&feed, "d", "1");
    feed.track_deletes_start().unwrap();
    let _ = feed.batch_save_raw(&[("a", "1"), ("b", "1")]).unwrap();
    let guarded = Sweep::new().max_deleted(2).max_fraction(0.5);
    assert_eq!(feed.track_deletes_end(&guarded).unwrap().deleted, 2);
}

#[test]
fn records_deleted_in_the_window_are_not_deleted_twice() {
    let world = World::new();
    let feed = with_three(&world);
    delete(&feed, "a");
    feed.track_deletes_start().unwrap();
    delete(&feed, "b");
    let deletion = shown(&feed).last().unwrap().cursor;
    assert_eq!(sweep(&feed), ["c"]);
    assert_eq!(crate::world::record(&feed, "b").cursor, deletion);
}

#[test]
fn windows_of_different_syncs_and_feeds_are_their_own() {
    let world = World::new();
    let feed = with_three(&world);
    let elsewhere = world.store.feed_variant("c", "m", "eu").unwrap();
    put(&elsewhere, "a", "1");
    let other = SyncKey::new("c", "other", "").unwrap();
    let one = world.store.begin_run(&sync(), RunOptions::new()).unwrap();
    let two = world.store.begin_run(&other, RunOptions::new()).unwrap();
    let (one_feed, two_feed) = (one.feed("m").unwrap(), two.feed("m").unwrap());
    one_feed.track_deletes_start().unwrap();
    put(&feed, "a", "1");
    two_feed.track_deletes_start().unwrap();
    put(&two_feed, "b", "1");
    assert!(elsewhere.track_deletes_end(&Sweep::new()).is_err());
    // What was seen before the second window was opened, it did not see; the first one saw both.
    assert_eq!(sweep(&one_feed), ["c"]);
    assert_eq!(sweep(&two_feed), ["a"]);
    assert_eq!(elsewhere.count().unwrap(), 1);
    // A later run of the sync finds the window of an earlier one.
    one_feed.track_deletes_start().unwrap();
    drop(one);
    let later = world.store.begin_run(&sync(), RunOptions::new()).unwrap();
    assert_eq!(sweep(&later.feed("m").unwrap()), ["b"]);
}

#[test]
fn a_sync_that_sweeps_its_own_records_leaves_those_of_others() {
    let mut world = World::new();
    let other = SyncKey::new("c", "other", "").unwrap();
    for (sync, id) in [(&sync(), "mine"), (&other, "theirs"), (&sync(), "seen")] {
        let run = world.store.begin_run(sync, RunOptions::new()).unwrap();
        put(&run.feed("m").unwrap(), id, "1");
        run.succeed().unwrap();
    }
    put(&world.feed(), "nobody's", "1");
    world.reopen();
    let run = world.store.begin_run(&sync(), RunOptions::new()).unwrap();
    let feed = run.feed("m").unwrap();
    feed.track_deletes_start().unwrap();
    put(&feed, "seen", "1");
    let swept = feed
        .track_deletes_end(&Sweep::new().own_records(true).return_ids(true))
        .unwrap();
    assert_eq!(swept.ids, ["mine"]);
}

#[test]
fn a_feed_that_tracks_owners_knows_who_saved_a_record_last() {
    let mut world = World::new();
    world
        .feed()
        .configure(FeedOptions::new().track_owner(true))
        .unwrap();
    let other = SyncKey::new("c", "other", "").unwrap();
    let save = |world: &World, sync: &SyncKey, ids: &[&str]| {
        let run = world.store.begin_run(sync, RunOptions::new()).unwrap();
        let records: Vec<(&str, &str)> = ids.iter().map(|id| (*id, "1")).collect();
        let _ = run.feed("m").unwrap().batch_save_raw(&records).unwrap();
        run.succeed().unwrap();
    };
    save(&world, &sync(), &["a", "b", "c"]);
    // Taken over without a change, and one of them taken back.
    save(&world, &other, &["b", "c"]);
    save(&world, &sync(), &["c"]);
    world.crash();
    world.store.checkpoint_catalog().unwrap();
    world.reopen();
    let run = world.store.begin_run(&sync(), RunOptions::new()).unwrap();
    let feed = run.feed("m").unwrap();
    feed.track_deletes_start().unwrap();
    let own = Sweep::new().own_records(true).return_ids(true);
    assert_eq!(feed.track_deletes_end(&own).unwrap().ids, ["a", "c"]);
    assert_eq!(live(&feed).into_keys().collect::<Vec<_>>(), ["b"]);
}
