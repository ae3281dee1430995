//! What to archive, from where, to where and how: made of `[archive]`, or of a connector's configuration.

pub use crate::config::Start;

use super::encoder::Format;
use super::scratch::ScratchDir;
use crate::rotation::RotationSettings;
use crate::ship::UploadSettings;
use arrow_schema::SchemaRef;
use rdkafka::ClientConfig;
use std::sync::Arc;

/// Everything that an [`Archiver`](super::Archiver) needs.
pub struct Job {
    /// The consumer group; instances of one group share the partitions.
    pub group: String,
    /// How to reach the brokers, and as whom.
    pub client: ClientConfig,
    /// Topics by name, or by regular expressions that begin with `^`.
    pub topics: Vec<String>,
    /// Those of them that may be missing, as a ledger's may: nobody is told so, and no run ends by it.
    pub optional: Vec<String>,
    /// Where a partition that nobody has committed for is begun.
    pub start: Start,
    /// What becomes of the messages.
    pub format: Arc<dyn Format>,
    /// When a range is finished.
    pub rotation: RotationSettings,
    /// What becomes of a message that cannot be stored.
    pub on_bad: OnBad,
    /// Where objects go; its `url` is set.
    pub target: UploadSettings,
    /// Each message that cannot be stored is told in the log too.
    pub log_bad: bool,
    /// What becomes of an object whose key is taken by other messages.
    pub same_key: SameKey,
    /// The Delta table that the format's files become part of, if they do.
    pub table: Option<TableTarget>,
    /// Below the target's URL: where states are kept.
    pub state_prefix: String,
    /// Where the format's files in the making lie.
    pub scratch: Arc<ScratchDir>,
    /// Bytes that open ranges may hold together.
    pub memory: usize,
    /// Threads that decode and encode.
    pub threads: usize,
    /// Ends when everything is stored that the topics have when it starts.
    pub until_end: bool,
}

/// What becomes of an object whose key another one has, made of other messages: of a topic of the same name, or of ranges that ended elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SameKey {
    /// Both stay: the objects of a topic that was made anew have a tag behind the topic in their names. Keys say where a range ends.
    KeepBoth,
    /// The new one takes the place of the other, as with the maker's connector. Keys are what they are.
    Replace,
}

/// A Delta table.
#[derive(Clone, Debug)]
pub struct TableTarget {
    /// Its directory; `url` is set.
    pub store: UploadSettings,
    /// The columns that it is made with, those of partitions too.
    pub schema: SchemaRef,
    /// The columns of partitions.
    pub partition_columns: Vec<&'static str>,
}

/// What becomes of a message that cannot be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OnBad {
    /// The archiver stops, with an error that names it.
    Stop,
    /// It is counted and left out.
    Skip,
    /// It goes to `<prefix>/<topic>+<partition>+<first offset>.ndjson` below the target's URL, with its reason, in the same range as its neighbours.
    Objects {
        /// Below the target's URL.
        prefix: String,
    },
    /// It goes to this topic as it is, before its range is stored. After a crash it may be there twice.
    Topic {
        /// The topic.
        name: String,
        /// Replicas of the topic where it is made, if it is missing; `None`: it must exist.
        make: Option<i32>,
        /// With Kafka Connect's headers, `__connect.errors.topic` and so on.
        headers: bool,
        /// The connector that it comes from, for those headers.
        connector: Option<String>,
    },
}
