//! Settings that all brokers have.

use super::Problem;
use bytesize::ByteSize;
use serde::{Deserialize, Serialize, Serializer};
use std::fmt;
#[cfg(any(feature = "kafka", feature = "nats"))]
use std::path::Path;
use std::path::PathBuf;

/// How many records a message has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Packing {
    /// One.
    None,
    /// Many, a line each.
    Ndjson,
}

/// Where records go while the broker does not take them: `[kafka.fallback]`, `[nats.fallback]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FallbackSettings {
    /// Where the queue, the spool and the dead letters lie. Made if it is missing. Several processes of one host may share it.
    pub dir: PathBuf,
    /// The most that the spool may take on disk.
    pub max_bytes: ByteSize,
    /// While live records wait: the share of what is sent that may come from the spool.
    pub replay_share: f64,
    /// The most bytes a second that come from the spool.
    pub replay_bytes_per_second: ByteSize,
}

impl Default for FallbackSettings {
    fn default() -> Self {
        FallbackSettings {
            dir: PathBuf::from("./predlog-data"),
            max_bytes: ByteSize::gib(10),
            replay_share: 0.5,
            replay_bytes_per_second: ByteSize::mib(64),
        }
    }
}

impl FallbackSettings {
    /// What is wrong, in the section `section`.
    pub(crate) fn problems(&self, section: &str) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut wrong = |key: &str, value: String, expected: &str| {
            problems.push(Problem { key: format!("{section}.fallback.{key}"), value, expected: expected.to_owned() });
        };
        if !(0.01..=0.99).contains(&self.replay_share) {
            wrong("replay_share", self.replay_share.to_string(), "0.01 to 0.99");
        }
        if self.dir.as_os_str().is_empty() {
            wrong("dir", "\"\"".to_owned(), "a directory");
        }
        if self.max_bytes < ByteSize::mib(1) || self.max_bytes > ByteSize::pib(1) {
            wrong("max_bytes", self.max_bytes.to_string(), "1.0 MiB to 1.0 PiB");
        }
        if self.replay_bytes_per_second < ByteSize::kib(64) || self.replay_bytes_per_second > ByteSize::tib(1) {
            wrong("replay_bytes_per_second", self.replay_bytes_per_second.to_string(), "64.0 KiB to 1.0 TiB");
        }
        problems
    }
}

/// Text that is never shown.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Hides `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Secret(text.into())
    }

    /// The text itself: for the wire only.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

/// What stands for it.
pub(crate) const HIDDEN: &str = "<hidden>";

/// The secret that is given, or the first line of its file.
///
/// # Errors
/// The file cannot be read; with the key and the path.
#[cfg(any(feature = "kafka", feature = "nats"))]
pub(crate) fn secret(key: &str, given: Option<&Secret>, file: Option<&Path>) -> Result<Option<Secret>, String> {
    match (given, file) {
        (Some(secret), _) => Ok(Some(secret.clone())),
        (None, Some(path)) => match std::fs::read_to_string(path) {
            Ok(text) => Ok(Some(Secret::new(text.lines().next().unwrap_or_default()))),
            Err(error) => Err(format!("cannot read {key}={}: {error}", path.display())),
        },
        (None, None) => Ok(None),
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(HIDDEN)
    }
}
