//! Operations on whole stores: backing up, restoring, verifying, repairing, and reading what older
//! versions wrote.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod backup;
mod backup_crashes;
mod command;
mod formats;
#[path = "../support/hooked.rs"]
mod hooked;
mod repair;
mod repair_crashes;
mod repair_losses;
mod verify;
mod world;
