//! What retention has deleted of the Parquet store: `<dir>/expired.json`, so that an audit does not take it for missing.
//!
//! A SQLite store has the same in its tables `expired` and `expired_rows`.

use crate::format::parquet::{MODEL_NAME_KEY, WRITERS_KEY};
use crate::seqs::SeqRanges;
use arrow_array::cast::AsArray;
use arrow_array::types::TimestampMicrosecondType;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::errors::ParquetError;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::Path;

const FILE: &str = "expired.json";
const HOUR_MICROS: i64 = 3_600_000_000;

/// All that was deleted so far: ranges and counts, never single records.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Expired {
    /// Seqs by writer, those of the ledger's entries too. Where a file named more ranges than it may, their smallest gaps are closed.
    pub(crate) writers: BTreeMap<String, Vec<(u64, u64)>>,
    /// Records by model and by the hour of their timestamps, hours since 1970. The ledger's entries are not counted.
    pub(crate) hours: BTreeMap<String, BTreeMap<i64, u64>>,
}

impl Expired {
    /// What was noted in `dir`; nothing where there is no note.
    ///
    /// # Errors
    /// The note cannot be read, or is none.
    pub(crate) fn load(dir: &Path) -> io::Result<Self> {
        match std::fs::read(dir.join(FILE)) {
            Ok(json) => Ok(serde_json::from_slice(&json)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Expired::default()),
            Err(error) => Err(error),
        }
    }

    /// Replaces the note.
    ///
    /// # Errors
    /// It cannot be written; the old one stays.
    pub(crate) fn save(&self, dir: &Path) -> io::Result<()> {
        let unnamed = dir.join(".expired.json.new");
        std::fs::write(&unnamed, serde_json::to_vec(self)?)?;
        File::open(&unnamed)?.sync_all()?;
        std::fs::rename(unnamed, dir.join(FILE))
    }

    /// Adds a file that is to be deleted. `ledger`: it holds entries, no records.
    ///
    /// # Errors
    /// The file cannot be read, and nothing was added.
    pub(crate) fn add(&mut self, path: &Path, ledger: bool) -> Result<(), ParquetError> {
        let file = File::open(path).map_err(|error| ParquetError::External(Box::new(error)))?;
        let builder = ParquetRecordBatchReaderBuilder::try_new(file)?;
        let pairs = builder.metadata().file_metadata().key_value_metadata().cloned().unwrap_or_default();
        let value = |key: &str| {
            let found = pairs.iter().find(|pair| pair.key == key).and_then(|pair| pair.value.clone());
            found.ok_or_else(|| ParquetError::General(format!("its metadata lacks {key}")))
        };
        let (model_name, writers) = (value(MODEL_NAME_KEY)?, value(WRITERS_KEY)?);
        let writers: BTreeMap<String, Vec<(u64, u64)>> =
            serde_json::from_str(&writers).map_err(|error| ParquetError::External(Box::new(error)))?;
        let mut hours: BTreeMap<i64, u64> = BTreeMap::new();
        if !ledger {
            let mask = ProjectionMask::columns(builder.parquet_schema(), ["timestamp"]);
            for batch in builder.with_projection(mask).build()? {
                let batch = batch?;
                let times = batch.column(0).as_primitive_opt::<TimestampMicrosecondType>();
                let times = times.ok_or_else(|| ParquetError::General("its column timestamp is of another type".to_owned()))?;
                times.values().iter().for_each(|time| *hours.entry(time.div_euclid(HOUR_MICROS)).or_default() += 1);
            }
        }
        for (writer, added) in writers {
            let known = self.writers.entry(writer).or_default();
            let mut ranges = SeqRanges::new();
            ranges.extend(known.drain(..).chain(added));
            known.extend(ranges.iter());
        }
        if !ledger {
            let known = self.hours.entry(model_name).or_default();
            hours.into_iter().for_each(|(hour, rows)| *known.entry(hour).or_default() += rows);
        }
        Ok(())
    }
}
