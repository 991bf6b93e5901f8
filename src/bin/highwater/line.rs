//! A record as a line of NDJSON.

use std::borrow::Cow;
use std::io::Write;

use data_encoding::BASE64;
use highwater::{Action, Cursor, Record, Timestamp};
use serde::Serialize;
use serde_json::value::RawValue;

#[derive(Serialize)]
struct Line<'a> {
    id: &'a str,
    action: Action,
    cursor: Cursor,
    first_seen_at: Timestamp,
    last_modified_at: Timestamp,
    deleted_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pruned_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    record: Option<Payload<'a>>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Payload<'a> {
    Json(&'a RawValue),
    Bytes { bytes_base64: String },
}

/// Writes a record as one line. Its payload is there as it was saved when it is JSON; other
/// payloads are an object with the bytes in base64.
pub(crate) fn write_line(out: &mut dyn Write, record: &Record<'_>) -> anyhow::Result<()> {
    let text = record.payload.map(on_one_line);
    let line = Line {
        id: record.id,
        action: record.last_action,
        cursor: record.cursor,
        first_seen_at: record.first_seen_at,
        last_modified_at: record.last_modified_at,
        deleted_at: record.deleted_at,
        pruned_at: record.pruned_at,
        record: text.as_deref().zip(record.payload).map(payload),
    };
    serde_json::to_writer(&mut *out, &line)?;
    out.write_all(b"\n")?;
    Ok(())
}

fn payload<'a>((text, bytes): (&'a [u8], &[u8])) -> Payload<'a> {
    serde_json::from_slice(text).map_or_else(
        |_| Payload::Bytes {
            bytes_base64: BASE64.encode(bytes),
        },
        Payload::Json,
    )
}

/// In JSON a line break is always white space, so a space says the same and keeps to the line.
fn on_one_line(text: &[u8]) -> Cow<'_, [u8]> {
    let breaks = |byte: &u8| matches!(byte, b'\n' | b'\r');
    if !text.iter().any(breaks) {
        return Cow::Borrowed(text);
    }
    let spaced = text
        .iter()
        .map(|byte| if breaks(byte) { b' ' } else { *byte });
    Cow::Owned(spaced.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use highwater::Store;

    #[test]
    fn every_payload_is_one_line_of_json() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let feed = store.feed("c", "m").unwrap();
        let table: [(&[u8], &str); 4] = [
            (b"{\"n\": 1.50,\r\n \"n\": 2}", "{\"n\": 1.50,   \"n\": 2}"),
            (b"a\nb", r#"{"bytes_base64":"YQpi"}"#),
            (b"\xff", r#"{"bytes_base64":"/w=="}"#),
            (b"", r#"{"bytes_base64":""}"#),
        ];
        for (payload, shown) in table {
            let _ = feed.batch_save_raw(&[("a", payload)]).unwrap();
            let page = feed.get(&["a"]).unwrap();
            let mut out = Vec::new();
            write_line(&mut out, &page.get(0).unwrap()).unwrap();
            let line = String::from_utf8(out).unwrap();
            assert_eq!(line.lines().count(), 1);
            assert!(line.ends_with(&format!("\"record\":{shown}}}\n")), "{line}");
        }
    }
}
