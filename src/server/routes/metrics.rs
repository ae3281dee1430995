//! `GET /metrics`: the counters in Prometheus' text format (OpenMetrics 1.0).

use crate::server::State;
use crate::server::error::Problem;
use axum::extract;
use axum::http::header::{CONTENT_TYPE, HeaderName};

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

pub(crate) async fn get(
    extract::State(state): extract::State<State>,
) -> Result<([(HeaderName, &'static str); 1], String), Problem> {
    // Brings the counters up to date.
    state.logger.snapshot();
    state.logger.sinks().filter_map(|name| state.logger.sink(name)).for_each(|sink| {
        sink.snapshot();
    });
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &state.registry)
        .map_err(|error| Problem::Internal(format!("metrics cannot be written: {error}")))?;
    Ok(([(CONTENT_TYPE, OPEN_METRICS)], text))
}
