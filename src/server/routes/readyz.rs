//! `GET /readyz`: 200 while the store takes records, else 503 with the reason. Records are still accepted then, as far as the queue and
//! the spool have room.

use crate::server::State;
use axum::extract;
use axum::http::StatusCode;

pub(crate) async fn get(extract::State(state): extract::State<State>) -> (StatusCode, String) {
    match state.logger.health() {
        Ok(()) => (StatusCode::OK, "ready\n".to_owned()),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}\n")),
    }
}
