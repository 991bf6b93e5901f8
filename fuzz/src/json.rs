//! JSON: what is accepted, what is equal and what a merge gives, beside what serde_json says.

use std::collections::HashMap;

use highwater::fuzzing::{merge_json, same_json};
use serde_json::Value;
use serde_json::value::RawValue;

/// So many digits fit into the exponents of what it is compared with.
const EXPONENT_DIGITS: usize = 36;

/// Two texts, with a zero byte between them.
pub fn json(data: &[u8]) {
    let mut texts = data.splitn(2, |byte| *byte == 0);
    let a = texts.next().unwrap_or_default();
    let b = texts.next().unwrap_or(a);
    if data.iter().filter(|byte| byte.is_ascii_digit()).count() > EXPONENT_DIGITS {
        return;
    }
    let same = same_json(a, b);
    assert_eq!(same, same_json(b, a));
    if let Some(accepted) = accepted(a).zip(accepted(b)) {
        assert_eq!(same.is_some(), accepted == (true, true));
    }
    let Some(same) = same else { return };
    assert_eq!(same_json(a, a), Some(true));
    let [left, right] = [a, b].map(|text| serde_json::from_slice::<&RawValue>(text).unwrap());
    assert_eq!(same, say_the_same(left, right));
    merge(a, b);
}

/// Whether a text is JSON; `None` when it is but has a number that serde_json has no type for.
fn accepted(text: &[u8]) -> Option<bool> {
    match serde_json::from_slice::<Value>(text) {
        Ok(_) => Some(true),
        Err(error) => (!error.to_string().starts_with("number out of range")).then_some(false),
    }
}

/// Of members with the same name the last one counts; numbers are compared exactly.
pub fn say_the_same(a: &RawValue, b: &RawValue) -> bool {
    let kind = |text: &RawValue| text.get().bytes().next().unwrap_or_default();
    match (kind(a), kind(b)) {
        (b'{', b'{') => {
            let [a, b] = [a, b].map(|text| members(text.get()));
            let other = |(name, value): (&String, &&RawValue)| {
                b.get(name).is_some_and(|other| say_the_same(value, other))
            };
            a.len() == b.len() && a.iter().all(other)
        }
        (b'[', b'[') => {
            let [a, b] =
                [a, b].map(|text| serde_json::from_str::<Vec<&RawValue>>(text.get()).unwrap());
            a.len() == b.len() && a.iter().zip(&b).all(|(a, b)| say_the_same(a, b))
        }
        (b'"', b'"') => string(a.get()) == string(b.get()),
        (b'-' | b'0'..=b'9', b'-' | b'0'..=b'9') => decimal(a.get()) == decimal(b.get()),
        _ => a.get() == b.get(),
    }
}

fn members(text: &str) -> HashMap<String, &RawValue> {
    serde_json::from_str(text).unwrap()
}

fn string(text: &str) -> String {
    serde_json::from_str(text).unwrap()
}

/// Sign, digits without zeros at their ends, and the power of ten of the last one.
fn decimal(text: &str) -> (bool, String, i128) {
    let (negative, text) = match text.strip_prefix('-') {
        Some(text) => (true, text),
        None => (false, text),
    };
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let significant = digits.trim_end_matches('0');
    let zeros = (digits.len() - significant.len()) as i128;
    let significant = significant.trim_start_matches('0');
    if significant.is_empty() {
        return (false, String::new(), 0);
    }
    let exponent: i128 = exponent.parse().unwrap();
    let power = exponent - fraction.len() as i128 + zeros;
    (negative, significant.to_owned(), power)
}

/// Objects merge recursively, everything else is replaced.
fn merge(stored: &[u8], partial: &[u8]) {
    fn expected(stored: &mut Value, partial: Value) {
        match (stored, partial) {
            (Value::Object(stored), Value::Object(partial)) => {
                for (name, value) in partial {
                    expected(stored.entry(name).or_insert(Value::Null), value);
                }
            }
            (stored, partial) => *stored = partial,
        }
    }
    let merged = merge_json(stored, partial);
    let [Ok(mut stored), Ok(partial)] = [stored, partial].map(serde_json::from_slice::<Value>)
    else {
        return;
    };
    let objects = stored.is_object() && partial.is_object();
    assert_eq!(merged.is_some(), objects);
    if let Some(merged) = merged {
        expected(&mut stored, partial);
        assert_eq!(serde_json::from_slice::<Value>(&merged).unwrap(), stored);
    }
}
