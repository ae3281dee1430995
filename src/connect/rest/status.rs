//! How connectors and their tasks stand.

use super::tasks::Tasks;
use super::{Problem, State, VERSION};
use crate::connect::{Connector, TargetState};
use axum::Json;
use axum::extract::{self, Path};
use axum::http::StatusCode;
use serde_json::{Value, json};

/// The state of a task that ended without being told to.
pub(super) const FAILED: &str = "FAILED";
/// What Connect calls the class that a task of the connector is of.
const TASK_CLASS: &str = "io.confluent.connect.s3.S3SinkTask";

/// `GET /connectors/{name}/status`.
pub(super) async fn connector(state: extract::State<State>, Path(name): Path<String>) -> Result<Json<Value>, Problem> {
    let connector = state.herder.find(&name, |name| format!("No status found for connector {name}"))?;
    Ok(Json(of(&connector, state.herder.tasks(), &state.worker_id)))
}

/// `GET /connectors/{name}/tasks`: each task, with its configuration.
pub(super) async fn tasks(state: extract::State<State>, Path(name): Path<String>) -> Result<Json<Value>, Problem> {
    let connector = state.herder.get(&name)?;
    let mut config = connector.config;
    config.insert("task.class".to_owned(), Some(TASK_CLASS.to_owned()));
    let tasks = (0..connector.tasks).map(|task| json!({"id": {"connector": name, "task": task}, "config": config}));
    Ok(Json(tasks.collect()))
}

/// `GET /connectors/{name}/tasks/{task}/status`.
pub(super) async fn task(
    state: extract::State<State>,
    Path((name, task)): Path<(String, String)>,
) -> Result<Json<Value>, Problem> {
    let number = number(&task)?;
    let missing = || Problem::not_found(format!("No status found for task {name}-{number}"));
    let connector = state.herder.find(&name, |_| String::new()).map_err(|_| missing())?;
    let status = of(&connector, state.herder.tasks(), &state.worker_id);
    status["tasks"].get(number).cloned().map(Json).ok_or_else(missing)
}

/// A task's number in a path. Connect has no such path when it is none.
pub(super) fn number(task: &str) -> Result<usize, Problem> {
    task.parse().map_err(|_| Problem::plain(StatusCode::NOT_FOUND))
}

/// A connector's status, as answers show it.
pub(super) fn of(connector: &Connector, tasks: &dyn Tasks, worker_id: &str) -> Value {
    let failure = match connector.state {
        TargetState::Running => tasks.failure(&connector.name),
        TargetState::Paused | TargetState::Stopped => None,
    };
    let state = connector.state.name();
    let tasks = (0..connector.tasks).map(|id| match &failure {
        Some(why) => json!({"id": id, "state": FAILED, "worker_id": worker_id, "version": VERSION, "trace": why}),
        None => json!({"id": id, "state": state, "worker_id": worker_id, "version": VERSION}),
    });
    let tasks: Vec<_> = tasks.collect();
    let itself = json!({"state": state, "worker_id": worker_id, "version": VERSION});
    json!({"name": connector.name, "connector": itself, "tasks": tasks, "type": "sink"})
}
