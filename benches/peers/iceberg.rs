//! A Kafka Connect worker with Iceberg's sink: two tasks, from the topic into an Iceberg table in the same bucket.
//!
//! It stores the fields of a line as typed columns (times stay text, as the sink infers them) in Parquet (zstd, Iceberg's default),
//! exactly once by its control topic. The catalog is a database in the worker's memory, which is the cheapest there is.

use super::{Figures, Given, Objects, watch};
use crate::services::kafka;
use crate::services::process::{Service, answers, cache, http, installed};
use serde_json::json;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use std::{fs, thread};

const CONTROL: &str = "control-iceberg";
const FIRST: &str = "iceberg-first";
const METADATA: &str = "iceberg/bench/records/metadata";
/// In one process; names are Iceberg's, which are in lower case, and H2's are not.
const CATALOG: &str = "jdbc:h2:mem:iceberg;DB_CLOSE_DELAY=-1;DATABASE_TO_LOWER=TRUE;CASE_INSENSITIVE_IDENTIFIERS=TRUE";
/// A commit each 5 s costs little, and the clock ends with one.
const COMMIT: Duration = Duration::from_secs(5);

/// What must be installed first, if it is not there.
pub fn missing() -> Option<&'static str> {
    installed("iceberg").is_none().then_some("run tests/services/install.sh iceberg")
}

/// `fill_one` writes one record, like those of the topic, into another.
pub fn run(given: &Given<'_>, fill_one: impl Fn(&str)) -> Figures {
    given.kafka.create_topic(CONTROL, 1);
    given.kafka.create_topic(FIRST, 1);
    fill_one(FIRST);
    let work = tempfile::tempdir().expect("a directory");
    let properties = work.path().join("worker.properties");
    let log = work.path().join("log");
    let (mut service, [address]) = Service::start_on(
        "Connect",
        &log,
        |[address]| {
            fs::write(&properties, worker(given, *address, work.path())).expect("the worker's properties can be written");
            java(given, &properties)
        },
        |[address]| answers(*address, "/connectors"),
    );
    let objects = Objects::of(given);
    let stored = || total_records(&objects);
    // Two tasks that find no table both make one, and one of them fails: the table is made by a task alone, of one record.
    put(address, "first", FIRST, 1, Duration::from_secs(1), given);
    service.wait_within(super::LIMIT, "it makes its table", || {
        thread::sleep(super::POLL);
        stored() == 1
    });
    let (status, answer) = http("DELETE", address, "/connectors/first", "").expect("the worker answers");
    assert_eq!(status, 204, "{answer}");
    let begun = Instant::now();
    put(address, "records", given.topic, 2, COMMIT, given);
    watch(&mut service, begun, given.rows, || stored() - 1)
}

fn put(address: SocketAddr, name: &str, topic: &str, tasks: u32, commit: Duration, given: &Given<'_>) {
    let config = json!({
        "connector.class": "org.apache.iceberg.connect.IcebergSinkConnector",
        "tasks.max": tasks.to_string(),
        "topics": topic,
        "key.converter": "org.apache.kafka.connect.storage.StringConverter",
        "value.converter": "org.apache.kafka.connect.json.JsonConverter",
        "value.converter.schemas.enable": "false",
        "iceberg.tables": "bench.records",
        "iceberg.tables.auto-create-enabled": "true",
        "iceberg.control.topic": CONTROL,
        "iceberg.control.commit.interval-ms": commit.as_millis().to_string(),
        "iceberg.catalog.catalog-impl": "org.apache.iceberg.jdbc.JdbcCatalog",
        "iceberg.catalog.uri": CATALOG,
        "iceberg.catalog.jdbc.schema-version": "V1",
        "iceberg.catalog.warehouse": format!("s3://{}/iceberg", given.bucket),
        "iceberg.catalog.io-impl": "org.apache.iceberg.aws.s3.S3FileIO",
        "iceberg.catalog.s3.endpoint": given.minio.endpoint(),
        "iceberg.catalog.s3.path-style-access": "true",
    });
    let path = format!("/connectors/{name}/config");
    let (status, answer) = http("PUT", address, &path, &config.to_string()).expect("the worker answers");
    assert_eq!(status, 201, "{answer}");
}

/// What the table's current snapshot says.
fn total_records(objects: &Objects) -> u64 {
    let names = objects.names(METADATA).into_iter().filter(|name| name.ends_with(".metadata.json"));
    let Some(table) = names.max().and_then(|name| objects.json(&name)) else { return 0 };
    let (table, mut snapshots) = (&table[0], table[0]["snapshots"].as_array().into_iter().flatten());
    let current = snapshots.find(|snapshot| snapshot["snapshot-id"] == table["current-snapshot-id"]);
    let rows = current.and_then(|snapshot| snapshot["summary"]["total-records"].as_str());
    rows.map_or(0, |rows| rows.parse().expect("a number of records"))
}

fn worker(given: &Given<'_>, address: SocketAddr, work: &Path) -> String {
    let lines = [
        ("bootstrap.servers", given.kafka.bootstrap()),
        ("listeners", format!("http://{address}")),
        ("offset.storage.file.filename", work.join("offsets").display().to_string()),
        ("key.converter", "org.apache.kafka.connect.storage.StringConverter".into()),
        ("value.converter", "org.apache.kafka.connect.json.JsonConverter".into()),
        // Without it the worker looks through all classes of its jars, for 16 s.
        ("plugin.discovery", "service_load".into()),
        // Larger batches than Connect's, which are of 500 records.
        ("consumer.max.poll.records", "10000".into()),
        ("consumer.max.partition.fetch.bytes", "8388608".into()),
        ("consumer.fetch.min.bytes", "1048576".into()),
        ("consumer.auto.offset.reset", "earliest".into()),
    ];
    lines.map(|(key, value)| format!("{key}={value}\n")).concat()
}

fn java(given: &Given<'_>, properties: &Path) -> Command {
    let mut command = Command::new("java");
    command.args(["-Xmx2g", "-XX:+UseParallelGC"]).arg(kafka::logging());
    command.arg("-cp").arg(format!("{0}/kafka/*:{0}/iceberg/*", cache().display()));
    command.arg("org.apache.kafka.connect.cli.ConnectStandalone").arg(properties);
    command.envs(given.minio.env());
    command
}
