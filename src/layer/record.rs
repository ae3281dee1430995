//! One request and its response, logged when the last part of them ends.

use super::LayerConfig;
use super::capture::Capture;
use crate::logger::Outcome;
use crate::record::{MAX_ID_BYTES, MAX_TEXT_BYTES, Prediction};
use http::request::Parts;
use http::{HeaderMap, Method, StatusCode};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Instant;

/// What is known of a request so far. Dropped, it is logged: however the response ends, it ends once.
#[derive(Debug)]
pub(super) struct Exchange {
    config: Logging,
    started: Instant,
    id: Option<String>,
    traceparent: Option<String>,
    method: Method,
    path: String,
    pub(super) request: Arc<Mutex<Capture>>,
    pub(super) response: Option<Capture>,
    status: Option<StatusCode>,
    pub(super) error: Option<String>,
}

#[derive(Clone)]
struct Logging(Arc<LayerConfig>);

impl std::fmt::Debug for Logging {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.model_name)
    }
}

impl Exchange {
    pub(super) fn start(config: &Arc<LayerConfig>, parts: &Parts) -> Self {
        Exchange {
            started: Instant::now(),
            id: header(&parts.headers, "x-request-id", MAX_ID_BYTES),
            traceparent: header(&parts.headers, "traceparent", MAX_TEXT_BYTES),
            method: parts.method.clone(),
            path: parts.uri.path().to_owned(),
            request: Arc::new(Mutex::new(Capture::of(&parts.headers, config.max_captured_bytes))),
            response: None,
            status: None,
            error: None,
            config: Logging(Arc::clone(config)),
        }
    }

    /// The response's head is here.
    pub(super) fn answered(&mut self, status: StatusCode, headers: &HeaderMap) {
        self.status = Some(status);
        self.response = Some(Capture::of(headers, self.config.0.max_captured_bytes));
    }

    /// A response to HEAD has no body, whatever its headers say.
    pub(super) fn is_head(&self) -> bool {
        self.method == Method::HEAD
    }

    fn error(&self) -> Option<&str> {
        if self.error.is_some() {
            return self.error.as_deref();
        }
        match &self.response {
            None if std::thread::panicking() => Some("the handler panicked"),
            None => Some("the request was dropped before its response: the client went away, or a timeout passed"),
            Some(response) if !response.ended => Some("the response was dropped before its end: the client went away"),
            Some(_) => None,
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let config = &*self.config.0;
        let request = self.request.lock();
        let inputs = request.captured();
        let outputs = self.response.as_ref().map(Capture::captured);
        let metadata = [("method", self.method.as_str()), ("path", &*self.path)];
        let mut prediction = Prediction::new(&config.model_name, &config.model_version, &inputs, &outputs)
            .latency_ms(self.started.elapsed().as_secs_f64() * 1e3)
            .metadata(&metadata);
        prediction.id = self.id.as_deref();
        prediction.traceparent = self.traceparent.as_deref();
        prediction.status_code = self.status.map(|status| status.as_u16());
        prediction.error = self.error();
        if let Outcome::Dropped(reason) = config.logger.log(prediction) {
            // The drop is counted by the logger; the response is not held up for it.
            tracing::debug!(reason = reason.name(), "a prediction was dropped");
        }
    }
}

/// A header that can be kept. One that is empty, too long or no text is passed over: the request must not fail for it.
fn header(headers: &HeaderMap, name: &str, most: usize) -> Option<String> {
    let value = headers.get(name)?.to_str().ok()?;
    (!value.is_empty() && value.len() <= most).then(|| value.to_owned())
}
