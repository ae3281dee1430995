//! What the store has already, for replays: read from the segments that wait and from the sealed files' own metadata.

use super::seal::Sealers;
use crate::format::parquet::{MODEL_NAME_KEY, WRITERS_KEY};
use crate::format::path::{LEDGER, model_directory};
use crate::spool::{Spool, SpoolIndex};
use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::errors::ParquetError;
use parquet::file::reader::FileReader;
use parquet::file::serialized_reader::SerializedFileReader;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::Path;
use std::time::SystemTime;

/// Files that were uploaded and removed are not seen: whoever replays records that old must know that they were delivered.
pub(super) fn index(dir: &Path, spool: &Spool, sealers: &Sealers) -> io::Result<SpoolIndex> {
    let mut index = SpoolIndex::default();
    // Segments before files: one that is sealed in between is then seen twice, not missed.
    spool.open_segments().for_each(|segment| index.add(&segment));
    sealers.segments().iter().for_each(|segment| index.add(segment));
    add_files(&dir.join("predictions"), &mut index)?;
    add_files(&dir.join(LEDGER), &mut index)?;
    Ok(index)
}

/// What sealed files of `dir` hold of a model, but only those that are not older than `since`. Read from their rows: the ranges in a file's metadata may have
/// their gaps closed.
pub(crate) fn sealed_since(dir: &Path, model_name: &str, since: SystemTime) -> io::Result<SpoolIndex> {
    let mut index = SpoolIndex::default();
    let files = dir.join(model_directory(model_name));
    each_file(&files, &mut |path| {
        if std::fs::metadata(path)?.modified()? < since {
            return Ok(());
        }
        add_rows(path, model_name, &mut index).map_err(io::Error::other)
    })?;
    Ok(index)
}

fn add_rows(path: &Path, model_name: &str, index: &mut SpoolIndex) -> Result<(), ParquetError> {
    let file = File::open(path).map_err(|error| ParquetError::External(Box::new(error)))?;
    let builder = ParquetRecordBatchReaderBuilder::try_new(file)?;
    let mask = ProjectionMask::columns(builder.parquet_schema(), ["writer", "seq"]);
    for batch in builder.with_projection(mask).build()? {
        let batch = batch?;
        let writers = batch.column_by_name("writer").and_then(|array| array.as_string_opt::<i32>());
        let seqs = batch.column_by_name("seq").and_then(|array| array.as_primitive_opt::<Int64Type>());
        let (Some(writers), Some(seqs)) = (writers, seqs) else { continue };
        for (writer, seq) in writers.iter().zip(seqs.iter()) {
            if let (Some(Ok(writer)), Some(Ok(seq))) = (writer.map(str::parse), seq.map(u64::try_from)) {
                index.add_range(model_name, writer, seq, seq);
            }
        }
    }
    Ok(())
}

fn add_files(dir: &Path, index: &mut SpoolIndex) -> io::Result<()> {
    each_file(dir, &mut |path| add_file(path, index))
}

/// Each sealed file below `dir`; none when it is not there.
fn each_file(dir: &Path, each: &mut dyn FnMut(&Path) -> io::Result<()>) -> io::Result<()> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        if entry.file_type()?.is_dir() {
            each_file(&entry.path(), each)?;
        } else if name.to_str().is_some_and(|name| crate::format::path::parse_file_name(name).is_some()) {
            each(&entry.path())
                .map_err(|error| io::Error::new(error.kind(), format!("path={}: {error}", entry.path().display())))?;
        }
    }
    Ok(())
}

fn add_file(path: &Path, index: &mut SpoolIndex) -> io::Result<()> {
    let file = SerializedFileReader::new(File::open(path)?).map_err(io::Error::other)?;
    let pairs = file.metadata().file_metadata().key_value_metadata().cloned().unwrap_or_default();
    let value = |key: &str| pairs.iter().find(|pair| pair.key == key).and_then(|pair| pair.value.clone());
    let (Some(model_name), Some(writers)) = (value(MODEL_NAME_KEY), value(WRITERS_KEY)) else {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("its metadata lacks {MODEL_NAME_KEY} or {WRITERS_KEY}")));
    };
    let writers: BTreeMap<String, Vec<(u64, u64)>> = serde_json::from_str(&writers)?;
    for (writer, ranges) in writers {
        let writer = writer.parse().map_err(|why: String| io::Error::new(io::ErrorKind::InvalidData, why))?;
        ranges.into_iter().for_each(|(first, last)| index.add_range(&model_name, writer, first, last));
    }
    Ok(())
}
