//! The Spark Structured Streaming job of examples/spark/, from the topic into a Delta table in the same bucket.
//!
//! It stores the fields of a line as typed columns, with the record's place in its topic, as Parquet (Snappy, Spark's default and its
//! fastest) by model and date; a batch is a commit, exactly once by its checkpoint. `local[2]` and 2 GB, as its README starts it. The
//! batches are large, as a commit costs a second; the peak is that of the JVM alone, without the driver's Python.

use super::{Figures, Given, Objects, watch};
use crate::services::process::Service;
use crate::services::spark::{command, is_installed};
use serde_json::{Value, json};
use std::fs;
use std::time::Instant;

const TABLE: &str = "spark";
const BATCH: &str = "500000";

/// What must be installed first, if it is not there.
pub fn missing() -> Option<&'static str> {
    (!is_installed()).then_some("run tests/services/install.sh spark")
}

pub fn run(given: &Given<'_>) -> Figures {
    let work = tempfile::tempdir().expect("a directory");
    let schema = work.path().join("schema.json");
    fs::write(&schema, sides().to_string()).expect("the columns can be written");
    let (bucket, checkpoint) = (given.bucket, work.path().join("checkpoint").display().to_string());
    let table = format!("s3a://{bucket}/{TABLE}");
    let (bootstrap, schema) = (given.kafka.bootstrap(), schema.display().to_string());
    let arguments = [
        ["--bootstrap", &bootstrap],
        ["--topic", given.topic],
        ["--table", &table],
        ["--checkpoint", &checkpoint],
        ["--schema", &schema],
        ["--max-offsets", BATCH],
    ];
    let job = command("examples/spark/predictions_to_delta.py", arguments.as_flattened(), &given.minio.env(), work.path());
    let begun = Instant::now();
    let mut service = Service::start_again("Spark", &work.path().join("log"), job, || true);
    let objects = Objects::of(given);
    let (mut version, mut stored) = (0, 0);
    watch(&mut service, begun, given.rows, || {
        while let Some(actions) = objects.json(&format!("{TABLE}/_delta_log/{version:020}.json")) {
            stored += actions.iter().map(output_rows).sum::<u64>();
            version += 1;
        }
        stored
    })
}

/// What a commit says of itself: numbers are strings there.
fn output_rows(action: &Value) -> u64 {
    let rows = action["commitInfo"]["operationMetrics"]["numOutputRows"].as_str();
    rows.map_or(0, |rows| rows.parse().expect("a number of rows"))
}

/// The columns of the bench's records.
fn sides() -> Value {
    let side = |columns: &[(&str, &str)]| {
        let field = |(name, kind): &(&str, &str)| json!({"name": name, "type": kind, "nullable": true, "metadata": {}});
        json!({"type": "struct", "fields": columns.iter().map(field).collect::<Vec<_>>()})
    };
    let inputs = [
        ("age", "long"),
        ("income", "double"),
        ("balance", "double"),
        ("tenure_months", "long"),
        ("country", "string"),
        ("segment", "string"),
        ("is_active", "boolean"),
        ("logins_30d", "long"),
        ("avg_session", "double"),
        ("last_amount", "double"),
        ("device", "string"),
        ("risk", "double"),
    ];
    json!({"inputs": side(&inputs), "outputs": side(&[("score", "double"), ("label", "string")])})
}
