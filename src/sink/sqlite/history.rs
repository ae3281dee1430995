//! All rows of a database file, for whoever sends them elsewhere. It is only read.

use super::error::Fault;
use super::line::KEYS;
use super::{NAME, ledger, rows, schema};
use crate::sink::{SinkError, SinkErrorKind};
use rusqlite::{Connection, OpenFlags, params};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The longest wait for a program that writes.
const BUSY_TIMEOUT: Duration = Duration::from_secs(30);

/// A table of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Records {
    /// The predictions.
    Predictions,
    /// The ledger's entries.
    Ledger,
}

impl Records {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Records::Predictions => "predictions",
            Records::Ledger => "ledger",
        }
    }
}

/// A database file, whatever its name.
#[derive(Debug)]
pub(crate) struct SqliteHistory {
    conn: Connection,
    path: PathBuf,
}

impl SqliteHistory {
    /// # Errors
    /// The file is missing, not one of ours, or of another version.
    pub(crate) fn open(path: &Path) -> Result<Self, SinkError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let opened = Connection::open_with_flags(path, flags).map_err(Fault::from).and_then(|conn| {
            conn.busy_timeout(BUSY_TIMEOUT)?;
            Ok((schema::version(&conn, path)?, conn))
        });
        let (version, conn) = opened.map_err(|fault| fault.into_sink_error("open", path, BUSY_TIMEOUT))?;
        if version < schema::VERSION {
            let (path, wanted) = (path.display(), schema::VERSION);
            let message = format!(
                "path={path} has schema version={version}, expected {wanted}; open it once with this version: predlog serve --dir <its directory>"
            );
            return Err(SinkError::new(NAME, SinkErrorKind::Unavailable, message));
        }
        Ok(SqliteHistory { conn, path: path.to_owned() })
    }

    /// How many rows there are behind a rowid.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(crate) fn count(&self, table: Records, after: i64) -> Result<u64, SinkError> {
        let count = format!("SELECT count(*) FROM {} WHERE rowid > ?1", table.name());
        let rows: rusqlite::Result<i64> = self.conn.query_row(&count, [after], |row| row.get(0));
        rows.map(i64::cast_unsigned).map_err(|error| self.unreadable(error))
    }

    /// Gives `each` the lines of the rows behind the rowid `after`, byte for byte as they were logged, in the order of arrival, until it answers
    /// with `false`. Returns the rowid of the last.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(crate) fn lines(
        &self,
        table: Records,
        after: i64,
        max_rows: u32,
        each: &mut dyn FnMut(&[u8]) -> bool,
    ) -> Result<Option<i64>, SinkError> {
        let read = match table {
            Records::Predictions => self.predictions(after, max_rows, each),
            Records::Ledger => self.entries(after, max_rows, each),
        };
        read.map_err(|error| self.unreadable(error))
    }

    fn predictions(&self, after: i64, max_rows: u32, each: &mut dyn FnMut(&[u8]) -> bool) -> rusqlite::Result<Option<i64>> {
        let columns = KEYS.join(", ");
        let mut select = self.conn.prepare_cached(&format!(
            "SELECT timestamp, {columns}, writer, seq, extra, rowid FROM predictions WHERE rowid > ?1 ORDER BY rowid LIMIT ?2"
        ))?;
        let mut found = select.query(params![after, max_rows])?;
        let (mut line, mut last) = (Vec::new(), None);
        while let Some(row) = found.next()? {
            line.clear();
            rows::write_line(&mut line, row)?;
            last = Some(row.get("rowid")?);
            if !each(&line) {
                break;
            }
        }
        Ok(last)
    }

    fn entries(&self, after: i64, max_rows: u32, each: &mut dyn FnMut(&[u8]) -> bool) -> rusqlite::Result<Option<i64>> {
        let last: Option<i64> = self
            .conn
            .prepare_cached("SELECT max(rowid) FROM (SELECT rowid FROM ledger WHERE rowid > ?1 ORDER BY rowid LIMIT ?2)")?
            .query_row(params![after, max_rows], |row| row.get(0))?;
        if let Some(last) = last {
            // Entries are small: a batch of them never is full.
            ledger::lines(&self.conn, after + 1, last, &mut |line| {
                let _ = each(line);
            })?;
        }
        Ok(last)
    }

    fn unreadable(&self, error: rusqlite::Error) -> SinkError {
        Fault::from(error).into_sink_error("read", &self.path, BUSY_TIMEOUT)
    }
}
