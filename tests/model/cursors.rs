//! The cursor guarantees of the contract, section 4, each as a test of its own.

use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use highwater::storage::{ManualClock, MemoryStorage, Survivors};
use highwater::{Action, Cursor, Error, Feed, List, Options, Store};

use crate::driver::{Driver, PATH};
use crate::gate::GatedStorage;
use crate::reference::Write;

fn open(disk: &MemoryStorage) -> Store {
    let options = Options::new().background(false).secret([3; 32]);
    options.storage(Arc::new(disk.clone())).open(PATH).unwrap()
}

fn save(feed: &Feed, records: &[(&str, &str)]) -> Option<Cursor> {
    feed.batch_save_raw(records).unwrap().last_cursor
}

fn ids_after(feed: &Feed, cursor: Option<Cursor>) -> Vec<String> {
    let page = feed.list(&List::new().after(cursor).limit(10_000)).unwrap();
    page.iter().map(|record| record.id.to_owned()).collect()
}

/// Guarantee 1: every change has its own cursor, increasing in commit order, and in input order
/// inside a batch.
#[test]
fn cursors_increase_in_commit_order_and_in_input_order() {
    let store = open(&MemoryStorage::new());
    let feed = store.feed("c", "m").unwrap();
    let first = save(&feed, &[("z", "1"), ("a", "1"), ("m", "1")]).unwrap();
    let second = save(&feed, &[("a", "2")]).unwrap();
    assert!(first < second);
    assert_eq!(ids_after(&feed, None), ["z", "m", "a"]);
    let page = feed.list(&List::new()).unwrap();
    let cursors: Vec<_> = page.iter().map(|record| record.cursor).collect();
    assert!(cursors.is_sorted_by(|a, b| a < b));
    assert_eq!(cursors.last(), Some(&second));
}

/// Guarantee 2: with a writer stalled in its sync, and others behind it, a reader is given nothing
/// that would let it walk past the stalled change.
#[test]
fn a_stalled_writer_between_others_loses_no_change() {
    let gate = GatedStorage::new(MemoryStorage::new());
    let options = Options::new()
        .background(false)
        .storage(Arc::new(gate.clone()));
    let store = options.open(PATH).unwrap();
    let feed = store.feed("c", "m").unwrap();
    save(&feed, &[("before", "1")]);
    let shown = ids_after(&feed, None);
    let cursor = feed.last_cursor().unwrap();

    gate.shut();
    let (report, finished) = mpsc::channel();
    let writers: Vec<_> = (0..3)
        .map(|writer| {
            let (feed, report) = (feed.clone(), report.clone());
            std::thread::spawn(move || {
                let id = format!("stalled-{writer}");
                let _ = feed.batch_save_raw(&[(id.as_str(), "1")]).unwrap();
                report.send(()).unwrap();
            })
        })
        .collect();
    gate.await_arrival();
    // Nothing is acknowledged, nothing shows, and readers are not held up.
    assert!(finished.try_recv().is_err());
    assert_eq!(ids_after(&feed, None), shown);
    assert!(!feed.wait(cursor, Duration::ZERO).unwrap());
    let read_past = feed
        .list(&List::new().after(cursor))
        .unwrap()
        .resume_cursor();
    assert_eq!(Some(read_past), cursor);
    gate.open();
    for writer in writers {
        writer.join().unwrap();
    }
    assert_eq!(ids_after(&feed, Some(read_past)).len(), 3);
}

/// Guarantee 3: pages are strictly ascending and start strictly after their cursor.
#[test]
fn pages_start_strictly_after_their_cursor_whatever_the_limit() {
    let store = open(&MemoryStorage::new());
    let feed = store.feed("c", "m").unwrap();
    for round in 0..50 {
        save(
            &feed,
            &[(&format!("r{}", round % 17), &format!("v{round}"))],
        );
    }
    let all: Vec<_> = feed
        .records(None)
        .map(|record| record.unwrap().cursor)
        .collect();
    for limit in [1, 2, 7, 1000] {
        let (mut cursor, mut walked) = (None, Vec::new());
        loop {
            let page = feed.list(&List::new().after(cursor).limit(limit)).unwrap();
            assert!(page.iter().all(|record| Some(record.cursor) > cursor));
            walked.extend(page.iter().map(|record| record.cursor));
            cursor = Some(page.resume_cursor());
            if !page.has_more() {
                break;
            }
        }
        assert_eq!(walked, all);
    }
}

/// Guarantee 4: a consumer that reads between the writes, a page of one at a time, converges.
#[test]
fn a_consumer_converges_under_interleaved_writes() {
    let mut driver = Driver::new(Options::new().segment_size(4096));
    for round in 0..200u64 {
        let id = format!("r{}", round * 7 % 13);
        let write = match round % 5 {
            4 => Write::Delete(vec![id]),
            _ => Write::SaveJson(vec![(id, (round % 3) as u8, 0)]),
        };
        driver.commit(&[(0, write)], None);
        if round % 2 == 0 {
            driver.step_reader(0, 1);
        }
    }
    driver.converge(1);
}

/// Guarantee 5: reopening, rebuilding and saving the catalog change neither the cursor of a change
/// nor what comes after a cursor.
#[test]
fn cursors_survive_reopen_rebuild_and_checkpoint() {
    let disk = MemoryStorage::new();
    let store = open(&disk);
    let feed = store.feed("c", "m").unwrap();
    for round in 0..30 {
        save(
            &feed,
            &[(&format!("r{}", round % 11), &format!("v{round}"))],
        );
    }
    let _ = feed.batch_delete(&["r3"]).unwrap();
    let all: Vec<_> = feed.records(None).map(Result::unwrap).collect();
    store.checkpoint_catalog().unwrap();
    let after: Vec<_> = feed.records(None).map(Result::unwrap).collect();
    assert_eq!(after, all);
    store.close().unwrap();
    for rebuild in [false, true] {
        let options = Options::new()
            .background(false)
            .storage(Arc::new(disk.clone()));
        let store = if rebuild {
            options.rebuild(PATH)
        } else {
            options.open(PATH)
        }
        .unwrap();
        let feed = store.feed("c", "m").unwrap();
        let after: Vec<_> = feed.records(None).map(Result::unwrap).collect();
        assert_eq!(after, all);
        let middle = all[4].cursor.to_string().parse().unwrap();
        let rest: Vec<_> = feed.records(Some(middle)).map(Result::unwrap).collect();
        assert_eq!(rest, all[5..]);
    }
}

/// Guarantee 6: a cursor that was handed out and then lost with the power, in relaxed mode, is
/// never given to another change; also when it is lost again and again.
#[test]
fn a_lost_cursor_is_never_given_out_again() {
    let mut disk = MemoryStorage::new();
    let mut shown: Vec<Cursor> = Vec::new();
    for round in 0..6 {
        let options = Options::new()
            .background(false)
            .durability(Driver::relaxed());
        let store = options.storage(Arc::new(disk.clone())).open(PATH).unwrap();
        let synced = store.feed("c", "other").unwrap();
        save(&synced, &[("x", &round.to_string())]);
        let feed = store.feed("c", "m").unwrap();
        let cursor = save(&feed, &[("a", &round.to_string()), ("b", "1")]).unwrap();
        assert!(shown.iter().all(|old| *old < cursor), "round {round}");
        shown.push(cursor);
        disk = disk.crash(Survivors::Synced);
    }
}

/// The same, when the lost commit was the first one after a clean close.
#[test]
fn a_cursor_lost_after_a_clean_close_is_never_given_out_again() {
    let disk = MemoryStorage::new();
    let options = Options::new()
        .background(false)
        .durability(Driver::relaxed());
    let open = |disk: &MemoryStorage| {
        options
            .clone()
            .storage(Arc::new(disk.clone()))
            .open(PATH)
            .unwrap()
    };
    let store = open(&disk);
    save(&store.feed("c", "m").unwrap(), &[("a", "1")]);
    store.close().unwrap();
    let store = open(&disk);
    let feed = store.feed("c", "m").unwrap();
    let lost = save(&feed, &[("a", "2")])
        .max(save(&feed, &[("a", "3")]))
        .unwrap();
    let store = open(&disk.crash(Survivors::Synced));
    let next = save(&store.feed("c", "m").unwrap(), &[("a", "4")]).unwrap();
    assert!(lost < next);
}

/// Guarantee 7: in relaxed mode a reader is shown a change only once it cannot be lost any more,
/// and sees its own writes all the same.
#[test]
fn what_a_reader_was_shown_in_relaxed_mode_survives_a_power_failure() {
    let disk = MemoryStorage::new();
    let options = Options::new()
        .background(false)
        .durability(Driver::relaxed());
    let store = options.storage(Arc::new(disk.clone())).open(PATH).unwrap();
    let feed = store.feed("c", "m").unwrap();
    for round in 0..5 {
        save(&feed, &[("a", &round.to_string())]);
        let shown: Vec<_> = feed.records(None).map(Result::unwrap).collect();
        assert_eq!(
            shown[0].payload.as_deref(),
            Some(round.to_string().as_bytes())
        );
        let store = open(&disk.crash(Survivors::Synced));
        let feed = store.feed("c", "m").unwrap();
        let survived: Vec<_> = feed.records(None).map(Result::unwrap).collect();
        assert_eq!(survived, shown);
    }
}

/// Guarantee 8: times never decrease along the feed, even when the clock does.
#[test]
fn order_and_times_hold_when_the_clock_goes_back() {
    let clock = Arc::new(ManualClock::new(1_000_000));
    let disk = MemoryStorage::new();
    let open = || {
        let options = Options::new().background(false).clock(clock.clone());
        options.storage(Arc::new(disk.clone())).open(PATH).unwrap()
    };
    let mut store = open();
    for (round, now) in [1_000_000, 999_000, 5, 5, 2_000_000, 0]
        .into_iter()
        .enumerate()
    {
        clock.set(now);
        save(
            &store.feed("c", "m").unwrap(),
            &[(&format!("r{round}"), "1")],
        );
        store.close().unwrap();
        store = open();
    }
    let feed = store.feed("c", "m").unwrap();
    let times: Vec<_> = feed
        .records(None)
        .map(|r| r.unwrap().last_modified_at)
        .collect();
    assert_eq!(times.len(), 6);
    assert!(times.is_sorted_by(|a, b| a < b));
    assert_eq!(ids_after(&feed, None), ["r0", "r1", "r2", "r3", "r4", "r5"]);
}

/// Guarantee 9: a cursor of another feed, of another store, of another epoch, and damaged text are
/// refused, each by its own error.
#[test]
fn cursors_that_do_not_belong_are_refused() {
    let disk = MemoryStorage::new();
    let store = open(&disk);
    let feed = store.feed("c", "m").unwrap();
    let cursor = save(&feed, &[("a", "1")]).unwrap();
    let list = |feed: &Feed, cursor| feed.list(&List::new().after(cursor)).map(|page| page.len());
    assert_eq!(list(&feed, cursor).unwrap(), 0);
    for other in [
        store.feed("c", "other").unwrap(),
        store.feed("d", "m").unwrap(),
        store.feed_variant("c", "m", "eu").unwrap(),
    ] {
        assert!(matches!(list(&other, cursor), Err(Error::ForeignCursor)));
        assert!(matches!(
            other.wait(Some(cursor), Duration::ZERO),
            Err(Error::ForeignCursor)
        ));
    }
    let options = Options::new().background(false).secret([4; 32]);
    let elsewhere = options
        .storage(Arc::new(MemoryStorage::new()))
        .open(PATH)
        .unwrap();
    let elsewhere = elsewhere.feed("c", "m").unwrap();
    assert!(matches!(
        list(&elsewhere, cursor),
        Err(Error::ForeignCursor)
    ));

    let stale = cursor.in_epoch(7);
    let text = stale.to_string();
    let parsed: Cursor = text.parse().unwrap();
    let refused = list(&feed, parsed);
    assert!(
        matches!(
            refused,
            Err(Error::StaleCursor {
                given: 7,
                current: 1
            })
        ),
        "{refused:?}"
    );

    let text = cursor.to_string();
    let cut = &text[1..];
    for damaged in ["", "x", cut, &text.to_lowercase(), &format!("{text}A")] {
        assert!(
            matches!(damaged.parse::<Cursor>(), Err(Error::InvalidCursor)),
            "{damaged}"
        );
    }
}

/// Guarantee 10: a batch becomes visible whole, in all the feeds it writes to.
#[test]
fn a_batch_becomes_visible_whole() {
    let store = open(&MemoryStorage::new());
    let (a, b) = (store.feed("c", "a").unwrap(), store.feed("c", "b").unwrap());
    let writer = std::thread::spawn({
        let (store, a, b) = (store.clone(), a.clone(), b.clone());
        move || {
            for round in 0..300u32 {
                let body = round.to_string();
                let records: Vec<(String, &str)> =
                    (0..20).map(|n| (format!("r{n}"), body.as_str())).collect();
                let mut batch = store.batch("c");
                batch.save_raw(&a, &records).unwrap();
                batch.save_raw(&b, &records).unwrap();
                let _ = batch.commit().unwrap();
            }
        }
    });
    let newest = |feed: &Feed| -> Option<u32> {
        let page = feed.list(&List::new().limit(1000)).unwrap();
        let bodies: Vec<&[u8]> = page.iter().map(|record| record.payload.unwrap()).collect();
        assert!(
            bodies.is_empty() || bodies.len() == 20,
            "{} records",
            bodies.len()
        );
        assert!(
            bodies.windows(2).all(|pair| pair[0] == pair[1]),
            "a batch shows in part"
        );
        bodies
            .first()
            .map(|body| std::str::from_utf8(body).unwrap().parse().unwrap())
    };
    while !writer.is_finished() {
        let first = newest(&b);
        let second = newest(&a);
        assert!(
            first <= second,
            "one feed of a commit shows before the other"
        );
    }
    writer.join().unwrap();
    assert_eq!((newest(&a), newest(&b)), (Some(299), Some(299)));
}

/// A deleted record shows once, as a deletion, with its last payload.
#[test]
fn a_deletion_shows_with_the_last_payload() {
    let store = open(&MemoryStorage::new());
    let feed = store.feed("c", "m").unwrap();
    save(&feed, &[("a", "1"), ("b", "2")]);
    let cursor = feed.last_cursor().unwrap();
    let _ = feed.batch_delete(&["a", "a", "nope"]).unwrap();
    let page = feed.list(&List::new().after(cursor)).unwrap();
    let record = page.get(0).unwrap();
    assert_eq!(
        (page.len(), record.id, record.last_action),
        (1, "a", Action::Deleted)
    );
    assert_eq!(record.payload, Some(b"1".as_slice()));
}
