//! Which seqs of each writer are stored: the table `writers`, and a copy of it in memory.

use crate::record::Writer;
use crate::seqs::SeqRanges;
use rusqlite::{Connection, OptionalExtension, params};
use std::collections::HashMap;

/// Writers whose ranges are kept in memory; with more, all are read again when they are next needed.
const MAX_WRITERS: usize = 1_024;

/// The copy in memory. It may be ahead of the table only within a transaction: whoever rolls back calls [`Ranges::forget`].
#[derive(Debug, Default)]
pub(super) struct Ranges {
    stored: HashMap<Writer, SeqRanges>,
    /// What this transaction added, in order.
    added: Vec<(Writer, u64, u64)>,
    data_version: i64,
}

impl Ranges {
    /// At the start of a transaction: drops what another connection may have changed.
    pub(super) fn refresh(&mut self, conn: &Connection) -> rusqlite::Result<()> {
        let version = conn.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get(0))?;
        if version != self.data_version || self.stored.len() > MAX_WRITERS {
            self.forget();
            self.data_version = version;
        }
        Ok(())
    }

    /// What is stored of `writer`.
    pub(super) fn of(&mut self, conn: &Connection, writer: Writer) -> rusqlite::Result<&mut SeqRanges> {
        use std::collections::hash_map::Entry;
        match self.stored.entry(writer) {
            Entry::Occupied(known) => Ok(known.into_mut()),
            Entry::Vacant(unknown) => {
                let mut select = conn.prepare_cached("SELECT first, last FROM writers WHERE writer = ?1")?;
                let mut ranges = SeqRanges::new();
                let mut rows = select.query(params![writer.to_string()])?;
                while let Some(row) = rows.next()? {
                    ranges.insert(row.get::<_, i64>(0)?.cast_unsigned(), row.get::<_, i64>(1)?.cast_unsigned());
                }
                Ok(unknown.insert(ranges))
            }
        }
    }

    /// Rows of these seqs were inserted.
    pub(super) fn add(&mut self, writer: Writer, runs: impl IntoIterator<Item = (u64, u64)>) {
        for (first, last) in runs {
            match self.added.last_mut() {
                Some((before, _, end)) if *before == writer && end.checked_add(1) == Some(first) => *end = last,
                _ => self.added.push((writer, first, last)),
            }
            self.stored.entry(writer).or_default().insert(first, last);
        }
    }

    /// Before the commit: writes what the transaction added into the table.
    pub(super) fn save(&mut self, conn: &Connection) -> rusqlite::Result<()> {
        self.added.iter().try_for_each(|&(writer, first, last)| add_range(conn, Table::Writers, writer, first, last))
    }

    /// After the commit.
    pub(super) fn committed(&mut self) {
        self.added.clear();
    }

    /// Nothing is known any more.
    pub(super) fn forget(&mut self) {
        self.stored.clear();
        self.added.clear();
    }
}

/// A table of ranges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Table {
    /// What is stored, also when retention has deleted it since.
    Writers,
    /// What retention has deleted.
    Expired,
}

/// Adds a range to a table, merged with its neighbours there.
pub(super) fn add_range(conn: &Connection, table: Table, writer: Writer, first: u64, last: u64) -> rusqlite::Result<()> {
    let table = match table {
        Table::Writers => "writers",
        Table::Expired => "expired",
    };
    let sql = |start: &str, rest: &str| format!("{start} {table} {rest}");
    let writer = writer.to_string();
    // A seq never comes near i64::MAX: it counts one process's records from 0.
    let (mut first, mut last) = (first.cast_signed(), last.cast_signed());
    let neighbour: Option<(i64, i64)> = conn
        .prepare_cached(&sql("SELECT first, last FROM", "WHERE writer = ?1 AND first <= ?2 ORDER BY first DESC LIMIT 1"))?
        .query_row(params![writer, first], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    if let Some((start, end)) = neighbour
        && end >= first.saturating_sub(1)
    {
        first = start;
        last = last.max(end);
    }
    let upto = last.saturating_add(1);
    let end: Option<i64> = conn
        .prepare_cached(&sql("SELECT max(last) FROM", "WHERE writer = ?1 AND first BETWEEN ?2 AND ?3"))?
        .query_row(params![writer, first, upto], |row| row.get(0))?;
    last = end.map_or(last, |end| end.max(last));
    conn.prepare_cached(&sql("DELETE FROM", "WHERE writer = ?1 AND first BETWEEN ?2 AND ?3"))?
        .execute(params![writer, first, upto])?;
    conn.prepare_cached(&sql("INSERT INTO", "(writer, first, last) VALUES(?1, ?2, ?3)"))?
        .execute(params![writer, first, last])?;
    Ok(())
}
