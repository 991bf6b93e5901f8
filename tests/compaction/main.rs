//! What compaction must never do: lose a record, bring one back, move one, hold up or disturb a
//! reader. Each test here is a way in which it might (G1, G5, G6, G10, G12, G17).
//!
//! * [`world`]: stores to compact, and what they show
//! * [`stuck`]: a disk that refuses, and lets somebody in between two reads
//! * [`rebuilding`]: what a store without its catalog needs
//! * [`disturbing`]: readers, and whoever closes the store meanwhile
//! * [`pages`]: pages before and after
//! * [`failing`]: failed operations and full disks
//! * [`damaged`]: damage to what is compacted, and to packs
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, unreachable_pub)]

mod damaged;
mod disturbing;
mod failing;
#[path = "../support/hooked.rs"]
mod hooked;
mod pages;
mod rebuilding;
mod stuck;
mod world;
