//! The tables, and how an older file becomes the current one.

use super::error::Fault;
use super::{NAME, SqliteSettings};
use crate::sink::{SinkError, SinkErrorKind};
use rusqlite::{Connection, params};
use std::path::Path;

/// What `PRAGMA application_id` says of our files: `prlg`.
const APPLICATION_ID: i64 = 0x7072_6c67;

/// Entry `n` brings a file of version `n` to version `n + 1`; `PRAGMA user_version` holds the file's.
///
/// `AUTOINCREMENT`, because a rowid must never be given twice: uploads are planned by rowid, and whoever deletes the newest rows would
/// otherwise have the next ones taken for uploaded.
const MIGRATIONS: [&str; 2] = ["
    CREATE TABLE predictions(
        rowid INTEGER PRIMARY KEY AUTOINCREMENT,
        timestamp INTEGER NOT NULL, -- UTC microseconds since 1970
        model_name TEXT NOT NULL,
        id TEXT,
        model_version TEXT,
        inputs TEXT,                -- JSON
        outputs TEXT,               -- JSON
        request_id TEXT,
        row_index INTEGER,
        status_code INTEGER,
        error TEXT,
        latency_ms REAL,
        sample_weight REAL,
        metadata TEXT,              -- JSON
        traceparent TEXT,
        writer TEXT,
        seq INTEGER,
        extra TEXT                  -- JSON: the fields that the columns do not hold to the byte; nearly always NULL
    );
    -- Which seqs of each writer are stored, both ends included.
    CREATE TABLE writers(writer TEXT NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL, PRIMARY KEY(writer, first)) WITHOUT ROWID;
    -- What was uploaded: rowids without a gap, first to last.
    CREATE TABLE uploads(
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        first_rowid INTEGER NOT NULL,
        last_rowid INTEGER NOT NULL,
        state TEXT NOT NULL CHECK(state IN ('planned', 'done')),
        planned_at INTEGER NOT NULL, -- UTC microseconds since 1970
        done_at INTEGER
    );
    -- The views, and the columns that each lifts from inputs and outputs. key is a JSON string, or $ for a value that is not an object.
    CREATE TABLE models(model_name TEXT PRIMARY KEY, view_name TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE features(
        model_name TEXT NOT NULL,
        field TEXT NOT NULL CHECK(field IN ('inputs', 'outputs')),
        position INTEGER NOT NULL,
        key TEXT NOT NULL,
        column_name TEXT NOT NULL,
        PRIMARY KEY(model_name, field, position)
    ) WITHOUT ROWID;
    CREATE TABLE properties(name TEXT PRIMARY KEY, value) WITHOUT ROWID;
", "
    -- What each process has stated of its records; see ledger::Entry.
    CREATE TABLE ledger(
        rowid INTEGER PRIMARY KEY AUTOINCREMENT,
        timestamp INTEGER NOT NULL, -- when it was stated: UTC microseconds since 1970
        kind TEXT NOT NULL,         -- accepted, dropped, end
        about TEXT,                 -- the writer of the records
        first INTEGER,
        last INTEGER,
        model_name TEXT,
        hour TEXT,                  -- of the records' timestamps, UTC: 2026-11-23T03:00:00Z
        rows INTEGER NOT NULL,
        reason TEXT,
        writer TEXT NOT NULL,       -- who states
        seq INTEGER NOT NULL
    );
    -- What retention has deleted: which seqs of each writer, and how many of each model and hour (hours since 1970).
    CREATE TABLE expired(writer TEXT NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL, PRIMARY KEY(writer, first)) WITHOUT ROWID;
    CREATE TABLE expired_rows(model_name TEXT NOT NULL, hour INTEGER NOT NULL, rows INTEGER NOT NULL, PRIMARY KEY(model_name, hour)) WITHOUT ROWID;
    -- What was uploaded of the ledger goes with the plan of the rows.
    ALTER TABLE uploads ADD COLUMN ledger_first INTEGER NOT NULL DEFAULT 1;
    ALTER TABLE uploads ADD COLUMN ledger_last INTEGER NOT NULL DEFAULT 0;
"];

/// The version that this program writes.
pub(super) const VERSION: i64 = MIGRATIONS.len() as i64;

/// Brings the file to [`VERSION`], and its index to what the settings say.
pub(super) fn prepare(conn: &Connection, path: &Path, settings: &SqliteSettings) -> Result<(), Fault> {
    if version(conn, path)? < VERSION {
        conn.execute_batch("BEGIN IMMEDIATE")?;
        // Another process may have done it while this one waited for the lock.
        let from = version(conn, path)?;
        for (at, migration) in MIGRATIONS.iter().enumerate().skip(usize::try_from(from).unwrap_or(0)) {
            conn.execute_batch(migration)?;
            if at == 0 {
                let store = crate::unique::uuid().to_string();
                conn.execute("INSERT INTO properties VALUES('store_id', ?1)", params![store])?;
                conn.pragma_update(None, "application_id", APPLICATION_ID)?;
            }
        }
        conn.pragma_update(None, "user_version", VERSION)?;
        conn.execute_batch("COMMIT")?;
    }
    let indexed: bool =
        conn.query_row("SELECT count(*) FROM sqlite_master WHERE name = 'predictions_timestamp'", [], |row| row.get(0))?;
    match (settings.index_timestamp, indexed) {
        (true, false) => conn.execute_batch("CREATE INDEX IF NOT EXISTS predictions_timestamp ON predictions(timestamp)")?,
        (false, true) => conn.execute_batch("DROP INDEX IF EXISTS predictions_timestamp")?,
        _ => {}
    }
    Ok(())
}

/// The file's version, where it is one that we can work with.
pub(super) fn version(conn: &Connection, path: &Path) -> Result<i64, Fault> {
    let application: i64 = conn.query_row("PRAGMA application_id", [], |row| row.get(0))?;
    let version: i64 = conn.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    let tables: i64 = conn.query_row("SELECT count(*) FROM sqlite_master", [], |row| row.get(0))?;
    let refuse = |message: String| Err(Fault::Refused(SinkError::new(NAME, SinkErrorKind::Unavailable, message)));
    if application != APPLICATION_ID && (application != 0 || version != 0 || tables != 0) {
        return refuse(format!(
            "path={} is another program's database (application_id={application}, expected {APPLICATION_ID}); move it away or choose another dir",
            path.display()
        ));
    }
    if version > VERSION {
        return refuse(format!(
            "path={} has schema version={version}, newer than this program's {VERSION}; upgrade predlog or choose another dir",
            path.display()
        ));
    }
    Ok(version)
}
