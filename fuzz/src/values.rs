//! What a store keeps on disk besides records, as any bytes.

use highwater::fuzzing::{KINDS, decode};

/// The first byte chooses the kind of value. What is taken must come back from encoding and decoding
/// the same.
pub fn values(data: &[u8]) {
    let Some((&kind, bytes)) = data.split_first() else {
        return;
    };
    let kind = kind % KINDS;
    if let Some(encoded) = decode(kind, bytes) {
        assert_eq!(decode(kind, &encoded), Some(encoded), "kind {kind}");
    }
}
