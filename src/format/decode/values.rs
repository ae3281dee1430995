//! What leaf columns are made of: values of a fixed width, and texts.

use arrow_array::StringArray;
use arrow_buffer::{BooleanBufferBuilder, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow_schema::ArrowError;

use super::chunk::{self, CHUNK};
use super::scan::{RawStr, unescape};

/// Which values of a column are null, as runs: a value that is none costs nothing.
#[derive(Debug, Default)]
pub(crate) struct Nulls {
    /// First and end, rising and apart from each other.
    runs: Vec<(usize, usize)>,
}

impl Nulls {
    /// The values from `first` to before `end`, which are the last ones, are null.
    #[inline]
    pub fn push(&mut self, first: usize, end: usize) {
        match self.runs.last_mut() {
            Some(run) if run.1 == first => run.1 = end,
            _ if first < end => self.runs.push((first, end)),
            _ => {}
        }
    }

    pub fn truncate(&mut self, len: usize) {
        while let Some(run) = self.runs.last_mut()
            && run.1 > len
        {
            if run.0 < len {
                run.1 = len;
                return;
            }
            self.runs.pop();
        }
    }

    pub fn contains(&self, at: usize) -> bool {
        let run = self.runs.partition_point(|run| run.1 <= at);
        self.runs.get(run).is_some_and(|run| run.0 <= at)
    }

    /// Which of `len` values are none; there are no nulls afterwards.
    pub fn finish(&mut self, len: usize) -> Option<NullBuffer> {
        if self.runs.is_empty() {
            return None;
        }
        let mut valid = BooleanBufferBuilder::new(len);
        for (first, end) in self.runs.drain(..) {
            valid.append_n(first - valid.len(), true);
            valid.append_n(end - first, false);
        }
        valid.append_n(len - valid.len(), true);
        Some(NullBuffer::new(valid.finish()))
    }
}

/// Values of a fixed width, and which are null.
#[derive(Debug)]
pub(crate) struct Values<T> {
    values: Vec<T>,
    nulls: Nulls,
}

impl<T: Copy + Default> Values<T> {
    pub fn new() -> Self {
        Values { values: Vec::new(), nulls: Nulls::default() }
    }

    #[inline]
    pub fn len(&self) -> usize {
        self.values.len()
    }

    #[inline]
    pub fn push(&mut self, value: T) {
        self.values.push(value);
    }

    #[inline]
    pub fn push_null(&mut self) {
        let at = self.values.len();
        self.nulls.push(at, at + 1);
        self.values.push(T::default());
    }

    /// Sets the value of the row after `row` others, in place of one that it may have.
    #[inline]
    pub fn set(&mut self, row: usize, value: Option<T>) {
        if self.values.len() != row {
            self.resize(row);
        }
        match value {
            Some(value) => self.push(value),
            None => self.push_null(),
        }
    }

    /// Cuts back to so many rows, or makes up for those that had no value.
    #[inline(never)]
    pub fn resize(&mut self, rows: usize) {
        let len = self.values.len();
        self.values.resize(rows, T::default());
        if rows < len { self.nulls.truncate(rows) } else { self.nulls.push(len, rows) }
    }

    /// The values so far; the room for as many again is kept.
    pub fn take(&mut self) -> (Vec<T>, Option<NullBuffer>) {
        let room = Vec::with_capacity(self.values.len());
        let nulls = self.nulls.finish(self.values.len());
        (std::mem::replace(&mut self.values, room), nulls)
    }
}

/// Texts, one after another.
#[derive(Debug)]
pub(crate) struct Texts {
    /// UTF-8 up to each offset.
    text: Vec<u8>,
    offsets: Vec<i32>,
    nulls: Nulls,
    /// What an escaped text denotes, until it is with the others.
    scratch: String,
}

impl Texts {
    pub fn new() -> Self {
        Texts { text: Vec::new(), offsets: vec![0], nulls: Nulls::default(), scratch: String::new() }
    }

    #[inline]
    pub fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Ends the value whose text has been appended. The decoder lets no batch grow past i32::MAX bytes.
    #[inline]
    fn end(&mut self) {
        self.offsets.push(self.text.len() as i32);
    }

    #[inline]
    pub fn push(&mut self, text: &str) {
        self.text.extend_from_slice(text.as_bytes());
        self.end();
    }

    #[inline]
    pub fn push_null(&mut self) {
        self.nulls.push(self.len(), self.len() + 1);
        self.end();
    }

    /// Appends what a JSON string denotes; false if no text can hold it (U+FFFD stands in).
    #[inline]
    pub fn push_raw(&mut self, text: &RawStr<'_>) -> bool {
        if text.escaped {
            self.scratch.clear();
            let exact = unescape(text.raw, &mut self.scratch);
            self.text.extend_from_slice(self.scratch.as_bytes());
            self.end();
            return exact;
        }
        self.push(text.raw);
        true
    }

    /// Appends the string without escapes whose text starts at `at`, and returns where it ends, behind its quote. `None`, with nothing appended, for any other
    /// string, and for one that is too near the end of the line.
    ///
    /// The text is copied as it is looked through, and what is behind it cut off again.
    #[inline(always)]
    pub fn push_plain(&mut self, line: &str, mut at: usize) -> Option<usize> {
        let start = self.text.len();
        while let Some(chunk) = line.as_bytes().get(at..).and_then(|rest| rest.first_chunk::<CHUNK>()) {
            self.text.extend_from_slice(chunk);
            let ends = chunk::string_ends(chunk);
            if ends == 0 {
                at += CHUNK;
                continue;
            }
            let len = ends.trailing_zeros() as usize;
            if chunk[len] != b'"' {
                break;
            }
            self.text.truncate(self.text.len() - CHUNK + len);
            self.end();
            return Some(at + len + 1);
        }
        self.text.truncate(start);
        None
    }

    /// Cuts back to so many rows, or makes up for those that had no value.
    #[inline(never)]
    pub fn resize(&mut self, rows: usize) {
        if rows < self.len() {
            self.offsets.truncate(rows + 1);
            self.nulls.truncate(rows);
            self.text.truncate(self.offsets.last().copied().unwrap_or(0) as usize);
        } else {
            self.nulls.push(self.len(), rows);
            self.offsets.resize(rows + 1, self.text.len() as i32);
        }
    }

    /// The text at this index; `None` if it is null or there is none.
    pub fn get(&self, at: usize) -> Option<&str> {
        let (start, end) = (*self.offsets.get(at)?, *self.offsets.get(at + 1)?);
        let text = self.text.get(start as usize..end as usize).filter(|_| !self.nulls.contains(at))?;
        std::str::from_utf8(text).ok()
    }

    pub fn finish(&mut self) -> Result<StringArray, ArrowError> {
        let valid = self.nulls.finish(self.len());
        let mut offsets = Vec::with_capacity(self.offsets.len());
        offsets.push(0);
        let offsets = std::mem::replace(&mut self.offsets, offsets);
        let room = Vec::with_capacity(self.text.len());
        let text = std::mem::replace(&mut self.text, room);
        // SAFETY: offsets start at 0, each is the length of `text` at the end of a value, and `text` is only cut back together with them: they
        // rise and end at `text.len()`, which the decoder keeps within i32. A value is a whole `str`, or (`push_plain`) the bytes of one from behind a
        // quote to before a quote, both of them ASCII: so all of it is UTF-8, and each offset is on a character's boundary. There is a bit of
        // validity for each value.
        Ok(unsafe {
            let offsets = OffsetBuffer::new_unchecked(ScalarBuffer::from(offsets));
            StringArray::new_unchecked(offsets, text.into(), valid)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nulls_are_where_they_were_put() {
        let mut random = fastrand::Rng::with_seed(5);
        for _ in 0..2_000 {
            let (mut nulls, mut want) = (Nulls::default(), Vec::new());
            for _ in 0..random.usize(..40) {
                match random.u8(..4) {
                    0 => want.push(true),
                    1 => {
                        nulls.push(want.len(), want.len() + 1);
                        want.push(false);
                    }
                    2 => {
                        let more = random.usize(..70);
                        nulls.push(want.len(), want.len() + more);
                        want.resize(want.len() + more, false);
                    }
                    _ => {
                        want.truncate(random.usize(..=want.len()));
                        nulls.truncate(want.len());
                    }
                }
            }
            let told: Vec<bool> = (0..want.len()).map(|at| !nulls.contains(at)).collect();
            assert_eq!(told, want);
            let valid = nulls.finish(want.len());
            assert_eq!(valid.is_some(), want.contains(&false));
            assert!(valid.is_none_or(|valid| valid.iter().collect::<Vec<bool>>() == want));
        }
    }

    #[test]
    fn a_plain_string_ends_at_its_quote_at_any_length() {
        for len in 0..70 {
            for (end, plain) in [("\"", true), ("\\n\"", false), ("\u{1}\"", false), ("", false)] {
                let text = "é".repeat(len / 2) + &"x".repeat(len % 2);
                let line = format!("\"{text}{end}, and what comes behind it");
                let mut texts = Texts::new();
                texts.push("before");
                let found = texts.push_plain(&line, 1);
                assert_eq!(found, plain.then_some(text.len() + 2), "{line}");
                texts.push("behind");
                let array = texts.finish().expect("texts");
                let found: Vec<&str> = array.iter().flatten().collect();
                let want = ["before", &text, "behind"];
                assert_eq!(found, if plain { &want[..] } else { &["before", "behind"] });
            }
        }
    }
}
