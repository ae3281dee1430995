//! Changing modes, replays and migrations: whatever moves, each record is where it belongs, once.
#![cfg(feature = "cli")]

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

/// A server as a process, killed when dropped.
struct Serving {
    child: Child,
    url: String,
}

impl Serving {
    fn start(dir: &Path, toml: &str) -> Self {
        let file = dir.join("serve.toml");
        std::fs::write(&file, toml).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_predlog"));
        command.args(["serve", "--addr", "127.0.0.1:0", "--config"]).arg(&file).current_dir(dir);
        let mut child = command.env_remove("PREDLOG_CONFIG").stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut greeting = String::new();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        while !greeting.contains("and then: ") {
            assert_ne!(out.read_line(&mut greeting).unwrap(), 0, "the server ended: {greeting}");
        }
        let url = greeting.split_whitespace().find(|word| word.starts_with("http://")).unwrap().to_owned();
        Serving { child, url }
    }

    /// Logs the rows of these numbers.
    fn post(&self, numbers: std::ops::Range<u64>) {
        let (url, rows) = (format!("{}/v1/predictions", self.url), numbers.end - numbers.start);
        let body: Vec<Value> = numbers
            .map(|n| json!({"model_name": if n % 3 == 0 { "beer" } else { "wine" }, "inputs": {"n": n}, "outputs": 1}))
            .collect();
        let request = reqwest::blocking::Client::new().post(url).header("content-type", "application/json");
        let answer: Value = serde_json::from_str(&request.body(json!(body).to_string()).send().unwrap().text().unwrap()).unwrap();
        assert_eq!(answer["accepted"], rows, "{answer}");
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // As kill -9 does. An error means that it has already ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Text that does not compress: the broker looks at the compressed size.
fn noise(len: usize) -> String {
    let mut random = fastrand::Rng::with_seed(7);
    (0..len).map(|_| random.alphanumeric()).collect()
}

#[test]
fn dead_letters_are_replayed_once_the_topic_takes_them() {
    let (dir, topic) = (tempfile::tempdir().unwrap(), new_topic(&[("max.message.bytes", "20000")]));
    let mut config = kafka(dir.path(), &topic);
    config.kafka.properties.0.insert("batch.num.messages".to_owned(), "1".to_owned());
    let (logger, guard) = Logger::open(&config).unwrap();
    for n in 0..12 {
        let text = if n < 3 { noise(60_000) } else { "small".to_owned() };
        assert!(matches!(logger.log_parts("wine", "1", &json!({"n": n, "text": text}), &1), Outcome::Accepted { .. }));
    }
    assert!(logger.flush(LONG), "{:?}", logger.health());
    assert_eq!(logger.snapshot().unstorable, 3);
    // The server goes on meanwhile.
    let toml = format!("mode = \"kafka\"\n{}[kafka.properties]\n\"batch.num.messages\" = 1\n", toml(dir.path(), &topic));
    let replay = |args: &[&str]| predlog(dir.path(), &toml, &[&["replay"], args].concat());
    let (code, said, errors) = replay(&["--dry-run"]);
    assert_eq!((code, said.as_str()), (Some(1), "sent=0 refused_again=0 left=3 torn_files=0\n"), "{errors}");
    let (code, said, errors) = replay(&[]);
    assert_eq!((code, said.as_str()), (Some(1), "sent=0 refused_again=3 left=0 torn_files=0\n"), "{errors}");
    broker().set_topic(&topic, "max.message.bytes", "1000000");
    let (code, said, errors) = replay(&[]);
    assert_eq!((code, said.as_str()), (Some(0), "sent=3 refused_again=0 left=0 torn_files=0\n"), "{errors}");
    let (code, said, errors) = replay(&[]);
    assert_eq!((code, said.as_str()), (Some(0), "sent=0 refused_again=0 left=0 torn_files=0\n"), "{errors}");
    guard.shutdown(LONG);
    let mut numbers: Vec<u64> =
        lines(&topic, 12).iter().map(|line| value(line)["inputs"]["n"].as_u64().expect("a number")).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..12).collect::<Vec<_>>());
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

fn direct(dir: &Path, store: Store) -> Config {
    let mut config = Config::default();
    (config.direct.dir, config.direct.store) = (dir.to_owned(), store);
    config.kafka.fallback.dir = dir.to_owned();
    config
}

/// Logs so many predictions, and ends the logger; all of them are delivered.
fn log(config: &Config, rows: u64) {
    let (logger, guard) = Logger::open(config).unwrap();
    for n in 0..rows {
        let model = if n % 3 == 0 { "beer" } else { "wine" };
        let outcome = logger.log_parts(model, "1", &json!({"n": n, "x": 0.1, "text": "\u{e9}\""}), &json!([0.5, 2]));
        assert!(matches!(outcome, Outcome::Accepted { .. }), "{outcome:?}");
    }
    let report = guard.shutdown(LONG);
    assert_eq!((report.delivered, report.on_disk), (rows, 0), "{report:?}");
}

#[test]
fn a_history_is_migrated_to_kafka_once() {
    for store in [Store::Sqlite, Store::Parquet] {
        let (dir, topic) = (tempfile::tempdir().unwrap(), new_topic(&[]));
        let data = dir.path().join("data");
        let from = match store {
            Store::Sqlite => format!("sqlite:{}/predictions.db", data.display()),
            Store::Parquet => format!("parquet:{}", data.display()),
        };
        let toml = toml(&dir.path().join("fallback"), &topic);
        let migrate = || predlog(dir.path(), &toml, &["migrate", "--from", &from, "--to", "kafka"]);
        log(&direct(&data, store), 3_000);
        let (code, said, errors) = migrate();
        assert_eq!(code, Some(0), "{said}{errors}");
        let statements = lines(&format!("{topic}-ledger"), 1).len();
        assert_eq!(said, format!("sent={} refused=0 foreign=0\n", 3_000 + statements), "{errors}");
        let (code, said, errors) = migrate();
        assert_eq!((code, said.as_str()), (Some(0), "sent=0 refused=0 foreign=0\n"), "{errors}");
        log(&direct(&data, store), 10);
        assert_eq!(migrate().0, Some(0));
        let found = records(&topic, 3_010);
        let once: BTreeSet<_> = found.iter().cloned().collect();
        assert_eq!((found.len(), once.len()), (3_010, 3_010), "{store:?}");
        let wine = lines(&topic, 0).iter().map(|line| value(line)).find(|line| line["inputs"]["n"] == 1).expect("a prediction");
        assert_eq!((&wine["inputs"], &wine["outputs"]), (&json!({"n": 1, "x": 0.1, "text": "\u{e9}\""}), &wine["outputs"]));
        assert_eq!(wine["outputs"].to_string().replace(".0", ""), "[0.5,2]");
        // The ledger came with the records, so the topic can be audited.
        let toml = format!("mode = \"kafka\"\n{toml}");
        let (code, said, errors) = predlog(dir.path(), &toml, &["audit"]);
        assert_eq!(code, Some(0), "{said}{errors}");
    }
}

#[test]
fn a_migration_that_is_killed_goes_on_where_it_was() {
    const ROWS: usize = 60_000;
    let (dir, topic) = (tempfile::tempdir().unwrap(), new_topic(&[]));
    log(&direct(&dir.path().join("data"), Store::Sqlite), ROWS as u64);
    let (from, state) = (dir.path().join("data/predictions.db"), dir.path().join("data/predictions.db.sent-to-kafka"));
    let file = dir.path().join("migrate.toml");
    std::fs::write(&file, toml(&dir.path().join("fallback"), &topic)).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_predlog"));
    command.args(["migrate", "--to", "kafka", "--from", &format!("sqlite:{}", from.display()), "--config"]).arg(&file);
    let noted = || std::fs::read_to_string(&state).map_or(0, |text| text.lines().count());
    for batches in [3, 5] {
        let mut child = command.spawn().unwrap();
        wait_until("some batches are noted", LONG, || noted() >= batches || child.try_wait().unwrap().is_some());
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert!(command.status().unwrap().success());
    let found = records(&topic, ROWS);
    let once: BTreeSet<_> = found.iter().collect();
    assert_eq!(once.len(), ROWS);
    assert!(found.len() - ROWS <= 2 * 10_000, "{} records too many", found.len() - ROWS);
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

/// What a server leaves that is killed in one mode is delivered by the next start in another, which may be killed as well.
fn changes(from: Place, to: Place, one_directory: bool) {
    const ROWS: u64 = 7_000;
    let (dir, topic) = (tempfile::tempdir().unwrap(), new_topic(&[]));
    let data = dir.path().join("data");
    let fallback = if one_directory { data.clone() } else { dir.path().join("fallback") };
    let before = Serving::start(dir.path(), &toml_for(from, &data, &fallback, &topic, true));
    (0..7).for_each(|step| before.post(step * 1_000..(step + 1) * 1_000));
    drop(before);
    let stored = everywhere(&data, &topic).len();
    assert!(stored < ROWS as usize, "{from:?} {to:?}: nothing is left to deliver");
    let toml = toml_for(to, &data, &fallback, &topic, false);
    for _ in 0..2 {
        drop(Serving::start(dir.path(), &toml));
    }
    let (logger, guard) = Logger::open(&Config::from_toml(&toml).unwrap()).unwrap();
    let nothing_waits = |dir: &Path| std::fs::read_dir(dir.join("writers")).map_or(0, Iterator::count);
    wait_until("only the own directory is left", LONG, || {
        nothing_waits(&data) + usize::from(!one_directory) * nothing_waits(&fallback) == 1
    });
    drop(logger);
    let report = guard.shutdown(LONG);
    assert_eq!(report.problem, None, "{from:?} {to:?}");
    let all = everywhere(&data, &topic);
    let once: BTreeSet<_> = all.iter().collect();
    assert_eq!((all.len(), once.len()), (ROWS as usize, ROWS as usize), "{from:?} {to:?}, {stored} were stored before");
}

#[test]
fn what_a_store_has_not_taken_goes_to_kafka_when_the_mode_is_changed() {
    changes(Place::Sqlite, Place::Kafka, true);
    changes(Place::Sqlite, Place::Kafka, false);
    changes(Place::Parquet, Place::Kafka, true);
    changes(Place::Parquet, Place::Kafka, false);
}

#[test]
fn what_kafka_has_not_taken_goes_to_the_store_when_the_mode_is_changed() {
    changes(Place::Kafka, Place::Sqlite, true);
    changes(Place::Kafka, Place::Sqlite, false);
    changes(Place::Kafka, Place::Parquet, true);
    changes(Place::Kafka, Place::Parquet, false);
}

#[test]
fn a_store_takes_what_another_store_was_given() {
    changes(Place::Parquet, Place::Sqlite, true);
    changes(Place::Sqlite, Place::Parquet, true);
}

/// A direct store whose server was killed before it uploaded anything, and the configuration of Kafka mode over it.
fn killed_before_its_upload(dir: &Path, topic: &str, place: Place, rows: u64, backlog: &str) -> Config {
    let data = dir.join("data");
    let upload = format!("[upload]\nurl = \"file://{}\"\n", dir.join("bucket").display());
    let direct = toml_for(place, &data, &data, topic, true).replace("30s", "50ms");
    // Files are finished soon, and the bucket is not there yet.
    std::fs::write(dir.join("bucket"), b"in the way").unwrap();
    let server = Serving::start(dir, &format!("{direct}[rotation]\nmax_age = \"1s\"\n{upload}"));
    (0..rows / 1_000).for_each(|step| server.post(step * 1_000..(step + 1) * 1_000));
    wait_until("all is stored", LONG, || in_sqlite(&data).len() + in_files(&data.join("predictions")).len() == rows as usize);
    drop(server);
    std::fs::remove_file(dir.join("bucket")).unwrap();
    let kafka = toml_for(Place::Kafka, &data, &data, topic, false);
    let kafka = kafka.replace("[batch]", &format!("backlog = \"{backlog}\"\n[batch]"));
    Config::from_toml(&format!("{kafka}{upload}every = \"1s\"\n")).unwrap()
}

#[test]
fn what_waits_for_its_upload_is_uploaded_in_kafka_mode() {
    for place in [Place::Sqlite, Place::Parquet] {
        let (dir, topic) = (tempfile::tempdir().unwrap(), new_topic(&[]));
        let config = killed_before_its_upload(dir.path(), &topic, place, 3_000, "upload");
        let (logger, guard) = Logger::open(&config).unwrap();
        assert!(matches!(logger.log_parts("wine", "1", &1, &2), Outcome::Accepted { .. }));
        let bucket = dir.path().join("bucket/predictions");
        wait_until("all is uploaded", LONG, || in_files(&bucket).len() == 3_000);
        guard.shutdown(LONG);
        assert_eq!(in_topic(&topic).len(), 1, "{place:?}");
        let once: BTreeSet<_> = in_files(&bucket).into_iter().collect();
        assert_eq!(once.len(), 3_000, "{place:?}");
    }
}

#[test]
fn what_waits_for_its_upload_goes_to_kafka_where_that_is_asked_for() {
    for place in [Place::Sqlite, Place::Parquet] {
        let (dir, topic) = (tempfile::tempdir().unwrap(), new_topic(&[]));
        let config = killed_before_its_upload(dir.path(), &topic, place, 3_000, "kafka");
        for _ in 0..2 {
            let (_logger, guard) = Logger::open(&config).unwrap();
            wait_until("all is in Kafka", LONG, || in_topic(&topic).len() == 3_000);
            guard.shutdown(LONG);
        }
        assert_eq!(records(&topic, 3_000).len(), 3_000, "{place:?}: nothing is sent twice");
        // Back in direct mode, nothing waits any more.
        let direct = Config { mode: Mode::Direct, ..config };
        let (_logger, guard) = Logger::open(&direct).unwrap();
        guard.shutdown(LONG);
        assert_eq!(in_files(&dir.path().join("bucket/predictions")).len(), 0, "{place:?}");
    }
}

#[test]
fn a_history_is_uploaded_once() {
    for (place, store) in [(Place::Sqlite, "sqlite:data/predictions.db"), (Place::Parquet, "parquet:data")] {
        let dir = tempfile::tempdir().unwrap();
        let store_of = if place == Place::Sqlite { Store::Sqlite } else { Store::Parquet };
        log(&direct(&dir.path().join("data"), store_of), 3_000);
        let toml = format!("[upload]\nurl = \"file://{}\"\n", dir.path().join("bucket").display());
        let migrate = || predlog(dir.path(), &toml, &["migrate", "--from", store, "--to", "upload"]);
        let (code, said, errors) = migrate();
        assert_eq!(code, Some(0), "{said}{errors}");
        let once: BTreeSet<_> = in_files(&dir.path().join("bucket/predictions")).into_iter().collect();
        assert_eq!(once.len(), 3_000, "{said}{errors}");
        let (code, said, errors) = migrate();
        assert_eq!((code, said.as_str()), (Some(0), "uploaded_files=0 uploaded_bytes=0\n"), "{errors}");
    }
}

#[test]
fn what_is_asked_wrongly_is_said() {
    let (dir, topic) = (tempfile::tempdir().unwrap(), "predictions");
    let toml = toml_for(Place::Kafka, dir.path(), dir.path(), topic, true);
    let said = |args: &[&str], toml: &str| {
        let (code, _, errors) = predlog(dir.path(), toml, args);
        (code, errors)
    };
    let (code, errors) = said(&["migrate", "--from", "mysql:x", "--to", "kafka"], &toml);
    assert!(code == Some(2) && errors.contains("sqlite:PATH or parquet:DIR"), "{errors}");
    let (code, errors) = said(&["migrate", "--from", "sqlite:missing.db", "--to", "kafka"], &toml);
    assert!(code == Some(1) && errors.contains("missing.db"), "{errors}");
    assert!(!dir.path().join("missing.db").exists());
    let (code, errors) = said(&["migrate", "--from", "parquet:.", "--to", "upload"], &toml);
    assert!(code == Some(2) && errors.contains("upload.url"), "{errors}");
    let wrong = toml.replace("[batch]", "backlog = \"kafka\"\n[batch]");
    let (code, errors) = said(&["check"], &wrong);
    assert!(code == Some(2) && errors.contains("direct.backlog") && errors.contains("predlog migrate"), "{errors}");
}
