use super::*;
use crate::connect::partitioner::Extractor;
use std::io::Write as _;

const SEED: &str = r#"{
  "connector.class": "io.confluent.connect.s3.S3SinkConnector",
  "storage.class": "io.confluent.connect.s3.storage.S3Storage",
  "s3.region": "us-east-1",
  "s3.bucket.name": "myorg-models",
  "topics.dir": "my-model/serving",
  "flush.size": "2",
  "rotate.schedule.interval.ms": "20000",
  "auto.register.schemas": "false",
  "tasks.max": "1",
  "s3.part.size": "5242880",
  "timezone": "UTC",
  "parquet.codec": "snappy",
  "topics": "my-model",
  "s3.credentials.provider.class": "com.amazonaws.auth.DefaultAWSCredentialsProviderChain",
  "format.class": "parquet",
  "value.converter": "org.apache.kafka.connect.json.JsonConverter",
  "key.converter": "org.apache.kafka.connect.storage.StringConverter",
  "schema.registry.url": "http://my-schema-registry",
  "value.converter.schema.registry.url": "http://my-schema-registry"
}"#;

fn seed(changes: &[(&str, &str)]) -> Result<SinkConfig, Problems> {
    let (_, mut given) = entries(SEED).unwrap();
    for (key, value) in changes {
        match *value {
            "-" => drop(given.remove(*key)),
            value => drop(given.insert((*key).to_owned(), value.to_owned())),
        }
    }
    SinkConfig::parse("c", given)
}

fn problems(changes: &[(&str, &str)]) -> String {
    seed(changes).expect_err("something is wrong").to_string()
}

#[test]
fn the_seed_is_understood() {
    let config = seed(&[]).unwrap();
    assert_eq!((&*config.bucket, &*config.region, config.part_size), ("myorg-models", "us-east-1", 5 << 20));
    assert_eq!(config.topics, ["my-model"]);
    assert_eq!(
        config.names,
        Names { topics_dir: "my-model/serving".into(), file_delim: "+".into(), pad_width: 10, by_source: false }
    );
    assert_eq!((config.rotation.flush_size, config.rotation.interval_ms), (2, None));
    assert_eq!(config.rotation.schedule.as_ref().map(|(ms, _)| *ms), Some(20_000));
    assert_eq!(config.format, FileFormat::Parquet(Codec::Snappy));
    assert_eq!(config.value_converter.kind, ConverterKind::Json(Envelope::WhereFound));
    assert_eq!(config.key_converter.kind, ConverterKind::String);
    assert_eq!((config.tolerate, config.ignore_nulls, config.compatibility), (false, false, Compatibility::None));
    assert!(matches!(config.partitioner, Partitioner::Default));
    let warnings = config.warnings.join("\n");
    assert_eq!(config.warnings.len(), 3, "{warnings}");
    assert!(warnings.contains("auto.register.schemas=\"false\": has no effect here"), "{warnings}");
}

#[test]
fn a_file_may_have_its_name_beside_its_keys() {
    let mut file = tempfile::Builder::new().prefix("named-").suffix(".json").tempfile().unwrap();
    write!(file, "{{\"name\":\"given\",\"config\":{SEED}}}").unwrap();
    assert_eq!(load(file.path()).unwrap().name, "given");
    let mut file = tempfile::Builder::new().prefix("bare").suffix(".json").tempfile().unwrap();
    file.write_all(SEED.as_bytes()).unwrap();
    assert!(load(file.path()).unwrap().name.starts_with("bare"));
    let error = load(Path::new("/nowhere/c.json")).unwrap_err().to_string();
    assert!(error.contains("file=/nowhere/c.json"), "{error}");
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"{\"aws.secret.access.key\": hunter2}").unwrap();
    let error = load(file.path()).unwrap_err().to_string();
    assert!(error.contains("not a JSON object: line 1") && !error.contains("hunter2"), "{error}");
}

#[test]
fn all_that_is_wrong_is_told_at_once() {
    let told = problems(&[
        ("flush.size", "0"),
        ("s3.bucket.name", "-"),
        ("parquet.codec", "snapy"),
        ("s3.part.size", "100"),
        ("timezone", "Mars/Olympus"),
        ("format.class", "io.confluent.connect.s3.format.avro.AvroFormat"),
        ("errors.tolerance", "some"),
        ("topics.dir", "a/../b"),
        ("file.delim", "a/b"),
        ("topics.regex", "a.*"),
        ("value.converter", "com.example.Protobuf"),
    ]);
    for expected in [
        "flush.size=\"0\": expected a whole number from 1 to 2147483647",
        "s3.bucket.name is not set: expected the bucket's name",
        "parquet.codec=\"snapy\": expected one of snappy, none, gzip, lz4, zstd; did you mean snappy?",
        "s3.part.size=\"100\": expected a whole number from 5242880 to 2147483647",
        "timezone=\"Mars/Olympus\": expected a name of the time zone database",
        "format.class=\"io.confluent.connect.s3.format.avro.AvroFormat\": expected one of",
        "errors.tolerance=\"some\": expected one of none, all",
        "topics.dir=\"a/../b\": expected directories with one / between them",
        "file.delim=\"a/b\": expected text without /",
        "topics.regex=\"a.*\": expected either topics or topics.regex",
        "value.converter=\"com.example.Protobuf\": expected one of",
    ] {
        assert!(told.contains(expected), "{expected} in:\n{told}");
    }
}

#[test]
fn an_unknown_key_is_a_warning_and_one_that_cannot_be_done_an_error() {
    let config = seed(&[("flush.sise", "3"), ("s3.wan.mode", "false"), ("my.secret", "hunter2")]).unwrap();
    let warnings = config.warnings.join("\n");
    assert!(warnings.contains("flush.sise: unknown key, without effect; did you mean flush.size?"), "{warnings}");
    assert!(warnings.contains("my.secret: unknown key") && !warnings.contains("hunter2"), "{warnings}");
    // What paces Connect's own consumer does no harm.
    let config = seed(&[("consumer.override.max.poll.records", "5000"), ("topics.dir", "a${b}c")]).unwrap();
    assert!(
        config.warnings.iter().any(|warning| warning.starts_with("consumer.override.max.poll.records=\"5000\": has no effect"))
    );
    let told = problems(&[
        ("s3.wan.mode", "true"),
        ("s3.sse.customer.key", "hunter2"),
        ("aws.secret.access.key", "hunter3"),
        ("predicates", "p"),
        ("predicates.p.type", "x"),
        ("behavior.on.null.values", "write"),
        ("consumer.override.group.id", "g"),
        ("json.decimal.format", "NUMERIC"),
        ("s3.schema.partition.affix.type", "SUFFIX"),
        ("topics.dir", "${file:/etc/secrets:dir}"),
    ]);
    assert!(!told.contains("hunter"), "{told}");
    for key in [
        "s3.sse.customer.key=<hidden>: expected the bucket's own default encryption",
        "aws.access.key.id is not set: expected whose secret aws.secret.access.key is",
        "s3.wan.mode=",
        "predicates=",
        "predicates.p.type=",
        "behavior.on.null.values=",
        "consumer.override.group.id=",
        "json.decimal.format=",
        "s3.schema.partition.affix.type=",
        "topics.dir: expected the value itself",
    ] {
        assert!(told.contains(key), "{key} in:\n{told}");
    }
}

#[test]
fn partitioners_by_time_need_what_they_need() {
    let daily = "io.confluent.connect.storage.partitioner.DailyPartitioner";
    let told = problems(&[("partitioner.class", daily), ("timezone", "-"), ("rotate.schedule.interval.ms", "-")]);
    assert!(told.contains("timezone is not set") && told.contains("locale is not set"), "{told}");
    let told = problems(&[("partitioner.class", "TimeBasedPartitioner"), ("locale", "en")]);
    assert!(told.contains("partition.duration.ms=\"-1\"") && told.contains("path.format is not set"), "{told}");
    let time_based = |format, locale| {
        seed(&[
            ("partitioner.class", "TimeBasedPartitioner"),
            ("partition.duration.ms", "60000"),
            ("path.format", format),
            ("locale", locale),
            ("timestamp.extractor", "RecordField"),
            ("timestamp.field", "meta.at"),
            ("rotate.interval.ms", "1000"),
        ])
    };
    let config = time_based("YYYY/MM", "de").unwrap();
    assert_eq!(config.partitioner.extractor(), Some(&Extractor::RecordField("meta.at".into())));
    assert_eq!((config.rotation.interval_ms, config.rotation.by_directory), (Some(1_000), true));
    let class = "io.confluent.connect.storage.partitioner.TimeBasedPartitioner$RecordTimestampExtractor";
    let hourly = seed(&[("partitioner.class", "HourlyPartitioner"), ("locale", "en"), ("timestamp.extractor", class)]).unwrap();
    assert_eq!(hourly.partitioner.extractor(), Some(&Extractor::Record));
    assert!(time_based("MMM", "en-US").is_ok());
    let told = time_based("MMM", "de").unwrap_err().to_string();
    assert!(told.contains("locale=\"de\": expected en"), "{told}");
    let config = seed(&[("rotate.interval.ms", "1000")]).unwrap();
    assert_eq!(config.rotation.interval_ms, None);
    assert!(config.warnings.iter().any(|warning| warning.starts_with("rotate.interval.ms=\"1000\": has no effect")));
    assert!(problems(&[("timezone", "-")]).contains("timezone is not set"), "the schedule needs it");
    assert!(problems(&[("partitioner.class", "FieldPartitioner")]).contains("partition.field.name is not set"));
}

#[test]
fn transforms_are_read_in_their_order() {
    let config = seed(&[
        ("transforms", "add, route,drop,day"),
        ("transforms.add.type", "org.apache.kafka.connect.transforms.InsertField$Value"),
        ("transforms.add.offset.field", "at!"),
        ("transforms.add.static.field", "who"),
        ("transforms.add.static.value", "me"),
        ("transforms.route.type", "org.apache.kafka.connect.transforms.RegexRouter"),
        ("transforms.route.regex", "(.*)-v1"),
        ("transforms.route.replacement", "$1_2"),
        ("transforms.drop.type", "ReplaceField$Key"),
        ("transforms.drop.blacklist", "a,b"),
        ("transforms.drop.renames", "c:d"),
        ("transforms.day.type", "TimestampRouter"),
    ])
    .unwrap();
    let [add, route, drop, day] = &config.transforms[..] else { panic!("{:?}", config.transforms) };
    let at = FieldName { name: "at".into(), optional: false };
    let who = FieldName { name: "who".into(), optional: true };
    assert!(matches!(add, TransformSettings::InsertField { side: Side::Value, fields }
        if *fields == [(at, Inserted::Offset), (who, Inserted::Static("me".into()))]));
    assert!(matches!(route, TransformSettings::RegexRouter { replacement, .. } if replacement == "${1}_2"));
    assert!(matches!(drop, TransformSettings::ReplaceField { side: Side::Key, exclude, .. } if exclude == &["a", "b"]));
    assert!(matches!(day, TransformSettings::TimestampRouter { .. }));
    let told = problems(&[
        ("transforms", "a,b"),
        ("transforms.a.type", "org.apache.kafka.connect.transforms.Cast$Value"),
        ("transforms.a.spec", "x:int8"),
        ("transforms.b.type", "InsertField$Value"),
        ("transforms.b.predicate", "p"),
    ]);
    assert!(told.contains("transforms.a.type=\"org.apache.kafka.connect.transforms.Cast$Value\": expected one of"), "{told}");
    assert!(told.contains("transforms.b.predicate=\"p\"") && told.contains("transforms.b: expected at least one of"), "{told}");
}

#[test]
fn formats_and_letters() {
    let config = seed(&[
        ("format.class", "io.confluent.connect.s3.format.bytearray.ByteArrayFormat"),
        ("value.converter", "ByteArrayConverter"),
        ("s3.compression.type", "gzip"),
        ("s3.compression.level", "9"),
        ("format.bytearray.separator", ""),
        ("errors.tolerance", "all"),
        ("errors.deadletterqueue.topic.name", "dead"),
        ("errors.deadletterqueue.context.headers.enable", "true"),
        ("topics", "-"),
        ("topics.regex", "a|b"),
    ])
    .unwrap();
    assert_eq!(config.format, FileFormat::ByteArray { extension: ".bin".into(), separator: vec![], gzip: Some(9) });
    assert_eq!(config.dead_letters, Some(DeadLetters { topic: "dead".into(), headers: true, replication: 3 }));
    assert_eq!(config.topics, ["^([ab])$"]);
    assert!(problems(&[("format.class", "bytearray")]).contains("value.converter: expected"));
    assert!(
        problems(&[("value.converter", "AvroConverter"), ("value.converter.schema.registry.url", "-")])
            .contains("value.converter.schema.registry.url is not set")
    );
    let without = seed(&[("errors.deadletterqueue.topic.name", "dead")]).unwrap();
    assert_eq!(without.dead_letters, None);
}
