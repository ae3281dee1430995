//! `mode = "nats"`.

use super::broker::{self, Broker};
use crate::config::Config;
use crate::error::Error;
use crate::logger::{Guard, Logger};
use crate::sink::nats::NatsSink;

pub(super) fn open(config: &Config) -> Result<(Logger, Guard), Error> {
    let nats = &config.nats;
    let broker =
        Broker { fallback: &nats.fallback, linger: nats.linger, max_message_bytes: nats.max_message_bytes, ledger: true };
    broker::open(config, &broker, |process, stats| NatsSink::open(nats.clone(), process, stats))
}
