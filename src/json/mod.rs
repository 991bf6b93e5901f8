//! What the engine knows of JSON: whether a record is one object, what its id is, whether two
//! records say the same thing, and how a partial record is merged into a stored one.
//!
//! Records are kept as the text they came in, so nothing here goes through a parsed number or a
//! re-serialised value: a number is its decimal digits, a merged field is copied as it was spelt.
//! The grammar accepted is exactly that of `serde_json::Value`, except that a number may be of any
//! magnitude: UTF-8, no lone surrogates, no more than 127 nested containers.
//!
//! * [`scan`]: the grammar, walked without building anything;
//! * [`text`]: string literals;
//! * [`tree`]: a text as nodes that borrow from it;
//! * [`number`]: exact decimal numbers;
//! * [`id`], [`equal`], [`merge`](mod@merge): the three things done with them.

mod equal;
mod id;
mod merge;
mod number;
mod scan;
mod text;
mod tree;

pub(crate) use equal::same_value;
pub(crate) use id::record_id;
pub(crate) use merge::merge;
pub(crate) use scan::check_object;

use std::fmt;

/// Why a record's bytes were refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum JsonError {
    /// The bytes are not one JSON value.
    Syntax {
        /// What is wrong, and at which byte.
        message: String,
    },
    /// The bytes are JSON, but not an object.
    NotAnObject,
    /// The object has no id field.
    MissingId,
    /// The id is not a string, nor a number of a reasonable length.
    InvalidId,
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax { message } => write!(f, "not valid JSON: {message}"),
            Self::NotAnObject => f.write_str("not a JSON object"),
            Self::MissingId => f.write_str("the record has no id"),
            Self::InvalidId => f.write_str("the record's id is neither a string nor a number"),
        }
    }
}

impl std::error::Error for JsonError {}

#[cfg(test)]
mod respell;
