//! AvroConverter: Confluent's header, a zero byte and the schema's id, then Avro's binary form.

use super::envelope::decimal_kind;
use crate::archive::encoder::EncodeError;
use crate::archive::registry::SchemasById;
use crate::connect::config::ConverterSettings;
use crate::connect::record::Part;
use crate::connect::schema::{Kind, MAX_DEPTH, Schema};
use crate::connect::value::Value;
use crate::sink::kafka::registry::RegistrySettings;
use apache_avro::Schema as AvroSchema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::schema::{InnerDecimalSchema, Name, Names, RecordSchema, ResolvedSchema, UnionSchema, UuidSchema};
use apache_avro::types::Value as AvroValue;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Number;
use std::sync::Arc;

/// Confluent's name of the record that a union of several types becomes.
const UNION: &str = "io.confluent.connect.avro.Union";

/// Reads messages by the schemas of a registry.
pub(super) struct Avro {
    /// Why not, for one that cannot be used.
    schemas: SchemasById<Result<Arc<Known>, String>>,
}

struct Known {
    id: u32,
    avro: AvroSchema,
    /// The types that it names.
    names: Names,
    connect: Arc<Schema>,
}

impl Avro {
    pub fn new(settings: &ConverterSettings) -> Result<Avro, String> {
        let (username, password) = settings.credentials.clone().unzip();
        let settings = RegistrySettings { url: settings.registry.clone(), username, password, ..RegistrySettings::default() };
        Ok(Avro { schemas: SchemasById::new(&settings, "schema.registry.url")? })
    }

    /// `Ok(Err(_))`: why it is no record.
    pub fn read(&self, message: &[u8]) -> Result<Result<Part, String>, EncodeError> {
        let header = message.split_first().filter(|(magic, _)| **magic == 0).and_then(|(_, rest)| rest.split_first_chunk());
        let Some((id, mut body)) = header else {
            return Ok(Err("not Avro of a registry: expected a zero byte and a schema id before the value".to_owned()));
        };
        let id = u32::from_be_bytes(*id);
        let known = match self.schemas.get(id, |text| understand(text, id))? {
            Ok(known) => known,
            Err(why) => return Ok(Err(why)),
        };
        Ok(known.read(&mut body))
    }
}

impl Known {
    fn read(&self, body: &mut &[u8]) -> Result<Part, String> {
        let read = GenericDatumReader::builder(&self.avro).build().and_then(|reader| reader.read_value(body));
        let read = read.map_err(|error| format!("not Avro of schema id={}: {error}", self.id))?;
        let value = value(read, &self.avro, &self.names);
        Ok(Part { schema: Some(self.connect.clone()), value: (value != Value::Null).then_some(value) })
    }
}

fn understand(text: Option<String>, id: u32) -> Result<Arc<Known>, String> {
    let wrong = |why: String| format!("schema id={id}: {why}");
    let text = text.ok_or_else(|| format!("schema id={id} is not in the registry"))?;
    let avro = AvroSchema::parse_str(&text).map_err(|error| wrong(error.to_string()))?;
    let resolved = ResolvedSchema::new(&avro).map_err(|error| wrong(error.to_string()))?;
    let names: Names = resolved.get_names().iter().map(|(name, named)| (name.clone(), (*named).clone())).collect();
    let mut connect = Describe { names: &names, around: Vec::new() }.schema(&avro, 0).map_err(wrong)?;
    // A registry counts ids up: of two schemas of a subject the later has the higher, as it has the higher version.
    connect.version.get_or_insert(id.into());
    Ok(Arc::new(Known { id, avro, names, connect: Arc::new(connect) }))
}

/// Says Avro's types as Connect's.
struct Describe<'a> {
    names: &'a Names,
    /// The records that are being described.
    around: Vec<&'a Name>,
}

impl<'a> Describe<'a> {
    fn schema(&mut self, avro: &'a AvroSchema, depth: usize) -> Result<Schema, String> {
        if depth > MAX_DEPTH {
            return Err(format!("nested deeper than {MAX_DEPTH} levels"));
        }
        let kind = match avro {
            AvroSchema::Null => Kind::Unknown,
            AvroSchema::Boolean => Kind::Bool,
            AvroSchema::Int => Kind::Int(32),
            AvroSchema::Long | AvroSchema::TimeMicros | AvroSchema::TimestampNanos | AvroSchema::LocalTimestampNanos => {
                Kind::Int64
            }
            AvroSchema::Float => Kind::Float,
            AvroSchema::Double => Kind::Double,
            AvroSchema::Bytes | AvroSchema::Fixed(_) | AvroSchema::Duration(_) => Kind::Bytes,
            AvroSchema::String | AvroSchema::Enum(_) | AvroSchema::Uuid(_) | AvroSchema::BigDecimal => Kind::String,
            AvroSchema::Date => Kind::Date,
            AvroSchema::TimeMillis => Kind::Time,
            AvroSchema::TimestampMillis | AvroSchema::LocalTimestampMillis => Kind::Timestamp,
            AvroSchema::TimestampMicros | AvroSchema::LocalTimestampMicros => Kind::Int64,
            AvroSchema::Decimal(decimal) => decimal_kind(
                u8::try_from(decimal.precision).unwrap_or(u8::MAX),
                i8::try_from(decimal.scale).map_err(|error| error.to_string())?,
            )?,
            AvroSchema::Array(array) => Kind::List(Arc::new(self.schema(&array.items, depth + 1)?)),
            AvroSchema::Map(map) => {
                let keys = Schema { optional: false, ..Schema::optional(Kind::String) };
                Kind::Map(Arc::new(keys), Arc::new(self.schema(&map.types, depth + 1)?))
            }
            AvroSchema::Record(record) => return self.record(record, depth),
            AvroSchema::Union(union) => match optional(union) {
                Some(variant) => return Ok(Schema { optional: true, ..self.schema(variant, depth + 1)? }),
                None => return self.union(union, depth),
            },
            AvroSchema::Ref { name } => {
                let named = self.names.get(name).ok_or_else(|| format!("type {name} is not in it"))?;
                return self.schema(named, depth);
            }
        };
        Ok(Schema { optional: false, ..Schema::optional(kind) })
    }

    fn record(&mut self, record: &'a RecordSchema, depth: usize) -> Result<Schema, String> {
        let name = &record.name;
        if self.around.contains(&name) {
            return Err(format!(
                "record {name} holds a {name}: expected one that does not, since no columns hold records of any depth"
            ));
        }
        self.around.push(name);
        let mut fields = Vec::with_capacity(record.fields.len());
        for field in &record.fields {
            let mut schema = self.schema(&field.schema, depth + 1).map_err(|why| format!("{}: {why}", field.name))?;
            let default = field.default.as_ref().filter(|default| !default.is_null());
            schema.default = default.map(|default| self.default(&field.schema, Value::from_json(default)));
            fields.push((field.name.clone(), Arc::new(schema)));
        }
        self.around.pop();
        Ok(Schema { optional: false, name: Some(name.to_string()), ..Schema::optional(Kind::Struct(fields)) })
    }

    /// A record with a field for each type, as Confluent's converter makes of it: the one that a value is of has it, the others are null.
    fn union(&mut self, union: &'a UnionSchema, depth: usize) -> Result<Schema, String> {
        let mut fields: Vec<(String, Arc<Schema>)> = Vec::new();
        for variant in types(union) {
            let name = called(variant);
            if fields.iter().any(|(known, _)| known == name) {
                return Err(format!(
                    "a union of two types {name}: expected types that differ without their namespaces, as its fields are called by them"
                ));
            }
            let schema = Schema { optional: true, ..self.schema(variant, depth + 1)? };
            fields.push((name.to_owned(), Arc::new(schema)));
        }
        let optional = union.variants().iter().any(|variant| matches!(variant, AvroSchema::Null));
        Ok(Schema { optional, name: Some(UNION.to_owned()), ..Schema::optional(Kind::Struct(fields)) })
    }

    /// A default is of a union's first type.
    fn default(&self, avro: &AvroSchema, default: Value) -> Value {
        match avro {
            AvroSchema::Union(union) if optional(union).is_none() => match union.variants().first() {
                Some(first) => of_type(union, first, default),
                None => default,
            },
            _ => default,
        }
    }
}

/// The type of a union of it and null: to Connect that is no union, but a value that may be missing.
fn optional(union: &UnionSchema) -> Option<&AvroSchema> {
    match union.variants() {
        [AvroSchema::Null, variant] | [variant, AvroSchema::Null] => Some(variant),
        _ => None,
    }
}

fn types(union: &UnionSchema) -> impl Iterator<Item = &AvroSchema> {
    union.variants().iter().filter(|variant| !matches!(variant, AvroSchema::Null))
}

/// The field of a union's record that is for this type: the name of one that has a name, without its namespace.
fn called(avro: &AvroSchema) -> &str {
    match avro {
        AvroSchema::Record(record) => record.name.name(),
        AvroSchema::Enum(of) => of.name.name(),
        AvroSchema::Ref { name } => name.name(),
        AvroSchema::Fixed(fixed) | AvroSchema::Duration(fixed) | AvroSchema::Uuid(UuidSchema::Fixed(fixed)) => fixed.name.name(),
        AvroSchema::Decimal(decimal) => match &decimal.inner {
            InnerDecimalSchema::Fixed(fixed) => fixed.name.name(),
            InnerDecimalSchema::Bytes => "bytes",
        },
        AvroSchema::Null => "null",
        AvroSchema::Boolean => "boolean",
        AvroSchema::Int | AvroSchema::Date | AvroSchema::TimeMillis => "int",
        AvroSchema::Long
        | AvroSchema::TimeMicros
        | AvroSchema::TimestampMillis
        | AvroSchema::TimestampMicros
        | AvroSchema::TimestampNanos
        | AvroSchema::LocalTimestampMillis
        | AvroSchema::LocalTimestampMicros
        | AvroSchema::LocalTimestampNanos => "long",
        AvroSchema::Float => "float",
        AvroSchema::Double => "double",
        AvroSchema::Bytes | AvroSchema::BigDecimal | AvroSchema::Uuid(UuidSchema::Bytes) => "bytes",
        AvroSchema::String | AvroSchema::Uuid(UuidSchema::String) => "string",
        AvroSchema::Array(_) => "array",
        AvroSchema::Map(_) => "map",
        // No union is in another.
        AvroSchema::Union(_) => "union",
    }
}

/// The record of a union, with this value of this type.
fn of_type(union: &UnionSchema, variant: &AvroSchema, value: Value) -> Value {
    let mut fields: Vec<_> = types(union).map(|other| (called(other).to_owned(), Value::Null)).collect();
    if let Some(field) = fields.iter_mut().find(|(name, _)| name == called(variant)) {
        field.1 = value;
    }
    Value::Record(fields)
}

fn value(read: AvroValue, schema: &AvroSchema, names: &Names) -> Value {
    match (read, schema) {
        (read, AvroSchema::Ref { name }) => match names.get(name) {
            Some(named) => value(read, named, names),
            None => scalar(read),
        },
        (AvroValue::Union(at, inner), AvroSchema::Union(union)) => match union.variants().get(at as usize) {
            Some(variant) if *inner != AvroValue::Null => {
                let read = value(*inner, variant, names);
                if optional(union).is_some() { read } else { of_type(union, variant, read) }
            }
            _ => Value::Null,
        },
        (AvroValue::Record(fields), AvroSchema::Record(record)) => {
            let fields = fields.into_iter().zip(&record.fields);
            Value::Record(fields.map(|((name, inner), field)| (name, value(inner, &field.schema, names))).collect())
        }
        (AvroValue::Array(items), AvroSchema::Array(array)) => {
            Value::List(items.into_iter().map(|item| value(item, &array.items, names)).collect())
        }
        (AvroValue::Map(entries), AvroSchema::Map(map)) => {
            let mut entries: Vec<_> = entries.into_iter().map(|(key, inner)| (key, value(inner, &map.types, names))).collect();
            // The same rows each time that they are read.
            entries.sort_by(|one, other| one.0.cmp(&other.0));
            Value::Record(entries)
        }
        (read, _) => scalar(read),
    }
}

fn scalar(read: AvroValue) -> Value {
    match read {
        AvroValue::Boolean(value) => Value::Bool(value),
        AvroValue::Int(value) | AvroValue::Date(value) | AvroValue::TimeMillis(value) => Value::from(i64::from(value)),
        AvroValue::Long(value)
        | AvroValue::TimeMicros(value)
        | AvroValue::TimestampMillis(value)
        | AvroValue::TimestampMicros(value)
        | AvroValue::TimestampNanos(value)
        | AvroValue::LocalTimestampMillis(value)
        | AvroValue::LocalTimestampMicros(value)
        | AvroValue::LocalTimestampNanos(value) => Value::from(value),
        AvroValue::Float(value) => float(value),
        AvroValue::Double(value) => double(value),
        AvroValue::String(text) | AvroValue::Enum(_, text) => Value::Text(text),
        AvroValue::Bytes(bytes) | AvroValue::Fixed(_, bytes) => Value::Text(STANDARD.encode(bytes)),
        AvroValue::Decimal(decimal) => {
            Vec::<u8>::try_from(&decimal).map_or(Value::Null, |bytes| Value::Text(STANDARD.encode(bytes)))
        }
        AvroValue::Uuid(uuid) => Value::Text(uuid.to_string()),
        AvroValue::BigDecimal(decimal) => Value::Text(decimal.to_string()),
        AvroValue::Duration(duration) => Value::Text(STANDARD.encode(<[u8; 12]>::from(duration))),
        AvroValue::Null => Value::Null,
        // What does not fit its schema: no reader makes it.
        other => Value::Text(format!("{other:?}")),
    }
}

/// As Java writes it: 0.1 is 0.1, which as a double is 0.10000000149011612.
fn float(value: f32) -> Value {
    let shortest = value.to_string().parse().ok().filter(|shortest: &f64| *shortest as f32 == value);
    double(shortest.unwrap_or_else(|| f64::from(value)))
}

fn double(value: f64) -> Value {
    let text = || {
        if value.is_nan() {
            "NaN"
        } else if value > 0.0 {
            "Infinity"
        } else {
            "-Infinity"
        }
    };
    Number::from_f64(value).map_or_else(|| Value::from(text()), Value::Number)
}

#[cfg(test)]
#[path = "avro_tests.rs"]
mod tests;
