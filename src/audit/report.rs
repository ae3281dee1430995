//! What an audit found, for people and for programs.

use super::book::Book;
use super::tally::{Cell, HOUR, SHOWN, Tally};
use super::{Standing, Window};
use crate::clock::Timestamp;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};
use uuid::Uuid;

/// What an audit found. Serialises to what `predlog audit --json` prints.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct AuditReport {
    /// Every record that was accepted is there once, none was dropped, and the ledger itself is whole.
    pub complete: bool,
    /// Why not, a sentence each.
    pub problems: Vec<String>,
    /// What is worth knowing and no problem.
    pub notes: Vec<String>,
    /// All models and hours together.
    pub total: Counts,
    /// By model and hour, sorted.
    pub hours: Vec<Hour>,
    /// Ranges of records that are missing: at most 100.
    pub missing: Vec<Range>,
    /// Ranges of records that are stored more than once: at most 100.
    pub twice: Vec<Range>,
}

/// Records of one model and hour.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Hour {
    /// `null` where it is not known.
    pub model_name: Option<String>,
    /// The UTC hour of the records' timestamps, RFC 3339. `null` where it is not known.
    pub hour: Option<String>,
    /// The counts.
    #[serde(flatten)]
    pub counts: Counts,
}

/// Counts of records: `accepted` = `stored` + `pending` + `expired` + `missing` - `unstated`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Stated by the ledger.
    pub accepted: u64,
    /// In the table, each counted once.
    pub stored: u64,
    /// On the way to it: in a spool segment, or in a file or row that waits for its upload.
    pub pending: u64,
    /// Deleted by retention.
    pub expired: u64,
    /// Accepted, and nowhere.
    pub missing: u64,
    /// Rows of the table beyond the first of their record.
    pub twice: u64,
    /// Found, and in no statement yet: the process runs, or was killed and nobody has taken over what it left.
    pub unstated: u64,
    /// Predictions that were dropped, by reason.
    pub dropped: BTreeMap<String, u64>,
}

/// Records of one writer that follow each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Range {
    /// The writer.
    pub writer: String,
    /// The first seq.
    pub first: u64,
    /// The last.
    pub last: u64,
    /// The models that they may be of. Empty where that is not known.
    pub model_names: Vec<String>,
}

impl Counts {
    fn of(cell: &Cell) -> Self {
        let lost = cell.stated.saturating_sub(cell.found);
        let expired = cell.expired.min(lost);
        Counts {
            accepted: cell.stated + cell.known,
            stored: cell.stored,
            pending: cell.pending,
            expired,
            missing: lost - expired,
            twice: cell.twice,
            unstated: cell.unstated,
            dropped: cell.dropped.clone(),
        }
    }

    fn add(&mut self, other: &Counts) {
        self.accepted += other.accepted;
        self.stored += other.stored;
        self.pending += other.pending;
        self.expired += other.expired;
        self.missing += other.missing;
        self.twice += other.twice;
        self.unstated += other.unstated;
        for (reason, rows) in &other.dropped {
            *self.dropped.entry(reason.clone()).or_default() += rows;
        }
    }

    /// What is wrong, in words; empty when nothing is.
    fn verdict(&self) -> String {
        let mut words = Vec::new();
        if self.missing > 0 {
            words.push(format!("missing={}", self.missing));
        }
        if self.twice > 0 {
            words.push(format!("twice={}", self.twice));
        }
        words.extend(self.dropped.iter().map(|(reason, rows)| format!("dropped={rows} ({reason})")));
        words.join(" ")
    }
}

/// Puts the report together.
pub(super) fn report(mut tally: Tally, book: &Book, window: Window, standing: &dyn Fn(Uuid, i64) -> Standing) -> AuditReport {
    let mut report = AuditReport::default();
    let unplaced = missing_ranges(&mut tally, window, &mut report);
    let unknown = tally.cells.unknown();
    for (place, cell) in tally.cells.iter() {
        let (model_name, hour) = tally.cells.key(place);
        let mut counts = Counts::of(cell);
        if place == unknown {
            counts.missing += unplaced;
            counts.accepted += unplaced;
        }
        if counts == Counts::default() || !hour.is_none_or(|hour| window.contains(hour)) {
            continue;
        }
        report.total.add(&counts);
        let hour = hour.map(hour_text);
        report.hours.push(Hour { model_name: model_name.map(str::to_owned), hour, counts });
    }
    report.hours.sort_by(|left, right| (&left.model_name, &left.hour).cmp(&(&right.model_name, &right.hour)));
    twice_ranges(&tally, &mut report);
    judge_processes(&tally, book, window, standing, &mut report);
    judge(&tally, book, &mut report);
    report
}

fn hour_text(hour: i64) -> String {
    let text = Timestamp::from_micros(hour.saturating_mul(HOUR)).to_string();
    text.replace(".000000", "")
}

/// Lists the first ranges that are missing, and returns how many records are missing of which no model and hour says so.
fn missing_ranges(tally: &mut Tally, window: Window, report: &mut AuditReport) -> u64 {
    let (mut total, mut ranges) = (0, Vec::new());
    let keys: Vec<_> = tally.cells.iter().map(|(place, _)| tally.cells.key(place).1).collect();
    let looked_at = |place: &super::tally::Place| keys[place.index()].is_none_or(|hour| window.contains(hour));
    tally.gaps(|gap| {
        // A stretch that reaches out of the window was not read whole: its hours' counts tell.
        if gap.places.iter().all(looked_at) {
            total += gap.last - gap.first + 1;
            if ranges.len() < SHOWN {
                ranges.push(gap);
            }
        }
    });
    for gap in ranges {
        let names: BTreeSet<String> =
            gap.places.iter().filter_map(|&place| tally.cells.key(place).0.map(str::to_owned)).collect();
        let writer = gap.writer.to_string();
        report.missing.push(Range { writer, first: gap.first, last: gap.last, model_names: names.into_iter().collect() });
    }
    report.missing.sort_by(|left, right| (&left.writer, left.first).cmp(&(&right.writer, right.first)));
    let in_window = |place| tally.cells.key(place).1.is_none_or(|hour| window.contains(hour));
    let placed: u64 = tally.cells.iter().filter(|&(place, _)| in_window(place)).map(|(_, cell)| Counts::of(cell).missing).sum();
    total.saturating_sub(placed)
}

fn twice_ranges(tally: &Tally, report: &mut AuditReport) {
    let ranges = tally.writers().iter().flat_map(|(writer, seen)| seen.twice.iter().map(move |range| (writer, range)));
    report.twice = ranges
        .take(SHOWN)
        .map(|(writer, (first, last))| Range { writer: writer.to_string(), first, last, model_names: Vec::new() })
        .collect();
    report.twice.sort_by(|left, right| (&left.writer, left.first).cmp(&(&right.writer, right.first)));
}

/// What of each process is not stated, and whether it will be.
fn judge_processes(
    tally: &Tally,
    book: &Book,
    window: Window,
    standing: &dyn Fn(Uuid, i64) -> Standing,
    report: &mut AuditReport,
) {
    let mut processes: BTreeMap<Uuid, (u64, i64)> = book.heard().iter().map(|(&process, &at)| (process, (0, at))).collect();
    for (writer, seen) in tally.writers() {
        let (unstated, newest) = processes.entry(writer.process()).or_insert((0, i64::MIN));
        *unstated += seen.unstated;
        *newest = seen.newest.max(*newest);
    }
    let (mut open, mut waiting, mut unstated_open) = (0, 0, 0);
    for (process, (unstated, newest)) in processes {
        let ended = book.has_ended(process);
        match standing(process, newest) {
            // Long gone, and nothing of it in the hours that are looked at.
            _ if unstated == 0 && window.since.is_some_and(|since| newest < since.micros()) => {}
            Standing::Running if !ended => (open, unstated_open) = (open + 1, unstated_open + unstated),
            Standing::Left if !ended => (waiting, unstated_open) = (waiting + 1, unstated_open + unstated),
            _ if ended && unstated == 0 => {}
            _ if ended => report.problems.push(format!("{unstated} records of process={process} are beyond what it has stated at its end")),
            // Known from what retention has deleted alone, or there is no ledger at all, which is said once.
            _ if book.is_empty() || (unstated == 0 && !book.heard().contains_key(&process)) => {}
            _ if book.heard().contains_key(&process) => report.problems.push(format!(
                "process={process} has no last statement: what it accepted after its others is not known ({unstated} records found)"
            )),
            _ => report.problems.push(format!("{unstated} records of process={process} are in no statement")),
        }
    }
    if open > 0 {
        report.notes.push(format!("{open} processes are running: {unstated_open} records found are not yet stated"));
    }
    if waiting > 0 {
        report.notes.push(format!(
            "{waiting} processes ended without a last statement; the next process to start in the directory takes over what they left and states it"
        ));
    }
}

fn judge(tally: &Tally, book: &Book, report: &mut AuditReport) {
    if book.is_empty() && tally.rows > 0 {
        let rows = tally.rows;
        report
            .problems
            .push(format!("there is no ledger, so nothing can be proven of the {rows} rows; was ledger.enabled=false?"));
    } else if book.is_empty() && report.total == Counts::default() {
        report.problems.push("there is neither a table nor a ledger here".to_owned());
    }
    for (writer, first, last) in book.gaps().into_iter().take(SHOWN) {
        report.problems.push(format!("the ledger lacks entries {first} to {last} of writer={writer}"));
    }
    if tally.foreign > 0 {
        report.notes.push(format!("{} rows were written by no logger", tally.foreign));
    }
    let wrong = report.total.verdict();
    if !wrong.is_empty() {
        report.problems.insert(0, wrong);
    }
    report.complete = report.problems.is_empty();
}

impl fmt::Display for AuditReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rows = vec![["model", "hour", "accepted", "stored", "missing", "twice", "dropped", ""].map(str::to_owned)];
        for hour in &self.hours {
            rows.push(cells_of(hour.model_name.as_deref().unwrap_or("?"), hour.hour.as_deref().unwrap_or("?"), &hour.counts));
        }
        rows.push(cells_of("total", "", &self.total));
        let widths: [usize; 8] = std::array::from_fn(|at| rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0));
        for row in &rows {
            let mut line = String::new();
            for (at, cell) in row.iter().enumerate() {
                // Names to the left, numbers to the right.
                let aligned =
                    if (2..7).contains(&at) { format!("{cell:>0$}", widths[at]) } else { format!("{cell:<0$}", widths[at]) };
                write!(line, "{aligned}  ")?;
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        for (what, ranges, all) in [("missing", &self.missing, self.total.missing), ("twice", &self.twice, self.total.twice)] {
            show_ranges(f, what, ranges, all)?;
        }
        self.notes.iter().try_for_each(|note| writeln!(f, "note: {note}"))?;
        if self.complete {
            return writeln!(f, "complete: {} accepted, each there once", self.total.accepted);
        }
        self.problems.iter().try_for_each(|problem| writeln!(f, "not complete: {problem}"))
    }
}

fn cells_of(model: &str, hour: &str, counts: &Counts) -> [String; 8] {
    let mut words = vec![counts.verdict()];
    for (what, rows) in [("pending", counts.pending), ("expired", counts.expired), ("unstated", counts.unstated)] {
        if rows > 0 {
            words.push(format!("{what}={rows}"));
        }
    }
    if words[0].is_empty() && !hour.is_empty() {
        words[0] = "complete".to_owned();
    }
    let dropped: u64 = counts.dropped.values().sum();
    // A name is the caller's: it must not draw on a terminal.
    let model: String = model.chars().map(|char| if char.is_control() { '\u{fffd}' } else { char }).collect();
    let numbers = [counts.accepted, counts.stored, counts.missing, counts.twice, dropped].map(|rows| rows.to_string());
    let [accepted, stored, missing, twice, dropped] = numbers;
    [model, hour.to_owned(), accepted, stored, missing, twice, dropped, words.join(" ").trim().to_owned()]
}

fn show_ranges(f: &mut fmt::Formatter<'_>, what: &str, ranges: &[Range], all: u64) -> fmt::Result {
    let mut shown = 0;
    for range in ranges {
        shown += range.last - range.first + 1;
        let models = match &range.model_names[..] {
            [] => String::new(),
            [one] => format!(" model={one:?}"),
            several => format!(" one of models={several:?}"),
        };
        writeln!(f, "{what}: writer={} seq={}..={}{models}", range.writer, range.first, range.last)?;
    }
    if shown < all {
        writeln!(f, "{what}: and {} more", all - shown)?;
    }
    Ok(())
}
