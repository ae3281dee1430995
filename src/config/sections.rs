//! Settings of what has no module in every build: the mode, the local store, and the server.

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Where predictions go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// To a local store, and from there to object storage if `[upload]` is set.
    #[default]
    Direct,
    /// To Kafka, and to a spool while it is away.
    Kafka,
    /// To NATS JetStream, and to a spool while it is away.
    Nats,
}

/// How a local store keeps predictions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Store {
    /// One database file, which can be queried a second later.
    #[default]
    Sqlite,
    /// Parquet files, one directory for each model and date.
    Parquet,
}

/// What becomes of what a local store has not uploaded when the mode is another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Backlog {
    /// It is uploaded.
    #[default]
    Upload,
    /// It goes to Kafka.
    Kafka,
}

/// The local store: `[direct]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DirectSettings {
    /// How predictions are kept.
    pub store: Store,
    /// Where everything that is written lies. Made if it is missing.
    pub dir: PathBuf,
    /// Predictions older than this are deleted, once uploaded if `[upload]` is set. Not set: kept for ever.
    #[serde(with = "humantime_serde")]
    pub retain: Option<Duration>,
    /// The oldest predictions are deleted, once uploaded if `[upload]` is set, while the store has more bytes than this. Not set: no limit.
    pub retain_bytes: Option<ByteSize>,
    /// Where predictions go that were not uploaded when the mode was changed, with `[upload]` set.
    pub backlog: Backlog,
}

impl Default for DirectSettings {
    fn default() -> Self {
        DirectSettings {
            store: Store::Sqlite,
            dir: PathBuf::from("./predlog-data"),
            retain: None,
            retain_bytes: None,
            backlog: Backlog::Upload,
        }
    }
}

/// The HTTP server: `[server]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServerSettings {
    /// The address to listen on; port 0 takes a free one. There is no authentication: an address that others reach needs a proxy that has it.
    pub addr: SocketAddr,
    /// The largest body, after decompression.
    pub max_body: ByteSize,
    /// Requests that are worked on, or have more than 64 KiB of their body in memory, at one time; more wait.
    pub max_requests: usize,
    /// The longest that a client may take to send a request.
    #[serde(with = "humantime_serde")]
    pub read_timeout: Duration,
    /// The longest that `?wait=durable` waits.
    #[serde(with = "humantime_serde")]
    pub wait_timeout: Duration,
    /// The longest that a stop waits for requests, and then for the records that they brought.
    #[serde(with = "humantime_serde")]
    pub shutdown_deadline: Duration,
    /// How long the answer to an `Idempotency-Key` is remembered.
    #[serde(with = "humantime_serde")]
    pub idempotency_window: Duration,
    /// Answers that are remembered; past it the oldest are forgotten.
    pub idempotency_keys: usize,
}

impl Default for ServerSettings {
    fn default() -> Self {
        ServerSettings {
            addr: SocketAddr::from(([127, 0, 0, 1], 8642)),
            max_body: ByteSize::mib(32),
            max_requests: 64,
            read_timeout: Duration::from_secs(30),
            wait_timeout: Duration::from_secs(10),
            shutdown_deadline: Duration::from_secs(10),
            idempotency_window: Duration::from_secs(600),
            idempotency_keys: 10_000,
        }
    }
}

/// One more sink, beside the one of `mode`: `[[sinks]]`. Its predictions wait in a queue of its own, of `logger.queue_bytes`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SinkSettings {
    /// What it is. Brokers are those of `[kafka]` or `[nats]`.
    #[serde(rename = "type")]
    pub kind: SinkType,
    /// What it is called, in messages and metrics. Not set: its type.
    #[serde(default)]
    pub name: Option<String>,
    /// Where everything lies that is written for it. Not set: `sinks/<name>` in the mode's directory.
    #[serde(default)]
    pub dir: Option<PathBuf>,
    /// Predictions older than this are deleted. Not set: kept for ever.
    #[serde(default, with = "humantime_serde")]
    pub retain: Option<Duration>,
    /// The oldest predictions are deleted while the store has more bytes than this. Not set: no limit.
    #[serde(default)]
    pub retain_bytes: Option<ByteSize>,
    /// What may wait on disk for it; past it its predictions are dropped, and counted, and those of the others are not.
    #[serde(default = "default_max_bytes")]
    pub max_bytes: ByteSize,
}

impl SinkSettings {
    /// What it is called.
    pub fn name(&self) -> &str {
        self.name.as_deref().unwrap_or(self.kind.name())
    }
}

fn default_max_bytes() -> ByteSize {
    ByteSize::gib(2)
}

/// What a sink of `[[sinks]]` is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SinkType {
    /// As `mode = "direct"` with `store = "sqlite"`.
    Sqlite,
    /// As `mode = "direct"` with `store = "parquet"`.
    Parquet,
    /// As `mode = "kafka"`.
    Kafka,
    /// As `mode = "nats"`.
    Nats,
}

impl SinkType {
    /// As it is written in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            SinkType::Sqlite => "sqlite",
            SinkType::Parquet => "parquet",
            SinkType::Kafka => "kafka",
            SinkType::Nats => "nats",
        }
    }
}

/// `predlog archive`: `[archive]`. The brokers are `[kafka]`'s, the files end by `[rotation]`, and go where `[upload]` says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ArchiveSettings {
    /// Topics by name, or by regular expressions that begin with `^`. Empty: those of `kafka.topic`, and its ledger.
    pub topics: Vec<String>,
    /// The consumer group. Instances of one group share the work.
    pub group: String,
    /// Where a partition is begun for the first time.
    pub start: Start,
    /// What becomes of a message that cannot be stored.
    pub on_bad: BadMessages,
    /// Where dead letters go, below `upload.url`.
    pub dead_letter_prefix: String,
    /// A topic that dead letters go to instead.
    pub dead_letter_topic: Option<String>,
    /// What the files are to their readers.
    pub table: TableKind,
    /// Where files in the making lie.
    pub dir: PathBuf,
    /// What open files may hold in memory, together.
    pub memory: ByteSize,
    /// What is remembered of stored records, for each partition, so that none is stored twice.
    pub dedupe_bytes: ByteSize,
    /// Threads that decode and encode; 0: one for each core.
    pub threads: usize,
    /// Where `/metrics` and `/healthz` are served. Not set: nowhere.
    pub metrics_addr: Option<SocketAddr>,
}

impl Default for ArchiveSettings {
    fn default() -> Self {
        ArchiveSettings {
            topics: Vec::new(),
            group: "predlog-archive".to_owned(),
            start: Start::Earliest,
            on_bad: BadMessages::DeadLetter,
            dead_letter_prefix: "dead-letter".to_owned(),
            dead_letter_topic: None,
            table: TableKind::Parquet,
            dir: PathBuf::from("./predlog-archive"),
            memory: ByteSize::mib(64),
            dedupe_bytes: ByteSize::mib(16),
            threads: 0,
            metrics_addr: None,
        }
    }
}

/// What an archiver's files are to their readers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TableKind {
    /// Parquet files in directories.
    #[default]
    Parquet,
    /// The same files as one Delta table.
    Delta,
}

/// Where a partition that nobody has committed for is begun.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Start {
    /// At the oldest message that the topic has.
    #[default]
    Earliest,
    /// At the next message.
    Latest,
}

/// What becomes of messages that cannot be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BadMessages {
    /// They go to the dead letters, with the reason.
    DeadLetter,
    /// The first one ends the archiver, with an error.
    Stop,
    /// They are counted.
    Skip,
}

/// The SQLite store: `[sqlite]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SqliteSettings {
    /// The longest that a write waits for another program's lock before it is tried again later.
    #[serde(with = "humantime_serde")]
    pub busy_timeout: Duration,
    /// An index on `timestamp`.
    pub index_timestamp: bool,
    /// A view for each model, with its features as columns.
    pub views: bool,
}

impl Default for SqliteSettings {
    fn default() -> Self {
        SqliteSettings { busy_timeout: Duration::from_secs(5), index_timestamp: true, views: true }
    }
}
