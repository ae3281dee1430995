//! A request's body: which form it has, read up to a limit in bounded time, and unpacked up to the same limit.

use super::error::Problem;
use axum::body::Body;
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HeaderName};
use bytes::{Bytes, BytesMut};
use bytesize::ByteSize;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use std::borrow::Cow;
use std::io::Read;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// How rows stand in a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// `application/json`: one object, or an array of them.
    Json,
    /// `application/x-ndjson`: one object a line.
    Ndjson,
}

/// How a body is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    Identity,
    Gzip,
    Zstd,
}

/// The zstd window that is accepted, as a power of two: 32 MiB. A larger one only costs memory.
const ZSTD_WINDOW_LOG: u32 = 25;

impl Form {
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let given = text(headers, &CONTENT_TYPE)?;
        let essence = given.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match essence.as_str() {
            "application/json" => Ok(Form::Json),
            "application/x-ndjson" | "application/ndjson" | "application/jsonl" => Ok(Form::Ndjson),
            _ => Err(Problem::MediaType(format!(
                "content-type={given:?} is not application/json (an object or an array) or application/x-ndjson (an object a line)"
            ))),
        }
    }
}

impl Coding {
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let given = text(headers, &CONTENT_ENCODING)?;
        match given.trim().to_ascii_lowercase().as_str() {
            "" | "identity" => Ok(Coding::Identity),
            "gzip" | "x-gzip" => Ok(Coding::Gzip),
            "zstd" => Ok(Coding::Zstd),
            _ => Err(Problem::Encoding(format!("content-encoding={given:?} is not gzip or zstd"))),
        }
    }
}

/// A header as text, empty when it is not there.
pub(super) fn text<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<&'h str, Problem> {
    headers.get(name).map_or(Ok(""), |value| {
        std::str::from_utf8(value.as_bytes()).map_err(|_| Problem::BadRequest(format!("header {name} is not UTF-8")))
    })
}

/// What a body may have in memory before it takes one of `server.max_requests`: clients that are slow to send a small one hold up nobody.
const FREE_BYTES: usize = 64 * 1024;

/// A body in memory, and its place among `server.max_requests`.
pub(super) type Arrived = (Bytes, OwnedSemaphorePermit);

/// Reads the body as it was sent.
pub(super) async fn read(
    headers: &HeaderMap,
    body: &mut Body,
    limit: ByteSize,
    timeout: Duration,
    places: &Arc<Semaphore>,
) -> Result<Arrived, Problem> {
    let bytes = limit.as_u64();
    let announced = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|announced| announced > bytes) {
        return Err(too_large(limit));
    }
    let mut body = pin!(Limited::new(body, usize::try_from(bytes).unwrap_or(usize::MAX)));
    let mut deadline = Instant::now() + timeout;
    let (mut arrived, mut place) = (BytesMut::new(), None);
    loop {
        let frame = match tokio::time::timeout_at(deadline, body.frame()).await {
            Ok(None) => break,
            Ok(Some(Ok(frame))) => frame,
            Ok(Some(Err(error))) if error.is::<LengthLimitError>() => return Err(too_large(limit)),
            Ok(Some(Err(error))) => return Err(Problem::BadRequest(format!("the body ended early: {error}"))),
            Err(_) => {
                let timeout = humantime_serde::re::humantime::format_duration(timeout);
                return Err(Problem::Timeout(format!("the body did not arrive within server.read_timeout={timeout}")));
            }
        };
        let Ok(data) = frame.into_data() else { continue };
        if place.is_none() && arrived.len() + data.len() > FREE_BYTES {
            let waits = Instant::now();
            place = Some(take_place(places).await?);
            // The client waited for us.
            deadline += waits.elapsed();
        }
        arrived.extend_from_slice(&data);
    }
    let place = match place {
        Some(place) => place,
        None => take_place(places).await?,
    };
    Ok((arrived.freeze(), place))
}

/// Lets the rest of a refused body come and go, for as long as a good one may take: a client that is still sending when the connection is closed never sees
/// the answer, only that it was reset. One that waits to be told to go on has the answer first.
pub(super) async fn discard(headers: &HeaderMap, body: &mut Body, timeout: Duration) {
    if !headers.contains_key(EXPECT) {
        // Whether it ends in time or not, it is over.
        let _ = tokio::time::timeout(timeout, async { while let Some(Ok(_)) = body.frame().await {} }).await;
    }
}

async fn take_place(places: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, Problem> {
    let stopping = |_| Problem::Stopping("the server is stopping".to_owned());
    Arc::clone(places).acquire_owned().await.map_err(stopping)
}

/// Unpacks a body. What it unpacks to is never more than `limit` in memory, however small it was packed.
pub(super) fn unpack(packed: &[u8], coding: Coding, limit: ByteSize) -> Result<Cow<'_, [u8]>, Problem> {
    let (name, mut reader): (_, Box<dyn Read + '_>) = match coding {
        Coding::Identity => return Ok(Cow::Borrowed(packed)),
        Coding::Gzip => ("gzip", Box::new(flate2::bufread::MultiGzDecoder::new(packed))),
        Coding::Zstd => {
            let wrong = |error: std::io::Error| Problem::Internal(format!("zstd cannot start: {error}"));
            let mut decoder = zstd::stream::read::Decoder::with_buffer(packed).map_err(wrong)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG).map_err(wrong)?;
            ("zstd", Box::new(decoder))
        }
    };
    let mut unpacked = Vec::new();
    let most = limit.as_u64();
    match reader.by_ref().take(most.saturating_add(1)).read_to_end(&mut unpacked) {
        Ok(_) if unpacked.len() as u64 > most => Err(too_large(limit)),
        Ok(_) => Ok(Cow::Owned(unpacked)),
        Err(error) => Err(Problem::BadRequest(format!("the body is not whole {name}: {error}"))),
    }
}

fn too_large(limit: ByteSize) -> Problem {
    Problem::TooLarge(format!("the body is larger than server.max_body={limit}; send it in parts"))
}
