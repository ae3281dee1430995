//! Kafka: the topic of the ledger, and then the records' own.

use super::messages::Models;
use super::{Run, Target};
use crate::error::{Error, ErrorKind};
use crate::ledger::Stated;
use crate::sink::kafka::settings::{Format, KafkaSettings};
use crate::sink::kafka::{Quiet, Topics, reach, topics};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// The longest that brokers may take to answer the first question: those that are away do not answer later either.
const REACH_WITHIN: Duration = Duration::from_secs(10);
/// The longest that they may take to answer another, or to send the next message.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(200);
const CONSUMER: [(&str, &str); 5] = [
    // A group is asked for, but partitions are assigned, and nothing is committed.
    ("group.id", "predlog-audit"),
    ("enable.auto.commit", "false"),
    ("check.crcs", "true"),
    ("queued.max.messages.kbytes", "65536"),
    ("isolation.level", "read_committed"),
];

type Consumer = BaseConsumer<Quiet>;

impl Run<'_> {
    /// The topics as they are when this is called: what comes later is not looked at.
    pub(super) fn kafka(&mut self, settings: &KafkaSettings, dir: Option<&std::path::Path>) -> Result<(), Error> {
        if settings.format != Format::Json {
            let why = "kafka.format: predlog audit reads topics whose messages are lines: expected \"json\"";
            return Err(Error::new(ErrorKind::Config, why));
        }
        reach(settings, REACH_WITHIN).map_err(|why| Error::new(ErrorKind::Storage, why))?;
        let failed = |why: String| Error::new(ErrorKind::Storage, format!("kafka.brokers={}: {why}", settings.brokers));
        let Topics { mut client, ledger, is_ours, .. } = topics(settings).map_err(failed)?;
        CONSUMER.iter().for_each(|(name, value)| {
            client.set(*name, *value);
        });
        let (found, tally) = (topics_of(&client, &*is_ours).map_err(failed)?, &mut self.tally);
        if found.contains(&ledger) {
            let book = &mut self.book;
            let read = read(&client, &ledger, &mut |line| {
                if let Some(stated) = Stated::from_line(line) {
                    book.add(stated, &mut tally.cells);
                }
            });
            read.map_err(failed)?;
        }
        self.tally.copies = Some(0);
        self.tally.begin(&mut self.book);
        if let Some(dir) = dir {
            self.spool_records(dir)?;
        }
        for topic in found.iter().filter(|topic| **topic != ledger) {
            self.topic_rows(&client, topic).map_err(failed)?;
        }
        Ok(())
    }

    fn topic_rows(&mut self, client: &ClientConfig, topic: &str) -> Result<(), String> {
        let mut models = Models::new();
        read(client, topic, &mut |line| self.message_line(&mut models, line))
    }
}

impl Target {
    /// The topics of these settings, with what waits in the fallback's directory.
    pub fn kafka(settings: &KafkaSettings) -> Self {
        Target::Kafka(Box::new(settings.clone()))
    }
}

fn topics_of(client: &ClientConfig, is_ours: &dyn Fn(&str) -> bool) -> Result<Vec<String>, String> {
    let consumer: Consumer = client.create_with_context(Quiet::default()).map_err(|error| error.to_string())?;
    let answer = consumer.fetch_metadata(None, ANSWER_WITHIN);
    let metadata = answer.map_err(|error| consumer.context().explain(format_args!("the brokers do not answer: {error}")))?;
    let mut found: Vec<String> =
        metadata.topics().iter().map(|topic| topic.name().to_owned()).filter(|name| is_ours(name)).collect();
    found.sort();
    if found.is_empty() {
        return Err("the topic does not exist".to_owned());
    }
    Ok(found)
}

/// Gives `each` every line of every message that the topic has now.
fn read(client: &ClientConfig, topic: &str, each: &mut dyn FnMut(&[u8])) -> Result<(), String> {
    let made = client.create_with_context(Quiet::default());
    let consumer: Consumer = made.map_err(|error| format!("topic={topic}: {error}"))?;
    let explain = |error: rdkafka::error::KafkaError| consumer.context().explain(format_args!("topic={topic}: {error}"));
    let metadata = consumer.fetch_metadata(Some(topic), ANSWER_WITHIN).map_err(explain)?;
    let mut assigned = TopicPartitionList::new();
    // By partition: the offset behind the last message to be read.
    let mut ends: HashMap<i32, i64> = HashMap::new();
    for partition in metadata.topics().iter().flat_map(|topic| topic.partitions()) {
        let (first, end) = consumer.fetch_watermarks(topic, partition.id(), ANSWER_WITHIN).map_err(explain)?;
        if first < end {
            ends.insert(partition.id(), end);
            assigned.add_partition_offset(topic, partition.id(), Offset::Offset(first)).map_err(explain)?;
        }
    }
    consumer.assign(&assigned).map_err(explain)?;
    let mut heard = Instant::now();
    while !ends.is_empty() {
        let Some(message) = consumer.poll(POLL) else {
            // The last offsets may be a transaction's marks, which are no messages: then the position has passed the end.
            let position = consumer.position().map_err(explain)?;
            ends.retain(|partition, end| {
                let at = position.find_partition(topic, *partition).and_then(|found| found.offset().to_raw());
                at.is_none_or(|at| at < *end)
            });
            if heard.elapsed() > ANSWER_WITHIN {
                return Err(consumer.context().explain(format_args!("topic={topic}: no message came for {ANSWER_WITHIN:?}")));
            }
            continue;
        };
        heard = Instant::now();
        let message = message.map_err(explain)?;
        let end = ends.get(&message.partition()).copied().unwrap_or_default();
        if message.offset() < end {
            message
                .payload()
                .unwrap_or_default()
                .split(|&byte| byte == b'\n')
                .filter(|line| !line.is_empty())
                .for_each(&mut *each);
        }
        if message.offset() + 1 >= end {
            ends.remove(&message.partition());
        }
    }
    Ok(())
}
