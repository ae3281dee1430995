//! A Parquet store's history: sealed files.

use super::{Mark, Records, Source, State};
use crate::error::{Error, ErrorKind};
use crate::format::lines::LineReader;
use crate::format::schema::ModelSchema;
use crate::format::store::SchemaStore;
use crate::ledger::LEDGER_MODEL;
use crate::outbox::{Outbox, Relative};
use parquet::errors::ParquetError;
use std::fs::File;
use std::path::Path;

/// Sealed files, each a part, by row.
pub(crate) struct ParquetSource {
    outbox: Outbox,
    schemas: SchemaStore,
    /// In the order in which they are sent, and which of them is at hand.
    files: Vec<Relative>,
    at: usize,
    open: Option<Open>,
    /// Rows that no logger wrote.
    pub(crate) foreign: u64,
}

/// The file at hand.
struct Open {
    lines: LineReader,
    rows: u64,
    line: Vec<u8>,
}

impl ParquetSource {
    /// All sealed files of the store in `dir`: the predictions, and behind them the ledger's entries, which are about them.
    ///
    /// # Errors
    /// The directory cannot be read, or has no such files.
    #[cfg(feature = "cli")]
    pub(crate) fn open(dir: &Path) -> Result<Self, Error> {
        let failed = |error: std::io::Error| {
            Error::new(ErrorKind::Storage, format!("cannot list the files of dir={}: {error}", dir.display()))
        };
        if !dir.join("predictions").is_dir() {
            let message = format!("dir={} has no predictions/: expected the directory of a Parquet store", dir.display());
            return Err(Error::new(ErrorKind::Storage, message));
        }
        let outbox = Outbox::open(dir, true).map_err(failed)?;
        let mut files: Vec<Relative> = outbox.sealed(false).map_err(failed)?.into_iter().map(|entry| entry.relative).collect();
        files.sort_by_key(|file| (file.is_ledger(), file.clone()));
        Ok(Self::of(outbox, files))
    }

    /// These files.
    pub(crate) fn of(outbox: Outbox, files: Vec<Relative>) -> Self {
        let schemas = SchemaStore::new(outbox.root());
        ParquetSource { outbox, schemas, files, at: 0, open: None, foreign: 0 }
    }

    /// Records that `state` does not have.
    ///
    /// # Errors
    /// A file cannot be read.
    #[cfg(feature = "cli")]
    pub(crate) fn left(&self, state: &State) -> Result<u64, Error> {
        use parquet::file::reader::{FileReader, SerializedFileReader};
        let rows = |file: &Relative| {
            let path = self.outbox.path(file);
            if !path.exists() {
                return Ok(0);
            }
            let opened = File::open(&path).map_err(external).and_then(SerializedFileReader::new);
            let reader = opened.map_err(|error| unreadable(&path, &error))?;
            Ok(reader.metadata().file_metadata().num_rows().unsigned_abs().saturating_sub(state.through(file.as_str())))
        };
        self.files.iter().map(rows).sum()
    }

    fn open_file(&self, file: &Relative, sent: u64) -> Result<Open, ParquetError> {
        let skip = usize::try_from(sent).map_err(external)?;
        let opened = File::open(self.outbox.path(file)).map_err(external)?;
        let lines = LineReader::open(opened, skip, |model| self.schema(model))?;
        Ok(Open { lines, rows: sent, line: Vec::new() })
    }

    /// Not every store has its schemas still.
    fn schema(&self, model: &str) -> Option<ModelSchema> {
        if model == LEDGER_MODEL {
            return Some(crate::ledger::schema());
        }
        self.schemas.load(model).ok().filter(|schema| *schema != ModelSchema::default())
    }
}

impl Open {
    /// Whether rows were read.
    fn fill(&mut self, records: &mut Records, foreign: &mut u64) -> Result<bool, ParquetError> {
        let before = self.rows;
        while !records.is_full() && self.lines.next_line(&mut self.line)? {
            *foreign += u64::from(!records.push(&self.line));
            self.rows += 1;
        }
        Ok(self.rows > before)
    }
}

impl Source for ParquetSource {
    fn next(&mut self, state: &State, records: &mut Records) -> Result<Option<Mark>, Error> {
        while let Some(file) = self.files.get(self.at) {
            let path = self.outbox.path(file);
            let explain = |error| unreadable(&path, &error);
            // Retention may take files meanwhile.
            if self.open.is_none() && !path.exists() {
                self.at += 1;
                continue;
            }
            let mut open = match self.open.take() {
                Some(open) => open,
                None => self.open_file(file, state.through(file.as_str())).map_err(explain)?,
            };
            if open.fill(records, &mut self.foreign).map_err(explain)? {
                let mark = Mark { part: file.as_str().to_owned(), through: open.rows };
                self.open = Some(open);
                return Ok(Some(mark));
            }
            self.at += 1;
        }
        Ok(None)
    }
}

fn external(error: impl std::error::Error + Send + Sync + 'static) -> ParquetError {
    ParquetError::External(Box::new(error))
}

fn unreadable(path: &Path, error: &ParquetError) -> Error {
    Error::new(ErrorKind::Storage, format!("path={} cannot be read: {error}", path.display()))
}
