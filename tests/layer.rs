//! The tower layer in an axum server: what it logs, and that it changes nothing that passes.
#![cfg(feature = "server")]

mod support;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use bytesize::ByteSize;
use http::{Request, Response, StatusCode};
use http_body::{Body as _, Frame};
use http_body_util::{BodyExt, StreamBody};
use predlog::layer::PredictionLayer;
use predlog::sink::memory::MemorySink;
use predlog::{Guard, Logger};
use serde_json::{Value, json};
use std::time::Duration;
use support::web::memory_settings;
use tokio::sync::mpsc;
use tower::{Layer, Service, ServiceExt};

struct Logged {
    logger: Logger,
    store: MemorySink,
    _guard: Guard,
}

impl Logged {
    fn new() -> Self {
        let store = MemorySink::new();
        let (logger, guard) = Logger::builder(memory_settings()).sink(Box::new(store.clone())).open().unwrap();
        Logged { logger, store, _guard: guard }
    }

    fn layer(&self) -> PredictionLayer {
        PredictionLayer::new(self.logger.clone(), "wine").version("3")
    }

    fn rows(&self) -> Vec<Value> {
        assert!(self.logger.flush(Duration::from_secs(20)));
        self.store.records().iter().map(|record| serde_json::from_slice(&record.line).unwrap()).collect()
    }

    fn only_row(&self) -> Value {
        let mut rows = self.rows();
        assert_eq!(rows.len(), 1, "{rows:?}");
        rows.remove(0)
    }
}

fn json_request(path: &str, body: impl Into<Body>) -> Request<Body> {
    Request::post(path).header("content-type", "application/json").body(body.into()).unwrap()
}

/// Answers with the request's body.
async fn echo(body: Bytes) -> impl IntoResponse {
    ([("content-type", "application/json")], body)
}

async fn call(app: &Router, request: Request<Body>) -> (StatusCode, Bytes) {
    let response = app.clone().oneshot(request).await.unwrap();
    let status = response.status();
    (status, response.into_body().collect().await.unwrap().to_bytes())
}

#[tokio::test]
async fn json_bodies_become_inputs_and_outputs() {
    let logged = Logged::new();
    let app = Router::new().route("/predict", post(|| async { axum::Json(json!({"quality": 5.2})) })).layer(logged.layer());
    let request = Request::post("/predict")
        .header("content-type", "application/json; charset=utf-8")
        .header("x-request-id", "req-1")
        .header("traceparent", "00-a-b-01")
        .body(Body::from(r#"{"alcohol": 9.40}"#))
        .unwrap();
    let (status, body) = call(&app, request).await;
    assert_eq!((status, &*body), (StatusCode::OK, br#"{"quality":5.2}"#.as_slice()));
    let row = logged.only_row();
    assert_eq!((&row["model_name"], &row["model_version"], &row["id"]), (&json!("wine"), &json!("3"), &json!("req-1")));
    assert_eq!(
        (&row["outputs"], &row["status_code"], &row["traceparent"]),
        (&json!({"quality": 5.2}), &json!(200), &json!("00-a-b-01"))
    );
    assert_eq!(row["metadata"], json!({"method": "POST", "path": "/predict"}));
    assert!(row["latency_ms"].as_f64().unwrap() >= 0.0 && row.get("error").is_none(), "{row}");
    // The handler did not read the body: what did not pass is not known.
    assert_eq!(row["inputs"], json!({"omitted": "incomplete", "bytes": 0}));
}

#[tokio::test]
async fn a_body_that_the_handler_reads_is_kept_to_the_letter() {
    let logged = Logged::new();
    let app = Router::new().route("/predict", post(echo)).layer(logged.layer());
    let sent = r#"{"a": 1.50, "b": [1e400, "é"]}"#;
    assert_eq!(call(&app, json_request("/predict", sent)).await.1, sent);
    assert!(logged.logger.flush(Duration::from_secs(20)));
    let line = String::from_utf8(logged.store.records()[0].line.clone()).unwrap();
    assert!(line.contains(r#""inputs":{"a":1.50,"b":[1e400,"é"]},"outputs":{"a":1.50,"b":[1e400,"é"]}"#), "{line}");
}

#[tokio::test]
async fn only_chosen_routes_are_logged() {
    let logged = Logged::new();
    let layer = logged.layer().routes(["/predict", "/score"]);
    let app = Router::new().route("/predict", post(echo)).route("/score", post(echo)).route("/other", post(echo)).layer(layer);
    for path in ["/predict", "/other", "/score", "/predict/x"] {
        call(&app, json_request(path, "1")).await;
    }
    let paths: Vec<_> = logged.rows().iter().map(|row| row["metadata"]["path"].clone()).collect();
    assert_eq!(paths, ["/predict", "/score"]);
    let logged = Logged::new();
    let layer = logged.layer().filter(|parts| parts.headers.contains_key("x-log"));
    let app = Router::new().route("/predict", post(echo)).layer(layer);
    call(&app, json_request("/predict", "1")).await;
    assert!(logged.rows().is_empty());
}

#[tokio::test]
async fn what_is_not_kept_leaves_a_mark_that_says_why() {
    let logged = Logged::new();
    let app = Router::new()
        .route("/echo", post(echo))
        .route("/text", post(|_: Bytes| async { "text" }))
        .route(
            "/packed",
            post(|_: Bytes| async { ([("content-type", "application/json"), ("content-encoding", "gzip")], "12345") }),
        )
        .route("/nothing", post(|_: Bytes| async { StatusCode::NO_CONTENT }))
        .layer(logged.layer().max_captured_bytes(ByteSize::b(10)));
    for (path, body) in
        [("/echo", "[1,2,3,4,5,6]"), ("/echo", "[1,"), ("/text", "1"), ("/packed", "1"), ("/nothing", "1"), ("/echo", "")]
    {
        let (_, answer) = call(&app, json_request(path, body)).await;
        if path == "/echo" {
            assert_eq!(answer, body);
        }
    }
    let marks: Vec<_> = logged.rows().iter().map(|row| (row["inputs"].clone(), row["outputs"].clone())).collect();
    let mark = |why: &str, bytes: u64| json!({"omitted": why, "bytes": bytes});
    assert_eq!(
        marks,
        [
            (mark("too_large", 13), mark("too_large", 13)),
            (mark("invalid_json", 3), mark("invalid_json", 3)),
            (json!(1), mark("not_json", 4)),
            (json!(1), mark("encoded", 5)),
            (json!(1), mark("empty", 0)),
            (mark("empty", 0), mark("empty", 0)),
        ]
    );
}

#[tokio::test]
async fn a_body_whose_coding_is_none_is_kept() {
    let logged = Logged::new();
    let headers = [("content-type", "application/json"), ("content-encoding", "Identity")];
    let app = Router::new().route("/", post(move |body: Bytes| async move { (headers, body) })).layer(logged.layer());
    let request = headers.iter().fold(Request::post("/"), |request, (name, value)| request.header(*name, *value));
    call(&app, request.body("[1]".into()).unwrap()).await;
    let row = logged.only_row();
    assert_eq!((&row["inputs"], &row["outputs"]), (&json!([1]), &json!([1])));
}

/// A response that gives what the test sends it, when it sends it.
fn streamed(content_type: &'static str) -> (Router, mpsc::Sender<Result<Frame<Bytes>, std::io::Error>>) {
    let (sender, receiver) = mpsc::channel(1);
    let receiver = std::sync::Arc::new(std::sync::Mutex::new(Some(receiver)));
    let handler = get(move || async move {
        let receiver = receiver.lock().unwrap().take().expect("one call");
        let stream = futures_util::stream::unfold(receiver, |mut receiver: mpsc::Receiver<_>| async {
            Some((receiver.recv().await?, receiver))
        });
        Response::builder().header("content-type", content_type).body(Body::new(StreamBody::new(stream))).unwrap()
    });
    (Router::new().route("/", handler), sender)
}

#[tokio::test]
async fn a_stream_passes_chunk_by_chunk_with_its_trailers() {
    let logged = Logged::new();
    let (app, sender) = streamed("application/json");
    let response = app.layer(logged.layer()).oneshot(Request::get("/").body(Body::empty()).unwrap()).await.unwrap();
    let mut body = response.into_body();
    // Each chunk is here before the next is made: nothing is held back.
    for chunk in ["[1", ",2", "]"] {
        sender.send(Ok(Frame::data(Bytes::from_static(chunk.as_bytes())))).await.unwrap();
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), chunk);
        assert_eq!(logged.logger.snapshot().accepted, 0);
    }
    let trailers = http::HeaderMap::from_iter([(http::HeaderName::from_static("x-sum"), http::HeaderValue::from_static("3"))]);
    sender.send(Ok(Frame::trailers(trailers.clone()))).await.unwrap();
    drop(sender);
    assert_eq!(body.frame().await.unwrap().unwrap().into_trailers().unwrap(), trailers);
    assert!(body.frame().await.is_none());
    let row = logged.only_row();
    assert_eq!((&row["outputs"], row.get("error")), (&json!([1, 2]), None));
}

#[tokio::test]
async fn server_sent_events_pass_and_are_not_kept() {
    let logged = Logged::new();
    let (app, sender) = streamed("text/event-stream");
    let response = app.layer(logged.layer()).oneshot(Request::get("/").body(Body::empty()).unwrap()).await.unwrap();
    let mut body = response.into_body();
    for _ in 0..3 {
        sender.send(Ok(Frame::data(Bytes::from_static(b"data: {}\n\n")))).await.unwrap();
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "data: {}\n\n");
    }
    drop(body);
    let row = logged.only_row();
    assert_eq!(row["outputs"], json!({"omitted": "not_json", "bytes": 30}));
    assert!(row["error"].as_str().unwrap().contains("dropped before its end"), "{row}");
}

#[tokio::test]
async fn a_body_that_fails_fails_as_it_did_and_is_logged_with_its_error() {
    let logged = Logged::new();
    let (app, sender) = streamed("application/json");
    let response = app.layer(logged.layer()).oneshot(Request::get("/").body(Body::empty()).unwrap()).await.unwrap();
    let mut body = response.into_body();
    sender.send(Ok(Frame::data(Bytes::from_static(b"[1")))).await.unwrap();
    assert!(body.frame().await.unwrap().is_ok());
    sender.send(Err(std::io::Error::other("the model is gone"))).await.unwrap();
    assert!(body.frame().await.unwrap().unwrap_err().to_string().contains("the model is gone"));
    drop((body, sender));
    let row = logged.only_row();
    assert!(row["error"].as_str().unwrap().contains("the model is gone"), "{row}");
    assert_eq!(row["outputs"], json!({"omitted": "incomplete", "bytes": 2}));
}

#[tokio::test]
async fn hints_of_size_pass_unchanged() {
    let logged = Logged::new();
    let inner = tower::service_fn(|request: Request<_>| async move {
        let hint = http_body::Body::size_hint(request.body());
        assert_eq!(hint.exact(), Some(7));
        Ok::<_, std::convert::Infallible>(Response::new(Body::from("answer")))
    });
    let mut service = logged.layer().layer(inner);
    let response = service.call(json_request("/", "1234567")).await.unwrap();
    assert_eq!((response.body().size_hint().exact(), response.body().is_end_stream()), (Some(6), false));
}

#[tokio::test]
async fn errors_are_logged_with_their_status() {
    let logged = Logged::new();
    let app = Router::new()
        .route("/predict", post(|_: Bytes| async { (StatusCode::UNPROCESSABLE_ENTITY, axum::Json(json!({"detail": "no"}))) }))
        .layer(logged.layer());
    call(&app, json_request("/predict", "{}")).await;
    let row = logged.only_row();
    assert_eq!((&row["status_code"], &row["outputs"]), (&json!(422), &json!({"detail": "no"})));

    let logged = Logged::new();
    let failing = tower::service_fn(|_: Request<_>| async { Err::<Response<Body>, _>(std::io::Error::other("no model")) });
    assert!(logged.layer().layer(failing).call(json_request("/", "1")).await.is_err());
    let row = logged.only_row();
    assert_eq!((&row["error"], row.get("status_code")), (&json!("the service failed: no model"), None));
}

#[tokio::test]
async fn panics_and_clients_that_go_away_are_logged() {
    let logged = Logged::new();
    let app = Router::new()
        .route("/panic", post(|_: Bytes| async { if true { panic!("in the handler") } else { "" } }))
        .route("/never", post(|_: Bytes| async { std::future::pending::<&str>().await }))
        .layer(logged.layer());
    let panicked = tokio::spawn(app.clone().oneshot(json_request("/panic", "1"))).await;
    assert!(panicked.unwrap_err().is_panic());
    let row = logged.only_row();
    assert_eq!((&row["error"], &row["inputs"], &row["outputs"]), (&json!("the handler panicked"), &json!(1), &Value::Null));

    let mut never = Box::pin(app.oneshot(json_request("/never", "2")));
    assert!(futures_util::poll!(&mut never).is_pending());
    drop(never);
    let row = logged.rows().remove(1);
    assert!(row["error"].as_str().unwrap().contains("dropped before its response"), "{row}");
    assert_eq!(row["inputs"], json!(2));
}

#[tokio::test]
async fn ids_that_cannot_be_kept_do_not_cost_the_prediction() {
    let logged = Logged::new();
    let app = Router::new().route("/predict", post(echo)).layer(logged.layer());
    let mut request = json_request("/predict", "1");
    request.headers_mut().insert("x-request-id", "x".repeat(300).parse().unwrap());
    call(&app, request).await;
    assert!(uuid::Uuid::try_parse(logged.only_row()["id"].as_str().unwrap()).is_ok());
}

/// On a socket hyper writes the body and knows its length: the record must still say that it ended.
#[tokio::test]
async fn a_served_response_has_ended_when_its_length_was_written() {
    let logged = Logged::new();
    let app = Router::new().route("/predict", post(echo).get(echo)).layer(logged.layer());
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("http://{}/predict", listener.local_addr().unwrap());
    let server = tokio::spawn(async { axum::serve(listener, app).await });
    let client = reqwest::Client::new();
    let big = format!("[{}1]", "1,".repeat(100_000));
    for body in ["{\"a\":1}", &big] {
        let answer = client.post(&url).header("content-type", "application/json").body(body.to_owned()).send().await.unwrap();
        assert_eq!(answer.text().await.unwrap(), body);
    }
    assert!(client.head(&url).send().await.unwrap().status().is_success());
    support::process::wait_until("all are stored", Duration::from_secs(20), || logged.store.records().len() == 3);
    for row in logged.rows() {
        assert_eq!((row.get("error"), &row["status_code"]), (None, &json!(200)), "{}", row["metadata"]);
    }
    server.abort();
}
