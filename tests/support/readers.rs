//! The Python readers that users read a table with: pyarrow, DuckDB and Polars.

use super::process::{cache, installed};
use serde_json::{Map, Value};
use std::{path::Path, process::Command};

/// All readers that [`read_table`] knows.
pub const READERS: [&str; 3] = ["pyarrow", "duckdb", "polars"];

/// How a table is read.
#[derive(Default)]
pub struct ReadOptions {
    /// Read only this folder of the table, such as `model_name=wine`; empty for all of it.
    pub under: String,
    /// For an `s3://` URL: where its server is and the keys, as `Minio::env` gives them.
    pub env: Vec<(&'static str, String)>,
}

/// Reads a hive-partitioned folder of Parquet files, or an `s3://bucket/prefix`, as one table.
///
/// Rows are objects and come sorted by (writer, seq). A timestamp is an integer of microseconds since 1970, a date is
/// `YYYY-MM-DD`, a map is an object, a double is exact, or the string `NaN`, `Infinity` or `-Infinity`.
pub fn read_table(reader: &str, table: &str, options: &ReadOptions) -> Vec<Value> {
    let mut script = python("tests/readers/read_table.py");
    script.args(["--reader", reader, "--under", &options.under, table]).envs(options.env.iter().cloned());
    let lines = output(script);
    let rows = lines.lines().map(|line| serde_json::from_str(line).expect("the reader prints JSON lines"));
    rows.map(untag).collect()
}

/// The installed Python, to run a script of this repository.
pub fn python(script: &str) -> Command {
    let python =
        installed("venv/bin/python").unwrap_or_else(|| panic!("no venv in {}: run tests/services/install.sh", cache().display()));
    let mut command = Command::new(python);
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join(script));
    command
}

/// Runs a command; what it printed. Panics with its errors when it fails.
pub fn output(mut command: Command) -> String {
    let done = command.output().unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
    let errors = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{command:?} failed with {}:\n{errors}", done.status);
    String::from_utf8(done.stdout).expect("the command prints UTF-8")
}

/// Turns `{"$double": "0.1"}` into the number. As a JSON number it could lose its last bit: serde_json's default
/// parser is not exact.
fn untag(value: Value) -> Value {
    match value {
        Value::Object(map) if map.contains_key("$double") => double(&map),
        Value::Object(map) => map.into_iter().map(|(key, item)| (key, untag(item))).collect(),
        Value::Array(items) => items.into_iter().map(untag).collect(),
        other => other,
    }
}

fn double(tagged: &Map<String, Value>) -> Value {
    let text = &tagged["$double"];
    let number: f64 = text.as_str().and_then(|text| text.parse().ok()).expect("a double is printed as its repr");
    // A JSON number is finite; what is not stays text.
    if number.is_finite() { Value::from(number) } else { text.clone() }
}
