//! `GET /v1/status`: how the logger and each of `[[sinks]]` stand, as JSON: what `/metrics` counts, for people and scripts. It has no settings, and so no secrets.

use crate::Logger;
use crate::server::State;
use crate::stats::Snapshot;
use axum::{Json, extract};
use serde::Serialize;
use std::collections::BTreeMap;

/// The answer.
#[derive(Debug, Serialize)]
pub(crate) struct Status {
    version: &'static str,
    uptime_seconds: u64,
    #[serde(flatten)]
    logger: Standing,
    /// By name.
    sinks: BTreeMap<String, Standing>,
}

#[derive(Debug, Serialize)]
struct Standing {
    healthy: bool,
    /// Why records wait, if they do.
    problem: Option<String>,
    #[serde(flatten)]
    counts: Snapshot,
}

impl Standing {
    fn of(logger: &Logger) -> Self {
        let problem = logger.health().err();
        Standing { healthy: problem.is_none(), problem, counts: logger.snapshot() }
    }
}

pub(crate) async fn get(extract::State(state): extract::State<State>) -> Json<Status> {
    let sinks = state.logger.sinks().filter_map(|name| Some((name.to_owned(), Standing::of(&state.logger.sink(name)?))));
    Json(Status {
        version: env!("CARGO_PKG_VERSION"),
        uptime_seconds: state.started.elapsed().as_secs(),
        sinks: sinks.collect(),
        logger: Standing::of(&state.logger),
    })
}
