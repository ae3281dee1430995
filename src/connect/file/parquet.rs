//! Parquet, with columns of the schema that came with the rows, or of the one that they have together.

use super::arrow::{batch, columns};
use super::{Added, failed};
use crate::archive::encoder::{Content, EncodeError};
use crate::connect::config::Codec;
use crate::connect::record::Part;
use crate::connect::schema::{Kind, Schema};
use crate::connect::value::Value;
use crate::format::parquet::{ROW_GROUP_BYTES, WRITER_MEMORY, open_writer};
use arrow_schema::SchemaRef;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, GzipLevel, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

/// Rows that become one batch. The first of them settle the columns of plain JSON.
const WINDOW_ROWS: usize = 8_192;
/// The same, by the bytes of their messages.
const WINDOW_BYTES: usize = 1 << 20;
/// A row in memory is about this much larger than its message.
const GROWTH: usize = 6;

pub(in crate::connect) struct Parquet {
    codec: Codec,
    path: PathBuf,
    schema: Option<Arc<Schema>>,
    /// The schema was learnt of the rows.
    learnt: bool,
    rows: Vec<Value>,
    bytes: usize,
    writer: Option<Writer>,
}

struct Writer {
    columns: SchemaRef,
    file: ArrowWriter<File>,
}

impl Drop for Parquet {
    fn drop(&mut self) {
        // Of a range that is given up; one that is finished has no writer any more.
        if self.writer.is_some() {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl Parquet {
    pub fn new(codec: Codec, path: PathBuf) -> Parquet {
        Parquet { codec, path, schema: None, learnt: false, rows: Vec::new(), bytes: 0, writer: None }
    }

    pub fn add(&mut self, part: Part, bytes: usize) -> Result<Added, EncodeError> {
        let Some(value @ Value::Record(_)) = part.value else {
            return Ok(Added::No("ParquetFormat: expected an object; JsonFormat takes other values too".to_owned()));
        };
        if let Some(why) = part.schema.as_deref().and_then(no_columns) {
            return Ok(Added::No(why));
        }
        match (part.schema, &self.schema) {
            // A change of schema has ended the file before, or the value was projected.
            (Some(schema), _) => self.schema = Some(schema),
            (None, known) => match learn(known.as_deref().filter(|_| self.learnt), &value) {
                Ok(None) => {}
                Ok(Some(_)) if self.writer.is_some() => return Ok(Added::OtherColumns),
                Ok(Some(wider)) => (self.schema, self.learnt) = (Some(Arc::new(wider)), true),
                Err(why) => return Ok(Added::No(why)),
            },
        }
        self.rows.push(value);
        self.bytes += bytes;
        if self.rows.len() >= WINDOW_ROWS || self.bytes >= WINDOW_BYTES {
            self.write()?;
        }
        Ok(Added::Yes)
    }

    fn write(&mut self) -> Result<(), EncodeError> {
        let Some(schema) = &self.schema else { return Ok(()) };
        let failed = |error: &dyn std::fmt::Display| failed(&self.path, error);
        let writer = match &mut self.writer {
            Some(writer) => writer,
            None => {
                // Rows of nulls alone: columns of text hold them.
                let all = columns(schema).map_or_else(|| Arc::new(as_text(schema)), |_| schema.clone());
                let Some(columns) = columns(&all) else { return Err(failed(&"rows without a column")) };
                self.schema = Some(all);
                let file = File::create(&self.path).map_err(|error| failed(&error))?;
                let properties = properties(self.codec).map_err(|error| failed(&error))?;
                let file = open_writer(file, columns.clone(), properties).map_err(|error| failed(&error))?;
                self.writer.insert(Writer { columns, file })
            }
        };
        let Some(schema) = &self.schema else { return Ok(()) };
        let batch = batch(schema, &writer.columns, &self.rows).map_err(|error| failed(&error))?;
        self.rows.clear();
        self.bytes = 0;
        writer.file.write(&batch).map_err(|error| failed(&error))?;
        if writer.file.in_progress_size() >= ROW_GROUP_BYTES || writer.file.memory_size() >= WRITER_MEMORY {
            writer.file.flush().map_err(|error| failed(&error))?;
        }
        Ok(())
    }

    pub fn memory(&self) -> usize {
        self.bytes * GROWTH + self.writer.as_ref().map_or(0, |writer| writer.file.memory_size())
    }

    pub fn finish(mut self) -> Result<Content, EncodeError> {
        if !self.rows.is_empty() {
            self.write()?;
        }
        if let Some(mut writer) = self.writer.take() {
            writer.file.finish().map_err(|error| failed(&self.path, &error))?;
        }
        Ok(Content::File(self.path.clone()))
    }
}

/// Why a schema that came with a message has no columns.
fn no_columns(schema: &Schema) -> Option<String> {
    match columns(schema) {
        Some(_) => None,
        None => Some("ParquetFormat: expected a struct with at least one field".to_owned()),
    }
}

/// The schema that holds this row too; `None` when the known one does.
fn learn(known: Option<&Schema>, value: &Value) -> Result<Option<Schema>, String> {
    if known.is_some_and(|known| known.admits(value)) {
        return Ok(None);
    }
    if matches!(value, Value::Record(fields) if fields.is_empty()) {
        return Err("ParquetFormat: an object without fields has no columns".to_owned());
    }
    let inferred = Schema::infer(value)?;
    match known {
        Some(known) => Ok(known.merge(&inferred)),
        None => Ok(Some(inferred)),
    }
}

fn as_text(schema: &Schema) -> Schema {
    let text = Arc::new(Schema::optional(Kind::Json));
    let fields = schema.fields().unwrap_or_default();
    Schema::optional(Kind::Struct(fields.iter().map(|(name, _)| (name.clone(), text.clone())).collect()))
}

fn properties(codec: Codec) -> Result<WriterProperties, ParquetError> {
    let compression = match codec {
        Codec::None => Compression::UNCOMPRESSED,
        Codec::Snappy => Compression::SNAPPY,
        Codec::Gzip => Compression::GZIP(GzipLevel::default()),
        Codec::Lz4 => Compression::LZ4_RAW,
        Codec::Zstd => Compression::ZSTD(ZstdLevel::try_new(3)?),
    };
    Ok(WriterProperties::builder()
        .set_created_by(concat!("predlog ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_compression(compression)
        .set_max_row_group_row_count(None)
        .build())
}
