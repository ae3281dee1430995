//! The files of one sealing: written under hidden names, then published together.

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{Array, RecordBatch};
use parquet::arrow::ArrowWriter;
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::super::decode::Fit;
use super::super::parquet::{Order, ROW_GROUP_BYTES, WRITER_MEMORY, WRITERS_KEY, WriterRanges, open_writer, writer_properties};
use super::super::path::{FileName, date_partition, day_of, is_writer, model_directory};
use super::super::rows::Rows;
use super::{BadLines, SealError, SealJob, SealedFile};

/// A file that is being written.
struct Open {
    temporary: Temporary,
    writer: ArrowWriter<File>,
    /// The writer of the first row, if it has one; else what stands in for it.
    named_by: (String, bool),
    rows: u64,
    min_ts: i64,
    writers: WriterRanges,
}

/// A hidden file that is removed unless it is published.
struct Temporary {
    path: PathBuf,
    published: bool,
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.published {
            // Nothing better can be done about a failure: the next sealing of this segment writes over it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// All files of a segment.
pub(super) struct Files {
    decoder: Rows,
    model_name: String,
    root: PathBuf,
    /// Below the root.
    directory: String,
    total_rows: u64,
    window_bytes: usize,
    fsync: bool,
    last_ts: i64,
    new_field: bool,
    open: Option<Open>,
    complete: Vec<(Temporary, SealedFile)>,
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SealError + use<> {
    let path = path.to_owned();
    move |source| SealError::Io { action, path, source }
}

fn write_error(path: &Path) -> impl FnOnce(ParquetError) -> SealError + use<> {
    let path = path.to_owned();
    move |source| SealError::Write { path, source }
}

impl Files {
    pub fn new(job: &SealJob<'_>, total_rows: u64) -> Self {
        Files {
            decoder: Rows::new(job.model_name, job.schema),
            model_name: job.model_name.to_owned(),
            root: job.root.to_owned(),
            directory: model_directory(job.model_name),
            total_rows,
            window_bytes: job.window_bytes,
            fsync: job.fsync,
            last_ts: i64::MIN,
            new_field: false,
            open: None,
            complete: Vec::new(),
        }
    }

    /// Adds a row. One of another day than the row before, or earlier than it, begins another file.
    pub fn push(&mut self, timestamp: i64, line: &str, bad: &mut BadLines<'_>) -> Result<(), SealError> {
        let begun = self.open.is_some() || self.decoder.len() > 0;
        if begun && (timestamp < self.last_ts || day_of(timestamp) != day_of(self.last_ts)) {
            self.close()?;
        }
        match self.decoder.push_str(line) {
            Ok(fit) => {
                self.new_field |= fit == Fit::NewField;
                self.last_ts = timestamp;
                if self.decoder.raw_bytes() >= self.window_bytes {
                    self.write_batch()?;
                }
            }
            Err(error) => bad.add(line.as_bytes(), &error),
        }
        Ok(())
    }

    /// Whether a row had a field that the schema lacks.
    pub fn new_field(&self) -> bool {
        self.new_field
    }

    /// Closes the last file.
    pub fn finish(&mut self) -> Result<(), SealError> {
        self.close()
    }

    fn write_batch(&mut self) -> Result<(), SealError> {
        if self.decoder.len() == 0 {
            return Ok(());
        }
        let path = self.open.as_ref().map_or(&self.root, |open| &open.temporary.path);
        let arrow_error = |error: arrow_schema::ArrowError| write_error(path)(ParquetError::from(error));
        let batch = self.decoder.finish().map_err(arrow_error)?;
        let mut open = match self.open.take() {
            Some(open) => open,
            None => self.begin(&batch)?,
        };
        open.rows += batch.num_rows() as u64;
        add_writers(&mut open.writers, &batch);
        let path = &open.temporary.path;
        open.writer.write(&batch).map_err(write_error(path))?;
        if open.writer.in_progress_size() >= ROW_GROUP_BYTES || open.writer.memory_size() >= WRITER_MEMORY {
            open.writer.flush().map_err(write_error(path))?;
        }
        self.open = Some(open);
        Ok(())
    }

    /// Opens the file of this batch and those that follow it.
    fn begin(&self, batch: &RecordBatch) -> Result<Open, SealError> {
        let min_ts = first_timestamp(batch);
        let directory = self.root.join(&self.directory).join(date_partition(min_ts));
        fs::create_dir_all(&directory).map_err(io_error("create the directory", &directory))?;
        let (writer, seq) = (text_at(batch, "writer"), seq_at(batch, 0));
        let named_by = match (writer.filter(|writer| is_writer(writer)), seq) {
            (Some(writer), Some(_)) => (writer.to_owned(), true),
            _ => (stand_in(&self.model_name, min_ts, text_at(batch, "id").unwrap_or_default()), false),
        };
        // The same at each try, so that what a crash leaves behind is written over.
        let temporary = directory.join(format!(".{}-{}.parquet.tmp", named_by.0, seq.unwrap_or(0)));
        let schema = self.decoder.schema();
        let properties =
            writer_properties(schema, &self.model_name, self.total_rows, Order::Timestamp).map_err(write_error(&temporary))?;
        let file = File::create(&temporary).map_err(io_error("create the file", &temporary))?;
        let temporary = Temporary { path: temporary, published: false };
        let writer = open_writer(file, schema.clone(), properties).map_err(write_error(&temporary.path))?;
        Ok(Open { temporary, writer, named_by, rows: 0, min_ts, writers: WriterRanges::default() })
    }

    fn close(&mut self) -> Result<(), SealError> {
        self.write_batch()?;
        let Some(mut open) = self.open.take() else {
            return Ok(());
        };
        let path = open.temporary.path.clone();
        open.writer.append_key_value_metadata(KeyValue::new(WRITERS_KEY.to_owned(), open.writers.to_json()));
        open.writer.finish().map_err(write_error(&path))?;
        let bytes = open.writer.bytes_written() as u64;
        if self.fsync {
            open.writer.inner().sync_all().map_err(io_error("flush the file", &path))?;
        }
        let (writer, has_seq) = open.named_by;
        let span = if has_seq { open.writers.span(&writer) } else { None };
        let (first_seq, last_seq) = span.unwrap_or((0, open.rows.saturating_sub(1)));
        let name = FileName { writer, first_seq, last_seq }.to_string();
        let relative = format!("{}/{}/{name}", self.directory, date_partition(open.min_ts));
        let file = SealedFile {
            path: self.root.join(&relative),
            relative,
            rows: open.rows,
            bytes,
            min_ts: open.min_ts,
            max_ts: self.last_ts,
            writers: open.writers,
        };
        self.complete.push((open.temporary, file));
        Ok(())
    }

    /// Gives all files their names.
    pub fn publish(mut self, job: &mut SealJob<'_>) -> Result<Vec<SealedFile>, SealError> {
        for (_, file) in &self.complete {
            (job.before_publish)(file, job.schema).map_err(|source| SealError::Refused { path: file.path.clone(), source })?;
        }
        for (temporary, file) in &mut self.complete {
            fs::rename(&temporary.path, &file.path).map_err(io_error("rename the file", &file.path))?;
            temporary.published = true;
        }
        if self.fsync {
            self.sync_directories()?;
        }
        Ok(self.complete.into_iter().map(|(_, file)| file).collect())
    }

    /// Flushes the directories from each file up to the root: a rename lasts only with its directory, and that one only with its parent.
    fn sync_directories(&self) -> Result<(), SealError> {
        // Above the root nothing was made here, and there may be nothing that this process may open.
        let mut directories: Vec<&Path> = self
            .complete
            .iter()
            .flat_map(|(_, file)| file.path.ancestors().skip(1).take_while(|path| path.starts_with(&self.root)))
            .collect();
        directories.sort_unstable_by_key(|path| std::cmp::Reverse(path.components().count()));
        directories.dedup();
        for directory in directories {
            File::open(directory).and_then(|file| file.sync_all()).map_err(io_error("flush the directory", directory))?;
        }
        Ok(())
    }
}

fn first_timestamp(batch: &RecordBatch) -> i64 {
    let column = batch
        .column_by_name("timestamp")
        .and_then(|array| array.as_primitive_opt::<arrow_array::types::TimestampMicrosecondType>());
    column.and_then(|array| array.values().first().copied()).unwrap_or(0)
}

fn text_at<'b>(batch: &'b RecordBatch, column: &str) -> Option<&'b str> {
    let array = batch.column_by_name(column)?.as_string_opt::<i32>()?;
    (!array.is_empty() && array.is_valid(0)).then(|| array.value(0))
}

fn seq_at(batch: &RecordBatch, row: usize) -> Option<u64> {
    let array = batch.column_by_name("seq")?.as_primitive_opt::<Int64Type>()?;
    if array.is_valid(row) { u64::try_from(array.value(row)).ok() } else { None }
}

/// Adds the batch's (writer, seq), a run of consecutive ones at a time.
fn add_writers(ranges: &mut WriterRanges, batch: &RecordBatch) {
    let (Some(writers), Some(seqs)) = (
        batch.column_by_name("writer").and_then(|array| array.as_string_opt::<i32>()),
        batch.column_by_name("seq").and_then(|array| array.as_primitive_opt::<Int64Type>()),
    ) else {
        return;
    };
    // Lanes take turns: one run a lane.
    let mut runs: Vec<(&str, u64, u64)> = Vec::new();
    for row in 0..batch.num_rows() {
        if writers.is_null(row) || seqs.is_null(row) {
            continue;
        }
        let (writer, Ok(seq)) = (writers.value(row), u64::try_from(seqs.value(row))) else {
            continue;
        };
        match runs.iter().position(|run| run.0 == writer) {
            Some(at) if runs[at].2.checked_add(1) == Some(seq) => runs[at].2 = seq,
            Some(at) => {
                let (_, first, last) = std::mem::replace(&mut runs[at], (writer, seq, seq));
                ranges.add_range(writer, first, last);
            }
            None if runs.len() < 64 => runs.push((writer, seq, seq)),
            None => ranges.add(writer, seq),
        }
    }
    for (writer, first, last) in runs {
        ranges.add_range(writer, first, last);
    }
}

/// A name for a file of rows without a writer: it depends on its first row alone. A UUID of version 8 from a SHA-256, on lane 00.
fn stand_in(model_name: &str, timestamp: i64, id: &str) -> String {
    let mut hash = Sha256::new();
    for part in [model_name.as_bytes(), &timestamp.to_be_bytes(), id.as_bytes()] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let mut hex: String = hash.finalize()[..16].iter().map(|byte| format!("{byte:02x}")).collect();
    hex.replace_range(12..13, "8");
    hex.replace_range(16..17, "8");
    format!("{}-{}-{}-{}-{}-00", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}
