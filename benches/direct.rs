//! From `log()` to a stored row: `cargo bench --bench direct [-- rows]`.
//!
//! Typed predictions of 12 features, one thread that logs flat out with `overflow = "block"`, until all are in committed SQLite transactions or in sealed
//! Parquet files; beside a bare rusqlite loop with the same table and transactions, and arrow-json + ArrowWriter over the same lines. Each in a process of
//! its own, in turn, so that CPU time and peak memory are its own.

mod support;

use arrow_json::ReaderBuilder;
use arrow_json::reader::infer_json_schema;
use bytesize::ByteSize;
use parquet::arrow::ArrowWriter;
use predlog::config::Store;
use predlog::{Config, Logger, Outcome, Overflow, Prediction};
use std::io::{BufRead, Cursor, Write};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};
use support::{cpu_seconds, features, median, peak_rss_mib};

const ROUNDS: usize = 5;
const TRANSACTION: usize = 20_000;
/// Longer than any run: a deadline that never comes.
const LONG: Duration = Duration::from_secs(600);

/// What the `predlog` program asks of glibc's allocator at its start (see `src/cli/memory.rs`), for all alike.
#[cfg(target_env = "gnu")]
fn keep_memory() {
    // SAFETY: mallopt only sets parameters, and no other thread runs yet.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 1 << 30);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 1 << 30);
    }
}

#[cfg(not(target_env = "gnu"))]
fn keep_memory() {}

type Run = fn(u64, &Path) -> f64;

const RUNS: [(&str, Run); 6] = [
    ("predlog to sqlite", |rows, dir| predlog(rows, dir, Store::Sqlite, false)),
    ("bare rusqlite loop", rusqlite_loop),
    ("predlog to parquet", |rows, dir| predlog(rows, dir, Store::Parquet, false)),
    ("predlog to parquet, encoded", |rows, dir| predlog(rows, dir, Store::Parquet, true)),
    ("arrow-json + ArrowWriter", arrow_json),
    ("arrow-json, 2 threads", arrow_json_two_threads),
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let rows = arguments.first().and_then(|rows| rows.parse().ok()).unwrap_or(4_000_000);
    keep_memory();
    if let Some(run) = arguments.get(1).and_then(|name| RUNS.iter().find(|run| run.0 == name)) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let seconds = run.1(rows, dir.path());
        println!("{seconds} {} {}", cpu_seconds(), peak_rss_mib());
        return;
    }
    let mut figures = vec![[Vec::new(), Vec::new(), Vec::new()]; RUNS.len()];
    for round in 0..ROUNDS {
        eprintln!("round {} of {ROUNDS}", round + 1);
        for (figures, (name, _)) in figures.iter_mut().zip(RUNS) {
            let this = std::env::current_exe().expect("this program");
            let output = Command::new(this).arg(rows.to_string()).arg(name).output().expect("the run starts");
            assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
            let text = String::from_utf8(output.stdout).expect("numbers");
            figures.iter_mut().zip(text.split_whitespace()).for_each(|(of, number)| of.push(number.parse().expect("a number")));
        }
    }
    println!(
        "\ndirect: {rows} predictions, medians of {ROUNDS} rounds\n{:<28} {:>12} {:>12} {:>10}",
        "", "rows/s", "CPU us/row", "peak MiB"
    );
    let rate = |at: usize| rows as f64 / median(figures[at][0].clone());
    for (at, (name, _)) in RUNS.iter().enumerate() {
        let (cpu, rss) = (median(figures[at][1].clone()), median(figures[at][2].clone()));
        println!("{name:<28} {:>12.0} {:>12.2} {:>10.0}", rate(at), cpu * 1e6 / rows as f64, rss);
    }
    println!("sqlite: predlog / bare rusqlite loop = {:.2}", rate(0) / rate(1));
    println!(
        "parquet: predlog / arrow-json + ArrowWriter = {:.2}, with two threads of it = {:.2}",
        rate(2) / rate(4),
        rate(2) / rate(5)
    );
}

fn config(dir: &Path, store: Store) -> Config {
    let mut config = Config::default();
    config.direct.dir = dir.to_owned();
    config.direct.store = store;
    config.logger.overflow = Overflow::Block;
    config.logger.block_limit = Duration::from_secs(60);
    config.rotation.max_rows = 250_000;
    config
}

/// Seconds until everything is in its final place. `encoded`: inputs and outputs are JSON already.
fn predlog(rows: u64, dir: &Path, store: Store, encoded: bool) -> f64 {
    let predictions: Vec<_> = (0..4096).map(features).collect();
    let raw: Vec<_> = predictions
        .iter()
        .map(|(inputs, outputs)| {
            let raw = |text: String| serde_json::value::RawValue::from_string(text).expect("JSON");
            (raw(serde_json::to_string(inputs).expect("JSON")), raw(serde_json::to_string(outputs).expect("JSON")))
        })
        .collect();
    let (logger, guard) = Logger::open(&config(dir, store)).expect("a logger");
    let start = Instant::now();
    for n in 0..rows {
        let at = (n % 4096) as usize;
        let outcome = if encoded {
            logger.log(Prediction::new("churn", "v2", &raw[at].0, &raw[at].1))
        } else {
            logger.log(Prediction::new("churn", "v2", &predictions[at].0, &predictions[at].1))
        };
        assert!(matches!(outcome, Outcome::Accepted { .. }), "{outcome:?}");
    }
    assert!(logger.flush(LONG), "flushed");
    let seconds = start.elapsed().as_secs_f64();
    let report = guard.shutdown(LONG);
    assert_eq!(report.delivered, rows);
    seconds
}

/// The same columns and index, the values at hand, `TRANSACTION` rows a transaction.
fn rusqlite_loop(rows: u64, dir: &Path) -> f64 {
    let lines = lines(4096);
    let values: Vec<serde_json::Value> = lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let texts: Vec<(String, String)> =
        values.iter().map(|value| (value["inputs"].to_string(), value["outputs"].to_string())).collect();
    let database = rusqlite::Connection::open(dir.join("bare.db")).expect("a database");
    database
        .execute_batch(
            "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;
             CREATE TABLE predictions(rowid INTEGER PRIMARY KEY AUTOINCREMENT, timestamp INTEGER, model_name TEXT, id TEXT, model_version TEXT, inputs TEXT,
               outputs TEXT, request_id TEXT, row_index INTEGER, status_code INTEGER, error TEXT, latency_ms REAL, sample_weight REAL,
               metadata TEXT, traceparent TEXT, writer TEXT, seq INTEGER, extra TEXT);
             CREATE INDEX by_timestamp ON predictions(timestamp);",
        )
        .expect("a table");
    let start = Instant::now();
    let mut n = 0;
    while n < rows {
        database.execute_batch("BEGIN IMMEDIATE").expect("a transaction");
        let mut insert = database
            .prepare_cached(
                "INSERT INTO predictions(timestamp, model_name, id, model_version, inputs, outputs, request_id, row_index, status_code, error, latency_ms,
                   sample_weight, metadata, traceparent, writer, seq, extra) VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
            )
            .expect("a statement");
        for _ in 0..TRANSACTION.min((rows - n) as usize) {
            let (value, (inputs, outputs)) = (&values[(n % 4096) as usize], &texts[(n % 4096) as usize]);
            let none = Option::<&str>::None;
            insert
                .execute(rusqlite::params![
                    1_763_868_858_000_000 + n as i64,
                    "churn",
                    value["id"].as_str(),
                    "v2",
                    inputs,
                    outputs,
                    none,
                    none,
                    none,
                    none,
                    none,
                    none,
                    none,
                    none,
                    value["writer"].as_str(),
                    n as i64,
                    none
                ])
                .expect("a row");
            n += 1;
        }
        drop(insert);
        database.execute_batch("COMMIT").expect("committed");
    }
    start.elapsed().as_secs_f64()
}

/// Lines as predlog makes them.
fn lines(count: u64) -> String {
    (0..count)
        .map(|n| {
            let (inputs, outputs) = features(n);
            let line = serde_json::json!({
                "timestamp": "2026-11-23T03:34:18.123456Z", "model_name": "churn", "id": uuid::Uuid::now_v7().to_string(), "model_version": "v2",
                "inputs": inputs, "outputs": outputs, "writer": "0199aa00-0000-7000-8000-000000000000-00", "seq": n,
            });
            format!("{line}\n")
        })
        .collect()
}

fn arrow_json(rows: u64, dir: &Path) -> f64 {
    let lines = lines(100_000);
    let start = Instant::now();
    encode(&lines, rows, &dir.join("arrow.parquet"));
    start.elapsed().as_secs_f64()
}

fn arrow_json_two_threads(rows: u64, dir: &Path) -> f64 {
    let lines = lines(100_000);
    let start = Instant::now();
    std::thread::scope(|scope| {
        for half in 0..2 {
            let (lines, path) = (&lines, dir.join(format!("arrow-{half}.parquet")));
            scope.spawn(move || encode(lines, rows / 2, &path));
        }
    });
    start.elapsed().as_secs_f64()
}

/// Decodes the lines, again and again until there are `rows`, and writes them with zstd level 1 as predlog does.
fn encode(lines: &str, rows: u64, path: &Path) {
    let (schema, _) =
        infer_json_schema(Cursor::new(&lines[..ByteSize::mib(1).as_u64() as usize].rsplit_once('\n').expect("lines").0), None)
            .expect("a schema");
    let schema = Arc::new(schema);
    let compression = parquet::basic::Compression::ZSTD(parquet::basic::ZstdLevel::try_new(1).expect("a level"));
    let properties = parquet::file::properties::WriterProperties::builder().set_compression(compression).build();
    let file = std::fs::File::create(path).expect("a file");
    let mut writer = ArrowWriter::try_new(file, Arc::clone(&schema), Some(properties)).expect("a writer");
    let mut decoder = ReaderBuilder::new(schema).with_batch_size(8_192).build_decoder().expect("a decoder");
    let mut left = rows;
    while left > 0 {
        let mut reader = Cursor::new(lines);
        while left > 0 {
            let bytes = reader.fill_buf().expect("memory");
            if bytes.is_empty() {
                break;
            }
            let used = decoder.decode(bytes).expect("JSON");
            reader.consume(used);
            if let Some(batch) = decoder.flush().expect("a batch") {
                let batch = batch.slice(0, batch.num_rows().min(left as usize));
                left -= batch.num_rows() as u64;
                writer.write(&batch).expect("written");
            }
        }
    }
    let mut file = writer.into_inner().expect("finished");
    file.flush().expect("flushed");
    file.sync_all().expect("synced");
}
