//! From a [`Config`] to a running logger: one file for each mode.

#[cfg(any(feature = "kafka", feature = "nats"))]
mod broker;
pub(crate) mod direct;
#[cfg(feature = "kafka")]
mod kafka;
#[cfg(feature = "nats")]
mod nats;

use crate::config::{Config, Mode};
use crate::error::Error;
use crate::logger::{Guard, Logger};

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
}
