//! SQLite's errors into what a sink's caller can expect.

use super::NAME;
use crate::sink::{SinkError, SinkErrorKind};
use rusqlite::{ErrorCode, ffi};
use std::path::Path;
use std::time::Duration;

/// Why something could not be done.
#[derive(Debug)]
pub(super) enum Fault {
    /// SQLite said so, with the system's `errno` behind it, where it was asked for.
    Sqlite(rusqlite::Error, i32),
    /// The directory or a file in it could not be reached.
    Io(&'static str, std::io::Error),
    /// The file is not one that we may write to; time does not heal that.
    Refused(SinkError),
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        Fault::Sqlite(error, 0)
    }
}

impl Fault {
    /// Adds the system's reason for the connection's last error.
    pub(super) fn with_errno(self, conn: &rusqlite::Connection) -> Self {
        match self {
            // SAFETY: the handle is open as long as `conn` is borrowed, and the call only reads its last error.
            Fault::Sqlite(error, _) => Fault::Sqlite(error, unsafe { ffi::sqlite3_system_errno(conn.handle()) }),
            other => other,
        }
    }

    fn code(&self) -> Option<ErrorCode> {
        match self {
            Fault::Sqlite(error, _) => error.sqlite_error_code(),
            _ => None,
        }
    }

    /// Another connection holds the lock.
    pub(super) fn is_busy(&self) -> bool {
        matches!(self.code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
    }

    /// The file is no longer a database that can be trusted.
    pub(super) fn is_damage(&self) -> bool {
        matches!(self.code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
    }

    pub(super) fn is_no_space(&self) -> bool {
        use rustix::io::Errno;
        let no_space = |errno: i32| errno == Errno::NOSPC.raw_os_error() || errno == Errno::DQUOT.raw_os_error();
        match self {
            Fault::Sqlite(_, errno) => {
                self.code() == Some(ErrorCode::DiskFull) || (self.code() == Some(ErrorCode::SystemIoFailure) && no_space(*errno))
            }
            Fault::Io(_, error) => error.raw_os_error().is_some_and(no_space),
            Fault::Refused(_) => false,
        }
    }

    /// The connection may be used again after a rollback.
    pub(super) fn keeps_connection(&self) -> bool {
        self.is_busy() || self.code() == Some(ErrorCode::DiskFull)
    }

    /// For the caller. Damage is described where the file is set aside.
    pub(super) fn into_sink_error(self, doing: &str, path: &Path, busy_timeout: Duration) -> SinkError {
        let path_text = path.display();
        let kind = if self.is_no_space() { SinkErrorKind::NoSpace } else { SinkErrorKind::Unavailable };
        if self.is_busy() {
            let message = format!(
                "cannot {doing}: the database is locked by another process for longer than busy_timeout={busy_timeout:?}; path={path_text}"
            );
            return SinkError::new(NAME, kind, message);
        }
        match self {
            Fault::Io(what, error) => SinkError::io(NAME, what, path, &error),
            Fault::Refused(error) => error,
            Fault::Sqlite(error, _) if kind == SinkErrorKind::NoSpace => SinkError::new(
                NAME,
                kind,
                format!("cannot {doing}: no space left ({error}); path={path_text}; free some or set retain"),
            ),
            Fault::Sqlite(error, errno) => {
                let cause = if errno == 0 { String::new() } else { format!(" ({})", std::io::Error::from_raw_os_error(errno)) };
                SinkError::new(NAME, kind, format!("cannot {doing}: {error}{cause}; path={path_text}"))
            }
        }
    }
}
