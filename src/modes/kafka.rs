//! `mode = "kafka"`.

use super::broker::{self, Broker};
use crate::config::Config;
use crate::error::Error;
use crate::logger::{Guard, Logger};
use crate::sink::kafka::KafkaSink;

pub(super) fn open(config: &Config) -> Result<(Logger, Guard), Error> {
    let kafka = &config.kafka;
    let broker =
        Broker { fallback: &kafka.fallback, linger: kafka.linger, max_message_bytes: kafka.max_message_bytes, ledger: true };
    broker::open(config, &broker, |process, stats| KafkaSink::open(kafka.clone(), process, stats))
}
