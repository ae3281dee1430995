//! Room on the disk for what is to be uploaded: its rows become files before they may go, and rows that had taken the whole disk could never leave it.

use super::error::Fault;
use super::rows::uploaded_through;
use super::sizes::{Sizes, Span};
use super::{NAME, SqliteSettings};
use crate::sink::{SinkError, SinkErrorKind, disk};
use rusqlite::Connection;

/// What waits for its upload, as it was a moment ago.
#[derive(Debug, Default)]
pub(super) struct Room {
    /// Bytes of the rows that are not uploaded.
    waiting: u64,
    /// Bytes of those that the next upload takes.
    plan: u64,
}

impl Room {
    /// Looks again.
    pub(super) fn measure(&mut self, conn: &Connection, settings: &SqliteSettings) -> Result<(), Fault> {
        let Some(uploads) = settings.uploads else { return Ok(()) };
        *self = Room::default();
        let Some(span) = Span::of(conn)? else { return Ok(()) };
        let (through, used) = (uploaded_through(conn)?, Sizes::of(conn)?.used().unsigned_abs());
        let waiting = (span.last - through.max(span.first - 1)).max(0).unsigned_abs();
        let mean = used / span.rows().unsigned_abs();
        self.waiting = waiting * mean;
        self.plan = waiting.min(uploads.max_rows) * mean;
        Ok(())
    }

    /// # Errors
    /// Whatever is stored now would take the room of what is to be uploaded first.
    pub(super) fn check(&self, settings: &SqliteSettings) -> Result<(), SinkError> {
        let Some(uploads) = settings.uploads else { return Ok(()) };
        let dir = settings.dir.display();
        let (waiting, max) = (self.waiting, uploads.max_disk_bytes);
        if waiting >= max {
            let message =
                format!("rows of {waiting} bytes wait for their upload, which reaches upload.max_disk_bytes={max} in dir={dir}");
            return Err(SinkError::new(NAME, SinkErrorKind::NoSpace, message));
        }
        // Packed rows, and files that are made of them, neither larger than the rows are.
        disk::check_free(NAME, &settings.dir, 2 * self.plan, "the files of the next upload")
    }
}
