//! The engine against a model: a plain `BTreeMap` per feed that says what the contract's tables
//! say, and nothing about logs, indexes or disks.
//!
//! * [`reference`](mod@reference): the model
//! * [`checker`]: what the engine shows, compared with the model
//! * [`reader`]: a consumer that stands in a feed
//! * [`gate`]: a disk whose syncs can be held up
//! * [`driver`]: one engine on a simulated disk, the model beside it, and standing readers
//! * [`operations`]: what else the driver can do: runs, windows, letting go, replacing
//! * [`step`]: one operation of a history
//! * [`simulation`]: histories from a seed, with every fault of the disk in them, and proof that the
//!   checks can fail
//! * [`histories`]: random histories, with crashes, reopens and clock jumps in them (P1, P2, P5)
//! * [`cursors`]: each cursor guarantee of the contract as a test of its own (G4, G5)
//! * [`resync`]: saves in every order, against the trail (P5)
//! * [`trap`]: the visibility trap, and proof that the test for it can fail (P3)
//! * [`crash_points`]: a crash at every write and sync of a scripted history (G1, G2, G3)
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::type_complexity,
    missing_docs,
    unreachable_pub
)]

mod checker;
mod crash_points;
mod cursors;
mod driver;
mod gate;
mod histories;
mod operations;
mod reader;
mod reference;
mod resync;
mod simulation;
mod step;
mod trap;
