//! A SQLite store's history.

use super::{Mark, Records, Source, State};
use crate::error::{Error, ErrorKind};
use crate::sink::SinkError;
use crate::sink::sqlite::{HistoryTable, SqliteHistory};
use std::path::Path;

/// A batch's rows at most; it may be full before.
const BATCH_ROWS: u32 = 10_000;
/// The ledger's entries behind the predictions that they are about.
const TABLES: [HistoryTable; 2] = [HistoryTable::Predictions, HistoryTable::Ledger];

/// The tables of a database, each a part, by rowid.
#[derive(Debug)]
pub(crate) struct SqliteSource {
    history: SqliteHistory,
    /// Rows that no logger wrote, and that nobody could tell apart.
    pub(crate) foreign: u64,
}

impl SqliteSource {
    /// # Errors
    /// The file is missing or not one of ours.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        Ok(SqliteSource { history: SqliteHistory::open(path).map_err(failed)?, foreign: 0 })
    }

    /// Records that `state` does not have.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(crate) fn left(&self, state: &State) -> Result<u64, Error> {
        TABLES.iter().map(|table| self.history.count(*table, through(state, *table)).map_err(failed)).sum()
    }
}

impl Source for SqliteSource {
    fn next(&mut self, state: &State, records: &mut Records) -> Result<Option<Mark>, Error> {
        for table in TABLES {
            let foreign = &mut self.foreign;
            let mut each = |line: &[u8]| {
                *foreign += u64::from(!records.push(line));
                !records.is_full()
            };
            if let Some(last) = self.history.lines(table, through(state, table), BATCH_ROWS, &mut each).map_err(failed)? {
                return Ok(Some(Mark { part: table.name().to_owned(), through: last.unsigned_abs() }));
            }
        }
        Ok(None)
    }
}

/// Rowids start at 1.
fn through(state: &State, table: HistoryTable) -> i64 {
    i64::try_from(state.through(table.name())).unwrap_or(i64::MAX)
}

fn failed(error: SinkError) -> Error {
    Error::new(ErrorKind::Storage, error.message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{Batch, Chunk, Origin};
    use crate::resend::{Sender, send_all};
    use crate::sink::Sink;
    use crate::sink::memory::{MemorySink, Stored};
    use crate::sink::sqlite::{SqliteSettings, SqliteSink};
    use crate::{Logger, LoggerSettings, Outcome, Prediction};
    use serde_json::{Value, json};
    use std::time::Duration;

    /// Lines as `log()` makes them, of everything that columns might not hold.
    fn logged() -> Vec<Stored> {
        let sink = MemorySink::new();
        let dir = tempfile::tempdir().unwrap();
        let settings =
            LoggerSettings { max_record_bytes: bytesize::ByteSize::kib(1), lanes: Some(1), ..LoggerSettings::default() };
        let (logger, guard) = Logger::builder(settings).dir(dir.path()).sink(Box::new(sink.clone())).open().unwrap();
        let inputs = [
            json!({"n": u64::MAX, "min": i64::MIN, "x": 5e-324, "big": 1e300, "neg": -0.0, "one": 1.0}),
            json!({"text": "\u{7}\"\\\n\u{1f377}\u{2028}", "": null, "list": [1, 2.5, [], {}], "deep": {"a": {"b": []}}}),
            json!({"large": "x".repeat(3_000)}),
            Value::Null,
            json!([1, "2"]),
        ];
        let long = "e".repeat(2_000);
        for inputs in &inputs {
            let plain = Prediction::new("wine", "", inputs, &f64::NAN);
            let full = Prediction::new("a\"\u{e9}", "1", inputs, &[f64::INFINITY, 1.0 / 3.0])
                .id("i\n")
                .request_id("r")
                .row_index(u64::MAX)
                .status_code(65_535)
                .error("e\"")
                .latency_ms(f64::NAN)
                .sample_weight(f64::NEG_INFINITY)
                .metadata(&[("k", "v\u{1}"), ("k", "w"), ("", "")])
                .traceparent("00-");
            assert!(matches!(logger.log(plain), Outcome::Accepted { .. }));
            assert!(matches!(logger.log(full.clone().error(&long)), Outcome::Accepted { .. }));
            assert!(matches!(logger.log(full), Outcome::Accepted { .. }));
        }
        assert_eq!(guard.shutdown(Duration::from_secs(30)).delivered, 15);
        sink.records()
    }

    fn store(dir: &Path, records: &[Stored]) {
        let mut sink = SqliteSink::open(SqliteSettings { dir: dir.to_owned(), ..SqliteSettings::default() }).unwrap();
        for (id, record) in (1..).zip(records) {
            let chunk = Chunk::from_lines(record.writer, 1, record.seq, record.seq, &record.line);
            sink.write(&Batch { id, origin: Origin::Live, chunks: vec![chunk] }).unwrap();
            assert_eq!(sink.commit().unwrap(), Some(id));
        }
    }

    fn send(dir: &Path, sink: &MemorySink) -> u64 {
        let mut source = SqliteSource::open(&dir.join("predictions.db")).unwrap();
        let mut state = State::load(dir.join("state"), "memory").unwrap();
        let left = source.left(&state).unwrap();
        let mut sender = Sender::new(Box::new(sink.clone()), Default::default(), Duration::ZERO, Default::default());
        let sent = send_all(&mut source, &mut sender, &mut state, &mut |_| true).unwrap();
        assert_eq!((sent, source.foreign), (left, 0));
        sent
    }

    #[test]
    fn rows_are_the_lines_that_were_logged_byte_for_byte_and_are_sent_once() {
        let (dir, sink, records) = (tempfile::tempdir().unwrap(), MemorySink::new(), logged());
        store(dir.path(), &records[..9]);
        assert_eq!(send(dir.path(), &sink), 9);
        assert_eq!(send(dir.path(), &sink), 0);
        store(dir.path(), &records[9..]);
        assert_eq!(send(dir.path(), &sink), 6);
        for (found, given) in sink.records().iter().zip(&records) {
            assert_eq!(String::from_utf8_lossy(&found.line), String::from_utf8_lossy(&given.line));
        }
        assert_eq!(sink.records(), records);
    }
}
