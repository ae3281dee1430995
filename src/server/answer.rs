//! The body of every answer of `POST /v1/predictions`.

use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// Rejected rows that are listed; more are only counted, so that a body of garbage does not become an answer many times its size.
const MAX_LISTED: usize = 1_000;

/// `{"accepted":n,"ids":[…],"rejected":[…]}`.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Answer<'a> {
    /// Rows that were taken.
    pub(super) accepted: usize,
    /// Their ids, in the order of the rows.
    pub(super) ids: Vec<Cow<'a, str>>,
    /// Rows that were not.
    pub(super) rejected: Vec<Rejected>,
    /// Rejected rows that are not listed.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(super) rejected_unlisted: usize,
    /// Why the request as a whole was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<String>,
}

/// A row that was not taken.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Rejected {
    /// Its place in the request, from 0.
    index: usize,
    /// Why.
    error: String,
    /// It stands for this row and all after it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    rest: bool,
}

fn is_zero(count: &usize) -> bool {
    *count == 0
}

impl<'a> Answer<'a> {
    /// Nothing was looked at.
    pub(super) fn refused(error: String) -> Self {
        Answer { error: Some(error), ..Answer::default() }
    }

    /// The answer to go on with, to the same request again, once there is room for the rows that it says were not taken.
    pub(super) fn to_go_on(json: &[u8]) -> Self {
        // It is what `to_json` made.
        let mut answer: Self = serde_json::from_slice(json).unwrap_or_default();
        answer.rejected.retain(|rejected| !rejected.rest);
        answer
    }

    /// A row was taken.
    pub(super) fn accept(&mut self, id: Cow<'a, str>) {
        self.accepted += 1;
        self.ids.push(id);
    }

    /// A row was not taken, or with `rest`, it and all after it.
    pub(super) fn reject(&mut self, index: usize, error: String, rest: bool) {
        // What stands for many rows is always listed.
        if self.rejected.len() < MAX_LISTED || rest {
            self.rejected.push(Rejected { index, error, rest });
        } else {
            self.rejected_unlisted += 1;
        }
    }

    /// The JSON text.
    pub(super) fn to_json(&self) -> String {
        // Strings and numbers alone: there is nothing in it that JSON cannot have.
        serde_json::to_string(self).unwrap_or_default()
    }

    pub(super) fn respond(&self, status: StatusCode) -> Response {
        respond(status, self.to_json())
    }
}

/// An answer with its status, and when to come back where that may help.
pub(super) fn respond(status: StatusCode, json: impl Into<axum::body::Body>) -> Response {
    let mut response = (status, json.into()).into_response();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}
