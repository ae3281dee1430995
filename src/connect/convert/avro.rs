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
use apache_avro::schema::{RecordSchema, UnionSchema};
use apache_avro::types::Value as AvroValue;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Number;
use std::sync::Arc;

/// Reads messages by the schemas of a registry.
pub(super) struct Avro {
    /// Why not, for one that cannot be used.
    schemas: SchemasById<Result<Arc<Known>, String>>,
}

struct Known {
    avro: AvroSchema,
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
        let read = GenericDatumReader::builder(&known.avro).build().and_then(|reader| reader.read_value(&mut body));
        Ok(match read.map(|read| value(read, &known.avro)) {
            Ok(read) => Ok(Part { schema: Some(known.connect.clone()), value: (read != Value::Null).then_some(read) }),
            Err(error) => Err(format!("not Avro of schema id={id}: {error}")),
        })
    }
}

fn understand(text: Option<String>, id: u32) -> Result<Arc<Known>, String> {
    let wrong = |why: String| format!("schema id={id}: {why}");
    let text = text.ok_or_else(|| format!("schema id={id} is not in the registry"))?;
    let avro = AvroSchema::parse_str(&text).map_err(|error| wrong(error.to_string()))?;
    let mut connect = schema(&avro, 0).map_err(wrong)?;
    // A registry counts ids up: of two schemas of a subject the later has the higher, as it has the higher version.
    connect.version.get_or_insert(id.into());
    Ok(Arc::new(Known { avro, connect: Arc::new(connect) }))
}

/// The variant of a union with null, and whether there is a null.
fn single(union: &UnionSchema) -> (Option<&AvroSchema>, bool) {
    let mut others = union.variants().iter().filter(|variant| !matches!(variant, AvroSchema::Null));
    let first = others.next();
    let is_single = others.next().is_none();
    (first.filter(|_| is_single), union.variants().iter().any(|variant| matches!(variant, AvroSchema::Null)))
}

fn schema(avro: &AvroSchema, depth: usize) -> Result<Schema, String> {
    if depth > MAX_DEPTH {
        return Err(format!("nested deeper than {MAX_DEPTH} levels"));
    }
    let inner = |avro: &AvroSchema| schema(avro, depth + 1).map(Arc::new);
    let mut name = None;
    let kind = match avro {
        AvroSchema::Null => Kind::Unknown,
        AvroSchema::Boolean => Kind::Bool,
        AvroSchema::Int => Kind::Int(32),
        AvroSchema::Long | AvroSchema::TimeMicros | AvroSchema::TimestampNanos | AvroSchema::LocalTimestampNanos => Kind::Int64,
        AvroSchema::Float => Kind::Float,
        AvroSchema::Double => Kind::Double,
        AvroSchema::Bytes | AvroSchema::Fixed(_) => Kind::Bytes,
        AvroSchema::String | AvroSchema::Enum(_) | AvroSchema::Uuid(_) | AvroSchema::BigDecimal => Kind::String,
        AvroSchema::Date => Kind::Date,
        AvroSchema::TimeMillis => Kind::Time,
        AvroSchema::TimestampMillis | AvroSchema::LocalTimestampMillis => Kind::Timestamp,
        AvroSchema::TimestampMicros | AvroSchema::LocalTimestampMicros => Kind::Int64,
        AvroSchema::Decimal(decimal) => decimal_kind(
            u8::try_from(decimal.precision).unwrap_or(u8::MAX),
            i8::try_from(decimal.scale).map_err(|error| error.to_string())?,
        )?,
        AvroSchema::Array(array) => Kind::List(inner(&array.items)?),
        AvroSchema::Map(map) => {
            Kind::Map(Arc::new(Schema { optional: false, ..Schema::optional(Kind::String) }), inner(&map.types)?)
        }
        AvroSchema::Record(record) => {
            name = Some(record.name.to_string());
            return Ok(Schema { optional: false, name, ..Schema::optional(Kind::Struct(fields(record, depth)?)) });
        }
        AvroSchema::Union(union) => {
            let (variant, _) = single(union);
            let variant = variant.ok_or("a union of several types has no column: expected a type, or it and null")?;
            return Ok(Schema { optional: true, ..schema(variant, depth + 1)? });
        }
        other => return Err(format!("a schema that refers to itself or to another has no column: {other:?}")),
    };
    Ok(Schema { optional: false, name, ..Schema::optional(kind) })
}

fn fields(record: &RecordSchema, depth: usize) -> Result<Vec<(String, Arc<Schema>)>, String> {
    let field = |field: &apache_avro::schema::RecordField| {
        let mut schema = schema(&field.schema, depth + 1).map_err(|why| format!("{}: {why}", field.name))?;
        schema.default = field.default.as_ref().filter(|default| !default.is_null()).map(Value::from_json);
        Ok((field.name.clone(), Arc::new(schema)))
    };
    record.fields.iter().map(field).collect()
}

fn value(read: AvroValue, schema: &AvroSchema) -> Value {
    match (read, schema) {
        (AvroValue::Union(_, inner), AvroSchema::Union(union)) => match single(union).0 {
            Some(variant) if *inner != AvroValue::Null => value(*inner, variant),
            _ => Value::Null,
        },
        (AvroValue::Record(fields), AvroSchema::Record(record)) => {
            let fields = fields.into_iter().zip(&record.fields);
            Value::Record(fields.map(|((name, inner), field)| (name, value(inner, &field.schema))).collect())
        }
        (AvroValue::Array(items), AvroSchema::Array(array)) => {
            Value::List(items.into_iter().map(|item| value(item, &array.items)).collect())
        }
        (AvroValue::Map(entries), AvroSchema::Map(map)) => {
            let mut entries: Vec<_> = entries.into_iter().map(|(key, inner)| (key, value(inner, &map.types))).collect();
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
        AvroValue::Float(value) => double(f64::from(value)),
        AvroValue::Double(value) => double(value),
        AvroValue::String(text) | AvroValue::Enum(_, text) => Value::Text(text),
        AvroValue::Bytes(bytes) | AvroValue::Fixed(_, bytes) => Value::Text(STANDARD.encode(bytes)),
        AvroValue::Decimal(decimal) => {
            Vec::<u8>::try_from(&decimal).map_or(Value::Null, |bytes| Value::Text(STANDARD.encode(bytes)))
        }
        AvroValue::Uuid(uuid) => Value::Text(uuid.to_string()),
        AvroValue::BigDecimal(decimal) => Value::Text(decimal.to_string()),
        AvroValue::Null => Value::Null,
        // A duration, or a value of a schema that was refused.
        other => Value::Text(format!("{other:?}")),
    }
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
