//! Starting a logger.

use super::backlog::Backlog;
use super::control::Control;
use super::home::Home;
use super::ledger::{Drops, Ledger};
use super::pace::{Pace, PaceSettings};
use super::worker::{Parts, Worker};
use super::{Cause, Durability, Guard, Logger, LoggerSettings, Overflow, Shared};
use crate::batch::BatchSettings;
use crate::clock::{Clock, SystemClock};
use crate::error::{Error, ErrorKind};
use crate::lane::Lanes;
use crate::ledger::LedgerSettings;
use crate::sink::Sink;
use crate::spool::Spool;
use crate::stats::Stats;
use crate::unique;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use uuid::Uuid;

/// The parts of a logger.
pub struct Builder {
    settings: LoggerSettings,
    batch: BatchSettings,
    clock: Arc<dyn Clock>,
    stats: Arc<Stats>,
    dir: Option<PathBuf>,
    others: Vec<PathBuf>,
    sink: Option<Box<dyn Sink>>,
    home: Option<Home>,
    pace: PaceSettings,
    ledger: Option<LedgerSettings>,
    /// The most bytes of a record that the sink takes.
    room: u64,
}

impl std::fmt::Debug for Builder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Builder")
            .field("settings", &self.settings)
            .field("batch", &self.batch)
            .field("dir", &self.dir)
            .finish_non_exhaustive()
    }
}

impl Builder {
    pub(super) fn new(settings: LoggerSettings) -> Self {
        Builder {
            settings,
            batch: BatchSettings::default(),
            clock: Arc::new(SystemClock::default()),
            stats: Arc::new(Stats::default()),
            dir: None,
            others: Vec::new(),
            sink: None,
            home: None,
            pace: PaceSettings::default(),
            ledger: None,
            room: u64::MAX,
        }
    }

    /// When batches are handed to the sink.
    #[must_use]
    pub fn batch(mut self, batch: BatchSettings) -> Self {
        self.batch = batch;
        self
    }

    /// Where the time comes from. Without it: the machine's clocks.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Where lanes and spool lie. Only `durability = "memory"` with another `overflow` than `"spill"` works without.
    #[must_use]
    pub fn dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.dir = Some(dir.into());
        self
    }

    /// Directories where loggers of other settings ran: what dead processes left there is delivered as well.
    #[must_use]
    pub fn also_from(mut self, dirs: Vec<PathBuf>) -> Self {
        self.others = dirs;
        self
    }

    /// Where the records go.
    #[must_use]
    pub fn sink(mut self, sink: Box<dyn Sink>) -> Self {
        self.sink = Some(sink);
        self
    }

    /// Counters that others write to as well.
    pub(crate) fn stats(mut self, stats: Arc<Stats>) -> Self {
        self.stats = stats;
        self
    }

    /// This process's directory, when a part of the logger needed it before.
    pub(crate) fn home(mut self, home: Home) -> Self {
        self.home = Some(home);
        self
    }

    /// How fast a backlog is replayed beside live records.
    #[cfg(any(feature = "kafka", feature = "nats"))]
    pub(crate) fn pace(mut self, pace: PaceSettings) -> Self {
        self.pace = pace;
        self
    }

    /// Records longer than this are kept with their largest fields replaced by digests, as those past `logger.max_record_bytes` are. The queue takes
    /// them all the same: as one of `[[sinks]]` it gets what was encoded for another.
    #[cfg(any(feature = "kafka", feature = "nats"))]
    pub(crate) fn room(mut self, bytes: u64) -> Self {
        self.room = bytes;
        self
    }

    /// Has statements of what was accepted and dropped written to the sink, as records of the model [`LEDGER_MODEL`](crate::ledger::LEDGER_MODEL).
    /// They are in no count of records.
    #[must_use]
    pub fn ledger(mut self, settings: LedgerSettings) -> Self {
        self.ledger = settings.enabled.then_some(settings);
        self
    }

    /// Starts the worker.
    ///
    /// # Errors
    /// No sink was given; the directory is missing though the settings need one, or cannot be written; there is no room for the lanes.
    pub fn open(mut self) -> Result<(Logger, Guard), Error> {
        let sink = self
            .sink
            .take()
            .ok_or_else(|| Error::new(ErrorKind::Config, "a logger needs a sink: Builder::sink was not called"))?;
        let home = self.home.take().map_or_else(|| self.make_home(), |home| Ok(Some(home)))?;
        let process = home.as_ref().and_then(Home::process).unwrap_or_else(unique::uuid);
        let made = self.make_lanes(home.as_ref(), process);
        let made = made.and_then(|lanes| Ok((lanes, self.make_spool(home.as_ref(), sink.spools())?)));
        let (lanes, spool) = made.inspect_err(|_| home.iter().for_each(Home::discard))?;
        let shared = Arc::new(Shared {
            lanes,
            clock: self.clock,
            stats: self.stats,
            control: Control::default(),
            max_record_bytes: self.settings.max_record_bytes.as_u64().min(self.room) as usize,
            settings: self.settings,
            has_ledger: self.ledger.is_some(),
            drops: Drops::default(),
            cause: Cause::LOAD.into(),
        });
        let backlog = Backlog::new(self.dir.clone(), self.others, process, self.ledger.is_some());
        let ledger = self.ledger.as_ref().map(|settings| Ledger::new(settings, process));
        let parts = Parts { batch: self.batch, sink, spool, backlog, pace: Pace::new(self.pace), home, ledger };
        let worker = Worker::new(Arc::clone(&shared), parts);
        let thread = crate::thread::spawn("predlog-worker", move || worker.run())
            .map_err(|error| Error::new(ErrorKind::Storage, format!("cannot start the worker thread: {error}")))?;
        let guard = Guard { shared: Arc::clone(&shared), worker: Some(thread), after: Vec::new(), others: Vec::new() };
        Ok((Logger { shared, others: Arc::default() }, guard))
    }

    fn make_home(&self) -> Result<Option<Home>, Error> {
        if !needs_home(&self.settings) {
            return Ok(None);
        }
        match &self.dir {
            Some(dir) => make_home(dir).map(Some),
            None if self.settings.durability == Durability::Memory => Ok(None),
            None => {
                let durability = self.settings.durability;
                let message =
                    format!("logger.durability={durability:?} needs a directory: call Builder::dir, or set durability to memory");
                Err(Error::new(ErrorKind::Config, message))
            }
        }
    }

    fn make_spool(&self, home: Option<&Home>, sink_spools: bool) -> Result<Option<Spool>, Error> {
        let home = home.filter(|_| self.settings.overflow == Overflow::Spill && !sink_spools);
        home.map(|home| Spool::new(home.spool()).map_err(|error| storage(&home.spool(), &error))).transpose()
    }

    fn make_lanes(&self, home: Option<&Home>, process: Uuid) -> Result<Lanes, Error> {
        let (count, buffer) = self.settings.lane_shape();
        let made = match home {
            Some(home) if self.settings.durability != Durability::Memory => Lanes::in_file(&home.lanes(), process, count, buffer),
            _ => Lanes::in_memory(process, count, buffer),
        };
        made.map_err(|error| {
            let bytes = self.settings.queue_bytes;
            let place = home.map_or_else(|| "memory".to_owned(), |home| home.lanes().display().to_string());
            let hint = "free some space, set logger.queue_bytes lower, or set logger.durability to memory";
            Error::new(ErrorKind::Storage, format!("cannot reserve logger.queue_bytes={bytes} in {place}: {error}; {hint}"))
        })
    }
}

/// `memory` without spill needs no directory, even when there is one: it is for read-only file systems.
pub(crate) fn needs_home(settings: &LoggerSettings) -> bool {
    settings.durability != Durability::Memory || settings.overflow == Overflow::Spill
}

/// Makes this process's directory under `<dir>/writers/`.
pub(crate) fn make_home(dir: &Path) -> Result<Home, Error> {
    Home::create(dir, unique::uuid).map_err(|error| storage(dir, &error))
}

fn storage(path: &Path, error: &std::io::Error) -> Error {
    let path = path.display();
    Error::new(
        ErrorKind::Storage,
        format!("cannot write in dir={path}: {error}; give the process the right to, or name another directory"),
    )
}
