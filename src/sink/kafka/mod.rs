//! `mode = "kafka"`: records become messages, and are owned when all replicas in sync have them.
//!
//! A record that has failed may still have been written: its replay has the same key, writer and seq, lands in the same partition, and whoever
//! stores the topic keeps one of the two. Within a process nothing that was acknowledged is sent again.

pub mod registry;
pub mod settings;

#[cfg(feature = "kafka")]
mod client;
#[cfg(all(feature = "kafka", feature = "parquet"))]
mod encoded;
#[cfg(feature = "kafka")]
mod headers;
#[cfg(feature = "kafka")]
mod messages;
#[cfg(feature = "kafka")]
mod prober;
#[cfg(feature = "kafka")]
mod produce;
#[cfg(any(feature = "cli", feature = "archive"))]
mod quiet;
#[cfg(feature = "kafka")]
mod reports;
#[cfg(feature = "kafka")]
mod sink;

#[cfg(feature = "kafka")]
pub(crate) use client::conflicts;
#[cfg(any(feature = "cli", feature = "archive"))]
pub(crate) use quiet::Quiet;
#[cfg(feature = "kafka")]
pub use sink::KafkaSink;
#[cfg(any(feature = "cli", feature = "archive"))]
pub(crate) use sink::{Topics, topics};
#[cfg(feature = "cli")]
pub(crate) use sink::{check, check_registry, reach};

use super::broker::Problem;
use super::broker::settings::{HIDDEN, Packing};
use super::broker::topic::{KAFKA, TopicTemplate};
use settings::{Format, KafkaSettings, Key};

/// What is wrong with the settings, each key by itself or with another.
pub(crate) fn problems(settings: &KafkaSettings) -> Vec<Problem> {
    let mut problems = settings.tls.problems();
    problems.extend(settings.sasl.problems(&settings.properties));
    problems.extend(settings.fallback.problems("kafka"));
    problems.extend(format_problems(settings));
    let mut wrong = |key: &str, value: String, expected: String| problems.push(Problem { key: key.to_owned(), value, expected });
    if let Err(expected) = TopicTemplate::parse(&settings.topic, &KAFKA) {
        wrong("kafka.topic", format!("{:?}", settings.topic), expected);
    }
    let is_broker = |broker: &str| {
        let (host, port) = broker.rsplit_once(':').filter(|(_, port)| !port.ends_with(']')).unwrap_or((broker, "9092"));
        !host.is_empty() && port.parse::<u16>().is_ok() && !host.contains(['/', '@', ' '])
    };
    if !settings.brokers.split(',').all(|broker| is_broker(broker.trim())) {
        // A URL with a password is what people put here by mistake.
        let shown = if settings.brokers.contains('@') { HIDDEN } else { &settings.brokers };
        wrong("kafka.brokers", format!("{shown:?}"), "host:port, several with commas between them".to_owned());
    }
    if settings.packing == Packing::Ndjson && settings.key == Key::Id {
        let expected = "kafka.key = \"none\" or \"model_name\": a message of many records has no one id".to_owned();
        wrong("kafka.packing", "\"ndjson\" with kafka.key=\"id\"".to_owned(), expected);
    }
    problems
}

/// What is wrong with the format, by itself or with other keys.
fn format_problems(settings: &KafkaSettings) -> Vec<Problem> {
    let (name, feature, built) = match settings.format {
        Format::Json => return Vec::new(),
        Format::ConnectJson => ("connect-json", "parquet", cfg!(feature = "parquet")),
        Format::Avro => ("avro", "avro", cfg!(feature = "avro")),
    };
    let mut problems = Vec::new();
    let mut wrong = |key: &str, value: String, expected: String| problems.push(Problem { key: key.to_owned(), value, expected });
    if !built {
        let expected = format!("\"json\": this build was made without the feature `{feature}`");
        wrong("kafka.format", format!("\"{name}\""), expected);
    }
    if settings.packing == Packing::Ndjson {
        let expected = format!("kafka.packing = \"none\": a message of kafka.format=\"{name}\" is one record");
        wrong("kafka.packing", "\"ndjson\"".to_owned(), expected);
    }
    if settings.format == Format::Avro {
        problems.extend(settings.registry.problems(!settings.topic.contains("{model_name}")));
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brokers_are_hosts_and_ports() {
        let wrong = |brokers: &str| {
            let settings = KafkaSettings { brokers: brokers.to_owned(), ..KafkaSettings::default() };
            problems(&settings).iter().any(|problem| problem.key == "kafka.brokers")
        };
        for good in ["localhost:9092", "a", "a:1, b:2", "[::1]:9092", "[::1]", "10.0.0.1:9092"] {
            assert!(!wrong(good), "{good}");
        }
        for bad in ["", "a,", "http://a:9092", "a:port", "a:70000", "user@a:1", "a b:1", ":9092"] {
            assert!(wrong(bad), "{bad}");
        }
        let settings = KafkaSettings { brokers: "user:hunter2@a:1".to_owned(), ..KafkaSettings::default() };
        assert!(problems(&settings).iter().all(|problem| !problem.value.contains("hunter2")));
    }
}
