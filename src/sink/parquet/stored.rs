//! What the store has already, for replays: read from the segments that wait and from the sealed files' own metadata.

use super::seal::Sealers;
use crate::format::parquet::{MODEL_NAME_KEY, WRITERS_KEY};
use crate::spool::{Spool, SpoolIndex};
use parquet::file::reader::FileReader;
use parquet::file::serialized_reader::SerializedFileReader;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::Path;

/// Files that were uploaded and removed are not seen: whoever replays records that old must know that they were delivered.
pub(super) fn index(dir: &Path, spool: &Spool, sealers: &Sealers) -> io::Result<SpoolIndex> {
    let mut index = SpoolIndex::default();
    // Segments before files: one that is sealed in between is then seen twice, not missed.
    spool.open_segments().for_each(|segment| index.add(&segment));
    sealers.segments().iter().for_each(|segment| index.add(segment));
    add_files(&dir.join("predictions"), &mut index)?;
    add_files(&dir.join("ledger"), &mut index)?;
    Ok(index)
}

fn add_files(dir: &Path, index: &mut SpoolIndex) -> io::Result<()> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        if entry.file_type()?.is_dir() {
            add_files(&entry.path(), index)?;
        } else if name.to_str().is_some_and(|name| crate::format::path::parse_file_name(name).is_some()) {
            add_file(&entry.path(), index)
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
