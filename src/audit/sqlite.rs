//! The sqlite store: its tables `ledger`, `predictions` and `expired`.

use super::tally::{HOUR, Tally};
use super::{Run, unreadable};
use crate::error::Error;
use crate::ledger::is_ledger;
use crate::record::Writer;
use crate::sink::sqlite::{LEDGER_COLUMNS, entry_of};
use rusqlite::{Connection, OpenFlags, Row};
use std::path::Path;

/// Rows after which the progress is told.
const STEP: u64 = 65_536;

impl Run<'_> {
    /// The ledger's entries.
    pub(super) fn database_entries(&mut self, path: &Path) -> Result<(), Error> {
        let read = open(path).and_then(|conn| {
            let select = format!("SELECT {LEDGER_COLUMNS} FROM ledger ORDER BY rowid");
            each_row(&conn, "ledger", &select, &mut |row| {
                if let Some(stated) = entry_of(row)? {
                    self.book.add(stated, &mut self.tally.cells);
                }
                Ok(())
            })
        });
        read.map_err(|error| unreadable(path, &error))
    }

    /// All rows of the table, and after them what retention has deleted: what it deletes meanwhile is then in either.
    pub(super) fn database_rows(&mut self, path: &Path) -> Result<(), Error> {
        self.select_rows(path, "SELECT writer, seq, timestamp, model_name FROM predictions", false)?;
        let read = open(path).and_then(|conn| {
            each_row(&conn, "expired", "SELECT writer, first, last FROM expired", &mut |row| {
                let range = (row.get::<_, i64>(1)?.cast_unsigned(), row.get::<_, i64>(2)?.cast_unsigned());
                match row.get_ref(0)?.as_str().unwrap_or_default().parse::<Writer>() {
                    Ok(writer) if is_ledger(writer) => self.book.expired(writer, range.0, range.1),
                    Ok(writer) => self.tally.expired(writer, range.0, range.1),
                    // Not ours.
                    Err(_) => {}
                }
                Ok(())
            })?;
            each_row(&conn, "expired_rows", "SELECT model_name, hour, rows FROM expired_rows", &mut |row| {
                let model = self.tally.cells.model(row.get_ref(0)?.as_str().unwrap_or_default());
                let place = self.tally.cells.at(model, row.get(1)?);
                self.tally.cells.of(place).expired += row.get::<_, i64>(2)?.cast_unsigned();
                Ok(())
            })
        });
        read.map_err(|error| unreadable(path, &error))
    }

    /// Rows that wait for their upload.
    pub(super) fn rows_to_upload(&mut self, path: &Path) -> Result<(), Error> {
        let select = "SELECT writer, seq, timestamp, model_name FROM predictions WHERE rowid > \
             (SELECT coalesce((SELECT min(first_rowid) - 1 FROM uploads WHERE state = 'planned'), (SELECT max(last_rowid) FROM uploads), 0))";
        self.select_rows(path, select, true)
    }

    fn select_rows(&mut self, path: &Path, select: &str, pending: bool) -> Result<(), Error> {
        let mut last = Last::default();
        let read = open(path).and_then(|conn| {
            each_row(&conn, "predictions", select, &mut |row| {
                last.take(row, &mut self.tally, pending)?;
                if self.tally.rows.is_multiple_of(STEP) {
                    self.looked_at();
                }
                Ok(())
            })
        });
        read.map_err(|error| unreadable(path, &error))
    }
}

fn open(path: &Path) -> rusqlite::Result<Connection> {
    let conn = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    conn.busy_timeout(std::time::Duration::from_secs(30))?;
    Ok(conn)
}

/// Each row of `select`; none where an older version has not made the table.
fn each_row(
    conn: &Connection,
    table: &str,
    select: &str,
    each: &mut dyn FnMut(&Row<'_>) -> rusqlite::Result<()>,
) -> rusqlite::Result<()> {
    let exists: bool =
        conn.query_row("SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = ?1", [table], |row| row.get(0))?;
    if exists {
        let mut select = conn.prepare(select)?;
        let mut rows = select.query([])?;
        while let Some(row) = rows.next()? {
            each(row)?;
        }
    }
    Ok(())
}

/// What the last row was of: the next one mostly is of the same.
#[derive(Default)]
struct Last {
    /// By the text of the writer.
    writers: Vec<(Vec<u8>, usize)>,
    model: Option<(Vec<u8>, i64)>,
}

impl Last {
    fn take(&mut self, row: &Row<'_>, tally: &mut Tally, pending: bool) -> rusqlite::Result<()> {
        let text = row.get_ref(0)?.as_bytes_or_null().ok().flatten().unwrap_or_default();
        let (seq, timestamp) = (row.get::<_, Option<i64>>(1)?, row.get::<_, i64>(2)?);
        let (Some(number), Some(seq)) = (self.writer(text, tally), seq) else {
            tally.foreign += 1;
            return Ok(());
        };
        let name = row.get_ref(3)?.as_bytes().unwrap_or_default();
        let model = match &self.model {
            Some((last, model)) if last == name => *model,
            _ => {
                let model = tally.cells.model(&String::from_utf8_lossy(name));
                self.model = Some((name.to_vec(), model));
                model
            }
        };
        let place = tally.cells.at(model, timestamp.div_euclid(HOUR));
        if pending {
            tally.pending(number, seq.cast_unsigned(), timestamp, place);
        } else {
            tally.row(number, seq.cast_unsigned(), timestamp, place);
        }
        Ok(())
    }

    fn writer(&mut self, text: &[u8], tally: &mut Tally) -> Option<usize> {
        /// The lanes of a process take turns.
        const KEPT: usize = 64;
        if let Some((_, number)) = self.writers.iter().find(|(known, _)| known == text) {
            return Some(*number);
        }
        let number = tally.writer(std::str::from_utf8(text).ok()?.parse().ok()?);
        if self.writers.len() == KEPT {
            self.writers.clear();
        }
        self.writers.push((text.to_vec(), number));
        Some(number)
    }
}
