//! One file in the making: the rows of one model and day in one range.

use super::schemas::Schemas;
use crate::archive::encoder::{Content, EncodeError, Object, TableFile};
use crate::clock::Timestamp;
use crate::config::TableKind;
use crate::delta::{AddFile, Stats};
use crate::format::decode::{Fit, LineError};
use crate::format::infer::Inference;
use crate::format::parquet::{Order, ROW_GROUP_BYTES, WRITER_MEMORY, open_writer, writer_properties};
use crate::format::path::{LAYOUT, date_partition, model_directory};
use crate::format::rows::Rows;
use crate::format::schema::ModelSchema;
use crate::ledger::LEDGER_MODEL;
use parquet::arrow::ArrowWriter;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

/// Lines that wait before the first are decoded: enough to tell their types, and what most files of many models ever have.
const WAIT_BYTES: usize = 256 << 10;
/// Lines that are decoded into one batch.
const WINDOW_BYTES: usize = 512 << 10;
const MICROS_PER_DAY: i64 = 86_400_000_000;

/// What a file needs of its format.
pub(super) struct Shared<'a> {
    pub schemas: &'a Schemas,
    /// Rows that a file has at most: the size of its bloom filter.
    pub max_rows: u64,
    pub table: TableKind,
}

/// A file in the making.
pub(super) struct OpenFile {
    model: String,
    day: i64,
    stage: Stage,
    path: PathBuf,
    /// Fields that have no column yet.
    news: Option<Inference>,
    pub rows: u64,
    first_offset: i64,
    last_offset: i64,
    memory: usize,
}

enum Stage {
    /// Lines, each with its end.
    Waiting(Vec<u8>),
    Decoding(Box<Decoding>),
}

struct Decoding {
    schema: Arc<ModelSchema>,
    rows: Rows,
    writer: Option<ArrowWriter<File>>,
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        // Of a range that is given up; one that is finished has no such file any more.
        if matches!(&self.stage, Stage::Decoding(decoding) if decoding.writer.is_some()) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl OpenFile {
    pub fn new(model: String, day: i64, path: PathBuf, offset: i64) -> OpenFile {
        let stage = Stage::Waiting(Vec::new());
        OpenFile { model, day, stage, path, news: None, rows: 0, first_offset: offset, last_offset: offset, memory: 0 }
    }

    /// Adds a line. `Ok(Err(_))`: it is no row, and nothing of it is kept.
    pub fn push(&mut self, line: &[u8], offset: i64, shared: &Shared<'_>) -> Result<Result<(), LineError>, EncodeError> {
        match &mut self.stage {
            Stage::Waiting(lines) => {
                if let Err(error) = Inference::new().push_line(line) {
                    return Ok(Err(error));
                }
                lines.extend_from_slice(line.strip_suffix(b"\n").unwrap_or(line));
                lines.push(b'\n');
                self.memory = lines.capacity();
                if lines.len() >= WAIT_BYTES {
                    self.begin(shared)?;
                }
            }
            Stage::Decoding(_) => {
                if let Err(error) = self.decode(line)? {
                    return Ok(Err(error));
                }
                self.write_if_due(shared)?;
            }
        }
        self.rows += 1;
        self.last_offset = offset;
        Ok(Ok(()))
    }

    /// The model's columns are settled, for all instances, before the first row is decoded by them.
    fn begin(&mut self, shared: &Shared<'_>) -> Result<(), EncodeError> {
        let Stage::Waiting(lines) = &mut self.stage else { return Ok(()) };
        let lines = std::mem::take(lines);
        let mut schema = shared.schemas.get(&self.model)?;
        let mut inference = Inference::new();
        for line in lines_of(&lines) {
            // Each was read by an inference before.
            let _ = inference.push_line(line);
        }
        let inferred = inference.schema();
        if (*schema).clone().merge(&inferred) {
            schema = shared.schemas.learn(&self.model, &inferred)?;
        }
        let rows = Rows::new(&self.model, &schema);
        self.stage = Stage::Decoding(Box::new(Decoding { schema, rows, writer: None }));
        for line in lines_of(&lines) {
            if let Err(error) = self.decode(line)? {
                return Err(EncodeError(format!("model={:?}: a line that could be read cannot be decoded: {error}", self.model)));
            }
        }
        self.memory = self.decoded_bytes();
        Ok(())
    }

    #[inline]
    fn decode(&mut self, line: &[u8]) -> Result<Result<(), LineError>, EncodeError> {
        let Stage::Decoding(decoding) = &mut self.stage else { return Ok(Ok(())) };
        match decoding.rows.push_line(line) {
            Ok(Fit::NewField) => {
                // It was decoded, so it can be read.
                let _ = self.news.get_or_insert_default().push_line(line);
                Ok(Ok(()))
            }
            Ok(_) => Ok(Ok(())),
            Err(error) => Ok(Err(error)),
        }
    }

    fn decoded_bytes(&self) -> usize {
        match &self.stage {
            Stage::Waiting(lines) => lines.capacity(),
            Stage::Decoding(decoding) => decoding.rows.raw_bytes() + decoding.writer.as_ref().map_or(0, ArrowWriter::memory_size),
        }
    }

    fn write_if_due(&mut self, shared: &Shared<'_>) -> Result<(), EncodeError> {
        if let Stage::Decoding(decoding) = &self.stage
            && decoding.rows.raw_bytes() >= WINDOW_BYTES
        {
            self.write(shared.max_rows)?;
            self.memory = self.decoded_bytes();
        }
        Ok(())
    }

    fn write(&mut self, max_rows: u64) -> Result<(), EncodeError> {
        let Stage::Decoding(decoding) = &mut self.stage else { return Ok(()) };
        if decoding.rows.len() == 0 {
            return Ok(());
        }
        let failed = |error: &dyn std::fmt::Display| EncodeError(format!("path={}: {error}", self.path.display()));
        let batch = decoding.rows.finish().map_err(|error| failed(&error))?;
        let writer = match &mut decoding.writer {
            Some(writer) => writer,
            None => {
                let schema = decoding.rows.schema();
                let properties =
                    writer_properties(schema, &self.model, max_rows, Order::AsTheyCame).map_err(|error| failed(&error))?;
                let file = File::create(&self.path).map_err(|error| failed(&error))?;
                decoding.writer.insert(open_writer(file, schema.clone(), properties).map_err(|error| failed(&error))?)
            }
        };
        writer.write(&batch).map_err(|error| failed(&error))?;
        if writer.in_progress_size() >= ROW_GROUP_BYTES || writer.memory_size() >= WRITER_MEMORY {
            writer.flush().map_err(|error| failed(&error))?;
        }
        Ok(())
    }

    /// Completes the file.
    pub fn finish(mut self, topic: &str, partition: i32, shared: &Shared<'_>) -> Result<Object, EncodeError> {
        self.begin(shared)?;
        self.write(self.rows)?;
        let failed = |error: &dyn std::fmt::Display| EncodeError(format!("path={}: {error}", self.path.display()));
        let mut footer = None;
        if let Stage::Decoding(decoding) = &mut self.stage {
            if let Some(mut writer) = decoding.writer.take() {
                let metadata = writer.finish().map_err(|error| failed(&error))?;
                footer = Some((Stats::of(&metadata), decoding.rows.schema().clone()))
                    .filter(|_| shared.table == TableKind::Delta && self.model != LEDGER_MODEL);
            }
            if let Some(news) = &self.news {
                let inferred = news.schema();
                if (*decoding.schema).clone().merge(&inferred) {
                    shared.schemas.learn(&self.model, &inferred)?;
                }
            }
        }
        let (directory, date) = (model_directory(&self.model), date_partition(self.day.saturating_mul(MICROS_PER_DAY)));
        let columns = self.columns(shared);
        let name = format!("{topic}+{partition}+{:010}-{:010}{columns}.parquet", self.first_offset, self.last_offset);
        let key = format!("{directory}/{date}/{name}");
        let table = match footer {
            Some((stats, schema)) => Some(TableFile {
                add: AddFile {
                    path: key.strip_prefix(LAYOUT).unwrap_or(&key).trim_start_matches('/').to_owned(),
                    size: std::fs::metadata(&self.path).map_err(|error| failed(&error))?.len(),
                    modification_time: Timestamp::from(SystemTime::now()).micros() / 1_000,
                    partition_values: BTreeMap::from([
                        ("model_name".to_owned(), Some(self.model.clone())),
                        ("date".to_owned(), date.strip_prefix("date=").map(str::to_owned)),
                    ]),
                    stats,
                },
                schema,
            }),
            None => None,
        };
        Ok(Object { key, content: Content::File(self.path.clone()), rows: self.rows, table })
    }

    /// Names the columns of a table's file. A range that is made again, when they are others by now, has other bytes, and a table's log says how many: the object of
    /// the first try, which is not part of it, must not be taken for the second's.
    fn columns(&self, shared: &Shared<'_>) -> String {
        let Stage::Decoding(decoding) = &self.stage else { return String::new() };
        if shared.table != TableKind::Delta || self.model == LEDGER_MODEL {
            return String::new();
        }
        // It is kept as JSON, so it can be written as such.
        let json = serde_json::to_vec(&*decoding.schema).unwrap_or_default();
        Sha256::digest(json)[..4].iter().fold("+".to_owned(), |name, byte| format!("{name}{byte:02x}"))
    }

    pub fn memory(&self) -> usize {
        self.memory
    }

    /// Rows have fields that get a column with the next range.
    pub fn has_news(&self) -> bool {
        self.news.is_some()
    }
}

fn lines_of(lines: &[u8]) -> impl Iterator<Item = &[u8]> {
    lines.split_inclusive(|&byte| byte == b'\n')
}
