//! How large the database is, and how many rows it has.

use super::error::Fault;
use rusqlite::Connection;

/// Pages, and bytes of each.
pub(super) struct Sizes {
    pub(super) page_bytes: i64,
    pub(super) pages: i64,
    pub(super) free: i64,
}

impl Sizes {
    pub(super) fn of(conn: &Connection) -> Result<Self, Fault> {
        let pragma = |sql: &str| conn.prepare_cached(sql)?.query_row([], |row| row.get(0));
        Ok(Sizes {
            page_bytes: pragma("PRAGMA page_size")?,
            pages: pragma("PRAGMA page_count")?,
            free: pragma("PRAGMA freelist_count")?,
        })
    }

    /// Bytes of the pages that are not free.
    pub(super) fn used(&self) -> i64 {
        self.page_bytes * (self.pages - self.free)
    }
}

/// The first rowid of the predictions, and the last.
pub(super) struct Span {
    pub(super) first: i64,
    pub(super) last: i64,
}

impl Span {
    /// `None` where there are none.
    pub(super) fn of(conn: &Connection) -> Result<Option<Self>, Fault> {
        let (first, last): (Option<i64>, Option<i64>) = conn
            .prepare_cached("SELECT (SELECT min(rowid) FROM predictions), (SELECT max(rowid) FROM predictions)")?
            .query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(first.zip(last).map(|(first, last)| Span { first, last }))
    }

    /// How many rows there are, as if there were no gaps: retention leaves few.
    pub(super) fn rows(&self) -> i64 {
        self.last - self.first + 1
    }
}
