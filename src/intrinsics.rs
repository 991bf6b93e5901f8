//! Instructions of the processor that the language has no words for. All of the crate's `unsafe` is
//! here: each is one call, and asks for nothing that the caller could get wrong. Where a processor lacks
//! them, it does without.

/// Checksums side by side. A processor can begin a step of CRC-32C every cycle, but a step waits three
/// cycles for the one before it in its message: three messages at a time keep it busy.
pub(crate) const LANES: usize = 3;

/// The checksums of what `sums` are of, each with its part behind it.
// So that they come back in registers; see `x86::crc32c`.
#[inline(always)]
pub(crate) fn crc32c(sums: [u32; LANES], parts: [&[u8]; LANES]) -> [u32; LANES] {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("sse4.2") {
        #[expect(unsafe_code, reason = "it is compiled for an instruction")]
        // SAFETY: all that the function asks for is that the processor has the instruction.
        let packed = unsafe { x86::crc32c(sums, parts) };
        return std::array::from_fn(|lane| (packed >> (32 * lane)) as u32);
    }
    std::array::from_fn(|lane| crate::checksum::append(sums[lane], parts[lane]))
}

/// Begins to fetch the first lines of something into the processor's cache, and waits for nothing: what
/// lies about in memory, record by record, is there when it is needed. Behind the first lines the
/// processor fetches by itself.
pub(crate) fn prefetch<T: ?Sized>(it: &T) {
    #[cfg(target_arch = "x86_64")]
    x86::prefetch(it);
    #[cfg(not(target_arch = "x86_64"))]
    let _ = it;
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        _MM_HINT_T0, _mm_crc32_u8, _mm_crc32_u32, _mm_crc32_u64, _mm_prefetch,
    };

    use super::LANES;

    /// The sums, the first in the lowest bits: so they come back in registers. An array would come back
    /// in memory, word by word, and whoever read it at once would wait for the words to get there.
    #[target_feature(enable = "sse4.2")]
    pub(super) fn crc32c(sums: [u32; LANES], parts: [&[u8]; LANES]) -> u128 {
        let [one, two, three] = parts.map(|part| part.as_chunks::<8>().0);
        // The register holds the complement of a checksum.
        let [mut a, mut b, mut c] = sums.map(|sum| u64::from(!sum));
        let mut common = 0;
        for ((one, two), three) in one.iter().zip(two).zip(three) {
            a = _mm_crc32_u64(a, u64::from_le_bytes(*one));
            b = _mm_crc32_u64(b, u64::from_le_bytes(*two));
            c = _mm_crc32_u64(c, u64::from_le_bytes(*three));
            common += 8;
        }
        let [a, b, c] = [
            finish(a, &parts[0][common..]),
            finish(b, &parts[1][common..]),
            finish(c, &parts[2][common..]),
        ];
        u128::from(a) | u128::from(b) << 32 | u128::from(c) << 64
    }

    /// What is left of a message that is longer than its neighbours, or has no whole words.
    #[target_feature(enable = "sse4.2")]
    fn finish(mut register: u64, rest: &[u8]) -> u32 {
        let (words, rest) = rest.as_chunks::<8>();
        for word in words {
            register = _mm_crc32_u64(register, u64::from_le_bytes(*word));
        }
        // The instruction leaves the upper half zero.
        let mut register = register as u32;
        let (half, rest) = rest.as_chunks::<4>();
        for half in half {
            register = _mm_crc32_u32(register, u32::from_le_bytes(*half));
        }
        for byte in rest {
            register = _mm_crc32_u8(register, *byte);
        }
        !register
    }

    const LINE: usize = 64;
    const LINES: usize = 8;

    pub(super) fn prefetch<T: ?Sized>(it: &T) {
        let (begin, len) = (std::ptr::from_ref(it).cast::<i8>(), size_of_val(it));
        // It may begin and end within a line.
        let lines = (0..len).step_by(LINE).chain(len.checked_sub(1));
        for at in lines.take(LINES) {
            #[expect(unsafe_code, reason = "it takes a pointer")]
            // SAFETY: it is a hint; of any address, nothing is read or written that a program can see.
            unsafe {
                _mm_prefetch::<_MM_HINT_T0>(begin.wrapping_add(at));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_any_lengths_are_summed_side_by_side() {
        let bytes: Vec<u8> = (0..100).collect();
        for lengths in [[0, 0, 0], [1, 8, 64], [37, 36, 35], [100, 3, 99]] {
            let parts = lengths.map(|len| &bytes[..len]);
            let expected = parts.map(|part| crate::checksum::append(5, part));
            assert_eq!(crc32c([5; LANES], parts), expected);
        }
    }

    #[test]
    fn anything_can_be_fetched() {
        prefetch::<[u8]>(&[]);
        prefetch(&[7_u8; 1000][..]);
        prefetch(&7_u64);
    }
}
