//! From a topic to Parquet in a bucket: `cargo bench --all-features --bench archive [-- records]`.
//!
//! Records of 12 features, about 360 bytes, that lie in 6 partitions of a real broker, one or many in a message, to Parquet (zstd) in MinIO; broker, MinIO
//! and archiver on the same cores. Each run is a process of its own and a consumer group of its own; the time is from its partitions' assignment
//! to its end, all stored. Then its peers store the first topic (`benches/peers/`), one after the other, once.

mod peers;
#[path = "../tests/support/mod.rs"]
mod services;
mod support;

use bytesize::ByteSize;
use peers::{Figures, Given, iceberg, mq_bridge, spark};
use predlog::archive::{Archiver, Job};
use predlog::config::Mode;
use predlog::config::kafka::{Key, Packing};
use predlog::{Config, Logger, Outcome, Overflow, Prediction};
use services::kafka::{Kafka, Options};
use services::s3::Minio;
use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use support::{cpu_seconds, features, median, peak_rss_mib};

const ROUNDS: usize = 3;
const PARTITIONS: i32 = 6;
const LONG: Duration = Duration::from_secs(600);
const BUCKET: &str = "bench";
const FILE_ROWS: u64 = 200_000;
/// Topics, and how their records lie in messages.
const TOPICS: [(&str, Packing); 2] = [("records", Packing::None), ("packed", Packing::Ndjson)];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if let [command, topic, brokers, group, endpoint] = &arguments[..]
        && command == "archive"
    {
        return archive(topic, brokers, group, endpoint);
    }
    let rows: u64 = arguments.first().and_then(|rows| rows.parse().ok()).unwrap_or(5_000_000);
    let (kafka, minio) = (Kafka::start(&Options::default()), Minio::start());
    minio.create_bucket(BUCKET);
    for (topic, packing) in TOPICS {
        kafka.create_topic(topic, PARTITIONS);
        eprintln!("filling topic {topic}");
        fill(&kafka.bootstrap(), topic, packing, rows);
    }
    println!("\narchive: {rows} records to Parquet in MinIO, medians of {ROUNDS} rounds");
    println!("{:<12} {:>12} {:>12} {:>10}", "topic", "records/s", "CPU us/rec", "peak MiB");
    let mut rates = Vec::new();
    for (topic, _) in TOPICS {
        let mut figures = [Vec::new(), Vec::new(), Vec::new()];
        for round in 0..ROUNDS {
            eprintln!("round {} of {ROUNDS}: {topic}", round + 1);
            let group = format!("{topic}-{round}");
            let output = Command::new(std::env::current_exe().expect("this program"))
                .args(["archive", topic, &kafka.bootstrap(), &group, &minio.endpoint()])
                .envs(minio.env())
                .output()
                .expect("the run starts");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            let text = String::from_utf8(output.stdout).expect("numbers");
            let numbers: Vec<f64> = text.split_whitespace().map(|number| number.parse().expect("a number")).collect();
            assert_eq!(numbers[0] as u64, rows, "all are stored");
            figures.iter_mut().zip(&numbers[1..]).for_each(|(of, number)| of.push(*number));
        }
        let [seconds, cpu, rss] = figures.map(median);
        println!("{topic:<12} {:>12.0} {:>12.2} {rss:>10.0}", rows as f64 / seconds, cpu * 1e6 / rows as f64);
        rates.push(rows as f64 / seconds);
    }
    let given = Given { kafka: &kafka, minio: &minio, topic: TOPICS[0].0, rows, bucket: BUCKET };
    run_peers(&given, rates[0]);
}

/// The peers on the topic of single records, and how many times as fast as each `rate` is.
fn run_peers(given: &Given<'_>, rate: f64) {
    type Run = fn(&Given<'_>) -> Figures;
    let peers: [(&str, Option<&str>, Run); 3] = [
        ("iceberg sink", iceberg::missing(), |given| {
            iceberg::run(given, |topic| fill(&given.kafka.bootstrap(), topic, Packing::None, 1))
        }),
        ("spark delta", spark::missing(), spark::run),
        ("mq-bridge", mq_bridge::missing(), mq_bridge::run),
    ];
    println!(
        "\npeers on topic {}: since they were told to begin, and once warm, after the first version of their tables",
        given.topic
    );
    println!("{:<12} {:>12} {:>12} {:>12} {:>10}  predlog is", "peer", "records/s", "warm", "CPU us/rec", "peak MiB");
    for (name, missing, run) in peers {
        if let Some(what) = missing {
            println!("{name:<12} MISSING: {what}");
            continue;
        }
        eprintln!("peer: {name}");
        let Figures { begun, warm, cpu, peak_mib } = run(given);
        let (times, of_warm) = (rate / begun, rate / warm);
        let cpu = cpu * 1e6;
        println!(
            "{name:<12} {begun:>12.0} {warm:>12.0} {cpu:>12.2} {peak_mib:>10.0}  {times:.1} times as fast, {of_warm:.1} warm"
        );
    }
}

fn fill(brokers: &str, topic: &str, packing: Packing, rows: u64) {
    let dir = tempfile::tempdir().expect("a directory");
    let mut config = Config { mode: Mode::Kafka, ..Config::default() };
    (config.kafka.brokers, config.kafka.topic) = (brokers.to_owned(), topic.to_owned());
    config.kafka.packing = packing;
    config.kafka.key = if packing == Packing::Ndjson { Key::None } else { Key::Id };
    config.kafka.fallback.dir = dir.path().to_owned();
    config.kafka.deadline = Duration::from_secs(60);
    (config.logger.overflow, config.logger.block_limit, config.logger.queue_bytes) =
        (Overflow::Block, Duration::from_secs(60), ByteSize::mib(64));
    config.ledger.enabled = false;
    let (logger, guard) = Logger::open(&config).expect("it opens");
    for n in 0..rows {
        let (inputs, outputs) = features(n);
        assert!(matches!(logger.log(Prediction::new("churn", "3", &inputs, &outputs)), Outcome::Accepted { .. }));
    }
    let report = guard.shutdown(LONG);
    assert_eq!(report.delivered, rows, "{report:?}");
}

fn archive(topic: &str, brokers: &str, group: &str, endpoint: &str) {
    let dir = tempfile::tempdir().expect("a directory");
    let mut config = Config { mode: Mode::Kafka, ..Config::default() };
    (config.kafka.brokers, config.kafka.topic) = (brokers.to_owned(), topic.to_owned());
    (config.archive.group, config.archive.dir) = (group.to_owned(), dir.path().to_owned());
    config.archive.topics = vec![topic.to_owned()];
    // A file of each partition is stored while the next is made, as in a run that does not end.
    config.rotation.max_rows = FILE_ROWS;
    config.upload.url = Some(format!("s3://{BUCKET}/{group}"));
    config.upload.endpoint = Some(endpoint.to_owned());
    let archiver = Archiver::new(Job::predictions(&config, true).expect("a job"));
    let (counters, progress) = (archiver.counters(), archiver.counters());
    // The group forms in its own time, which is the broker's setting: the clock starts when the partitions are assigned.
    let assigned = std::thread::spawn(move || {
        while progress.partitions().is_empty() {
            std::thread::sleep(Duration::from_millis(1));
        }
        Instant::now()
    });
    archiver.run().expect("it ends well");
    let end = Instant::now();
    let seconds = end.duration_since(assigned.join().expect("partitions are assigned")).as_secs_f64();
    println!("{} {seconds} {} {}", counters.rows.load(Ordering::Relaxed), cpu_seconds(), peak_rss_mib());
}
