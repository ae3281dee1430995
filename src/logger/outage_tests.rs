//! Outages of a sink that, as brokers' sinks do, takes nothing after a failure until it was asked.

use super::*;
use crate::batch::{Batch, BatchSettings};
use crate::clock::Now;
use crate::ledger::{LedgerSettings, is_ledger};
use crate::sink::memory::MemorySink;
use crate::sink::{Kept, Maintained, Sink, SinkError, SinkErrorKind};
use bytesize::ByteSize;
use serde_json::{Value, json};
use std::path::Path;

const LONG: Duration = Duration::from_secs(30);

struct Asked {
    sink: MemorySink,
    down: bool,
}

impl Asked {
    fn note<T>(&mut self, result: Result<T, SinkError>) -> Result<T, SinkError> {
        self.down |= result.is_err();
        result
    }
}

impl Sink for Asked {
    fn name(&self) -> &'static str {
        "asked"
    }

    fn write(&mut self, batch: &Batch<'_>) -> Result<(), SinkError> {
        if self.down {
            return Err(SinkError::new("asked", SinkErrorKind::Unavailable, "nobody has asked"));
        }
        let written = self.sink.write(batch);
        self.note(written)
    }

    fn commit(&mut self) -> Result<Option<u64>, SinkError> {
        let committed = self.sink.commit();
        self.note(committed)
    }

    fn kept(&mut self) -> Kept {
        self.sink.kept()
    }

    fn maintain(&mut self, now: Now, force: bool) -> Result<Maintained, SinkError> {
        self.sink.maintain(now, force)
    }

    fn probe(&mut self) -> Result<(), SinkError> {
        self.sink.probe()?;
        self.down = false;
        Ok(())
    }

    fn spools(&self) -> bool {
        false
    }

    fn adopt(&mut self, segment: &Path) -> Result<(), SinkError> {
        self.sink.adopt(segment)
    }

    fn close(&mut self, now: Now) -> Result<Maintained, SinkError> {
        self.sink.close(now)
    }
}

/// With a ledger that has something to state at each turn, and little room.
fn open(overflow: Overflow, dir: &Path, sink: &MemorySink) -> (Logger, Guard) {
    let settings = LoggerSettings {
        overflow,
        durability: Durability::Process,
        queue_bytes: ByteSize::mib(4),
        lanes: Some(2),
        block_limit: Duration::from_micros(10),
        spool_max_bytes: ByteSize::kib(64),
        ..LoggerSettings::default()
    };
    let batch = BatchSettings { max_age: Duration::from_millis(5), ..BatchSettings::default() };
    let ledger = LedgerSettings { every: Duration::from_millis(5), ..LedgerSettings::default() };
    let sink = Box::new(Asked { sink: sink.clone(), down: false });
    Logger::builder(settings).batch(batch).ledger(ledger).dir(dir).sink(sink).open().unwrap()
}

fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !holds() {
        assert!(Instant::now() < deadline, "{what} does not hold after {LONG:?}");
        std::thread::yield_now();
    }
}

/// Logs large records until `count` were dropped.
fn log_until_dropped(logger: &Logger, count: u64) -> u64 {
    let (mut dropped, text) = (0, "x".repeat(10_000));
    while dropped < count {
        let outcome = logger.log_parts("m", "1", &json!({"text": text, "n": fastrand::u64(..)}), &0.5);
        dropped += u64::from(matches!(outcome, Outcome::Dropped(_)));
    }
    dropped
}

fn fill_while_down(logger: &Logger, sink: &MemorySink) -> u64 {
    assert!(matches!(logger.log_parts("m", "1", &1, &2), Outcome::Accepted { .. }));
    assert!(logger.flush(LONG));
    sink.fail_with(Some(SinkErrorKind::Unavailable));
    assert!(matches!(logger.log_parts("m", "1", &1, &2), Outcome::Accepted { .. }));
    wait_for("the failure is noticed", || logger.health().is_err());
    log_until_dropped(logger, 100)
}

fn predictions(sink: &MemorySink) -> u64 {
    sink.records().iter().filter(|record| !is_ledger(record.writer)).count() as u64
}

#[test]
fn it_delivers_again_however_full_queue_and_spool_were() {
    for overflow in [Overflow::Drop, Overflow::Block, Overflow::Spill] {
        let (dir, sink) = (tempfile::tempdir().unwrap(), MemorySink::new());
        let (logger, guard) = open(overflow, dir.path(), &sink);
        fill_while_down(&logger, &sink);
        sink.fail_with(None);
        assert!(logger.flush(LONG), "{overflow:?}: {:?}", logger.health());
        logger.health().unwrap();
        assert_eq!(predictions(&sink), logger.snapshot().accepted, "{overflow:?}");
        let report = guard.shutdown(LONG);
        assert_eq!((report.accepted, report.on_disk), (report.delivered, 0), "{overflow:?}");
    }
}

#[test]
fn what_was_dropped_is_stated_by_the_next_start_when_the_sink_never_came_back() {
    for overflow in [Overflow::Drop, Overflow::Spill] {
        let (dir, sink) = (tempfile::tempdir().unwrap(), MemorySink::new());
        let (logger, guard) = open(overflow, dir.path(), &sink);
        let dropped = fill_while_down(&logger, &sink);
        let report = guard.shutdown(Duration::from_millis(50));
        assert_eq!(report.accepted, report.delivered + report.on_disk, "{report:?}");

        sink.fail_with(None);
        let (logger, guard) = open(overflow, dir.path(), &sink);
        wait_for("all is delivered", || predictions(&sink) == report.accepted);
        guard.shutdown(LONG);
        drop(logger);
        let stated = sink.records().into_iter().filter(|record| is_ledger(record.writer)).map(|record| {
            let line: Value = serde_json::from_slice(&record.line).unwrap();
            let told = |entry: &Value| entry["kind"] == "dropped";
            if told(&line["inputs"]) { line["inputs"]["rows"].as_u64().unwrap() } else { 0 }
        });
        assert_eq!(stated.sum::<u64>(), dropped, "{overflow:?}");
    }
}
