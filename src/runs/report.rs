//! What is told of a run.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use serde_json::value::RawValue;

use crate::codec::{Decoder, Encoder};
use crate::engine::Engine;
use crate::error::Result;
use crate::feed::{BASE_VARIANT, check_name};
use crate::log::format::SyncId;
use crate::record::{Timestamp, Totals};
use crate::state::StateKey;

/// What a run has done, by model.
pub(crate) type Models = BTreeMap<String, Totals>;

/// What names a sync: connection, name, and an optional variant. Always compared as a whole.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize)]
#[non_exhaustive]
pub struct SyncKey {
    /// Whose data it fetches.
    pub connection: String,
    /// What the sync is called.
    pub name: String,
    /// The variant of the feeds it fills; `base` stands for none.
    pub variant: String,
}

impl SyncKey {
    /// A key; an empty variant is `base`.
    ///
    /// # Errors
    /// [`Error::InvalidName`](crate::Error::InvalidName) when a name is empty, longer than 255
    /// bytes, or has a NUL byte.
    pub fn new(connection: &str, name: &str, variant: &str) -> Result<Self> {
        check_name("connection", connection)?;
        check_name("sync", name)?;
        let variant = if variant.is_empty() {
            BASE_VARIANT
        } else {
            variant
        };
        check_name("variant", variant)?;
        let [connection, name, variant] = [connection, name, variant].map(str::to_owned);
        Ok(Self {
            connection,
            name,
            variant,
        })
    }

    pub(crate) fn id(&self, engine: &Engine) -> SyncId {
        let name = StateKey::sync(&self.connection, &self.name, &self.variant);
        // 0 is no sync.
        SyncId(engine.hasher.id(name.as_bytes()).head() | 1)
    }

    pub(crate) fn state_key(&self) -> StateKey {
        StateKey::sync(&self.connection, &self.name, &self.variant)
    }

    pub(crate) fn runs_key(&self) -> StateKey {
        StateKey::runs(&self.connection, &self.name, &self.variant)
    }

    pub(crate) fn checkpoint_key(&self) -> StateKey {
        StateKey::checkpoint(&self.connection, &self.name, &self.variant)
    }

    /// The sync that a run's key belongs to.
    pub(crate) fn of_run_key(key: &StateKey) -> Option<Self> {
        let mut fields = Decoder::new(key.as_bytes());
        fields.u8()?;
        Some(Self {
            connection: fields.string()?,
            name: fields.string()?,
            variant: fields.string()?,
        })
    }
}

impl fmt::Display for SyncKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.connection, self.name)?;
        if self.variant == BASE_VARIANT {
            Ok(())
        } else {
            write!(f, "/{}", self.variant)
        }
    }
}

/// How a run stands.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RunStatus {
    /// It is going on.
    Running,
    /// It got to its end.
    Succeeded,
    /// It gave up with an error.
    Failed,
    /// It was told to stop, another run took over, or the process ended.
    Interrupted,
}

/// What a run did, made of the same commits as its data: a change that is in the feed is in the
/// report, and the other way round. Serializes to what a webhook posts.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[non_exhaustive]
pub struct RunReport {
    /// Which sync.
    pub sync: SyncKey,
    /// The run's number.
    pub run: u64,
    /// How it stands, or ended.
    pub status: RunStatus,
    /// What happened to the records, by model. While the run is going on, saves that changed
    /// nothing are counted with the next commit that has something to write.
    pub models: BTreeMap<String, Totals>,
    /// The sync's checkpoint when the run began, as JSON text.
    #[serde(serialize_with = "as_json")]
    pub checkpoint_from: Option<String>,
    /// The sync's checkpoint when the run ended, as JSON text.
    #[serde(serialize_with = "as_json")]
    pub checkpoint_to: Option<String>,
    /// When the run began.
    pub started: Timestamp,
    /// When it ended; `None` while it is going on.
    pub ended: Option<Timestamp>,
    /// Why it failed or was interrupted.
    pub error: Option<String>,
}

fn as_json<S: serde::Serializer>(text: &Option<String>, serializer: S) -> Result<S::Ok, S::Error> {
    let raw = text.as_deref().map(serde_json::from_str::<&RawValue>);
    raw.transpose()
        .map_err(serde::ser::Error::custom)?
        .serialize(serializer)
}

const COUNTS: usize = 9;

fn counts(totals: &Totals) -> [u64; COUNTS] {
    [
        totals.added,
        totals.updated,
        totals.deleted,
        totals.unchanged,
        totals.duplicate,
        totals.not_found,
        totals.restored,
        totals.skipped,
        totals.pruned,
    ]
}

pub(crate) fn encode_models(encoder: Encoder, models: &Models) -> Encoder {
    let encoder = encoder.u32(models.len() as u32);
    models.iter().fold(encoder, |encoder, (model, totals)| {
        let encoder = encoder.bytes(model.as_bytes());
        counts(totals).into_iter().fold(encoder, Encoder::u64)
    })
}

pub(crate) fn take_models(fields: &mut Decoder<'_>) -> Option<Models> {
    let mut models = Models::new();
    for _ in 0..fields.u32()? {
        let model = fields.string()?;
        let totals = Totals {
            added: fields.u64()?,
            updated: fields.u64()?,
            deleted: fields.u64()?,
            unchanged: fields.u64()?,
            duplicate: fields.u64()?,
            not_found: fields.u64()?,
            restored: fields.u64()?,
            skipped: fields.u64()?,
            pruned: fields.u64()?,
        };
        models.insert(model, totals);
    }
    Some(models)
}

/// Reads a tally.
pub(crate) fn decode_models(bytes: &[u8]) -> Option<Models> {
    let mut fields = Decoder::new(bytes);
    let models = take_models(&mut fields)?;
    fields.is_empty().then_some(models)
}
