//! What the worker is, and whether it is ready.

use super::{API_VERSION, Problem, State, VERSION};
use axum::Json;
use axum::extract;
use serde_json::{Value, json};

/// `GET /`. The version is Connect's, for clients that ask it for what an endpoint needs; the commit is this program.
pub(super) async fn version(state: extract::State<State>) -> Result<Json<Value>, Problem> {
    let cluster = state.blocking(|herder| Ok(herder.tasks().cluster_id())).await?;
    Ok(Json(json!({"version": API_VERSION, "commit": format!("predlog-{VERSION}"), "kafka_cluster_id": cluster})))
}

/// `GET /health`. The worker listens when its connectors are read: who reaches it finds it ready.
pub(super) async fn health() -> Json<Value> {
    Json(json!({"status": "healthy", "message": "Worker has completed startup and is ready to handle requests."}))
}
