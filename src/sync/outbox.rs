//! Reports that wait to be delivered to webhooks. They are documents in the store, so that they
//! outlive the process.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::context::{LogLevel, LogLine, LogSink};
use super::http::HttpClient;
use super::webhook::{Attempt, DeliveryError, Webhook};
use crate::documents::internal;
use crate::error::Result;
use crate::record::Timestamp;
use crate::runs::{RunReport, SyncKey};
use crate::store::Store;

/// The first part of the documents' names.
const DOCUMENT: &str = "webhook";

/// A report on its way to one URL.
#[derive(Clone, Serialize, Deserialize)]
struct Delivery {
    url: String,
    connection: String,
    name: String,
    variant: String,
    run: u64,
    attempt: Attempt,
    /// The report as JSON, as it was when the run ended.
    body: String,
}

/// What tells deliveries apart. In this order they are attempted: runs in the order they were made.
type Key = (SyncKey, u64, String);

impl Delivery {
    fn key(&self) -> Result<Key> {
        let sync = SyncKey::new(&self.connection, &self.name, &self.variant)?;
        Ok((sync, self.run, self.url.clone()))
    }

    fn put(&self, store: &Store, value: Option<&Self>) -> Result<()> {
        let run = self.run.to_string();
        let name = [
            DOCUMENT,
            &self.connection,
            &self.name,
            &self.variant,
            &run,
            &self.url,
        ];
        internal::put(&store.engine, &name, value)
    }
}

/// See the module.
pub(super) struct Outbox {
    webhooks: Vec<Webhook>,
    client: Option<Arc<dyn HttpClient>>,
    waiting: Mutex<BTreeMap<Key, Delivery>>,
    /// Held while attempts are made, so that none is made twice.
    delivering: Mutex<()>,
}

impl Outbox {
    /// Reads what waits. What is for no webhook of these is dropped.
    pub(super) fn open(
        store: &Store,
        webhooks: Vec<Webhook>,
        client: Option<Arc<dyn HttpClient>>,
    ) -> Result<Self> {
        let mut waiting = BTreeMap::new();
        for delivery in internal::all::<Delivery>(&store.engine, &[DOCUMENT])? {
            if webhooks.iter().any(|webhook| webhook.url() == delivery.url) {
                waiting.insert(delivery.key()?, delivery);
            } else {
                delivery.put(store, None)?;
            }
        }
        Ok(Self {
            webhooks,
            client,
            waiting: Mutex::new(waiting),
            delivering: Mutex::default(),
        })
    }

    /// Whether there are no webhooks, and so never anything to deliver.
    pub(super) fn is_idle(&self) -> bool {
        self.webhooks.is_empty()
    }

    /// Adds a report for every webhook. Adding it again does no harm.
    pub(super) fn add(&self, store: &Store, report: &RunReport, now: Timestamp) -> Result<()> {
        for webhook in &self.webhooks {
            let delivery = Delivery {
                url: webhook.url().to_owned(),
                connection: report.sync.connection.clone(),
                name: report.sync.name.clone(),
                variant: report.sync.variant.clone(),
                run: report.run,
                attempt: Attempt::first(now),
                // Made of plain fields, and of checkpoints that are JSON.
                body: serde_json::to_string(report).unwrap_or_default(),
            };
            delivery.put(store, Some(&delivery))?;
            self.waiting.lock().insert(delivery.key()?, delivery);
        }
        Ok(())
    }

    /// Makes all attempts that are due, until told to stop; returns how many got through.
    pub(super) fn deliver_due(
        &self,
        store: &Store,
        now: &dyn Fn() -> Timestamp,
        stop: &dyn Fn() -> bool,
        log: &LogSink,
    ) -> Result<usize> {
        let Some(client) = &self.client else {
            return Ok(0);
        };
        let _only_here = self.delivering.lock();
        let waiting: Vec<(Key, Delivery)> = {
            let waiting = self.waiting.lock();
            let due = waiting
                .iter()
                .filter(|(_, delivery)| delivery.attempt.is_due(now()));
            due.map(|(key, delivery)| (key.clone(), delivery.clone()))
                .collect()
        };
        let mut delivered = 0;
        // A receiver that is down has to time out once, and not for every report.
        let mut down = BTreeSet::new();
        for (key, mut delivery) in waiting {
            let url = delivery.url.clone();
            let webhook = self.webhooks.iter().find(|webhook| webhook.url() == url);
            let Some(webhook) = webhook else { continue };
            if stop() || down.contains(&url) {
                continue;
            }
            let body = delivery.body.as_bytes();
            match webhook.deliver(client, &delivery.attempt, now(), body) {
                Ok(()) => {
                    delivered += 1;
                    self.remove(store, &key, &delivery)?;
                }
                Err(error) => {
                    let (sync, run, _) = &key;
                    let (level, message) = (LogLevel::Warn, &error.to_string());
                    log(&LogLine {
                        sync,
                        run: *run,
                        level,
                        message,
                    });
                    match error {
                        DeliveryError::Retry { next, .. } => {
                            delivery.attempt = next;
                            delivery.put(store, Some(&delivery))?;
                            self.waiting.lock().insert(key, delivery);
                            down.insert(url);
                        }
                        DeliveryError::GiveUp { .. } => self.remove(store, &key, &delivery)?,
                    }
                }
            }
        }
        Ok(delivered)
    }

    fn remove(&self, store: &Store, key: &Key, delivery: &Delivery) -> Result<()> {
        delivery.put(store, None)?;
        self.waiting.lock().remove(key);
        Ok(())
    }
}
