//! The ledger: what each process says of the records that it accepted, so that `predlog audit` can prove that none is missing.
//!
//! An entry is a record of its own, under the reserved name [`LEDGER_MODEL`]: it goes through the same sink, spool and upload, once like any other.
//! Its writer is a lane that takes no predictions: lane `ff` of the process that states, or lane `fe` of a dead process for which another
//! one states. Its `inputs` are an [`Entry`]. Sinks keep entries apart from predictions: `ledger/date=…/` beside `predictions/`, a table `ledger`.

pub(crate) mod count;

use crate::batch::Chunk;
use crate::clock::Timestamp;
use crate::record::Writer;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use uuid::Uuid;

/// The model name of ledger entries. A prediction cannot have it.
pub const LEDGER_MODEL: &str = "_predlog_ledger";
/// The lane of entries that a process states of itself.
pub(crate) const OWN_LANE: u8 = 0xff;
/// The lane of entries that another process stated of a dead one, from what it left.
pub(crate) const ADOPTED_LANE: u8 = 0xfe;

/// Statements of what was accepted, delivered and dropped: `[ledger]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LedgerSettings {
    /// Statements are made. Without them `predlog audit` can prove nothing.
    pub enabled: bool,
    /// How often, while records come. One more is made at the end.
    #[serde(with = "humantime_serde")]
    pub every: Duration,
}

impl Default for LedgerSettings {
    fn default() -> Self {
        LedgerSettings { enabled: true, every: Duration::from_secs(60) }
    }
}

/// What an entry says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Of `first..=last`, `rows` records were of this model and hour. They have left the lanes: the sink or the spool has them.
    Accepted,
    /// `rows` predictions of this model and hour were dropped. With a range they had been accepted before, without one they never were.
    Dropped,
    /// `about` has accepted `first..=last`, and no more will come. Without `about`: the process has accepted nothing.
    End,
}

impl Kind {
    /// From its name.
    #[cfg(feature = "sqlite")]
    pub(crate) fn named(name: &str) -> Option<Self> {
        [Kind::Accepted, Kind::Dropped, Kind::End].into_iter().find(|kind| kind.name() == name)
    }

    /// The name in a line: `accepted`, `dropped`, `end`.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Accepted => "accepted",
            Kind::Dropped => "dropped",
            Kind::End => "end",
        }
    }
}

/// One entry: the `inputs` of its line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// What it says.
    pub kind: Kind,
    /// The writer whose records it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub about: Option<String>,
    /// That writer's first seq in the range.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first: Option<u64>,
    /// The last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<u64>,
    /// The model; not there where it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_name: Option<String>,
    /// The UTC hour of the records' timestamps: `2026-11-23T03:00:00Z`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hour: Option<String>,
    /// How many records.
    pub rows: u64,
    /// Why they were dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Entry {
    /// An entry about nothing in particular yet.
    pub(crate) fn new(kind: Kind, rows: u64) -> Self {
        Entry { kind, about: None, first: None, last: None, model_name: None, hour: None, rows, reason: None }
    }

    /// The same about `first..=last` of `writer`.
    pub(crate) fn about(self, writer: Writer, first: u64, last: u64) -> Self {
        Entry { about: Some(writer.to_string()), first: Some(first), last: Some(last), ..self }
    }
}

/// An entry with its place in the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stated {
    /// When it was stated, UTC microseconds since 1970.
    pub timestamp: i64,
    /// Who states: a process, by one of the two lanes that take no predictions.
    pub writer: Writer,
    /// Gapless per writer, from 0.
    pub seq: u64,
    /// What.
    pub entry: Entry,
}

#[derive(Serialize, Deserialize)]
struct Line {
    timestamp: String,
    model_name: String,
    inputs: Entry,
    writer: String,
    seq: u64,
}

impl Stated {
    /// Writes the entry's line: the same bytes for the same entry, whichever store it has passed through.
    pub(crate) fn write_line(&self, out: &mut Vec<u8>) -> serde_json::Result<()> {
        let line = Line {
            timestamp: Timestamp::from_micros(self.timestamp).to_string(),
            model_name: LEDGER_MODEL.to_owned(),
            inputs: self.entry.clone(),
            writer: self.writer.to_string(),
            seq: self.seq,
        };
        serde_json::to_writer(&mut *out, &line)?;
        out.push(b'\n');
        Ok(())
    }

    /// From a line that [`write_line`](Self::write_line) made. `None` for any other.
    #[cfg(any(test, feature = "sqlite"))]
    pub(crate) fn from_line(line: &[u8]) -> Option<Self> {
        let timestamp = crate::record::timestamp_of_line(line)?;
        let line: Line = serde_json::from_slice(line).ok()?;
        Some(Stated { timestamp, writer: line.writer.parse().ok()?, seq: line.seq, entry: line.inputs })
    }
}

/// Entries on their way to a sink.
#[derive(Debug)]
pub(crate) struct Entries {
    writer: Writer,
    first_seq: u64,
    rows: u64,
    text: Vec<u8>,
    at: Timestamp,
}

impl Entries {
    /// None yet, by `writer`, whose next seq is `first_seq`.
    pub(crate) fn new(writer: Writer, first_seq: u64, at: Timestamp) -> Self {
        Entries { writer, first_seq, rows: 0, text: Vec::new(), at }
    }

    pub(crate) fn push(&mut self, entry: Entry) {
        let stated = Stated { timestamp: self.at.micros(), writer: self.writer, seq: self.first_seq + self.rows, entry };
        match stated.write_line(&mut self.text) {
            Ok(()) => self.rows += 1,
            // Texts and numbers always serialise.
            Err(error) => tracing::error!(%error, "a ledger entry cannot be written"),
        }
    }

    /// The process's last words: how many records each of its lanes has accepted in all.
    pub(crate) fn end(&mut self, accepted: &[u64]) {
        if accepted.iter().all(|&rows| rows == 0) {
            self.push(Entry::new(Kind::End, 0));
        }
        for (lane, &rows) in accepted.iter().enumerate().filter(|&(_, &rows)| rows > 0) {
            self.push(Entry::new(Kind::End, rows).about(Writer::new(self.writer.process(), lane as u8), 0, rows - 1));
        }
    }

    pub(crate) fn rows(&self) -> u64 {
        self.rows
    }

    /// The seq behind the last entry.
    pub(crate) fn next_seq(&self) -> u64 {
        self.first_seq + self.rows
    }

    pub(crate) fn chunk(&self) -> Chunk<'_> {
        let last = (self.first_seq + self.rows).saturating_sub(1);
        Chunk::from_lines(self.writer, self.rows, self.first_seq, last, &self.text)
    }
}

/// The writer of a process's own entries.
pub(crate) fn own_writer(process: Uuid) -> Writer {
    Writer::new(process, OWN_LANE)
}

/// Whether `writer` states entries, and logs no predictions.
#[cfg(any(feature = "sqlite", feature = "kafka", feature = "nats"))]
pub(crate) fn is_ledger(writer: Writer) -> bool {
    writer.lane() >= ADOPTED_LANE
}

/// The columns of entries in Parquet: always these, so that no file differs from another.
#[cfg(feature = "parquet")]
pub(crate) fn schema() -> crate::format::schema::ModelSchema {
    use crate::format::schema::{ColumnType, Field, ModelSchema, Side};
    let field = |(name, kind): (&str, ColumnType)| Field { name: name.to_owned(), kind };
    let fields = [
        ("kind", ColumnType::String),
        ("about", ColumnType::String),
        ("first", ColumnType::Int64),
        ("last", ColumnType::Int64),
        ("model_name", ColumnType::String),
        ("hour", ColumnType::String),
        ("rows", ColumnType::Int64),
        ("reason", ColumnType::String),
    ];
    let inputs = Side { bare: false, fields: fields.into_iter().map(field).collect() };
    ModelSchema { inputs, outputs: Side::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_a_line_like_any_other() {
        let process = Uuid::from_u128(7);
        let about = Writer::new(process, 3);
        let entry = Entry { model_name: Some("a\"b\n".to_owned()), ..Entry::new(Kind::Accepted, 5) }.about(about, 10, 14);
        let mut entries = Entries::new(own_writer(process), 41, Timestamp::from_micros(1_763_868_858_123_456));
        entries.push(entry.clone());
        entries.push(Entry::new(Kind::End, 0));
        let chunk = entries.chunk();
        let lines: Vec<_> = chunk.lines().collect();
        assert_eq!((lines.len(), chunk.first_seq, chunk.last_seq), (2, 41, 42));
        assert_eq!(crate::record::raw_model_name(lines[0].1), Some(LEDGER_MODEL.as_bytes()));
        assert_eq!(crate::record::writer_of_line(lines[1].1), Some((own_writer(process), 42)));
        let read = Stated::from_line(lines[0].1).unwrap();
        assert_eq!((read.entry, read.seq, read.timestamp), (entry, 41, 1_763_868_858_123_456));
        assert_eq!(Stated::from_line(b"{}\n"), None);
    }
}
