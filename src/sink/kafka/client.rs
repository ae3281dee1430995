//! librdkafka's configuration: what predlog's promises need, what `[kafka]` says, and the properties that are passed through.

use super::settings::{Compression, KafkaSettings, Key, Properties};
use crate::sink::broker::settings::{HIDDEN, secret};
use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;
use std::fs::File;
use std::path::Path;

/// Names that librdkafka knows under two.
const ALIASES: [(&str, &str); 8] = [
    ("max.in.flight", "max.in.flight.requests.per.connection"),
    ("retries", "message.send.max.retries"),
    ("metadata.broker.list", "bootstrap.servers"),
    ("request.required.acks", "acks"),
    ("compression.codec", "compression.type"),
    ("queue.buffering.max.ms", "linger.ms"),
    ("delivery.timeout.ms", "message.timeout.ms"),
    ("sasl.mechanisms", "sasl.mechanism"),
];
/// librdkafka's own queue is bounded by the lanes, which hold what is in it: these are only to be never in the way.
const QUEUE_MESSAGES: &str = "10000000";
const QUEUE_KBYTES: &str = "2097151";
/// librdkafka's own `batch.size`.
const BATCH_BYTES: usize = 1_000_000;

/// A property that `[kafka]` sets, with the key that says so.
struct Ours {
    property: &'static str,
    value: String,
    key: &'static str,
}

/// Everything that `[kafka]` decides but for secrets, which are compared by nobody.
fn ours(settings: &KafkaSettings) -> Vec<Ours> {
    let mut ours = Vec::new();
    let mut set = |property, value: String, key| ours.push(Ours { property, value, key });
    set("bootstrap.servers", settings.brokers.clone(), "kafka.brokers");
    // A record counts as delivered when all replicas in sync have it, and a retry does not write it twice.
    set("acks", "all".to_owned(), "predlog's promises");
    set("enable.idempotence", "true".to_owned(), "predlog's promises");
    set("allow.auto.create.topics", "false".to_owned(), "kafka.create_topics");
    set("compression.type", compression(settings.compression).to_owned(), "kafka.compression");
    set("linger.ms", millis(settings.linger / 2), "kafka.linger");
    set("message.timeout.ms", millis(settings.deadline), "kafka.deadline");
    set("message.max.bytes", settings.max_message_bytes.as_u64().to_string(), "kafka.max_message_bytes");
    set("queue.buffering.max.messages", QUEUE_MESSAGES.to_owned(), "logger.queue_bytes");
    set("queue.buffering.max.kbytes", QUEUE_KBYTES.to_owned(), "logger.queue_bytes");
    let tls = settings.tls.enabled;
    match (tls, settings.sasl.mechanism) {
        (false, None) => {}
        (true, None) => set("security.protocol", "ssl".to_owned(), "kafka.tls.enabled"),
        (false, Some(_)) => set("security.protocol", "sasl_plaintext".to_owned(), "kafka.sasl.mechanism"),
        (true, Some(_)) => set("security.protocol", "sasl_ssl".to_owned(), "kafka.tls.enabled and kafka.sasl.mechanism"),
    }
    if let Some(mechanism) = settings.sasl.mechanism {
        set("sasl.mechanism", mechanism.name().to_owned(), "kafka.sasl.mechanism");
    }
    if let Some(username) = &settings.sasl.username {
        set("sasl.username", username.clone(), "kafka.sasl.username");
    }
    for (property, path, key) in files(settings) {
        set(property, path.display().to_string(), key);
    }
    ours
}

/// The files of `[kafka.tls]`: librdkafka's property, the path, our key.
fn files(settings: &KafkaSettings) -> impl Iterator<Item = (&'static str, &Path, &'static str)> {
    let tls = &settings.tls;
    [
        ("ssl.ca.location", &tls.ca_file, "kafka.tls.ca_file"),
        ("ssl.certificate.location", &tls.cert_file, "kafka.tls.cert_file"),
        ("ssl.key.location", &tls.key_file, "kafka.tls.key_file"),
    ]
    .into_iter()
    .filter_map(|(property, path, key)| Some((property, path.as_deref()?, key)))
}

/// What is wrong with `[kafka.properties]`: names and values that librdkafka does not take, and what is against the rest, both values named.
pub(crate) fn conflicts(settings: &KafkaSettings) -> Vec<String> {
    let ours = ours(settings);
    let mut conflicts = Vec::new();
    for (name, value) in &settings.properties.0 {
        if let Err(KafkaError::ClientConfig(_, why, ..)) = ClientConfig::new().set(name, value).create_native_config() {
            // Of a name that is none nobody knows whether it was to be a secret's.
            let shown = if why.starts_with("Invalid value") { Properties::shown(name, value) } else { HIDDEN };
            conflicts.push(format!("kafka.properties.\"{name}\"={shown:?}: librdkafka says: {why}"));
            continue;
        }
        let known = ALIASES.iter().find(|(alias, _)| alias == name).map_or(&**name, |(_, known)| *known);
        let found = ours.iter().find(|ours| ours.property == known && !same(&ours.value, value));
        if let Some(ours) = found {
            let (shown, key) = (Properties::shown(name, value), ours.key);
            conflicts.push(format!(
                "kafka.properties.\"{name}\"={shown:?} conflicts with {key}, which makes it {:?}: remove the property{}",
                ours.value,
                if key.starts_with("kafka.") { format!(", or set {key} instead") } else { String::new() },
            ));
        }
        if let Some(expected) = against_promises(known, value) {
            let shown = Properties::shown(name, value);
            conflicts
                .push(format!("kafka.properties.\"{name}\"={shown:?} conflicts with predlog's promises: expected {expected}"));
        }
        let secret = match known {
            "sasl.password" if settings.sasl.password.is_some() || settings.sasl.password_file.is_some() => "kafka.sasl.password",
            "ssl.key.password" if settings.tls.key_password.is_some() || settings.tls.key_password_file.is_some() => {
                "kafka.tls.key_password"
            }
            _ => continue,
        };
        conflicts
            .push(format!("kafka.properties.\"{name}\"=<hidden> conflicts with {secret}, which is set too: remove one of them"));
    }
    conflicts
}

/// What is expected of a property that predlog leaves to its users, where `value` would break what it promises.
fn against_promises(property: &str, value: &str) -> Option<&'static str> {
    let number = value.parse::<u64>().ok();
    match property {
        // Records are freed by their reports.
        "delivery.report.only.error" if value.eq_ignore_ascii_case("true") => Some("false"),
        "transactional.id" if !value.is_empty() => {
            Some("none: predlog writes without transactions, and an archiver leaves out duplicates")
        }
        // What an idempotent producer needs.
        "max.in.flight.requests.per.connection" if number > Some(5) => Some("1 to 5"),
        "message.send.max.retries" if number == Some(0) => Some("1 or more"),
        "queuing.strategy" if value.eq_ignore_ascii_case("lifo") => Some("fifo"),
        _ => None,
    }
}

/// `-1` and `all` are one to librdkafka.
fn same(left: &str, right: &str) -> bool {
    let plain = |text: &str| if text == "-1" { "all".to_owned() } else { text.to_ascii_lowercase() };
    plain(left) == plain(right)
}

/// # Errors
/// A file that cannot be read, by key and path.
pub(super) fn config(settings: &KafkaSettings) -> Result<ClientConfig, String> {
    for (_, path, key) in files(settings) {
        // librdkafka says only that it failed.
        File::open(path).map_err(|error| format!("cannot read {key}={}: {error}", path.display()))?;
    }
    let mut config = ClientConfig::new();
    config.set("client.id", "predlog");
    // What Java's producers do, so that a key is in the same partition whoever writes it.
    if settings.key == Key::None {
        // Else librdkafka chooses the partition of messages without a key, and a replay's may be another.
        config.set("sticky.partitioning.linger.ms", "0");
    } else {
        config.set("partitioner", "murmur2_random");
    }
    config.set("socket.keepalive.enable", "true");
    // A new connection in a second, not in ten: the records wait on disk meanwhile.
    config.set("reconnect.backoff.max.ms", "1000");
    for (name, value) in &settings.properties.0 {
        config.set(name, value);
    }
    for Ours { property, value, .. } in ours(settings) {
        config.set(property, value);
    }
    let (sasl, tls) = (&settings.sasl, &settings.tls);
    if let Some(password) = secret("kafka.sasl.password_file", sasl.password.as_ref(), sasl.password_file.as_deref())? {
        config.set("sasl.password", password.reveal());
    }
    let key_password = secret("kafka.tls.key_password_file", tls.key_password.as_ref(), tls.key_password_file.as_deref())?;
    if let Some(password) = key_password {
        config.set("ssl.key.password", password.reveal());
    }
    Ok(config)
}

/// The bytes of a batch of messages, at most, unless one message has more.
pub(super) fn batch_bytes(settings: &KafkaSettings) -> usize {
    let given = settings.properties.0.get("batch.size").and_then(|bytes| bytes.parse().ok());
    given.unwrap_or(BATCH_BYTES)
}

/// What a consumer of the same brokers needs: how to reach them, and as whom; and the properties that are passed through, but for those of producers.
///
/// # Errors
/// As [`config`].
#[cfg(any(feature = "cli", feature = "archive"))]
pub(super) fn connection(settings: &KafkaSettings) -> Result<ClientConfig, String> {
    const PARTS: [&str; 7] = ["bootstrap.", "security.", "ssl.", "sasl.", "enable.ssl.", "socket.", "client."];
    const PRODUCERS: [&str; 19] = [
        "acks",
        "batch.",
        "compression.",
        "delivery.",
        "dr_",
        "enable.gapless.guarantee",
        "enable.idempotence",
        "linger.",
        "message.send.",
        "message.timeout.",
        "msg_order_cmp",
        "partitioner",
        "produce.",
        "queue.buffering.",
        "queuing.strategy",
        "request.",
        "retries",
        "sticky.",
        "transaction",
    ];
    let whole = config(settings)?;
    let mut connection = ClientConfig::new();
    let begins = |name: &str, parts: &[&str]| parts.iter().any(|part| name.starts_with(part));
    for (name, value) in whole.config_map() {
        let passed_through = settings.properties.0.contains_key(name) && !begins(name, &PRODUCERS);
        if passed_through || begins(name, &PARTS) {
            connection.set(name, value);
        }
    }
    Ok(connection)
}

fn compression(compression: Compression) -> &'static str {
    match compression {
        Compression::None => "none",
        Compression::Lz4 => "lz4",
        Compression::Zstd => "zstd",
        Compression::Snappy => "snappy",
        Compression::Gzip => "gzip",
    }
}

fn millis(duration: std::time::Duration) -> String {
    duration.as_millis().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(any(feature = "cli", feature = "archive"))]
    #[test]
    fn a_consumer_gets_the_properties_that_are_no_producers() {
        let mut settings = KafkaSettings::default();
        for (name, value) in
            [("session.timeout.ms", "6000"), ("batch.size", "1000"), ("fetch.min.bytes", "9"), ("client.rack", "a")]
        {
            settings.properties.0.insert(name.to_owned(), value.to_owned());
        }
        let client = connection(&settings).unwrap();
        let given = |name: &str| client.get(name);
        assert_eq!(
            (given("session.timeout.ms"), given("fetch.min.bytes"), given("client.rack")),
            (Some("6000"), Some("9"), Some("a"))
        );
        assert_eq!((given("batch.size"), given("acks"), given("linger.ms"), given("partitioner")), (None, None, None, None));
    }

    #[test]
    fn a_property_against_ours_is_named_with_both_values() {
        let mut settings = KafkaSettings::default();
        let properties =
            [("acks", "1"), ("queue.buffering.max.ms", "900"), ("batch.size", "65536"), ("request.required.acks", "-1")];
        settings.properties.0.extend(properties.map(|(name, value)| (name.to_owned(), value.to_owned())));
        let conflicts = conflicts(&settings);
        assert_eq!(conflicts.len(), 2, "{conflicts:?}");
        assert!(conflicts[0].contains("\"acks\"=\"1\"") && conflicts[0].contains("\"all\""), "{conflicts:?}");
        assert!(conflicts[1].contains("kafka.linger") && conflicts[1].contains("\"25\""), "{conflicts:?}");
        assert_eq!(config(&settings).unwrap().get("batch.size"), Some("65536"));
    }

    #[test]
    fn a_property_that_would_break_a_promise_is_named_with_what_is_expected() {
        let mut settings = KafkaSettings::default();
        let wrong = [
            ("delivery.report.only.error", "true"),
            ("max.in.flight", "10"),
            ("queuing.strategy", "lifo"),
            ("retries", "0"),
            ("transactional.id", "x"),
        ];
        settings.properties.0.extend(wrong.map(|(name, value)| (name.to_owned(), value.to_owned())));
        let found = conflicts(&settings);
        assert_eq!(found.len(), wrong.len(), "{found:?}");
        for (name, value) in wrong {
            let start = format!("kafka.properties.\"{name}\"={value:?} conflicts with predlog's promises: expected ");
            assert!(found.iter().any(|conflict| conflict.starts_with(&start)), "{name}: {found:?}");
        }
        let right =
            [("max.in.flight", "5"), ("retries", "1"), ("delivery.report.only.error", "false"), ("queuing.strategy", "fifo")];
        settings.properties.0 = right.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        assert_eq!(super::conflicts(&settings), Vec::<String>::new());
    }

    #[test]
    fn what_librdkafka_does_not_take_is_named_and_a_value_that_may_be_a_secret_is_not() {
        let mut settings = KafkaSettings::default();
        let properties = [("batch.size", "many"), ("sasl.pasword", "hunter2"), ("ssl.key.password", "hunter2"), ("retries", "3")];
        settings.properties.0.extend(properties.map(|(name, value)| (name.to_owned(), value.to_owned())));
        let found = conflicts(&settings);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].starts_with("kafka.properties.\"batch.size\"=\"many\": librdkafka says: Invalid value"), "{found:?}");
        assert!(found[1].starts_with("kafka.properties.\"sasl.pasword\"=\"<hidden>\": librdkafka says: No such"), "{found:?}");
        assert!(!format!("{found:?}").contains("hunter2"));
    }

    #[test]
    fn a_certificate_that_is_missing_is_named() {
        let mut settings = KafkaSettings::default();
        settings.tls.ca_file = Some("/nowhere/ca.pem".into());
        assert!(config(&settings).unwrap_err().starts_with("cannot read kafka.tls.ca_file=/nowhere/ca.pem: No such file"));
    }

    #[test]
    fn a_secret_file_that_is_missing_is_named() {
        let mut settings = KafkaSettings::default();
        settings.sasl.password_file = Some("/nowhere/password".into());
        assert!(config(&settings).unwrap_err().contains("kafka.sasl.password_file=/nowhere/password"));
    }
}
