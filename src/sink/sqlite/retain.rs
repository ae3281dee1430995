//! Retention by age and by size, in steps that are short enough for the thread that also writes; and a `-wal` file that stays small.

use super::db::{MAX_BUSY_TIMEOUT, WAL_LIMIT, suffixed};
use super::error::Fault;
use super::ranges::{Table, add_range};
use super::sizes::{Sizes, Span};
use super::{SqliteSettings, rows};
use crate::clock::Now;
use crate::record::Writer;
use crate::seqs::SeqRanges;
use rusqlite::{Connection, ToSql, Transaction, TransactionBehavior, params};
use std::collections::HashMap;
use std::time::Duration;

/// Rows that one step deletes at most.
const ROWS: i64 = 10_000;
/// Pages that one step gives back to the file system at most: 16 MiB.
const PAGES: i64 = 4_096;
const HOUR_MICROS: i64 = 3_600_000_000;
/// How long a step waits for readers when it wants to cut the `-wal` file.
const CHECKPOINT_WAIT: Duration = Duration::from_millis(100);

/// One step.
pub(super) fn step(conn: &Connection, settings: &SqliteSettings, now: Now) -> Result<(), Fault> {
    let limit = if settings.uploads.is_some() { rows::uploaded_through(conn)? } else { i64::MAX };
    if let Some(retain) = settings.retain {
        let retain = i64::try_from(retain.as_micros()).unwrap_or(i64::MAX);
        by_age(conn, settings.index_timestamp, now.wall.micros().saturating_sub(retain), limit)?;
        statements(conn, now.wall.micros().saturating_sub(retain.saturating_mul(2)), settings.uploads.is_some())?;
    }
    let max_bytes = settings.retain_bytes.map(|bytes| i64::try_from(bytes.as_u64()).unwrap_or(i64::MAX));
    if let Some(max_bytes) = max_bytes {
        by_size(conn, max_bytes, limit)?;
    }
    give_back(conn, max_bytes.unwrap_or(i64::MAX))?;
    checkpoint(conn, settings)
}

fn by_age(conn: &Connection, indexed: bool, oldest: i64, limit: i64) -> Result<(), Fault> {
    let candidates = if indexed {
        "SELECT rowid FROM predictions WHERE timestamp < ?1 AND rowid <= ?2 ORDER BY timestamp LIMIT ?3"
    } else {
        "SELECT rowid FROM (SELECT rowid, timestamp FROM predictions WHERE rowid <= ?2 ORDER BY rowid LIMIT ?3) WHERE timestamp < ?1"
    };
    // Asked first, so that nothing to do takes no lock.
    let any: bool = conn
        .prepare_cached(&format!("SELECT EXISTS({candidates})"))?
        .query_row(params![oldest, limit, ROWS], |row| row.get(0))?;
    if any {
        expire(conn, candidates, params![oldest, limit, ROWS])?;
    }
    Ok(())
}

/// The ledger's entries stay twice as long as the records that they are about.
fn statements(conn: &Connection, oldest: i64, uploads: bool) -> Result<(), Fault> {
    let limit = if uploads { rows::entries_uploaded_through(conn)? } else { i64::MAX };
    let candidates =
        "SELECT rowid FROM (SELECT rowid, timestamp FROM ledger WHERE rowid <= ?2 ORDER BY rowid LIMIT ?3) WHERE timestamp < ?1";
    let any: bool = conn
        .prepare_cached(&format!("SELECT EXISTS({candidates})"))?
        .query_row(params![oldest, limit, ROWS], |row| row.get(0))?;
    if !any {
        return Ok(());
    }
    let transaction = Transaction::new_unchecked(conn, TransactionBehavior::Immediate)?;
    let mut gone: Vec<(Writer, u64)> = Vec::new();
    {
        let mut select = conn.prepare_cached(&format!("SELECT writer, seq FROM ledger WHERE rowid IN ({candidates})"))?;
        let mut entries = select.query(params![oldest, limit, ROWS])?;
        while let Some(entry) = entries.next()? {
            if let Ok(writer) = entry.get_ref(0)?.as_str().unwrap_or_default().parse() {
                gone.push((writer, entry.get::<_, i64>(1)?.cast_unsigned()));
            }
        }
    }
    conn.prepare_cached(&format!("DELETE FROM ledger WHERE rowid IN ({candidates})"))?.execute(params![oldest, limit, ROWS])?;
    gone.into_iter().try_for_each(|(writer, seq)| add_range(conn, Table::Expired, writer, seq, seq))?;
    Ok(transaction.commit()?)
}

/// Deletes as many rows as the file is too large by, by the mean size of a row.
fn by_size(conn: &Connection, max_bytes: i64, limit: i64) -> Result<(), Fault> {
    let used = Sizes::of(conn)?.used();
    let (true, Some(span)) = (used > max_bytes, Span::of(conn)?) else { return Ok(()) };
    let mean = (used / span.rows()).max(1);
    let rows = ((used - max_bytes) / mean + 1).min(ROWS);
    expire(conn, "SELECT rowid FROM predictions WHERE rowid <= ?1 ORDER BY rowid LIMIT ?2", params![limit, rows])
}

/// Deletes the rows that `candidates` selects, and notes in the same transaction which these were: an audit must not take them for missing.
fn expire(conn: &Connection, candidates: &str, params: &[&dyn ToSql]) -> Result<(), Fault> {
    let transaction = Transaction::new_unchecked(conn, TransactionBehavior::Immediate)?;
    let mut seqs: HashMap<Writer, SeqRanges> = HashMap::new();
    let mut hours: HashMap<(String, i64), i64> = HashMap::new();
    {
        let select = format!("SELECT writer, seq, model_name, timestamp FROM predictions WHERE rowid IN ({candidates})");
        let mut select = conn.prepare_cached(&select)?;
        let mut rows = select.query(params)?;
        while let Some(row) = rows.next()? {
            let writer = row.get_ref(0)?.as_str_or_null().ok().flatten().and_then(|writer| writer.parse().ok());
            let (Some(writer), Some(seq)) = (writer, row.get::<_, Option<i64>>(1)?) else { continue };
            seqs.entry(writer).or_default().insert(seq.cast_unsigned(), seq.cast_unsigned());
            *hours.entry((row.get(2)?, row.get::<_, i64>(3)?.div_euclid(HOUR_MICROS))).or_default() += 1;
        }
    }
    conn.prepare_cached(&format!("DELETE FROM predictions WHERE rowid IN ({candidates})"))?.execute(params)?;
    for (writer, ranges) in seqs {
        ranges.iter().try_for_each(|(first, last)| add_range(conn, Table::Expired, writer, first, last))?;
    }
    let mut count = conn.prepare_cached(
        "INSERT INTO expired_rows(model_name, hour, rows) VALUES(?1, ?2, ?3) \
         ON CONFLICT(model_name, hour) DO UPDATE SET rows = rows + excluded.rows",
    )?;
    for ((model_name, hour), rows) in hours {
        count.execute(params![model_name, hour, rows])?;
    }
    Ok(transaction.commit()?)
}

/// Makes the file smaller where it is too large, or where much of it is free; a little free space is left for the rows to come.
fn give_back(conn: &Connection, max_bytes: i64) -> Result<(), Fault> {
    let sizes = Sizes::of(conn)?;
    let excess = (sizes.pages * sizes.page_bytes - max_bytes).max(0) / sizes.page_bytes
        + i64::from(sizes.pages * sizes.page_bytes > max_bytes);
    let sparse = if sizes.free > sizes.pages / 4 { sizes.free - sizes.pages / 8 } else { 0 };
    let pages = excess.max(sparse).min(sizes.free).min(PAGES);
    if pages > 0 {
        let mut vacuum = conn.prepare(&format!("PRAGMA incremental_vacuum({pages})"))?;
        let mut freed = vacuum.query([])?;
        while freed.next()?.is_some() {}
    }
    Ok(())
}

/// Commits checkpoint as they go. When a reader was always in the way and the `-wal` file has grown, waits for readers a moment and cuts it.
fn checkpoint(conn: &Connection, settings: &SqliteSettings) -> Result<(), Fault> {
    let wal = suffixed(&settings.path(), "-wal");
    let bytes = wal.metadata().map_or(0, |meta| meta.len());
    if bytes <= WAL_LIMIT {
        return Ok(());
    }
    conn.busy_timeout(CHECKPOINT_WAIT.min(settings.busy_timeout))?;
    let busy: rusqlite::Result<bool> = conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0));
    conn.busy_timeout(settings.busy_timeout.min(MAX_BUSY_TIMEOUT))?;
    if busy? {
        tracing::debug!(path = %wal.display(), bytes, "a reader keeps the -wal file from being cut");
    }
    Ok(())
}
