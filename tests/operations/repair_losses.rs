//! Whatever a lost frame of the log held, a repair tells of it: exactly where that is known, and else of
//! everything that it can have been.

use std::ops::Range;

use highwater::storage::{MemoryStorage, Survivors};
use highwater::{
    Cursor, Error, Expected, List, Lost, Oldest, OwnedRecord, Repaired, RunOptions, Store, SyncKey,
};
use serde_json::json;

use crate::world::{
    BACKUP, CATALOG, FRAME_HEADER_LEN, RESTORED, STORE, View, change, feed, files, frames_of,
    options, repaired, save, view,
};

/// A frame of the log: its file, and where it is in there.
type Place = (String, usize);

/// A closed store that has lost its catalog, so that only the log tells what happened.
struct Logged {
    disk: MemoryStorage,
    /// What was done, in order, and the frames that it left.
    steps: Vec<(&'static str, Range<usize>)>,
    frames: Vec<Place>,
    /// After each step.
    views: Vec<View>,
}

fn frames(disk: &MemoryStorage) -> Vec<Place> {
    let in_file = |path: String| {
        let bytes = disk.read_file(&path).unwrap();
        let frames = frames_of(&bytes).into_iter();
        frames.map(move |at| (path.clone(), at)).collect::<Vec<_>>()
    };
    files(disk, "/s/log", ".seg")
        .into_iter()
        .flat_map(in_file)
        .collect()
}

impl Logged {
    fn new() -> Self {
        let mut logged = Self {
            disk: MemoryStorage::new(),
            steps: Vec::new(),
            frames: Vec::new(),
            views: Vec::new(),
        };
        let store = options(&logged.disk).open(STORE).unwrap();
        let (a, b) = (feed(&store, "a"), feed(&store, "b"));
        let mut step = |name, step: &dyn Fn()| logged.note(name, &store, step);
        step("new a", &|| save(&a, 0..4, 50, 'x'));
        step("new b", &|| save(&b, 0..4, 50, 'x'));
        step("records a", &|| save(&a, 2..6, 50, 'y'));
        step("records b", &|| save(&b, 4..6, 50, 'y'));
        step("marks a", &|| {
            let _ = a.prune(&Oldest::all().limit(1)).unwrap();
        });
        step("state", &|| checkpoint(&store));
        step("records a", &|| {
            let _ = a.batch_delete(&["1"]).unwrap();
        });
        step("marks b", &|| {
            let _ = b.hard_delete(&Oldest::all().limit(2)).unwrap();
        });
        step("records b", &|| save(&b, 6..7, 50, 'y'));
        step("marks a", &|| {
            let _ = a.purge(&Oldest::all()).unwrap();
        });
        step("marks a", &|| {
            let _ = a.track_deletes_start().unwrap();
        });
        // Nothing of it is new, so it is noted as seen.
        step("marks a", &|| save(&a, 2..6, 50, 'y'));
        step("claim", &|| claim(&store));
        step("records a", &|| save(&a, 7..8, 50, 'z'));
        step("records b", &|| save(&b, 7..8, 50, 'z'));
        step("marks a", &|| {
            let _ = a.prune(&Oldest::all().limit(1)).unwrap();
        });
        store.close().unwrap();
        logged.disk.remove_file(CATALOG).unwrap();
        logged.frames = frames(&logged.disk);
        logged
    }

    fn note(&mut self, name: &'static str, store: &Store, step: &dyn Fn()) {
        let before = frames(&self.disk).len();
        step();
        let after = frames(&self.disk).len();
        self.steps.push((name, before..after));
        self.views.push(view(store));
    }

    /// Repairs a copy in which eight bytes of some frames are damaged.
    fn without(&self, lost: Range<usize>, within: usize) -> (Store, Repaired) {
        let disk = self.disk.crash(Survivors::All);
        for (path, at) in &self.frames[lost] {
            change(&disk, path, |bytes| {
                bytes[at + within..at + within + 8].fill(0xaa);
            });
        }
        repaired(&disk)
    }

    fn expected(&self) -> &View {
        self.views.last().unwrap()
    }

    /// Where a feed ended before and after a step.
    fn ends(&self, model: &str, step: usize) -> (Option<Cursor>, Option<Cursor>) {
        let end = |view: &View| {
            let end = view.get(model)?.1.as_ref()?;
            Some(end.parse().unwrap())
        };
        (end(&self.views[step - 1]), end(&self.views[step]))
    }

    /// The first change of a feed after a step.
    fn next_change(&self, model: &str, step: usize) -> Option<Cursor> {
        let end = self.ends(model, step).1;
        let later = self.views[step..].iter().flat_map(|view| &view[model].0);
        let later = later.map(|record| record.cursor);
        later.filter(|cursor| Some(*cursor) > end).min()
    }
}

fn has_tail(report: &Repaired, model: &str, end: Option<Cursor>) -> bool {
    report.lost.iter().any(|lost| match lost {
        Lost::Tail { feed, after } => feed.model == model && Some(*after) == end,
        _ => false,
    })
}

fn checkpoint(store: &Store) {
    let page = json!({"page": 1});
    let saved = store.save_checkpoint("c", "s", "", &page, Expected::Absent);
    saved.unwrap();
}

/// Takes over a record by saving it again, unchanged.
fn claim(store: &Store) {
    let sync = SyncKey::new("c", "other", "").unwrap();
    let run = store.begin_run(&sync, RunOptions::new()).unwrap();
    save(&run.feed("a").unwrap(), 3..4, 50, 'y');
    let _ = run.succeed().unwrap();
}

fn model_of(lost: &Lost) -> Option<&str> {
    match lost {
        Lost::Changes { feed, .. } | Lost::Tail { feed, .. } | Lost::Marks { feed, .. } => {
            Some(&feed.model)
        }
        _ => None,
    }
}

/// Whether cursors of a feed from before the repair are refused.
fn start_over(logged: &Logged, store: &Store, model: &str) -> bool {
    let mut cursors = logged.expected()[model]
        .0
        .iter()
        .map(|record| record.cursor);
    let feed = feed(store, model);
    cursors.all(|cursor| {
        let page = feed.list(&List::new().after(cursor));
        matches!(page, Err(Error::CursorExpired))
    })
}

fn steps<'a>(logged: &'a Logged, kind: &'a str) -> impl Iterator<Item = (usize, &'a str, usize)> {
    let steps = logged.steps.iter().enumerate();
    steps.filter_map(move |(step, (name, frames))| {
        let model = name.strip_prefix(kind)?.trim_start();
        assert_eq!(frames.len(), 1, "{name}");
        Some((step, model, frames.start))
    })
}

/// The hole in the positions of the feed tells that it was its frame, so nobody else lost anything.
#[test]
fn lost_records_are_all_that_is_told_where_positions_tell_of_them() {
    let logged = Logged::new();
    let mut last = ["a", "b"].map(|model| {
        let (step, ..) = steps(&logged, "records")
            .filter(|it| it.1 == model)
            .last()
            .unwrap();
        step
    });
    last.sort_unstable();
    for (step, model, frame) in steps(&logged, "records") {
        let (store, report) = logged.without(frame..frame + 1, 0);
        if last.contains(&step) {
            // No position is left that tells of it, be there marks behind it or not.
            let told = has_tail(&report, model, logged.ends(model, step).0);
            assert!(told, "step {step}: {:?}", report.lost);
            assert!(report.lost.contains(&Lost::Unknown { frames: 1 }));
            continue;
        }
        let [Lost::Changes { feed, last, .. }] = report.lost.as_slice() else {
            panic!("step {step}: {:?}", report.lost);
        };
        assert_eq!(
            (feed.model.as_str(), Some(*last)),
            (model, logged.ends(model, step).1)
        );
        for other in ["a", "b"] {
            assert_eq!(start_over(&logged, &store, other), other == model);
        }
    }
}

#[test]
fn a_lost_frame_of_marks_is_told_of_its_feed() {
    let logged = Logged::new();
    for (step, model, frame) in steps(&logged, "marks") {
        let (store, report) = logged.without(frame..frame + 1, FRAME_HEADER_LEN);
        let [
            Lost::Marks {
                feed,
                after,
                before,
            },
        ] = report.lost.as_slice()
        else {
            panic!("step {step}: {:?}", report.lost);
        };
        assert_eq!(
            (feed.model.as_str(), Some(*after)),
            (model, logged.ends(model, step).0)
        );
        assert_eq!(*before, logged.next_change(model, step));
        for other in ["a", "b"] {
            assert_eq!(start_over(&logged, &store, other), other == model);
        }
    }
}

/// Without its header nobody knows what a frame was: it may have been marks of any feed, or state.
#[test]
fn a_lost_frame_of_which_nothing_tells_is_told_of_everything_that_it_may_have_been() {
    let logged = Logged::new();
    for (step, _, frame) in steps(&logged, "marks").chain(steps(&logged, "state")) {
        let (store, report) = logged.without(frame..frame + 1, 0);
        for model in ["a", "b"] {
            let marks = report.lost.iter().filter_map(|lost| match lost {
                Lost::Marks {
                    feed,
                    after,
                    before,
                } if feed.model == model => Some((Some(*after), *before)),
                _ => None,
            });
            let marks: Vec<_> = marks.collect();
            let between = (logged.ends(model, step).0, logged.next_change(model, step));
            // Behind the newest frame of a feed, it is its end that may be lost.
            let is_end = step + 1 == logged.steps.len();
            assert_eq!(marks, [between][usize::from(is_end)..], "step {step}");
            assert_eq!(has_tail(&report, model, between.0), is_end, "step {step}");
            assert_eq!(start_over(&logged, &store, model), !is_end);
        }
        assert_eq!(report.lost[2..], [Lost::State, Lost::Unknown { frames: 1 }]);
    }
}

#[test]
fn a_lost_frame_of_state_is_told_as_that() {
    let logged = Logged::new();
    for (_, _, frame) in steps(&logged, "state") {
        let (store, report) = logged.without(frame..frame + 1, FRAME_HEADER_LEN);
        assert_eq!(report.lost, [Lost::State]);
        assert!(!start_over(&logged, &store, "a"));
        assert_eq!(store.checkpoint("c", "s", "").unwrap(), None);
    }
}

/// Several frames in a row, whatever they were: what shows in the end and did not before, or not so,
/// is in a feed of which it is told.
#[test]
fn nothing_comes_back_untold() {
    let logged = Logged::new();
    for first in 0..logged.frames.len() - 1 {
        for last in first + 1..logged.frames.len() {
            let (store, report) = logged.without(first..last, 0);
            for (model, (shown, _)) in view(&store) {
                let expected = &logged.expected()[&model].0;
                let known = |record: &&OwnedRecord| expected.contains(record);
                let told = report
                    .lost
                    .iter()
                    .any(|lost| model_of(lost) == Some(&model));
                let same =
                    shown.iter().all(|record| known(&record)) && shown.len() == expected.len();
                assert!(
                    same || told,
                    "{first} to {last}, {model}: {:?}",
                    report.lost
                );
                // Whoever is not refused has what the feed shows, or is told.
                let accepted = !start_over(&logged, &store, &model);
                let undone = shown.iter().filter(|record| !known(record));
                let tail = report.lost.iter().find_map(|lost| match lost {
                    Lost::Tail { feed, after } if feed.model == model => Some(*after),
                    _ => None,
                });
                assert!(
                    undone.count() == 0 || !accepted || tail.is_some(),
                    "{first} to {last}, {model}"
                );
            }
        }
    }
}

/// Nothing is left of a deletion that was purged but that the record is gone; if not even that is, the
/// record shows again.
#[test]
fn a_record_that_comes_back_for_a_damaged_deletion_is_told() {
    for resaved in [false, true] {
        let disk = MemoryStorage::new();
        let store = options(&disk).open(STORE).unwrap();
        let contacts = feed(&store, "contact");
        save(&contacts, 0..3, 50, 'x');
        let deletion = frames(&disk).len();
        let _ = contacts.batch_delete(&["1"]).unwrap();
        let deleted = contacts.last_cursor().unwrap().unwrap();
        if resaved {
            // The next deletion says whose it is.
            save(&contacts, 1..2, 50, 'y');
            let _ = contacts.batch_delete(&["1"]).unwrap();
        }
        save(&contacts, 5..6, 50, 'x');
        let _ = contacts.purge(&Oldest::all()).unwrap();
        let expected = view(&store);
        store.close().unwrap();
        disk.remove_file(CATALOG).unwrap();
        let (path, at) = frames(&disk)[deletion].clone();
        change(&disk, &path, |bytes| bytes[at + FRAME_HEADER_LEN] ^= 1);
        let (store, report) = repaired(&disk);
        if resaved {
            assert_eq!(view(&store), expected);
            assert!(report.is_complete(), "{:?}", report.lost);
            continue;
        }
        let [Lost::Changes { first, last, .. }] = report.lost.as_slice() else {
            panic!("{:?}", report.lost);
        };
        assert_eq!([*first, *last], [deleted; 2]);
        let page = feed(&store, "contact").list(&List::new().after(deleted));
        assert!(matches!(page, Err(Error::CursorExpired)), "{page:?}");
    }
}

/// A backup that was not finished may lack files, also where the log looks as if it ended there.
#[test]
fn an_unfinished_backup_is_known_to_end_anywhere() {
    let disk = MemoryStorage::new();
    let store = options(&disk).open(STORE).unwrap();
    save(&feed(&store, "contact"), 0..1, 3000, 'x');
    store.close().unwrap();
    let store = options(&disk).open(STORE).unwrap();
    save(&feed(&store, "contact"), 1..2, 3000, 'y');
    let _ = store.backup(BACKUP, |_, _| {}).unwrap();
    let interrupted = (0..).map(|stop| {
        let copy = disk.crash(Survivors::All);
        let store = options(&copy).open(STORE).unwrap();
        copy.stop_at(copy.operations() + stop);
        assert!(store.backup(BACKUP, |_, _| {}).is_err());
        copy.crash(Survivors::All)
    });
    let is_unfinished = |disk: &MemoryStorage| {
        let opened = options(disk).create(false).open(BACKUP);
        matches!(opened, Err(Error::Unfinished { .. }))
    };
    let disk = interrupted.into_iter().find(is_unfinished).unwrap();
    disk.remove_file("/b/log/0000000002.seg").unwrap();
    disk.remove_file("/b/catalog.redb").unwrap();
    let report = options(&disk).repair(BACKUP, RESTORED).unwrap();
    let store = options(&disk).create(false).open(RESTORED).unwrap();
    let end = feed(&store, "contact").last_cursor().unwrap();
    assert!(has_tail(&report, "contact", end), "{:?}", report.lost);
    assert!(report.lost.contains(&Lost::State));
}
