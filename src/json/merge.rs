//! Merging a partial record into a stored one.

use super::JsonError;
use super::tree::{Member, Node, find, live};

/// Deep merge of a partial object into a stored one. Returns the merged text.
///
/// Objects merge into objects; anything else replaces what is there, `null` included, which is
/// kept as a value. Fields the partial does not have stay, as they are spelt. Stored fields come
/// first, then new ones, each in the order of their text; a repeated key counts where it is last.
pub(crate) fn merge(stored: &[u8], partial: &[u8]) -> Result<Vec<u8>, JsonError> {
    let (stored, partial) = (Node::parse(stored)?, Node::parse(partial)?);
    if stored.members().is_none() || partial.members().is_none() {
        return Err(JsonError::NotAnObject);
    }
    let mut out = Vec::with_capacity(stored.text.len() + partial.text.len());
    write_merged(&mut out, &stored, &partial);
    Ok(out)
}

fn write_merged(out: &mut Vec<u8>, stored: &Node<'_>, partial: &Node<'_>) {
    match (stored.members(), partial.members()) {
        (Some(_), Some([])) => out.extend_from_slice(stored.text.as_bytes()),
        (Some(stored), Some(partial)) => write_object(out, stored, partial),
        _ => out.extend_from_slice(partial.text.as_bytes()),
    }
}

fn write_object(
    out: &mut Vec<u8>,
    stored: &[Member<'_, Node<'_>>],
    partial: &[Member<'_, Node<'_>>],
) {
    let (live_stored, live_partial) = (live(stored), live(partial));
    let mut separator = b'{';
    for member in stored {
        if !find(&live_stored, &member.key).is_some_and(|live| std::ptr::eq(live, member)) {
            continue;
        }
        write_key(out, &mut separator, member);
        match find(&live_partial, &member.key) {
            Some(change) => write_merged(out, &member.value, &change.value),
            None => out.extend_from_slice(member.value.text.as_bytes()),
        }
    }
    for member in partial {
        let live = find(&live_partial, &member.key);
        if live.is_some_and(|live| std::ptr::eq(live, member))
            && find(&live_stored, &member.key).is_none()
        {
            write_key(out, &mut separator, member);
            out.extend_from_slice(member.value.text.as_bytes());
        }
    }
    out.push(b'}');
}

/// Writes what comes before a value; `separator` is a brace before the first.
fn write_key(out: &mut Vec<u8>, separator: &mut u8, member: &Member<'_, Node<'_>>) {
    out.extend_from_slice(&[std::mem::replace(separator, b','), b'"']);
    out.extend_from_slice(member.spelt.as_bytes());
    out.extend_from_slice(b"\":");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::super::respell::{Dice, nearly_json, object, spell};
    use super::super::{check_object, same_value};
    use super::*;

    #[test]
    fn merges() {
        let table = [
            (r#"{"a":1}"#, r#"{"b":2}"#, r#"{"a":1,"b":2}"#),
            (r#"{}"#, r#"{"b":2}"#, r#"{"b":2}"#),
            (r#"{"a":1}"#, r#"{"a":2}"#, r#"{"a":2}"#),
            (r#"{"a":1.10,"b":1}"#, r#"{"b":2}"#, r#"{"a":1.10,"b":2}"#),
            (
                r#"{"a":12345678901234567890.0,"b":1}"#,
                r#"{"b":2}"#,
                r#"{"a":12345678901234567890.0,"b":2}"#,
            ),
            (
                r#"{"a":{"x" : [ 1 ]},"b":1}"#,
                r#"{"b":2}"#,
                r#"{"a":{"x" : [ 1 ]},"b":2}"#,
            ),
            (
                r#"{"a":{"x":1,"y":2}}"#,
                r#"{"a":{"y":3,"z":4}}"#,
                r#"{"a":{"x":1,"y":3,"z":4}}"#,
            ),
            (
                r#"{"a":{"x":{"p":1}}}"#,
                r#"{"a":{"x":{"q":2}}}"#,
                r#"{"a":{"x":{"p":1,"q":2}}}"#,
            ),
            (r#"{"a":[1,2]}"#, r#"{"a":[3]}"#, r#"{"a":[3]}"#),
            (
                r#"{"a":[{"x":1}]}"#,
                r#"{"a":[{"y":1}]}"#,
                r#"{"a":[{"y":1}]}"#,
            ),
            (r#"{"a":{"x":1}}"#, r#"{"a":null}"#, r#"{"a":null}"#),
            (
                r#"{"a":null}"#,
                r#"{"a":{"x":null}}"#,
                r#"{"a":{"x":null}}"#,
            ),
            (r#"{"a":1}"#, r#"{"a":{}}"#, r#"{"a":{}}"#),
            (r#"{"a":{ "x":1 }}"#, r#"{"a":{}}"#, r#"{"a":{ "x":1 }}"#),
            (r#"{"id":1}"#, r#"{"id":"2"}"#, r#"{"id":"2"}"#),
            (
                r#"{"c":1,"a":2,"b":3}"#,
                r#"{"z":0,"b":4,"y":0}"#,
                r#"{"c":1,"a":2,"b":4,"z":0,"y":0}"#,
            ),
            (
                r#"{"__proto__":{"a":1}}"#,
                r#"{"__proto__":{"b":2},"constructor":{"prototype":1}}"#,
                r#"{"__proto__":{"a":1,"b":2},"constructor":{"prototype":1}}"#,
            ),
            (r#"{"\u0061":1}"#, r#"{"a":2}"#, r#"{"\u0061":2}"#),
            (
                r#"{"a":1,"b":0,"a":{"x":1}}"#,
                r#"{"a":{"y":1}}"#,
                r#"{"b":0,"a":{"x":1,"y":1}}"#,
            ),
            (
                r#"{"a":{"x":1}}"#,
                r#"{"a":{"y":1},"a":{"z":1}}"#,
                r#"{"a":{"x":1,"z":1}}"#,
            ),
            (r#"{}"#, r#"{"n":1,"n":2}"#, r#"{"n":2}"#),
            (" { \"a\" : 1 } ", " {} ", "{ \"a\" : 1 }"),
            (
                " { \"a\" : 1e400 } ",
                " {\"b\" : \"\\u0041\"} ",
                r#"{"a":1e400,"b":"\u0041"}"#,
            ),
        ];
        for (stored, partial, expected) in table {
            let merged = merge(stored.as_bytes(), partial.as_bytes());
            let merged = merged.map(|text| String::from_utf8_lossy(&text).into_owned());
            assert_eq!(merged.as_deref(), Ok(expected), "{stored} {partial}");
        }
    }

    #[test]
    fn refusals() {
        assert_eq!(merge(b"[]", b"{}"), Err(JsonError::NotAnObject));
        assert_eq!(merge(b"{}", b"null"), Err(JsonError::NotAnObject));
        assert!(matches!(merge(b"{", b"{}"), Err(JsonError::Syntax { .. })));
        assert!(matches!(
            merge(b"{}", b"{}}"),
            Err(JsonError::Syntax { .. })
        ));
    }

    fn reference(stored: &mut Value, partial: Value) {
        match (stored, partial) {
            (Value::Object(stored), Value::Object(partial)) => {
                for (key, value) in partial {
                    match stored.get_mut(&key) {
                        Some(old) => reference(old, value),
                        None => drop(stored.insert(key, value)),
                    }
                }
            }
            (stored, partial) => *stored = partial,
        }
    }

    proptest! {
        #[test]
        fn agrees_with_serde_json(stored in object(), partial in object(), seed: u64) {
            let mut dice = Dice(seed);
            let (stored, partial) = (spell(&stored, &mut dice), spell(&partial, &mut dice));
            let merged = merge(stored.as_bytes(), partial.as_bytes()).expect("objects");
            let mut expected: Value = serde_json::from_str(&stored).expect("valid");
            reference(&mut expected, serde_json::from_str(&partial).expect("valid"));
            prop_assert_eq!(serde_json::from_slice::<Value>(&merged).expect("valid"), expected);
            let again = merge(&merged, partial.as_bytes()).expect("objects");
            prop_assert_eq!(same_value(&again, &merged, &[]), Ok(true));
        }

        #[test]
        fn nothing_and_itself_change_nothing(stored in object(), seed: u64) {
            let text = spell(&stored, &mut Dice(seed));
            let merged = merge(text.as_bytes(), b"{}").expect("objects");
            prop_assert_eq!(&*merged, text.trim().as_bytes());
            let merged = merge(text.as_bytes(), text.as_bytes()).expect("objects");
            prop_assert_eq!(same_value(&merged, text.as_bytes(), &[]), Ok(true));
        }

        #[test]
        fn never_panics(stored in nearly_json(), partial in nearly_json()) {
            let valid = check_object(&stored).is_ok() && check_object(&partial).is_ok();
            let merged = merge(&stored, &partial);
            prop_assert_eq!(merged.is_ok(), valid);
            prop_assert!(merged.map_or(true, |text| check_object(&text).is_ok()));
        }
    }
}
