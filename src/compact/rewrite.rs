//! Several Parquet files to one, a batch of rows at a time.
//!
//! The files lie on the local disk meanwhile, as large together as one group; memory holds one batch and one open row group. Rows keep their order within a file,
//! and files come by their earliest timestamp: where their times do not overlap, the result is sorted as they were, and says so.

use super::Small;
use crate::delta::Stats;
use crate::format::parquet::{MODEL_NAME_KEY, Order, VERSION_KEY, WRITERS_KEY, WriterRanges, open_writer, writer_properties};
use crate::ship::objects::Objects;
use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, ListArray, RecordBatch, StructArray, new_null_array};
use arrow_schema::{ArrowError, DataType, Field, FieldRef, Fields, Schema, SchemaRef};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::errors::ParquetError;
use parquet::file::metadata::{KeyValue, ParquetMetaData};
use parquet::file::statistics::Statistics;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const BATCH_ROWS: usize = 4_096;
/// A row group is closed at this size, or when its open pages take so much memory.
const ROW_GROUP_BYTES: usize = 64 << 20;
const WRITER_MEMORY: usize = 96 << 20;

/// One file of several, still on the local disk.
#[derive(Debug)]
pub(crate) struct Merged {
    pub file: PathBuf,
    pub bytes: u64,
    pub stats: Stats,
}

/// A file that is here, and what its footer says.
struct Source {
    file: PathBuf,
    metadata: Arc<ParquetMetaData>,
    schema: SchemaRef,
    /// Of its column `timestamp`.
    times: Option<(i64, i64)>,
}

/// Fetches the files of a group into `scratch`, and writes one with all their rows and columns there. `marks` are further keys of its footer.
pub(crate) fn merge_files(
    objects: &Objects,
    group: &[Small],
    scratch: &Path,
    marks: &[(&str, String)],
) -> Result<Merged, String> {
    let mut sources = Vec::with_capacity(group.len());
    for (at, small) in group.iter().enumerate() {
        let file = scratch.join(format!("source-{at}.parquet"));
        objects.fetch(&small.path, small.bytes, &file).map_err(|error| error.to_string())?;
        sources.push(Source::open(file).map_err(|error| format!("path={}: {error}", small.path))?);
    }
    sources.sort_by_key(|source| source.times.map_or(i64::MAX, |(first, _)| first));
    let file = scratch.join("merged.parquet");
    let merged = write(&sources, &file, marks).map_err(|error| format!("files from {} on: {error}", group[0].path));
    for source in sources {
        std::fs::remove_file(&source.file).map_err(|error| format!("path={}: {error}", source.file.display()))?;
    }
    merged
}

fn write(sources: &[Source], path: &Path, marks: &[(&str, String)]) -> Result<Merged, ParquetError> {
    let schemas: Vec<&SchemaRef> = sources.iter().map(|source| &source.schema).collect();
    let schema = Arc::new(Schema::new(union(schemas.iter().map(|schema| schema.fields()))?));
    let rows = sources.iter().map(|source| u64::try_from(source.metadata.file_metadata().num_rows()).unwrap_or(0)).sum();
    let order = if in_order(sources) { Order::Timestamp } else { Order::AsTheyCame };
    let properties =
        writer_properties(&schema, "", rows, order)?.into_builder().set_key_value_metadata(Some(footer(sources, marks)));
    let mut writer = open_writer(File::create(path)?, schema.clone(), properties.build())?;
    for source in sources {
        let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(&source.file)?)?.with_batch_size(BATCH_ROWS).build()?;
        for batch in reader {
            writer.write(&conform(&batch?, &schema)?)?;
            if writer.in_progress_size() >= ROW_GROUP_BYTES || writer.memory_size() >= WRITER_MEMORY {
                writer.flush()?;
            }
        }
    }
    let metadata = writer.close()?;
    // A merge that lost a row must never be followed by the deletion of what it was made from.
    if u64::try_from(metadata.file_metadata().num_rows()) != Ok(rows) {
        return Err(ParquetError::General(format!("{} rows of {rows} were written", metadata.file_metadata().num_rows())));
    }
    Ok(Merged { file: path.to_owned(), bytes: std::fs::metadata(path)?.len(), stats: Stats::of(&metadata) })
}

impl Source {
    fn open(file: PathBuf) -> Result<Self, ParquetError> {
        let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(&file)?)?;
        let (metadata, schema) = (reader.metadata().clone(), reader.schema().clone());
        let times = times(&metadata);
        Ok(Source { file, metadata, schema, times })
    }

    fn mark(&self, key: &str) -> Option<&str> {
        let marks = self.metadata.file_metadata().key_value_metadata()?;
        marks.iter().find(|mark| mark.key == key)?.value.as_deref()
    }
}

/// The earliest and the latest timestamp, by the footer.
fn times(metadata: &ParquetMetaData) -> Option<(i64, i64)> {
    let columns = metadata.file_metadata().schema_descr().columns();
    let at = columns.iter().position(|column| column.path().parts() == ["timestamp"])?;
    let bounds = metadata.row_groups().iter().map(|group| match group.column(at).statistics()? {
        Statistics::Int64(values) => Some((*values.min_opt()?, *values.max_opt()?)),
        _ => None,
    });
    bounds.collect::<Option<Vec<_>>>()?.into_iter().reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))
}

/// Whether each file's times begin where those of the one before end.
fn in_order(sources: &[Source]) -> bool {
    let sorted = |source: &Source| {
        source.metadata.row_groups().iter().all(|group| group.sorting_columns().is_some_and(|by| !by.is_empty()))
    };
    sources.iter().all(|source| sorted(source) && source.times.is_some())
        && sources.windows(2).all(|pair| pair[0].times.map(|times| times.1) <= pair[1].times.map(|times| times.0))
}

/// The footer's keys: those of predlog's files, of all of them together.
fn footer(sources: &[Source], marks: &[(&str, String)]) -> Vec<KeyValue> {
    let mut keys: Vec<KeyValue> = marks.iter().map(|(key, value)| KeyValue::new((*key).to_owned(), value.clone())).collect();
    keys.push(KeyValue::new(VERSION_KEY.to_owned(), env!("CARGO_PKG_VERSION").to_owned()));
    if let Some(name) =
        sources[0].mark(MODEL_NAME_KEY).filter(|name| sources.iter().all(|source| source.mark(MODEL_NAME_KEY) == Some(*name)))
    {
        keys.push(KeyValue::new(MODEL_NAME_KEY.to_owned(), name.to_owned()));
    }
    let mut ranges = WriterRanges::default();
    for source in sources {
        let writers: BTreeMap<String, Vec<(u64, u64)>> =
            source.mark(WRITERS_KEY).and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
        for (writer, list) in &writers {
            list.iter().for_each(|(first, last)| ranges.add_range(writer, *first, *last));
        }
    }
    if ranges.iter().next().is_some() {
        keys.push(KeyValue::new(WRITERS_KEY.to_owned(), ranges.to_json()));
    }
    keys
}

/// The fields of all, those that come first before those that only later ones have.
fn union<'a>(all: impl Iterator<Item = &'a Fields>) -> Result<Vec<FieldRef>, ArrowError> {
    let mut fields: Vec<FieldRef> = Vec::new();
    for field in all.flatten() {
        match fields.iter_mut().find(|known| known.name() == field.name()) {
            None => fields.push(Arc::new(Field::new(field.name(), field.data_type().clone(), true))),
            Some(known) => {
                let kind = union_type(known.data_type(), field.data_type(), field.name())?;
                *known = Arc::new(Field::new(field.name(), kind, true));
            }
        }
    }
    Ok(fields)
}

fn union_type(a: &DataType, b: &DataType, name: &str) -> Result<DataType, ArrowError> {
    match (a, b) {
        (DataType::Struct(a), DataType::Struct(b)) => Ok(DataType::Struct(union([a, b].into_iter())?.into())),
        (DataType::List(a), DataType::List(b)) => {
            let element = union_type(a.data_type(), b.data_type(), name)?;
            Ok(DataType::List(Arc::new(Field::new(a.name(), element, true))))
        }
        _ if a == b => Ok(a.clone()),
        _ => Err(ArrowError::SchemaError(format!("column {name:?} is {a} in one file and {b} in another"))),
    }
}

fn conform(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let columns = schema.fields().iter().map(|field| match batch.column_by_name(field.name()) {
        Some(column) => conform_array(column, field.data_type()),
        None => Ok(new_null_array(field.data_type(), batch.num_rows())),
    });
    RecordBatch::try_new(schema.clone(), columns.collect::<Result<_, _>>()?)
}

/// The array with the fields of `kind`, null where it lacks them.
fn conform_array(array: &ArrayRef, kind: &DataType) -> Result<ArrayRef, ArrowError> {
    match kind {
        _ if array.data_type() == kind => Ok(array.clone()),
        DataType::Struct(fields) => {
            let structs = array.as_struct();
            let columns = fields.iter().map(|field| match structs.column_by_name(field.name()) {
                Some(column) => conform_array(column, field.data_type()),
                None => Ok(new_null_array(field.data_type(), structs.len())),
            });
            let columns = columns.collect::<Result<Vec<_>, _>>()?;
            Ok(Arc::new(StructArray::try_new(fields.clone(), columns, structs.nulls().cloned())?))
        }
        DataType::List(element) => {
            let list: &ListArray = array.as_list();
            let values = conform_array(list.values(), element.data_type())?;
            Ok(Arc::new(ListArray::try_new(element.clone(), list.offsets().clone(), values, list.nulls().cloned())?))
        }
        _ => Err(ArrowError::SchemaError(format!("a column of {} cannot become {kind}", array.data_type()))),
    }
}
