//! The embedded front: [`Logger`] is the handle that handlers call, [`Guard`] drains it at the end.

mod backlog;
pub(crate) mod builder;
mod control;
pub(crate) mod home;
mod ledger;
pub(crate) mod pace;
pub mod settings;
mod stored;
mod worker;

pub use builder::Builder;
pub use settings::{Durability, LoggerSettings, Overflow};

use crate::clock::{Clock, Timestamp};
use crate::lane::{Lanes, Push};
use crate::record::encode::encode;
use crate::record::{Actuals, Prediction};
use crate::stats::{DropReason, Snapshot, Stats};
use control::Control;
use ledger::Drops;
use serde::Serialize;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

/// Logs predictions. Clone it into every handler; all clones share one queue and one worker.
///
/// ```
/// # fn main() -> Result<(), predlog::Error> {
/// use predlog::{Logger, LoggerSettings, Outcome, sink::memory::MemorySink};
/// use std::time::Duration;
///
/// let store = MemorySink::new();
/// let settings = LoggerSettings { durability: predlog::Durability::Memory, ..LoggerSettings::default() };
/// let (logger, guard) = Logger::builder(settings).sink(Box::new(store.clone())).open()?;
/// assert!(matches!(logger.log_parts("wine", "1", &[7.4, 0.7], &5.2), Outcome::Accepted { .. }));
/// let report = guard.shutdown(Duration::from_secs(5));
/// assert_eq!((report.accepted, report.delivered), (1, 1));
/// assert_eq!(store.records().len(), 1);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Logger {
    shared: Arc<Shared>,
    /// The other sinks' loggers, by name: each gets every line too.
    others: Arc<[(Arc<str>, Arc<Shared>)]>,
}

/// What all handles and the worker share.
pub(crate) struct Shared {
    lanes: Lanes,
    clock: Arc<dyn Clock>,
    stats: Arc<Stats>,
    control: Control,
    settings: LoggerSettings,
    max_record_bytes: usize,
    /// Statements are made.
    has_ledger: bool,
    /// What was dropped, for the ledger.
    drops: Drops,
    /// Why the lanes are full, if they are: the index of a cause in [`Cause`].
    cause: AtomicU8,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Logger").field("settings", &self.settings).field("stats", &self.stats.snapshot()).finish_non_exhaustive()
    }
}

/// What became of a prediction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a dropped prediction is counted, but only the caller knows what it was"]
pub enum Outcome {
    /// It is kept, as far as [`Durability`] promises. `seq` is its place among the records of its lane.
    Accepted {
        /// Gapless per writer, from 0.
        seq: u64,
    },
    /// It is not.
    Dropped(DropReason),
}

/// Runs a wait and answers what it answered: whether there may be room now. See [`Logger::log_around`].
pub type Around<'a> = dyn Fn(&mut (dyn FnMut() -> bool + Send)) -> bool + 'a;

/// What a call does while the queue is full.
#[derive(Clone, Copy)]
struct Room<'a> {
    /// Waits until then, whatever `overflow` says.
    deadline: Option<Instant>,
    around: &'a Around<'a>,
}

/// How a logger ended: accepted = delivered + on_disk + dropped by `shutdown`, and by `no_space` where a broker's dead letters had none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Records that `log()` took.
    pub accepted: u64,
    /// Accepted records in their final place.
    pub delivered: u64,
    /// Accepted records that lie in the directory; the next start delivers them.
    pub on_disk: u64,
    /// Records that were not kept, by reason. All but `shutdown` were never accepted.
    pub dropped: BTreeMap<&'static str, u64>,
    /// Records of dead processes that were taken over and delivered.
    pub recovered: u64,
    /// Why not all was delivered, when it was not.
    pub problem: Option<String>,
    /// The same of each of `[[sinks]]`, by name.
    pub sinks: BTreeMap<String, Report>,
}

/// How long a dropped [`Guard`] waits for what is still to be delivered.
const DROP_DEADLINE: Duration = Duration::from_secs(5);
/// A thread keeps its encoding buffer between calls, up to this size.
const SCRATCH_KEPT: usize = 256 * 1024;

thread_local! {
    /// Taken out while in use: a `Serialize` that logs in turn gets a new one.
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

impl Logger {
    /// Starts a logger from its parts: settings, sink, clock, directory.
    pub fn builder(settings: LoggerSettings) -> Builder {
        Builder::new(settings)
    }

    /// Logs a prediction. It is encoded on this thread and copied into the queue; a worker thread does the rest.
    ///
    /// Never panics, and never blocks but with `overflow = "block"`, up to `block_limit`.
    pub fn log<I: Serialize + ?Sized, O: Serialize + ?Sized>(&self, prediction: Prediction<'_, I, O>) -> Outcome {
        self.log_with(prediction, Room { deadline: None, around: &|wait| wait() })
    }

    /// Logs what turned out to be true of a prediction: [`log`](Self::log), as a record of the model `<model_name>.actuals`.
    pub fn actuals<A: Serialize + ?Sized>(&self, actuals: Actuals<'_, A>) -> Outcome {
        actuals.as_prediction(|prediction| self.log(prediction))
    }

    /// [`log`](Self::log) for those who have time, such as a batch job: while the queue is full it waits for room until `deadline`, whatever
    /// `overflow` says. Blocks this thread.
    pub fn log_until<I, O>(&self, prediction: Prediction<'_, I, O>, deadline: Instant) -> Outcome
    where
        I: Serialize + ?Sized,
        O: Serialize + ?Sized,
    {
        self.log_with(prediction, Room { deadline: Some(deadline), around: &|wait| wait() })
    }

    /// [`log`](Self::log) for callers that hold a lock which others want, such as an interpreter's: where `overflow = "block"` makes it wait for room, each
    /// wait is given to `around`, which runs it, without the lock, and answers what it answered.
    pub fn log_around<I, O>(&self, prediction: Prediction<'_, I, O>, around: &Around<'_>) -> Outcome
    where
        I: Serialize + ?Sized,
        O: Serialize + ?Sized,
    {
        self.log_with(prediction, Room { deadline: None, around })
    }

    fn log_with<I, O>(&self, prediction: Prediction<'_, I, O>, room: Room<'_>) -> Outcome
    where
        I: Serialize + ?Sized,
        O: Serialize + ?Sized,
    {
        let shared = &*self.shared;
        let now = shared.clock.wall();
        let mut scratch = SCRATCH.take();
        // The caller's `Serialize` runs here. If it panics, the scratch buffer holds half a line, which the next call clears.
        let encoded = catch_unwind(AssertUnwindSafe(|| encode(&mut scratch, &prediction, now, shared.max_record_bytes)));
        let outcome = match encoded {
            Ok(Ok(line)) => {
                if line.digested {
                    shared.stats.digested.fetch_add(1, Ordering::Relaxed);
                }
                for (_, other) in &*self.others {
                    if let Outcome::Dropped(reason) = other.push(&scratch, room) {
                        other.dropped(prediction.model_name, prediction.timestamp.unwrap_or(now), reason);
                    }
                }
                shared.push(&scratch, room)
            }
            Ok(Err(invalid)) => Outcome::Dropped(DropReason::Invalid(invalid)),
            Err(_panic) => Outcome::Dropped(DropReason::Invalid(crate::record::encode::Invalid::Unserializable)),
        };
        if scratch.capacity() > SCRATCH_KEPT {
            scratch = Vec::new();
        }
        SCRATCH.set(scratch);
        if let Outcome::Dropped(reason) = outcome {
            shared.dropped(prediction.model_name, prediction.timestamp.unwrap_or(now), reason);
        }
        outcome
    }

    /// [`log`](Self::log) of a prediction with only a model, its version, inputs and outputs.
    pub fn log_parts<I, O>(&self, model_name: &str, model_version: &str, inputs: &I, outputs: &O) -> Outcome
    where
        I: Serialize + ?Sized,
        O: Serialize + ?Sized,
    {
        self.log(Prediction::new(model_name, model_version, inputs, outputs))
    }

    /// Waits until everything accepted before the call is in its final place (with the parquet store: in a sealed file) in every sink, or `deadline`
    /// passes: then `false`. Blocks this thread: from async code, call it by `spawn_blocking`.
    pub fn flush(&self, deadline: Duration) -> bool {
        let deadline = Instant::now() + deadline;
        let mut flushed = true;
        for shared in self.each() {
            // Also when one before was late.
            flushed &= shared.control.flush(deadline);
        }
        flushed
    }

    /// The handle of one of `[[sinks]]`, for its own counters and health; what is logged with it goes there alone.
    pub fn sink(&self, name: &str) -> Option<Logger> {
        let (_, shared) = self.others.iter().find(|(other, _)| **other == *name)?;
        Some(Logger { shared: Arc::clone(shared), others: Arc::default() })
    }

    /// The names of `[[sinks]]`.
    pub fn sinks(&self) -> impl Iterator<Item = &str> {
        self.others.iter().map(|(name, _)| &**name)
    }

    pub(crate) fn add_sink(&mut self, name: &str, other: &Logger) {
        let new = (Arc::from(name), Arc::clone(&other.shared));
        self.others = self.others.iter().cloned().chain([new]).collect();
    }

    fn each(&self) -> impl Iterator<Item = &Arc<Shared>> {
        std::iter::once(&self.shared).chain(self.others.iter().map(|(_, other)| other))
    }

    /// Waits until what [`Durability`] promises holds for everything accepted before the call, or `deadline` passes: then `false`.
    /// Only `fsync` has anything to wait for. Blocks this thread.
    pub fn wait_durable(&self, deadline: Duration) -> bool {
        let deadline = Instant::now() + deadline;
        let durable = |shared: &Arc<Shared>| match shared.settings.durability {
            Durability::Memory | Durability::Process => true,
            Durability::Fsync => shared.control.wait_durable(&shared.lanes.accepted(), deadline),
        };
        let late = self.each().filter(|shared| !durable(shared)).count();
        late == 0
    }

    /// To be called in a forked child, on the thread that is left, before it opens a logger: its ids are then not its parent's. A logger that was
    /// open during the fork is of no use in the child, as its thread is not there: shut it down before.
    pub fn after_fork_in_child() {
        crate::record::encode::reseed();
    }

    /// The counters, up to date.
    pub fn snapshot(&self) -> Snapshot {
        self.shared.publish_accepted();
        self.shared.stats.snapshot()
    }

    /// The counters, for a registry. `accepted` and the gauges are brought up to date by each [`snapshot`](Self::snapshot), and every second.
    pub fn stats(&self) -> Arc<Stats> {
        Arc::clone(&self.shared.stats)
    }

    /// Whether the sink takes records.
    ///
    /// # Errors
    /// Why it does not. Records are still accepted, as far as the queue and the spool have room.
    pub fn health(&self) -> Result<(), String> {
        self.shared.control.problem().map_or(Ok(()), Err)
    }
}

impl Shared {
    #[inline]
    fn push(&self, line: &[u8], room: Room<'_>) -> Outcome {
        match self.lanes.push(line) {
            Push::Accepted { seq, wake } => {
                if wake {
                    self.control.wake();
                }
                Outcome::Accepted { seq }
            }
            Push::Full => self.push_to_full(line, room),
            Push::Closed => Outcome::Dropped(DropReason::Closed),
        }
    }

    #[cold]
    fn push_to_full(&self, line: &[u8], room: Room<'_>) -> Outcome {
        self.control.wake();
        let block = || (self.settings.overflow == Overflow::Block).then(|| Instant::now() + self.settings.block_limit);
        if let Some(deadline) = room.deadline.or_else(block) {
            while (room.around)(&mut || self.control.wait_for_room(deadline)) {
                match self.lanes.push(line) {
                    Push::Accepted { seq, .. } => return Outcome::Accepted { seq },
                    Push::Full => self.control.wake(),
                    Push::Closed => return Outcome::Dropped(DropReason::Closed),
                }
            }
        }
        Outcome::Dropped(match self.cause.load(Ordering::Relaxed) {
            Cause::NO_SPACE => DropReason::NoSpace,
            Cause::SINK => DropReason::SinkUnavailable,
            _ => DropReason::QueueFull,
        })
    }

    #[cold]
    fn dropped(&self, model_name: &str, at: Timestamp, reason: DropReason) {
        self.stats.drop_record(reason);
        if self.has_ledger {
            self.drops.add(model_name, at, reason);
        }
    }

    fn publish_accepted(&self) {
        self.stats.accepted.store(self.lanes.accepted().iter().sum(), Ordering::Release);
        self.stats.queue_bytes.store(self.lanes.used_bytes(), Ordering::Release);
    }
}

/// Why the lanes would be full.
struct Cause;

impl Cause {
    const LOAD: u8 = 0;
    const SINK: u8 = 1;
    const NO_SPACE: u8 = 2;
}

/// Drains the logger: by [`shutdown`](Self::shutdown), or when it is dropped, for up to 5 s.
#[derive(Debug)]
#[must_use = "dropping the guard ends the logger"]
pub struct Guard {
    shared: Arc<Shared>,
    worker: Option<std::thread::JoinHandle<Report>>,
    /// Stopped after the worker: what it has sealed can still be shipped.
    after: Vec<Box<dyn Service>>,
    others: Vec<(String, Guard)>,
}

/// Something that runs beside the worker and ends after it, such as the shipper.
pub(crate) trait Service: Send + std::fmt::Debug {
    /// Ends it, at `deadline` at the latest.
    fn stop(&mut self, deadline: Instant);
}

impl Guard {
    /// Takes no more records, delivers what was accepted, and says what became of it. What is not delivered by `deadline` stays in the
    /// directory for the next start (with `durability = "memory"` it is dropped, and counted).
    pub fn shutdown(mut self, deadline: Duration) -> Report {
        self.end(Instant::now() + deadline).unwrap_or_default()
    }

    pub(crate) fn add_sink(&mut self, name: String, other: Guard) {
        self.others.push((name, other));
    }

    fn stop_taking(&self, deadline: Instant) {
        self.shared.lanes.close();
        self.shared.control.shut_down(deadline);
    }

    #[cfg(feature = "upload")]
    pub(crate) fn attach(&mut self, service: Box<dyn Service>) {
        self.after.push(service);
    }

    fn end(&mut self, deadline: Instant) -> Option<Report> {
        let worker = self.worker.take()?;
        // All at once, so that they share the deadline and not the time before it.
        self.stop_taking(deadline);
        self.others.iter().for_each(|(_, other)| other.stop_taking(deadline));
        let mut report = worker.join().unwrap_or_else(|_| Report {
            problem: Some("the worker thread panicked; what was accepted is in the directory for the next start".to_owned()),
            ..Report::default()
        });
        for service in &mut self.after {
            service.stop(deadline);
        }
        report.sinks = self.others.drain(..).filter_map(|(name, mut other)| Some((name, other.end(deadline)?))).collect();
        Some(report)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.end(Instant::now() + DROP_DEADLINE);
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;

#[cfg(test)]
#[path = "outage_tests.rs"]
mod outage_tests;
