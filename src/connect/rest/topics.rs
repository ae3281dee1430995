//! The topics that a connector had messages of.

use super::{Problem, State};
use axum::Json;
use axum::extract::{self, Path};
use axum::http::StatusCode;
use serde_json::{Map, Value, json};

/// `GET /connectors/{name}/topics`. As in Connect, a connector that does not exist has none.
pub(super) async fn read(state: extract::State<State>, Path(name): Path<String>) -> Json<Value> {
    let topics = state.herder.tasks().active_topics(&name);
    Json(Value::Object(Map::from_iter([(name, json!({"topics": topics}))])))
}

/// `PUT /connectors/{name}/topics/reset`.
pub(super) async fn reset(state: extract::State<State>, Path(name): Path<String>) -> Result<StatusCode, Problem> {
    state.herder.tasks().reset_active_topics(&name);
    Ok(StatusCode::ACCEPTED)
}
