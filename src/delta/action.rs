//! What a commit says, and the lines of the log that say it.

use super::stats::Stats;
use arrow_schema::Schema;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// What stands for itself in the path of a URI (RFC 3986), and the `/` between its segments.
const PATH: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/').remove(b'=').remove(b'+');

/// A Parquet file that lies below the table's directory and becomes part of the table.
#[derive(Clone, Debug, PartialEq)]
pub struct AddFile {
    /// Its key relative to the table's directory, as it is in the store; the log's escapes are added here.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// Milliseconds since 1970.
    pub modification_time: i64,
    /// One entry for each partition column, its value in Delta's text form (a date is `2026-11-23`); `None` is null.
    pub partition_values: BTreeMap<String, Option<String>>,
    /// Rows and, where they are known, the columns' bounds.
    pub stats: Stats,
}

/// How far an application has come, kept by the table. It is compared and set in one commit with the files that it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppTransaction {
    /// Who: a topic's partition, for example.
    pub app_id: String,
    /// What its version becomes: an offset, for example.
    pub version: i64,
    /// What [`DeltaTable::txn_version`](super::DeltaTable::txn_version) must answer now; `None` when the application was never here.
    pub previous: Option<i64>,
}

/// Files, how far applications have come with them, and the columns that they have: all of it or nothing is committed.
#[derive(Clone, Debug, Default)]
pub struct Commit<'a> {
    /// The new files. They are in the store before the commit.
    pub adds: Vec<AddFile>,
    /// What applications expect and become.
    pub txns: Vec<AppTransaction>,
    /// The columns of the files, without partition columns. Those that the table lacks are added to it, at any depth.
    pub schemas: Vec<&'a Schema>,
}

/// What became of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommitOutcome {
    /// It is this version of the table.
    Committed(u64),
    /// All its applications are at their versions or past them: the caller was here before. Nothing was written.
    AlreadyStored,
    /// An application is not where the caller expected it: somebody else went on from there. Nothing was written.
    Fenced,
}

/// A file that is no longer part of the table.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct RemoveFile {
    /// As it is in the log, escapes and all.
    pub raw_path: String,
    pub size: u64,
    pub partition_values: BTreeMap<String, Option<String>>,
}

/// One version of the log, as its lines.
#[derive(Clone, Debug, Default)]
pub(super) struct Lines(String);

impl Lines {
    /// `txn_id` tells this commit from all others, so that a writer that got no answer finds out whether it was its own.
    pub fn new(operation: &str, parameters: Value, txn_id: &str, now: i64) -> Self {
        let mut lines = Lines::default();
        lines.push(json!({"commitInfo": {
            "timestamp": now,
            "operation": operation,
            "operationParameters": parameters,
            "isBlindAppend": operation == "WRITE",
            "engineInfo": concat!("predlog/", env!("CARGO_PKG_VERSION")),
            "txnId": txn_id,
        }}));
        lines
    }

    /// The oldest protocol that there is: every reader reads it.
    pub fn protocol(&mut self) {
        self.push(json!({"protocol": {"minReaderVersion": 1, "minWriterVersion": 2}}));
    }

    pub fn metadata(&mut self, metadata: &Value) {
        self.push(json!({"metaData": metadata}));
    }

    pub fn txn(&mut self, txn: &AppTransaction, now: i64) {
        self.push(json!({"txn": {"appId": txn.app_id, "version": txn.version, "lastUpdated": now}}));
    }

    pub fn add(&mut self, add: &AddFile, data_change: bool) {
        self.push(json!({"add": {
            "path": encoded(&add.path),
            "partitionValues": add.partition_values,
            "size": add.size,
            "modificationTime": add.modification_time,
            "dataChange": data_change,
            "stats": add.stats.to_json(),
        }}));
    }

    pub fn remove(&mut self, remove: &RemoveFile, now: i64) {
        self.push(json!({"remove": {
            "path": remove.raw_path,
            "deletionTimestamp": now,
            "dataChange": false,
            "extendedFileMetadata": true,
            "partitionValues": remove.partition_values,
            "size": remove.size,
        }}));
    }

    pub fn into_bytes(self) -> Vec<u8> {
        self.0.into_bytes()
    }

    fn push(&mut self, action: Value) {
        self.0.push_str(&action.to_string());
        self.0.push('\n');
    }
}

/// The key as the log has it.
fn encoded(path: &str) -> String {
    utf8_percent_encode(path, PATH).to_string()
}

/// The key that the log's path means.
pub(super) fn decoded(raw_path: &str) -> String {
    percent_encoding::percent_decode_str(raw_path).decode_utf8_lossy().into_owned()
}

/// What the log of other writers says that concerns ours.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// The commit's own name.
    pub txn_id: Option<String>,
    pub txns: Vec<(String, i64)>,
    /// Files that are gone, as in the log.
    pub removed: Vec<String>,
    /// The columns or the protocol may be others now.
    pub redefined: bool,
}

impl Seen {
    /// Reads one version's lines. Actions that do not concern us are passed over.
    pub fn parse(text: &[u8]) -> Result<Self, serde_json::Error> {
        let mut seen = Seen::default();
        for line in text.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty()) {
            let action: Map<String, Value> = serde_json::from_slice(line)?;
            for (kind, value) in &action {
                let text = |key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
                match kind.as_str() {
                    "commitInfo" => seen.txn_id = text("txnId"),
                    "txn" => seen.txns.extend(text("appId").zip(value.get("version").and_then(Value::as_i64))),
                    "remove" => seen.removed.extend(text("path")),
                    "metaData" | "protocol" => seen.redefined = true,
                    _ => {}
                }
            }
        }
        Ok(seen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_what_is_read_back() {
        let mut lines = Lines::new("WRITE", json!({"mode": "Append"}), "abc", 5);
        lines.protocol();
        lines.txn(&AppTransaction { app_id: "topic/0".into(), version: 7, previous: None }, 5);
        let add = AddFile {
            path: "model_name=a%2Fb c/x.parquet".into(),
            size: 1,
            modification_time: 2,
            partition_values: BTreeMap::from([("model_name".into(), Some("a/b c".into()))]),
            stats: Stats { rows: 3, ..Stats::default() },
        };
        lines.add(&add, true);
        lines.remove(&RemoveFile { raw_path: "a%20b".into(), size: 1, partition_values: BTreeMap::new() }, 5);
        let bytes = lines.into_bytes();
        let text = std::str::from_utf8(&bytes).unwrap();
        assert!(text.contains(r#""path":"model_name=a%252Fb%20c/x.parquet""#), "{text}");
        assert!(text.contains(r#""stats":"{\"numRecords\":3"#), "{text}");
        let seen = Seen::parse(&bytes).unwrap();
        assert_eq!(seen.txn_id.as_deref(), Some("abc"));
        assert_eq!(seen.txns, [("topic/0".to_owned(), 7)]);
        assert_eq!(seen.removed, ["a%20b"]);
        assert!(seen.redefined);
        assert_eq!(decoded("model_name=a%252Fb%20c"), "model_name=a%2Fb c");
    }
}
