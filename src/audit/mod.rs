//! `predlog audit`: what the ledger states against what is stored.
//!
//! Each record is a writer's `seq`, gapless from 0, so a record that was stated and is not there is a gap; which model and hour lacks it is told by
//! comparing counts. Rows are streamed, only the columns `writer`, `seq` and `timestamp` are read, and what is kept is a set of numbers.
//!
//! Records move while a logger runs: from its lanes to the spool, to a file or the table, to the bucket. So statements are read first, then what is
//! on its way, then the table, and last what retention has deleted: whatever moves meanwhile is met further on, never missed.

mod book;
mod bucket;
#[cfg(feature = "kafka")]
mod kafka;
mod messages;
#[cfg(feature = "nats")]
mod nats;
mod parquet;
mod report;
mod spool;
mod sqlite;
mod tally;

pub use report::{AuditReport, Counts, Hour, Range};

use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind};
use crate::ship::UploadSettings;
use book::Book;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use tally::{HOUR, Tally};
use uuid::Uuid;

/// What is audited.
#[derive(Clone, Debug, PartialEq)]
pub enum Target {
    /// The stores in a directory: `predictions.db`, `predictions/`, or both.
    Directory(PathBuf),
    /// One SQLite database.
    Sqlite(PathBuf),
    /// The bucket of these settings. With the directory that is uploaded to it, what waits there counts as pending.
    Bucket(Box<UploadSettings>, Option<PathBuf>),
    /// The topics of these settings. What waits in the fallback's directory counts as pending. A topic may have copies of a message, as replays
    /// leave them; whoever stores it keeps one.
    #[cfg(feature = "kafka")]
    Kafka(Box<crate::sink::kafka::settings::KafkaSettings>),
    /// The streams of these settings, as of Kafka.
    #[cfg(feature = "nats")]
    Nats(Box<crate::sink::nats::settings::NatsSettings>),
}

/// Which hours are looked at: those that start at `since` or later, and before `until`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// From the hour of this time on.
    pub since: Option<Timestamp>,
    /// Up to this time.
    pub until: Option<Timestamp>,
}

impl Window {
    fn contains(self, hour: i64) -> bool {
        let start = hour.saturating_mul(HOUR);
        self.since.is_none_or(|since| hour >= since.micros().div_euclid(HOUR))
            && self.until.is_none_or(|until| start < until.micros())
    }

    /// Whether any hour of a UTC day, as in `date=2026-11-23`, is looked at.
    fn contains_date(self, partition: &str) -> bool {
        let day = partition.strip_prefix("date=").and_then(|date| Timestamp::parse(&format!("{date}T00:00:00Z")).ok());
        day.is_none_or(|day| (0..24).any(|hour| self.contains(day.micros().div_euclid(HOUR) + hour)))
    }
}

/// How a process stands that has not said its last word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// It will.
    Running,
    /// Another will for it.
    Left,
    /// Nobody will.
    Gone,
}

/// A process of which nothing is known but what it stored: it counts as running when it was heard of within this time.
const RUNNING: i64 = 2 * HOUR;

/// Audits `target`. `progress` is called now and then with the number of rows that were looked at.
///
/// # Errors
/// Something cannot be read at all: the directory, the database, the bucket. A single file that cannot be read is a problem of the report.
pub fn audit(target: &Target, window: Window, progress: &mut dyn FnMut(u64)) -> Result<AuditReport, Error> {
    let mut run = Run { tally: Tally::new(window), book: Book::default(), window, unreadable: Vec::new(), progress };
    let directory = match target {
        Target::Directory(dir) => Some(dir.clone()),
        Target::Sqlite(path) => path.parent().map(Path::to_owned),
        Target::Bucket(_, dir) => dir.clone(),
        #[cfg(feature = "kafka")]
        Target::Kafka(settings) => settings.fallback.dir.exists().then(|| settings.fallback.dir.clone()),
        #[cfg(feature = "nats")]
        Target::Nats(settings) => settings.fallback.dir.exists().then(|| settings.fallback.dir.clone()),
    };
    let homes = match &directory {
        Some(dir) => spool::homes(dir).map_err(|error| unreadable(dir, &error))?,
        None => HashMap::new(),
    };
    run.run(target, directory.as_deref())?;
    let now = Timestamp::from(std::time::SystemTime::now()).micros();
    let standing = |process: Uuid, heard: i64| match homes.get(&process) {
        Some(standing) => *standing,
        None if directory.is_none() && heard.saturating_add(RUNNING) > now => Standing::Running,
        None => Standing::Gone,
    };
    let copies = run.tally.copies.unwrap_or_default();
    let mut report = report::report(run.tally, &run.book, window, &standing);
    if copies > 0 {
        report
            .notes
            .push(format!("{copies} messages are copies of others, as replays leave them: whoever stores the topic keeps one"));
    }
    let kept =
        [("dead-letter", "records that no broker, or no column, could take"), ("damaged", "spool segments with damaged frames")];
    for (name, what) in kept {
        if let Some(path) = directory.as_ref().map(|dir| dir.join(name)).filter(|path| has_records(path)) {
            report.notes.push(format!("{} has {what}: they are in no table", path.display()));
        }
    }
    if !run.unreadable.is_empty() {
        report.complete = false;
        report.problems.append(&mut run.unreadable);
    }
    Ok(report)
}

/// Whether anything but a replay's lock and state lies there.
fn has_records(dir: &Path) -> bool {
    let records = |name: &std::ffi::OsStr| [".zst", ".ndjson"].iter().any(|end| name.to_string_lossy().ends_with(end));
    std::fs::read_dir(dir).is_ok_and(|entries| entries.flatten().any(|entry| records(&entry.file_name())))
}

fn unreadable(path: &Path, error: &dyn std::fmt::Display) -> Error {
    Error::new(ErrorKind::Storage, format!("cannot read path={}: {error}", path.display()))
}

/// An audit on its way.
struct Run<'a> {
    tally: Tally,
    book: Book,
    window: Window,
    /// Files that cannot be read, and why.
    unreadable: Vec<String>,
    progress: &'a mut dyn FnMut(u64),
}

impl Run<'_> {
    fn run(&mut self, target: &Target, directory: Option<&Path>) -> Result<(), Error> {
        if let Some(dir) = directory {
            self.spool_entries(dir)?;
        }
        match target {
            Target::Directory(dir) => self.directory(dir),
            Target::Sqlite(path) => self.database(path),
            Target::Bucket(settings, dir) => self.bucket(settings, dir.as_deref()),
            #[cfg(feature = "kafka")]
            Target::Kafka(settings) => self.kafka(settings, directory),
            #[cfg(feature = "nats")]
            Target::Nats(settings) => self.nats(settings, directory),
        }
    }

    fn directory(&mut self, dir: &Path) -> Result<(), Error> {
        std::fs::read_dir(dir).map_err(|error| unreadable(dir, &error))?;
        let database = dir.join("predictions.db");
        let database = database.exists().then_some(database);
        self.file_entries(dir)?;
        if let Some(database) = &database {
            self.database_entries(database)?;
        }
        self.tally.begin(&mut self.book);
        self.spool_records(dir)?;
        self.file_rows(dir)?;
        if let Some(database) = &database {
            self.database_rows(database)?;
        }
        self.expired_files(dir)
    }

    fn database(&mut self, path: &Path) -> Result<(), Error> {
        self.database_entries(path)?;
        self.tally.begin(&mut self.book);
        if let Some(dir) = path.parent() {
            self.spool_records(dir)?;
        }
        self.database_rows(path)
    }

    fn looked_at(&mut self) {
        (self.progress)(self.tally.rows);
    }
}
