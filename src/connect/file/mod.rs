//! Files in the making.

mod arrow;
mod lines;
mod parquet;

pub(super) use lines::Lines;
pub(super) use parquet::Parquet;

use super::config::{Codec, FileFormat};
use super::record::Part;
use crate::archive::encoder::{Content, EncodeError};
use std::path::PathBuf;

/// A file of rows.
pub(super) enum File {
    Parquet(Box<Parquet>),
    Lines(Lines),
}

/// What became of a row.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Added {
    Yes,
    /// The file's columns are settled, and cannot hold it: it needs another file.
    OtherColumns,
    /// It is no row of any such file.
    No(String),
}

impl File {
    pub fn new(format: &FileFormat, path: PathBuf) -> File {
        match format {
            FileFormat::Parquet(codec) => File::Parquet(Box::new(Parquet::new(*codec, path))),
            FileFormat::Json { gzip } => File::Lines(Lines::new(None, *gzip, path)),
            FileFormat::ByteArray { separator, gzip, .. } => File::Lines(Lines::new(Some(separator.clone()), *gzip, path)),
        }
    }

    /// Adds a value that took so many bytes in its message.
    pub fn add(&mut self, value: Part, bytes: usize) -> Result<Added, EncodeError> {
        match self {
            File::Parquet(file) => file.add(value, bytes),
            File::Lines(file) => file.add(&value),
        }
    }

    pub fn memory(&self) -> usize {
        match self {
            File::Parquet(file) => file.memory(),
            File::Lines(file) => file.memory(),
        }
    }

    pub fn finish(self) -> Result<Content, EncodeError> {
        match self {
            File::Parquet(file) => file.finish(),
            File::Lines(file) => file.finish(),
        }
    }
}

/// How objects' names end.
pub(super) fn extension(format: &FileFormat) -> String {
    let packed = |gzip: &Option<u32>| if gzip.is_some() { ".gz" } else { "" };
    match format {
        FileFormat::Parquet(codec) => {
            let codec = match codec {
                Codec::None => "",
                Codec::Snappy => ".snappy",
                Codec::Gzip => ".gz",
                Codec::Lz4 => ".lz4",
                Codec::Zstd => ".zstd",
            };
            format!("{codec}.parquet")
        }
        FileFormat::Json { gzip } => format!(".json{}", packed(gzip)),
        FileFormat::ByteArray { extension, gzip, .. } => format!("{extension}{}", packed(gzip)),
    }
}

fn failed(path: &std::path::Path, error: &dyn std::fmt::Display) -> EncodeError {
    EncodeError(format!("path={}: {error}", path.display()))
}

#[cfg(test)]
mod tests;
