//! Reads back what a store has, as plain rows.

#![allow(dead_code, reason = "each test uses a part of it")]

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// A stored record, as far as tests compare it.
#[derive(Clone, Debug)]
pub struct Row {
    pub writer: String,
    pub seq: u64,
    pub id: String,
    pub inputs: Value,
    pub outputs: Value,
}

/// All rows of `<dir>/predictions.db`.
pub fn sqlite(dir: &Path) -> Vec<Row> {
    let database = rusqlite::Connection::open(dir.join("predictions.db")).expect("the database opens");
    let mut query = database.prepare("SELECT writer, seq, id, inputs, outputs FROM predictions").expect("the table is there");
    let json = |text: String| serde_json::from_str(&text).expect("JSON");
    let rows = query.query_map([], |row| {
        Ok(Row {
            writer: row.get(0)?,
            seq: row.get::<_, i64>(1)? as u64,
            id: row.get(2)?,
            inputs: json(row.get(3)?),
            outputs: json(row.get(4)?),
        })
    });
    rows.expect("rows").collect::<Result<_, _>>().expect("rows")
}

/// All rows of the Parquet files under `<dir>/predictions/`.
pub fn parquet(dir: &Path) -> Vec<Row> {
    files(&dir.join("predictions")).iter().flat_map(|path| parquet_file(std::fs::read(path).expect("a file"))).collect()
}

/// All rows of one Parquet file.
pub fn parquet_file(bytes: Vec<u8>) -> Vec<Row> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes::Bytes::from(bytes)).expect("Parquet").build().expect("Parquet");
    let mut rows = Vec::new();
    for batch in reader {
        let batch = batch.expect("a batch");
        // All but the timestamp: to write "UTC" as text takes a table of time zones.
        let others: Vec<usize> = (0..batch.num_columns()).filter(|&at| batch.schema().field(at).name() != "timestamp").collect();
        let mut writer =
            arrow_json::WriterBuilder::new().with_explicit_nulls(false).build::<_, arrow_json::writer::JsonArray>(Vec::new());
        writer.write(&batch.project(&others).expect("columns")).expect("JSON");
        writer.finish().expect("JSON");
        let values: Vec<Value> = serde_json::from_slice(&writer.into_inner()).expect("JSON");
        let seqs = batch.column_by_name("seq").expect("seq").as_primitive::<Int64Type>();
        rows.extend(values.into_iter().enumerate().map(|(at, value)| Row {
            writer: value["writer"].as_str().expect("a writer").to_owned(),
            seq: seqs.value(at) as u64,
            id: value["id"].as_str().expect("an id").to_owned(),
            inputs: value["inputs"].clone(),
            outputs: value["outputs"].clone(),
        }));
    }
    rows
}

/// All files below `dir`, sorted.
pub fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    if let Ok(entries) = std::fs::read_dir(dir) {
        for entry in entries {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                found.extend(files(&path));
            } else {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}
