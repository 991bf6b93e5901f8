//! Damage to any byte of any file of a closed store, and to any file as a whole: every answer is
//! either exactly right or an error that names the place. Checks G10 and G17, and G18 for the
//! version field.
//!
//! The stores are small and written so that every kind of read depends on every kind of byte: live
//! records next to superseded ones, deletions whose payload lies elsewhere, several segments,
//! packs, runs of indexes, feeds, checkpoints and metadata. Each damage is done to a copy of its
//! own.
//!
//! * [`stores`]: what is damaged
//! * [`examiner`]: every question one can ask, and whether the answers are right
//! * [`bits`]: bits that flip
//! * [`shapes`]: files that are gone, cut, doubled, or somebody else's
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, unreachable_pub)]

mod bits;
mod examiner;
mod shapes;
mod stores;
