//! What a request is answered when not one of its rows was looked at.

use super::answer::Answer;
use axum::http::header::{ACCEPT, ACCEPT_ENCODING, ALLOW, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};

/// Why a request was refused as a whole.
#[derive(Debug)]
pub(crate) enum Problem {
    /// 400: the request itself is wrong.
    BadRequest(String),
    /// 408: the client took too long.
    Timeout(String),
    /// 409: the same `Idempotency-Key` is being worked on.
    InProgress(String),
    /// 413: the body is larger than `server.max_body`.
    TooLarge(String),
    /// 415: neither JSON nor NDJSON.
    MediaType(String),
    /// 415: neither gzip nor zstd.
    Encoding(String),
    /// 422: the `Idempotency-Key` was used for another body.
    KeyReused(String),
    /// 503: the server is stopping.
    Stopping(String),
    /// 500: a defect of this program.
    Internal(String),
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (status, header, message) = match self {
            Problem::BadRequest(message) => (StatusCode::BAD_REQUEST, None, message),
            Problem::Timeout(message) => (StatusCode::REQUEST_TIMEOUT, None, message),
            Problem::InProgress(message) => (StatusCode::CONFLICT, Some((RETRY_AFTER, "1")), message),
            Problem::TooLarge(message) => (StatusCode::PAYLOAD_TOO_LARGE, None, message),
            Problem::MediaType(message) => {
                (StatusCode::UNSUPPORTED_MEDIA_TYPE, Some((ACCEPT, "application/json, application/x-ndjson")), message)
            }
            // RFC 9110, section 12.5.3: a server that refuses a coding says which it takes.
            Problem::Encoding(message) => (StatusCode::UNSUPPORTED_MEDIA_TYPE, Some((ACCEPT_ENCODING, "gzip, zstd")), message),
            Problem::KeyReused(message) => (StatusCode::UNPROCESSABLE_ENTITY, None, message),
            Problem::Stopping(message) => (StatusCode::SERVICE_UNAVAILABLE, Some((RETRY_AFTER, "1")), message),
            Problem::Internal(message) => {
                tracing::error!(message, "a request failed");
                (StatusCode::INTERNAL_SERVER_ERROR, None, message)
            }
        };
        let mut response = Answer::refused(message).respond(status);
        if let Some((name, value)) = header {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        response
    }
}

/// The answer to a path that does not exist.
pub(super) async fn not_found(uri: axum::http::Uri) -> Response {
    let message = format!("path={} is not one of /v1/predictions, /v1/status, /healthz, /readyz, /metrics", uri.path());
    Answer::refused(message).respond(StatusCode::NOT_FOUND)
}

/// The answer to a method that a path does not have.
pub(super) async fn method_not_allowed(method: axum::http::Method, uri: axum::http::Uri) -> Response {
    let allowed = if uri.path() == "/v1/predictions" { "POST" } else { "GET,HEAD" };
    let mut response = Answer::refused(format!("method={method} is not {allowed}")).respond(StatusCode::METHOD_NOT_ALLOWED);
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    response
}
