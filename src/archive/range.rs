//! A range of one topic partition in the making.

use super::dead_letter::{self, Letter};
use super::encoder::{EncodeError, Encoder, Format, Message, Pushed, Rejection};
use super::job::OnBad;
use super::lease::Lease;
use super::position::Position;
use super::store::{Abandoned, Finished};
use crate::clock::Now;
use crate::rotation::{Rotation, RotationSettings};
use tokio::sync::oneshot;

/// Why a worker cannot go on.
#[derive(Debug)]
pub(super) enum Fault {
    /// It may work later: everything is begun again from what is committed.
    Again(String),
    /// It never will.
    Fatal(String),
}

impl From<EncodeError> for Fault {
    fn from(error: EncodeError) -> Self {
        Fault::Again(error.to_string())
    }
}

/// What a range needs of its job.
pub(super) struct Rules<'a> {
    pub format: &'a dyn Format,
    pub rotation: &'a RotationSettings,
    pub on_bad: &'a OnBad,
    pub log_bad: bool,
}

/// A topic partition that a worker holds: the range that is open, and the one that is being stored.
pub(super) struct Partition {
    pub lease: Lease,
    /// Where the open range begins.
    from: Position,
    /// The offset behind the last message that was read.
    pub next: i64,
    /// Nothing was read yet, and where the brokers began was not doubted.
    untouched: bool,
    /// The number of a batch whose messages are not taken.
    pub passed_over: Option<u64>,
    pub until: Option<i64>,
    encoder: Option<Box<dyn Encoder>>,
    rotation: Option<Rotation>,
    rows: u64,
    messages: u64,
    letters: Vec<Letter>,
    letter_bytes: usize,
    storing: Option<oneshot::Receiver<Result<Position, Abandoned>>>,
    /// The newest time of a message, milliseconds since 1970.
    newest_time: i64,
    /// Everything was read that the brokers were known to have.
    at_end: bool,
    /// Messages came since this was asked last.
    pub came: bool,
    pub rejected: u64,
}

impl Partition {
    /// It is read from `next` on.
    pub fn new(lease: Lease, from: Position, next: i64, until: Option<i64>) -> Partition {
        Partition {
            lease,
            from,
            next,
            untouched: true,
            passed_over: None,
            until,
            encoder: None,
            rotation: None,
            rows: 0,
            messages: 0,
            letters: Vec::new(),
            letter_bytes: 0,
            storing: None,
            newest_time: 0,
            at_end: false,
            came: false,
            rejected: 0,
        }
    }

    /// Takes a message, unless the range must end before it.
    pub fn push(&mut self, message: &Message<'_>, now: Now, rules: &Rules<'_>) -> Result<Taken, Fault> {
        if message.offset < self.next {
            return Ok(Taken::Yes);
        }
        if let Some(last) = self.last().filter(|last| message.offset >= *last) {
            // What lies before it came before it.
            self.next = self.next.max(last);
            return Ok(Taken::Yes);
        }
        if self.is_behind_plan(message.offset) {
            return Ok(Taken::RotateFirst);
        }
        self.from.offset.get_or_insert(message.offset);
        let encoder = match &mut self.encoder {
            Some(encoder) => encoder,
            None => {
                let at = &self.lease.at;
                self.rotation = Some(Rotation::open(now));
                self.encoder.insert(rules.format.open(&at.topic, at.partition, message.offset)?)
            }
        };
        match encoder.push(message)? {
            Pushed::Rotate => {
                // A planned end that is not reached was planned under other settings: the range is planned anew.
                self.from.end = None;
                return Ok(Taken::RotateFirst);
            }
            Pushed::Taken { rows } => self.took(message, rows, now),
            Pushed::Rejected(reason) => {
                self.took(message, 0, now);
                self.reject(message, message.value, reason, rules)?;
            }
            Pushed::Partly { rows, rejected } => {
                self.took(message, rows, now);
                for (text, reason) in rejected {
                    self.reject(message, Some(&text), reason.into(), rules)?;
                }
            }
        }
        self.messages += 1;
        self.next = message.offset + 1;
        self.newest_time = self.newest_time.max(message.timestamp.unwrap_or(0));
        (self.at_end, self.came) = (false, true);
        Ok(Taken::Yes)
    }

    /// Whether this first message is not the one that was asked for: it may be the next one that there is, or librdkafka may have gone on from an
    /// assignment before this one. Asked once.
    pub fn doubts(&mut self, offset: i64) -> bool {
        std::mem::replace(&mut self.untouched, false) && offset > self.next
    }

    fn took(&mut self, message: &Message<'_>, rows: u64, now: Now) {
        self.rows += rows;
        if let Some(rotation) = &mut self.rotation {
            // A message without rows counts: its range must end too.
            rotation.wrote(rows.max(1), message.value.map_or(0, <[u8]>::len) as u64, now);
        }
    }

    fn reject(&mut self, message: &Message<'_>, text: Option<&[u8]>, reason: Rejection, rules: &Rules<'_>) -> Result<(), Fault> {
        if *rules.on_bad == OnBad::Stop {
            return Err(Fault::Fatal(format!("{message:?} cannot be stored: {}", reason.why)));
        }
        self.rejected += 1;
        match rules.log_bad {
            true => tracing::error!(?message, reason = reason.why, "cannot be stored"),
            false => tracing::debug!(?message, reason = reason.why, "cannot be stored"),
        }
        if *rules.on_bad != OnBad::Skip {
            let letter = Letter::new(&self.lease.at, message, text, reason);
            self.letter_bytes += letter.bytes();
            self.letters.push(letter);
        }
        Ok(())
    }

    /// A range that was planned before a crash ends where it was planned, whatever the limits say now.
    fn is_behind_plan(&self, offset: i64) -> bool {
        self.from.end.is_some_and(|end| offset >= end)
    }

    /// The offset that is not taken any more, of a run that ends: where the partition ended when it began. Else there would be no end where the run's own offsets
    /// are messages (`__consumer_offsets`), or where they come faster than they are stored. What was planned is stored all the same.
    fn last(&self) -> Option<i64> {
        self.until.map(|until| until.max(self.from.end.unwrap_or(until)))
    }

    /// The partition was read up to this offset, behind which there is nothing more.
    pub fn read_to(&mut self, offset: i64) {
        // What lies behind the last was passed over, and is not stored.
        let last = self.last().unwrap_or(offset);
        self.at_end = offset <= last;
        self.next = self.next.max(offset.min(last));
    }

    pub fn is_due(&self, now: Now, rules: &Rules<'_>) -> bool {
        if let Some(end) = self.from.end {
            return self.next >= end;
        }
        let Some(rotation) = &self.rotation else { return false };
        self.messages > 0
            && (rotation.due(rules.rotation, now).is_some()
                || self.letter_bytes >= dead_letter::FULL
                || self.encoder.as_ref().is_some_and(|encoder| encoder.is_due(now.wall))
                || self.is_at_end())
    }

    /// Rows alone decide, so this can be asked after each message.
    pub fn is_full(&self, rules: &Rules<'_>) -> bool {
        match self.from.end {
            Some(end) => self.next >= end,
            None => self.rotation.as_ref().is_some_and(|rotation| rotation.rows() >= rules.rotation.max_rows),
        }
    }

    fn is_at_end(&self) -> bool {
        self.until.is_some_and(|until| self.next >= until)
    }

    /// Everything up to `until` is stored, and no more is taken.
    pub fn is_done(&self) -> bool {
        self.is_at_end() && self.messages == 0 && self.storing.is_none()
    }

    pub fn memory(&self) -> usize {
        self.letter_bytes + self.encoder.as_ref().map_or(0, |encoder| encoder.memory())
    }

    /// Everything that there was is stored.
    pub fn is_caught_up(&self) -> bool {
        self.at_end && self.messages == 0 && self.storing.is_none()
    }

    /// A planned range cannot end early.
    pub fn may_end(&self) -> bool {
        self.messages > 0 && self.from.end.is_none()
    }

    /// Ends the range. Call [`Partition::settle`] first: one range is stored at a time.
    pub fn finish(&mut self, on_bad: &OnBad) -> Result<Finished, Fault> {
        let next = self.next;
        let (mut objects, mut state, mut duplicates) = (Vec::new(), None, 0);
        if let Some(mut encoder) = self.encoder.take() {
            (state, duplicates) = (encoder.state(), encoder.duplicates());
            objects = encoder.finish()?;
        }
        let letters = std::mem::take(&mut self.letters);
        if let OnBad::Objects { prefix } = on_bad {
            objects.extend(dead_letter::object(prefix, &letters));
        }
        if self.lease.tag.is_some() {
            objects.iter_mut().for_each(|object| object.rename(&self.lease.at.topic, &self.lease.called().topic));
        }
        // The last messages of a planned range may be gone from the topic.
        let end = self.from.end.unwrap_or(next);
        let finished = Finished {
            lease: self.lease.clone(),
            from: self.from,
            end,
            objects,
            state,
            dead: if matches!(on_bad, OnBad::Topic { .. }) { letters } else { Vec::new() },
            messages: std::mem::take(&mut self.messages),
            rows: std::mem::take(&mut self.rows),
            duplicates,
            newest_time: self.newest_time,
        };
        self.letter_bytes = 0;
        self.rotation = None;
        self.next = end.max(next);
        self.from =
            Position { offset: Some(end), state: finished.state.is_some(), topic: self.from.topic, ..Position::default() };
        Ok(finished)
    }

    pub fn stores(&mut self, answer: oneshot::Receiver<Result<Position, Abandoned>>) {
        self.storing = Some(answer);
    }

    /// Looks whether the range that was finished is stored.
    ///
    /// # Errors
    /// It never will be by us: the partition is lost, or the archiver stops.
    pub fn look(&mut self) -> Result<(), Abandoned> {
        let Some(storing) = &mut self.storing else { return Ok(()) };
        match storing.try_recv() {
            Ok(Ok(_)) => self.storing = None,
            Err(oneshot::error::TryRecvError::Empty) => {}
            Ok(Err(Abandoned)) | Err(oneshot::error::TryRecvError::Closed) => return Err(Abandoned),
        }
        Ok(())
    }

    /// Waits until the range that was finished is stored.
    ///
    /// # Errors
    /// As [`look`](Self::look).
    pub fn settle(&mut self) -> Result<(), Abandoned> {
        match self.storing.take() {
            Some(storing) => storing.blocking_recv().unwrap_or(Err(Abandoned)).map(drop),
            None => Ok(()),
        }
    }
}

/// Whether a message is in the range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// It is, or was before.
    Yes,
    /// The range must be finished first.
    RotateFirst,
}
