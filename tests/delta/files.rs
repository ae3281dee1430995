//! Parquet files as predlog writes them, for tables.

// Each test program compiles this module for itself and uses a part of it.
#![allow(dead_code, reason = "a test program uses only the part of this shared module that it needs")]

use arrow_schema::{DataType, Field, Schema, SchemaRef};
use object_store::{ObjectStore, ObjectStoreExt, path::Path as Key};
use predlog::delta::{AddFile, Stats};
use predlog::format::decode::{RowDecoder, arrow_schema};
use predlog::format::infer::Inference;
use predlog::format::parquet::{Order, open_writer, writer_properties};
use predlog::format::path::model_partition;
use predlog::format::schema::ModelSchema;
use predlog::ship::UploadSettings;
use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::Path;

pub const DATE: &str = "2026-11-23";
pub const PARTITIONS: [&str; 2] = ["model_name", "date"];

/// A file that is not put anywhere yet.
pub struct Encoded {
    pub bytes: Vec<u8>,
    pub schema: SchemaRef,
    pub stats: Stats,
}

/// A prediction's line. `more` are further inputs, each with a comma before it.
pub fn line(model: &str, writer: &str, seq: u64, more: &str) -> String {
    let (second, micro) = (seq / 1_000 % 60, seq % 1_000);
    format!(
        r#"{{"timestamp":"{DATE}T12:00:{second:02}.{micro:06}Z","model_name":{model:?},"id":"{writer}-{seq}","inputs":{{"age":{seq},"fixed acidity":{}.5{more}}},"outputs":{{"score":0.25}},"metadata":{{"k":"v"}},"writer":{writer:?},"seq":{seq}}}"#,
        seq % 7
    )
}

/// Encodes lines as the store's files are, with the columns of `sticky`, which grow by those that the lines have.
pub fn encode(model: &str, sticky: &mut ModelSchema, lines: &[String]) -> Encoded {
    let mut inference = Inference::new();
    lines.iter().for_each(|line| inference.push_str(line).unwrap());
    sticky.merge(&inference.schema());
    let mut decoder = RowDecoder::new(sticky);
    for line in lines {
        decoder.push_str(line).unwrap();
    }
    let batch = decoder.finish().unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    let properties = writer_properties(&batch.schema(), model, lines.len() as u64, Order::Timestamp).unwrap();
    let mut writer = open_writer(file.reopen().unwrap(), batch.schema(), properties).unwrap();
    writer.write(&batch).unwrap();
    let metadata = writer.close().unwrap();
    Encoded { bytes: fs::read(file.path()).unwrap(), schema: batch.schema(), stats: Stats::of(&metadata) }
}

impl Encoded {
    /// How the file becomes part of a table once it lies at `name` in its partition.
    pub fn add(&self, model: &str, name: &str) -> AddFile {
        AddFile {
            path: format!("{}/date={DATE}/{name}", model_partition(model)),
            size: self.bytes.len() as u64,
            modification_time: 1_795_000_000_000,
            partition_values: BTreeMap::from([
                ("model_name".to_owned(), Some(model.to_owned())),
                ("date".to_owned(), Some(DATE.to_owned())),
            ]),
            stats: self.stats.clone(),
        }
    }

    /// Writes it below a table's directory.
    pub fn write(&self, table: &Path, add: &AddFile) {
        let path = table.join(&add.path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, &self.bytes).unwrap();
    }

    /// Puts it below a table's prefix.
    pub fn put(&self, store: &impl ObjectStore, prefix: &str, add: &AddFile) {
        let key = Key::parse(format!("{prefix}/{}", add.path)).unwrap();
        block_on(store.put(&key, self.bytes.clone().into())).unwrap();
    }
}

/// The columns of a table whose files have `columns`.
pub fn table_schema(columns: &Schema) -> Schema {
    let mut fields: Vec<_> = columns.fields().iter().cloned().collect();
    fields.push(Field::new("model_name", DataType::Utf8, true).into());
    fields.push(Field::new("date", DataType::Date32, true).into());
    Schema::new(fields)
}

/// The columns of a table before any prediction.
pub fn empty_schema() -> Schema {
    table_schema(&arrow_schema(&ModelSchema::default()))
}

/// One file of the predictions `seqs`, written below the table and not committed.
pub fn file(
    table: &Path,
    sticky: &mut ModelSchema,
    model: &str,
    writer: &str,
    seqs: Range<u64>,
    more: &str,
) -> (Encoded, AddFile) {
    let name = format!("{writer}-{}-{}.parquet", seqs.start, seqs.end - 1);
    let lines: Vec<String> = seqs.map(|seq| line(model, writer, seq, more)).collect();
    let encoded = encode(model, sticky, &lines);
    let add = encoded.add(model, &name);
    encoded.write(table, &add);
    (encoded, add)
}

pub fn directory(path: &Path) -> UploadSettings {
    UploadSettings { url: Some(format!("file://{}", path.display())), ..UploadSettings::default() }
}

pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}
