//! A strict JSON scanner (RFC 8259) over one line. It borrows, never recurses, and accepts exactly what serde_json accepts as a raw value.

use super::chunk::{self, CHUNK};
use super::number::{self, Number};

/// Where a line stops being JSON, and what would have been valid there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Syntax {
    pub at: usize,
    pub expected: &'static str,
}

/// The inside of a JSON string as it is written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RawStr<'a> {
    pub raw: &'a str,
    /// Whether it has escapes, so that the text differs from `raw`.
    pub escaped: bool,
}

/// What [`Cursor::skip_value`] went past.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Skipped {
    pub null: bool,
    /// The fewest containers around a value that is a string, number or boolean; `None` when there is none.
    pub scalar_depth: Option<usize>,
}

pub(crate) struct Cursor<'a> {
    text: &'a str,
    pub pos: usize,
}

/// The first byte from `at` on that ends a plain run of a string: a quote, a backslash or a control character; the length if there is none.
#[inline(always)]
fn run_end(bytes: &[u8], mut at: usize) -> usize {
    while let Some(chunk) = bytes.get(at..).and_then(|rest| rest.first_chunk::<CHUNK>()) {
        let ends = chunk::string_ends(chunk);
        if ends != 0 {
            return at + ends.trailing_zeros() as usize;
        }
        at += CHUNK;
    }
    while let Some(byte) = bytes.get(at) {
        if matches!(byte, b'"' | b'\\' | 0..0x20) {
            break;
        }
        at += 1;
    }
    at
}

/// Where the string without escapes ends whose text starts at `at`, behind its quote. `None` for any other string.
#[inline(always)]
pub(crate) fn plain_end(line: &[u8], at: usize) -> Option<usize> {
    let end = run_end(line, at);
    (line.get(end) == Some(&b'"')).then_some(end + 1)
}

/// The `true` or `false` at `at`, and where it ends. Without a branch between the two: which comes is seldom to be guessed.
#[inline(always)]
pub(crate) fn plain_bool(line: &[u8], at: usize) -> Option<(bool, usize)> {
    let word = u32::from_le_bytes(*line.get(at..)?.first_chunk()?);
    let is_true = word == u32::from_le_bytes(*b"true");
    let is_false = (word == u32::from_le_bytes(*b"fals")) & (line.get(at + 4) == Some(&b'e'));
    (is_true | is_false).then_some((is_true, at + 4 + usize::from(is_false)))
}

impl<'a> Cursor<'a> {
    #[inline(always)]
    pub fn new(text: &'a str) -> Self {
        Cursor { text, pos: 0 }
    }

    #[inline(always)]
    pub fn text(&self) -> &'a str {
        self.text
    }

    #[inline(always)]
    pub fn bytes(&self) -> &'a [u8] {
        self.text.as_bytes()
    }

    #[inline]
    pub fn rest(&self) -> &'a [u8] {
        // `pos` never passes the end: every step follows a byte that was there.
        self.text.as_bytes().get(self.pos..).unwrap_or_default()
    }

    /// The text from `start` to here. Both must be at a character's start, as all tokens are.
    #[inline]
    pub fn since(&self, start: usize) -> &'a str {
        self.text.get(start..self.pos).unwrap_or_default()
    }

    #[inline]
    pub fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.pos).copied()
    }

    #[inline]
    pub fn skip_space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.pos += 1;
        }
    }

    /// Goes past these bytes if they come next.
    #[inline]
    pub fn eat(&mut self, expected: &[u8]) -> bool {
        let found = self.rest().starts_with(expected);
        if found {
            self.pos += expected.len();
        }
        found
    }

    #[inline]
    pub fn eat_byte(&mut self, expected: u8) -> bool {
        let found = self.peek() == Some(expected);
        self.pos += usize::from(found);
        found
    }

    #[cold]
    pub fn error(&self, expected: &'static str) -> Syntax {
        Syntax { at: self.pos, expected }
    }

    /// Enters a container whose opening byte is at the cursor. Returns false, past its end, when it is empty.
    #[inline]
    pub fn enter(&mut self, close: u8) -> bool {
        self.pos += 1;
        self.skip_space();
        !self.eat_byte(close)
    }

    /// After an item: true at the next item (the comma is passed), false past the container's end.
    #[inline]
    pub fn more(&mut self, close: u8, expected: &'static str) -> Result<bool, Syntax> {
        loop {
            match self.peek() {
                Some(b',') => {
                    self.pos += 1;
                    self.skip_space();
                    return Ok(true);
                }
                Some(byte) if byte == close => {
                    self.pos += 1;
                    return Ok(false);
                }
                Some(b' ' | b'\t' | b'\n' | b'\r') => self.pos += 1,
                _ => return Err(self.error(expected)),
            }
        }
    }

    /// A key and its colon; the cursor ends at the value.
    pub fn key(&mut self) -> Result<RawStr<'a>, Syntax> {
        if self.peek() != Some(b'"') {
            return Err(self.error("a key in quotes"));
        }
        let key = self.string()?;
        self.skip_space();
        if !self.eat_byte(b':') {
            return Err(self.error("':'"));
        }
        self.skip_space();
        Ok(key)
    }

    /// A string whose opening quote is at the cursor.
    #[inline(always)]
    pub fn string(&mut self) -> Result<RawStr<'a>, Syntax> {
        let bytes = self.bytes();
        let start = self.pos + 1;
        let mut at = run_end(bytes, start);
        let mut escaped = false;
        while bytes.get(at) != Some(&b'"') {
            escaped = true;
            at = run_end(bytes, self.escape_end(at)?);
        }
        self.pos = at + 1;
        // Quotes are ASCII, so the text between two of them is on character boundaries.
        Ok(RawStr { raw: self.text.get(start..at).unwrap_or_default(), escaped })
    }

    /// The end of the escape that starts at `at`.
    #[cold]
    fn escape_end(&mut self, at: usize) -> Result<usize, Syntax> {
        self.pos = at;
        let rest = self.rest();
        match (rest.first(), rest.get(1)) {
            (Some(b'\\'), Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't')) => Ok(at + 2),
            (Some(b'\\'), Some(b'u')) if rest.len() >= 6 && rest[2..6].iter().all(u8::is_ascii_hexdigit) => Ok(at + 6),
            (Some(b'\\'), Some(_)) => Err(self.error("an escape of JSON")),
            (Some(_), _) if rest.first() != Some(&b'\\') => Err(self.error("no bare control character in a string")),
            _ => {
                self.pos = self.text.len();
                Err(self.error("the end of a string"))
            }
        }
    }

    /// A number whose first byte (a digit or `-`) is at the cursor, and its text.
    #[inline(always)]
    pub fn number(&mut self) -> Result<(Number, &'a [u8]), Syntax> {
        let rest = self.rest();
        match number::scan(rest) {
            Ok((number, len)) => {
                self.pos += len;
                Ok((number, rest.get(..len).unwrap_or_default()))
            }
            Err(len) => {
                self.pos += len;
                Err(self.error("a digit"))
            }
        }
    }

    /// `null`, `true` or `false`.
    pub fn literal(&mut self) -> Result<Option<bool>, Syntax> {
        if self.eat(b"null") {
            Ok(None)
        } else if self.eat(b"true") {
            Ok(Some(true))
        } else if self.eat(b"false") {
            Ok(Some(false))
        } else {
            Err(self.error("a value"))
        }
    }

    /// Goes past a value of any depth, checking all of it. The stack of open containers is on the heap, a byte a level.
    pub fn skip_value(&mut self) -> Result<Skipped, Syntax> {
        let mut open: Vec<u8> = Vec::new();
        let mut skipped = Skipped { null: false, scalar_depth: None };
        loop {
            match self.peek() {
                Some(bracket @ (b'{' | b'[')) => {
                    // In ASCII, '}' is '{' + 2, and ']' is '[' + 2.
                    let close = bracket + 2;
                    if self.enter(close) {
                        open.push(close);
                        if close == b'}' {
                            self.key()?;
                        }
                        continue;
                    }
                }
                Some(byte) => {
                    let null = match byte {
                        b'"' => self.string().map(|_| false)?,
                        b'-' | b'0'..=b'9' => self.number().map(|_| false)?,
                        _ => self.literal()?.is_none(),
                    };
                    if !null && skipped.scalar_depth.is_none_or(|depth| open.len() < depth) {
                        skipped.scalar_depth = Some(open.len());
                    }
                    skipped.null = null && open.is_empty();
                }
                None => return Err(self.error("a value")),
            }
            loop {
                let Some(&close) = open.last() else {
                    return Ok(skipped);
                };
                if self.more(close, "',' or the end of an array or object")? {
                    if close == b'}' {
                        self.key()?;
                    }
                    break;
                }
                open.pop();
            }
        }
    }
}

/// Appends the text that a JSON string denotes. Returns false if it has a lone surrogate, which no UTF-8 can hold (U+FFFD stands in for it).
pub(crate) fn unescape(raw: &str, out: &mut String) -> bool {
    let mut exact = true;
    let mut rest = raw;
    while let Some(at) = memchr::memchr(b'\\', rest.as_bytes()) {
        out.push_str(&rest[..at]);
        let escape = rest.as_bytes().get(at + 1).copied().unwrap_or(b'\\');
        let mut len = 2;
        out.push(match escape {
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                len = 6;
                let unit = hex_unit(rest, at);
                let next = if (0xd800..0xdc00).contains(&unit) { hex_unit(rest, at + 6) } else { 0 };
                if (0xdc00..0xe000).contains(&next) {
                    len = 12;
                    char::from_u32(0x10000 + ((unit - 0xd800) << 10) + (next - 0xdc00)).unwrap_or('\u{fffd}')
                } else {
                    exact &= char::from_u32(unit).is_some();
                    char::from_u32(unit).unwrap_or('\u{fffd}')
                }
            }
            other => char::from(other),
        });
        rest = rest.get(at + len..).unwrap_or_default();
    }
    out.push_str(rest);
    exact
}

/// The code unit of a `\uXXXX` at `at`; 0 if there is none.
fn hex_unit(text: &str, at: usize) -> u32 {
    let digits = text.get(at..at + 6).and_then(|escape| escape.strip_prefix("\\u"));
    digits.and_then(|digits| u32::from_str_radix(digits, 16).ok()).unwrap_or(0)
}
