use super::*;
use crate::archive::encoder::{Content, NoHeaders};
use crate::connect::schema::Kind;
use tempfile::TempDir;

struct Sink {
    _dir: TempDir,
    sink: S3Sink,
}

fn sink(more: &[(&str, &str)]) -> Sink {
    let given = [
        ("connector.class", "S3SinkConnector"),
        ("topics", "t"),
        ("s3.bucket.name", "b"),
        ("flush.size", "5"),
        ("format.class", "json"),
    ];
    let given = given.iter().chain(more).map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let dir = tempfile::tempdir().unwrap();
    let scratch = Arc::new(ScratchDir::open(dir.path()).unwrap());
    Sink { sink: S3Sink::new(&SinkConfig::parse("c", given).unwrap(), scratch).unwrap(), _dir: dir }
}

fn message<'a>(offset: i64, value: Option<&'a str>) -> Message<'a> {
    Message {
        topic: "t",
        partition: 2,
        offset,
        timestamp: Some(1_709_640_000_000 + offset * 1_000),
        key: None,
        value: value.map(str::as_bytes),
        headers: &NoHeaders,
    }
}

fn push(range: &mut Box<dyn Encoder>, offset: i64, value: &str) -> Pushed {
    range.push(&message(offset, Some(value))).unwrap()
}

const TAKEN: Pushed = Pushed::Taken { rows: 1 };

fn objects(range: Box<dyn Encoder>) -> Vec<(String, String)> {
    let text = |content| match content {
        Content::Bytes(bytes) => String::from_utf8(bytes).unwrap(),
        Content::File(_) => "a file".to_owned(),
    };
    range.finish().unwrap().into_iter().map(|object| (object.key, text(object.content))).collect()
}

#[test]
fn a_range_has_a_file_for_each_directory() {
    let sink = sink(&[("partitioner.class", "FieldPartitioner"), ("partition.field.name", "c"), ("topics.dir", "d")]);
    let mut range = sink.sink.open("t", 2, 10).unwrap();
    for (offset, value) in [(10, r#"{"c":"a"}"#), (11, r#"{"c":"b"}"#), (12, r#"{"c":"a","x":1}"#)] {
        assert_eq!(push(&mut range, offset, value), TAKEN);
    }
    assert!(matches!(push(&mut range, 13, "{}"), Pushed::Rejected(it) if it.why.contains("partition.field.name=c")));
    assert!(matches!(push(&mut range, 14, "{"), Pushed::Rejected(it) if it.why.contains("not JSON")));
    let expected = [
        ("d/t/c=a/t+2+0000000010.json", "{\"c\":\"a\"}\n{\"c\":\"a\",\"x\":1}\n"),
        ("d/t/c=b/t+2+0000000011.json", "{\"c\":\"b\"}\n"),
    ];
    assert_eq!(objects(range), expected.map(|(key, text)| (key.to_owned(), text.to_owned())));
}

#[test]
fn messages_without_a_value_are_left_out_or_refused() {
    for (behavior, expected) in [("ignore", Pushed::Taken { rows: 0 }), ("fail", Pushed::Rejected(Rejection::default()))] {
        let sink = sink(&[("behavior.on.null.values", behavior)]);
        let mut range = sink.sink.open("t", 2, 0).unwrap();
        for value in [None, Some("null")] {
            let pushed = range.push(&message(0, value)).unwrap();
            assert_eq!(std::mem::discriminant(&pushed), std::mem::discriminant(&expected), "{behavior}: {pushed:?}");
        }
        assert_eq!(objects(range), []);
    }
}

#[test]
fn rows_alone_fill_the_files() {
    let sink = sink(&[("flush.size", "2"), ("behavior.on.null.values", "ignore")]);
    let mut range = sink.sink.open("t", 2, 0).unwrap();
    let due = |range: &dyn Encoder| range.is_due(Timestamp::from_micros(0));
    assert_eq!(push(&mut range, 0, "1"), TAKEN);
    assert_eq!(range.push(&message(1, None)).unwrap(), Pushed::Taken { rows: 0 });
    assert!(matches!(push(&mut range, 2, "{"), Pushed::Rejected(_)) && !due(&*range));
    assert_eq!(push(&mut range, 3, "2"), TAKEN);
    assert!(due(&*range));
    assert_eq!(push(&mut range, 4, "3"), Pushed::Rotate);
    assert_eq!(objects(range)[0].1, "1\n2\n");
    let mut range = sink.sink.open("t", 2, 0).unwrap();
    for offset in 0..100_000 {
        assert_eq!(range.push(&message(offset, None)).unwrap(), Pushed::Taken { rows: 0 });
    }
    assert!(due(&*range), "the offset of tombstones is committed some time");
}

const HOURLY: [(&str, &str); 4] =
    [("partitioner.class", "HourlyPartitioner"), ("locale", "en"), ("timezone", "UTC"), ("rotate.interval.ms", "3000")];

#[test]
fn a_records_time_ends_the_files() {
    let sink = sink(&[&HOURLY[..], &[("timestamp.extractor", "Record")]].concat());
    let mut range = sink.sink.open("t", 2, 0).unwrap();
    for offset in [0, 1, 2] {
        assert_eq!(push(&mut range, offset, "{}"), TAKEN);
    }
    assert_eq!(push(&mut range, 3, "{}"), Pushed::Rotate, "three seconds after the first");
    let (key, _) = objects(range).remove(0);
    assert_eq!(key, "topics/t/year=2024/month=03/day=05/hour=12/t+2+0000000000.json");
    let mut range = sink.sink.open("t", 2, 3).unwrap();
    assert_eq!(push(&mut range, 3, "{}"), TAKEN);
    let earlier = Message { timestamp: Some(1_709_600_000_000), ..message(4, Some("{}")) };
    assert_eq!(range.push(&earlier).unwrap(), Pushed::Rotate, "another hour");
    let timeless = Message { timestamp: None, ..message(4, Some("{}")) };
    assert!(matches!(range.push(&timeless).unwrap(), Pushed::Rejected(it) if it.why.contains("has no time")));
    assert!(!range.is_due(Timestamp::from_micros(i64::MAX)), "only records' times count");
}

#[test]
fn the_wall_clock_ends_the_files() {
    let sink = sink(&HOURLY);
    let mut range = sink.sink.open("t", 2, 0).unwrap();
    let now = Timestamp::from(SystemTime::now()).micros();
    assert!(!range.is_due(Timestamp::from_micros(now + 10_000_000)), "nothing is in it");
    assert_eq!(push(&mut range, 0, "{}"), TAKEN);
    assert!(!range.is_due(Timestamp::from_micros(now)));
    assert!(range.is_due(Timestamp::from_micros(now + 3_600_000_000)));
}

#[test]
fn the_schedule_ends_the_files() {
    let sink = sink(&[("rotate.schedule.interval.ms", "20000"), ("timezone", "UTC")]);
    let range = sink.sink.open("t", 2, 0).unwrap();
    let now = Timestamp::from(SystemTime::now()).micros();
    assert!(range.is_due(Timestamp::from_micros(now + 20_000_000)));
    let next = (now / 20_000_000 + 1) * 20_000_000;
    assert!(!range.is_due(Timestamp::from_micros(next - 20_000_001)));
}

fn typed(version: i64, fields: &str, payload: &str) -> String {
    format!(r#"{{"schema":{{"type":"struct","version":{version},"fields":[{fields}]}},"payload":{payload}}}"#)
}

const A: &str = r#"{"field":"a","type":"int64"}"#;
const A_B: &str = r#"{"field":"a","type":"int64"},{"field":"b","type":"string","optional":true,"default":"x"}"#;

#[test]
fn a_change_of_schema_ends_the_files_unless_it_is_compatible() {
    let (first, second) = (typed(1, A, r#"{"a":1}"#), typed(2, A_B, r#"{"a":2,"b":"y"}"#));
    for (compatibility, order, expected) in [
        ("NONE", [&first, &second], None),
        ("NONE", [&second, &first], None),
        ("NONE", [&first, &first], Some("{\"a\":1}\n{\"a\":1}\n")),
        ("BACKWARD", [&first, &second], None),
        ("BACKWARD", [&second, &first], Some("{\"a\":2,\"b\":\"y\"}\n{\"a\":1,\"b\":\"x\"}\n")),
        ("FULL", [&second, &first], Some("{\"a\":2,\"b\":\"y\"}\n{\"a\":1,\"b\":\"x\"}\n")),
        ("FORWARD", [&first, &second], Some("{\"a\":1}\n{\"a\":2}\n")),
        ("FORWARD", [&second, &first], None),
    ] {
        let sink = sink(&[("schema.compatibility", compatibility)]);
        let mut range = sink.sink.open("t", 2, 0).unwrap();
        assert_eq!(push(&mut range, 0, order[0]), TAKEN);
        let pushed = push(&mut range, 1, order[1]);
        match expected {
            None => assert_eq!(pushed, Pushed::Rotate, "{compatibility}"),
            Some(expected) => {
                assert_eq!(pushed, TAKEN, "{compatibility}");
                assert_eq!(objects(range)[0].1, expected, "{compatibility}");
            }
        }
    }
}

#[test]
fn a_compatible_schema_needs_a_version() {
    let schema = |version| Arc::new(Schema { version, ..Schema::optional(Kind::Int64) });
    let other = Arc::new(Schema::optional(Kind::String));
    assert!(matches!(change(Compatibility::Full, Some(&schema(Some(1))), Some(&other)), Change::Refused(_)));
    assert_eq!(change(Compatibility::None, Some(&schema(None)), Some(&other)), Change::Other);
    assert_eq!(change(Compatibility::Full, Some(&schema(Some(1))), None), Change::Other, "plain JSON after typed");
    assert_eq!(change(Compatibility::Full, None, None), Change::None);
}

#[test]
fn a_router_makes_another_directory() {
    let sink = sink(&[
        ("transforms", "r"),
        ("transforms.r.type", "RegexRouter"),
        ("transforms.r.regex", "(.)"),
        ("transforms.r.replacement", "all-$1"),
    ]);
    let mut range = sink.sink.open("t", 2, 7).unwrap();
    assert_eq!(push(&mut range, 7, "1"), TAKEN);
    assert_eq!(objects(range)[0].0, "topics/all-t/partition=2/all-t+2+0000000007.json");
}

#[test]
fn files_of_topics_that_meet_in_one_are_named_by_their_source() {
    let sink = sink(&[
        ("topics", "t, u"),
        ("transforms", "r"),
        ("transforms.r.type", "RegexRouter"),
        ("transforms.r.regex", "."),
        ("transforms.r.replacement", "all"),
    ]);
    let keys = ["t", "u"].map(|topic| {
        let mut range = sink.sink.open(topic, 2, 7).unwrap();
        assert_eq!(range.push(&Message { topic, ..message(7, Some("1")) }).unwrap(), TAKEN);
        objects(range).remove(0).0
    });
    assert_eq!(keys, ["topics/all/partition=2/t+2+0000000007.json", "topics/all/partition=2/u+2+0000000007.json"]);
}

#[test]
fn columns_that_are_settled_end_the_files() {
    let sink = sink(&[("format.class", "parquet"), ("flush.size", "100000")]);
    let mut range = sink.sink.open("t", 2, 0).unwrap();
    for offset in 0..8_192 {
        assert_eq!(push(&mut range, offset, r#"{"a":1}"#), TAKEN);
    }
    assert_eq!(push(&mut range, 8_192, r#"{"a":1,"b":2}"#), Pushed::Rotate);
    assert!(range.memory() > 0);
    let finished = range.finish().unwrap();
    assert_eq!((finished.len(), finished[0].rows), (1, 8_192));
    assert_eq!(finished[0].key, "topics/t/partition=2/t+2+0000000000.snappy.parquet");
}
