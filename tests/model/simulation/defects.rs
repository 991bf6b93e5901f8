//! Proof that the checks can fail: engines with one line wrong each, which the simulation has to
//! find out. `DEFECT=ForgetLock` tries one only.

use std::sync::Mutex;

use highwater::Defect;

use super::attempt;

/// How many seeds a defect may outlive.
const SEEDS_MAX: u64 = 2000;

#[test]
fn every_broken_variant_is_caught() {
    let only = std::env::var("DEFECT").ok();
    let named = |defect: &Defect| {
        only.as_ref()
            .is_none_or(|only| *only == format!("{defect:?}"))
    };
    let defects = Mutex::new(Defect::ALL.into_iter().filter(named));
    let missed = Mutex::new(Vec::new());
    let work = || {
        loop {
            let Some(defect) = defects.lock().unwrap().next() else {
                return;
            };
            let fails = |seed| Some((seed, attempt(seed, Some(defect)).err()?));
            match (0..SEEDS_MAX).find_map(fails) {
                Some((seed, failure)) => {
                    let reason = failure.lines().nth(1).unwrap_or_default();
                    println!("{defect:?} is caught by seed {seed}: {reason:.160}");
                }
                None => missed.lock().unwrap().push(defect),
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        (0..threads).for_each(|_| drop(scope.spawn(work)));
    });
    let missed = missed.into_inner().unwrap();
    assert!(missed.is_empty(), "{missed:?} go unnoticed");
}
