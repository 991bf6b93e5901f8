//! The engine against a model: a plain `BTreeMap` per feed that says what the contract's tables
//! say, and nothing about logs, indexes or disks.
//!
//! * [`reference`](mod@reference): the model
//! * [`checker`]: what the engine shows, compared with the model
//! * [`reader`]: a consumer that stands in a feed
//! * [`gate`]: a disk that holds whoever is at it up
//! * [`driver`]: one engine on a simulated disk, the model beside it, and standing readers
//! * [`operations`]: what else the driver can do: runs, windows, letting go, replacing
//! * [`step`]: one operation of a history
//! * [`simulation`]: histories from a seed, with every fault of the disk in them, and proof that the
//!   checks can fail
//! * [`histories`]: random histories, with crashes, reopens and clock jumps in them (P1, P2, P5)
//! * [`cursors`]: each cursor guarantee of the contract as a test of its own (G4, G5)
//! * [`resync`]: saves in every order, against the trail (P5)
//! * [`trap`]: the visibility trap, and proof that the test for it can fail (P3)
//! * [`scripts`]: scripted histories, one for each kind of operation
//! * [`crash_points`]: a crash at every operation of each script (G1, G2, G3)
//! * [`io_errors`]: an error at every call of each script (G11, G12)
//! * [`table`]: counts of both
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::type_complexity,
    missing_docs,
    unreachable_pub
)]

mod answers;
mod checker;
mod crash_points;
mod cursors;
mod driver;
mod gate;
mod histories;
#[path = "../support/hooked.rs"]
mod hooked;
mod io_errors;
mod operations;
mod reader;
mod recovering;
mod reference;
mod resync;
mod scripts;
mod simulation;
mod step;
mod table;
mod trap;
mod writing;
