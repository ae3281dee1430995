//! `mode = "nats"`: records become messages of a JetStream stream, and are owned when the stream has acknowledged them.
//!
//! A record that has failed may still have been stored. Two things keep it from counting twice. Its replay has the same `Nats-Msg-Id`, and within
//! its `duplicate_window` the stream drops the copy. A replay that comes later, or whose message was cut elsewhere (`packing = "ndjson"` at the end
//! of a batch), is stored again with the same writer and seq in each line, and whoever stores the stream keeps one of the two.

pub mod settings;

#[cfg(feature = "nats")]
mod auth;
#[cfg(feature = "nats")]
mod connect;
#[cfg(feature = "nats")]
mod messages;
#[cfg(feature = "nats")]
mod publish;
#[cfg(feature = "cli")]
mod reader;
#[cfg(feature = "nats")]
mod sink;
#[cfg(feature = "nats")]
mod stream;

#[cfg(feature = "cli")]
pub(crate) use connect::check;
#[cfg(feature = "cli")]
pub(crate) use reader::Reader;
#[cfg(feature = "nats")]
pub use sink::NatsSink;

use super::broker::Problem;
use super::broker::topic::{NATS, TopicTemplate};
use settings::NatsSettings;

/// What is wrong with the settings, each key by itself or with another.
pub(crate) fn problems(settings: &NatsSettings) -> Vec<Problem> {
    let mut problems = settings.servers.problems();
    problems.extend(settings.tls.problems());
    problems.extend(settings.auth.problems());
    problems.extend(settings.fallback.problems("nats"));
    let mut wrong = |key: &str, value: &str, expected: String| {
        problems.push(Problem { key: format!("nats.{key}"), value: format!("{value:?}"), expected });
    };
    if let Err(expected) = TopicTemplate::parse(&settings.subject, &NATS) {
        wrong("subject", &settings.subject, expected);
    }
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if settings.stream.is_empty() || settings.stream.len() > 255 || !settings.stream.chars().all(is_name) {
        wrong("stream", &settings.stream, "1 to 255 letters, digits, '-' and '_'".to_owned());
    }
    problems
}
