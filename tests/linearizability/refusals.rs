//! The checker itself: histories that are in order, and each with one thing wrong.

use highwater::{Action, Outcome};

use crate::checker::{Call, Event, Id, Value, Version, check, check_together};

fn save(times: [u64; 2], id: Id, value: Value, outcome: Outcome, last: u64) -> Event {
    Event {
        begun: times[0],
        ended: times[1],
        call: Call::Write {
            records: vec![(id, Some(value))],
            outcomes: vec![outcome],
            last: outcome.is_change().then_some(last),
        },
        joint: None,
    }
}

fn get(times: [u64; 2], id: Id, found: Option<(u64, Action, Value)>) -> Event {
    let version = |(position, action, value)| Version {
        id,
        position,
        action,
        value,
    };
    Event {
        begun: times[0],
        ended: times[1],
        call: Call::Get {
            ids: vec![id],
            found: found.map(version).into_iter().collect(),
        },
        joint: None,
    }
}

const FIRST: Option<(u64, Action, Value)> = Some((1, Action::Added, 7));
const SECOND: Option<(u64, Action, Value)> = Some((2, Action::Updated, 8));

/// Record 1 is saved as 7, and during times 10 to 20 as 8.
fn saved(reads: &[Event]) -> Vec<Event> {
    let mut history = vec![
        save([0, 1], 1, 7, Outcome::Added, 1),
        save([10, 20], 1, 8, Outcome::Updated, 2),
    ];
    history.extend_from_slice(reads);
    history
}

#[test]
fn a_read_during_a_save_may_see_it_or_not() {
    for seen in [FIRST, SECOND] {
        check(&saved(&[get([11, 12], 1, seen)])).unwrap();
    }
    check(&saved(&[get([11, 12], 1, FIRST), get([13, 14], 1, SECOND)])).unwrap();
    // Reads at the same time may see different states.
    check(&saved(&[get([11, 14], 1, SECOND), get([12, 13], 1, FIRST)])).unwrap();
}

#[test]
fn a_read_after_a_save_returned_must_see_it() {
    check(&saved(&[get([21, 22], 1, SECOND)])).unwrap();
    let refused = check(&saved(&[get([21, 22], 1, FIRST)])).unwrap_err();
    assert!(refused.contains("no state from 2 to 2"), "{refused}");
}

#[test]
fn a_read_must_not_see_what_was_not_begun() {
    assert!(check(&saved(&[get([5, 6], 1, SECOND)])).is_err());
    assert!(check(&saved(&[get([5, 6], 2, FIRST)])).is_err());
}

#[test]
fn what_one_reader_saw_the_next_must_see() {
    let reads = [get([11, 12], 1, SECOND), get([13, 14], 1, FIRST)];
    assert!(check(&saved(&reads)).is_err());
}

#[test]
fn a_save_that_changed_nothing_is_a_read() {
    let unchanged = |times, value| save(times, 1, value, Outcome::Unchanged, 0);
    check(&saved(&[unchanged([15, 30], 8)])).unwrap();
    assert!(check(&saved(&[unchanged([21, 30], 7)])).is_err());
}

#[test]
fn positions_must_rise_in_the_order_of_time() {
    let late = save([0, 1], 1, 7, Outcome::Added, 2);
    let early = save([2, 3], 2, 7, Outcome::Added, 1);
    assert!(check(&[late, early]).is_err());
}

#[test]
fn outcomes_must_be_those_of_the_order() {
    let twice = [
        save([0, 5], 1, 7, Outcome::Added, 1),
        save([0, 5], 1, 7, Outcome::Added, 2),
    ];
    assert!(check(&twice).is_err(), "the second one changes nothing");
    let again = save([0, 5], 1, 8, Outcome::Updated, 1);
    assert!(check(&[again]).is_err(), "there is nothing to update");
}

#[test]
fn no_position_is_left_out_or_used_twice() {
    let first = save([0, 1], 1, 7, Outcome::Added, 1);
    for last in [1, 3] {
        let second = save([2, 3], 2, 7, Outcome::Added, last);
        assert!(check(&[first.clone(), second]).is_err());
    }
}

/// Two records saved in one commit.
fn batch() -> Event {
    let mut batch = save([0, 10], 1, 7, Outcome::Added, 2);
    if let Call::Write {
        records, outcomes, ..
    } = &mut batch.call
    {
        records.push((2, Some(7)));
        outcomes.push(Outcome::Added);
    }
    batch
}

fn list(times: [u64; 2], after: u64, limit: usize, page: &[(Id, u64)], more: bool) -> Event {
    let version = |&(id, position): &(Id, u64)| Version {
        id,
        position,
        action: Action::Added,
        value: 7,
    };
    Event {
        begun: times[0],
        ended: times[1],
        call: Call::List {
            after,
            limit,
            page: page.iter().map(version).collect(),
            resume: page.last().map_or(after, |(_, position)| *position),
            more,
        },
        joint: None,
    }
}

#[test]
fn half_a_batch_is_never_seen() {
    let page = |page: &[(Id, u64)]| check(&[batch(), list([5, 6], 0, 9, page, false)]);
    page(&[]).unwrap();
    page(&[(1, 1), (2, 2)]).unwrap();
    assert!(page(&[(1, 1)]).is_err() && page(&[(2, 2)]).is_err());
}

#[test]
fn a_page_has_what_comes_next_and_says_whether_there_is_more() {
    let page =
        |after, page: &[(Id, u64)], more| check(&[batch(), list([11, 12], after, 1, page, more)]);
    page(0, &[(1, 1)], true).unwrap();
    page(1, &[(2, 2)], false).unwrap();
    page(2, &[], false).unwrap();
    assert!(page(0, &[(2, 2)], false).is_err(), "a record is skipped");
    assert!(page(0, &[(1, 1)], false).is_err(), "there is more");
    assert!(
        page(1, &[(1, 1)], true).is_err(),
        "it is not after the cursor"
    );
}

#[test]
fn a_commit_of_two_feeds_shows_in_both() {
    let commit = |last| Event {
        joint: Some(0),
        ..save([0, 10], 1, 7, Outcome::Added, last)
    };
    let seen = get([2, 3], 1, FIRST);
    let histories = |other| [vec![commit(1), seen.clone()], vec![commit(1), other]];
    check_together(&mut histories(get([4, 5], 1, FIRST))).unwrap();
    check_together(&mut histories(get([1, 5], 1, None))).unwrap();
    assert!(check_together(&mut histories(get([4, 5], 1, None))).is_err());
}
