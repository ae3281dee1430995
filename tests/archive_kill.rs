//! Two million records through Kafka to Parquet, and as many to a Delta table, while archivers are killed with -9, more and fewer of them share the work, and the bucket's server
//! is killed, slow, cut off, or answers 500 and 503: every record is stored once, and no reader ever sees a half file.

mod support;

use arrow_array::Array;
use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int64Type};
use futures_util::TryStreamExt;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use predlog::config::Mode;
use predlog::{Config, Logger, Outcome, Overflow, Prediction};
use serde::Serialize;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;
use support::faulty_bucket::FaultyBucket;
use support::kafka::{Kafka, Message, Options, read_topic};
use support::process::wait_until;
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
    stored_once(Table::Parquet);
    stored_once(Table::Delta);
    println!("4 passed, 0 failed");
}

/// What readers are given.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Table {
    Parquet,
    Delta,
}

fn stored_once(table: Table) {
    // Members that were killed are missed within seconds, so that each archiver stores something before it is killed too.
    let kafka = Kafka::start(&Options { properties: &[("group.min.session.timeout.ms", "500")], ..Options::default() });
    kafka.create_topic(TOPIC, 6);
    let mut faults = FaultyBucket::start(BUCKET);
    let work = tempfile::tempdir().expect("a directory");
    let config = work.path().join("archive.toml");
    std::fs::write(&config, toml(table, &kafka, &faults, work.path())).expect("the configuration");

    let (logged, seen) = std::thread::scope(|scope| {
        let (minio, environment) = (faults.minio.store(BUCKET), faults.minio.env());
        let ((killed, kills), (end, done)) = (channel(), channel());
        let reading = scope.spawn(move || match table {
            Table::Parquet => read_until(minio, &done),
            Table::Delta => read_table_until(environment, &done),
        });
        let logging = scope.spawn(|| log(&kafka, work.path(), kills));
        kill_archivers(&mut faults, &config, &killed);
        let logged = logging.join().expect("all is logged");
        let status = archive(&config, &faults, true).wait().expect("the last run");
        assert!(status.success(), "{status}");
        drop(end);
        (logged, reading.join().expect("the reader saw nothing wrong"))
    });
    assert_eq!(logged, RECORDS);
    assert!(seen > 0, "no reader saw anything");
    let objects = assert_once(&kafka, &faults, &files(table, &faults));
    assert_readers_agree(table, &faults);
    println!(
        "test {table:?}: {RECORDS} records are stored once after {KILLS} kills of 1, 3 and 2 archivers, in {objects} objects ... ok"
    );
    println!("test {table:?}: no reader saw a half file or a row twice: {seen} were read while they came ... ok");
}

fn toml(table: Table, kafka: &Kafka, faults: &FaultyBucket, work: &Path) -> String {
    format!(
        "mode = \"kafka\"\nledger.enabled = false\n[kafka]\nbrokers = {:?}\ntopic = {TOPIC:?}\n[archive]\ntable = {:?}\ntopics = [{TOPIC:?}]\ndir = {:?}\n\
         [kafka.properties]\n\"session.timeout.ms\" = 1500\n\"heartbeat.interval.ms\" = 300\n[rotation]\nmax_rows = 20000\nmax_age = \"2s\"\n\
         [upload]\nurl = \"s3://{BUCKET}/table\"\nendpoint = {:?}\n",
        kafka.bootstrap(),
        format!("{table:?}").to_lowercase(),
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

/// Logs a part of the records between every two kills.
fn log(kafka: &Kafka, work: &Path, kills: Receiver<()>) -> u64 {
    let mut config = Config { mode: Mode::Kafka, ..Config::default() };
    config.kafka.brokers = kafka.bootstrap();
    config.kafka.topic = TOPIC.to_owned();
    config.kafka.fallback.dir = work.join("logger");
    config.ledger.enabled = false;
    (config.logger.overflow, config.logger.block_limit) = (Overflow::Block, Duration::from_secs(60));
    let (logger, guard) = Logger::open(&config).expect("the logger opens");
    for part in 0..KILLS {
        for n in part * RECORDS / KILLS..(part + 1) * RECORDS / KILLS {
            let (id, inputs) = (format!("r-{n}"), Inputs { n, half: n as f64 / 2.0 });
            let model = if n % 3 == 0 { "wine" } else { "fraud/eu" };
            let outcome = logger.log(Prediction::new(model, "1", &inputs, &n).id(&id));
            assert!(matches!(outcome, Outcome::Accepted { .. }), "{outcome:?}");
            if n % 400 == 0 {
                // The rate at which they come: archivers are to be killed while they have some in hand.
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        kills.recv().expect("an archiver is killed");
    }
    let report = guard.shutdown(Duration::from_secs(120));
    assert_eq!((report.on_disk, report.problem.as_deref()), (0, None), "{report:?}");
    report.delivered
}

/// Kills archivers at random moments, each after something was stored since the last one; another takes the place of each.
fn kill_archivers(faults: &mut FaultyBucket, config: &Path, killed: &Sender<()>) {
    let mut running: Vec<Child> = Vec::new();
    for kill in 0..KILLS {
        let wanted = INSTANCES[usize::try_from(kill * 3 / KILLS).expect("small")];
        while running.len() < wanted {
            running.push(archive(config, faults, false));
        }
        while running.len() > wanted {
            end(running.swap_remove(0));
        }
        let before = files(Table::Parquet, faults).len();
        wait_until("something is stored after a kill", Duration::from_secs(60), || files(Table::Parquet, faults).len() > before);
        if kill % 2 == 0 {
            faults.next(kill / 2);
        }
        std::thread::sleep(Duration::from_millis(fastrand::u64(..1_500)));
        let at = fastrand::usize(..running.len());
        end(running.swap_remove(at));
        if kill % 2 == 0 {
            faults.heal(kill / 2);
        }
        killed.send(()).expect("the logger goes on");
    }
    running.into_iter().for_each(end);
}

fn end(mut archiver: Child) {
    archiver.kill().expect("kill -9");
    archiver.wait().expect("it is gone");
}

/// Reads whatever is in the table, again and again until the end: each file must be whole. How many there were.
fn read_until(store: impl ObjectStore, done: &Receiver<()>) -> usize {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut read = BTreeSet::new();
    while done.recv_timeout(Duration::from_millis(50)) == Err(RecvTimeoutError::Timeout) {
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
    }
    read.len()
}

/// Reads the table by its log, again and again until the end: no row is there twice in any version. How many versions were seen.
fn read_table_until(environment: impl IntoIterator<Item = (&'static str, String)>, done: &Receiver<()>) -> usize {
    let mut script = python("tests/readers/watch_delta.py");
    script.arg(format!("s3://{BUCKET}/table/predictions")).envs(environment).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut watching = script.spawn().expect("Python starts");
    while done.recv_timeout(Duration::from_millis(200)) == Err(RecvTimeoutError::Timeout) {
        assert_eq!(watching.try_wait().expect("it runs"), None, "it saw a row twice");
    }
    // It ends with its input, and tells how many versions it has seen.
    drop(watching.stdin.take());
    let told = watching.wait_with_output().expect("it ends");
    assert!(told.status.success(), "{}", told.status);
    String::from_utf8_lossy(&told.stdout).trim().parse().expect("a number")
}

/// The files that readers read: all that are there, or all that the log names.
fn files(table: Table, faults: &FaultyBucket) -> Vec<object_store::path::Path> {
    if table == Table::Delta {
        let mut script = python("tests/readers/read_delta.py");
        script.args(["--reader", "delta-rs", "files", &format!("s3://{BUCKET}/table/predictions")]).envs(faults.minio.env());
        let key =
            |url: &str| object_store::path::Path::parse(url.strip_prefix(&format!("s3://{BUCKET}/")).expect("in the bucket"));
        return output(script).lines().map(|url| key(url).expect("a key")).collect();
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let store = faults.minio.store(BUCKET);
    let listed: Vec<_> = runtime.block_on(store.list(Some(&"table/predictions".into())).try_collect()).expect("the objects");
    listed.into_iter().map(|object| object.location).collect()
}

/// Each number once, with its own id and values.
fn assert_once(kafka: &Kafka, faults: &FaultyBucket, files: &[object_store::path::Path]) -> usize {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let store = faults.minio.store(BUCKET);
    let mut times = vec![0_u8; usize::try_from(RECORDS).expect("fits")];
    for file in files {
        let bytes = runtime.block_on(async { store.get(file).await?.bytes().await }).expect("an object");
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
                assert!(n.is_valid(row), "{file}");
            }
        }
    }
    let of = |wanted: fn(u8) -> bool| -> BTreeSet<usize> { (0..times.len()).filter(|n| wanted(times[*n])).collect() };
    let (missing, twice) = (of(|times| times == 0), of(|times| times > 1));
    if missing.len() + twice.len() > 0 {
        tell_where(kafka, files, &missing.union(&twice).copied().collect());
    }
    assert_eq!((missing.len(), twice.len()), (0, 0), "missing {missing:?} and stored twice {twice:?}, of {RECORDS}");
    files.len()
}

/// Where records lie in the topic, and which objects are said to have those offsets.
fn tell_where(kafka: &Kafka, files: &[object_store::path::Path], numbers: &BTreeSet<usize>) {
    for message in read_topic(&kafka.bootstrap(), TOPIC, 0) {
        let value: serde_json::Value = serde_json::from_slice(message.value.as_deref().unwrap_or_default()).expect("a record");
        let number = value["outputs"].as_u64().and_then(|n| usize::try_from(n).ok()).expect("its number");
        if numbers.contains(&number) {
            let Message { partition, offset, .. } = message;
            let (writer, seq) = (&value["writer"], &value["seq"]);
            println!(
                "record {number} of writer={writer} seq={seq} is at partition={partition} offset={offset}; objects from or to near it:"
            );
            let of_partition = files.iter().filter(|file| file.as_ref().contains(&format!("/{TOPIC}+{partition}+")));
            for file in of_partition {
                let name = file.filename().unwrap_or_default().trim_end_matches(".parquet");
                let bounds = name.split('+').nth(2).and_then(|range| range.split_once('-')).expect("a range");
                let bounds: [i64; 2] = [bounds.0, bounds.1].map(|text| text.parse().expect("an offset"));
                if bounds[0] - 30_000 <= offset && offset <= bounds[1] + 30_000 {
                    println!("  {file}");
                }
            }
        }
    }
}

/// DuckDB reads the bucket as one table, delta-rs its log.
fn assert_readers_agree(table: Table, faults: &FaultyBucket) {
    let mut script = match table {
        Table::Parquet => python("tests/readers/count_table.py"),
        Table::Delta => python("tests/readers/read_delta.py"),
    };
    if table == Table::Delta {
        script.args(["--reader", "delta-rs", "count"]);
    }
    script.arg(format!("s3://{BUCKET}/table/predictions")).envs(faults.minio.env());
    let expected = format!("{RECORDS} {RECORDS} {} {}", RECORDS * (RECORDS - 1) / 2, RECORDS.div_ceil(3));
    assert_eq!(output(script).trim(), expected, "rows, ids, the sum of n, rows of wine");
}
