//! The configuration: one TOML file and the environment, checked as a whole before anything starts.
//!
//! Each component defines its own settings; this module only puts them together, names what is wrong with them, and never lets a secret
//! into a message.

pub(crate) mod problem;
mod sections;
mod source;
mod validate;

pub use crate::ship::UploadSettings;
pub use crate::sink::kafka::settings::{self as kafka, KafkaSettings};
pub use crate::sink::nats::settings::{self as nats, NatsSettings};
pub use sections::{
    ArchiveSettings, Backlog, BadMessages, DirectSettings, Mode, ServerSettings, SinkSettings, SinkType, SqliteSettings, Start,
    Store, TableKind,
};

use crate::batch::BatchSettings;
use crate::error::{Error, ErrorKind};
use crate::ledger::LedgerSettings;
use crate::logger::LoggerSettings;
use crate::rotation::RotationSettings;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Everything that can be set. Each key has a safe default; `config/simple.toml` shows them all.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where predictions go.
    pub mode: Mode,
    /// Where they go as well.
    pub sinks: Vec<SinkSettings>,
    /// The local store of `mode = "direct"`.
    pub direct: DirectSettings,
    /// The queue in front of it.
    pub logger: LoggerSettings,
    /// What is said of the records, for `predlog audit`.
    pub ledger: LedgerSettings,
    /// When records are handed to the store.
    pub batch: BatchSettings,
    /// When a Parquet file is finished.
    pub rotation: RotationSettings,
    /// The SQLite store.
    pub sqlite: SqliteSettings,
    /// Object storage.
    pub upload: UploadSettings,
    /// The brokers of `mode = "kafka"`.
    pub kafka: KafkaSettings,
    /// The servers of `mode = "nats"`.
    pub nats: NatsSettings,
    /// `predlog serve`.
    pub server: ServerSettings,
    /// `predlog archive`.
    pub archive: ArchiveSettings,
}

impl Config {
    /// Reads `path`, or else the file that the environment variable `PREDLOG_CONFIG` names, or else none, and then the environment:
    /// `PREDLOG_DIRECT__STORE=parquet` is `[direct] store = "parquet"`, and wins over the file.
    ///
    /// # Errors
    /// [`ErrorKind::Config`], with a line for each problem: the file or variable, the key, its value, what was expected, and the nearest
    /// right one.
    pub fn load(path: Option<&Path>) -> Result<Config, Error> {
        let named = std::env::var_os("PREDLOG_CONFIG").filter(|value| !value.is_empty()).map(std::path::PathBuf::from);
        let file = match path.or(named.as_deref()) {
            Some(path) => {
                let text = std::fs::read_to_string(path).map_err(|error| {
                    Error::new(ErrorKind::Config, format!("cannot read the configuration file={}: {error}", path.display()))
                })?;
                Some((path.display().to_string(), text))
            }
            None => None,
        };
        // A variable that is not UTF-8 cannot be one of ours: our names and values are.
        let variables =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        Self::from_sources(file, variables)
    }

    /// From TOML text alone, without the environment.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn from_toml(text: &str) -> Result<Config, Error> {
        Self::from_sources(Some(("the given text".to_owned(), text.to_owned())), std::iter::empty())
    }

    /// From a file, as its name and its text, and environment variables: those that do not start with `PREDLOG_` are passed over.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn from_sources(
        file: Option<(String, String)>,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Config, Error> {
        Self::from_layers(file, variables, None)
    }

    /// The same with a third layer, which wins over both: TOML of what a caller gave in code. As in variables, its numbers may be text.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn from_layers(
        file: Option<(String, String)>,
        variables: impl IntoIterator<Item = (String, String)>,
        keywords: Option<&str>,
    ) -> Result<Config, Error> {
        let mut sources = source::Sources::read(file, variables, keywords)?;
        let config = sources.extract();
        validate::check(&config, &sources)?;
        Ok(config)
    }

    /// The same with directories that do not depend on the process's own, which may change.
    #[must_use]
    pub fn with_absolute_dirs(mut self) -> Config {
        let sinks = self.sinks.iter_mut().filter_map(|sink| sink.dir.as_mut());
        for dir in [&mut self.direct.dir, &mut self.kafka.fallback.dir, &mut self.nats.fallback.dir].into_iter().chain(sinks) {
            // An error says that the process's own directory is gone: then it stays as it is.
            if let Ok(absolute) = std::path::absolute(&*dir) {
                *dir = absolute;
            }
        }
        self
    }

    /// Checks ranges and conflicts, as [`load`](Self::load) does: for a configuration that was made in code.
    ///
    /// # Errors
    /// [`ErrorKind::Config`], with a line for each problem.
    pub fn validate(&self) -> Result<(), Error> {
        validate::check(self, &source::Sources::none())
    }
}
