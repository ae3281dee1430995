//! `predlog serve` as a library: predictions over HTTP.
//!
//! [`router`] is the whole service and can be called without a socket; [`serve`] puts it on a listener. The socket, the settings and the
//! stop signal are arguments: only the command line makes them.

mod answer;
mod body;
mod error;
mod idempotency;
mod ingest;
mod listen;
mod routes;
mod row;
mod rows;
mod values;

#[cfg(all(feature = "cli", feature = "connect"))]
pub(crate) use listen::answer;
pub use listen::serve;

use crate::Logger;
use crate::config::ServerSettings;
use crate::stats::SinkStats;
use axum::Router;
use axum::routing::{get, post};
use idempotency::Idempotency;
use prometheus_client::registry::Registry;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::Semaphore;
use tower_http::trace::TraceLayer;

/// What all requests share.
#[derive(Clone, Debug)]
pub struct State {
    pub(crate) logger: Logger,
    settings: Arc<ServerSettings>,
    registry: Arc<Registry>,
    idempotency: Arc<Idempotency>,
    requests: Arc<Semaphore>,
    started: Instant,
}

impl State {
    /// A service that logs with `logger`.
    pub fn new(logger: Logger, settings: ServerSettings) -> Self {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(logger.stats()));
        let sinks = logger.sinks().filter_map(|name| Some((name.to_owned(), logger.sink(name)?.stats()))).collect();
        registry.register_collector(Box::new(SinkStats(sinks)));
        State {
            logger,
            registry: Arc::new(registry),
            idempotency: Arc::new(Idempotency::new(settings.idempotency_window, settings.idempotency_keys)),
            requests: Arc::new(Semaphore::new(settings.max_requests)),
            settings: Arc::new(settings),
            started: Instant::now(),
        }
    }
}

/// All endpoints: `POST /v1/predictions`, `GET /v1/status`, `/healthz`, `/readyz` and `/metrics`.
pub fn router(state: State) -> Router {
    Router::new()
        .route("/v1/predictions", post(routes::predictions::post))
        .route("/v1/status", get(routes::status::get))
        .route("/healthz", get(routes::healthz::get))
        .route("/readyz", get(routes::readyz::get))
        .route("/metrics", get(routes::metrics::get))
        .fallback(error::not_found)
        .method_not_allowed_fallback(error::method_not_allowed)
        .layer(TraceLayer::new_for_http())
        .with_state(state)
}
