//! The background threads of a store. One syncs in relaxed durability, keeps the catalog close
//! behind the log, and maintains the store if asked to; one merges runs of indexes, and one compacts,
//! so that none need wait for another. Closing the store stops them.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, select};

use crate::compaction::{Due, compact_if_due};
use crate::engine::Engine;
use crate::feed::state::FeedState;
use crate::options::Durability;
use crate::retention::maintain::maintain;

/// How often the threads look at the log when there is nothing to sync.
const IDLE_INTERVAL: Duration = Duration::from_millis(200);
/// How often feeds that nobody uses are let go of, besides when the catalog is saved.
const FORGET_INTERVAL: Duration = Duration::from_secs(10);
/// The size of segments until compaction has looked at the store.
const SEGMENT_FIRST: u64 = 4 << 20;

/// The running threads; dropping it stops and joins them.
#[derive(Debug)]
pub(crate) struct Background {
    stop: Option<Sender<()>>,
    threads: Vec<JoinHandle<()>>,
}

impl Background {
    pub(crate) fn start(engine: &Arc<Engine>) -> io::Result<Self> {
        let (stop, stopped) = bounded::<()>(0);
        let mut background = Self {
            stop: Some(stop),
            threads: Vec::new(),
        };
        let interval = match engine.options.durability {
            Durability::Durable => IDLE_INTERVAL,
            Durability::Relaxed { interval } => interval.max(Duration::from_millis(1)),
        };
        let keep_up = {
            let engine = engine.clone();
            let mut maintained = Instant::now();
            let mut forgotten = Instant::now();
            move |_| {
                keep_up(&engine);
                if forgotten.elapsed() >= FORGET_INTERVAL {
                    engine.forget_idle(&engine.catalog.lock());
                    forgotten = Instant::now();
                }
                if let Some((retention, every)) = &engine.options.maintenance
                    && maintained.elapsed() >= *every
                {
                    // What fails now is tried again the next time.
                    let _ = maintain(&engine, retention);
                    maintained = Instant::now();
                }
            }
        };
        let nudged = engine.log.nudged();
        background.spawn("highwater", interval, stopped.clone(), nudged, keep_up)?;
        let tidy = {
            let engine = engine.clone();
            let mut tidied = Instant::now();
            move |unmerged: Option<Arc<FeedState>>| {
                if let Some(feed) = unmerged {
                    engine.maintain_behind(&feed);
                }
                if tidied.elapsed() >= IDLE_INTERVAL {
                    // A failure is met again by whoever needs the run, who is told.
                    let _ = engine.tidy_indexes(false);
                    tidied = Instant::now();
                }
            }
        };
        let (stop_of, unmerged) = (stopped.clone(), engine.unmerged.1.clone());
        background.spawn("highwater-index", IDLE_INTERVAL, stop_of, unmerged, tidy)?;
        if engine.options.compaction {
            let engine = engine.clone();
            // Until it is known how much is needed: what is dead in the open segment stays.
            let least = engine.options.segment_size.min(SEGMENT_FIRST);
            engine.log.set_segment_size(least);
            let rolled = engine.log.rolled();
            let mut due = Due::default();
            // A failure waits for as much again as the last time.
            let clean_up = move |_| drop(compact_if_due(&engine, &mut due));
            let name = "highwater-compact";
            background.spawn(name, IDLE_INTERVAL, stopped, rolled, clean_up)?;
        }
        Ok(background)
    }

    /// Has a thread do `work` whenever it is told something, and after each `interval` without that.
    fn spawn<T: Send + 'static>(
        &mut self,
        name: &str,
        interval: Duration,
        stopped: Receiver<()>,
        told: Receiver<T>,
        mut work: impl FnMut(Option<T>) + Send + 'static,
    ) -> io::Result<()> {
        let run = move || {
            loop {
                select! {
                    // Nothing is ever sent there: it ends with the store.
                    recv(stopped) -> _ => return,
                    recv(told) -> it => work(it.ok()),
                    default(interval) => work(None),
                }
            }
        };
        let thread = std::thread::Builder::new().name(name.to_owned());
        self.threads.push(thread.spawn(run)?);
        Ok(())
    }
}

/// Failures are not reported from here: the log remembers its own, and a catalog that could not
/// be saved is tried again at the next tick, and derived from the log if it comes to that.
fn keep_up(engine: &Engine) {
    let _ = engine.log.flush();
    if engine.catalog_lag() >= engine.options.checkpoint_bytes {
        let _ = engine.save_catalog(false);
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.stop = None;
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
