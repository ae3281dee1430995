//! `format = "connect-json"`: the messages of Kafka Connect's JsonConverter with `schemas.enable=true`, `{"schema":…,"payload":…}`.
//!
//! *Time.* Connect's own type for it has milliseconds. `timestamp` is that, since sinks partition by it and make a column of time of it; an int64 of
//! microseconds under this name would be taken for milliseconds. `timestamp_us` is the exact time, in microseconds since 1970.
//!
//! *Numbers that JSON has not.* The converter reads `"NaN"` as 0.0, without an error. An infinity is written as `1e999`, which it reads as one. A NaN is null,
//! and the row keeps its raw JSON; so does a row with a negative zero, whose sign the converter drops. A `latency_ms` or `sample_weight` of NaN is null.

use std::collections::HashMap;

use super::decode::scan::{RawStr, unescape};
use super::decode::{ENVELOPE, Slot};
use super::schema::{self, ColumnType, MAX_LEAVES, ModelSchema};
use super::store::SchemaStore;
use super::wire::{EncodeError, Encoded, Learner, Lines, Nullable, Row, Value, Wire, for_each_entry, record_name, usable_name};
use crate::json::escape::write_str;
use crate::record::raw_model_name;

const INFINITY: &[u8] = b"1e999";

/// JSON as the converter reads it.
enum Json {}

impl Wire for Json {
    fn null(out: &mut Vec<u8>, _: Nullable) -> bool {
        out.extend_from_slice(b"null");
        true
    }

    fn missing(_: &mut Vec<u8>, _: Nullable) -> bool {
        true
    }

    fn some(_: &mut Vec<u8>, _: Nullable) {}

    fn bool(out: &mut Vec<u8>, value: bool) {
        out.extend_from_slice(if value { b"true" } else { b"false" });
    }

    fn int(out: &mut Vec<u8>, value: i64) {
        out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
    }

    fn double(out: &mut Vec<u8>, value: f64, exact: &mut bool) -> bool {
        if value.is_nan() {
            return false;
        }
        *exact &= !(value == 0.0 && value.is_sign_negative());
        if value.is_finite() {
            out.extend_from_slice(zmij::Buffer::new().format_finite(value).as_bytes());
        } else {
            out.extend_from_slice(if value > 0.0 { b"" } else { b"-" });
            out.extend_from_slice(INFINITY);
        }
        true
    }

    fn text(out: &mut Vec<u8>, text: &RawStr<'_>, scratch: &mut String) -> bool {
        scratch.clear();
        // Any JSON text is one here too, but for a lone surrogate.
        if text.escaped && !unescape(text.raw, scratch) {
            return false;
        }
        write_raw(out, text.raw);
        true
    }

    fn begin_list(out: &mut Vec<u8>) {
        out.push(b'[');
    }

    fn element(out: &mut Vec<u8>) {
        comma(out, b'[');
    }

    fn end_list(out: &mut Vec<u8>, _: usize, _: usize) {
        out.push(b']');
    }

    fn begin_struct(out: &mut Vec<u8>) {
        out.push(b'{');
    }

    fn key(out: &mut Vec<u8>, quoted: &[u8]) {
        comma(out, b'{');
        out.extend_from_slice(quoted);
    }

    fn end_struct(out: &mut Vec<u8>) {
        out.push(b'}');
    }
}

/// Values end in anything but their container's opening bracket, so what follows one is the first.
fn comma(out: &mut Vec<u8>, open: u8) {
    if out.last() != Some(&open) {
        out.push(b',');
    }
}

/// A string whose inside is given as it stands in JSON.
fn write_raw(out: &mut Vec<u8>, raw: &str) {
    out.push(b'"');
    out.extend_from_slice(raw.as_bytes());
    out.push(b'"');
}

/// Makes messages of lines, with the columns that the directory's schemas have, and new ones as they come.
#[derive(Debug)]
pub(crate) struct ConnectJson {
    schemas: SchemaStore,
    /// By the raw text of its name.
    models: HashMap<Vec<u8>, Model>,
    scratch: String,
}

#[derive(Debug)]
struct Model {
    name: String,
    schema: ModelSchema,
    lines: Lines,
    learner: Learner,
    /// All of a message before its payload.
    head: Vec<u8>,
}

impl ConnectJson {
    /// Columns are those of `schemas`, where new ones are kept.
    pub(crate) fn new(schemas: SchemaStore) -> Self {
        ConnectJson { schemas, models: HashMap::new(), scratch: String::new() }
    }

    /// Makes a message of a line; `out` is cleared first. `ahead` are lines behind it, which are looked at if this one has a new field.
    ///
    /// # Errors
    /// `NotYet` if the schema cannot be read or kept, `Unencodable` if the line is none of ours.
    pub(crate) fn encode<'a>(
        &mut self,
        line: &'a [u8],
        ahead: impl Iterator<Item = &'a [u8]>,
        out: &mut Vec<u8>,
    ) -> Result<Encoded, EncodeError> {
        let refused = |error: super::decode::LineError| EncodeError::Unencodable(error.to_string());
        let key =
            raw_model_name(line).ok_or_else(|| EncodeError::Unencodable("line has no model_name where it stands".to_owned()))?;
        if !self.models.contains_key(key) {
            let model = Model::load(&self.schemas, key)?;
            self.models.insert(key.to_vec(), model);
        }
        // It is there, or was just put there.
        let Some(model) = self.models.get_mut(key) else { return Err(EncodeError::NotYet("no schema".to_owned())) };
        let mut row = model.lines.read::<Json>(line).map_err(refused)?;
        if row.new_field && model.grow(&self.schemas, line, ahead)? {
            row = model.lines.read::<Json>(line).map_err(refused)?;
        }
        out.clear();
        out.extend_from_slice(&model.head);
        write_payload(out, &row, &model.lines, &mut self.scratch).map_err(refused)?;
        out.push(b'}');
        Ok(Encoded::default())
    }
}

impl Model {
    fn load(schemas: &SchemaStore, raw_name: &[u8]) -> Result<Self, EncodeError> {
        let quoted = [b"\"", raw_name, b"\""].concat();
        let name: String = serde_json::from_slice(&quoted)
            .map_err(|error| EncodeError::Unencodable(format!("model_name is no text: {error}")))?;
        let schema = schemas
            .load_or_learn_again(&name)
            .map_err(|error| EncodeError::NotYet(format!("cannot read the schema of model_name={name:?}: {error}")))?;
        let (lines, head) = (Lines::of(&schema), head(&name, &schema));
        Ok(Model { name, schema, lines, learner: Learner::default(), head })
    }

    /// Takes in the line's new columns, if there are any, and keeps them.
    fn grow<'a>(
        &mut self,
        schemas: &SchemaStore,
        line: &'a [u8],
        ahead: impl Iterator<Item = &'a [u8]>,
    ) -> Result<bool, EncodeError> {
        if self.schema.leaves() >= MAX_LEAVES {
            return Ok(false);
        }
        let Some(grown) = self.learner.learn(&self.schema, line, ahead) else { return Ok(false) };
        let explain = |error| EncodeError::NotYet(format!("cannot keep the schema of model_name={:?}: {error}", self.name));
        self.schema = if schemas.save(&self.name, &self.schema, &grown).map_err(explain)? {
            grown
        } else {
            // Another process has changed it: its types hold. What this line has beside them is met again, here or in the next line.
            schemas.load(&self.name).map_err(explain)?
        };
        self.lines = Lines::of(&self.schema);
        self.head = head(&self.name, &self.schema);
        Ok(true)
    }
}

/// `{"schema":…,"payload":`
fn head(model_name: &str, schema: &ModelSchema) -> Vec<u8> {
    let record = record_name(model_name);
    let mut out = b"{\"schema\":{\"type\":\"struct\",\"fields\":[".to_vec();
    let primitive = |out: &mut Vec<u8>, kind: &str, name: &str| {
        out.extend_from_slice(format!(r#"{{"type":"{kind}","optional":{},"field":"{name}"}},"#, name != "model_name").as_bytes());
    };
    for (name, slot) in ENVELOPE {
        match slot {
            Slot::Timestamp => out.extend_from_slice(
                concat!(
                    r#"{"type":"int64","optional":false,"name":"org.apache.kafka.connect.data.Timestamp","version":1,"field":"timestamp"},"#,
                    r#"{"type":"int64","optional":false,"doc":"microseconds since 1970","field":"timestamp_us"},"#
                )
                .as_bytes(),
            ),
            Slot::Side(side) => {
                let columns = if side == 0 { &schema.inputs } else { &schema.outputs };
                if let Some(kind) = struct_schema(&columns.fields, &format!("{record}.{name}")) {
                    out.extend_from_slice(&kind);
                    field_name(&mut out, name);
                    out.push(b',');
                }
                primitive(&mut out, "string", &format!("{name}_json"));
            }
            Slot::Ignored | Slot::Text(_) => primitive(&mut out, "string", name),
            Slot::Int(_) => primitive(&mut out, "int64", name),
            Slot::Status => primitive(&mut out, "int32", name),
            Slot::Double(_) => primitive(&mut out, "double", name),
            Slot::Metadata => out.extend_from_slice(
                concat!(
                    r#"{"type":"map","keys":{"type":"string","optional":false},"values":{"type":"string","optional":true},"#,
                    r#""optional":true,"field":"metadata"},"#
                )
                .as_bytes(),
            ),
        }
    }
    out.pop();
    out.extend_from_slice(format!(r#"],"optional":false,"name":"{record}"}},"payload":"#).as_bytes());
    out
}

/// Writes `,"field":…}` in place of the schema's closing brace.
fn field_name(out: &mut Vec<u8>, name: &str) {
    out.pop();
    out.extend_from_slice(b",\"field\":");
    write_str(out, name);
    out.push(b'}');
}

/// The schema of the settled columns. Each struct has a name of its own, which those who make Avro of it need.
fn struct_schema(columns: &[schema::Field], record: &str) -> Option<Vec<u8>> {
    let mut out = b"{\"type\":\"struct\",\"fields\":[".to_vec();
    let mut any = false;
    for column in columns {
        if let Some(kind) = type_schema(&column.kind, &format!("{record}.{}", usable_name(&column.name))) {
            out.extend_from_slice(if any { b"," } else { b"" });
            out.extend_from_slice(&kind);
            field_name(&mut out, &column.name);
            any = true;
        }
    }
    out.extend_from_slice(format!(r#"],"optional":true,"name":"{record}"}}"#).as_bytes());
    any.then_some(out)
}

fn type_schema(kind: &ColumnType, record: &str) -> Option<Vec<u8>> {
    let primitive = match kind {
        ColumnType::Unknown | ColumnType::Foreign => return None,
        ColumnType::Bool => "boolean",
        ColumnType::Int64 => "int64",
        ColumnType::Double => "double",
        ColumnType::String => "string",
        ColumnType::List(element) => {
            let mut out = b"{\"type\":\"array\",\"items\":".to_vec();
            out.extend_from_slice(&type_schema(element, &format!("{record}.element"))?);
            out.extend_from_slice(b",\"optional\":true}");
            return Some(out);
        }
        ColumnType::Struct(fields) => return struct_schema(fields, record),
    };
    Some(format!(r#"{{"type":"{primitive}","optional":true}}"#).into_bytes())
}

/// Writes what the row has; what it has not is null to the converter.
fn write_payload(out: &mut Vec<u8>, row: &Row<'_>, lines: &Lines, scratch: &mut String) -> Result<(), super::decode::LineError> {
    let mut digits = itoa::Buffer::new();
    out.extend_from_slice(b"{\"timestamp\":");
    out.extend_from_slice(digits.format(row.timestamp.div_euclid(1_000)).as_bytes());
    out.extend_from_slice(b",\"timestamp_us\":");
    out.extend_from_slice(digits.format(row.timestamp).as_bytes());
    for ((name, slot), value) in ENVELOPE.iter().zip(&row.values) {
        let start = out.len();
        out.extend_from_slice(b",\"");
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"\":");
        let written = match slot {
            Slot::Timestamp => false,
            Slot::Side(side) => write_side(out, *side, name, row, lines),
            Slot::Ignored | Slot::Text(_) => write_text(out, value, scratch),
            Slot::Int(_) => value.as_i64().inspect(|&value| Json::int(out, value)).is_some(),
            Slot::Status => {
                value.as_i64().filter(|&v| i32::try_from(v).is_ok()).inspect(|&value| Json::int(out, value)).is_some()
            }
            Slot::Double(_) => value.as_f64().is_some_and(|value| Json::double(out, value, &mut true)),
            Slot::Metadata => write_metadata(out, value, scratch)?,
        };
        if !written {
            out.truncate(start);
        }
    }
    out.push(b'}');
    Ok(())
}

/// The side's object, behind its key, and its raw JSON.
fn write_side(out: &mut Vec<u8>, side: usize, name: &str, row: &Row<'_>, lines: &Lines) -> bool {
    if lines.sides()[side].has_fields() {
        out.extend_from_slice(&lines.written[side]);
    } else {
        Json::null(out, Nullable::First);
    }
    if let Some(raw) = row.raw[side] {
        out.extend_from_slice(b",\"");
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"_json\":");
        write_str(out, raw);
    }
    true
}

/// The value as text: a string as it is, anything else as its JSON. A lone surrogate becomes U+FFFD.
fn write_text(out: &mut Vec<u8>, value: &Value<'_>, scratch: &mut String) -> bool {
    match value {
        Value::Null => return false,
        Value::Json(json) => write_str(out, json),
        Value::Text(text) => write_key(out, text, scratch),
    }
    true
}

fn write_key(out: &mut Vec<u8>, text: &RawStr<'_>, scratch: &mut String) {
    if !Json::text(out, text, scratch) {
        write_str(out, scratch);
    }
}

fn write_metadata(out: &mut Vec<u8>, value: &Value<'_>, scratch: &mut String) -> Result<bool, super::decode::LineError> {
    let Value::Json(json) = value else { return Ok(false) };
    if !json.starts_with('{') {
        return Ok(false);
    }
    Json::begin_struct(out);
    for_each_entry(json, |key, value| {
        comma(out, b'{');
        write_key(out, &key, scratch);
        out.push(b':');
        write_text(out, &value, scratch);
    })?;
    Json::end_struct(out);
    Ok(true)
}

#[cfg(test)]
#[path = "connect_json_tests.rs"]
mod tests;
