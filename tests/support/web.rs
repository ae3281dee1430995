//! A router on a memory sink, called without a socket.

use axum::Router;
use axum::body::Body;
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use predlog::config::ServerSettings;
use predlog::logger::Builder;
use predlog::server::{State, router};
use predlog::sink::memory::MemorySink;
use predlog::{Durability, Guard, Logger, LoggerSettings, Overflow};
use serde_json::Value;
use std::time::Duration;
use tower::ServiceExt;

/// The server, its store, and what ends it.
pub struct Web {
    pub router: Router,
    pub logger: Logger,
    pub store: MemorySink,
    pub guard: Guard,
}

/// An answer: status, headers, JSON body.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: http::HeaderMap,
    pub body: Value,
}

impl Answer {
    pub fn accepted(&self) -> u64 {
        self.body["accepted"].as_u64().unwrap_or_else(|| panic!("{self:?}"))
    }

    /// The errors of the rejected rows, and that of the request, as one text.
    pub fn errors(&self) -> String {
        let rejected = self.body["rejected"].as_array().into_iter().flatten().map(|row| row["error"].clone());
        rejected
            .chain([self.body["error"].clone()])
            .filter_map(|error| Some(error.as_str()?.to_owned()))
            .collect::<Vec<_>>()
            .join("; ")
    }
}

pub fn memory_settings() -> LoggerSettings {
    LoggerSettings { durability: Durability::Memory, overflow: Overflow::Drop, lanes: Some(1), ..LoggerSettings::default() }
}

impl Web {
    pub fn new() -> Self {
        Self::with(memory_settings(), ServerSettings::default(), |builder| builder)
    }

    pub fn with(logger: LoggerSettings, server: ServerSettings, build: impl FnOnce(Builder) -> Builder) -> Self {
        let store = MemorySink::new();
        let (logger, guard) =
            build(Logger::builder(logger).sink(Box::new(store.clone()))).open().expect("a logger in memory opens");
        Web { router: router(State::new(logger.clone(), server)), logger, store, guard }
    }

    /// `POST /v1/predictions`.
    pub async fn post(&self, content_type: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Answer {
        self.post_to("/v1/predictions", content_type, headers, body).await
    }

    pub async fn post_to(&self, uri: &str, content_type: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Answer {
        let mut request = Request::post(uri).header("content-type", content_type);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.call(request.body(body.into()).expect("a request")).await
    }

    pub async fn call(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.expect("a router does not fail");
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.expect("a body").to_bytes();
        let body = serde_json::from_slice(&bytes).unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).into_owned()));
        Answer { status: parts.status, headers: parts.headers, body }
    }

    /// Everything stored, in order.
    pub fn stored(&self) -> Vec<Value> {
        assert!(self.logger.flush(Duration::from_secs(20)), "the memory sink takes records at once");
        self.store.records().iter().map(|record| serde_json::from_slice(&record.line).expect("a line is JSON")).collect()
    }

    /// The stored lines as text: numbers as they were written.
    pub fn lines(&self) -> Vec<String> {
        assert!(self.logger.flush(Duration::from_secs(20)), "the memory sink takes records at once");
        self.store.records().into_iter().map(|record| String::from_utf8(record.line).expect("a line is UTF-8")).collect()
    }
}
