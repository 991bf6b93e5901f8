//! The records, the same for every engine and in every run: contacts of 300 bytes of JSON under
//! ids of 24 characters.

use std::io::Write as _;

use crate::cache::Record;

/// The length of every body.
pub(crate) const BODY_LEN: usize = 300;
/// The length of every id.
pub(crate) const ID_LEN: usize = 24;

/// Where a body holds its revision, in ten digits, behind the id.
const REVISION: std::ops::Range<usize> = 45..55;

/// A sequence of pseudo-random numbers (SplitMix64).
pub(crate) struct Random(u64);

impl Random {
    /// The sequence of a seed.
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }
}

/// Record `number`. Ids come in no order that a tree could profit from.
fn record(number: u64) -> Record {
    let scattered = Random::new(number).next();
    let id = format!("{scattered:016x}{number:08x}");
    let mut random = Random::new(number ^ 0xc0de);
    let (name, company) = (random.next(), random.next() % 10_000);
    let phone = random.next() % 100_000_000;
    let owner = random.next() % 1_000_000;
    let active = random.next().is_multiple_of(2);
    let notes = random.next();
    let mut body = format!(
        r#"{{"id":"{id}","revision":"0000000000","name":"Person {name:x}","email":"person.{name:x}@company-{company}.example.com","company":"Company {company} Incorporated","phone":"+49 30 {phone:08}","owner_id":{owner},"active":{active},"notes":"{notes:x} "#
    );
    while body.len() < BODY_LEN - 2 {
        body.push('.');
    }
    body.push_str("\"}");
    assert_eq!(body.len(), BODY_LEN, "a record is too long: {body}");
    (id, body.into_bytes())
}

/// Records with numbers from `first` on.
pub(crate) fn records(first: u64, count: usize) -> Vec<Record> {
    let records: Vec<Record> = (first..).take(count).map(record).collect();
    if let Some((_, body)) = records.first() {
        // The place of the revision is a constant above.
        assert_eq!(&body[REVISION], b"0000000000", "the revision has moved");
    }
    records
}

/// Gives a record content that it did not have before.
pub(crate) fn revise((_, body): &mut Record, revision: u64) {
    let mut digits = &mut body[REVISION];
    let written = write!(digits, "{revision:010}");
    assert!(written.is_ok(), "a revision has ten digits");
}
