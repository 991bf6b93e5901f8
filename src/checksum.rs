//! The one checksum of the format: CRC-32C (Castagnoli), which every current processor computes in
//! hardware. It guards against accidents; the keyed fingerprints in [`crate::hash`] identify data.

/// The checksum of `parts`, one after the other, starting from `seed`.
///
/// The seed ties bytes to their place (a file offset, a cursor position), so that intact bytes
/// found in the wrong place do not pass.
pub(crate) fn checksum(seed: u64, parts: &[&[u8]]) -> u32 {
    parts
        .iter()
        .fold(begin(seed), |sum, part| append(sum, part))
}

/// The checksum of nothing, to be appended to.
pub(crate) fn begin(seed: u64) -> u32 {
    (seed ^ (seed >> 32)) as u32
}

/// The checksum of what `sum` is of, and of `part` behind it.
pub(crate) fn append(sum: u32, part: &[u8]) -> u32 {
    crc32c::crc32c_append(sum, part)
}

#[cfg(test)]
mod tests {
    use super::checksum;

    #[test]
    fn matches_the_published_check_value() {
        assert_eq!(checksum(0, &[b"123456789"]), 0xe306_9283);
    }

    #[test]
    fn parts_read_as_one_and_the_seed_matters() {
        assert_eq!(
            checksum(7, &[b"12345", b"6789"]),
            checksum(7, &[b"123456789"])
        );
        assert_ne!(checksum(7, &[b"123456789"]), checksum(8, &[b"123456789"]));
    }
}
