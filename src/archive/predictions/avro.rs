//! Avro behind Confluent's header, with its schema in a registry: `format = "avro"`, ours or another program's.

use super::envelope::quoted;
use crate::archive::encoder::EncodeError;
use crate::archive::registry::SchemasById;
use crate::format::avro::{BARE, NAME};
use crate::format::schema::BARE_FIELD;
use crate::sink::kafka::registry::RegistrySettings;
use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::schema::{RecordSchema, UnionSchema};
use apache_avro::types::Value;
use serde_json::{Map, Value as Json, json};
use std::sync::Arc;

/// Reads messages by the schemas of a registry.
pub(super) struct Avro {
    /// `None` for one that the registry has not, or that cannot be read: its messages go to the dead letters.
    schemas: SchemasById<Option<Arc<Schema>>>,
}

impl Avro {
    pub fn new(settings: &RegistrySettings) -> Result<Avro, String> {
        Ok(Avro { schemas: SchemasById::new(settings, "kafka.registry")? })
    }

    /// The record in a message, as JSON. `Ok(Err(_))`: why it is none.
    pub fn record(&self, message: &[u8]) -> Result<Result<String, String>, EncodeError> {
        let Some((id, mut body)) = message.get(1..).and_then(<[u8]>::split_first_chunk) else {
            return Ok(Err("an Avro message without a schema id".to_owned()));
        };
        let id = u32::from_be_bytes(*id);
        let parse = |text: Option<String>| text.and_then(|text| Schema::parse_str(&text).ok()).map(Arc::new);
        let Some(schema) = self.schemas.get(id, parse)? else { return Ok(Err(format!("schema id={id} is not in the registry"))) };
        let read = GenericDatumReader::builder(&schema).build().and_then(|reader| reader.read_value(&mut body));
        Ok(match read {
            Ok(value) => Ok(json_of(&value, &schema).to_string()),
            Err(error) => Err(format!("not Avro of schema id={id}: {error}")),
        })
    }
}

/// Nulls are left out of records: they are keys that were not there.
fn json_of(value: &Value, schema: &Schema) -> Json {
    match (value, schema) {
        (Value::Union(at, value), Schema::Union(union)) => json_of(value, variant(union, *at)),
        (Value::Record(fields), Schema::Record(record)) => record_of(fields, record),
        (Value::Array(items), Schema::Array(array)) => items.iter().map(|item| json_of(item, &array.items)).collect(),
        (Value::Map(entries), Schema::Map(map)) => {
            entries.iter().map(|(key, value)| (key.clone(), json_of(value, &map.types))).collect()
        }
        (value, _) => scalar(value),
    }
}

fn variant(union: &UnionSchema, at: u32) -> &Schema {
    usize::try_from(at).ok().and_then(|at| union.variants().get(at)).unwrap_or(&Schema::Null)
}

fn record_of(fields: &[(String, Value)], record: &RecordSchema) -> Json {
    let mut object = Map::new();
    for ((name, value), field) in fields.iter().zip(&record.fields) {
        let value = json_of(value, &field.schema);
        if value.is_null() {
            continue;
        }
        if field.custom_attributes.contains_key(BARE) && name == BARE_FIELD {
            return value;
        }
        let name = field.custom_attributes.get(NAME).and_then(Json::as_str).unwrap_or(name);
        object.insert(name.to_owned(), value);
    }
    for side in ["inputs", "outputs"] {
        if let Some(Json::String(raw)) = object.remove(&format!("{side}_json"))
            && let Ok(exact) = serde_json::from_str(&raw)
        {
            object.insert(side.to_owned(), exact);
        }
    }
    Json::Object(object)
}

fn scalar(value: &Value) -> Json {
    match value {
        Value::Boolean(value) => json!(value),
        Value::Int(value) | Value::Date(value) | Value::TimeMillis(value) => json!(value),
        Value::Long(value) | Value::TimeMicros(value) | Value::TimestampNanos(value) | Value::LocalTimestampNanos(value) => {
            json!(value)
        }
        Value::Float(value) => double(f64::from(*value)),
        Value::Double(value) => double(*value),
        Value::String(text) | Value::Enum(_, text) => json!(text),
        Value::Bytes(bytes) | Value::Fixed(_, bytes) => json!(bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>()),
        Value::TimestampMicros(micros) | Value::LocalTimestampMicros(micros) => time(*micros),
        Value::TimestampMillis(millis) | Value::LocalTimestampMillis(millis) => time(millis.saturating_mul(1_000)),
        Value::Uuid(uuid) => json!(uuid.to_string()),
        Value::Union(_, value) => scalar(value),
        Value::Null => Json::Null,
        other => json!(format!("{other:?}")),
    }
}

fn double(value: f64) -> Json {
    match value {
        _ if value.is_finite() => json!(value),
        _ if value.is_nan() => json!("NaN"),
        _ => json!(if value > 0.0 { "Infinity" } else { "-Infinity" }),
    }
}

fn time(micros: i64) -> Json {
    serde_json::from_slice(&quoted(micros)).unwrap_or_default()
}
