//! Which records of a process a store has, for whoever would give them to another sink.

use super::error::Fault;
use super::{db, schema};
use crate::record::Writer;
use crate::seqs::SeqRanges;
use crate::sink::SinkError;
use rusqlite::{Connection, OpenFlags, params};
use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;
use uuid::Uuid;

/// The longest wait for a program that recovers the `-wal` file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);

/// What the store of `dir` has of each writer of `process`, also when retention has deleted it since; nothing where there is no store.
///
/// # Errors
/// The file is locked for longer than two seconds. One that cannot be read has nothing that could be relied on: that is a warning, and nothing.
pub(crate) fn stored_of(dir: &Path, process: Uuid) -> Result<HashMap<Writer, SeqRanges>, SinkError> {
    let path = dir.join(db::FILE);
    if !path.exists() {
        return Ok(HashMap::new());
    }
    match read(&path, process) {
        Ok(stored) => Ok(stored),
        Err(fault) if fault.is_busy() => Err(fault.into_sink_error("read what is stored", &path, BUSY_TIMEOUT)),
        Err(fault) => {
            let error = fault.into_sink_error("read what is stored", &path, BUSY_TIMEOUT);
            tracing::warn!(%error, %process, "what this process left is delivered whole: some of it may be in that store already");
            Ok(HashMap::new())
        }
    }
}

fn read(path: &Path, process: Uuid) -> Result<HashMap<Writer, SeqRanges>, Fault> {
    let conn = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    conn.busy_timeout(BUSY_TIMEOUT)?;
    if schema::version(&conn, path)? == 0 {
        return Ok(HashMap::new());
    }
    // A writer's text is `<process>-<lane>`.
    let mut select = conn.prepare("SELECT writer, first, last FROM writers WHERE writer BETWEEN ?1 || '-' AND ?1 || '-~'")?;
    let mut rows = select.query(params![process.as_hyphenated().to_string()])?;
    let mut stored = HashMap::<Writer, SeqRanges>::new();
    while let Some(row) = rows.next()? {
        if let Ok(writer) = row.get_ref(0)?.as_str().unwrap_or_default().parse() {
            let (first, last): (i64, i64) = (row.get(1)?, row.get(2)?);
            stored.entry(writer).or_default().insert(first.cast_unsigned(), last.cast_unsigned());
        }
    }
    Ok(stored)
}
