//! Messages that cannot be stored, and why.

use super::encoder::{Content, Message, Object};
use super::job::OnBad;
use super::lease::TopicPartition;
use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use serde_json::{Value, json};
use std::time::Duration;

/// The longest that a dead letter waits to be delivered, before it is tried again.
const DELIVERY: Duration = Duration::from_secs(30);
/// A range ends when its dead letters take this much memory.
pub(super) const FULL: usize = 8 << 20;

/// A message that cannot be stored.
#[derive(Clone, Debug)]
pub(super) struct Letter {
    at: TopicPartition,
    offset: i64,
    timestamp: Option<i64>,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    reason: String,
}

impl Letter {
    /// `value` is the message's, or one record of it.
    pub fn new(at: &TopicPartition, message: &Message<'_>, value: Option<&[u8]>, reason: String) -> Letter {
        Letter {
            at: at.clone(),
            offset: message.offset,
            timestamp: message.timestamp,
            key: message.key.map(<[u8]>::to_vec),
            value: value.map(<[u8]>::to_vec),
            reason,
        }
    }

    pub fn bytes(&self) -> usize {
        256 + self.reason.len() + self.key.as_ref().map_or(0, Vec::len) + self.value.as_ref().map_or(0, Vec::len)
    }

    /// `{"topic", "partition", "offset", "timestamp", "reason", "key", "value"}`; bytes that are not UTF-8 are `{"hex": "…"}`.
    fn to_json(&self) -> Value {
        json!({
            "topic": &*self.at.topic, "partition": self.at.partition, "offset": self.offset, "timestamp": self.timestamp,
            "reason": self.reason, "key": text(self.key.as_deref()), "value": text(self.value.as_deref()),
        })
    }
}

fn text(bytes: Option<&[u8]>) -> Value {
    match bytes.map(|bytes| (bytes, std::str::from_utf8(bytes))) {
        None => Value::Null,
        Some((_, Ok(text))) => text.into(),
        Some((bytes, Err(_))) => json!({ "hex": bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>() }),
    }
}

/// The object of a range's dead letters: one JSON object a line.
pub(super) fn object(prefix: &str, letters: &[Letter]) -> Option<Object> {
    let first = letters.first()?;
    let mut lines = Vec::new();
    for letter in letters {
        lines.extend_from_slice(letter.to_json().to_string().as_bytes());
        lines.push(b'\n');
    }
    let key = format!("{prefix}/{}+{}+{:010}.ndjson", first.at.topic, first.at.partition, first.offset);
    Some(Object { key, content: Content::Bytes(lines), rows: 0, table: None })
}

/// A topic for dead letters.
pub(super) struct DeadTopic {
    producer: FutureProducer,
    name: String,
    headers: bool,
}

impl DeadTopic {
    /// `None` when dead letters go elsewhere.
    pub fn open(client: &ClientConfig, on_bad: &OnBad) -> Result<Option<DeadTopic>, String> {
        let OnBad::Topic { name, headers } = on_bad else { return Ok(None) };
        let mut client = client.clone();
        client.remove("group.id");
        client.set("acks", "all").set("enable.idempotence", "true").set("allow.auto.create.topics", "false");
        let producer = client.create().map_err(|error| format!("cannot make the producer of topic={name}: {error}"))?;
        Ok(Some(DeadTopic { producer, name: name.clone(), headers: *headers }))
    }

    pub async fn send(&self, letters: &[Letter]) -> Result<(), String> {
        let sent = letters.iter().map(|letter| {
            let mut record = FutureRecord::<[u8], [u8]>::to(&self.name);
            if let Some(key) = &letter.key {
                record = record.key(key);
            }
            if let Some(value) = &letter.value {
                record = record.payload(value);
            }
            if self.headers {
                record = record.headers(headers(letter));
            }
            self.producer.send(record, DELIVERY)
        });
        for delivery in futures_util::future::join_all(sent).await {
            delivery.map_err(|(error, _)| format!("topic={}: {error}", self.name))?;
        }
        Ok(())
    }
}

/// As Kafka Connect's `errors.deadletterqueue.context.headers.enable`.
fn headers(letter: &Letter) -> OwnedHeaders {
    let (partition, offset) = (letter.at.partition.to_string(), letter.offset.to_string());
    [
        ("__connect.errors.topic", &*letter.at.topic),
        ("__connect.errors.partition", &partition),
        ("__connect.errors.offset", &offset),
        ("__connect.errors.exception.message", &letter.reason),
    ]
    .into_iter()
    .fold(OwnedHeaders::new(), |headers, (key, value)| headers.insert(Header { key, value: Some(value) }))
}
