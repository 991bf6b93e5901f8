//! Numbers by their exact decimal value, whatever their magnitude.
//!
//! A number is `± S × 10^x`, where `S` is its digits without zeros at either end, a form that is
//! unique but for zero. `x` is the spelt exponent, corrected for the point and the zeros dropped.

use std::borrow::Cow;

/// The longest number that can be a record's id, in bytes of its canonical form.
const MAX_ID: usize = 255;

/// Exponents spelt with more digits than this are reckoned digit by digit.
const SMALL_EXPONENT: usize = 36;

/// A number's spelling, taken apart.
#[derive(Debug, Clone, Copy)]
struct Decimal<'a> {
    negative: bool,
    /// The digits before the point.
    whole: &'a str,
    /// The digits after the point.
    fraction: &'a str,
    exponent_negative: bool,
    /// The exponent's digits, without leading zeros.
    exponent: &'a str,
}

/// An integer of any size; each has one form only.
#[derive(Debug, PartialEq, Eq)]
enum Exponent {
    /// One of at most [`SMALL_EXPONENT`] + 1 digits: so many come of correcting a small exponent.
    Small(i128),
    /// One of more digits, none of them a leading zero.
    Large { negative: bool, digits: Vec<u8> },
}

impl<'a> Decimal<'a> {
    /// Takes apart `text`, which is a JSON number.
    fn new(text: &'a str) -> Self {
        let (negative, text) = sign(text);
        let (digits, exponent) = text.split_once(['e', 'E']).unwrap_or((text, ""));
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let (exponent_negative, exponent) = sign(exponent);
        let exponent = exponent.trim_start_matches('0');
        Self {
            negative,
            whole,
            fraction,
            exponent_negative,
            exponent,
        }
    }

    /// How many zeros end the digits.
    fn trailing_zeros(&self) -> usize {
        let digits = self.fraction.bytes().rev().chain(self.whole.bytes().rev());
        digits.take_while(|&digit| digit == b'0').count()
    }

    /// The digits `S`; none if the number is zero.
    fn significant(&self) -> impl Iterator<Item = u8> + 'a {
        let kept = self.whole.len() + self.fraction.len() - self.trailing_zeros();
        let digits = self.whole.bytes().chain(self.fraction.bytes());
        digits.take(kept).skip_while(|&digit| digit == b'0')
    }

    fn is_zero(&self) -> bool {
        self.trailing_zeros() == self.whole.len() + self.fraction.len()
    }

    /// The exponent `x`.
    fn scale(&self) -> Exponent {
        let correction = self.trailing_zeros() as i128 - self.fraction.len() as i128;
        if self.exponent.len() > SMALL_EXPONENT {
            let correction = if self.exponent_negative {
                -correction
            } else {
                correction
            };
            return add(self.exponent_negative, self.exponent, correction);
        }
        Exponent::Small(integer(self.exponent_negative, self.exponent.as_bytes()) + correction)
    }
}

/// A number's sign, and what follows it.
fn sign(text: &str) -> (bool, &str) {
    match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    }
}

/// An integer's value; it has no more than one digit more than [`SMALL_EXPONENT`].
fn integer(negative: bool, digits: &[u8]) -> i128 {
    let digits = digits.iter().map(|digit| i128::from(digit - b'0'));
    let value = digits.fold(0, |sum, digit| sum * 10 + digit);
    if negative { -value } else { value }
}

/// Adds `correction` to the magnitude of an integer of more digits than [`SMALL_EXPONENT`].
fn add(negative: bool, digits: &str, correction: i128) -> Exponent {
    let mut sum = digits.as_bytes().to_vec();
    let mut carry = correction;
    for digit in sum.iter_mut().rev() {
        if carry == 0 {
            break;
        }
        let value = i128::from(*digit - b'0') + carry;
        *digit = b'0' + value.rem_euclid(10) as u8;
        carry = value.div_euclid(10);
    }
    if carry > 0 {
        sum.insert(0, b'1');
    }
    let zeros = sum.iter().take_while(|&&digit| digit == b'0').count();
    sum.drain(..zeros);
    if sum.len() > SMALL_EXPONENT + 1 {
        return Exponent::Large {
            negative,
            digits: sum,
        };
    }
    Exponent::Small(integer(negative, &sum))
}

/// Whether two JSON numbers have the same value.
pub(super) fn same(a: &str, b: &str) -> bool {
    if a == b {
        return true;
    }
    let (a, b) = (Decimal::new(a), Decimal::new(b));
    if a.is_zero() || b.is_zero() {
        return a.is_zero() && b.is_zero();
    }
    a.negative == b.negative && a.significant().eq(b.significant()) && a.scale() == b.scale()
}

/// The number without an exponent or needless zeros, if that is no longer than an id may be.
pub(super) fn canonical(text: &str) -> Option<Cow<'_, str>> {
    let number = Decimal::new(text);
    if number.is_zero() {
        return Some(Cow::Borrowed("0"));
    }
    if text.len() <= MAX_ID
        && text
            .bytes()
            .all(|byte| byte.is_ascii_digit() || byte == b'-')
    {
        return Some(Cow::Borrowed(text));
    }
    let Exponent::Small(scale) = number.scale() else {
        return None;
    };
    let count = number.significant().count();
    let whole = usize::try_from(scale.checked_add(count as i128)?.max(0)).ok()?;
    let before = whole.max(1);
    let after = usize::try_from((-scale).max(0)).ok()?;
    let point = usize::from(after > 0);
    let len = [usize::from(number.negative), before, point, after];
    if len.into_iter().try_fold(0_usize, usize::checked_add)? > MAX_ID {
        return None;
    }
    let mut out = String::with_capacity(MAX_ID);
    if number.negative {
        out.push('-');
    }
    if whole == 0 {
        out.push_str("0.");
    }
    let leading = after.saturating_sub(count);
    out.extend(std::iter::repeat_n('0', leading));
    for (at, digit) in number.significant().enumerate() {
        if at == whole && whole > 0 {
            out.push('.');
        }
        out.push(char::from(digit));
    }
    out.extend(std::iter::repeat_n('0', whole.saturating_sub(count)));
    Some(Cow::Owned(out))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Numbers, in groups of one value each.
    const GROUPS: &[&[&str]] = &[
        &[
            "0",
            "-0",
            "0.0",
            "-0e0",
            "0e99999999999999999999999999999999999999999999",
            "0.00E-7",
        ],
        &[
            "1", "1.0", "1e0", "10e-1", "0.1e1", "1E+0", "0.001e3", "1000e-3", "1e-0", "1e000",
        ],
        &["-1", "-1.0", "-10e-1"],
        &["10", "1e1", "1.0e1", "100e-1", "0.10e2"],
        &["1.1", "1.10", "11e-1"],
        &["9007199254740992", "9007199254740992.0"],
        &["9007199254740993", "9007199254740.993e3"],
        &["1e400", "10e399", "0.1e401"],
        &["1e401"],
        &["1e-400", "0.1e-399"],
        &[
            "1e999999999999999999999",
            "10e999999999999999999998",
            "0.01e1000000000000000000001",
        ],
        &["1e1000000000000000000000"],
        &["1e-999999999999999999999", "10e-1000000000000000000000"],
        // About where exponents stop fitting in a machine integer, and where this file says so.
        &["1e9223372036854775807", "10e9223372036854775806"],
        &["1e9223372036854775808", "0.1e9223372036854775809"],
        &["1e170141183460469231731687303715884105727"],
        &[
            "1e170141183460469231731687303715884105728",
            "10e170141183460469231731687303715884105727",
        ],
        &[
            "1e999999999999999999999999999999999999",
            "0.1e1000000000000000000000000000000000000",
            "0.01e1000000000000000000000000000000000001",
        ],
        &[
            "1e1000000000000000000000000000000000000",
            "10e999999999999999999999999999999999999",
            "100e00999999999999999999999999999999999998",
        ],
        &[
            "1e-1000000000000000000000000000000000000",
            "0.1e-999999999999999999999999999999999999",
        ],
        &[
            "1e-999999999999999999999999999999999999",
            "10e-1000000000000000000000000000000000000",
        ],
        &[
            "1e9999999999999999999999999999999999999999",
            "0.1e10000000000000000000000000000000000000000",
        ],
        &["1e10000000000000000000000000000000000000000"],
    ];

    /// Exponents of any size.
    const FAR: &str = "-?[1-9][0-9]{0,60}";

    /// Numbers whose canonical form is short.
    const NUMBER: &str = r"-?(0|[1-9][0-9]{0,9})(\.[0-9]{1,9})?(e-?[0-9]{1,2})?";

    #[test]
    fn equality() {
        for (at, group) in GROUPS.iter().enumerate() {
            for (other_at, other) in GROUPS.iter().enumerate() {
                for (a, b) in group.iter().flat_map(|a| other.iter().map(move |b| (a, b))) {
                    assert_eq!(same(a, b), at == other_at, "{a} {b}");
                }
            }
        }
    }

    #[test]
    fn long_numbers_take_linear_time() {
        let nines = "9".repeat(1_000_000);
        assert!(same(
            &format!("1e{nines}"),
            &format!("0.1e1{}", "0".repeat(1_000_000))
        ));
        assert!(!same(&format!("1e{nines}"), &format!("1e-{nines}")));
        assert!(same(&format!("{nines}e1"), &format!("{nines}0")));
        assert!(!same(&format!("{nines}e1"), &nines));
    }

    #[test]
    fn canonical_forms() {
        let table = [
            ("1", "1"),
            ("1.0", "1"),
            ("1e0", "1"),
            ("-0", "0"),
            ("0.0e5", "0"),
            ("1.50", "1.5"),
            ("1e3", "1000"),
            ("12e-1", "1.2"),
            ("9007199254740993", "9007199254740993"),
            ("-12.5e1", "-125"),
            ("-12.5e0", "-12.5"),
            ("1e-3", "0.001"),
            ("0.001", "0.001"),
            ("123e-3", "0.123"),
            ("-1230e-4", "-0.123"),
            ("100", "100"),
            ("0.5e3", "500"),
            ("1000e-3", "1"),
            ("0e99999999999999999999999999999999999999999999", "0"),
        ];
        for (text, expected) in table {
            assert_eq!(canonical(text).as_deref(), Some(expected), "{text}");
        }
        assert!(matches!(canonical("-17"), Some(Cow::Borrowed("-17"))));
    }

    #[test]
    fn canonical_forms_are_short() {
        let length = |text: &str| canonical(text).map(|id| id.len());
        assert_eq!(length("1e254"), Some(255));
        assert_eq!(length("1e255"), None);
        assert_eq!(length("-1e253"), Some(255));
        assert_eq!(length("-1e254"), None);
        assert_eq!(length("1e-253"), Some(255));
        assert_eq!(length("1e-254"), None);
        assert_eq!(length("-1e-253"), None);
        assert_eq!(length(&"7".repeat(255)), Some(255));
        assert_eq!(length(&"7".repeat(256)), None);
        assert_eq!(length(&format!("{}.5", "7".repeat(253))), Some(255));
        assert_eq!(length(&format!("{}.5", "7".repeat(254))), None);
        assert_eq!(length(&format!("1.5{}", "0".repeat(1000))), Some(3));
        assert_eq!(length(&format!("1{}e-1000", "0".repeat(1000))), Some(1));
        assert_eq!(length("1e400"), None);
        assert_eq!(length("1e-999999999999999999999"), None);
        assert_eq!(
            length("1e99999999999999999999999999999999999999999999999"),
            None
        );
    }

    proptest! {
        #[test]
        fn exponents_move_the_point(digits in "[1-9]{1,30}", up in 1_usize..40, far in FAR) {
            let zeros = "0".repeat(up);
            let (plain, moved) = (format!("{digits}{zeros}"), format!("{digits}e{up}"));
            prop_assert!(same(&plain, &moved));
            prop_assert_eq!(canonical(&plain), canonical(&moved));
            let large = format!("{digits}{zeros}e{far}");
            prop_assert!(same(&large, &large.replace('e', ".00E")));
            let [small, smaller] = ["", "0."].map(|start| format!("{start}{digits}e{far}"));
            prop_assert!(!same(&large, &small));
            prop_assert!(!same(&small, &smaller));
        }

        #[test]
        fn canonical_form_has_the_same_value(text in NUMBER) {
            let id = canonical(&text).unwrap_or_default();
            prop_assert!(same(&id, &text), "{} {}", id, text);
            prop_assert_eq!(canonical(&id), Some(Cow::Borrowed(&*id)));
            prop_assert!(!id.contains('e'));
            prop_assert!(!id.contains('.') || !id.ends_with('0'));
        }
    }
}
