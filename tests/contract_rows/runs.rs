//! Checkpoints, runs, fencing, reset, reports.

use highwater::{
    Error, Expected, Options, Outcome, RunOptions, RunReport, RunStatus, Sweep, SyncKey, Timestamp,
};
use serde_json::json;

use crate::world::{SECOND, START, World, delete, ids, live, put, sync};

fn checkpoint(world: &World) -> Option<String> {
    let found = world.store.checkpoint("c", "sync", "").unwrap();
    found.map(|found| String::from_utf8(found.json).unwrap())
}

fn begin(world: &World) -> highwater::Run {
    world.store.begin_run(&sync(), RunOptions::new()).unwrap()
}

#[test]
fn changed_clearing_an_absent_checkpoint_succeeds() {
    let mut world = World::new();
    world
        .store
        .clear_checkpoint("c", "sync", "", Expected::Any)
        .unwrap();
    let run = begin(&world);
    run.clear_checkpoint(Expected::Any).unwrap();
    run.save_checkpoint(&json!({"at": 1}), Expected::Absent)
        .unwrap();
    run.clear_checkpoint(Expected::Any).unwrap();
    run.clear_checkpoint(Expected::Any).unwrap();
    drop(run);
    world.however_it_ends(|world| assert_eq!(checkpoint(world), None));
}

#[test]
fn checkpoints_belong_to_exactly_their_sync() {
    let mut world = World::new();
    let keys = [
        ("c", "s", ""),
        ("c", "s", "eu"),
        ("c", "ss", ""),
        ("cc", "s", ""),
    ];
    for (at, (connection, name, variant)) in keys.into_iter().enumerate() {
        let value = json!({"at": at});
        let expected = Expected::Absent;
        world
            .store
            .save_checkpoint(connection, name, variant, &value, expected)
            .unwrap();
    }
    world.however_it_ends(|world| {
        for (at, (connection, name, variant)) in keys.into_iter().enumerate() {
            let found = world
                .store
                .checkpoint(connection, name, variant)
                .unwrap()
                .unwrap();
            assert_eq!(found.json, format!("{{\"at\":{at}}}").into_bytes());
        }
    });
}

/// A crash at every operation of a run that writes pages, each with its checkpoint.
#[test]
fn new_after_any_crash_records_and_checkpoint_agree() {
    let pages = |world: &World| -> highwater::Result<()> {
        let run = world.store.begin_run(&sync(), RunOptions::new())?;
        let feed = run.feed("m")?;
        for page in 1..4 {
            let mut batch = run.batch();
            batch.save_raw(&feed, &[(format!("{page}"), "1")])?;
            batch.run_checkpoint(&json!({"page": page}), Expected::Any)?;
            let _ = batch.commit()?;
        }
        run.succeed().map(drop)
    };
    let rehearsal = World::new();
    let first = rehearsal.disk.operations();
    pages(&rehearsal).unwrap();
    let mut reached = [false; 4];
    for at in first..=rehearsal.disk.operations() {
        let mut world = World::new();
        world.disk.stop_at(at);
        let finished = pages(&world).is_ok();
        world.crash();
        let records = ids(&world.feed()).len();
        let expected = (records > 0).then(|| format!("{{\"page\":{records}}}"));
        assert_eq!(checkpoint(&world), expected);
        assert!(records == 3 || !finished);
        for report in world.store.runs(&sync()).unwrap() {
            let told = report.models.get("m").map_or(0, |totals| totals.added);
            assert_eq!(told, records as u64, "the report says what the feed shows");
            assert_eq!(report.checkpoint_to, expected);
            assert_ne!(report.status, RunStatus::Running);
        }
        reached[records] = true;
    }
    assert_eq!(reached, [true; 4]);
}

#[test]
fn a_batch_that_loses_its_checkpoint_is_refused_whole() {
    let world = World::new();
    let run = begin(&world);
    run.save_checkpoint(&json!({"at": 1}), Expected::Absent)
        .unwrap();
    let feed = run.feed("m").unwrap();
    let mut batch = run.batch();
    batch.save_raw(&feed, &[("a", "1")]).unwrap();
    batch
        .run_checkpoint(&json!({"at": 2}), Expected::Version(7))
        .unwrap();
    let refused = batch.commit();
    assert!(matches!(
        refused,
        Err(Error::CheckpointConflict { found: Some(1) })
    ));
    assert_eq!(feed.count().unwrap(), 0);
    let report = run.succeed().unwrap();
    assert_eq!(
        report.models.get("m"),
        None,
        "what was refused was not done"
    );
}

#[test]
fn run_numbers_rise_and_are_never_given_twice() {
    let mut world = World::new();
    let mut newest = 0;
    for _ in 0..3 {
        for _ in 0..3 {
            let run = begin(&world);
            assert!(run.id() > newest);
            newest = run.id();
        }
        world.crash();
    }
    assert_eq!(world.store.syncs().unwrap(), [sync()]);
}

#[test]
fn starting_a_reset_fences_older_runs() {
    let world = World::new();
    let old = begin(&world);
    let feed = old.feed("m").unwrap();
    put(&feed, "a", "1");
    assert!(!old.is_fenced());
    let options = RunOptions::new().reset(true);
    let new = world.store.begin_run(&sync(), options).unwrap();
    assert!(old.is_fenced() && !new.is_fenced());
    let fenced = |error: Error| assert!(matches!(error, Error::RunFenced { .. }), "{error}");
    fenced(feed.batch_save_raw(&[("b", "1")]).unwrap_err());
    fenced(feed.batch_save_raw(&[("a", "1")]).unwrap_err());
    fenced(feed.batch_delete(&["a"]).unwrap_err());
    fenced(feed.batch_update(&[json!({"id": "never"})]).unwrap_err());
    fenced(feed.batch_delete::<&str>(&[]).unwrap_err());
    fenced(feed.track_deletes_start().unwrap_err());
    fenced(feed.track_deletes_end(&Sweep::new()).unwrap_err());
    fenced(old.save_checkpoint(&json!({}), Expected::Any).unwrap_err());
    fenced(old.clear_checkpoint(Expected::Any).unwrap_err());
    let mut batch = old.batch();
    batch.save_raw(&feed, &[("c", "1")]).unwrap();
    fenced(batch.commit().unwrap_err());
    fenced(old.succeed().unwrap_err());
    assert_eq!(ids(&world.feed()), ["a"]);
    let reports = world.store.runs(&sync()).unwrap();
    let statuses: Vec<_> = reports.iter().map(|report| report.status).collect();
    assert_eq!(statuses, [RunStatus::Running, RunStatus::Interrupted]);
    assert_eq!(reports[1].models["m"].added, 1);
    put(&new.feed("m").unwrap(), "b", "1");
    new.succeed().unwrap();
}

#[test]
fn declaring_runs_dead_fences_them_for_good() {
    let mut world = World::new();
    let old = begin(&world);
    let other = SyncKey::new("c", "other", "").unwrap();
    let bystander = world.store.begin_run(&other, RunOptions::new()).unwrap();
    world.store.fence_runs(&sync()).unwrap();
    assert!(old.is_fenced() && !bystander.is_fenced());
    assert!(
        old.feed("m")
            .unwrap()
            .batch_save_raw(&[("a", "1")])
            .is_err()
    );
    drop((old, bystander));
    world.however_it_ends(|world| {
        assert!(!begin(world).is_fenced());
        assert_eq!(world.feed().count().unwrap(), 0);
    });
}

#[test]
fn an_ended_run_writes_no_more() {
    let world = World::new();
    let run = begin(&world);
    let feed = run.feed("m").unwrap();
    run.succeed().unwrap();
    let refused = feed.batch_save_raw(&[("a", "1")]);
    assert!(matches!(refused, Err(Error::RunEnded { run: 1 })));
    assert!(matches!(
        feed.track_deletes_start(),
        Err(Error::RunEnded { .. })
    ));
    assert_eq!(feed.count().unwrap(), 0, "reading goes on");
}

#[test]
fn a_reset_clears_exactly_this_syncs_checkpoint_and_windows() {
    let mut world = World::new();
    let other = SyncKey::new("c", "other", "").unwrap();
    for sync in [&sync(), &other] {
        let run = world.store.begin_run(sync, RunOptions::new()).unwrap();
        run.save_checkpoint(&json!({"at": 1}), Expected::Any)
            .unwrap();
        for model in ["m", "n"] {
            let feed = run.feed(model).unwrap();
            put(&feed, "a", "1");
            feed.track_deletes_start().unwrap();
        }
        run.succeed().unwrap();
    }
    world.reopen();
    world.store.reset_sync(&sync()).unwrap();
    world.however_it_ends(|world| {
        assert_eq!(checkpoint(world), None);
        assert!(world.store.checkpoint("c", "other", "").unwrap().is_some());
        for model in ["m", "n"] {
            let feed = world.store.feed("c", model).unwrap();
            assert_eq!(feed.stats().unwrap().windows, 1);
            assert_eq!(live(&feed).len(), 1, "the cache stays");
        }
    });
    // Fetching everything again reports true changes only.
    let run = begin(&world);
    let feed = run.feed("m").unwrap();
    assert!(matches!(
        feed.track_deletes_end(&Sweep::new()),
        Err(Error::NoWindow { .. })
    ));
    let applied = feed.batch_save_raw(&[("a", "1"), ("b", "1")]).unwrap();
    assert_eq!(applied.outcomes, [Outcome::Unchanged, Outcome::Added]);
}

/// A run that does a bit of everything.
fn busy_run(world: &World) -> highwater::Run {
    let feed = world.feed();
    let _ = feed
        .batch_save_raw(&[("a", "1"), ("b", "1"), ("c", "1"), ("d", "1")])
        .unwrap();
    feed.prune(&highwater::Oldest::all().limit(1)).unwrap();
    world
        .store
        .save_checkpoint("c", "sync", "", &json!({"at": 0}), Expected::Any)
        .unwrap();
    world.clock.advance(SECOND);
    let run = begin(world);
    let feed = run.feed("m").unwrap();
    feed.track_deletes_start().unwrap();
    put(&feed, "a", "1");
    put(&feed, "b", "2");
    delete(&feed, "never");
    put(&feed, "e", "1");
    put(&run.feed("n").unwrap(), "x", "1");
    run.save_checkpoint(&json!({"at": 1}), Expected::Any)
        .unwrap();
    feed.track_deletes_end(&Sweep::new()).unwrap();
    // This one waits for a commit to be counted with.
    put(&feed, "b", "2");
    world.clock.advance(SECOND);
    run
}

fn check_busy(report: &RunReport, unchanged: u64) {
    let totals = report.models["m"];
    assert_eq!((totals.restored, totals.updated, totals.added), (1, 1, 1));
    assert_eq!((totals.not_found, totals.deleted), (1, 2));
    assert_eq!(totals.unchanged, unchanged);
    assert_eq!(report.models["n"].added, 1);
    assert_eq!(report.checkpoint_from.as_deref(), Some(r#"{"at":0}"#));
    assert_eq!(report.checkpoint_to.as_deref(), Some(r#"{"at":1}"#));
    assert_eq!(report.started, Timestamp::from_micros(START + SECOND));
}

#[test]
fn changed_a_report_says_what_the_run_did_to_each_model() {
    let mut world = World::new();
    let run = busy_run(&world);
    let running = &world.store.runs(&sync()).unwrap()[0];
    assert_eq!((running.status, running.ended), (RunStatus::Running, None));
    let report = run.succeed().unwrap();
    check_busy(&report, 1);
    assert_eq!(
        report.ended,
        Some(Timestamp::from_micros(START + 2 * SECOND))
    );
    let reports = vec![report];
    world.however_it_ends(|world| assert_eq!(world.store.runs(&sync()).unwrap(), reports));
}

#[test]
fn changed_a_run_that_the_process_did_not_survive_has_a_report_too() {
    let mut world = World::new();
    let run = busy_run(&world);
    world.crash();
    drop(run);
    world.however_it_ends(|world| {
        let reports = world.store.runs(&sync()).unwrap();
        assert_eq!(reports.len(), 1);
        // What changed nothing was counted only as far as it was committed with something.
        check_busy(&reports[0], 0);
        assert_eq!(reports[0].status, RunStatus::Interrupted);
        assert_eq!(reports[0].error.as_deref(), Some("the process ended"));
    });
}

#[test]
fn a_failed_run_keeps_what_it_committed_and_says_why() {
    let mut world = World::new();
    let run = begin(&world);
    put(&run.feed("m").unwrap(), "a", "1");
    run.fail("no").unwrap();
    world.however_it_ends(|world| {
        assert_eq!(ids(&world.feed()), ["a"]);
        let report = &world.store.runs(&sync()).unwrap()[0];
        assert_eq!(
            (report.status, report.error.as_deref()),
            (RunStatus::Failed, Some("no"))
        );
    });
}

#[test]
fn reports_of_old_runs_are_forgotten() {
    let mut world = World::with(Options::new().runs_kept(3));
    for _ in 0..7 {
        begin(&world).succeed().unwrap();
    }
    world.however_it_ends(|world| {
        let reports = world.store.runs(&sync()).unwrap();
        let runs: Vec<u64> = reports.iter().map(|report| report.run).collect();
        assert_eq!(runs, [7, 6, 5], "the newest come first");
    });
}

#[test]
fn a_batch_of_a_run_takes_feeds_of_that_run_only() {
    let world = World::new();
    let (one, two) = (begin(&world), begin(&world));
    let mut batch = one.batch();
    for feed in [world.feed(), two.feed("m").unwrap()] {
        let refused = batch.save_raw(&feed, &[("a", "1")]);
        assert!(matches!(refused, Err(Error::MixedBatch)));
    }
    let mut batch = world.store.batch("c");
    let refused = batch.run_checkpoint(&json!({}), Expected::Any);
    assert!(matches!(refused, Err(Error::MixedBatch)));
}

#[test]
fn what_a_fenced_run_does_to_its_feeds_is_refused_too() {
    let world = World::new();
    let old = begin(&world);
    let feed = old.feed("m").unwrap();
    put(&feed, "a", "1");
    let replacement = feed.replace().unwrap();
    world.store.fence_runs(&sync()).unwrap();
    let all = highwater::Oldest::all();
    for operation in [
        highwater::Feed::prune,
        highwater::Feed::hard_delete,
        highwater::Feed::purge,
    ] {
        let refused = operation(&feed, &all);
        assert!(
            matches!(refused, Err(Error::RunFenced { .. })),
            "{refused:?}"
        );
    }
    let refused = replacement.commit();
    assert!(
        matches!(refused, Err(Error::RunFenced { .. })),
        "{refused:?}"
    );
    assert_eq!(live(&world.feed())["a"], Some("1".to_owned()));
}

/// A window that is opened while its sync is being reset is closed, or it is opened by a run that
/// came after, and the next reset finds it.
#[test]
fn a_reset_finds_every_window_whenever_it_was_opened() {
    let world = World::new();
    for round in 0..200 {
        let run = begin(&world);
        let feed = run.feed(&format!("m{}", round % 7)).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| feed.track_deletes_start());
            scope.spawn(|| world.store.reset_sync(&sync()).unwrap());
        });
        drop(run);
        world.store.reset_sync(&sync()).unwrap();
        assert_eq!(feed.stats().unwrap().windows, 0, "in round {round}");
    }
}
