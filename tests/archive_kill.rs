//! Two million records through Kafka to Parquet, while archivers are killed with -9, more and fewer of them share the work, and the bucket's server
//! is killed, slow, cut off, or answers 500 and 503: every record is stored once, and no reader ever sees a half file.

mod support;

use arrow_array::Array;
use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int64Type};
use futures_util::TryStreamExt;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use predlog::config::Mode;
use predlog::{Config, Logger, Outcome, Prediction};
use serde::Serialize;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use support::faulty_bucket::FaultyBucket;
use support::kafka::{Kafka, Options};
use support::readers::{output, python};

const RECORDS: u64 = 2_000_000;
const KILLS: u64 = 30;
const BUCKET: &str = "archive";
const TOPIC: &str = "predictions";
/// Instances while each third of the kills is done.
const INSTANCES: [usize; 3] = [1, 3, 2];

fn main() {
    if std::env::args().any(|argument| argument == "--list") {
        return;
    }
    let kafka = Kafka::start(&Options::default());
    kafka.create_topic(TOPIC, 6);
    let mut faults = FaultyBucket::start(BUCKET);
    let work = tempfile::tempdir().expect("a directory");
    let config = work.path().join("archive.toml");
    std::fs::write(&config, toml(&kafka, &faults, work.path())).expect("the configuration");

    let (done, seen) = (AtomicBool::new(false), AtomicU64::new(0));
    let logged = std::thread::scope(|scope| {
        let minio = faults.minio.store(BUCKET);
        let (done_, seen_) = (&done, &seen);
        scope.spawn(move || read_until(minio, done_, seen_));
        let logging = scope.spawn(|| log(&kafka, work.path()));
        kill_archivers(&mut faults, &config);
        let logged = logging.join().expect("all is logged");
        let status = archive(&config, &faults, true).wait().expect("the last run");
        assert!(status.success(), "{status}");
        done.store(true, Ordering::Release);
        logged
    });
    assert_eq!(logged, RECORDS);
    let objects = assert_once(&faults);
    assert_readers_agree(&faults);
    println!("test {RECORDS} records are stored once after {KILLS} kills of 1, 3 and 2 archivers, in {objects} objects ... ok");
    println!("test no reader saw a half file: {} objects were read while they came ... ok", seen.load(Ordering::Relaxed));
    println!("2 passed, 0 failed");
}

fn toml(kafka: &Kafka, faults: &FaultyBucket, work: &Path) -> String {
    format!(
        "mode = \"kafka\"\nledger.enabled = false\n[kafka]\nbrokers = {:?}\ntopic = {TOPIC:?}\n[archive]\ntopics = [{TOPIC:?}]\ndir = {:?}\n\
         [kafka.properties]\n\"session.timeout.ms\" = 6000\n[rotation]\nmax_rows = 20000\nmax_age = \"2s\"\n\
         [upload]\nurl = \"s3://{BUCKET}/table\"\nendpoint = {:?}\n",
        kafka.bootstrap(),
        work.join("scratch"),
        faults.endpoint()
    )
}

fn archive(config: &Path, faults: &FaultyBucket, until_end: bool) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_predlog"));
    command.arg("archive").arg("--config").arg(config).envs(faults.minio.env()).env("RUST_LOG", "error").stdout(Stdio::null());
    if until_end {
        command.arg("--until-end");
    } else {
        command.stderr(Stdio::null());
    }
    command.spawn().expect("predlog starts")
}

#[derive(Serialize)]
struct Inputs {
    n: u64,
    half: f64,
}

/// Logs all records over the time that the kills take.
fn log(kafka: &Kafka, work: &Path) -> u64 {
    let mut config = Config { mode: Mode::Kafka, ..Config::default() };
    config.kafka.brokers = kafka.bootstrap();
    config.kafka.topic = TOPIC.to_owned();
    config.kafka.fallback.dir = work.join("logger");
    config.ledger.enabled = false;
    let (logger, guard) = Logger::open(&config).expect("the logger opens");
    let start = Instant::now();
    for n in 0..RECORDS {
        let (id, inputs) = (format!("r-{n}"), Inputs { n, half: n as f64 / 2.0 });
        let model = if n % 3 == 0 { "wine" } else { "fraud/eu" };
        while !matches!(logger.log(Prediction::new(model, "1", &inputs, &n).id(&id)), Outcome::Accepted { .. }) {
            std::thread::sleep(Duration::from_millis(1));
        }
        // 40,000 a second: as long as the kills take.
        if n % 400 == 0 {
            std::thread::sleep(Duration::from_millis(n / 40).saturating_sub(start.elapsed()));
        }
    }
    let report = guard.shutdown(Duration::from_secs(120));
    assert_eq!((report.on_disk, report.problem.as_deref()), (0, None), "{report:?}");
    report.delivered
}

/// Kills archivers at random moments; another takes the place of each.
fn kill_archivers(faults: &mut FaultyBucket, config: &Path) {
    let mut running: Vec<Child> = Vec::new();
    for kill in 0..KILLS {
        let wanted = INSTANCES[usize::try_from(kill * 3 / KILLS).expect("small")];
        while running.len() < wanted {
            running.push(archive(config, faults, false));
        }
        while running.len() > wanted {
            end(running.swap_remove(0));
        }
        if kill % 2 == 0 {
            faults.next(kill / 2);
        }
        std::thread::sleep(Duration::from_millis(500 + fastrand::u64(..1_500)));
        let at = fastrand::usize(..running.len());
        end(running.swap_remove(at));
        if kill % 2 == 0 {
            faults.heal(kill / 2);
        }
    }
    running.into_iter().for_each(end);
}

fn end(mut archiver: Child) {
    archiver.kill().expect("kill -9");
    archiver.wait().expect("it is gone");
}

/// Reads whatever is in the table, again and again: each file must be whole.
fn read_until(store: impl ObjectStore, done: &AtomicBool, seen: &AtomicU64) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut read = BTreeSet::new();
    while !done.load(Ordering::Acquire) {
        runtime.block_on(async {
            // The server is killed on purpose: then nothing is seen.
            let Ok(listed) = store.list(Some(&"table/predictions".into())).try_collect::<Vec<_>>().await else { return };
            for object in listed {
                if !read.contains(&object.location)
                    && let Ok(found) = store.get(&object.location).await
                    && let Ok(bytes) = found.bytes().await
                {
                    let whole = ParquetRecordBatchReaderBuilder::try_new(bytes);
                    assert!(whole.is_ok(), "{} is half a file", object.location);
                    read.insert(object.location);
                }
            }
        });
        seen.store(read.len() as u64, Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Each number once, with its own id and values.
fn assert_once(faults: &FaultyBucket) -> usize {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let store = faults.minio.store(BUCKET);
    let mut times = vec![0_u8; usize::try_from(RECORDS).expect("fits")];
    let listed: Vec<_> = runtime.block_on(store.list(Some(&"table/predictions".into())).try_collect()).expect("the objects");
    for object in &listed {
        let bytes = runtime.block_on(async { store.get(&object.location).await?.bytes().await }).expect("an object");
        let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).expect("a Parquet file").build().expect("its rows");
        for batch in reader {
            let batch = batch.expect("a batch");
            let inputs = batch.column_by_name("inputs").expect("inputs").as_struct();
            let n = inputs.column_by_name("n").expect("n").as_primitive::<Int64Type>();
            let half = inputs.column_by_name("half").expect("half").as_primitive::<Float64Type>();
            let outputs = batch.column_by_name("outputs").expect("outputs").as_struct();
            let output = outputs.column_by_name("value").expect("value").as_primitive::<Int64Type>();
            let ids = batch.column_by_name("id").expect("id").as_string::<i32>();
            for row in 0..batch.num_rows() {
                let number = n.value(row);
                times[usize::try_from(number).expect("in range")] += 1;
                assert_eq!(
                    (ids.value(row), half.value(row), output.value(row)),
                    (&*format!("r-{number}"), number as f64 / 2.0, number)
                );
                assert!(n.is_valid(row), "{}", object.location);
            }
        }
    }
    let (missing, twice) = (times.iter().filter(|&&times| times == 0).count(), times.iter().filter(|&&times| times > 1).count());
    assert_eq!((missing, twice), (0, 0), "missing and stored twice, of {RECORDS}");
    listed.len()
}

/// DuckDB reads the bucket as one table.
fn assert_readers_agree(faults: &FaultyBucket) {
    let mut script = python("tests/readers/count_table.py");
    script.arg(format!("s3://{BUCKET}/table/predictions")).envs(faults.minio.env());
    let expected = format!("{RECORDS} {RECORDS} {} {}", RECORDS * (RECORDS - 1) / 2, RECORDS.div_ceil(3));
    assert_eq!(output(script).trim(), expected, "rows, ids, the sum of n, rows of wine");
}
