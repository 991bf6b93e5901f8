//! Prune, hard delete, purge, and retention.

use std::time::Duration;

use highwater::{
    Action, Durability, Error, Event, Feed, List, Oldest, Options, Outcome, Removed, Retention,
    RunOptions,
};

use crate::world::{DAY, SECOND, START, World, delete, ids, last, live, put, record, shown, sync};

/// a live, b deleted, c live, d live; a second apart.
fn with_four(world: &World) -> Feed {
    let feed = world.feed();
    for id in ["b", "a"] {
        put(&feed, id, "1");
    }
    for id in ["c", "d"] {
        world.clock.advance(SECOND);
        put(&feed, id, "1");
    }
    put(&feed, "a", "11");
    delete(&feed, "b");
    put(&feed, "c", "111");
    put(&feed, "d", "1111");
    assert_eq!(ids(&feed), ["a", "b", "c", "d"]);
    feed
}

fn until(feed: &Feed, id: &str) -> Oldest {
    Oldest::until(record(feed, id).cursor)
}

fn counts(removed: Removed) -> (u64, u64, bool) {
    (removed.records, removed.live, removed.has_more)
}

#[test]
fn prune_removes_payloads_oldest_first_and_nothing_else() {
    let mut world = World::new();
    let feed = with_four(&world);
    let before = shown(&feed);
    world.clock.advance(SECOND);
    let bounds = until(&feed, "c").limit(2);
    let dry = feed.prune(&bounds.dry_run(true)).unwrap();
    assert_eq!(shown(&feed), before, "a dry run changes nothing");
    let removed = feed.prune(&bounds).unwrap();
    assert_eq!(removed, dry);
    assert_eq!(counts(removed), (2, 1, true));
    assert_eq!(removed.last_cursor, Some(record(&feed, "b").cursor));
    let pruned = Some(highwater::Timestamp::from_micros(START + 3 * SECOND));
    world.however_it_ends(|world| {
        let feed = world.feed();
        for (at, (found, before)) in shown(&feed).into_iter().zip(&before).enumerate() {
            let mut expected = before.clone();
            if at < 2 {
                (expected.payload, expected.pruned_at) = (None, pruned);
            }
            assert_eq!(found, expected);
        }
        assert_eq!((feed.count().unwrap(), feed.size().unwrap()), (3, 7));
    });
    // The next step goes on where this one ended.
    let feed = world.feed();
    let bounds = until(&feed, "c").limit(2);
    assert_eq!(counts(feed.prune(&bounds).unwrap()), (1, 1, false));
    assert_eq!(counts(feed.prune(&bounds).unwrap()), (0, 0, false));
    assert_eq!(feed.prune(&bounds).unwrap().last_cursor, None);
    assert_eq!(feed.size().unwrap(), 4);
    assert_eq!(record(&feed, "a").pruned_at, pruned, "pruned once");
}

#[test]
fn prune_in_relaxed_mode_shows_to_who_asked_for_it() {
    let interval = Duration::from_secs(3600);
    let world = World::with(Options::new().durability(Durability::Relaxed { interval }));
    let feed = with_four(&world);
    feed.prune(&until(&feed, "a")).unwrap();
    assert_eq!(record(&feed, "a").payload, None);
    assert_eq!(feed.size().unwrap(), 7);
}

#[test]
fn pruned_records_keep_their_place_for_readers_and_cursors() {
    let world = World::new();
    let feed = with_four(&world);
    let cursors: Vec<_> = shown(&feed).iter().map(|record| record.cursor).collect();
    let after = told(&feed, cursors[0]);
    feed.prune(&Oldest::all()).unwrap();
    assert_eq!(told(&feed, cursors[0]), after);
    let page = feed.list(&List::new()).unwrap();
    assert!(page.iter().map(|record| record.cursor).eq(cursors));
    assert!(page.iter().all(|record| record.payload.is_none()));
}

fn told(feed: &Feed, after: highwater::Cursor) -> Vec<(Action, String)> {
    crate::world::told(feed, after)
}

#[test]
fn changed_hard_deleting_lowers_live_counts_by_live_records_only() {
    let mut world = World::new();
    let feed = with_four(&world);
    let bounds = until(&feed, "c").limit(2);
    let dry = feed.hard_delete(&bounds.dry_run(true)).unwrap();
    assert_eq!(ids(&feed).len(), 4);
    let events = world.store.subscribe().unwrap();
    let tail = last(&feed);
    let removed = feed.hard_delete(&bounds).unwrap();
    assert_eq!(removed, dry);
    assert_eq!(counts(removed), (2, 1, true));
    assert_eq!(events.try_next(), None, "readers are not told");
    world.however_it_ends(|world| {
        let feed = world.feed();
        assert_eq!(ids(&feed), ["c", "d"]);
        assert_eq!((feed.count().unwrap(), feed.size().unwrap()), (2, 7));
        assert_eq!(feed.get(&["a", "b"]).unwrap().len(), 0);
        assert!(told(&feed, tail).is_empty());
        assert_eq!(
            feed.first_cursor().unwrap(),
            Some(record(&feed, "c").cursor)
        );
        assert_eq!(delete(&feed, "a"), Outcome::NotFound);
    });
    let feed = world.feed();
    assert_eq!(
        put(&feed, "a", "11"),
        Outcome::Added,
        "as if it had never been"
    );
    assert_eq!(
        record(&feed, "a").first_seen_at,
        record(&feed, "a").last_modified_at
    );
}

#[test]
fn hard_deleting_what_is_pruned_leaves_the_size_right() {
    let mut world = World::new();
    let feed = with_four(&world);
    feed.prune(&until(&feed, "a")).unwrap();
    feed.hard_delete(&until(&feed, "c")).unwrap();
    world.however_it_ends(|world| {
        assert_eq!(world.feed().size().unwrap(), 4);
        assert_eq!(world.feed().count().unwrap(), 1);
    });
}

#[test]
fn hard_deleting_a_whole_feed_starts_it_over() {
    let mut world = World::new();
    let feed = with_four(&world);
    let cursor = last(&feed);
    let dry = feed.hard_delete(&Oldest::all().dry_run(true)).unwrap();
    assert_eq!(feed.count().unwrap(), 3);
    assert_eq!(feed.hard_delete(&Oldest::all()).unwrap(), dry);
    assert_eq!(counts(dry), (4, 3, false));
    world.however_it_ends(|world| {
        let feed = world.feed();
        assert_eq!((feed.count().unwrap(), feed.size().unwrap()), (0, 0));
        assert_eq!(feed.last_cursor().unwrap(), None);
        let stale = feed.list(&List::new().after(cursor));
        assert!(matches!(stale, Err(Error::StaleCursor { .. })));
        let stale = feed.wait(Some(cursor), Duration::ZERO);
        assert!(matches!(stale, Err(Error::StaleCursor { .. })));
    });
    assert_eq!(put(&world.feed(), "a", "11"), Outcome::Added);
    world.crash();
    assert_eq!(ids(&world.feed()), ["a"]);
}

#[test]
fn hard_deleting_a_feed_leaves_other_feeds_alone() {
    let world = World::new();
    let feed = with_four(&world);
    let others = [("c", "m", "eu"), ("c", "mm", ""), ("cm", "m", "")];
    for (connection, model, variant) in others {
        put(
            &world
                .store
                .feed_variant(connection, model, variant)
                .unwrap(),
            "a",
            "1",
        );
    }
    feed.hard_delete(&Oldest::all()).unwrap();
    for (connection, model, variant) in others {
        let feed = world
            .store
            .feed_variant(connection, model, variant)
            .unwrap();
        assert_eq!(feed.count().unwrap(), 1);
    }
}

#[test]
fn hard_deleting_a_feed_ends_a_replacement_of_it() {
    let mut world = World::new();
    let feed = with_four(&world);
    let replacement = feed.replace().unwrap();
    put(replacement.feed(), "new", "1");
    feed.hard_delete(&Oldest::all()).unwrap();
    // Whoever is filling it need not go on to the end to find out.
    let lost = replacement.feed().batch_save_raw(&[("more", "1")]);
    assert!(matches!(lost, Err(Error::ReplaceLost { .. })), "{lost:?}");
    let lost = replacement.feed().track_deletes_start();
    assert!(matches!(lost, Err(Error::ReplaceLost { .. })), "{lost:?}");
    assert!(matches!(
        replacement.commit(),
        Err(Error::ReplaceLost { .. })
    ));
    assert_eq!(put(&feed, "later", "1"), Outcome::Added);
    drop(feed);
    world.however_it_ends(|world| assert_eq!(ids(&world.feed()), ["later"]));
}

#[test]
fn a_limit_of_nothing_and_cursors_of_other_feeds_are_refused() {
    let world = World::new();
    let feed = with_four(&world);
    let other = world.store.feed("c", "other").unwrap();
    put(&other, "a", "1");
    let foreign = Oldest::until(last(&other));
    for operation in [Feed::prune, Feed::hard_delete, Feed::purge] {
        let refused = operation(&feed, &Oldest::all().limit(0));
        assert!(matches!(refused, Err(Error::InvalidArgument { .. })));
        assert!(matches!(
            operation(&feed, &foreign),
            Err(Error::ForeignCursor)
        ));
    }
    assert_eq!(ids(&feed).len(), 4);
}

#[test]
fn a_purge_removes_deletions_only() {
    let mut world = World::new();
    let feed = with_four(&world);
    delete(&feed, "a");
    let dry = feed.purge(&Oldest::all().limit(1).dry_run(true)).unwrap();
    let purged = feed.purge(&Oldest::all().limit(1)).unwrap();
    assert_eq!(purged, dry);
    assert_eq!(counts(purged), (1, 0, true));
    world.however_it_ends(|world| assert_eq!(ids(&world.feed()), ["c", "d", "a"]));
    let feed = world.feed();
    assert_eq!(counts(feed.purge(&Oldest::all()).unwrap()), (1, 0, false));
    assert_eq!(ids(&feed), ["c", "d"]);
    assert_eq!(
        (feed.count().unwrap(), feed.stats().unwrap().deleted),
        (2, 0)
    );
    assert_eq!(delete(&feed, "b"), Outcome::NotFound);
    assert_eq!(put(&feed, "b", "1"), Outcome::Added);
}

#[test]
fn a_reader_that_may_have_missed_a_purged_deletion_is_told_to_start_over() {
    let mut world = World::new();
    let feed = with_four(&world);
    // One reader has seen it all; the second stands before the deletion it has not seen.
    let all = feed.list(&List::new()).unwrap().resume_cursor();
    delete(&feed, "a");
    feed.purge(&Oldest::all()).unwrap();
    let begun_after = feed.list(&List::new().limit(1)).unwrap().resume_cursor();
    let passed = feed.list(&List::new()).unwrap().resume_cursor();
    world.however_it_ends(|world| {
        let feed = world.feed();
        let list = |cursor: highwater::Cursor| {
            // A cursor keeps its meaning as text.
            let text: highwater::Cursor = cursor.to_string().parse().unwrap();
            feed.list(&List::new().after(text))
        };
        assert!(matches!(list(all), Err(Error::CursorExpired)));
        assert_eq!(
            list(begun_after).unwrap().len(),
            1,
            "c was on its first page"
        );
        assert_eq!(list(passed).unwrap().len(), 0);
    });
    let feed = world.feed();
    put(&feed, "e", "1");
    delete(&feed, "e");
    feed.purge(&Oldest::all()).unwrap();
    for cursor in [begun_after, passed] {
        let expired = feed.list(&List::new().after(cursor));
        assert!(matches!(expired, Err(Error::CursorExpired)));
    }
}

#[test]
fn retention_keeps_everything_by_default() {
    let world = World::new();
    let feed = with_four(&world);
    let before = shown(&feed);
    world.clock.advance(10_000 * DAY);
    let done = world.store.maintain(&Retention::new()).unwrap();
    assert_eq!(done, highwater::Maintained::default());
    assert_eq!(shown(&feed), before);
}

#[test]
fn retention_prunes_what_was_not_modified_for_long() {
    let mut world = World::new();
    let feed = world.feed();
    let month = Duration::from_secs(30 * 24 * 3600);
    let retention = Retention::new().prune_after(month).step(1);
    for day in 0..4 {
        world.clock.set(START + day * DAY);
        put(&feed, &format!("day {day}"), "1");
        put(&feed, &format!("touched {day}"), "1");
    }
    world.clock.set(START + 20 * DAY);
    put(&feed, "touched 0", "2");
    world.clock.set(START + 31 * DAY + SECOND);
    let done = world.store.maintain(&retention).unwrap();
    assert_eq!(done.pruned, 3, "in several steps");
    world.however_it_ends(|world| {
        let pruned: Vec<_> = shown(&world.feed())
            .into_iter()
            .filter(|record| record.pruned_at.is_some())
            .map(|record| record.id)
            .collect();
        assert_eq!(pruned, ["day 0", "day 1", "touched 1"]);
        assert_eq!(world.store.maintain(&retention).unwrap().pruned, 0);
    });
}

#[test]
fn retention_hard_deletes_feeds_without_a_successful_run() {
    let mut world = World::new();
    let months = Duration::from_secs(60 * 24 * 3600);
    let retention = Retention::new().delete_after(months);
    let run = |world: &World, model: &str, succeeds: bool| {
        let run = world.store.begin_run(&sync(), RunOptions::new()).unwrap();
        put(&run.feed(model).unwrap(), "a", "1");
        if succeeds {
            run.succeed().unwrap();
        } else {
            run.fail("no").unwrap();
        }
    };
    for model in ["kept", "failing", "left"] {
        run(&world, model, true);
    }
    put(&world.store.feed("c", "by hand").unwrap(), "a", "1");
    world.clock.set(START + 30 * DAY);
    run(&world, "kept", true);
    run(&world, "failing", false);
    world.reopen();
    world.clock.set(START + 60 * DAY + SECOND);
    let done = world.store.maintain(&retention).unwrap();
    assert_eq!(done.feeds_deleted, 3);
    world.however_it_ends(|world| {
        let count = |model| world.store.feed("c", model).unwrap().count().unwrap();
        assert_eq!(
            ["kept", "failing", "left", "by hand"].map(count),
            [1, 0, 0, 0]
        );
        assert_eq!(world.store.maintain(&retention).unwrap().feeds_deleted, 0);
    });
}

/// What a feed was used for before it was deleted says nothing about what is in it now.
#[test]
fn a_feed_that_was_deleted_and_filled_again_is_as_old_as_its_data() {
    let world = World::new();
    let months = Duration::from_secs(60 * 24 * 3600);
    let retention = Retention::new().delete_after(months);
    let run = world.store.begin_run(&sync(), RunOptions::new()).unwrap();
    put(&run.feed("m").unwrap(), "a", "1");
    run.succeed().unwrap();
    world.clock.set(START + 61 * DAY);
    assert_eq!(world.store.maintain(&retention).unwrap().feeds_deleted, 1);
    put(&world.feed(), "fresh", "1");
    world.clock.advance(DAY);
    assert_eq!(world.store.maintain(&retention).unwrap().feeds_deleted, 0);
    assert_eq!(live(&world.feed()).len(), 1);
}

#[test]
fn retention_purges_only_what_named_consumers_have_passed() {
    let world = World::new();
    let feed = with_four(&world);
    let retention = Retention::new().purge(true).step(1);
    assert_eq!(
        world.store.maintain(&retention).unwrap().purged,
        0,
        "nobody has passed it"
    );
    let consumer = feed.consumer("app").unwrap();
    assert_eq!(world.store.maintain(&retention).unwrap().purged, 0);
    let events = world.store.subscribe().unwrap();
    consumer.acknowledge(last(&feed)).unwrap();
    assert_eq!(world.store.maintain(&retention).unwrap().purged, 1);
    assert!(!events_have_changes(&events));
}

fn events_have_changes(events: &highwater::Subscription) -> bool {
    std::iter::from_fn(|| events.try_next()).any(|event| matches!(event, Event::Commit(_)))
}
