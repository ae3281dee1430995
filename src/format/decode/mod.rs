//! Lines to typed Arrow columns.
//!
//! Fast because it predicts: keys come in the order of the row before, so most are found by comparing bytes, and values go straight into the
//! column's builder. What differs from the prediction costs a look-up, never correctness.

mod chunk;
mod column;
mod envelope;
pub(crate) mod keys;
mod metadata;
mod number;
pub(crate) mod scan;
mod side;
pub(crate) mod time;
mod values;

use std::sync::Arc;

use arrow_array::{ArrayRef, Float64Array, Int32Array, Int64Array, RecordBatch, TimestampMicrosecondArray};
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef, TimeUnit};

use column::Context;
pub(crate) use column::sentinel;
pub(crate) use envelope::timestamp_of;
use envelope::{read_double, read_int, read_timestamp};
use keys::{Found, Keys};
use metadata::Metadata;
use scan::{Cursor, Syntax, plain_end};
use side::SideColumns;
use values::{Texts, Values};

use super::schema::{MAX_LEAVES, ModelSchema};

/// The time zone of the column `timestamp`. "UTC" would need a time zone database to be printed.
const ZONE: &str = "+00:00";

/// How a row fits the columns. In each case it is kept, and whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// The struct columns hold its inputs and outputs exactly.
    Exact,
    /// Its raw JSON is kept in `inputs_json` or `outputs_json`, and the columns have what fits.
    Raw,
    /// As `Raw`, and it has a field that may get a column if the schema is inferred anew with this row.
    NewField,
}

/// Why a line is no row. Nothing of it is in the columns.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// The line is not UTF-8.
    #[error("line is not UTF-8: valid_up_to={valid_up_to}")]
    InvalidUtf8 {
        /// The offset of the first byte that is not.
        valid_up_to: usize,
    },
    /// The line is not JSON.
    #[error("line is not JSON: offset={offset}, expected {expected}")]
    Syntax {
        /// Where it stops being JSON.
        offset: usize,
        /// What would have been valid there.
        expected: &'static str,
    },
    /// The line is JSON, but not an object.
    #[error("line is not a JSON object")]
    NotAnObject,
    /// The line has no `timestamp`.
    #[error("line has no timestamp: expected a key \"timestamp\" with an RFC 3339 time")]
    NoTimestamp,
    /// The line's `timestamp` is not one.
    #[error("line has a bad timestamp: timestamp={value}, expected an RFC 3339 time")]
    BadTimestamp {
        /// Its JSON, at most 64 characters of it.
        value: String,
    },
    /// The batch has 2 GiB of lines: call [`RowDecoder::finish`], then push the line again.
    #[error("batch is full: finish it, then push the line again")]
    BatchFull,
}

impl From<Syntax> for LineError {
    fn from(error: Syntax) -> Self {
        LineError::Syntax { offset: error.at, expected: error.expected }
    }
}

/// The keys of a line in the order that our encoder writes them, and where their values go.
pub(crate) const ENVELOPE: [(&str, Slot); 16] = [
    ("timestamp", Slot::Timestamp),
    ("model_name", Slot::Ignored),
    ("id", Slot::Text(0)),
    ("model_version", Slot::Text(1)),
    ("inputs", Slot::Side(0)),
    ("outputs", Slot::Side(1)),
    ("request_id", Slot::Text(2)),
    ("row_index", Slot::Int(0)),
    ("status_code", Slot::Status),
    ("error", Slot::Text(3)),
    ("latency_ms", Slot::Double(0)),
    ("sample_weight", Slot::Double(1)),
    ("metadata", Slot::Metadata),
    ("traceparent", Slot::Text(4)),
    ("writer", Slot::Text(5)),
    ("seq", Slot::Int(1)),
];

#[derive(Clone, Copy)]
pub(crate) enum Slot {
    Timestamp,
    /// Of the model, so not a column.
    Ignored,
    Text(usize),
    Side(usize),
    Int(usize),
    Status,
    Double(usize),
    Metadata,
}

/// Decodes lines of one model into a [`RecordBatch`].
///
/// The columns are those of `ARCHITECTURE.md`; `inputs` and `outputs` are there once the schema has a settled field for them. A row whose
/// inputs (or outputs) the struct does not hold exactly keeps their whole JSON in `inputs_json` (`outputs_json`): a value of another type, an
/// unknown field, an integer outside i64, a number that no double has, a key twice (the last one is in the column), a lone surrogate.
///
/// Around them, keys may come in any order, and be missing (null). What is odd there does not cost the row: a text column takes another value
/// as its JSON text; a number column takes null for what is not its type or out of its range; `metadata` takes null for what is not an object
/// and the JSON text of values that are not strings; a lone surrogate becomes U+FFFD; of a key given twice the last counts, but of `timestamp`
/// the first; keys that are not a line's are left out. A line that is not JSON, or has no timestamp, is an error, and leaves no trace.
#[derive(Debug)]
pub struct RowDecoder {
    schema: SchemaRef,
    keys: Keys,
    context: Context,
    clock: time::Clock,
    /// Whether the schema has room for more columns.
    room: bool,
    bytes: usize,
    timestamps: Vec<i64>,
    texts: [Texts; 6],
    ints: [Values<i64>; 2],
    status: Values<i32>,
    doubles: [Values<f64>; 2],
    metadata: Metadata,
    sides: [SideColumns; 2],
}

impl RowDecoder {
    /// A decoder for the settled columns of this schema.
    pub fn new(schema: &ModelSchema) -> Self {
        RowDecoder {
            schema: arrow_schema(schema),
            keys: Keys::new(ENVELOPE.iter().map(|(name, _)| *name)),
            context: Context::default(),
            clock: time::Clock::default(),
            room: schema.leaves() < MAX_LEAVES,
            bytes: 0,
            timestamps: Vec::new(),
            texts: std::array::from_fn(|_| Texts::new()),
            ints: std::array::from_fn(|_| Values::new()),
            status: Values::new(),
            doubles: std::array::from_fn(|_| Values::new()),
            metadata: Metadata::new(),
            sides: [SideColumns::new(&schema.inputs), SideColumns::new(&schema.outputs)],
        }
    }

    /// The schema of the batches.
    pub fn arrow_schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Rows since the last [`finish`](Self::finish).
    pub fn rows(&self) -> usize {
        self.timestamps.len()
    }

    /// Bytes of the lines of these rows: the columns take about as much memory.
    pub fn raw_bytes(&self) -> usize {
        self.bytes
    }

    /// Adds a line, with or without its newline.
    ///
    /// # Errors
    /// The line is no row, and nothing of it is kept.
    pub fn push_line(&mut self, line: &[u8]) -> Result<Fit, LineError> {
        match simdutf8::basic::from_utf8(line) {
            Ok(text) => self.push_str(text),
            Err(_) => Err(invalid_utf8(line)),
        }
    }

    /// As [`push_line`](Self::push_line), for text that is known to be UTF-8.
    ///
    /// # Errors
    /// The line is no row, and nothing of it is kept.
    pub fn push_str(&mut self, line: &str) -> Result<Fit, LineError> {
        // Offsets in Arrow's strings and lists are i32; U+FFFD is shorter than the escape that it stands for, so nothing outgrows its line.
        if self.bytes + line.len() > i32::MAX as usize {
            return Err(LineError::BatchFull);
        }
        self.context.exact = true;
        self.context.new_field = false;
        match self.decode(&mut Cursor::new(line)) {
            Ok(timestamp) => {
                self.timestamps.push(timestamp);
                self.bytes += line.len();
                Ok(match (self.context.exact, self.context.new_field && self.room) {
                    (true, _) => Fit::Exact,
                    (false, false) => Fit::Raw,
                    (false, true) => Fit::NewField,
                })
            }
            Err(error) => {
                self.resize();
                Err(error)
            }
        }
    }

    fn decode(&mut self, cursor: &mut Cursor<'_>) -> Result<i64, LineError> {
        cursor.skip_space();
        if cursor.peek() != Some(b'{') {
            cursor.skip_value()?;
            end(cursor)?;
            return Err(LineError::NotAnObject);
        }
        let mut timestamp = None;
        let mut previous = None;
        if cursor.enter(b'}') {
            let (line, mut at) = (cursor.text(), cursor.pos);
            loop {
                let usual = self.keys.predicted(previous, line.as_bytes(), at);
                match usual.and_then(|(key, value)| Some((key, self.decode_usual(ENVELOPE[key].1, line, value, &mut timestamp)?)))
                {
                    Some((key, end)) => (previous, at) = (Some(key), end),
                    None => {
                        cursor.pos = at;
                        previous = self.decode_field(previous, cursor, &mut timestamp)?;
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
        end(cursor)?;
        timestamp.unwrap_or(Err(LineError::NoTimestamp))
    }

    /// Decodes a value of the usual form at `at`, and returns where it ends. `None`, with nothing done, for any other value, and where a column has more or
    /// fewer rows.
    #[inline(always)]
    fn decode_usual(
        &mut self,
        slot: Slot,
        line: &str,
        at: usize,
        timestamp: &mut Option<Result<i64, LineError>>,
    ) -> Option<usize> {
        let (bytes, row) = (line.as_bytes(), self.timestamps.len());
        match slot {
            Slot::Text(text) => {
                let texts = &mut self.texts[text];
                let usual = texts.len() == row && bytes.get(at) == Some(&b'"');
                if usual { texts.push_plain(line, at + 1) } else { None }
            }
            Slot::Ignored if bytes.get(at) == Some(&b'"') => plain_end(bytes, at + 1),
            Slot::Timestamp if timestamp.is_none() => {
                let quoted = bytes.get(at..)?.first_chunk::<29>().filter(|quoted| quoted[0] == b'"' && quoted[28] == b'"')?;
                *timestamp = Some(Ok(self.clock.canonical(quoted[1..28].first_chunk()?)?));
                Some(at + 29)
            }
            Slot::Int(int) if self.ints[int].len() == row => {
                let number = number::short(bytes, at)?;
                self.ints[int].push(number.as_i64()?);
                Some(number.end)
            }
            Slot::Double(double) if self.doubles[double].len() == row => {
                let number = number::short(bytes, at)?;
                self.doubles[double].push(number.as_f64());
                Some(number.end)
            }
            _ => None,
        }
    }

    /// Decodes the field at the cursor, whatever it is. Returns the key before the next one.
    #[inline(never)]
    fn decode_field(
        &mut self,
        previous: Option<usize>,
        cursor: &mut Cursor<'_>,
        timestamp: &mut Option<Result<i64, LineError>>,
    ) -> Result<Option<usize>, Syntax> {
        let Found::Known(at) = self.keys.read(previous, cursor, &mut self.context.scratch)? else {
            cursor.skip_value()?;
            return Ok(previous);
        };
        self.value(ENVELOPE[at].1, cursor, timestamp)?;
        Ok(Some(at))
    }

    fn value(
        &mut self,
        slot: Slot,
        cursor: &mut Cursor<'_>,
        timestamp: &mut Option<Result<i64, LineError>>,
    ) -> Result<(), Syntax> {
        let row = self.timestamps.len();
        match slot {
            Slot::Timestamp => {
                let found = read_timestamp(cursor, &mut self.clock)?;
                timestamp.get_or_insert(found);
            }
            Slot::Ignored => skip_fast(cursor)?,
            Slot::Text(at) => {
                let texts = &mut self.texts[at];
                if texts.len() != row {
                    texts.resize(row);
                }
                metadata::push_as_text(texts, cursor)?;
            }
            Slot::Side(at) => {
                let side = &mut self.sides[at];
                if side.len() != row {
                    side.resize(row);
                }
                side.decode(cursor, &mut self.context)?;
            }
            Slot::Int(at) => {
                let value = read_int(cursor)?;
                self.ints[at].set(row, value);
            }
            Slot::Status => {
                let value = read_int(cursor)?.and_then(|value| i32::try_from(value).ok());
                self.status.set(row, value);
            }
            Slot::Double(at) => {
                let value = read_double(cursor)?;
                self.doubles[at].set(row, value);
            }
            Slot::Metadata => {
                if self.metadata.len() != row {
                    self.metadata.resize(row);
                }
                self.metadata.decode(cursor)?;
            }
        }
        Ok(())
    }

    /// All columns to the rows that there are: what a bad line left is cut off, and what lines had no key for is null. Until then such columns are
    /// shorter than the others, which is cheaper than a null at a time.
    #[cold]
    fn resize(&mut self) {
        let rows = self.timestamps.len();
        self.texts.iter_mut().for_each(|texts| texts.resize(rows));
        self.ints.iter_mut().for_each(|ints| ints.resize(rows));
        self.doubles.iter_mut().for_each(|doubles| doubles.resize(rows));
        self.status.resize(rows);
        self.metadata.resize(rows);
        self.sides.iter_mut().for_each(|side| side.resize(rows));
    }

    /// The rows so far. The decoder is empty afterwards and goes on.
    ///
    /// # Errors
    /// Arrow's, if the columns contradict each other, which would be a defect of this decoder.
    pub fn finish(&mut self) -> Result<RecordBatch, ArrowError> {
        self.resize();
        let timestamps = std::mem::take(&mut self.timestamps);
        self.timestamps.reserve(timestamps.len());
        self.bytes = 0;
        let [inputs, outputs] = &mut self.sides;
        let ((inputs, inputs_json), (outputs, outputs_json)) = (inputs.finish()?, outputs.finish()?);
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.schema.fields().len());
        let mut texts = self.texts.iter_mut().map(Texts::finish).collect::<Result<Vec<_>, _>>()?.into_iter();
        let mut text = || texts.next().map(|array| Arc::new(array) as ArrayRef);
        columns.extend(text());
        columns.extend(text());
        columns.push(Arc::new(TimestampMicrosecondArray::try_new(timestamps.into(), None)?.with_timezone(ZONE)));
        columns.extend(inputs);
        columns.extend(outputs);
        columns.push(Arc::new(inputs_json));
        columns.push(Arc::new(outputs_json));
        // request_id, error, traceparent
        columns.extend(text());
        columns.extend(text());
        columns.extend(text());
        let [row_index, seq] = &mut self.ints;
        columns.push(int_array(row_index)?);
        let (status, valid) = self.status.take();
        columns.push(Arc::new(Int32Array::try_new(status.into(), valid)?));
        for doubles in &mut self.doubles {
            let (values, valid) = doubles.take();
            columns.push(Arc::new(Float64Array::try_new(values.into(), valid)?));
        }
        columns.push(Arc::new(self.metadata.finish()?));
        columns.extend(text());
        columns.push(int_array(seq)?);
        RecordBatch::try_new(self.schema.clone(), columns)
    }
}

fn int_array(ints: &mut Values<i64>) -> Result<ArrayRef, ArrowError> {
    let (values, valid) = ints.take();
    Ok(Arc::new(Int64Array::try_new(values.into(), valid)?))
}

/// The schema of the batches and files of a model.
pub fn arrow_schema(schema: &ModelSchema) -> SchemaRef {
    let text = |name: &str| Field::new(name, DataType::Utf8, true);
    let mut fields = vec![
        text("id"),
        text("model_version"),
        Field::new("timestamp", DataType::Timestamp(TimeUnit::Microsecond, Some(ZONE.into())), false),
    ];
    fields.extend(schema.inputs.arrow().map(|kind| Field::new("inputs", kind, true)));
    fields.extend(schema.outputs.arrow().map(|kind| Field::new("outputs", kind, true)));
    fields.extend(["inputs_json", "outputs_json", "request_id", "error", "traceparent"].map(text));
    fields.extend([
        Field::new("row_index", DataType::Int64, true),
        Field::new("status_code", DataType::Int32, true),
        Field::new("latency_ms", DataType::Float64, true),
        Field::new("sample_weight", DataType::Float64, true),
        Field::new("metadata", metadata::data_type(), true),
        text("writer"),
        Field::new("seq", DataType::Int64, true),
    ]);
    Arc::new(Schema::new(fields))
}

#[cold]
pub(crate) fn invalid_utf8(line: &[u8]) -> LineError {
    let valid_up_to = std::str::from_utf8(line).map_or_else(|error| error.valid_up_to(), str::len);
    LineError::InvalidUtf8 { valid_up_to }
}

/// Only white space may follow.
#[inline]
pub(crate) fn end(cursor: &mut Cursor<'_>) -> Result<(), Syntax> {
    cursor.skip_space();
    if cursor.peek().is_some() { Err(cursor.error("the end of the line")) } else { Ok(()) }
}

/// Goes past the value at the cursor, which is most likely a string.
#[inline]
pub(crate) fn skip_fast(cursor: &mut Cursor<'_>) -> Result<(), Syntax> {
    if cursor.peek() == Some(b'"') { cursor.string().map(|_| ()) } else { cursor.skip_value().map(|_| ()) }
}
