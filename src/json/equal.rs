//! Whether two texts denote the same value.

use super::JsonError;
use super::number;
use super::scan::{Malformed, Scalar, Scanner, document};
use super::tree::{Kind, Member, Node, live, members};

/// Whether two JSON texts denote the same value, top-level fields named in `ignored` left out on
/// both sides.
///
/// The order of keys, whitespace and the spelling of numbers and strings do not matter; of
/// repeated keys the last one counts; numbers are compared exactly.
///
/// The top level is split into the spellings of its fields; only fields that are spelt
/// differently are looked into.
pub(crate) fn same_value(a: &[u8], b: &[u8], ignored: &[String]) -> Result<bool, JsonError> {
    let first = document(a, |scanner| Top::read(scanner, ignored))?;
    if a == b {
        return Ok(true);
    }
    let second = document(b, |scanner| Top::read(scanner, ignored))?;
    match (first, second) {
        (Top::Object(a), Top::Object(b)) => same_fields(&a, &b),
        (Top::Other(a), Top::Other(b)) => same_text(a, b),
        _ => Ok(false),
    }
}

/// A text's top level.
enum Top<'a> {
    /// The members that are not ignored, with their values' spelling.
    Object(Vec<Member<'a, &'a str>>),
    /// A value that is not an object, as spelt.
    Other(&'a str),
}

impl<'a> Top<'a> {
    fn read(scanner: &mut Scanner<'a>, ignored: &[String]) -> Result<Self, Malformed> {
        if scanner.peek() != Some(b'{') {
            return scanner.spelling().map(Self::Other);
        }
        let mut members = members(scanner, Scanner::spelling)?;
        members.retain(|member| !ignored.iter().any(|name| *name == member.key));
        Ok(Self::Object(members))
    }
}

fn same_fields(a: &[Member<'_, &str>], b: &[Member<'_, &str>]) -> Result<bool, JsonError> {
    let in_step = a
        .iter()
        .zip(b)
        .all(|(a, b)| a.key == b.key && a.value == b.value);
    if in_step && a.len() == b.len() {
        return Ok(true);
    }
    let (a, b) = (live(a), live(b));
    if !same_keys(&a, &b) {
        return Ok(false);
    }
    for (a, b) in a.iter().zip(&b) {
        if !same_text(a.value, b.value)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn same_text(a: &str, b: &str) -> Result<bool, JsonError> {
    Ok(a == b || same(&Node::parse(a.as_bytes())?, &Node::parse(b.as_bytes())?))
}

fn same_keys<V>(a: &[&Member<'_, V>], b: &[&Member<'_, V>]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.key == b.key)
}

fn same(a: &Node<'_>, b: &Node<'_>) -> bool {
    if a.text == b.text {
        return true;
    }
    match (&a.kind, &b.kind) {
        (Kind::Scalar(a), Kind::Scalar(b)) => same_scalar(*a, *b),
        (Kind::Array(a), Kind::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (Kind::Object(a), Kind::Object(b)) => same_members(a, b),
        _ => false,
    }
}

/// Compares scalars whose texts differ.
fn same_scalar(a: Scalar<'_>, b: Scalar<'_>) -> bool {
    match (a, b) {
        (Scalar::Number(a), Scalar::Number(b)) => number::same(a, b),
        (Scalar::String(a), Scalar::String(b)) => {
            (a.escaped || b.escaped) && a.decode() == b.decode()
        }
        _ => false,
    }
}

fn same_members<'a>(a: &[Member<'a, Node<'a>>], b: &[Member<'a, Node<'a>>]) -> bool {
    let (a, b) = (live(a), live(b));
    same_keys(&a, &b) && a.iter().zip(&b).all(|(a, b)| same(&a.value, &b.value))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::respell::{Dice, Model, change, nearly_json, object, spell, value};
    use super::*;

    fn compare(a: &str, b: &str, ignored: &[&str]) -> Option<bool> {
        let ignored: Vec<_> = ignored.iter().map(|&name| name.to_owned()).collect();
        let both =
            [(a, b), (b, a)].map(|(a, b)| same_value(a.as_bytes(), b.as_bytes(), &ignored).ok());
        assert_eq!(both[0], both[1], "{a} {b}");
        both[0]
    }

    #[test]
    fn values() {
        let table = [
            (r#"{"a":1,"b":2}"#, r#" { "b" : 2 , "a" : 1 } "#, true),
            (r#"{"a":1}"#, r#"{"a":1.0}"#, true),
            (r#"{"a":-0}"#, r#"{"a":0e9}"#, true),
            (
                r#"{"a":9007199254740993}"#,
                r#"{"a":9007199254740992}"#,
                false,
            ),
            (r#"{"a":1e400}"#, r#"{"a":10e399}"#, true),
            (r#"{"a":1e400}"#, r#"{"a":1e401}"#, false),
            (r#"{"a":[1,2]}"#, r#"{"a":[2,1]}"#, false),
            (r#"{"a":[1,2]}"#, r#"{"a":[1]}"#, false),
            (r#"{"a":[1,2]}"#, r#"{"a":[ 1.0 , 2 ]}"#, true),
            (r#"{"a":[]}"#, r#"{"a":{}}"#, false),
            (r#"{"a":[]}"#, r#"{"a":[ ]}"#, true),
            (r#"{"a":null}"#, r#"{}"#, false),
            (r#"{"a":"1"}"#, r#"{"a":1}"#, false),
            (r#"{"a":"1.0"}"#, r#"{"a":"1"}"#, false),
            (r#"{"a":true}"#, r#"{"a":false}"#, false),
            (r#"{"a":null}"#, r#"{"a":false}"#, false),
            (r#"{"\u0041":"\u0041"}"#, r#"{"A":"A"}"#, true),
            (r#"{"a":"\ud83d\ude00\/"}"#, r#"{"a":"😀/"}"#, true),
            (r#"{"a":"é"}"#, r#"{"a":"e\u0301"}"#, false),
            (
                r#"{"a":{"b":{"c":1,"d":2}}}"#,
                r#"{"a":{"b":{"d":2,"c":1}}}"#,
                true,
            ),
            (r#"{"a":1,"a":2}"#, r#"{"a":2}"#, true),
            (r#"{"a":1,"a":2}"#, r#"{"a":2,"a":1}"#, false),
            (r#"{"a":1,"a":2}"#, r#"{"a":3,"a":2}"#, true),
            (r#"{"a":1,"b":0,"\u0061":2}"#, r#"{"b":0,"a":2}"#, true),
            (r#"{"x":{"a":1,"a":2}}"#, r#"{"x":{"a":2}}"#, true),
            (r#"{"__proto__":1}"#, r#"{"__proto__":2}"#, false),
            ("1", "1.0", true),
            ("[]", "{}", false),
            ("\"a\"", "\"\\u0061\"", true),
        ];
        for (a, b, expected) in table {
            assert_eq!(compare(a, b, &[]), Some(expected), "{a} {b}");
            assert_eq!(compare(a, a, &[]), Some(true), "{a}");
        }
    }

    #[test]
    fn ignored_fields() {
        assert_eq!(
            compare(r#"{"a":1,"t":1}"#, r#"{"a":1,"t":2}"#, &["t"]),
            Some(true)
        );
        assert_eq!(
            compare(r#"{"a":1,"t":1}"#, r#"{"a":1}"#, &["t", "u"]),
            Some(true)
        );
        assert_eq!(
            compare(r#"{"u":{},"a":1,"\u0074":1}"#, r#"{"a":1}"#, &["t", "u"]),
            Some(true)
        );
        assert_eq!(
            compare(r#"{"t":1,"t":2,"a":1}"#, r#"{"a":1}"#, &["t"]),
            Some(true)
        );
        assert_eq!(
            compare(r#"{"a":1,"t":1}"#, r#"{"a":2,"t":1}"#, &["t"]),
            Some(false)
        );
        assert_eq!(
            compare(r#"{"a":{"t":1}}"#, r#"{"a":{"t":2}}"#, &["t"]),
            Some(false)
        );
        assert_eq!(compare(r#"[{"t":1}]"#, r#"[{"t":2}]"#, &["t"]), Some(false));
        assert_eq!(compare(r#"{"t":1}"#, r#"{"t":[2]}"#, &["t"]), Some(true));
    }

    #[test]
    fn both_texts_are_checked() {
        for bad in ["", "{", r#"{"t":}"#, r#"{"t":"\ud800"}"#] {
            assert_eq!(compare(bad, "{}", &["t"]), None, "{bad}");
            assert_eq!(compare(bad, bad, &["t"]), None, "{bad}");
        }
    }

    #[test]
    fn large_objects_take_no_quadratic_time() {
        let key = |at: usize| format!("\"k{at}\":{at}");
        let forwards: Vec<_> = (0..50_000).map(key).collect();
        let backwards: Vec<_> = (0..50_000).rev().map(key).collect();
        let texts = [forwards, backwards].map(|keys| format!("{{{}}}", keys.join(",")));
        assert_eq!(compare(&texts[0], &texts[1], &[]), Some(true));
        let deep = |leaf: &str| format!("{}{leaf}{}", r#"{"a":"#.repeat(127), "}".repeat(127));
        assert_eq!(compare(&deep("1"), &deep("1.0"), &[]), Some(true));
        assert_eq!(compare(&deep("1"), &deep("2"), &[]), Some(false));
    }

    proptest! {
        #[test]
        fn spelling_does_not_matter(value in value(), one: u64, other: u64) {
            let (a, b) = (spell(&value, &mut Dice(one)), spell(&value, &mut Dice(other)));
            prop_assert_eq!(compare(&a, &b, &[]), Some(true), "{} {}", a, b);
        }

        #[test]
        fn one_leaf_matters(value in value(), one: u64, other: u64) {
            let mut changed = value.clone();
            change(&mut changed, &mut Dice(other));
            let (a, b) = (spell(&value, &mut Dice(one)), spell(&changed, &mut Dice(other)));
            prop_assert_eq!(compare(&a, &b, &[]), Some(false), "{} {}", a, b);
        }

        #[test]
        fn an_ignored_leaf_does_not_matter(mut value in object(), leaf in value(), seed: u64) {
            let mut dice = Dice(seed);
            if let Model::Object(members) = &mut value {
                members.retain(|(key, _)| key != "at");
            }
            let mut stamped = value.clone();
            if let Model::Object(members) = &mut stamped {
                members.push(("at".to_owned(), leaf));
            }
            let (a, b) = (spell(&value, &mut dice), spell(&stamped, &mut dice));
            prop_assert_eq!(compare(&a, &b, &["at"]), Some(true), "{} {}", a, b);
            prop_assert_eq!(compare(&a, &b, &[]), Some(false), "{} {}", a, b);
        }

        #[test]
        fn never_panics(a in nearly_json(), b in nearly_json()) {
            let valid = [&a, &b].map(|text| document(text, Scanner::skip));
            let same = same_value(&a, &b, &["id".to_owned()]);
            prop_assert_eq!(same.is_ok(), valid.iter().all(Result::is_ok));
            prop_assert_eq!(same_value(&a, &a, &[]), document(&a, Scanner::skip).map(|()| true));
        }
    }
}
