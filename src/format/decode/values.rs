//! What leaf columns are made of: values of a fixed width, and texts.

use arrow_array::StringArray;
use arrow_buffer::{NullBufferBuilder, OffsetBuffer, ScalarBuffer};
use arrow_schema::ArrowError;

use super::scan::{RawStr, unescape};

/// Values of a fixed width, and which are null.
#[derive(Debug)]
pub(crate) struct Values<T> {
    pub values: Vec<T>,
    pub valid: NullBufferBuilder,
}

impl<T: Copy + Default> Values<T> {
    pub fn new() -> Self {
        Values { values: Vec::new(), valid: NullBufferBuilder::new(0) }
    }

    #[inline]
    pub fn push(&mut self, value: T) {
        self.values.push(value);
        self.valid.append_non_null();
    }

    #[inline]
    pub fn push_null(&mut self) {
        self.values.push(T::default());
        self.valid.append_null();
    }

    pub fn truncate(&mut self, len: usize) {
        self.values.truncate(len);
        self.valid.truncate(len);
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
        self.truncate(rows);
        let missing = rows - self.values.len();
        if missing > 0 {
            self.values.resize(rows, T::default());
            self.valid.append_n_nulls(missing);
        }
    }

    /// The values so far; the room for as many again is kept.
    pub fn take(&mut self) -> (Vec<T>, Option<arrow_buffer::NullBuffer>) {
        let room = Vec::with_capacity(self.values.len());
        (std::mem::replace(&mut self.values, room), self.valid.finish())
    }
}

/// Texts, one after another.
#[derive(Debug)]
pub(crate) struct Texts {
    text: String,
    offsets: Vec<i32>,
    valid: NullBufferBuilder,
}

impl Texts {
    pub fn new() -> Self {
        Texts { text: String::new(), offsets: vec![0], valid: NullBufferBuilder::new(0) }
    }

    #[inline]
    pub fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Ends the value whose text has been appended. The decoder lets no batch grow past i32::MAX bytes.
    #[inline]
    fn end(&mut self) {
        self.offsets.push(self.text.len() as i32);
        self.valid.append_non_null();
    }

    #[inline]
    pub fn push(&mut self, text: &str) {
        self.text.push_str(text);
        self.end();
    }

    #[inline]
    pub fn push_null(&mut self) {
        self.offsets.push(self.text.len() as i32);
        self.valid.append_null();
    }

    /// Appends what a JSON string denotes; false if no text can hold it (U+FFFD stands in).
    #[inline]
    pub fn push_raw(&mut self, text: &RawStr<'_>) -> bool {
        if text.escaped {
            let exact = unescape(text.raw, &mut self.text);
            self.end();
            return exact;
        }
        self.push(text.raw);
        true
    }

    pub fn truncate(&mut self, len: usize) {
        if len < self.len() {
            self.offsets.truncate(len + 1);
            self.valid.truncate(len);
        }
        let end = self.offsets.last().copied().unwrap_or(0) as usize;
        self.text.truncate(end);
    }

    /// Cuts back to so many rows, or makes up for those that had no value.
    #[inline(never)]
    pub fn resize(&mut self, rows: usize) {
        self.truncate(rows);
        let missing = rows - self.len();
        if missing > 0 {
            self.offsets.resize(rows + 1, self.text.len() as i32);
            self.valid.append_n_nulls(missing);
        }
    }

    /// The text at this index; `None` if it is null or there is none.
    pub fn get(&self, at: usize) -> Option<&str> {
        let (start, end) = (*self.offsets.get(at)?, *self.offsets.get(at + 1)?);
        if self.valid.is_valid(at) { self.text.get(start as usize..end as usize) } else { None }
    }

    pub fn finish(&mut self) -> Result<StringArray, ArrowError> {
        let mut offsets = Vec::with_capacity(self.offsets.len());
        offsets.push(0);
        let offsets = std::mem::replace(&mut self.offsets, offsets);
        let room = String::with_capacity(self.text.len());
        let text = std::mem::replace(&mut self.text, room).into_bytes();
        // SAFETY: offsets start at 0, each is the length of `text` at the end of a value, and `text` is only cut back together with them: they
        // rise and end at `text.len()`, which the decoder keeps within i32. Only whole `str`s are appended, so all of it is UTF-8 and each
        // offset is on a character's boundary. There is a bit of validity for each value.
        Ok(unsafe {
            let offsets = OffsetBuffer::new_unchecked(ScalarBuffer::from(offsets));
            StringArray::new_unchecked(offsets, text.into(), self.valid.finish())
        })
    }
}
