//! An error at every call of each script: writes, syncs, syncs of directories and reads that fail, and
//! disks that are full at every step of every file's growth. Nothing acknowledged is lost, nothing
//! is acknowledged after the log could not be written, and a full disk costs what did not fit and
//! nothing else (G1, G2, G11, G12).
//!
//! By default one error of several is tried, the same ones each time; with
//! `HIGHWATER_IO_ERRORS=all` all of them are.

use std::sync::Arc;

use highwater::storage::{Fault, Survivors};
use highwater::{Error, Store};
use serde_json::json;

use crate::crash_points::check::{Crash, check};
use crate::driver::PATH;
use crate::scripts::play::{Mode, Play};
use crate::scripts::view::{View, records_of};
use crate::scripts::{Script, each_script};
use crate::table::Table;

static TABLE: Table = Table::new(&["writes", "syncs", "directories", "reads", "full disks"]);

/// A file grows by more than a write when space is reserved for it, and then it is full or not.
const FULL_STEPS: u64 = 16;

/// How many of the errors are tried, as one out of so many.
fn stride() -> u64 {
    match std::env::var("HIGHWATER_IO_ERRORS").is_ok() {
        true => 1,
        false => 9,
    }
}

struct Errors {
    script: &'static Script,
    mode: Mode,
    views: Vec<View>,
}

fn enumerate(script: &'static Script, mode: Mode) {
    let mut play = Play::new(script, mode);
    play.disk.record();
    play.play(|_| ()).unwrap();
    let calls = play.disk.counts();
    let sizes = play.disk.recorded().into_iter().map(|disk| {
        let lengths = disk.files().into_iter().map(|(_, len)| len);
        lengths.sum::<u64>()
    });
    let sizes: Vec<u64> = sizes.collect();
    let errors = Errors {
        script,
        mode,
        views: Play::rehearse(script),
    };
    let try_each = |calls: u64, fault: &dyn Fn(u64) -> Fault| {
        let tried = (0..calls).step_by(stride() as usize);
        tried.map(|after| errors.strike(fault(after))).count() as u64
    };
    let writes = try_each(calls.writes, &|after| Fault::Write { after });
    let syncs =
        [false, true].map(|dropped| try_each(calls.syncs, &|after| Fault::Sync { after, dropped }));
    let directories = try_each(calls.dir_syncs, &|after| Fault::SyncDir { after });
    let reads = try_each(calls.reads, &|after| Fault::Read { after });
    let mut full = 0;
    for growth in sizes.windows(2).filter(|pair| pair[0] < pair[1]) {
        let step = 512.max((growth[1] - growth[0]) / FULL_STEPS);
        for bytes in (growth[0]..growth[1]).step_by((step * stride()) as usize) {
            errors.strike(Fault::Full { bytes });
            full += 1;
        }
    }
    let name = format!("{}, {mode:?}", script.name).to_lowercase();
    let counts = [writes, syncs.iter().sum(), directories, reads, full];
    assert!(counts.iter().all(|count| *count > 0), "{name}: {counts:?}");
    TABLE.add(name, &counts, SCRIPTS);
}

impl Errors {
    /// Plays the script with a fault armed, and checks what is left.
    fn strike(&self, fault: Fault) {
        let what = format!("{}, {:?}, {fault:?}", self.script.name, self.mode);
        let mut play = Play::new(self.script, self.mode);
        play.disk.fail(fault);
        let outcome = play.play(|_| ());
        let is_full = matches!(fault, Fault::Full { .. });
        match &outcome {
            // It struck where nobody needs to know: derived data, or a file that may stay.
            Ok(()) => {}
            Err(Error::DiskFull { .. }) if is_full => {}
            Err(Error::Io { .. } | Error::Catalog { .. } | Error::Poisoned { .. }) => {}
            Err(error) => panic!("{what}: {error:?}"),
        }
        let examine = |store: &Store| self.examine(store, &play, fault, &what);
        let noted = play.store.as_ref().is_some_and(examine);
        play.disk.heal();
        let progress = play.progress;
        let disks = [
            (Survivors::All, progress.acknowledged, "killed"),
            (Survivors::Synced, progress.durable, "after a loss of power"),
        ]
        .map(|(survivors, least, when)| (play.disk.crash(survivors), least, when));
        play.give_up();
        for (disk, least, when) in disks {
            let what = format!("{what}, {when}");
            let crash = Crash {
                what: what.clone(),
                progress,
                least,
            };
            check(&disk, &play.options, &self.views, &crash);
            if noted && self.mode == Mode::Durable {
                let options = play.options.clone();
                let options = options.storage(Arc::new(disk));
                let store = options.open(PATH).unwrap();
                assert!(
                    store.connection_metadata("note").unwrap().is_some(),
                    "{what}"
                );
            }
        }
    }

    /// What an open store must do after an error. Returns whether it goes on writing.
    fn examine(&self, store: &Store, play: &Play, fault: Fault, what: &str) -> bool {
        let progress = play.progress;
        if matches!(store.syncs(), Err(Error::Closed)) {
            return false;
        }
        let check_shown = |shown: highwater::Result<_>| {
            let shown = shown.unwrap_or_else(|error| panic!("{what}: {error:?}"));
            let candidates = &self.views[progress.acknowledged..=progress.started];
            let found = candidates.iter().any(|view| view.feeds == shown);
            assert!(found, "{what}: {shown:#?}");
        };
        if self.mode == Mode::Durable && !matches!(fault, Fault::Read { .. }) {
            match records_of(store) {
                // A catalog that failed is opened anew, which takes a disk that can be written.
                Err(Error::Io { path, .. } | Error::Catalog { path, .. })
                    if path.ends_with("catalog.redb") => {}
                shown => check_shown(shown),
            }
        }
        play.disk.heal();
        if self.mode == Mode::Durable {
            check_shown(records_of(store));
        }
        let note = || store.set_connection_metadata("note", &json!({"written": true}));
        let noted = note();
        match &noted {
            Ok(()) => {}
            Err(Error::Poisoned { .. }) => {
                let full = matches!(fault, Fault::Full { .. } | Fault::Read { .. });
                assert!(!full, "{what}: {noted:?}");
                let again = note();
                assert!(
                    matches!(again, Err(Error::Poisoned { .. })),
                    "{what}: {again:?}"
                );
            }
            Err(error) => panic!("{what}: {error:?}"),
        }
        noted.is_ok()
    }
}

each_script!(enumerate);
