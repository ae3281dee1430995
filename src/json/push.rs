//! Appending what is short. A record is some dozens of names and numbers of a few bytes each: a call of memcpy for each, and a look at the capacity for each
//! quote and comma, would take longer than the bytes themselves.
//!
//! What a dict's key and float go through, here and in the encoder, is inlined always: left to itself the compiler makes calls of it in other crates, which take
//! 50 ns of a record of 12 floats from Python.

/// The longest text that is copied here, in bytes.
pub(crate) const SHORT: usize = 32;

/// Appends a few bytes, such as a number's digits.
#[inline]
pub(crate) fn push_short(out: &mut Vec<u8>, bytes: &[u8]) {
    if bytes.len() > SHORT {
        return out.extend_from_slice(bytes);
    }
    out.reserve(SHORT);
    let len = out.len();
    // SAFETY: there is room for SHORT bytes behind `len`, `bytes` has no more, and all of them are written before they count.
    unsafe {
        copy(bytes, out.as_mut_ptr().add(len), |_| {});
        out.set_len(len + bytes.len());
    }
}

/// Appends a finite float by its shortest digits, which are made where they are to stand.
#[inline(always)]
pub(crate) fn push_float<F: zmij::Float>(out: &mut Vec<u8>, value: F) {
    const { assert!(align_of::<zmij::Buffer>() == 1) };
    out.reserve(size_of::<zmij::Buffer>());
    let len = out.len();
    // SAFETY: there is room for a buffer behind `len`, at any address, and it is a buffer once it is written; the digits are bytes of it, and no more count
    // than those.
    unsafe {
        let place = out.as_mut_ptr().add(len);
        let buffer = place.cast::<zmij::Buffer>();
        buffer.write(zmij::Buffer::new());
        let digits = (*buffer).format_finite(value);
        let (from, count) = (digits.as_ptr(), digits.len());
        if from != place.cast_const() {
            std::ptr::copy(from, place, count);
        }
        out.set_len(len + count);
    }
}

/// Appends the key `json`, which has its quotes, with a comma before it where asked for, and a colon.
#[inline(always)]
pub(crate) fn push_key(out: &mut Vec<u8>, comma: bool, json: &[u8]) {
    if json.len() > SHORT {
        out.extend_from_slice(if comma { b"," } else { b"" });
        out.extend_from_slice(json);
        return out.push(b':');
    }
    out.reserve(SHORT + 2);
    let len = out.len();
    // SAFETY: there is room for SHORT + 2 bytes behind `len`, and `json` has at most SHORT. The length is set to what was written, also where a comma was
    // that does not count.
    unsafe {
        let start = out.as_mut_ptr().add(len);
        start.write(b',');
        let key = start.add(usize::from(comma));
        copy(json, key, |_| {});
        key.add(json.len()).write(b':');
        out.set_len(len + usize::from(comma) + json.len() + 1);
    }
}

/// Appends `"text"` with a comma before it and a colon behind it, where asked for; `false`, and nothing, when the text is not short or has a byte that
/// JSON escapes.
#[inline]
pub(crate) fn push_quoted(out: &mut Vec<u8>, comma: bool, text: &[u8], colon: bool) -> bool {
    if text.len() > SHORT {
        return false;
    }
    out.reserve(SHORT + 4);
    let len = out.len();
    // SAFETY: there is room for SHORT + 4 bytes behind `len`, and the text has at most SHORT. The length is set to what was written, also where a comma or
    // a colon was that does not count.
    unsafe {
        let start = out.as_mut_ptr().add(len);
        start.write(b',');
        let quote = start.add(usize::from(comma));
        quote.write(b'"');
        let mut escapes = 0;
        copy(text, quote.add(1), |word| escapes |= marks_of_escapes(word));
        if escapes != 0 {
            return false;
        }
        let end = quote.add(1 + text.len());
        end.write(b'"');
        end.add(1).write(b':');
        out.set_len(len + usize::from(comma) + text.len() + 2 + usize::from(colon));
    }
    true
}

/// Copies `bytes` to `to` in words that overlap, and shows each to `see`; what a word has too much are spaces.
///
/// # Safety
/// `bytes` has at most [`SHORT`], and `to` has room for them.
#[inline]
unsafe fn copy(bytes: &[u8], to: *mut u8, mut see: impl FnMut(u64)) {
    let (from, len) = (bytes.as_ptr(), bytes.len());
    // SAFETY: each word starts at 0 or more and ends at `len` or less, in `bytes` as in `to`; a shorter one is made of three bytes that are there.
    unsafe {
        let mut word = |at: usize| {
            let word = from.add(at).cast::<u64>().read_unaligned();
            to.add(at).cast::<u64>().write_unaligned(word);
            see(word);
        };
        match len {
            0 => {}
            1..4 => {
                let (first, middle, last) = (*from, *from.add(len / 2), *from.add(len - 1));
                to.write(first);
                to.add(len / 2).write(middle);
                to.add(len - 1).write(last);
                see(u64::from_ne_bytes([first, middle, last, b' ', b' ', b' ', b' ', b' ']));
            }
            4..8 => {
                let (first, last) = (from.cast::<u32>().read_unaligned(), from.add(len - 4).cast::<u32>().read_unaligned());
                to.cast::<u32>().write_unaligned(first);
                to.add(len - 4).cast::<u32>().write_unaligned(last);
                see(u64::from(first) << 32 | u64::from(last));
            }
            8..=16 => {
                word(0);
                word(len - 8);
            }
            _ => {
                word(0);
                word(8);
                word(len - 16);
                word(len - 8);
            }
        }
    }
}

/// Marks the bytes of `word` that JSON escapes, in their highest bits: in the lowest marked byte for certain, above it perhaps wrongly.
#[inline]
pub(crate) fn marks_of_escapes(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let zero_in = |x: u64| x.wrapping_sub(ONES) & !x;
    let quote = zero_in(word ^ (ONES * u64::from(b'"')));
    let slash = zero_in(word ^ (ONES * u64::from(b'\\')));
    let control = word.wrapping_sub(ONES * 0x20) & !word;
    (quote | slash | control) & HIGH
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_texts_are_appended_whole_and_those_with_escapes_are_not() {
        let text: Vec<u8> = (0..40).map(|at| b'a' + at % 26).collect();
        for len in 0..=text.len() {
            let mut out = b"x".to_vec();
            push_short(&mut out, &text[..len]);
            assert_eq!(out, [b"x", &text[..len]].concat());
            for (comma, before) in [(false, "x"), (true, "x,")] {
                let mut out = b"x".to_vec();
                push_key(&mut out, comma, &text[..len]);
                assert_eq!(out, [before.as_bytes(), &text[..len], b":"].concat());
            }
            for (comma, colon) in [(false, false), (true, false), (false, true), (true, true)] {
                let mut out = b"x".to_vec();
                assert_eq!(push_quoted(&mut out, comma, &text[..len], colon), len <= SHORT);
                let (before, behind) = (if comma { ",\"" } else { "\"" }, if colon { "\":" } else { "\"" });
                let whole = [b"x", before.as_bytes(), &text[..len], behind.as_bytes()].concat();
                assert_eq!(out, if len <= SHORT { whole } else { b"x".to_vec() });
            }
            for (at, byte) in (0..len).flat_map(|at| [b'"', b'\\', 0, 0x1f].map(|byte| (at, byte))) {
                let (mut out, mut text) = (b"x".to_vec(), text[..len].to_vec());
                text[at] = byte;
                assert!(!push_quoted(&mut out, true, &text, true), "{text:?}");
                assert_eq!(out, b"x");
                text[at] = [b' ', b'!', b'#', 0x7f, 0x80, 0xff][at % 6];
                assert_eq!(push_quoted(&mut out, true, &text, true), len <= SHORT, "{text:?}");
            }
        }
    }

    #[test]
    fn floats_are_appended_by_their_shortest_digits() {
        for value in
            [0.0, -0.0, 0.1, 7.4, -1e-300, 1e300, f64::MAX, f64::MIN_POSITIVE, 4.609999999999999, 1.0 / 3.0, 123_456_789.0]
        {
            let mut out = b"x".to_vec();
            push_float(&mut out, value);
            assert_eq!(out, [b"x", zmij::Buffer::new().format_finite(value).as_bytes()].concat());
        }
        let mut out = Vec::new();
        push_float(&mut out, 0.1f32);
        assert_eq!(out, b"0.1");
    }
}
