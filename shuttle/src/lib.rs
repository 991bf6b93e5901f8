//! Explores interleavings of the real engine on the simulated disk.
//!
//! Built with `--cfg highwater_shuttle`, which `.cargo/config.toml` of this folder sets, the engine's
//! locks, condition variables and atomics are shuttle's. All threads of a scenario then run one at a
//! time, and at each of those a scheduler chooses which one goes on: at random, or by priorities that
//! change at a few random places, which is better at finding what takes few but unlikely switches.
//! A thread that waits for ever is found, because nobody can go on; time stands still, so no deadline
//! gets anybody out.
//!
//! `cargo test`, in this folder, tries a few hundred interleavings of each scenario. The environment
//! can ask for more: `HIGHWATER_SCHEDULES=20000 HIGHWATER_SEED=7 cargo test --release`.
#![allow(clippy::unwrap_used, clippy::panic)]

#[cfg(not(highwater_shuttle))]
compile_error!(
    "run cargo in the folder `shuttle`, whose configuration puts the checker's locks in"
);

use std::sync::Arc;
use std::time::Duration;

use highwater::storage::{ManualClock, MemoryStorage, Survivors};
use highwater::{Durability, Feed, Options, Store};
use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use shuttle::{Config, MaxSteps, Runner};

/// Interleavings of each scenario for each scheduler, when the environment does not say.
const SCHEDULES: u64 = 200;
/// How many times priorities change in an interleaving.
const CHANGES: usize = 3;
/// More than any scenario takes: one that gets there goes round in circles.
const STEPS_MAX: usize = 2_000_000;
const STACK: usize = 1 << 20;
/// Longer than anybody waits.
pub const FOREVER: Duration = Duration::from_secs(1 << 30);

/// Runs the scenario in many interleavings.
pub fn explore(scenario: impl Fn() + Clone + Send + Sync + 'static) {
    let asked = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let schedules = asked("HIGHWATER_SCHEDULES").unwrap_or(SCHEDULES) as usize;
    let seed = asked("HIGHWATER_SEED").unwrap_or(0x5EED);
    let at_random = RandomScheduler::new_from_seed(seed, schedules);
    run(at_random, scenario.clone());
    run(
        PctScheduler::new_from_seed(seed, CHANGES, schedules),
        scenario,
    );
}

fn run(scheduler: impl Scheduler + 'static, scenario: impl Fn() + Send + Sync + 'static) {
    let mut config = Config::new();
    config.stack_size = STACK;
    config.max_steps = MaxSteps::FailAfter(STEPS_MAX);
    config.silence_warnings = true;
    Runner::new(scheduler, config).run(scenario);
}

/// A number below `n` that belongs to the interleaving.
pub fn below(n: u64) -> u64 {
    use shuttle::rand::Rng;
    shuttle::rand::thread_rng().gen_range(0..n)
}

/// A store on a simulated disk, set up in one of the ways that matter here.
pub struct World {
    pub disk: MemoryStorage,
    pub relaxed: bool,
}

impl World {
    pub fn new() -> Self {
        Self {
            disk: MemoryStorage::new(),
            relaxed: below(2) == 0,
        }
    }

    /// Options with small segments and runs, so that little data makes many of them, with eviction
    /// at every use, and with nothing in the background: scenarios do that themselves.
    pub fn options(&self) -> Options {
        let durability = if self.relaxed {
            let interval = FOREVER;
            Durability::Relaxed { interval }
        } else {
            Durability::Durable
        };
        Options::new()
            .storage(Arc::new(self.disk.clone()))
            .clock(Arc::new(ManualClock::new(1_000_000)))
            .secret([5; 32])
            .background(false)
            .durability(durability)
            .segment_size(4096)
            .index_budget(0)
            .index_limits_of(0, 0)
            .eager_compaction(true)
    }

    pub fn open(&self) -> Store {
        self.options().open("/s").unwrap()
    }

    /// What is left when the power fails now.
    pub fn after_power_loss(&self) -> Self {
        Self {
            disk: self.disk.crash(Survivors::Synced),
            relaxed: self.relaxed,
        }
    }
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}

/// The two feeds that scenarios use.
pub fn feeds(store: &Store) -> [Feed; 2] {
    ["a", "b"].map(|model| store.feed("c", model).unwrap())
}
