//! Columns of rows, by their schema.

use crate::connect::convert::unscaled;
use crate::connect::schema::{Kind, Schema};
use crate::connect::value::Value;
use arrow_array::builder::{BinaryBuilder, BooleanBuilder, Decimal128Builder, PrimitiveBuilder, StringBuilder};
use arrow_array::types::{
    ArrowPrimitiveType, Date32Type, Float32Type, Float64Type, Int32Type, Int64Type, Time32MillisecondType,
    TimestampMillisecondType,
};
use arrow_array::{ArrayRef, ListArray, MapArray, PrimitiveArray, RecordBatch, StructArray};
use arrow_buffer::{NullBuffer, OffsetBuffer};
use arrow_schema::{ArrowError, DataType, Field, Fields, Schema as ArrowSchema, SchemaRef, TimeUnit};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::sync::Arc;

const UTC: &str = "UTC";

/// The columns of a record; `None` when it has none: it is no record, or nothing is known of any field.
pub(super) fn columns(schema: &Schema) -> Option<SchemaRef> {
    let fields = fields(schema.fields()?);
    (!fields.is_empty()).then(|| Arc::new(ArrowSchema::new(fields)))
}

fn fields(fields: &[(String, Arc<Schema>)]) -> Fields {
    fields.iter().filter_map(|(name, schema)| field(name, schema)).collect()
}

fn field(name: &str, schema: &Schema) -> Option<Field> {
    Some(Field::new(name, data_type(&schema.kind)?, schema.optional))
}

/// `None` for what has no column: Parquet knows no records without fields.
fn data_type(kind: &Kind) -> Option<DataType> {
    Some(match kind {
        Kind::Unknown => return None,
        Kind::Bool => DataType::Boolean,
        Kind::Int(_) => DataType::Int32,
        Kind::Int64 => DataType::Int64,
        Kind::Float => DataType::Float32,
        Kind::Double => DataType::Float64,
        Kind::String | Kind::Json => DataType::Utf8,
        Kind::Bytes => DataType::Binary,
        Kind::Decimal { precision, scale } => DataType::Decimal128(*precision, *scale),
        Kind::Date => DataType::Date32,
        Kind::Time => DataType::Time32(TimeUnit::Millisecond),
        Kind::Timestamp => DataType::Timestamp(TimeUnit::Millisecond, Some(UTC.into())),
        Kind::List(element) => DataType::List(Arc::new(field("element", element)?)),
        Kind::Map(keys, values) => DataType::Map(Arc::new(entries(keys, values)?), false),
        Kind::Struct(inner) => {
            let inner = fields(inner);
            if inner.is_empty() {
                return None;
            }
            DataType::Struct(inner)
        }
    })
}

fn entries(keys: &Schema, values: &Schema) -> Option<Field> {
    let key = Field::new("key", data_type(&keys.kind)?, false);
    Some(Field::new("key_value", DataType::Struct(Fields::from(vec![key, field("value", values)?])), false))
}

/// The rows, which fit `schema`, as a batch of its columns.
///
/// # Errors
/// Arrow's: a value that did not fit after all.
pub(super) fn batch(schema: &Schema, columns: &SchemaRef, rows: &[Value]) -> Result<RecordBatch, ArrowError> {
    let rows: Vec<Option<&Value>> = rows.iter().map(Some).collect();
    RecordBatch::try_new(columns.clone(), arrays(schema.fields().unwrap_or_default(), &rows)?)
}

fn arrays(fields: &[(String, Arc<Schema>)], rows: &[Option<&Value>]) -> Result<Vec<ArrayRef>, ArrowError> {
    let known = fields.iter().enumerate().filter(|(_, (_, schema))| data_type(&schema.kind).is_some());
    known
        .map(|(at, (name, schema))| {
            let values: Vec<Option<&Value>> = rows.iter().map(|row| row.and_then(|row| nth(row, at, name))).collect();
            array(schema, &values)
        })
        .collect()
}

/// A field of a record, which nearly always stands where it stands in the schema. Null is none.
fn nth<'a>(record: &'a Value, at: usize, name: &str) -> Option<&'a Value> {
    let Value::Record(fields) = record else { return None };
    let found = match fields.get(at) {
        Some((known, value)) if known == name => Some(value),
        _ => record.get(name),
    };
    found.filter(|value| **value != Value::Null)
}

fn array(schema: &Schema, values: &[Option<&Value>]) -> Result<ArrayRef, ArrowError> {
    let int = |value: &Value| match value {
        Value::Number(number) => number.as_i64(),
        _ => None,
    };
    let narrow = |value: &Value| int(value).and_then(|int| i32::try_from(int).ok());
    Ok(match &schema.kind {
        Kind::Bool => {
            let bool = |value: &Value| if let Value::Bool(bool) = value { Some(*bool) } else { None };
            let mut builder = BooleanBuilder::with_capacity(values.len());
            values.iter().for_each(|value| builder.append_option(value.and_then(bool)));
            Arc::new(builder.finish())
        }
        Kind::Int(_) => Arc::new(primitive::<Int32Type>(values, narrow)),
        Kind::Int64 => Arc::new(primitive::<Int64Type>(values, int)),
        Kind::Float => Arc::new(primitive::<Float32Type>(values, |value| double(value).map(|double| double as f32))),
        Kind::Double => Arc::new(primitive::<Float64Type>(values, double)),
        Kind::Date => Arc::new(primitive::<Date32Type>(values, narrow)),
        Kind::Time => Arc::new(primitive::<Time32MillisecondType>(values, narrow)),
        Kind::Timestamp => Arc::new(primitive::<TimestampMillisecondType>(values, int).with_timezone(UTC)),
        Kind::Decimal { precision, scale } => {
            let mut builder = Decimal128Builder::new().with_precision_and_scale(*precision, *scale)?;
            values.iter().for_each(|value| builder.append_option(value.and_then(|value| unscaled(value, *precision, *scale))));
            Arc::new(builder.finish())
        }
        Kind::Bytes => {
            let bytes = |value: &Value| if let Value::Text(text) = value { STANDARD.decode(text).ok() } else { None };
            let mut builder = BinaryBuilder::new();
            values.iter().for_each(|value| builder.append_option(value.and_then(bytes)));
            Arc::new(builder.finish())
        }
        Kind::String => {
            let text = |value: &Value| if let Value::Text(text) = value { Some(text.clone()) } else { None };
            strings(values, text)
        }
        Kind::Json | Kind::Unknown => strings(values, |value| Some(value.to_string())),
        Kind::List(element) => list(element, values)?,
        Kind::Map(keys, inner) => map(keys, inner, values)?,
        Kind::Struct(inner) => {
            let nulls = NullBuffer::from_iter(values.iter().map(Option::is_some));
            Arc::new(StructArray::try_new(fields(inner), arrays(inner, values)?, Some(nulls))?)
        }
    })
}

fn primitive<T: ArrowPrimitiveType>(values: &[Option<&Value>], of: impl Fn(&Value) -> Option<T::Native>) -> PrimitiveArray<T> {
    let mut builder = PrimitiveBuilder::<T>::with_capacity(values.len());
    values.iter().for_each(|value| builder.append_option(value.and_then(&of)));
    builder.finish()
}

fn strings(values: &[Option<&Value>], of: impl Fn(&Value) -> Option<String>) -> ArrayRef {
    let mut builder = StringBuilder::new();
    values.iter().for_each(|value| builder.append_option(value.and_then(&of)));
    Arc::new(builder.finish())
}

fn double(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        // The names of what is not finite are those that Rust knows too.
        Value::Text(text) => text.parse().ok(),
        _ => None,
    }
}

fn list(element: &Schema, values: &[Option<&Value>]) -> Result<ArrayRef, ArrowError> {
    let items = |value: &Option<&'_ Value>| if let Some(Value::List(items)) = value { items.len() } else { 0 };
    let offsets = OffsetBuffer::from_lengths(values.iter().map(items));
    let inner: Vec<Option<&Value>> = values
        .iter()
        .filter_map(|value| if let Some(Value::List(items)) = value { Some(items) } else { None })
        .flatten()
        .map(|item| (*item != Value::Null).then_some(item))
        .collect();
    let nulls = NullBuffer::from_iter(values.iter().map(Option::is_some));
    // A list has a column only where its element has one.
    let Some(field) = field("element", element) else { return Err(ArrowError::SchemaError("a list without a type".to_owned())) };
    Ok(Arc::new(ListArray::try_new(Arc::new(field), offsets, array(element, &inner)?, Some(nulls))?))
}

fn map(keys: &Schema, inner: &Schema, values: &[Option<&Value>]) -> Result<ArrayRef, ArrowError> {
    let (mut lengths, mut names, mut found) = (Vec::with_capacity(values.len()), Vec::new(), Vec::new());
    for value in values {
        let before = found.len();
        match value {
            Some(Value::Record(entries)) => {
                for (name, value) in entries {
                    names.push(Value::Text(name.clone()));
                    found.push((*value != Value::Null).then_some(value));
                }
            }
            Some(Value::List(pairs)) => {
                for pair in pairs {
                    if let Value::List(pair) = pair
                        && let [key, value] = &pair[..]
                    {
                        names.push(key.clone());
                        found.push((*value != Value::Null).then_some(value));
                    }
                }
            }
            _ => {}
        }
        lengths.push(found.len() - before);
    }
    let names: Vec<Option<&Value>> = names.iter().map(Some).collect();
    let Some(field) = entries(keys, inner) else { return Err(ArrowError::SchemaError("a map without types".to_owned())) };
    let DataType::Struct(fields) = field.data_type() else {
        return Err(ArrowError::SchemaError("a map without entries".to_owned()));
    };
    let entries = StructArray::try_new(fields.clone(), vec![array(keys, &names)?, array(inner, &found)?], None)?;
    let nulls = NullBuffer::from_iter(values.iter().map(Option::is_some));
    Ok(Arc::new(MapArray::try_new(Arc::new(field), OffsetBuffer::from_lengths(lengths), entries, Some(nulls), false)?))
}
