//! A line into the raw JSON of its fields, and back.

use super::views::Models;
use crate::clock::{TIMESTAMP_LEN, Timestamp, parse_fixed};
use crate::json::escape::write_str;
use crate::json::scan::{Fields, end_of_value};
use crate::record::WRITER_LEN;
use crate::record::encode::MODEL_NAME_AT;

/// The fields between the timestamp and the writer, in the order of the line, which is the order of the columns.
pub(super) const KEYS: [&str; FIELDS] = [
    "model_name",
    "id",
    "model_version",
    "inputs",
    "outputs",
    "request_id",
    "row_index",
    "status_code",
    "error",
    "latency_ms",
    "sample_weight",
    "metadata",
    "traceparent",
];
pub(super) const FIELDS: usize = 13;
pub(super) const MODEL_NAME: usize = 0;
pub(super) const INPUTS: usize = 3;
pub(super) const OUTPUTS: usize = 4;

/// What [`KEYS`] look like in a line.
const TOKENS: [&[u8]; FIELDS] = [
    b",\"model_name\":",
    b",\"id\":",
    b",\"model_version\":",
    b",\"inputs\":",
    b",\"outputs\":",
    b",\"request_id\":",
    b",\"row_index\":",
    b",\"status_code\":",
    b",\"error\":",
    b",\"latency_ms\":",
    b",\"sample_weight\":",
    b",\"metadata\":",
    b",\"traceparent\":",
];
const WRITER: &[u8] = b",\"writer\":\"";
const SEQ: &[u8] = b"\",\"seq\":";

/// What a column holds of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The text of a JSON string.
    Text,
    /// The JSON itself.
    Json,
    Integer,
    Real,
}

pub(super) const KINDS: [Kind; FIELDS] = [
    Kind::Text,
    Kind::Text,
    Kind::Text,
    Kind::Json,
    Kind::Json,
    Kind::Text,
    Kind::Integer,
    Kind::Integer,
    Kind::Text,
    Kind::Real,
    Kind::Real,
    Kind::Json,
    Kind::Text,
];

/// The raw JSON of a line's fields.
#[derive(Debug, Default)]
pub(super) struct Parts<'a> {
    /// UTC microseconds since 1970.
    pub(super) timestamp: i64,
    /// In the order of [`KEYS`].
    pub(super) raw: [Option<&'a [u8]>; FIELDS],
    /// Fields that this version does not know.
    pub(super) others: Vec<(&'a [u8], &'a [u8])>,
}

impl<'a> Parts<'a> {
    /// Splits a line, and shows `models` its features. `None` when it is not a line that a logger wrote.
    #[inline]
    pub(super) fn of(line: &'a [u8], models: &mut Models) -> Option<Self> {
        Parts::in_order(line, models).or_else(|| Parts::in_any_order(line, models))
    }

    /// As our encoder writes them: one comparison a key.
    #[inline]
    fn in_order(line: &'a [u8], models: &mut Models) -> Option<Self> {
        let mut at = MODEL_NAME_AT - 1 - TOKENS[MODEL_NAME].len();
        let mut parts = Parts { timestamp: crate::record::timestamp_of_line(line)?, ..Parts::default() };
        if line.get(at - 1) != Some(&b'"') {
            return None;
        }
        for (field, token) in TOKENS.iter().enumerate() {
            // The first letter tells most keys apart.
            if line.get(at + 2) != Some(&token[2]) || !line[at..].starts_with(token) {
                continue;
            }
            let start = at + token.len();
            at = match field {
                INPUTS | OUTPUTS => models.end_of_features(field, line, start)?,
                _ => end_of_value(line, start)?,
            };
            parts.raw[field] = Some(&line[start..at]);
            if field == MODEL_NAME {
                models.select(&line[start..at]);
            }
        }
        let tail = line.get(at..)?;
        let seq_at = WRITER.len() + WRITER_LEN;
        let whole = tail.starts_with(WRITER) && tail.get(seq_at..)?.starts_with(SEQ) && parts.raw[MODEL_NAME]?.len() > 2;
        whole.then_some(parts)
    }

    #[cold]
    fn in_any_order(line: &'a [u8], models: &mut Models) -> Option<Self> {
        let mut parts = Parts::default();
        let mut timestamp = None;
        for (key, value) in Fields::of(line)? {
            match KEYS.iter().position(|known| known.as_bytes() == key) {
                Some(field) => parts.raw[field] = Some(value),
                None if key == b"timestamp" => timestamp = value.get(1..=TIMESTAMP_LEN).and_then(parse_fixed),
                None if key == b"writer" || key == b"seq" => {}
                None => parts.others.push((key, value)),
            }
        }
        parts.timestamp = timestamp?;
        let name = parts.raw[MODEL_NAME]?;
        if name.len() <= 2 || name[0] != b'"' {
            return None;
        }
        models.select(name);
        for field in [INPUTS, OUTPUTS] {
            if let Some(value) = parts.raw[field] {
                models.end_of_features(field, value, 0)?;
            }
        }
        Some(parts)
    }
}

/// Writes a line's start: up to the quote of the timestamp.
pub(super) fn begin(out: &mut Vec<u8>, timestamp: i64) {
    out.extend_from_slice(b"{\"timestamp\":\"");
    out.extend_from_slice(&Timestamp::from_micros(timestamp).format());
    out.push(b'"');
}

/// Writes a field's key.
pub(super) fn key(out: &mut Vec<u8>, field: usize) {
    out.extend_from_slice(TOKENS[field]);
}

/// Writes a line's end.
pub(super) fn end(out: &mut Vec<u8>, writer: &[u8], seq: u64) {
    out.extend_from_slice(WRITER);
    out.extend_from_slice(writer);
    out.extend_from_slice(SEQ);
    out.extend_from_slice(itoa::Buffer::new().format(seq).as_bytes());
    out.extend_from_slice(b"}\n");
}

/// The text of the raw JSON string `raw`, with its quotes, written into `text`; whether the encoder would write that text as `raw` again.
/// What is no string, or has half of a surrogate pair, is not.
#[cold]
pub(super) fn unescape(raw: &[u8], text: &mut String) -> bool {
    text.clear();
    match serde_json::from_slice::<&serde_json::value::RawValue>(raw).ok().and_then(|raw| serde_json::from_str(raw.get()).ok()) {
        Some(serde_json::Value::String(value)) => {
            *text = value;
            let mut again = Vec::with_capacity(raw.len());
            write_str(&mut again, text);
            again == raw
        }
        _ => {
            text.push_str(&String::from_utf8_lossy(raw));
            false
        }
    }
}
