//! What the endpoints answer, with the store looked at behind them.
#![cfg(feature = "server")]

mod support;

use axum::body::Body;
use bytesize::ByteSize;
use http::{Request, StatusCode};
use predlog::batch::Batch;
use predlog::clock::Now;
use predlog::config::ServerSettings;
use predlog::sink::memory::MemorySink;
use predlog::sink::{Maintained, Sink, SinkError, SinkErrorKind};
use predlog::{Durability, LoggerSettings, Overflow};
use serde_json::json;
use std::io::Write;
use std::time::Duration;
use support::web::{Web, memory_settings};

const JSON: &str = "application/json";
const NDJSON: &str = "application/x-ndjson";

fn row(id: &str) -> String {
    json!({"id": id, "model_name": "m", "inputs": {"a": 1}, "outputs": 2}).to_string()
}

#[tokio::test]
async fn one_object_is_one_row_and_every_field_is_kept() {
    let web = Web::new();
    let sent = json!({
        "id": "i-1", "model_name": "wine", "model_version": "7", "timestamp": "2026-11-23T03:34:18.5Z",
        "inputs": {"a": 1.5, "b": [1, "x"]}, "outputs": {"quality": 5.2}, "request_id": "r", "row_index": 3, "status_code": 200,
        "error": "none", "latency_ms": 1.25, "sample_weight": 2.0, "metadata": {"k": "v"}, "traceparent": "00-1-2-01",
    });
    let answer = web.post(JSON, &[], sent.to_string()).await;
    assert_eq!((answer.status, &answer.body), (StatusCode::ACCEPTED, &json!({"accepted": 1, "ids": ["i-1"], "rejected": []})));
    let mut stored = web.stored().remove(0);
    for added in ["writer", "seq"] {
        assert!(stored.as_object_mut().unwrap().remove(added).is_some());
    }
    assert_eq!(stored["timestamp"], "2026-11-23T03:34:18.500000Z");
    stored["timestamp"] = sent["timestamp"].clone();
    assert_eq!(stored, sent);
}

#[tokio::test]
async fn actuals_are_a_row_of_their_own_model_with_the_predictions_id() {
    let web = Web::new();
    let longest = "m".repeat(248);
    let rows = [
        json!({"id": "i-1", "model_name": "wine", "inputs": {"a": 1}, "outputs": {"quality": 5.2}, "actuals": null}),
        json!({"id": "i-1", "model_name": "wine", "inputs": null, "actuals": {"quality": 6}, "metadata": {"revision": 2}}),
        json!({"id": "i-2", "model_name": longest, "timestamp": "2026-11-23T03:34:18Z", "actuals": [0.5]}),
    ];
    // A header names this request; the rows say which predictions they are about.
    let answer = web.post(JSON, &[("x-request-id", "other")], json!(rows).to_string()).await;
    assert_eq!((answer.status, &answer.body["ids"]), (StatusCode::ACCEPTED, &json!(["i-1", "i-1", "i-2"])));
    let single = web.post(JSON, &[("x-request-id", "other")], r#"{"model_name":"wine","actuals":1}"#).await;
    assert!(single.errors().contains("id is missing"), "{single:?}");
    let stored = web.stored();
    let kept = |row: usize| ["model_name", "id", "inputs", "outputs", "metadata"].map(|field| stored[row][field].clone());
    assert_eq!(kept(0), [json!("wine"), json!("i-1"), json!({"a": 1}), json!({"quality": 5.2}), json!(null)]);
    assert_eq!(kept(1), [json!("wine.actuals"), json!("i-1"), json!(null), json!({"quality": 6}), json!({"revision": "2"})]);
    assert_eq!(kept(2), [json!(longest + ".actuals"), json!("i-2"), json!(null), json!([0.5]), json!(null)]);
    assert_eq!(stored[2]["timestamp"], "2026-11-23T03:34:18.000000Z");
}

#[tokio::test]
async fn numbers_are_stored_as_they_were_written() {
    let web = Web::new();
    let body =
        r#"{"model_name":"m","inputs":{"a":1.0,"b":0.10,"c":18446744073709551616,"d":1e400,"e":-0.0,"f":1E5},"outputs":5.0}"#;
    assert_eq!(web.post(JSON, &[], body).await.accepted(), 1);
    let line = &web.lines()[0];
    assert!(
        line.contains(r#""inputs":{"a":1.0,"b":0.10,"c":18446744073709551616,"d":1e400,"e":-0.0,"f":1E5},"outputs":5.0"#),
        "{line}"
    );
}

#[tokio::test]
async fn arrays_and_lines_keep_their_order_and_name_what_is_wrong() {
    let web = Web::new();
    let array = format!("[{}, {{\"model_name\":\"m\"}}, {}]", row("a"), row("b"));
    let answer = web.post(JSON, &[], array).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    assert_eq!((&answer.body["ids"], &answer.body["rejected"][0]["index"]), (&json!(["a", "b"]), &json!(1)));
    assert!(answer.errors().contains("inputs is missing"), "{answer:?}");
    let lines = format!("{}\n\n{{\"model_name\":\n{}\n", row("c"), row("d"));
    let answer = web.post("application/x-ndjson; charset=utf-8", &[], lines).await;
    assert_eq!((&answer.body["ids"], &answer.body["rejected"][0]["index"]), (&json!(["c", "d"]), &json!(1)));
    let ids: Vec<_> = web.stored().iter().map(|row| row["id"].clone()).collect();
    assert_eq!(ids, ["a", "b", "c", "d"]);
}

#[tokio::test]
async fn the_id_is_the_rows_else_the_headers_else_made() {
    let web = Web::new();
    let without = r#"{"model_name":"m","inputs":1}"#;
    let header = [("x-request-id", "from-header"), ("ce-id", "from-event"), ("traceparent", "00-a-b-01")];
    assert_eq!(web.post(JSON, &header, row("own")).await.body["ids"], json!(["own"]));
    assert_eq!(web.post(JSON, &header, without).await.body["ids"], json!(["from-header"]));
    assert_eq!(web.post(JSON, &header[1..], without).await.body["ids"], json!(["from-event"]));
    // A header names a request, not the rows of a batch.
    let answer = web.post(JSON, &header, format!("[{without},{without}]")).await;
    let ids: Vec<uuid::Uuid> =
        answer.body["ids"].as_array().unwrap().iter().map(|id| id.as_str().unwrap().parse().unwrap()).collect();
    assert!(ids[0] < ids[1] && ids[0].get_version_num() == 7, "{ids:?}");
    let stored = web.stored();
    assert_eq!(stored[3]["id"], ids[0].to_string());
    assert!(stored.iter().all(|row| row["traceparent"] == "00-a-b-01"));
    let long = "x".repeat(257);
    let answer = web.post(JSON, &[("x-request-id", &long)], without).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert!(answer.errors().contains("x-request-id"), "{answer:?}");
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn packed_bodies_are_unpacked_up_to_the_limit() {
    let settings = ServerSettings { max_body: ByteSize::kib(64), ..ServerSettings::default() };
    let web = Web::with(memory_settings(), settings, |builder| builder);
    let zstd = |bytes: &[u8]| zstd::encode_all(bytes, 3).unwrap();
    let members = [gzip(format!("{}\n", row("a")).as_bytes()), gzip(row("b").as_bytes())].concat();
    assert_eq!(web.post(NDJSON, &[("content-encoding", "gzip")], members).await.body["ids"], json!(["a", "b"]));
    assert_eq!(web.post(JSON, &[("content-encoding", "zstd")], zstd(row("c").as_bytes())).await.body["ids"], json!(["c"]));
    let bomb = vec![b' '; 50 << 20];
    for (name, packed) in [("gzip", gzip(&bomb)), ("zstd", zstd(&bomb))] {
        assert!(packed.len() < 64 << 10, "{name} bomb of {} bytes", packed.len());
        let answer = web.post(JSON, &[("content-encoding", name)], packed).await;
        assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE, "{name}");
        assert!(answer.errors().contains("server.max_body=64.0 KiB"), "{answer:?}");
    }
    for (name, broken) in [("gzip", gzip(row("d").as_bytes())), ("zstd", zstd(row("d").as_bytes()))] {
        let answer = web.post(JSON, &[("content-encoding", name)], broken[..broken.len() - 5].to_vec()).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{name}");
        assert!(answer.errors().contains(&format!("not whole {name}")), "{answer:?}");
    }
    let answer = web.post(JSON, &[("content-encoding", "br")], row("e")).await;
    assert_eq!(
        (answer.status, &answer.headers["accept-encoding"]),
        (StatusCode::UNSUPPORTED_MEDIA_TYPE, &"gzip, zstd".parse().unwrap())
    );
    assert_eq!(web.stored().len(), 3);
}

#[tokio::test]
async fn a_body_past_the_limit_is_refused_whether_announced_or_not() {
    let settings = ServerSettings { max_body: ByteSize::kib(1), ..ServerSettings::default() };
    let web = Web::with(memory_settings(), settings, |builder| builder);
    let big = format!("{{\"model_name\":\"m\",\"inputs\":\"{}\"}}", "x".repeat(2_000));
    assert_eq!(web.post(JSON, &[], big.clone()).await.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(web.post(JSON, &[("content-length", "5000")], row("a")).await.status, StatusCode::PAYLOAD_TOO_LARGE);
    let chunks = big.into_bytes().chunks(100).map(|chunk| Ok::<_, std::io::Error>(chunk.to_vec())).collect::<Vec<_>>();
    let streamed = Body::from_stream(futures_util::stream::iter(chunks));
    assert_eq!(web.post(JSON, &[], streamed).await.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert!(web.stored().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_slow_body_is_given_up() {
    let web = Web::new();
    let never = Body::from_stream(futures_util::stream::pending::<Result<Vec<u8>, std::io::Error>>());
    let answer = web.post(JSON, &[], never).await;
    assert_eq!(answer.status, StatusCode::REQUEST_TIMEOUT);
    assert!(answer.errors().contains("server.read_timeout=30s"), "{answer:?}");
}

#[tokio::test]
async fn other_types_paths_and_methods_are_refused_by_name() {
    let web = Web::new();
    for content_type in ["text/plain", "application/xml", "", "application/x-www-form-urlencoded", "multipart/form-data"] {
        let answer = web.post(content_type, &[], row("a")).await;
        assert_eq!(answer.status, StatusCode::UNSUPPORTED_MEDIA_TYPE, "{content_type}");
        assert!(answer.errors().contains("application/x-ndjson"), "{answer:?}");
    }
    let answer = web.call(Request::get("/v1/predictions").body(Body::empty()).unwrap()).await;
    assert_eq!((answer.status, &answer.headers["allow"]), (StatusCode::METHOD_NOT_ALLOWED, &"POST".parse().unwrap()));
    let answer = web.call(Request::get("/v1/prediction").body(Body::empty()).unwrap()).await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
    assert!(answer.errors().contains("/v1/predictions"));
    let answer = web.post_to("/v1/predictions?wait=durble", JSON, &[], row("a")).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert!(answer.errors().contains("wait=durable"));
    assert!(web.stored().is_empty());
}

/// A sink that holds the worker in its first call until it is let go.
struct Held {
    inner: MemorySink,
    reached: std::sync::mpsc::Sender<()>,
    go: std::sync::mpsc::Receiver<()>,
}

impl Sink for Held {
    fn name(&self) -> &'static str {
        "held"
    }

    fn write(&mut self, batch: &Batch<'_>) -> Result<(), SinkError> {
        // Both ends are gone once the test is over: then nothing is held.
        if self.reached.send(()).is_ok() {
            let _ = self.go.recv();
        }
        self.inner.write(batch)
    }

    fn commit(&mut self) -> Result<Option<u64>, SinkError> {
        self.inner.commit()
    }

    fn kept(&mut self) -> predlog::sink::Kept {
        predlog::sink::Kept::new()
    }

    fn maintain(&mut self, now: Now, force: bool) -> Result<Maintained, SinkError> {
        self.inner.maintain(now, force)
    }

    fn probe(&mut self) -> Result<(), SinkError> {
        self.inner.probe()
    }

    fn spools(&self) -> bool {
        self.inner.spools()
    }

    fn adopt(&mut self, segment: &std::path::Path) -> Result<(), SinkError> {
        self.inner.adopt(segment)
    }

    fn close(&mut self, now: Now) -> Result<Maintained, SinkError> {
        self.inner.close(now)
    }
}

#[tokio::test]
async fn wait_durable_answers_200_when_it_is() {
    let dir = tempfile::tempdir().unwrap();
    for durability in [Durability::Memory, Durability::Process, Durability::Fsync] {
        let settings = LoggerSettings { durability, ..memory_settings() };
        let web = Web::with(settings, ServerSettings::default(), |builder| builder.dir(dir.path()));
        let answer = web.post_to("/v1/predictions?wait=durable", JSON, &[], row("a")).await;
        assert_eq!((answer.status, answer.accepted()), (StatusCode::OK, 1), "{durability:?}");
        assert_eq!(web.stored().len(), 1);
    }
}

#[tokio::test]
async fn wait_durable_answers_504_when_it_does_not_come_and_logs_nothing_twice() {
    let dir = tempfile::tempdir().unwrap();
    let settings = LoggerSettings { durability: Durability::Fsync, ..memory_settings() };
    let server = ServerSettings { wait_timeout: Duration::from_millis(50), ..ServerSettings::default() };
    let (reached, is_reached) = std::sync::mpsc::channel();
    let (let_go, go) = std::sync::mpsc::channel();
    let store = MemorySink::new();
    let held = Held { inner: store.clone(), reached, go };
    let web = Web::with(settings, server, |builder| builder.dir(dir.path()).sink(Box::new(held)));
    assert_eq!(web.post(JSON, &[], row("a")).await.status, StatusCode::ACCEPTED);
    is_reached.recv().unwrap();
    // The worker is held in the sink: it cannot sync what comes now.
    let key = [("idempotency-key", "k")];
    let answer = web.post_to("/v1/predictions?wait=durable", JSON, &key, row("b")).await;
    assert_eq!((answer.status, &answer.body["ids"]), (StatusCode::GATEWAY_TIMEOUT, &json!(["b"])));
    drop((is_reached, let_go));
    assert!(web.logger.wait_durable(Duration::from_secs(20)));
    let answer = web.post_to("/v1/predictions?wait=durable", JSON, &key, row("b")).await;
    assert_eq!((answer.status, &answer.body["ids"]), (StatusCode::OK, &json!(["b"])));
    assert!(web.logger.flush(Duration::from_secs(20)));
    assert_eq!(store.records().len(), 2);
}

/// A queue of the least size, in front of a sink that takes nothing.
fn stuck(overflow: Overflow) -> Web {
    let settings =
        LoggerSettings { overflow, queue_bytes: ByteSize::mib(1), max_record_bytes: ByteSize::kib(64), ..memory_settings() };
    let web = Web::with(settings, ServerSettings::default(), |builder| builder);
    web.store.fail_with(Some(SinkErrorKind::Unavailable));
    web
}

#[tokio::test]
async fn a_full_queue_says_from_which_row_on_and_takes_them_later() {
    let web = stuck(Overflow::Drop);
    let rows: Vec<String> = (0..40_000).map(|index| row(&index.to_string())).collect();
    let answer = web.post(NDJSON, &[("idempotency-key", "k")], rows.join("\n")).await;
    assert!(matches!(answer.status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE), "{}", answer.status);
    assert!(answer.headers.contains_key("retry-after"));
    let accepted = answer.accepted() as usize;
    assert!(accepted > 0 && accepted < rows.len(), "{accepted}");
    let rejected = &answer.body["rejected"][0];
    assert_eq!((rejected["index"].as_u64(), &rejected["rest"]), (Some(accepted as u64), &json!(true)));
    web.store.fail_with(None);
    support::process::wait_until("the queue is empty again", Duration::from_secs(20), || web.logger.snapshot().queue_bytes == 0);
    // The rest is sent again, first with the same key, which is free for another body: not all of its rows were taken.
    let (mut sent, mut headers) = (accepted, vec![("idempotency-key", "k")]);
    while sent < rows.len() {
        let end = rows.len().min(sent + 500);
        let answer = web.post(NDJSON, &headers, rows[sent..end].join("\n")).await;
        assert_ne!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
        sent += answer.accepted() as usize;
        headers.clear();
    }
    let stored = web.stored();
    let ids: Vec<_> = stored.iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(ids, (0..40_000).map(|index| index.to_string()).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_request_that_met_a_full_queue_goes_on_where_it_was_when_it_is_repeated() {
    let web = stuck(Overflow::Drop);
    let mut rows: Vec<String> = (0..40_000).map(|index| row(&index.to_string())).collect();
    rows.insert(1, "{}".to_owned());
    let (key, body) = ([("idempotency-key", "k")], rows.join("\n"));
    let first = web.post(NDJSON, &key, body.clone()).await;
    assert!(first.status != StatusCode::ACCEPTED && first.accepted() > 0, "{}", first.status);
    // As a client does that knows nothing of rows: the same again, until it is taken.
    let mut answers = vec![first];
    web.store.fail_with(None);
    while answers.last().unwrap().status != StatusCode::ACCEPTED {
        support::process::wait_until("the queue is empty", Duration::from_secs(20), || web.logger.snapshot().queue_bytes == 0);
        answers.push(web.post(NDJSON, &key, body.clone()).await);
    }
    answers.push(web.post(NDJSON, &key, body).await);
    let [.., last, again] = &answers[..] else { panic!("two answers") };
    assert_eq!(again.headers["idempotency-replayed"], "true");
    assert_eq!(again.body, last.body);
    let ids: Vec<_> = (0..40_000).map(|index| index.to_string()).collect();
    assert_eq!((last.accepted(), &last.body["ids"]), (40_000, &json!(ids)));
    let rejected = last.body["rejected"].as_array().unwrap();
    assert_eq!((rejected.len(), &rejected[0]["index"]), (1, &json!(1)));
    let stored: Vec<_> = web.stored().iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(stored, ids);
}

#[tokio::test]
async fn an_idempotency_key_is_answered_once() {
    let web = Web::new();
    let key = [("idempotency-key", "k-1")];
    let body = r#"{"model_name":"m","inputs":1}"#;
    let first = web.post(JSON, &key, body).await;
    assert_eq!(first.status, StatusCode::ACCEPTED);
    assert!(!first.headers.contains_key("idempotency-replayed"));
    let again = web.post(JSON, &key, body).await;
    assert_eq!((again.status, &again.body), (first.status, &first.body));
    assert_eq!(again.headers["idempotency-replayed"], "true");
    let durable = web.post_to("/v1/predictions?wait=durable", JSON, &key, body).await;
    assert_eq!((durable.status, &durable.body), (StatusCode::OK, &first.body));
    assert_eq!(web.post(JSON, &key, row("other")).await.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(web.stored().len(), 1);
    // What was refused is not remembered: it can be corrected and sent again.
    let key = [("idempotency-key", "k-2")];
    assert_eq!(web.post(JSON, &key, "{}").await.status, StatusCode::BAD_REQUEST);
    assert_eq!(web.post(JSON, &key, row("corrected")).await.status, StatusCode::ACCEPTED);
    assert_eq!(web.post(JSON, &[("idempotency-key", &"k".repeat(257))], body).await.status, StatusCode::BAD_REQUEST);
    assert_eq!(web.stored().len(), 2);
}

#[tokio::test]
async fn the_same_id_twice_is_two_records() {
    let web = Web::new();
    for _ in 0..2 {
        assert_eq!(web.post(JSON, &[], row("same")).await.body["ids"], json!(["same"]));
    }
    let stored = web.stored();
    assert_eq!((stored.len(), &stored[0]["id"], &stored[1]["id"]), (2, &json!("same"), &json!("same")));
    assert_ne!(stored[0]["seq"], stored[1]["seq"]);
}

#[tokio::test]
async fn health_readiness_and_metrics() {
    let web = Web::new();
    let get = |path: &'static str| web.call(Request::get(path).body(Body::empty()).unwrap());
    assert_eq!(get("/healthz").await.status, StatusCode::OK);
    assert_eq!(get("/readyz").await.status, StatusCode::OK);
    web.store.fail_with(Some(SinkErrorKind::Unavailable));
    assert_eq!(web.post(JSON, &[], format!("[{},{{}}]", row("a"))).await.accepted(), 1);
    support::process::wait_until("the sink's failure is known", Duration::from_secs(20), || web.logger.health().is_err());
    let status = get("/v1/status").await.body;
    assert!(status["healthy"] == false && status["problem"].as_str().unwrap().contains("told to fail"), "{status}");
    let answer = get("/readyz").await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(answer.body.as_str().unwrap().contains("told to fail"), "{answer:?}");
    assert_eq!(get("/healthz").await.status, StatusCode::OK);
    web.store.fail_with(None);
    support::process::wait_until("the sink is well again", Duration::from_secs(20), || web.logger.health().is_ok());
    assert_eq!(web.stored().len(), 1);
    assert_eq!(get("/readyz").await.status, StatusCode::OK);
    let status = get("/v1/status").await.body;
    assert_eq!((&status["healthy"], &status["problem"]), (&json!(true), &json!(null)), "{status}");
    assert_eq!((&status["accepted"], &status["delivered"], &status["dropped"]), (&json!(1), &json!(1), &json!({})), "{status}");
    let metrics = get("/metrics").await;
    let text = metrics.body.as_str().unwrap();
    for line in ["predlog_accepted_total 1", "predlog_delivered_total 1", "predlog_queue_bytes 0", "predlog_sink_up 1"] {
        assert!(text.lines().any(|found| found.trim_end_matches(".0") == line), "{line} is not in\n{text}");
    }
    assert!(metrics.headers["content-type"].to_str().unwrap().starts_with("application/openmetrics-text"));
}

#[tokio::test]
async fn an_answer_to_garbage_is_not_larger_than_it_need_be() {
    let web = Web::new();
    let answer = web.post(NDJSON, &[], format!("{}{}", "x\n".repeat(5_000), row("good"))).await;
    assert_eq!((answer.status, answer.accepted()), (StatusCode::ACCEPTED, 1));
    assert_eq!(answer.body["rejected"].as_array().unwrap().len(), 1_000);
    assert_eq!(answer.body["rejected_unlisted"], 4_000);
}

#[tokio::test]
async fn a_stopped_logger_says_so() {
    let web = Web::new();
    let Web { router, guard, logger, store } = web;
    guard.shutdown(Duration::from_secs(5));
    let web = Web { router, logger, store, guard: Web::new().guard };
    let answer = web.post(JSON, &[], row("late")).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(answer.errors().contains("the server is stopping"), "{answer:?}");
}
