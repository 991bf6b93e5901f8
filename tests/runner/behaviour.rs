//! What the runner does, one rule at a time.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use highwater::storage::Survivors;
use highwater::sync::{
    Cancellation, DryRun, LogLevel, Merging, Runner, RunnerError, RunnerOptions, StopReason,
    SyncError, SyncFunction, SyncState, Trigger,
};
use highwater::{List, RunReport, RunStatus, Sweep};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::world::{Function, HOUR, MINUTE, START, World, function, named, records};

fn only(reports: Vec<RunReport>) -> RunReport {
    let [report] = <[RunReport; 1]>::try_from(reports).unwrap();
    report
}

#[test]
fn a_run_saves_and_is_reported() {
    let world = World::new();
    world
        .store
        .set_connection_metadata("conn", &json!({"region": "eu"}))
        .unwrap();
    let (runner, key) = world.scheduled(function(|context| {
        let metadata: Value = context.metadata()?.unwrap();
        assert_eq!(metadata["region"], "eu");
        assert_eq!(context.checkpoint::<Value>()?, None);
        context.track_deletes_start("Contact")?;
        let saved = context.save_with_checkpoint(
            "Contact",
            &records(&["a", "b", "c"]),
            &json!({"page": 1}),
        )?;
        assert_eq!(saved.totals.added, 3);
        let _ = context.batch_update("Contact", &[json!({"id": "a", "n": 1})])?;
        let _ = context.batch_delete("Contact", &["b"])?;
        assert_eq!(context.get("Contact", &["a"])?.len(), 1);
        assert_eq!(context.list("Contact", &List::new())?.len(), 4);
        let swept = context.track_deletes_end("Contact", &Sweep::new())?;
        assert_eq!(swept.deleted, 1, "the one from before");
        let unknown = context.batch_save("Company", &records(&["x"]));
        assert!(matches!(unknown, Err(SyncError::UnknownModel { .. })));
        let other: Result<Option<u64>, _> = context.checkpoint();
        assert!(matches!(other, Err(SyncError::Document { .. })));
        Ok(())
    }));
    world.save_contacts(&["old"]);
    let pending = runner.status(&key).unwrap();
    assert_eq!(pending.state, SyncState::Pending);
    assert_eq!(pending.next_due.unwrap().as_micros(), START);

    let report = only(runner.run_due().unwrap());
    assert_eq!(report.status, RunStatus::Succeeded, "{:?}", report.error);
    let contact = report.models["Contact"];
    assert_eq!((contact.added, contact.updated, contact.deleted), (3, 1, 2));
    assert_eq!(report.checkpoint_to.as_deref(), Some(r#"{"page":1}"#));
    let status = runner.status(&key).unwrap();
    assert_eq!(status.state, SyncState::Success);
    assert_eq!(status.next_due.unwrap().as_micros(), START + HOUR);
    assert_eq!(status.records["Contact"], 2);
    assert_eq!(status.last_report, Some(report));
    assert_eq!(
        (status.frequency.as_deref(), status.version.as_deref()),
        (Some("1h"), Some("1"))
    );
    assert_eq!(runner.run_due().unwrap(), []);
}

#[test]
fn failures_and_panics_are_reports_and_their_data_stays() {
    let world = World::new();
    let (runner, key) = world.scheduled(function(|context| {
        let _ = context.save_with_checkpoint("Contact", &records(&["a"]), &json!({"page": 1}))?;
        match context.run_id() {
            1 => Err(SyncError::failed("the provider is down")),
            2 => panic!("out of {}", "luck"),
            3 => Err(SyncError::Stopped),
            _ => Ok(()),
        }
    }));
    for (run, error) in [
        (1, "the provider is down"),
        (2, "the function panicked: out of luck"),
        (3, "the function stopped without being asked to"),
    ] {
        let report = only(runner.run_due().unwrap());
        assert_eq!((report.run, report.status), (run, RunStatus::Failed));
        assert_eq!(report.error.as_deref(), Some(error));
        assert_eq!(runner.status(&key).unwrap().state, SyncState::Error);
        assert_eq!(runner.run_due().unwrap(), [], "a failure has done its tick");
        world.clock.advance(HOUR);
    }
    let report = only(runner.run_due().unwrap());
    assert_eq!(report.status, RunStatus::Succeeded);
    assert_eq!(report.models["Contact"].unchanged, 1);
    assert_eq!(world.contacts(), ["a"]);
}

#[test]
fn what_a_trigger_means_and_what_is_refused() {
    let world = World::new();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (function, runner_of_it) = {
        let (seen, runner) = (seen.clone(), Arc::new(OnceLock::<Weak<Runner>>::new()));
        let held = runner.clone();
        let function = function(move |context| {
            seen.lock().push(context.checkpoint::<Value>()?);
            let runner = held.get().and_then(Weak::upgrade).unwrap();
            let again = runner.trigger(context.sync(), Trigger::new());
            assert!(matches!(again, Err(RunnerError::Running { .. })));
            assert_eq!(runner.run_due().unwrap(), [], "never twice at once");
            let status = runner.status(context.sync()).unwrap();
            assert_eq!((status.state, status.next_due), (SyncState::Running, None));
            context.save_checkpoint(&json!({"n": context.run_id()}))
        });
        (function, runner)
    };
    let (runner, key) = world.scheduled(function);
    let runner = Arc::new(runner);
    runner_of_it.set(Arc::downgrade(&runner)).unwrap();
    only(runner.run_due().unwrap());

    let refused = runner.trigger(&key, Trigger::new().empty_cache(true));
    assert!(matches!(refused, Err(RunnerError::EmptyCacheWithoutReset)));
    let mut elsewhere = key.clone();
    elsewhere.connection = "other".to_owned();
    let refused = runner.trigger(&elsewhere, Trigger::new());
    assert!(matches!(refused, Err(RunnerError::NotScheduled { .. })));

    world.clock.advance(20 * MINUTE);
    world.save_contacts(&["kept"]);
    runner.trigger(&key, Trigger::new()).unwrap();
    let refused = runner.trigger(&key, Trigger::new().reset(true));
    assert!(matches!(refused, Err(RunnerError::AlreadyTriggered { .. })));
    only(runner.run_due().unwrap());
    runner.trigger(&key, Trigger::new().reset(true)).unwrap();
    only(runner.run_due().unwrap());
    assert_eq!(*seen.lock(), [None, Some(json!({"n": 1})), None]);
    assert_eq!(
        world.contacts(),
        ["kept"],
        "a reset clears the checkpoint only"
    );
    let due = runner.status(&key).unwrap().next_due.unwrap();
    assert_eq!(due.as_micros(), START + HOUR, "the grid stays");

    runner.pause(&key).unwrap();
    runner.trigger(&key, Trigger::new()).unwrap();
    assert_eq!(only(runner.run_due().unwrap()).run, 4);
    assert_eq!(runner.status(&key).unwrap().state, SyncState::Paused);
}

#[test]
fn an_emptied_cache_is_swapped_in_by_success_only() {
    let world = World::new();
    world.save_contacts(&["old", "both"]);
    let fail = Arc::new(AtomicU64::new(1));
    let failing = fail.clone();
    let (runner, key) = world.scheduled(function(move |context| {
        let all = context.checkpoint::<Value>()?.is_none();
        let ids: &[&str] = if all { &["both", "new"] } else { &[] };
        let saved = context.save_with_checkpoint("Contact", &records(ids), &json!({"n": 1}));
        if failing.load(Ordering::Relaxed) == 1 {
            return Err(SyncError::failed("no"));
        }
        saved.map(drop)
    }));
    world.set_checkpoint(&json!({"n": 0}));
    let anew = Trigger::new().reset(true).empty_cache(true);
    runner.trigger(&key, anew).unwrap();
    let report = only(runner.run_due().unwrap());
    assert_eq!(report.status, RunStatus::Failed);
    assert_eq!(world.contacts(), ["old", "both"]);
    // What it says was thrown away with the records.
    assert_eq!((world.checkpoint(), report.checkpoint_to), (None, None));

    fail.store(0, Ordering::Relaxed);
    runner.trigger(&key, anew).unwrap();
    let report = only(runner.run_due().unwrap());
    assert_eq!(report.status, RunStatus::Succeeded);
    assert_eq!(world.contacts(), ["both", "new"]);
    assert_eq!(world.checkpoint(), Some(json!({"n": 1})));
}

#[test]
fn an_emptied_cache_that_dies_with_the_process_is_asked_for_again() {
    let world = World::new();
    world.save_contacts(&["old"]);
    let died = Arc::new(Mutex::new(None));
    let (disk, left) = (world.disk.clone(), died.clone());
    let exec = move |context: &mut highwater::sync::SyncContext| {
        assert_eq!(context.checkpoint::<Value>()?, None);
        let checkpoint = json!({"page": 1});
        let _ = context.save_with_checkpoint("Contact", &records(&["new"]), &checkpoint)?;
        left.lock()
            .get_or_insert_with(|| disk.crash(Survivors::Synced));
        Ok(())
    };
    let function = function(exec);
    let (runner, key) = world.scheduled(function.clone());
    let anew = Trigger::new().reset(true).empty_cache(true);
    runner.trigger(&key, anew).unwrap();
    only(runner.run_due().unwrap());

    let disk = died.lock().take().unwrap();
    let world = World::on(disk.clone(), world.clock.clone());
    *died.lock() = Some(disk);
    assert_eq!(world.contacts(), ["old"]);
    let runner = world.runner();
    runner.register(function).unwrap();
    let dead = runner.status(&key).unwrap();
    assert_eq!(dead.state, SyncState::Pending);
    assert_eq!(dead.last_report.unwrap().status, RunStatus::Interrupted);
    let report = only(runner.run_due().unwrap());
    assert_eq!(report.status, RunStatus::Succeeded, "{:?}", report.error);
    assert_eq!(world.contacts(), ["new"]);
}

#[test]
fn a_pause_stops_the_run_at_its_next_checkpoint_and_leaves_the_tick_due() {
    let world = World::new();
    let runner_of_it = Arc::new(OnceLock::<Weak<Runner>>::new());
    let held = runner_of_it.clone();
    let (runner, key) = world.scheduled(function(move |context| {
        for page in context
            .checkpoint::<u64_object::Page>()?
            .unwrap_or_default()
            .page..4
        {
            if context.run_id() == 1 && page == 2 {
                let runner = held.get().and_then(Weak::upgrade).unwrap();
                runner.pause(context.sync()).unwrap();
                assert_eq!(context.cancellation().reason(), Some(StopReason::Paused));
            }
            let id = page.to_string();
            let next = u64_object::Page { page: page + 1 };
            let _ = context.save_with_checkpoint("Contact", &records(&[&id]), &next)?;
        }
        Ok(())
    }));
    let runner = Arc::new(runner);
    runner_of_it.set(Arc::downgrade(&runner)).unwrap();
    let report = only(runner.run_due().unwrap());
    assert_eq!(report.status, RunStatus::Interrupted);
    assert_eq!(report.error.as_deref(), Some("the schedule was paused"));
    // No page is lost: the one that was being saved is behind the checkpoint.
    assert_eq!(world.contacts(), ["0", "1", "2"]);
    assert_eq!(world.checkpoint(), Some(json!({"page": 3})));
    world.clock.advance(5 * HOUR);
    assert_eq!(runner.run_due().unwrap(), []);
    let status = runner.status(&key).unwrap();
    assert_eq!((status.state, status.next_due), (SyncState::Paused, None));

    runner.start(&key).unwrap();
    let report = only(runner.run_due().unwrap());
    assert_eq!((report.run, report.status), (2, RunStatus::Succeeded));
    assert_eq!(report.models["Contact"].added, 1);
}

mod u64_object {
    use serde::{Deserialize, Serialize};

    #[derive(Serialize, Deserialize, Default)]
    pub(crate) struct Page {
        pub(crate) page: u64,
    }
}

#[test]
fn a_fenced_run_is_interrupted_and_its_tick_is_due_again() {
    let world = World::new();
    let store = world.store.clone();
    let (runner, _) = world.scheduled(function(move |context| {
        if context.run_id() == 1 {
            store.reset_sync(context.sync())?;
        }
        context.batch_save("Contact", &records(&["a"])).map(drop)
    }));
    let report = only(runner.run_due().unwrap());
    assert_eq!((report.run, report.status), (1, RunStatus::Interrupted));
    let report = only(runner.run_due().unwrap());
    assert_eq!((report.run, report.status), (2, RunStatus::Succeeded));
}

#[test]
fn schedules_survive_a_restart() {
    let world = World::new();
    let function = function(|_| Ok(()));
    let (runner, key) = world.scheduled(function.clone());
    let half = runner.schedule("conn", "eu", "contacts", Some("half hour".parse().unwrap()));
    let half = half.unwrap();
    runner.schedule("gone", "", "contacts", None).unwrap();
    let mut gone = key.clone();
    gone.connection = "gone".to_owned();
    runner.unschedule(&gone).unwrap();
    let again = runner.unschedule(&gone);
    assert!(matches!(again, Err(RunnerError::NotScheduled { .. })));
    assert_eq!(runner.run_due().unwrap().len(), 2);
    world.clock.advance(10 * MINUTE);
    runner.pause(&key).unwrap();
    runner.trigger(&half, Trigger::new().reset(true)).unwrap();
    let before = runner.statuses().unwrap();
    assert_eq!(before.len(), 2);

    drop(runner);
    let world = world.reopen();
    let runner = world.runner();
    let unknown = runner.status(&half).unwrap();
    assert_eq!((unknown.version, unknown.next_due), (None, None));
    assert_eq!(
        runner.run_due().unwrap(),
        [],
        "its function is not there yet"
    );
    let refused = runner.trigger(&key, Trigger::new());
    assert!(matches!(refused, Err(RunnerError::NotRegistered { .. })));
    runner.register(function).unwrap();
    assert_eq!(runner.statuses().unwrap(), before);
    // Scheduling again says nothing new.
    runner.schedule("conn", "", "contacts", None).unwrap();
    assert_eq!(runner.status(&key).unwrap(), before[0]);
    assert_eq!(only(runner.run_due().unwrap()).sync, half);
    let due = runner.status(&half).unwrap().next_due.unwrap();
    assert_eq!(due.as_micros(), START + 30 * MINUTE);
}

#[test]
fn schedules_that_do_not_start_by_themselves_wait() {
    let world = World::new();
    let runner = world.runner();
    let refused = runner.schedule("conn", "", "contacts", None);
    assert!(matches!(refused, Err(RunnerError::NotRegistered { .. })));
    runner
        .register(Arc::new(Function {
            name: "contacts",
            auto_start: false,
            exec: Box::new(|_| Ok(())),
        }))
        .unwrap();
    let key = runner.schedule("conn", "", "contacts", None).unwrap();
    assert_eq!(runner.run_due().unwrap(), []);
    runner.start(&key).unwrap();
    only(runner.run_due().unwrap());
}

#[test]
fn ticks_collapse_and_those_that_waited_longest_come_first() {
    let world = World::new();
    let runner = world.runner();
    for name in ["b", "a"] {
        runner.register(named(name, |_| Ok(()))).unwrap();
        runner.schedule("conn", "", name, None).unwrap();
        world.clock.advance(MINUTE);
    }
    let names = |reports: Vec<RunReport>| -> Vec<String> {
        reports.into_iter().map(|report| report.sync.name).collect()
    };
    assert_eq!(names(runner.run_due().unwrap()), ["b", "a"]);
    world.clock.advance(50 * HOUR);
    assert_eq!(names(runner.run_due().unwrap()), ["b", "a"]);
    assert_eq!(runner.run_due().unwrap(), []);
}

#[test]
fn what_others_changed_meanwhile_can_be_left_alone() {
    let world = World::new();
    world.save_contacts(&["a", "b"]);
    let feed = world.store.feed("conn", "Contact").unwrap();
    let (runner, _) = world.scheduled(function(move |context| {
        let cursor = context.feed("Contact")?.last_cursor()?.unwrap();
        let merging = Merging::IgnoreIfModifiedAfter(cursor);
        context.set_merging("Contact", merging)?;
        let _ = feed.batch_save(&[json!({"id": "a", "by": "an action"})])?;
        let fetched = [
            json!({"id": "a", "by": "sync"}),
            json!({"id": "b", "by": "sync"}),
        ];
        let totals = context.batch_save("Contact", &fetched)?.totals;
        assert_eq!((totals.skipped, totals.updated), (1, 1));
        context.set_merging("Contact", Merging::Override)?;
        assert_eq!(context.batch_save("Contact", &fetched)?.totals.updated, 1);
        Ok(())
    }));
    let report = only(runner.run_due().unwrap());
    assert_eq!(report.status, RunStatus::Succeeded, "{:?}", report.error);
}

#[test]
fn log_lines_go_to_the_sink() {
    let world = World::new();
    let lines = Arc::new(Mutex::new(Vec::new()));
    let kept = lines.clone();
    let options = RunnerOptions::new().workers(0).log(move |line| {
        kept.lock()
            .push((line.level, line.run, line.message.to_owned()));
    });
    let runner = Runner::new(&world.store, options).unwrap();
    let function = function(|context| {
        context.log(LogLevel::Info, format_args!("page {}", 1));
        Err(SyncError::failed("no"))
    });
    runner.register(function).unwrap();
    runner.schedule("conn", "", "contacts", None).unwrap();
    runner.run_due().unwrap();
    let expected = [(LogLevel::Info, "page 1"), (LogLevel::Error, "no")];
    assert_eq!(
        *lines.lock(),
        expected.map(|(level, text)| (level, 1, text.to_owned()))
    );
}

#[test]
fn a_dry_run_counts_and_changes_nothing() {
    let world = World::new();
    world.save_contacts(&["a", "b", "c"]);
    world.set_checkpoint(&json!({"n": 7}));
    let meta = json!({"region": "real"});
    world.store.set_connection_metadata("conn", &meta).unwrap();
    let function = function(|context| {
        let metadata: Value = context.metadata()?.unwrap();
        let expected = if metadata["region"] == "stub" {
            Some(json!({"n": 1}))
        } else {
            None
        };
        assert_eq!(context.checkpoint::<Value>()?, expected);
        context.track_deletes_start("Contact")?;
        let fetched = [
            json!({"id": "a"}),
            json!({"id": "b", "new": 1}),
            json!({"id": "d"}),
        ];
        let _ = context.save_with_checkpoint("Contact", &fetched, &json!({"n": 2}))?;
        assert_eq!(context.checkpoint::<Value>()?, Some(json!({"n": 2})));
        context.track_deletes_end("Contact", &Sweep::new())?;
        Ok(())
    });
    let written = world.disk.counts().bytes_written;
    let stub = DryRun::new("conn")
        .metadata(&json!({"region": "stub"}))
        .unwrap();
    let stub = stub.checkpoint(&json!({"n": 1})).unwrap().diagnostics(true);
    for dry in [stub, DryRun::new("conn")] {
        let report = dry.run(&world.store, &*function).unwrap();
        let counts = report.report.models["Contact"];
        assert_eq!(report.report.status, RunStatus::Succeeded, "{report:?}");
        assert_eq!((counts.added, counts.updated), (1, 1));
        assert_eq!((counts.deleted, counts.unchanged), (1, 1));
        #[cfg(target_os = "linux")]
        if let Some(diagnostics) = report.diagnostics {
            assert!(diagnostics.peak_memory.unwrap() > 1 << 20);
            assert!(diagnostics.cpu.is_some() && !diagnostics.duration.is_zero());
        }
    }
    assert_eq!(world.disk.counts().bytes_written, written, "no trace");
    assert_eq!(world.contacts(), ["a", "b", "c"]);
    assert_eq!(world.checkpoint(), Some(json!({"n": 7})));
    assert_eq!(world.store.syncs().unwrap(), []);
}

#[test]
fn a_dry_run_fails_and_stops_like_a_run() {
    let world = World::new();
    let panics = function(|_| panic!("ouch"));
    let report = DryRun::new("conn").run(&world.store, &*panics).unwrap();
    assert_eq!(report.report.status, RunStatus::Failed);
    assert!(report.diagnostics.is_none());
    let checks = function(|context| context.check_stop());
    let cancellation = Cancellation::new();
    cancellation.cancel(StopReason::Shutdown);
    let stopped = DryRun::new("conn").cancellation(cancellation);
    let report = stopped.run(&world.store, &*checks).unwrap();
    assert_eq!(report.report.status, RunStatus::Interrupted);
    assert_eq!(checks.name(), "contacts");
}
