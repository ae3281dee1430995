//! How loggers end: one by `close()`, which sees signals; all by the end of the process, or before a fork.

use crate::forks::{ENDING, catch_up};
use crate::logger::{Logger, seconds};
use parking_lot::Mutex;
use predlog::stats::Snapshot;
use predlog::{Guard, Report};
use pyo3::prelude::*;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A logger that takes no more records, which ends while its thread is not attached to Python.
struct Ending {
    logger: Arc<predlog::Logger>,
    guard: Guard,
}

/// What became of its records, and its counters at the end.
pub(crate) type Ended = (Report, Last);

#[derive(Default)]
pub(crate) struct Last {
    own: Snapshot,
    sinks: Vec<(String, Snapshot)>,
}

impl Ending {
    fn end(self, timeout: Duration) -> Ended {
        let report = self.guard.shutdown(timeout);
        let sinks = named_sinks(&self.logger).map(|(name, sink)| (name, sink.snapshot())).collect();
        let last = Last { own: self.logger.snapshot(), sinks };
        drop(self.logger);
        // As `begin_to_end()`: a fork waits no longer.
        ENDING.fetch_sub(1, Ordering::AcqRel);
        (report, last)
    }
}

/// The loggers of `[[sinks]]`.
pub(crate) fn named_sinks(logger: &predlog::Logger) -> impl Iterator<Item = (String, predlog::Logger)> {
    logger.sinks().filter_map(|name| Some((name.to_owned(), logger.sink(name)?)))
}

impl Logger {
    /// For good, or for a fork. Waits for other threads that are at it.
    pub(crate) fn end(&self, py: Python<'_>, timeout: Duration) {
        if let Some(ending) = self.begin_to_end(py) {
            let ended = py.detach(|| ending.end(timeout));
            self.note_end(py, ended);
        }
        // Another thread may be at it.
        let until = Instant::now() + timeout;
        while self.state.lock().ending > 0 && Instant::now() < until {
            self.note_left(py);
            py.detach(|| std::thread::sleep(Duration::from_millis(1)));
        }
    }

    /// The same by another thread, so that this one sees Python's signals.
    ///
    /// # Errors
    /// What a signal's handler raised. It goes on, and whoever asks next is told of it.
    pub(crate) fn end_unless_interrupted(&self, py: Python<'_>, timeout: Duration) -> PyResult<()> {
        if let Some(ending) = self.begin_to_end(py) {
            let ending = Arc::new(Mutex::new(Some(ending)));
            let end = move |ending: &Mutex<Option<Ending>>| ending.lock().take().map(|ending| ending.end(timeout));
            let others = Arc::clone(&ending);
            match predlog::thread::spawn("predlog-close", move || end(&others).unwrap_or_default()) {
                Ok(thread) => self.wait_for_end(py, thread)?,
                Err(_) => _ = py.detach(|| end(&ending)).map(|ended| self.note_end(py, ended)),
            }
        }
        self.end(py, timeout);
        Ok(())
    }

    /// What became of those that nobody has waited for.
    pub(crate) fn note_left(&self, py: Python<'_>) {
        let left: Vec<_> = self.state.lock().left.extract_if(.., |thread| thread.is_finished()).collect();
        left.into_iter().for_each(|thread| self.note_end(py, thread.join().unwrap_or_default()));
    }

    fn wait_for_end(&self, py: Python<'_>, thread: JoinHandle<Ended>) -> PyResult<()> {
        while !thread.is_finished() {
            if let Err(interrupt) = py.check_signals() {
                self.state.lock().left.push(thread);
                return Err(interrupt);
            }
            py.detach(|| std::thread::sleep(Duration::from_millis(1)));
        }
        self.note_end(py, thread.join().unwrap_or_default());
        Ok(())
    }

    fn begin_to_end(&self, py: Python<'_>) -> Option<Ending> {
        catch_up(py);
        let mut state = self.state.lock();
        let (logger, guard) = state.open.take()?;
        state.ending += 1;
        // A child of a fork meanwhile would have the worker's locks, and nobody who unlocks them.
        ENDING.fetch_add(1, Ordering::AcqRel);
        Some(Ending { logger, guard })
    }

    fn note_end(&self, _attached: Python<'_>, (mut report, last): Ended) {
        let mut state = self.state.lock();
        state.ending -= 1;
        for (name, last) in last.sinks {
            let report = report.sinks.remove(&name).unwrap_or_default();
            state.sinks.entry(name).or_default().add_ended(report, &last);
        }
        state.past.add_ended(report, &last.own);
    }
}

/// Ends loggers, all at the same time, for up to `timeout` seconds: for good, or for a fork, after which the next `log()` opens them again.
#[pyfunction]
pub(crate) fn end_all(py: Python<'_>, loggers: Vec<PyRef<'_, Logger>>, timeout: f64, for_good: bool) -> PyResult<()> {
    let timeout = seconds(timeout)?;
    if for_good {
        loggers.iter().for_each(|logger| logger.state.lock().closed = true);
    }
    /// What is to end, and what became of it.
    type Slot = (Mutex<Option<Ending>>, Mutex<Option<Ended>>);
    let slot = |logger: &PyRef<'_, Logger>| -> Slot { (Mutex::new(logger.begin_to_end(py)), Mutex::new(None)) };
    let slots: Vec<Slot> = loggers.iter().map(slot).collect();
    let end = |(ending, ended): &Slot| {
        let ending = ending.lock().take();
        *ended.lock() = ending.map(|ending| ending.end(timeout));
    };
    py.detach(|| {
        std::thread::scope(|scope| {
            for slot in slots.iter().filter(|(ending, _)| ending.lock().is_some()) {
                // Where no thread can be had, one after another.
                if std::thread::Builder::new().spawn_scoped(scope, || end(slot)).is_err() {
                    end(slot);
                }
            }
        });
    });
    for (logger, (_, ended)) in loggers.iter().zip(slots) {
        if let Some(ended) = ended.into_inner() {
            logger.note_end(py, ended);
        }
        // Another thread may be at it.
        logger.end(py, timeout);
    }
    Ok(())
}
