//! Walking JSON text without building a tree: no recursion, so no depth overflows the stack.

/// What [`minify`] saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    /// How deep objects and arrays are nested: 0 for a scalar.
    pub depth: u32,
}

/// Appends `json`, which a parser has accepted, without the white space between its tokens, and says how deep it is.
/// The text of each token is kept to the byte.
///
/// # Errors
/// When brackets or quotes do not match: `json` was not JSON. `out` may then hold a part of it.
pub(crate) fn minify(out: &mut Vec<u8>, json: &[u8]) -> Result<Shape, &'static str> {
    let (mut depth, mut deepest) = (0u32, 0u32);
    let mut at = 0;
    let mut clean_from = 0;
    while at < json.len() {
        match json[at] {
            b'"' => at = end_of_string(json, at).ok_or("raw JSON ends inside a string")?,
            b'{' | b'[' => {
                depth += 1;
                deepest = deepest.max(depth);
                at += 1;
            }
            b'}' | b']' => {
                depth = depth.checked_sub(1).ok_or("raw JSON closes a bracket that it did not open")?;
                at += 1;
            }
            b' ' | b'\t' | b'\r' | b'\n' => {
                out.extend_from_slice(&json[clean_from..at]);
                at += 1;
                clean_from = at;
            }
            _ => at += 1,
        }
    }
    out.extend_from_slice(&json[clean_from..]);
    if depth == 0 { Ok(Shape { depth: deepest }) } else { Err("raw JSON ends inside an object or array") }
}

/// The index behind the closing quote of the string whose opening quote stands at `at`.
#[inline]
pub(crate) fn end_of_string(json: &[u8], at: usize) -> Option<usize> {
    let mut from = at + 1;
    loop {
        let hit = from + memchr::memchr2(b'"', b'\\', json.get(from..)?)?;
        if json[hit] == b'"' {
            return Some(hit + 1);
        }
        from = hit + 2;
    }
}

/// The index behind the value that starts at `at`, in text that a parser or our own encoder made.
#[cfg(any(test, feature = "sqlite"))]
#[inline]
pub(crate) fn end_of_value(json: &[u8], at: usize) -> Option<usize> {
    match json.get(at)? {
        b'"' => end_of_string(json, at),
        b'{' | b'[' => end_of_nested(json, at),
        _ => {
            let mut end = at;
            while end < json.len() && !matches!(json[end], b',' | b'}' | b']' | b' ' | b'\t' | b'\r' | b'\n' | b':') {
                end += 1;
            }
            (end > at).then_some(end)
        }
    }
}

#[cfg(any(test, feature = "sqlite"))]
fn end_of_nested(json: &[u8], at: usize) -> Option<usize> {
    let mut depth = 0usize;
    let mut at = at;
    loop {
        match json.get(at)? {
            b'"' => {
                at = end_of_string(json, at)?;
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => {
                depth -= 1;
                if depth == 0 {
                    return Some(at + 1);
                }
            }
            _ => {}
        }
        at += 1;
    }
}

/// The fields of an object without white space: each key (the raw text between its quotes) with its value's raw text.
/// Stops early where the text is not that.
#[cfg(any(test, feature = "sqlite"))]
#[derive(Debug, Clone)]
pub(crate) struct Fields<'a> {
    json: &'a [u8],
    at: usize,
}

#[cfg(any(test, feature = "sqlite"))]
impl<'a> Fields<'a> {
    /// `None` when `json` is not an object.
    pub(crate) fn of(json: &'a [u8]) -> Option<Self> {
        (json.first() == Some(&b'{')).then_some(Fields { json, at: 1 })
    }
}

#[cfg(any(test, feature = "sqlite"))]
impl<'a> Iterator for Fields<'a> {
    type Item = (&'a [u8], &'a [u8]);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let json = self.json;
        if json.get(self.at) == Some(&b',') {
            self.at += 1;
        }
        if json.get(self.at) != Some(&b'"') {
            return None;
        }
        let key_end = end_of_string(json, self.at)?;
        let key = &json[self.at + 1..key_end - 1];
        if json.get(key_end) != Some(&b':') {
            return None;
        }
        let end = end_of_value(json, key_end + 1)?;
        self.at = end;
        Some((key, &json[key_end + 1..end]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minified(json: &str) -> Result<(String, u32), &'static str> {
        let mut out = Vec::new();
        minify(&mut out, json.as_bytes()).map(|shape| (String::from_utf8(out).unwrap(), shape.depth))
    }

    #[test]
    fn minify_drops_only_the_space_between_tokens() {
        assert_eq!(
            minified("{ \"a b\" : [ 1 ,\n 2.50, \"x \\\" y\" ] }\r\n").unwrap(),
            ("{\"a b\":[1,2.50,\"x \\\" y\"]}".into(), 2)
        );
        assert_eq!(minified(" 1e400 ").unwrap(), ("1e400".into(), 0));
    }

    #[test]
    fn minify_says_what_does_not_match() {
        for bad in ["[", "]", "\"a", "{\"a\":[}", "\"\\\""] {
            assert!(minified(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn fields_gives_raw_keys_and_values_and_stops_at_the_end() {
        let line = br#"{"a":{"x":[1,"}"]},"b\"":"q\"\\","c":-1e5,"d":null,"e":[]}"#;
        let fields: Vec<_> =
            Fields::of(line).unwrap().map(|(k, v)| (std::str::from_utf8(k).unwrap(), std::str::from_utf8(v).unwrap())).collect();
        assert_eq!(fields, [("a", r#"{"x":[1,"}"]}"#), (r#"b\""#, r#""q\"\\""#), ("c", "-1e5"), ("d", "null"), ("e", "[]")]);
    }

    #[test]
    fn fields_never_panics_on_a_torn_line() {
        let line = br#"{"a":{"x":[1,"}"]},"b\"":"q\"\\","c":-1e5,"d":null,"e":[]}"#;
        for end in 0..line.len() {
            Fields::of(&line[..end]).into_iter().flatten().count();
        }
    }
}
