//! What became of each message: delivery reports, put together by batch.

use crate::record::Writer;
use crate::sink::Kept;
use parking_lot::Mutex;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, DeliveryResult, Message};
use rdkafka::producer::ProducerContext;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};

/// A run of records in one message, which has a few of them when other records of their writer went elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    /// The message's place in its batch.
    pub(super) index: u32,
    pub(super) writer: Writer,
    pub(super) first_seq: u64,
    pub(super) last_seq: u64,
}

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
    pub(super) topic: String,
    pub(super) reason: String,
    pub(super) payload: Vec<u8>,
    opaque: Opaque,
}

impl Poison {
    /// The records in it.
    pub(super) fn record_lines(&self) -> impl Iterator<Item = &[u8]> {
        self.payload.split(|&byte| byte == b'\n').filter(|line| !line.is_empty())
    }
}

/// A batch on its way.
#[derive(Debug)]
struct Slot {
    batch: u64,
    live: bool,
    messages: usize,
    /// Messages without a report.
    outstanding: usize,
    failed: usize,
    marks: Vec<Mark>,
    /// A bit for each message that is owned: by the brokers, or by the dead letters.
    owned: Vec<u64>,
}

impl Slot {
    fn own(&mut self, index: u32) {
        if let Some(word) = self.owned.get_mut(index as usize / 64) {
            *word |= 1 << (index % 64);
        }
    }

    fn is_owned(&self, index: usize) -> bool {
        self.owned.get(index / 64).is_some_and(|word| word >> (index % 64) & 1 == 1)
    }
}

/// Batches that are on their way, oldest first.
#[derive(Debug, Default)]
struct Flight {
    slots: VecDeque<Slot>,
    /// The number of the first slot: the low 16 bits are its name.
    first: u64,
    reported: u64,
    failed: bool,
    poison: Vec<Poison>,
    /// Why the first message failed.
    cause: Option<String>,
    /// Reported messages' room, to be used again.
    spare: Vec<(Vec<Mark>, Vec<u64>)>,
}

impl Flight {
    fn slot(&mut self, name: u16) -> Option<&mut Slot> {
        let place = name.wrapping_sub(self.first as u16);
        self.slots.get_mut(usize::from(place))
    }

    fn fail(&mut self, slot: u16, cause: String) {
        self.failed = true;
        self.cause.get_or_insert(cause);
        if let Some(slot) = self.slot(slot) {
            slot.failed += 1;
        }
    }
}

/// How the batches stand.
#[derive(Debug, PartialEq)]
pub(super) enum Progress {
    /// All through this batch are owned.
    Owned(Option<u64>),
    /// Some messages failed, and all others have their reports: the flight is over. `kept` are live records that are owned all the same.
    Failed { cause: String, kept: Kept, replayed: Kept },
}

/// Takes librdkafka's reports and errors.
#[derive(Debug, Default)]
pub(super) struct Reports {
    flight: Mutex<Flight>,
    /// librdkafka's reports of a message say only that it failed; why, it says here.
    last_error: Mutex<Option<String>>,
    fatal: AtomicBool,
}

impl Reports {
    /// A new batch; its slot's name.
    pub(super) fn begin(&self, batch: u64, live: bool) -> u16 {
        let mut flight = self.flight.lock();
        let (marks, owned) = flight.spare.pop().unwrap_or_default();
        flight.slots.push_back(Slot { batch, live, messages: 0, outstanding: 0, failed: 0, marks, owned });
        (flight.first + flight.slots.len() as u64 - 1) as u16
    }

    /// More messages of the batch, before they are handed to librdkafka: a report may come at once.
    pub(super) fn expect(&self, slot: u16, messages: usize, marks: &[Mark]) {
        if let Some(slot) = self.flight.lock().slot(slot) {
            slot.marks.extend_from_slice(marks);
            slot.outstanding += messages;
            slot.messages += messages;
            slot.owned.resize(slot.messages.div_ceil(64), 0);
        }
    }

    /// A batch that cannot even be handed over.
    pub(super) fn fail(&self, slot: u16, cause: String) {
        self.flight.lock().fail(slot, cause);
    }

    /// librdkafka did not take a message.
    pub(super) fn refused(&self, opaque: Opaque, code: RDKafkaErrorCode, topic: &str, payload: &[u8]) {
        let mut flight = self.flight.lock();
        if is_poison(code) {
            flight.poison.push(Poison { topic: topic.to_owned(), reason: reason(code), payload: payload.to_vec(), opaque });
            return;
        }
        flight.fail(opaque.slot, format!("topic={topic}: {}", self.explain(code)));
        if let Some(slot) = flight.slot(opaque.slot) {
            slot.outstanding -= 1;
        }
    }

    /// Messages for the dead letters since the last call.
    pub(super) fn take_poison(&self) -> Vec<Poison> {
        std::mem::take(&mut self.flight.lock().poison)
    }

    /// What became of poison: it is kept, or (`Err`) its batch fails.
    pub(super) fn settle(&self, poison: &[Poison], kept: Result<(), String>) {
        let mut flight = self.flight.lock();
        for Poison { opaque, .. } in poison {
            if let Err(cause) = &kept {
                flight.fail(opaque.slot, cause.clone());
            }
            if let Some(slot) = flight.slot(opaque.slot) {
                slot.outstanding -= 1;
                if kept.is_ok() {
                    slot.own(opaque.index);
                }
            }
        }
    }

    /// How many reports there were.
    pub(super) fn reported(&self) -> u64 {
        self.flight.lock().reported
    }

    /// Whether a message has failed, so that nothing more may be sent until the others have their reports.
    pub(super) fn failing(&self) -> Option<String> {
        let flight = self.flight.lock();
        flight.failed.then(|| flight.cause.clone().unwrap_or_default())
    }

    /// Ends what is over.
    pub(super) fn progress(&self, mut owned: Option<u64>) -> Progress {
        let flight = &mut *self.flight.lock();
        while flight.slots.front().is_some_and(|slot| slot.outstanding == 0 && slot.failed == 0) {
            let Some(mut slot) = flight.slots.pop_front() else { break };
            flight.first += 1;
            owned = Some(slot.batch);
            slot.marks.clear();
            slot.owned.clear();
            if flight.spare.len() < 4 {
                flight.spare.push((slot.marks, slot.owned));
            }
        }
        if !flight.failed || flight.slots.iter().any(|slot| slot.outstanding > 0) {
            return Progress::Owned(owned);
        }
        let (mut kept, mut replayed) = (Kept::new(), Kept::new());
        for slot in flight.slots.drain(..) {
            flight.first += 1;
            let into = if slot.live { &mut kept } else { &mut replayed };
            let owned = slot.marks.iter().filter(|mark| slot.is_owned(mark.index as usize));
            owned.for_each(|mark| into.entry(mark.writer).or_default().insert(mark.first_seq, mark.last_seq));
        }
        flight.failed = false;
        Progress::Failed { cause: flight.cause.take().unwrap_or_default(), kept, replayed }
    }

    /// What the client said last, and forgets it.
    pub(super) fn last_error(&self) -> Option<String> {
        self.last_error.lock().clone()
    }

    /// The client can do nothing more: a new one must take its place.
    pub(super) fn is_fatal(&self) -> bool {
        self.fatal.load(Ordering::Acquire)
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

    fn report(&self, message: &BorrowedMessage<'_>, error: Option<&KafkaError>, opaque: Opaque) {
        let mut flight = self.flight.lock();
        flight.reported += 1;
        let Some(error) = error else {
            if let Some(slot) = flight.slot(opaque.slot) {
                slot.outstanding -= 1;
                slot.own(opaque.index);
            }
            return;
        };
        let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown);
        if is_poison(code) {
            let (topic, payload) = (message.topic().to_owned(), message.payload().unwrap_or_default().to_vec());
            flight.poison.push(Poison { topic, reason: reason(code), payload, opaque });
            return;
        }
        if code == RDKafkaErrorCode::Fatal {
            self.fatal.store(true, Ordering::Release);
        }
        if !flight.failed {
            let cause = format!("topic={}: {}", message.topic(), self.explain(code));
            flight.cause = Some(cause);
        }
        flight.failed = true;
        if let Some(slot) = flight.slot(opaque.slot) {
            slot.outstanding -= 1;
            slot.failed += 1;
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
        match result {
            Ok(message) => self.report(message, None, opaque),
            Err((error, message)) => self.report(message, Some(error), opaque),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn marks(seqs: std::ops::Range<u64>) -> Vec<Mark> {
        let writer = Writer::new(Uuid::from_u128(1), 0);
        seqs.enumerate().map(|(index, seq)| Mark { index: index as u32, writer, first_seq: seq, last_seq: seq }).collect()
    }

    fn refuse(reports: &Reports, slot: u16, index: u32, code: RDKafkaErrorCode) {
        reports.refused(Opaque { slot, index, hash: 0 }, code, "t", b"x");
    }

    #[test]
    fn an_opaque_is_its_bits() {
        let opaque = Opaque { slot: 0xfedc, index: 0xffff_fffe, hash: 0x8001 };
        assert_eq!(Opaque::from_bits(opaque.to_bits()), opaque);
    }

    #[test]
    fn a_failed_batch_keeps_what_is_owned_and_fails_only_when_all_have_reported() {
        let reports = Reports::default();
        let (first, second) = (reports.begin(7, true), reports.begin(8, true));
        reports.expect(first, 2, &marks(0..2));
        reports.expect(second, 2, &marks(2..4));
        refuse(&reports, second, 0, RDKafkaErrorCode::MessageTimedOut);
        assert!(reports.failing().unwrap().contains("MessageTimedOut"));
        assert_eq!(reports.progress(None), Progress::Owned(None), "others are still on their way");
        for index in 0..2 {
            refuse(&reports, first, index, RDKafkaErrorCode::MessageSizeTooLarge);
        }
        refuse(&reports, second, 1, RDKafkaErrorCode::MessageSizeTooLarge);
        assert_eq!(reports.progress(None), Progress::Owned(None), "poison is not owned before it is kept");
        reports.settle(&reports.take_poison(), Ok(()));
        let Progress::Failed { cause, kept, .. } = reports.progress(None) else { panic!("the flight is over") };
        assert!(cause.contains("MessageTimedOut"), "{cause}");
        let seqs = &kept[&Writer::new(Uuid::from_u128(1), 0)];
        assert_eq!(seqs.iter().collect::<Vec<_>>(), [(3, 3)]);
        assert_eq!(reports.failing(), None);
    }

    #[test]
    fn batches_are_owned_in_order() {
        let reports = Reports::default();
        let (first, second) = (reports.begin(1, true), reports.begin(2, true));
        reports.expect(first, 1, &marks(0..1));
        reports.expect(second, 1, &marks(1..2));
        refuse(&reports, second, 0, RDKafkaErrorCode::InvalidRecord);
        reports.settle(&reports.take_poison(), Ok(()));
        assert_eq!(reports.progress(None), Progress::Owned(None));
        refuse(&reports, first, 0, RDKafkaErrorCode::InvalidRecord);
        reports.settle(&reports.take_poison(), Ok(()));
        assert_eq!(reports.progress(None), Progress::Owned(Some(2)));
        assert_eq!(reports.begin(3, true), 2);
    }
}
