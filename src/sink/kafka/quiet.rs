//! A client that keeps what librdkafka says while it reaches no broker: that is the same several times a second, and whoever asks tells of it once.

use parking_lot::Mutex;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::KafkaError;

/// The context of such a client.
#[derive(Debug, Default)]
pub(crate) struct Quiet {
    last: Mutex<Option<String>>,
}

impl Quiet {
    /// `what`, and why, as far as librdkafka has said.
    pub(crate) fn explain(&self, what: impl std::fmt::Display) -> String {
        self.last.lock().as_ref().map_or_else(|| what.to_string(), |why| format!("{what}: {why}"))
    }
}

impl ClientContext for Quiet {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        use RDKafkaLogLevel::{Alert, Critical, Debug, Emerg, Error, Info, Notice, Warning};
        match level {
            Emerg | Alert | Critical => tracing::error!(facility, "{message}"),
            // `[thrd:<broker>]: <broker>: <why>`.
            Error => *self.last.lock() = Some(message.split_once("]: ").map_or(message, |(_, why)| why).to_owned()),
            Warning | Notice | Info | Debug => {}
        }
        tracing::debug!(facility, "{message}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "kafka");
    }
}

impl ConsumerContext for Quiet {}
