//! Sixteen bytes of a line at a time: which of them are digits, and which end a plain run of a string.
//!
//! Each answer has a bit for each byte, the first byte's lowest. SSE2 is part of every x86-64; elsewhere a loop says the same.

/// Bytes that are looked at in one step.
pub(super) const CHUNK: usize = 16;

/// The digits `0` to `9`.
#[inline(always)]
pub(super) fn digits(chunk: &[u8; CHUNK]) -> u32 {
    #[cfg(target_arch = "x86_64")]
    return sse2::digits(chunk);
    #[cfg(not(target_arch = "x86_64"))]
    bits(chunk, |byte| byte.is_ascii_digit())
}

/// Quotes, backslashes and control characters.
#[inline(always)]
pub(super) fn string_ends(chunk: &[u8; CHUNK]) -> u32 {
    #[cfg(target_arch = "x86_64")]
    return sse2::string_ends(chunk);
    #[cfg(not(target_arch = "x86_64"))]
    bits(chunk, |byte| matches!(byte, b'"' | b'\\' | 0..0x20))
}

#[cfg(any(test, not(target_arch = "x86_64")))]
#[inline(always)]
fn bits(chunk: &[u8; CHUNK], holds: impl Fn(u8) -> bool) -> u32 {
    chunk.iter().enumerate().fold(0, |bits, (at, byte)| bits | u32::from(holds(*byte)) << at)
}

#[cfg(target_arch = "x86_64")]
mod sse2 {
    use super::CHUNK;
    use std::arch::x86_64::{
        __m128i, _mm_cmpeq_epi8, _mm_loadu_si128, _mm_min_epu8, _mm_movemask_epi8, _mm_or_si128, _mm_set1_epi8, _mm_sub_epi8,
    };

    // SAFETY, of each block: every x86-64 has SSE2, which these instructions are of. The load reads sixteen bytes, which is what the array has, and needs
    // no alignment; nothing else touches memory.

    #[inline(always)]
    fn load(chunk: &[u8; CHUNK]) -> __m128i {
        unsafe { _mm_loadu_si128(chunk.as_ptr().cast()) }
    }

    #[inline(always)]
    pub fn digits(chunk: &[u8; CHUNK]) -> u32 {
        // What is no digit becomes more than 9 once '0' is taken off: the subtraction wraps. The answer has sixteen bits, none of them a sign.
        unsafe {
            let offset = _mm_sub_epi8(load(chunk), _mm_set1_epi8(b'0' as i8));
            _mm_movemask_epi8(_mm_cmpeq_epi8(_mm_min_epu8(offset, _mm_set1_epi8(9)), offset)) as u32
        }
    }

    #[inline(always)]
    pub fn string_ends(chunk: &[u8; CHUNK]) -> u32 {
        let bytes = load(chunk);
        unsafe {
            let quote = _mm_cmpeq_epi8(bytes, _mm_set1_epi8(b'"' as i8));
            let slash = _mm_cmpeq_epi8(bytes, _mm_set1_epi8(b'\\' as i8));
            let control = _mm_cmpeq_epi8(_mm_min_epu8(bytes, _mm_set1_epi8(0x1f)), bytes);
            _mm_movemask_epi8(_mm_or_si128(_mm_or_si128(quote, slash), control)) as u32
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_byte_is_told_in_each_place() {
        for byte in 0..=u8::MAX {
            for at in 0..CHUNK {
                for rest in [b'a', b'7', b'"', 0xff] {
                    let mut chunk = [rest; CHUNK];
                    chunk[at] = byte;
                    assert_eq!(digits(&chunk), bits(&chunk, |byte| byte.is_ascii_digit()), "{chunk:?}");
                    assert_eq!(string_ends(&chunk), bits(&chunk, |byte| matches!(byte, b'"' | b'\\' | 0..0x20)), "{chunk:?}");
                }
            }
        }
    }
}
