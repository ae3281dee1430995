//! A model's Avro schema: written from its columns, and read to know how to write records with it.

use std::collections::BTreeMap;

use apache_avro::Schema;
use apache_avro::schema::{RecordField, RecordSchema};
use serde_json::{Value, json};

use crate::format::decode::{ENVELOPE, Slot};
use crate::format::schema::{self, ColumnType, ModelSchema};
use crate::format::wire::{self, Kind, Lines, Nullable, Side, record_name, usable_name};

/// The property of a field with its name, where Avro does not take it.
pub(crate) const NAME: &str = "predlog.name";
/// The property of a field `value` that holds values which are not objects.
pub(crate) const BARE: &str = "predlog.bare";
const RAW: [&str; 2] = ["inputs_json", "outputs_json"];

/// The schema's text.
pub(super) fn text(model_name: &str, columns: &ModelSchema) -> String {
    let record = record_name(model_name);
    let mut fields = Vec::new();
    for (name, slot) in ENVELOPE {
        let kind = match slot {
            Slot::Timestamp => {
                fields.push(json!({"name": name, "type": {"type": "long", "logicalType": "timestamp-micros"}}));
                continue;
            }
            Slot::Ignored => {
                fields.push(json!({"name": name, "type": "string"}));
                continue;
            }
            Slot::Side(side) => {
                let columns = if side == 0 { &columns.inputs } else { &columns.outputs };
                if let Some(kind) = record_of(&columns.fields, &record, name, columns.bare) {
                    fields.push(optional(name, &kind));
                }
                fields.push(optional(RAW[side], &json!("string")));
                continue;
            }
            Slot::Text(_) => json!("string"),
            Slot::Int(_) => json!("long"),
            Slot::Status => json!("int"),
            Slot::Double(_) => json!("double"),
            Slot::Metadata => json!({"type": "map", "values": "string"}),
        };
        fields.push(optional(name, &kind));
    }
    let (namespace, name) = record.split_once('.').unwrap_or(("predlog", &record));
    let schema =
        json!({"type": "record", "name": name, "namespace": namespace, "predlog.model_name": model_name, "fields": fields});
    schema.to_string()
}

fn optional(name: &str, kind: &Value) -> Value {
    json!({"name": name, "type": ["null", kind], "default": null})
}

/// The record called `name` for these columns. Its full name says where it is, so that no two are the same.
fn record_of(columns: &[schema::Field], namespace: &str, name: &str, bare: bool) -> Option<Value> {
    let inner = format!("{namespace}.{name}");
    let fields: Vec<Value> = columns
        .iter()
        .filter_map(|column| {
            let name = usable_name(&column.name);
            let mut field = optional(&name, &type_of(&column.kind, &inner, &name)?);
            if name != column.name {
                field[NAME] = json!(column.name);
            }
            if bare && column.name == schema::BARE_FIELD {
                field[BARE] = json!(true);
            }
            Some(field)
        })
        .collect();
    (!fields.is_empty()).then(|| json!({"type": "record", "name": name, "namespace": namespace, "fields": fields}))
}

fn type_of(kind: &ColumnType, namespace: &str, name: &str) -> Option<Value> {
    Some(match kind {
        ColumnType::Unknown | ColumnType::Foreign => return None,
        ColumnType::Bool => json!("boolean"),
        ColumnType::Int64 => json!("long"),
        ColumnType::Double => json!("double"),
        ColumnType::String => json!("string"),
        ColumnType::List(element) => {
            json!({"type": "array", "items": ["null", type_of(element, &format!("{namespace}.{name}"), "element")?]})
        }
        ColumnType::Struct(fields) => record_of(fields, namespace, name, false)?,
    })
}

/// What a field of the record is written from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// The value at this place in [`ENVELOPE`], which is not a side.
    Value(usize),
    Side(usize),
    /// The side's raw JSON.
    Raw(usize),
    /// A field that is somebody else's.
    Nothing,
}

/// How records are written with a schema.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) lines: Lines,
    pub(super) fields: Vec<(Source, Nullable)>,
}

impl Plan {
    /// Reads the schema. Its fields may come in any order, and be fewer below `inputs` and `outputs`.
    ///
    /// # Errors
    /// It is not Avro, or a record written with it would lose something: with the field, and what is expected of it.
    pub(super) fn read(text: &str) -> Result<Plan, String> {
        let schema = Schema::parse_str(text).map_err(|error| format!("it is not an Avro schema: {error}"))?;
        let Schema::Record(record) = schema else { return Err("it is not a record".to_owned()) };
        let mut sides = [(None, Nullable::First, false), (None, Nullable::First, false)];
        let mut fields = Vec::with_capacity(record.fields.len());
        for field in &record.fields {
            let (nullable, kind) = split_null(&field.schema);
            let source = source_of(&field.name);
            let expected = expected_type(source, &Schema::Null).unwrap_or("a union with null");
            let wrong = || format!("its field {} has a type that predlog cannot write: expected {expected}", field.name);
            match source {
                Source::Nothing | Source::Side(_) | Source::Raw(_) if nullable == Nullable::Never => return Err(wrong()),
                Source::Value(at) if nullable == Nullable::Never && !is_always_there(at) => return Err(wrong()),
                _ if expected_type(source, kind).is_some() => return Err(wrong()),
                Source::Side(side) => {
                    let Schema::Record(record) = kind else { return Err(wrong()) };
                    sides[side] = (Some(fields_of(record, 1)), nullable, has_bare(record));
                }
                _ => {}
            }
            fields.push((source, nullable));
        }
        let needed = (0..ENVELOPE.len()).filter(|&at| !matches!(ENVELOPE[at].1, Slot::Side(_))).map(Source::Value);
        if let Some(missing) =
            needed.chain([Source::Raw(0), Source::Raw(1)]).find(|source| !fields.iter().any(|(has, _)| has == source))
        {
            let (name, expected) = (name_of(missing), expected_type(missing, &Schema::Null).unwrap_or_default());
            return Err(format!("it has no field {name}: expected one of the type {expected}"));
        }
        let sides = sides.map(|(fields, nullable, bare)| Side::new(fields, nullable, bare));
        Ok(Plan { lines: Lines::new(sides), fields })
    }
}

fn source_of(name: &str) -> Source {
    if let Some(side) = RAW.iter().position(|raw| *raw == name) {
        return Source::Raw(side);
    }
    match ENVELOPE.iter().position(|(key, _)| *key == name) {
        Some(at) => match ENVELOPE[at].1 {
            Slot::Side(side) => Source::Side(side),
            _ => Source::Value(at),
        },
        None => Source::Nothing,
    }
}

fn name_of(source: Source) -> &'static str {
    match source {
        Source::Value(at) => ENVELOPE[at].0,
        Source::Side(side) => ["inputs", "outputs"][side],
        Source::Raw(side) => RAW[side],
        Source::Nothing => "",
    }
}

/// Each line has a time and a model's name.
fn is_always_there(at: usize) -> bool {
    matches!(ENVELOPE[at].1, Slot::Timestamp | Slot::Ignored)
}

/// The type that the field must have, when `kind` is not it.
fn expected_type(source: Source, kind: &Schema) -> Option<&'static str> {
    let slot = match source {
        Source::Value(at) => ENVELOPE[at].1,
        Source::Side(side) => Slot::Side(side),
        Source::Raw(_) => Slot::Text(0),
        Source::Nothing => return None,
    };
    let (fits, expected) = match slot {
        Slot::Timestamp => (matches!(kind, Schema::TimestampMicros), "long with logicalType timestamp-micros"),
        Slot::Ignored => (matches!(kind, Schema::String), "string"),
        Slot::Text(_) => (matches!(kind, Schema::String), "[\"null\", \"string\"]"),
        Slot::Side(_) => (matches!(kind, Schema::Record(_)), "[\"null\", a record]"),
        Slot::Int(_) => (matches!(kind, Schema::Long), "[\"null\", \"long\"]"),
        Slot::Status => (matches!(kind, Schema::Int | Schema::Long), "[\"null\", \"int\"]"),
        Slot::Double(_) => (matches!(kind, Schema::Double), "[\"null\", \"double\"]"),
        Slot::Metadata => {
            let strings = matches!(kind, Schema::Map(map) if matches!(*map.types, Schema::String));
            (strings, "[\"null\", a map of \"string\"]")
        }
    };
    (!fits).then_some(expected)
}

/// A union of null and another, taken apart.
fn split_null(schema: &Schema) -> (Nullable, &Schema) {
    if let Schema::Union(union) = schema {
        match union.variants() {
            [Schema::Null, kind] => return (Nullable::First, kind),
            [kind, Schema::Null] => return (Nullable::Second, kind),
            _ => {}
        }
    }
    (Nullable::Never, schema)
}

fn fields_of(record: &RecordSchema, depth: usize) -> wire::Fields {
    wire::Fields::new(record.fields.iter().map(|field| (json_name(field), slot_of(&field.schema, depth))), depth)
}

fn slot_of(schema: &Schema, depth: usize) -> wire::Slot {
    let (nullable, kind) = split_null(schema);
    let kind = match kind {
        Schema::Boolean => Kind::Bool,
        Schema::Int => Kind::Int32,
        Schema::Long => Kind::Int64,
        Schema::Double => Kind::Double,
        Schema::String => Kind::Text,
        Schema::Array(array) => Kind::List(Box::new(slot_of(&array.items, depth + 1))),
        Schema::Record(record) => Kind::Struct(Box::new(fields_of(record, depth + 1))),
        _ => Kind::Foreign,
    };
    wire::Slot { kind, nullable }
}

fn property<'a>(properties: &'a BTreeMap<String, Value>, name: &str) -> Option<&'a Value> {
    properties.get(name)
}

/// The key that the field has in JSON.
fn json_name(field: &RecordField) -> String {
    property(&field.custom_attributes, NAME).and_then(Value::as_str).unwrap_or(&field.name).to_owned()
}

fn has_bare(record: &RecordSchema) -> bool {
    record.fields.iter().any(|field| property(&field.custom_attributes, BARE) == Some(&Value::Bool(true)))
}
