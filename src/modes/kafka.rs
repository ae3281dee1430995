//! `mode = "kafka"`: the broker, and a spool for when it is away.

use crate::batch::BatchSettings;
use crate::config::Config;
use crate::error::{Error, ErrorKind};
use crate::logger::builder::make_home;
use crate::logger::pace::PaceSettings;
use crate::logger::{Guard, Logger, LoggerSettings};
use crate::sink::kafka::KafkaSink;
use crate::stats::Stats;
use bytesize::ByteSize;
use std::sync::Arc;
use uuid::Uuid;

/// Bytes of a message beside its record's large fields: names, ids, metadata, headers.
const ENVELOPE: u64 = 20 * 1024;

pub(super) fn open(config: &Config) -> Result<(Logger, Guard), Error> {
    let kafka = &config.kafka;
    let dir = &kafka.fallback.dir;
    let home = make_home(dir)?;
    let stats = Arc::new(Stats::default());
    let process = home.process().unwrap_or_else(Uuid::now_v7);
    let sink =
        KafkaSink::open(kafka.clone(), process, Arc::clone(&stats)).map_err(|error| Error::new(ErrorKind::Config, error))?;
    let pace =
        PaceSettings { share: kafka.fallback.replay_share, max_bytes_per_second: Some(kafka.fallback.replay_bytes_per_second) };
    let settings = LoggerSettings {
        spool_max_bytes: kafka.fallback.max_bytes,
        max_record_bytes: largest_record(config),
        ..config.logger.clone()
    };
    let batch = BatchSettings { max_age: config.batch.max_age.min(kafka.linger), ..config.batch.clone() };
    Logger::builder(settings).batch(batch).dir(dir).stats(stats).home(home).pace(pace).sink(Box::new(sink)).open()
}

/// A record that no message could hold is digested as one that is too large for `logger.max_record_bytes`.
fn largest_record(config: &Config) -> ByteSize {
    let room = config.kafka.max_message_bytes.as_u64().saturating_sub(ENVELOPE);
    config.logger.max_record_bytes.min(ByteSize::b(room))
}
