//! A record's id, read out of its text.

use std::borrow::Cow;

use super::JsonError;
use super::number::canonical;
use super::scan::{Malformed, Scalar, Scanner, document};

/// The value of top-level field `field` as a record id: a string as it is (unescaped), a number
/// in its canonical decimal form. The last occurrence counts if the key is repeated.
///
/// The whole text is checked, in one pass; ids that need no rewriting are borrowed from it. The
/// id's length is checked only where writing out a number needs a bound.
pub(crate) fn record_id<'a>(text: &'a [u8], field: &str) -> Result<Cow<'a, str>, JsonError> {
    let found = document(text, |scanner| {
        if scanner.peek() != Some(b'{') {
            scanner.skip()?;
            return Ok(Err(JsonError::NotAnObject));
        }
        let mut found = Err(JsonError::MissingId);
        scanner.object(|scanner, key| {
            if key.is(field) {
                found = candidate(scanner)?;
                return Ok(());
            }
            scanner.skip()
        })?;
        Ok(found)
    })?;
    match found? {
        Scalar::String(text) => Ok(text.decode()),
        Scalar::Number(text) => canonical(text).ok_or(JsonError::InvalidId),
        Scalar::Null | Scalar::Bool => Err(JsonError::InvalidId),
    }
}

/// Consumes a value; the inner error is for a value that cannot be an id.
fn candidate<'a>(scanner: &mut Scanner<'a>) -> Result<Result<Scalar<'a>, JsonError>, Malformed> {
    match scanner.peek() {
        Some(b'{' | b'[') => scanner.skip().map(|()| Err(JsonError::InvalidId)),
        _ => scanner.scalar().map(Ok),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::super::respell::{Dice, nearly_json, object, spell};
    use super::*;

    #[test]
    fn ids() {
        let table = [
            (r#"{"id":"a"}"#, Ok("a")),
            (r#" {"x":[{"id":1}],"id" : "a b" } "#, Ok("a b")),
            (r#"{"id":""}"#, Ok("")),
            (r#"{"id":"\u0041\n"}"#, Ok("A\n")),
            (r#"{"\u0069d":"a"}"#, Ok("a")),
            (r#"{"id":7}"#, Ok("7")),
            (r#"{"id":-0.0}"#, Ok("0")),
            (r#"{"id":1.50}"#, Ok("1.5")),
            (r#"{"id":1e3}"#, Ok("1000")),
            (r#"{"id":9007199254740993}"#, Ok("9007199254740993")),
            (r#"{"id":1,"id":"b"}"#, Ok("b")),
            (r#"{"id":null,"id":"b"}"#, Ok("b")),
            (r#"{"id":"b","id":null}"#, Err(JsonError::InvalidId)),
            (r#"{"id":true}"#, Err(JsonError::InvalidId)),
            (r#"{"id":[1]}"#, Err(JsonError::InvalidId)),
            (r#"{"id":{"id":1}}"#, Err(JsonError::InvalidId)),
            (r#"{"id":1e400}"#, Err(JsonError::InvalidId)),
            (r#"{}"#, Err(JsonError::MissingId)),
            (r#"{"ID":1,"x":{"id":1}}"#, Err(JsonError::MissingId)),
            (r#"[{"id":1}]"#, Err(JsonError::NotAnObject)),
            (r#""id""#, Err(JsonError::NotAnObject)),
        ];
        for (text, expected) in table {
            let id = record_id(text.as_bytes(), "id");
            assert_eq!(id, expected.map(Cow::Borrowed), "{text}");
        }
        for text in [
            "",
            "{",
            "[",
            r#"{"id":1"#,
            r#"{"id":1}x"#,
            r#"{"id":"\ud800"}"#,
        ] {
            let id = record_id(text.as_bytes(), "id");
            assert!(matches!(id, Err(JsonError::Syntax { .. })), "{text}");
        }
        assert_eq!(record_id(br#"{"":1}"#, ""), Ok(Cow::Borrowed("1")));
    }

    #[test]
    fn plain_ids_are_borrowed() {
        for text in [r#"{"id":"plain é"}"#, r#"{"id":12}"#] {
            assert!(matches!(
                record_id(text.as_bytes(), "id"),
                Ok(Cow::Borrowed(_))
            ));
        }
    }

    proptest! {
        #[test]
        fn agrees_with_serde_json(object in object(), seed: u64) {
            let text = spell(&object, &mut Dice(seed));
            let id = record_id(text.as_bytes(), "id");
            match &serde_json::from_str::<Value>(&text).expect("valid")["id"] {
                Value::String(expected) => prop_assert_eq!(id, Ok(Cow::Borrowed(&**expected))),
                Value::Number(expected) => {
                    let id = id.expect("a number");
                    // `serde_json` rounds carelessly; `number` is tested for exactness.
                    let (id, expected) = (id.parse::<f64>(), expected.as_f64());
                    let (id, expected) = (id.expect("decimal"), expected.expect("a float"));
                    prop_assert!((id - expected).abs() <= expected.abs() * 1e-15);
                }
                _ => prop_assert!(matches!(id, Err(JsonError::MissingId | JsonError::InvalidId))),
            }
        }

        #[test]
        fn never_panics(text in nearly_json(), bytes: Vec<u8>) {
            for text in [text, bytes] {
                let id = record_id(&text, "id");
                let valid = super::super::check_object(&text);
                match id {
                    Ok(_) | Err(JsonError::MissingId | JsonError::InvalidId) => {
                        prop_assert_eq!(valid, Ok(()));
                    }
                    Err(error) => prop_assert_eq!(valid, Err(error)),
                }
            }
        }
    }
}
