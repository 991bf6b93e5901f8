//! A simulated disk with a gate, to stall whoever is at it at the worst moment.

use std::io;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, ThreadId};

use highwater::storage::MemoryStorage;

use crate::hooked::{Hook, Hooked, Operation};

/// Says what has to wait, by the operation and the name of the file.
type Rule = fn(Operation, &str) -> bool;

#[derive(Debug, Default)]
struct State {
    shut: Option<Rule>,
    /// If set, nobody else has to wait.
    only: Option<ThreadId>,
    /// Whether that thread is done.
    ended: bool,
    waiting: usize,
    /// How many of those that wait may pass.
    passes: usize,
}

#[derive(Clone, Debug, Default)]
pub struct Gate(Arc<(Mutex<State>, Condvar)>);

/// See the module.
pub type GatedStorage = Hooked<Gate>;

/// While it lives, the gate is shut for the thread that holds it alone.
pub struct OnlyThisThread(GatedStorage);

impl Drop for OnlyThisThread {
    fn drop(&mut self) {
        self.0.change(|gate| gate.ended = true);
    }
}

impl GatedStorage {
    pub fn new(disk: MemoryStorage) -> Self {
        let hook = Gate::default();
        Self { disk, hook }
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let (state, changed) = &*self.hook.0;
        change(&mut state.lock().unwrap());
        changed.notify_all();
    }

    /// From now on every sync of a file waits.
    pub fn shut(&self) {
        self.shut_for(|operation, _| operation == Operation::Sync);
    }

    /// From now on everything waits that the rule says.
    pub fn shut_for(&self, rule: Rule) {
        self.change(|gate| {
            *gate = State {
                shut: Some(rule),
                ..State::default()
            };
        });
    }

    pub fn open(&self) {
        self.change(|gate| gate.shut = None);
    }

    /// From now on only this thread waits, until the guard is dropped, and then nobody.
    pub fn only_for_this_thread(&self) -> OnlyThisThread {
        self.change(|gate| gate.only = Some(thread::current().id()));
        OnlyThisThread(self.clone())
    }

    /// Returns once somebody waits.
    pub fn await_arrival(&self) {
        let (state, changed) = &*self.hook.0;
        let mut gate = state.lock().unwrap();
        while gate.waiting == 0 {
            gate = changed.wait(gate).unwrap();
        }
    }

    /// Returns once the only thread that has to wait does so, or is done.
    pub fn await_arrival_or_end(&self) {
        let (state, changed) = &*self.hook.0;
        let mut gate = state.lock().unwrap();
        while !gate.ended && (gate.waiting == 0 || gate.passes > 0) {
            gate = changed.wait(gate).unwrap();
        }
    }

    /// Lets one of those that wait go on.
    pub fn let_one_pass(&self) {
        self.change(|gate| gate.passes = gate.waiting.min(1));
    }
}

impl Hook for Gate {
    /// Waits if it has to.
    fn before(&self, operation: Operation, path: &Path) -> io::Result<()> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let (state, changed) = &*self.0;
        let mut gate = state.lock().unwrap();
        let me = thread::current().id();
        let holds = |gate: &State| {
            let shut = gate.shut.is_some_and(|rule| rule(operation, &name));
            shut && gate.only.is_none_or(|only| only == me)
        };
        if !holds(&gate) {
            return Ok(());
        }
        gate.waiting += 1;
        changed.notify_all();
        while holds(&gate) && gate.passes == 0 {
            gate = changed.wait(gate).unwrap();
        }
        gate.passes = 0;
        gate.waiting -= 1;
        changed.notify_all();
        Ok(())
    }
}
