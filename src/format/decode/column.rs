//! Typed columns that JSON values are decoded into, without a step between.
//!
//! A column takes one value a row. A value that it does not hold exactly becomes null (or the nearest it can hold) and clears
//! [`Context::exact`]. Any column can be cut back to a number of rows, which undoes a row that turns out to be no JSON, and the earlier of two
//! values under one key.

use std::collections::HashSet;
use std::sync::Arc;

use arrow_array::{ArrayRef, BooleanArray, Float64Array, Int64Array, ListArray, StructArray};
use arrow_buffer::{BooleanBufferBuilder, NullBufferBuilder, OffsetBuffer};
use arrow_schema::{ArrowError, DataType, Field as ArrowField, Fields};

use super::keys::{Found, Keys};
use super::scan::{Cursor, RawStr, Syntax};
use super::values::{Texts, Values};
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
    valid: NullBufferBuilder,
}

/// Objects: a column for each known key.
#[derive(Debug)]
pub(crate) struct Structs {
    keys: Keys,
    /// Siblings' names in lower case: see [`crate::format::schema::ModelSchema::merge`].
    taken: HashSet<String>,
    columns: Vec<Column>,
    len: usize,
    valid: NullBufferBuilder,
    fields: Fields,
    depth: usize,
    /// A column that objects have no key for: bare values are in it.
    reserved: Option<usize>,
}

#[derive(Debug)]
pub(crate) enum Column {
    Bool(BooleanBufferBuilder, NullBufferBuilder),
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
            ColumnType::Unknown => return None,
            ColumnType::Bool => Column::Bool(BooleanBufferBuilder::new(0), NullBufferBuilder::new(0)),
            ColumnType::Int64 => Column::Int(Values::new()),
            ColumnType::Double => Column::Double(Values::new()),
            ColumnType::String => Column::Text(Texts::new()),
            ColumnType::List(element) => Column::List(Box::new(Lists {
                element: Column::new(element, depth + 1)?,
                offsets: vec![0],
                valid: NullBufferBuilder::new(0),
            })),
            ColumnType::Struct(fields) => Column::Struct(Box::new(Structs::new(fields, depth + 1)?)),
        })
    }

    #[inline]
    pub fn len(&self) -> usize {
        match self {
            Column::Bool(bits, _) => bits.len(),
            Column::Int(values) => values.values.len(),
            Column::Double(values) => values.values.len(),
            Column::Text(texts) => texts.len(),
            Column::List(lists) => lists.offsets.len() - 1,
            Column::Struct(structs) => structs.len,
        }
    }

    #[inline]
    pub fn push_null(&mut self) {
        match self {
            Column::Bool(bits, valid) => {
                bits.append(false);
                valid.append_null();
            }
            Column::Int(values) => values.push_null(),
            Column::Double(values) => values.push_null(),
            Column::Text(texts) => texts.push_null(),
            Column::List(lists) => {
                lists.offsets.push(lists.element.len() as i32);
                lists.valid.append_null();
            }
            Column::Struct(structs) => structs.end_row(false),
        }
    }

    /// Cuts back to `len` values, and drops what an unfinished value left behind.
    pub fn truncate(&mut self, len: usize) {
        match self {
            Column::Bool(bits, valid) => {
                bits.truncate(len);
                valid.truncate(len);
            }
            Column::Int(values) => values.truncate(len),
            Column::Double(values) => values.truncate(len),
            Column::Text(texts) => texts.truncate(len),
            Column::List(lists) => {
                if len + 1 < lists.offsets.len() {
                    lists.offsets.truncate(len + 1);
                    lists.valid.truncate(len);
                }
                lists.element.truncate(lists.offsets.last().copied().unwrap_or(0) as usize);
            }
            Column::Struct(structs) => structs.truncate(len),
        }
    }

    /// Decodes the value at the cursor as the next one.
    ///
    /// Into the loop over a struct's fields, where nearly all values are; elsewhere [`decode_apart`](Self::decode_apart).
    #[inline(always)]
    pub fn decode(&mut self, cursor: &mut Cursor<'_>, context: &mut Context) -> Result<(), Syntax> {
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
                    texts.truncate(texts.len() - 1);
                    texts.push_null();
                    context.exact = false;
                }
            }
            (Column::Bool(bits, valid), Some(b't' | b'f')) => {
                let value = cursor.literal()?;
                bits.append(value == Some(true));
                valid.append(value.is_some());
            }
            (Column::Struct(structs), Some(b'{')) => structs.decode(cursor, context)?,
            (Column::List(lists), Some(b'[')) => lists.decode(cursor, context)?,
            _ => self.misfit(cursor, context)?,
        }
        Ok(())
    }

    #[inline(never)]
    fn decode_apart(&mut self, cursor: &mut Cursor<'_>, context: &mut Context) -> Result<(), Syntax> {
        self.decode(cursor, context)
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
            Column::Bool(bits, valid) => Arc::new(BooleanArray::new(bits.finish(), valid.finish())),
            Column::Int(values) => {
                let (values, valid) = values.take();
                Arc::new(Int64Array::try_new(values.into(), valid)?)
            }
            Column::Double(values) => {
                let (values, valid) = values.take();
                Arc::new(Float64Array::try_new(values.into(), valid)?)
            }
            Column::Text(texts) => Arc::new(texts.finish()?),
            Column::List(lists) => {
                let elements = lists.element.finish()?;
                let offsets = std::mem::replace(&mut lists.offsets, vec![0]);
                let field = Arc::new(ArrowField::new("element", elements.data_type().clone(), true));
                Arc::new(ListArray::try_new(field, OffsetBuffer::new(offsets.into()), elements, lists.valid.finish())?)
            }
            Column::Struct(structs) => structs.finish()?,
        })
    }
}

impl Lists {
    fn decode(&mut self, cursor: &mut Cursor<'_>, context: &mut Context) -> Result<(), Syntax> {
        if cursor.enter(b']') {
            loop {
                self.element.decode_apart(cursor, context)?;
                if !cursor.more(b']', "',' or ']'")? {
                    break;
                }
            }
        }
        // Elements are fewer than the batch's bytes, which the decoder keeps within i32.
        self.offsets.push(self.element.len() as i32);
        self.valid.append_non_null();
        Ok(())
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
            taken: settled.iter().map(|field| field.name.to_lowercase()).collect(),
            columns,
            len: 0,
            valid: NullBufferBuilder::new(0),
            fields: arrow,
            depth,
            reserved: None,
        })
    }

    /// Keeps a column for bare values: an object's key of that name is unknown.
    pub fn reserving(mut self, column: Option<usize>) -> Self {
        self.reserved = column;
        self
    }

    /// Ends a row: keys that did not come are null.
    #[inline]
    pub fn end_row(&mut self, valid: bool) {
        for column in &mut self.columns {
            if column.len() <= self.len {
                column.push_null();
            }
        }
        self.len += 1;
        self.valid.append(valid);
    }

    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
        self.valid.truncate(self.len);
        for column in &mut self.columns {
            column.truncate(self.len);
        }
    }

    /// Decodes the object at the cursor.
    pub fn decode(&mut self, cursor: &mut Cursor<'_>, context: &mut Context) -> Result<(), Syntax> {
        let mut previous = None;
        let mut missing = self.columns.len();
        if cursor.enter(b'}') {
            loop {
                match self.keys.read(previous, cursor, &mut context.scratch)? {
                    Found::Known(at) if Some(at) == self.reserved => self.unknown(cursor, context, false)?,
                    Found::Known(at) => {
                        let column = &mut self.columns[at];
                        if column.len() > self.len {
                            column.truncate(self.len);
                            context.exact = false;
                            missing += 1;
                        }
                        missing -= 1;
                        column.decode(cursor, context)?;
                        previous = Some(at);
                    }
                    Found::Unknown => {
                        let usable = self.could_be_column(&context.scratch);
                        self.unknown(cursor, context, usable)?;
                    }
                    Found::Unnameable => self.unknown(cursor, context, false)?,
                }
                if !cursor.more(b'}', "',' or '}'")? {
                    break;
                }
            }
        }
        if missing > 0 {
            self.end_row(true);
        } else {
            self.len += 1;
            self.valid.append_non_null();
        }
        Ok(())
    }

    /// Decodes the value at the cursor, which is not an object, as the only field: a [`crate::format::schema::BARE_FIELD`].
    pub fn decode_bare(&mut self, at: usize, cursor: &mut Cursor<'_>, context: &mut Context) -> Result<(), Syntax> {
        self.columns[at].decode_apart(cursor, context)?;
        self.end_row(true);
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
        let arrays = self.columns.iter_mut().map(Column::finish).collect::<Result<Vec<_>, _>>()?;
        self.len = 0;
        Ok(Arc::new(StructArray::try_new(self.fields.clone(), arrays, self.valid.finish())?))
    }
}
