//! `predlog archive --connect`: the S3 sink's configuration against a real broker and a real S3 server.

mod support;

use futures_util::TryStreamExt as _;
use object_store::{ObjectStore, ObjectStoreExt as _};
use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders, ToBytes};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use support::kafka::{Kafka, Options, read_topic};
use support::process::wait_until;
use support::readers::{output, python};
use support::registry::Registry;
use support::s3::Minio;
use tempfile::TempDir;

const LIMIT: Duration = Duration::from_secs(60);

fn broker() -> &'static Kafka {
    static BROKER: OnceLock<Kafka> = OnceLock::new();
    BROKER.get_or_init(|| Kafka::start(&Options::default()))
}

fn minio() -> &'static Minio {
    static MINIO: OnceLock<Minio> = OnceLock::new();
    MINIO.get_or_init(Minio::start)
}

/// A connector with a bucket and a directory of its own.
struct Connector {
    dir: TempDir,
    bucket: String,
    file: PathBuf,
}

impl Connector {
    fn new(config: &Value) -> Connector {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let bucket = match config["s3.bucket.name"].as_str() {
            Some(bucket) => bucket.to_owned(),
            None => format!("bucket-{}", NEXT.fetch_add(1, Ordering::Relaxed)),
        };
        minio().create_bucket(&bucket);
        let mut config = config.clone();
        config["s3.bucket.name"] = json!(bucket);
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join(format!("{bucket}-connector.json"));
        std::fs::write(&file, config.to_string()).expect("a file");
        Connector { dir, bucket, file }
    }

    /// Gives it another configuration, with its own bucket.
    fn configure(&mut self, config: &Value) {
        let mut config = config.clone();
        config["s3.bucket.name"] = json!(self.bucket);
        std::fs::write(&self.file, config.to_string()).expect("a file");
    }

    /// Gives it another name, and so another group.
    fn rename(&mut self, name: &str) {
        let file = self.dir.path().join(format!("{name}.json"));
        std::fs::rename(&self.file, &file).expect("it is renamed");
        self.file = file;
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_predlog"));
        command.args(["archive", "--connect"]).arg(&self.file).current_dir(self.dir.path());
        command.env_remove("PREDLOG_CONFIG").envs(minio().env()).env("PREDLOG_KAFKA__BROKERS", broker().bootstrap());
        command
    }

    /// What it tells, and whether it ends well.
    fn end(&self) -> (bool, String) {
        let done = self.command().arg("--until-end").output().expect("it starts");
        (done.status.success(), String::from_utf8_lossy(&done.stderr).into_owned())
    }

    fn run(&self) -> String {
        let (ended_well, told) = self.end();
        assert!(ended_well, "{told}");
        told
    }

    /// All objects but the archiver's own watermarks.
    fn objects(&self) -> BTreeMap<String, Vec<u8>> {
        let store = minio().store(&self.bucket);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let listed: Vec<_> = store.list(None).try_collect().await.expect("a list");
            let mut objects = BTreeMap::new();
            for meta in listed.into_iter().filter(|meta| !meta.location.as_ref().starts_with('_')) {
                let bytes = store.get(&meta.location).await.expect("an object").bytes().await.expect("its bytes");
                objects.insert(meta.location.to_string(), bytes.to_vec());
            }
            objects
        })
    }

    fn keys(&self) -> Vec<String> {
        self.objects().into_keys().collect()
    }

    /// What a reader finds in each Parquet object.
    fn read(&self, reader: &str) -> Value {
        let copy = tempfile::tempdir().expect("a directory");
        for (key, bytes) in self.objects() {
            let path = copy.path().join(key);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            std::fs::write(path, bytes).expect("a file");
        }
        let mut script = python("tests/readers/read_files.py");
        script.args(["--reader", reader]).arg(copy.path());
        serde_json::from_str(&output(script)).expect("the reader prints JSON")
    }
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A topic with these messages in one partition, in order.
fn topic(name: &str, messages: &[impl AsRef<[u8]>]) {
    broker().create_topic(name, 1);
    send(name, messages.iter().map(|message| Some(message.as_ref())));
}

fn send<'a>(topic: &str, messages: impl Iterator<Item = Option<&'a [u8]>>) {
    let producer: BaseProducer = ClientConfig::new().set("bootstrap.servers", broker().bootstrap()).create().expect("a producer");
    for (n, message) in messages.enumerate() {
        let record = BaseRecord::<[u8], [u8]>::to(topic).timestamp(1_709_640_000_000 + n as i64 * 1_000).key(b"key".to_bytes());
        let record = if let Some(message) = message { record.payload(message) } else { record };
        producer.send(record).map_err(|(error, _)| error).expect("there is room");
    }
    producer.flush(LIMIT).expect("the broker takes them");
}

fn config(topic: &str, more: Value) -> Value {
    let mut config = json!({
        "connector.class": "io.confluent.connect.s3.S3SinkConnector",
        "storage.class": "io.confluent.connect.s3.storage.S3Storage",
        "topics": topic, "flush.size": "1000", "format.class": "json",
    });
    for (key, value) in more.as_object().expect("keys") {
        config[key] = value.clone();
    }
    config
}

#[test]
fn the_documented_example_works_as_it_stands() {
    let seed = std::fs::read_to_string("examples/connect/my-model-connector.json").expect("the example");
    let connector = Connector::new(&serde_json::from_str(&seed).expect("JSON"));
    let messages: Vec<String> = (0..5)
        .map(|n| {
            let (inputs, outputs) =
                (json!({"age": 30 + n, "name": "r\u{e9}d", "ok": true}), json!({"score": 0.5, "classes": ["a", "b"]}));
            json!({"id": n.to_string(), "model_name": "my-model", "model_version": "1", "inputs": inputs, "outputs": outputs})
                .to_string()
        })
        .collect();
    topic("my-model", &messages);
    let log = std::fs::File::create(connector.dir.path().join("log")).expect("a log");
    let _running = Running(connector.command().stderr(log).stdout(Stdio::null()).spawn().expect("it starts"));
    let key = |offset| format!("my-model/serving/my-model/partition=0/my-model+0+{offset:010}.snappy.parquet");
    wait_until("the full files", LIMIT, || connector.keys().len() >= 2);
    // The last one has a row only: the schedule ends it.
    wait_until("the schedule", LIMIT, || connector.keys() == [key(0), key(2), key(4)]);
    for (reader, int, text) in [("pyarrow", "int64", "string"), ("duckdb", "BIGINT", "VARCHAR")] {
        let files = connector.read(reader);
        for (offset, rows) in [(0, 2), (2, 2), (4, 1)] {
            let file = &files[&key(offset)];
            assert_eq!(file["rows"].as_array().map(Vec::len), Some(rows), "{reader}: {file}");
            assert_eq!(file["types"]["id"].as_str(), Some(text), "{reader}");
            let inputs = file["types"]["inputs"].as_str().expect("a type");
            assert!(inputs.contains(int) && inputs.contains("age"), "{reader}: typed columns: {inputs}");
            assert_eq!(file["rows"][0]["inputs"]["age"], 30 + offset, "{reader}");
            assert_eq!(file["rows"][0]["outputs"], json!({"score": 0.5, "classes": ["a", "b"]}), "{reader}");
        }
    }
}

#[test]
fn every_codec_is_read_by_pyarrow_and_duckdb() {
    topic("codecs", &[r#"{"a":1,"s":"x"}"#, r#"{"a":2.5,"s":null,"l":[{"k":1}]}"#]);
    for (codec, extension) in [("none", ""), ("snappy", ".snappy"), ("gzip", ".gz"), ("lz4", ".lz4"), ("zstd", ".zstd")] {
        let connector = Connector::new(&config("codecs", json!({"format.class": "parquet", "parquet.codec": codec})));
        connector.run();
        let key = format!("topics/codecs/partition=0/codecs+0+0000000000{extension}.parquet");
        assert_eq!(connector.keys(), [key.as_str()]);
        for reader in ["pyarrow", "duckdb"] {
            let rows = &connector.read(reader)[&key]["rows"];
            assert_eq!(
                *rows,
                json!([{"a": 1.0, "s": "x", "l": null}, {"a": 2.5, "s": null, "l": [{"k": 1}]}]),
                "{codec} {reader}"
            );
        }
    }
}

#[test]
fn hours_fields_transforms_and_packed_lines() {
    topic(
        "hours",
        &[r#"{"at":"2024-03-05T23:30:00Z","n":1}"#, r#"{"at":1709683200000,"n":2}"#, r#"{"at":"2024-03-05T23:59:59Z","n":3}"#],
    );
    let connector = Connector::new(&config(
        "hours",
        json!({
            "topics.dir": "h", "s3.compression.type": "gzip", "locale": "en", "timezone": "Europe/Berlin",
            "partitioner.class": "io.confluent.connect.storage.partitioner.HourlyPartitioner",
            "timestamp.extractor": "RecordField", "timestamp.field": "at",
            "transforms": "where,short", "transforms.where.type": "org.apache.kafka.connect.transforms.InsertField$Value",
            "transforms.where.offset.field": "offset",
            "transforms.short.type": "org.apache.kafka.connect.transforms.ReplaceField$Value", "transforms.short.renames": "n:number",
        }),
    ));
    connector.run();
    let objects = connector.objects();
    let path = "h/hours/year=2024/month=03/day=06/hour=0";
    let keys: Vec<_> = objects.keys().cloned().collect();
    assert_eq!(keys, [format!("{path}0/hours+0+0000000000.json.gz"), format!("{path}1/hours+0+0000000001.json.gz")]);
    let mut text = String::new();
    std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(&objects[&keys[0]][..]), &mut text).expect("gzip");
    let expected = "{\"at\":\"2024-03-05T23:30:00Z\",\"number\":1,\"offset\":0}\n{\"at\":\"2024-03-05T23:59:59Z\",\"number\":3,\"offset\":2}\n";
    assert_eq!(text, expected);
    let fields = config("hours", json!({"partitioner.class": "FieldPartitioner", "partition.field.name": "n"}));
    let connector = Connector::new(&fields);
    connector.run();
    let expected = [1, 2, 3].map(|n| format!("topics/hours/n={n}/hours+0+{:010}.json", n - 1));
    assert_eq!(connector.keys(), expected);
}

#[test]
fn bytes_are_stored_as_they_came() {
    topic("raw", &[&[0xff_u8, 0][..], b"text"]);
    let connector = Connector::new(&config(
        "raw",
        json!({"format.class": "ByteArrayFormat", "value.converter": "org.apache.kafka.connect.converters.ByteArrayConverter"}),
    ));
    connector.run();
    let objects = connector.objects();
    assert_eq!(objects["topics/raw/partition=0/raw+0+0000000000.bin"], b"\xff\0\ntext\n");
}

#[test]
fn bad_messages_stop_it_or_go_to_the_dead_letter_topic() {
    broker().create_topic("bad", 1);
    send("bad", [Some(&b"{\"n\":1}"[..]), Some(b"nonsense"), None, Some(b"{\"n\":2}")].into_iter());
    let strict = Connector::new(&config("bad", json!({})));
    let (ended_well, told) = strict.end();
    assert!(!ended_well && told.contains("bad+0+1 cannot be stored: not JSON"), "{told}");
    assert_eq!(strict.keys(), Vec::<String>::new());
    let tolerant = Connector::new(&config(
        "bad",
        json!({
            "errors.tolerance": "all", "errors.deadletterqueue.topic.name": "bad-dead",
            "errors.deadletterqueue.topic.replication.factor": "1",
            "errors.deadletterqueue.context.headers.enable": "true", "behavior.on.null.values": "ignore",
        }),
    ));
    tolerant.run();
    assert_eq!(tolerant.objects()["topics/bad/partition=0/bad+0+0000000000.json"], b"{\"n\":1}\n{\"n\":2}\n");
    let letters = read_topic(&broker().bootstrap(), "bad-dead", 2);
    assert_eq!(letters.len(), 2);
    assert_eq!(letters[0].value.as_deref(), Some(&b"nonsense"[..]));
    let header = |name: &str| {
        let found = letters[0].headers.iter().find(|(known, _)| known == name);
        found.and_then(|(_, value)| value.as_deref()).map(|value| String::from_utf8_lossy(value).into_owned())
    };
    assert_eq!((header("__connect.errors.topic"), header("__connect.errors.offset")), (Some("bad".into()), Some("1".into())));
    assert!(header("__connect.errors.exception.message").is_some_and(|why| why.starts_with("not JSON")));
    for (name, expected) in [
        ("partition", "0"),
        ("stage", "VALUE_CONVERTER"),
        ("class.name", "org.apache.kafka.connect.json.JsonConverter"),
        ("exception.class.name", "org.apache.kafka.connect.errors.DataException"),
        ("task.id", "0"),
    ] {
        assert_eq!(header(&format!("__connect.errors.{name}")).as_deref(), Some(expected), "{name}");
    }
    assert!(header("__connect.errors.connector.name").is_some_and(|name| name.ends_with("-connector")));
    // The one without a value was left out, and says so there.
    assert_eq!((&letters[1].value, letters.len()), (&None, 2));
}

#[test]
fn a_dead_letter_has_the_headers_and_the_time_of_its_message_and_none_is_too_large_to_pass() {
    broker().create_topic("headed", 1);
    broker().create_topic_with("headed-dead", 1, &[("max.message.bytes", "2000")]);
    // Random enough that no compression helps.
    let mut state = 42_u32;
    let large: String = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        char::from(b'a' + (state % 26) as u8)
    })
    .take(8_000)
    .collect();
    let producer: BaseProducer = ClientConfig::new().set("bootstrap.servers", broker().bootstrap()).create().expect("a producer");
    for value in ["bad", &large, r#"{"n":1}"#] {
        let headers = OwnedHeaders::new().insert(Header { key: "trace", value: Some("abc") });
        let record = BaseRecord::to("headed").key("k").payload(value).timestamp(1_700_000_000_000).headers(headers);
        producer.send(record).map_err(|(error, _)| error).expect("it is taken");
    }
    producer.flush(LIMIT).expect("delivered");
    let connector =
        Connector::new(&config("headed", json!({"errors.tolerance": "all", "errors.deadletterqueue.topic.name": "headed-dead"})));
    connector.run();
    assert_eq!(connector.objects()["topics/headed/partition=0/headed+0+0000000002.json"], b"{\"n\":1}\n");
    let letters = read_topic(&broker().bootstrap(), "headed-dead", 2);
    let text = |value: &str| Some(value.as_bytes().to_vec());
    assert_eq!((&letters[0].value, letters[0].timestamp, &letters[0].key), (&text("bad"), Some(1_700_000_000_000), &text("k")));
    assert_eq!(letters[0].headers, [("trace".to_owned(), text("abc"))]);
    let without = letters.iter().find(|letter| letter.value.is_none()).expect("the large one");
    assert_eq!(without.headers[1], ("predlog-value-bytes".to_owned(), text("8000")));
}

#[test]
fn an_object_of_other_messages_is_replaced_as_the_makers_connector_does() {
    let send_lines = |ids: std::ops::Range<u64>| {
        let lines: Vec<Vec<u8>> = ids.map(|n| format!("{{\"n\":{n}}}").into_bytes()).collect();
        send("replaced", lines.iter().map(|line| Some(&line[..])));
    };
    let text = |ids: std::ops::Range<u64>| ids.map(|n| format!("{{\"n\":{n}}}\n")).collect::<String>().into_bytes();
    let key = |offset: u64| format!("topics/replaced/partition=0/replaced+0+{offset:010}.json");
    broker().create_topic("replaced", 1);
    send_lines(0..4);
    let mut connector = Connector::new(&config("replaced", json!({"flush.size": "2"})));
    connector.run();
    assert_eq!(connector.objects(), [(key(0), text(0..2)), (key(2), text(2..4))].into());
    // Another topic of the name, and longer files.
    broker().delete_topic("replaced");
    broker().create_topic("replaced", 1);
    send_lines(10..13);
    connector.configure(&config("replaced", json!({"flush.size": "3"})));
    assert!(connector.run().contains("it is replaced"));
    assert_eq!(connector.objects(), [(key(0), text(10..13)), (key(2), text(2..4))].into());
    // The same once more: nothing is new.
    assert!(!connector.run().contains("it is replaced"));
    // The same topic, read again from its beginning by another group: the same objects.
    connector.rename("again");
    assert!(!connector.run().contains("it is replaced"));
    assert_eq!(connector.objects(), [(key(0), text(10..13)), (key(2), text(2..4))].into());
}

/// Routes every message to the topic `all`.
fn to_all(topics: &str) -> Value {
    config(
        topics,
        json!({"transforms": "r", "transforms.r.type": "RegexRouter", "transforms.r.regex": "met-.*", "transforms.r.replacement": "all"}),
    )
}

#[test]
fn topics_that_a_router_gives_one_name_keep_all_their_messages() {
    topic("met-a", &[r#"{"n":1}"#]);
    topic("met-b", &[r#"{"n":2}"#]);
    let key = |name: &str| format!("topics/all/partition=0/{name}+0+0000000000.json");
    let connector = Connector::new(&to_all("met-a,met-b"));
    connector.run();
    let expected = [(key("met-a"), b"{\"n\":1}\n".to_vec()), (key("met-b"), b"{\"n\":2}\n".to_vec())];
    assert_eq!(connector.objects(), expected.into());

    // Each for itself has the names of Connect's; one would take the place of the other, and does not.
    let mut connector = Connector::new(&to_all("met-a"));
    connector.run();
    connector.configure(&to_all("met-b"));
    let (ended_well, told) = connector.end();
    assert!(!ended_well && told.contains("topic=met-b would take the place of one of topic=met-a"), "{told}");
    assert_eq!(connector.objects(), [(key("all"), b"{\"n\":1}\n".to_vec())].into());
}

#[test]
fn a_pattern_takes_no_topics_of_kafkas_own_unless_they_are_named() {
    topic("ours", &[r#"{"n":1}"#]);
    let connector = Connector::new(&config("", json!({"topics.regex": "(__consumer_offs|our).*"})));
    // The first run makes the topic that offsets are kept in.
    connector.run();
    topic("ours-too", &[r#"{"n":2}"#]);
    connector.run();
    let key = |name: &str| format!("topics/{name}/partition=0/{name}+0+0000000000.json");
    assert_eq!(connector.keys(), [key("ours-too"), key("ours")]);
    // Its end is where it was when the run began: its own reader's offsets go to it.
    let named = json!({"value.converter": "ByteArrayConverter", "format.class": "bytearray", "behavior.on.null.values": "ignore", "flush.size": "1"});
    let connector = Connector::new(&config("__consumer_offsets", named));
    connector.run();
    let stored = connector.keys();
    assert!(!stored.is_empty() && stored.iter().all(|key| key.starts_with("topics/__consumer_offsets/partition=")), "{stored:?}");
    connector.run();
    assert!(connector.keys().len() > stored.len(), "the offsets of the run before");
}

#[test]
fn a_run_that_ends_names_the_topics_that_are_not_there_and_stores_nothing() {
    topic("there", &[r#"{"n":1}"#]);
    for (topics, told_of) in [
        (json!({"topics": "there,not-there"}), r#"topics=["not-there"]"#),
        (json!({"topics": "not-there,nor-there"}), r#"topics=["not-there", "nor-there"]"#),
        (json!({"topics": "", "topics.regex": "not-th.*"}), r#"topics=["^(not-th(.)*)$"]"#),
    ] {
        let connector = Connector::new(&config("", topics));
        let (ended_well, told) = connector.end();
        assert!(!ended_well && told.contains(told_of), "{told_of}: {told}");
        assert_eq!(connector.keys(), Vec::<String>::new());
    }
}

#[test]
fn a_topic_of_dead_letters_that_cannot_be_made_ends_the_start() {
    topic("letterless", &[r#"{"n":1}"#]);
    let more = json!({"errors.tolerance": "all", "errors.deadletterqueue.topic.name": "letterless-dead"});
    let connector = Connector::new(&config("letterless", more));
    let (ended_well, told) = connector.end();
    let why = "topic=letterless-dead of dead letters is not there, and cannot be made with replication factor 3";
    assert!(!ended_well && told.contains(why) && told.contains("errors.deadletterqueue.topic.replication.factor"), "{told}");
    assert_eq!(connector.keys(), Vec::<String>::new());
}

#[test]
fn avro_by_its_registry_has_the_columns_of_its_schema() {
    let registry = Registry::start();
    let schema = json!({"type": "record", "name": "r", "fields": [
        {"name": "n", "type": "int"}, {"name": "t", "type": ["null", "string"], "default": null},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "tags", "type": {"type": "map", "values": "double"}}, {"name": "u", "type": ["int", "string"]},
    ]});
    let body = json!({"schema": schema.to_string()}).to_string();
    let (status, answer) = registry.request("POST", "/subjects/avro-value/versions", &body);
    assert_eq!(status, 200, "{answer}");
    let id = serde_json::from_str::<Value>(&answer).expect("JSON")["id"].as_u64().expect("an id");
    let message = |body: &[u8]| [&[0], &u32::try_from(id).expect("small").to_be_bytes()[..], body].concat();
    // n=5, t="hi", at=1000 ms, tags={"x": 0.5}, u="s"; then n=-1, t=null, at=0, no tags, u=5.
    let first = [&[10, 2, 4, b'h', b'i', 0xd0, 0x0f, 2, 2, b'x'][..], &0.5_f64.to_le_bytes(), &[0, 2, 2, b's']].concat();
    topic("avro", &[message(&first), message(&[1, 0, 0, 0, 0, 10])]);
    let connector = Connector::new(&config(
        "avro",
        json!({"format.class": "parquet", "value.converter": "io.confluent.connect.avro.AvroConverter", "value.converter.schema.registry.url": registry.url()}),
    ));
    connector.run();
    let key = "topics/avro/partition=0/avro+0+0000000000.snappy.parquet";
    let file = &connector.read("duckdb")[key];
    assert_eq!(file["types"]["n"], "INTEGER");
    assert_eq!(file["types"]["at"], "TIMESTAMP WITH TIME ZONE");
    assert_eq!((&file["rows"][0]["n"], &file["rows"][0]["t"]), (&json!(5), &json!("hi")));
    assert_eq!((&file["rows"][0]["tags"]["x"], &file["rows"][1]["t"]), (&json!(0.5), &Value::Null));
    assert_eq!(file["rows"][0]["u"], json!({"int": null, "string": "s"}), "a union is a record of its types");
    assert_eq!(file["rows"][1]["u"], json!({"int": 5, "string": null}));
    assert!(file["rows"][0]["at"].as_str().is_some_and(|at| at.starts_with("1970-01-01 00:00:01")), "{file}");
}

#[test]
fn a_wrong_configuration_is_told_whole_before_anything_starts() {
    let wrong = json!({"flush.size": "none", "format.class": "avro", "transforms": "x", "transforms.x.type": "Cast$Value"});
    let connector = Connector::new(&config("t", wrong));
    let done = connector.command().output().expect("it starts");
    let told = String::from_utf8_lossy(&done.stderr).into_owned();
    assert_eq!(done.status.code(), Some(2), "{told}");
    for key in ["flush.size=\"none\"", "format.class=\"avro\"", "transforms.x.type=\"Cast$Value\""] {
        assert!(told.contains(key), "{key} in {told}");
    }
}
