//! Proof that the checks can fail: engines with one line wrong each, which the simulation has to
//! find out. `DEFECT=ForgetLock` tries one only.

use highwater::Defect;

use super::attempt;

/// How many seeds a defect may outlive.
const SEEDS_MAX: u64 = 2000;

#[test]
fn every_broken_variant_is_caught() {
    let mut missed = Vec::new();
    let only = std::env::var("DEFECT").ok();
    let named = |defect: &Defect| {
        only.as_ref()
            .is_none_or(|only| *only == format!("{defect:?}"))
    };
    for defect in Defect::ALL.into_iter().filter(named) {
        let caught =
            (0..SEEDS_MAX).find_map(|seed| Some((seed, attempt(seed, Some(defect)).err()?)));
        match caught {
            Some((seed, failure)) => {
                let reason = failure.lines().nth(1).unwrap_or_default();
                println!("{defect:?} is caught by seed {seed}: {reason}");
            }
            None => missed.push(defect),
        }
    }
    assert!(missed.is_empty(), "{missed:?} go unnoticed");
}
