//! Typed columns that JSON values are decoded into, without a step between.
//!
//! A column takes one value a row. A value that it does not hold exactly becomes null (or the nearest it can hold) and clears
//! [`Context::exact`]. Rows that had no value for it are made up for when the next one comes, or at the end. Any column can be cut back to a number of
//! rows, which undoes a row that turns out to be no JSON, and the earlier of two values under one key.
//!
//! Nearly all values are of their column's type and have no escapes, exponents or white space. Those are read by [`Column::decode_usual`], which is
//! part of the loop over an object's fields and keeps the place in the line in a register; all others go through a [`Cursor`].

use std::collections::HashSet;
use std::sync::Arc;

use arrow_array::{ArrayRef, BooleanArray, Float64Array, Int64Array, ListArray, StructArray};
use arrow_buffer::{BooleanBuffer, OffsetBuffer};
use arrow_schema::{ArrowError, DataType, Field as ArrowField, Fields};

use super::keys::{Found, Keys};
use super::number;
use super::scan::{Cursor, RawStr, Syntax, plain_bool};
use super::values::{Nulls, Texts, Values};
use crate::format::schema::{ColumnType, Field, MAX_DEPTH, name_is_usable};

/// What is known of the row that is being decoded.
#[derive(Debug, Default)]
pub(crate) struct Context {
    /// Whether the columns hold all that was read since this was set.
    pub exact: bool,
    /// Whether a value was met that a schema inferred anew would have a column for.
    pub new_field: bool,
    pub scratch: String,
}

/// The double that a sentinel string stands for.
#[inline]
pub(crate) fn sentinel(text: &RawStr<'_>) -> Option<f64> {
    match text.raw {
        "NaN" => Some(f64::NAN),
        "Infinity" => Some(f64::INFINITY),
        "-Infinity" => Some(f64::NEG_INFINITY),
        _ => None,
    }
}

/// Lists, their elements one after another.
#[derive(Debug)]
pub(crate) struct Lists {
    element: Column,
    offsets: Vec<i32>,
    nulls: Nulls,
}

/// Objects: a column for each known key.
#[derive(Debug)]
pub(crate) struct Structs {
    keys: Keys,
    /// Siblings' names in lower case: see [`crate::format::schema::ModelSchema::merge`].
    taken: HashSet<String>,
    columns: Vec<Column>,
    len: usize,
    nulls: Nulls,
    fields: Fields,
    depth: usize,
}

#[derive(Debug)]
pub(crate) enum Column {
    Bool(Values<bool>),
    Int(Values<i64>),
    Double(Values<f64>),
    Text(Texts),
    List(Box<Lists>),
    Struct(Box<Structs>),
}

impl Column {
    /// A column for a settled type; `None` if nothing in it is. `depth` containers enclose its values.
    pub fn new(kind: &ColumnType, depth: usize) -> Option<Column> {
        Some(match kind {
            ColumnType::Unknown | ColumnType::Foreign => return None,
            ColumnType::Bool => Column::Bool(Values::new()),
            ColumnType::Int64 => Column::Int(Values::new()),
            ColumnType::Double => Column::Double(Values::new()),
            ColumnType::String => Column::Text(Texts::new()),
            ColumnType::List(element) => Column::List(Box::new(Lists {
                element: Column::new(element, depth + 1)?,
                offsets: vec![0],
                nulls: Nulls::default(),
            })),
            ColumnType::Struct(fields) => Column::Struct(Box::new(Structs::new(fields, depth + 1)?)),
        })
    }

    #[inline]
    fn len(&self) -> usize {
        match self {
            Column::Bool(values) => values.len(),
            Column::Int(values) => values.len(),
            Column::Double(values) => values.len(),
            Column::Text(texts) => texts.len(),
            Column::List(lists) => lists.offsets.len() - 1,
            Column::Struct(structs) => structs.len,
        }
    }

    fn push_null(&mut self) {
        match self {
            Column::Bool(values) => values.push_null(),
            Column::Int(values) => values.push_null(),
            Column::Double(values) => values.push_null(),
            Column::Text(texts) => texts.push_null(),
            Column::List(lists) => lists.resize(lists.offsets.len()),
            Column::Struct(structs) => structs.resize(structs.len + 1),
        }
    }

    /// Cuts back to so many values, and drops what an unfinished one left behind, or makes up for those that did not come.
    pub fn resize(&mut self, rows: usize) {
        match self {
            Column::Bool(values) => values.resize(rows),
            Column::Int(values) => values.resize(rows),
            Column::Double(values) => values.resize(rows),
            Column::Text(texts) => texts.resize(rows),
            Column::List(lists) => lists.resize(rows),
            Column::Struct(structs) => structs.resize(rows),
        }
    }

    /// Decodes a value of the usual form at `at` as that of the row after `row` others, and returns where it ends. `None`, with nothing done, for any other
    /// value, and where the column has more or fewer rows.
    #[inline(always)]
    fn decode_usual(&mut self, row: usize, line: &str, at: usize) -> Option<usize> {
        let bytes = line.as_bytes();
        match self {
            Column::Double(values) if values.len() == row => {
                let (value, end) = match number::short(bytes, at) {
                    Some(number) => (number.as_f64(), number.end),
                    None => number::long(bytes, at)?,
                };
                values.push(value);
                Some(end)
            }
            Column::Int(values) if values.len() == row => {
                let number = number::short(bytes, at)?;
                values.push(number.as_i64()?);
                Some(number.end)
            }
            Column::Text(texts) if texts.len() == row && bytes.get(at) == Some(&b'"') => texts.push_plain(line, at + 1),
            Column::Bool(values) if values.len() == row => {
                let (value, end) = plain_bool(bytes, at)?;
                values.push(value);
                Some(end)
            }
            _ => None,
        }
    }

    /// Decodes the value at the cursor as that of the row after `row` others.
    #[inline(never)]
    fn decode(&mut self, row: usize, cursor: &mut Cursor<'_>, context: &mut Context) -> Result<(), Syntax> {
        let len = self.len();
        if len != row {
            // Of two values under one key the last counts.
            context.exact &= len < row;
            self.resize(row);
        }
        if cursor.eat(b"null") {
            self.push_null();
            return Ok(());
        }
        match (&mut *self, cursor.peek()) {
            (Column::Double(values), Some(b'-' | b'0'..=b'9')) => {
                let (number, text) = cursor.number()?;
                let (value, exact) = number.as_f64(text);
                if value.is_finite() {
                    values.push(value);
                } else {
                    values.push_null();
                }
                context.exact &= exact;
            }
            (Column::Int(values), Some(b'-' | b'0'..=b'9')) => {
                let (number, text) = cursor.number()?;
                match number.as_i64(text) {
                    Some(value) => values.push(value),
                    None => {
                        values.push_null();
                        context.exact = false;
                    }
                }
            }
            (Column::Text(texts), Some(b'"')) => {
                let text = cursor.string()?;
                if !texts.push_raw(&text) {
                    texts.resize(row);
                    texts.push_null();
                    context.exact = false;
                }
            }
            (Column::Bool(values), Some(b't' | b'f')) => {
                let value = cursor.literal()?;
                values.push(value == Some(true));
            }
            (Column::Struct(structs), Some(b'{')) => structs.decode(cursor, context)?,
            (Column::List(lists), Some(b'[')) => lists.decode(cursor, context)?,
            _ => self.misfit(cursor, context)?,
        }
        Ok(())
    }

    /// A value that is not of the column's type: null, but for a double that is written as a sentinel.
    #[inline(never)]
    fn misfit(&mut self, cursor: &mut Cursor<'_>, context: &mut Context) -> Result<(), Syntax> {
        if let (Column::Double(values), Some(b'"')) = (&mut *self, cursor.peek()) {
            match sentinel(&cursor.string()?) {
                Some(value) => values.push(value),
                None => {
                    values.push_null();
                    context.exact = false;
                }
            }
            return Ok(());
        }
        let null = cursor.skip_value()?.null;
        context.exact &= null;
        self.push_null();
        Ok(())
    }

    /// The values so far as an array of the type that [`ColumnType::arrow`] gives. The column is empty afterwards.
    pub fn finish(&mut self) -> Result<ArrayRef, ArrowError> {
        Ok(match self {
            Column::Bool(values) => {
                let (values, valid) = values.take();
                Arc::new(BooleanArray::new(BooleanBuffer::collect_bool(values.len(), |at| values[at]), valid))
            }
            Column::Int(values) => {
                let (values, valid) = values.take();
                Arc::new(Int64Array::try_new(values.into(), valid)?)
            }
            Column::Double(values) => {
                let (values, valid) = values.take();
                Arc::new(Float64Array::try_new(values.into(), valid)?)
            }
            Column::Text(texts) => Arc::new(texts.finish()?),
            Column::List(lists) => lists.finish()?,
            Column::Struct(structs) => structs.finish()?,
        })
    }
}

impl Lists {
    fn decode(&mut self, cursor: &mut Cursor<'_>, context: &mut Context) -> Result<(), Syntax> {
        if cursor.enter(b']') {
            let mut row = self.element.len();
            loop {
                match self.element.decode_usual(row, cursor.text(), cursor.pos) {
                    Some(end) => cursor.pos = end,
                    None => self.element.decode(row, cursor, context)?,
                }
                row += 1;
                if !cursor.more(b']', "',' or ']'")? {
                    break;
                }
            }
        }
        // Elements are fewer than the batch's bytes, which the decoder keeps within i32.
        self.offsets.push(self.element.len() as i32);
        Ok(())
    }

    fn resize(&mut self, rows: usize) {
        let len = self.offsets.len() - 1;
        self.offsets.truncate(rows + 1);
        let elements = self.offsets.last().copied().unwrap_or(0);
        self.element.resize(elements as usize);
        self.offsets.resize(rows + 1, elements);
        if rows < len { self.nulls.truncate(rows) } else { self.nulls.push(len, rows) }
    }

    fn finish(&mut self) -> Result<ArrayRef, ArrowError> {
        let valid = self.nulls.finish(self.offsets.len() - 1);
        let elements = self.element.finish()?;
        let offsets = std::mem::replace(&mut self.offsets, vec![0]);
        let field = Arc::new(ArrowField::new("element", elements.data_type().clone(), true));
        Ok(Arc::new(ListArray::try_new(field, OffsetBuffer::new(offsets.into()), elements, valid)?))
    }
}

impl Structs {
    /// Columns for the settled fields; `None` if there are none. `depth` containers enclose the fields' values.
    pub fn new(fields: &[Field], depth: usize) -> Option<Structs> {
        let settled: Vec<&Field> = fields.iter().filter(|field| field.kind.is_known()).collect();
        let columns: Vec<Column> = settled.iter().filter_map(|field| Column::new(&field.kind, depth)).collect();
        let Some(DataType::Struct(arrow)) = ColumnType::Struct(fields.to_vec()).arrow() else {
            return None;
        };
        Some(Structs {
            keys: Keys::new(settled.iter().map(|field| field.name.as_str())),
            taken: fields.iter().filter(|field| field.kind.is_settled()).map(|field| field.name.to_lowercase()).collect(),
            columns,
            len: 0,
            nulls: Nulls::default(),
            fields: arrow,
            depth,
        })
    }

    /// Keeps a column for bare values: an object's key of that name is unknown.
    pub fn reserving(mut self, column: Option<usize>) -> Self {
        if let Some(column) = column {
            self.keys.forget(column);
        }
        self
    }

    /// Cuts back to so many rows, and drops what an unfinished one left behind, or adds rows without an object.
    pub fn resize(&mut self, rows: usize) {
        if rows <= self.len {
            self.nulls.truncate(rows);
            // Shorter ones have nothing to drop.
            self.columns.iter_mut().filter(|column| column.len() >= rows).for_each(|column| column.resize(rows));
        } else {
            self.nulls.push(self.len, rows);
        }
        self.len = rows;
    }

    /// Adds rows without an object, if there are fewer than these.
    #[inline]
    pub fn make_up(&mut self, rows: usize) {
        if self.len != rows {
            self.resize(rows);
        }
    }

    /// Decodes the object at the cursor.
    pub fn decode(&mut self, cursor: &mut Cursor<'_>, context: &mut Context) -> Result<(), Syntax> {
        let row = self.len;
        let mut previous = None;
        if cursor.enter(b'}') {
            let (line, mut at) = (cursor.text(), cursor.pos);
            loop {
                let usual = self.keys.predicted(previous, line.as_bytes(), at);
                match usual.and_then(|(key, value)| Some((key, self.columns.get_mut(key)?.decode_usual(row, line, value)?))) {
                    Some((key, end)) => (previous, at) = (Some(key), end),
                    None => {
                        cursor.pos = at;
                        previous = self.decode_field(previous, cursor, context)?;
                        at = cursor.pos;
                    }
                }
                match line.as_bytes().get(at..at + 2) {
                    Some(b",\"") => at += 1,
                    _ => {
                        cursor.pos = at;
                        if !cursor.more(b'}', "',' or '}'")? {
                            break;
                        }
                        at = cursor.pos;
                    }
                }
            }
        }
        self.len += 1;
        Ok(())
    }

    /// Decodes the field at the cursor, whatever it is. Returns the key before the next one.
    #[inline(never)]
    fn decode_field(
        &mut self,
        previous: Option<usize>,
        cursor: &mut Cursor<'_>,
        context: &mut Context,
    ) -> Result<Option<usize>, Syntax> {
        match self.keys.read(previous, cursor, &mut context.scratch)? {
            Found::Known(at) => {
                let column = &mut self.columns[at];
                match column.decode_usual(self.len, cursor.text(), cursor.pos) {
                    Some(end) => cursor.pos = end,
                    None => column.decode(self.len, cursor, context)?,
                }
                return Ok(Some(at));
            }
            Found::Unknown => {
                // One such value is enough to know.
                let usable = !context.new_field && self.could_be_column(&context.scratch);
                self.unknown(cursor, context, usable)?;
            }
            Found::Unnameable => self.unknown(cursor, context, false)?,
        }
        Ok(previous)
    }

    /// Decodes the value at the cursor, which is not an object, as the only field: a [`crate::format::schema::BARE_FIELD`].
    pub fn decode_bare(&mut self, at: usize, cursor: &mut Cursor<'_>, context: &mut Context) -> Result<(), Syntax> {
        self.columns[at].decode(self.len, cursor, context)?;
        self.len += 1;
        Ok(())
    }

    fn could_be_column(&self, name: &str) -> bool {
        name_is_usable(name) && !self.taken.contains(&name.to_lowercase())
    }

    #[inline(never)]
    fn unknown(&self, cursor: &mut Cursor<'_>, context: &mut Context, usable: bool) -> Result<(), Syntax> {
        let skipped = cursor.skip_value()?;
        context.exact &= skipped.null;
        context.new_field |= usable && skipped.scalar_depth.is_some_and(|below| self.depth + below <= MAX_DEPTH);
        Ok(())
    }

    pub fn finish(&mut self) -> Result<ArrayRef, ArrowError> {
        let rows = std::mem::take(&mut self.len);
        let mut finish = |column: &mut Column| {
            column.resize(rows);
            column.finish()
        };
        let arrays = self.columns.iter_mut().map(&mut finish).collect::<Result<Vec<_>, _>>()?;
        Ok(Arc::new(StructArray::try_new(self.fields.clone(), arrays, self.nulls.finish(rows))?))
    }
}
