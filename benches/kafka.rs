//! From records to delivery reports: `cargo bench --bench kafka --features kafka [-- rows]`.
//!
//! Records of 12 features, about 360 bytes, to a real broker on this machine until every delivery report is there, acks=all, idempotent, lz4: predlog's sink
//! with lines already encoded, and typed predictions through `log()`, beside a bare loop around rdkafka's `ThreadedProducer` with the same lines, keys and
//! properties. Each in a process of its own, in turn, so that CPU time and peak memory are its own.
//!
//! The broker is one that `tests/services/install.sh kafka` has installed, or the one that PREDLOG_BENCH_BROKERS names, with a topic "predictions".

#[path = "../tests/support/mod.rs"]
mod services;
mod support;

use bytesize::ByteSize;
use predlog::batch::{Batch, Chunk, Origin};
use predlog::config::Mode;
use predlog::config::kafka::{Compression, KafkaSettings, Key, Packing};
use predlog::record::Writer;
use predlog::sink::Sink;
use predlog::sink::kafka::KafkaSink;
use predlog::sink::memory::MemorySink;
use predlog::{Config, Durability, Logger, LoggerSettings, Outcome, Overflow, Prediction};
use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use services::kafka::{Kafka, Options};
use std::collections::VecDeque;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use support::{cpu_seconds, features, median, paced, peak_rss_mib};
use uuid::Uuid;

const ROUNDS: usize = 5;
const PARTITIONS: i32 = 6;
/// Distinct lines; a run sends them again and again.
const LINES: u64 = 200_000;
/// Records of a batch, as the worker cuts them.
const BATCH: usize = 10_000;
const LONG: Duration = Duration::from_secs(600);
const WINDOW: usize = 32;
/// Calls a second, and for how long, where each call is timed.
const RATES: [u64; 2] = [20_000, 100_000];
const CALLS: Duration = Duration::from_secs(5);

type Run = fn(u64, &KafkaSettings) -> f64;

const RUNS: [(&str, Run); 7] = [
    ("rdkafka ThreadedProducer", |rows, settings| threaded(rows, settings)),
    ("predlog sink", |rows, settings| sink(rows, KafkaSettings { headers: false, ..settings.clone() })),
    ("predlog sink, headers", |rows, settings| sink(rows, settings.clone())),
    ("predlog sink, packed", |rows, settings| sink(rows, packed(settings, Compression::Lz4))),
    ("predlog sink, packed, zstd", |rows, settings| sink(rows, packed(settings, Compression::Zstd))),
    ("predlog log()", |rows, settings| log(rows, KafkaSettings { headers: false, ..settings.clone() })),
    ("predlog log(), packed", |rows, settings| log(rows, packed(settings, Compression::Lz4))),
];

fn packed(settings: &KafkaSettings, compression: Compression) -> KafkaSettings {
    KafkaSettings { packing: Packing::Ndjson, key: Key::None, compression, ..settings.clone() }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let rows_given = arguments.first().and_then(|rows| rows.parse().ok());
    let rows = rows_given.unwrap_or(2_000_000);
    if let [_, name, brokers, topic] = &arguments[..]
        && rows_given.is_some()
    {
        let run = RUNS.iter().find(|run| run.0 == name).expect("a run");
        let settings =
            KafkaSettings { brokers: brokers.clone(), topic: topic.clone(), deadline: LONG, ..KafkaSettings::default() };
        let seconds = run.1(rows, &settings);
        println!("{seconds} {} {}", cpu_seconds(), peak_rss_mib());
        return;
    }
    if let [command, name, brokers, rate] = &arguments[..]
        && command == "latency"
    {
        return latency(name, brokers, rate.parse().expect("a rate"));
    }
    let mut broker = None;
    let brokers = std::env::var("PREDLOG_BENCH_BROKERS").unwrap_or_else(|_| {
        let started = broker.insert(Kafka::start(&Options::default()));
        started.create_topic("predictions", PARTITIONS);
        started.bootstrap()
    });
    let mut figures = vec![[Vec::new(), Vec::new(), Vec::new()]; RUNS.len()];
    for round in 0..ROUNDS {
        for (figures, (name, _)) in figures.iter_mut().zip(RUNS) {
            eprintln!("round {} of {ROUNDS}: {name}", round + 1);
            let this = std::env::current_exe().expect("this program");
            let output =
                Command::new(this).arg(rows.to_string()).args([name, &brokers, "predictions"]).output().expect("the run starts");
            assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
            let text = String::from_utf8(output.stdout).expect("numbers");
            figures.iter_mut().zip(text.split_whitespace()).for_each(|(of, number)| of.push(number.parse().expect("a number")));
        }
    }
    println!(
        "\nkafka: {rows} records, medians of {ROUNDS} rounds\n{:<28} {:>12} {:>8} {:>12} {:>10}",
        "", "records/s", "ratio", "CPU us/rec", "peak MiB"
    );
    let rate = |at: usize| rows as f64 / median(figures[at][0].clone());
    for (at, (name, _)) in RUNS.iter().enumerate() {
        let (cpu, rss) = (median(figures[at][1].clone()), median(figures[at][2].clone()));
        println!("{name:<28} {:>12.0} {:>8.2} {:>12.2} {:>10.0}", rate(at), rate(at) / rate(0), cpu * 1e6 / rows as f64, rss);
    }
    latencies(&brokers);
}

fn prediction_lines() -> (Writer, Vec<Vec<u8>>) {
    let store = MemorySink::new();
    let settings = LoggerSettings {
        durability: Durability::Memory,
        overflow: Overflow::Block,
        lanes: Some(1),
        block_limit: LONG,
        ..LoggerSettings::default()
    };
    let (logger, guard) = Logger::builder(settings).sink(Box::new(store.clone())).open().expect("it opens");
    for n in 0..LINES {
        let (inputs, outputs) = features(n);
        assert!(matches!(logger.log(Prediction::new("churn", "3", &inputs, &outputs)), Outcome::Accepted { .. }));
    }
    guard.shutdown(LONG);
    let records = store.records();
    (records[0].writer, records.into_iter().map(|record| record.line).collect())
}

/// The latency of one call in a handler, paced: `log()`, and rdkafka's `send()` of a line that is encoded already.
fn latencies(brokers: &str) {
    println!(
        "\nlatency of one call, ns, {} s each\n{:<28} {:>8} {:>8} {:>8} {:>8} {:>10}",
        CALLS.as_secs(),
        "",
        "rate",
        "p50",
        "p99",
        "p99.9",
        "max"
    );
    for rate in RATES {
        for name in ["predlog log()", "rdkafka send()"] {
            let this = std::env::current_exe().expect("this program");
            let output = Command::new(this).args(["latency", name, brokers, &rate.to_string()]).output().expect("the run starts");
            assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
            print!("{name:<28} {rate:>8} {}", String::from_utf8_lossy(&output.stdout));
        }
    }
}

fn latency(name: &str, brokers: &str, rate: u64) {
    let settings = KafkaSettings { brokers: brokers.to_owned(), ..KafkaSettings::default() };
    let latency = if name == "predlog log()" {
        let dir = tempfile::tempdir().expect("a directory");
        let mut config = Config { mode: Mode::Kafka, kafka: settings, ..Config::default() };
        config.kafka.fallback.dir = dir.path().to_owned();
        config.ledger.enabled = false;
        let (logger, guard) = Logger::open(&config).expect("it opens");
        let latency = paced(rate, CALLS, |n| {
            let (inputs, outputs) = features(n);
            assert!(matches!(logger.log(Prediction::new("churn", "3", &inputs, &outputs)), Outcome::Accepted { .. }));
        });
        let report = guard.shutdown(LONG);
        assert_eq!(report.delivered, report.accepted, "{report:?}");
        latency
    } else {
        let (producer, _) = producer(&settings);
        let (_, lines) = prediction_lines();
        let latency = paced(rate, CALLS, |n| {
            let line = &lines[n as usize % lines.len()];
            producer.send(BaseRecord::to(&settings.topic).payload(line).key(&n.to_le_bytes())).expect("there is room");
        });
        producer.flush(LONG).expect("all is delivered");
        latency
    };
    let [p50, p99, p999] = [0.5, 0.99, 0.999].map(|quantile| latency.quantile(quantile));
    println!("{p50:>8} {p99:>8} {p999:>8} {:>10}", latency.max());
}

/// Counts its reports.
struct Count(Arc<AtomicU64>);

impl rdkafka::ClientContext for Count {}

impl ProducerContext for Count {
    type DeliveryOpaque = ();
    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, message)) = result {
            panic!("{error}: {:?}", message.topic());
        }
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// A bare producer, with the properties that predlog's sink sets.
fn producer(settings: &KafkaSettings) -> (ThreadedProducer<Count>, Arc<AtomicU64>) {
    let delivered = Arc::new(AtomicU64::new(0));
    let mut config = ClientConfig::new();
    let properties = [("acks", "all"), ("enable.idempotence", "true"), ("compression.type", "lz4"), ("linger.ms", "5")];
    for (name, value) in properties {
        config.set(name, value);
    }
    config.set("partitioner", "murmur2_random").set("bootstrap.servers", &settings.brokers);
    config.set("queue.buffering.max.messages", "500000").set("queue.buffering.max.kbytes", "1000000");
    let producer = config.create_with_context(Count(Arc::clone(&delivered))).expect("it connects");
    (producer, delivered)
}

fn threaded(rows: u64, settings: &KafkaSettings) -> f64 {
    let (producer, delivered) = producer(settings);
    let (_, lines) = prediction_lines();
    let keys: Vec<String> = lines
        .iter()
        .map(|line| serde_json::from_slice::<serde_json::Value>(line).expect("JSON")["id"].as_str().expect("an id").to_owned())
        .collect();
    // A rate, not how long it takes to connect: here, and below.
    producer.send(BaseRecord::to(&settings.topic).payload(&lines[0]).key(&keys[0])).expect("there is room");
    producer.flush(LONG).expect("it is delivered");
    delivered.store(0, Ordering::Relaxed);
    let start = Instant::now();
    for at in (0..lines.len()).cycle().take(rows as usize) {
        let mut record = BaseRecord::to(&settings.topic).payload(&lines[at]).key(&keys[at]);
        while let Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) = producer.send(record) {
            record = back;
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    producer.flush(LONG).expect("all is delivered");
    let seconds = start.elapsed().as_secs_f64();
    assert_eq!(delivered.load(Ordering::Relaxed), rows);
    seconds
}

/// The sink as the worker calls it: a few batches on their way.
fn sink(rows: u64, settings: KafkaSettings) -> f64 {
    let (writer, lines) = prediction_lines();
    let batches: Vec<Vec<u8>> = lines.chunks(BATCH).map(<[_]>::concat).collect();
    let dir = tempfile::tempdir().expect("a directory");
    let mut settings = settings;
    settings.fallback.dir = dir.path().to_owned();
    let mut sink = KafkaSink::open(settings, Uuid::now_v7(), Arc::default()).expect("it opens");
    let chunk = Chunk::from_lines(writer, 1, 0, 0, &lines[0]);
    sink.write(&Batch { id: 0, origin: Origin::Live, chunks: vec![chunk] }).expect("it takes records");
    let mut owned = None;
    while owned.is_none() {
        owned = sink.commit().expect("it delivers");
    }
    let start = Instant::now();
    let mut waiting = VecDeque::new();
    for (id, at) in (1_u64..).zip((0..batches.len()).cycle().take(rows as usize / BATCH)) {
        let first = (at * BATCH) as u64;
        let chunk = Chunk::from_lines(writer, BATCH as u64, first, first + BATCH as u64 - 1, &batches[at]);
        sink.write(&Batch { id, origin: Origin::Live, chunks: vec![chunk] }).expect("it takes records");
        waiting.push_back(id);
        while waiting.len() >= WINDOW {
            owned = sink.commit().expect("it delivers");
            if waiting.front().is_some_and(|id| owned < Some(*id)) {
                std::thread::sleep(Duration::from_micros(500));
            }
            while waiting.front().is_some_and(|id| owned >= Some(*id)) {
                waiting.pop_front();
            }
        }
    }
    while owned < waiting.back().copied() {
        owned = sink.commit().expect("it delivers");
        std::thread::sleep(Duration::from_micros(500));
    }
    start.elapsed().as_secs_f64()
}

/// Typed predictions, one thread that logs flat out and waits where the queue is full.
fn log(rows: u64, kafka: KafkaSettings) -> f64 {
    let dir = tempfile::tempdir().expect("a directory");
    let mut config = Config { mode: Mode::Kafka, kafka, ..Config::default() };
    config.kafka.fallback.dir = dir.path().to_owned();
    config.logger.overflow = Overflow::Block;
    config.logger.block_limit = Duration::from_secs(60);
    config.logger.queue_bytes = ByteSize::mib(64);
    config.kafka.deadline = Duration::from_secs(60);
    let (logger, guard) = Logger::open(&config).expect("it opens");
    let (inputs, outputs) = features(0);
    assert!(matches!(logger.log(Prediction::new("churn", "3", &inputs, &outputs)), Outcome::Accepted { .. }));
    assert!(logger.flush(LONG));
    let start = Instant::now();
    for n in 0..rows {
        let (inputs, outputs) = features(n);
        assert!(matches!(logger.log(Prediction::new("churn", "3", &inputs, &outputs)), Outcome::Accepted { .. }));
    }
    assert!(logger.flush(LONG));
    let seconds = start.elapsed().as_secs_f64();
    let report = guard.shutdown(LONG);
    assert_eq!(report.delivered, rows + 1, "{report:?}");
    seconds
}
