//! Rows on their way to the bucket: which are to be uploaded, and their lines.

use super::db::Db;
use super::error::Fault;
use super::line::{self, FIELDS, KEYS, KINDS, Kind};
use super::room::Room;
use super::{NAME, SqliteSettings};
use crate::clock::Timestamp;
use crate::json::escape::write_escaped;
use crate::json::scan::Fields;
use crate::ledger::LEDGER_MODEL;
use crate::sink::{SinkError, SinkErrorKind};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, Row, params};
use std::path::Path;

/// Uploads that are done and remembered, for whoever looks at the table.
const REMEMBERED: i64 = 1_000;

/// Rows that no plan has yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// The smallest rowid.
    pub first_rowid: i64,
    /// The largest rowid.
    pub last_rowid: i64,
    /// How many rows there are at most: rowids can have gaps.
    pub rows: u64,
    /// The timestamp of the row that arrived first.
    pub oldest: Timestamp,
}

/// Rows that are to be uploaded together: the same after a restart, until [`SqliteExport::done`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Its id in the table `uploads`.
    pub id: i64,
    /// The database that it is in: ids and rowids start anew when a damaged file was set aside.
    pub store: String,
    /// The first rowid.
    pub first_rowid: i64,
    /// The last rowid.
    pub last_rowid: i64,
    /// The models that have rows in it, sorted, and last the ledger's, where it has entries. An empty one holds lines that no logger wrote.
    pub models: Vec<String>,
    /// The first rowid of the ledger's entries that go with the rows.
    pub ledger_first: i64,
    /// The last, less than the first where there are none.
    pub ledger_last: i64,
}

/// A connection of its own to the sqlite store, for the thread that uploads.
#[derive(Debug)]
pub struct SqliteExport {
    settings: SqliteSettings,
    db: Option<Db>,
}

impl SqliteExport {
    /// Opens the store of `settings`, and again by itself where the sink had to make a new file.
    ///
    /// # Errors
    /// See [`super::SqliteSink::open`]; here a locked or damaged file is an error too, and the sink is who sets that aside.
    pub fn open(settings: SqliteSettings) -> Result<Self, SinkError> {
        let mut export = SqliteExport { settings, db: None };
        export.with("open the database", |_| Ok(()))?;
        Ok(export)
    }

    /// The rows that no plan has yet; when there are none, the entries of the ledger that no plan has, with rowids of zero. `None` without either.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn pending(&mut self) -> Result<Option<Pending>, SinkError> {
        self.with("look for rows to upload", |conn| {
            let planned = planned_through(conn)?;
            let first: Option<(i64, i64)> = conn
                .prepare_cached("SELECT rowid, timestamp FROM predictions WHERE rowid > ?1 ORDER BY rowid LIMIT 1")?
                .query_row(params![planned], |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()?;
            let Some((first_rowid, oldest)) = first else { return Ok(pending_entries(conn)?) };
            let last_rowid: i64 = conn.prepare_cached("SELECT max(rowid) FROM predictions")?.query_row([], |row| row.get(0))?;
            let rows = (last_rowid - first_rowid + 1).unsigned_abs();
            Ok(Some(Pending { first_rowid, last_rowid, rows, oldest: Timestamp::from_micros(oldest) }))
        })
    }

    /// Whether the store takes more rows before some are uploaded.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn has_room(&mut self) -> Result<bool, SinkError> {
        let settings = self.settings.clone();
        let mut room = Room::default();
        self.with("look how many rows wait for their upload", |conn| room.measure(conn, &settings))?;
        Ok(room.check(&settings).is_ok())
    }

    /// The plan to work on: the one that is not done yet, else a new one of the next rows, at most `max_rows`. `None` when there are no rows.
    ///
    /// # Errors
    /// When the database cannot be read or written.
    pub fn plan(&mut self, max_rows: u64, now: Timestamp) -> Result<Option<Plan>, SinkError> {
        self.with("plan an upload", |conn| {
            conn.execute_batch("BEGIN IMMEDIATE")?;
            let planned = plan(conn, i64::try_from(max_rows).unwrap_or(i64::MAX), now);
            conn.execute_batch(if planned.is_ok() { "COMMIT" } else { "ROLLBACK" })?;
            planned
        })
    }

    /// Gives `each` the lines of a plan's rows of one model, each with its `\n`, byte for byte as they were logged, sorted by timestamp.
    /// Rows that retention has deleted since are missing: where there is an upload, `uploads` belongs in the settings.
    ///
    /// # Errors
    /// When the database cannot be read, or is another one than the plan's.
    pub fn lines(&mut self, plan: &Plan, model: &str, each: &mut dyn FnMut(&[u8])) -> Result<(), SinkError> {
        self.with("read rows to upload", |conn| {
            check_store(conn, plan)?;
            if model == LEDGER_MODEL {
                return Ok(super::ledger::lines(conn, plan.ledger_first, plan.ledger_last, each)?);
            }
            let mut order = conn
                .prepare_cached("SELECT timestamp, rowid FROM predictions WHERE rowid BETWEEN ?1 AND ?2 AND model_name = ?3")?;
            let order =
                order.query_map(params![plan.first_rowid, plan.last_rowid, model], |row| Ok((row.get(0)?, row.get(1)?)))?;
            // 16 bytes a row, where SQLite would sort the rows themselves.
            let mut order: Vec<(i64, i64)> = order.collect::<Result<_, _>>()?;
            order.sort_unstable();
            let columns = KEYS.join(", ");
            let mut select = conn
                .prepare_cached(&format!("SELECT timestamp, {columns}, writer, seq, extra FROM predictions WHERE rowid = ?1"))?;
            let mut text = Vec::new();
            for (_, rowid) in order {
                let mut rows = select.query(params![rowid])?;
                if let Some(row) = rows.next()? {
                    text.clear();
                    write_line(&mut text, row)?;
                    each(&text);
                }
            }
            Ok(())
        })
    }

    /// The plan's rows are proven stored: retention may delete them.
    ///
    /// # Errors
    /// When the database cannot be written, or is another one than the plan's.
    pub fn done(&mut self, plan: &Plan, now: Timestamp) -> Result<(), SinkError> {
        self.with("note an upload", |conn| {
            check_store(conn, plan)?;
            conn.execute("UPDATE uploads SET state = 'done', done_at = ?2 WHERE id = ?1", params![plan.id, now.micros()])?;
            conn.execute("DELETE FROM uploads WHERE state = 'done' AND id <= ?1", params![plan.id - REMEMBERED])?;
            Ok(())
        })
    }

    fn with<T>(&mut self, doing: &str, work: impl FnOnce(&Connection) -> Result<T, Fault>) -> Result<T, SinkError> {
        if let Some(db) = self.db.take_if(|db| db.moved()) {
            db.abandon();
        }
        let result = match &mut self.db {
            Some(db) => work(&db.conn).map_err(|fault| fault.with_errno(&db.conn)),
            none => Db::open(&self.settings).and_then(|db| work(&none.insert(db).conn)),
        };
        result.map_err(|fault| {
            let path = self.settings.path();
            if !fault.keeps_connection()
                && let Some(db) = self.db.take()
            {
                db.abandon();
            }
            if let (true, Fault::Sqlite(error, _)) = (fault.is_damage(), &fault) {
                return SinkError::new(NAME, SinkErrorKind::Damaged, format!("cannot {doing}: {error}; path={}", path.display()));
            }
            fault.into_sink_error(doing, Path::new(&path), self.settings.busy_timeout)
        })
    }
}

/// Rows up to this rowid are uploaded, all of them.
pub(super) fn uploaded_through(conn: &Connection) -> rusqlite::Result<i64> {
    conn.prepare_cached(
        "SELECT coalesce((SELECT min(first_rowid) - 1 FROM uploads WHERE state = 'planned'), (SELECT max(last_rowid) FROM uploads), 0)",
    )?
    .query_row([], |row| row.get(0))
}

/// Rows up to this rowid are uploaded or in a plan.
fn planned_through(conn: &Connection) -> rusqlite::Result<i64> {
    conn.prepare_cached("SELECT coalesce(max(last_rowid), 0) FROM uploads")?.query_row([], |row| row.get(0))
}

fn pending_entries(conn: &Connection) -> rusqlite::Result<Option<Pending>> {
    let (rows, oldest): (i64, Option<i64>) = conn
        .prepare_cached("SELECT count(*), min(timestamp) FROM ledger WHERE rowid > ?1")?
        .query_row(params![entries_planned_through(conn)?], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let pending =
        |oldest| Pending { first_rowid: 0, last_rowid: 0, rows: rows.unsigned_abs(), oldest: Timestamp::from_micros(oldest) };
    Ok(oldest.map(pending))
}

/// Entries of the ledger up to this rowid are uploaded, all of them.
pub(super) fn entries_uploaded_through(conn: &Connection) -> rusqlite::Result<i64> {
    conn.prepare_cached(
        "SELECT coalesce((SELECT min(ledger_first) - 1 FROM uploads WHERE state = 'planned'), (SELECT max(ledger_last) FROM uploads), 0)",
    )?
    .query_row([], |row| row.get(0))
}

/// Entries of the ledger up to this rowid are uploaded or in a plan.
fn entries_planned_through(conn: &Connection) -> rusqlite::Result<i64> {
    conn.prepare_cached("SELECT coalesce(max(ledger_last), 0) FROM uploads")?.query_row([], |row| row.get(0))
}

fn store_id(conn: &Connection) -> rusqlite::Result<String> {
    conn.prepare_cached("SELECT value FROM properties WHERE name = 'store_id'")?.query_row([], |row| row.get(0))
}

fn check_store(conn: &Connection, plan: &Plan) -> Result<(), Fault> {
    let store = store_id(conn)?;
    if store == plan.store {
        return Ok(());
    }
    let message = format!(
        "plan id={} is of store={}, which was set aside; the database is store={store} now; plan again",
        plan.id, plan.store
    );
    Err(Fault::Refused(SinkError::new(NAME, SinkErrorKind::Damaged, message)))
}

fn plan(conn: &Connection, max_rows: i64, now: Timestamp) -> Result<Option<Plan>, Fault> {
    let open = conn
        .prepare_cached(
            "SELECT id, first_rowid, last_rowid, ledger_first, ledger_last FROM uploads WHERE state = 'planned' ORDER BY first_rowid, id LIMIT 1",
        )?
        .query_row([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?)))
        .optional()?;
    let (id, first_rowid, last_rowid, ledger_first, ledger_last) = match open {
        Some(open) => open,
        None => {
            // From the last plan's end on, also where rows are missing: plans leave no gap between them.
            let first = planned_through(conn)? + 1;
            let last: Option<i64> = conn
                .prepare_cached(
                    "SELECT max(rowid) FROM (SELECT rowid FROM predictions WHERE rowid >= ?1 ORDER BY rowid LIMIT ?2)",
                )?
                .query_row(params![first, max_rows], |row| row.get(0))?;
            let last = last.unwrap_or(first - 1);
            let entries_first = entries_planned_through(conn)? + 1;
            // Statements go with the rows that they are about, or after them: only once no row is left behind.
            let entries_last: i64 = conn
                .prepare_cached(
                    "SELECT coalesce(max(rowid), 0) FROM ledger WHERE ?1 >= (SELECT coalesce(max(rowid), 0) FROM predictions)",
                )?
                .query_row(params![last], |row| row.get(0))?;
            let entries_last = entries_last.max(entries_first - 1);
            if max_rows == 0 || (last < first && entries_last < entries_first) {
                return Ok(None);
            }
            conn.execute(
                "INSERT INTO uploads(first_rowid, last_rowid, state, planned_at, ledger_first, ledger_last) \
                 VALUES(?1, ?2, 'planned', ?3, ?4, ?5)",
                params![first, last, now.micros(), entries_first, entries_last],
            )?;
            (conn.last_insert_rowid(), first, last, entries_first, entries_last)
        }
    };
    let mut models =
        conn.prepare_cached("SELECT DISTINCT model_name FROM predictions WHERE rowid BETWEEN ?1 AND ?2 ORDER BY model_name")?;
    let mut models: Vec<String> =
        models.query_map(params![first_rowid, last_rowid], |row| row.get(0))?.collect::<Result<_, _>>()?;
    if ledger_first <= ledger_last {
        models.push(LEDGER_MODEL.to_owned());
    }
    Ok(Some(Plan { id, store: store_id(conn)?, first_rowid, last_rowid, models, ledger_first, ledger_last }))
}

/// The row's line: what `extra` has of a field is its raw JSON, and goes before what its column has.
pub(super) fn write_line(out: &mut Vec<u8>, row: &Row<'_>) -> rusqlite::Result<()> {
    let extra = match row.get_ref(FIELDS + 3)? {
        ValueRef::Text(extra) => extra,
        ValueRef::Blob(line) => {
            out.extend_from_slice(line);
            out.push(b'\n');
            return Ok(());
        }
        _ => b"",
    };
    let extra_of = |key: &[u8]| Fields::of(extra)?.find(|(known, _)| *known == key).map(|(_, raw)| raw);
    line::begin(out, row.get(0)?);
    for (field, name) in KEYS.iter().enumerate() {
        let value = row.get_ref(field + 1)?;
        let raw = if extra.is_empty() { None } else { extra_of(name.as_bytes()) };
        if raw.is_none() && value == ValueRef::Null {
            continue;
        }
        line::key(out, field);
        match (raw, value) {
            (Some(raw), _) => out.extend_from_slice(raw),
            (None, ValueRef::Text(text)) if KINDS[field] == Kind::Text => {
                out.push(b'"');
                write_escaped(out, text);
                out.push(b'"');
            }
            (None, ValueRef::Text(json)) => out.extend_from_slice(json),
            (None, ValueRef::Integer(value)) => out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes()),
            (None, ValueRef::Real(value)) => crate::record::encode::float(out, value),
            (None, ValueRef::Blob(_) | ValueRef::Null) => out.extend_from_slice(b"null"),
        }
    }
    for (key, raw) in Fields::of(extra).into_iter().flatten() {
        if !KEYS.iter().any(|known| known.as_bytes() == key) {
            out.extend_from_slice(b",\"");
            out.extend_from_slice(key);
            out.extend_from_slice(b"\":");
            out.extend_from_slice(raw);
        }
    }
    let writer = row.get_ref(FIELDS + 1)?.as_bytes().unwrap_or_default().to_owned();
    line::end(out, &writer, row.get::<_, i64>(FIELDS + 2)?.cast_unsigned());
    Ok(())
}
