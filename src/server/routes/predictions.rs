//! `POST /v1/predictions`: logs the rows of the body.
//!
//! | status | when |
//! |---|---|
//! | 202 | at least one row was taken; `rejected` names the others |
//! | 200 | the same, with `?wait=durable`, once what `logger.durability` promises holds |
//! | 400 | no row was taken, or the request is wrong as a whole |
//! | 408, 413, 415 | the body came too slowly, is too large, or has another type |
//! | 409, 422 | the `Idempotency-Key` is being worked on, or was used for another body |
//! | 429 | the queue is full: `rejected` says from which row on; send those again after `Retry-After` |
//! | 503 | the same, for another reason: the disk is full, the store is away, the server is stopping |
//! | 504 | rows were taken, but durability was not reached within `server.wait_timeout` |

use crate::Logger;
use crate::server::State;
use crate::server::answer::{Answer, respond};
use crate::server::body::{self, Coding, Form, text};
use crate::server::error::Problem;
use crate::server::idempotency::{Fingerprint, MAX_KEY_BYTES, Remembered, Turn};
use crate::server::ingest::{Context, Ingested, ingest};
use crate::server::rows::rows;
use axum::body::Body;
use axum::extract::{self, RawQuery};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use sha2::{Digest, Sha256};
use std::time::{Duration, Instant};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const CE_ID: HeaderName = HeaderName::from_static("ce-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

pub(crate) async fn post(
    extract::State(state): extract::State<State>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let mut body = body;
    let (asked, (packed, place)) = match receive(&state, query.as_deref(), &headers, &mut body).await {
        Ok(received) => received,
        Err(problem) => {
            if !matches!(problem, Problem::Timeout(_)) {
                body::discard(&headers, &mut body, state.settings.read_timeout).await;
            }
            return Err(problem);
        }
    };
    let (wait, wait_timeout) = (asked.wait, state.settings.wait_timeout);
    let job = Job { state: state.clone(), asked, packed };
    // On its own thread, since parsing a large body takes long, and to its end, since a client that goes away must not lose its answer's place.
    let done = tokio::task::spawn_blocking(move || (job.run(), place)).await;
    let (worked, _place) = done.map_err(|error| Problem::Internal(format!("a request could not be worked on: {error}")))?;
    let (answer, replayed) = worked?;

    let status = match (answer.status, wait) {
        (StatusCode::ACCEPTED, true) => wait_durable(state.logger.clone(), wait_timeout).await?,
        (status, _) => status,
    };
    let mut response = respond(status, answer.json);
    if replayed {
        response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    }
    Ok(response)
}

/// What the request's head asks for.
struct Asked {
    wait: bool,
    form: Form,
    coding: Coding,
    key: Option<String>,
    context: Context,
}

/// The request, once its body is here.
async fn receive(
    state: &State,
    query: Option<&str>,
    headers: &HeaderMap,
    body: &mut Body,
) -> Result<(Asked, body::Arrived), Problem> {
    let asked = Asked {
        wait: wants_durable(query)?,
        form: Form::of(headers)?,
        coding: Coding::of(headers)?,
        key: idempotency_key(headers)?,
        context: context(headers)?,
    };
    let settings = &state.settings;
    let arrived = body::read(headers, body, settings.max_body, settings.read_timeout, &state.requests).await?;
    Ok((asked, arrived))
}

/// A request whose body is here.
struct Job {
    state: State,
    asked: Asked,
    packed: Bytes,
}

impl Job {
    /// The answer, and whether it was given before.
    fn run(self) -> Result<(Remembered, bool), Problem> {
        let claim = match &self.asked.key {
            None => None,
            Some(key) => match self.state.idempotency.claim(key, fingerprint(&self.packed), Instant::now())? {
                Turn::First(claim) => Some(claim),
                Turn::Replay(answer) => return Ok((answer, true)),
            },
        };
        let body = body::unpack(&self.packed, self.asked.coding, self.state.settings.max_body)?;
        let rows = rows(&body, self.asked.form).map_err(Problem::BadRequest)?;
        // The same request again, after there was room for some of its rows: it goes on where it was, so that these are not logged twice.
        let before = claim.as_ref().and_then(|claim| claim.before());
        let (first, answer) = before
            .map_or_else(Default::default, |before| (before.stopped_at.unwrap_or_default(), Answer::to_go_on(&before.json)));
        let Ingested { status, answer, stopped_at } = ingest(&self.state.logger, rows, &self.asked.context, first, answer);
        let took_rows = answer.accepted > 0;
        let answer = Remembered { status, json: Bytes::from(answer.to_json()), stopped_at };
        if let Some(claim) = claim.filter(|_| took_rows) {
            claim.answer(answer.clone(), Instant::now());
        }
        Ok((answer, false))
    }
}

fn fingerprint(packed: &[u8]) -> Fingerprint {
    Sha256::digest(packed).into()
}

async fn wait_durable(logger: Logger, timeout: Duration) -> Result<StatusCode, Problem> {
    let done = tokio::task::spawn_blocking(move || logger.wait_durable(timeout)).await;
    let durable = done.map_err(|error| Problem::Internal(format!("waiting for durability failed: {error}")))?;
    Ok(if durable { StatusCode::OK } else { StatusCode::GATEWAY_TIMEOUT })
}

fn wants_durable(query: Option<&str>) -> Result<bool, Problem> {
    match query {
        None | Some("") => Ok(false),
        Some("wait=durable") => Ok(true),
        Some(other) => Err(Problem::BadRequest(format!("query={other:?} is not wait=durable"))),
    }
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    match text(headers, &IDEMPOTENCY_KEY)? {
        "" if headers.contains_key(IDEMPOTENCY_KEY) => Err(Problem::BadRequest("idempotency-key is empty".to_owned())),
        "" => Ok(None),
        key if key.len() > MAX_KEY_BYTES => {
            Err(Problem::BadRequest(format!("idempotency-key has {} bytes: expected at most {MAX_KEY_BYTES}", key.len())))
        }
        key => Ok(Some(key.to_owned())),
    }
}

fn context(headers: &HeaderMap) -> Result<Context, Problem> {
    let given = |name: &HeaderName| text(headers, name).map(|value| Some(value.to_owned()).filter(|value| !value.is_empty()));
    Ok(Context { id: given(&REQUEST_ID)?.or(given(&CE_ID)?), traceparent: given(&TRACEPARENT)? })
}
