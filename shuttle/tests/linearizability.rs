//! Histories of random calls, in many interleavings, have an order that explains them. The checker
//! and the recorder are those of the tests with real threads.
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "../../tests/linearizability/checker.rs"]
mod checker;
#[path = "../../tests/linearizability/recorder.rs"]
#[allow(dead_code, reason = "pauses are for real threads")]
mod recorder;

use highwater_shuttle::{World, below, explore};
use shuttle::thread::scope;

use self::checker::{Event, Id, Value, check_together};
use self::recorder::{Clock, FEEDS, Recorder, Step, together};

const THREADS: usize = 3;
const STEPS: usize = 5;
const IDS: u64 = 3;
const VALUES: u64 = 2;

/// One or two different ids.
fn ids() -> Vec<Id> {
    let first = below(IDS);
    let other = (first + below(IDS)) % IDS;
    let both = [first as Id, other as Id];
    both[..if first == other { 1 } else { 2 }].to_vec()
}

fn records() -> Vec<(Id, Value)> {
    let record = |id| (id, below(VALUES) as Value);
    ids().into_iter().map(record).collect()
}

fn step() -> Step {
    let feed = below(FEEDS as u64) as usize;
    match below(17) {
        0..4 => Step::Save(feed, records()),
        4 => Step::Delete(feed, ids()),
        5..7 => Step::SaveBoth([records(), records()]),
        7..10 => Step::Follow(feed, 1 + below(3) as usize),
        10 => Step::ListAll(feed),
        11..13 => Step::Get(feed, ids()),
        13 => Step::Count(feed),
        14 => Step::Compact,
        15 => Step::Flush,
        _ => Step::SaveCatalog,
    }
}

#[test]
fn histories_are_linearizable() {
    explore(|| {
        let store = World::new().open();
        let clock = Clock::default();
        let programs: Vec<Vec<Step>> = (0..THREADS)
            .map(|_| (0..STEPS).map(|_| step()).collect())
            .collect();
        let noted: Vec<[Vec<Event>; FEEDS]> = scope(|scope| {
            let threads = programs.iter().map(|program| {
                let (store, clock) = (&store, &clock);
                scope.spawn(move || {
                    let mut recorder = Recorder::new(store, clock);
                    program.iter().for_each(|step| recorder.run(step));
                    recorder.noted
                })
            });
            let threads: Vec<_> = threads.collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .collect()
        });
        check_together(&mut together(noted)).unwrap();
    });
}
