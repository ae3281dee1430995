//! A connector's configuration, as Confluent documents its S3 sink, read as a whole: all that is wrong is told at once.

mod converters;
mod files;
mod others;
mod partitioners;
mod reader;
mod topics;
mod transforms;

#[cfg(test)]
mod tests;

pub use converters::{ConverterKind, ConverterSettings, Envelope};
pub use reader::Problems;
pub use transforms::{FieldName, Inserted, Side, TransformSettings};

use super::partitioner::Partitioner;
use super::routes;
use crate::archive::Start;
use crate::ship::AccessKeys;
use crate::sink::broker::settings::Secret;
use jiff::tz::TimeZone;
use reader::Reader;
use std::collections::BTreeMap;
use std::path::Path;

const CLASS: &str = "io.confluent.connect.s3.S3SinkConnector";
const MIN_PART: i64 = 5 << 20;
const MAX_PART: i64 = 2_147_483_647;

/// A connector of the S3 sink.
#[derive(Clone, Debug)]
pub struct SinkConfig {
    /// Its name; the consumer group is `connect-<name>`.
    pub name: String,
    /// Topics by name, or one regular expression that begins with `^`.
    pub topics: Vec<String>,
    /// How many threads encode.
    pub tasks_max: usize,
    /// Where a partition is begun that nobody has committed for.
    pub start: Start,
    /// `s3.bucket.name`.
    pub bucket: String,
    /// `s3.region`.
    pub region: String,
    /// `store.url`.
    pub endpoint: Option<String>,
    /// `aws.access.key.id` and `aws.secret.access.key`, which go before all other credentials.
    pub access_keys: Option<AccessKeys>,
    /// Whether the bucket is in the path of a request, not in its host's name.
    pub path_style: bool,
    /// Bytes of a part of a large upload.
    pub part_size: u64,
    /// What objects' names begin with, and how they are made.
    pub names: Names,
    /// How messages are divided.
    pub partitioner: Partitioner,
    /// When files are finished.
    pub rotation: RotationRules,
    /// What files are.
    pub format: FileFormat,
    /// How keys are read.
    pub key_converter: ConverterSettings,
    /// How values are read.
    pub value_converter: ConverterSettings,
    /// What is done to each record, in this order.
    pub transforms: Vec<TransformSettings>,
    /// Which change of a record's schema does not finish its file.
    pub compatibility: Compatibility,
    /// Messages without a value are left out; otherwise each is an error.
    pub ignore_nulls: bool,
    /// What is left out so goes to the dead letter topic, if there is one.
    pub report_nulls: bool,
    /// `errors.log.enable`: each message that is tolerated is told in the log.
    pub log_errors: bool,
    /// `errors.tolerance=all`.
    pub tolerate: bool,
    /// Where messages go that cannot be stored.
    pub dead_letters: Option<DeadLetters>,
    /// What is odd, and does no harm: for the log.
    pub warnings: Vec<String>,
}

/// `errors.deadletterqueue.*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetters {
    /// The topic.
    pub topic: String,
    /// With headers that say where a message lay, and what is wrong with it.
    pub headers: bool,
    /// Replicas of the topic, if it must be made.
    pub replication: i32,
}

/// How objects are named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// `topics.dir`.
    pub topics_dir: String,
    /// `file.delim`.
    pub file_delim: String,
    /// `filename.offset.zero.pad.width`.
    pub pad_width: usize,
    /// Files have the name of the topic that their messages lie in, not that of the topic that routers gave them: there several may meet.
    pub by_source: bool,
}

/// When the files of a topic partition are finished, all together.
#[derive(Clone, Debug)]
pub struct RotationRules {
    /// At so many rows.
    pub flush_size: u64,
    /// When a record is so many milliseconds later than the first one, by the partitioner's extractor.
    pub interval_ms: Option<i64>,
    /// With an interval: also at a record of another directory than the one before.
    pub by_directory: bool,
    /// At each multiple of so many milliseconds since midnight in the zone.
    pub schedule: Option<(i64, TimeZone)>,
}

/// What files are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileFormat {
    /// Typed columns.
    Parquet(Codec),
    /// A JSON value a line.
    Json {
        /// How hard gzip works, if it does.
        gzip: Option<u32>,
    },
    /// The values as they came.
    ByteArray {
        /// How names end.
        extension: String,
        /// What is behind each value.
        separator: Vec<u8>,
        /// How hard gzip works, if it does.
        gzip: Option<u32>,
    },
}

/// `parquet.codec`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// Not compressed.
    None,
    /// Snappy.
    Snappy,
    /// gzip.
    Gzip,
    /// LZ4, in blocks that all readers know (`LZ4_RAW`).
    Lz4,
    /// Zstandard.
    Zstd,
}

/// `schema.compatibility`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compatibility {
    /// Every change of schema finishes the file.
    None,
    /// A later schema finishes the file; records of earlier ones are projected to the file's.
    Backward,
    /// An earlier schema finishes the file; records of later ones are projected to the file's.
    Forward,
    /// As [`Backward`](Self::Backward).
    Full,
}

/// Reads a connector's file: its keys, or `{"name": …, "config": {…}}`. Without a name, the file's is the connector's.
///
/// # Errors
/// The file cannot be read, or everything that is wrong in it.
pub fn load(path: &Path) -> Result<SinkConfig, Problems> {
    let wrong = |why: String| Problems(vec![format!("connector file={}: {why}", path.display())]);
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    let (name, given) = entries(&text).map_err(wrong)?;
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    SinkConfig::parse(&name.unwrap_or(stem), given)
}

type Entries = (Option<String>, BTreeMap<String, String>);

fn entries(text: &str) -> Result<Entries, String> {
    use serde_json::{Map, Value};
    // The parser's message, not its text: that may hold a secret.
    let mut object: Map<String, Value> = serde_json::from_str(text)
        .map_err(|error| format!("not a JSON object: line {} column {}", error.line(), error.column()))?;
    let mut name = None;
    if let Some(Value::Object(config)) = object.get_mut("config") {
        let config = std::mem::take(config);
        name = object.get("name").and_then(Value::as_str).map(str::to_owned);
        object = config;
    }
    let text = |value: Value| match value {
        Value::Null => None,
        Value::String(text) => Some(text),
        other => Some(other.to_string()),
    };
    let given: BTreeMap<_, _> = object.into_iter().filter_map(|(key, value)| Some((key, text(value)?))).collect();
    Ok((name.or_else(|| given.get("name").cloned()), given))
}

impl SinkConfig {
    /// Reads the keys of the connector `name`.
    ///
    /// # Errors
    /// Everything that is wrong.
    pub fn parse(name: &str, given: BTreeMap<String, String>) -> Result<SinkConfig, Problems> {
        let reader = &mut Reader::new(given);
        reader.refuse_providers();
        let _ = reader.text("name");
        check_classes(reader);
        let timezone = partitioners::timezone(reader);
        let partitioner = partitioners::read(reader, timezone.clone());
        let config = SinkConfig {
            name: name.to_owned(),
            topics: topics::read(reader),
            tasks_max: usize::try_from(reader.number("tasks.max", 1, 1..=1_024)).unwrap_or(1),
            start: reader.choice(
                "consumer.override.auto.offset.reset",
                Start::Earliest,
                &[("earliest", Start::Earliest), ("latest", Start::Latest)],
            ),
            bucket: reader.required("s3.bucket.name", "the bucket's name"),
            region: reader.text("s3.region").unwrap_or_else(|| "us-west-2".to_owned()),
            endpoint: reader.text("store.url"),
            access_keys: access_keys(reader),
            path_style: reader.bool("s3.path.style.access.enabled", true),
            part_size: reader.number("s3.part.size", 26_214_400, MIN_PART..=MAX_PART).unsigned_abs(),
            rotation: files::rotation(reader, timezone, partitioner.extractor().is_some()),
            names: files::names(reader),
            partitioner,
            format: files::format(reader),
            key_converter: ConverterSettings::read(reader, "key.converter"),
            value_converter: ConverterSettings::read(reader, "value.converter"),
            transforms: transforms::read(reader),
            compatibility: reader.choice(
                "schema.compatibility",
                Compatibility::None,
                &[
                    ("NONE", Compatibility::None),
                    ("BACKWARD", Compatibility::Backward),
                    ("FORWARD", Compatibility::Forward),
                    ("FULL", Compatibility::Full),
                ],
            ),
            ignore_nulls: reader.choice("behavior.on.null.values", false, &[("fail", false), ("ignore", true)]),
            report_nulls: reader.bool("report.null.values.to.dlq", true),
            log_errors: reader.bool("errors.log.enable", false),
            tolerate: reader.choice("errors.tolerance", false, &[("none", false), ("all", true)]),
            dead_letters: dead_letters(reader),
            warnings: Vec::new(),
        };
        config.finish(reader)
    }

    /// What concerns several keys, and keys that nobody has read.
    fn finish(mut self, reader: &mut Reader) -> Result<SinkConfig, Problems> {
        let bytes = matches!(self.format, FileFormat::ByteArray { .. });
        if bytes && self.value_converter.kind != ConverterKind::ByteArray {
            reader.problems.push(
                "value.converter: expected org.apache.kafka.connect.converters.ByteArrayConverter with format.class=ByteArrayFormat".to_owned(),
            );
        }
        if let Some(letters) = &self.dead_letters {
            if topics::have(&self.topics, &letters.topic) {
                reader.wrong(
                    "errors.deadletterqueue.topic.name",
                    &letters.topic,
                    "another topic than those of topics or topics.regex",
                );
            }
            if !self.tolerate {
                let why =
                    "has no effect with errors.tolerance=none: the connector stops at the first message that it cannot store";
                reader.warn("errors.deadletterqueue.topic.name", &letters.topic, why);
                self.dead_letters = None;
            }
        }
        self.report_nulls &= self.dead_letters.is_some();
        self.names.by_source = routes::may_meet(&self.topics, &self.transforms);
        others::check(reader);
        reader.end();
        if !reader.problems.is_empty() {
            return Err(Problems(std::mem::take(&mut reader.problems)));
        }
        self.warnings = std::mem::take(&mut reader.warnings);
        Ok(self)
    }
}

fn check_classes(reader: &mut Reader) {
    if reader.class("connector.class", "Connector", &[(CLASS, ())]).is_none() {
        // A wrong class is named already; without one nothing says what this file is.
        let _ = reader.problems.is_empty().then(|| reader.required("connector.class", CLASS));
    }
    let storage = "io.confluent.connect.s3.storage.S3Storage";
    let _ = reader.class("storage.class", "Storage", &[(storage, ())]);
    let chain = "com.amazonaws.auth.DefaultAWSCredentialsProviderChain";
    let known = [
        chain,
        "software.amazon.awssdk.auth.credentials.DefaultCredentialsProvider",
        "com.amazonaws.auth.EnvironmentVariableCredentialsProvider",
        "software.amazon.awssdk.auth.credentials.EnvironmentVariableCredentialsProvider",
        "com.amazonaws.auth.profile.ProfileCredentialsProvider",
        "com.amazonaws.auth.InstanceProfileCredentialsProvider",
        "com.amazonaws.auth.WebIdentityTokenCredentialsProvider",
    ]
    .map(|class| (class, ()));
    let _ = reader.class("s3.credentials.provider.class", "", &known);
}

fn access_keys(reader: &mut Reader) -> Option<AccessKeys> {
    let (id, secret) = (reader.text("aws.access.key.id"), reader.text("aws.secret.access.key").map(Secret::new));
    match (id, secret) {
        (Some(id), Some(secret)) => return Some(AccessKeys { id, secret }),
        (None, None) => {}
        (Some(_), None) => _ = reader.required("aws.secret.access.key", "the secret of aws.access.key.id"),
        (None, Some(_)) => _ = reader.required("aws.access.key.id", "whose secret aws.secret.access.key is"),
    }
    None
}

fn dead_letters(reader: &mut Reader) -> Option<DeadLetters> {
    let topic = reader.text("errors.deadletterqueue.topic.name");
    let headers = reader.bool("errors.deadletterqueue.context.headers.enable", false);
    let replication = reader.number("errors.deadletterqueue.topic.replication.factor", 3, -1..=32_767);
    topic.map(|topic| DeadLetters { topic, headers, replication: i32::try_from(replication).unwrap_or(3) })
}
