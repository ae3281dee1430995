//! `archive.table = "delta"`: what becomes of a topic is one Delta table.

use crate::support::process::wait_until;
use crate::support::spark::read_rows;
use crate::{Archive, broker, relative};
use predlog::archive::{Archiver, Job};
use predlog::config::TableKind;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use serde_json::{Value, json};
use std::sync::atomic::Ordering;
use std::time::Duration;

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

    // A table of somebody else's, whose column has another type.
    let mut other = archive_into_foreign_table();
    other.config.ledger.enabled = false;
    other.produce(r#"{"id":"a","model_name":"m","inputs":{"n":1}}"#);
    let archiver = Archiver::new(Job::predictions(&other.config, true).expect("a job"));
    let error = archiver.run().expect_err("it never will").to_string();
    assert!(error.contains("inputs.n") && error.contains("string") && error.contains("long"), "{error}");
}

/// The table is there, with `inputs.n` as text.
fn archive_into_foreign_table() -> Archive {
    let other = archive(1);
    let log = other.bucket().join("predictions/_delta_log");
    std::fs::create_dir_all(&log).expect("a directory");
    let field = |name: &str, kind: Value| json!({"name": name, "type": kind, "nullable": true, "metadata": {}});
    let inputs = json!({"type": "struct", "fields": [field("n", json!("string"))]});
    let fields = [field("inputs", inputs), field("model_name", json!("string")), field("date", json!("date"))];
    let lines = [
        json!({"protocol": {"minReaderVersion": 1, "minWriterVersion": 2}}),
        json!({"metaData": {"id": "t", "format": {"provider": "parquet", "options": {}}, "schemaString": json!({"type": "struct", "fields": fields}).to_string(),
            "partitionColumns": ["model_name", "date"], "configuration": {}, "createdTime": 0}}),
    ];
    std::fs::write(log.join(format!("{:020}.json", 0)), lines.map(|line| line.to_string()).join("\n")).expect("a commit");
    other
}
