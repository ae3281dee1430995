//! Kafka mode's typed formats, against a real broker, a real Schema Registry and Confluent's own deserializer.

mod support;

use predlog::clock::Timestamp;
use predlog::config::Mode;
use predlog::config::kafka::{Format, KafkaSettings};
use predlog::stats::Snapshot;
use predlog::{Config, Guard, Logger, Outcome, Prediction};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use support::kafka::{Kafka, Message, Options, read_topic};
use support::readers::{output, python};
use support::registry::Registry;

const LONG: Duration = Duration::from_secs(60);
/// 2025-11-23T03:34:18.123456Z
const AT: i64 = 1_763_868_858_123_456;

/// One broker for all tests of this file; each has topics of its own.
fn broker() -> &'static Kafka {
    static BROKER: OnceLock<Kafka> = OnceLock::new();
    BROKER.get_or_init(|| Kafka::start(&Options::default()))
}

fn new_topic() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let topic = format!("formats-{}", NEXT.fetch_add(1, Ordering::Relaxed));
    broker().create_topic(&topic, 3);
    topic
}

fn config(dir: &Path, topic: &str, format: Format, registry: Option<&Registry>) -> Config {
    let mut config = Config { mode: Mode::Kafka, ..Config::default() };
    config.kafka = KafkaSettings { brokers: broker().bootstrap(), topic: topic.to_owned(), format, ..KafkaSettings::default() };
    config.kafka.fallback.dir = dir.to_owned();
    config.kafka.registry.url = registry.map(Registry::url);
    config
}

fn log(logger: &Logger, model: &str, id: &str, inputs: &Value) {
    let prediction = Prediction::new(model, "1", inputs, &0.5)
        .id(id)
        .timestamp(Timestamp::from_micros(AT))
        .metadata(&[("k", "v")])
        .latency_ms(1.5);
    let outcome = logger.log(prediction);
    assert!(matches!(outcome, Outcome::Accepted { .. }), "{outcome:?}");
}

fn wait_until(logger: &Logger, what: &str, done: impl Fn(&Snapshot) -> bool) {
    let until = Instant::now() + LONG;
    while !done(&logger.snapshot()) {
        assert!(Instant::now() < until, "{what}: {:?}", logger.snapshot());
        std::thread::yield_now();
    }
}

/// Ends the logger, when all that was logged is delivered.
fn finish(logger: &Logger, guard: Guard, rows: u64) {
    wait_until(logger, "all are delivered", |snapshot| snapshot.delivered == rows);
    let report = guard.shutdown(LONG);
    assert_eq!((report.delivered, report.on_disk), (rows, 0), "{report:?}");
}

/// The topic's records by their id, as Confluent's client reads them.
fn read_avro(topic: &str, count: usize, registry: &Registry) -> BTreeMap<String, Value> {
    let mut reader = python("tests/services/read_avro.py");
    reader.args([&broker().bootstrap(), topic, &count.to_string(), &registry.url()]);
    let text = output(reader);
    let records = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("the reader prints JSON"));
    let by_id: BTreeMap<String, Value> =
        records.map(|record| (record["id"].as_str().expect("each record has an id").to_owned(), record)).collect();
    assert_eq!(by_id.len(), count);
    by_id
}

fn header<'a>(message: &'a Message, name: &str) -> Option<&'a str> {
    let found = message.headers.iter().find(|(key, _)| key == name)?;
    std::str::from_utf8(found.1.as_deref()?).ok()
}

#[test]
fn avro_is_read_by_confluents_client_and_gains_columns() {
    let (dir, topic, registry) = (tempfile::tempdir().unwrap(), new_topic(), Registry::start());
    let config = config(dir.path(), &topic, Format::Avro, Some(&registry));
    let (logger, guard) = Logger::open(&config).expect("the logger opens");
    for n in 0..500 {
        log(&logger, "wine", &format!("wine-{n}"), &json!({"fixed acidity": 7.4, "n": n, "tags": ["a", null]}));
        log(&logger, "beer", &format!("beer-{n}"), &json!({"text": "r\u{e9}\"\n\u{1f377}"}));
    }
    finish(&logger, guard, 1_000);
    // Another process, with a new field and a value of another type.
    let (logger, guard) = Logger::open(&config).expect("the logger opens");
    log(&logger, "wine", "new", &json!({"fixed acidity": 7, "new": true}));
    log(&logger, "wine", "odd", &json!({"fixed acidity": "high"}));
    finish(&logger, guard, 2);

    let records = read_avro(&topic, 1_002, &registry);
    let wine = &records["wine-7"];
    assert_eq!(wine["timestamp"], "2025-11-23T03:34:18.123456+00:00");
    assert_eq!(wine["inputs"], json!({"fixed_20acidity": 7.4, "n": 7, "tags": ["a", null]}));
    assert_eq!((&wine["outputs"], &wine["inputs_json"]), (&json!({"value": 0.5}), &Value::Null));
    assert_eq!((&wine["model_name"], &wine["metadata"], &wine["latency_ms"]), (&json!("wine"), &json!({"k": "v"}), &json!(1.5)));
    assert_eq!(records["beer-499"]["inputs"]["text"], "r\u{e9}\"\n\u{1f377}");
    assert_eq!(records["new"]["inputs"]["new"], true);
    assert_eq!(records["odd"]["inputs_json"], r#"{"fixed acidity":"high"}"#);

    for message in read_topic(&broker().bootstrap(), &topic, 1_002) {
        let value = message.value.as_deref().unwrap();
        let id = u32::from_be_bytes(value[1..5].try_into().unwrap());
        assert_eq!(value[0], 0);
        assert_eq!(header(&message, "predlog-schema-id"), Some(id.to_string().as_str()));
        assert_eq!(header(&message, "content-type"), Some("application/avro"));
    }
    let (_, subjects) = registry.request("GET", "/subjects", "");
    let mut subjects: Vec<String> = serde_json::from_str(&subjects).unwrap();
    subjects.sort();
    assert_eq!(subjects, [format!("{topic}-predlog.beer"), format!("{topic}-predlog.wine")]);
}

#[test]
fn records_wait_for_a_registry_that_is_away_and_need_it_no_more_once_it_has_answered() {
    let (dir, topic, mut registry) = (tempfile::tempdir().unwrap(), new_topic(), Registry::start());
    registry.kill();
    let config = config(dir.path(), &topic, Format::Avro, Some(&registry));
    let (logger, guard) = Logger::open(&config).expect("the logger opens");
    for n in 0..100 {
        log(&logger, "wine", &format!("before-{n}"), &json!({"n": n}));
    }
    wait_until(&logger, "records go to the spool", |snapshot| snapshot.on_disk == 100);
    registry.restart();
    wait_until(&logger, "they come back", |snapshot| snapshot.delivered == 100);
    registry.kill();
    for n in 0..100 {
        log(&logger, "wine", &format!("after-{n}"), &json!({"n": n, "new": n}));
    }
    finish(&logger, guard, 200);
    registry.restart();
    let records = read_avro(&topic, 200, &registry);
    assert_eq!(records["before-5"]["inputs"], json!({"n": 5}));
    assert_eq!(records["after-5"]["inputs_json"], r#"{"n":5,"new":5}"#);
}

#[test]
fn connect_json_has_its_schema_and_a_record_that_is_too_large_with_it_is_kept() {
    let (dir, topic) = (tempfile::tempdir().unwrap(), new_topic());
    let mut config = config(dir.path(), &topic, Format::ConnectJson, None);
    config.kafka.max_message_bytes = bytesize::ByteSize::kib(64);
    let (logger, guard) = Logger::open(&config).expect("the logger opens");
    for n in 0..100 {
        log(&logger, "wine", &format!("wine-{n}"), &json!({"n": n}));
    }
    // Its line has room in a message, but not with the name of each field in the schema too.
    let wide: Value = (0..600).map(|n| (format!("a_rather_long_name_of_a_field_{n}"), json!(n))).collect();
    log(&logger, "wide", "wide", &wide);
    finish(&logger, guard, 101);
    for message in read_topic(&broker().bootstrap(), &topic, 100) {
        let value: Value = serde_json::from_slice(message.value.as_deref().unwrap()).unwrap();
        assert_eq!(value["schema"]["name"], "predlog.wine");
        assert_eq!(value["payload"]["timestamp_us"], AT);
        assert_eq!(header(&message, "content-type"), Some("application/json"));
    }
    let letter =
        letters(dir.path()).into_iter().find(|letter| letter["record"]["id"] == "wide").expect("it is with the dead letters");
    assert_eq!(letter["record"]["inputs"], wide);
    assert!(letter["reason"].as_str().unwrap().contains("kafka.max_message_bytes"), "{letter}");
}

/// The lines of all dead letters.
fn letters(dir: &Path) -> Vec<Value> {
    let files = std::fs::read_dir(dir.join("dead-letter")).expect("there are dead letters");
    let text: Vec<u8> =
        files.flat_map(|file| zstd::decode_all(std::fs::File::open(file.unwrap().path()).unwrap()).unwrap()).collect();
    text.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()).map(|line| serde_json::from_slice(line).unwrap()).collect()
}
