//! The runner and what it calls: schedules, triggers, failures, restarts, dry runs, webhooks.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod behaviour;
mod grid;
#[cfg(feature = "webhook")]
mod outbox;
mod workers;
mod world;
