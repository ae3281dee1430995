//! From a [`Config`] to a running logger: one file for each mode.

#[cfg(any(feature = "kafka", feature = "nats"))]
mod broker;
pub(crate) mod direct;
#[cfg(all(feature = "kafka", feature = "sqlite", feature = "upload"))]
mod drain;
pub(crate) mod fanout;
#[cfg(feature = "kafka")]
mod kafka;
#[cfg(feature = "nats")]
mod nats;
#[cfg(feature = "upload")]
mod upload;

use crate::config::{Config, Mode};
use crate::error::Error;
use crate::logger::{Guard, Logger};
#[cfg(feature = "cli")]
use crate::{logger::home::Home, resend::Sender, stats::Stats};
use std::path::{Path, PathBuf};

impl Logger {
    /// Starts a logger as the configuration says. Keep the [`Guard`]: dropping it ends the logger.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), predlog::Error> {
    /// let config = predlog::Config::load(Some("config/simple.toml".as_ref()))?;
    /// let (logger, guard) = predlog::Logger::open(&config)?;
    /// # drop((logger, guard)); Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// A wrong configuration; a directory that cannot be written; no room for the lanes; a mode or a store that this build has not. That a broker
    /// or a bucket is away is no error: records wait for it.
    pub fn open(config: &Config) -> Result<(Logger, Guard), Error> {
        config.validate()?;
        // A process may change its directory later on.
        fanout::open(&config.clone().with_absolute_dirs())
    }
}

/// Starts the logger of `mode` alone.
fn open_one(config: &Config) -> Result<(Logger, Guard), Error> {
    match config.mode {
        Mode::Direct => direct::open(config),
        #[cfg(feature = "kafka")]
        Mode::Kafka => kafka::open(config),
        #[cfg(feature = "nats")]
        Mode::Nats => nats::open(config),
        #[cfg(not(all(feature = "kafka", feature = "nats")))]
        missing => {
            let message = format!("mode={missing:?} is not in this build: add the crate's feature of that name");
            Err(Error::new(crate::error::ErrorKind::Config, message))
        }
    }
}

/// The directories of the modes that are not set, where they are others than `own`: a process that ran before the mode was changed may have
/// left records there.
fn other_dirs(config: &Config, own: &Path) -> Vec<PathBuf> {
    // One that is not there has nothing, and a path says less than the directory that it leads to.
    let real = |dir: &Path| dir.canonicalize().ok();
    let own = real(own);
    let mut others = Vec::new();
    for dir in [&config.direct.dir, &config.kafka.fallback.dir, &config.nats.fallback.dir] {
        others.extend(real(dir).filter(|dir| own.as_ref() != Some(dir) && !others.contains(dir)));
    }
    others
}

/// The sink of a configuration alone, for records that no logger of this process has made. `home` is this process's directory.
///
/// # Errors
/// As [`Logger::open`].
#[cfg(feature = "cli")]
pub(crate) fn open_sender(config: &Config, home: &Home, patience: std::time::Duration) -> Result<Sender, Error> {
    use crate::error::ErrorKind;
    let stats = std::sync::Arc::new(Stats::default());
    let process = home.process().unwrap_or_else(crate::unique::uuid);
    let wrong = |error: String| Error::new(ErrorKind::Config, error);
    let sink: Box<dyn crate::sink::Sink> = match config.mode {
        Mode::Direct => {
            let opened = direct::open_sink(config, home, &stats);
            opened.map_err(|error| Error::new(ErrorKind::Storage, error.to_string()))?
        }
        Mode::Kafka => {
            let sink = crate::sink::kafka::KafkaSink::open(config.kafka.clone(), process, stats.clone());
            Box::new(sink.map_err(wrong)?)
        }
        Mode::Nats => {
            let sink = crate::sink::nats::NatsSink::open(config.nats.clone(), process, stats.clone());
            Box::new(sink.map_err(wrong)?)
        }
    };
    Ok(Sender::new(sink, stats, patience, Default::default()))
}
