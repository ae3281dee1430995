//! JSON strings, and short pieces of JSON.

/// Appends `bytes`. For lengths of numbers and names this is a few moves in place, where `extend_from_slice` calls `memcpy`.
#[inline]
pub(crate) fn append(out: &mut Vec<u8>, bytes: &[u8]) {
    let len = bytes.len();
    if !(4..=32).contains(&len) {
        return out.extend_from_slice(bytes);
    }
    out.reserve(len);
    // SAFETY: `out` has room for `len` more bytes, and `bytes` has as many. Each pair of copies lies within them: it begins at their start and ends at
    // their end, and together the two are no shorter than `len`.
    unsafe {
        let (from, to) = (bytes.as_ptr(), out.as_mut_ptr().add(out.len()));
        let both_ends = |part: usize| {
            std::ptr::copy_nonoverlapping(from, to, part);
            std::ptr::copy_nonoverlapping(from.add(len - part), to.add(len - part), part);
        };
        match len {
            16.. => both_ends(16),
            8.. => both_ends(8),
            _ => both_ends(4),
        }
        out.set_len(out.len() + len);
    }
}

/// Appends `text` as a JSON string, with quotes.
#[inline]
pub(crate) fn write_str(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    write_escaped(out, text.as_bytes());
    out.push(b'"');
}

/// Appends the inside of a JSON string. `bytes` is UTF-8, or a part of it.
#[inline]
pub(crate) fn write_escaped(out: &mut Vec<u8>, bytes: &[u8]) {
    let mut clean_from = 0;
    let mut at = next_escape(bytes, 0);
    while at < bytes.len() {
        out.extend_from_slice(&bytes[clean_from..at]);
        escape(out, bytes[at]);
        clean_from = at + 1;
        at = next_escape(bytes, clean_from);
    }
    append(out, &bytes[clean_from..]);
}

/// Where the next byte stands that must be escaped, eight bytes a step; `bytes.len()` when there is none.
#[inline]
fn next_escape(bytes: &[u8], from: usize) -> usize {
    let mut at = from;
    while let Some(word) = bytes.get(at..).and_then(<[u8]>::first_chunk) {
        let found = escapes(word);
        if found != 0 {
            // Borrows can only mark bytes above a true one, so the lowest mark is exact.
            return at + (found.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    // The last bytes once more as a word, with some before them: most often there is nothing to be found.
    if bytes.last_chunk().is_some_and(|word| escapes(word) == 0) {
        return bytes.len();
    }
    while at < bytes.len() && !matches!(bytes[at], 0..=0x1f | b'"' | b'\\') {
        at += 1;
    }
    at
}

/// The high bit of each byte that must be escaped; bytes above one may be marked too.
#[inline]
fn escapes(word: &[u8; 8]) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let word = u64::from_le_bytes(*word);
    let quote = word ^ (ONES * u64::from(b'"'));
    let slash = word ^ (ONES * u64::from(b'\\'));
    let zero_in = |x: u64| x.wrapping_sub(ONES) & !x;
    let control = word.wrapping_sub(ONES * 0x20) & !word;
    (zero_in(quote) | zero_in(slash) | control) & HIGH
}

fn escape(out: &mut Vec<u8>, byte: u8) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    match byte {
        b'"' => out.extend_from_slice(b"\\\""),
        b'\\' => out.extend_from_slice(b"\\\\"),
        b'\n' => out.extend_from_slice(b"\\n"),
        b'\r' => out.extend_from_slice(b"\\r"),
        b'\t' => out.extend_from_slice(b"\\t"),
        0x08 => out.extend_from_slice(b"\\b"),
        0x0c => out.extend_from_slice(b"\\f"),
        _ => out.extend_from_slice(&[b'\\', b'u', b'0', b'0', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn appends_what_extend_from_slice_does(before in proptest::collection::vec(any::<u8>(), 0..40), bytes in proptest::collection::vec(any::<u8>(), 0..70)) {
            let mut ours = before.clone();
            append(&mut ours, &bytes);
            prop_assert_eq!(ours, [before, bytes].concat());
        }

        #[test]
        fn escapes_as_serde_json_does(text in "[\\x00-\\x7f\u{80}-\u{10ffff}\"\\\\]{0,40}") {
            let mut ours = Vec::new();
            write_str(&mut ours, &text);
            prop_assert_eq!(String::from_utf8(ours).unwrap(), serde_json::to_string(&text).unwrap());
        }
    }
}
