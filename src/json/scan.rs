//! The JSON grammar as a validating scanner over a borrowed text.
//!
//! The scanner holds no tree: [`Scanner::object`] and [`Scanner::array`] check the punctuation and
//! hand each member to a closure, which scans the member's value and keeps of it what it needs.

use super::JsonError;
use super::text::Text;

/// How many containers may be open at once; one more is refused, as `serde_json` does.
const MAX_DEPTH: u32 = 127;

/// A value that is neither an array nor an object.
#[derive(Debug, Clone, Copy)]
pub(super) enum Scalar<'a> {
    /// `null`
    Null,
    /// `true` or `false`
    Bool,
    /// A number, as spelt.
    Number(&'a str),
    /// A string literal.
    String(Text<'a>),
}

/// Says that a text is malformed; [`Scanner`] knows how. It has no size, so that the scanner's
/// results are returned in registers.
#[derive(Debug)]
pub(super) struct Malformed;

/// A position in a text that is being checked.
pub(super) struct Scanner<'a> {
    /// The whole text.
    pub(super) text: &'a str,
    /// How many bytes are consumed.
    pub(super) pos: usize,
    depth: u32,
    /// What is wrong at `pos`, once an error was returned.
    fault: &'static str,
}

/// Checks that `text` is exactly one JSON object (whitespace around it allowed).
pub(crate) fn check_object(text: &[u8]) -> Result<(), JsonError> {
    let is_object = document(text, |scanner| {
        let is_object = scanner.peek() == Some(b'{');
        scanner.skip().map(|()| is_object)
    })?;
    if is_object {
        Ok(())
    } else {
        Err(JsonError::NotAnObject)
    }
}

/// Checks that `text` is exactly one JSON value, which `read` scans.
pub(super) fn document<'a, T>(
    text: &'a [u8],
    read: impl FnOnce(&mut Scanner<'a>) -> Result<T, Malformed>,
) -> Result<T, JsonError> {
    let text = std::str::from_utf8(text).map_err(|error| JsonError::Syntax {
        message: format!("invalid UTF-8 at byte {}", error.valid_up_to()),
    })?;
    let mut scanner = Scanner::new(text);
    scanner.space();
    let value = read(&mut scanner).and_then(|value| scanner.end().map(|()| value));
    value.map_err(|Malformed| JsonError::Syntax {
        message: format!("{} at byte {}", scanner.fault, scanner.pos),
    })
}

impl<'a> Scanner<'a> {
    /// A scanner at the start of a text.
    pub(super) fn new(text: &'a str) -> Self {
        Self {
            text,
            pos: 0,
            depth: 0,
            fault: "",
        }
    }

    /// Notes what is wrong with the text at this position.
    #[cold]
    pub(super) fn error(&mut self, fault: &'static str) -> Malformed {
        self.fault = fault;
        Malformed
    }

    /// Checks that nothing but whitespace is left.
    fn end(&mut self) -> Result<(), Malformed> {
        self.space();
        if self.pos < self.text.len() {
            Err(self.error("trailing characters"))
        } else {
            Ok(())
        }
    }

    /// The next byte, not consumed.
    pub(super) fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.pos).copied()
    }

    /// The text consumed since the scanner was at `start`.
    pub(super) fn since(&self, start: usize) -> &'a str {
        &self.text[start..self.pos]
    }

    /// Consumes `byte` if it is next.
    pub(super) fn eat(&mut self, byte: u8) -> bool {
        let next = self.peek() == Some(byte);
        self.pos += usize::from(next);
        next
    }

    fn expect(&mut self, byte: u8, what: &'static str) -> Result<(), Malformed> {
        if self.eat(byte) {
            Ok(())
        } else {
            Err(self.error(what))
        }
    }

    /// Consumes whitespace.
    fn space(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.peek() {
            self.pos += 1;
        }
    }

    /// Consumes one value of any kind.
    pub(super) fn skip(&mut self) -> Result<(), Malformed> {
        match self.peek() {
            Some(b'{') => self.object(|scanner, _| scanner.skip()),
            Some(b'[') => self.array(Self::skip),
            _ => self.scalar().map(drop),
        }
    }

    /// Consumes one value of any kind, and returns its spelling.
    pub(super) fn spelling(&mut self) -> Result<&'a str, Malformed> {
        let start = self.pos;
        self.skip()?;
        Ok(self.since(start))
    }

    /// Consumes an object; `member` is to consume each value, given its key.
    pub(super) fn object(
        &mut self,
        mut member: impl FnMut(&mut Self, Text<'a>) -> Result<(), Malformed>,
    ) -> Result<(), Malformed> {
        self.container(b'{', b'}', "expected `,` or `}`", |scanner| {
            scanner.expect(b'"', "expected a key")?;
            let key = scanner.string()?;
            scanner.space();
            scanner.expect(b':', "expected `:`")?;
            scanner.space();
            member(scanner, key)
        })
    }

    /// Consumes an array; `element` is to consume each value.
    pub(super) fn array(
        &mut self,
        element: impl FnMut(&mut Self) -> Result<(), Malformed>,
    ) -> Result<(), Malformed> {
        self.container(b'[', b']', "expected `,` or `]`", element)
    }

    /// Consumes items separated by commas, between `open` and `close`.
    #[inline]
    fn container(
        &mut self,
        open: u8,
        close: u8,
        unclosed: &'static str,
        mut item: impl FnMut(&mut Self) -> Result<(), Malformed>,
    ) -> Result<(), Malformed> {
        if self.depth == MAX_DEPTH {
            return Err(self.error("recursion limit exceeded"));
        }
        self.expect(open, "expected a container")?;
        self.depth += 1;
        self.space();
        if !self.eat(close) {
            loop {
                item(self)?;
                self.space();
                if self.eat(close) {
                    break;
                }
                self.expect(b',', unclosed)?;
                self.space();
            }
        }
        self.depth -= 1;
        Ok(())
    }

    /// Consumes one value that is not a container.
    pub(super) fn scalar(&mut self) -> Result<Scalar<'a>, Malformed> {
        match self.peek() {
            Some(b'"') => {
                self.pos += 1;
                self.string().map(Scalar::String)
            }
            Some(b'-' | b'0'..=b'9') => self.number().map(Scalar::Number),
            Some(b'n') => self.word("null").map(|()| Scalar::Null),
            Some(b't') => self.word("true").map(|()| Scalar::Bool),
            Some(b'f') => self.word("false").map(|()| Scalar::Bool),
            _ => Err(self.error("expected a value")),
        }
    }

    fn word(&mut self, word: &str) -> Result<(), Malformed> {
        if !self.text.as_bytes()[self.pos..].starts_with(word.as_bytes()) {
            return Err(self.error("expected a value"));
        }
        self.pos += word.len();
        Ok(())
    }

    /// Consumes a number: `-? (0 | [1-9][0-9]*) (. [0-9]+)? ([eE] [+-]? [0-9]+)?`.
    fn number(&mut self) -> Result<&'a str, Malformed> {
        let start = self.pos;
        self.eat(b'-');
        if !self.eat(b'0') {
            self.digits()?;
        }
        if self.eat(b'.') {
            self.digits()?;
        }
        if self.eat(b'e') || self.eat(b'E') {
            if !self.eat(b'+') {
                self.eat(b'-');
            }
            self.digits()?;
        }
        Ok(self.since(start))
    }

    /// Consumes one digit or more.
    fn digits(&mut self) -> Result<(), Malformed> {
        let start = self.pos;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.pos += 1;
        }
        if self.pos == start {
            Err(self.error("expected a digit"))
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::super::respell::nearly_json;
    use super::*;

    fn accepts(text: &[u8]) -> bool {
        document(text, Scanner::skip).is_ok()
    }

    /// What `serde_json` says; nothing if it stopped at a number it cannot hold.
    fn reference(text: &[u8]) -> Option<bool> {
        match serde_json::from_slice::<Value>(text) {
            Ok(_) => Some(true),
            Err(error) if error.to_string().starts_with("number out of range") => None,
            Err(_) => Some(false),
        }
    }

    #[test]
    fn grammar() {
        let good: &[&str] = &[
            "{}",
            " \t\r\n{ } ",
            "[]",
            "0",
            "-0",
            "1.5e+10",
            "1E-0",
            "null",
            "true",
            "false",
            r#""\u0041\ud83d\ude00\/\b\f\n\r\t\"\\""#,
            "\"\u{7f}é\"",
            r#"{"a":[1,{"b":null}],"a":2}"#,
        ];
        let bad: &[&str] = &[
            "",
            " ",
            "{",
            "}",
            "{]",
            "[}",
            "[1,]",
            "[,1]",
            "[1 2]",
            r#"{"a"}"#,
            r#"{"a":}"#,
            r#"{"a":1,}"#,
            r#"{a:1}"#,
            "{1:1}",
            "01",
            "-",
            "+1",
            ".5",
            "1.",
            "1e",
            "1e+",
            "--1",
            "nul",
            "nullx",
            "True",
            "NaN",
            "1 1",
            "{}{}",
            "\u{feff}{}",
            "\"",
            r#"""#,
            "\"\n\"",
            r#""\x""#,
            r#""\u12g4""#,
            r#""\ud800""#,
            r#""\udc00""#,
            r#""\ud800\u0041""#,
            r#""\ud800\n""#,
            r#""\ud800\ud800""#,
            r#""\"#,
            "[1]\0",
            "/**/1",
            "\u{a0}1",
            "'a'",
        ];
        for text in good {
            assert!(accepts(text.as_bytes()), "{text:?}");
            assert_eq!(reference(text.as_bytes()), Some(true), "{text:?}");
        }
        for text in bad {
            assert!(!accepts(text.as_bytes()), "{text:?}");
            assert_eq!(reference(text.as_bytes()), Some(false), "{text:?}");
        }
        assert!(accepts(b"1e999999999999999999999"));
        for bytes in [
            &b"\"\xff\""[..],
            b"\"\xed\xa0\x80\"",
            b"\"\xc0\xaf\"",
            b"\xff",
        ] {
            assert!(!accepts(bytes) && reference(bytes) == Some(false));
        }
    }

    #[test]
    fn depth() {
        for (open, close) in [("[", "]"), (r#"{"a":"#, "}"), (r#"[{"a":"#, "}]")] {
            for containers in [126, 127, 128, 129, 200_000] {
                let times = containers / close.len();
                let text = open.repeat(times) + "1" + &close.repeat(times);
                assert_eq!(
                    accepts(text.as_bytes()),
                    times * close.len() < 128,
                    "{open}"
                );
                assert_eq!(
                    reference(text.as_bytes()),
                    Some(times * close.len() < 128),
                    "{open}"
                );
            }
        }
        let unclosed = b"[".repeat(1_000_000);
        assert!(!accepts(&unclosed));
        let siblings = format!("[{}[]]", "[[]],{},".repeat(500));
        assert!(accepts(siblings.as_bytes()));
    }

    #[test]
    fn objects_only() {
        assert_eq!(check_object(b" {\"a\":1e400}\n"), Ok(()));
        for text in ["[]", "1", "null", "\"{}\""] {
            assert_eq!(
                check_object(text.as_bytes()),
                Err(JsonError::NotAnObject),
                "{text}"
            );
        }
        let message = "expected `:` at byte 5".to_owned();
        assert_eq!(
            check_object(b"{\"a\" 1}"),
            Err(JsonError::Syntax { message })
        );
        let message = "invalid UTF-8 at byte 2".to_owned();
        assert_eq!(
            check_object(b"{\"\xff\":1}"),
            Err(JsonError::Syntax { message })
        );
    }

    proptest! {
        #[test]
        fn agrees_with_serde_json(text in nearly_json()) {
            if let Some(expected) = reference(&text) {
                prop_assert_eq!(accepts(&text), expected, "{}", String::from_utf8_lossy(&text));
            }
        }

        #[test]
        fn never_panics(text in proptest::collection::vec(any::<u8>(), 0..64)) {
            let expected = reference(&text);
            prop_assert_eq!(accepts(&text), expected.unwrap_or(accepts(&text)));
        }
    }
}
