//! The table `ledger`: entries in, and out again.

use crate::ledger::{Entry, Kind, Stated};
use crate::record::Writer;
use rusqlite::{Connection, Row, params};

/// Inserts an entry within the open transaction.
pub(super) fn insert(conn: &Connection, line: &[u8]) -> rusqlite::Result<()> {
    let Some(stated) = Stated::from_line(line) else {
        tracing::error!(bytes = line.len(), "a line of the ledger is not one that a logger wrote; it is left out");
        return Ok(());
    };
    let Stated { timestamp, writer, seq, entry } = stated;
    let number = |seq: Option<u64>| seq.map(u64::cast_signed);
    conn.prepare_cached(
        "INSERT INTO ledger(timestamp, kind, about, first, last, model_name, hour, rows, reason, writer, seq) \
         VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
    )?
    .execute(params![
        timestamp,
        entry.kind.name(),
        entry.about,
        number(entry.first),
        number(entry.last),
        entry.model_name,
        entry.hour,
        entry.rows.cast_signed(),
        entry.reason,
        writer.to_string(),
        seq.cast_signed()
    ])?;
    Ok(())
}

/// The columns that [`read`] takes.
pub(crate) const COLUMNS: &str = "timestamp, kind, about, first, last, model_name, hour, rows, reason, writer, seq";

/// An entry from [`COLUMNS`]. `None` for a row that no logger wrote.
pub(crate) fn read(row: &Row<'_>) -> rusqlite::Result<Option<Stated>> {
    let number = |at: usize| Ok::<_, rusqlite::Error>(row.get::<_, Option<i64>>(at)?.map(i64::cast_unsigned));
    let Some(kind) = Kind::named(row.get_ref(1)?.as_str().unwrap_or_default()) else { return Ok(None) };
    let entry = Entry {
        kind,
        about: row.get(2)?,
        first: number(3)?,
        last: number(4)?,
        model_name: row.get(5)?,
        hour: row.get(6)?,
        rows: number(7)?.unwrap_or(0),
        reason: row.get(8)?,
    };
    let writer: Result<Writer, String> = row.get::<_, String>(9)?.parse();
    let Ok(writer) = writer else { return Ok(None) };
    Ok(Some(Stated { timestamp: row.get(0)?, writer, seq: number(10)?.unwrap_or(0), entry }))
}

/// Gives `each` the lines of the entries from rowid `first` to `last`, byte for byte as they were stated.
pub(super) fn lines(conn: &Connection, first: i64, last: i64, each: &mut dyn FnMut(&[u8])) -> rusqlite::Result<()> {
    let mut select =
        conn.prepare_cached(&format!("SELECT {COLUMNS} FROM ledger WHERE rowid BETWEEN ?1 AND ?2 ORDER BY timestamp, rowid"))?;
    let mut rows = select.query(params![first, last])?;
    let mut line = Vec::new();
    while let Some(row) = rows.next()? {
        line.clear();
        if let Some(stated) = read(row)? {
            match stated.write_line(&mut line) {
                Ok(()) => each(&line),
                Err(error) => tracing::error!(%error, "an entry of the ledger cannot be written"),
            }
        }
    }
    Ok(())
}
