//! `archive.table = "delta"`: what becomes of a topic is one Delta table.

use crate::support::process::wait_until;
use crate::support::spark::read_rows;
use crate::{Archive, broker, relative};
use predlog::archive::{Archiver, Job};
use predlog::config::TableKind;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use serde_json::{Value, json};
use std::sync::atomic::Ordering;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);

#[path = "../delta/readers.rs"]
mod readers;

fn archive(partitions: i32) -> Archive {
    let mut archive = Archive::new(partitions);
    archive.config.archive.table = TableKind::Delta;
    archive
}

impl Archive {
    /// The rows of the table, by its log.
    pub(crate) fn table(&self, reader: &str) -> Vec<Value> {
        readers::rows(reader, &self.bucket().join("predictions").display().to_string())
    }

    fn produce_all(&self, values: impl Iterator<Item = String>) {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", broker().bootstrap());
        let producer: ThreadedProducer<DefaultProducerContext> = config.create().expect("a producer");
        for value in values {
            let record = BaseRecord::<(), _>::to(self.topic()).payload(&value);
            producer.send(record).map_err(|(error, _)| error).expect("there is room");
        }
        producer.flush(LONG).expect("the broker takes them");
    }

    /// Commits an offset for the group, as an administrator does.
    fn commit(&self, offset: i64) {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", broker().bootstrap()).set("group.id", &self.config.archive.group);
        let consumer: BaseConsumer = config.create().expect("a consumer");
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(self.topic(), 0, Offset::Offset(offset)).expect("a partition");
        consumer.commit(&list, CommitMode::Sync).expect("the group is empty");
    }
}

#[test]
fn a_topic_becomes_one_table_of_all_models() {
    let archive = archive(3);
    archive.log("wine", (0..2_000).map(|n| json!({"n": n, "fixed acidity": 3.5, "name": "r\u{e9}d"})));
    archive.log("a/b 100%", (0..500).map(|n| json!({"n": n, "only here": [{"k": n}]})));
    let (stored, _) = archive.run();
    assert!(stored > 2_500, "the ledger's statements are stored too: {stored}");
    for reader in readers::READERS {
        let rows = archive.table(reader);
        assert_eq!(rows.len(), 2_500, "{reader}");
        let mut wine: Vec<i64> =
            rows.iter().filter(|row| row["model_name"] == "wine").filter_map(|row| row["inputs"]["n"].as_i64()).collect();
        wine.sort_unstable();
        assert_eq!(wine, (0..2_000).collect::<Vec<_>>(), "{reader}");
        let other = rows.iter().find(|row| row["model_name"] == "a/b 100%" && row["inputs"]["n"] == 7).expect("a row");
        assert_eq!(other["inputs"]["only here"][0]["k"], 7, "{reader}");
        assert!(other["date"].is_string() && other["inputs"]["name"].is_null(), "{reader}: {other}");
    }
    assert_eq!(archive.run(), (0, 0), "nothing is left to store");
    archive.log("wine", (2_000..2_010).map(|n| json!({"n": n})));
    archive.run();
    assert_eq!(archive.table("delta-rs").len(), 2_510);
    let names = relative(&archive.bucket());
    assert!(names.iter().any(|name| name.starts_with("ledger/date=")), "beside the table: {names:?}");
}

#[test]
fn ranges_that_end_together_are_one_version() {
    const PARTITIONS: i32 = 48;
    let mut archive = archive(PARTITIONS);
    archive.config.ledger.enabled = false;
    archive.log("wine", (0..4_800).map(|n| json!({"n": n})));
    assert_eq!(archive.run(), (4_800, 0));
    let table = archive.bucket().join("predictions");
    let mut numbers: Vec<_> = archive.table("delta-rs").iter().map(|row| row["inputs"]["n"].as_i64()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..4_800).map(Some).collect::<Vec<_>>());
    let log = std::fs::read_dir(table.join("_delta_log")).expect("a log").map(|entry| entry.expect("a file").path());
    let versions: Vec<_> = log.filter(|path| path.extension().is_some_and(|extension| extension == "json")).collect();
    let texts = versions.iter().map(|path| std::fs::read_to_string(path).expect("a commit"));
    let txns: usize = texts.map(|text| text.matches("\"txn\"").count()).sum();
    assert_eq!(txns, PARTITIONS as usize, "each partition has one range");
    assert!(versions.len() < txns, "{} versions of the table", versions.len());
    // Each goes on from its own offset.
    archive.log("wine", (4_800..4_900).map(|n| json!({"n": n})));
    assert_eq!(archive.run(), (100, 0));
    assert_eq!(archive.table("delta-rs").len(), 4_900);
}

#[test]
fn five_hundred_columns_that_come_and_change_are_one_table() {
    let mut archive = archive(1);
    archive.config.ledger.enabled = false;
    archive.config.rotation.max_rows = 250;
    // Each 250 rows have a hundred columns more; a column that was a number becomes a text, then null, then a list; one is nested.
    let row = |n: i64| {
        let mut inputs = serde_json::Map::new();
        for column in 0..(n / 250 + 1) * 100 {
            inputs.insert(format!("c{column}"), json!(n * 1_000 + column));
        }
        let changing = [json!(n), json!(format!("t{n}")), Value::Null, json!([n]), json!(n)];
        inputs.insert("changing".into(), changing[usize::try_from(n / 250).expect("small")].clone());
        inputs.insert("nested".into(), json!([[{"k": n}], []]));
        Value::Object(inputs)
    };
    archive.log("wide", (0..1_250).map(row));
    assert_eq!(archive.run(), (1_250, 0));
    let path = archive.bucket().join("predictions").display().to_string();
    let mut tables: Vec<_> = readers::READERS.map(|reader| (reader, archive.table(reader))).into();
    tables.push(("spark", read_rows("delta", &path)));
    for (reader, mut rows) in tables {
        rows.sort_by_key(|row| row["inputs"]["c0"].as_i64().or_else(|| beside(row)["c0"].as_i64()));
        assert_eq!(rows.len(), 1_250, "{reader}");
        for (n, found) in rows.iter().enumerate() {
            let wanted = row(i64::try_from(n).expect("small"));
            let (typed, beside) = (&found["inputs"], beside(found));
            for (name, value) in wanted.as_object().expect("an object") {
                // What does not fit its column, or has none yet, is in the JSON beside.
                let found = if typed[name].is_null() { &beside[name] } else { &typed[name] };
                assert_eq!(found, value, "{reader}: {name} of row {n}");
            }
        }
        assert!(rows[1_249]["inputs"]["c499"].is_i64(), "{reader}: the last column is typed");
        assert!(rows[600]["inputs"]["changing"].is_null() && rows[1_100]["inputs"]["changing"] == 1_100, "{reader}");
    }
}

fn beside(row: &Value) -> Value {
    row["inputs_json"].as_str().map_or(Value::Null, |text| serde_json::from_str(text).expect("JSON"))
}

#[test]
fn a_group_that_was_set_back_stores_nothing_twice_and_one_that_was_set_forward_goes_on() {
    let mut archive = archive(1);
    archive.config.ledger.enabled = false;
    // Of other programs: nothing but offsets tells that they were stored.
    let produce = |range: std::ops::Range<u64>| {
        range.for_each(|n| archive.produce(&format!(r#"{{"id":"{n}","model_name":"m","inputs":{{"n":{n}}}}}"#)));
    };
    produce(0..10);
    assert_eq!(archive.run(), (10, 0));
    archive.commit(3);
    produce(10..20);
    assert_eq!(archive.run(), (10, 0), "from where the table is, not the group");
    produce(20..30);
    archive.commit(25);
    assert_eq!(archive.run(), (5, 0));
    let mut found: Vec<u64> = archive.table("delta-rs").iter().filter_map(|row| row["inputs"]["n"].as_u64()).collect();
    found.sort_unstable();
    assert_eq!(found, (0..20).chain(25..30).collect::<Vec<_>>());
}

#[test]
fn a_topic_that_lost_messages_and_a_table_that_cannot_take_the_rows_are_named() {
    let mut archive = archive(1);
    archive.config.ledger.enabled = false;
    archive.produce(r#"{"id":"a","model_name":"m","inputs":{"n":1}}"#);
    archive.produce(r#"{"id":"b","model_name":"m","inputs":{"n":2}}"#);
    assert_eq!(archive.run(), (2, 0));
    // The topic ends before what the table has.
    let mut log = archive.bucket().join("predictions/_delta_log");
    log.push(format!("{:020}.json", std::fs::read_dir(&log).expect("the log").count()));
    let txn = json!({"txn": {"appId": format!("{}/{}/0", archive.config.archive.group, archive.topic()), "version": 50}});
    std::fs::write(&log, txn.to_string()).expect("a commit");
    let archiver = Archiver::new(Job::predictions(&archive.config, true).expect("a job"));
    let (stop, counters) = (archiver.stop_flag(), archiver.counters());
    let run = std::thread::spawn(move || archiver.run());
    wait_until("it fails, and begins again", Duration::from_secs(60), || counters.failures.load(Ordering::Relaxed) > 0);
    stop.store(true, Ordering::Release);
    run.join().expect("no panic").expect("it was stopped");
    assert_eq!(archive.table("delta-rs").len(), 2);

    // A table of somebody else's, whose inputs are no struct: there is nothing beside them to keep values in.
    let mut other = archive_into_foreign_table(&json!("string"));
    other.config.ledger.enabled = false;
    other.produce(r#"{"id":"a","model_name":"m","inputs":{"n":1}}"#);
    let archiver = Archiver::new(Job::predictions(&other.config, true).expect("a job"));
    let error = archiver.run().expect_err("it never will").to_string();
    assert!(error.contains("column=\"inputs\"") && error.contains("string"), "{error}");
}

#[test]
fn a_value_that_does_not_fit_another_writers_column_is_kept_beside_it() {
    let columns = [
        field("n", &json!("string")),
        field("at", &json!("timestamp")),
        field("only", &structure(&[field("t", &json!("date"))])),
    ];
    let mut archive = archive_into_foreign_table(&structure(&columns));
    archive.config.ledger.enabled = false;
    let wanted: Vec<Value> =
        [json!({"n": 1, "ours": true}), json!({"n": "1", "at": "x"}), json!({"at": 5, "only": {"t": 7}, "ours": false})].into();
    for (id, inputs) in wanted.iter().enumerate() {
        archive.produce(&json!({"id": id.to_string(), "model_name": "m", "inputs": inputs}).to_string());
    }
    assert_eq!(archive.run(), (3, 0));
    archive.produce(&json!({"id": "3", "model_name": "m", "inputs": {"n": "more"}}).to_string());
    assert_eq!(archive.run(), (1, 0));
    for reader in readers::READERS {
        let mut rows = archive.table(reader);
        rows.sort_by_key(|row| row["id"].as_str().map(str::to_owned));
        assert_eq!(rows.len(), 4, "{reader}");
        let typed: Vec<_> = rows.iter().map(|row| (&row["inputs"]["n"], &row["inputs"]["ours"])).collect();
        let (null, text) = (Value::Null, |text: &str| json!(text));
        assert_eq!(
            typed,
            [(&null, &json!(true)), (&text("1"), &null), (&null, &json!(false)), (&text("more"), &null)],
            "{reader}"
        );
        let found: Vec<_> = rows[..3].iter().map(beside).collect();
        assert_eq!(found, wanted, "{reader}");
        assert!(rows[3]["inputs_json"].is_null(), "{reader}: it fits");
    }
}

#[test]
fn a_column_that_another_writer_adds_first_is_conformed_to_while_the_archiver_runs() {
    let mut archive = archive(1);
    archive.config.ledger.enabled = false;
    archive.config.rotation.max_rows = 2_000;
    let produce = |range: std::ops::Range<u64>| {
        let text = "x".repeat(400);
        let lines = range.map(|n| json!({"id": n.to_string(), "model_name": "m", "inputs": {"n": n, "text": text}}).to_string());
        archive.produce_all(lines);
    };
    let archiver = Archiver::new(Job::predictions(&archive.config, false).expect("a job"));
    let (stop, counters) = (archiver.stop_flag(), archiver.counters());
    let running = std::thread::spawn(move || archiver.run());
    // More than waits before its types are settled, and less than a range.
    produce(0..1_500);
    let schema = archive.bucket().join("_predlog/delta-schema.json");
    wait_until("its types are settled", LONG, || std::fs::read_to_string(&schema).is_ok_and(|text| text.contains("\"n\"")));
    add_version(&archive, &structure(&[field("n", &json!("string"))]));
    produce(1_500..4_000);
    wait_until("all are stored", LONG, || counters.rows.load(Ordering::Relaxed) >= 4_000);
    stop.store(true, Ordering::Release);
    running.join().expect("no panic").expect("it ends well");
    assert!(counters.failures.load(Ordering::Relaxed) > 0, "the first files had the column as their own");
    for reader in readers::READERS {
        let rows = archive.table(reader);
        assert!(rows.iter().all(|row| row["inputs"]["n"].is_null() && row["inputs"]["text"].is_string()), "{reader}");
        let mut numbers: Vec<_> = rows.iter().filter_map(|row| beside(row)["n"].as_u64()).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, (0..4_000).collect::<Vec<_>>(), "{reader}");
    }
}

fn field(name: &str, kind: &Value) -> Value {
    json!({"name": name, "type": kind, "nullable": true, "metadata": {}})
}

fn structure(fields: &[Value]) -> Value {
    json!({"type": "struct", "fields": fields})
}

/// The table is there, of somebody else, with `inputs` of this type.
fn archive_into_foreign_table(inputs: &Value) -> Archive {
    let other = archive(1);
    add_version(&other, inputs);
    other
}

/// Another writer's commit: the table has `inputs` of this type, and what a partition needs.
fn add_version(archive: &Archive, inputs: &Value) {
    let log = archive.bucket().join("predictions/_delta_log");
    std::fs::create_dir_all(&log).expect("a directory");
    let version =
        std::fs::read_dir(&log).expect("the log").filter(|file| is_json(&file.as_ref().expect("a file").path())).count();
    let columns = |mut fields: Vec<Value>| {
        fields.push(field("inputs", inputs));
        structure(&fields).to_string()
    };
    let mut lines = Vec::new();
    match std::fs::read_to_string(log.join(format!("{:020}.json", 0))) {
        Ok(first) => {
            let actions = first.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
            let mut metadata = actions.into_iter().find(|action| action["metaData"].is_object()).expect("columns");
            let schema: Value =
                serde_json::from_str(metadata["metaData"]["schemaString"].as_str().expect("a text")).expect("JSON");
            let others = schema["fields"].as_array().expect("columns").iter().filter(|field| field["name"] != "inputs");
            metadata["metaData"]["schemaString"] = json!(columns(others.cloned().collect()));
            lines.push(metadata);
        }
        Err(_) => {
            let fields = vec![field("model_name", &json!("string")), field("date", &json!("date"))];
            lines.push(json!({"protocol": {"minReaderVersion": 1, "minWriterVersion": 2}}));
            lines.push(
                json!({"metaData": {"id": "t", "format": {"provider": "parquet", "options": {}}, "schemaString": columns(fields),
                "partitionColumns": ["model_name", "date"], "configuration": {}, "createdTime": 0}}),
            );
        }
    }
    let lines: Vec<String> = lines.iter().map(Value::to_string).collect();
    std::fs::write(log.join(format!("{version:020}.json")), lines.join("\n")).expect("a commit");
}

fn is_json(path: &std::path::Path) -> bool {
    path.extension().is_some_and(|extension| extension == "json")
}
