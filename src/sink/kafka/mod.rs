//! `mode = "kafka"`: records become messages, and are owned when all replicas in sync have them.
//!
//! A record that has failed may still have been written: its replay has the same key, writer and seq, lands in the same partition, and whoever
//! stores the topic keeps one of the two. Within a process nothing that was acknowledged is sent again.

pub mod settings;
pub(crate) mod topic;

#[cfg(feature = "kafka")]
mod client;
#[cfg(feature = "kafka")]
mod dead_letter;
#[cfg(feature = "kafka")]
mod messages;
#[cfg(feature = "kafka")]
mod packing;
#[cfg(feature = "kafka")]
mod prober;
#[cfg(feature = "kafka")]
mod produce;
#[cfg(feature = "kafka")]
mod reports;
#[cfg(feature = "kafka")]
mod sink;

#[cfg(feature = "kafka")]
pub(crate) use client::conflicts;
#[cfg(feature = "kafka")]
pub use sink::KafkaSink;
#[cfg(feature = "cli")]
pub(crate) use sink::check;

use settings::{KafkaSettings, Key, Packing};

/// A problem of the settings: a key, its value, and what was expected.
pub(crate) struct Problem {
    pub(crate) key: &'static str,
    pub(crate) value: String,
    pub(crate) expected: String,
}

/// What is wrong with the settings, each key by itself or with another.
pub(crate) fn problems(settings: &KafkaSettings) -> Vec<Problem> {
    let mut problems = settings.tls.problems();
    problems.extend(settings.sasl.problems(&settings.properties));
    let mut wrong = |key, value: String, expected: String| problems.push(Problem { key, value, expected });
    if let Err(expected) = topic::TopicTemplate::parse(&settings.topic) {
        wrong("kafka.topic", format!("{:?}", settings.topic), expected);
    }
    if settings.brokers.split(',').any(|broker| broker.trim().is_empty()) {
        wrong("kafka.brokers", format!("{:?}", settings.brokers), "host:port, several with commas between them".to_owned());
    }
    if settings.packing == Packing::Ndjson && settings.key == Key::Id {
        let expected = "kafka.key = \"none\" or \"model_name\": a message of many records has no one id".to_owned();
        wrong("kafka.packing", "\"ndjson\" with kafka.key=\"id\"".to_owned(), expected);
    }
    let share = settings.fallback.replay_share;
    if !(0.01..=0.99).contains(&share) {
        wrong("kafka.fallback.replay_share", share.to_string(), "0.01 to 0.99".to_owned());
    }
    if settings.fallback.dir.as_os_str().is_empty() {
        wrong("kafka.fallback.dir", "\"\"".to_owned(), "a directory".to_owned());
    }
    problems
}
