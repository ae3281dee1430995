//! Keys of an object, found by predicting that they come in the order of the row before.

use std::collections::HashMap;

use super::scan::{Cursor, Syntax, unescape};

#[derive(Debug)]
struct Key {
    pattern: Pattern,
    /// The key that came after this one the last time.
    next: usize,
}

/// A key as encoders write it, with quotes and colon: `"age":`.
#[derive(Debug)]
struct Pattern {
    text: Box<[u8]>,
    /// The first and the last eight bytes of it; they overlap when it is shorter than sixteen.
    head: u64,
    tail: u64,
    /// The bits of `head` that count.
    mask: u64,
}

#[inline]
fn word(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()).map(|chunk| u64::from_le_bytes(*chunk))
}

impl Pattern {
    fn new(text: Vec<u8>) -> Self {
        let text = text.into_boxed_slice();
        let mut padded = [0; 8];
        let len = text.len().min(8);
        padded[..len].copy_from_slice(&text[..len]);
        let tail = word(&text, text.len().saturating_sub(8)).unwrap_or(0);
        Pattern { head: u64::from_le_bytes(padded), tail, mask: u64::MAX >> (64 - 8 * len), text }
    }

    /// Whether `bytes` start with this: for the usual short keys two loads, without a call.
    #[inline(always)]
    fn starts(&self, bytes: &[u8]) -> bool {
        let len = self.text.len();
        match word(bytes, 0) {
            Some(head) if (head ^ self.head) & self.mask != 0 => false,
            Some(_) if len <= 8 => true,
            Some(_) if len <= 16 => word(bytes, len - 8) == Some(self.tail),
            _ => bytes.starts_with(&self.text),
        }
    }
}

/// The known keys of an object, by index.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    keys: Vec<Key>,
    index: HashMap<Box<str>, usize, foldhash::fast::RandomState>,
    first: usize,
}

/// A key that was read.
pub(crate) enum Found {
    Known(usize),
    /// Not one of the known; its text is in the scratch string.
    Unknown,
    /// It has a lone surrogate, so it is no text.
    Unnameable,
}

impl Keys {
    pub fn new<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let mut keys = Keys::default();
        for name in names {
            keys.push(name);
        }
        keys
    }

    /// Adds a key and returns its index.
    pub fn push(&mut self, name: &str) -> usize {
        let at = self.keys.len();
        // A key is written to a String: it cannot fail. An empty pattern would match everywhere, so it would have to be a quote at least.
        let quoted = serde_json::to_string(name).unwrap_or_else(|_| "\"".to_owned());
        self.keys.push(Key { pattern: Pattern::new(format!("{quoted}:").into_bytes()), next: at + 1 });
        self.index.insert(name.into(), at);
        at
    }

    /// From now on this key is none of the known.
    pub fn forget(&mut self, at: usize) {
        // No UTF-8 has this byte.
        self.keys[at].pattern = Pattern::new(vec![0xff]);
        self.index.retain(|_, index| *index != at);
    }

    /// If the key at `at` is the one that is predicted after `previous`: its index, and where its value starts, or white space before it.
    #[inline(always)]
    pub fn predicted(&self, previous: Option<usize>, line: &[u8], at: usize) -> Option<(usize, usize)> {
        let predicted = previous.map_or(self.first, |at| self.keys[at].next);
        let pattern = &self.keys.get(predicted)?.pattern;
        pattern.starts(line.get(at..)?).then(|| (predicted, at + pattern.text.len()))
    }

    /// Reads the next key and its colon; the cursor ends at the value.
    #[inline(always)]
    pub fn read(&mut self, previous: Option<usize>, cursor: &mut Cursor<'_>, scratch: &mut String) -> Result<Found, Syntax> {
        if let Some((key, value)) = self.predicted(previous, cursor.bytes(), cursor.pos) {
            cursor.pos = value;
            cursor.skip_space();
            return Ok(Found::Known(key));
        }
        self.look_up(previous, cursor, scratch)
    }

    /// As [`read`](Self::read), for a key that was not predicted.
    #[inline(never)]
    pub fn look_up(&mut self, previous: Option<usize>, cursor: &mut Cursor<'_>, scratch: &mut String) -> Result<Found, Syntax> {
        let key = cursor.key()?;
        let found = if key.escaped {
            scratch.clear();
            if !unescape(key.raw, scratch) {
                return Ok(Found::Unnameable);
            }
            self.index.get(scratch.as_str())
        } else {
            self.index.get(key.raw)
        };
        let Some(&at) = found else {
            if !key.escaped {
                scratch.clear();
                scratch.push_str(key.raw);
            }
            return Ok(Found::Unknown);
        };
        match previous {
            Some(previous) => self.keys[previous].next = at,
            None => self.first = at,
        }
        Ok(Found::Known(at))
    }
}
