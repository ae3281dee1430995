//! What became of each message: librdkafka's delivery reports and errors.

use crate::sink::broker::dead_letter::Letter;
use crate::sink::broker::flight::Flight;
use parking_lot::{Mutex, MutexGuard};
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::ProducerContext;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// A message's name in its report: the batch's slot, the message's place in it, and what the partitioner needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Opaque {
    pub(super) slot: u16,
    pub(super) index: u32,
    pub(super) hash: u16,
}

impl Opaque {
    pub(super) fn to_bits(self) -> usize {
        usize::from(self.hash) << 48 | usize::from(self.slot) << 32 | self.index as usize
    }

    pub(super) fn from_bits(bits: usize) -> Self {
        Opaque { slot: (bits >> 32) as u16, index: bits as u32, hash: (bits >> 48) as u16 }
    }
}

/// A message that no broker will ever take, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Poison {
    topic: String,
    reason: String,
    lines: Vec<u8>,
    opaque: Opaque,
}

impl Poison {
    /// As the dead letters take it.
    pub(super) fn letter(&self) -> Letter<'_> {
        Letter { topic: &self.topic, reason: &self.reason, lines: &self.lines }
    }
}

/// Takes librdkafka's reports and errors.
#[derive(Debug, Default)]
pub(super) struct Reports {
    flight: Mutex<Flight>,
    poison: Mutex<Vec<Poison>>,
    reported: AtomicU64,
    /// librdkafka's reports of a message say only that it failed; why, it says here.
    last_error: Mutex<Option<String>>,
    /// Topics that took no message in time: they may be missing.
    suspects: Mutex<BTreeSet<String>>,
    fatal: AtomicBool,
    /// The client's `batch.size`: a message of as many bytes goes in a batch of its own.
    batch_bytes: usize,
    /// A batch was too large, and not a message in it as far as is known.
    too_large: AtomicBool,
}

impl Reports {
    /// Of a client whose batches have at most so many bytes.
    pub(super) fn of_batches(batch_bytes: usize) -> Self {
        Reports { batch_bytes, ..Reports::default() }
    }

    /// What is on its way.
    pub(super) fn flight(&self) -> MutexGuard<'_, Flight> {
        self.flight.lock()
    }

    /// librdkafka did not take a message.
    pub(super) fn refused(&self, opaque: Opaque, code: RDKafkaErrorCode, topic: &str, payload: &[u8]) {
        self.failed(opaque, code, topic, payload);
    }

    /// A message that cannot be sent, and that must not hold up others.
    pub(super) fn bury(&self, opaque: Opaque, topic: &str, reason: &str, payload: &[u8]) {
        // One that is not its line has that kept beside it.
        let lines = self.flight.lock().line(opaque.slot, opaque.index).unwrap_or(payload).to_vec();
        let poison = Poison { topic: topic.to_owned(), reason: reason.to_owned(), lines, opaque };
        self.poison.lock().push(poison);
    }

    /// Messages for the dead letters since the last call.
    pub(super) fn take_poison(&self) -> Vec<Poison> {
        std::mem::take(&mut self.poison.lock())
    }

    /// What became of poison: it is kept, or (`Err`) its batch fails.
    pub(super) fn settle(&self, poison: &[Poison], kept: &Result<(), String>) {
        let mut flight = self.flight.lock();
        for Poison { opaque, .. } in poison {
            match kept {
                Ok(()) => flight.own(opaque.slot, opaque.index),
                Err(cause) => flight.fail(opaque.slot, || cause.clone()),
            }
        }
    }

    /// Topics that took no message in time since the last call.
    pub(super) fn take_suspects(&self) -> BTreeSet<String> {
        std::mem::take(&mut self.suspects.lock())
    }

    /// How many reports there were.
    pub(super) fn reported(&self) -> u64 {
        self.reported.load(Ordering::Relaxed)
    }

    /// What the client said last, and forgets it.
    pub(super) fn last_error(&self) -> Option<String> {
        self.last_error.lock().clone()
    }

    /// The client can do nothing more: a new one must take its place.
    pub(super) fn is_fatal(&self) -> bool {
        self.fatal.load(Ordering::Acquire)
    }

    /// Batches are larger than a broker takes: a client that makes smaller ones must take this one's place.
    pub(super) fn are_too_large(&self) -> bool {
        self.too_large.load(Ordering::Acquire)
    }

    /// Brokers judge a batch as a whole, so a message among others may be small enough by itself.
    fn batch_is_too_large(&self, opaque: Opaque, topic: &str) {
        self.too_large.store(true, Ordering::Release);
        let batch_bytes = self.batch_bytes;
        self.flight.lock().fail(opaque.slot, || {
            format!("topic={topic}: a batch of up to {batch_bytes} bytes is larger than the broker takes; smaller ones are tried")
        });
    }

    fn explain(&self, code: RDKafkaErrorCode) -> String {
        let hint = match code {
            RDKafkaErrorCode::UnknownTopic | RDKafkaErrorCode::UnknownTopicOrPartition => {
                "the topic does not exist: create it, or set kafka.create_topics = true".to_owned()
            }
            _ => self.last_error.lock().clone().unwrap_or_default(),
        };
        if hint.is_empty() { reason(code) } else { format!("{}: {hint}", reason(code)) }
    }

    fn failed(&self, opaque: Opaque, code: RDKafkaErrorCode, topic: &str, payload: &[u8]) {
        if code == RDKafkaErrorCode::Fatal {
            self.fatal.store(true, Ordering::Release);
        }
        if is_poison(code) {
            self.bury(opaque, topic, &reason(code), payload);
        } else {
            let mut suspects = self.suspects.lock();
            if !suspects.contains(topic) {
                suspects.insert(topic.to_owned());
            }
            drop(suspects);
            self.flight.lock().fail(opaque.slot, || format!("topic={topic}: {}", self.explain(code)));
        }
    }
}

fn reason(code: RDKafkaErrorCode) -> String {
    format!("{code:?}")
}

/// The message itself is at fault, or where it must go: sending it again changes nothing.
fn is_poison(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::MessageSizeTooLarge
            | RDKafkaErrorCode::InvalidMessage
            | RDKafkaErrorCode::InvalidMessageSize
            | RDKafkaErrorCode::InvalidRecord
            | RDKafkaErrorCode::InvalidTopic
            | RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::PolicyViolation
            | RDKafkaErrorCode::InvalidTimestamp
    )
}

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        // While a broker is away librdkafka says so several times a second; predlog says it once, as its own error.
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => tracing::error!(facility, "{message}"),
            _ => tracing::debug!(facility, "{message}"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::Fatal) {
            self.fatal.store(true, Ordering::Release);
        }
        // "All brokers are down" follows the error that says why.
        let mut last = self.last_error.lock();
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::AllBrokersDown) || last.is_none() {
            *last = Some(reason.to_owned());
        }
        tracing::debug!(%error, reason, "kafka");
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, opaque: usize) {
        let opaque = Opaque::from_bits(opaque);
        self.reported.fetch_add(1, Ordering::Relaxed);
        match result {
            Ok(_) => self.flight.lock().own(opaque.slot, opaque.index),
            Err((error, message)) => {
                let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown);
                let bytes = message.payload().map_or(0, <[u8]>::len) + message.key().map_or(0, <[u8]>::len);
                if code == RDKafkaErrorCode::MessageSizeTooLarge && bytes < self.batch_bytes {
                    return self.batch_is_too_large(opaque, message.topic());
                }
                self.failed(opaque, code, message.topic(), message.payload().unwrap_or_default());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::broker::flight::Progress;

    #[test]
    fn an_opaque_is_its_bits() {
        let opaque = Opaque { slot: 0xfedc, index: 0xffff_fffe, hash: 0x8001 };
        assert_eq!(Opaque::from_bits(opaque.to_bits()), opaque);
    }

    #[test]
    fn poison_is_owned_when_it_is_kept_and_fails_its_batch_when_it_cannot_be() {
        for (kept, expected) in [(Ok(()), Progress::Owned(Some(7))), (Err("no room".to_owned()), Progress::Owned(None))] {
            let reports = Reports::default();
            let slot = reports.flight().begin(7, true);
            reports.flight().expect(slot, 1, &[]);
            reports.refused(Opaque { slot, index: 0, hash: 0 }, RDKafkaErrorCode::MessageSizeTooLarge, "t", b"x");
            assert_eq!(reports.flight().progress(None), Progress::Owned(None), "it is not owned before it is kept");
            reports.settle(&reports.take_poison(), &kept);
            let progress = reports.flight().progress(None);
            match kept {
                Ok(()) => assert_eq!(progress, expected),
                Err(why) => assert!(matches!(progress, Progress::Failed { cause, .. } if cause == why)),
            }
        }
    }
}
