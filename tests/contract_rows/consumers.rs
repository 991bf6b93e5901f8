//! Named consumers and subscriptions.

use std::time::Duration;

use highwater::{Action, Error, Event, List, Oldest, Outcome, RunOptions, RunStatus, Sweep};

use crate::world::{World, delete, ids, last, put, shown, sync};

#[test]
fn new_a_consumer_goes_on_after_what_it_acknowledged() {
    let mut world = World::new();
    let feed = world.feed();
    for id in ["a", "b", "c"] {
        put(&feed, id, "1");
    }
    let consumer = feed.consumer("app").unwrap();
    let page = consumer.list(List::new().limit(2)).unwrap();
    assert_eq!(page.len(), 2);
    consumer.acknowledge(page.resume_cursor()).unwrap();
    drop((feed, consumer));
    world.however_it_ends(|world| {
        let consumer = world.feed().consumer("app").unwrap();
        let page = consumer.list(List::new()).unwrap();
        assert_eq!(
            page.iter().map(|r| r.id.to_owned()).collect::<Vec<_>>(),
            ["c"]
        );
        assert_eq!(consumer.cursor().unwrap(), shown(&world.feed())[1].cursor);
    });
}

#[test]
fn a_consumer_never_goes_back_but_can_restart() {
    let world = World::new();
    let feed = world.feed();
    put(&feed, "a", "1");
    let early = last(&feed);
    put(&feed, "b", "1");
    let consumer = feed.consumer("app").unwrap();
    consumer.acknowledge(last(&feed)).unwrap();
    consumer.acknowledge(early).unwrap();
    assert_eq!(consumer.cursor().unwrap(), last(&feed));
    consumer.restart().unwrap();
    assert_eq!(consumer.list(List::new()).unwrap().len(), 2);
    let other = world.store.feed("c", "other").unwrap();
    put(&other, "a", "1");
    let refused = consumer.acknowledge(last(&other));
    assert!(matches!(refused, Err(Error::ForeignCursor)));
}

#[test]
fn the_lag_is_how_many_records_a_consumer_has_yet_to_see() {
    let mut world = World::new();
    let feed = world.feed();
    let consumer = feed.consumer("app").unwrap();
    let _ahead = feed.consumer("ahead").unwrap();
    for id in ["a", "b", "c"] {
        put(&feed, id, "1");
    }
    consumer.acknowledge(shown(&feed)[0].cursor).unwrap();
    put(&feed, "b", "2");
    delete(&feed, "a");
    _ahead.acknowledge(last(&feed)).unwrap();
    drop((feed, consumer, _ahead));
    world.however_it_ends(|world| {
        let found = world.feed().consumers().unwrap();
        let lags: Vec<_> = found.iter().map(|c| (c.name.as_str(), c.lag)).collect();
        assert_eq!(lags, [("ahead", 0), ("app", 3)]);
        let stats = world.feed().stats().unwrap();
        assert_eq!((stats.consumers, stats.max_lag), (2, 3));
    });
}

#[test]
fn a_purge_keeps_the_deletions_that_a_consumer_has_yet_to_see() {
    let mut world = World::new();
    let feed = world.feed();
    for id in ["a", "b", "c"] {
        put(&feed, id, "1");
    }
    let (slow, fast) = (
        feed.consumer("slow").unwrap(),
        feed.consumer("fast").unwrap(),
    );
    for consumer in [&slow, &fast] {
        consumer.acknowledge(last(&feed)).unwrap();
    }
    delete(&feed, "a");
    slow.acknowledge(last(&feed)).unwrap();
    delete(&feed, "b");
    fast.acknowledge(last(&feed)).unwrap();
    // Both have passed the first deletion, only one the second.
    assert_eq!(feed.purge(&Oldest::all()).unwrap().records, 1);
    assert_eq!(ids(&feed), ["c", "b"]);
    drop((slow, fast, feed));
    world.however_it_ends(|world| {
        let slow = world.feed().consumer("slow").unwrap();
        let page = slow.list(List::new()).unwrap();
        let told: Vec<_> = page.iter().map(|r| (r.last_action, r.id)).collect();
        assert_eq!(told, [(Action::Deleted, "b")]);
        assert_eq!(world.feed().purge(&Oldest::all()).unwrap().records, 0);
    });
    // A consumer that is removed holds nothing back.
    world.feed().consumer("slow").unwrap().remove().unwrap();
    assert_eq!(world.feed().purge(&Oldest::all()).unwrap().records, 1);
}

#[test]
fn a_consumer_that_has_yet_to_begin_holds_every_deletion_back() {
    let world = World::new();
    let feed = world.feed();
    put(&feed, "a", "1");
    delete(&feed, "a");
    let consumer = feed.consumer("new").unwrap();
    assert_eq!(feed.purge(&Oldest::all()).unwrap().records, 0);
    assert_eq!(consumer.list(List::new().relative(false)).unwrap().len(), 1);
}

#[test]
fn a_consumer_made_after_a_purge_begins_without_ado() {
    let mut world = World::new();
    let feed = world.feed();
    put(&feed, "a", "1");
    put(&feed, "b", "1");
    delete(&feed, "a");
    feed.purge(&Oldest::all()).unwrap();
    drop(feed);
    world.however_it_ends(|world| {
        let consumer = world.feed().consumer("late").unwrap();
        assert_eq!(consumer.list(List::new()).unwrap().len(), 1);
    });
}

#[test]
fn a_removed_consumer_is_unknown() {
    let world = World::new();
    let feed = world.feed();
    put(&feed, "a", "1");
    let (one, same) = (feed.consumer("app").unwrap(), feed.consumer("app").unwrap());
    one.remove().unwrap();
    assert!(matches!(
        same.list(List::new()),
        Err(Error::UnknownConsumer { .. })
    ));
    let refused = same.acknowledge(last(&feed));
    assert!(matches!(refused, Err(Error::UnknownConsumer { .. })));
    assert!(matches!(feed.consumer(""), Err(Error::InvalidName { .. })));
}

#[test]
fn subscribers_are_told_of_commits_with_cursors_and_counts() {
    let world = World::new();
    let feed = world.feed();
    put(&feed, "before", "1");
    let events = world.store.subscribe().unwrap();
    let next = || match events.try_next() {
        Some(Event::Commit(commit)) => commit,
        other => panic!("not a commit: {other:?}"),
    };
    let applied = feed
        .batch_save_raw(&[("a", "1"), ("before", "2"), ("b", "1")])
        .unwrap();
    let commit = next();
    assert_eq!(&commit.feed, feed.key());
    assert_eq!((commit.totals.added, commit.totals.updated), (2, 1));
    assert_eq!(Some(commit.last_cursor), applied.last_cursor);
    assert_eq!(commit.first_cursor, shown(&feed)[0].cursor);
    // What changes nothing is no event.
    assert_eq!(put(&feed, "a", "1"), Outcome::Unchanged);
    feed.prune(&Oldest::all()).unwrap();
    assert_eq!(put(&feed, "a", "1"), Outcome::Restored);
    assert_eq!(next().totals.restored, 1);
    // One event for each feed of a commit.
    let other = world.store.feed("c", "other").unwrap();
    let mut batch = world.store.batch("c");
    batch.save_raw(&feed, &[("x", "1")]).unwrap();
    batch.save_raw(&other, &[("x", "1")]).unwrap();
    let _ = batch.commit().unwrap();
    let mut models = [next().feed.model, next().feed.model];
    models.sort();
    assert_eq!(models, ["m", "other"]);
    assert_eq!(events.try_next(), None);
    assert_eq!(events.missed(), 0);
}

#[test]
fn a_subscription_ends_when_the_store_is_closed() {
    let world = World::new();
    let events = world.store.subscribe().unwrap();
    let waiting = std::thread::spawn(move || events.next_timeout(Duration::from_secs(600)));
    world.store.close().unwrap();
    assert_eq!(waiting.join().unwrap(), None);
    assert!(matches!(world.store.subscribe(), Err(Error::Closed)));
}

#[test]
fn changed_reports_are_delivered_to_subscribers_however_a_run_ends() {
    let world = World::new();
    let events = world.store.subscribe().unwrap();
    let begin = || world.store.begin_run(&sync(), RunOptions::new()).unwrap();
    let report = || loop {
        match events.try_next() {
            Some(Event::Run(report)) => return report,
            Some(_) => {}
            None => panic!("no report was delivered"),
        }
    };
    let run = begin();
    put(&run.feed("m").unwrap(), "a", "1");
    let returned = run.fail("the provider is down").unwrap();
    let delivered = report();
    assert_eq!(*delivered, returned);
    assert_eq!(delivered.status, RunStatus::Failed);
    assert_eq!(delivered.error.as_deref(), Some("the provider is down"));
    assert_eq!(delivered.models["m"].added, 1);

    begin().interrupt("told to").unwrap();
    assert_eq!(report().error.as_deref(), Some("told to"));
    drop(begin());
    assert_eq!(report().status, RunStatus::Interrupted);
    let run = begin();
    world.store.fence_runs(&sync()).unwrap();
    let fenced = report();
    assert_eq!(
        (fenced.run, fenced.status),
        (run.id(), RunStatus::Interrupted)
    );
    drop(run);
    assert_eq!(events.try_next(), None, "it has ended already");
    let run = begin();
    let feed = run.feed("m").unwrap();
    feed.track_deletes_start().unwrap();
    feed.track_deletes_end(&Sweep::new()).unwrap();
    run.succeed().unwrap();
    assert_eq!(report().models["m"].deleted, 1);
}
