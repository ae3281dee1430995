//! Kafka mode against a real broker: what arrives, under which topic, key and headers, and what does not.

mod login;
#[path = "../support/mod.rs"]
mod support;
mod topics;

use predlog::config::Mode;
use predlog::config::kafka::{Compression, KafkaSettings, Key, Packing};
use predlog::sink::Sink;
use predlog::sink::conformance::{self, Harness, Row};
use predlog::sink::kafka::KafkaSink;
use predlog::{Config, Logger, Outcome, Prediction};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use support::kafka::{Kafka, Message, Options, read_topic};
use support::process::wait_until;
use tempfile::TempDir;
use uuid::Uuid;

const LONG: Duration = Duration::from_secs(60);

/// One broker for all tests of this file; each has topics of its own.
fn broker() -> &'static Kafka {
    static BROKER: OnceLock<Kafka> = OnceLock::new();
    BROKER.get_or_init(|| Kafka::start(&Options::default()))
}

fn new_topic(partitions: i32) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let topic = format!("topic-{}", NEXT.fetch_add(1, Ordering::Relaxed));
    broker().create_topic(&topic, partitions);
    topic
}

fn config(dir: &Path, topic: &str) -> Config {
    let mut config = Config { mode: Mode::Kafka, ..Config::default() };
    config.kafka = KafkaSettings { brokers: broker().bootstrap(), topic: topic.to_owned(), ..KafkaSettings::default() };
    config.kafka.fallback.dir = dir.to_owned();
    // Its own test has it on.
    config.ledger.enabled = false;
    config
}

/// Logs `rows` predictions of each of `models` in turn, and ends the logger.
fn log_all(config: &Config, models: &[&str], rows: u64) {
    let (logger, guard) = Logger::open(config).expect("the logger opens");
    for n in 0..rows {
        for model in models {
            let (id, inputs) = (format!("{model}-{n}"), json!({"n": n, "text": "r\u{e9}\"\n\u{1f377}"}));
            let outcome = logger.log(Prediction::new(model, "1", &inputs, &0.5).id(&id));
            assert!(matches!(outcome, Outcome::Accepted { .. }), "{outcome:?}");
        }
    }
    let report = guard.shutdown(LONG);
    assert_eq!((report.delivered, report.on_disk), (rows * models.len() as u64, 0), "{report:?}");
}

fn value(message: &Message) -> Value {
    serde_json::from_slice(message.value.as_deref().unwrap_or_default()).expect("a message is JSON")
}

fn header<'a>(message: &'a Message, name: &str) -> Option<&'a str> {
    let found = message.headers.iter().find(|(key, _)| key == name)?;
    std::str::from_utf8(found.1.as_deref()?).ok()
}

struct Broker {
    dir: TempDir,
    topic: String,
    settings: KafkaSettings,
}

impl Harness for Broker {
    fn open(&mut self) -> Box<dyn Sink> {
        let mut settings = self.settings.clone();
        settings.fallback.dir = self.dir.path().to_owned();
        Box::new(KafkaSink::open(settings, Uuid::now_v7(), Default::default()).expect("the sink opens"))
    }

    /// As whoever stores the topic sees it: a record that was given twice has the same key, partition and text, and counts once.
    fn stored(&mut self) -> Vec<Row> {
        let mut rows = BTreeMap::new();
        for message in read_topic(&broker().bootstrap(), &self.topic, 0) {
            for line in message.value.expect("a value").split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
                let row = Row::of_line(line);
                let found = (row.clone(), message.partition, message.key.clone());
                let before = rows.insert((row.writer.clone(), row.seq), found.clone());
                assert!(
                    before.is_none_or(|before: (Row, i32, Option<Vec<u8>>)| before == found),
                    "a replay differs from the first try"
                );
            }
        }
        rows.into_values().map(|(row, ..)| row).collect()
    }

    fn fail(&mut self, _failing: bool) -> bool {
        // Failures of the broker have tests of their own: see outage.rs.
        false
    }
}

#[test]
fn keeps_the_contract_of_a_sink() {
    let unpacked = KafkaSettings { brokers: broker().bootstrap(), ..KafkaSettings::default() };
    let plain = KafkaSettings { headers: false, ..unpacked.clone() };
    let packed = KafkaSettings { packing: Packing::Ndjson, key: Key::None, ..unpacked.clone() };
    for settings in [unpacked, plain, packed] {
        conformance::run(|| {
            let topic = new_topic(3);
            let settings = KafkaSettings { topic: topic.clone(), ..settings.clone() };
            Broker { dir: tempfile::tempdir().expect("a directory"), topic, settings }
        });
    }
}

#[test]
fn a_record_is_a_message_with_its_id_as_the_key_and_headers_that_say_whose_it_is() {
    let (dir, topic) = (tempfile::tempdir().unwrap(), new_topic(3));
    log_all(&config(dir.path(), &topic), &["wine", "a\"b\\"], 100);
    let messages = read_topic(&broker().bootstrap(), &topic, 200);
    assert_eq!(messages.len(), 200);
    for message in &messages {
        let value = value(message);
        // As any other producer would write it: not as JSON does.
        assert_eq!(value["id"], std::str::from_utf8(message.key.as_deref().unwrap()).unwrap());
        assert_eq!(value["inputs"]["text"], "r\u{e9}\"\n\u{1f377}");
        assert_eq!(header(message, "content-type"), Some("application/json"));
        assert_eq!(header(message, "predlog-writer"), value["writer"].as_str());
        assert_eq!(header(message, "predlog-seq").map(str::to_owned), Some(value["seq"].to_string()));
    }
    let partitions: std::collections::BTreeSet<i32> = messages.iter().map(|message| message.partition).collect();
    assert_eq!(partitions.len(), 3, "ids are spread over the partitions");
}

#[test]
fn packed_messages_have_a_line_for_each_record() {
    let (dir, topic) = (tempfile::tempdir().unwrap(), new_topic(3));
    let mut config = config(dir.path(), &topic);
    (config.kafka.packing, config.kafka.key) = (Packing::Ndjson, Key::ModelName);
    config.logger.lanes = Some(1);
    log_all(&config, &["wine", "beer"], 5_000);
    let messages = read_topic(&broker().bootstrap(), &topic, 2);
    assert!(messages.len() < 200, "{} messages", messages.len());
    let mut rows = 0;
    for message in &messages {
        let text = std::str::from_utf8(message.value.as_deref().unwrap()).unwrap();
        let values: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert!(values.iter().all(|value| value["model_name"].as_str().map(str::as_bytes) == message.key.as_deref()));
        assert_eq!(header(message, "content-type"), Some("application/x-ndjson"));
        assert_eq!(header(message, "predlog-writer"), values[0]["writer"].as_str());
        let (first, last) = header(message, "predlog-seq").unwrap().split_once('-').unwrap();
        assert_eq!((first, last), (&*values[0]["seq"].to_string(), &*values[values.len() - 1]["seq"].to_string()));
        rows += values.len();
    }
    assert_eq!(rows, 10_000);
}

#[test]
fn what_the_broker_refuses_for_good_is_a_dead_letter_and_costs_no_neighbour() {
    let (dir, topic) = (tempfile::tempdir().unwrap(), "small-messages");
    broker().create_topic_with(topic, 1, &[("max.message.bytes", "20000")]);
    let mut config = config(dir.path(), topic);
    // One message a batch, so that a neighbour is not refused together with the large one.
    config.kafka.properties.0.insert("batch.num.messages".to_owned(), "1".to_owned());
    let (logger, guard) = Logger::open(&config).unwrap();
    for n in 0..21 {
        let text = if n == 10 { fastrand_text(60_000) } else { "small".to_owned() };
        assert!(matches!(logger.log_parts("wine", "1", &json!({"n": n, "text": text}), &1), Outcome::Accepted { .. }));
    }
    assert!(logger.flush(LONG), "{:?}", logger.health());
    assert_eq!(logger.snapshot().unstorable, 1);
    guard.shutdown(LONG);
    let messages = read_topic(&broker().bootstrap(), topic, 20);
    assert_eq!(messages.len(), 20);
    let letters = dead_letters(dir.path());
    assert_eq!(letters.len(), 1);
    assert_eq!((&letters[0]["topic"], &letters[0]["record"]["inputs"]["n"]), (&json!(topic), &json!(10)));
    assert_eq!(letters[0]["reason"], "MessageSizeTooLarge");
}

#[test]
fn without_room_for_dead_letters_a_poison_record_is_dropped_and_stated_and_holds_up_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (data, topic) = (dir.path().join("data"), "no-room");
    broker().create_topic_with(topic, 1, &[("max.message.bytes", "20000")]);
    let mut config = config(&data, topic);
    (config.ledger.enabled, config.kafka.create_topics, config.kafka.partitions) = (true, true, 1);
    config.kafka.properties.0.insert("batch.num.messages".to_owned(), "1".to_owned());
    config.kafka.fallback.max_bytes = bytesize::ByteSize::mib(1);
    let letters = data.join("dead-letter");
    std::fs::create_dir_all(&letters).unwrap();
    std::fs::File::create(letters.join("old.ndjson.zst")).unwrap().set_len(1 << 20).unwrap();
    let (logger, guard) = Logger::open(&config).unwrap();
    for n in 0..30 {
        let text = if n % 10 == 5 { fastrand_text(60_000) } else { "small".to_owned() };
        let model = if n < 10 { "wine" } else { "beer" };
        assert!(matches!(logger.log_parts(model, "1", &json!({"n": n, "text": text}), &1), Outcome::Accepted { .. }));
    }
    assert!(logger.flush(LONG), "{:?}", logger.health());
    let report = guard.shutdown(LONG);
    assert_eq!((report.accepted, report.delivered, report.on_disk, report.problem.as_deref()), (30, 27, 0, None), "{report:?}");
    assert_eq!(report.dropped, [("no_space", 3)].into(), "{report:?}");
    let mut found: Vec<_> =
        read_topic(&broker().bootstrap(), topic, 27).iter().map(|message| value(message)["inputs"]["n"].as_u64()).collect();
    found.sort_unstable();
    assert_eq!(found, (0..30).filter(|n| n % 10 != 5).map(Some).collect::<Vec<_>>());
    let (code, said) = audit(dir.path(), topic);
    let total = &said["total"];
    assert_eq!(
        (code, &total["accepted"], &total["stored"], &total["missing"]),
        (Some(1), &json!(27), &json!(27), &json!(0)),
        "{said}"
    );
    assert_eq!((&total["dropped"], &said["missing"]), (&json!({"no_space": 3}), &json!([])), "{said}");
    assert_eq!(said["problems"], json!(["dropped=3 (no_space)"]));
}

/// Text that does not compress: the broker looks at the compressed size.
fn fastrand_text(len: usize) -> String {
    let mut random = fastrand::Rng::with_seed(7);
    (0..len).map(|_| random.alphanumeric()).collect()
}

/// As a person reads them: `zstdcat file`.
#[test]
fn a_batch_that_is_too_large_costs_only_the_message_that_is() {
    let topic = "small-batches";
    broker().create_topic_with(topic, 1, &[("max.message.bytes", "20000")]);
    let dir = tempfile::tempdir().expect("a directory");
    let mut config = config(dir.path(), topic);
    // Then batches have the bytes that their messages have.
    config.kafka.compression = Compression::None;
    config.kafka.linger = Duration::from_millis(200);
    let (logger, guard) = Logger::open(&config).expect("the logger opens");
    for n in 0..500 {
        let (id, text) = (n.to_string(), "x".repeat(if n == 250 { 30_000 } else { 200 }));
        let outcome = logger.log(Prediction::new("wine", "1", &json!({ "text": text }), &0.5).id(&id));
        assert!(matches!(outcome, Outcome::Accepted { .. }), "{outcome:?}");
    }
    wait_until("all are with the broker or the dead letters", LONG, || logger.snapshot().delivered == 500);
    assert_eq!(guard.shutdown(LONG).delivered, 500);
    let letters = dead_letters(dir.path());
    let refused: Vec<_> = letters.iter().map(|letter| (letter["record"]["id"].clone(), letter["reason"].clone())).collect();
    assert_eq!(refused, [(json!("250"), json!("MessageSizeTooLarge"))]);
    let stored: BTreeSet<String> =
        read_topic(&broker().bootstrap(), topic, 499).iter().map(|m| value(m)["id"].to_string()).collect();
    assert_eq!(stored.len(), 499);
}

fn dead_letters(dir: &Path) -> Vec<Value> {
    let files = std::fs::read_dir(dir.join("dead-letter")).expect("there are dead letters");
    files
        .flat_map(|file| {
            let text = zstd::decode_all(std::fs::File::open(file.unwrap().path()).unwrap()).unwrap();
            let lines: Vec<Value> = text
                .split(|&byte| byte == b'\n')
                .filter(|line| !line.is_empty())
                .map(|line| serde_json::from_slice(line).unwrap())
                .collect();
            lines
        })
        .collect()
}

fn check(dir: &Path, toml: &str) -> (bool, String) {
    predlog(dir, "check", toml)
}

fn predlog(dir: &Path, command: &str, toml: &str) -> (bool, String) {
    let file = dir.join("predlog.toml");
    std::fs::write(&file, toml).unwrap();
    let output =
        Command::new(env!("CARGO_BIN_EXE_predlog")).arg(command).arg("--config").arg(&file).current_dir(dir).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).unwrap())
}

#[test]
fn check_says_what_is_missing_and_makes_no_topic_in_silence() {
    let (dir, brokers) = (tempfile::tempdir().unwrap(), broker().bootstrap());
    let topic = new_topic(1);
    let (ok, said) = check(dir.path(), &format!("mode = \"kafka\"\n[kafka]\nbrokers = \"{brokers}\"\ntopic = \"{topic}\""));
    assert!(!ok && said.contains("-ledger does not exist") && said.contains("ledger.enabled"), "{said}");
    broker().create_topic(&format!("{topic}-ledger"), 1);
    let (ok, said) = check(dir.path(), &format!("mode = \"kafka\"\n[kafka]\nbrokers = \"{brokers}\"\ntopic = \"{topic}\""));
    assert!(ok && said.contains("ok: brokers"), "{said}");
    let missing = format!("mode = \"kafka\"\n[kafka]\nbrokers = \"{brokers}\"\ntopic = \"missing\"");
    for _ in 0..2 {
        let (ok, said) = check(dir.path(), &missing);
        assert!(!ok && said.contains("topic=missing does not exist") && said.contains("kafka.create_topics"), "{said}");
    }
    let (ok, said) = check(dir.path(), &format!("{missing}\ncreate_topics = true"));
    assert!(ok, "{said}");
    let (ok, said) = check(dir.path(), "mode = \"kafka\"\n[kafka]\nbrokers = \"127.0.0.1:9\"");
    assert!(!ok && said.contains("the brokers do not answer") && said.contains("refused"), "{said}");
    let (ok, said) =
        check(dir.path(), &format!("mode = \"kafka\"\n[kafka]\nbrokers = \"{brokers}\"\n[kafka.properties]\n\"bacth.size\" = 1"));
    assert!(!ok && said.contains("bacth.size"), "{said}");
}

#[test]
fn a_record_in_kafka_is_byte_for_byte_the_one_that_simple_mode_keeps() {
    let (dir, topic) = (tempfile::tempdir().unwrap(), new_topic(2));
    let mut direct = Config::default();
    direct.direct.dir = dir.path().join("direct");
    let streamed = config(&dir.path().join("kafka"), &topic);
    let inputs = json!({"alcohol": 9.4, "tiny": 5e-324, "big": u64::MAX, "text": "\u{7}\u{1f377}", "list": [1, 2.5, null], "deep": {"a": {"b": []}}});
    for config in [&direct, &streamed] {
        let (logger, guard) = Logger::open(config).unwrap();
        let prediction =
            Prediction::new("wine", "1", &inputs, &[1.0 / 3.0, f64::NAN]).id("x").metadata(&[("k", "v")]).latency_ms(1.5);
        assert!(matches!(logger.log(prediction), Outcome::Accepted { .. }));
        assert_eq!(guard.shutdown(LONG).delivered, 1);
    }
    let database = rusqlite::Connection::open(dir.path().join("direct/predictions.db")).unwrap();
    let (inputs, outputs, metadata): (String, String, String) = database
        .query_row("select inputs, outputs, metadata from predictions", [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .unwrap();
    let message = read_topic(&broker().bootstrap(), &topic, 1).remove(0);
    let text = String::from_utf8(message.value.unwrap()).unwrap();
    // All of the line: its time, writer and seq are its own.
    let record: Value = serde_json::from_str(&text).unwrap();
    let (at, writer, seq) = (&record["timestamp"], &record["writer"], &record["seq"]);
    let expected = format!(
        "{{\"timestamp\":{at},\"model_name\":\"wine\",\"id\":\"x\",\"model_version\":\"1\",\"inputs\":{inputs},\"outputs\":{outputs},\
         \"latency_ms\":1.5,\"metadata\":{metadata},\"writer\":{writer},\"seq\":{seq}}}"
    );
    assert_eq!(text, expected);
}

#[test]
fn statements_of_the_ledger_have_a_topic_of_their_own_and_hold_up_nothing_where_it_is_missing() {
    for exists in [true, false] {
        let (dir, topic) = (tempfile::tempdir().unwrap(), new_topic(2));
        let mut config = config(dir.path(), &topic);
        config.ledger.enabled = true;
        if exists {
            broker().create_topic(&format!("{topic}-ledger"), 1);
        }
        log_all(&config, &["wine"], 100);
        assert_eq!(read_topic(&broker().bootstrap(), &topic, 100).len(), 100, "predictions, and nothing else");
        let entries: Vec<Value> = if exists {
            read_topic(&broker().bootstrap(), &format!("{topic}-ledger"), 1).iter().map(value).collect()
        } else {
            dead_letters(dir.path()).iter().map(|letter| letter["record"].clone()).collect()
        };
        let accepted: u64 = entries
            .iter()
            .filter(|entry| entry["inputs"]["kind"] == "accepted")
            .map(|entry| entry["inputs"]["rows"].as_u64().unwrap())
            .sum();
        assert_eq!(accepted, 100, "{entries:?}");
    }
}

fn audit(dir: &Path, topic: &str) -> (Option<i32>, Value) {
    let file = dir.join("audit.toml");
    let fallback = dir.join("nothing");
    let toml = format!(
        "mode = \"kafka\"\n[kafka]\nbrokers = \"{}\"\ntopic = \"{topic}\"\n[kafka.fallback]\ndir = {fallback:?}",
        broker().bootstrap()
    );
    std::fs::write(&file, toml).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_predlog")).args(["audit", "--json", "--config"]).arg(&file).output().unwrap();
    let said = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code(), said)
}

#[test]
fn an_audit_of_the_topic_says_complete_or_how_many_are_missing() {
    for topic in ["audited", "audited-{model_name}"] {
        let dir = tempfile::tempdir().unwrap();
        let mut config = config(&dir.path().join("data"), topic);
        (config.ledger.enabled, config.kafka.create_topics, config.kafka.partitions) = (true, true, 1);
        log_all(&config, &["wine", "beer"], 500);
        let (code, said) = audit(dir.path(), topic);
        assert_eq!((code, &said["complete"], &said["total"]["stored"]), (Some(0), &json!(true), &json!(1_000)), "{said}");
        // A replay's copies are no fault of a log.
        let first = topic.replace("{model_name}", "wine");
        let copy = read_topic(&broker().bootstrap(), &first, 1).remove(0).value.unwrap();
        broker().produce(&first, &copy);
        let (code, said) = audit(dir.path(), topic);
        assert!(code == Some(0) && said["notes"].to_string().contains("1 messages are copies"), "{said}");
        broker().delete_records(&first, 0, 7);
        let (code, said) = audit(dir.path(), topic);
        assert_eq!((code, &said["complete"]), (Some(1), &json!(false)), "{said}");
        // The copy of the first is still there.
        assert_eq!(said["total"]["missing"], 6, "{said}");
    }
}

#[test]
fn a_fan_out_has_the_same_records_on_the_topic_and_in_sqlite() {
    let (dir, topic) = (tempfile::tempdir().unwrap(), new_topic(3));
    let mut config = config(dir.path(), &topic);
    config.sinks =
        Config::from_toml("[[sinks]]\ntype = \"sqlite\"\nname = \"recent\"\nretain = \"1d\"").expect("a configuration").sinks;
    log_all(&config, &["wine", "fraud"], 500);
    let messages = read_topic(&broker().bootstrap(), &topic, 1_000);
    let database = rusqlite::Connection::open(dir.path().join("sinks/recent/predictions.db")).expect("the database");
    let mut query = database.prepare("SELECT id, inputs FROM predictions ORDER BY id").expect("the table");
    let stored: Vec<(String, Value)> = query
        .query_map([], |row| Ok((row.get(0)?, row.get::<_, String>(1)?)))
        .expect("rows")
        .map(|row| row.map(|(id, inputs)| (id, serde_json::from_str(&inputs).expect("JSON"))).expect("a row"))
        .collect();
    let mut sent: Vec<(String, Value)> = messages
        .iter()
        .map(|message| (value(message)["id"].as_str().expect("an id").to_owned(), value(message)["inputs"].clone()))
        .collect();
    sent.sort_by(|left, right| left.0.cmp(&right.0));
    assert_eq!(stored, sent);
    assert_eq!(stored.len(), 1_000);
}
