//! Rows into the logger, and what became of them.

use super::answer::Answer;
use super::row::Row;
use super::rows::{Item, Rows};
use crate::logger::{Logger, Outcome};
use crate::record::Prediction;
use crate::record::encode::Invalid;
use crate::stats::DropReason;
use axum::http::StatusCode;
use std::borrow::Cow;

/// What the request's headers say of its rows.
#[derive(Debug, Default)]
pub(super) struct Context {
    /// The id of the row, when the body is one object.
    pub(super) id: Option<String>,
    pub(super) traceparent: Option<String>,
}

/// What became of the rows.
pub(super) struct Ingested<'a> {
    pub(super) status: StatusCode,
    pub(super) answer: Answer<'a>,
    /// There was no room from this row on.
    pub(super) stopped_at: Option<usize>,
}

/// Logs every row from the `first` on that can be, and adds what became of each to `answer`.
///
/// At the first row for which there is no room it stops: the rows after it would only be dropped one by one, or, with
/// `overflow = "block"`, each wait for its own `block_limit`.
pub(super) fn ingest<'a>(
    logger: &Logger,
    rows: Rows<'a>,
    context: &'a Context,
    first: usize,
    mut answer: Answer<'a>,
) -> Ingested<'a> {
    let single = rows.is_single();
    for (index, item) in rows.enumerate().skip(first) {
        let row = match item {
            Item::Row(text) => Row::parse(text),
            Item::Bad(error) => Err(error),
            Item::Rest(error) => {
                answer.reject(index, error, true);
                break;
            }
        };
        let logged = row.map_err(NotLogged::Invalid).and_then(|row| log(logger, row, context, single));
        match logged {
            Ok(id) => answer.accept(id),
            Err(NotLogged::Invalid(error)) => answer.reject(index, error, false),
            Err(NotLogged::Full(reason)) => {
                answer.reject(index, no_room(reason), true);
                let status = match reason {
                    DropReason::QueueFull => StatusCode::TOO_MANY_REQUESTS,
                    _ => StatusCode::SERVICE_UNAVAILABLE,
                };
                return Ingested { status, answer, stopped_at: Some(index) };
            }
        }
    }
    if answer.accepted == 0 && answer.rejected.is_empty() {
        answer.error = Some("the body has no rows".to_owned());
    }
    let status = if answer.accepted > 0 { StatusCode::ACCEPTED } else { StatusCode::BAD_REQUEST };
    Ingested { status, answer, stopped_at: None }
}

enum NotLogged {
    /// The row is wrong.
    Invalid(String),
    /// The logger cannot take it now.
    Full(DropReason),
}

fn log<'a>(logger: &Logger, row: Row<'a>, context: &'a Context, single: bool) -> Result<Cow<'a, str>, NotLogged> {
    let from_header = context.id.as_deref().filter(|_| single).map(Cow::Borrowed);
    let id = row.id.or(from_header).unwrap_or_else(|| Cow::Owned(uuid::Uuid::now_v7().to_string()));
    let metadata: Vec<(&str, &str)> = row.metadata.iter().map(|(key, value)| (&**key, &**value)).collect();
    let version = row.model_version.as_deref().unwrap_or_default();
    let mut prediction = Prediction::new(&row.model_name, version, row.inputs, row.outputs).id(&id).metadata(&metadata);
    prediction.timestamp = row.timestamp;
    prediction.request_id = row.request_id.as_deref();
    prediction.row_index = row.row_index;
    prediction.status_code = row.status_code;
    prediction.error = row.error.as_deref();
    prediction.latency_ms = row.latency_ms;
    prediction.sample_weight = row.sample_weight;
    prediction.traceparent = row.traceparent.as_deref().or(context.traceparent.as_deref());
    match logger.log(prediction) {
        Outcome::Accepted { .. } => Ok(id),
        Outcome::Dropped(DropReason::Invalid(invalid)) => Err(NotLogged::Invalid(why(invalid))),
        Outcome::Dropped(reason) => Err(NotLogged::Full(reason)),
    }
}

/// What [`Row::parse`] does not find itself: an id or a trace context from a header.
fn why(invalid: Invalid) -> String {
    match invalid {
        Invalid::Id => "id (from the x-request-id or ce-id header): expected 1 to 256 bytes".to_owned(),
        Invalid::TextTooLong => "traceparent (from the header): expected at most 1024 bytes".to_owned(),
        Invalid::ModelName | Invalid::ReservedName | Invalid::Unserializable => invalid.to_string(),
    }
}

fn no_room(reason: DropReason) -> String {
    let name = reason.name();
    match reason {
        DropReason::Closed => {
            format!("{name}: the server is stopping; this row and all after it were not taken: send them again")
        }
        _ => format!("{name}: this row and all after it were not taken: send them again later"),
    }
}
