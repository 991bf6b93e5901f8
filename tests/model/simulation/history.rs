//! One history from one seed: operations, faults in the midst of them, and checks.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use highwater::storage::{Fault, Survivors};
use highwater::{Defect, Error};

use super::dice::Dice;
use super::plan::{Betrayal, Plan};
use crate::driver::{Driver, FEEDS, Trust};
use crate::reader::Reader;
use crate::step::Step;

/// What a history was made of.
#[derive(Clone, Default, PartialEq, Debug)]
pub struct Trace {
    /// How often there was each operation and each fault.
    pub counts: BTreeMap<&'static str, u64>,
    /// Stands for every operation, what the disk did for it, and what is on the disk at the end.
    pub digest: u64,
}

struct History {
    dice: Dice,
    plan: Plan,
    driver: Driver,
    trace: Trace,
    digest: DefaultHasher,
    prints: bool,
    /// For so many steps more the disk is full.
    full: u64,
}

/// Plays the history of a seed, with or without a defect in the engine. Panics when a check fails.
pub fn play(seed: u64, defect: Option<Defect>, prints: bool) -> Trace {
    let mut dice = Dice::new(seed);
    let mut plan = Plan::new(&mut dice);
    if let Some(defect) = defect {
        plan.options = plan.options.defect(defect);
    }
    if prints {
        println!("{plan:#?}");
    }
    let driver = Driver::new(plan.options.clone());
    let mut history = History {
        dice,
        plan,
        driver,
        trace: Trace::default(),
        digest: DefaultHasher::new(),
        prints,
        full: 0,
    };
    history.play();
    history.trace
}

impl History {
    fn play(&mut self) {
        // Two more readers for each feed: one that follows, and one that stands about.
        self.driver.readers.extend((0..FEEDS).map(Reader::of));
        for at in 0..self.plan.steps {
            self.arm_short_reads();
            if let Some((from, betrayal)) = self.plan.betrayal
                && from == at
            {
                self.betray(betrayal);
            }
            self.step();
            if self.driver.reported.is_some() {
                self.note("reports of damage");
                return self.end();
            }
            if self.driver.poisoned {
                self.outlive_poison();
            }
        }
        self.driver.disk.heal();
        self.check_all();
        self.end();
    }

    fn note(&mut self, what: &'static str) {
        *self.trace.counts.entry(what).or_default() += 1;
    }

    fn apply(&mut self, step: &Step) {
        if self.prints {
            println!("{step:?}");
        }
        self.note(step.kind());
        step.apply(&mut self.driver);
        self.driver.notice_poison();
        let operations = self.driver.disk.operations();
        let poisoned = self.driver.poisoned;
        (format!("{step:?}"), operations, poisoned).hash(&mut self.digest);
    }

    /// One step, undisturbed or not.
    fn step(&mut self) {
        let step = self.dice.step(&self.plan);
        let honest = matches!(self.driver.trust, Trust::Sound);
        if self.full > 0 {
            self.full -= 1;
            self.apply(&step);
            if self.full == 0 || self.driver.poisoned {
                self.heal();
            }
        } else if honest && self.dice.percent(self.plan.failing) {
            let fault = self.dice.fault(&self.plan);
            if self.prints {
                println!("with {fault:?}:");
            }
            self.driver.disk.fail(fault);
            self.driver.trust = Trust::Failing;
            self.apply(&step);
            match fault {
                Fault::Full { .. } if !self.driver.poisoned => self.full = self.dice.below(6),
                _ => {}
            }
            if self.full == 0 {
                self.heal();
            }
        } else if self.dice.percent(self.plan.power_cuts) {
            self.cut_power(&step);
        } else {
            self.apply(&step);
            let crashed = matches!(step, Step::Crash(_) | Step::CrashThrough(..));
            if crashed && self.driver.trust == Trust::Lying && self.driver.reported.is_none() {
                // From here on it keeps its promises; what it broke was seen, or is gone.
                self.driver.trust = Trust::Damaged;
            }
        }
    }

    fn heal(&mut self) {
        self.full = 0;
        self.driver.disk.heal();
        self.driver.notice_poison();
        self.driver.trust = Trust::Sound;
        self.arm_short_reads();
    }

    fn arm_short_reads(&mut self) {
        if self.plan.short_reads {
            let seed = self.dice.number();
            self.driver.disk.fail(Fault::ShortReads { seed });
        }
    }

    /// The power fails within a step.
    fn cut_power(&mut self, step: &Step) {
        let after = self.dice.below(30);
        if self.prints {
            println!("until the power fails after {after} operations:");
        }
        self.note("power cuts");
        let trust = self.driver.trust;
        self.driver.trust = trust.or_failing();
        let disk = self.driver.disk.clone();
        disk.stop_at(disk.operations() + after);
        self.apply(step);
        self.driver.trust = trust;
        if self.driver.reported.take().is_some() && matches!(trust, Trust::Sound) {
            unreachable!("damage is not excused");
        }
        let survivors = self.dice.survivors();
        let interruptions = self.dice.interruptions(&self.plan);
        self.apply(&Step::CrashThrough(survivors, interruptions));
        if trust == Trust::Lying && self.driver.reported.is_none() {
            self.driver.trust = Trust::Damaged;
        }
    }

    /// A poisoned store takes nothing, and goes on showing what it showed, until it is opened again.
    fn outlive_poison(&mut self) {
        self.note("poisoned stores");
        for _ in 0..self.dice.below(4) {
            let answer = self.driver.try_feed(0);
            let refused = answer.and_then(|feed| feed.batch_save_raw(&[("poisoned", "1")]));
            assert!(
                matches!(refused, Err(Error::Poisoned { .. })),
                "a poisoned store answers {refused:?}"
            );
            let (reader, limit) = (self.dice.index(100), self.dice.between(1, 9) as usize);
            self.apply(&Step::Read { reader, limit });
        }
        self.apply(&Step::Check);
        let step = match self.dice.below(3) {
            0 => Step::CrashThrough(Survivors::All, self.dice.interruptions(&self.plan)),
            _ => Step::CrashThrough(self.dice.survivors(), self.dice.interruptions(&self.plan)),
        };
        self.apply(&step);
    }

    /// From now on the disk is not what it was said to be.
    fn betray(&mut self, betrayal: Betrayal) {
        if self.full > 0 {
            self.heal();
        }
        if self.prints {
            println!("{betrayal:?} from here on");
        }
        let disk = self.driver.disk.clone();
        match betrayal {
            Betrayal::LostSyncs => {
                let (seed, percent) = (self.dice.number(), self.dice.between(10, 100));
                disk.fail(Fault::LostSyncs { seed, percent });
                self.driver.trust = Trust::Lying;
            }
            Betrayal::MisdirectedWrite => {
                let by = 512 * self.dice.pick(&[1, 8, 8, 16]);
                let after = self.dice.below(6);
                disk.fail(Fault::Misdirected { after, by });
                self.driver.trust = Trust::Damaged;
            }
            Betrayal::FlippedBit => {
                let files = disk.files().into_iter();
                let files: Vec<_> = files.filter(|(_, len)| *len > 0).collect();
                let path = files[self.dice.index(files.len())].0.clone();
                let bytes = disk.read_file(&path).unwrap();
                let used = bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0);
                let offset = self.dice.below(used as u64 + 1);
                let mask = 1 << self.dice.below(8);
                if self.prints {
                    println!("{mask:#04x} at {offset} in {}", path.display());
                }
                disk.flip(&path, offset, mask).unwrap();
                self.driver.trust = Trust::Damaged;
            }
        }
    }

    /// At the end everything must be as the model says, now and when the store is opened again.
    fn check_all(&mut self) {
        for rebuild in [false, true] {
            for step in [
                Step::Check,
                if rebuild { Step::Rebuild } else { Step::Reopen },
            ] {
                self.apply(&step);
                if self.driver.reported.is_some() {
                    return self.note("reports of damage");
                }
                if self.driver.poisoned {
                    self.outlive_poison();
                }
            }
            self.driver.converge(7);
        }
        if self.driver.trust == Trust::Sound {
            let report = self.driver.store.verify(|_, _| {}).unwrap();
            assert!(report.is_clean(), "{:?}", report.damage);
        }
    }

    fn end(&mut self) {
        let strikes = self.driver.disk.strikes().into_iter();
        let strikes: Vec<_> = strikes.chain(self.driver.strikes.clone()).collect();
        for (fault, times) in strikes {
            *self.trace.counts.entry(fault).or_default() += times;
        }
        for (path, _) in self.driver.disk.files() {
            self.driver.disk.read_file(&path).hash(&mut self.digest);
            path.hash(&mut self.digest);
        }
        self.trace.digest = self.digest.finish();
    }
}
