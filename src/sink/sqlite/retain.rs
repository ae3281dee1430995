//! Retention by age and by size, in steps that are short enough for the thread that also writes; and a `-wal` file that stays small.

use super::db::{MAX_BUSY_TIMEOUT, WAL_LIMIT, suffixed};
use super::error::Fault;
use super::{SqliteSettings, rows};
use crate::clock::Now;
use rusqlite::{Connection, params};
use std::time::Duration;

/// Rows that one step deletes at most.
const ROWS: i64 = 10_000;
/// Pages that one step gives back to the file system at most: 16 MiB.
const PAGES: i64 = 4_096;
/// How long a step waits for readers when it wants to cut the `-wal` file.
const CHECKPOINT_WAIT: Duration = Duration::from_millis(100);

/// One step.
pub(super) fn step(conn: &Connection, settings: &SqliteSettings, now: Now) -> Result<(), Fault> {
    let limit = if settings.keep_until_uploaded { rows::uploaded_through(conn)? } else { i64::MAX };
    if let Some(retain) = settings.retain {
        let retain = i64::try_from(retain.as_micros()).unwrap_or(i64::MAX);
        by_age(conn, settings.index_timestamp, now.wall.micros().saturating_sub(retain), limit)?;
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
        conn.prepare_cached(&format!("DELETE FROM predictions WHERE rowid IN ({candidates})"))?
            .execute(params![oldest, limit, ROWS])?;
    }
    Ok(())
}

/// Deletes as many rows as the file is too large by, by the mean size of a row.
fn by_size(conn: &Connection, max_bytes: i64, limit: i64) -> Result<(), Fault> {
    let sizes = Sizes::of(conn)?;
    let used = sizes.page_bytes * (sizes.pages - sizes.free);
    let (first, last): (Option<i64>, Option<i64>) = conn
        .prepare_cached("SELECT (SELECT min(rowid) FROM predictions), (SELECT max(rowid) FROM predictions)")?
        .query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let (true, Some(first), Some(last)) = (used > max_bytes, first, last) else { return Ok(()) };
    // Retention leaves few gaps between rowids, so their span says how many rows there are.
    let mean = (used / (last - first + 1)).max(1);
    let rows = ((used - max_bytes) / mean + 1).min(ROWS);
    conn.prepare_cached(
        "DELETE FROM predictions WHERE rowid IN (SELECT rowid FROM predictions WHERE rowid <= ?1 ORDER BY rowid LIMIT ?2)",
    )?
    .execute(params![limit, rows])?;
    Ok(())
}

struct Sizes {
    page_bytes: i64,
    pages: i64,
    free: i64,
}

impl Sizes {
    fn of(conn: &Connection) -> Result<Self, Fault> {
        let pragma = |sql: &str| conn.prepare_cached(sql)?.query_row([], |row| row.get(0));
        Ok(Sizes {
            page_bytes: pragma("PRAGMA page_size")?,
            pages: pragma("PRAGMA page_count")?,
            free: pragma("PRAGMA freelist_count")?,
        })
    }
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
