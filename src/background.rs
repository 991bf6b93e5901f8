//! The background thread of a store: syncs in relaxed durability, keeps the catalog close behind
//! the log, and maintains the store if asked to. Closing the store stops it.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{RecvTimeoutError, Sender, bounded};

use crate::engine::Engine;
use crate::options::Durability;
use crate::retention::maintain::maintain;

/// How often the thread looks at the log in durable mode, where it has only the catalog to mind.
const IDLE_INTERVAL: Duration = Duration::from_millis(200);

/// The running thread; dropping it stops and joins the thread.
#[derive(Debug)]
pub(crate) struct Background {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Background {
    pub(crate) fn start(engine: &Arc<Engine>) -> std::io::Result<Self> {
        let (stop, stopped) = bounded::<()>(0);
        let interval = match engine.options.durability {
            Durability::Durable => IDLE_INTERVAL,
            Durability::Relaxed { interval } => interval.max(Duration::from_millis(1)),
        };
        let engine = engine.clone();
        let run = move || {
            let mut maintained = Instant::now();
            while stopped.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
                tick(&engine);
                if let Some((retention, every)) = &engine.options.maintenance
                    && maintained.elapsed() >= *every
                {
                    // What fails now is tried again the next time.
                    let _ = maintain(&engine, retention);
                    maintained = Instant::now();
                }
            }
        };
        let thread = std::thread::Builder::new()
            .name("highwater".to_owned())
            .spawn(run)?;
        Ok(Self {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

/// Failures are not reported from here: the log remembers its own, and a catalog that could not
/// be saved is tried again at the next tick, and derived from the log if it comes to that.
fn tick(engine: &Engine) {
    let _ = engine.log.flush();
    if engine.catalog_lag() >= engine.options.checkpoint_bytes {
        let _ = engine.save_catalog(false);
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
