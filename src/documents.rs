//! Checkpoints of syncs and metadata of connections: small JSON objects in the store's state.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::value::RawValue;

use crate::error::{Error, RecordError, Result};
use crate::feed::check_name;
use crate::json;
use crate::state::{CheckpointRow, StateKey};

/// The largest checkpoint, and the largest connection metadata, in bytes of JSON.
const DOCUMENT_MAX: usize = 64 << 10;

/// Where a sync got to: a JSON object with a version.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Checkpoint {
    /// The JSON text, as it was saved.
    pub json: Vec<u8>,
    /// Rises with every save and clear, and never comes back.
    pub version: u64,
}

/// What a save or clear expects to find, so that two syncs cannot overwrite each other's progress.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Expected {
    /// Anything.
    #[default]
    Any,
    /// No checkpoint.
    Absent,
    /// A checkpoint of this version.
    Version(u64),
}

pub(crate) fn checkpoint_key(connection: &str, sync: &str, variant: &str) -> Result<StateKey> {
    check_name("connection", connection)?;
    check_name("sync", sync)?;
    let variant = if variant.is_empty() { "base" } else { variant };
    check_name("variant", variant)?;
    Ok(StateKey::checkpoint(connection, sync, variant))
}

pub(crate) fn metadata_key(connection: &str) -> Result<StateKey> {
    check_name("connection", connection)?;
    Ok(StateKey::metadata(connection))
}

/// Serializes a checkpoint and checks that it is an object of an allowed size.
pub(crate) fn checkpoint_json<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    object("checkpoint", value)
}

/// Serializes connection metadata and checks that it is an object of an allowed size.
pub(crate) fn metadata_json<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    object("connection metadata", value)
}

fn object<T: Serialize>(what: &'static str, value: &T) -> Result<Vec<u8>> {
    let invalid = |reason| Error::InvalidDocument { what, reason };
    let json = serde_json::to_vec(value).map_err(|error| {
        invalid(RecordError::Syntax {
            message: error.to_string(),
        })
    })?;
    json::check_object(&json).map_err(|error| invalid(error.into()))?;
    check_document_size(what, &json)?;
    Ok(json)
}

fn check_document_size(what: &'static str, json: &[u8]) -> Result<()> {
    if json.len() > DOCUMENT_MAX {
        let reason = RecordError::TooLarge {
            given: json.len(),
            max: DOCUMENT_MAX,
        };
        return Err(Error::InvalidDocument { what, reason });
    }
    Ok(())
}

/// The checkpoint in a state value.
pub(crate) fn read_checkpoint(value: Option<Vec<u8>>) -> Option<Checkpoint> {
    let row = CheckpointRow::decode(&value?)?;
    row.json.map(|json| Checkpoint {
        json,
        version: row.version,
    })
}

/// Saving (`Some`) or clearing a checkpoint, as a change of its state value.
pub(crate) fn checkpoint_change(
    json: Option<&[u8]>,
    expected: Expected,
) -> impl Fn(Option<Vec<u8>>) -> Result<Option<Vec<u8>>> {
    move |value| {
        let row = value.as_deref().and_then(CheckpointRow::decode);
        let found = row
            .as_ref()
            .filter(|row| row.json.is_some())
            .map(|row| row.version);
        let fits = match expected {
            Expected::Any => true,
            Expected::Absent => found.is_none(),
            Expected::Version(version) => found == Some(version),
        };
        if json.is_none() && found.is_none() {
            // Clearing what is not there has what it wants.
            return Ok(None);
        }
        if !fits {
            return Err(Error::CheckpointConflict { found });
        }
        let version = row.map_or(1, |row| row.version + 1);
        Ok(Some(
            CheckpointRow {
                version,
                json: json.map(<[u8]>::to_vec),
            }
            .encode(),
        ))
    }
}

/// A shallow merge of `partial` into connection metadata, as a change of its state value.
pub(crate) fn metadata_merge(
    partial: &[u8],
) -> impl Fn(Option<Vec<u8>>) -> Result<Option<Vec<u8>>> {
    const WHAT: &str = "connection metadata";
    type Fields = BTreeMap<String, Box<RawValue>>;
    let syntax = |error: serde_json::Error| Error::InvalidDocument {
        what: WHAT,
        reason: RecordError::Syntax {
            message: error.to_string(),
        },
    };
    move |value| {
        let stored = value.unwrap_or_else(|| b"{}".to_vec());
        let mut fields: Fields = serde_json::from_slice(&stored).map_err(syntax)?;
        fields.extend(serde_json::from_slice::<Fields>(partial).map_err(syntax)?);
        let merged = serde_json::to_vec(&fields).map_err(syntax)?;
        check_document_size(WHAT, &merged)?;
        Ok(Some(merged))
    }
}

/// Documents of other parts of this crate, such as schedules: JSON under a name of several parts.
#[cfg(feature = "sync")]
pub(crate) mod internal {
    use serde::Serialize;
    use serde::de::DeserializeOwned;

    use crate::engine::Engine;
    use crate::error::Result;
    use crate::log::format::Author;
    use crate::state::StateKey;
    use crate::write::transaction::transact;

    /// All documents whose names begin with these parts, in the order of their names.
    pub(crate) fn all<T: DeserializeOwned>(engine: &Engine, name: &[&str]) -> Result<Vec<T>> {
        engine.check_not_closed()?;
        engine.make_all_visible();
        let known = engine.state.with_prefix(&StateKey::document(name));
        let values = known.into_iter().map(|(_, value)| value);
        Ok(values
            .filter_map(|value| serde_json::from_slice(&value).ok())
            .collect())
    }

    /// Puts a document, durably; `None` removes it.
    pub(crate) fn put<T: Serialize>(
        engine: &Engine,
        name: &[&str],
        value: Option<&T>,
    ) -> Result<()> {
        // Made of plain fields, so that writing it as JSON cannot fail.
        let value = value.and_then(|value| serde_json::to_vec(value).ok());
        transact(engine, &[], Author::default(), |transaction| {
            let key = StateKey::document(name);
            match &value {
                Some(value) => transaction.put(key, value.clone()),
                None => transaction.remove(key),
            }
            Ok(())
        })
    }
}
