//! Pages: where to go on, filters, and what a change means to the reader.

use highwater::{Action, Actions, Cursor, Feed, List, Options, Order};

use crate::world::{SECOND, World, delete, ids, last, put, told};

fn resume(feed: &Feed) -> Cursor {
    let page = feed.list(&List::new().limit(10_000)).unwrap();
    assert!(!page.has_more());
    page.resume_cursor()
}

#[test]
fn changed_a_page_always_says_where_to_go_on() {
    let world = World::new();
    let feed = world.feed();
    // Nothing there yet.
    let page = feed.list(&List::new()).unwrap();
    assert!(page.is_empty() && !page.has_more());
    let beginning = page.resume_cursor();
    put(&feed, "a", "1");
    put(&feed, "b", "1");
    assert_eq!(told(&feed, beginning).len(), 2);
    // The filter matches nothing: the feed was looked at all the same.
    let page = feed.list(&List::new().filter(Action::Deleted)).unwrap();
    assert!(page.is_empty() && !page.has_more());
    assert_eq!(page.resume_cursor(), last(&feed));
    // Behind the end.
    let page = feed.list(&List::new().after(last(&feed))).unwrap();
    assert_eq!((page.len(), page.resume_cursor()), (0, last(&feed)));
}

#[test]
fn changed_a_filtered_walk_of_small_pages_gets_everywhere() {
    let world = World::new();
    let feed = world.feed();
    let records: Vec<(String, &str)> = (0..500).map(|n| (format!("r{n}"), "1")).collect();
    let _ = feed.batch_save_raw(&records).unwrap();
    let every_third: Vec<String> = (0..500).step_by(3).map(|n| format!("r{n}")).collect();
    let _ = feed.batch_delete(&every_third).unwrap();
    put(&feed, "last", "1");
    for limit in [1, 7, 1000] {
        let (mut found, mut cursor) = (Vec::new(), None);
        loop {
            let list = List::new()
                .filter(Action::Deleted)
                .relative(false)
                .limit(limit);
            let page = feed.list(&list.after(cursor)).unwrap();
            found.extend(page.iter().map(|record| record.id.to_owned()));
            assert!(Some(page.resume_cursor()) > cursor);
            cursor = Some(page.resume_cursor());
            if !page.has_more() {
                break;
            }
        }
        assert_eq!(found, every_third);
        assert_eq!(cursor, Some(last(&feed)));
    }
}

#[test]
fn changed_all_seven_combinations_of_actions_mean_what_they_say() {
    let world = World::new();
    let feed = world.feed();
    for id in ["added", "updated", "deleted"] {
        put(&feed, id, "1");
    }
    put(&feed, "updated", "2");
    delete(&feed, "deleted");
    let all = [Action::Added, Action::Updated, Action::Deleted];
    let names = ["added", "updated", "deleted"];
    for combination in 1..8u8 {
        let chosen: Vec<usize> = (0..3).filter(|at| combination >> at & 1 == 1).collect();
        let text: Vec<&str> = chosen.iter().map(|at| names[*at]).collect();
        let from_text: Actions = text.join(",").parse().unwrap();
        let shouted: Actions = text.join(",").to_uppercase().parse().unwrap();
        assert_eq!(from_text, shouted);
        assert!(chosen.iter().all(|at| from_text.contains(all[*at])));
        for order in [Order::Ascending, Order::Descending] {
            let page = feed
                .list(&List::new().filter(from_text).order(order))
                .unwrap();
            let mut found: Vec<&str> = page.iter().map(|record| record.id).collect();
            if order == Order::Descending {
                found.reverse();
            }
            assert_eq!(found, text);
        }
    }
}

#[test]
fn new_relative_actions_added_after_the_cursor_is_added_however_often_it_changed() {
    let mut world = World::new();
    let feed = world.feed();
    put(&feed, "known", "1");
    let cursor = resume(&feed);
    put(&feed, "new", "1");
    put(&feed, "new", "2");
    put(&feed, "new", "3");
    put(&feed, "known", "2");
    world.however_it_ends(|world| {
        let expected = [
            (Action::Added, "new".to_owned()),
            (Action::Updated, "known".to_owned()),
        ];
        assert_eq!(told(&world.feed(), cursor), expected);
    });
}

#[test]
fn new_relative_actions_added_and_deleted_after_the_cursor_is_left_out() {
    let mut world = World::new();
    let feed = world.feed();
    put(&feed, "known", "1");
    let cursor = resume(&feed);
    put(&feed, "brief", "1");
    delete(&feed, "brief");
    put(&feed, "brief", "2");
    delete(&feed, "brief");
    world.however_it_ends(|world| {
        let page = world
            .feed()
            .list(&List::new().after(cursor).limit(1))
            .unwrap();
        assert!(page.is_empty() && !page.has_more());
        assert_eq!(page.resume_cursor(), last(&world.feed()));
    });
    delete(&world.feed(), "known");
    assert_eq!(
        told(&world.feed(), cursor),
        [(Action::Deleted, "known".to_owned())]
    );
}

#[test]
fn new_relative_actions_known_then_deleted_and_added_again_is_updated() {
    let mut world = World::new();
    let feed = world.feed();
    put(&feed, "known", "1");
    let cursor = resume(&feed);
    for _ in 0..5 {
        delete(&feed, "known");
        put(&feed, "known", "1");
    }
    let later = resume(&feed);
    world.however_it_ends(|world| {
        let feed = world.feed();
        assert_eq!(told(&feed, cursor), [(Action::Updated, "known".to_owned())]);
        assert!(told(&feed, later).is_empty());
    });
    delete(&world.feed(), "known");
    for cursor in [cursor, later] {
        assert_eq!(
            told(&world.feed(), cursor),
            [(Action::Deleted, "known".to_owned())]
        );
    }
}

#[test]
fn new_relative_actions_of_one_commit_and_one_moment_are_told_apart() {
    let world = World::new();
    let feed = world.feed();
    put(&feed, "a", "1");
    let mut batch = world.store.batch("c");
    // All of it at the same moment; the reader stops in the middle.
    batch
        .save_raw(&feed, &[("b", "1"), ("c", "1"), ("d", "1")])
        .unwrap();
    let _ = batch.commit().unwrap();
    let page = feed.list(&List::new().limit(3)).unwrap();
    let middle = page.resume_cursor();
    put(&feed, "c", "2");
    put(&feed, "d", "2");
    delete(&feed, "b");
    let expected = [
        (Action::Updated, "c".to_owned()),
        (Action::Added, "d".to_owned()),
        (Action::Deleted, "b".to_owned()),
    ];
    assert_eq!(told(&feed, middle), expected);
}

#[test]
fn new_relative_actions_are_what_the_filter_goes_by() {
    let world = World::new();
    let feed = world.feed();
    put(&feed, "known", "1");
    let cursor = resume(&feed);
    put(&feed, "new", "1");
    put(&feed, "new", "2");
    delete(&feed, "known");
    put(&feed, "known", "1");
    let list = |action: Action, relative: bool| {
        let list = List::new().after(cursor).filter(action).relative(relative);
        let page = feed.list(&list).unwrap();
        page.iter()
            .map(|record| record.id.to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(list(Action::Added, true), ["new"]);
    assert_eq!(list(Action::Updated, true), ["known"]);
    assert_eq!(list(Action::Added, false), ["known"]);
    assert_eq!(list(Action::Updated, false), ["new"]);
}

#[test]
fn new_relative_actions_can_be_switched_off_and_are_off_from_the_beginning() {
    let world = World::new();
    let feed = world.feed();
    let cursor = resume(&feed);
    put(&feed, "a", "1");
    put(&feed, "a", "2");
    put(&feed, "b", "1");
    delete(&feed, "b");
    let expected = [(Action::Updated, "a"), (Action::Deleted, "b")];
    for list in [List::new(), List::new().after(cursor).relative(false)] {
        let page = feed.list(&list).unwrap();
        let found: Vec<_> = page.iter().map(|r| (r.last_action, r.id)).collect();
        assert_eq!(found, expected);
    }
    assert_eq!(told(&feed, cursor), [(Action::Added, "a".to_owned())]);
    assert_eq!(ids(&feed), ["a", "b"]);
}

/// The times that tell the reader's story rise along the feed even when the clock does not.
#[test]
fn new_relative_actions_hold_when_the_clock_goes_back() {
    let world = World::new();
    let feed = world.feed();
    put(&feed, "known", "1");
    let cursor = resume(&feed);
    world.clock.set(SECOND);
    put(&feed, "new", "1");
    delete(&feed, "known");
    put(&feed, "known", "2");
    put(&feed, "new", "2");
    let expected = [
        (Action::Updated, "known".to_owned()),
        (Action::Added, "new".to_owned()),
    ];
    assert_eq!(told(&feed, cursor), expected);
}

#[test]
fn a_page_stops_before_the_byte_budget_but_holds_at_least_one() {
    let world = World::with(Options::new());
    let feed = world.feed();
    let body = "x".repeat(100);
    for id in ["a", "b", "c"] {
        put(&feed, id, &body);
    }
    let len = |budget| feed.list(&List::new().byte_budget(budget)).unwrap().len();
    assert_eq!([1, 100, 199, 200, 300, 0].map(len), [1, 1, 1, 2, 3, 3]);
    // Payloads that are gone take no room.
    feed.prune(&highwater::Oldest::all().limit(2)).unwrap();
    assert_eq!(len(100), 3);
}
