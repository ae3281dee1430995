//! Kafka Connect's schemas: those that come with messages, and those that are learnt of plain JSON.

use super::value::Value;
use serde_json::Number;
use std::sync::Arc;

/// Connect's names of logical types.
pub(super) const DECIMAL: &str = "org.apache.kafka.connect.data.Decimal";
pub(super) const DATE: &str = "org.apache.kafka.connect.data.Date";
pub(super) const TIME: &str = "org.apache.kafka.connect.data.Time";
pub(super) const TIMESTAMP: &str = "org.apache.kafka.connect.data.Timestamp";

/// The type of a value, and what is said about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Schema {
    /// The type.
    pub kind: Kind,
    /// A value may be null.
    pub optional: bool,
    /// The name of a record, or of a logical type.
    pub name: Option<String>,
    /// Which of a record's schemas this is: a later one has a higher number.
    pub version: Option<i64>,
    /// What stands for a field that is not there.
    pub default: Option<Value>,
}

/// A type.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// Of plain JSON: only nulls, empty arrays or empty objects so far. It has no column.
    Unknown,
    /// `true` and `false`.
    Bool,
    /// `int8`, `int16` and `int32`, by their bits.
    Int(u8),
    /// 64-bit integers.
    Int64,
    /// `float`.
    Float,
    /// `double`.
    Double,
    /// UTF-8.
    String,
    /// Of plain JSON: values of types that no column can hold together, each as its JSON text.
    Json,
    /// Bytes, as base64.
    Bytes,
    /// The big-endian unscaled value, as base64, of so many digits behind the point.
    Decimal {
        /// All digits that a column holds.
        precision: u8,
        /// Digits behind the point.
        scale: i8,
    },
    /// Days since 1970.
    Date,
    /// Milliseconds since midnight.
    Time,
    /// Milliseconds since 1970.
    Timestamp,
    /// An array.
    List(Arc<Schema>),
    /// A map with keys of text, as an object; with other keys, as an array of pairs.
    Map(Arc<Schema>, Arc<Schema>),
    /// A record.
    Struct(Vec<(String, Arc<Schema>)>),
}

/// More levels than any record needs, and fewer than a stack has room for.
pub(super) const MAX_DEPTH: usize = 64;

impl Schema {
    /// Of this type, which may be null, with no more said about it.
    pub fn optional(kind: Kind) -> Schema {
        Schema { kind, optional: true, name: None, version: None, default: None }
    }

    /// A record's fields.
    pub fn fields(&self) -> Option<&[(String, Arc<Schema>)]> {
        match &self.kind {
            Kind::Struct(fields) => Some(fields),
            _ => None,
        }
    }

    /// A field's schema.
    pub fn field(&self, name: &str) -> Option<&Arc<Schema>> {
        self.fields()?.iter().find(|(known, _)| known == name).map(|(_, schema)| schema)
    }

    /// The schema of plain JSON.
    ///
    /// # Errors
    /// It is deeper than a file can be.
    pub fn infer(value: &Value) -> Result<Schema, String> {
        Ok(Schema::optional(infer(value, 0)?))
    }

    /// Whether a schema of plain JSON holds this value as it is.
    pub(super) fn admits(&self, value: &Value) -> bool {
        match (&self.kind, value) {
            (Kind::Json, _) | (_, Value::Null) => true,
            (Kind::Bool, Value::Bool(_)) | (Kind::String, Value::Text(_)) | (Kind::Double, Value::Number(_)) => true,
            (Kind::Int64, Value::Number(number)) => is_integer(number),
            (Kind::List(element), Value::List(items)) => items.iter().all(|item| element.admits(item)),
            (Kind::Struct(fields), Value::Record(given)) => given.iter().enumerate().all(|(at, (name, value))| {
                let known = match fields.get(at) {
                    Some((known, schema)) if known == name => Some(schema),
                    _ => self.field(name),
                };
                known.is_some_and(|schema| schema.admits(value))
            }),
            _ => false,
        }
    }

    /// The schema of values of both, and whether it is another than this. Schemas that came with messages are never merged.
    #[must_use]
    pub fn merge(&self, other: &Schema) -> Option<Schema> {
        let merged = merge(&self.kind, &other.kind);
        (merged != self.kind).then(|| Schema::optional(merged))
    }
}

fn infer(value: &Value, depth: usize) -> Result<Kind, String> {
    if depth > MAX_DEPTH {
        return Err(format!("the value is nested deeper than {MAX_DEPTH} levels"));
    }
    Ok(match value {
        Value::Null => Kind::Unknown,
        Value::Bool(_) => Kind::Bool,
        Value::Number(number) if is_integer(number) => Kind::Int64,
        Value::Number(_) => Kind::Double,
        Value::Text(_) => Kind::String,
        Value::List(items) => {
            let mut element = Kind::Unknown;
            for item in items {
                element = merge(&element, &infer(item, depth + 1)?);
            }
            Kind::List(Arc::new(Schema::optional(element)))
        }
        Value::Record(fields) => {
            let fields = fields.iter().map(|(name, value)| {
                let kind = infer(value, depth + 1)?;
                Ok((name.clone(), Arc::new(Schema::optional(kind))))
            });
            Kind::Struct(fields.collect::<Result<_, String>>()?)
        }
    })
}

/// `-0` is none: no integer holds it.
fn is_integer(number: &Number) -> bool {
    number.is_i64()
}

fn merge(one: &Kind, other: &Kind) -> Kind {
    match (one, other) {
        (Kind::Unknown, known) | (known, Kind::Unknown) => known.clone(),
        (Kind::Int64, Kind::Double) | (Kind::Double, Kind::Int64) => Kind::Double,
        (Kind::List(one), Kind::List(other)) => Kind::List(Arc::new(Schema::optional(merge(&one.kind, &other.kind)))),
        (Kind::Struct(one), Kind::Struct(other)) => Kind::Struct(merge_fields(one, other)),
        (one, other) if one == other => one.clone(),
        _ => Kind::Json,
    }
}

fn merge_fields(one: &[(String, Arc<Schema>)], other: &[(String, Arc<Schema>)]) -> Vec<(String, Arc<Schema>)> {
    let mut fields = one.to_vec();
    for (at, (name, schema)) in other.iter().enumerate() {
        // Most records have the same fields at the same places.
        let place = match fields.get(at) {
            Some((known, _)) if known == name => Some(at),
            _ => fields.iter().position(|(known, _)| known == name),
        };
        match place {
            Some(place) if fields[place].1.kind == schema.kind => {}
            Some(place) => fields[place].1 = Arc::new(Schema::optional(merge(&fields[place].1.kind, &schema.kind))),
            None => fields.push((name.clone(), schema.clone())),
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(lines: &[&str]) -> Schema {
        let mut schema = Schema::optional(Kind::Unknown);
        for line in lines {
            let other = Schema::infer(&serde_json::from_str(line).unwrap()).unwrap();
            schema = schema.merge(&other).unwrap_or(schema);
        }
        schema
    }

    #[test]
    fn types_of_plain_json_are_those_that_hold_all_values() {
        let schema = merged(&[
            r#"{"a":1,"b":null,"c":[1],"d":{"x":1},"e":"t"}"#,
            r#"{"a":1.5,"b":true,"c":[null,2.5],"d":{"y":"t"},"f":[]}"#,
            r#"{"e":1}"#,
        ]);
        let kind = |name: &str| schema.field(name).unwrap().kind.clone();
        assert_eq!((kind("a"), kind("b"), kind("e")), (Kind::Double, Kind::Bool, Kind::Json));
        assert_eq!(kind("c"), Kind::List(Arc::new(Schema::optional(Kind::Double))));
        assert_eq!(kind("f"), Kind::List(Arc::new(Schema::optional(Kind::Unknown))));
        let inner = schema.field("d").unwrap();
        assert_eq!((inner.field("x").unwrap().kind.clone(), inner.field("y").unwrap().kind.clone()), (Kind::Int64, Kind::String));
    }

    #[test]
    fn the_same_fields_are_no_new_schema() {
        let schema = merged(&[r#"{"a":1.5,"b":"t"}"#]);
        assert_eq!(schema.merge(&merged(&[r#"{"b":"u","a":7}"#])), None);
        assert!(schema.merge(&merged(&[r#"{"c":1}"#])).is_some());
    }

    #[test]
    fn what_is_too_deep_is_refused() {
        let deep = (0..100).fold(Value::Null, |value, _| Value::List(vec![value]));
        assert!(Schema::infer(&deep).unwrap_err().contains("64"));
    }
}
