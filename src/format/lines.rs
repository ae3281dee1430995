//! Rows of our Parquet files as lines again.
//!
//! The struct columns hold the values, not their text: keys come in the order of the columns, a key that was null or missing is left out, and a double has its
//! shortest text (`1.0` for `1` where the column has doubles). A row that has its raw JSON gives that, byte for byte.

use super::parquet::MODEL_NAME_KEY;
use super::schema::{BARE_FIELD, ModelSchema};
use crate::clock::Timestamp;
use crate::json::escape::write_str;
use crate::record::encode::float;
use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int32Type, Int64Type, TimestampMicrosecondType};
use arrow_array::{Array, ArrayRef, MapArray, RecordBatch, StructArray};
use arrow_schema::{DataType, TimeUnit};
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use parquet::errors::ParquetError;
use std::fs::File;

const BATCH_ROWS: usize = 8_192;

/// What is between the model's name and the writer, in the order of a line.
const COLUMNS: [&str; 12] = [
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

/// Reads the rows of a file as lines, in the order of the file.
pub(crate) struct LineReader {
    batches: ParquetRecordBatchReader,
    model_name: String,
    schema: Option<ModelSchema>,
    rows: Option<Rows>,
    at: usize,
}

impl LineReader {
    /// From the row `skip` on. `schema_of` is asked for the columns of the file's model, which say whether a field `value` is a value that was no
    /// object.
    ///
    /// # Errors
    /// The file is not one of ours, or cannot be read.
    pub(crate) fn open(
        file: File,
        skip: usize,
        schema_of: impl FnOnce(&str) -> Option<ModelSchema>,
    ) -> Result<Self, ParquetError> {
        let builder = ParquetRecordBatchReaderBuilder::try_new(file)?.with_batch_size(BATCH_ROWS).with_offset(skip);
        let pairs = builder.metadata().file_metadata().key_value_metadata();
        let name = pairs.and_then(|pairs| pairs.iter().find(|pair| pair.key == MODEL_NAME_KEY)?.value.clone());
        let model_name = name.ok_or_else(|| ParquetError::General(format!("its metadata lacks {MODEL_NAME_KEY}")))?;
        let schema = schema_of(&model_name);
        Ok(LineReader { batches: builder.build()?, model_name, schema, rows: None, at: 0 })
    }

    /// Writes the next row's line, with its `\n`, into `line`, which is cleared first. `false` at the end.
    ///
    /// # Errors
    /// The file is not one of ours, or cannot be read.
    pub(crate) fn next_line(&mut self, line: &mut Vec<u8>) -> Result<bool, ParquetError> {
        while self.rows.as_ref().is_none_or(|rows| self.at == rows.batch.num_rows()) {
            let Some(batch) = self.batches.next() else { return Ok(false) };
            self.rows = Some(Rows::new(batch?, self.schema.as_ref())?);
            self.at = 0;
        }
        line.clear();
        if let Some(rows) = &self.rows {
            rows.write(line, &self.model_name, self.at);
        }
        self.at += 1;
        Ok(true)
    }
}

/// Some rows, and what is known of all of them.
struct Rows {
    batch: RecordBatch,
    /// Whether a field `value` of inputs, of outputs, holds what was no object.
    bare: [bool; 2],
}

impl Rows {
    fn new(batch: RecordBatch, schema: Option<&ModelSchema>) -> Result<Self, ParquetError> {
        let has = |name: &str, kind: fn(&DataType) -> bool| {
            let column = batch.schema_ref().field_with_name(name).ok();
            column
                .is_some_and(|field| kind(field.data_type()))
                .then_some(())
                .ok_or_else(|| ParquetError::General(format!("it lacks the column {name}, so it is not a file of predictions")))
        };
        has("timestamp", |kind| matches!(kind, DataType::Timestamp(TimeUnit::Microsecond, _)))?;
        has("writer", |kind| *kind == DataType::Utf8)?;
        has("seq", |kind| *kind == DataType::Int64)?;
        // Without its schema a struct of nothing else than `value` is taken for one of bare values.
        let alone = |side: &str| {
            let column = batch.column_by_name(side).and_then(|array| array.as_struct_opt());
            column.is_some_and(|fields| fields.column_names() == [BARE_FIELD])
        };
        let bare = match schema {
            Some(schema) => [schema.inputs.bare, schema.outputs.bare],
            None => ["inputs", "outputs"].map(alone),
        };
        Ok(Rows { batch, bare })
    }

    fn column(&self, name: &str, row: usize) -> Option<&ArrayRef> {
        self.batch.column_by_name(name).filter(|array| array.is_valid(row))
    }

    fn write(&self, out: &mut Vec<u8>, model_name: &str, row: usize) {
        let timestamp = self.batch.column_by_name("timestamp").map(|array| array.as_primitive::<TimestampMicrosecondType>());
        out.extend_from_slice(b"{\"timestamp\":\"");
        out.extend_from_slice(&Timestamp::from_micros(timestamp.map_or(0, |times| times.value(row))).format());
        out.extend_from_slice(b"\",\"model_name\":");
        write_str(out, model_name);
        for name in COLUMNS {
            let raw = match name {
                "inputs" => self.column("inputs_json", row),
                "outputs" => self.column("outputs_json", row),
                _ => None,
            };
            let Some(array) = raw.or_else(|| self.column(name, row)) else { continue };
            out.extend_from_slice(b",\"");
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(b"\":");
            match (raw, name) {
                (Some(raw), _) => out.extend_from_slice(raw.as_string::<i32>().value(row).as_bytes()),
                (None, "inputs") => write_side(out, array, row, self.bare[0]),
                (None, "outputs") => write_side(out, array, row, self.bare[1]),
                (None, _) => write_value(out, array, row),
            }
        }
        if let (Some(writer), Some(seq)) = (self.column("writer", row), self.column("seq", row)) {
            out.extend_from_slice(b",\"writer\":");
            write_value(out, writer, row);
            out.extend_from_slice(b",\"seq\":");
            write_value(out, seq, row);
        }
        out.extend_from_slice(b"}\n");
    }
}

fn write_side(out: &mut Vec<u8>, array: &ArrayRef, row: usize, bare: bool) {
    let value = array.as_struct_opt().and_then(|fields| fields.column_by_name(BARE_FIELD)).filter(|value| value.is_valid(row));
    match value.filter(|_| bare) {
        Some(value) => write_value(out, value, row),
        None => write_value(out, array, row),
    }
}

fn write_value(out: &mut Vec<u8>, array: &ArrayRef, row: usize) {
    if array.is_null(row) {
        return out.extend_from_slice(b"null");
    }
    match array.data_type() {
        DataType::Boolean => out.extend_from_slice(if array.as_boolean().value(row) { b"true" } else { b"false" }),
        DataType::Int32 => write_int(out, i64::from(array.as_primitive::<Int32Type>().value(row))),
        DataType::Int64 => write_int(out, array.as_primitive::<Int64Type>().value(row)),
        DataType::Float64 => float(out, array.as_primitive::<Float64Type>().value(row)),
        DataType::Utf8 => write_str(out, array.as_string::<i32>().value(row)),
        DataType::Struct(_) => write_struct(out, array.as_struct(), row),
        DataType::Map(_, _) => write_map(out, array.as_map(), row),
        DataType::List(_) => {
            let elements = array.as_list::<i32>().value(row);
            out.push(b'[');
            for at in 0..elements.len() {
                comma(out, at);
                write_value(out, &elements, at);
            }
            out.push(b']');
        }
        // None of our columns.
        _ => out.extend_from_slice(b"null"),
    }
}

fn write_int(out: &mut Vec<u8>, value: i64) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// A field that is null had the value null or was missing: it is left out.
fn write_struct(out: &mut Vec<u8>, fields: &StructArray, row: usize) {
    out.push(b'{');
    let known = fields.column_names().into_iter().zip(fields.columns()).filter(|(_, array)| array.is_valid(row));
    for (at, (name, array)) in known.enumerate() {
        comma(out, at);
        write_str(out, name);
        out.push(b':');
        write_value(out, array, row);
    }
    out.push(b'}');
}

fn write_map(out: &mut Vec<u8>, map: &MapArray, row: usize) {
    let entries = map.value(row);
    out.push(b'{');
    for at in 0..entries.len() {
        comma(out, at);
        write_value(out, entries.column(0), at);
        out.push(b':');
        write_value(out, entries.column(1), at);
    }
    out.push(b'}');
}

fn comma(out: &mut Vec<u8>, at: usize) {
    if at > 0 {
        out.push(b',');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::seal::{FrameInfo, FrameSource, SealJob, seal};
    use serde_json::{Value, json};

    struct Frame(Vec<u8>, FrameInfo);

    impl FrameSource for Frame {
        fn frames(&self) -> &[FrameInfo] {
            std::slice::from_ref(&self.1)
        }

        fn load(&mut self, _index: usize, into: &mut Vec<u8>) -> std::io::Result<()> {
            into.extend_from_slice(&self.0);
            Ok(())
        }
    }

    const WRITER: &str = "01900000-0000-7000-8000-000000000001-00";

    fn line(seq: u64, fields: &str) -> String {
        format!(
            "{{\"timestamp\":\"2026-11-23T03:34:18.{seq:06}Z\",\"model_name\":\"wine\",{fields},\"writer\":\"{WRITER}\",\"seq\":{seq}}}\n"
        )
    }

    /// The lines, sealed into one file and read again from the row `skip` on.
    fn again(lines: &[String], skip: usize) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        let text = lines.concat().into_bytes();
        let ts = |line: &String| crate::record::timestamp_of_line(line.as_bytes()).unwrap();
        let (min_ts, max_ts) = (ts(&lines[0]), ts(&lines[lines.len() - 1]));
        let info = FrameInfo { min_ts, max_ts, rows: lines.len() as u64, raw_bytes: text.len() as u64 };
        let mut schema = ModelSchema::default();
        let (mut bad, mut before) =
            (|_: &[u8], error: &crate::format::decode::LineError| panic!("{error}"), |_: &_, _: &ModelSchema| Ok(()));
        let files = seal(SealJob::new("wine", dir.path(), &mut schema, &mut bad, &mut before), &mut Frame(text, info)).unwrap();
        assert_eq!(files.len(), 1);
        let file = File::open(dir.path().join(&files[0].relative)).unwrap();
        let mut reader = LineReader::open(file, skip, |_| Some(schema)).unwrap();
        let (mut line, mut lines) = (Vec::new(), Vec::new());
        while reader.next_line(&mut line).unwrap() {
            lines.push(String::from_utf8(line.clone()).unwrap());
        }
        lines
    }

    #[test]
    fn a_row_is_the_line_that_it_was() {
        let lines = [
            r#""id":"a","model_version":"1","inputs":{"n":1,"x":0.1,"text":"é\"\n","list":[1,2],"deep":{"a":true}},"outputs":[0.5,1.5]"#,
            r#""id":"b","inputs":{"n":2,"x":"NaN"},"outputs":[],"request_id":"r","row_index":3,"status_code":200,"error":"e","latency_ms":"NaN","sample_weight":"-Infinity","metadata":{"k":"v","l":"\u0007"},"traceparent":"t""#,
            r#""id":"c","inputs":{"n":18446744073709551615},"outputs":[5e-324,1e+300]"#,
            r#""id":"d","inputs":{"sha256":"00","bytes":70000},"outputs":[0.25]"#,
        ];
        let lines: Vec<String> = lines.iter().enumerate().map(|(seq, fields)| line(seq as u64, fields)).collect();
        assert_eq!(again(&lines, 0), lines);
        assert_eq!(again(&lines, 3), lines[3..]);
    }

    #[test]
    fn what_columns_do_not_tell_apart_is_the_same_value() {
        let given = [r#""id":"a","inputs":{"a":1.5,"b":null},"outputs":3"#, r#""id":"b","inputs":{"b":"x","a":2},"outputs":4"#];
        let given: Vec<String> = given.iter().enumerate().map(|(seq, fields)| line(seq as u64, fields)).collect();
        let found: Vec<Value> = again(&given, 0).iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!((&found[0]["inputs"], &found[0]["outputs"]), (&json!({"a": 1.5}), &json!(3)));
        assert_eq!((&found[1]["inputs"], &found[1]["outputs"]), (&json!({"a": 2.0, "b": "x"}), &json!(4)));
    }
}
