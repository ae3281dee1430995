//! Lines into rows: several rows a statement, nothing allocated for a row, and only what differs from the last row of the same slot bound.

use super::line::{FIELDS, INPUTS, KEYS, KINDS, Kind, MODEL_NAME, OUTPUTS, Parts, unescape};
use super::ranges::Ranges;
use super::views::Models;
use crate::batch::{Batch, Chunk};
use crate::ledger::is_ledger;
use crate::record::WRITER_LEN;
use crate::record::encode::float;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{CachedStatement, Connection};

/// Rows that one step of the prepared statement inserts.
const ROWS: usize = 16;
/// timestamp, the fields, writer, seq, extra.
const COLUMNS: usize = FIELDS + 4;
const WRITER: usize = FIELDS + 1;
const SEQ: usize = FIELDS + 2;
const EXTRA: usize = FIELDS + 3;

/// `OR ROLLBACK`, because without it SQLite journals the pages of each statement of several rows, to undo that statement alone: a tenth of the
/// time, for what is undone as a whole here.
fn insert_sql(rows: usize) -> String {
    let columns = KEYS.join(", ");
    let values = format!("({})", ["?"; COLUMNS].join(", "));
    let values = vec![values; rows].join(", ");
    format!("INSERT OR ROLLBACK INTO predictions(timestamp, {columns}, writer, seq, extra) VALUES {values}")
}

/// The text of both statements, and what rows need while they are bound.
#[derive(Debug)]
pub(super) struct Inserter {
    one: String,
    many: String,
    scratch: Scratch,
}

#[derive(Debug, Default)]
struct Scratch {
    text: String,
    extra: Vec<u8>,
}

impl Inserter {
    pub(super) fn new() -> Self {
        Inserter { one: insert_sql(1), many: insert_sql(ROWS), scratch: Scratch::default() }
    }

    /// Inserts the batch's records that are not stored yet, within the open transaction.
    pub(super) fn insert(
        &mut self,
        conn: &Connection,
        models: &mut Models,
        ranges: &mut Ranges,
        batch: &Batch<'_>,
    ) -> rusqlite::Result<()> {
        let mut insertion = Insertion {
            one: Slots::new(conn.prepare_cached(&self.one)?, 1),
            many: Slots::new(conn.prepare_cached(&self.many)?, ROWS),
            group: Vec::with_capacity(ROWS),
            scratch: &mut self.scratch,
            models,
        };
        batch.chunks.iter().try_for_each(|chunk| insertion.chunk(conn, ranges, chunk))
    }
}

struct Insertion<'a, 'b> {
    one: Slots<'a>,
    many: Slots<'a>,
    group: Vec<(u64, &'b [u8])>,
    scratch: &'a mut Scratch,
    models: &'a mut Models,
}

impl<'b> Insertion<'_, 'b> {
    fn chunk(&mut self, conn: &Connection, ranges: &mut Ranges, chunk: &Chunk<'b>) -> rusqlite::Result<()> {
        let stored = ranges.of(conn, chunk.writer)?;
        if chunk.is_gapless() && stored.contains_all(chunk.first_seq, chunk.last_seq) {
            return Ok(());
        }
        let overlaps = stored.intersects(chunk.first_seq, chunk.last_seq);
        let mut writer = [0u8; WRITER_LEN];
        writer.copy_from_slice(chunk.writer.to_string().as_bytes());
        let ledger = is_ledger(chunk.writer);
        let mut runs: Vec<(u64, u64)> = Vec::new();
        for (seq, line) in chunk.lines() {
            if overlaps && ranges.of(conn, chunk.writer)?.contains(seq) {
                continue;
            }
            match runs.last().copied() {
                Some((first, last)) if last.checked_add(1) == Some(seq) => {
                    runs.pop();
                    runs.push((first, seq));
                }
                // A chunk's seqs rise; were one to come twice, it is still stored once.
                Some((_, last)) if seq <= last && runs.iter().any(|&(first, last)| first <= seq && seq <= last) => continue,
                _ => runs.push((seq, seq)),
            }
            if ledger {
                super::ledger::insert(conn, line)?;
                continue;
            }
            self.group.push((seq, line));
            if self.group.len() == ROWS {
                self.flush(&writer)?;
            }
        }
        self.flush(&writer)?;
        ranges.add(chunk.writer, runs);
        Ok(())
    }

    fn flush(&mut self, writer: &[u8; WRITER_LEN]) -> rusqlite::Result<()> {
        let rows = if self.group.len() == ROWS { &mut self.many } else { &mut self.one };
        rows.bind_writer(writer)?;
        for group in self.group.chunks(rows.nulls.len()) {
            for (slot, (seq, line)) in group.iter().enumerate() {
                rows.bind(slot, *seq, line, self.models, self.scratch)?;
            }
            rows.statement.raw_execute()?;
        }
        self.group.clear();
        Ok(())
    }
}

/// A statement with room for some rows.
struct Slots<'a> {
    statement: CachedStatement<'a>,
    /// A bit for each column of a row that is bound to NULL now.
    nulls: Vec<u32>,
    writer: [u8; WRITER_LEN],
}

impl<'a> Slots<'a> {
    /// A statement comes from the cache with nothing bound, which is NULL.
    fn new(statement: CachedStatement<'a>, rows: usize) -> Self {
        Slots { statement, nulls: vec![u32::MAX; rows], writer: [0; WRITER_LEN] }
    }

    fn bind_writer(&mut self, writer: &[u8; WRITER_LEN]) -> rusqlite::Result<()> {
        if self.writer != *writer {
            for slot in 0..self.nulls.len() {
                self.set(slot, WRITER, ValueRef::Text(writer))?;
            }
            self.writer = *writer;
        }
        Ok(())
    }

    #[inline]
    fn set(&mut self, slot: usize, column: usize, value: ValueRef<'_>) -> rusqlite::Result<()> {
        let bit = 1u32 << column;
        if matches!(value, ValueRef::Null) {
            if self.nulls[slot] & bit != 0 {
                return Ok(());
            }
            self.nulls[slot] |= bit;
        } else {
            self.nulls[slot] &= !bit;
        }
        self.statement.raw_bind_parameter(slot * COLUMNS + column + 1, ToSqlOutput::Borrowed(value))
    }

    #[inline]
    fn bind(&mut self, slot: usize, seq: u64, line: &[u8], models: &mut Models, scratch: &mut Scratch) -> rusqlite::Result<()> {
        let Some(parts) = Parts::of(line, models) else { return self.bind_unreadable(slot, seq, line) };
        scratch.extra.clear();
        self.set(slot, 0, ValueRef::Integer(parts.timestamp))?;
        for (field, raw) in parts.raw.iter().enumerate() {
            let column = field + 1;
            match (raw, KINDS[field]) {
                (None, _) => self.set(slot, column, ValueRef::Null)?,
                (Some(raw), Kind::Json) => self.set(slot, column, ValueRef::Text(raw))?,
                (Some(raw), Kind::Text) => self.bind_text(slot, field, raw, scratch)?,
                (Some(raw), kind) => self.bind_number(slot, field, kind, raw, scratch)?,
            }
        }
        self.set(slot, SEQ, ValueRef::Integer(seq.cast_signed()))?;
        for (key, value) in &parts.others {
            scratch.add(key, value);
        }
        if scratch.extra.is_empty() {
            self.set(slot, EXTRA, ValueRef::Null)
        } else {
            scratch.extra.push(b'}');
            self.set(slot, EXTRA, ValueRef::Text(&scratch.extra))
        }
    }

    #[inline]
    fn bind_text(&mut self, slot: usize, field: usize, raw: &[u8], scratch: &mut Scratch) -> rusqlite::Result<()> {
        if let [b'"', text @ .., b'"'] = raw
            && memchr::memchr(b'\\', text).is_none()
        {
            return self.set(slot, field + 1, ValueRef::Text(text));
        }
        let exact = unescape(raw, &mut scratch.text);
        if !exact {
            scratch.add(KEYS[field].as_bytes(), raw);
        }
        self.set(slot, field + 1, ValueRef::Text(scratch.text.as_bytes()))
    }

    fn bind_number(&mut self, slot: usize, field: usize, kind: Kind, raw: &[u8], scratch: &mut Scratch) -> rusqlite::Result<()> {
        let text = std::str::from_utf8(raw).unwrap_or_default();
        let (value, exact) = match (kind, text) {
            (Kind::Real, "\"Infinity\"") => (ValueRef::Real(f64::INFINITY), true),
            (Kind::Real, "\"-Infinity\"") => (ValueRef::Real(f64::NEG_INFINITY), true),
            (Kind::Real, _) => match text.parse::<f64>() {
                Ok(value) if value.is_finite() => {
                    let from = scratch.extra.len();
                    float(&mut scratch.extra, value);
                    // SQLite keeps a whole REAL as an integer, which has no -0.0.
                    let exact = scratch.extra[from..] == *raw && raw != b"-0.0";
                    scratch.extra.truncate(from);
                    (ValueRef::Real(value), exact)
                }
                _ => (ValueRef::Null, false),
            },
            _ => match text.parse::<i64>() {
                Ok(value) => (ValueRef::Integer(value), itoa::Buffer::new().format(value) == text),
                Err(_) => (ValueRef::Null, false),
            },
        };
        if !exact {
            scratch.add(KEYS[field].as_bytes(), raw);
        }
        self.set(slot, field + 1, value)
    }

    /// A line that no logger wrote: kept whole in `extra`, with an empty model name, which no record has.
    #[cold]
    fn bind_unreadable(&mut self, slot: usize, seq: u64, line: &[u8]) -> rusqlite::Result<()> {
        tracing::error!(seq, bytes = line.len(), "a line is not one that a logger wrote; it is kept whole in the column extra");
        for column in 0..COLUMNS {
            let value = match column {
                0 => ValueRef::Integer(0),
                WRITER => continue,
                SEQ => ValueRef::Integer(seq.cast_signed()),
                EXTRA => ValueRef::Blob(line.strip_suffix(b"\n").unwrap_or(line)),
                _ if column == MODEL_NAME + 1 => ValueRef::Text(b""),
                _ if column == INPUTS + 1 || column == OUTPUTS + 1 => ValueRef::Text(b"null"),
                _ => ValueRef::Null,
            };
            self.set(slot, column, value)?;
        }
        Ok(())
    }
}

impl Scratch {
    /// Adds a field that its column does not hold to the byte.
    #[cold]
    fn add(&mut self, key: &[u8], raw: &[u8]) {
        self.extra.push(if self.extra.is_empty() { b'{' } else { b',' });
        self.extra.push(b'"');
        self.extra.extend_from_slice(key);
        self.extra.extend_from_slice(b"\":");
        self.extra.extend_from_slice(raw);
    }
}
