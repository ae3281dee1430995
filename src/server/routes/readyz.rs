//! `GET /readyz`: 200 while the store takes records, else 503 with the reason. Records are still accepted then, as far as the queue and
//! the spool have room. One of `[[sinks]]` that takes none has a line of its own, and does not make the server unready: it costs the others nothing.

use crate::server::State;
use axum::extract;
use axum::http::StatusCode;

pub(crate) async fn get(extract::State(state): extract::State<State>) -> (StatusCode, String) {
    let (status, mut text) = match state.logger.health() {
        Ok(()) => (StatusCode::OK, "ready\n".to_owned()),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}\n")),
    };
    for name in state.logger.sinks() {
        if let Some(Err(reason)) = state.logger.sink(name).map(|sink| sink.health()) {
            text.push_str(&format!("sink {name} waits: {reason}\n"));
        }
    }
    (status, text)
}
