//! Messages that cannot be stored, and why.

use super::encoder::{Content, Message, Object, Rejection};
use super::job::OnBad;
use super::lease::TopicPartition;
use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use serde_json::{Value, json};
use std::time::Duration;

/// The longest that a dead letter waits to be delivered, before it is tried again.
const DELIVERY: Duration = Duration::from_secs(30);
/// librdkafka's own limit.
const LARGEST: &str = "1000000000";
const TOO_LARGE: KafkaError = KafkaError::MessageProduction(RDKafkaErrorCode::MessageSizeTooLarge);
/// The header of a dead letter whose value is too large for the topic: how many bytes it has.
const LEFT_OUT: &str = "predlog-value-bytes";
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
    headers: Vec<(String, Option<Vec<u8>>)>,
    reason: Rejection,
}

impl Letter {
    /// `value` is the message's, or one record of it.
    pub fn new(at: &TopicPartition, message: &Message<'_>, value: Option<&[u8]>, reason: Rejection) -> Letter {
        let mut headers = Vec::new();
        message.headers.visit(&mut |name, value| {
            headers.push((name.to_owned(), value.map(<[u8]>::to_vec)));
            true
        });
        Letter {
            at: at.clone(),
            offset: message.offset,
            timestamp: message.timestamp,
            key: message.key.map(<[u8]>::to_vec),
            value: value.map(<[u8]>::to_vec),
            headers,
            reason,
        }
    }

    pub fn bytes(&self) -> usize {
        let len = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(0, Vec::len);
        let headers: usize = self.headers.iter().map(|(name, value)| 64 + name.len() + len(value)).sum();
        256 + self.reason.why.len() + len(&self.key) + len(&self.value) + headers
    }

    /// `{"topic", "partition", "offset", "timestamp", "reason", "key", "value"}`; bytes that are not UTF-8 are `{"hex": "…"}`.
    fn to_json(&self) -> Value {
        json!({
            "topic": &*self.at.topic, "partition": self.at.partition, "offset": self.offset, "timestamp": self.timestamp,
            "reason": self.reason.why, "key": text(self.key.as_deref()), "value": text(self.value.as_deref()),
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
    connector: Option<String>,
}

impl DeadTopic {
    /// `None` when dead letters go elsewhere.
    pub fn open(client: &ClientConfig, on_bad: &OnBad) -> Result<Option<DeadTopic>, String> {
        let OnBad::Topic { name, headers, connector, .. } = on_bad else { return Ok(None) };
        let mut client = client.clone();
        client.remove("group.id");
        client.set("acks", "all").set("enable.idempotence", "true").set("allow.auto.create.topics", "false");
        // What a producer could send packed is as large as it was there, and the brokers say what is too large for the topic.
        for (name, value) in [("compression.type", "zstd"), ("message.max.bytes", LARGEST)] {
            if client.get(name).is_none() {
                client.set(name, value);
            }
        }
        let producer = client.create().map_err(|error| format!("cannot make the producer of topic={name}: {error}"))?;
        Ok(Some(DeadTopic { producer, name: name.clone(), headers: *headers, connector: connector.clone() }))
    }

    /// Sends them, each as it came, with its headers and its time.
    ///
    /// # Errors
    /// One of them could not be sent now.
    pub async fn send(&self, letters: &[Letter]) -> Result<(), String> {
        let all = letters.iter().map(|letter| self.try_send(letter, letter.value.as_deref(), None));
        for (letter, sent) in letters.iter().zip(futures_util::future::join_all(all).await) {
            let sent = match sent {
                // The brokers say so of a whole batch: each for itself tells which it is.
                Err(error) if error == TOO_LARGE => self.send_alone(letter).await,
                sent => sent,
            };
            sent.map_err(|error| format!("topic={}: {error}", self.name))?;
        }
        Ok(())
    }

    async fn send_alone(&self, letter: &Letter) -> Result<(), KafkaError> {
        match self.try_send(letter, letter.value.as_deref(), None).await {
            Err(error) if error == TOO_LARGE => {
                // It would never pass, and hold up all that comes after it: where it lies, and why, is what can be kept.
                let bytes = letter.value.as_ref().map_or(0, Vec::len);
                let (topic, from, offset) = (&self.name, &letter.at, letter.offset);
                tracing::error!(topic, %from, offset, bytes, "a dead letter is too large for its topic: it is sent without its value");
                self.try_send(letter, None, Some(bytes)).await
            }
            sent => sent,
        }
    }

    async fn try_send(&self, letter: &Letter, value: Option<&[u8]>, left_out: Option<usize>) -> Result<(), KafkaError> {
        let mut record = FutureRecord::<[u8], [u8]>::to(&self.name);
        (record.key, record.payload, record.timestamp) = (letter.key.as_deref(), value, letter.timestamp);
        let mut headers = letter
            .headers
            .iter()
            .fold(OwnedHeaders::new(), |headers, (key, value)| headers.insert(Header { key, value: value.as_deref() }));
        if self.headers {
            headers = context(headers, letter, self.connector.as_deref());
        }
        if let Some(bytes) = left_out {
            headers = headers.insert(Header { key: LEFT_OUT, value: Some(&bytes.to_string()) });
        }
        self.producer.send(record.headers(headers), DELIVERY).await.map(drop).map_err(|(error, _)| error)
    }
}

/// As Kafka Connect's `errors.deadletterqueue.context.headers.enable`.
fn context(headers: OwnedHeaders, letter: &Letter, connector: Option<&str>) -> OwnedHeaders {
    let (partition, offset, reason) = (letter.at.partition.to_string(), letter.offset.to_string(), &letter.reason);
    let known = |text: &'static str| Some(text).filter(|text| !text.is_empty());
    [
        ("topic", Some(&*letter.at.topic)),
        ("partition", Some(&partition)),
        ("offset", Some(&offset)),
        ("connector.name", connector),
        // The tasks of a connector are one.
        ("task.id", connector.map(|_| "0")),
        ("stage", known(reason.stage)),
        ("class.name", known(reason.class)),
        ("exception.class.name", connector.map(|_| "org.apache.kafka.connect.errors.DataException")),
        ("exception.message", Some(&reason.why)),
        ("exception.stacktrace", connector.map(|_| &*reason.why)),
    ]
    .into_iter()
    .filter_map(|(key, value)| Some((format!("__connect.errors.{key}"), value?)))
    .fold(headers, |headers, (key, value)| headers.insert(Header { key: &key, value: Some(value) }))
}
