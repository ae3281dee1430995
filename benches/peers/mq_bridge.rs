//! mq-bridge, a Rust library for routes between brokers and stores: from the topic into Parquet (zstd) objects in the same bucket.
//!
//! It runs as `tests/services/mq_bridge` builds it, with two workers and batches of 50,000 messages, each of which becomes an object whose columns
//! are inferred of it. Names are by the time of writing, which is its fastest way and may store records twice; names by the
//! source's position would make an object of each partition in each batch.

use super::{Figures, Given, Objects, watch};
use crate::services::process::{Service, cache, installed};
use parquet::file::reader::{FileReader as _, SerializedFileReader};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use serde_json::json;
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

const GROUP: &str = "mq-bridge";
const PROGRAM: &str = "bin/mq-bridge-peer";
const WORKERS: u32 = 2;
const BATCH: u32 = 50_000;
const ANSWER: Duration = Duration::from_secs(10);

/// What must be installed first, if it is not there.
pub fn missing() -> Option<&'static str> {
    installed(PROGRAM).is_none().then_some("run tests/services/install.sh mq_bridge")
}

pub fn run(given: &Given<'_>) -> Figures {
    let work = tempfile::tempdir().expect("a directory");
    let routes = work.path().join("routes.json");
    fs::write(&routes, configuration(given).to_string()).expect("the routes can be written");
    let mut command = Command::new(cache().join(PROGRAM));
    command.arg(&routes).envs(given.minio.env());
    let group = Group::of(given);
    let begun = Instant::now();
    let mut service = Service::start_again("mq-bridge", &work.path().join("log"), command, || true);
    let mut committed = 0;
    let figures = watch(&mut service, begun, given.rows, || {
        committed = group.committed();
        committed
    });
    drop(service);
    let stored = rows(&Objects::of(given));
    assert!(stored >= committed, "{committed} records are committed, and {stored} lie in its objects");
    figures
}

fn configuration(given: &Given<'_>) -> serde_json::Value {
    let input = json!({"kafka": {
        "url": given.kafka.bootstrap(),
        "topic": given.topic,
        "group_id": GROUP,
        "consumer_options": [["fetch.max.bytes", "8388608"], ["queued.max.messages.kbytes", "65536"]],
    }});
    let output = json!({"object_store": {
        "url": format!("s3://{}/{GROUP}", given.bucket),
        "format": "parquet",
        "compression": "zstd",
        "name_by": "write_time",
    }});
    json!({"routes": {"records": {"input": input, "output": output, "concurrency": WORKERS, "batch_size": BATCH}}})
}

/// Its consumer group, as somebody sees it who is not in it: it commits what is stored.
struct Group {
    consumer: BaseConsumer,
    partitions: TopicPartitionList,
}

impl Group {
    fn of(given: &Given<'_>) -> Group {
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", given.kafka.bootstrap()).set("group.id", GROUP);
        let consumer: BaseConsumer = client.create().expect("a client");
        let metadata = consumer.fetch_metadata(Some(given.topic), ANSWER).expect("the brokers answer");
        let mut partitions = TopicPartitionList::new();
        for partition in metadata.topics().iter().flat_map(rdkafka::metadata::MetadataTopic::partitions) {
            partitions.add_partition(given.topic, partition.id());
        }
        Group { consumer, partitions }
    }

    fn committed(&self) -> u64 {
        let committed = self.consumer.committed_offsets(self.partitions.clone(), ANSWER).expect("the brokers answer");
        let offsets = committed.elements().into_iter().map(|element| match element.offset() {
            Offset::Offset(offset) => offset.unsigned_abs(),
            _ => 0,
        });
        offsets.sum()
    }
}

/// Rows of all its objects, as these say.
fn rows(objects: &Objects) -> u64 {
    let rows = |bytes| {
        let reader = SerializedFileReader::new(bytes).expect("a Parquet file");
        reader.metadata().file_metadata().num_rows().unsigned_abs()
    };
    objects.below(GROUP).map(rows).sum()
}
