//! Snapshots: all records of a provider at one moment.
//!
//! NDJSON with a field `id`; or one JSON object with a member per record, whose key is the id and
//! whose value is an object, or lines of text: a name, an address and a country, which is how the
//! package `oui-data` has them.

use std::collections::{BTreeMap, HashSet};
use std::io::Read;
use std::path::Path;

use anyhow::{Context, bail};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value};

use crate::input::{self, Lines};

/// The built-in sample; see `data/README.md`.
const SAMPLE: [(&str, &[u8]); 3] = [
    (
        "oui-data 1.0.10 (sample)",
        include_bytes!("../../../../data/oui-1.0.10.ndjson.gz"),
    ),
    (
        "oui-data 1.1.396 (sample)",
        include_bytes!("../../../../data/oui-1.1.396.ndjson.gz"),
    ),
    (
        "oui-data 2.1.9 (sample)",
        include_bytes!("../../../../data/oui-2.1.9.ndjson.gz"),
    ),
];

/// The records of one moment, in the file's order.
pub(super) struct Snapshot {
    pub(super) name: String,
    pub(super) records: Vec<(String, Box<RawValue>)>,
    /// Records whose id came earlier in the file.
    pub(super) repeated: u64,
}

/// The snapshots of the sample, and the middle one again: a provider that takes its newest data
/// back gives the most deletions.
pub(super) fn sample() -> anyhow::Result<Vec<Snapshot>> {
    let [first, middle, last] = SAMPLE;
    let days = [first, middle, last, middle];
    let read = |(name, bytes)| {
        let name = String::from(name);
        Snapshot::read(name, bytes)
    };
    days.into_iter().map(read).collect()
}

impl Snapshot {
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        let input = input::open(path)?;
        let name = path.file_name().map(|name| name.display().to_string());
        let snapshot = Self::read(name.unwrap_or(input.name), input.reader)?;
        input.progress.finish_and_clear();
        Ok(snapshot)
    }

    fn read(name: String, reader: impl Read + 'static) -> anyhow::Result<Self> {
        let mut text = Vec::new();
        let read = input::unzipped(reader).and_then(|mut plain| plain.read_to_end(&mut text));
        read.with_context(|| format!("cannot read {name}"))?;
        let records = records(&text).with_context(|| name.clone())?;
        let mut ids = HashSet::with_capacity(records.len());
        let all = records.len();
        let first = |(id, _): &(String, _)| ids.insert(id.clone());
        let records: Vec<_> = records.into_iter().filter(first).collect();
        let repeated = (all - records.len()) as u64;
        Ok(Self {
            name,
            records,
            repeated,
        })
    }
}

/// NDJSON when the first line is a record, otherwise one object of records.
fn records(text: &[u8]) -> anyhow::Result<Vec<(String, Box<RawValue>)>> {
    let first = text.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let first: Option<Value> = serde_json::from_slice(first).ok();
    if first.is_none_or(|record| record.get("id").is_none()) {
        return members(text);
    }
    let mut lines = Lines::new(text);
    let mut records = Vec::new();
    while let Some((number, line)) = lines.next()? {
        let at = || format!("line {number}");
        let record: &RawValue = serde_json::from_slice(line).with_context(at)?;
        let mut fields: Map<String, Value> = serde_json::from_slice(line).with_context(at)?;
        let id = match fields.remove("id") {
            Some(Value::String(id)) => id,
            Some(Value::Number(id)) if id.is_i64() || id.is_u64() => id.to_string(),
            _ => bail!("line {number}: the id is neither a string nor a whole number"),
        };
        records.push((id, record.to_owned()));
    }
    Ok(records)
}

fn members(text: &[u8]) -> anyhow::Result<Vec<(String, Box<RawValue>)>> {
    let members: BTreeMap<String, Value> =
        serde_json::from_slice(text).context("neither NDJSON with ids nor one JSON object")?;
    let mut records = Vec::with_capacity(members.len());
    for (id, value) in members {
        let record = match value {
            Value::Object(mut fields) => {
                fields.insert("id".to_owned(), Value::from(id.as_str()));
                to_raw_value(&fields)
            }
            Value::String(lines) => to_raw_value(&company(&id, &lines)),
            _ => bail!("the value of {id:?} is neither an object nor text"),
        };
        records.push((id, record?));
    }
    Ok(records)
}

#[derive(Serialize)]
struct Company<'a> {
    id: &'a str,
    name: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    address: Vec<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    country: Option<&'a str>,
}

/// A company from its lines: the first one is its name, the last one of several its country.
fn company<'a>(id: &'a str, lines: &'a str) -> Company<'a> {
    let mut lines = lines.lines();
    let name = lines.next().unwrap_or_default();
    let country = lines.next_back();
    Company {
        id,
        name,
        address: lines.collect(),
        country,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(text: &'static str) -> anyhow::Result<Snapshot> {
        Snapshot::read("test".to_owned(), text.as_bytes())
    }

    #[test]
    fn both_forms_are_understood() {
        let lines = read("{\"id\":1,\"a\":1}\n{\"id\":\"b\"}\n{\"id\":\"1\"}\n").unwrap();
        let ids: Vec<_> = lines.records.iter().map(|(id, _)| id.as_str()).collect();
        assert_eq!((ids, lines.repeated), (vec!["1", "b"], 1));

        let object = read(r#"{"7": {"a": 1}, "8": "Name\nRoad\nTown\nLand", "9": "Name"}"#);
        let texts: Vec<_> = object.unwrap().records;
        let values = texts.iter().map(|(_, text)| text.get());
        let values: Vec<Value> = values.map(|t| serde_json::from_str(t).unwrap()).collect();
        assert_eq!(
            values,
            [
                json!({"id": "7", "a": 1}),
                json!({"id": "8", "name": "Name", "address": ["Road", "Town"], "country": "Land"}),
                json!({"id": "9", "name": "Name"}),
            ]
        );
        assert!(read("[1]").is_err());
        assert!(read(r#"{"a": 1}"#).is_err());
    }

    #[test]
    fn the_sample_is_there() {
        let days = sample().unwrap();
        assert_eq!(days.len(), 4);
        assert!(days.iter().all(|day| day.records.len() > 1000));
    }
}
