//! Playing a script on a simulated disk.

use std::sync::Arc;

use highwater::storage::{ManualClock, MemoryStorage};
use highwater::{Options, Replacement, Run, Store};

use crate::driver::{Driver, PATH};
use crate::gate::GatedStorage;
use crate::hooked::Operation;
use crate::scripts::Script;
use crate::scripts::steps::{Commit, Hands, Step};
use crate::scripts::view::View;

/// When the commits of a script are acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Durable,
    Relaxed,
}

/// How far a script had got, in commits.
#[derive(Clone, Copy, Debug, Default)]
pub struct Progress {
    pub started: usize,
    pub acknowledged: usize,
    /// These were acknowledged, and are on stable storage by what was asked for since.
    pub durable: usize,
}

/// A script being played.
pub struct Play {
    script: &'static Script,
    mode: Mode,
    pub disk: MemoryStorage,
    pub options: Options,
    pub store: Option<Store>,
    run: Option<Run>,
    replacement: Option<Replacement>,
    pub progress: Progress,
    /// How far it had got at each number of operations of the disk at which that changed.
    changes: Vec<(u64, Progress)>,
    /// How many files compaction has replaced.
    pub compacted: u64,
}

/// Options that nothing that is shown depends on.
fn options() -> Options {
    Options::new()
        .background(false)
        // Of an encrypted store, the first half counts.
        .secret(std::array::from_fn(|at| if at < 16 { 9 } else { 0 }))
        .segment_size(4096)
        .clock(Arc::new(ManualClock::new(1_700_000_000_000_000)))
}

impl Play {
    pub fn new(script: &'static Script, mode: Mode) -> Self {
        let options = (script.options)(options());
        let options = match mode {
            Mode::Durable => options,
            Mode::Relaxed => options.durability(Driver::relaxed()),
        };
        Self::with(script, mode, options)
    }

    fn with(script: &'static Script, mode: Mode, options: Options) -> Self {
        Self {
            script,
            mode,
            disk: MemoryStorage::new(),
            options,
            store: None,
            run: None,
            replacement: None,
            progress: Progress::default(),
            changes: Vec::new(),
            compacted: 0,
        }
    }

    /// What the store shows after each commit of the script, from nothing on. It is the same
    /// whatever the durability is, and whatever the options of the script are.
    pub fn rehearse(script: &'static Script) -> Vec<View> {
        let mut views = vec![View::of_nothing()];
        let mut play = Self::with(script, Mode::Durable, options());
        let (disk, options) = (play.disk.clone(), play.options.clone());
        let look = |store: &Store| views.push(View::of(store, &disk, &options).unwrap());
        play.play(look).unwrap();
        views
    }

    /// Plays the whole script, or until something fails.
    pub fn play(&mut self, mut after_commit: impl FnMut(&Store)) -> highwater::Result<()> {
        let gated = GatedStorage::new(self.disk.clone());
        let options = self.options.clone().storage(Arc::new(gated.clone()));
        self.store = Some(options.clone().open(PATH)?);
        for step in (self.script.steps)() {
            let store = self.store.clone().unwrap();
            match step {
                Step::Commit(commit) => {
                    self.commit(commit)?;
                    after_commit(&store);
                    continue;
                }
                Step::Flush => store.flush()?,
                Step::SaveCatalog => store.checkpoint_catalog()?,
                Step::Compact => self.compacted += store.compact()?.removed,
                Step::CompactDuring(commits) => {
                    self.compact_during(&gated, commits, &mut after_commit)?;
                    continue;
                }
                Step::Reopen | Step::Rebuild => {
                    store.close()?;
                    self.give_up();
                    self.settled();
                    let options = options.clone();
                    self.store = Some(match step {
                        Step::Rebuild => options.rebuild(PATH)?,
                        _ => options.open(PATH)?,
                    });
                }
            }
            self.settled();
        }
        Ok(())
    }

    fn commit(&mut self, commit: Commit) -> highwater::Result<()> {
        self.progress.started += 1;
        self.note();
        commit(&mut Hands {
            store: self.store.as_ref().unwrap(),
            run: &mut self.run,
            replacement: &mut self.replacement,
        })?;
        self.progress.acknowledged += 1;
        if self.mode == Mode::Durable {
            self.progress.durable = self.progress.acknowledged;
        }
        self.note();
        Ok(())
    }

    /// Everything acknowledged so far is on stable storage.
    fn settled(&mut self) {
        self.progress.durable = self.progress.acknowledged;
        self.note();
    }

    fn note(&mut self) {
        self.changes.push((self.disk.operations(), self.progress));
    }

    /// Lets go of the store and of everything that belongs to it.
    pub fn give_up(&mut self) {
        (self.run, self.replacement, self.store) = (None, None, None);
    }

    /// How far it had got when so many operations of the disk had been done.
    pub fn progress_at(&self, operations: u64) -> Progress {
        let before = self.changes.partition_point(|(at, _)| *at <= operations);
        let last = before.checked_sub(1).map(|at| self.changes[at].1);
        last.unwrap_or_default()
    }

    /// Compacts in a thread that stands still whenever it is at a pack, until a commit is made.
    /// What happens is the same each time, as only one of the two threads runs at once.
    fn compact_during(
        &mut self,
        gated: &GatedStorage,
        commits: Vec<Commit>,
        after_commit: &mut impl FnMut(&Store),
    ) -> highwater::Result<()> {
        let store = self.store.clone().unwrap();
        // Not at what it does as the leader of a commit: then both would wait for each other.
        let is_at_files = |operation: Operation, name: &str| {
            let goes = matches!(operation, Operation::Remove | Operation::Rename);
            (goes && name.ends_with(".seg")) || name.contains(".pack")
        };
        gated.shut_for(is_at_files);
        let compaction = {
            let (store, gated) = (store.clone(), gated.clone());
            std::thread::spawn(move || {
                let _pass = gated.only_for_this_thread();
                store.compact()
            })
        };
        let mut outcome = Ok(());
        for commit in commits {
            gated.await_arrival_or_end();
            outcome = self.commit(commit);
            if outcome.is_err() {
                break;
            }
            after_commit(&store);
            gated.let_one_pass();
        }
        gated.open();
        let compacted = compaction.join().unwrap();
        outcome?;
        self.compacted += compacted?.removed;
        Ok(())
    }
}
