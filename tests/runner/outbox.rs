//! Reports on their way to a webhook: none is lost, whatever happens.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use highwater::storage::{MemoryStorage, Survivors};
use highwater::sync::{
    HttpClient, HttpError, HttpRequest, HttpResponse, Runner, RunnerOptions, SIGNATURE_HEADER,
    Secret, Webhook, verify,
};
use highwater::{RunOptions, RunStatus, Timestamp};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::world::{HOUR, MINUTE, START, World, function, records};

/// Answers with the statuses it was given, and 204 after that.
#[derive(Default)]
struct Receiver {
    answers: Mutex<VecDeque<u16>>,
    got: Mutex<Vec<HttpRequest>>,
}

impl Receiver {
    fn answering(statuses: &[u16]) -> Arc<Self> {
        Arc::new(Self {
            answers: Mutex::new(statuses.iter().copied().collect()),
            got: Mutex::default(),
        })
    }

    /// The runs that were reported to a URL, with their statuses.
    fn runs(&self, url: &str) -> Vec<(u64, String)> {
        let got = self.got.lock();
        let to_it = got.iter().filter(|request| request.url == url);
        let run = |request: &HttpRequest| {
            let body: Value = serde_json::from_slice(&request.body).unwrap();
            let status = body["status"].as_str().unwrap().to_owned();
            (body["run"].as_u64().unwrap(), status)
        };
        to_it.map(run).collect()
    }
}

impl HttpClient for Receiver {
    fn send(&self, request: &HttpRequest) -> Result<HttpResponse, HttpError> {
        self.got.lock().push(request.clone());
        let status = self.answers.lock().pop_front();
        Ok(HttpResponse::new(status.unwrap_or(204), []))
    }
}

const HOOK: &str = "https://hooks.example/runs";

fn secret() -> Secret {
    Secret::new([1; 32]).unwrap()
}

fn runner(world: &World, receiver: &Arc<Receiver>, urls: &[&str]) -> Runner {
    let mut options = RunnerOptions::new().workers(0);
    for url in urls {
        let webhook = Webhook::new(*url, secret()).attempts(3);
        options = options.webhook(webhook, receiver.clone());
    }
    let runner = Runner::new(&world.store, options).unwrap();
    let function = function(|context| {
        let _ = context.save_with_checkpoint("Contact", &records(&["a"]), &json!({"n": 1}))?;
        Ok(())
    });
    runner.register(function).unwrap();
    runner.schedule("conn", "", "contacts", None).unwrap();
    runner
}

fn succeeded(runs: &[u64]) -> Vec<(u64, String)> {
    runs.iter()
        .map(|run| (*run, "succeeded".to_owned()))
        .collect()
}

#[test]
fn reports_are_signed_and_posted_once_to_each_url() {
    let world = World::new();
    let receiver = Receiver::answering(&[]);
    let other = "https://other.example/";
    let runner = runner(&world, &receiver, &[HOOK, other]);
    runner.run_due().unwrap();
    assert_eq!(runner.deliver_due().unwrap(), 2);
    assert_eq!(runner.deliver_due().unwrap(), 0);
    assert_eq!(receiver.runs(HOOK), succeeded(&[1]));
    assert_eq!(receiver.runs(other), succeeded(&[1]));
    let request = receiver.got.lock()[0].clone();
    let header = request.headers.get(SIGNATURE_HEADER).unwrap();
    let now = Timestamp::from_micros(START);
    verify(&secret(), header, &request.body, now, Duration::ZERO).unwrap();
    let body: Value = serde_json::from_slice(&request.body).unwrap();
    assert_eq!(body["models"]["Contact"]["added"], 1);
    assert_eq!(body["checkpoint_to"], json!({"n": 1}));
}

#[test]
fn undelivered_reports_survive_a_restart_and_are_tried_again() {
    let world = World::new();
    let receiver = Receiver::answering(&[500, 503]);
    let first = runner(&world, &receiver, &[HOOK]);
    first.run_due().unwrap();
    assert_eq!(first.deliver_due().unwrap(), 0);
    assert_eq!(first.deliver_due().unwrap(), 0, "not before its time");
    assert_eq!(receiver.runs(HOOK).len(), 1);
    drop(first);

    let world = world.reopen();
    let second = runner(&world, &receiver, &[HOOK]);
    assert_eq!(second.deliver_due().unwrap(), 0);
    world.clock.advance(15_000_000);
    assert_eq!(second.deliver_due().unwrap(), 0);
    assert_eq!(receiver.runs(HOOK).len(), 2);
    world.clock.advance(MINUTE);
    assert_eq!(second.deliver_due().unwrap(), 1);
    world.clock.advance(20 * MINUTE);
    assert_eq!(second.deliver_due().unwrap(), 0);
}

#[test]
fn a_report_is_given_up_after_the_last_attempt_or_when_its_webhook_is_gone() {
    let world = World::new();
    let receiver = Receiver::answering(&[500, 500, 500, 400]);
    let runner_one = runner(&world, &receiver, &[HOOK]);
    runner_one.run_due().unwrap();
    for _ in 0..5 {
        assert_eq!(runner_one.deliver_due().unwrap(), 0);
        world.clock.advance(10 * MINUTE);
    }
    assert_eq!(receiver.runs(HOOK).len(), 3);
    world.clock.advance(HOUR);
    runner_one.run_due().unwrap();
    assert_eq!(runner_one.deliver_due().unwrap(), 0, "refused for good");
    world.clock.advance(HOUR);
    runner_one.run_due().unwrap();
    drop(runner_one);
    let elsewhere = runner(&world, &receiver, &["https://new.example"]);
    assert_eq!(elsewhere.deliver_due().unwrap(), 0);
    drop(elsewhere);
    assert_eq!(runner(&world, &receiver, &[HOOK]).deliver_due().unwrap(), 0);
}

#[test]
fn a_run_that_ended_without_being_handed_in_is_found_at_the_start() {
    let world = World::new();
    let receiver = Receiver::answering(&[]);
    let first = runner(&world, &receiver, &[HOOK]);
    first.run_due().unwrap();
    let key = first.statuses().unwrap()[0].sync.clone();
    drop(first);
    // As if the process had died right after, or in the middle of, these runs.
    let run = world.store.begin_run(&key, RunOptions::new()).unwrap();
    run.fail("no").unwrap();
    std::mem::forget(world.store.begin_run(&key, RunOptions::new()).unwrap());
    let disk = world.disk.crash(Survivors::Synced);
    let world = World::on(disk, world.clock.clone());
    let second = runner(&world, &receiver, &[HOOK]);
    assert_eq!(second.deliver_due().unwrap(), 3);
    let expected = ["succeeded", "failed", "interrupted"];
    let statuses: Vec<String> = receiver.runs(HOOK).into_iter().map(|(_, s)| s).collect();
    assert_eq!(statuses, expected);
}

/// Power cuts after every single operation of a run, its report and its delivery.
#[test]
fn wherever_the_power_fails_every_report_arrives() {
    let prepared = {
        let world = World::new();
        let receiver = Receiver::answering(&[]);
        drop(runner(&world, &receiver, &[HOOK]));
        world.store.close().unwrap();
        world.disk.crash(Survivors::Synced)
    };
    let mut cuts = 0;
    loop {
        let disk: MemoryStorage = prepared.crash(Survivors::All);
        let receiver = Receiver::answering(&[500]);
        let world = World::on(disk, Arc::new(highwater::storage::ManualClock::new(START)));
        let victim = runner(&world, &receiver, &[HOOK]);
        let stop = world.disk.operations() + cuts;
        world.disk.stop_at(stop);
        // Whatever fails here fails because the power is gone.
        let _ = victim.run_due().and_then(|_| victim.deliver_due());
        world.clock.advance(MINUTE);
        let _ = victim.deliver_due();
        let over = world.disk.operations() < stop;

        let crashed = world.disk.crash(Survivors::Synced);
        let world = World::on(crashed, world.clock.clone());
        let survivor = runner(&world, &receiver, &[HOOK]);
        survivor.run_due().unwrap();
        for _ in 0..3 {
            survivor.deliver_due().unwrap();
            world.clock.advance(20 * MINUTE);
        }
        let key = survivor.statuses().unwrap()[0].sync.clone();
        let reports = world.store.runs(&key).unwrap();
        let delivered: BTreeMap<u64, String> = receiver.runs(HOOK).into_iter().collect();
        assert!(
            reports
                .iter()
                .any(|report| report.status == RunStatus::Succeeded)
        );
        for report in reports {
            let status = serde_json::to_value(report.status).unwrap();
            let told = delivered.get(&report.run).map(String::as_str);
            assert_eq!(told, status.as_str(), "run {} after {cuts}", report.run);
        }
        if over {
            break;
        }
        cuts += 1;
    }
    assert!(cuts > 10, "{cuts}");
}
