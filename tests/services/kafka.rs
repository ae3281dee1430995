//! The broker: each listener, who is refused, and what a fault leaves behind.

use crate::support::{
    kafka::{Kafka, MECHANISMS, Message, Options, PASSWORD, USER, read_topic, read_topic_as},
    readers::{output, python},
    toxiproxy::Toxiproxy,
};
use rdkafka::{
    ClientConfig, ClientContext,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, Consumer, ConsumerContext},
    error::{KafkaError, RDKafkaErrorCode},
    message::{DeliveryResult, Header, Message as _, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, Producer, ProducerContext},
};
use serde_json::{Value, json};
use std::{
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

const LIMIT: Duration = Duration::from_secs(30);

/// The partition and the offset of a message, or why it has none.
type Delivery = Result<(i32, i64), KafkaError>;

/// Keeps what a client is told: the fate of each message, and why it cannot connect.
#[derive(Clone, Default)]
struct Told {
    deliveries: Arc<Mutex<Vec<Delivery>>>,
    errors: Arc<Mutex<Vec<String>>>,
}

impl ClientContext for Told {
    fn log(&self, _level: RDKafkaLogLevel, _facility: &str, _message: &str) {}

    fn error(&self, _error: KafkaError, reason: &str) {
        self.errors.lock().unwrap().push(reason.to_owned());
    }
}

impl ConsumerContext for Told {}

impl ProducerContext for Told {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let fate = result.as_ref().map(|message| (message.partition(), message.offset()));
        self.deliveries.lock().unwrap().push(fate.map_err(|(error, _)| error.clone()));
    }
}

/// A client of the listener at `bootstrap`.
fn at(bootstrap: &str) -> ClientConfig {
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", bootstrap).set("reconnect.backoff.ms", "20").set("reconnect.backoff.max.ms", "200");
    client.set("message.timeout.ms", "30000").set("socket.timeout.ms", "10000");
    client
}

/// As [`at`], with TLS that trusts `ca`.
fn tls(bootstrap: &str, ca: &Path) -> ClientConfig {
    let mut client = at(bootstrap);
    client.set("security.protocol", "SSL").set("ssl.ca.location", ca.to_str().unwrap());
    client
}

fn mtls(kafka: &Kafka) -> ClientConfig {
    let mut client = tls(&kafka.mtls(), &kafka.certificates().ca());
    client.set("ssl.certificate.location", kafka.certificates().client_certificate().to_str().unwrap());
    client.set("ssl.key.location", kafka.certificates().client_key().to_str().unwrap());
    client
}

fn sasl(kafka: &Kafka, mechanism: &str, password: &str) -> ClientConfig {
    let mut client = tls(&kafka.sasl(), &kafka.certificates().ca());
    client.set("security.protocol", "SASL_SSL").set("sasl.mechanism", mechanism);
    client.set("sasl.username", USER).set("sasl.password", password);
    client
}

/// Sends one message for each value; what became of each.
fn produce(client: &ClientConfig, topic: &str, values: &[&[u8]]) -> Vec<Result<(i32, i64), KafkaError>> {
    let told = Told::default();
    let producer: BaseProducer<Told> = client.create_with_context(told.clone()).unwrap();
    for value in values {
        let headers = OwnedHeaders::new().insert(Header { key: "format", value: Some("test") });
        producer.send(BaseRecord::to(topic).key("key").payload(*value).headers(headers)).unwrap();
    }
    producer.flush(LIMIT * 2).unwrap();
    told.deliveries.lock().unwrap().clone()
}

fn values(messages: &[Message]) -> Vec<&[u8]> {
    messages.iter().map(|message| message.value.as_deref().unwrap()).collect()
}

/// A client that comes to its listener is refused, and told so with `words`: the code of the error can be that of a broken connection.
fn assert_refused(who: &str, client: &ClientConfig, words: &str) {
    let told = Told::default();
    let consumer: BaseConsumer<Told> = client.create_with_context(told.clone()).unwrap();
    let deadline = Instant::now() + LIMIT;
    while !told.errors.lock().unwrap().iter().any(|reason| reason.contains(words)) {
        let first = told.errors.lock().unwrap().first().cloned();
        assert!(Instant::now() < deadline, "{who} is not told {words:?}, but {first:?}");
        consumer.poll(Duration::from_millis(50));
    }
    assert!(consumer.fetch_metadata(None, Duration::from_millis(200)).is_err(), "{who} is refused, and gets metadata");
}

#[test]
fn each_listener_of_kafka_takes_and_gives_and_refuses_strangers() {
    let options = Options { tls: true, mtls: true, sasl: true, super_users: Some(&[]), ..Options::default() };
    let kafka = Kafka::start(&options);
    kafka.create_topic("t", 1);
    let (ca, stranger) = (kafka.certificates().ca(), kafka.certificates().other_ca());
    let named: Vec<ClientConfig> =
        MECHANISMS.map(|mechanism| sasl(&kafka, mechanism, PASSWORD)).into_iter().chain([mtls(&kafka)]).collect();

    // They are known by name, and may do nothing.
    let denied = KafkaError::MessageProduction(RDKafkaErrorCode::TopicAuthorizationFailed);
    for client in &named {
        assert_eq!(produce(client, "t", &[b"denied"]), [Err(denied.clone())], "{client:?}");
    }
    kafka.allow(&format!("User:{USER}"), "t");
    kafka.allow("User:CN=predlog", "t");
    let mut sent = 0;
    for client in named.iter().chain([&at(&kafka.bootstrap()), &tls(&kafka.tls(), &ca)]) {
        assert_eq!(produce(client, "t", &[b"allowed"]), [Ok((0, sent))], "{client:?}");
        sent += 1;
        assert_eq!(read_topic_as(client, "t", 1).len() as i64, sent, "{client:?}");
    }

    assert_refused("a client that trusts another CA", &tls(&kafka.tls(), &stranger), "certificate verify failed");
    assert_refused("a client without a certificate", &tls(&kafka.mtls(), &ca), "bad certificate");
    for mechanism in MECHANISMS {
        assert_refused("a wrong password", &sasl(&kafka, mechanism, "wrong"), "SASL authentication error");
    }
}

#[test]
fn kafka_is_paused_killed_and_cut_off_and_comes_back() {
    let toxiproxy = Toxiproxy::start();
    let options = Options { proxied: Some(&toxiproxy), properties: &[("message.max.bytes", "2000")], ..Options::default() };
    let mut kafka = Kafka::start(&options);
    kafka.create_topic("t", 2);
    let (direct, proxied) = (at(&kafka.bootstrap()), at(&kafka.proxied()));
    assert_eq!(produce(&direct, "t", &[b"1"]).len(), 1);

    // The options reach the broker: properties, and that nobody makes a topic by writing to it.
    let too_large = KafkaError::MessageProduction(RDKafkaErrorCode::MessageSizeTooLarge);
    assert_eq!(produce(&direct, "t", &[&[b'x'; 3000]]), [Err(too_large)]);
    let unknown = KafkaError::MessageProduction(RDKafkaErrorCode::UnknownTopicOrPartition);
    // A client waits that long for the news of a topic to get around.
    let mut hasty = direct.clone();
    hasty.set("topic.metadata.propagation.max.ms", "500");
    assert_eq!(produce(&hasty, "nobody-made-this", &[b"1"]), [Err(unknown)]);

    kafka.pause();
    let mut impatient = direct.clone();
    impatient.set("message.timeout.ms", "1500");
    let late = KafkaError::MessageProduction(RDKafkaErrorCode::MessageTimedOut);
    assert_eq!(produce(&impatient, "t", &[b"lost"]), [Err(late.clone())]);
    kafka.resume();
    assert!(produce(&direct, "t", &[b"2"])[0].is_ok());

    kafka.proxy().disable();
    impatient.set("bootstrap.servers", kafka.proxied());
    assert_eq!(produce(&impatient, "t", &[b"lost"]), [Err(late)]);
    kafka.proxy().enable();
    assert!(produce(&proxied, "t", &[b"3"])[0].is_ok());

    kafka.kill();
    kafka.restart();
    let mut kept = read_topic(&kafka.bootstrap(), "t", 3);
    kept.sort_by(|a, b| a.value.cmp(&b.value));
    assert_eq!(values(&kept), [b"1", b"2", b"3"]);
    assert_eq!(
        (kept[0].key.as_deref(), &kept[0].headers[..]),
        (Some(&b"key"[..]), &[("format".to_owned(), Some(b"test".to_vec()))][..])
    );

    kafka.stop();
    kafka.restart();
    kafka.delete_topic("t");
    kafka.create_topic("t", 1);
    assert_eq!(read_topic(&kafka.bootstrap(), "t", 0), []);
}

#[test]
fn a_python_consumer_reads_what_rdkafka_wrote() {
    let data = tempfile::tempdir().unwrap();
    let kafka = Kafka::start(&Options { auto_create_topics: true, data: Some(data.path()), ..Options::default() });
    // The first message finds no topic, and makes it.
    assert_eq!(produce(&at(&kafka.bootstrap()), "made-by-writing", &[b"1", "zwei".as_bytes()]), [Ok((0, 0)), Ok((0, 1))]);
    let mut script = python("tests/services/read_kafka.py");
    script.args([&kafka.bootstrap(), "made-by-writing", "2"]);
    let read: Vec<Value> = output(script).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let row = |offset: i64, value: &str| json!({"partition": 0, "offset": offset, "headers": {"format": "test"}, "key": "key", "value": value});
    assert_eq!(read, [row(0, "1"), row(1, "zwei")]);
    assert!(data.path().join("made-by-writing-0").is_dir(), "the records are not where they were to be");
}
