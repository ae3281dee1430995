//! The worker's side of the ledger: it counts what leaves the lanes and what `log()` drops, and states it now and then.

use crate::batch::Chunk;
use crate::clock::{Now, Timestamp};
use crate::lane::Lanes;
use crate::ledger::count::{Counts, hour_of};
use crate::ledger::{Entries, Entry, Kind, LedgerSettings, own_writer};
use crate::record::{MAX_MODEL_NAME_BYTES, Writer};
use crate::stats::DropReason;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::time::Duration;
use uuid::Uuid;

/// Models and hours after which a statement is made before its time: what one may take in memory.
const MAX_COUNTS: usize = 1_000;
/// Models and hours whose drops are counted apart; those of more are counted without a name.
const MAX_DROPS: usize = 256;

pub(super) struct Ledger {
    every: Duration,
    process: Uuid,
    next_seq: u64,
    /// When the next statement is due; not known before the first look.
    due: Option<Duration>,
    /// What has left the lanes since the last statement.
    spans: Vec<Span>,
    /// A statement that nobody has taken.
    waiting: Option<Entries>,
    /// A statement is on its way.
    out: bool,
    /// The last one was made.
    ended: bool,
}

/// Records of one lane that follow each other.
struct Span {
    writer: Writer,
    first: u64,
    last: u64,
    dropped: Option<DropReason>,
    counts: Counts,
}

impl Ledger {
    pub(super) fn new(settings: &LedgerSettings, process: Uuid) -> Self {
        Ledger {
            every: settings.every,
            process,
            next_seq: 0,
            due: None,
            spans: Vec::new(),
            waiting: None,
            out: false,
            ended: false,
        }
    }

    /// These records leave the lanes: the sink or the spool has them, or they were `dropped` after they had been accepted.
    pub(super) fn count(&mut self, chunk: &Chunk<'_>, dropped: Option<DropReason>) {
        let follows = |span: &&mut Span| {
            span.writer == chunk.writer && span.last.checked_add(1) == Some(chunk.first_seq) && span.dropped == dropped
        };
        if let Some(span) = self.spans.iter_mut().find(follows) {
            span.last = chunk.last_seq;
            span.counts.add(chunk);
        } else if chunk.rows > 0 {
            let mut counts = Counts::default();
            counts.add(chunk);
            self.spans.push(Span { writer: chunk.writer, first: chunk.first_seq, last: chunk.last_seq, dropped, counts });
        }
    }

    /// The statement that is to be written now, if there is one. `last`: no record is in the lanes, and none will come.
    /// Whoever has it calls [`owned`](Self::owned) or [`give_back`](Self::give_back).
    pub(super) fn take(&mut self, lanes: &Lanes, drops: &Drops, now: Now, last: bool) -> Option<Entries> {
        if self.out {
            return None;
        }
        let entries = match self.waiting.take() {
            Some(entries) => entries,
            None => self.state(lanes, drops, now, last)?,
        };
        self.out = true;
        Some(entries)
    }

    fn state(&mut self, lanes: &Lanes, drops: &Drops, now: Now, last: bool) -> Option<Entries> {
        let due = *self.due.get_or_insert(now.monotonic + self.every);
        let full = self.spans.iter().map(|span| span.counts.len()).sum::<usize>() >= MAX_COUNTS;
        if self.ended || !(last || full || now.monotonic >= due) {
            return None;
        }
        self.due = Some(now.monotonic + self.every);
        let mut entries = Entries::new(own_writer(self.process), self.next_seq, now.wall);
        for span in self.spans.drain(..) {
            let kind = if span.dropped.is_some() { Kind::Dropped } else { Kind::Accepted };
            for entry in span.counts.entries(kind) {
                let reason = span.dropped.map(|reason| reason.name().to_owned());
                entries.push(Entry { reason, ..entry }.about(span.writer, span.first, span.last));
            }
        }
        drops.take().into_iter().for_each(|entry| entries.push(entry));
        if last {
            self.ended = true;
            entries.end(&lanes.accepted());
        }
        self.next_seq = entries.next_seq();
        (entries.rows() > 0).then_some(entries)
    }

    /// What is not stated yet is due now.
    pub(super) fn hurry(&mut self, now: Now) {
        self.due = Some(now.monotonic);
    }

    /// The sink or the spool owns the statement.
    pub(super) fn owned(&mut self) {
        self.out = false;
    }

    /// Nobody took the statement.
    pub(super) fn give_back(&mut self, entries: Entries) {
        self.out = false;
        self.waiting = Some(entries);
    }

    /// The last statement is made and owned.
    pub(super) fn has_ended(&self) -> bool {
        self.ended && !self.out && self.waiting.is_none()
    }
}

/// What `log()` has dropped since the last statement, counted on its cold path.
#[derive(Debug, Default)]
pub(super) struct Drops {
    counts: Mutex<HashMap<String, Vec<Drop>>>,
}

#[derive(Debug)]
struct Drop {
    /// Since 1970.
    hour: i64,
    reason: DropReason,
    rows: u64,
}

impl Drops {
    pub(super) fn add(&self, model_name: &str, at: Timestamp, reason: DropReason) {
        const HOUR: i64 = 3_600_000_000;
        // A name that no record can have is not kept.
        let model_name = if model_name.len() > MAX_MODEL_NAME_BYTES { "" } else { model_name };
        let hour = at.micros().div_euclid(HOUR);
        let mut counts = self.counts.lock();
        let full = counts.values().map(Vec::len).sum::<usize>() >= MAX_DROPS;
        let known = counts.get_mut(model_name);
        let same = |drop: &&mut Drop| drop.hour == hour && drop.reason.name() == reason.name();
        match known.and_then(|drops| drops.iter_mut().find(same)) {
            Some(drop) => drop.rows += 1,
            None if full => {
                // Whose they are and when is lost, not that they were dropped and why.
                let others = counts.entry(String::new()).or_default();
                match others.iter_mut().find(|drop| drop.reason.name() == reason.name()) {
                    Some(drop) => drop.rows += 1,
                    None => others.push(Drop { hour, reason, rows: 1 }),
                }
            }
            None => counts.entry(model_name.to_owned()).or_default().push(Drop { hour, reason, rows: 1 }),
        }
    }

    fn take(&self) -> Vec<Entry> {
        let counts = std::mem::take(&mut *self.counts.lock());
        let entry = |model_name: &str, drop: Drop| Entry {
            model_name: (!model_name.is_empty()).then(|| model_name.to_owned()),
            hour: Some(hour_of(Timestamp::from_micros(drop.hour * 3_600_000_000))),
            reason: Some(drop.reason.name().to_owned()),
            ..Entry::new(Kind::Dropped, drop.rows)
        };
        counts.into_iter().flat_map(|(name, drops)| drops.into_iter().map(move |drop| entry(&name, drop))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_are_counted_by_model_hour_and_reason_in_bounded_memory() {
        let drops = Drops::default();
        for hour in 0..2 {
            let at = Timestamp::from_micros(hour * 3_600_000_000 + 5);
            (0..3).for_each(|_| drops.add("wine", at, DropReason::QueueFull));
        }
        drops.add("wine", Timestamp::from_micros(0), DropReason::NoSpace);
        let mut entries = drops.take();
        entries.sort_by_key(|entry| (entry.hour.clone(), entry.rows));
        let short = |entry: &Entry| (entry.hour.clone().unwrap(), entry.reason.clone().unwrap(), entry.rows);
        let first = || "1970-01-01T00:00:00Z".to_owned();
        assert_eq!(
            entries.iter().map(short).collect::<Vec<_>>(),
            [
                (first(), "no_space".to_owned(), 1),
                (first(), "queue_full".to_owned(), 3),
                ("1970-01-01T01:00:00Z".to_owned(), "queue_full".to_owned(), 3)
            ]
        );
        assert_eq!(drops.take(), []);
        (0..10_000).for_each(|n| drops.add(&format!("m{n}"), Timestamp::from_micros(0), DropReason::QueueFull));
        let entries = drops.take();
        assert_eq!(entries.len(), MAX_DROPS + 1);
        assert_eq!(entries.iter().map(|entry| entry.rows).sum::<u64>(), 10_000);
    }
}
