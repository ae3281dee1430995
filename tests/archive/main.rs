//! `predlog archive` against a real broker: what becomes of a topic.

mod anew;
mod delta;
mod many;
#[path = "../stored/mod.rs"]
mod stored;
#[path = "../support/mod.rs"]
mod support;

use predlog::archive::{Archiver, Job};
use predlog::clock::Timestamp;
use predlog::config::kafka::{Format, Key, Packing};
use predlog::config::{BadMessages, Mode};
use predlog::{Config, Logger, Outcome, Prediction};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use support::kafka::{Kafka, Options, read_topic};
use support::readers::{READERS, ReadOptions, output, python, read_table};
use support::registry::Registry;
use tempfile::TempDir;

const LONG: Duration = Duration::from_secs(60);

/// One broker for all tests of this file; each has topics and a group of its own.
fn broker() -> &'static Kafka {
    static BROKER: OnceLock<Kafka> = OnceLock::new();
    BROKER.get_or_init(|| Kafka::start(&Options::default()))
}

/// A topic, and a directory that it is archived to.
struct Archive {
    dir: TempDir,
    config: Config,
}

impl Archive {
    fn new(partitions: i32) -> Archive {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let topic = format!("archived-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        broker().create_topic(&topic, partitions);
        broker().create_topic(&format!("{topic}-ledger"), 1);
        let dir = tempfile::tempdir().expect("a directory");
        let mut config = Config { mode: Mode::Kafka, ..Config::default() };
        config.kafka.brokers = broker().bootstrap();
        config.kafka.fallback.dir = dir.path().join("fallback");
        config.archive.group = format!("{topic}-archive");
        config.archive.dir = dir.path().join("scratch");
        config.upload.url = Some(format!("file://{}", dir.path().join("bucket").display()));
        config.kafka.topic = topic;
        Archive { dir, config }
    }

    fn topic(&self) -> &str {
        &self.config.kafka.topic
    }

    fn produce(&self, value: &str) {
        broker().produce(self.topic(), value.as_bytes());
    }

    /// Logs through Kafka mode.
    fn log(&self, model: &str, rows: impl Iterator<Item = Value>) {
        let (logger, guard) = Logger::open(&self.config).expect("the logger opens");
        for inputs in rows {
            let outcome = logger.log(Prediction::new(model, "1", &inputs, &0.5));
            assert!(matches!(outcome, Outcome::Accepted { .. }), "{outcome:?}");
        }
        let report = guard.shutdown(LONG);
        assert_eq!((report.on_disk, report.problem.as_deref()), (0, None), "{report:?}");
    }

    /// Stores what is there, as `predlog archive --until-end` does. Rows that were stored, and rows that were stored before.
    fn run(&self) -> (u64, u64) {
        let archiver = Archiver::new(Job::predictions(&self.config, true).expect("a job"));
        let counters = archiver.counters();
        archiver.run().expect("it ends well");
        (counters.rows.load(Ordering::Relaxed), counters.duplicates.load(Ordering::Relaxed))
    }

    fn bucket(&self) -> std::path::PathBuf {
        self.dir.path().join("bucket")
    }

    fn rows(&self) -> Vec<Value> {
        read_table("pyarrow", &self.bucket().join("predictions").display().to_string(), &ReadOptions::default())
    }

    /// Rows of all files, as these say.
    fn count(&self) -> u64 {
        let rows = |path: &std::path::PathBuf| {
            let file = std::fs::File::open(path).expect("a file");
            let reader = parquet::file::reader::SerializedFileReader::new(file).expect("a Parquet file");
            parquet::file::reader::FileReader::metadata(&reader).file_metadata().num_rows()
        };
        stored::files(&self.bucket().join("predictions")).iter().map(rows).sum::<i64>() as u64
    }

    fn dead_letters(&self) -> Vec<Value> {
        let mut letters = Vec::new();
        for path in stored::files(&self.bucket().join("dead-letter")) {
            let text = std::fs::read_to_string(path).expect("dead letters");
            letters.extend(text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON")));
        }
        letters
    }
}

fn relative(root: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        stored::files(root).iter().map(|path| path.strip_prefix(root).expect("below").display().to_string()).collect();
    names.sort();
    names
}

#[test]
fn a_topic_becomes_the_table_of_simple_mode_once() {
    let archive = Archive::new(3);
    archive.log("wine", (0..2_000).map(|n| json!({"n": n, "ph": 3.5, "name": "r\u{e9}d"})));
    archive.log("../fraud", (0..500).map(|n| json!({"n": n})));
    let (stored, _) = archive.run();
    assert!(stored > 2_500, "the ledger's statements are stored too: {stored}");
    for reader in READERS {
        let rows = read_table(reader, &archive.bucket().join("predictions").display().to_string(), &ReadOptions::default());
        assert_eq!(rows.len(), 2_500, "{reader}");
        let mut wine: Vec<i64> =
            rows.iter().filter(|row| row["model_name"] == "wine").filter_map(|row| row["inputs"]["n"].as_i64()).collect();
        wine.sort_unstable();
        assert_eq!(wine, (0..2_000).collect::<Vec<_>>(), "{reader}");
        assert!(rows.iter().all(|row| row["seq"].is_u64() && row["outputs"]["value"] == 0.5), "{reader}");
    }
    let names = relative(&archive.bucket());
    let name = format!("{}+0+0000000000-", archive.topic());
    assert!(
        names.iter().any(|path| path.starts_with("predictions/model_name=..%2Ffraud/date=") && path.contains(archive.topic())),
        "{names:?}"
    );
    assert!(names.iter().any(|path| path.contains(&name)), "{names:?}");
    assert!(names.iter().any(|path| path.starts_with("ledger/date=")), "{names:?}");

    assert_eq!(archive.run(), (0, 0), "nothing is left to store");
    assert_eq!(relative(&archive.bucket()), names);
    assert_eq!(stored::files(&archive.dir.path().join("scratch")), Vec::<std::path::PathBuf>::new());
}

#[test]
fn a_record_that_was_sent_again_is_stored_once_also_by_a_later_run() {
    let mut archive = Archive::new(1);
    archive.config.ledger.enabled = false;
    archive.log("wine", (0..100).map(|n| json!({"n": n})));
    let sent = read_topic(&broker().bootstrap(), archive.topic(), 100);
    let again = |range: std::ops::Range<usize>| {
        sent[range].iter().for_each(|message| broker().produce(archive.topic(), message.value.as_deref().expect("a value")));
    };
    again(0..10);
    assert_eq!(archive.run(), (100, 10));
    again(50..70);
    archive.produce(r#"{"id":"x","model_name":"wine","inputs":{"n":100}}"#);
    assert_eq!(archive.run(), (1, 20));
    assert_eq!(archive.rows().len(), 101);
    let states = relative(&archive.bucket().join("_predlog/states"));
    assert_eq!(states.len(), 1, "one state, of the last offset: {states:?}");
}

#[test]
fn packed_messages_are_their_records() {
    let mut archive = Archive::new(2);
    archive.config.ledger.enabled = false;
    (archive.config.kafka.packing, archive.config.kafka.key) = (Packing::Ndjson, Key::None);
    archive.log("wine", (0..5_000).map(|n| json!({"n": n, "text": "a\nb"})));
    assert_eq!(archive.run(), (5_000, 0));
    assert_eq!(archive.rows().len(), 5_000);
}

#[test]
fn records_of_other_programs_are_stored_and_what_is_none_goes_to_the_dead_letters() {
    let archive = Archive::new(1);
    let deep = format!("{{\"inputs\":{}1{}}}", "[".repeat(80), "]".repeat(80));
    for value in [
        r#"{"id":"a","model_name":"m","model_version":"2","inputs":{"x":1},"outputs":{"y":true}}"#,
        "not json",
        r#"{"id":"b","model_name":"m","inputs":{"x":"text"},"region":"eu"}"#,
        "[1]",
        &deep,
        "{\n  \"id\": \"c\",\n  \"model_name\": \"m\",\n  \"inputs\": {\"x\": 2}\n}",
    ] {
        archive.produce(value);
    }
    assert_eq!(archive.run().0, 3);
    let rows = archive.rows();
    let row = |id: &str| rows.iter().find(|row| row["id"] == id).unwrap_or_else(|| panic!("{id} in {rows:?}"));
    assert_eq!(
        (&row("a")["inputs"]["x"], &row("a")["outputs"]["y"], &row("a")["model_version"]),
        (&json!(1), &json!(true), &json!("2"))
    );
    assert_eq!(row("b")["inputs_json"], r#"{"x":"text"}"#, "what does not fit its column is beside it");
    assert_eq!(row("b")["metadata"], json!({"region": "eu"}));
    assert_eq!(row("c")["inputs"]["x"], 2);
    let letters = archive.dead_letters();
    let found: Vec<_> = letters.iter().map(|letter| (letter["offset"].as_i64(), letter["value"].as_str())).collect();
    assert_eq!(found, [(Some(1), Some("not json")), (Some(3), Some("[1]")), (Some(4), Some(&*deep))]);
    assert!(letters[0]["reason"].as_str().is_some_and(|reason| reason.contains("not a JSON object")), "{}", letters[0]);
    assert_eq!(letters[0]["topic"], archive.topic());
}

#[test]
fn a_bad_message_stops_the_archiver_when_that_is_asked_for() {
    let mut archive = Archive::new(1);
    archive.config.archive.on_bad = BadMessages::Stop;
    archive.produce("nonsense");
    let archiver = Archiver::new(Job::predictions(&archive.config, true).expect("a job"));
    let error = archiver.run().expect_err("it stops").to_string();
    assert!(error.contains(&format!("{}+0+0 cannot be stored: not a JSON object", archive.topic())), "{error}");
}

#[test]
fn a_run_that_ends_shows_its_progress_to_who_looks_on_and_lines_to_others() {
    let mut archive = Archive::new(2);
    archive.config.ledger.enabled = false;
    archive.log("wine", (0..3_000).map(|n| json!({"n": n})));
    let file = archive.dir.path().join("archive.toml");
    let (brokers, topic, url, dir) =
        (broker().bootstrap(), archive.topic(), archive.config.upload.url.as_deref(), archive.dir.path());
    let toml = format!(
        "[kafka]\nbrokers = {brokers:?}\ntopic = {topic:?}\n[upload]\nurl = {:?}\n[archive]\ngroup = \"seen\"\ndir = {:?}\n",
        url.expect("a URL"),
        dir.join("scratch")
    );
    std::fs::write(&file, toml).expect("the configuration");
    let program = [env!("CARGO_BIN_EXE_predlog"), "archive", "--until-end", "--config", file.to_str().expect("a path")];
    let mut terminal = python("tests/readers/terminal.py");
    let shown = output({
        terminal.args(program);
        terminal
    });
    assert!(shown.contains(" messages, ") && shown.contains(" left"), "{shown}");
    assert!(shown.contains("stored messages=3000 rows=3000"), "{shown}");
    let others = std::process::Command::new(program[0]).args(&program[1..]).output().expect("predlog runs");
    let told = String::from_utf8_lossy(&others.stderr);
    assert!(others.status.success() && told.contains("stored messages=0 rows=0") && !told.contains(" left"), "{told}");
}

#[test]
fn what_transactions_leave_behind_is_neither_stored_nor_waited_for() {
    let mut archive = Archive::new(1);
    archive.config.ledger.enabled = false;
    let mut config = rdkafka::ClientConfig::new();
    config.set("bootstrap.servers", broker().bootstrap()).set("transactional.id", archive.topic());
    let producer: ThreadedProducer<DefaultProducerContext> = config.create().expect("a producer");
    producer.init_transactions(LONG).expect("transactions");
    for transaction in 0..4 {
        producer.begin_transaction().expect("it begins");
        for n in 0..10 {
            let value = format!(r#"{{"id":"{transaction}-{n}","model_name":"m","inputs":{{"n":{transaction}}}}}"#);
            producer
                .send(BaseRecord::<(), _>::to(archive.topic()).payload(&value))
                .map_err(|(error, _)| error)
                .expect("there is room");
        }
        // The last one leaves its mark at the end of the topic.
        let ended = if transaction % 2 == 0 { producer.commit_transaction(LONG) } else { producer.abort_transaction(LONG) };
        ended.expect("it ends");
        if transaction == 1 {
            assert_eq!(archive.run(), (10, 0), "up to an aborted one");
        }
    }
    assert_eq!(archive.run(), (10, 0));
    let mut found: Vec<u64> = archive.rows().iter().filter_map(|row| row["inputs"]["n"].as_u64()).collect();
    found.sort_unstable();
    assert_eq!(found, [[0; 10], [2; 10]].concat());
}

#[test]
fn a_property_that_would_break_exactly_once_is_refused() {
    let mut archive = Archive::new(1);
    archive.config.kafka.properties.0.insert("enable.auto.commit".to_owned(), "true".to_owned());
    let archiver = Archiver::new(Job::predictions(&archive.config, true).expect("a job"));
    let error = archiver.run().expect_err("it is refused").to_string();
    assert!(error.contains("kafka.properties.\"enable.auto.commit\"=\"true\""), "{error}");
}

#[test]
fn rows_of_a_range_end_it_and_columns_appear_as_fields_do() {
    let mut archive = Archive::new(1);
    archive.config.ledger.enabled = false;
    archive.config.rotation.max_rows = 1_000;
    archive.log("m", (0..2_500).map(|n| if n < 1_200 { json!({"a": n}) } else { json!({"a": "text", "b": {"c": [n]}}) }));
    assert_eq!(archive.run(), (2_500, 0));
    let files = relative(&archive.bucket().join("predictions"));
    assert_eq!(files.len(), 3, "{files:?}");
    for reader in READERS {
        let rows = read_table(reader, &archive.bucket().join("predictions").display().to_string(), &ReadOptions::default());
        assert_eq!(rows.len(), 2_500, "{reader}");
        let typed = rows.iter().filter(|row| row["inputs"]["a"].is_i64() && row["inputs_json"].is_null()).count();
        assert_eq!(typed, 1_200, "{reader}");
        let beside =
            rows.iter().filter(|row| row["inputs_json"].as_str().is_some_and(|json| json.contains("\"a\":\"text\""))).count();
        assert_eq!(beside, 1_300, "{reader}");
        assert!(rows.iter().any(|row| row["inputs"]["b"]["c"] == json!([2_400])), "{reader}: the new field has a column");
    }
}

#[test]
fn each_format_of_the_topic_is_stored_as_the_same_rows() {
    let registry = Registry::start();
    let mut tables = Vec::new();
    for format in [Format::Json, Format::ConnectJson, Format::Avro] {
        let mut archive = Archive::new(1);
        archive.config.ledger.enabled = false;
        archive.config.kafka.format = format;
        archive.config.kafka.registry.url = Some(registry.url());
        let (logger, guard) = Logger::open(&archive.config).expect("the logger opens");
        for n in 0..200 {
            let inputs = match n % 4 {
                0 => json!({"fixed acidity": 7.5, "n": n, "tags": ["a", null], "deep": {"x": true}}),
                1 => json!({"fixed acidity": "high", "n": u64::MAX}),
                2 => json!({"fixed acidity": 1, "r\u{e9}\"\n": "\u{1f377}"}),
                _ => json!([1, 2]),
            };
            let id = format!("{n:03}");
            let prediction = Prediction::new("wine", "1", &inputs, &0.5)
                .id(&id)
                .timestamp(Timestamp::from_micros(1_763_868_858_123_456 + n))
                .metadata(&[("k", "v")])
                .latency_ms(1.5);
            let outcome = logger.log(prediction);
            assert!(matches!(outcome, Outcome::Accepted { .. }), "{outcome:?}");
        }
        assert!(logger.flush(LONG), "{:?}", logger.health());
        let report = guard.shutdown(LONG);
        assert_eq!((report.delivered, report.on_disk), (200, 0), "{report:?}");
        assert_eq!(archive.run(), (200, 0), "{format:?}");
        let mut rows = archive.rows();
        rows.sort_by_key(|row| row["id"].as_str().map(str::to_owned));
        // What differs by nature: who wrote it. JSON of the same value may be spelt in another way.
        for row in &mut rows {
            let row = row.as_object_mut().expect("a row");
            assert!(row.remove("writer").is_some() && row.remove("seq").is_some());
            for side in ["inputs_json", "outputs_json"] {
                if let Some(Value::String(json)) = row.get(side) {
                    let parsed = serde_json::from_str(json).expect("JSON");
                    row.insert(side.to_owned(), parsed);
                }
            }
        }
        tables.push(rows);
        // The same again: it is known.
        let sent = read_topic(&broker().bootstrap(), archive.topic(), 200);
        sent[..10].iter().for_each(|message| broker().produce(archive.topic(), message.value.as_deref().expect("a value")));
        assert_eq!(archive.run(), (0, 10), "{format:?}");
    }
    let [json, connect, avro] = &tables[..] else { panic!("three tables") };
    for ((json, connect), avro) in json.iter().zip(connect).zip(avro) {
        assert_eq!(connect, json, "connect-json");
        assert_eq!(avro, json, "avro");
    }
}
