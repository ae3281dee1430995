//! `predlog connect` as its users run it: the documented connector put by HTTP, beside others, over a kill and a pause.

mod support;

use futures_util::TryStreamExt as _;
use object_store::{ObjectStore, ObjectStoreExt as _};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use support::kafka::{Kafka, Options};
use support::process::{answers, free_address, http, wait_until};
use support::readers::{output, python};
use support::s3::Minio;

const LIMIT: Duration = Duration::from_secs(60);
const BUCKET: &str = "myorg-models";

/// A worker, with its connectors in a directory.
struct Worker {
    child: Child,
    address: SocketAddr,
}

impl Worker {
    fn start(dir: &Path, address: SocketAddr, kafka: &Kafka, minio: &Minio) -> Worker {
        Worker::start_as(dir, address, kafka, minio, &[])
    }

    fn start_as(dir: &Path, address: SocketAddr, kafka: &Kafka, minio: &Minio, environment: &[(&str, &str)]) -> Worker {
        let mut command = Command::new(env!("CARGO_BIN_EXE_predlog"));
        // A member that was killed is missed after the session's timeout.
        std::fs::write(dir.join("predlog.toml"), "[kafka.properties]\n\"session.timeout.ms\" = 6000\n")
            .expect("the configuration");
        command.args(["connect", "--addr", &address.to_string(), "--config", "predlog.toml"]).current_dir(dir);
        // Where the bucket is, says the environment alone.
        command
            .envs(minio.env())
            .envs(environment.iter().copied())
            .env("PREDLOG_KAFKA__BROKERS", kafka.bootstrap())
            .stdout(Stdio::null());
        let log = std::fs::OpenOptions::new().create(true).append(true).open(dir.join("log")).expect("a log");
        let child = command.stderr(log).spawn().expect("predlog starts");
        wait_until("the worker answers", LIMIT, || answers(address, "/"));
        Worker { child, address }
    }

    fn ask(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let (status, text) = http(method, self.address, path, body).expect("an answer");
        (status, if text.is_empty() { Value::Null } else { serde_json::from_str(&text).expect("JSON") })
    }

    fn status(&self, name: &str) -> Value {
        self.ask("GET", &format!("/connectors/{name}/status"), "").1
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn objects(minio: &Minio) -> Vec<String> {
    let store = minio.store(BUCKET);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let listed: Vec<_> = runtime.block_on(store.list(None).try_collect()).expect("a list");
    let mut keys: Vec<String> = listed.into_iter().map(|meta| meta.location.to_string()).collect();
    keys.retain(|key| !key.starts_with('_'));
    keys.sort();
    keys
}

/// The columns' types and the rows of each object.
fn read(minio: &Minio, reader: &str) -> Value {
    let (copy, store) = (tempfile::tempdir().expect("a directory"), minio.store(BUCKET));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    for key in objects(minio).iter().filter(|key| key.ends_with(".parquet")) {
        let bytes = runtime.block_on(async { store.get(&key.as_str().into()).await?.bytes().await }).expect("an object");
        let path = copy.path().join(key);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        std::fs::write(path, bytes).expect("a file");
    }
    let mut script = python("tests/readers/read_files.py");
    script.args(["--reader", reader]).arg(copy.path());
    serde_json::from_str(&output(script)).expect("JSON")
}

fn key(offset: u64) -> String {
    format!("my-model/serving/my-model/partition=0/my-model+0+{offset:010}.snappy.parquet")
}

fn produce(kafka: &Kafka, range: std::ops::Range<u64>) {
    for n in range {
        let value = json!({"id": n.to_string(), "model_name": "my-model", "inputs": {"age": 30 + n}, "outputs": {"score": 0.5}});
        kafka.produce("my-model", value.to_string().as_bytes());
    }
}

#[test]
fn a_connector_that_cannot_use_its_bucket_fails_with_the_reason_and_goes_on_once_that_is_mended() {
    let (kafka, minio, dir) = (Kafka::start(&Options::default()), Minio::start(), tempfile::tempdir().expect("a directory"));
    let address = free_address();
    let worker = Worker::start(dir.path(), address, &kafka, &minio);
    let seed = std::fs::read_to_string("examples/connect/my-model-connector.json").expect("the example");
    // Neither the bucket nor the topic is there.
    assert_eq!(worker.ask("PUT", "/connectors/my-model-connector/config", &seed).0, 201);
    wait_until("its task fails", LIMIT, || worker.status("my-model-connector")["tasks"][0]["state"] == "FAILED");
    let status = worker.status("my-model-connector");
    let trace = status["tasks"][0]["trace"].as_str().unwrap_or_default();
    assert!(trace.contains(BUCKET) && trace.contains("create the bucket"), "{status}");
    minio.create_bucket(BUCKET);
    assert_eq!(worker.ask("POST", "/connectors/my-model-connector/restart?includeTasks=true&onlyFailed=true", "").0, 202);
    assert_eq!(worker.status("my-model-connector")["tasks"][0]["state"], "RUNNING");
    // The topic comes later.
    let log = || std::fs::read_to_string(dir.path().join("log")).expect("the log");
    wait_until("it is told that there is none", LIMIT, || log().contains(r#"topics=["my-model"]"#));
    kafka.create_topic("my-model", 1);
    produce(&kafka, 0..2);
    wait_until("its object", LIMIT, || objects(&minio) == [key(0)]);

    // Three replicas of a topic of dead letters, as Connect asks for by default, one broker cannot have.
    let mut dead: Value = serde_json::from_str(&seed).expect("JSON");
    dead["errors.tolerance"] = json!("all");
    dead["errors.deadletterqueue.topic.name"] = json!("dead");
    assert_eq!(worker.ask("PUT", "/connectors/dead/config", &dead.to_string()).0, 201);
    wait_until("its task fails", LIMIT, || worker.status("dead")["tasks"][0]["state"] == "FAILED");
    let status = worker.status("dead")["tasks"][0]["trace"].to_string();
    assert!(status.contains("topic=dead of dead letters") && status.contains("replication factor 3"), "{status}");
    assert_eq!(worker.ask("DELETE", "/connectors/dead", "").0, 204);
    drop(worker);

    // Credentials that are none.
    let worker = Worker::start_as(dir.path(), address, &kafka, &minio, &[("AWS_SECRET_ACCESS_KEY", "wrong-secret")]);
    wait_until("its task fails", LIMIT, || worker.status("my-model-connector")["tasks"][0]["state"] == "FAILED");
    let status = worker.status("my-model-connector").to_string();
    assert!(status.contains("SignatureDoesNotMatch") && !status.contains("wrong-secret"), "{status}");
    // The connector's own go before them.
    let mut own: Value = serde_json::from_str(&seed).expect("JSON");
    own["aws.access.key.id"] = json!(minio.access_key());
    own["aws.secret.access.key"] = json!(minio.secret_key());
    assert_eq!(worker.ask("PUT", "/connectors/my-model-connector/config", &own.to_string()).0, 200);
    produce(&kafka, 2..4);
    wait_until("an object put with its own keys", LIMIT, || objects(&minio) == [key(0), key(2)]);
}

#[test]
fn the_documented_connector_is_put_killed_paused_and_deleted() {
    let (kafka, minio, dir) = (Kafka::start(&Options::default()), Minio::start(), tempfile::tempdir().expect("a directory"));
    minio.create_bucket(BUCKET);
    kafka.create_topic("my-model", 1);
    kafka.create_topic("other", 1);
    let address = free_address();
    let worker = Worker::start(dir.path(), address, &kafka, &minio);
    produce(&kafka, 0..4);

    let seed = std::fs::read_to_string("examples/connect/my-model-connector.json").expect("the example");
    let (status, answer) = worker.ask("PUT", "/connectors/my-model-connector/config", &seed);
    assert_eq!((status, &answer["name"], &answer["type"]), (201, &json!("my-model-connector"), &json!("sink")), "{answer}");
    wait_until("two objects of two rows", Duration::from_secs(20), || objects(&minio) == [key(0), key(2)]);
    for (reader, int, double) in [("pyarrow", "int64", "double"), ("duckdb", "BIGINT", "DOUBLE")] {
        let files = read(&minio, reader);
        for offset in [0, 2] {
            let file = &files[&key(offset)];
            let types = [&file["types"]["inputs"], &file["types"]["outputs"]].map(|kind| kind.as_str().unwrap_or_default());
            assert!(types[0].contains(int) && types[1].contains(double), "{reader}: {types:?}");
            let ages: Vec<_> = file["rows"].as_array().expect("rows").iter().map(|row| row["inputs"]["age"].as_u64()).collect();
            assert_eq!(ages, [Some(30 + offset), Some(31 + offset)], "{reader}");
        }
    }

    // What cannot be run is refused, by its key; what has no effect is told in the log.
    let mut wrong: Value = serde_json::from_str(&seed).expect("JSON");
    wrong["transforms"] = json!("x");
    wrong["transforms.x.type"] = json!("org.apache.kafka.connect.transforms.Cast$Value");
    let (status, answer) = worker.ask("PUT", "/connectors/wrong/config", &wrong.to_string());
    let message = answer["message"].as_str().unwrap_or_default();
    assert!(status == 400 && message.contains("transforms.x.type") && message.contains("Cast$Value"), "{answer}");
    let log = std::fs::read_to_string(dir.path().join("log")).expect("the log");
    assert!(log.contains("auto.register.schemas"), "{log}");

    // A second connector in the same process.
    let mut other: Value = serde_json::from_str(&seed).expect("JSON");
    (other["topics"], other["format.class"], other["topics.dir"]) = (json!("other"), json!("json"), json!("o"));
    assert_eq!(worker.ask("POST", "/connectors", &json!({"name": "other", "config": other}).to_string()).0, 201);
    kafka.produce("other", br#"{"a":1}"#);
    kafka.produce("other", br#"{"a":2}"#);
    wait_until("its object", LIMIT, || objects(&minio).contains(&"o/other/partition=0/other+0+0000000000.json".to_owned()));

    // Killed, with one row on its way: both go on, and the row is stored once.
    produce(&kafka, 4..5);
    drop(worker);
    let worker = Worker::start(dir.path(), address, &kafka, &minio);
    let mut names: Vec<String> = serde_json::from_value(worker.ask("GET", "/connectors", "").1).expect("names");
    names.sort();
    assert_eq!(names, ["my-model-connector", "other"]);
    produce(&kafka, 5..6);
    wait_until("the third object", LIMIT, || objects(&minio).contains(&key(4)));
    assert_eq!(worker.status("my-model-connector")["tasks"][0]["state"], "RUNNING");

    // Paused, nothing is stored; resumed, all that came meanwhile is.
    assert_eq!(worker.ask("PUT", "/connectors/my-model-connector/pause", "").0, 202);
    produce(&kafka, 6..8);
    assert_eq!(worker.status("my-model-connector")["connector"]["state"], "PAUSED");
    assert!(!objects(&minio).contains(&key(6)));
    assert_eq!(worker.ask("PUT", "/connectors/my-model-connector/resume", "").0, 202);
    wait_until("the fourth object", LIMIT, || objects(&minio).contains(&key(6)));
    let rows: usize = read(&minio, "pyarrow")
        .as_object()
        .expect("files")
        .values()
        .map(|file| file["rows"].as_array().map_or(0, Vec::len))
        .sum();
    assert_eq!(rows, 8);

    assert_eq!(worker.ask("DELETE", "/connectors/my-model-connector", "").0, 204);
    assert_eq!(worker.ask("GET", "/connectors/my-model-connector", "").0, 404);
}
