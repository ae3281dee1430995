//! What connectors there are, and what their configurations may be.

use super::body::{Body, Values};
use super::{ConfigInfos, Definition, Problem, State, VERSION};
use axum::Json;
use axum::extract::{self, Path};
use serde_json::{Value, json};

/// `GET /connector-plugins`.
pub(super) async fn list(state: extract::State<State>) -> Json<Value> {
    Json(json!([{"class": state.herder.validator().class(), "type": "sink", "version": VERSION}]))
}

/// `GET /connector-plugins/{class}/config`.
pub(super) async fn definitions(
    state: extract::State<State>,
    Path(class): Path<String>,
) -> Result<Json<Vec<Definition>>, Problem> {
    let validator = state.herder.validator();
    if !validator.is_class(&class) {
        return Err(Problem::not_found(format!("Unknown plugin {class}.")));
    }
    Ok(Json(validator.definitions()))
}

/// `PUT /connector-plugins/{class}/config/validate`: 200 also when there are errors, which are told by key.
pub(super) async fn validate(
    state: extract::State<State>,
    Path(class): Path<String>,
    Body(Values(config)): Body<Values>,
) -> Result<Json<ConfigInfos>, Problem> {
    let named = config.get("connector.class").and_then(Option::as_deref);
    if let Some(named) = named.filter(|named| !short(named).ends_with(short(&class))) {
        return Err(Problem::bad_request(format!("Included connector type {named} does not match request type {class}")));
    }
    state.herder.class_of(&config)?;
    Ok(Json(state.herder.validator().validate(&config)))
}

/// A class may be named without its last word.
fn short(class: &str) -> &str {
    class.strip_suffix("Connector").filter(|short| !short.is_empty()).unwrap_or(class)
}
