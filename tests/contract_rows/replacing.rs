//! Replacing a feed: staged, then swapped in whole.

use std::time::Duration;

use highwater::{
    Action, Error, Event, Feed, FeedOptions, List, Oldest, Outcome, RunOptions, RunStatus, Sweep,
};

use crate::world::{World, delete, ids, last, live, put, shown, sync};

fn with_old(world: &World) -> Feed {
    let feed = world.feed();
    let _ = feed.batch_save_raw(&[("a", "old"), ("b", "old")]).unwrap();
    put(&feed, "b", "older");
    feed
}

#[test]
fn changed_a_replacement_is_staged_and_swapped_in_whole_as_added() {
    let mut world = World::new();
    let feed = with_old(&world);
    let cursor = last(&feed);
    let before = shown(&feed);
    let replacement = feed.replace().unwrap();
    let staged = replacement.feed().clone();
    assert_eq!(
        put(&staged, "b", "older"),
        Outcome::Added,
        "compared with nothing"
    );
    assert_eq!(put(&staged, "c", "1"), Outcome::Added);
    assert_eq!(put(&staged, "c", "2"), Outcome::Updated);
    assert_eq!(put(&staged, "b", "older"), Outcome::Unchanged);
    put(&staged, "gone", "1");
    delete(&staged, "gone");
    assert_eq!(shown(&feed), before, "nobody sees what is staged");
    assert_eq!(world.store.feeds().unwrap()[0].live, 2);
    replacement.commit().unwrap();
    world.however_it_ends(|world| {
        let feed = world.feed();
        let found = shown(&feed);
        let told: Vec<_> = found
            .iter()
            .map(|r| (r.id.as_str(), r.last_action))
            .collect();
        assert_eq!(told, [("b", Action::Added), ("c", Action::Added)]);
        assert_eq!((feed.count().unwrap(), feed.size().unwrap()), (2, 6));
        let stale = feed.list(&List::new().after(cursor));
        assert!(matches!(stale, Err(Error::StaleCursor { .. })));
        assert_eq!(feed.get(&["a", "gone"]).unwrap().len(), 0);
        assert_eq!(world.store.feeds().unwrap()[0].live, 2);
    });
}

#[test]
fn an_aborted_replacement_leaves_everything_as_it_was() {
    let mut world = World::new();
    let feed = with_old(&world);
    let (cursor, before) = (last(&feed), shown(&feed));
    let replacement = feed.replace().unwrap();
    let staged = replacement.feed().clone();
    put(&staged, "c", "1");
    world.store.checkpoint_catalog().unwrap();
    replacement.abort();
    drop((feed, staged));
    world.however_it_ends(|world| {
        let feed = world.feed();
        assert_eq!(shown(&feed), before);
        assert!(feed.list(&List::new().after(cursor)).unwrap().is_empty());
        // And it can be tried again.
        feed.replace().unwrap().abort();
    });
}

#[test]
fn a_crash_while_staging_leaves_everything_as_it_was() {
    for saves_catalog in [false, true] {
        let mut world = World::new();
        let before = shown(&with_old(&world));
        let replacement = world.feed().replace().unwrap();
        put(replacement.feed(), "c", "1");
        if saves_catalog {
            world.store.checkpoint_catalog().unwrap();
        }
        put(replacement.feed(), "d", "1");
        world.crash();
        drop(replacement);
        world.however_it_ends(|world| assert_eq!(shown(&world.feed()), before));
        let replacement = world.feed().replace().unwrap();
        put(replacement.feed(), "e", "1");
        replacement.commit().unwrap();
        world.however_it_ends(|world| assert_eq!(ids(&world.feed()), ["e"]));
    }
}

#[test]
fn a_replacement_by_nothing_empties_the_feed() {
    let mut world = World::new();
    let feed = with_old(&world);
    feed.replace().unwrap().commit().unwrap();
    drop(feed);
    world.however_it_ends(|world| {
        assert_eq!(world.feed().count().unwrap(), 0);
        assert_eq!(world.feed().last_cursor().unwrap(), None);
    });
}

#[test]
fn one_replacement_at_a_time() {
    let world = World::new();
    let feed = with_old(&world);
    let replacement = feed.replace().unwrap();
    let refused = feed.replace();
    assert!(matches!(refused, Err(Error::ReplaceInProgress { .. })));
    drop(replacement);
    feed.replace().unwrap().commit().unwrap();
    feed.replace().unwrap().commit().unwrap();
}

#[test]
fn changes_made_meanwhile_go_with_the_old_records() {
    let world = World::new();
    let feed = with_old(&world);
    let replacement = feed.replace().unwrap();
    put(replacement.feed(), "new", "1");
    assert_eq!(put(&feed, "meanwhile", "1"), Outcome::Added);
    assert_eq!(feed.count().unwrap(), 3);
    replacement.commit().unwrap();
    assert_eq!(ids(&feed), ["new"]);
    assert_eq!(put(&feed, "later", "1"), Outcome::Added);
    assert_eq!(ids(&feed), ["new", "later"]);
}

#[test]
fn who_waits_finds_out() {
    let world = World::new();
    let feed = with_old(&world);
    let cursor = last(&feed);
    let long = Duration::from_secs(600);
    let replacement = feed.replace().unwrap();
    let waiting = {
        let feed = feed.clone();
        std::thread::spawn(move || feed.wait(Some(cursor), long))
    };
    let events = world.store.subscribe().unwrap();
    replacement.commit().unwrap();
    assert!(matches!(
        waiting.join().unwrap(),
        Err(Error::StaleCursor { .. })
    ));
    let Some(Event::Replaced(key, _)) = events.try_next() else {
        panic!("subscribers are told")
    };
    assert_eq!(&key, feed.key());
    // Without a cursor one waits for whatever comes first in the new data.
    let waiting = {
        let feed = feed.clone();
        std::thread::spawn(move || feed.wait(None, long))
    };
    let replacement = feed.replace().unwrap();
    put(replacement.feed(), "new", "1");
    replacement.commit().unwrap();
    assert!(waiting.join().unwrap().unwrap());
}

#[test]
fn staged_commits_are_no_events() {
    let world = World::new();
    let feed = with_old(&world);
    let events = world.store.subscribe().unwrap();
    let replacement = feed.replace().unwrap();
    put(replacement.feed(), "new", "1");
    assert_eq!(events.try_next(), None);
    replacement.commit().unwrap();
    assert!(matches!(events.try_next(), Some(Event::Replaced(..))));
    assert_eq!(events.try_next(), None);
}

#[test]
fn a_replacing_run_swaps_all_its_feeds_in_when_it_succeeds() {
    for (succeeds, expected) in [(true, ["new"].as_slice()), (false, &["a", "b"])] {
        let mut world = World::new();
        let feed = with_old(&world);
        let other = world.store.feed("c", "other").unwrap();
        put(&other, "a", "1");
        put(&other, "b", "1");
        let run = world
            .store
            .begin_run(&sync(), RunOptions::new().replace(true))
            .unwrap();
        put(&run.feed("m").unwrap(), "new", "1");
        put(&run.feed("other").unwrap(), "new", "1");
        assert_eq!(ids(&feed), ["a", "b"]);
        let report = if succeeds {
            run.succeed()
        } else {
            run.fail("no")
        };
        assert_eq!(report.unwrap().models["m"].added, 1);
        drop((feed, other));
        world.however_it_ends(|world| {
            assert_eq!(ids(&world.feed()), expected);
            assert_eq!(ids(&world.store.feed("c", "other").unwrap()), expected);
        });
    }
}

#[test]
fn a_replacing_run_that_is_dropped_or_crashes_leaves_everything_as_it_was() {
    let mut world = World::new();
    let feed = with_old(&world);
    let run = world
        .store
        .begin_run(&sync(), RunOptions::new().replace(true))
        .unwrap();
    put(&run.feed("m").unwrap(), "new", "1");
    drop(run);
    assert_eq!(ids(&feed), ["a", "b"]);
    let run = world
        .store
        .begin_run(&sync(), RunOptions::new().replace(true))
        .unwrap();
    put(&run.feed("m").unwrap(), "new", "1");
    world.crash();
    drop((run, feed));
    assert_eq!(ids(&world.feed()), ["a", "b"]);
    let reports = world.store.runs(&sync()).unwrap();
    assert!(
        reports
            .iter()
            .all(|report| report.status == RunStatus::Interrupted)
    );
}

#[test]
fn options_and_consumers_outlive_a_replacement() {
    let mut world = World::new();
    let feed = with_old(&world);
    let options = FeedOptions::new().keep_pruned(true);
    feed.configure(options.clone()).unwrap();
    let consumer = feed.consumer("app").unwrap();
    consumer.acknowledge(last(&feed)).unwrap();
    let replacement = feed.replace().unwrap();
    put(replacement.feed(), "new", "1");
    replacement.commit().unwrap();
    drop((feed, consumer));
    world.however_it_ends(|world| {
        let feed = world.feed();
        assert_eq!(feed.options(), options);
        let consumer = feed.consumer("app").unwrap();
        assert_eq!(feed.consumers().unwrap()[0].lag, 1);
        let stale = consumer.list(List::new());
        assert!(matches!(stale, Err(Error::StaleCursor { .. })));
    });
    let feed = world.feed();
    let consumer = feed.consumer("app").unwrap();
    consumer.restart().unwrap();
    assert_eq!(consumer.list(List::new()).unwrap().len(), 1);
}

/// What is staged can be thrown away and begun again without anybody seeing it.
#[test]
fn hard_deleting_what_is_staged_is_not_hard_deleting_the_feed() {
    let mut world = World::new();
    let feed = with_old(&world);
    let before = shown(&feed);
    let replacement = feed.replace().unwrap();
    put(replacement.feed(), "mistake", "1");
    let _ = replacement.feed().hard_delete(&Oldest::all());
    assert_eq!(shown(&feed), before);
    put(&feed, "c", "1");
    drop((feed, replacement));
    world.however_it_ends(|world| assert_eq!(ids(&world.feed()), ["a", "b", "c"]));
}

#[test]
fn a_window_opened_in_what_is_staged_is_closed_by_a_reset() {
    let world = World::new();
    with_old(&world);
    let run = world
        .store
        .begin_run(&sync(), RunOptions::new().replace(true))
        .unwrap();
    let feed = run.feed("m").unwrap();
    put(&feed, "new", "1");
    feed.track_deletes_start().unwrap();
    run.succeed().unwrap();
    world.store.reset_sync(&sync()).unwrap();
    let run = world.store.begin_run(&sync(), RunOptions::new()).unwrap();
    let feed = run.feed("m").unwrap();
    let ended = feed.track_deletes_end(&Sweep::new());
    assert!(matches!(ended, Err(Error::NoWindow { .. })), "{ended:?}");
    assert_eq!(live(&feed).len(), 1);
}

#[test]
fn a_sweep_works_in_what_is_staged() {
    let mut world = World::new();
    let feed = with_old(&world);
    let replacement = feed.replace().unwrap();
    let staged = replacement.feed();
    for id in ["x", "y"] {
        put(staged, id, "1");
    }
    staged.track_deletes_start().unwrap();
    put(staged, "y", "1");
    assert_eq!(staged.track_deletes_end(&Sweep::new()).unwrap().deleted, 1);
    replacement.commit().unwrap();
    drop(feed);
    world.however_it_ends(|world| assert_eq!(ids(&world.feed()), ["y"]));
}

#[test]
fn pruned_records_in_what_is_staged_stay_pruned() {
    let mut world = World::new();
    let feed = with_old(&world);
    let replacement = feed.replace().unwrap();
    put(replacement.feed(), "x", "1");
    replacement.feed().prune(&Oldest::all()).unwrap();
    put(replacement.feed(), "y", "22");
    replacement.commit().unwrap();
    drop(feed);
    world.however_it_ends(|world| {
        assert_eq!(live(&world.feed())["x"], None);
        assert_eq!(world.feed().size().unwrap(), 2);
    });
}

/// A handle to what was staged is good for nothing, and says so, once the replacement is over.
#[test]
fn writing_to_what_was_staged_after_an_abort_is_refused() {
    let world = World::new();
    let feed = with_old(&world);
    let replacement = feed.replace().unwrap();
    let staged = replacement.feed().clone();
    put(&staged, "x", "1");
    replacement.abort();
    let lost = staged.batch_save_raw(&[("y", "1")]);
    assert!(matches!(lost, Err(Error::ReplaceLost { .. })));
    let lost = staged.wait(Some(last(&staged)), Duration::from_secs(600));
    assert!(matches!(lost, Err(Error::ReplaceLost { .. })));
    assert_eq!(ids(&feed), ["a", "b"]);
}

/// After the commit it is a handle to the feed, until the feed goes on in yet another epoch.
#[test]
fn a_handle_to_what_was_staged_does_not_get_into_the_feeds_way() {
    let world = World::new();
    let feed = with_old(&world);
    let replacement = feed.replace().unwrap();
    let staged = replacement.feed().clone();
    replacement.commit().unwrap();
    put(&staged, "x", "1");
    assert_eq!(ids(&feed), ["x"]);
    staged.hard_delete(&Oldest::all()).unwrap();
    put(&feed, "y", "1");
    assert_eq!(ids(&feed), ["y"]);
    let replacement = staged.replace().unwrap();
    put(replacement.feed(), "z", "1");
    replacement.commit().unwrap();
    assert_eq!(ids(&feed), ["z"]);
    put(&feed, "zz", "1");
    let lost = staged.batch_save_raw(&[("y", "1")]);
    assert!(matches!(lost, Err(Error::ReplaceLost { .. })));
}
