//! Batches that a broker has and has not acknowledged.

use crate::record::Writer;
use crate::sink::Kept;
use std::collections::VecDeque;

/// A run of records in one message, which has a few of them when other records of their writer went elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    /// The message's place in its batch.
    pub(crate) index: u32,
    pub(crate) writer: Writer,
    pub(crate) first_seq: u64,
    pub(crate) last_seq: u64,
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
    /// A bit for each message that is owned: by the broker, or by the dead letters.
    owned: Vec<u64>,
    /// The lines of messages that are something else, one after another, and where each ends.
    #[cfg(feature = "kafka")]
    lines: Vec<u8>,
    #[cfg(feature = "kafka")]
    ends: Vec<usize>,
}

impl Slot {
    fn is_owned(&self, index: usize) -> bool {
        self.owned.get(index / 64).is_some_and(|word| word >> (index % 64) & 1 == 1)
    }
}

/// Batches that are on their way, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Flight {
    slots: VecDeque<Slot>,
    /// The number of the first slot: the low 16 bits are its name.
    first: u64,
    /// Why the first message failed.
    cause: Option<String>,
    /// Reported messages' room, to be used again.
    spare: Vec<(Vec<Mark>, Vec<u64>)>,
}

/// How the batches stand.
#[derive(Debug, PartialEq)]
pub(crate) enum Progress {
    /// All through this batch are owned.
    Owned(Option<u64>),
    /// Some messages failed, and all others have their reports: the flight is over. `kept` are live records that are owned all the same, and
    /// `replayed` are others.
    Failed { cause: String, kept: Kept, replayed: Kept },
}

impl Flight {
    /// A new batch; its slot's name.
    pub(crate) fn begin(&mut self, batch: u64, live: bool) -> u16 {
        let (marks, owned) = self.spare.pop().unwrap_or_default();
        self.slots.push_back(Slot {
            batch,
            live,
            messages: 0,
            outstanding: 0,
            failed: 0,
            marks,
            owned,
            #[cfg(feature = "kafka")]
            lines: Vec::new(),
            #[cfg(feature = "kafka")]
            ends: Vec::new(),
        });
        (self.first + self.slots.len() as u64 - 1) as u16
    }

    /// More messages of the batch, before they are handed over: a report may come at once.
    pub(crate) fn expect(&mut self, slot: u16, messages: usize, marks: &[Mark]) {
        if let Some(slot) = self.slot(slot) {
            slot.marks.extend_from_slice(marks);
            slot.outstanding += messages;
            slot.messages += messages;
            slot.owned.resize(slot.messages.div_ceil(64), 0);
        }
    }

    /// Keeps the line of the newest message, for the case that no broker takes what was made of it.
    #[cfg(all(feature = "kafka", feature = "parquet"))]
    pub(crate) fn keep_line(&mut self, slot: u16, index: u32, line: &[u8]) {
        if let Some(slot) = self.slot(slot) {
            slot.ends.resize(index as usize, slot.lines.len());
            slot.lines.extend_from_slice(line);
            slot.ends.push(slot.lines.len());
        }
    }

    /// The line of a message, if it was kept.
    #[cfg(feature = "kafka")]
    pub(crate) fn line(&mut self, slot: u16, index: u32) -> Option<&[u8]> {
        let (slot, index) = (self.slot(slot)?, index as usize);
        let end = *slot.ends.get(index)?;
        let start = index.checked_sub(1).and_then(|before| slot.ends.get(before)).copied().unwrap_or(0);
        slot.lines.get(start..end).filter(|line| !line.is_empty())
    }

    /// The broker, or the dead letters, have the message.
    pub(crate) fn own(&mut self, slot: u16, index: u32) {
        let Some(slot) = self.slot(slot) else { return };
        slot.outstanding -= 1;
        if let Some(word) = slot.owned.get_mut(index as usize / 64) {
            *word |= 1 << (index % 64);
        }
    }

    /// A message that was expected has failed.
    pub(crate) fn fail(&mut self, slot: u16, cause: impl FnOnce() -> String) {
        self.fail_batch(slot, cause);
        if let Some(slot) = self.slot(slot) {
            slot.outstanding -= 1;
        }
    }

    /// A part of the batch was not even handed over.
    pub(crate) fn fail_batch(&mut self, slot: u16, cause: impl FnOnce() -> String) {
        self.cause.get_or_insert_with(cause);
        if let Some(slot) = self.slot(slot) {
            slot.failed += 1;
        }
    }

    /// Why a message has failed, so that nothing more may be sent until the others have their reports.
    pub(crate) fn failing(&self) -> Option<&str> {
        self.cause.as_deref()
    }

    /// Ends what is over. `owned` is the last answer.
    pub(crate) fn progress(&mut self, mut owned: Option<u64>) -> Progress {
        let before = owned;
        while self.slots.front().is_some_and(|slot| slot.outstanding == 0 && slot.failed == 0) {
            let Some(mut slot) = self.slots.pop_front() else { break };
            self.first += 1;
            owned = Some(slot.batch);
            slot.marks.clear();
            slot.owned.clear();
            if self.spare.len() < 4 {
                self.spare.push((slot.marks, slot.owned));
            }
        }
        // A failure is told alone: what is owned by now was told before it.
        if self.cause.is_none() || owned != before || self.slots.iter().any(|slot| slot.outstanding > 0) {
            return Progress::Owned(owned);
        }
        let (mut kept, mut replayed) = (Kept::new(), Kept::new());
        for slot in self.slots.drain(..) {
            self.first += 1;
            let into = if slot.live { &mut kept } else { &mut replayed };
            let owned = slot.marks.iter().filter(|mark| slot.is_owned(mark.index as usize));
            owned.for_each(|mark| into.entry(mark.writer).or_default().insert(mark.first_seq, mark.last_seq));
        }
        Progress::Failed { cause: self.cause.take().unwrap_or_default(), kept, replayed }
    }

    fn slot(&mut self, name: u16) -> Option<&mut Slot> {
        let place = name.wrapping_sub(self.first as u16);
        self.slots.get_mut(usize::from(place))
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

    #[test]
    fn a_failed_batch_keeps_what_is_owned_and_fails_only_when_all_have_reported() {
        let mut flight = Flight::default();
        let (first, second) = (flight.begin(7, true), flight.begin(8, true));
        flight.expect(first, 2, &marks(0..2));
        flight.expect(second, 2, &marks(2..4));
        flight.fail(second, || "timed out".to_owned());
        assert_eq!(flight.failing(), Some("timed out"));
        assert_eq!(flight.progress(None), Progress::Owned(None), "others are still on their way");
        flight.own(first, 0);
        flight.own(first, 1);
        flight.own(second, 1);
        assert_eq!(flight.progress(None), Progress::Owned(Some(7)));
        let Progress::Failed { cause, kept, .. } = flight.progress(Some(7)) else { panic!("the flight is over") };
        assert_eq!(cause, "timed out");
        let seqs = &kept[&Writer::new(Uuid::from_u128(1), 0)];
        assert_eq!(seqs.iter().collect::<Vec<_>>(), [(3, 3)]);
        assert_eq!(flight.failing(), None);
    }

    #[cfg(all(feature = "kafka", feature = "parquet"))]
    #[test]
    fn lines_are_kept_for_the_messages_that_are_something_else() {
        let mut flight = Flight::default();
        let slot = flight.begin(7, true);
        flight.keep_line(slot, 1, b"one");
        flight.keep_line(slot, 2, b"two");
        flight.keep_line(slot, 5, b"five");
        let lines: Vec<Option<&[u8]>> = Vec::from([None, Some(b"one".as_slice()), Some(b"two"), None, None, Some(b"five"), None]);
        for (index, line) in lines.into_iter().enumerate() {
            assert_eq!(flight.line(slot, index as u32), line);
        }
    }

    #[test]
    fn batches_are_owned_in_order() {
        let mut flight = Flight::default();
        let (first, second) = (flight.begin(1, true), flight.begin(2, true));
        flight.expect(first, 1, &marks(0..1));
        flight.expect(second, 1, &marks(1..2));
        flight.own(second, 0);
        assert_eq!(flight.progress(None), Progress::Owned(None));
        flight.own(first, 0);
        assert_eq!(flight.progress(None), Progress::Owned(Some(2)));
        assert_eq!(flight.begin(3, true), 2);
    }
}
