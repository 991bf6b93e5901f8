//! String literals: where they end, whether they are well formed, and what they stand for.

use std::borrow::Cow;

use super::scan::{Malformed, Scanner};

/// A string literal, already found to be well formed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Text<'a> {
    /// What is between the quotes, as spelt.
    pub(super) inner: &'a str,
    /// Whether there is an escape in it.
    pub(super) escaped: bool,
}

impl<'a> Text<'a> {
    /// The string the literal stands for; borrowed when nothing in it is escaped.
    pub(super) fn decode(self) -> Cow<'a, str> {
        if !self.escaped {
            return Cow::Borrowed(self.inner);
        }
        let mut out = String::with_capacity(self.inner.len());
        let mut scanner = Scanner::new(self.inner);
        let mut copied = 0;
        while let Some(found) = self.inner[copied..].find('\\') {
            out.push_str(&self.inner[copied..copied + found]);
            scanner.pos = copied + found + 1;
            // Every escape was found well formed when the literal was scanned.
            out.extend(scanner.escape());
            copied = scanner.pos;
        }
        out.push_str(&self.inner[copied..]);
        Cow::Owned(out)
    }

    /// Whether the literal stands for `plain`.
    pub(super) fn is(self, plain: &str) -> bool {
        if self.escaped {
            self.decode() == plain
        } else {
            self.inner == plain
        }
    }
}

impl<'a> Scanner<'a> {
    /// Consumes a string whose opening quote is consumed.
    pub(super) fn string(&mut self) -> Result<Text<'a>, Malformed> {
        let start = self.pos;
        let mut escaped = false;
        loop {
            self.pos += plain_len(&self.text.as_bytes()[self.pos..]);
            match self.peek() {
                Some(b'"') => break,
                Some(b'\\') => {
                    escaped = true;
                    self.pos += 1;
                    self.escape()?;
                }
                Some(_) => return Err(self.error("control character in a string")),
                None => return Err(self.error("unclosed string")),
            }
        }
        let inner = self.since(start);
        self.pos += 1;
        Ok(Text { inner, escaped })
    }

    /// Consumes an escape whose backslash is consumed.
    fn escape(&mut self) -> Result<char, Malformed> {
        let decoded = match self.peek() {
            Some(byte @ (b'"' | b'\\' | b'/')) => char::from(byte),
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                self.pos += 1;
                return self.unicode_escape();
            }
            _ => return Err(self.error("invalid escape")),
        };
        self.pos += 1;
        Ok(decoded)
    }

    /// Consumes the digits of a `\u` escape, and its second half if it is the first of a pair.
    fn unicode_escape(&mut self) -> Result<char, Malformed> {
        let mut code = self.hex4()?;
        if (0xD800..0xDC00).contains(&code) && self.eat(b'\\') && self.eat(b'u') {
            let low = self.hex4()?;
            if (0xDC00..0xE000).contains(&low) {
                code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
            }
        }
        char::from_u32(code).ok_or_else(|| self.error("lone surrogate"))
    }

    fn hex4(&mut self) -> Result<u32, Malformed> {
        let mut code = 0;
        for _ in 0..4 {
            let digit = self.peek().and_then(|byte| char::from(byte).to_digit(16));
            let Some(digit) = digit else {
                return Err(self.error("expected a hexadecimal digit"));
            };
            code = code * 16 + digit;
            self.pos += 1;
        }
        Ok(code)
    }
}

/// How many bytes come before the first quote, backslash or control character. Eight at a time: a
/// byte of `lows` is set where one of the three is, exactly so up to the first that is set.
fn plain_len(bytes: &[u8]) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = ONES * 0x80;
    let mut len = 0;
    while let Some(chunk) = bytes[len..].first_chunk::<8>() {
        let word = u64::from_le_bytes(*chunk);
        let quote = word ^ (ONES * u64::from(b'"'));
        let backslash = word ^ (ONES * u64::from(b'\\'));
        let found = quote.wrapping_sub(ONES) & !quote
            | backslash.wrapping_sub(ONES) & !backslash
            | word.wrapping_sub(ONES * 0x20) & !word;
        let found = found & HIGHS;
        if found != 0 {
            return len + (found.trailing_zeros() / 8) as usize;
        }
        len += 8;
    }
    let special = |byte: &u8| matches!(byte, b'"' | b'\\' | 0..0x20);
    len + bytes[len..]
        .iter()
        .position(special)
        .unwrap_or(bytes.len() - len)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::scan::{Scalar, document};
    use super::*;

    /// Strings of plain characters, escapes and halves of surrogate pairs.
    const STRING: &str = concat!(
        r#"([a-zé😀]|\\[nrtbf/"\\]|\\u00[0-7][0-9a-fA-F]"#,
        r#"|\\ud83d\\ude0[0-9]|\\ud800|\\udc00){0,6}"#,
    );

    /// Plain characters, perhaps one that is not, and more.
    const BYTES: &str = "[ !#-\\[\\]-~\u{80}-\u{ff}]{0,20}[\"\\\\\u{0}-\u{1f}]?[ -~]{0,9}";

    proptest! {
        #[test]
        fn decodes_as_serde_json(inner in STRING) {
            let literal = format!("\"{inner}\"");
            let ours = document(literal.as_bytes(), Scanner::scalar);
            let decoded = match ours {
                Ok(Scalar::String(text)) => Some(text.decode().into_owned()),
                _ => None,
            };
            prop_assert_eq!(decoded, serde_json::from_str::<String>(&literal).ok());
        }

        #[test]
        fn plain_length(bytes in BYTES) {
            let bytes = bytes.as_bytes();
            let special = |&byte: &u8| byte < 0x20 || byte == b'"' || byte == b'\\';
            let expected = bytes.iter().position(special).unwrap_or(bytes.len());
            prop_assert_eq!(plain_len(bytes), expected);
        }
    }
}
