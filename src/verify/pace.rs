//! Reading no faster than asked to.

use std::time::{Duration, Instant};

use crate::engine::Engine;
use crate::error::Result;

/// So far ahead of its pace reading may get before it waits.
const AHEAD_MAX: Duration = Duration::from_millis(20);

/// See the module.
pub(crate) struct Pace {
    bytes_per_second: Option<u64>,
    begun: Instant,
    bytes: u64,
}

impl Pace {
    pub(crate) fn new(bytes_per_second: Option<u64>) -> Self {
        Self {
            bytes_per_second: bytes_per_second.filter(|rate| *rate > 0),
            begun: Instant::now(),
            bytes: 0,
        }
    }

    /// Takes note of bytes that were read, and waits if that was too fast.
    ///
    /// # Errors
    /// [`Error::Closed`](crate::Error::Closed) when the store was closed meanwhile.
    pub(crate) fn spend(&mut self, engine: &Engine, bytes: u64) -> Result<()> {
        engine.check_not_closed()?;
        self.bytes += bytes;
        let Some(rate) = self.bytes_per_second else {
            return Ok(());
        };
        let due = Duration::from_secs_f64(self.bytes as f64 / rate as f64);
        let ahead = due.saturating_sub(self.begun.elapsed());
        if ahead > AHEAD_MAX {
            engine.closing.wait(ahead);
        }
        engine.check_not_closed()
    }
}
