//! Finding things in a response: values by path in its body, the next link in its headers.

use std::collections::HashMap;

use serde_json::value::RawValue;

/// The value at `path`, which is names of fields with dots between them; the empty path is the
/// whole body. A field whose own name has dots, such as `@odata.nextLink`, is found as well.
pub(super) fn find<'a>(body: &'a [u8], path: &str) -> serde_json::Result<Option<&'a RawValue>> {
    walk(serde_json::from_slice(body)?, path)
}

fn walk<'a>(value: &'a RawValue, path: &str) -> serde_json::Result<Option<&'a RawValue>> {
    if path.is_empty() {
        return Ok(Some(value));
    }
    if !value.get().starts_with('{') {
        return Ok(None);
    }
    let fields: HashMap<String, &RawValue> = serde_json::from_str(value.get())?;
    if let Some(found) = fields.get(path) {
        return Ok(Some(found));
    }
    for (dot, _) in path.match_indices('.') {
        if let Some(field) = fields.get(&path[..dot])
            && let Some(found) = walk(field, &path[dot + 1..])?
        {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// What a field that points to the next page says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Pointer {
    /// There is no next page: the field is missing, null, false or empty.
    End,
    /// Its text, or its number as it was spelt.
    To(String),
    /// Something that points nowhere.
    Nonsense,
}

pub(super) fn pointer(field: Option<&RawValue>) -> Pointer {
    let Some(text) = field.map(RawValue::get) else {
        return Pointer::End;
    };
    match text.as_bytes().first() {
        Some(b'n' | b'f') => Pointer::End,
        Some(b'0'..=b'9' | b'-') => Pointer::To(text.to_owned()),
        Some(b'"') => match serde_json::from_str::<String>(text) {
            Ok(text) if text.is_empty() => Pointer::End,
            Ok(text) => Pointer::To(text),
            Err(_) => Pointer::Nonsense,
        },
        _ => Pointer::Nonsense,
    }
}

/// The target of the first `rel="next"` in a `Link` header.
pub(super) fn next_link(mut header: &str) -> Option<&str> {
    while let Some((_, rest)) = header.split_once('<') {
        let (target, rest) = rest.split_once('>')?;
        let (params, rest) = split_params(rest);
        let rel = params.into_iter().find_map(|param| {
            let (name, value) = param.split_once('=')?;
            let is_rel = name.trim().eq_ignore_ascii_case("rel");
            is_rel.then(|| value.trim().trim_matches('"'))
        });
        let mut relations = rel.unwrap_or("").split_ascii_whitespace();
        if relations.any(|relation| relation.eq_ignore_ascii_case("next")) {
            return Some(target);
        }
        header = rest;
    }
    None
}

/// The parameters of one link, and what comes behind its comma. Quotes protect `;` and `,`.
fn split_params(text: &str) -> (Vec<&str>, &str) {
    let (mut params, mut start, mut quoted) = (Vec::new(), 0, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'"' => quoted = !quoted,
            b';' | b',' if !quoted => {
                params.push(&text[start..at]);
                start = at + 1;
                if byte == b',' {
                    return (params, &text[start..]);
                }
            }
            _ => {}
        }
    }
    params.push(&text[start..]);
    (params, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_by_path() {
        let body =
            br#" {"data": {"items": [1.50], "a.b": {"c": 7}}, "@odata.nextLink": "x", "l": []} "#;
        for (path, value) in [
            ("data.items", Some("[1.50]")),
            ("data.a.b.c", Some("7")),
            ("@odata.nextLink", Some("\"x\"")),
            ("data.none", None),
            ("l.0", None),
            ("data.items.x", None),
            ("none", None),
            (".", None),
        ] {
            let found = find(body, path).expect("JSON");
            assert_eq!(found.map(RawValue::get), value, "{path}");
        }
        assert_eq!(
            find(b"[1]", "").expect("JSON").map(RawValue::get),
            Some("[1]")
        );
        for text in ["", "{", "<html>", "{\"a\":1} x", "\u{fffd}"] {
            assert!(find(text.as_bytes(), "a").is_err(), "{text:?}");
        }
        assert!(find(b"{\"a\": \"\xff\"}", "a").is_err());
    }

    #[test]
    fn pointers() {
        let of = |text: &str| {
            let raw = RawValue::from_string(text.to_owned()).expect("JSON");
            pointer(Some(&raw))
        };
        assert_eq!(pointer(None), Pointer::End);
        for end in ["null", "false", "\"\""] {
            assert_eq!(of(end), Pointer::End, "{end}");
        }
        for (text, to) in [
            ("\"a\\u00e4\"", "a\u{e4}"),
            ("12345678901234567890123", "12345678901234567890123"),
            ("-1.50", "-1.50"),
        ] {
            assert_eq!(of(text), Pointer::To(to.to_owned()), "{text}");
        }
        for nonsense in ["true", "{}", "[1]", "\"\\ud800\""] {
            assert_eq!(of(nonsense), Pointer::Nonsense, "{nonsense}");
        }
    }

    #[test]
    fn the_next_link_of_a_header() {
        for (header, next) in [
            (
                r#"<https://a/?p=2>; rel="next", <https://a/?p=9>; rel="last""#,
                Some("https://a/?p=2"),
            ),
            (
                r#"<https://a/?p=1>; rel="prev", <https://a/?p=3>; rel="next""#,
                Some("https://a/?p=3"),
            ),
            (
                r#"</x,y;z>;title="a, b; rel=next";REL=Next"#,
                Some("/x,y;z"),
            ),
            (r#"<a>; rel="last next""#, Some("a")),
            (r#"<a>;title="<b>; rel=next", <c>; rel="next""#, Some("c")),
            (r#"<a>; rel="nextish", <b>"#, None),
            (r#"<a>; rel="last"; rel="next""#, None),
            ("<a", None),
            ("", None),
            ("<a>;rel", None),
        ] {
            assert_eq!(next_link(header), next, "{header}");
        }
    }
}
