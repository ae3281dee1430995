//! Arrow's columns to serde's data model, a row at a time: no Python object for a cell.

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int64Type, UInt64Type};
use arrow_array::{
    Array, ArrayRef, BooleanArray, Float64Array, Int64Array, LargeListArray, StringArray, UInt64Array, make_array,
};
use arrow_buffer::NullBuffer;
use arrow_cast::base64::{BASE64_STANDARD, Engine};
use arrow_cast::cast;
use arrow_schema::{ArrowError, DataType, Field, TimeUnit};
use predlog::record::Key;
use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};
use std::sync::Arc;

/// Some rows of a column, as one of the types that JSON has.
pub(crate) enum Column {
    Null,
    Bool(BooleanArray),
    Int(Int64Array),
    UInt(UInt64Array),
    Float(Float64Array),
    Text(StringArray),
    List(LargeListArray, Box<Column>),
    Object(Vec<(Key, Column)>, Option<NullBuffer>),
}

impl Column {
    /// # Errors
    /// A type that has no JSON form here, such as a map, or text too long for one array.
    pub fn new(array: &ArrayRef) -> Result<Self, ArrowError> {
        let as_type = |kind| cast(array, &kind);
        Ok(match array.data_type() {
            DataType::Null => Column::Null,
            DataType::Boolean => Column::Bool(array.as_boolean().clone()),
            DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => {
                Column::Int(as_type(DataType::Int64)?.as_primitive::<Int64Type>().clone())
            }
            DataType::UInt8 | DataType::UInt16 | DataType::UInt32 | DataType::UInt64 => {
                Column::UInt(as_type(DataType::UInt64)?.as_primitive::<UInt64Type>().clone())
            }
            DataType::Float16 | DataType::Float32 | DataType::Float64 => {
                Column::Float(as_type(DataType::Float64)?.as_primitive::<Float64Type>().clone())
            }
            DataType::Duration(unit) => Column::Float(seconds(as_type(DataType::Int64)?.as_primitive(), *unit)),
            DataType::Timestamp(unit, Some(_)) => {
                // The values are in UTC, whatever the zone.
                let utc = make_array(array.to_data().into_builder().data_type(DataType::Timestamp(*unit, None)).build()?);
                let text = texts(&utc)?;
                // One that no calendar has is a number.
                let zoned = |text: &str| if text.contains('T') { format!("{text}+00:00") } else { text.to_owned() };
                Column::Text(text.iter().map(|text| text.map(zoned)).collect())
            }
            DataType::Dictionary(_, values) => Column::new(&as_type(values.as_ref().clone())?)?,
            DataType::RunEndEncoded(_, values) => Column::new(&as_type(values.data_type().clone())?)?,
            DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
                let bytes = as_type(DataType::LargeBinary)?;
                Column::Text(
                    bytes.as_binary::<i64>().iter().map(|value| value.map(|value| BASE64_STANDARD.encode(value))).collect(),
                )
            }
            DataType::List(item)
            | DataType::LargeList(item)
            | DataType::FixedSizeList(item, _)
            | DataType::ListView(item)
            | DataType::LargeListView(item) => {
                let list = as_type(DataType::LargeList(Arc::clone(item)))?.as_list::<i64>().clone();
                // Of a slice, all of the values would be there.
                let (first, last) = (list.value_offsets()[0] as usize, list.value_offsets()[list.len()] as usize);
                let values = Column::new(&list.values().slice(first, last - first))?;
                Column::List(list, Box::new(values))
            }
            DataType::Struct(fields) => {
                let array = array.as_struct();
                let column = |(field, column): (&Arc<Field>, &ArrayRef)| Ok((Key::new(field.name()), Column::new(column)?));
                let columns = fields.iter().zip(array.columns()).map(column).collect::<Result<_, ArrowError>>()?;
                Column::Object(columns, array.nulls().cloned())
            }
            DataType::Map(..) | DataType::Union(..) => {
                let kind = array.data_type();
                return Err(ArrowError::NotYetImplemented(format!(
                    "type={kind}: expected numbers, text, times, lists or structs"
                )));
            }
            _ => Column::Text(texts(array)?),
        })
    }

    fn is_null(&self, row: usize) -> bool {
        match self {
            Column::Null => true,
            Column::Bool(array) => array.is_null(row),
            Column::Int(array) => array.is_null(row),
            Column::UInt(array) => array.is_null(row),
            Column::Float(array) => array.is_null(row),
            Column::Text(array) => array.is_null(row),
            Column::List(array, _) => array.is_null(row),
            Column::Object(_, nulls) => nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)),
        }
    }
}

/// Values as text. A time that no calendar has is the number that it is in Arrow, and costs the others nothing.
fn texts(array: &ArrayRef) -> Result<StringArray, ArrowError> {
    let text = |array: &ArrayRef| cast(array, &DataType::Utf8).map(|text| text.as_string::<i32>().clone());
    text(array).or_else(|error| {
        let number = |array: &ArrayRef| {
            let narrow = cast(array, &DataType::Int64).or_else(|_| cast(&cast(array, &DataType::Int32)?, &DataType::Int64));
            narrow.and_then(|number| text(&number))
        };
        let one = |at: usize| {
            let cell = array.slice(at, 1);
            let text = text(&cell).or_else(|_| number(&cell))?;
            Ok(text.is_valid(0).then(|| text.value(0).to_owned()))
        };
        (0..array.len()).map(one).collect::<Result<StringArray, ArrowError>>().map_err(|_| error)
    })
}

fn seconds(counts: &Int64Array, unit: TimeUnit) -> Float64Array {
    let second = match unit {
        TimeUnit::Second => 1e0,
        TimeUnit::Millisecond => 1e3,
        TimeUnit::Microsecond => 1e6,
        TimeUnit::Nanosecond => 1e9,
    };
    counts.unary(|count| count as f64 / second)
}

/// A column's value in one row.
#[derive(Clone, Copy)]
pub(crate) struct Cell<'a> {
    pub column: &'a Column,
    pub row: usize,
}

impl Serialize for Cell<'_> {
    #[inline]
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let row = self.row;
        if self.column.is_null(row) {
            return serializer.serialize_unit();
        }
        match self.column {
            Column::Null => serializer.serialize_unit(),
            Column::Bool(array) => serializer.serialize_bool(array.value(row)),
            Column::Int(array) => serializer.serialize_i64(array.value(row)),
            Column::UInt(array) => serializer.serialize_u64(array.value(row)),
            Column::Float(array) => serializer.serialize_f64(array.value(row)),
            Column::Text(array) => serializer.serialize_str(array.value(row)),
            Column::List(array, values) => {
                let offsets = array.value_offsets();
                let (start, end) = ((offsets[row] - offsets[0]) as usize, (offsets[row + 1] - offsets[0]) as usize);
                let mut sequence = serializer.serialize_seq(Some(end - start))?;
                for row in start..end {
                    sequence.serialize_element(&Cell { column: values, row })?;
                }
                sequence.end()
            }
            Column::Object(columns, _) => {
                let mut map = serializer.serialize_map(Some(columns.len()))?;
                for (name, column) in columns {
                    map.serialize_entry(name, &Cell { column, row })?;
                }
                map.end()
            }
        }
    }
}
