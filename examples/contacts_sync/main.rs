//! The contacts sync known from integration platforms: fetched page by page from a provider,
//! incremental by `updated_after` from the checkpoint, filtered by a region from the connection's
//! metadata, with a checkpoint after every page; run hourly, consumed by cursor after its report
//! arrives, and written back through an action that updates provider and cache.
//!
//! `cargo run --example contacts_sync --features http`
//!
//! The provider is a small HTTP server that this program starts. Nothing here waits for an hour:
//! the second run is triggered.
#![allow(missing_docs, reason = "an example is read, not linked")]

mod provider;

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use highwater::sync::{
    DefaultClient, Frequency, HttpClient, HttpRequest, Method, Pages, Pagination, RetryPolicy,
    Retrying, Runner, RunnerOptions, Style, SyncContext, SyncError, SyncFunction, ThreadSleep,
    Trigger,
};
use highwater::{Event, RunStatus, Store, Subscription};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::provider::Provider;

type Client = Arc<Retrying<DefaultClient>>;

/// Where the sync is: what it fetched up to, and how far the newest record reaches.
#[derive(Serialize, Deserialize, Default)]
struct Checkpoint {
    updated_after: u64,
    newest: u64,
    cursor: highwater::sync::Position,
}

struct Contacts {
    base: String,
    client: Client,
}

impl SyncFunction for Contacts {
    fn name(&self) -> &str {
        "contacts"
    }

    fn description(&self) -> &str {
        "Copies the contacts of the connection's region"
    }

    fn models(&self) -> Vec<&str> {
        vec!["Contact"]
    }

    fn frequency(&self) -> Frequency {
        "every hour".parse().unwrap_or(Frequency::MIN)
    }

    fn exec(&self, context: &mut SyncContext) -> Result<(), SyncError> {
        let metadata: Value = context.metadata()?.unwrap_or_default();
        let region = metadata["region"].as_str().unwrap_or("eu").to_owned();
        let mut at: Checkpoint = context.checkpoint()?.unwrap_or_default();
        let request = HttpRequest::get(format!(
            "{}/contacts?limit=100&region={region}&updated_after={}",
            self.base, at.updated_after
        ));
        let style = Style::Cursor {
            path: "next_cursor".to_owned(),
            param: "cursor".to_owned(),
        };
        // Where an interrupted run was, this one goes on.
        let pages = Pages::new(
            self.client.clone(),
            request,
            Pagination::new(style, "contacts"),
        );
        for page in pages.resume(std::mem::take(&mut at.cursor))? {
            let page = page?;
            for record in &page.records {
                let record: Value = serde_json::from_str(record.get())?;
                at.newest = at.newest.max(record["updated"].as_u64().unwrap_or(0));
            }
            at.cursor = page.next;
            // The records and how far they go, in one commit.
            let _ = context.save_with_checkpoint("Contact", &page.records, &at)?;
        }
        let newest = at.newest;
        context.save_checkpoint(&Checkpoint {
            updated_after: newest,
            newest,
            ..Checkpoint::default()
        })
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let provider = Provider::start(250)?;
    let dir = std::env::temp_dir().join(format!("highwater-contacts-{}", std::process::id()));
    let store = Store::open(&dir)?;
    store.set_connection_metadata("acme", &json!({"region": "eu"}))?;
    let events = store.subscribe()?;

    let clock = Arc::new(highwater::storage::SystemClock);
    let client = Arc::new(Retrying::new(
        DefaultClient::new(),
        RetryPolicy::default(),
        ThreadSleep,
        clock,
    ));
    let runner = Runner::new(&store, RunnerOptions::new().workers(1))?;
    runner.register(Arc::new(Contacts {
        base: provider.url(),
        client: client.clone(),
    }))?;
    let sync = runner.schedule("acme", "", "contacts", None)?;

    // An app reads the changes when a report says that there are some.
    let contacts = store.feed("acme", "Contact")?;
    let app = contacts.consumer("crm-app")?;
    let first = await_report(&events)?;
    println!("first run: {first:?}");
    assert_eq!(
        first.0, 250,
        "the provider's third page refuses once, and is asked again"
    );
    println!("the app sees {} changes", consume(&app)?);

    // Somebody edits two contacts at the provider; the next run fetches what is newer.
    provider.edit(7, "Ada");
    provider.edit(8, "Bob");
    runner.trigger(&sync, Trigger::new())?;
    let second = await_report(&events)?;
    println!("second run: {second:?}");
    assert_eq!(second, (0, 2));
    assert_eq!(consume(&app)?, 2);

    // An action writes to the provider and, when that has accepted it, to the cache, so that the
    // app need not wait for the next run, which then finds nothing new.
    let body = serde_json::to_vec(&json!({"name": "Grace"}))?;
    let request = HttpRequest::new(Method::Put, format!("{}/contacts/9", provider.url()));
    let response = client.send(&request.body(body))?;
    let saved: Value = serde_json::from_slice(&response.body)?;
    let applied = contacts.batch_save(&[saved])?;
    assert_eq!(applied.totals.updated, 1);
    assert_eq!(consume(&app)?, 1);
    runner.trigger(&sync, Trigger::new())?;
    let third = await_report(&events)?;
    assert_eq!(third, (0, 0), "what the action wrote comes back unchanged");
    println!("after the action, the next run finds nothing new");

    runner.shutdown();
    store.close()?;
    Ok(std::fs::remove_dir_all(dir)?)
}

/// Waits for the next run's report; how many contacts it added and updated.
fn await_report(events: &Subscription) -> Result<(u64, u64), Box<dyn Error>> {
    loop {
        match events.next_timeout(Duration::from_secs(30)) {
            Some(Event::Run(report)) if report.status == RunStatus::Succeeded => {
                let totals = report.models.get("Contact").copied().unwrap_or_default();
                return Ok((totals.added, totals.updated));
            }
            Some(Event::Run(report)) => return Err(format!("the run failed: {report:?}").into()),
            Some(_) => {}
            None => return Err("no report arrived".into()),
        }
    }
}

/// Reads what is new to a consumer, page by page, and acknowledges it; how much that was.
fn consume(app: &highwater::Consumer) -> highwater::Result<usize> {
    let mut seen = 0;
    loop {
        let page = app.list(highwater::List::new().limit(100))?;
        seen += page.len();
        app.acknowledge(page.resume_cursor())?;
        if !page.has_more() {
            return Ok(seen);
        }
    }
}
