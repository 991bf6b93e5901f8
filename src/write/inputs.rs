//! Inputs of writes: ids and payloads from raw bytes, JSON text, and typed values. Everything that
//! can be wrong with a record by itself is found here, before a lock is taken.

use std::borrow::Cow;
use std::ops::Range;

use serde::Serialize;

use crate::error::{Error, RecordError, Result};
use crate::intrinsics::prefetch;
use crate::json;

/// The longest id, in bytes.
const ID_MAX: usize = 255;
/// The field of a JSON record that holds its id.
pub(crate) const ID_FIELD: &str = "id";

/// So many records ahead memory is fetched: about what there is time for until they are looked at.
const AHEAD: usize = 16;

/// One record of a batch, borrowed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Input<'a> {
    pub(crate) id: &'a str,
    pub(crate) body: &'a [u8],
}

/// Checks an id: 1 to 255 bytes without NUL.
pub(crate) fn check_id(id: &str) -> Result<(), RecordError> {
    if id.is_empty() || id.len() > ID_MAX {
        return Err(RecordError::IdLength { given: id.len() });
    }
    // Without an early exit this is a few vector instructions.
    let has_nul = id.bytes().fold(false, |nul, byte| nul | (byte == 0));
    if has_nul {
        Err(RecordError::IdHasNul)
    } else {
        Ok(())
    }
}

fn check_size(body: &[u8], max: usize) -> Result<(), RecordError> {
    if body.len() > max {
        return Err(RecordError::TooLarge {
            given: body.len(),
            max,
        });
    }
    Ok(())
}

/// Borrows raw records.
pub(crate) fn raw<'a, I, B>(records: &'a [(I, B)], payload_max: usize) -> Result<Vec<Input<'a>>>
where
    I: AsRef<str>,
    B: AsRef<[u8]>,
{
    let mut inputs = Vec::with_capacity(records.len());
    let fetch = |(id, body): &'a (I, B)| {
        prefetch(id.as_ref().as_bytes());
        prefetch(body.as_ref());
    };
    records.iter().take(AHEAD).for_each(fetch);
    for (index, (id, body)) in records.iter().enumerate() {
        if let Some(record) = records.get(index + AHEAD) {
            fetch(record);
        }
        let input = Input {
            id: id.as_ref(),
            body: body.as_ref(),
        };
        check_id(input.id)
            .and_then(|()| check_size(input.body, payload_max))
            .map_err(|reason| Error::InvalidRecord { index, reason })?;
        inputs.push(input);
    }
    Ok(inputs)
}

/// Borrows ids of records to delete.
pub(crate) fn ids<I: AsRef<str>>(ids: &[I]) -> Result<Vec<Input<'_>>> {
    let mut inputs = Vec::with_capacity(ids.len());
    for (index, id) in ids.iter().enumerate() {
        let id = id.as_ref();
        check_id(id).map_err(|reason| Error::InvalidRecord { index, reason })?;
        inputs.push(Input { id, body: &[] });
    }
    Ok(inputs)
}

/// Typed records as JSON text, back to back in one buffer.
#[derive(Default)]
pub(crate) struct JsonText {
    text: Vec<u8>,
    records: Vec<Range<usize>>,
}

impl JsonText {
    /// Serializes typed records.
    pub(crate) fn new<T: Serialize>(records: &[T]) -> Result<Self> {
        let mut all = Self {
            text: Vec::new(),
            records: Vec::with_capacity(records.len()),
        };
        for (index, record) in records.iter().enumerate() {
            let start = all.text.len();
            serde_json::to_writer(&mut all.text, record)
                .map_err(|source| Error::Serialize { index, source })?;
            all.records.push(start..all.text.len());
        }
        Ok(all)
    }

    fn bodies(&self) -> impl Iterator<Item = &[u8]> {
        self.records
            .iter()
            .map(|range| self.text.get(range.clone()).unwrap_or_default())
    }

    /// Checks that every record is a JSON object with an id, and returns the ids.
    pub(crate) fn ids(&self, payload_max: usize) -> Result<Vec<Cow<'_, str>>> {
        let id = |(index, body)| {
            take_id(body, payload_max).map_err(|reason| Error::InvalidRecord { index, reason })
        };
        self.bodies().enumerate().map(id).collect()
    }

    /// The records with the ids that [`JsonText::ids`] found.
    pub(crate) fn inputs<'a>(&'a self, ids: &'a [Cow<'a, str>]) -> Vec<Input<'a>> {
        ids.iter()
            .zip(self.bodies())
            .map(|(id, body)| Input { id, body })
            .collect()
    }
}

fn take_id(body: &[u8], payload_max: usize) -> Result<Cow<'_, str>, RecordError> {
    check_size(body, payload_max)?;
    let id = json::record_id(body, ID_FIELD)?;
    check_id(&id)?;
    Ok(id)
}
