//! Faults of a real file system: full, read-only and vanishing disks, exhausted descriptors, sizes
//! at their limits, panics. Every error says what it is about, nothing acknowledged is lost, and
//! nothing false is returned (G1, G10, G12, G13).
//!
//! What needs a limit or a mount of its own runs in a child process: this program again, with
//! another environment. Where the system forbids it, the test says so and does what it can.
//!
//! * [`child`]: running a part of a test in another process
//! * [`full`]: disks and files that cannot grow
//! * [`forbidden`]: read-only file systems and missing permissions
//! * [`vanishing`]: files deleted under an open store
//! * [`descriptors`]: no file can be opened any more
//! * [`sizes`]: ids, payloads and numbers of feeds at their limits
//! * [`panicking`]: bugs in threads
//! * [`preparing`]: space that is written ahead
#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    missing_docs,
    unreachable_pub
)]

mod child;
mod descriptors;
mod forbidden;
mod full;
#[path = "../support/hooked.rs"]
mod hooked;
mod panicking;
mod preparing;
mod sizes;
mod vanishing;
