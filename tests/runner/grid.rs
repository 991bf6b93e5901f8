//! Simulated weeks of schedules: runs that take long, fail, are paused, restarted and cut off, and
//! a clock that jumps.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock, Weak};

use highwater::storage::{MemoryStorage, Survivors};
use highwater::sync::{Runner, SyncContext, SyncError, Trigger};
use highwater::{RunStatus, SyncKey};
use parking_lot::Mutex;
use proptest::prelude::*;
use serde_json::json;

use crate::world::{Function, HOUR, MINUTE, World, function};

/// What the runs of one round do.
#[derive(Clone, Copy, Debug)]
enum Run {
    Succeed,
    Fail,
    PauseItself,
    /// Another thread looks for something to do meanwhile.
    Nested,
    /// The process dies in the middle of the first run.
    Die,
}

#[derive(Clone, Debug)]
enum Step {
    Pass(u64),
    /// Until the first schedule is due.
    Wait,
    JumpBack(u64),
    JumpAhead(u64),
    Pause(usize),
    Start(usize),
    Trigger(usize, bool),
    Restart,
    Work(Run, u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let day = 24 * HOUR;
    let run = prop_oneof![
        4 => Just(Run::Succeed),
        2 => Just(Run::Fail),
        1 => Just(Run::PauseItself),
        2 => Just(Run::Nested),
        1 => Just(Run::Die),
    ];
    let step = prop_oneof![
        3 => (0..day / 4).prop_map(Step::Pass),
        4 => Just(Step::Wait),
        1 => (0..day).prop_map(Step::JumpBack),
        1 => (0..3 * day).prop_map(Step::JumpAhead),
        1 => (0..KEYS).prop_map(Step::Pause),
        2 => (0..KEYS).prop_map(Step::Start),
        1 => ((0..KEYS), any::<bool>()).prop_map(|(key, reset)| Step::Trigger(key, reset)),
        1 => Just(Step::Restart),
        8 => (run, 0..5 * HOUR).prop_map(|(run, takes)| Step::Work(run, takes)),
    ];
    proptest::collection::vec(step, 1..60)
}

const KEYS: usize = 3;

/// What the functions do, and what they have seen.
struct Script {
    run: Run,
    takes: u64,
    /// How many runs of a schedule are going on.
    active: BTreeMap<SyncKey, u32>,
    /// The runs that were made inside of others, with the moment at which their round began.
    nested: Vec<(SyncKey, u64)>,
    /// What a crash in the middle of a run has left.
    died: Option<MemoryStorage>,
    clock: Arc<highwater::storage::ManualClock>,
    disk: MemoryStorage,
    runner: Arc<OnceLock<Weak<Runner>>>,
}

fn exec(script: &Mutex<Script>, context: &mut SyncContext) -> Result<(), SyncError> {
    let key = context.sync().clone();
    let (run, runner) = {
        let mut script = script.lock();
        let active = script.active.entry(key.clone()).or_default();
        *active += 1;
        assert_eq!(*active, 1, "{key} runs twice at once");
        let takes = script.takes / 2;
        script.clock.advance(takes);
        let runner = script.runner.get().and_then(Weak::upgrade).unwrap();
        (script.run, runner)
    };
    let result = match run {
        Run::Succeed => context.save_checkpoint(&json!({"run": context.run_id()})),
        Run::Fail => Err(SyncError::failed("no")),
        Run::PauseItself => {
            runner.pause(&key).unwrap();
            context.save_checkpoint(&json!({"run": context.run_id()}))
        }
        Run::Nested => {
            // What the nested runs do has no runs nested in it.
            script.lock().run = Run::Succeed;
            let began = context.now().as_micros();
            for report in runner.run_due().unwrap() {
                assert_ne!(report.sync, key);
                script.lock().nested.push((report.sync, began));
            }
            script.lock().run = Run::Nested;
            Ok(())
        }
        Run::Die => {
            let mut script = script.lock();
            if script.died.is_none() {
                script.died = Some(script.disk.crash(Survivors::Synced));
            }
            Ok(())
        }
    };
    let mut script = script.lock();
    let takes = script.takes / 2;
    script.clock.advance(takes);
    *script.active.entry(key).or_default() -= 1;
    result
}

/// What is known of a schedule from outside.
#[derive(Clone, Copy, Default)]
struct Known {
    anchor: u64,
    period: u64,
    paused: bool,
    triggered: bool,
    /// When the newest tick that was done began.
    done: Option<u64>,
}

impl Known {
    fn tick(&self, moment: u64) -> u64 {
        moment.saturating_sub(self.anchor) / self.period
    }

    fn is_due(&self, now: u64) -> bool {
        let undone = self
            .done
            .is_none_or(|done| self.tick(now) > self.tick(done));
        self.triggered || (!self.paused && now >= self.anchor && undone)
    }
}

struct Simulation {
    world: World,
    runner: Arc<Runner>,
    function: Arc<Function>,
    script: Arc<Mutex<Script>>,
    keys: Vec<SyncKey>,
    known: Vec<Known>,
}

impl Simulation {
    fn new(periods: &[u64]) -> Self {
        let world = World::new();
        let script = Arc::new(Mutex::new(Script {
            run: Run::Succeed,
            takes: 0,
            active: BTreeMap::new(),
            nested: Vec::new(),
            died: None,
            clock: world.clock.clone(),
            disk: world.disk.clone(),
            runner: Arc::default(),
        }));
        let held = script.clone();
        let function = function(move |context| exec(&held, context));
        let runner = Arc::new(world.runner());
        runner.register(function.clone()).unwrap();
        let (mut keys, mut known) = (Vec::new(), Vec::new());
        for (n, minutes) in periods.iter().enumerate() {
            let period = minutes * MINUTE;
            let frequency = format!("{minutes}m").parse().unwrap();
            let variant = n.to_string();
            let key = runner.schedule("conn", &variant, "contacts", Some(frequency));
            keys.push(key.unwrap());
            known.push(Known {
                anchor: world.clock_now(),
                period,
                ..Known::default()
            });
            world.clock.advance(7 * MINUTE);
        }
        let mut simulation = Self {
            world,
            runner,
            function,
            script,
            keys,
            known,
        };
        simulation.hand_over_runner();
        simulation
    }

    fn hand_over_runner(&mut self) {
        let cell = OnceLock::new();
        cell.set(Arc::downgrade(&self.runner)).unwrap();
        let mut script = self.script.lock();
        script.runner = Arc::new(cell);
        script.disk = self.world.disk.clone();
        script.active.clear();
    }

    fn restart(&mut self, died: Option<MemoryStorage>) {
        let before = died.is_none().then(|| self.runner.statuses().unwrap());
        self.runner.shutdown();
        let _ = self.world.store.close();
        let disk = died.unwrap_or_else(|| self.world.disk.clone());
        self.world = World::on(disk, self.world.clock.clone());
        self.runner = Arc::new(self.world.runner());
        self.runner.register(self.function.clone()).unwrap();
        self.hand_over_runner();
        if let Some(before) = before {
            assert_eq!(self.runner.statuses().unwrap(), before);
        }
    }

    fn work(&mut self, run: Run, takes: u64) {
        {
            let mut script = self.script.lock();
            (script.run, script.takes) = (run, takes);
        }
        let now = self.world.clock_now();
        let due: Vec<bool> = self.known.iter().map(|known| known.is_due(now)).collect();
        let reports = self.runner.run_due().unwrap();
        let inside = std::mem::take(&mut self.script.lock().nested);
        let died = self.script.lock().died.take();
        if died.is_some() {
            // Only the first run had begun when the process died, and it was interrupted; the
            // later ones never were, and with them what this process has done.
            return self.restart(died);
        }
        for (n, key) in self.keys.iter().enumerate() {
            let known = &mut self.known[n];
            // Nested runs are found by what the store knows of them.
            let mut ran: Vec<_> = reports
                .iter()
                .filter(|report| report.sync == *key)
                .collect();
            let nested = matches!(run, Run::Nested);
            assert!(ran.len() <= 1, "{key} ran {} times in a round", ran.len());
            assert!(nested || due[n] == (ran.len() == 1), "{key} at {now}");
            let Some(report) = ran.pop() else {
                continue;
            };
            known.triggered = false;
            match report.status {
                RunStatus::Interrupted => {
                    assert!(matches!(run, Run::PauseItself));
                    known.paused = true;
                }
                _ => known.done = Some(now),
            }
            if matches!(run, Run::PauseItself) {
                known.paused = true;
            }
        }
        // Those that ran inside of others did so later than these.
        for (key, began) in inside {
            if let Some(n) = self.keys.iter().position(|known| *known == key) {
                self.known[n].done = Some(began);
                self.known[n].triggered = false;
            }
        }
    }

    /// The runner agrees with what is known.
    fn check(&self) {
        let now = self.world.clock_now();
        for (key, known) in self.keys.iter().zip(&self.known) {
            let status = self.runner.status(key).unwrap();
            let due = status.next_due.is_some_and(|due| due.as_micros() <= now);
            assert_eq!(due, known.is_due(now), "{key} at {now}: {status:?}");
            if let (Some(due), false) = (status.next_due, known.triggered) {
                let since = due.as_micros() - known.anchor;
                assert!(since.is_multiple_of(known.period), "{key} is off its grid");
            }
        }
    }

    fn step(&mut self, step: &Step) {
        let clock = self.world.clock.clone();
        match *step {
            Step::Pass(micros) | Step::JumpAhead(micros) => clock.advance(micros),
            Step::JumpBack(micros) => clock.set(self.world.clock_now() - micros),
            Step::Wait => {
                let statuses = self.runner.statuses().unwrap();
                if let Some(due) = statuses.iter().filter_map(|status| status.next_due).min() {
                    clock.set(due.as_micros().max(self.world.clock_now()));
                }
            }
            Step::Pause(n) => {
                self.runner.pause(&self.keys[n]).unwrap();
                self.known[n].paused = true;
            }
            Step::Start(n) => {
                self.runner.start(&self.keys[n]).unwrap();
                self.known[n].paused = false;
            }
            Step::Trigger(n, reset) => {
                let trigger = Trigger::new().reset(reset).empty_cache(reset);
                let taken = self.runner.trigger(&self.keys[n], trigger).is_ok();
                assert_eq!(taken, !self.known[n].triggered);
                self.known[n].triggered = true;
            }
            Step::Restart => self.restart(None),
            Step::Work(run, takes) => self.work(run, takes),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn weeks_of_schedules(
        periods in proptest::collection::vec(1..3_000_u64, KEYS),
        steps in steps(),
    ) {
        let mut simulation = Simulation::new(&periods);
        for step in &steps {
            simulation.step(step);
            simulation.check();
        }
    }
}
