//! The same program with another configuration: the same rows, in a topic or a stream.

use super::*;
use support::kafka::{Kafka, Options, read_topic};
use support::nats::Nats;
use support::readers::{output, python};

/// By id: the text of the inputs and of the outputs, as SQLite has it.
fn texts(dir: &Path) -> BTreeMap<String, (String, String)> {
    let database = rusqlite::Connection::open(dir.join("predictions.db")).expect("the database opens");
    let mut query = database.prepare("SELECT id, inputs, outputs FROM predictions").expect("the table is there");
    let rows = query.query_map([], |row| Ok((row.get(0)?, (row.get(1)?, row.get(2)?)))).expect("rows");
    rows.collect::<Result<_, _>>().expect("rows")
}

/// All of a line but its time, its latency and whose it is.
fn assert_same(what: &str, lines: &[String], sqlite: &BTreeMap<String, (String, String)>) {
    let mut left = sqlite.clone();
    for line in lines {
        let record: Value = serde_json::from_str(line).expect("JSON");
        let id = record["id"].as_str().expect("an id");
        let (inputs, outputs) = left.remove(id).unwrap_or_else(|| panic!("{what}: {id} is there twice, or nobody sent it"));
        let (at, writer, seq) = (&record["timestamp"], &record["writer"], &record["seq"]);
        // As text: a JSON parser may lose a float's last bit.
        let latency = line.split_once("\"latency_ms\":").and_then(|(_, rest)| rest.split(',').next()).unwrap_or_default();
        let expected = format!(
            "{{\"timestamp\":{at},\"model_name\":\"wine-quality\",\"id\":\"{id}\",\"model_version\":\"1\",\"inputs\":{inputs},\"outputs\":{outputs},\
             \"status_code\":200,\"latency_ms\":{latency},\"writer\":{writer},\"seq\":{seq}}}"
        );
        assert_eq!(line, &expected, "{what}");
    }
    assert!(left.is_empty(), "{what}: {} are missing", left.len());
}

#[test]
fn another_configuration_streams_the_same_rows() {
    let work = tempfile::tempdir().expect("a temporary directory");
    let [sqlite, kafka_dir, nats_dir] = ["sqlite", "kafka", "nats"].map(|name| work.path().join(name));
    replay("simple.toml", &[("PREDLOG_DIRECT__DIR", text(&sqlite))]);
    let rows = texts(&sqlite);
    assert_eq!(rows.len(), 1599);

    let kafka = Kafka::start(&Options::default());
    let brokers = kafka.bootstrap();
    ["predictions", "predictions-ledger"].iter().for_each(|topic| kafka.create_topic(topic, 3));
    replay("kafka.toml", &[("PREDLOG_KAFKA__BROKERS", &brokers), ("PREDLOG_KAFKA__FALLBACK__DIR", text(&kafka_dir))]);
    assert_eq!(read_topic(&brokers, "predictions", 1599).len(), 1599);
    let mut reader = python("tests/services/read_kafka.py");
    reader.args([&brokers, "predictions", "1599"]);
    let read = output(reader);
    let messages = read.lines().map(|message| serde_json::from_str::<Value>(message).expect("the reader prints JSON"));
    let messages: Vec<Value> = messages.collect();
    let value = |message: &Value| message["value"].as_str().expect("a value").to_owned();
    assert_same("kafka", &messages.iter().map(value).collect::<Vec<_>>(), &rows);
    for message in &messages {
        let record: Value = serde_json::from_str(&value(message)).expect("JSON");
        assert_eq!((&message["key"], &message["headers"]["predlog-writer"]), (&record["id"], &record["writer"]));
    }

    let nats = Nats::start();
    let env = [("PREDLOG_NATS__SERVERS", &*nats.url()), ("PREDLOG_NATS__FALLBACK__DIR", text(&nats_dir))];
    replay("nats.toml", &[env[0], env[1], ("PREDLOG_NATS__CREATE_STREAM", "true")]);
    let stored = nats.stored("predictions");
    let lines: Vec<String> = stored.iter().map(|message| String::from_utf8(message.payload.clone()).expect("UTF-8")).collect();
    assert_same("nats", &lines, &rows);
}
