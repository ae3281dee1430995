//! What other programs find in a table.

// Each test program compiles this module for itself and uses a part of it.
#![allow(dead_code, reason = "a test program uses only the part of this shared module that it needs")]

use crate::support::process::cache;
use crate::support::readers::{output, python};
use serde_json::Value;

/// delta-rs, and DuckDB with its delta extension.
pub const READERS: [&str; 2] = ["delta-rs", "duckdb"];

/// What of a table is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Totals {
    pub rows: u64,
    /// Distinct ones.
    pub ids: u64,
    /// Their sum.
    pub seq: u64,
    /// The sum of the input of that name, which is the `seq` too.
    pub age: u64,
}

fn read(reader: &str, what: &str, table: &str) -> String {
    let mut script = python("tests/readers/read_delta.py");
    script.args(["--reader", reader, what, table]);
    if reader == "duckdb" {
        // The extension is built for one version of DuckDB, another one than the venv's.
        script.env("PYTHONPATH", cache().join("duckdb-delta"));
    }
    output(script)
}

/// The totals of the table in a directory.
pub fn totals(reader: &str, table: &str) -> Totals {
    let totals: Value = serde_json::from_str(&read(reader, "totals", table)).unwrap();
    let number = |key: &str| totals[key].as_u64().unwrap();
    Totals { rows: number("rows"), ids: number("ids"), seq: number("seq"), age: number("age") }
}

/// All rows as JSON.
pub fn rows(reader: &str, table: &str) -> Vec<Value> {
    read(reader, "rows", table).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}
