//! The runner's threads.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crossbeam_channel::unbounded;
use highwater::sync::{Runner, RunnerOptions, Sleep, SyncState, Trigger};
use highwater::{Event, RunStatus};

use crate::world::{HOUR, World, function, named, records};

const LONG: Duration = Duration::from_secs(30);

#[test]
fn no_more_at_once_than_there_are_workers() {
    let world = World::new();
    let (started, starts) = unbounded();
    let (release, released) = unbounded::<()>();
    let active = Arc::new(AtomicUsize::new(0));
    let now_active = active.clone();
    let runner = Runner::new(&world.store, RunnerOptions::new().workers(2)).unwrap();
    let function = function(move |context| {
        let others = now_active.fetch_add(1, Ordering::SeqCst);
        started.send((context.sync().clone(), others)).unwrap();
        released.recv_timeout(LONG).unwrap();
        now_active.fetch_sub(1, Ordering::SeqCst);
        Ok(())
    });
    runner.register(function).unwrap();
    let variants = ["a", "b", "c", "d", "e"];
    let keys = variants.map(|variant| runner.schedule("c", variant, "contacts", None).unwrap());
    let mut seen = Vec::new();
    for _ in 0..keys.len() {
        let (key, others) = starts.recv_timeout(LONG).unwrap();
        assert!(others < 2, "{others} others at the same time");
        seen.push(key);
        if seen.len() > 1 {
            release.send(()).unwrap();
        }
    }
    release.send(()).unwrap();
    seen.sort();
    assert_eq!(seen, keys, "each of them once");
    for key in keys {
        assert!(runner.wait_idle(&key, LONG));
    }
    assert_eq!(active.load(Ordering::SeqCst), 0);
}

#[test]
fn workers_follow_the_clock_and_triggers() {
    let world = World::new();
    let events = world.store.subscribe().unwrap();
    let runner = Runner::new(&world.store, RunnerOptions::new().workers(1)).unwrap();
    let function = named("contacts", |context| {
        let id = context.run_id().to_string();
        context.batch_save("Contact", &records(&[&id])).map(drop)
    });
    runner.register(function).unwrap();
    let key = runner.schedule("conn", "", "contacts", None).unwrap();
    let next_run = || loop {
        if let Event::Run(report) = events.next_timeout(LONG).unwrap() {
            return report.run;
        }
    };
    assert_eq!(next_run(), 1);
    world.clock.advance(HOUR);
    assert_eq!(next_run(), 2);
    assert!(runner.wait_idle(&key, LONG));
    runner.trigger(&key, Trigger::new()).unwrap();
    assert_eq!(next_run(), 3);
    assert!(runner.wait_idle(&key, LONG));
    assert_eq!(runner.status(&key).unwrap().state, SyncState::Success);
}

#[test]
fn a_shutdown_interrupts_and_the_tick_is_made_up_for() {
    let world = World::new();
    let (started, starts) = unbounded();
    let patient = function(move |context| {
        started.send(()).unwrap();
        Ok(context.cancellation().sleep(Duration::MAX)?)
    });
    let runner = Runner::new(&world.store, RunnerOptions::new().workers(1)).unwrap();
    runner.register(patient).unwrap();
    let key = runner.schedule("conn", "", "contacts", None).unwrap();
    starts.recv_timeout(LONG).unwrap();
    assert_eq!(runner.status(&key).unwrap().state, SyncState::Running);
    drop(runner);
    assert_eq!(
        world.store.runs(&key).unwrap()[0].status,
        RunStatus::Interrupted
    );

    let world = world.reopen();
    let runner = world.runner();
    runner.register(function(|_| Ok(()))).unwrap();
    assert_eq!(runner.run_due().unwrap()[0].run, 2);
    runner.shutdown();
    world.clock.advance(HOUR);
    assert_eq!(runner.run_due().unwrap(), []);
}
