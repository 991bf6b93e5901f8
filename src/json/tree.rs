//! A JSON text as a tree of nodes that borrow from it.

use std::borrow::Cow;

use super::JsonError;
use super::scan::{Malformed, Scalar, Scanner, document};

/// A value: what it is, and how it is spelt.
#[derive(Debug)]
pub(super) struct Node<'a> {
    /// The value's text, without whitespace around it.
    pub(super) text: &'a str,
    /// The value's kind, and what it is made of.
    pub(super) kind: Kind<'a>,
}

/// What a value is.
#[derive(Debug)]
pub(super) enum Kind<'a> {
    /// Neither an array nor an object.
    Scalar(Scalar<'a>),
    /// The elements, in order.
    Array(Vec<Node<'a>>),
    /// The members as they are in the text: in its order, with repeated keys.
    Object(Vec<Member<'a, Node<'a>>>),
}

/// One member of an object.
#[derive(Debug)]
pub(super) struct Member<'a, V> {
    /// The key, decoded.
    pub(super) key: Cow<'a, str>,
    /// The key as spelt between its quotes.
    pub(super) spelt: &'a str,
    /// The value, in the form it was read in.
    pub(super) value: V,
}

impl<'a> Node<'a> {
    /// The tree of a text that is one JSON value.
    pub(super) fn parse(text: &'a [u8]) -> Result<Self, JsonError> {
        document(text, Self::read)
    }

    fn read(scanner: &mut Scanner<'a>) -> Result<Self, Malformed> {
        let start = scanner.pos;
        let kind = match scanner.peek() {
            Some(b'{') => Kind::Object(members(scanner, Self::read)?),
            Some(b'[') => {
                let mut elements = Vec::new();
                scanner.array(|scanner| {
                    elements.push(Self::read(scanner)?);
                    Ok(())
                })?;
                Kind::Array(elements)
            }
            _ => Kind::Scalar(scanner.scalar()?),
        };
        Ok(Self {
            text: scanner.since(start),
            kind,
        })
    }

    /// The members, if the value is an object.
    pub(super) fn members(&self) -> Option<&[Member<'a, Self>]> {
        match &self.kind {
            Kind::Object(members) => Some(members),
            _ => None,
        }
    }
}

/// Consumes an object, whose values `read` consumes.
pub(super) fn members<'a, V>(
    scanner: &mut Scanner<'a>,
    read: impl Fn(&mut Scanner<'a>) -> Result<V, Malformed>,
) -> Result<Vec<Member<'a, V>>, Malformed> {
    let mut members = Vec::new();
    scanner.object(|scanner, key| {
        let value = read(scanner)?;
        members.push(Member {
            key: key.decode(),
            spelt: key.inner,
            value,
        });
        Ok(())
    })?;
    Ok(members)
}

/// The members that count, sorted by key: of those that share a key, the last one.
pub(super) fn live<'n, 'a, V>(members: &'n [Member<'a, V>]) -> Vec<&'n Member<'a, V>> {
    let mut live: Vec<_> = members.iter().rev().collect();
    live.sort_by(|a, b| a.key.cmp(&b.key));
    live.dedup_by(|a, b| a.key == b.key);
    live
}

/// The member of a [`live`] list that has this key.
pub(super) fn find<'n, 'a, V>(live: &[&'n Member<'a, V>], key: &str) -> Option<&'n Member<'a, V>> {
    let at = live
        .binary_search_by(|member| (*member.key).cmp(key))
        .ok()?;
    live.get(at).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_keep_their_spelling() -> Result<(), JsonError> {
        let node = Node::parse(br#" { "\u0061" : [ 1.10 , {"x" : null} ] , "b":2 } "#)?;
        assert_eq!(
            node.text,
            r#"{ "\u0061" : [ 1.10 , {"x" : null} ] , "b":2 }"#
        );
        let members = node.members().unwrap_or_default();
        assert_eq!((&*members[0].key, members[0].spelt), ("a", "\\u0061"));
        assert_eq!(members[0].value.text, r#"[ 1.10 , {"x" : null} ]"#);
        assert_eq!(members[1].value.text, "2");
        Ok(())
    }

    #[test]
    fn the_last_of_a_key_is_live() -> Result<(), JsonError> {
        let node = Node::parse(br#"{"b":1,"a":2,"\u0062":3,"c":4,"b":5}"#)?;
        let live = live(node.members().unwrap_or_default());
        let texts: Vec<_> = live.iter().map(|member| member.value.text).collect();
        assert_eq!(texts, ["2", "5", "4"]);
        assert_eq!(find(&live, "b").map(|member| member.value.text), Some("5"));
        assert!(find(&live, "d").is_none());
        Ok(())
    }
}
