//! Rows against statements: each row is looked at once, and only counts and sets of `seq`s are kept.

use super::Window;
use super::book::{Account, Book};
use crate::clock::Timestamp;
use crate::record::Writer;
use crate::seqs::SeqRanges;
use crate::seqset::SeqSet;
use std::collections::{BTreeMap, HashMap};

pub(super) const HOUR: i64 = 3_600_000_000;
/// A model or an hour that is not known.
const UNKNOWN: i64 = i64::MIN;
/// Ranges that were found twice or missing and are kept to be shown.
pub(super) const SHOWN: usize = 100;

/// A model and an hour, by its index in [`Cells`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Place(u32);

impl Place {
    pub(super) fn index(self) -> usize {
        self.0 as usize
    }
}

/// The counts of one model and hour.
#[derive(Clone, Debug, Default)]
pub(super) struct Cell {
    /// Stated by the ledger.
    pub(super) stated: u64,
    /// Of these, found in the table or on the way to it.
    pub(super) found: u64,
    /// Found, and stated by a range alone.
    pub(super) known: u64,
    /// Found, and in no statement.
    pub(super) unstated: u64,
    /// Records in the table, each counted once.
    pub(super) stored: u64,
    /// Rows beyond the first of their record.
    pub(super) twice: u64,
    /// Records on the way to the table.
    pub(super) pending: u64,
    /// Records that retention has deleted.
    pub(super) expired: u64,
    /// Of an hour that is not looked at.
    outside: bool,
    /// By reason.
    pub(super) dropped: BTreeMap<String, u64>,
}

/// All counts, by model and hour.
#[derive(Debug, Default)]
pub(super) struct Cells {
    models: Vec<String>,
    model_index: HashMap<String, i64>,
    places: HashMap<(i64, i64), Place>,
    keys: Vec<(i64, i64)>,
    cells: Vec<Cell>,
    window: Window,
}

impl Cells {
    fn new(window: Window) -> Self {
        Cells { window, ..Cells::default() }
    }

    /// The model's number, for [`at`](Self::at).
    pub(super) fn model(&mut self, name: &str) -> i64 {
        if let Some(&model) = self.model_index.get(name) {
            return model;
        }
        let model = self.models.len() as i64;
        self.models.push(name.to_owned());
        self.model_index.insert(name.to_owned(), model);
        model
    }

    /// The place of a model and an hour since 1970.
    pub(super) fn at(&mut self, model: i64, hour: i64) -> Place {
        let next = Place(self.cells.len() as u32);
        let place = *self.places.entry((model, hour)).or_insert(next);
        if place == next {
            self.keys.push((model, hour));
            let outside = hour != UNKNOWN && !self.window.contains(hour);
            self.cells.push(Cell { outside, ..Cell::default() });
        }
        place
    }

    /// The place that an entry of the ledger names.
    pub(super) fn place(&mut self, model: Option<&str>, hour: Option<&str>) -> Place {
        let model = model.map_or(UNKNOWN, |model| self.model(model));
        let hour = hour.and_then(|hour| Timestamp::parse(hour).ok()).map_or(UNKNOWN, |at| at.micros().div_euclid(HOUR));
        self.at(model, hour)
    }

    pub(super) fn unknown(&mut self) -> Place {
        self.at(UNKNOWN, UNKNOWN)
    }

    pub(super) fn of(&mut self, place: Place) -> &mut Cell {
        &mut self.cells[place.0 as usize]
    }

    /// The model's name and the hour, where they are known.
    pub(super) fn key(&self, place: Place) -> (Option<&str>, Option<i64>) {
        let (model, hour) = self.keys[place.0 as usize];
        let model = usize::try_from(model).ok().map(|model| &*self.models[model]);
        (model, Some(hour).filter(|&hour| hour != UNKNOWN))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Place, &Cell)> + '_ {
        (0..).map(Place).zip(&self.cells)
    }
}

/// How a record stands in the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// With its model and hour.
    Counted,
    /// In a range alone.
    Known,
    Unstated,
}

/// What was seen of one writer.
#[derive(Debug, Default)]
pub(super) struct Seen {
    account: Account,
    /// The stretch that was used last.
    at: usize,
    stored: SeqSet,
    pending: SeqSet,
    pub(super) expired: SeqRanges,
    /// Some of the records that were there more than once.
    pub(super) twice: SeqRanges,
    /// Records in no statement, and the latest time of any.
    pub(super) unstated: u64,
    pub(super) newest: i64,
}

impl Seen {
    #[inline]
    fn standing(&mut self, seq: u64) -> Standing {
        let within = |at: usize, seen: &Seen| {
            seen.account.spans.get(at).is_some_and(|stretch| (stretch.first..=stretch.last).contains(&seq))
        };
        if !within(self.at, self) {
            self.at = self.account.spans.partition_point(|stretch| stretch.last < seq);
            if !within(self.at, self) {
                return Standing::Unstated;
            }
        }
        if self.account.spans[self.at].counts.is_empty() { Standing::Known } else { Standing::Counted }
    }
}

/// A range of records that were stated and are not there.
#[derive(Debug)]
pub(super) struct Gap {
    pub(super) writer: Writer,
    pub(super) first: u64,
    pub(super) last: u64,
    /// The models and hours that they may be of; empty where that is not known.
    pub(super) places: Vec<Place>,
}

/// All rows so far.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) cells: Cells,
    index: HashMap<Writer, usize>,
    writers: Vec<(Writer, Seen)>,
    /// Rows that no logger wrote.
    pub(super) foreign: u64,
    pub(super) rows: u64,
    /// A log may have a record more than once: these are counted here, and are nothing wrong. A table may not (`None`).
    pub(super) copies: Option<u64>,
}

impl Tally {
    pub(super) fn new(window: Window) -> Self {
        Tally { cells: Cells::new(window), ..Tally::default() }
    }

    /// Takes the statements in: all of them, before any row.
    pub(super) fn begin(&mut self, book: &mut Book) {
        for (writer, account) in book.accounts() {
            for stretch in &account.spans {
                for &(place, rows) in &stretch.counts {
                    self.cells.of(place).stated += rows;
                }
            }
            for &(place, rows) in &account.lost_counts {
                let stated = &mut self.cells.of(place).stated;
                *stated = stated.saturating_sub(rows);
            }
            let at = self.writer(writer);
            self.writers[at].1.account = account;
        }
    }

    /// The number of a writer, for [`row`](Self::row).
    pub(super) fn writer(&mut self, writer: Writer) -> usize {
        let next = self.writers.len();
        let at = *self.index.entry(writer).or_insert(next);
        if at == next {
            self.writers.push((writer, Seen { newest: i64::MIN, ..Seen::default() }));
        }
        at
    }

    /// Of some records only the range is stated, not their hours: to find them takes all rows.
    pub(super) fn has_bare_ranges(&self) -> bool {
        self.writers.iter().any(|(_, seen)| seen.account.spans.iter().any(|stretch| stretch.counts.is_empty()))
    }

    pub(super) fn writers(&self) -> &[(Writer, Seen)] {
        &self.writers
    }

    /// A row of the table.
    #[inline]
    pub(super) fn row(&mut self, writer: usize, seq: u64, timestamp: i64, place: Place) {
        self.rows += 1;
        let seen = &mut self.writers[writer].1;
        let cell = &mut self.cells.cells[place.0 as usize];
        if !seen.stored.insert(seq) {
            if let Some(copies) = &mut self.copies {
                *copies += 1;
                return;
            }
            cell.twice += 1;
            if seen.twice.iter().nth(SHOWN).is_none() {
                seen.twice.insert(seq, seq);
            }
            return;
        }
        cell.stored += 1;
        if seen.pending.contains(seq) {
            // It has arrived meanwhile.
            cell.pending = cell.pending.saturating_sub(1);
            return;
        }
        seen.newest = seen.newest.max(timestamp);
        found(seen, cell, seq);
    }

    /// A record on its way to the table. To be told before the table's rows, as records move that way.
    pub(super) fn pending(&mut self, writer: usize, seq: u64, timestamp: i64, place: Place) {
        let seen = &mut self.writers[writer].1;
        if seen.stored.contains(seq) || !seen.pending.insert(seq) {
            return;
        }
        let cell = &mut self.cells.cells[place.0 as usize];
        cell.pending += 1;
        seen.newest = seen.newest.max(timestamp);
        found(seen, cell, seq);
    }

    /// Records that retention has deleted.
    pub(super) fn expired(&mut self, writer: Writer, first: u64, last: u64) {
        let at = self.writer(writer);
        self.writers[at].1.expired.insert(first, last);
    }

    /// Gives `each` the ranges of stated records that were not found anywhere. To be asked once, at the end.
    pub(super) fn gaps(&mut self, mut each: impl FnMut(Gap)) {
        for (writer, seen) in &mut self.writers {
            let Seen { account, stored, pending, expired, .. } = seen;
            pending.ranges(|first, last| stored.insert_range(first, last));
            account.lost.iter().for_each(|(first, last)| stored.insert_range(first, last));
            for (first, last) in expired.iter() {
                // A range reaches no further than what was stated.
                let most = account.spans.last().map_or(first, |stretch| stretch.last.max(first));
                stored.insert_range(first, last.min(most));
            }
            let mut stretches = account.spans.iter().filter(|stretch| !stretch.dropped).peekable();
            let mut next = 0;
            let mut between = |until: u64, then: u64| {
                // `next..until` is not there.
                while let Some(stretch) = stretches.peek().filter(|stretch| stretch.first < until) {
                    let (first, last) = (stretch.first.max(next), stretch.last.min(until - 1));
                    if first <= last {
                        let places = stretch.counts.iter().map(|&(place, _)| place).collect();
                        each(Gap { writer: *writer, first, last, places });
                    }
                    if stretch.last >= until {
                        break;
                    }
                    stretches.next();
                }
                next = then;
            };
            stored.ranges(|first, last| between(first, last.saturating_add(1)));
            between(u64::MAX, u64::MAX);
        }
    }
}

#[inline]
fn found(seen: &mut Seen, cell: &mut Cell, seq: u64) {
    match seen.standing(seq) {
        Standing::Counted => cell.found += 1,
        Standing::Known => cell.known += 1,
        Standing::Unstated => {
            cell.unstated += 1;
            seen.unstated += u64::from(!cell.outside);
        }
    }
}
