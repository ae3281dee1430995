//! `[kafka]`.

pub use crate::sink::broker::settings::{FallbackSettings, Packing, Secret};

use super::registry::RegistrySettings;
use crate::sink::broker::Problem;
use crate::sink::broker::settings::HIDDEN;
use bytesize::ByteSize;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// Where and how predictions are streamed: `mode = "kafka"`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KafkaSettings {
    /// `host:port`, several with commas between them.
    pub brokers: String,
    /// The topic, or a template: `predictions-{model_name}` is a topic for each model.
    pub topic: String,
    /// What a message's key is.
    pub key: Key,
    /// How many records a message has.
    pub packing: Packing,
    /// How a record is written.
    pub format: Format,
    /// How batches of messages are compressed.
    pub compression: Compression,
    /// Headers on each message: `content-type`, `predlog-writer`, `predlog-seq`, and, where there is one, `predlog-schema-id`.
    pub headers: bool,
    /// About how long a record waits for others to go with it. Each wait costs a request for each partition.
    #[serde(with = "humantime_serde")]
    pub linger: Duration,
    /// A record that the brokers have not acknowledged for this long goes to the fallback, and later to Kafka again.
    #[serde(with = "humantime_serde")]
    pub deadline: Duration,
    /// The largest message that the brokers take: their `message.max.bytes`.
    pub max_message_bytes: ByteSize,
    /// Creates topics that are missing.
    pub create_topics: bool,
    /// Partitions of a topic that is created.
    pub partitions: u32,
    /// Replicas of a topic that is created.
    pub replication: u16,
    /// The Schema Registry of `format = "avro"`.
    pub registry: RegistrySettings,
    /// Where records go while Kafka does not take them.
    pub fallback: FallbackSettings,
    /// Encryption.
    pub tls: TlsSettings,
    /// Authentication.
    pub sasl: SaslSettings,
    /// Properties of librdkafka, passed through as they are.
    pub properties: Properties,
}

impl Default for KafkaSettings {
    fn default() -> Self {
        KafkaSettings {
            brokers: "localhost:9092".to_owned(),
            topic: "predictions".to_owned(),
            key: Key::Id,
            packing: Packing::None,
            format: Format::Json,
            compression: Compression::Lz4,
            headers: true,
            linger: Duration::from_millis(50),
            deadline: Duration::from_secs(5),
            max_message_bytes: ByteSize::b(1_000_000),
            create_topics: false,
            partitions: 6,
            replication: 1,
            registry: RegistrySettings::default(),
            fallback: FallbackSettings::default(),
            tls: TlsSettings::default(),
            sasl: SaslSettings::default(),
            properties: Properties::default(),
        }
    }
}

/// What a message's key is: Kafka keeps messages of one key in one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Key {
    /// The prediction's id.
    Id,
    /// The model's name.
    ModelName,
    /// No key: runs of a writer's records are spread over the partitions.
    None,
}

/// How a record is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// The JSON of the record.
    Json,
    /// JSON with its schema, as Kafka Connect's JsonConverter reads it.
    ConnectJson,
    /// Avro, with its schema in a Schema Registry.
    Avro,
}

/// How batches of messages are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Compression {
    /// Not at all.
    None,
    /// The fastest.
    Lz4,
    /// The smallest.
    Zstd,
    /// For brokers before 2.1.
    Snappy,
    /// For the oldest consumers.
    Gzip,
}

/// Encryption: `[kafka.tls]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsSettings {
    /// Connects with TLS.
    pub enabled: bool,
    /// The certificates that the brokers' are checked against, PEM. Not set: the system's.
    pub ca_file: Option<PathBuf>,
    /// This client's certificate, PEM, for brokers that ask for one.
    pub cert_file: Option<PathBuf>,
    /// Its key, PEM.
    pub key_file: Option<PathBuf>,
    /// The key's password.
    pub key_password: Option<Secret>,
    /// A file with the key's password.
    pub key_password_file: Option<PathBuf>,
}

impl TlsSettings {
    pub(super) fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut wrong = |key: &str, value: &str, expected: &str| {
            problems.push(Problem { key: key.to_owned(), value: value.to_owned(), expected: expected.to_owned() });
        };
        if self.cert_file.is_some() && self.key_file.is_none() {
            wrong("kafka.tls.key_file", "not set", "the key of kafka.tls.cert_file");
        }
        if self.key_file.is_some() && self.cert_file.is_none() {
            wrong("kafka.tls.cert_file", "not set", "the certificate of kafka.tls.key_file");
        }
        if !self.enabled && (self.ca_file.is_some() || self.cert_file.is_some()) {
            wrong("kafka.tls.enabled", "false", "true, since kafka.tls names certificates");
        }
        problems
    }
}

/// Authentication: `[kafka.sasl]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SaslSettings {
    /// `PLAIN`, `SCRAM-SHA-256`, `SCRAM-SHA-512` or `OAUTHBEARER` (its details go into `[kafka.properties]`). Not set: no authentication.
    pub mechanism: Option<Mechanism>,
    /// The user.
    pub username: Option<String>,
    /// The password. Better in the environment (`PREDLOG_KAFKA__SASL__PASSWORD`) or in a file.
    pub password: Option<Secret>,
    /// A file with the password.
    pub password_file: Option<PathBuf>,
}

impl SaslSettings {
    pub(super) fn problems(&self, properties: &Properties) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut wrong = |key: &str, value: &str, expected: &str| {
            problems.push(Problem { key: key.to_owned(), value: value.to_owned(), expected: expected.to_owned() });
        };
        let needed = self.mechanism.is_some_and(|mechanism| mechanism != Mechanism::OauthBearer);
        let passed = |name| properties.0.contains_key(name);
        if needed && self.username.is_none() && !passed("sasl.username") {
            wrong("kafka.sasl.username", "not set", "the user of kafka.sasl.mechanism");
        }
        if needed && self.password.is_none() && self.password_file.is_none() && !passed("sasl.password") {
            let how = "a password, by kafka.sasl.password_file or the variable PREDLOG_KAFKA__SASL__PASSWORD";
            wrong("kafka.sasl.password", "not set", how);
        }
        if self.mechanism.is_none() && (self.username.is_some() || self.password.is_some() || self.password_file.is_some()) {
            wrong(
                "kafka.sasl.mechanism",
                "not set",
                "\"PLAIN\", \"SCRAM-SHA-256\" or \"SCRAM-SHA-512\", since kafka.sasl has a user or a password",
            );
        }
        problems
    }
}

/// A SASL mechanism.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mechanism {
    /// The password as it is: use it with TLS.
    #[serde(rename = "PLAIN")]
    Plain,
    /// RFC 7677.
    #[serde(rename = "SCRAM-SHA-256")]
    ScramSha256,
    /// RFC 7677, with SHA-512.
    #[serde(rename = "SCRAM-SHA-512")]
    ScramSha512,
    /// RFC 7628.
    #[serde(rename = "OAUTHBEARER")]
    OauthBearer,
}

impl Mechanism {
    /// The name that brokers know.
    pub fn name(self) -> &'static str {
        match self {
            Mechanism::Plain => "PLAIN",
            Mechanism::ScramSha256 => "SCRAM-SHA-256",
            Mechanism::ScramSha512 => "SCRAM-SHA-512",
            Mechanism::OauthBearer => "OAUTHBEARER",
        }
    }
}

/// Properties of librdkafka by name. Values that may be secrets are never shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Properties(pub BTreeMap<String, String>);

impl Properties {
    /// Whether the property's value must not be shown. (The public certificate of a pair that holds a private key is hidden as well.)
    pub fn is_secret(name: &str) -> bool {
        const OPEN: [&str; 4] = [
            "ssl.key.location",
            "ssl.keystore.location",
            "sasl.oauthbearer.token.endpoint.url",
            "enable.ssl.certificate.verification",
        ];
        let secret =
            ["password", "secret", "key", "token", "jaas", "sasl.oauthbearer.config", "pem", "assertion", "credential", "pwd"];
        !OPEN.contains(&name) && secret.iter().any(|part| name.contains(part))
    }

    /// What may be shown of a value.
    pub fn shown<'a>(name: &str, value: &'a str) -> &'a str {
        if Self::is_secret(name) { HIDDEN } else { value }
    }
}

impl fmt::Debug for Properties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.0.iter().map(|(name, value)| (name, Self::shown(name, value)))).finish()
    }
}

impl Serialize for Properties {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, Self::shown(name, value))))
    }
}

impl<'de> Deserialize<'de> for Properties {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        /// librdkafka takes text; a number or a boolean is written the same way in both.
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Value {
            Text(String),
            Bool(bool),
            Integer(i64),
            Float(f64),
        }
        let values = BTreeMap::<String, Value>::deserialize(deserializer)?;
        let text = |value| match value {
            Value::Text(text) => text,
            Value::Bool(flag) => flag.to_string(),
            Value::Integer(number) => number.to_string(),
            Value::Float(number) => number.to_string(),
        };
        Ok(Properties(values.into_iter().map(|(name, value)| (name, text(value))).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_never_shown() {
        let mut settings = KafkaSettings::default();
        settings.sasl.password = Some(Secret::new("hunter2"));
        settings.tls.key_password = Some(Secret::new("hunter2"));
        for name in
            ["sasl.password", "ssl.key.password", "ssl.key.pem", "sasl.oauthbearer.client.secret", "sasl.oauthbearer.config"]
        {
            settings.properties.0.insert(name.to_owned(), "hunter2".to_owned());
        }
        settings.properties.0.insert("client.id".to_owned(), "me".to_owned());
        let shown = format!("{settings:?}{}", serde_json::to_string(&settings).unwrap());
        assert!(!shown.contains("hunter2"), "{shown}");
        assert!(shown.contains("\"client.id\": \"me\""), "{shown}");
    }
}
