//! JSON strings.

use super::push::{marks_of_escapes, push_quoted};

/// Appends `text` as a JSON string, with quotes.
#[inline]
pub(crate) fn write_str(out: &mut Vec<u8>, text: &str) {
    if !push_quoted(out, false, text.as_bytes(), false) {
        out.push(b'"');
        write_escaped(out, text.as_bytes());
        out.push(b'"');
    }
}

/// Appends an object's key: `"key":`, with a comma before it but for the first.
#[inline]
pub(crate) fn write_key(out: &mut Vec<u8>, first: bool, key: &str) {
    if !push_quoted(out, !first, key.as_bytes(), true) {
        out.extend_from_slice(if first { b"\"" } else { b",\"" });
        write_escaped(out, key.as_bytes());
        out.extend_from_slice(b"\":");
    }
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
    out.extend_from_slice(&bytes[clean_from..]);
}

/// Where the next byte stands that must be escaped, eight bytes a step; `bytes.len()` when there is none.
#[inline]
fn next_escape(bytes: &[u8], from: usize) -> usize {
    let mut at = from;
    while let Some(Ok(word)) = bytes.get(at..at + 8).map(<[u8; 8]>::try_from) {
        let found = marks_of_escapes(u64::from_le_bytes(word));
        if found != 0 {
            return at + (found.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    // The last bytes once more as a word, with some before them: most often there is nothing to be found.
    if bytes.last_chunk().is_some_and(|word| marks_of_escapes(u64::from_le_bytes(*word)) == 0) {
        return bytes.len();
    }
    while at < bytes.len() && !matches!(bytes[at], 0..=0x1f | b'"' | b'\\') {
        at += 1;
    }
    at
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
        fn escapes_as_serde_json_does(text in "[\\x00-\\x7f\u{80}-\u{10ffff}\"\\\\]{0,40}") {
            let mut ours = Vec::new();
            write_str(&mut ours, &text);
            prop_assert_eq!(String::from_utf8(ours).unwrap(), serde_json::to_string(&text).unwrap());
        }
    }
}
