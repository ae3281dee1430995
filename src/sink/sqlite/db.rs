//! An open database file: how it is opened, whether it is still the one at its path, and how a damaged one is set aside.

use super::error::Fault;
use super::{SqliteSettings, schema};
use crate::clock::Timestamp;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};
use std::fs::{File, rename};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

/// The file's name in its directory.
pub(super) const FILE: &str = "predictions.db";
/// After a checkpoint the `-wal` file is cut to this many bytes.
pub(super) const WAL_LIMIT: u64 = 32 << 20;
/// Pages in the `-wal` file at which a commit also checkpoints: 16 MiB.
const CHECKPOINT_PAGES: u32 = 4_096;
/// SQLite keeps its time-out in an `i32` of milliseconds.
pub(super) const MAX_BUSY_TIMEOUT: Duration = Duration::from_secs(3_600);

/// What makes a file the same file: device and inode.
pub(super) type Identity = (u64, u64);

pub(super) fn identity(path: &Path) -> io::Result<Identity> {
    path.metadata().map(|meta| (meta.dev(), meta.ino()))
}

/// A connection, and which file it is to.
#[derive(Debug)]
pub(super) struct Db {
    pub(super) conn: Connection,
    path: PathBuf,
    identity: Option<Identity>,
    /// The `-wal` file is to be left alone.
    abandoned: bool,
}

impl Db {
    /// Opens or makes the file. Waits up to `busy_timeout` for another process that is doing the same.
    pub(super) fn open(settings: &SqliteSettings) -> Result<Self, Fault> {
        std::fs::create_dir_all(&settings.dir).map_err(|error| Fault::Io("create the directory of", error))?;
        let path = settings.path();
        let start = Instant::now();
        loop {
            match Db::open_once(&path, settings) {
                // Changing to WAL and reading a schema that is being made answer "busy" without waiting.
                Err(fault) if fault.is_busy() && start.elapsed() < settings.busy_timeout => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                done => return done,
            }
        }
    }

    fn open_once(path: &Path, settings: &SqliteSettings) -> Result<Self, Fault> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let conn = Connection::open_with_flags(path, flags)?;
        let mut db = Db { identity: identity(path).ok(), conn, path: path.to_owned(), abandoned: true };
        let prepared = db.configure(settings).and_then(|()| schema::prepare(&db.conn, path, settings));
        prepared.map_err(|fault| fault.with_errno(&db.conn))?;
        // It is ours.
        db.abandoned = false;
        // The file is made by the first write; from then on its identity stands.
        db.identity = Some(identity(path).map_err(|error| Fault::Io("look at", error))?);
        Ok(db)
    }

    fn configure(&self, settings: &SqliteSettings) -> Result<(), Fault> {
        let conn = &self.conn;
        self.wait_for_locks(settings.busy_timeout)?;
        // Before anything is written, so that nothing of another program's file is changed.
        schema::version(conn, &self.path)?;
        // Takes effect only in a file without tables, and lets retention give pages back to the file system.
        conn.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
        let mode: String = conn.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
        if mode != "wal" {
            tracing::warn!(path = %self.path.display(), mode, "the file system cannot do WAL: readers and the writer block each other");
        }
        conn.pragma_update(None, "synchronous", if settings.synchronous_full { "FULL" } else { "NORMAL" })?;
        conn.pragma_update(None, "cache_size", -8_192)?;
        conn.pragma_update(None, "temp_store", "MEMORY")?;
        conn.query_row(&format!("PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}"), [], |_| Ok(()))?;
        conn.query_row(&format!("PRAGMA journal_size_limit = {WAL_LIMIT}"), [], |_| Ok(()))?;
        conn.set_prepared_statement_cache_capacity(32);
        Ok(())
    }

    /// How long a call waits for another process's lock.
    pub(super) fn wait_for_locks(&self, busy_timeout: Duration) -> Result<(), Fault> {
        Ok(self.conn.busy_timeout(busy_timeout.min(MAX_BUSY_TIMEOUT))?)
    }

    /// Whether the file at the path is no longer this one: somebody moved or deleted it, or set it aside.
    pub(super) fn moved(&self) -> bool {
        self.identity.is_some() && identity(&self.path).ok() != self.identity
    }

    pub(super) fn identity(&self) -> Option<Identity> {
        self.identity
    }

    /// Closes without touching the `-wal` file, which at this path may be another's by now.
    pub(super) fn abandon(mut self) {
        self.abandoned = true;
    }

    fn leave_wal(&self) {
        if let Err(error) = self.conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true) {
            tracing::warn!(path = %self.path.display(), %error, "cannot leave the -wal file alone");
        }
    }
}

impl Drop for Db {
    fn drop(&mut self) {
        // The last connection to close deletes the -wal file by its name.
        if self.abandoned || self.moved() {
            return self.leave_wal();
        }
        // What is in the -wal file belongs into the database when a process ends. The last connection to close would see to it, but where another of this process
        // was the first to take the lock that they share, it is not given that lock alone (see `locks.rs`).
        let checkpoint = || self.conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        if let Err(fault) = self.wait_for_locks(Duration::ZERO).and_then(|()| Ok(checkpoint()?)) {
            tracing::debug!(path = %self.path.display(), ?fault, "the -wal file stays as it is");
        }
    }
}

/// Renames the damaged file and what belongs to it to `predictions.db.damaged-<UTC time>`, `…-wal` and `…-shm`, so that the next open makes a
/// new one. Returns the new name, or `None` when another process has done it: the file at the path is not `damaged` any more.
///
/// Nobody of this process may have the file open.
pub(super) fn set_aside(path: &Path, damaged: Option<Identity>) -> io::Result<Option<PathBuf>> {
    let dir = File::open(path.parent().unwrap_or(Path::new(".")))?;
    rustix::fs::flock(&dir, rustix::fs::FlockOperation::NonBlockingLockExclusive)?;
    let now = identity(path)?;
    if damaged.is_some_and(|damaged| damaged != now) {
        return Ok(None);
    }
    let at = Timestamp::from(SystemTime::now()).to_string().replace(['-', ':'], "");
    let aside = suffixed(path, &format!(".damaged-{at}"));
    // The file itself last: a -wal file that stayed beside a new database would be replayed into it.
    for suffix in ["-wal", "-shm"] {
        match rename(suffixed(path, suffix), suffixed(&aside, suffix)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    rename(path, &aside)?;
    Ok(Some(aside))
}

/// `path` with more at its end.
pub(super) fn suffixed(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}
