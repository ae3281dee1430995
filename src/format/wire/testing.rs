//! Predictions of any shape, and what a reader of their messages must find.

use proptest::prelude::*;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::Prediction;
use crate::clock::Timestamp;
use crate::format::infer::Inference;
use crate::format::schema::ModelSchema;

/// The time of all lines.
pub(crate) const AT: i64 = 1_763_868_858_123_456;

/// The text of a JSON value: of any type, with keys that come twice, numbers that no column holds, and strings that are none.
pub(crate) fn any_json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        any::<bool>().prop_map(|value| value.to_string()),
        (-3_i64..300).prop_map(|value| value.to_string()),
        any::<i64>().prop_map(|value| value.to_string()),
        // serde_json, which the tests compare with, reads some doubles as their neighbours.
        any::<f64>()
            .prop_map(|value| (serde_json::to_string(&value).unwrap(), value))
            .prop_filter_map("serde_json's double", |(text, value)| serde_json::from_str(&text)
                .is_ok_and(|read: f64| read == value)
                .then_some(text)),
        (-1000_i32..1000).prop_map(|value| (f64::from(value) / 8.0).to_string()),
        "\\PC{0,8}".prop_map(|value| serde_json::to_string(&value).unwrap()),
        prop::sample::select(vec![
            "-0.0",
            "-0",
            "1e400",
            "0.1000000000000000000001",
            "18446744073709551615",
            "9007199254740993",
            "2.50e1",
            r#""NaN""#,
            r#""Infinity""#,
            r#""-Infinity""#,
            r#""\ud800""#,
            r#""\ud83d\ude00\n\u0000\/""#,
        ])
        .prop_map(str::to_owned),
    ];
    leaf.prop_recursive(3, 24, 5, |inner| {
        prop_oneof![
            2 => prop::collection::vec((any_key(), inner.clone()), 0..5).prop_map(|fields| object(&fields)),
            1 => prop::collection::vec(inner, 0..4).prop_map(|elements| format!("[{}]", elements.join(","))),
        ]
    })
}

fn any_key() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["a", "b", "c", "A", "value", "x y", "1st", "é", "q\"\n"]).prop_map(str::to_owned)
}

/// Mostly objects, as predictions have them.
pub(crate) fn any_side() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => prop::collection::vec((any_key(), any_json()), 0..6).prop_map(|fields| object(&fields)),
        1 => any_json(),
    ]
}

fn object(fields: &[(String, String)]) -> String {
    let fields: Vec<String> =
        fields.iter().map(|(key, value)| format!("{}:{value}", serde_json::to_string(key).unwrap())).collect();
    format!("{{{}}}", fields.join(","))
}

/// The line that `log()` makes of the prediction.
pub(crate) fn line_of<I: serde::Serialize + ?Sized, O: serde::Serialize + ?Sized>(prediction: &Prediction<'_, I, O>) -> Vec<u8> {
    let mut line = Vec::new();
    crate::record::encode::encode(&mut line, prediction, Timestamp::from_micros(AT), 1 << 20).unwrap();
    line.extend_from_slice(b",\"writer\":\"0198c0de-0000-7000-8000-00000000000a-01\",\"seq\":17}\n");
    line
}

/// The line of a prediction with inputs and outputs of this JSON.
pub(crate) fn line(inputs: &str, outputs: &str) -> Vec<u8> {
    let raw = |text: &str| RawValue::from_string(text.to_owned()).unwrap();
    line_of(&Prediction::new("m", "1", &raw(inputs), &raw(outputs)))
}

/// The columns of these lines.
pub(crate) fn columns(lines: &[Vec<u8>]) -> ModelSchema {
    let mut inference = Inference::new();
    lines.iter().for_each(|line| inference.push_line(line).unwrap());
    inference.schema()
}

/// Asserts that the side which a reader has found, and its raw JSON, are what was given. `found` has non-finite doubles as JSON strings.
pub(crate) fn assert_same(given: &str, found: &Value, raw: &Value, bare: bool) {
    if let Some(raw) = raw.as_str() {
        assert_eq!(raw, given);
        return;
    }
    let given: Value = serde_json::from_str(given).unwrap();
    let found = if bare && !given.is_object() { found.get("value").unwrap_or(&Value::Null) } else { found };
    let (given, found) = (without_nulls(&given), without_nulls(found));
    assert!(same(&given, &found), "given={given} found={found}");
}

/// A field that is null is one that is missing.
fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let kept =
                fields.iter().filter(|(_, value)| !value.is_null()).map(|(key, value)| (key.clone(), without_nulls(value)));
            Value::Object(kept.collect::<Map<_, _>>())
        }
        Value::Array(elements) => elements.iter().map(without_nulls).collect(),
        other => other.clone(),
    }
}

fn same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => {
            (one.as_i64().is_some() && one.as_i64() == other.as_i64()) || one.as_f64() == other.as_f64()
        }
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| same(one, other))
        }
        (Value::Object(one), Value::Object(other)) => {
            one.len() == other.len() && one.iter().all(|(key, one)| other.get(key).is_some_and(|other| same(one, other)))
        }
        _ => one == other,
    }
}
