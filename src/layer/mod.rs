//! A tower layer that logs what chosen routes of a model server were asked and answered.
//!
//! The JSON body of the request becomes `inputs`, that of the response `outputs`; status, latency, errors, the `X-Request-Id` (as the
//! prediction's id) and the `traceparent` go with them. Bodies pass through as they are, chunk by chunk and without a limit: what passes is
//! copied, up to [`max_captured_bytes`](PredictionLayer::max_captured_bytes). A record is made when the response's body has ended, or was dropped.
//!
//! A body that is not kept leaves `{"omitted":"<why>","bytes":<how many passed>}` in its place. Why is one of `not_json` (its `Content-Type`
//! is neither `application/json` nor `…+json`), `encoded` (it has a `Content-Encoding`), `too_large`, `incomplete` (it was not read, or not
//! sent, to its end), `invalid_json`, or `empty`.
//!
//! ```
//! # fn main() -> Result<(), predlog::Error> {
//! use axum::{Router, routing::post};
//! use predlog::layer::PredictionLayer;
//! # use predlog::{Durability, Logger, LoggerSettings, sink::memory::MemorySink};
//! # let settings = LoggerSettings { durability: Durability::Memory, ..LoggerSettings::default() };
//! # let (logger, guard) = Logger::builder(settings).sink(Box::new(MemorySink::new())).open()?;
//! let layer = PredictionLayer::new(logger, "wine").version("3").routes(["/predict"]);
//! let app: Router = Router::new().route("/predict", post(|| async { "{\"quality\":5.2}" })).layer(layer);
//! # Ok(())
//! # }
//! ```

mod body;
mod capture;
mod record;
mod service;

pub use body::{LoggedBody, ObservedBody};
pub use service::{PredictionService, ResponseFuture};

use crate::Logger;
use bytesize::ByteSize;
use http::request::Parts;
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

/// Logs the requests and responses of chosen routes; see the [module](self).
#[derive(Clone)]
pub struct PredictionLayer {
    pub(super) config: Arc<LayerConfig>,
}

#[derive(Clone)]
pub(super) struct LayerConfig {
    pub(super) logger: Logger,
    pub(super) model_name: String,
    pub(super) model_version: String,
    pub(super) max_captured_bytes: usize,
    chosen: Arc<dyn Fn(&Parts) -> bool + Send + Sync>,
}

impl LayerConfig {
    pub(super) fn chooses(&self, parts: &Parts) -> bool {
        (self.chosen)(parts)
    }
}

impl fmt::Debug for PredictionLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PredictionLayer")
            .field("model_name", &self.config.model_name)
            .field("model_version", &self.config.model_version)
            .field("max_captured_bytes", &self.config.max_captured_bytes)
            .finish_non_exhaustive()
    }
}

impl PredictionLayer {
    /// Logs every request as a prediction of `model_name` (1 to 256 bytes).
    pub fn new(logger: Logger, model_name: impl Into<String>) -> Self {
        PredictionLayer {
            config: Arc::new(LayerConfig {
                logger,
                model_name: model_name.into(),
                model_version: String::new(),
                max_captured_bytes: 256 * 1024,
                chosen: Arc::new(|_| true),
            }),
        }
    }

    fn with(mut self, change: impl FnOnce(&mut LayerConfig)) -> Self {
        change(Arc::make_mut(&mut self.config));
        self
    }

    /// The model's version.
    #[must_use]
    pub fn version(self, model_version: impl Into<String>) -> Self {
        self.with(|config| config.model_version = model_version.into())
    }

    /// Only these paths, exactly; the others pass by. Replaces an earlier choice.
    #[must_use]
    pub fn routes<P: Into<String>>(self, paths: impl IntoIterator<Item = P>) -> Self {
        let paths: HashSet<String> = paths.into_iter().map(Into::into).collect();
        self.filter(move |parts| paths.contains(parts.uri.path()))
    }

    /// Only requests for which `chosen` answers true. Replaces an earlier choice.
    #[must_use]
    pub fn filter(self, chosen: impl Fn(&Parts) -> bool + Send + Sync + 'static) -> Self {
        self.with(|config| config.chosen = Arc::new(chosen))
    }

    /// How much of a body is copied, for each of the two. A larger one is not kept. Default: 256 KiB.
    #[must_use]
    pub fn max_captured_bytes(self, most: ByteSize) -> Self {
        self.with(|config| config.max_captured_bytes = usize::try_from(most.as_u64()).unwrap_or(usize::MAX))
    }
}

impl<S> tower_layer::Layer<S> for PredictionLayer {
    type Service = PredictionService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        PredictionService { inner, config: Arc::clone(&self.config) }
    }
}
