//! The configuration file and the environment: what is complete, what is refused, and how it is said.

use predlog::config::{Mode, Store};
use predlog::{Config, ErrorKind};
use std::time::Duration;

const SIMPLE: &str = include_str!("../config/simple.toml");
const KAFKA: &str = include_str!("../config/kafka.toml");
const NATS: &str = include_str!("../config/nats.toml");
const ARCHIVE: &str = include_str!("../config/archive.toml");
/// Keys of other sections that an archiver has no good default for.
const ARCHIVE_NEEDS: [&str; 4] = ["kafka.brokers", "kafka.topic", "upload.url", "upload.endpoint"];

fn load(file: &str, variables: &[(&str, &str)]) -> Result<Config, predlog::Error> {
    let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Config::from_sources(Some(("a.toml".to_owned(), file.to_owned())), variables)
}

/// The message of a configuration that must be refused.
fn refused(file: &str, variables: &[(&str, &str)]) -> String {
    let error = load(file, variables).expect_err(file);
    assert_eq!(error.kind(), ErrorKind::Config);
    error.to_string()
}

/// The key paths of a table, all of them leaves.
fn leaves(path: &str, value: &serde_json::Value, into: &mut Vec<String>) {
    match value.as_object() {
        Some(fields) => {
            for (key, value) in fields {
                leaves(&if path.is_empty() { key.clone() } else { format!("{path}.{key}") }, value, into);
            }
        }
        None => into.push(path.to_owned()),
    }
}

/// `# key = value` lines made real.
fn uncommented(text: &str) -> String {
    let is_key = |line: &str| {
        line.split_once(" = ").is_some_and(|(key, _)| key.chars().all(|char| char.is_ascii_lowercase() || char == '_'))
    };
    text.lines().map(|line| line.strip_prefix("# ").filter(|rest| is_key(rest)).unwrap_or(line)).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_sample_files_are_the_defaults() {
    assert_eq!(Config::from_toml(SIMPLE).unwrap(), Config::default());
    assert_eq!(Config::from_toml(ARCHIVE).unwrap(), Config::default());
    if cfg!(feature = "kafka") {
        assert_eq!(Config::from_toml(KAFKA).unwrap(), Config { mode: Mode::Kafka, ..Config::default() });
    }
    if cfg!(feature = "nats") {
        assert_eq!(Config::from_toml(NATS).unwrap(), Config { mode: Mode::Nats, ..Config::default() });
    }
}

#[test]
fn the_sample_files_have_every_key_and_no_other() {
    let mut known = Vec::new();
    leaves("", &serde_json::to_value(Config::default()).unwrap(), &mut known);
    assert!(known.len() > 60, "{known:?}");
    for (sample, is_in) in [
        (SIMPLE, (|key| !["kafka.", "nats.", "archive."].iter().any(|section| key.starts_with(section))) as fn(&str) -> bool),
        (KAFKA, |key| key.starts_with("kafka.") || key == "mode"),
        (NATS, |key| key.starts_with("nats.") || key == "mode"),
        (ARCHIVE, |key| key.starts_with("archive.") || ARCHIVE_NEEDS.contains(&key)),
    ] {
        let mut expected: Vec<String> = known.iter().filter(|key| is_in(key)).cloned().collect();
        let mut shown = Vec::new();
        let table: serde_json::Value = toml::from_str(&uncommented(sample)).unwrap();
        leaves("", &table, &mut shown);
        expected.sort();
        shown.sort();
        assert_eq!(expected, shown);
        toml::from_str::<Config>(&uncommented(sample)).unwrap();
    }
}

#[test]
fn with_nothing_everything_has_a_safe_default() {
    let config = Config::from_sources(None, []).unwrap();
    assert_eq!(config, Config::default());
    assert_eq!((config.mode, config.direct.store), (Mode::Direct, Store::Sqlite));
    assert!(config.server.addr.ip().is_loopback());
    assert_eq!(config.upload.url, None);
}

#[test]
fn variables_win_over_the_file() {
    let config = load(
        "[direct]\nstore = \"sqlite\"\ndir = \"a\"\n[batch]\nmax_rows = 5",
        &[
            ("PREDLOG_DIRECT__STORE", "parquet"),
            ("PREDLOG_BATCH__MAX_AGE", "3s"),
            ("PREDLOG_SQLITE__VIEWS", "false"),
            ("PREDLOG_LOGGER__LANES", "3"),
            ("PREDLOG_LOGGER__QUEUE_BYTES", "33554432"),
            ("PREDLOG_CONFIG", "elsewhere.toml"),
            ("HOME", "/root"),
        ],
    )
    .unwrap();
    assert_eq!(config.direct.store, Store::Parquet);
    assert_eq!(config.direct.dir.to_str(), Some("a"));
    assert_eq!((config.batch.max_rows, config.batch.max_age), (5, Duration::from_secs(3)));
    assert!(!config.sqlite.views);
    assert_eq!(config.logger.lanes, Some(3));
    assert_eq!(config.logger.queue_bytes.as_u64(), 32 << 20);
}

#[test]
fn a_list_is_a_variable_too() {
    let topics = |text: &str| load("[archive]\ntopics = [\"x\"]", &[("PREDLOG_ARCHIVE__TOPICS", text)]).unwrap().archive.topics;
    for (text, expected) in [
        ("a", vec!["a"]),
        ("a,b", vec!["a", "b"]),
        (" a , ^b.*", vec!["a", "^b.*"]),
        ("7,true", vec!["7", "true"]),
        ("", vec![]),
        ("[]", vec![]),
        ("[\"a\", '^b{1,2}']", vec!["a", "^b{1,2}"]),
    ] {
        assert_eq!(topics(text), expected, "{text:?}");
    }
    let sinks = load("", &[("PREDLOG_SINKS", "[{ type = \"parquet\", name = \"recent\" }]")]).unwrap().sinks;
    assert_eq!(sinks.iter().map(|sink| sink.name()).collect::<Vec<_>>(), ["recent"]);
}

#[test]
fn a_directory_that_looks_like_a_number_is_a_directory() {
    let config = load("", &[("PREDLOG_DIRECT__DIR", "2026")]).unwrap();
    assert_eq!(config.direct.dir.to_str(), Some("2026"));
}

/// Each line: the file, and all that the message must say.
#[test]
fn what_is_wrong_is_named_with_its_value_and_the_nearest_right_one() {
    let cases: &[(&str, &[&str])] = &[
        ("[batch]\nmax_row = 5", &["a.toml", "batch.max_row=5", "did you mean `max_rows`?"]),
        ("[bacth]\nmax_rows = 5", &["bacth", "did you mean `batch`?"]),
        ("max_idle = \"5s\"", &["max_idle=\"5s\"", "did you mean `rotation.max_idle`?"]),
        ("[direct]\nmax_rows = 5", &["direct.max_rows=5", "`batch.max_rows`", "`rotation.max_rows`"]),
        ("[direct]\nwibble = 5", &["direct.wibble=5", "expected one of [direct]'s keys", "retain_bytes"]),
        (
            "[direct]\nstore = \"sqllite\"",
            &["a.toml", "direct.store=\"sqllite\"", "\"sqlite\", \"parquet\"", "did you mean \"sqlite\"?"],
        ),
        ("[direct]\nstore = 5", &["direct.store=5", "expected a name"]),
        ("direct = 5", &["direct=5", "expected a table"]),
        ("[direct]\ndir = 5", &["direct.dir=5", "expected a path"]),
        ("mode = \"kafak\"", &["mode=\"kafak\"", "did you mean \"kafka\"?"]),
        ("[logger]\ndurability = \"disk\"", &["logger.durability=\"disk\"", "\"memory\", \"process\", \"fsync\""]),
        ("[logger]\noverflow = \"spil\"", &["logger.overflow=\"spil\"", "did you mean \"spill\"?"]),
        ("[logger]\nqueue_bytes = \"64 parsecs\"", &["logger.queue_bytes=\"64 parsecs\"", "expected a size such as"]),
        ("[logger]\nqueue_bytes = -1", &["logger.queue_bytes=-1", "expected a size"]),
        ("[logger]\nqueue_bytes = 1.5", &["logger.queue_bytes=1.5", "expected a size"]),
        ("[logger]\nqueue_bytes = \"10KiB\"", &["logger.queue_bytes=10.0 KiB", "expected 1.0 MiB to"]),
        ("[logger]\nlanes = 0", &["logger.lanes=0", "expected 1 to 64"]),
        ("[logger]\nlanes = \"two\"", &["logger.lanes=\"two\"", "a whole number"]),
        ("[logger]\noverflow = \"block\"\nblock_limit = \"0s\"", &["logger.block_limit=0s", "expected 1ms to 1m"]),
        ("[batch]\nmax_age = \"soon\"", &["batch.max_age=\"soon\"", "a duration with its unit"]),
        ("[batch]\nmax_age = 5", &["batch.max_age=5", "a duration with its unit"]),
        ("[batch]\nmax_age = \"0s\"", &["batch.max_age=0s", "expected 1ms to"]),
        ("[batch]\nmax_rows = 0", &["batch.max_rows=0", "expected 1 to"]),
        ("[batch]\nmax_rows = -3", &["batch.max_rows=-3", "a whole number"]),
        ("[rotation]\nschedule = \"0s\"", &["rotation.schedule=0s", "expected 1s to"]),
        ("[sqlite]\nviews = \"yes\"", &["sqlite.views=\"yes\"", "true or false"]),
        ("[server]\naddr = \"localhost\"", &["server.addr=\"localhost\"", "an address and port"]),
        ("[server]\nmax_body = 0", &["server.max_body=0 B", "expected 1.0 KiB to"]),
        ("[upload]\nurl = \"s4://bucket\"", &["upload.url=\"s4://bucket\"", "did you mean \"s3://\"?"]),
        ("[upload]\nurl = \"bucket\"", &["upload.url=\"bucket\"", "expected s3://bucket/prefix"]),
        ("[upload]\nurl = \"s3://b\"\nendpoint = \"minio:9000\"", &["upload.endpoint=\"minio:9000\"", "https://host:port"]),
        ("[direct", &["a.toml", "line=1", "not TOML"]),
        ("a = 1\na = 2", &["line=2", "duplicate"]),
    ];
    for (file, said) in cases {
        let message = refused(file, &[]);
        for said in *said {
            assert!(message.contains(said), "{file:?}: {message:?} does not say {said:?}");
        }
    }
}

#[test]
fn a_wrong_variable_is_named() {
    for (name, value, said) in [
        ("PREDLOG_DIRECT__STOR", "x", "did you mean `PREDLOG_DIRECT__STORE`?"),
        ("PREDLOG_DIRECT_STORE", "x", "did you mean `PREDLOG_DIRECT__STORE`?"),
        ("PREDLOG_NOTHING_LIKE_IT", "x", "expected PREDLOG_<SECTION>__<KEY>"),
        ("PREDLOG_DIRECT__STORE", "csv", "direct.store=\"csv\": expected one of \"sqlite\", \"parquet\""),
        ("PREDLOG_BATCH__MAX_ROWS", "many", "batch.max_rows=\"many\": expected a whole number"),
        ("PREDLOG_BATCH__MAX_ROWS", "0", "batch.max_rows=0: expected 1 to"),
        ("PREDLOG_ARCHIVE__TOPICS", "a,,b", "archive.topics=\"\": expected names of topics"),
        ("PREDLOG_ARCHIVE__TOPICS", "[a, b]", "archive.topics=\"[a, b]\": expected values with commas between them"),
        ("PREDLOG_ARCHIVE__TOPICS", "[1]", "archive.topics[0]=1: expected a string"),
        ("PREDLOG_SINKS", "parquet", "sinks[0]=\"parquet\": expected a table of keys"),
    ] {
        let message = refused("", &[(name, value)]);
        assert!(message.starts_with(&format!("variable={name}: ")) && message.contains(said), "{message}");
    }
}

#[test]
fn a_conflict_is_named_with_both_values_and_where_each_is_from() {
    let message = refused("[batch]\nmax_bytes = \"32MiB\"", &[("PREDLOG_LOGGER__QUEUE_BYTES", "16MiB")]);
    for said in ["file=a.toml: batch.max_bytes=32.0 MiB", "variable=PREDLOG_LOGGER__QUEUE_BYTES: logger.queue_bytes=16.0 MiB"] {
        assert!(message.contains(said), "{message}");
    }
    let message = refused("[upload]\nurl = \"s3://b\"\nendpoint = \"http://h:9000\"", &[]);
    assert!(message.contains("upload.endpoint=\"http://h:9000\" conflicts with default: upload.allow_http=false"), "{message}");
    let message = refused("[upload]\nendpoint = \"https://h:9000\"", &[]);
    assert!(message.contains("upload.url=not set"), "{message}");
    let message = refused("[logger]\nqueue_bytes = \"4MiB\"\nmax_record_bytes = \"8MiB\"", &[]);
    assert!(message.contains("logger.max_record_bytes=8.0 MiB conflicts with"), "{message}");
}

#[test]
fn every_problem_has_its_line() {
    let message = refused("[batch]\nmax_rows = 0\nmax_age = \"0s\"\n[server]\nmax_requests = 0", &[]);
    assert_eq!(message.lines().count(), 3, "{message}");
    let message = refused("[batch]\nmax_row = 0\n[server]\nadr = 0", &[("PREDLOG_X", "1")]);
    assert_eq!(message.lines().count(), 3, "{message}");
    let file =
        "direct = 5\n[batch]\nmax_row = 0\nmax_rows = \"x\"\nmax_age = 5\n[archive]\ntopics = [1]\n[server]\nmax_requests = 0";
    let message = refused(file, &[("PREDLOG_X", "1"), ("PREDLOG_SQLITE__VIEWS", "maybe"), ("PREDLOG_DIRECT__STORE", "parquet")]);
    for said in [
        "file=a.toml: unknown key batch.max_row=0",
        "variable=PREDLOG_X: unknown key",
        "file=a.toml: batch.max_rows=\"x\": expected a whole number",
        "file=a.toml: batch.max_age=5: expected a duration",
        "file=a.toml: archive.topics[0]=1: expected a string",
        "variable=PREDLOG_SQLITE__VIEWS: sqlite.views=\"maybe\": expected true or false",
        "file=a.toml: server.max_requests=0: expected 1 to",
    ] {
        assert!(message.lines().any(|line| line.starts_with(said)), "{message:?} does not say {said:?}");
    }
    assert_eq!(message.lines().count(), 7, "{message}");
    let message = refused("[batch\n", &[("PREDLOG_BATCH__MAX_ROWS", "0")]);
    assert_eq!(message.lines().count(), 2, "{message}");
}

#[test]
fn a_default_that_stands_in_for_a_wrong_value_is_no_problem() {
    for file in
        ["[logger]\nqueue_bytes = \"1 parsec\"", "[logger]\nqueue_byte = \"1GiB\"", "mode = \"kafka\"\n[kafka]\nbrokers = 5"]
    {
        let message = refused(file, &[("PREDLOG_BATCH__MAX_BYTES", "128MiB")]);
        assert_eq!(message.lines().count(), 1, "{message}");
    }
}

#[test]
fn what_a_caller_gave_in_code_wins_over_all() {
    let layers = |keywords: &str| {
        let file = ("a.toml".to_owned(), "[batch]\nmax_rows = 5\nmax_age = \"7s\"".to_owned());
        let variables = [("PREDLOG_BATCH__MAX_ROWS".to_owned(), "many".to_owned())];
        Config::from_layers(Some(file), variables, Some(keywords))
    };
    let config =
        layers("batch = {max_rows = \"9\"}\ndirect = {dir = 2026}\nlogger = {lanes = \"3\", queue_bytes = 33554432}").unwrap();
    assert_eq!((config.batch.max_rows, config.batch.max_age), (9, Duration::from_secs(7)));
    assert_eq!((config.direct.dir.to_str(), config.logger.lanes), (Some("2026"), Some(3)));
    assert_eq!(config.logger.queue_bytes.as_u64(), 32 << 20);
    let message = layers("batch = {max_rows = 0, max_row = 1}").unwrap_err().to_string();
    let expected =
        ["keyword: unknown key batch.max_row=1: did you mean `max_rows`?", "keyword: batch.max_rows=0: expected 1 to 10000000"];
    assert_eq!(message.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn no_secret_is_ever_shown() {
    let secret = "wJalrXUtnFEMI";
    for (file, variables) in [
        (format!("[upload]\nurl = \"s3://AKIA:{secret}@bucket/p\""), vec![]),
        (format!("[upload]\nurl = \"az://c/p?sig={secret}\""), vec![]),
        (format!("[upload]\nurl = \"s3://b\"\nendpoint = \"https://AKIA:{secret}@host\""), vec![]),
        (format!("[upload]\nurl = \"s3://b\"\nendpoint = \"https://host/?k={secret}\""), vec![]),
        (format!("[upload]\nul = \"s3://AKIA:{secret}@bucket/p\""), vec![]),
        (format!("[upload]\nevery = \"s3://AKIA:{secret}@bucket/p\""), vec![]),
        (format!("[upload]\nurl = \"s3://AKIA:{secret}@bucket/p"), vec![]),
        (String::new(), vec![("PREDLOG_SECRET", secret)]),
    ] {
        let error = load(&file, &variables).expect_err(&file);
        assert!(!format!("{error} {error:?}").contains(secret), "{error}");
    }
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = Config::load(Some(std::path::Path::new("no/such/file.toml"))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("file=no/such/file.toml"), "{error}");
}
