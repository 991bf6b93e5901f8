//! Test material: random values, their many spellings, and texts that are nearly JSON.

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

/// A JSON value, apart from any spelling.
#[derive(Debug, Clone)]
pub(super) enum Model {
    Null,
    Bool(bool),
    /// `± digits × 10^exponent`; no digits for zero, or else the first is not `0`.
    Number(bool, String, i64),
    String(String),
    Array(Vec<Model>),
    /// No key occurs twice.
    Object(Vec<(String, Model)>),
}

/// A random sequence that a number determines.
pub(super) struct Dice(pub(super) u64);

impl Dice {
    /// A number below `bound`.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963);
        (self.0 >> 33) as usize % bound
    }

    fn pick<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len())]
    }

    fn space(&mut self, out: &mut String) {
        out.push_str(self.pick(&["", "", "", " ", "\n", "\t \r"]));
    }
}

/// Any value.
pub(super) fn value() -> impl Strategy<Value = Model> {
    let leaf = prop_oneof![
        Just(Model::Null),
        any::<bool>().prop_map(Model::Bool),
        (any::<bool>(), "([1-9][0-9]{0,24})?", -9_i64..9)
            .prop_map(|(negative, digits, exponent)| Model::Number(negative, digits, exponent)),
        text().prop_map(Model::String),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..5).prop_map(Model::Array),
            btree_map(key(), inner, 0..6).prop_map(|map| Model::Object(map.into_iter().collect())),
        ]
    })
}

/// Any object.
pub(super) fn object() -> impl Strategy<Value = Model> {
    btree_map(key(), value(), 0..8).prop_map(|map| Model::Object(map.into_iter().collect()))
}

fn key() -> impl Strategy<Value = String> {
    prop_oneof![3 => "(id|a|b|c|__proto__|constructor)", 1 => text()]
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z]{0,20}",
        "[\"\\\\/\u{8}\n\u{0}\u{1f}\u{7f}é€😀\u{ffff}a]{0,8}"
    ]
}

/// Bytes that are JSON but for a few mistakes.
pub(super) fn nearly_json() -> impl Strategy<Value = Vec<u8>> {
    const BYTES: &[u8] = b"{}[]\",:\\uDd8cC0019eE+-. \ntrfn\x00\x1f\x7f\xc3\xa9\xed\xff";
    (value(), any::<u64>(), 0_usize..4).prop_map(|(value, seed, mistakes)| {
        let mut dice = Dice(seed);
        let mut text = spell(&value, &mut dice).into_bytes();
        for _ in 0..mistakes {
            let at = dice.below(text.len() + 1);
            let byte = BYTES[dice.below(BYTES.len())];
            match dice.below(4) {
                0 => text.insert(at, byte),
                1 => text.truncate(at.max(text.len() / 2)),
                2 if at < text.len() => drop(text.remove(at)),
                _ if at < text.len() => text[at] = byte,
                _ => {}
            }
        }
        text
    })
}

/// One of the value's spellings.
pub(super) fn spell(value: &Model, dice: &mut Dice) -> String {
    let mut out = String::new();
    dice.space(&mut out);
    write(value, dice, &mut out);
    dice.space(&mut out);
    out
}

fn write(value: &Model, dice: &mut Dice, out: &mut String) {
    match value {
        Model::Null => out.push_str("null"),
        Model::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        Model::Number(negative, digits, exponent) => {
            number(*negative, digits, *exponent, dice, out)
        }
        Model::String(value) => string(value, dice, out),
        Model::Array(elements) => {
            out.push('[');
            for (at, element) in elements.iter().enumerate() {
                separate(at, dice, out);
                write(element, dice, out);
            }
            dice.space(out);
            out.push(']');
        }
        Model::Object(members) => members_in_any_order(members, dice, out),
    }
}

fn separate(at: usize, dice: &mut Dice, out: &mut String) {
    dice.space(out);
    if at > 0 {
        out.push(',');
        dice.space(out);
    }
}

fn members_in_any_order(members: &[(String, Model)], dice: &mut Dice, out: &mut String) {
    let mut written: Vec<(&str, &Model)> = Vec::new();
    for (key, value) in members {
        written.insert(dice.below(written.len() + 1), (key, value));
    }
    if let Some((key, _)) = members.first()
        && dice.below(4) == 0
    {
        written.insert(0, (key, &Model::Bool(true))); // a repeated key, which does not count
    }
    out.push('{');
    for (at, (key, value)) in written.into_iter().enumerate() {
        separate(at, dice, out);
        string(key, dice, out);
        dice.space(out);
        out.push(':');
        dice.space(out);
        write(value, dice, out);
    }
    dice.space(out);
    out.push('}');
}

fn string(value: &str, dice: &mut Dice, out: &mut String) {
    out.push('"');
    for char in value.chars() {
        let must = char < ' ' || char == '"' || char == '\\';
        match char {
            '\n' if dice.below(2) == 0 => out.push_str("\\n"),
            '\u{8}' if dice.below(2) == 0 => out.push_str("\\b"),
            '"' | '\\' | '/' if dice.below(2) == 0 => out.extend(['\\', char]),
            _ if must || dice.below(8) == 0 => {
                for unit in char.encode_utf16(&mut [0; 2]) {
                    let upper = dice.below(2) == 0;
                    let hex = if upper {
                        format!("{unit:04X}")
                    } else {
                        format!("{unit:04x}")
                    };
                    out.push_str("\\u");
                    out.push_str(&hex);
                }
            }
            _ => out.push(char),
        }
    }
    out.push('"');
}

fn number(negative: bool, digits: &str, exponent: i64, dice: &mut Dice, out: &mut String) {
    let zeros = if digits.is_empty() { 0 } else { dice.below(12) };
    let digits = digits.to_owned() + &"0".repeat(zeros);
    let fraction = dice.below(digits.len() + 1);
    let (whole, fraction_digits) = digits.split_at(digits.len() - fraction);
    let exponent = exponent - zeros as i64 + fraction as i64;
    out.push_str(if negative { "-" } else { "" });
    out.push_str(if whole.is_empty() { "0" } else { whole });
    if !fraction_digits.is_empty() {
        out.push('.');
        out.push_str(fraction_digits);
    }
    if exponent != 0 || dice.below(3) == 0 {
        out.push_str(dice.pick(&["e", "E"]));
        out.push_str(if exponent < 0 {
            "-"
        } else {
            dice.pick(&["", "+"])
        });
        out.push_str(dice.pick(&["", "0", "000"]));
        out.push_str(&exponent.unsigned_abs().to_string());
    }
}

/// Changes one leaf of the value, or fills an empty container.
pub(super) fn change(value: &mut Model, dice: &mut Dice) {
    match value {
        Model::Null => *value = Model::Bool(false),
        Model::Bool(value) => *value = !*value,
        Model::Number(_, digits, exponent) => {
            digits.push('1');
            *exponent -= 1;
        }
        Model::String(value) => value.insert(0, 'x'),
        Model::Array(elements) if elements.is_empty() => elements.push(Model::Null),
        Model::Object(members) if members.is_empty() => members.push((String::new(), Model::Null)),
        Model::Array(elements) => {
            let at = dice.below(elements.len());
            change(&mut elements[at], dice);
        }
        Model::Object(members) => {
            let at = dice.below(members.len());
            change(&mut members[at].1, dice);
        }
    }
}
