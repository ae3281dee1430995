//! A connector's configuration.

use super::body::{Body, Values};
use super::connectors::{created, info};
use super::{Problem, State};
use crate::connect::Config;
use axum::Json;
use axum::extract::{self, Path};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use serde_json::Value;

/// `GET /connectors/{name}/config`.
pub(super) async fn read(state: extract::State<State>, Path(name): Path<String>) -> Result<Json<Config>, Problem> {
    Ok(Json(state.herder.get(&name)?.config))
}

/// `PUT /connectors/{name}/config`: the connector is made, or has this configuration in place of its own.
pub(super) async fn put(
    state: extract::State<State>,
    Path(name): Path<String>,
    headers: HeaderMap,
    Body(Values(config)): Body<Values>,
) -> Result<Response, Problem> {
    let put = state.blocking(move |herder| herder.put(&name, config)).await?;
    Ok(if put.created { created(&headers, &put.connector) } else { Json(info(&put.connector)).into_response() })
}

/// `PATCH /connectors/{name}/config`: some keys are changed, and those that are `null` removed.
pub(super) async fn patch(
    state: extract::State<State>,
    Path(name): Path<String>,
    Body(Values(changes)): Body<Values>,
) -> Result<Json<Value>, Problem> {
    let connector = state.blocking(move |herder| herder.patch(&name, changes)).await?;
    Ok(Json(info(&connector)))
}
