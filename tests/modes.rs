//! Changing modes, replays and migrations: whatever moves, each record is where it belongs, once.
#![cfg(feature = "cli")]

mod support;

use predlog::config::Mode;
use predlog::config::kafka::KafkaSettings;
use predlog::{Config, Logger, Outcome};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use support::kafka::{Kafka, Options, read_topic};

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
