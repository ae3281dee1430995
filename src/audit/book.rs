//! What the ledger states, put together: who accepted what, and who is done.

use super::tally::{Cells, Place};
use crate::ledger::{ADOPTED_LANE, Kind, Stated};
use crate::record::Writer;
use crate::seqs::SeqRanges;
use std::collections::{BTreeMap, HashMap, HashSet};
use uuid::Uuid;

/// All statements.
#[derive(Debug, Default)]
pub(super) struct Book {
    /// Which entries were read, by who stated them: gapless from 0 when none is missing.
    read: BTreeMap<Writer, SeqRanges>,
    /// Accepted ranges by (about, first, last, who stated it).
    spans: Ranges,
    /// Those that were dropped after.
    drops: Ranges,
    /// How many records a writer accepted in all.
    ends: HashMap<Writer, u64>,
    ended: HashSet<Uuid>,
    /// When a process stated something last, UTC microseconds.
    heard: BTreeMap<Uuid, i64>,
}

/// Records by model and hour, of each range.
type Ranges = HashMap<Range, Vec<(Place, u64)>>;
/// Whose records, the first and the last, and who stated them.
type Range = (Writer, u64, u64, Writer);

fn sum(counts: &[(Place, u64)]) -> u64 {
    counts.iter().map(|(_, rows)| rows).sum()
}

/// What is known of one writer's records.
#[derive(Debug, Default)]
pub(super) struct Account {
    /// Stated ranges, rising, none over another.
    pub(super) spans: Vec<Stretch>,
    /// What of them was dropped after it had been stated as accepted, with the rest of its range.
    pub(super) lost: SeqRanges,
    pub(super) lost_counts: Vec<(Place, u64)>,
}

/// A range of one writer, both ends included.
#[derive(Debug)]
pub(super) struct Stretch {
    pub(super) first: u64,
    pub(super) last: u64,
    /// Records by model and hour. Empty where only the range is known.
    pub(super) counts: Vec<(Place, u64)>,
    /// They were accepted, and dropped after, all of them.
    pub(super) dropped: bool,
}

impl Book {
    /// Takes an entry in, once.
    pub(super) fn add(&mut self, stated: Stated, cells: &mut Cells) {
        let read = self.read.entry(stated.writer).or_default();
        if read.contains(stated.seq) {
            return;
        }
        read.insert(stated.seq, stated.seq);
        let heard = self.heard.entry(stated.writer.process()).or_insert(stated.timestamp);
        *heard = stated.timestamp.max(*heard);
        let entry = stated.entry;
        let about = entry.about.as_deref().and_then(|about| about.parse::<Writer>().ok());
        let range = about.zip(entry.first).zip(entry.last).map(|((about, first), last)| (about, first, last));
        let place = cells.place(entry.model_name.as_deref(), entry.hour.as_deref());
        match (entry.kind, range) {
            (Kind::End, range) => {
                self.ended.insert(stated.writer.process());
                if let Some((about, _, last)) = range {
                    let end = self.ends.entry(about).or_default();
                    *end = (*end).max(last.saturating_add(1));
                }
            }
            (Kind::Accepted, Some((about, first, last))) => {
                self.spans.entry((about, first, last, stated.writer)).or_default().push((place, entry.rows));
            }
            (Kind::Accepted, None) => {}
            (Kind::Dropped, range) => {
                let reason = entry.reason.unwrap_or_else(|| "unknown".to_owned());
                *cells.of(place).dropped.entry(reason).or_default() += entry.rows;
                if let Some((about, first, last)) = range {
                    self.drops.entry((about, first, last, stated.writer)).or_default().push((place, entry.rows));
                }
            }
        }
    }

    /// Retention has deleted these entries: they were about records that it had deleted before.
    pub(super) fn expired(&mut self, writer: Writer, first: u64, last: u64) {
        self.read.entry(writer).or_default().insert(first, last);
    }

    /// Nothing was stated.
    pub(super) fn is_empty(&self) -> bool {
        self.read.is_empty()
    }

    /// The processes that have stated something, and when they did last.
    pub(super) fn heard(&self) -> &BTreeMap<Uuid, i64> {
        &self.heard
    }

    /// The process has said its last word, or another has for it.
    pub(super) fn has_ended(&self, process: Uuid) -> bool {
        self.ended.contains(&process)
    }

    /// Entries that are missing between others: who stated them, the first and the last.
    pub(super) fn gaps(&self) -> Vec<(Writer, u64, u64)> {
        let mut gaps = Vec::new();
        for (&writer, read) in &self.read {
            let mut next = 0;
            for (first, last) in read.iter() {
                if first > next {
                    gaps.push((writer, next, first - 1));
                }
                next = last.saturating_add(1);
            }
        }
        gaps
    }

    fn came_to(&mut self, about: Writer, last: u64) {
        let end = self.ends.entry(about).or_default();
        *end = (*end).max(last.saturating_add(1));
    }

    /// The accounts of all writers, with what is known of each range once.
    pub(super) fn accounts(&mut self) -> HashMap<Writer, Account> {
        let mut stated: HashMap<Writer, SeqRanges> = HashMap::new();
        let mut accounts: HashMap<Writer, Account> = HashMap::new();
        for ((about, first, last, _), counts) in in_order(&mut self.spans) {
            let known = stated.entry(about).or_default();
            // Some of its entries are missing, or it is over another: it says how far the writer came, not what it was.
            if known.intersects(first, last) || !is_whole(first, last, &counts) {
                self.came_to(about, last);
                continue;
            }
            known.insert(first, last);
            accounts.entry(about).or_default().push(Stretch { first, last, counts, dropped: false });
        }
        let mut dropped: HashMap<Writer, SeqRanges> = HashMap::new();
        for ((about, first, last, _), counts) in in_order(&mut self.drops) {
            let (known, dropped) = (stated.entry(about).or_default(), dropped.entry(about).or_default());
            if dropped.intersects(first, last) || !is_whole(first, last, &counts) {
                self.came_to(about, last);
                continue;
            }
            dropped.insert(first, last);
            let account = accounts.entry(about).or_default();
            if known.intersects(first, last) {
                account.lost.insert(first, last);
                account.lost_counts.extend(counts);
            } else {
                known.insert(first, last);
                account.push(Stretch { first, last, counts: Vec::new(), dropped: true });
            }
        }
        for (&about, &end) in &self.ends {
            let known = stated.remove(&about).unwrap_or_default();
            let account = accounts.entry(about).or_default();
            let mut next = 0;
            for (first, last) in known.iter().chain([(end, end)]) {
                let first = first.min(end);
                if first > next {
                    account.spans.push(Stretch { first: next, last: first - 1, counts: Vec::new(), dropped: false });
                }
                next = next.max(last.saturating_add(1));
            }
        }
        accounts.values_mut().for_each(|account| account.spans.sort_unstable_by_key(|stretch| stretch.first));
        accounts
    }
}

/// What a process stated of itself goes first: an adopter may have stated the same again, from what was left.
fn in_order(ranges: &mut Ranges) -> Vec<(Range, Vec<(Place, u64)>)> {
    let mut ranges: Vec<_> = std::mem::take(ranges).into_iter().collect();
    ranges.sort_unstable_by_key(|((about, first, _, by), _)| (*about, by.lane() == ADOPTED_LANE, *first));
    ranges
}

/// Whether all entries of a range were read.
fn is_whole(first: u64, last: u64, counts: &[(Place, u64)]) -> bool {
    last.checked_sub(first).and_then(|span| span.checked_add(1)) == Some(sum(counts))
}

impl Account {
    /// Appends a stretch, to the one before it where both are of the same models and hours: so a year of statements stays small.
    fn push(&mut self, stretch: Stretch) {
        let same = |last: &&mut Stretch| {
            last.last.checked_add(1) == Some(stretch.first)
                && last.dropped == stretch.dropped
                && last.counts.len() == stretch.counts.len()
                && last.counts.iter().all(|(place, _)| stretch.counts.iter().any(|(other, _)| other == place))
        };
        match self.spans.last_mut().filter(same) {
            Some(last) => {
                last.last = stretch.last;
                for (place, rows) in &mut last.counts {
                    *rows += stretch.counts.iter().filter(|(other, _)| other == place).map(|(_, more)| more).sum::<u64>();
                }
            }
            None => self.spans.push(stretch),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{Entry, OWN_LANE};

    /// (who states: a lane of process 1, kind, first and last seq of its lane 0, model, rows).
    type Short = (u8, Kind, u64, u64, Option<&'static str>, u64);

    fn book(entries: &[Short]) -> (Book, Cells) {
        let (mut book, mut cells) = (Book::default(), Cells::default());
        let process = Uuid::from_u128(1);
        let mut seqs: HashMap<u8, u64> = HashMap::new();
        for &(by, kind, first, last, model, rows) in entries {
            let seq = seqs.entry(by).or_default();
            let entry = Entry {
                model_name: model.map(str::to_owned),
                hour: model.map(|_| "2026-11-23T03:00:00Z".to_owned()),
                ..Entry::new(kind, rows)
            };
            let entry = entry.about(Writer::new(process, 0), first, last);
            book.add(Stated { timestamp: 0, writer: Writer::new(process, by), seq: *seq, entry }, &mut cells);
            *seq += 1;
        }
        (book, cells)
    }

    /// First, last, and how many records are known by model and hour.
    fn stretches(book: &mut Book) -> Vec<(u64, u64, u64)> {
        let accounts = book.accounts();
        let account = &accounts[&Writer::new(Uuid::from_u128(1), 0)];
        account.spans.iter().map(|s| (s.first, s.last, s.counts.iter().map(|(_, rows)| rows).sum())).collect()
    }

    #[test]
    fn what_an_adopter_states_again_counts_once() {
        let (own, adopted) = (OWN_LANE, ADOPTED_LANE);
        let (mut book, _) = book(&[
            (own, Kind::Accepted, 0, 9, Some("a"), 10),
            (own, Kind::Accepted, 10, 19, Some("a"), 10),
            (adopted, Kind::Accepted, 10, 19, Some("a"), 10),
            (adopted, Kind::Accepted, 30, 39, Some("a"), 4),
            (adopted, Kind::Accepted, 30, 39, Some("b"), 6),
            (adopted, Kind::End, 0, 44, None, 45),
        ]);
        assert!(book.has_ended(Uuid::from_u128(1)));
        assert_eq!(stretches(&mut book), [(0, 19, 20), (20, 29, 0), (30, 39, 10), (40, 44, 0)]);
    }

    #[test]
    fn a_range_that_lacks_an_entry_is_known_by_its_ends_alone() {
        let (mut book, _) =
            book(&[(OWN_LANE, Kind::Accepted, 0, 9, Some("a"), 10), (OWN_LANE, Kind::Accepted, 10, 19, Some("a"), 7)]);
        assert_eq!(stretches(&mut book), [(0, 9, 10), (10, 19, 0)]);
        assert!(!book.has_ended(Uuid::from_u128(1)));
    }

    #[test]
    fn what_is_dropped_of_a_range_is_told_from_all_of_one() {
        let (accepted, dropped) = (Kind::Accepted, Kind::Dropped);
        let (mut book, mut cells) = book(&[
            // Before and after the range that it is of, and alone in one.
            (OWN_LANE, dropped, 3, 4, Some("a"), 2),
            (OWN_LANE, accepted, 0, 9, Some("a"), 10),
            (OWN_LANE, dropped, 9, 10, Some("a"), 2),
            (OWN_LANE, accepted, 10, 10, Some("a"), 1),
            (OWN_LANE, accepted, 11, 11, Some("b"), 1),
            (OWN_LANE, dropped, 11, 11, Some("b"), 1),
            // Said again by another.
            (ADOPTED_LANE, dropped, 3, 4, Some("a"), 2),
            (OWN_LANE, dropped, 12, 19, Some("a"), 8),
        ]);
        let mut accounts = book.accounts();
        let account = accounts.remove(&Writer::new(Uuid::from_u128(1), 0)).unwrap();
        let spans: Vec<_> = account.spans.iter().map(|span| (span.first, span.last, span.dropped)).collect();
        assert_eq!(spans, [(0, 10, false), (11, 11, false), (12, 19, true)]);
        assert_eq!(account.lost.iter().collect::<Vec<_>>(), [(3, 4), (9, 11)]);
        let (a, b) = (cells.place(Some("a"), Some("2026-11-23T03:00:00Z")), cells.place(Some("b"), Some("2026-11-23T03:00:00Z")));
        let of = |wanted| account.lost_counts.iter().filter(|(place, _)| *place == wanted).map(|(_, rows)| rows).sum::<u64>();
        assert_eq!((of(a), of(b)), (4, 1));
    }

    #[test]
    fn an_entry_that_is_not_there_is_a_gap() {
        let (mut book, _) = book(&[(OWN_LANE, Kind::Accepted, 0, 9, Some("a"), 10), (OWN_LANE, Kind::End, 0, 9, None, 10)]);
        assert_eq!(book.gaps(), []);
        let writer = Writer::new(Uuid::from_u128(1), OWN_LANE);
        let entry = Entry::new(Kind::Dropped, 1);
        book.add(Stated { timestamp: 0, writer, seq: 5, entry }, &mut Cells::default());
        assert_eq!(book.gaps(), [(writer, 2, 4)]);
        book.expired(writer, 0, 4);
        assert_eq!(book.gaps(), []);
    }
}
