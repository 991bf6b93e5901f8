//! Histories of calls by several threads on the real engine are linearizable: the feed behaves as if
//! each call took effect at one moment between its beginning and its end. Checks G2, G4, G5 and G7
//! under concurrency, and that a commit of several feeds shows in all of them at once.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, unreachable_pub)]

mod checker;
mod recorder;
mod refusals;

use std::sync::Arc;
use std::time::Duration;

use highwater::storage::MemoryStorage;
use highwater::{Durability, Options, Store};
use proptest::collection::vec;
use proptest::prelude::*;

use self::checker::{Event, Id, Value, check_together};
use self::recorder::{Clock, FEEDS, Recorder, Step, together};

const IDS: Id = 6;
/// Few, so that saves often change nothing.
const VALUES: Value = 3;

#[derive(Clone, Debug)]
struct Setup {
    relaxed: bool,
    evicting: bool,
    small_segments: bool,
    background: bool,
}

impl Setup {
    fn options(&self) -> Options {
        let mut options = Options::new().background(self.background);
        if self.relaxed {
            let interval = Duration::from_millis(1);
            options = options.durability(Durability::Relaxed { interval });
        }
        if self.evicting {
            options = options.index_budget(0);
        }
        if self.small_segments {
            options = options.segment_size(4096).checkpoint_bytes(4096);
        }
        options
    }
}

fn setups() -> impl Strategy<Value = Setup> {
    any::<[bool; 4]>().prop_map(|[relaxed, evicting, small_segments, background]| Setup {
        relaxed,
        evicting,
        small_segments,
        background,
    })
}

/// Different ids, in any order.
fn ids() -> impl Strategy<Value = Vec<Id>> {
    let all: Vec<Id> = (0..IDS).collect();
    proptest::sample::subsequence(all, 1..4).prop_shuffle()
}

fn records() -> impl Strategy<Value = Vec<(Id, Value)>> {
    (ids(), vec(0..VALUES, 4)).prop_map(|(ids, values)| ids.into_iter().zip(values).collect())
}

fn steps() -> impl Strategy<Value = Step> {
    let feed = 0..FEEDS;
    prop_oneof![
        8 => (feed.clone(), records()).prop_map(|(feed, records)| Step::Save(feed, records)),
        3 => (feed.clone(), ids()).prop_map(|(feed, ids)| Step::Delete(feed, ids)),
        3 => [records(), records()].prop_map(Step::SaveBoth),
        6 => (feed.clone(), 1..5usize).prop_map(|(feed, limit)| Step::Follow(feed, limit)),
        3 => feed.clone().prop_map(Step::ListAll),
        5 => (feed.clone(), ids()).prop_map(|(feed, ids)| Step::Get(feed, ids)),
        1 => feed.prop_map(Step::Count),
        1 => Just(Step::Flush),
        1 => Just(Step::SaveCatalog),
        1 => Just(Step::Compact),
        1 => Just(Step::Pause),
    ]
}

fn programs() -> impl Strategy<Value = Vec<Vec<Step>>> {
    vec(vec(steps(), 4..24), 2..5)
}

/// Runs every program in a thread of its own; what was noted, by feed.
fn run(store: &Store, programs: &[Vec<Step>]) -> [Vec<Event>; FEEDS] {
    let clock = Clock::default();
    let start = std::sync::Barrier::new(programs.len());
    let noted: Vec<[Vec<Event>; FEEDS]> = std::thread::scope(|scope| {
        let threads: Vec<_> = programs
            .iter()
            .map(|program| {
                let (clock, start) = (&clock, &start);
                scope.spawn(move || {
                    let mut recorder = Recorder::new(store, clock);
                    start.wait();
                    program.iter().for_each(|step| recorder.run(step));
                    recorder.noted
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    together(noted)
}

/// A history that failed once may pass the next time, so a few tries at shrinking must do.
fn config(cases: u32) -> ProptestConfig {
    let given = std::env::var("PROPTEST_CASES").ok();
    let given = given.and_then(|text| text.parse().ok());
    ProptestConfig {
        cases: given.unwrap_or(cases),
        max_shrink_iters: 200,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config(400))]

    #[test]
    fn histories_on_the_simulated_disk_are_linearizable(setup in setups(), programs in programs()) {
        let disk = Arc::new(MemoryStorage::new());
        let store = setup.options().storage(disk).open("/s").unwrap();
        let mut histories = run(&store, &programs);
        prop_assert_eq!(check_together(&mut histories), Ok(()));
    }
}

proptest! {
    #![proptest_config(config(40))]

    #[test]
    fn histories_on_the_real_disk_are_linearizable(setup in setups(), programs in programs()) {
        let dir = tempfile::tempdir().unwrap();
        let store = setup.options().open(dir.path()).unwrap();
        let mut histories = run(&store, &programs);
        prop_assert_eq!(check_together(&mut histories), Ok(()));
    }
}
