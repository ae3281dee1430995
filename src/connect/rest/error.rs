//! What a request is answered that cannot be done.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

/// Why a request was refused: a status, and a message of Connect's form.
#[derive(Debug)]
pub struct Problem {
    status: StatusCode,
    message: String,
}

impl Problem {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Problem {
        Problem { status, message: message.into() }
    }

    /// 400.
    pub(super) fn bad_request(message: impl Into<String>) -> Problem {
        Problem::new(StatusCode::BAD_REQUEST, message)
    }

    /// 404.
    pub(super) fn not_found(message: impl Into<String>) -> Problem {
        Problem::new(StatusCode::NOT_FOUND, message)
    }

    /// 409.
    pub(super) fn conflict(message: impl Into<String>) -> Problem {
        Problem::new(StatusCode::CONFLICT, message)
    }

    /// 500.
    pub(super) fn internal(message: impl Into<String>) -> Problem {
        let message = message.into();
        tracing::error!(message, "a request failed");
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, message)
    }

    /// A status that speaks for itself, in the words of Connect's framework.
    pub(super) fn plain(status: StatusCode) -> Problem {
        Problem::new(status, format!("HTTP {} {}", status.as_u16(), status.canonical_reason().unwrap_or("Unknown")))
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        (self.status, Json(json!({"error_code": self.status.as_u16(), "message": self.message}))).into_response()
    }
}

/// The answer to a path that does not exist.
pub(super) async fn not_found() -> Problem {
    Problem::plain(StatusCode::NOT_FOUND)
}

/// The answer to a method that a path does not have.
pub(super) async fn method_not_allowed() -> Problem {
    Problem::plain(StatusCode::METHOD_NOT_ALLOWED)
}
