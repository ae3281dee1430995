//! JsonConverter: plain JSON, or a payload beside its schema.

use super::conform::conform;
use crate::connect::config::Envelope;
use crate::connect::record::Part;
use crate::connect::schema::{DATE, DECIMAL, Kind, MAX_DEPTH, Schema, TIME, TIMESTAMP};
use crate::connect::value::Value;
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::collections::HashMap;
use std::sync::Arc;

/// Schemas that are kept, by their text.
const MOST: usize = 1_000;
/// Digits of a decimal whose schema does not say how many it has: as many as a column can hold.
const PRECISION: u8 = 38;

/// The schemas of messages: nearly all have one that was seen before.
#[derive(Default)]
pub(super) struct Schemas(Mutex<HashMap<Box<str>, Arc<Schema>>>);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Enveloped<'a> {
    #[serde(borrow)]
    schema: &'a RawValue,
    payload: Value,
}

impl Schemas {
    /// Reads a message.
    ///
    /// # Errors
    /// Why it is none.
    pub fn read(&self, bytes: &[u8], envelope: Envelope) -> Result<Part, String> {
        if envelope != Envelope::Never {
            match serde_json::from_slice::<Enveloped<'_>>(bytes) {
                Ok(message) if envelope == Envelope::Always || message.is_typed() => return self.typed(message),
                Err(error) if envelope == Envelope::Always => {
                    return Err(format!(
                        "JsonConverter with schemas.enable=true: expected {{\"schema\": …, \"payload\": …}}: {error}; plain JSON needs schemas.enable=false"
                    ));
                }
                _ => {}
            }
        }
        let value: Value = serde_json::from_slice(bytes).map_err(|error| format!("not JSON: {error}"))?;
        Ok(Part { schema: None, value: (value != Value::Null).then_some(value) })
    }

    fn typed(&self, message: Enveloped<'_>) -> Result<Part, String> {
        if message.schema.get() == "null" {
            return Ok(Part { schema: None, value: (message.payload != Value::Null).then_some(message.payload) });
        }
        let schema = self.get(message.schema.get())?;
        let value = conform(message.payload, &schema).map_err(|why| format!("payload{why}"))?;
        Ok(Part { schema: Some(schema), value: (value != Value::Null).then_some(value) })
    }

    fn get(&self, text: &str) -> Result<Arc<Schema>, String> {
        if let Some(known) = self.0.lock().get(text) {
            return Ok(known.clone());
        }
        let json: serde_json::Value = serde_json::from_str(text).map_err(|error| format!("schema: {error}"))?;
        let schema = Arc::new(parse(&json, 0).map_err(|why| format!("schema: {why}"))?);
        let mut schemas = self.0.lock();
        if schemas.len() >= MOST {
            schemas.clear();
        }
        // One that says the same in other words stays the same, so that files do not end by it.
        let schema = schemas.values().find(|known| ***known == *schema).cloned().unwrap_or(schema);
        schemas.insert(text.into(), schema.clone());
        Ok(schema)
    }
}

impl Enveloped<'_> {
    /// A schema has a type, or is null, which is how JsonConverter writes what has none. Others may be anybody's record whose fields are called so.
    fn is_typed(&self) -> bool {
        #[derive(Deserialize)]
        struct Typed {
            #[serde(rename = "type")]
            _kind: String,
        }
        let text = self.schema.get();
        text == "null" || serde_json::from_str::<Typed>(text).is_ok()
    }
}

/// # Errors
/// What in the schema is wrong.
fn parse(json: &serde_json::Value, depth: usize) -> Result<Schema, String> {
    if depth > MAX_DEPTH {
        return Err(format!("nested deeper than {MAX_DEPTH} levels"));
    }
    let text = |key: &str| json.get(key).and_then(serde_json::Value::as_str);
    let inner = |key: &str| match json.get(key) {
        Some(inner) => parse(inner, depth + 1).map(Arc::new),
        None => Err(format!("type={:?} without {key}", text("type").unwrap_or_default())),
    };
    let kind = match (text("type").ok_or("expected \"type\" in it")?, text("name")) {
        ("boolean", _) => Kind::Bool,
        ("int32", Some(DATE)) => Kind::Date,
        ("int32", Some(TIME)) => Kind::Time,
        ("int64", Some(TIMESTAMP)) => Kind::Timestamp,
        ("bytes", Some(DECIMAL)) => decimal(json)?,
        ("int8", _) => Kind::Int(8),
        ("int16", _) => Kind::Int(16),
        ("int32", _) => Kind::Int(32),
        ("int64", _) => Kind::Int64,
        ("float", _) => Kind::Float,
        ("double", _) => Kind::Double,
        ("string", _) => Kind::String,
        ("bytes", _) => Kind::Bytes,
        ("array", _) => Kind::List(inner("items")?),
        ("map", _) => Kind::Map(inner("keys")?, inner("values")?),
        ("struct", _) => {
            let fields = json.get("fields").and_then(serde_json::Value::as_array).ok_or("type=\"struct\" without fields")?;
            let field = |field: &serde_json::Value| {
                let name = field.get("field").and_then(serde_json::Value::as_str).ok_or("a field without a name")?;
                Ok::<_, String>((name.to_owned(), Arc::new(parse(field, depth + 1).map_err(|why| format!("{name}: {why}"))?)))
            };
            Kind::Struct(fields.iter().map(field).collect::<Result<_, _>>()?)
        }
        (other, _) => return Err(format!("type={other:?} is none of Connect's")),
    };
    Ok(Schema {
        kind,
        optional: json.get("optional").and_then(serde_json::Value::as_bool).unwrap_or(false),
        name: text("name").map(str::to_owned),
        version: json.get("version").and_then(serde_json::Value::as_i64),
        default: json.get("default").filter(|default| !default.is_null()).map(Value::from_json),
    })
}

fn decimal(json: &serde_json::Value) -> Result<Kind, String> {
    let parameter = |name: &str| {
        let found = json.get("parameters")?.get(name)?;
        found.as_str().map_or_else(|| found.as_i64(), |text| text.parse().ok())
    };
    let scale = parameter("scale").and_then(|scale| i8::try_from(scale).ok()).ok_or("a decimal without its scale")?;
    let precision = parameter("connect.decimal.precision").and_then(|digits| u8::try_from(digits).ok());
    decimal_kind(precision.unwrap_or(PRECISION), scale)
}

/// # Errors
/// No column can hold it.
pub(super) fn decimal_kind(precision: u8, scale: i8) -> Result<Kind, String> {
    let precision = precision.clamp(1, PRECISION);
    if scale < 0 || scale.unsigned_abs() > precision {
        return Err(format!("a decimal of scale={scale}: expected 0 to {precision}"));
    }
    Ok(Kind::Decimal { precision, scale })
}
