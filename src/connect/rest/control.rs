//! Pause, resume, stop, restart.

use super::{Problem, State, status};
use crate::connect::TargetState;
use axum::Json;
use axum::extract::{self, Path, Query};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::Value;

/// `PUT /connectors/{name}/pause`.
pub(super) async fn pause(state: extract::State<State>, Path(name): Path<String>) -> Result<StatusCode, Problem> {
    state.blocking(move |herder| herder.set_state(&name, TargetState::Paused)).await?;
    Ok(StatusCode::ACCEPTED)
}

/// `PUT /connectors/{name}/resume`.
pub(super) async fn resume(state: extract::State<State>, Path(name): Path<String>) -> Result<StatusCode, Problem> {
    state.blocking(move |herder| herder.set_state(&name, TargetState::Running)).await?;
    Ok(StatusCode::ACCEPTED)
}

/// `PUT /connectors/{name}/stop`.
pub(super) async fn stop(state: extract::State<State>, Path(name): Path<String>) -> Result<StatusCode, Problem> {
    state.blocking(move |herder| herder.set_state(&name, TargetState::Stopped)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /connectors/{name}/restart?includeTasks=…&onlyFailed=…`.
///
/// Without `includeTasks` only the connector itself is restarted, as in Connect: tasks go on, or stay failed.
pub(super) async fn restart(
    state: extract::State<State>,
    Path(name): Path<String>,
    Query(query): Query<Vec<(String, String)>>,
) -> Result<Response, Problem> {
    let asked = |what: &str| query.iter().any(|(key, value)| key == what && value.eq_ignore_ascii_case("true"));
    let (include_tasks, only_failed) = (asked("includeTasks"), asked("onlyFailed"));
    let worker_id = state.worker_id.clone();
    let answer = state.blocking(move |herder| {
        let connector = herder.find(&name, |name| format!("Unknown connector: {name}"))?;
        if !include_tasks && !only_failed {
            return Ok(None);
        }
        let mut answer = status::of(&connector, herder.tasks(), &worker_id);
        if !only_failed {
            answer["connector"]["state"] = "RESTARTING".into();
        }
        let tasks = answer["tasks"].as_array_mut().into_iter().flatten();
        let mut restarted = false;
        for task in tasks.filter(|task| include_tasks && (!only_failed || task["state"] == status::FAILED)) {
            task["state"] = Value::from("RESTARTING");
            restarted = true;
        }
        if restarted {
            herder.restart_tasks(&name);
        }
        Ok(Some(answer))
    });
    Ok(answer
        .await?
        .map_or_else(|| StatusCode::NO_CONTENT.into_response(), |it| (StatusCode::ACCEPTED, Json(it)).into_response()))
}

/// `POST /connectors/{name}/tasks/{task}/restart`. The tasks of a connector end and begin together.
pub(super) async fn restart_task(
    state: extract::State<State>,
    Path((name, task)): Path<(String, String)>,
) -> Result<StatusCode, Problem> {
    let task = status::number(&task)?;
    let restarted = state.blocking(move |herder| {
        let connector = herder.find(&name, |name| format!("Unknown connector: {name}"))?;
        if task >= connector.tasks {
            return Err(Problem::not_found(format!("Unknown task: {name}-{task}")));
        }
        herder.restart_tasks(&name);
        Ok(())
    });
    restarted.await?;
    Ok(StatusCode::NO_CONTENT)
}
