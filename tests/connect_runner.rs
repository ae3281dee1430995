//! Connectors that run, against a real broker: begun, ended, and moved to other offsets.
#![cfg(feature = "connect")]

mod support;

use predlog::Config;
use predlog::archive::Job;
use predlog::config::Mode;
use predlog::connect::rest::{PartitionOffset, Tasks};
use predlog::connect::{Connector, Runner, TargetState};
use predlog::error::{Error, ErrorKind};
use rdkafka::ClientConfig;
use serde_json::json;
use std::time::{Duration, Instant};
use support::kafka::{Kafka, Options};

const TOPIC: &str = "restref";
const LONG: Duration = Duration::from_secs(60);

fn connector(name: &str) -> Connector {
    Connector { name: name.to_owned(), config: Default::default(), state: TargetState::Running, tasks: 2 }
}

fn at(partition: i32, offset: Option<i64>) -> PartitionOffset {
    PartitionOffset { topic: TOPIC.to_owned(), partition, offset }
}

/// Asks until the answer is as it should be, or says what it is after a minute.
fn until<T: PartialEq + std::fmt::Debug>(expected: &T, mut ask: impl FnMut() -> T) {
    let end = Instant::now() + LONG;
    loop {
        let answer = ask();
        if answer == *expected {
            return;
        }
        assert!(Instant::now() < end, "{answer:?} is not {expected:?}");
        std::thread::yield_now();
    }
}

#[test]
fn a_connector_archives_and_its_offsets_are_told_and_changed() {
    let kafka = Kafka::start(&Options::default());
    kafka.create_topic(TOPIC, 2);
    let dir = tempfile::tempdir().unwrap();
    let mut config = Config { mode: Mode::Kafka, ..Config::default() };
    config.kafka.brokers = kafka.bootstrap();
    config.kafka.topic = TOPIC.to_owned();
    config.archive.topics = vec![TOPIC.to_owned()];
    config.archive.dir = dir.path().join("scratch");
    config.rotation.max_age = Duration::from_millis(200);
    config.upload.url = Some(format!("file://{}", dir.path().join("bucket").display()));
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", kafka.bootstrap());
    let runner = Runner::new(client, move |connector| match connector.name.as_str() {
        "wrong" => Err(Error::new(ErrorKind::Config, "flush.size is missing")),
        _ => Job::predictions(&config, false),
    });
    assert!(runner.cluster_id().is_some_and(|id| !id.is_empty()));

    let (name, connector) = ("a", connector("a"));
    let offsets = || {
        let mut offsets = runner.offsets(&connector).unwrap();
        offsets.sort_by_key(|at| at.partition);
        offsets
    };
    let stored = || offsets().iter().filter_map(|at| at.offset).sum::<i64>();
    let produce = || {
        for id in 0..3 {
            let value =
                json!({"id": format!("i-{id}"), "model_name": "m", "model_version": "1", "inputs": {"a": id}, "outputs": 1});
            kafka.produce(TOPIC, value.to_string().as_bytes());
        }
    };
    assert_eq!(offsets(), []);
    produce();
    runner.start(&connector);
    until(&3, stored);
    assert_eq!((runner.failure(name), runner.active_topics(name).len()), (None, 1));
    runner.reset_active_topics(name);
    assert!(runner.active_topics(name).is_empty());
    runner.stop(name);

    // Nobody is in the group now: its offsets can be changed, and forgotten one by one or all together.
    runner.alter_offsets(&connector, &[at(0, Some(0)), at(1, Some(1))]).unwrap();
    assert_eq!(offsets(), [at(0, Some(0)), at(1, Some(1))]);
    runner.alter_offsets(&connector, &[at(0, None), at(1, Some(0))]).unwrap();
    assert_eq!(offsets(), [at(1, Some(0))]);
    let unknown = PartitionOffset { topic: "no-such-topic".to_owned(), ..at(0, Some(1)) };
    assert!(runner.alter_offsets(&connector, &[unknown]).unwrap_err().contains("cannot commit"));
    runner.reset_offsets(&connector).unwrap();
    runner.reset_offsets(&connector).unwrap();
    assert_eq!(offsets(), []);

    // From the beginning again, with what has come meanwhile.
    produce();
    runner.start(&connector);
    until(&6, stored);
    runner.start(&self::connector("wrong"));
    assert_eq!(runner.failure("wrong").as_deref(), Some("flush.size is missing"));
    runner.shut_down();
    assert_eq!(stored(), 6);
}
