//! Schedules as they are kept in the store, and when they are due.

use serde::{Deserialize, Serialize};

use super::frequency::Frequency;
use crate::documents::internal;
use crate::error::Result;
use crate::record::Timestamp;
use crate::runs::SyncKey;
use crate::store::Store;

/// The first part of the documents' names.
const DOCUMENT: &str = "schedule";

/// How a run that is asked for differs from one that is due.
///
/// ```
/// use highwater::sync::Trigger;
/// let full = Trigger::new().reset(true);
/// let anew = Trigger::new().reset(true).empty_cache(true);
/// # let _ = (full, anew);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, Debug)]
#[must_use = "a trigger does nothing until it is handed to the runner"]
pub struct Trigger {
    pub(super) reset: bool,
    pub(super) empty_cache: bool,
}

impl Trigger {
    /// A run like any other.
    pub fn new() -> Self {
        Self::default()
    }

    /// Clears the checkpoint and deletion windows first, so that everything is fetched again. The
    /// cached records stay, so that only true changes appear in the feed.
    pub fn reset(mut self, reset: bool) -> Self {
        self.reset = reset;
        self
    }

    /// Fills the cache anew. What is fetched takes the place of the old records when the run
    /// succeeds; until then, and if it does not, they stay. Only together with
    /// [`reset`](Self::reset): a run that goes on from a checkpoint brings only a part of them.
    pub fn empty_cache(mut self, empty_cache: bool) -> Self {
        self.empty_cache = empty_cache;
        self
    }
}

/// What is kept of a schedule.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub(super) struct Schedule {
    connection: String,
    name: String,
    variant: String,
    /// Instead of the function's.
    #[serde(with = "as_text")]
    pub(super) frequency: Option<Frequency>,
    /// When it was created, in microseconds: where the grid begins.
    anchor: u64,
    pub(super) paused: bool,
    /// The moment at which the newest tick that was done, or is being done, was found to be due.
    last_started: Option<u64>,
    /// The one before it, which counts again when its run is interrupted.
    started_before: Option<u64>,
    /// Whether that tick is being done.
    in_run: bool,
    /// A run that was asked for and has not ended.
    pub(super) requested: Option<Trigger>,
    /// The newest run whose report was handed to the webhooks.
    pub(super) reported: u64,
}

impl Schedule {
    pub(super) fn new(sync: &SyncKey, created: Timestamp, paused: bool, reported: u64) -> Self {
        Self {
            connection: sync.connection.clone(),
            name: sync.name.clone(),
            variant: sync.variant.clone(),
            frequency: None,
            anchor: created.as_micros(),
            paused,
            last_started: None,
            started_before: None,
            in_run: false,
            requested: None,
            reported,
        }
    }

    /// When it is to run next, on its own or because it was asked to; `None` while it is paused.
    pub(super) fn next_due(&self, default: Frequency, now: Timestamp) -> Option<Timestamp> {
        if self.requested.is_some() {
            return Some(now);
        }
        let anchor = Timestamp::from_micros(self.anchor);
        let last_started = self.last_started.map(Timestamp::from_micros);
        let frequency = self.frequency.unwrap_or(default);
        (!self.paused).then(|| frequency.next_due(anchor, last_started, now))
    }

    /// Notes that it was due at `now` and starts.
    pub(super) fn started(&mut self, now: Timestamp) {
        self.started_before = self.last_started.replace(now.as_micros());
        self.in_run = true;
    }

    /// Notes that its run got to an end, good or bad.
    pub(super) fn ended(&mut self) {
        self.in_run = false;
        self.requested = None;
    }

    /// Notes that its run was interrupted: the tick is due again. What was asked for is asked for
    /// again, too, if `repeat` says so.
    pub(super) fn interrupted(&mut self, repeat: bool) {
        self.in_run = false;
        self.last_started = self.started_before;
        if !repeat {
            self.requested = None;
        }
    }

    /// All schedules of a store. None of them runs any more: this is what a new process finds.
    pub(super) fn load_all(store: &Store) -> Result<Vec<(SyncKey, Self)>> {
        let schedules: Vec<Self> = internal::all(&store.engine, &[DOCUMENT])?;
        let keyed = schedules.into_iter().map(|mut schedule| {
            if schedule.in_run {
                schedule.interrupted(true);
            }
            let key = SyncKey::new(&schedule.connection, &schedule.name, &schedule.variant)?;
            Ok((key, schedule))
        });
        keyed.collect()
    }

    pub(super) fn save(&self, store: &Store) -> Result<()> {
        let name = [DOCUMENT, &self.connection, &self.name, &self.variant];
        internal::put(&store.engine, &name, Some(self))
    }

    pub(super) fn remove(store: &Store, sync: &SyncKey) -> Result<()> {
        let name = [DOCUMENT, &sync.connection, &sync.name, &sync.variant];
        internal::put::<Self>(&store.engine, &name, None)
    }
}

/// A frequency as the text that it is read from.
mod as_text {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::sync::Frequency;

    pub(super) fn serialize<S: Serializer>(
        frequency: &Option<Frequency>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        frequency
            .map(|frequency| frequency.to_string())
            .serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Frequency>, D::Error> {
        let text = Option::<String>::deserialize(from)?;
        text.map(|text| text.parse().map_err(D::Error::custom))
            .transpose()
    }
}
