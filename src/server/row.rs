//! One row: the envelope's fields, with `inputs` and `outputs` as the text that came.
//!
//! Each value is first found as raw text (serde_json does that without recursion, so depth costs no stack) and then read as what its field
//! wants, so that an error can name the field.

use super::values::{Pairs, Text};
use crate::clock::Timestamp;
use crate::config::problem::nearest;
use crate::record::{ACTUALS_SUFFIX, MAX_ACTUALS_MODEL_NAME_BYTES, actuals_of};
use crate::record::{MAX_ID_BYTES, MAX_MODEL_NAME_BYTES, MAX_TEXT_BYTES};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;

/// The fields of a row.
const FIELDS: [&str; 15] = [
    "id",
    "model_name",
    "model_version",
    "timestamp",
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
    "actuals",
];

/// A key of `metadata` with its value.
type Pair<'a> = (Cow<'a, str>, Cow<'a, str>);

/// A row that can be logged.
#[derive(Debug)]
pub(super) struct Row<'a> {
    pub(super) model_name: Cow<'a, str>,
    pub(super) model_version: Option<Cow<'a, str>>,
    pub(super) inputs: &'a RawValue,
    pub(super) outputs: &'a RawValue,
    pub(super) id: Option<Cow<'a, str>>,
    pub(super) timestamp: Option<Timestamp>,
    pub(super) request_id: Option<Cow<'a, str>>,
    pub(super) row_index: Option<u64>,
    pub(super) status_code: Option<u16>,
    pub(super) error: Option<Cow<'a, str>>,
    pub(super) latency_ms: Option<f64>,
    pub(super) sample_weight: Option<f64>,
    pub(super) metadata: Vec<Pair<'a>>,
    pub(super) traceparent: Option<Cow<'a, str>>,
}

impl<'a> Row<'a> {
    /// Reads a row.
    ///
    /// # Errors
    /// Names the field, its value, and what was expected.
    pub(super) fn parse(text: &'a str) -> Result<Self, String> {
        if !text.trim_start().starts_with('{') {
            // Also said of what is not JSON at all, so that comes first.
            serde_json::from_str::<&RawValue>(text).map_err(|error| not_json(&error))?;
            return Err(format!("row={} is not an object", shown(text)));
        }
        let mut fields: Fields<'a> = serde_json::from_str(text).map_err(|error| not_json(&error))?;
        if let Some(problem) = fields.problem.take() {
            return Err(problem);
        }
        fields.into_row()
    }
}

fn not_json(error: &serde_json::Error) -> String {
    format!("not JSON: {error}")
}

/// Each field's raw text, in the order of [`FIELDS`].
struct Fields<'a> {
    values: [Option<&'a RawValue>; FIELDS.len()],
    problem: Option<String>,
}

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FieldsVisitor;

        impl<'de> Visitor<'de> for FieldsVisitor {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
                let mut fields = Fields { values: [None; FIELDS.len()], problem: None };
                while let Some(key) = map.next_key::<Text<'de>>()? {
                    let value: &'de RawValue = map.next_value()?;
                    fields.add(&key.0, value);
                }
                Ok(fields)
            }
        }

        deserializer.deserialize_map(FieldsVisitor)
    }
}

impl<'a> Fields<'a> {
    fn add(&mut self, key: &str, value: &'a RawValue) {
        let problem = match FIELDS.iter().position(|field| *field == key) {
            Some(at) if self.values[at].is_some() => format!("field {key} is given twice"),
            Some(at) => {
                self.values[at] = Some(value);
                return;
            }
            None => match nearest(key, FIELDS) {
                Some(near) => format!("unknown field {key:?}: did you mean `{near}`?"),
                None => {
                    let key = shown(key);
                    format!("unknown field {key:?}: features belong in `inputs`, other text in `metadata`")
                }
            },
        };
        self.problem.get_or_insert(problem);
    }

    /// A field's text, `None` when it is missing or null.
    fn value(&self, field: &str) -> Option<&'a str> {
        let at = FIELDS.iter().position(|known| *known == field)?;
        self.values[at].map(RawValue::get).filter(|text| *text != "null")
    }

    fn read<T: Deserialize<'a>>(&self, field: &str, expected: &str) -> Result<Option<T>, String> {
        let Some(text) = self.value(field) else { return Ok(None) };
        serde_json::from_str(text).map(Some).map_err(|error| {
            // A string that is one, but has no text, is worth a word: a lone surrogate is easy to make in JavaScript.
            let why = if text.starts_with('"') && expected == "a string" { format!(" ({error})") } else { String::new() };
            format!("{field}={}: expected {expected}{why}", shown(text))
        })
    }

    fn text(&self, field: &str, most: usize) -> Result<Option<Cow<'a, str>>, String> {
        let text: Option<Text<'a>> = self.read(field, "a string")?;
        match text {
            Some(Text(text)) if text.len() > most => Err(format!("{field} has {} bytes: expected at most {most}", text.len())),
            text => Ok(text.map(|text| text.0)),
        }
    }

    fn into_row(self) -> Result<Row<'a>, String> {
        let model_name = self.text("model_name", MAX_MODEL_NAME_BYTES)?;
        let model_name = model_name.ok_or("model_name is missing: expected the model's name, a string")?;
        if model_name.is_empty() {
            return Err(format!("model_name=\"\": expected 1 to {MAX_MODEL_NAME_BYTES} bytes"));
        }
        let id = self.text("id", MAX_ID_BYTES)?;
        if id.as_deref() == Some("") {
            return Err(format!("id=\"\": expected 1 to {MAX_ID_BYTES} bytes, or no id"));
        }
        let (model_name, inputs, outputs) = match self.actuals(&model_name, id.is_some())? {
            Some(actuals) => (Cow::Owned(actuals_of(&model_name)), RawValue::NULL, actuals),
            None => (model_name, self.values[INPUTS].ok_or(NO_INPUTS)?, self.values[OUTPUTS].unwrap_or(RawValue::NULL)),
        };
        let timestamp = self.text("timestamp", MAX_TEXT_BYTES)?.map(|text| Timestamp::parse(&text)).transpose()?;
        let status_code: Option<u16> = self.read("status_code", "an HTTP status, 100 to 999")?;
        if status_code.is_some_and(|code| !(100..=999).contains(&code)) {
            return Err(format!("status_code={}: expected an HTTP status, 100 to 999", status_code.unwrap_or_default()));
        }
        Ok(Row {
            model_name,
            model_version: self.text("model_version", MAX_TEXT_BYTES)?,
            inputs,
            outputs,
            id,
            timestamp,
            request_id: self.text("request_id", MAX_TEXT_BYTES)?,
            row_index: self.row_index()?,
            status_code,
            error: self.text("error", usize::MAX)?,
            latency_ms: self.read("latency_ms", "a number of milliseconds")?,
            sample_weight: self.read("sample_weight", "a number")?,
            metadata: self.metadata()?,
            traceparent: self.text("traceparent", MAX_TEXT_BYTES)?,
        })
    }

    fn row_index(&self) -> Result<Option<u64>, String> {
        let row_index: Option<u64> = self.read("row_index", "a whole number, not negative")?;
        match row_index.filter(|index| i64::try_from(*index).is_err()) {
            Some(index) => Err(format!("row_index={index}: expected at most {}, the largest of its column", i64::MAX)),
            None => Ok(row_index),
        }
    }

    /// The actual values, where the row has them in place of inputs and outputs.
    fn actuals(&self, model_name: &str, has_id: bool) -> Result<Option<&'a RawValue>, String> {
        let Some(actuals) = self.values[ACTUALS].filter(|value| value.get() != "null") else { return Ok(None) };
        for field in ["inputs", "outputs"] {
            if self.value(field).is_some() {
                return Err(format!(
                    "actuals and {field} are in one row: expected the actuals in a row of their own, with the prediction's id"
                ));
            }
        }
        if !has_id {
            return Err("id is missing: expected the id of the prediction that the actuals are for".to_owned());
        }
        if model_name.len() > MAX_ACTUALS_MODEL_NAME_BYTES {
            let (bytes, most) = (model_name.len(), MAX_ACTUALS_MODEL_NAME_BYTES);
            return Err(format!(
                "model_name has {bytes} bytes: expected at most {most} with actuals, which are kept as the model <model_name>{ACTUALS_SUFFIX}"
            ));
        }
        Ok(Some(actuals))
    }

    fn metadata(&self) -> Result<Vec<Pair<'a>>, String> {
        let Some(pairs): Option<Pairs<'a>> = self.read("metadata", "an object of strings")? else { return Ok(Vec::new()) };
        let mut metadata: Vec<(Cow<'a, str>, Cow<'a, str>)> = Vec::with_capacity(pairs.0.len());
        for (key, value) in pairs.0 {
            let text = value.get();
            let value = match text.as_bytes().first() {
                Some(b'{' | b'[') => return Err(format!("metadata.{}={}: expected a string", shown(&key), shown(text))),
                Some(b'"') => match serde_json::from_str::<Text<'a>>(text) {
                    Ok(text) => text.0,
                    Err(error) => return Err(format!("metadata.{}={}: expected a string ({error})", shown(&key), shown(text))),
                },
                // Nothing is known: the same as no key.
                Some(b'n') => continue,
                // Numbers and booleans: as they were written.
                _ => Cow::Borrowed(text),
            };
            metadata.push((key, value));
        }
        Ok(metadata)
    }
}

const INPUTS: usize = 4;
const OUTPUTS: usize = 5;
const ACTUALS: usize = 14;
const NO_INPUTS: &str =
    "inputs is missing: expected the features, an object (any other JSON is kept too), or `actuals` with the id of a prediction";

/// The start of a text, for a message.
fn shown(text: &str) -> Cow<'_, str> {
    const SHOWN: usize = 64;
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => Cow::Owned(format!("{}…", &text[..end])),
        None => Cow::Borrowed(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_places_of_values_are_theirs() {
        assert_eq!([FIELDS[INPUTS], FIELDS[OUTPUTS], FIELDS[ACTUALS]], ["inputs", "outputs", "actuals"]);
    }

    #[test]
    fn reads_every_field_and_keeps_the_text_of_numbers() {
        let text = r#"{"id":"i","model_name":"m","model_version":"1","timestamp":"2026-11-23T04:34:18+01:00","inputs":{"a":1.50},
            "outputs":[1e400],"request_id":"r","row_index":2,"status_code":200,"error":"e\n","latency_ms":1.5,"sample_weight":2,
            "metadata":{"k":"v","n":1.0,"b":true,"none":null},"traceparent":"t"}"#;
        let row = Row::parse(text).unwrap();
        assert_eq!((&*row.model_name, row.id.as_deref(), row.row_index), ("m", Some("i"), Some(2)));
        assert_eq!((row.inputs.get(), row.outputs.get()), (r#"{"a":1.50}"#, "[1e400]"));
        assert_eq!(row.timestamp.unwrap().to_string(), "2026-11-23T03:34:18.000000Z");
        assert_eq!(row.error.as_deref(), Some("e\n"));
        let metadata: Vec<_> = row.metadata.iter().map(|(key, value)| (&**key, &**value)).collect();
        assert_eq!(metadata, [("k", "v"), ("n", "1.0"), ("b", "true")]);
        assert!(matches!(row.model_name, Cow::Borrowed(_)));
    }

    #[test]
    fn null_is_not_given_but_as_inputs_and_outputs() {
        let row = Row::parse(r#"{"id":null,"model_name":"m","inputs":null,"latency_ms":null,"metadata":null}"#).unwrap();
        assert_eq!((row.id, row.latency_ms, row.inputs.get(), row.outputs.get()), (None, None, "null", "null"));
    }
}
