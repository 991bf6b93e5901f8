//! A crash at every operation of a scripted history, each leaving the disk in several states: only
//! what was synced, everything, torn prefixes, and random sectors (G1, G2, G3, G5).
//!
//! After each crash: every acknowledged commit is there whole, no other is there in part, records
//! and checkpoint agree, cursors are as they were, and consumers that stood anywhere converge. The
//! same holds for crashes inside the recovery from a crash.
//!
//! There are four scripts: [`writing`] for records, checkpoints and the log's own life,
//! [`syncing`] for runs, deletion windows and consumers, [`letting_go`] for pruning, removing and
//! replacing, [`compacting`] for all of that while files are replaced. In the last one a third of
//! the states of the disk are also opened without their catalog.

use std::collections::BTreeMap;
use std::sync::Arc;

use highwater::storage::{ManualClock, MemoryStorage, Survivors};
use highwater::{
    Action, Cursor, Error, Expected, Feed, List, Oldest, Options, OwnedRecord, Replacement, Run,
    RunOptions, RunReport, RunStatus, Store, Sweep,
};
use serde_json::json;

use crate::driver::{Driver, PATH, sync_key};

const FEEDS: [&str; 2] = ["contact", "company"];

/// Everything a store shows.
#[derive(Clone, Debug, Default, PartialEq)]
struct View {
    feeds: BTreeMap<&'static str, Vec<OwnedRecord>>,
    checkpoint: Option<Vec<u8>>,
    /// By feed: open windows, and where the named consumer stands.
    windows: BTreeMap<&'static str, u64>,
    /// What the sync's window would delete now.
    unseen: Option<Vec<String>>,
    consumers: BTreeMap<&'static str, Option<Cursor>>,
    /// As they are after a reopen: interrupted if they were going on, whenever that was noticed.
    runs: Vec<RunReport>,
}

fn view(store: &Store, disk: &MemoryStorage, options: &Options) -> View {
    let feed = |model: &str| store.feed("c", model).unwrap();
    let records = |model: &&'static str| {
        let feed = feed(model);
        let records: Vec<OwnedRecord> = feed.records(None).map(Result::unwrap).collect();
        let live = records
            .iter()
            .filter(|record| record.last_action != Action::Deleted);
        assert_eq!(feed.count().unwrap(), live.clone().count() as u64);
        let bytes = live.map(|record| record.payload.as_ref().map_or(0, Vec::len) as u64);
        assert_eq!(feed.size().unwrap(), bytes.sum::<u64>());
        (*model, records)
    };
    let consumer = |model: &&'static str| {
        let found = feed(model).consumers().unwrap();
        (*model, found.first().map(|info| info.cursor))
    };
    let window = |model: &&'static str| (*model, feed(model).stats().unwrap().windows);
    let checkpoint = store.checkpoint("c", "sync", "").unwrap();
    let mut runs = store.runs(&sync_key(0)).unwrap();
    for run in &mut runs {
        if run.status == RunStatus::Running {
            run.status = RunStatus::Interrupted;
            run.error = Some("the process ended".to_owned());
            run.checkpoint_to = text(checkpoint.as_ref().map(|checkpoint| &checkpoint.json));
        }
        run.ended = None;
    }
    let windows: BTreeMap<&'static str, u64> = FEEDS.iter().map(window).collect();
    View {
        feeds: FEEDS.iter().map(records).collect(),
        unseen: (windows["contact"] > 0).then(|| unseen(disk, options)),
        windows,
        consumers: FEEDS.iter().map(consumer).collect(),
        runs,
        checkpoint: checkpoint.map(|checkpoint| checkpoint.json),
    }
}

/// Nobody can look into a window, so it is closed in a copy of the store.
fn unseen(disk: &MemoryStorage, options: &Options) -> Vec<String> {
    let copy = disk.crash(Survivors::All);
    let store = options.clone().storage(Arc::new(copy)).open(PATH).unwrap();
    let run = store.begin_run(&sync_key(0), RunOptions::new()).unwrap();
    let contacts = run.feed("contact").unwrap();
    contacts
        .track_deletes_end(&Sweep::new().return_ids(true))
        .unwrap()
        .ids
}

fn text(json: Option<&Vec<u8>>) -> Option<String> {
    json.map(|json| String::from_utf8(json.clone()).unwrap())
}

/// What a script holds on to between its steps.
struct Hands<'a> {
    store: &'a Store,
    run: &'a mut Option<Run>,
    replacement: &'a mut Option<Replacement>,
}

impl Hands<'_> {
    fn feed(&self, model: &str) -> highwater::Result<Feed> {
        self.store.feed("c", model)
    }

    /// A feed, written to by the run.
    fn run_feed(&self, model: &str) -> highwater::Result<Feed> {
        self.run.as_ref().unwrap().feed(model)
    }

    fn begin(&mut self, options: RunOptions) -> highwater::Result<()> {
        *self.run = Some(self.store.begin_run(&sync_key(0), options)?);
        Ok(())
    }
}

/// One step of a script.
enum Step {
    Commit(fn(&mut Hands<'_>) -> highwater::Result<()>),
    SaveCatalog,
    Compact,
    Reopen,
    Rebuild,
}

type Script = fn() -> Vec<Step>;

fn save(store: &Store, model: &str, ids: std::ops::Range<u32>, v: u32) -> highwater::Result<()> {
    let record = |id| json!({"id": id, "v": v, "pad": "x".repeat(40)});
    let records: Vec<_> = ids.map(record).collect();
    store.feed("c", model)?.batch_save(&records).map(drop)
}

fn page(store: &Store, at: u32) -> highwater::Result<()> {
    let mut batch = store.batch("c");
    let contacts = store.feed("c", "contact")?;
    batch.save(
        &contacts,
        &[
            json!({"id": format!("page-{at}")}),
            json!({"id": 1, "at": at}),
        ],
    )?;
    batch.delete(&store.feed("c", "company")?, &[at.to_string()])?;
    batch.checkpoint("sync", "", &json!({"page": at}), Expected::Any)?;
    batch.commit().map(drop)
}

/// First open, load, update half, delete, undelete, merge, pages with checkpoints, segment rolls,
/// catalog saves, clean reopens and a rebuild.
fn writing() -> Vec<Step> {
    use Step::{Commit, Rebuild, Reopen, SaveCatalog};
    vec![
        Commit(|at| save(at.store, "contact", 0..20, 0)),
        Commit(|at| save(at.store, "company", 0..8, 0)),
        Commit(|at| save(at.store, "contact", 5..15, 1)),
        Commit(|at| at.feed("contact")?.batch_delete(&["3", "4", "5"]).map(drop)),
        SaveCatalog,
        Commit(|at| save(at.store, "contact", 4..6, 2)),
        Commit(|at| {
            let contacts = at.feed("contact")?;
            contacts
                .batch_update(&[json!({"id": 7, "x": {"y": 1}})])
                .map(drop)
        }),
        Commit(|at| page(at.store, 1)),
        Reopen,
        Commit(|at| page(at.store, 2)),
        Commit(|at| save(at.store, "contact", 0..40, 3)),
        Commit(|at| page(at.store, 3)),
        SaveCatalog,
        Commit(|at| page(at.store, 4)),
        Rebuild,
        Commit(|at| page(at.store, 5)),
        Reopen,
    ]
}

/// Saves through the run, with its checkpoint in the same commit.
fn run_page(at: &Hands<'_>, ids: std::ops::Range<u32>, page: u32) -> highwater::Result<()> {
    let record = |id| json!({"id": id, "v": 1, "pad": "x".repeat(40)});
    let records: Vec<_> = ids.map(record).collect();
    let mut batch = at.run.as_ref().unwrap().batch();
    batch.save(&at.run_feed("contact")?, &records)?;
    batch.run_checkpoint(&json!({"page": page}), Expected::Any)?;
    batch.commit().map(drop)
}

/// Runs with pages and checkpoints, windows that stay open across reopens, a sweep, a reset, and
/// a consumer that acknowledges.
fn syncing() -> Vec<Step> {
    use Step::{Commit, Rebuild, Reopen, SaveCatalog};
    vec![
        Commit(|at| save(at.store, "contact", 0..12, 1)),
        Commit(|at| at.begin(RunOptions::new())),
        Commit(|at| at.run_feed("contact")?.track_deletes_start().map(drop)),
        Commit(|at| run_page(at, 0..3, 1)),
        // Nothing of this page is news: it commits marks and the checkpoint.
        Commit(|at| run_page(at, 3..6, 2)),
        Commit(|at| at.feed("contact")?.consumer("app").map(drop)),
        SaveCatalog,
        Reopen,
        Commit(|at| at.begin(RunOptions::new())),
        Commit(|at| run_page(at, 10..14, 3)),
        Commit(|at| {
            let contacts = at.feed("contact")?;
            let last = contacts.last_cursor()?.unwrap();
            contacts.consumer("app")?.acknowledge(last)
        }),
        Commit(|at| {
            let contacts = at.run_feed("contact")?;
            contacts.track_deletes_end(&Sweep::new()).map(drop)
        }),
        Commit(|at| at.run.take().unwrap().succeed().map(drop)),
        Commit(|at| at.begin(RunOptions::new())),
        Commit(|at| at.run_feed("contact")?.track_deletes_start().map(drop)),
        Commit(|at| at.begin(RunOptions::new().reset(true))),
        Commit(|at| run_page(at, 5..8, 1)),
        Rebuild,
        Commit(|at| at.begin(RunOptions::new())),
        Commit(|at| run_page(at, 20..22, 2)),
        Commit(|at| at.run.take().unwrap().fail("no").map(drop)),
        Reopen,
    ]
}

/// Prunes, restores, removes, purges, and replaces, which is given up once and a crash finds
/// half-done.
fn letting_go() -> Vec<Step> {
    use Step::{Commit, Rebuild, Reopen, SaveCatalog};
    vec![
        Commit(|at| save(at.store, "contact", 0..10, 0)),
        Commit(|at| save(at.store, "company", 0..6, 0)),
        Commit(|at| at.feed("contact")?.prune(&Oldest::all().limit(6)).map(drop)),
        Commit(|at| save(at.store, "contact", 2..4, 0)),
        Commit(|at| at.feed("contact")?.batch_delete(&["0", "2", "7"]).map(drop)),
        Commit(|at| at.feed("contact")?.purge(&Oldest::all().limit(2)).map(drop)),
        SaveCatalog,
        Commit(|at| {
            at.feed("contact")?
                .hard_delete(&Oldest::all().limit(3))
                .map(drop)
        }),
        Commit(|at| {
            *at.replacement = Some(at.feed("contact")?.replace()?);
            Ok(())
        }),
        Commit(|at| stage(at, 0..9, 5)),
        SaveCatalog,
        Commit(|at| {
            drop(at.replacement.take());
            save(at.store, "contact", 3..5, 6)
        }),
        Reopen,
        Commit(|at| {
            *at.replacement = Some(at.feed("contact")?.replace()?);
            Ok(())
        }),
        Commit(|at| stage(at, 4..9, 7)),
        Commit(|at| {
            let staged = at.replacement.as_ref().unwrap().feed();
            staged.batch_delete(&["5"]).map(drop)
        }),
        Commit(|at| at.replacement.take().unwrap().commit().map(drop)),
        Commit(|at| save(at.store, "contact", 0..6, 7)),
        Commit(|at| at.feed("company")?.hard_delete(&Oldest::all()).map(drop)),
        Rebuild,
        Commit(|at| save(at.store, "company", 0..2, 8)),
        Commit(|at| at.feed("contact")?.prune(&Oldest::all()).map(drop)),
        Reopen,
    ]
}

/// Compacts while a window is open, after pruning and deleting, while a replacement is filled, and
/// packs that were written before; with writes in between, reopens and a rebuild.
fn compacting() -> Vec<Step> {
    use Step::{Commit, Compact, Rebuild, Reopen, SaveCatalog};
    vec![
        Commit(|at| save(at.store, "contact", 0..14, 0)),
        Commit(|at| save(at.store, "company", 0..6, 0)),
        Commit(|at| save(at.store, "contact", 4..12, 1)),
        Commit(|at| at.feed("contact")?.batch_delete(&["3", "4", "5"]).map(drop)),
        Commit(|at| at.feed("contact")?.consumer("app").map(drop)),
        Commit(|at| at.begin(RunOptions::new())),
        Commit(|at| at.run_feed("contact")?.track_deletes_start().map(drop)),
        Commit(|at| run_page(at, 8..11, 1)),
        Commit(|at| save(at.store, "company", 0..20, 1)),
        Commit(|at| save(at.store, "company", 2..20, 2)),
        Compact,
        Commit(|at| run_page(at, 0..2, 2)),
        Commit(|at| save(at.store, "contact", 4..5, 3)),
        Commit(|at| {
            let contacts = at.run_feed("contact")?;
            contacts.track_deletes_end(&Sweep::new()).map(drop)
        }),
        Commit(|at| at.run.take().unwrap().succeed().map(drop)),
        Commit(|at| save(at.store, "company", 0..18, 4)),
        Commit(|at| at.feed("contact")?.prune(&Oldest::all().limit(4)).map(drop)),
        Compact,
        Reopen,
        Commit(|at| {
            *at.replacement = Some(at.feed("company")?.replace()?);
            Ok(())
        }),
        Commit(|at| stage(at, 0..18, 5)),
        Commit(|at| save(at.store, "contact", 5..15, 5)),
        SaveCatalog,
        Compact,
        Commit(|at| at.replacement.take().unwrap().commit().map(drop)),
        Commit(|at| at.feed("contact")?.purge(&Oldest::all().limit(2)).map(drop)),
        Commit(|at| page(at.store, 1)),
        Compact,
        Rebuild,
        Commit(|at| page(at.store, 2)),
        Commit(|at| save(at.store, "contact", 0..20, 6)),
        Compact,
        Reopen,
    ]
}

fn stage(at: &Hands<'_>, ids: std::ops::Range<u32>, v: u32) -> highwater::Result<()> {
    let record = |id| json!({"id": id, "v": v, "pad": "x".repeat(40)});
    let records: Vec<_> = ids.map(record).collect();
    let staged = at.replacement.as_ref().unwrap().feed();
    staged.batch_save(&records).map(drop)
}

/// How a script is played.
#[derive(Clone, Copy)]
struct Manner {
    script: Script,
    mode: Mode,
    /// Whether compaction replaces all that it may.
    eager: bool,
    /// Whether what is left is also opened without its catalog.
    rebuilt: bool,
}

/// How the store is opened.
#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Durable,
    Relaxed,
    /// Durable, and payloads are compressed.
    #[cfg(feature = "zstd")]
    Compressing,
    /// Durable, and everything is encrypted.
    #[cfg(feature = "encryption")]
    Encrypting,
}

impl Manner {
    fn of(script: Script, mode: Mode) -> Self {
        Self {
            script,
            mode,
            eager: false,
            rebuilt: false,
        }
    }

    /// Of so many crashes one is followed by crashes in the recovery from it.
    fn nested(self) -> u64 {
        if self.rebuilt { 15 } else { 5 }
    }
}

struct Play {
    script: Script,
    disk: MemoryStorage,
    options: Options,
    store: Option<Store>,
    /// How many commits were acknowledged, and whether another one was under way at the end.
    acknowledged: usize,
    started: usize,
    /// How many files were replaced.
    compacted: u64,
}

impl Play {
    fn new(manner: Manner, disk: MemoryStorage) -> Self {
        let Manner {
            script,
            mode,
            eager,
            ..
        } = manner;
        let options = Options::new()
            .eager_compaction(eager)
            .background(false)
            // Of an encrypted store, the first half counts.
            .secret(std::array::from_fn(|at| if at < 16 { 9 } else { 0 }))
            .segment_size(4096)
            .clock(Arc::new(ManualClock::new(1_700_000_000_000_000)));
        let options = match mode {
            Mode::Durable => options,
            Mode::Relaxed => options.durability(Driver::relaxed()),
            #[cfg(feature = "zstd")]
            Mode::Compressing => crate::histories::compressing(options),
            #[cfg(feature = "encryption")]
            Mode::Encrypting => crate::histories::encrypting(options),
        };
        Self {
            script,
            disk,
            options,
            store: None,
            acknowledged: 0,
            started: 0,
            compacted: 0,
        }
    }

    /// Runs the script until something fails, which happens when the power does.
    fn play(&mut self, mut after_commit: impl FnMut(&Store)) -> highwater::Result<()> {
        let options = self.options.clone().storage(Arc::new(self.disk.clone()));
        self.store = Some(options.clone().open(PATH)?);
        let (mut run, mut replacement) = (None, None);
        for step in (self.script)() {
            let store = self.store.as_ref().unwrap();
            match step {
                Step::Commit(commit) => {
                    self.started += 1;
                    commit(&mut Hands {
                        store,
                        run: &mut run,
                        replacement: &mut replacement,
                    })?;
                    self.acknowledged += 1;
                    after_commit(store);
                }
                Step::SaveCatalog => store.checkpoint_catalog()?,
                Step::Compact => {
                    self.compacted += store.compact()?.removed;
                }
                Step::Reopen | Step::Rebuild => {
                    store.close()?;
                    (run, replacement) = (None, None);
                    let rebuild = matches!(step, Step::Rebuild);
                    let options = options.clone();
                    self.store = None;
                    let opened = if rebuild {
                        options.rebuild(PATH)
                    } else {
                        options.open(PATH)
                    };
                    self.store = Some(opened?);
                }
            }
        }
        Ok(())
    }
}

/// What the store shows after each commit of the script, from nothing on, and the operations it
/// takes.
fn rehearse(manner: Manner) -> Vec<View> {
    let mut views = vec![View {
        feeds: FEEDS.map(|feed| (feed, vec![])).into(),
        windows: FEEDS.map(|feed| (feed, 0)).into(),
        consumers: FEEDS.map(|feed| (feed, None)).into(),
        ..View::default()
    }];
    let manner = Manner {
        mode: Mode::Durable,
        ..manner
    };
    let mut run = Play::new(manner, MemoryStorage::new());
    let (disk, options) = (run.disk.clone(), run.options.clone());
    run.play(|store| views.push(view(store, &disk, &options)))
        .unwrap();
    views
}

fn operations(manner: Manner) -> u64 {
    let mut run = Play::new(manner, MemoryStorage::new());
    run.play(|_| ()).unwrap();
    let compacts = |step: &Step| matches!(step, Step::Compact);
    let compactions = (manner.script)()
        .iter()
        .filter(|step| compacts(step))
        .count();
    assert!(run.compacted >= 2 * compactions as u64, "{}", run.compacted);
    run.disk.operations()
}

fn live(records: &[OwnedRecord]) -> BTreeMap<&str, Option<&[u8]>> {
    let live = records
        .iter()
        .filter(|record| record.last_action != Action::Deleted);
    live.map(|record| (record.id.as_str(), record.payload.as_deref()))
        .collect()
}

/// Whether a record was hard-deleted, of which readers are not told: it went while it was live.
fn forgotten(views: &[View], model: &str, id: &str) -> bool {
    let find = |view: &View| {
        let mut records = view.feeds[model].iter();
        records.find(|record| record.id == id).cloned()
    };
    let live = |record: OwnedRecord| record.last_action != Action::Deleted;
    let mut steps = views.windows(2);
    steps.any(|step| find(&step[0]).is_some_and(live) && find(&step[1]).is_none())
}

/// How far the script was when it crashed, in commits.
#[derive(Clone, Copy, Debug)]
#[expect(
    dead_code,
    reason = "where it happened is for the message of a failed check"
)]
struct Crash {
    /// The operation at which the power failed, and what was left.
    at: u64,
    survivors: Survivors,
    /// The operation of the recovery at which it failed again.
    again: Option<u64>,
    /// This many must have survived, and this many a failure of the power right afterwards.
    least: usize,
    durable: usize,
    acknowledged: usize,
    started: usize,
}

/// Opens a disk after a crash and checks it. Returns the index of the view it is in.
fn check(disk: &MemoryStorage, options: &Options, views: &[View], crash: Crash) -> usize {
    let plain = options;
    let options = options.clone().storage(Arc::new(disk.clone()));
    let store = options.clone().open(PATH).unwrap();
    let found = view(&store, disk, plain);
    let candidates = crash.least..=crash.started.min(views.len() - 1);
    let Some(at) = candidates.clone().rev().find(|at| views[*at] == found) else {
        panic!("{crash:?}: the store is at none of the states {candidates:?}: {found:#?}");
    };
    // Consumers that stood at the end of any earlier state converge.
    for stood in &views[..=at] {
        for (model, before) in &stood.feeds {
            let feed = store.feed("c", model).unwrap();
            let mut copy = live(before);
            let after = before.last().map(|record| record.cursor);
            let list = List::new().limit(1000);
            let page = match feed.list(&list.clone().after(after)) {
                Err(Error::StaleCursor { .. } | Error::CursorExpired) => {
                    copy.clear();
                    feed.list(&list).unwrap()
                }
                page => page.unwrap(),
            };
            for record in page.iter() {
                match record.last_action {
                    Action::Deleted => copy.remove(record.id),
                    _ => copy.insert(record.id, record.payload),
                };
            }
            let live = live(&found.feeds[model]);
            let told = |id: &&str| live.contains_key(id) || !forgotten(&views[..=at], model, id);
            copy.retain(|id, _| told(id));
            assert!(
                copy.keys().eq(live.keys()),
                "{crash:?}: {copy:?}, not {live:?}"
            );
            let current = |(id, payload): (&&str, &Option<&[u8]>)| {
                payload.is_none() || copy[id].is_none() || copy[id] == *payload
            };
            assert!(
                live.iter().all(current),
                "{crash:?}: {copy:?}, not {live:?}"
            );
        }
    }
    let report = store.verify(|_, _| {}).unwrap();
    assert!(report.is_clean(), "{crash:?}: {:?}", report.damage);
    // The store goes on: a new change, with a cursor beyond every one that was ever shown.
    let feed = store.feed("c", "contact").unwrap();
    let applied = feed.batch_save(&[json!({"id": "afterwards"})]).unwrap();
    let shown = &views[..=crash.acknowledged];
    let highest = shown
        .iter()
        .filter_map(|v| v.feeds["contact"].last())
        .map(|r| r.cursor)
        .max();
    assert!(
        applied.last_cursor > highest,
        "{crash:?}: {:?} after {highest:?}",
        applied.last_cursor
    );
    store.close().unwrap();
    let reopened = options.open(PATH).unwrap();
    assert_eq!(
        reopened
            .feed("c", "contact")
            .unwrap()
            .last_cursor()
            .unwrap(),
        applied.last_cursor
    );
    at
}

/// Without its catalog the store must show the same.
fn check_rebuilt(disk: &MemoryStorage, options: &Options, expected: &View, crash: Crash) {
    let plain = options;
    let options = options.clone().storage(Arc::new(disk.clone()));
    let store = options.rebuild(PATH).unwrap();
    let found = view(&store, disk, plain);
    assert!(
        found == *expected,
        "{crash:?}: {found:#?}, not {expected:#?}"
    );
    let report = store.verify(|_, _| {}).unwrap();
    assert!(report.is_clean(), "{crash:?}: {:?}", report.damage);
}

/// The states of the disk that a crash at this moment can leave.
fn images(disk: &MemoryStorage, seed: u64) -> Vec<Survivors> {
    let unsynced = disk.unsynced_bytes();
    let mut images = vec![Survivors::Synced, Survivors::All];
    images.extend([1, unsynced / 2, unsynced.saturating_sub(1)].map(Survivors::Prefix));
    images.extend([seed, seed + 1, seed + 2].map(Survivors::Sectors));
    images
}

fn enumerate(manner: Manner) {
    let views = rehearse(manner);
    let operations = operations(manner);
    let (mut checked, mut nested) = (0, 0);
    for at in 0..operations {
        let mut run = Play::new(manner, MemoryStorage::new());
        run.disk.stop_at(at);
        let outcome = run.play(|_| ());
        assert!(
            outcome.is_err() || at + 1 >= operations,
            "operation {at} was not reached"
        );
        // In relaxed mode an acknowledged commit may be lost, but only from the end.
        let durable = if manner.mode == Mode::Relaxed {
            0
        } else {
            run.acknowledged
        };
        for survivors in images(&run.disk, at * 1000) {
            let least = if survivors == Survivors::All {
                run.acknowledged
            } else {
                durable
            };
            let crash = Crash {
                at,
                survivors,
                again: None,
                least,
                durable,
                acknowledged: run.acknowledged,
                started: run.started,
            };
            let disk = run.disk.crash(survivors);
            if checked % manner.nested() == 0 {
                nested += crash_in_recovery(&disk, &run.options, &views, crash);
            }
            let anew = manner.rebuilt && checked % 3 == 0;
            let anew = anew.then(|| disk.crash(Survivors::All));
            let state = check(&disk, &run.options, &views, crash);
            if let Some(disk) = anew {
                check_rebuilt(&disk, &run.options, &views[state], crash);
            }
            checked += 1;
        }
    }
    println!("{operations} operations, {checked} crashes, {nested} crashes in recovery");
    assert!(checked > 500 && nested > 500);
}

/// Crashes at every operation of the recovery of `disk`.
fn crash_in_recovery(disk: &MemoryStorage, options: &Options, views: &[View], crash: Crash) -> u64 {
    let mut checked = 0;
    for at in 0.. {
        let again = disk.crash(Survivors::All);
        again.stop_at(again.operations() + at);
        let opened = options.clone().storage(Arc::new(again.clone())).open(PATH);
        let survivors = if at % 2 == 0 {
            Survivors::Synced
        } else {
            Survivors::Sectors(at)
        };
        check(
            &again.crash(survivors),
            options,
            views,
            Crash {
                again: Some(at),
                least: crash.durable,
                ..crash
            },
        );
        checked += 1;
        if opened.is_ok() {
            return checked;
        }
    }
    checked
}

#[test]
fn a_crash_at_any_operation_loses_nothing_that_was_acknowledged() {
    enumerate(Manner::of(writing, Mode::Durable));
}

#[test]
fn a_crash_at_any_operation_in_relaxed_mode_leaves_a_prefix() {
    enumerate(Manner::of(writing, Mode::Relaxed));
}

#[test]
fn a_crash_at_any_operation_of_a_sync_leaves_windows_and_reports_right() {
    enumerate(Manner::of(syncing, Mode::Durable));
}

#[test]
fn a_crash_at_any_operation_of_a_sync_in_relaxed_mode_leaves_a_prefix() {
    enumerate(Manner::of(syncing, Mode::Relaxed));
}

#[test]
fn a_crash_at_any_operation_of_letting_go_leaves_it_done_or_not_at_all() {
    enumerate(Manner::of(letting_go, Mode::Durable));
}

#[test]
fn a_crash_at_any_operation_of_letting_go_in_relaxed_mode_leaves_a_prefix() {
    enumerate(Manner::of(letting_go, Mode::Relaxed));
}

/// A store that compresses shows what one that does not would, also when it crashes while it
/// learns.
#[cfg(feature = "zstd")]
#[test]
fn a_crash_at_any_operation_while_payloads_are_compressed_loses_nothing() {
    enumerate(Manner::of(writing, Mode::Compressing));
}

#[cfg(feature = "zstd")]
#[test]
fn a_crash_at_any_operation_of_replacing_what_is_compressed_loses_nothing() {
    enumerate(Manner::of(letting_go, Mode::Compressing));
}

/// An encrypted store shows what a plain one would.
#[cfg(feature = "encryption")]
#[test]
fn a_crash_at_any_operation_of_an_encrypted_store_loses_nothing() {
    enumerate(Manner::of(writing, Mode::Encrypting));
}

#[cfg(feature = "encryption")]
#[test]
fn a_crash_at_any_operation_of_compacting_an_encrypted_store_loses_nothing() {
    enumerate(compactions(Mode::Encrypting, true));
}

fn compactions(mode: Mode, eager: bool) -> Manner {
    Manner {
        script: compacting,
        mode,
        eager,
        rebuilt: true,
    }
}

#[test]
fn a_crash_at_any_operation_of_a_compaction_loses_nothing() {
    enumerate(compactions(Mode::Durable, false));
}

#[test]
fn a_crash_at_any_operation_of_a_compaction_in_relaxed_mode_leaves_a_prefix() {
    enumerate(compactions(Mode::Relaxed, false));
}

#[test]
fn a_crash_at_any_operation_of_an_eager_compaction_loses_nothing() {
    enumerate(compactions(Mode::Durable, true));
}

#[test]
fn a_crash_at_any_operation_of_an_eager_compaction_in_relaxed_mode_leaves_a_prefix() {
    enumerate(compactions(Mode::Relaxed, true));
}
