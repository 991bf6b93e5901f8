//! A crash at every operation of each script, each leaving the disk in every way in which a crash
//! may leave it (G1, G2, G3, G5).
//!
//! After each crash: every acknowledged commit is there whole, no other is there in part, records
//! and checkpoint agree, cursors are as they were, and consumers that stood anywhere converge. The
//! same holds for crashes inside the recovery from a crash, inside the recovery from that, and,
//! for scripts that compact, when the catalog is lost as well.
//!
//! By default one crash point of sixteen is checked, the same ones each time.
//! `HIGHWATER_CRASH_POINTS=all` checks all of them, and a number one of so many;
//! `HIGHWATER_CRASH_SUBSETS` says how many random subsets of sectors there are at each place.
//!
//! * [`states`]: the states in which a crash may leave the disk
//! * [`check`]: what must hold afterwards

pub mod check;
mod states;

use std::sync::Arc;

use highwater::Options;
use highwater::storage::{MemoryStorage, Survivors};

use crate::crash_points::check::{Crash, check, check_rebuilt};
use crate::crash_points::states::states;
use crate::driver::PATH;
use crate::scripts::play::{Mode, Play};
use crate::scripts::view::View;
use crate::scripts::{RECYCLING, Script, each_script};
use crate::table::Table;

/// How deep crashes are nested: a crash, one in the recovery, one in the recovery from that.
const DEPTH_MAX: usize = 3;

/// Which of the crash points are checked.
#[derive(Clone, Copy)]
struct Extent {
    /// One crash of so many is checked.
    stride: u64,
    /// One crash of so many is followed by crashes in the recovery from it.
    nested: u64,
    /// Random subsets of sectors, and of half sectors, at each place.
    subsets: u64,
}

impl Extent {
    fn wanted() -> Self {
        let given = |name| std::env::var(name).ok();
        let number = |text: String| text.parse().ok();
        let stride = match given("HIGHWATER_CRASH_POINTS").as_deref() {
            Some("all") => 1,
            other => other.and_then(|text| number(text.to_owned())).unwrap_or(16),
        };
        Self {
            stride,
            nested: 60,
            subsets: given("HIGHWATER_CRASH_SUBSETS")
                .and_then(number)
                .unwrap_or(3),
        }
    }
}

/// No two crashes at one place leave the same disk.
static TABLE: Table = Table::new(&["operations", "states", "crashes", "nested", "rebuilt"]);

#[derive(Default)]
struct Counts {
    operations: u64,
    /// Places and states of the disk that a crash can find.
    states: u64,
    /// Those of them that were checked.
    crashes: u64,
    /// Crashes in a recovery, and in the recovery from that.
    nested: u64,
    /// Opened without the catalog as well.
    rebuilt: u64,
}

/// The crashes of one script.
struct Enumeration {
    extent: Extent,
    options: Options,
    views: Vec<View>,
    counts: Counts,
    compacts: bool,
}

fn enumerate(script: &'static Script, mode: Mode) {
    let mut play = Play::new(script, mode);
    play.disk.record();
    play.play(|_| ()).unwrap();
    let disks = play.disk.recorded();
    let least = 2 * script.compactions() as u64;
    assert!(play.compacted >= least, "{} were replaced", play.compacted);
    let mut enumeration = Enumeration {
        extent: Extent::wanted(),
        options: play.options.clone(),
        views: Play::rehearse(script),
        counts: Counts::default(),
        compacts: least > 0,
    };
    for (at, disk) in (0..).zip(&disks) {
        enumeration.crash_at(script, mode, at, disk, &play);
    }
    let name = format!("{}, {mode:?}", script.name).to_lowercase();
    let Counts {
        operations,
        states,
        crashes,
        nested,
        rebuilt,
    } = enumeration.counts;
    assert!(crashes > 30 && nested > 10, "{name}: {crashes}, {nested}");
    let counts = [operations, states, crashes, nested, rebuilt];
    TABLE.add(name, &counts, SCRIPTS);
}

impl Enumeration {
    /// Crashes at one operation of the script.
    fn crash_at(
        &mut self,
        script: &Script,
        mode: Mode,
        at: u64,
        disk: &MemoryStorage,
        play: &Play,
    ) {
        self.counts.operations += 1;
        let progress = play.progress_at(at);
        for (n, (survivors, disk)) in (0..).zip(states(disk, at, self.extent.subsets)) {
            self.counts.states += 1;
            // At neighbouring operations other states are checked.
            if !(n + at).is_multiple_of(self.extent.stride) {
                continue;
            }
            let crash = Crash {
                what: format!("{}, {mode:?}, operation {at}, {survivors:?}", script.name),
                progress,
                least: match survivors {
                    // Nothing but the process is gone.
                    Survivors::All => progress.acknowledged,
                    _ => progress.durable,
                },
            };
            if self.counts.crashes.is_multiple_of(self.extent.nested) {
                self.crash_in_recovery(&disk, &crash, 2);
            }
            let anew = self.compacts && self.counts.crashes.is_multiple_of(3);
            let anew = anew.then(|| disk.crash(Survivors::All));
            let survived = check(&disk, &self.options, &self.views, &crash);
            if let Some(disk) = anew {
                check_rebuilt(&disk, &self.options, &self.views[survived], &crash);
                self.counts.rebuilt += 1;
            }
            self.counts.crashes += 1;
        }
    }

    /// Crashes at every operation of the recovery of `disk`; they are the `depth`th in a row.
    fn crash_in_recovery(&mut self, disk: &MemoryStorage, crash: &Crash, depth: usize) {
        let recovering = disk.crash(Survivors::All);
        recovering.record();
        let options = self.options.clone().storage(Arc::new(recovering.clone()));
        let opened = options.open(PATH);
        let disks = recovering.recorded();
        drop(opened.unwrap());
        for (at, disk) in (0..).zip(&disks) {
            let seed = self.counts.nested;
            let states = states(disk, seed, 1);
            // What was synced, and one of the others.
            let other = 2 + seed as usize % states.len().saturating_sub(2).max(1);
            for (survivors, disk) in states.get(1).into_iter().chain(states.get(other)) {
                let crash = Crash {
                    what: format!("{}, then operation {at}, {survivors:?}", crash.what),
                    least: crash.progress.durable,
                    ..*crash
                };
                let deeper = depth < DEPTH_MAX && self.counts.nested.is_multiple_of(50);
                self.counts.nested += 1;
                if deeper {
                    self.crash_in_recovery(disk, &crash, depth + 1);
                }
                check(disk, &self.options, &self.views, &crash);
            }
        }
    }
}

each_script!(enumerate);

/// What the script is for: segments made of files with frames of other segments in them.
#[test]
fn files_are_used_again_while_recycling() {
    let mut play = Play::new(&RECYCLING, Mode::Durable);
    play.disk.record();
    play.play(|_| ()).unwrap();
    let names = |disk: &MemoryStorage, end: &str| {
        let files = disk.files().into_iter();
        let names = files.filter(|(path, _)| path.to_string_lossy().ends_with(end));
        names.count()
    };
    let disks = play.disk.recorded();
    let reused = disks.windows(2).filter(|pair| {
        let spares = names(&pair[1], ".spare") < names(&pair[0], ".spare");
        spares && names(&pair[1], ".new") > names(&pair[0], ".new")
    });
    assert!(reused.count() > 2);
}
