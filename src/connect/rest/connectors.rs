//! Connectors: all of them, one, a new one, one less.

use super::body::{Body, Values};
use super::{Problem, State, status};
use crate::connect::{Connector, TargetState};
use axum::Json;
use axum::extract::{self, Path, Query};
use axum::http::header::{ALLOW, CONTENT_TYPE, HOST, LOCATION};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// What Connect leaves as it is in a path: RFC 3986's `pchar`, and the slash.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'!')
    .remove(b'$')
    .remove(b'&')
    .remove(b'\'')
    .remove(b'(')
    .remove(b')')
    .remove(b'*')
    .remove(b'+')
    .remove(b',')
    .remove(b';')
    .remove(b'=')
    .remove(b':')
    .remove(b'@')
    .remove(b'/');

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Create {
    name: Option<String>,
    config: Option<Values>,
    initial_state: Option<String>,
}

/// `GET /connectors`: names, or with `expand=status` and `expand=info` what each name is about.
pub(super) async fn list(
    state: extract::State<State>,
    Query(query): Query<Vec<(String, String)>>,
) -> Result<Json<Value>, Problem> {
    let worker_id = state.worker_id.clone();
    let listed = state.blocking(move |herder| {
        let expand = |what: &str| query.iter().any(|(key, value)| key == "expand" && value == what);
        let connectors = herder.all();
        if !query.iter().any(|(key, _)| key == "expand") {
            return Ok(connectors.into_iter().map(|connector| connector.name).collect());
        }
        let expanded = connectors.iter().map(|connector| {
            let mut about = Map::new();
            if expand("status") {
                about.insert("status".to_owned(), status::of(connector, herder.tasks(), &worker_id));
            }
            if expand("info") {
                about.insert("info".to_owned(), info(connector));
            }
            (connector.name.clone(), Value::Object(about))
        });
        Ok(Value::Object(expanded.collect()))
    });
    Ok(Json(listed.await?))
}

/// `OPTIONS /connectors`.
pub(super) async fn options() -> impl IntoResponse {
    [(ALLOW, "HEAD,POST,GET,OPTIONS"), (CONTENT_TYPE, "application/json")]
}

/// `POST /connectors`.
pub(super) async fn create(
    state: extract::State<State>,
    headers: HeaderMap,
    Body(request): Body<Create>,
) -> Result<Response, Problem> {
    let name = request.name.as_deref().unwrap_or("").trim().to_owned();
    let Some(Values(config)) = request.config else {
        return Err(Problem::bad_request("config is missing or null: expected the connector's configuration, an object"));
    };
    let initial = match request.initial_state.map(|state| state.to_ascii_uppercase()).as_deref() {
        None | Some("RUNNING") => TargetState::Running,
        Some("PAUSED") => TargetState::Paused,
        Some("STOPPED") => TargetState::Stopped,
        Some(other) => {
            return Err(Problem::bad_request(format!("initial_state={other} is not one of RUNNING, PAUSED, STOPPED")));
        }
    };
    let connector = state.blocking(move |herder| herder.create(&name, config, initial)).await?;
    Ok(created(&headers, &connector))
}

/// `GET /connectors/{name}`.
pub(super) async fn read(state: extract::State<State>, Path(name): Path<String>) -> Result<Json<Value>, Problem> {
    Ok(Json(info(&state.herder.get(&name)?)))
}

/// `DELETE /connectors/{name}`.
pub(super) async fn delete(state: extract::State<State>, Path(name): Path<String>) -> Result<StatusCode, Problem> {
    state.blocking(move |herder| herder.delete(&name)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The answer to a request that made a connector.
pub(super) fn created(headers: &HeaderMap, connector: &Connector) -> Response {
    let path = format!("/connectors/{}", utf8_percent_encode(&connector.name, ENCODED));
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    let location = host.map_or_else(|| path.clone(), |host| format!("http://{host}{path}"));
    (StatusCode::CREATED, [(LOCATION, location)], Json(info(connector))).into_response()
}

/// A connector, as answers show it.
pub(super) fn info(connector: &Connector) -> Value {
    let name = &connector.name;
    let tasks: Vec<_> = (0..connector.tasks).map(|task| json!({"connector": name, "task": task})).collect();
    json!({"name": name, "config": connector.config, "tasks": tasks, "type": "sink"})
}
