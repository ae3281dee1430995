//! Reading a topic, from its beginning to its end.

use rdkafka::{
    ClientConfig, Message as _, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
    message::{BorrowedMessage, Headers},
};
use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

/// How long one read may take.
const LIMIT: Duration = Duration::from_secs(60);
/// How long one call waits before the limit is looked at again.
const POLL: Duration = Duration::from_millis(200);

/// A message as the broker has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub partition: i32,
    pub offset: i64,
    /// Milliseconds since 1970.
    pub timestamp: Option<i64>,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

/// All messages of a topic, sorted by partition and offset.
///
/// Waits until there are `at_least` so many, and reads what is there beyond them, so that a message too many shows. 0 reads what is there now.
/// Panics when the topic has fewer after a minute.
pub fn read_topic(bootstrap: &str, topic: &str, at_least: usize) -> Vec<Message> {
    read_topic_as(ClientConfig::new().set("bootstrap.servers", bootstrap), topic, at_least)
}

/// As [`read_topic`], by a client of these settings.
pub fn read_topic_as(client: &ClientConfig, topic: &str, at_least: usize) -> Vec<Message> {
    let deadline = Instant::now() + LIMIT;
    let consumer = consumer(client);
    let partitions = assign(&consumer, topic, deadline);
    let mut messages = Vec::with_capacity(at_least);
    let mut ended = HashSet::new();
    let mut trouble = None;
    while messages.len() < at_least || ended.len() < partitions {
        assert!(
            Instant::now() < deadline,
            "topic {topic} has {} messages instead of {at_least} after {LIMIT:?}, {} of its {partitions} partitions were read to their end; last error: {trouble:?}",
            messages.len(),
            ended.len()
        );
        match consumer.poll(POLL) {
            None => {}
            Some(Ok(message)) => {
                ended.remove(&message.partition());
                messages.push(owned(&message));
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                ended.insert(partition);
            }
            Some(Err(error)) => trouble = Some(error),
        }
    }
    messages.sort_by_key(|message| (message.partition, message.offset));
    messages
}

fn consumer(client: &ClientConfig) -> BaseConsumer {
    let mut client = client.clone();
    // A group is asked for, but partitions are assigned by hand, and nothing is committed.
    client.set("group.id", "predlog-tests").set("enable.auto.commit", "false").set("enable.auto.offset.store", "false");
    client.set("enable.partition.eof", "true").set("auto.offset.reset", "error").set("check.crcs", "true");
    client.set("fetch.wait.max.ms", "20").set("max.partition.fetch.bytes", "8388608").set("queued.min.messages", "1000000");
    client.set("reconnect.backoff.ms", "20").set("reconnect.backoff.max.ms", "200");
    client.create().expect("the settings of the consumer are valid")
}

/// Assigns all partitions from their beginning; how many there are.
fn assign(consumer: &BaseConsumer, topic: &str, deadline: Instant) -> usize {
    let partitions = loop {
        let answer = consumer.fetch_metadata(Some(topic), POLL * 5);
        let found = answer.as_ref().ok().and_then(|answer| answer.topics().first());
        match found {
            Some(found) if found.error().is_none() && !found.partitions().is_empty() => break found.partitions().len(),
            _ => assert!(
                Instant::now() < deadline,
                "topic {topic} is not known after {LIMIT:?}: {:?}",
                answer.map(|answer| answer.topics().iter().map(|topic| format!("{:?}", topic.error())).collect::<Vec<_>>())
            ),
        }
    };
    let mut list = TopicPartitionList::new();
    for partition in 0..partitions {
        let partition = i32::try_from(partition).expect("a topic has few partitions");
        list.add_partition_offset(topic, partition, Offset::Beginning).expect("an offset can be set");
    }
    consumer.assign(&list).expect("partitions can be assigned");
    partitions
}

fn owned(message: &BorrowedMessage<'_>) -> Message {
    let headers =
        message.headers().map(|headers| headers.iter().map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec))));
    Message {
        partition: message.partition(),
        offset: message.offset(),
        timestamp: message.timestamp().to_millis(),
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(<[u8]>::to_vec),
        headers: headers.map(Iterator::collect).unwrap_or_default(),
    }
}
