//! The tables of `batch_save`, `batch_delete` and `batch_update`, and the merging strategy.

use highwater::{Action, Error, Feed, FeedOptions, Outcome, RunOptions};
use serde_json::json;

use crate::world::{
    SECOND, START, World, delete, ids, last, live, prune_all, put, record, shown, sync,
};

/// Saves "a" and, behind it, "z", so that it shows whether "a" moves to the tail.
fn with_a(world: &World) -> Feed {
    let feed = world.feed();
    put(&feed, "a", "1");
    put(&feed, "z", "1");
    world.clock.set(START + SECOND);
    feed
}

/// What the contract's table tells of a record after a save.
fn row(feed: &Feed, id: &str) -> (Action, u64, Option<String>, bool) {
    let found = record(feed, id);
    let payload = found.payload.map(|bytes| String::from_utf8(bytes).unwrap());
    assert_eq!(found.pruned_at.is_some(), payload.is_none());
    (
        found.last_action,
        found.first_seen_at.as_micros(),
        payload,
        ids(feed).last().unwrap() == id,
    )
}

#[test]
fn batch_save_absent_is_added_at_the_tail() {
    let mut world = World::new();
    let feed = with_a(&world);
    assert_eq!(put(&feed, "b", "1"), Outcome::Added);
    world.however_it_ends(|world| {
        let expected = (Action::Added, START + SECOND, Some("1".to_owned()), true);
        assert_eq!(row(&world.feed(), "b"), expected);
        assert_eq!(world.feed().count().unwrap(), 3);
    });
}

#[test]
fn batch_save_live_same_content_is_unchanged_and_stays() {
    let mut world = World::new();
    let feed = with_a(&world);
    let before = shown(&feed);
    assert_eq!(put(&feed, "a", "1"), Outcome::Unchanged);
    world.however_it_ends(|world| assert_eq!(shown(&world.feed()), before));
}

#[test]
fn batch_save_live_other_content_is_updated_and_moves() {
    let mut world = World::new();
    let feed = with_a(&world);
    assert_eq!(put(&feed, "a", "2"), Outcome::Updated);
    world.however_it_ends(|world| {
        let expected = (Action::Updated, START, Some("2".to_owned()), true);
        assert_eq!(row(&world.feed(), "a"), expected);
        assert_eq!(
            record(&world.feed(), "a").last_modified_at.as_micros(),
            START + SECOND
        );
    });
}

#[test]
fn batch_save_live_pruned_same_content_is_restored_and_moves() {
    let mut world = World::new();
    let feed = with_a(&world);
    prune_all(&feed);
    let cursor = last(&feed);
    assert_eq!(put(&feed, "a", "1"), Outcome::Restored);
    world.however_it_ends(|world| {
        let expected = (Action::Updated, START, Some("1".to_owned()), true);
        assert_eq!(row(&world.feed(), "a"), expected);
        assert_eq!(
            crate::world::told(&world.feed(), cursor),
            [(Action::Updated, "a".to_owned())],
            "consumers see that the payload is back"
        );
        assert_eq!(world.feed().size().unwrap(), 1);
    });
    // It is whole again: a partial update and an equal save find it so.
    assert_eq!(put(&world.feed(), "a", "1"), Outcome::Unchanged);
}

#[test]
fn batch_save_live_pruned_same_json_value_is_restored() {
    let world = World::new();
    let feed = world.feed();
    let record = json!({"id": "a", "v": 1});
    let _ = feed.batch_save(&[&record]).unwrap();
    prune_all(&feed);
    let applied = feed.batch_save(&[&record]).unwrap();
    assert_eq!(applied.outcomes, [Outcome::Restored]);
    assert_eq!(applied.totals.restored, 1);
}

#[test]
fn batch_save_live_pruned_same_content_stays_pruned_where_the_feed_keeps_it_so() {
    let mut world = World::new();
    let feed = with_a(&world);
    feed.configure(FeedOptions::new().keep_pruned(true))
        .unwrap();
    prune_all(&feed);
    let before = shown(&feed);
    assert_eq!(put(&feed, "a", "1"), Outcome::Unchanged);
    world.however_it_ends(|world| {
        let feed = world.feed();
        assert_eq!(shown(&feed), before);
        assert_eq!(put(&feed, "a", "1"), Outcome::Unchanged);
    });
    assert_eq!(put(&world.feed(), "a", "2"), Outcome::Updated);
    assert_eq!(live(&world.feed())["a"], Some("2".to_owned()));
}

#[test]
fn batch_save_live_pruned_other_content_is_updated_and_moves() {
    let mut world = World::new();
    let feed = with_a(&world);
    prune_all(&feed);
    assert_eq!(put(&feed, "a", "2"), Outcome::Updated);
    world.however_it_ends(|world| {
        let expected = (Action::Updated, START, Some("2".to_owned()), true);
        assert_eq!(row(&world.feed(), "a"), expected);
    });
}

#[test]
fn batch_save_deleted_is_added_again_and_seen_for_the_first_time() {
    let mut world = World::new();
    let feed = with_a(&world);
    delete(&feed, "a");
    put(&feed, "z", "2");
    world.clock.advance(SECOND);
    assert_eq!(
        put(&feed, "a", "1"),
        Outcome::Added,
        "though it is the same"
    );
    world.however_it_ends(|world| {
        let expected = (
            Action::Added,
            START + 2 * SECOND,
            Some("1".to_owned()),
            true,
        );
        assert_eq!(row(&world.feed(), "a"), expected);
        assert_eq!(record(&world.feed(), "a").deleted_at, None);
        assert_eq!(world.feed().count().unwrap(), 2);
    });
}

#[test]
fn batch_save_deleted_and_pruned_is_added_with_its_payload() {
    let mut world = World::new();
    let feed = with_a(&world);
    prune_all(&feed);
    delete(&feed, "a");
    assert_eq!(put(&feed, "a", "1"), Outcome::Added);
    world.however_it_ends(|world| {
        assert_eq!(live(&world.feed())["a"], Some("1".to_owned()));
        assert_eq!(world.feed().size().unwrap(), 1, "z is pruned");
    });
}

#[test]
fn changed_array_order_is_a_change() {
    let world = World::new();
    let feed = world.feed();
    let save = |value| feed.batch_save(&[value]).unwrap().outcomes[0];
    save(json!({"id": "a", "list": [1, 2]}));
    assert_eq!(save(json!({"list": [1, 2], "id": "a"})), Outcome::Unchanged);
    assert_eq!(save(json!({"id": "a", "list": [2, 1]})), Outcome::Updated);
}

#[test]
fn changed_records_of_a_batch_are_ordered_as_they_were_given() {
    let mut world = World::new();
    let feed = world.feed();
    let names: Vec<String> = (0..5000).map(|n| format!("r{}", n * 7919 % 5000)).collect();
    let records: Vec<(&String, &str)> = names.iter().map(|name| (name, "1")).collect();
    let _ = feed.batch_save_raw(&records).unwrap();
    world.however_it_ends(|world| assert_eq!(ids(&world.feed()), names));
}

#[test]
fn changed_of_an_id_given_twice_the_first_one_wins_over_any_batch_length() {
    let world = World::new();
    let feed = world.feed();
    let mut records: Vec<(String, String)> = (0..20_000)
        .map(|n| (format!("r{n}"), "first".to_owned()))
        .collect();
    records.push(("r0".to_owned(), "second".to_owned()));
    let applied = feed.batch_save_raw(&records).unwrap();
    assert_eq!(applied.outcomes.last(), Some(&Outcome::Duplicate));
    assert_eq!(
        (applied.totals.added, applied.totals.duplicate),
        (20_000, 1)
    );
    assert_eq!(record(&feed, "r0").payload.unwrap(), b"first");
}

#[test]
fn batch_delete_live_is_deleted_and_keeps_payload_and_first_seen() {
    let mut world = World::new();
    let feed = with_a(&world);
    assert_eq!(delete(&feed, "a"), Outcome::Deleted);
    world.however_it_ends(|world| {
        let expected = (Action::Deleted, START, Some("1".to_owned()), true);
        assert_eq!(row(&world.feed(), "a"), expected);
        let found = record(&world.feed(), "a");
        assert_eq!(found.deleted_at, Some(found.last_modified_at));
        assert_eq!(world.feed().count().unwrap(), 1);
        assert_eq!(world.feed().size().unwrap(), 1);
    });
}

#[test]
fn changed_deleting_a_deleted_record_is_unchanged() {
    let mut world = World::new();
    let feed = with_a(&world);
    delete(&feed, "a");
    let before = shown(&feed);
    world.clock.advance(SECOND);
    assert_eq!(delete(&feed, "a"), Outcome::Unchanged);
    world.however_it_ends(|world| assert_eq!(shown(&world.feed()), before));
}

#[test]
fn changed_deleting_an_unknown_record_is_not_found_and_leaves_no_trace() {
    let mut world = World::new();
    let feed = with_a(&world);
    let before = shown(&feed);
    let applied = feed.batch_delete(&["never", "a"]).unwrap();
    assert_eq!(applied.outcomes, [Outcome::NotFound, Outcome::Deleted]);
    assert_eq!(applied.totals.not_found, 1);
    let feed = world.feed();
    assert_eq!(ids(&feed), ["z", "a"]);
    assert_eq!(delete(&feed, "never"), Outcome::NotFound);
    assert_eq!(shown(&feed).len(), before.len());
    world.crash();
    assert_eq!(ids(&world.feed()), ["z", "a"]);
}

#[test]
fn batch_delete_live_and_pruned_is_deleted_and_still_pruned() {
    let mut world = World::new();
    let feed = with_a(&world);
    prune_all(&feed);
    let pruned = record(&feed, "a").pruned_at;
    assert!(pruned.is_some());
    world.clock.advance(SECOND);
    assert_eq!(delete(&feed, "a"), Outcome::Deleted);
    world.however_it_ends(|world| {
        let found = record(&world.feed(), "a");
        assert_eq!((found.payload, found.pruned_at), (None, pruned));
        assert_eq!(found.last_action, Action::Deleted);
        assert_eq!(world.feed().size().unwrap(), 0);
    });
}

fn with_json(world: &World) -> Feed {
    let feed = world.feed();
    let record = json!({"id": "a", "x": {"y": 1, "z": [1, 2]}, "keep": true});
    let _ = feed.batch_save(&[record]).unwrap();
    world.clock.set(START + SECOND);
    feed
}

fn update(feed: &Feed, partial: serde_json::Value) -> Outcome {
    feed.batch_update(&[partial]).unwrap().outcomes[0]
}

fn json_of(feed: &Feed, id: &str) -> serde_json::Value {
    serde_json::from_slice(&record(feed, id).payload.unwrap()).unwrap()
}

#[test]
fn batch_update_merges_objects_and_replaces_the_rest() {
    let mut world = World::new();
    let feed = with_json(&world);
    let partial = json!({"id": "a", "x": {"z": [3], "__proto__": {"p": null}}, "constructor": 1});
    assert_eq!(update(&feed, partial), Outcome::Updated);
    world.however_it_ends(|world| {
        let expected = json!({
            "id": "a", "x": {"y": 1, "z": [3], "__proto__": {"p": null}}, "keep": true,
            "constructor": 1
        });
        assert_eq!(json_of(&world.feed(), "a"), expected);
        let found = record(&world.feed(), "a");
        assert_eq!(found.last_action, Action::Updated);
        assert_eq!(found.first_seen_at.as_micros(), START);
    });
    assert_eq!(
        update(&world.feed(), json!({"id": "a", "x": null})),
        Outcome::Updated
    );
    assert_eq!(json_of(&world.feed(), "a")["x"], json!(null));
}

#[test]
fn changed_an_update_that_changes_nothing_is_unchanged() {
    let mut world = World::new();
    let feed = with_json(&world);
    let before = shown(&feed);
    assert_eq!(
        update(&feed, json!({"id": "a", "x": {"y": 1.0}})),
        Outcome::Unchanged
    );
    assert_eq!(shown(&feed), before);
    // The content is that of the merged value: saving it whole is no change either.
    assert_eq!(
        update(&feed, json!({"id": "a", "x": {"y": 2}})),
        Outcome::Updated
    );
    let whole = json!({"keep": true, "id": "a", "x": {"z": [1, 2], "y": 2}});
    assert_eq!(
        feed.batch_save(&[&whole]).unwrap().outcomes,
        [Outcome::Unchanged]
    );
    world.crash();
    let feed = world.feed();
    assert_eq!(
        feed.batch_save(&[&whole]).unwrap().outcomes,
        [Outcome::Unchanged]
    );
}

#[test]
fn batch_update_absent_or_deleted_is_not_found() {
    let world = World::new();
    let feed = with_json(&world);
    delete(&feed, "a");
    let before = shown(&feed);
    let applied = feed
        .batch_update(&[json!({"id": "a", "v": 1}), json!({"id": "b"})])
        .unwrap();
    assert_eq!(applied.outcomes, [Outcome::NotFound, Outcome::NotFound]);
    assert_eq!(shown(&feed), before);
}

#[test]
fn changed_updating_a_pruned_record_is_pruned_and_not_merged() {
    let mut world = World::new();
    let feed = with_json(&world);
    prune_all(&feed);
    let before = shown(&feed);
    assert_eq!(update(&feed, json!({"id": "a", "v": 1})), Outcome::Pruned);
    world.however_it_ends(|world| {
        assert_eq!(shown(&world.feed()), before);
        let applied = world
            .feed()
            .batch_update(&[json!({"id": "a", "v": 1})])
            .unwrap();
        assert_eq!((applied.totals.pruned, applied.last_cursor), (1, None));
    });
}

/// A run that has saved "mine", and after whose cursor others have changed "theirs".
fn someone_else_wrote(world: &World, merge: impl Fn(Feed)) {
    let outside = world.feed();
    for id in ["theirs", "gone", "old"] {
        put(&outside, id, "1");
    }
    let run = world.store.begin_run(&sync(), RunOptions::new()).unwrap();
    let feed = run.feed("m").unwrap();
    let feed = feed.ignore_if_modified_after(last(&feed));
    put(&feed, "mine", "1");
    put(&outside, "theirs", "2");
    delete(&outside, "gone");
    merge(feed);
    run.succeed().unwrap();
}

#[test]
fn merging_leaves_alone_what_somebody_else_changed_after_the_cursor() {
    let mut world = World::new();
    someone_else_wrote(&world, |feed| {
        assert_eq!(put(&feed, "theirs", "fetched before"), Outcome::Skipped);
        assert_eq!(put(&feed, "theirs", "2"), Outcome::Skipped);
        assert_eq!(put(&feed, "gone", "fetched before"), Outcome::Skipped);
        assert_eq!(delete(&feed, "theirs"), Outcome::Skipped);
        assert_eq!(update(&feed, json!({"id": "theirs"})), Outcome::Skipped);
        assert_eq!(put(&feed, "old", "2"), Outcome::Updated);
        assert_eq!(put(&feed, "new", "1"), Outcome::Added);
    });
    world.however_it_ends(|world| {
        let live = live(&world.feed());
        assert_eq!(live["theirs"], Some("2".to_owned()));
        assert!(!live.contains_key("gone"));
        let report = &world.store.runs(&sync()).unwrap()[0];
        assert_eq!(report.models["m"].skipped, 5);
    });
}

#[test]
fn changed_merging_holds_for_all_batches_of_a_run_and_never_blocks_its_own() {
    let world = World::new();
    someone_else_wrote(&world, |feed| {
        for round in 0..3 {
            assert_eq!(put(&feed, "mine", &format!("{round}+")), Outcome::Updated);
            assert_eq!(put(&feed, "old", &format!("{round}+")), Outcome::Updated);
            assert_eq!(put(&feed, "theirs", "x"), Outcome::Skipped);
        }
        assert_eq!(delete(&feed, "mine"), Outcome::Deleted);
        assert_eq!(put(&feed, "mine", "again"), Outcome::Added);
    });
}

#[test]
fn merging_tells_writers_apart_after_a_reopen() {
    let mut world = World::new();
    let feed = world.feed();
    put(&feed, "base", "1");
    let cursor = last(&feed);
    put(&feed, "outside", "1");
    let run = world.store.begin_run(&sync(), RunOptions::new()).unwrap();
    put(&run.feed("m").unwrap(), "run", "1");
    run.succeed().unwrap();
    world.however_it_ends(|world| {
        let outside = world.feed().ignore_if_modified_after(cursor);
        assert_eq!(put(&outside, "run", "2"), Outcome::Skipped);
        assert_eq!(put(&outside, "outside", "1"), Outcome::Unchanged);
        let run = world.store.begin_run(&sync(), RunOptions::new()).unwrap();
        let feed = run.feed("m").unwrap().ignore_if_modified_after(cursor);
        assert_eq!(put(&feed, "run", "2"), Outcome::Skipped, "another run's");
        assert_eq!(put(&feed, "outside", "2"), Outcome::Skipped);
    });
}

#[test]
fn merging_refuses_a_cursor_of_another_feed() {
    let world = World::new();
    let other = world.store.feed("c", "other").unwrap();
    put(&other, "a", "1");
    let feed = world.feed().ignore_if_modified_after(last(&other));
    let refused = feed.batch_save_raw(&[("a", "1")]);
    assert!(matches!(refused, Err(Error::ForeignCursor)));
}
