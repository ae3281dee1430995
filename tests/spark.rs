//! Spark beside predlog: the job of examples/spark/ from a topic into a Delta table, and Spark reading what predlog wrote.
#![cfg(feature = "cli")]

#[path = "delta/files.rs"]
mod files;
mod support;

use files::{PARTITIONS, directory, empty_schema, encode, file, line};
use predlog::compact::CompactOptions;
use predlog::delta::{Commit, DeltaSettings, DeltaTable};
use predlog::format::schema::ModelSchema;
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::time::Duration;
use support::kafka::{Kafka, Options};
use support::spark::{Asked, read_tables, submit};

const ROWS: u64 = 1_000;
/// The columns that are summed up. A name with a space is one that Spark does not write itself.
const SUMS: &str = "seq,inputs.age,inputs.fixed acidity";

/// What Spark must find of the rows `0..rows`, and of nothing else.
fn expected(rows: u64) -> Value {
    let acidity: f64 = (0..rows).map(|seq| (seq % 7) as f64 + 0.5).sum();
    let sum = (0..rows).sum::<u64>();
    json!({"rows": rows, "ids": rows, "seq": sum, "inputs.age": sum, "inputs.fixed acidity": acidity})
}

/// A Delta table and a plain layout with the same rows, in files of 100, with a column that comes later.
fn write_with_predlog(table: &Path, layout: &Path) {
    let open = DeltaTable::open_or_create(&directory(table), DeltaSettings::default(), &empty_schema(), &PARTITIONS).unwrap();
    let mut sticky = ModelSchema::default();
    for first in (0..ROWS).step_by(100) {
        let more = if first < ROWS / 2 { "" } else { r#","origin":{"country":"PT"}"# };
        let (encoded, add) = file(table, &mut sticky, "wine/é 100%", "w", first..first + 100, more);
        encoded.write(&layout.join("predictions"), &add);
        open.commit(Commit { adds: vec![add], schemas: vec![&encoded.schema], ..Commit::default() }).unwrap();
    }
    open.checkpoint().unwrap();
    // Spark reads the commit of a compaction, too.
    let young = CompactOptions { min_age: Duration::ZERO, ..CompactOptions::default() };
    open.optimize(&young, &mut |_| {}).unwrap();
}

#[test]
fn spark_reads_what_predlog_wrote() {
    let dir = tempfile::tempdir().unwrap();
    let (table, layout) = (dir.path().join("table"), dir.path().join("layout"));
    fs::create_dir(&table).unwrap();
    write_with_predlog(&table, &layout);
    let predictions = layout.join("predictions");
    let asked = [("delta", &table), ("parquet", &predictions)].map(|(format, path)| Asked {
        format,
        path: path.to_str().unwrap(),
        sums: SUMS,
    });
    let [delta, parquet] = &read_tables(&asked, &[])[..] else { panic!("two tables were asked for") };
    assert_eq!(*delta, expected(ROWS));
    assert_eq!(*parquet, expected(ROWS));
}

#[test]
fn the_job_stores_a_topic_once_and_predlog_reads_its_table() {
    let (kafka, dir) = (Kafka::start(&Options::default()), tempfile::tempdir().unwrap());
    kafka.create_topic("predictions", 2);
    let (table, checkpoint) = (dir.path().join("table"), dir.path().join("checkpoint"));
    let schema = dir.path().join("schema.json");
    let field = |name: &str, kind: &str| json!({"name": name, "type": kind, "nullable": true, "metadata": {}});
    let inputs = json!({"type": "struct", "fields": [field("age", "long")]});
    let outputs = json!({"type": "struct", "fields": [field("score", "double")]});
    fs::write(&schema, json!({"inputs": inputs, "outputs": outputs}).to_string()).unwrap();
    let run = |rows: u64| {
        let given = [("--bootstrap", kafka.bootstrap()), ("--topic", "predictions".into())];
        let paths = [("--table", &table), ("--checkpoint", &checkpoint), ("--schema", &schema)];
        let paths = paths.map(|(key, path)| (key, path.display().to_string()));
        let arguments: Vec<&str> = given.iter().chain(&paths).flat_map(|(key, value)| [*key, value]).collect();
        let printed = submit("examples/spark/predictions_to_delta.py", &arguments, &[]);
        let told: Value =
            serde_json::from_str(printed.lines().find(|line| line.starts_with('{')).expect("it tells what it did")).unwrap();
        assert_eq!(told["rows"], rows);
    };
    produce(&kafka, (0..ROWS).map(|seq| line("wine", "w", seq, "")));
    produce(&kafka, ["no prediction".to_owned()]);
    run(ROWS + 1);
    produce(&kafka, (ROWS..ROWS + 10).map(|seq| line("wine", "w", seq, "")));
    run(10);
    let asked = Asked { format: "delta", path: table.to_str().unwrap(), sums: "seq,inputs.age" };
    let found = read_tables(&[asked], &[]).remove(0);
    let (rows, sum) = (ROWS + 10, (0..ROWS + 10).sum::<u64>());
    assert_eq!(found, json!({"rows": rows + 1, "ids": rows, "seq": sum, "inputs.age": sum}), "and the one that is no prediction");
    // predlog goes on in Spark's table.
    let open = DeltaTable::open(&directory(&table), DeltaSettings::default()).unwrap();
    let encoded = encode("wine", &mut ModelSchema::default(), &[line("wine", "w", rows, "")]);
    let add = encoded.add("wine", "one-more.parquet");
    encoded.write(&table, &add);
    open.commit(Commit { adds: vec![add], schemas: vec![&encoded.schema], ..Commit::default() }).unwrap();
    assert!(open.schema().unwrap().field_with_name("inputs_json").is_ok());
}

fn produce(kafka: &Kafka, lines: impl IntoIterator<Item = String>) {
    let producer: BaseProducer = ClientConfig::new().set("bootstrap.servers", kafka.bootstrap()).create().unwrap();
    for (at, line) in lines.into_iter().enumerate() {
        let partition = i32::try_from(at % 2).unwrap();
        producer
            .send(BaseRecord::<(), _>::to("predictions").payload(&line).partition(partition))
            .map_err(|(error, _)| error)
            .unwrap();
    }
    producer.flush(Duration::from_secs(30)).unwrap();
}
