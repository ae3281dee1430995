//! Connect's REST API against what a real worker answered: `tests/data/connect_rest.ndjson` was recorded, in its order, from a distributed
//! Kafka Connect 4.3.1 with the FileStream connectors.
#![cfg(feature = "connect")]

use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode, header};
use parking_lot::Mutex;
use predlog::connect::rest::{Herder, Level, Loggers, PartitionOffset, S3Sink, State, Tasks, router};
use predlog::connect::{Connector, Store};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use tower::ServiceExt;

/// The worker that was recorded.
const HOST: &str = "127.0.0.1:18084";
const CLASS: &str = "io.confluent.connect.s3.S3SinkConnector";

/// How an answer may differ from the recorded one.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Differs {
    /// Connect has a 500 with a parser's or the machine's text: here it is a 400, whose message says what was expected.
    Defect,
    /// The tasks are there already, which Connect makes a moment later.
    Tasks,
    /// Only the keys of the body, and the types of their values, are the same.
    Shape,
    /// The message is the same up to `available connectors are: `.
    PluginList,
    /// Every recorded key is there with the same definition, value and errors; the S3 sink has others instead of FileStream's `file`.
    Keys,
    /// A list of names that begins with the one that was asked for.
    Names,
    /// The status is the same, and the body is JSON where Connect's web server has a page of HTML.
    Page,
}

/// The cases that cannot be the same, and why.
const DIFFERENT: &[(&str, Differs, &str)] = &[
    ("005", Differs::Shape, "there is one plugin here, and its version is this program's"),
    ("007", Differs::Keys, "the S3 sink's own keys"),
    ("009", Differs::Shape, "the loggers are this program's"),
    ("012", Differs::Names, "the loggers are this program's"),
    ("015", Differs::Keys, "the S3 sink's own keys"),
    ("016", Differs::Keys, "the S3 sink's own keys"),
    ("017", Differs::Keys, "the S3 sink's own keys"),
    ("018", Differs::Keys, "the S3 sink's own keys"),
    ("019", Differs::Keys, "the S3 sink's own keys"),
    ("021", Differs::Defect, "500 for a configuration without a class"),
    ("024", Differs::Defect, "500 for an empty body"),
    ("025", Differs::Keys, "the S3 sink's own keys"),
    ("031", Differs::Defect, "500 for a string as the body"),
    ("033", Differs::Defect, "500 for a body without a configuration"),
    ("037", Differs::Defect, "500 for a configuration that is null"),
    ("046", Differs::PluginList, "there is one plugin here"),
    ("062", Differs::Tasks, "Connect had not made the tasks yet when it was asked"),
    ("072", Differs::Tasks, "Connect had not made the tasks yet when it was asked"),
    ("099", Differs::Defect, "500 for a body that is not JSON"),
    ("100", Differs::Defect, "500 for an array as the body"),
    ("102", Differs::Defect, "500 for an empty body"),
    ("133", Differs::Defect, "500 for a body that is not JSON"),
    ("137", Differs::Defect, "500 for an offset below 0"),
    ("183", Differs::Page, "Jetty answers what cannot be routed"),
];

/// What happened between recorded cases, which has to be done here too.
const UNRECORDED: &[(&str, &[&str])] = &[
    (
        "073",
        &["DELETE spaced", "DELETE num", "DELETE nul", "DELETE ipaused", "DELETE istopped", "DELETE sp%20ace%20%C3%BC%2B%26%3F"],
    ),
    ("181", &["PUT ref-throw"]),
];

/// Connectors that have read two partitions of their topic when they begin, and fail when their objects are to go where nothing can.
#[derive(Clone, Default)]
struct FakeTasks(Arc<Mutex<BTreeMap<String, Run>>>);

#[derive(Default)]
struct Run {
    running: bool,
    failure: Option<String>,
    offsets: BTreeMap<(String, i32), i64>,
    topics: BTreeSet<String>,
}

impl FakeTasks {
    fn running(&self) -> Vec<String> {
        self.0.lock().iter().filter(|(_, run)| run.running).map(|(name, _)| name.clone()).collect()
    }
}

impl Tasks for FakeTasks {
    fn start(&self, connector: &Connector) {
        let mut runs = self.0.lock();
        let run = runs.entry(connector.name.clone()).or_default();
        let dir = connector.get("topics.dir").unwrap_or("topics");
        run.failure = dir.starts_with("/no/such/").then(|| format!("cannot write to {dir}"));
        run.running = true;
        let topic = connector.get("topics").unwrap().to_owned();
        if run.offsets.is_empty() {
            run.offsets = (0..2).map(|partition| ((topic.clone(), partition), 500)).collect();
        }
        run.topics.insert(topic);
    }

    fn stop(&self, name: &str) {
        if let Some(run) = self.0.lock().get_mut(name) {
            run.running = false;
        }
    }

    fn shut_down(&self) {
        self.0.lock().values_mut().for_each(|run| run.running = false);
    }

    fn failure(&self, name: &str) -> Option<String> {
        self.0.lock().get(name)?.failure.clone()
    }

    fn offsets(&self, connector: &Connector) -> Result<Vec<PartitionOffset>, String> {
        let runs = self.0.lock();
        let offsets = runs.get(&connector.name).into_iter().flat_map(|run| &run.offsets);
        let of = |(at, offset): (&(String, i32), &i64)| PartitionOffset {
            topic: at.0.clone(),
            partition: at.1,
            offset: Some(*offset),
        };
        Ok(offsets.map(of).collect())
    }

    fn alter_offsets(&self, connector: &Connector, changes: &[PartitionOffset]) -> Result<(), String> {
        let mut runs = self.0.lock();
        let offsets = &mut runs.get_mut(&connector.name).ok_or("never started")?.offsets;
        for change in changes {
            let at = (change.topic.clone(), change.partition);
            match change.offset {
                Some(offset) => offsets.insert(at, offset),
                None => offsets.remove(&at),
            };
        }
        Ok(())
    }

    fn reset_offsets(&self, connector: &Connector) -> Result<(), String> {
        self.0.lock().get_mut(&connector.name).ok_or("never started")?.offsets.clear();
        Ok(())
    }

    fn active_topics(&self, name: &str) -> BTreeSet<String> {
        self.0.lock().get(name).map(|run| run.topics.clone()).unwrap_or_default()
    }

    fn reset_active_topics(&self, name: &str) {
        if let Some(run) = self.0.lock().get_mut(name) {
            run.topics.clear();
        }
    }

    fn cluster_id(&self) -> Option<String> {
        Some("C0CyflyaR4OwKv7YIO4sBA".to_owned())
    }
}

/// A worker on a directory, asked without a socket.
struct Worker {
    router: axum::Router,
    tasks: FakeTasks,
    levels: Arc<Mutex<Vec<String>>>,
}

struct Answer {
    status: StatusCode,
    content_type: String,
    location: Option<String>,
    body: Value,
}

impl Worker {
    fn open(dir: &Path) -> Worker {
        let (tasks, levels) = (FakeTasks::default(), Arc::<Mutex<Vec<String>>>::default());
        let herder = Herder::start(Store::open(dir).unwrap(), Box::new(tasks.clone()), Box::new(S3Sink));
        let applied = levels.clone();
        let loggers = Loggers::new(Level::Info, move |levels| {
            applied.lock().push(levels.to_owned());
            Ok(())
        });
        Worker { router: router(State::new(Arc::new(herder), loggers, HOST)), tasks, levels }
    }

    async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Answer {
        let mut request = Request::builder().method(method).uri(path).header(header::HOST, HOST);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self.router.clone().oneshot(request.body(body.into()).unwrap()).await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        let text = |name| headers.get(name).map(|value| value.to_str().unwrap().to_owned());
        let bytes = to_bytes(response.into_body(), 1 << 24).await.unwrap();
        let body = if bytes.is_empty() { json!("") } else { serde_json::from_slice(&bytes).unwrap() };
        Answer { status, content_type: text("content-type").unwrap_or_default(), location: text("location"), body }
    }

    async fn send(&self, method: &str, path: &str, body: Value) -> Answer {
        self.ask(method, path, &[("content-type", "application/json")], body.to_string()).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[], "").await
    }
}

/// The smallest configuration that is right.
fn config() -> Value {
    json!({
        "connector.class": CLASS, "tasks.max": "2", "topics": "restref", "s3.bucket.name": "models",
        "format.class": "parquet", "flush.size": "2", "storage.class": "io.confluent.connect.s3.storage.S3Storage",
    })
}

/// What was recorded of FileStream, as it is of the S3 sink: its class, its task's, its key `file` as `topics.dir`, and the S3 sink's keys
/// that have no default.
fn mapped(recorded: &Value) -> Value {
    match recorded {
        Value::String(text) => json!(mapped_text(text)),
        Value::Array(items) => items.iter().map(mapped).collect(),
        Value::Object(fields) => {
            let key = |key: &String| if key == "file" { "topics.dir".to_owned() } else { mapped_text(key) };
            let mut fields: Map<_, _> = fields.iter().map(|(name, value)| (key(name), mapped(value))).collect();
            let is_config = |class: &Value| class.as_str().is_some_and(|class| class.contains("S3Sink"));
            if fields.get("connector.class").is_some_and(is_config) {
                for (key, value) in config().as_object().unwrap() {
                    if !["tasks.max", "topics", "connector.class"].contains(&key.as_str()) {
                        fields.insert(key.clone(), value.clone());
                    }
                }
            }
            Value::Object(fields)
        }
        other => other.clone(),
    }
}

fn mapped_text(text: &str) -> String {
    text.replace("org.apache.kafka.connect.file.FileStreamSink", "io.confluent.connect.s3.S3Sink")
        .replace("FileStreamSink", "S3Sink")
        .replace("org.apache.kafka.connect.file", "predlog::connect")
}

/// Without what differs by nature; what has no order is sorted.
fn plain(value: &Value) -> Value {
    match value {
        Value::Array(items) => {
            let mut items: Vec<_> = items.iter().map(plain).collect();
            items.sort_by_key(Value::to_string);
            Value::Array(items)
        }
        Value::Object(fields) => {
            let of = |(key, value): (&String, &Value)| match (key.as_str(), value) {
                ("worker_id" | "version" | "commit" | "kafka_cluster_id" | "trace", Value::String(text)) if !text.is_empty() => {
                    (key.clone(), json!("…"))
                }
                _ => (key.clone(), plain(value)),
            };
            Value::Object(fields.iter().map(of).collect())
        }
        other => other.clone(),
    }
}

/// The keys of a value, and the types below them; a list is what its first item is.
fn shape(value: &Value) -> Value {
    match value {
        Value::Null => json!("null"),
        Value::Bool(_) => json!("boolean"),
        Value::Number(_) => json!("number"),
        Value::String(_) => json!("string"),
        Value::Array(items) => items.iter().take(1).map(shape).collect(),
        Value::Object(fields) => fields.iter().map(|(key, value)| (key.clone(), shape(value))).collect(),
    }
}

/// The definitions and values by key, without texts and the plugins of one worker.
fn keys(body: &Value) -> BTreeMap<String, Value> {
    let list = body.get("configs").unwrap_or(body).as_array().unwrap();
    let of = |entry: &Value| {
        let mut entry = entry.clone();
        let name = entry.get("definition").unwrap_or(&entry)["name"].as_str().unwrap().to_owned();
        let versioned = name.ends_with("version");
        for part in ["definition", "value"] {
            let fields = if entry.get(part).is_some() { &mut entry[part] } else { &mut entry };
            for differing in ["documentation", "recommended_values"] {
                fields.as_object_mut().unwrap().remove(differing);
            }
            for version in ["default_value", "value"].iter().filter(|_| versioned) {
                fields.as_object_mut().unwrap().remove(*version);
            }
        }
        (name, entry)
    };
    list.iter().map(of).filter(|(name, _)| name != "file").collect()
}

/// # Errors
/// What is not as recorded.
fn compare(answer: &Answer, recorded: &Value, differs: Option<Differs>) -> Result<(), String> {
    let same = |what: &str, ours: &Value, theirs: &Value| {
        if ours == theirs { Ok(()) } else { Err(format!("{what}: {ours}\n  expected {theirs}")) }
    };
    let body = mapped(&recorded["body"]);
    let status = if differs == Some(Differs::Defect) { json!(400) } else { recorded["status"].clone() };
    same("status", &json!(answer.status.as_u16()), &status)?;
    if recorded["content_type"] == "application/json" {
        same("content type", &json!(answer.content_type), &recorded["content_type"])?;
    }
    same("location", &json!(answer.location), &recorded["location"])?;
    match differs {
        None => same("body", &plain(&answer.body), &plain(&body)),
        Some(Differs::Defect | Differs::Page) => {
            same("error_code", &answer.body["error_code"], &json!(400))?;
            same("shape", &shape(&answer.body), &json!({"error_code": "number", "message": "string"}))
        }
        Some(Differs::Tasks) => {
            let mut body = body;
            body["tasks"] = (0..2).map(|task| json!({"connector": body["name"], "task": task})).collect();
            same("body", &plain(&answer.body), &plain(&body))
        }
        Some(Differs::Shape) => {
            let first =
                |body: &Value| body.as_object().map_or_else(|| body[0].clone(), |map| map.values().next().unwrap().clone());
            same("shape", &shape(&first(&answer.body)), &shape(&first(&body)))
        }
        Some(Differs::PluginList) => {
            let begins = |body: &Value| {
                let message = body["message"].as_str().unwrap();
                message.split_once("available connectors are: PluginDesc{").map(|(begins, _)| begins.to_owned())
            };
            same("message", &json!(begins(&answer.body).unwrap()), &json!(begins(&body).unwrap()))
        }
        Some(Differs::Names) => same("first name", &answer.body[0], &body[0]),
        Some(Differs::Keys) => {
            for (name, theirs) in keys(&body) {
                same(&name, keys(&answer.body).get(&name).unwrap_or(&Value::Null), &theirs)?;
            }
            same("errors", &answer.body["error_count"], &body["error_count"])?;
            same("name", &answer.body["name"], &body["name"])
        }
    }
}

async fn unrecorded(worker: &Worker, step: &str) {
    let (method, name) = step.split_once(' ').unwrap();
    let path = format!("/connectors/{name}");
    let answer = match method {
        "DELETE" => worker.ask("DELETE", &path, &[], "").await,
        _ => worker.send("PUT", &format!("{path}/config"), config()).await,
    };
    assert!(answer.status.is_success(), "{step}: {}", answer.body);
}

#[tokio::test]
async fn every_recorded_case_is_answered_as_a_real_worker_did() {
    let dir = tempfile::tempdir().unwrap();
    let worker = Worker::open(dir.path());
    let (mut passed, mut failed) = (0, Vec::new());
    let recorded = include_str!("data/connect_rest.ndjson").lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    for case in recorded {
        let (name, request) = (case["case"].as_str().unwrap(), &case["request"]);
        for step in UNRECORDED.iter().filter(|(before, _)| name.starts_with(before)).flat_map(|(_, steps)| *steps) {
            unrecorded(&worker, step).await;
        }
        let headers: Vec<_> = request["headers"].as_object().into_iter().flatten().collect();
        let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str().unwrap())).collect();
        // A string is the body itself, when it is not one that is sent as JSON.
        let body = match &request["body"] {
            Value::Null => String::new(),
            Value::String(text) => text.clone(),
            json => mapped(json).to_string(),
        };
        let path = mapped_text(request["path"].as_str().unwrap());
        let answer = worker.ask(request["method"].as_str().unwrap(), &path, &headers, body).await;
        let differs = DIFFERENT.iter().find(|(number, ..)| name.starts_with(number)).map(|(_, differs, _)| *differs);
        match compare(&answer, &case["response"], differs) {
            Ok(()) => passed += 1,
            Err(why) => failed.push(format!("{name} {why}")),
        }
    }
    let mut told = std::io::stderr();
    let (all, different) = (passed + failed.len(), DIFFERENT.len());
    writeln!(told, "{passed} of {all} recorded cases pass, {different} of them as far as they can be the same").unwrap();
    assert_eq!((failed.len(), all), (0, 129), "{}", failed.join("\n"));
}

#[tokio::test]
async fn connectors_are_there_after_a_restart_and_do_what_they_did() {
    let dir = tempfile::tempdir().unwrap();
    let worker = Worker::open(dir.path());
    for (name, state) in [("runs", "RUNNING"), ("pauses", "PAUSED"), ("stops", "STOPPED"), ("gone", "RUNNING")] {
        let answer = worker.send("POST", "/connectors", json!({"name": name, "config": config(), "initial_state": state})).await;
        assert_eq!(answer.status, StatusCode::CREATED);
    }
    for (method, path) in [("DELETE", "gone"), ("PUT", "pauses/resume"), ("PUT", "pauses/pause")] {
        assert!(worker.ask(method, &format!("/connectors/{path}"), &[], "").await.status.is_success());
    }
    let everything = "/connectors?expand=status&expand=info";
    let before = worker.get(everything).await.body;
    assert_eq!(worker.tasks.running(), ["runs"]);
    drop(worker);
    let again = Worker::open(dir.path());
    assert_eq!(again.tasks.running(), ["runs"]);
    assert_eq!(again.get(everything).await.body, before);
    let status = &before["pauses"]["status"];
    assert_eq!((&status["connector"]["state"], &status["tasks"][1]["state"]), (&json!("PAUSED"), &json!("PAUSED")));
    assert_eq!(before["stops"]["info"]["tasks"], json!([]));
}

#[tokio::test]
async fn a_connector_that_failed_is_restarted_by_its_tasks_alone() {
    let dir = tempfile::tempdir().unwrap();
    let worker = Worker::open(dir.path());
    let mut failing = config();
    failing["topics.dir"] = json!("/no/such/dir");
    worker.send("PUT", "/connectors/a/config", failing.clone()).await;
    let status = worker.get("/connectors/a/status").await.body;
    assert_eq!((&status["connector"]["state"], &status["tasks"][0]["state"]), (&json!("RUNNING"), &json!("FAILED")));
    assert_eq!(status["tasks"][0]["trace"], "cannot write to /no/such/dir");
    worker.tasks.stop("a");
    assert_eq!(worker.ask("POST", "/connectors/a/restart", &[], "").await.status, StatusCode::NO_CONTENT);
    assert_eq!(worker.tasks.running(), [""; 0]);
    let answer = worker.ask("POST", "/connectors/a/tasks/7/restart", &[], "").await;
    assert_eq!((answer.status, &answer.body["message"]), (StatusCode::NOT_FOUND, &json!("Unknown task: a-7")));
    assert_eq!(worker.ask("POST", "/connectors/a/tasks/1/restart", &[], "").await.status, StatusCode::NO_CONTENT);
    assert_eq!(worker.tasks.running(), ["a"]);
}

#[tokio::test]
async fn wrong_values_are_named_and_no_secret_is_told_by_a_check() {
    let dir = tempfile::tempdir().unwrap();
    let worker = Worker::open(dir.path());
    let mut wrong = config();
    let given = [("flush.size", "0"), ("s3.part.size", "5"), ("parquet.codec", "rar"), ("tasks.max", "99999"), ("name", "v")];
    for (key, value) in given.into_iter().chain([("aws.secret.access.key", "hunter2")]) {
        wrong[key] = json!(value);
    }
    wrong.as_object_mut().unwrap().remove("s3.bucket.name");
    let answer = worker.send("PUT", "/connector-plugins/S3Sink/config/validate", wrong).await;
    assert_eq!((answer.status, &answer.body["error_count"]), (StatusCode::OK, &json!(5)));
    let text = answer.body.to_string();
    for expected in [
        "Invalid value 0 for configuration flush.size: Value must be at least 1",
        "Invalid value 5 for configuration s3.part.size: Value must be at least 5242880",
        "Invalid value rar for configuration parquet.codec: String must be one of: none, gzip, snappy",
        "Invalid value 99999 for configuration tasks.max: Value must be no more than 1024",
        "Missing required configuration \\\"s3.bucket.name\\\" which has no default value.",
        "[hidden]",
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    assert!(!text.contains("hunter2"));
    let seed: Value = serde_json::from_str(include_str!("../examples/connect/my-model-connector.json")).unwrap();
    let answer = worker.send("PUT", "/connectors/my-model-connector/config", seed).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.body);
}

#[tokio::test]
async fn requests_are_bounded_and_levels_are_applied() {
    let dir = tempfile::tempdir().unwrap();
    let worker = Worker::open(dir.path());
    let large = worker.send("POST", "/connectors", json!({"name": "x".repeat(2 << 20)})).await;
    assert_eq!((large.status, &large.body["error_code"]), (StatusCode::PAYLOAD_TOO_LARGE, &json!(413)));
    let answer = worker.send("POST", "/connectors", json!({"name": "a", "config": {"topics": ["t"]}})).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert!(answer.body["message"].as_str().unwrap().contains("the value of topics is an array"), "{}", answer.body);
    for (name, status) in [("predlog::archive", StatusCode::OK), ("a=b,c", StatusCode::BAD_REQUEST)] {
        assert_eq!(worker.send("PUT", &format!("/admin/loggers/{name}"), json!({"level": "debug"})).await.status, status);
    }
    assert_eq!(*worker.levels.lock(), ["predlog::archive=debug,info"]);
    let level = worker.get("/admin/loggers/predlog::archive").await.body;
    assert!(level["level"] == "DEBUG" && level["last_modified"].is_u64(), "{level}");
}
