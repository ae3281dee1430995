//! The sqlite store against what goes wrong: locks, damage, a full disk, other processes, hostile names.
#![cfg(all(feature = "sqlite", feature = "conformance"))]

mod damage;
mod retain;
mod views;

use predlog::batch::{Batch, Chunk, Origin};
use predlog::clock::{Now, Timestamp};
use predlog::record::Writer;
use predlog::sink::conformance::{self, Harness, Row};
use predlog::sink::sqlite::{SqliteSettings, SqliteSink};
use predlog::sink::{Sink, SinkErrorKind};
use rusqlite::Connection;
use serde_json::Value;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use uuid::Uuid;

/// 2026-11-23T03:34:18.123456Z
const AT: i64 = 1_795_404_858_123_456;

fn settings(dir: &Path) -> SqliteSettings {
    SqliteSettings { dir: dir.to_owned(), busy_timeout: Duration::from_millis(40), ..SqliteSettings::default() }
}

fn now() -> Now {
    Now { monotonic: Duration::ZERO, wall: Timestamp::from_micros(AT) }
}

fn open(dir: &Path) -> SqliteSink {
    SqliteSink::open(settings(dir)).unwrap()
}

fn connect(dir: &Path) -> Connection {
    Connection::open(dir.join("predictions.db")).unwrap()
}

fn writer(process: u128) -> Writer {
    Writer::new(Uuid::from_u128(process), 0)
}

/// A line with the given raw JSON.
fn line(writer: Writer, seq: u64, at: i64, model: &str, inputs: &str, outputs: &str) -> String {
    let at = Timestamp::from_micros(at);
    let model = serde_json::to_string(model).unwrap();
    format!(
        "{{\"timestamp\":\"{at}\",\"model_name\":{model},\"id\":\"{seq}\",\"model_version\":\"1\",\"inputs\":{inputs},\"outputs\":{outputs},\
         \"writer\":\"{writer}\",\"seq\":{seq}}}\n"
    )
}

/// Records of one writer, without a gap.
struct Lines {
    writer: Writer,
    first: u64,
    last: u64,
    text: String,
}

/// `seqs` of a model `wine`, a second apart.
fn wine(process: u128, seqs: std::ops::Range<u64>) -> Lines {
    let line = |seq: u64| {
        let inputs = format!("{{\"alcohol\":{seq}.5,\"note\":\"{}\"}}", "x".repeat(100));
        line(writer(process), seq, AT + seq as i64 * 1_000_000, "wine", &inputs, "{\"score\":1}")
    };
    Lines { writer: writer(process), first: seqs.start, last: seqs.end - 1, text: seqs.map(line).collect() }
}

fn try_store(sink: &mut SqliteSink, id: u64, lines: &Lines) -> Result<Option<u64>, SinkErrorKind> {
    let chunk = Chunk::from_lines(lines.writer, lines.last - lines.first + 1, lines.first, lines.last, lines.text.as_bytes());
    let batch = Batch { id, origin: Origin::Live, chunks: vec![chunk] };
    sink.write(&batch).and_then(|()| sink.commit()).map_err(|error| error.kind)
}

fn store(sink: &mut SqliteSink, id: u64, lines: &Lines) {
    assert_eq!(try_store(sink, id, lines), Ok(Some(id)));
}

fn stored_seqs(dir: &Path) -> Vec<i64> {
    let conn = connect(dir);
    let mut select = conn.prepare("SELECT seq FROM predictions ORDER BY writer, seq").unwrap();
    select.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

struct Store {
    dir: tempfile::TempDir,
    lock: Option<Connection>,
    settings: fn(&Path) -> SqliteSettings,
}

impl Harness for Store {
    fn open(&mut self) -> Box<dyn Sink> {
        Box::new(SqliteSink::open((self.settings)(self.dir.path())).unwrap())
    }

    fn stored(&mut self) -> Vec<Row> {
        let conn = connect(self.dir.path());
        let mut select = conn.prepare("SELECT writer, seq, id, model_name, timestamp, inputs, outputs FROM predictions").unwrap();
        let parsed = |text: String| serde_json::from_str::<Value>(&text).unwrap();
        let rows = select.query_map([], |row| {
            Ok(Row {
                writer: row.get(0)?,
                seq: row.get::<_, i64>(1)? as u64,
                id: row.get(2)?,
                model_name: row.get(3)?,
                timestamp: row.get(4)?,
                inputs: parsed(row.get(5)?),
                outputs: parsed(row.get(6)?),
            })
        });
        rows.unwrap().map(Result::unwrap).collect()
    }

    fn fail(&mut self, failing: bool) -> bool {
        self.lock = failing.then(|| {
            let conn = connect(self.dir.path());
            conn.execute_batch("BEGIN EXCLUSIVE").unwrap();
            conn
        });
        true
    }
}

#[test]
fn keeps_the_contract() {
    let other = |dir: &Path| SqliteSettings { synchronous_full: true, index_timestamp: false, views: false, ..settings(dir) };
    let variants: [fn(&Path) -> SqliteSettings; 2] = [settings, other];
    for settings in variants {
        conformance::run(|| Store { dir: tempfile::tempdir().unwrap(), lock: None, settings });
    }
}

#[test]
fn a_lock_held_by_another_says_so_and_the_next_try_works() {
    let dir = tempfile::tempdir().unwrap();
    let mut sink = open(dir.path());
    let other = connect(dir.path());
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let lines = wine(1, 0..10);
    let chunk = Chunk::from_lines(lines.writer, 10, 0, 9, lines.text.as_bytes());
    let error = sink.write(&Batch { id: 1, origin: Origin::Live, chunks: vec![chunk] }).unwrap_err();
    assert_eq!(error.kind, SinkErrorKind::Unavailable);
    assert!(error.message.contains("busy_timeout=40ms") && error.message.contains("predictions.db"), "{error}");
    // One that starts while the lock is held works when it is free.
    let mut second = open(dir.path());
    drop(other);
    store(&mut sink, 2, &lines);
    store(&mut second, 1, &wine(2, 0..10));
    assert_eq!(stored_seqs(dir.path()).len(), 20);
}

#[test]
fn a_new_store_whose_file_is_locked_opens_and_works_when_the_lock_is_free() {
    let dir = tempfile::tempdir().unwrap();
    let other = connect(dir.path());
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let mut sink = open(dir.path());
    assert_eq!(try_store(&mut sink, 1, &wine(1, 0..10)), Err(SinkErrorKind::Unavailable));
    drop(other);
    store(&mut sink, 2, &wine(1, 0..10));
}

#[test]
fn a_failed_transaction_owns_none_of_its_batches() {
    let dir = tempfile::tempdir().unwrap();
    let mut sink = open(dir.path());
    let conn = connect(dir.path());
    conn.execute_batch("CREATE TRIGGER no BEFORE INSERT ON writers BEGIN SELECT raise(ABORT, 'no'); END").unwrap();
    assert_eq!(try_store(&mut sink, 1, &wine(1, 0..40)), Err(SinkErrorKind::Unavailable));
    conn.execute_batch("DROP TRIGGER no").unwrap();
    assert_eq!(sink.commit().unwrap(), None);
    store(&mut sink, 2, &wine(1, 20..40));
    store(&mut sink, 3, &wine(1, 0..40));
    store(&mut sink, 4, &wine(1, 40..50));
    let mut seqs = stored_seqs(dir.path());
    seqs.sort_unstable();
    assert_eq!(seqs, (0..50).collect::<Vec<_>>());
    let ranges = conn.query_row("SELECT count(*), min(first), max(last) FROM writers", [], |row| {
        Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?))
    });
    assert_eq!(ranges.unwrap(), (1, 0, 49));
}

#[test]
fn two_processes_write_one_file() {
    const ROLE: &str = "PREDLOG_TEST_SQLITE_WRITER";
    let settings = |dir: &Path| SqliteSettings { busy_timeout: Duration::from_secs(30), ..settings(dir) };
    if let Ok(role) = std::env::var(ROLE) {
        let (process, dir) = role.split_once(':').unwrap();
        let writer = writer(process.parse().unwrap());
        let mut sink = SqliteSink::open(settings(Path::new(dir))).unwrap();
        for batch in 0..40 {
            // Both have one model, whose features come one by one.
            let (first, last) = (batch * 25, batch * 25 + 24);
            let inputs = |seq| format!("{{\"f{batch}\":{seq},\"p{process}_{batch}\":1}}");
            let text = (first..=last).map(|seq| line(writer, seq, AT, "both", &inputs(seq), "{}")).collect();
            store(&mut sink, batch + 1, &Lines { writer, first, last, text });
        }
        sink.close(now()).unwrap();
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let start = |process: i32| {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "two_processes_write_one_file"]).env(ROLE, format!("{process}:{}", dir.path().display()));
        child.spawn().unwrap()
    };
    for mut child in [start(1), start(2)] {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(stored_seqs(dir.path()), (0..1_000).chain(0..1_000).collect::<Vec<_>>());
    let counts = connect(dir.path()).query_row("SELECT count(f0), count(f39), count(p2_39) FROM model_both", [], |row| {
        Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?))
    });
    assert_eq!(counts.unwrap(), (50, 50, 25));
}

#[test]
fn a_rowid_is_never_given_twice() {
    let dir = tempfile::tempdir().unwrap();
    let mut sink = open(dir.path());
    store(&mut sink, 1, &wine(1, 0..100));
    let conn = connect(dir.path());
    conn.execute_batch("DELETE FROM predictions").unwrap();
    store(&mut sink, 2, &wine(1, 100..101));
    let rowid: i64 = conn.query_row("SELECT rowid FROM predictions", [], |row| row.get(0)).unwrap();
    assert_eq!(rowid, 101);
}

#[test]
fn readers_work_while_writing_and_the_wal_is_cut_when_they_leave() {
    let dir = tempfile::tempdir().unwrap();
    let mut sink = open(dir.path());
    store(&mut sink, 1, &wine(1, 0..10));
    let reader = connect(dir.path());
    reader.execute_batch("BEGIN").unwrap();
    let count = || -> i64 { reader.query_row("SELECT count(*) FROM predictions", [], |row| row.get(0)).unwrap() };
    assert_eq!(count(), 10);
    let wal = dir.path().join("predictions.db-wal");
    let mut next = 10;
    while wal.metadata().unwrap().len() <= 33 << 20 {
        store(&mut sink, next, &wine(1, next..next + 20_000));
        sink.maintain(now(), false).unwrap();
        next += 20_000;
    }
    assert_eq!(count(), 10);
    reader.execute_batch("COMMIT").unwrap();
    sink.maintain(now(), false).unwrap();
    assert_eq!(wal.metadata().unwrap().len(), 0);
    assert_eq!(count(), next as i64);
}
