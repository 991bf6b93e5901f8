//! What the engine shows, compared with the model.

use std::collections::BTreeMap;

use highwater::{
    Action, Error, Feed, List, Order, Outcome, OwnedRecord, Record, Result, RunStatus, Store,
};
use serde_json::Value;

use crate::driver::{NAMES, SYNCS, sync_key};
use crate::reference::{
    Model, ModelFeed, ModelRecord, OUTCOMES, Payload, RESTORED, Report, Status, UPDATED, Write,
};

/// Numbers in the generated documents are small integers, in one of two spellings.
fn normalized(value: Value) -> Value {
    match value {
        Value::Number(number) => Value::from(number.as_f64().unwrap() as i64),
        Value::Array(items) => items.into_iter().map(normalized).collect(),
        Value::Object(fields) => Value::Object(
            fields
                .into_iter()
                .map(|(key, v)| (key, normalized(v)))
                .collect(),
        ),
        other => other,
    }
}

pub fn same_payload(found: &[u8], expected: &Payload) -> bool {
    match expected {
        Payload::Raw(bytes) => found == bytes,
        Payload::Json(doc) => {
            let value: Value = serde_json::from_slice(found).unwrap();
            normalized(value) == normalized(Value::Object(doc.0.clone()))
        }
    }
}

/// The outcomes are those of the model, but for one: of a pruned JSON record there is nothing to
/// compare the value with, so in other bytes it counts as another one.
pub fn check_outcomes(write: &Write, found: &[Outcome], expected: &[Outcome]) {
    assert_eq!(found.len(), expected.len());
    for (at, (found, expected)) in found.iter().zip(expected).enumerate() {
        let json = matches!(write, Write::SaveJson(_));
        let spelt = json && *expected == Outcome::Restored && *found == Outcome::Updated;
        assert!(
            found == expected || spelt,
            "{found:?}, not {expected:?}, for input {at} of {write:?}"
        );
    }
}

/// Whether the feed's named consumer is where the model says.
fn consumer_agrees(feed: &Feed, expected: &ModelFeed) -> Result<bool> {
    let consumers = feed.consumers()?;
    let (Some(found), Some((epoch, _))) = (consumers.first(), expected.consumer) else {
        return Ok(consumers.is_empty() && expected.consumer.is_none());
    };
    let is_stale = match feed.list(&List::new().after(found.cursor).limit(1)) {
        Err(Error::StaleCursor { .. }) => true,
        page => page.map(|_| false)?,
    };
    Ok(Some(found.lag) == expected.lag() && is_stale == (epoch != expected.epoch))
}

/// Whether a feed shows the records of the model, in its order, and its consumer is where it says.
pub fn feed_agrees(feed: &Feed, expected: &ModelFeed) -> Result<bool> {
    let found: Vec<OwnedRecord> = feed.records(None).collect::<Result<_>>()?;
    let records = expected.in_order();
    Ok(found.len() == records.len()
        && consumer_agrees(feed, expected)?
        && found.iter().zip(records).all(|(found, (id, expected))| {
            found.id == *id
                && found.last_action == expected.action
                && found.last_modified_at.as_micros() == expected.modified
                && found.pruned_at.map(|moment| moment.as_micros()) == expected.pruned
                && found
                    .payload
                    .as_deref()
                    .is_none_or(|found| same_payload(found, &expected.payload))
        }))
}

/// Whether checkpoints and run reports are those of the model. `loosely` says that restored records
/// may count as updated ones; see [`check_outcomes`].
pub fn syncs_agree(store: &Store, model: &Model, loosely: bool) -> Result<bool> {
    let checkpoint = |value: Option<u64>| value.map(|at| format!("{{\"at\":{at}}}"));
    let counts = |mut report: Report| {
        for counts in report.values_mut().filter(|_| loosely) {
            counts[UPDATED] += std::mem::take(&mut counts[RESTORED]);
        }
        report
    };
    for (sync, name) in SYNCS.iter().enumerate() {
        let found = store.checkpoint("c", name, "")?;
        let found = found.map(|found| String::from_utf8(found.json).unwrap());
        let reports = store.runs(&sync_key(sync))?;
        let no_runs = Vec::new();
        let runs = model.runs.get(&sync).unwrap_or(&no_runs);
        let mut pairs = reports.iter().rev().zip(runs);
        let agree = found == checkpoint(model.checkpoints.get(&sync).copied())
            && reports.len() == runs.len()
            && pairs.all(|(found, expected)| {
                status_of(found.status) == expected.status
                    && found.checkpoint_from == checkpoint(expected.from)
                    && found.checkpoint_to == checkpoint(expected.to)
                    && counts(report_of(&found.models)) == counts(expected.report.clone())
            });
        if !agree {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The model's word for a run's status.
pub fn status_of(status: RunStatus) -> Status {
    match status {
        RunStatus::Running => Status::Running,
        RunStatus::Succeeded => Status::Succeeded,
        RunStatus::Failed => Status::Failed,
        RunStatus::Interrupted => Status::Interrupted,
    }
}

fn report_of(models: &BTreeMap<String, highwater::Totals>) -> Report {
    let counts = |totals: &highwater::Totals| {
        OUTCOMES.map(|outcome| match outcome {
            Outcome::Added => totals.added,
            Outcome::Updated => totals.updated,
            Outcome::Deleted => totals.deleted,
            Outcome::Unchanged => totals.unchanged,
            Outcome::Duplicate => totals.duplicate,
            Outcome::NotFound => totals.not_found,
            Outcome::Restored => totals.restored,
            Outcome::Skipped => totals.skipped,
            _ => totals.pruned,
        })
    };
    let number = |model: &String| NAMES.iter().position(|(_, name, _)| name == model);
    let models = models.iter();
    models
        .map(|(model, totals)| (number(model).unwrap(), counts(totals)))
        .collect()
}

fn check_record(found: Record<'_>, id: &str, expected: &ModelRecord) {
    assert_eq!(found.id, id);
    assert_eq!(found.last_action, expected.action);
    assert_eq!(found.first_seen_at.as_micros(), expected.first_seen);
    assert_eq!(found.last_modified_at.as_micros(), expected.modified);
    let deleted = (!expected.is_live()).then_some(expected.modified);
    assert_eq!(found.deleted_at.map(|moment| moment.as_micros()), deleted);
    assert_eq!(
        found.pruned_at.map(|moment| moment.as_micros()),
        expected.pruned
    );
    match found.payload {
        Some(payload) => assert!(same_payload(payload, &expected.payload)),
        None => assert!(expected.pruned.is_some(), "{id} lacks its payload"),
    }
}

/// Everything a reader can ask of a feed. Fails as the engine does.
pub fn check_feed(feed: &Feed, expected: &ModelFeed) -> Result<()> {
    let in_order = expected.in_order();
    assert_eq!(feed.count()?, expected.live() as u64);
    assert_eq!(
        feed.stats()?.deleted,
        (in_order.len() - expected.live()) as u64
    );
    let all = feed.list(&List::new().limit(10_000))?;
    assert_eq!(all.len(), in_order.len());
    assert!(!all.has_more());
    let mut size = 0;
    for (found, (id, record)) in all.iter().zip(&in_order) {
        check_record(found, id, record);
        size += match found.payload {
            Some(payload) if record.is_live() => payload.len() as u64,
            _ => 0,
        };
    }
    assert_eq!(feed.size()?, size);
    assert!(consumer_agrees(feed, expected)?, "the named consumer moves");
    assert_eq!(feed.first_cursor()?, all.get(0).map(|record| record.cursor));
    let last = all.iter().next_back().map(|record| record.cursor);
    assert_eq!(feed.last_cursor()?, last);

    let ids: Vec<&String> = in_order.iter().map(|(id, _)| *id).collect();
    let got = feed.get(&ids)?;
    assert_eq!(got.len(), ids.len());
    for (found, (id, record)) in got.iter().zip(&in_order) {
        check_record(found, id, record);
    }
    let back = feed.list(&List::new().limit(10_000).order(Order::Descending))?;
    assert!(
        back.iter().rev().eq(all.iter()),
        "descending is ascending, reversed"
    );
    for filter in [Action::Added | Action::Deleted, Action::Updated.into()] {
        let page = feed.list(&List::new().limit(10_000).filter(filter))?;
        let expected = all
            .iter()
            .filter(|record| filter.contains(record.last_action));
        assert!(page.iter().eq(expected));
    }
    if let Some(middle) = all.get(all.len() / 2) {
        let moment = middle.last_modified_at;
        let page = feed.list(&List::new().limit(10_000).modified_after(moment))?;
        let expected = all.iter().filter(|r| r.last_modified_at > moment);
        assert!(page.iter().eq(expected));
        let some = [middle.id, "never saved"];
        let page = feed.list(&List::new().ids(some).metadata_only(true))?;
        assert_eq!(
            page.iter().map(|r| (r.id, r.payload)).collect::<Vec<_>>(),
            [(middle.id, None)]
        );
    }
    Ok(())
}
