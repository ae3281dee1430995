//! The `metadata` column: a map of strings.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::{MapArray, StructArray};
use arrow_buffer::OffsetBuffer;
use arrow_schema::{ArrowError, DataType, Field, Fields};

use super::scan::{Cursor, Syntax};
use super::values::{Nulls, Texts};

#[derive(Debug)]
pub(crate) struct Metadata {
    keys: Texts,
    values: Texts,
    offsets: Vec<i32>,
    nulls: Nulls,
}

/// The names inside a map, as the Parquet format gives them.
fn entry_fields() -> Fields {
    Fields::from(vec![Field::new("key", DataType::Utf8, false), Field::new("value", DataType::Utf8, true)])
}

fn entries_field() -> Arc<Field> {
    Arc::new(Field::new("key_value", DataType::Struct(entry_fields()), false))
}

/// The type of the column.
pub(crate) fn data_type() -> DataType {
    DataType::Map(entries_field(), false)
}

/// Appends the value at the cursor as text: a string as it is, anything else but null as its JSON.
#[inline]
pub(crate) fn push_as_text(texts: &mut Texts, cursor: &mut Cursor<'_>) -> Result<(), Syntax> {
    if cursor.peek() == Some(b'"') {
        // A lone surrogate becomes U+FFFD.
        let text = cursor.string()?;
        texts.push_raw(&text);
        return Ok(());
    }
    let start = cursor.pos;
    if cursor.skip_value()?.null {
        texts.push_null();
    } else {
        texts.push(cursor.since(start));
    }
    Ok(())
}

impl Metadata {
    pub fn new() -> Self {
        Metadata { keys: Texts::new(), values: Texts::new(), offsets: vec![0], nulls: Nulls::default() }
    }

    #[inline]
    pub fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    fn push_null(&mut self) {
        self.nulls.push(self.len(), self.len() + 1);
        self.offsets.push(self.keys.len() as i32);
    }

    /// Cuts back to so many rows, and drops what an unfinished row left behind, or makes up for those that had no value.
    #[inline(never)]
    pub fn resize(&mut self, rows: usize) {
        let len = self.len();
        self.offsets.truncate(rows + 1);
        let entries = self.row_start();
        self.keys.resize(entries);
        self.values.resize(entries);
        self.offsets.resize(rows + 1, entries as i32);
        if rows < len { self.nulls.truncate(rows) } else { self.nulls.push(len, rows) }
    }

    /// The first entry of the row that is being decoded.
    fn row_start(&self) -> usize {
        self.offsets.last().copied().unwrap_or(0) as usize
    }

    /// Decodes the value at the cursor as the next row's. Of two values under one key the last counts; what is no object becomes null.
    pub fn decode(&mut self, cursor: &mut Cursor<'_>) -> Result<(), Syntax> {
        if cursor.peek() != Some(b'{') {
            cursor.skip_value()?;
            self.push_null();
            return Ok(());
        }
        if cursor.enter(b'}') {
            loop {
                let key = cursor.key()?;
                self.keys.push_raw(&key);
                push_as_text(&mut self.values, cursor)?;
                if !cursor.more(b'}', "',' or '}'")? {
                    break;
                }
            }
        }
        self.drop_duplicates();
        // Entries are fewer than the batch's bytes, which the decoder keeps within i32.
        self.offsets.push(self.keys.len() as i32);
        Ok(())
    }

    /// Readers refuse a map that has a key twice.
    fn drop_duplicates(&mut self) {
        let (start, end) = (self.row_start(), self.keys.len());
        if end - start < 2 {
            return;
        }
        let mut entries: Vec<(&str, Option<&str>)> = Vec::with_capacity(end - start);
        let mut index = HashMap::with_capacity(end - start);
        for at in start..end {
            let (key, value) = (self.keys.get(at).unwrap_or_default(), self.values.get(at));
            match index.insert(key, entries.len()) {
                None => entries.push((key, value)),
                Some(earlier) => {
                    entries[earlier] = (key, value);
                    index.insert(key, earlier);
                }
            }
        }
        if entries.len() == end - start {
            return;
        }
        let kept: Vec<(String, Option<String>)> =
            entries.into_iter().map(|(key, value)| (key.to_owned(), value.map(str::to_owned))).collect();
        self.keys.resize(start);
        self.values.resize(start);
        for (key, value) in kept {
            self.keys.push(&key);
            match value {
                Some(value) => self.values.push(&value),
                None => self.values.push_null(),
            }
        }
    }

    pub fn finish(&mut self) -> Result<MapArray, ArrowError> {
        let valid = self.nulls.finish(self.len());
        let (keys, values) = (self.keys.finish()?, self.values.finish()?);
        let entries = StructArray::try_new(entry_fields(), vec![Arc::new(keys), Arc::new(values)], None)?;
        let offsets = std::mem::replace(&mut self.offsets, vec![0]);
        MapArray::try_new(entries_field(), OffsetBuffer::new(offsets.into()), entries, valid, false)
    }
}
