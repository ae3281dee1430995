//! What the modes with a message broker share: the broker, and a spool for when it is away.

use crate::batch::BatchSettings;
use crate::config::Backlog;
use crate::config::Config;
use crate::error::{Error, ErrorKind};
use crate::ledger::LedgerSettings;
use crate::logger::builder::{Builder, make_home, needs_home};
use crate::logger::home::Home;
use crate::logger::pace::PaceSettings;
use crate::logger::{Guard, Logger, LoggerSettings};
use crate::sink::Sink;
use crate::sink::broker::settings::FallbackSettings;
use crate::stats::Stats;
use bytesize::ByteSize;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// Bytes of a message beside its record's large fields: names, ids, metadata, headers.
const ENVELOPE: u64 = 20 * 1024;

/// What a broker's section says to the logger before it.
pub(super) struct Broker<'a> {
    pub(super) fallback: &'a FallbackSettings,
    pub(super) linger: Duration,
    pub(super) max_message_bytes: ByteSize,
    /// Statements of what was accepted have a place at the broker.
    pub(super) ledger: bool,
}

/// `sink` is given this process's name, and what it counts in.
pub(super) fn open<S: Sink + 'static>(
    config: &Config,
    broker: &Broker<'_>,
    sink: impl FnOnce(Uuid, Arc<Stats>) -> Result<S, String>,
) -> Result<(Logger, Guard), Error> {
    let fallback = broker.fallback;
    let home = needs_home(&config.logger).then(|| make_home(&fallback.dir)).transpose()?;
    let stats = Arc::new(Stats::default());
    let process = home.as_ref().and_then(Home::process).unwrap_or_else(crate::unique::uuid);
    let sink = sink(process, Arc::clone(&stats)).map_err(|error| {
        home.iter().for_each(Home::discard);
        Error::new(ErrorKind::Config, error)
    })?;
    let pace = PaceSettings { share: fallback.replay_share, max_bytes_per_second: Some(fallback.replay_bytes_per_second) };
    // A record that no message could hold is digested as one that is too large for `logger.max_record_bytes`.
    let room = broker.max_message_bytes.as_u64().saturating_sub(ENVELOPE);
    let settings = LoggerSettings { spool_max_bytes: fallback.max_bytes, ..config.logger.clone() };
    let batch = BatchSettings { max_age: config.batch.max_age.min(broker.linger), ..config.batch.clone() };
    let ledger = LedgerSettings { enabled: config.ledger.enabled && broker.ledger, ..config.ledger.clone() };
    let builder = Logger::builder(settings).room(room).batch(batch).ledger(ledger);
    let builder = builder.dir(&fallback.dir).stats(Arc::clone(&stats)).pace(pace);
    let builder = home.into_iter().fold(builder, Builder::home);
    let (logger, guard) = builder.also_from(super::other_dirs(config, &fallback.dir)).sink(Box::new(sink)).open()?;
    let guard = deliver_rest(config, guard, &stats)?;
    Ok((logger, guard))
}

/// What direct mode has not uploaded.
fn deliver_rest(config: &Config, guard: Guard, stats: &Arc<Stats>) -> Result<Guard, Error> {
    match config.direct.backlog {
        Backlog::Upload => {
            #[cfg(feature = "upload")]
            return super::upload::attach_rest(config, guard, stats);
            #[cfg(not(feature = "upload"))]
            {
                let _ = stats;
                Ok(guard)
            }
        }
        Backlog::Kafka => {
            #[cfg(all(feature = "kafka", feature = "sqlite", feature = "upload"))]
            return super::drain::attach(config, guard);
            #[cfg(not(all(feature = "kafka", feature = "sqlite", feature = "upload")))]
            {
                let message = "direct.backlog=\"kafka\" is not in this build: add the crate's features kafka, sqlite and upload";
                Err(Error::new(ErrorKind::Config, message))
            }
        }
    }
}
