//! Changing modes, replays and migrations: whatever moves, each record is where it belongs, once.
#![cfg(feature = "cli")]

mod change;
mod migrate;
mod migrate_nats;
mod replay;
#[path = "../support/mod.rs"]
mod support;

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use predlog::config::kafka::KafkaSettings;
use predlog::config::{Mode, Store};
use predlog::{Config, Logger, Outcome};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use support::kafka::{Kafka, Options, read_topic};
use support::process::wait_until;

const LONG: Duration = Duration::from_secs(60);

/// One broker for all tests of this file; each has topics of its own.
fn broker() -> &'static Kafka {
    static BROKER: OnceLock<Kafka> = OnceLock::new();
    BROKER.get_or_init(|| Kafka::start(&Options::default()))
}

fn new_topic(settings: &[(&str, &str)]) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let topic = format!("topic-{}", NEXT.fetch_add(1, Ordering::Relaxed));
    broker().create_topic_with(&topic, 2, settings);
    broker().create_topic(&format!("{topic}-ledger"), 1);
    topic
}

fn kafka(dir: &Path, topic: &str) -> Config {
    let mut config = Config { mode: Mode::Kafka, ..Config::default() };
    config.kafka = KafkaSettings { brokers: broker().bootstrap(), topic: topic.to_owned(), ..KafkaSettings::default() };
    config.kafka.fallback.dir = dir.to_owned();
    config.direct.dir = dir.to_owned();
    config
}

/// The part of a configuration file that says where Kafka is.
fn toml(dir: &Path, topic: &str) -> String {
    let brokers = broker().bootstrap();
    format!("[direct]\ndir = {dir:?}\n[kafka]\nbrokers = \"{brokers}\"\ntopic = \"{topic}\"\n[kafka.fallback]\ndir = {dir:?}\n")
}

fn predlog(dir: &Path, toml: &str, args: &[&str]) -> (Option<i32>, String, String) {
    let file = dir.join("predlog.toml");
    std::fs::write(&file, toml).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_predlog"));
    command.args(args).arg("--config").arg(&file).current_dir(dir).env_remove("PREDLOG_CONFIG").env_remove("RUST_LOG");
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// The lines of a topic, sorted.
fn lines(topic: &str, at_least: usize) -> Vec<Vec<u8>> {
    let messages = read_topic(&broker().bootstrap(), topic, at_least);
    let mut lines: Vec<Vec<u8>> = messages.into_iter().map(|message| message.value.expect("a value")).collect();
    lines.sort();
    lines
}

fn value(line: &[u8]) -> Value {
    serde_json::from_slice(line).expect("a line is JSON")
}

/// Who and which, of each line of a topic: as often as it is there.
fn records(topic: &str, at_least: usize) -> Vec<(String, u64)> {
    let key = |line: &Vec<u8>| {
        let value = value(line);
        (value["writer"].as_str().expect("a writer").to_owned(), value["seq"].as_u64().expect("a seq"))
    };
    let mut records: Vec<_> = lines(topic, at_least).iter().map(key).collect();
    records.sort();
    records
}

/// A place for predictions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Sqlite,
    Parquet,
    Kafka,
}

/// A configuration for `place`. Brokers that are away leave all of a server's records in its directory.
fn toml_for(place: Place, dir: &Path, fallback: &Path, topic: &str, away: bool) -> String {
    let (mode, store) = match place {
        Place::Sqlite => ("direct", "sqlite"),
        Place::Parquet => ("direct", "parquet"),
        Place::Kafka => ("kafka", "sqlite"),
    };
    let brokers = if away { "127.0.0.1:9".to_owned() } else { broker().bootstrap() };
    format!(
        "mode = \"{mode}\"\n[direct]\nstore = \"{store}\"\ndir = {dir:?}\n[batch]\nmax_rows = 3000\nmax_age = \"30s\"\n\
         [kafka]\nbrokers = \"{brokers}\"\ntopic = \"{topic}\"\ndeadline = \"1s\"\n[kafka.fallback]\ndir = {fallback:?}\n"
    )
}

type Record = (String, u64);

fn in_sqlite(dir: &Path) -> Vec<Record> {
    let path = dir.join("predictions.db");
    if !path.exists() {
        return Vec::new();
    }
    let database = rusqlite::Connection::open(path).unwrap();
    let mut rows = database.prepare("SELECT writer, seq FROM predictions").unwrap();
    rows.query_map([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?.cast_unsigned()))).unwrap().map(Result::unwrap).collect()
}

/// The rows of all Parquet files below a directory.
fn in_files(dir: &Path) -> Vec<Record> {
    let mut records = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            records.extend(in_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "parquet") {
            let reader = ParquetRecordBatchReaderBuilder::try_new(std::fs::File::open(path).unwrap()).unwrap().build().unwrap();
            for batch in reader {
                let batch = batch.unwrap();
                let writers = batch.column_by_name("writer").unwrap().as_string::<i32>();
                let seqs = batch.column_by_name("seq").unwrap().as_primitive::<Int64Type>();
                let rows = writers.iter().zip(seqs.values());
                records.extend(rows.map(|(writer, seq)| (writer.unwrap().to_owned(), seq.cast_unsigned())));
            }
        }
    }
    records
}

/// A topic's records. A replay may be there twice, as the same message.
fn in_topic(topic: &str) -> Vec<Record> {
    let mut found = records(topic, 0);
    found.dedup();
    found
}

fn everywhere(dir: &Path, topic: &str) -> Vec<Record> {
    let mut all = [in_sqlite(dir), in_files(&dir.join("predictions")), in_topic(topic)].concat();
    all.sort();
    all
}
