//! The contract, row by row: a scripted history for each row of its tables and for each thing that
//! it marks as changed or new.
//!
//! * [`world`]: a store on a simulated disk with a clock that is set by hand
//! * [`writes`]: the tables of saves, deletes and updates, and merging
//! * [`windows`]: deletion detection
//! * [`letting_go`]: prune, hard delete, purge, retention
//! * [`replacing`]: replacing a feed
//! * [`reads`]: pages, filters, actions relative to the reader
//! * [`runs`]: checkpoints, runs, fencing, reports
//! * [`consumers`]: named consumers, subscriptions
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, unreachable_pub)]

mod consumers;
mod letting_go;
mod reads;
mod replacing;
mod runs;
mod windows;
mod world;
mod writes;
