//! Parquet files: of predictions the columns `writer`, `seq` and `timestamp`, of the ledger its entries.

use super::tally::{HOUR, Tally};
use super::{Run, unreadable};
use crate::error::Error;
use crate::format::parquet::MODEL_NAME_KEY;
use crate::format::path::LEDGER;
use crate::ledger::{Entry, Kind, Stated, is_ledger};
use crate::record::Writer;
use crate::ship::expired::Expired;
use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, Int64Type, TimestampMicrosecondType};
use arrow_array::{Array, RecordBatch, StructArray};
use arrow_schema::{DataType, Field, Schema};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::errors::ParquetError;
use parquet::file::reader::ChunkReader;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const BATCH_ROWS: usize = 65_536;

impl Run<'_> {
    /// The ledger's files.
    pub(super) fn file_entries(&mut self, dir: &Path) -> Result<(), Error> {
        for path in files(&dir.join(LEDGER), 1).map_err(|error| unreadable(dir, &error))? {
            let (book, cells) = (&mut self.book, &mut self.tally.cells);
            let read = open(&path).and_then(|file| entries(file, &mut |stated| book.add(stated, cells)));
            self.note(&path.display().to_string(), read);
        }
        Ok(())
    }

    /// All rows of the table.
    pub(super) fn file_rows(&mut self, dir: &Path) -> Result<(), Error> {
        let mut paths = files(&dir.join("predictions"), 2).map_err(|error| unreadable(dir, &error))?;
        // Day by day through all models: what they share of a lane is then whole soon, and takes little memory.
        paths.sort_by(|left, right| (date_of(left), left).cmp(&(date_of(right), right)));
        let all = self.tally.has_bare_ranges();
        for path in paths {
            if all || self.window.contains_date(&date_of(&path)) {
                let read = open(&path).and_then(|file| rows(file, &mut self.tally, &mut *self.progress, false));
                self.note(&path.display().to_string(), read);
            }
        }
        Ok(())
    }

    /// What retention has deleted. To be read last: a file goes while others are read.
    pub(super) fn expired_files(&mut self, dir: &Path) -> Result<(), Error> {
        let expired = Expired::load(dir).map_err(|error| unreadable(&dir.join("expired.json"), &error))?;
        for (writer, ranges) in expired.writers {
            let Ok(writer) = writer.parse::<Writer>() else { continue };
            for (first, last) in ranges {
                if is_ledger(writer) {
                    self.book.expired(writer, first, last);
                } else {
                    self.tally.expired(writer, first, last);
                }
            }
        }
        for (model, hours) in expired.hours {
            let model = self.tally.cells.model(&model);
            for (hour, rows) in hours {
                let place = self.tally.cells.at(model, hour);
                self.tally.cells.of(place).expired += rows;
            }
        }
        Ok(())
    }

    /// A file that cannot be read is a problem, not the end.
    pub(super) fn note(&mut self, what: &str, read: Result<(), ParquetError>) {
        if let Err(error) = read {
            self.unreadable.push(format!("{what} cannot be read: {error}"));
        }
    }
}

pub(super) fn open(path: &Path) -> Result<File, ParquetError> {
    File::open(path).map_err(|error| ParquetError::External(Box::new(error)))
}

/// `date=2026-11-23` of a file's path.
fn date_of(path: &Path) -> String {
    path.parent().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// The Parquet files `depth` directories below `dir`, whatever their names: whoever reads the table reads them too.
fn files(dir: &Path, depth: usize) -> io::Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut paths = Vec::new();
    for entry in entries {
        let entry = entry?;
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_string_lossy();
        if depth > 0 && path.is_dir() {
            paths.extend(files(&path, depth - 1)?);
        } else if depth == 0 && name.ends_with(".parquet") && !name.starts_with('.') {
            paths.push(path);
        }
    }
    Ok(paths)
}

/// Gives each row of a file of predictions to the tally. `pending`: the file is on its way to the table.
pub(super) fn rows<R: ChunkReader + 'static>(
    reader: R,
    tally: &mut Tally,
    progress: &mut dyn FnMut(u64),
    pending: bool,
) -> Result<(), ParquetError> {
    let mut hours = Hours::new(&reader, tally, pending)?;
    for batch in project(reader, &["writer", "seq", "timestamp"])? {
        hours.add(&batch?, tally)?;
        progress(tally.rows);
    }
    Ok(())
}

/// A file's rows by the hour: the place is looked up where the hour changes.
struct Hours {
    model: i64,
    hour: i64,
    place: super::tally::Place,
    pending: bool,
}

impl Hours {
    fn new(reader: &impl ChunkReader, tally: &mut Tally, pending: bool) -> Result<Self, ParquetError> {
        let metadata = ArrowReaderMetadata::load(reader, ArrowReaderOptions::new())?;
        let pairs = metadata.metadata().file_metadata().key_value_metadata();
        let name = pairs.and_then(|pairs| pairs.iter().find(|pair| pair.key == MODEL_NAME_KEY)?.value.clone());
        let name = name.ok_or_else(|| ParquetError::General(format!("its metadata lacks {MODEL_NAME_KEY}")))?;
        let model = tally.cells.model(&name);
        Ok(Hours { model, hour: i64::MIN, place: tally.cells.unknown(), pending })
    }

    fn add(&mut self, batch: &RecordBatch, tally: &mut Tally) -> Result<(), ParquetError> {
        let missing = || ParquetError::General("it lacks the columns writer, seq and timestamp".to_owned());
        let writers =
            batch.column_by_name("writer").and_then(|array| array.as_dictionary_opt::<Int32Type>()).ok_or_else(missing)?;
        let seqs = batch.column_by_name("seq").and_then(|array| array.as_primitive_opt::<Int64Type>()).ok_or_else(missing)?;
        let times = batch.column_by_name("timestamp").and_then(|array| array.as_primitive_opt::<TimestampMicrosecondType>());
        let times = times.ok_or_else(missing)?.values();
        let names = writers.values().as_string_opt::<i32>().ok_or_else(missing)?;
        let numbers: Vec<Option<usize>> = names.iter().map(|name| Some(tally.writer(name?.parse::<Writer>().ok()?))).collect();
        for row in 0..batch.num_rows() {
            let number =
                if writers.is_valid(row) && seqs.is_valid(row) { numbers[writers.keys().value(row) as usize] } else { None };
            let (Some(number), Ok(seq)) = (number, u64::try_from(seqs.value(row))) else {
                tally.foreign += 1;
                continue;
            };
            let time = times[row];
            // A new hour, or the first.
            if !(self.hour..self.hour.saturating_add(HOUR)).contains(&time) {
                let hour = time.div_euclid(HOUR);
                self.hour = hour * HOUR;
                self.place = tally.cells.at(self.model, hour);
            }
            if self.pending {
                tally.pending(number, seq, time, self.place);
            } else {
                tally.row(number, seq, time, self.place);
            }
        }
        Ok(())
    }
}

/// Some columns of a file, a text column of few values by its dictionary.
fn project<R: ChunkReader + 'static>(
    reader: R,
    columns: &[&str],
) -> Result<impl Iterator<Item = Result<RecordBatch, arrow_schema::ArrowError>> + use<R>, ParquetError> {
    let loaded = ArrowReaderMetadata::load(&reader, ArrowReaderOptions::new())?;
    let dictionary = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    let field = |field: &Arc<Field>| match field.name().as_str() {
        "writer" => Arc::new(Field::new("writer", dictionary.clone(), field.is_nullable())),
        _ => Arc::clone(field),
    };
    let schema = Arc::new(Schema::new(loaded.schema().fields().iter().map(field).collect::<Vec<_>>()));
    let options = ArrowReaderOptions::new().with_schema(schema);
    let metadata = ArrowReaderMetadata::try_new(Arc::clone(loaded.metadata()), options)?;
    let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(reader, metadata);
    let mask = ProjectionMask::columns(builder.parquet_schema(), columns.iter().copied());
    builder.with_projection(mask).with_batch_size(BATCH_ROWS).build()
}

/// Gives `each` the entries of a file of the ledger.
pub(super) fn entries<R: ChunkReader + 'static>(reader: R, each: &mut dyn FnMut(Stated)) -> Result<(), ParquetError> {
    let columns =
        ["kind", "about", "first", "last", "model_name", "hour", "rows", "reason"].map(|column| format!("inputs.{column}"));
    let columns: Vec<&str> = columns.iter().map(String::as_str).chain(["writer", "seq", "timestamp"]).collect();
    for batch in project(reader, &columns)? {
        let batch = batch?;
        let missing = || ParquetError::General("it is no file of the ledger".to_owned());
        let column = |name: &str| batch.column_by_name(name).ok_or_else(missing);
        let inputs = column("inputs")?.as_struct_opt().ok_or_else(missing)?;
        let writers = column("writer")?.as_dictionary_opt::<Int32Type>().ok_or_else(missing)?;
        let seqs = column("seq")?.as_primitive_opt::<Int64Type>().ok_or_else(missing)?;
        let times = column("timestamp")?.as_primitive_opt::<TimestampMicrosecondType>().ok_or_else(missing)?;
        let names = writers.values().as_string_opt::<i32>().ok_or_else(missing)?;
        for row in 0..batch.num_rows() {
            let writer = writers.key(row).and_then(|key| names.value(key).parse().ok());
            let (Some(writer), Some(entry)) = (writer, entry(inputs, row)) else { return Err(missing()) };
            each(Stated { timestamp: times.value(row), writer, seq: seqs.value(row).cast_unsigned(), entry });
        }
    }
    Ok(())
}

fn entry(inputs: &StructArray, row: usize) -> Option<Entry> {
    let text = |name: &str| {
        let column = inputs.column_by_name(name)?.as_string_opt::<i32>()?;
        column.is_valid(row).then(|| column.value(row).to_owned())
    };
    let number = |name: &str| {
        let column = inputs.column_by_name(name)?.as_primitive_opt::<Int64Type>()?;
        column.is_valid(row).then(|| column.value(row).cast_unsigned())
    };
    Some(Entry {
        kind: Kind::named(&text("kind")?)?,
        about: text("about"),
        first: number("first"),
        last: number("last"),
        model_name: text("model_name"),
        hour: text("hour"),
        rows: number("rows")?,
        reason: text("reason"),
    })
}
