//! JSON bodies, and how they become configurations.

use super::error::Problem;
use crate::connect::Config;
use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use std::collections::BTreeMap;

/// A body of JSON.
pub(super) struct Body<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let media_type = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
        let essence = media_type.split(';').next().unwrap_or("").trim();
        if !essence.eq_ignore_ascii_case("application/json") {
            return Err(Problem::plain(StatusCode::UNSUPPORTED_MEDIA_TYPE));
        }
        let read = Bytes::from_request(request, state).await;
        let bytes = read.map_err(|rejection| Problem::plain(rejection.into_response().status()))?;
        let unreadable =
            |error: serde_json::Error| Problem::bad_request(format!("The request's body is not what was expected: {error}"));
        serde_json::from_slice(&bytes).map(Body).map_err(unreadable)
    }
}

/// A configuration in a body: numbers and booleans become strings.
#[derive(Debug)]
pub(super) struct Values(pub Config);

impl<'de> Deserialize<'de> for Values {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let values = BTreeMap::<String, Value>::deserialize(deserializer)?;
        let strings = values.into_iter().map(|(key, value)| match value {
            Value::Null => Ok((key, None)),
            Value::String(text) => Ok((key, Some(text))),
            Value::Number(number) => Ok((key, Some(number.to_string()))),
            Value::Bool(value) => Ok((key, Some(value.to_string()))),
            Value::Array(_) | Value::Object(_) => Err(D::Error::custom(format!(
                "the value of {key} is an array or an object: expected a string, a number, a boolean or null"
            ))),
        });
        Ok(Values(strings.collect::<Result<_, _>>()?))
    }
}
