//! Compaction changes no page, and may make them cheaper.

use highwater::storage::MemoryStorage;
use highwater::{Action, Cursor, Feed, List, Oldest, Order};
use proptest::prelude::*;

use crate::world::{STORE, eager, feed, line, options, owned, records, save, shows_the_same, view};

fn page_lines(feed: &Feed, list: &List) -> (Vec<String>, Cursor, bool) {
    let page = feed.list(list).unwrap();
    let lines = owned(&page).iter().map(line).collect();
    (lines, page.resume_cursor(), page.has_more())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, max_shrink_iters: 500, ..ProptestConfig::default() })]

    /// G6: compaction changes no cursor and no page, wherever a reader stands. (Actions relative
    /// to a reader that stands in the middle of a commit may be told more cautiously.)
    #[test]
    fn pages_are_the_same_before_and_after(
        writes in prop::collection::vec((0u8..8, 0usize..20, 1usize..12, 0usize..1500), 4..30),
        again in any::<bool>(),
    ) {
        let disk = MemoryStorage::new();
        let store = eager(&disk).open(STORE).unwrap();
        let contacts = feed(&store, "contact");
        let mut ends = Vec::new();
        let apply = |writes: &[(u8, usize, usize, usize)], ends: &mut Vec<Cursor>| {
            for (what, from, count, len) in writes {
                let ids = *from..from + count;
                match what {
                    0 => {
                        let ids: Vec<String> = ids.map(|id| id.to_string()).collect();
                        let _ = contacts.batch_delete(&ids).unwrap();
                    }
                    1 => drop(contacts.prune(&Oldest::all().limit(*count as u64)).unwrap()),
                    _ => save(&contacts, ids, *len, char::from(b'a' + (*len % 26) as u8)),
                }
                ends.extend(contacts.last_cursor().unwrap());
            }
        };
        let (first, second) = writes.split_at(writes.len() / 2);
        apply(first, &mut ends);
        if again {
            let _ = store.compact().unwrap();
        }
        apply(second, &mut ends);
        let mut lists = Vec::new();
        let places: Vec<Cursor> = records(&contacts).iter().map(|record| record.cursor).collect();
        for after in places.iter().copied().map(Some).chain([None]) {
            for limit in [1, 7, 1000] {
                lists.push(List::new().after(after).limit(limit).relative(false));
                lists.push(List::new().after(after).limit(limit).order(Order::Descending));
            }
            lists.push(List::new().after(after).relative(false).filter(Action::Deleted));
        }
        // At the ends of commits actions are exact.
        lists.extend(ends.iter().map(|end| List::new().after(*end)));
        let before: Vec<_> = lists.iter().map(|list| page_lines(&contacts, list)).collect();
        let _ = store.compact().unwrap();
        for (list, before) in lists.iter().zip(before) {
            prop_assert_eq!(page_lines(&contacts, list), before);
        }
        let shown = (contacts.count().unwrap(), contacts.size().unwrap());
        drop(store.close());
        for rebuild in [false, true] {
            let store = match rebuild {
                false => options(&disk).open(STORE).unwrap(),
                true => options(&disk).rebuild(STORE).unwrap(),
            };
            let contacts = feed(&store, "contact");
            prop_assert_eq!((contacts.count().unwrap(), contacts.size().unwrap()), shown);
            let report = store.verify(|_, _| {}).unwrap();
            prop_assert!(report.is_clean(), "{:?}", report.damage);
        }
    }
}

#[test]
fn a_feed_in_many_small_frames_is_put_together() {
    let disk = MemoryStorage::new();
    let store = options(&disk).segment_size(64 << 10).open(STORE).unwrap();
    let contacts = feed(&store, "contact");
    for at in 0..3000 {
        save(&contacts, 10 * at..10 * at + 10, 20, 'a');
    }
    let before = (contacts.stats().unwrap(), view(&store));
    let done = store.compact().unwrap();
    assert!(done.removed > 1);
    let after = (contacts.stats().unwrap(), view(&store));
    assert_eq!(after.1, before.1);
    assert!(after.0.frames * 2 < before.0.frames, "{:?}", after.0);
    // What the packs said of the whole feed, each anew, may be given back; then it is done.
    let _ = store.compact().unwrap();
    let again = store.compact().unwrap();
    assert!(
        again.written_bytes <= done.written_bytes / 2,
        "{again:?}, {done:?}"
    );
    assert_eq!(view(&store), before.1);
    shows_the_same(&store, &disk);
}
