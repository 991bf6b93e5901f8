//! Locks, condition variables and atomics, as all of the engine takes them from here: the usual
//! ones, or, under `--cfg highwater_shuttle`, those of a checker that chooses which thread goes on at each
//! of them. `shuttle/` explores the engine's interleavings with it.

#[cfg(highwater_shuttle)]
mod checked;

#[cfg(highwater_shuttle)]
pub(crate) use self::checked::{Condvar, Instant, Mutex, MutexGuard, RwLock, atomic, yield_now};

#[cfg(not(highwater_shuttle))]
pub(crate) use parking_lot::{Condvar, Mutex, MutexGuard, RwLock};
#[cfg(not(highwater_shuttle))]
pub(crate) use std::{sync::atomic, thread::yield_now, time::Instant};
