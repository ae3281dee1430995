//! The sqlite store: `<dir>/predictions.db`, a table that a person wants to query, written in one transaction a commit.
//!
//! *Tables.* `predictions` has a row a record (see `schema.rs`): `timestamp` in UTC microseconds, `inputs`, `outputs` and `metadata` as the JSON of the
//! line, text unescaped, an unknown field NULL. `extra` is NULL but for the rare record that the columns do not hold to the byte, whose raw
//! fields stand there as JSON: a `latency_ms` of NaN (NULL in its column, since SQLite has no NaN; infinities are REAL), an `error` that was
//! replaced by its digest. `writers` has which seqs are stored, `expired` which of them retention has deleted, `uploads` what was uploaded, `ledger`
//! what each process states of its records.
//!
//! *Views.* Each model has `model_<name>`, with `time` as RFC 3339 and each key of its inputs and outputs as a column of that name, or
//! `inputs_<key>`, `outputs_<key>` where the name is taken. Names differ in more than the case of letters: the view of a second `Wine` is
//! `model_Wine_2` (the table `models` says which is whose). At most [`MAX_VIEWS`] models get one, of at most [`MAX_FEATURES`] features,
//! none with a key longer than [`MAX_KEY_BYTES`].
//!
//! *Sharing.* Several processes may write one file. A call waits at most `busy_timeout` for the lock. Readers work while writing; a reader that
//! holds one snapshot for long keeps the `-wal` file from being cut.
//!
//! *Damage.* A file that SQLite calls corrupt is renamed to `predictions.db.damaged-<UTC time>` and a new one is made. The batch at hand stays with the
//! caller, the next is taken. What the damaged file had stays in it (`sqlite3 <it> .recover`); which seqs it had is not known to the new
//! file, so a record that is replayed after that is stored again there.

mod db;
mod error;
#[cfg(feature = "cli")]
mod history;
mod insert;
mod ledger;
mod line;
mod locks;
mod ranges;
mod retain;
mod room;
mod rows;
mod schema;
mod sizes;
mod stored;
mod view_sql;
mod views;

#[cfg(feature = "cli")]
pub(crate) use history::{Records as HistoryTable, SqliteHistory};
#[cfg(feature = "cli")]
pub(crate) use ledger::{COLUMNS as LEDGER_COLUMNS, read as entry_of};
pub use locks::lock_open_files;
pub use rows::{Pending, Plan, SqliteExport};
pub(crate) use stored::stored_of;
pub use views::{MAX_FEATURES, MAX_KEY_BYTES, MAX_VIEWS};

use super::{Kept, Maintained, Sink, SinkError, SinkErrorKind};
use crate::batch::Batch;
use crate::clock::Now;
use bytesize::ByteSize;
use db::{Db, Identity};
use error::Fault;
use insert::Inserter;
use ranges::Ranges;
use room::Room;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Duration;
use views::Models;

const NAME: &str = "sqlite";
/// How long a start waits for another process's lock: a server's first `log()` after a fork is one.
const OPEN_TIMEOUT: Duration = Duration::from_millis(100);

/// How the sqlite store is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SqliteSettings {
    /// The directory of `predictions.db`. Made where it is missing.
    #[serde(skip)]
    pub dir: PathBuf,
    /// Each commit reaches the disk (`durability = fsync`). Without it a commit survives a kill of the process, not a loss of power.
    #[serde(skip)]
    pub synchronous_full: bool,
    /// How long a call waits for another process's lock; at most an hour.
    #[serde(with = "humantime_serde")]
    pub busy_timeout: Duration,
    /// Keeps an index on `timestamp`.
    pub index_timestamp: bool,
    /// Keeps a view for each model.
    pub views: bool,
    /// Rows whose timestamp is older than this are deleted. Without `index_timestamp` they are looked for from the earliest arrival on, so that
    /// a row with an old timestamp stays until those that arrived before it are gone.
    #[serde(with = "humantime_serde")]
    pub retain: Option<Duration>,
    /// While the file is larger than this, the rows that arrived first are deleted. The `-wal` file comes on top, up to 32 MiB.
    pub retain_bytes: Option<ByteSize>,
    /// Rows are uploaded, and never deleted before.
    #[serde(skip)]
    pub uploads: Option<Uploads>,
}

/// What an upload takes of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uploads {
    /// Rows that are uploaded together, at most.
    pub max_rows: u64,
    /// Bytes of the rows that wait for their upload, past which no more records are taken.
    pub max_disk_bytes: u64,
}

impl Default for SqliteSettings {
    fn default() -> Self {
        SqliteSettings {
            dir: PathBuf::from("predlog-data"),
            synchronous_full: false,
            busy_timeout: Duration::from_secs(2),
            index_timestamp: true,
            views: true,
            retain: None,
            retain_bytes: None,
            uploads: None,
        }
    }
}

impl SqliteSettings {
    /// Where the database is.
    pub fn path(&self) -> PathBuf {
        self.dir.join(db::FILE)
    }
}

/// The sink. No call blocks for longer than `busy_timeout` and what the disk needs.
#[derive(Debug)]
pub struct SqliteSink {
    settings: SqliteSettings,
    db: Option<Db>,
    inserter: Inserter,
    ranges: Ranges,
    models: Models,
    room: Room,
    /// The batch that the open transaction ends with.
    written: Option<u64>,
    owned: Option<u64>,
    /// The last call failed, so a probe must prove more than that the lock is free.
    suspect: bool,
}

impl SqliteSink {
    /// Opens or makes the store. A locked or full one is opened by a later call, so that a start waits for a moment at most; a damaged one is set aside.
    ///
    /// # Errors
    /// When the directory cannot be made or written, or the file is another program's or a newer version's.
    pub fn open(settings: SqliteSettings) -> Result<Self, SinkError> {
        let mut sink = SqliteSink {
            models: Models::new(settings.views),
            settings,
            db: None,
            inserter: Inserter::new(),
            ranges: Ranges::default(),
            room: Room::default(),
            written: None,
            owned: None,
            suspect: false,
        };
        let opened =
            Db::open(&SqliteSettings { busy_timeout: sink.settings.busy_timeout.min(OPEN_TIMEOUT), ..sink.settings.clone() });
        let opened = opened.and_then(|db| {
            db.wait_for_locks(sink.settings.busy_timeout)?;
            sink.db = Some(db);
            Ok(())
        });
        match opened {
            Ok(()) => Ok(sink),
            Err(fault) => {
                let passes = fault.is_busy() || fault.is_no_space() || fault.is_damage();
                let error = sink.failed("open the database", fault);
                if passes { Ok(sink) } else { Err(error) }
            }
        }
    }

    /// The open database, which is the one at its path.
    fn ready(&mut self) -> Result<&Db, Fault> {
        if let Some(db) = self.db.take_if(|db| db.moved()) {
            tracing::error!(path = %self.settings.path().display(), "the database was moved or deleted; a new one is made");
            db.abandon();
            self.forget();
        }
        match &mut self.db {
            Some(db) => Ok(db),
            none => Ok(none.insert(Db::open(&self.settings)?)),
        }
    }

    fn forget(&mut self) {
        self.ranges.forget();
        self.models.forget();
        self.written = None;
    }

    fn try_write(&mut self, batch: &Batch<'_>) -> Result<(), Fault> {
        // A transaction in a file that is gone by now owns nothing: its batches must not be lost in silence.
        let open = self.written.is_some();
        self.ready()?;
        if open && self.written.is_none() {
            let message = format!("the database was moved during a transaction; path={}", self.settings.path().display());
            return Err(Fault::Refused(SinkError::new(NAME, SinkErrorKind::Unavailable, message)));
        }
        let Some(Db { conn, .. }) = &self.db else { return Ok(()) };
        if conn.is_autocommit() {
            conn.prepare_cached("BEGIN IMMEDIATE")?.raw_execute()?;
            self.ranges.refresh(conn)?;
            self.models.refresh(conn)?;
        }
        self.inserter.insert(conn, &mut self.models, &mut self.ranges, batch)?;
        self.written = Some(batch.id);
        Ok(())
    }

    fn try_commit(&mut self) -> Result<(), Fault> {
        let (Some(written), Some(Db { conn, .. })) = (self.written, &self.db) else { return Ok(()) };
        self.models.publish(conn)?;
        self.ranges.save(conn)?;
        conn.prepare_cached("COMMIT")?.raw_execute()?;
        self.ranges.committed();
        self.owned = Some(written);
        self.written = None;
        Ok(())
    }

    fn try_probe(&mut self) -> Result<(), Fault> {
        let suspect = self.suspect;
        let conn = &self.ready()?.conn;
        if !conn.is_autocommit() {
            return Ok(());
        }
        conn.execute_batch("BEGIN IMMEDIATE")?;
        if suspect {
            // A lock alone does not say that the disk takes a page.
            conn.execute_batch("REPLACE INTO properties VALUES('probe', 1); COMMIT")?;
        } else {
            conn.execute_batch("ROLLBACK")?;
        }
        Ok(())
    }

    /// After any failure: nothing since the last answer is owned, and the next call starts anew.
    fn failed(&mut self, doing: &str, fault: Fault) -> SinkError {
        self.forget();
        self.suspect = true;
        let path = self.settings.path();
        let mut fault = fault;
        let mut identity = None;
        if let Some(db) = self.db.take() {
            fault = fault.with_errno(&db.conn);
            identity = db.identity();
            let rolled_back = db.conn.is_autocommit() || db.conn.execute_batch("ROLLBACK").is_ok() || db.conn.is_autocommit();
            if fault.is_damage() {
                db.abandon();
            } else if fault.keeps_connection() && rolled_back {
                self.db = Some(db);
            }
        }
        if fault.is_damage() {
            return self.set_aside(doing, &fault, identity);
        }
        fault.into_sink_error(doing, &path, self.settings.busy_timeout)
    }

    fn set_aside(&self, doing: &str, fault: &Fault, identity: Option<Identity>) -> SinkError {
        let path = self.settings.path();
        let cause = match fault {
            Fault::Sqlite(error, _) => error.to_string(),
            other => format!("{other:?}"),
        };
        let outcome = match db::set_aside(&path, identity) {
            Ok(Some(aside)) => format!("set aside as {}, a new one is made; try: sqlite3 <it> .recover", aside.display()),
            Ok(None) => "another process has set it aside".to_owned(),
            Err(error) => format!("it could not be set aside: {error}"),
        };
        let message = format!("cannot {doing}: the database is damaged ({cause}); path={}; {outcome}", path.display());
        tracing::error!("{message}");
        SinkError::new(NAME, SinkErrorKind::Damaged, message)
    }
}

impl Sink for SqliteSink {
    fn name(&self) -> &'static str {
        NAME
    }

    fn write(&mut self, batch: &Batch<'_>) -> Result<(), SinkError> {
        if self.written.is_none() {
            self.room.check(&self.settings)?;
        }
        self.try_write(batch).map_err(|fault| self.failed("write", fault))
    }

    fn commit(&mut self) -> Result<Option<u64>, SinkError> {
        self.try_commit().map_err(|fault| self.failed("commit", fault))?;
        self.suspect = false;
        Ok(self.owned)
    }

    fn kept(&mut self) -> Kept {
        Kept::new()
    }

    fn maintain(&mut self, now: Now, _force: bool) -> Result<Maintained, SinkError> {
        if self.written.is_none() {
            let step = match self.ready() {
                Ok(_) => {
                    let Some(db) = &self.db else { return Ok(Maintained::default()) };
                    retain::step(&db.conn, &self.settings, now).and_then(|()| self.room.measure(&db.conn, &self.settings))
                }
                Err(fault) => Err(fault),
            };
            step.map_err(|fault| self.failed("maintain", fault))?;
        }
        Ok(Maintained::default())
    }

    fn probe(&mut self) -> Result<(), SinkError> {
        self.room.check(&self.settings)?;
        self.try_probe().map_err(|fault| self.failed("probe", fault))?;
        self.suspect = false;
        Ok(())
    }

    fn spools(&self) -> bool {
        false
    }

    fn adopt(&mut self, segment: &std::path::Path) -> Result<(), SinkError> {
        let message = format!("it takes records, not segments; path={}", segment.display());
        Err(SinkError::new(NAME, SinkErrorKind::Unavailable, message))
    }

    fn close(&mut self, _now: Now) -> Result<Maintained, SinkError> {
        self.forget();
        self.db = None;
        Ok(Maintained::default())
    }
}

#[cfg(test)]
mod tests;
