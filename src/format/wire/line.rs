//! A line, taken apart: `inputs` and `outputs` as the format writes them, all else as it stands in the line.

use super::fields::Context;
use super::{Side, Wire};
use crate::format::decode::keys::{Found, Keys};
use crate::format::decode::scan::{Cursor, RawStr};
use crate::format::decode::time::Clock;
use crate::format::decode::{ENVELOPE, LineError, Slot, end, invalid_utf8, sentinel, timestamp_of};
use crate::format::schema::ModelSchema;

/// A value around `inputs` and `outputs`.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) enum Value<'a> {
    /// Missing, or null.
    #[default]
    Null,
    Text(RawStr<'a>),
    /// Anything else: its JSON.
    Json(&'a str),
}

impl Value<'_> {
    /// The integer that it is.
    pub(crate) fn as_i64(&self) -> Option<i64> {
        let Value::Json(json) = self else { return None };
        json.parse().ok()
    }

    /// The double that it is, which may be one that is not finite.
    pub(crate) fn as_f64(&self) -> Option<f64> {
        match self {
            Value::Null => None,
            Value::Text(text) => sentinel(text),
            Value::Json(json) => json.parse().ok().filter(|value: &f64| value.is_finite()),
        }
    }
}

/// What a line says.
#[derive(Debug)]
pub(crate) struct Row<'a> {
    /// Microseconds since 1970.
    pub(crate) timestamp: i64,
    /// By the places in [`ENVELOPE`].
    pub(crate) values: [Value<'a>; ENVELOPE.len()],
    /// The JSON of inputs and outputs where the fields do not hold all of it.
    pub(crate) raw: [Option<&'a str>; 2],
    /// Whether it has a field that may get a column if the schema is inferred anew with this line.
    pub(crate) new_field: bool,
}

/// Takes lines apart.
#[derive(Debug)]
pub(crate) struct Lines {
    keys: Keys,
    clock: Clock,
    context: Context,
    sides: [Side; 2],
    /// The inputs and outputs of the last line, as the format writes them.
    pub(crate) written: [Vec<u8>; 2],
}

impl Lines {
    pub(crate) fn new(sides: [Side; 2]) -> Self {
        Lines {
            keys: Keys::new(ENVELOPE.iter().map(|(name, _)| *name)),
            clock: Clock::default(),
            context: Context::default(),
            sides,
            written: [Vec::new(), Vec::new()],
        }
    }

    pub(crate) fn of(schema: &ModelSchema) -> Self {
        Lines::new([Side::of(&schema.inputs), Side::of(&schema.outputs)])
    }

    pub(crate) fn sides(&self) -> &[Side; 2] {
        &self.sides
    }

    /// The columns of the fields.
    pub(crate) fn columns(&self) -> ModelSchema {
        ModelSchema { inputs: self.sides[0].columns(), outputs: self.sides[1].columns() }
    }

    /// Takes a line apart; its inputs and outputs are in [`written`](Self::written).
    ///
    /// # Errors
    /// The line is not UTF-8, not JSON, no object, or has no timestamp.
    pub(crate) fn read<'a, W: Wire>(&mut self, line: &'a [u8]) -> Result<Row<'a>, LineError> {
        let text = simdutf8::basic::from_utf8(line).map_err(|_| invalid_utf8(line))?;
        let timestamp = timestamp_of(text, &mut self.clock)?;
        let mut row = Row { timestamp, values: [Value::Null; ENVELOPE.len()], raw: [None; 2], new_field: false };
        let mut cursor = Cursor::new(text);
        let mut written = [false; 2];
        let mut previous = None;
        cursor.skip_space();
        if cursor.enter(b'}') {
            loop {
                match self.keys.read(previous, &mut cursor, &mut self.context.scratch)? {
                    Found::Known(at) => {
                        match ENVELOPE[at].1 {
                            Slot::Side(side) => {
                                row.raw[side] = self.read_side::<W>(side, &mut cursor)?;
                                written[side] = true;
                            }
                            _ => row.values[at] = read_value(&mut cursor)?,
                        }
                        previous = Some(at);
                    }
                    Found::Unknown | Found::Unnameable => {
                        cursor.skip_value()?;
                    }
                }
                if !cursor.more(b'}', "',' or '}'")? {
                    break;
                }
            }
        }
        end(&mut cursor)?;
        row.new_field = std::mem::take(&mut self.context.new_field);
        for (side, _) in written.iter().enumerate().filter(|(_, written)| !**written) {
            self.written[side].clear();
            self.sides[side].write_missing::<W>(&mut self.written[side]);
        }
        Ok(row)
    }

    /// The side's raw JSON, if it must be kept.
    fn read_side<'a, W: Wire>(&mut self, side: usize, cursor: &mut Cursor<'a>) -> Result<Option<&'a str>, LineError> {
        let start = cursor.pos;
        self.written[side].clear();
        self.sides[side].write::<W>(cursor, &mut self.context, &mut self.written[side])?;
        Ok((!self.context.exact).then(|| cursor.since(start)))
    }
}

/// The value at the cursor, which most likely is a string.
fn read_value<'a>(cursor: &mut Cursor<'a>) -> Result<Value<'a>, LineError> {
    if cursor.peek() == Some(b'"') {
        return Ok(Value::Text(cursor.string()?));
    }
    let start = cursor.pos;
    Ok(if cursor.skip_value()?.null { Value::Null } else { Value::Json(cursor.since(start)) })
}

/// Calls `entry` with each of the map's keys and values; what is no object has none. A value that is no string is its JSON; null is none.
pub(crate) fn for_each_entry<'a>(json: &'a str, mut entry: impl FnMut(RawStr<'a>, Value<'a>)) -> Result<(), LineError> {
    let mut cursor = Cursor::new(json);
    if cursor.peek() != Some(b'{') || !cursor.enter(b'}') {
        return Ok(());
    }
    loop {
        let key = cursor.key()?;
        match read_value(&mut cursor)? {
            Value::Null => {}
            value => entry(key, value),
        }
        if !cursor.more(b'}', "',' or '}'")? {
            return Ok(());
        }
    }
}
