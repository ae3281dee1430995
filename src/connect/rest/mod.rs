//! Kafka Connect's REST API, as a distributed worker of version 4.3.1 answers it.
//!
//! ```text
//! request -> endpoint -> Herder: checks (Validate), keeps (Store), begins and ends (Tasks) -> answer
//! ```
//!
//! Paths, statuses and error bodies (`{"error_code": 404, "message": "…"}`) are Connect's. Where Connect answers a request that cannot be
//! read with 500 and its parser's text, this answers 400 and says what was expected.
//!
//! As in Connect, whoever reads a connector reads its whole configuration, with any credentials in it: the API has no authentication, so it
//! belongs on the loopback address or behind a proxy that has some.

mod body;
mod configs;
mod connectors;
mod control;
mod error;
mod herder;
mod loggers;
mod offsets;
mod plugins;
mod root;
mod s3_sink;
mod status;
mod tasks;
mod topics;
mod validate;

pub use error::Problem;
pub use herder::Herder;
pub use loggers::{Level, Loggers};
pub use s3_sink::S3Sink;
pub use tasks::{PartitionOffset, Tasks};
pub use validate::{ConfigInfo, ConfigInfos, ConfigValue, Definition, Validate};

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use std::sync::Arc;
use tower_http::trace::TraceLayer;

/// A connector's configuration is some kilobytes.
const MAX_BODY: usize = 1 << 20;

/// The version of Connect whose API this is. Clients look at it to know which endpoints there are.
pub const API_VERSION: &str = "4.3.1";
/// This program's version: that of its connector.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What all requests share.
#[derive(Clone)]
pub struct State {
    herder: Arc<Herder>,
    loggers: Arc<Loggers>,
    /// `host:port`, where others reach this worker.
    worker_id: Arc<str>,
}

impl State {
    /// `worker_id` is the `host:port` that status answers name.
    pub fn new(herder: Arc<Herder>, loggers: Loggers, worker_id: &str) -> State {
        State { herder, loggers: Arc::new(loggers), worker_id: worker_id.into() }
    }

    /// Runs on a thread that may wait: for the disk, for tasks to end, for brokers.
    ///
    /// # Errors
    /// Those of `call`.
    async fn blocking<T: Send + 'static>(
        &self,
        call: impl FnOnce(&Herder) -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        let herder = self.herder.clone();
        let done = tokio::task::spawn_blocking(move || call(&herder)).await;
        done.unwrap_or_else(|error| Err(Problem::internal(format!("the request failed: {error}"))))
    }
}

/// The whole API.
pub fn router(state: State) -> Router {
    let api = Router::new()
        .route("/", get(root::version))
        .route("/health", get(root::health))
        .route("/connectors", get(connectors::list).post(connectors::create).options(connectors::options))
        .route("/connectors/{name}", get(connectors::read).delete(connectors::delete))
        .route("/connectors/{name}/config", get(configs::read).put(configs::put).patch(configs::patch))
        .route("/connectors/{name}/status", get(status::connector))
        .route("/connectors/{name}/tasks", get(status::tasks))
        .route("/connectors/{name}/tasks/{task}/status", get(status::task))
        .route("/connectors/{name}/tasks/{task}/restart", post(control::restart_task))
        .route("/connectors/{name}/pause", put(control::pause))
        .route("/connectors/{name}/resume", put(control::resume))
        .route("/connectors/{name}/stop", put(control::stop))
        .route("/connectors/{name}/restart", post(control::restart))
        .route("/connectors/{name}/topics", get(topics::read))
        .route("/connectors/{name}/topics/reset", put(topics::reset))
        .route("/connectors/{name}/offsets", get(offsets::read).patch(offsets::alter).delete(offsets::reset))
        .route("/connector-plugins", get(plugins::list))
        .route("/connector-plugins/{class}/config", get(plugins::definitions))
        .route("/connector-plugins/{class}/config/validate", put(plugins::validate))
        .route("/admin/loggers", get(loggers::list))
        .route("/admin/loggers/{name}", get(loggers::read).put(loggers::set))
        .fallback(error::not_found)
        .method_not_allowed_fallback(error::method_not_allowed)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(TraceLayer::new_for_http())
        .with_state(state);
    // The path is changed before it is routed: a layer of the router itself would come after.
    Router::new().fallback_service(api).layer(from_fn(normalize))
}

/// A slash at the end is nothing, and one inside a name cannot be told from one between names.
async fn normalize(mut request: Request, next: Next) -> Response {
    let path = request.uri().path();
    if path.to_ascii_lowercase().contains("%2f") {
        return Problem::bad_request("Ambiguous URI path separator").into_response();
    }
    let trimmed = path.trim_end_matches('/');
    if trimmed.len() < path.len() && !trimmed.is_empty() {
        let query = request.uri().query().map_or_else(String::new, |query| format!("?{query}"));
        match format!("{trimmed}{query}").parse() {
            Ok(uri) => *request.uri_mut() = uri,
            Err(error) => return Problem::bad_request(format!("path={path} is not a path: {error}")).into_response(),
        }
    }
    next.run(request).await
}
