use super::*;
use crate::Prediction;
use crate::format::wire::testing::{AT, any_side, assert_same, columns, line, line_of};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};
use std::io::Write;
use std::iter::empty;
use std::path::Path;
use std::process::{Command, Stdio};

fn encoder(dir: &Path) -> ConnectJson {
    ConnectJson::new(SchemaStore::new(dir))
}

fn message(encoder: &mut ConnectJson, line: &[u8]) -> Value {
    let mut out = Vec::new();
    encoder.encode(line, empty(), &mut out).unwrap();
    serde_json::from_slice(&out).unwrap()
}

/// What Connect's own converter reads of each message.
fn read_by_connect(messages: &[Vec<u8>]) -> Vec<Value> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let jars = root.join(".cache/kafka");
    assert!(jars.is_dir(), "Kafka Connect is not installed: run tests/services/install.sh kafka");
    let mut java = Command::new("java")
        .args(["-XX:TieredStopAtLevel=1", "-cp", &format!("{}/*", jars.display())])
        .arg(root.join("tests/services/ReadConnect.java"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("java is installed");
    let mut input = java.stdin.take().unwrap();
    let lines = messages.join(&b'\n');
    let writer = std::thread::spawn(move || input.write_all(&lines).unwrap());
    let output = java.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(output.status.success(), "the converter refuses a message");
    let read: Vec<Value> = output.stdout.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()).map(shown).collect();
    assert_eq!(read.len(), messages.len());
    read
}

/// Doubles as in a line, of the bits that the reader prints.
fn shown(line: &[u8]) -> Value {
    fn doubles(value: Value) -> Value {
        match value {
            Value::Object(fields) => match fields.get("double").and_then(Value::as_str).filter(|_| fields.len() == 1) {
                Some(bits) => match f64::from_bits(bits.parse::<i64>().unwrap() as u64) {
                    value if value.is_nan() => json!("NaN"),
                    value if value.is_infinite() => json!(if value > 0.0 { "Infinity" } else { "-Infinity" }),
                    value => json!(value),
                },
                None => fields.into_iter().map(|(key, value)| (key, doubles(value))).collect(),
            },
            Value::Array(elements) => elements.into_iter().map(doubles).collect(),
            other => other,
        }
    }
    doubles(serde_json::from_slice(line).unwrap())
}

#[test]
fn connect_reads_all_that_a_prediction_has() {
    let dir = tempfile::tempdir().unwrap();
    let (inputs, outputs) =
        (json!({"fixed acidity": 7.4, "n": -5, "tags": ["a", "é\n"], "deep": {"on": true}}), json!([0.25, 0.75]));
    let line = line_of(
        &Prediction::new("wine/1", "v1", &inputs, &outputs)
            .id("i\"1")
            .request_id("r")
            .row_index(3)
            .status_code(200)
            .error("e")
            .latency_ms(f64::NEG_INFINITY)
            .sample_weight(2.0)
            .metadata(&[("k", "v"), ("k", "last"), ("é\n", "")])
            .traceparent("t"),
    );
    let mut out = Vec::new();
    encoder(dir.path()).encode(&line, empty(), &mut out).unwrap();
    assert_eq!(
        read_by_connect(&[out])[0],
        json!({
            "timestamp": {"millis": AT / 1_000}, "timestamp_us": AT, "model_name": "wine/1", "id": "i\"1", "model_version": "v1",
            "inputs": inputs, "inputs_json": null, "outputs": {"value": [0.25, 0.75]}, "outputs_json": null, "request_id": "r",
            "row_index": 3, "status_code": 200, "error": "e", "latency_ms": "-Infinity", "sample_weight": 2.0,
            "metadata": {"k": "last", "é\n": ""}, "traceparent": "t", "writer": "0198c0de-0000-7000-8000-00000000000a-01", "seq": 17
        })
    );
}

#[test]
fn connect_reads_whatever_was_logged() {
    let mut runner = TestRunner::deterministic();
    let (mut given, mut messages) = (Vec::new(), Vec::new());
    for _ in 0..300 {
        let dir = tempfile::tempdir().unwrap();
        let mut encoder = encoder(dir.path());
        for _ in 0..3 {
            let (inputs, outputs) = (any_side(), any_side()).new_tree(&mut runner).unwrap().current();
            let mut out = Vec::new();
            encoder.encode(&line(&inputs, &outputs), empty(), &mut out).unwrap();
            let schema = SchemaStore::new(dir.path()).load("m").unwrap();
            given.push((inputs, outputs, schema));
            messages.push(out);
        }
    }
    for ((inputs, outputs, schema), found) in given.iter().zip(read_by_connect(&messages)) {
        assert_same(inputs, &found["inputs"], &found["inputs_json"], schema.inputs.bare);
        assert_same(outputs, &found["outputs"], &found["outputs_json"], schema.outputs.bare);
    }
}

#[test]
fn what_json_has_not_is_kept_in_the_raw_json() {
    let dir = tempfile::tempdir().unwrap();
    let mut encoder = encoder(dir.path());
    for (inputs, raw) in [
        (r#"{"a":0.5,"b":"x"}"#, false),
        (r#"{"a":"Infinity"}"#, false),
        (r#"{"a":"NaN"}"#, true),
        (r#"{"a":-0.0}"#, true),
        (r#"{"b":"\ud800"}"#, true),
        (r#"{"b":"\ud83d\ude00"}"#, false),
    ] {
        let mut out = Vec::new();
        encoder.encode(&line(inputs, "1"), empty(), &mut out).unwrap();
        let found = &read_by_connect(&[out])[0];
        assert_same(inputs, &found["inputs"], &found["inputs_json"], false);
        assert_eq!(found["inputs_json"].is_null(), !raw, "{inputs}");
    }
}

#[test]
fn columns_are_those_of_the_directory_and_only_widen() {
    let dir = tempfile::tempdir().unwrap();
    let store = SchemaStore::new(dir.path());
    let base = columns(&[line(r#"{"a":0.5}"#, "1")]);
    store.save("m", &ModelSchema::default(), &base).unwrap();
    let mut one = encoder(dir.path());
    let mut other = encoder(dir.path());
    assert_eq!(message(&mut one, &line(r#"{"a":1}"#, "1"))["payload"]["inputs"], json!({"a": 1.0}));
    message(&mut other, &line(r#"{"a":1}"#, "1"));

    let wider = message(&mut one, &line(r#"{"a":1,"b":"x"}"#, "1"));
    assert_eq!(wider["payload"]["inputs"], json!({"a": 1.0, "b": "x"}));
    assert_eq!(wider["payload"].get("inputs_json"), None);
    let inputs = wider["schema"]["fields"].as_array().unwrap().iter().find(|field| field["field"] == "inputs").unwrap();
    assert_eq!(inputs["name"], "predlog.m.inputs");
    assert_eq!(
        inputs["fields"],
        json!([
            {"type": "double", "optional": true, "field": "a"},
            {"type": "string", "optional": true, "field": "b"}
        ])
    );

    // The other process wants another type for it, and takes the one that is there.
    let late = message(&mut other, &line(r#"{"a":1,"b":7}"#, "1"));
    assert_eq!(late["payload"]["inputs_json"], r#"{"a":1,"b":7}"#);
    assert_eq!(message(&mut other, &line(r#"{"b":"y"}"#, "1"))["payload"]["inputs"], json!({"b": "y"}));
    assert_eq!(store.load("m").unwrap().inputs.fields.len(), 2);
}

#[test]
fn a_line_that_is_none_is_refused_and_a_schema_that_cannot_be_kept_makes_records_wait() {
    let dir = tempfile::tempdir().unwrap();
    let mut encoder = encoder(dir.path());
    let refused = encoder.encode(b"no line", empty(), &mut Vec::new());
    assert!(matches!(refused, Err(EncodeError::Unencodable(_))));
    std::fs::write(dir.path().join("schemas"), "a file in the way").unwrap();
    let waits = encoder.encode(&line(r#"{"a":1}"#, "1"), empty(), &mut Vec::new());
    assert!(matches!(waits, Err(EncodeError::NotYet(why)) if why.contains("\"m\"")));
}
