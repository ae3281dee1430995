//! The Python class `predlog.Logger`, but for how its configuration is found, which is Python's (`predlog/__init__.py`).

use crate::encode::{Context, Value};
use crate::fields::{Fields, Given, Keywords, Named};
use crate::outcome::Outcome;
use crate::{batch, frame};
use parking_lot::Mutex;
use predlog::{Config, DropReason, Guard, Prediction, Report};
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyString};
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A fork waits so long for what is still to be delivered; the rest is on disk, and the next logger delivers it.
const FORK_DEADLINE: Duration = Duration::from_secs(5);
/// `log()` waits so long for a fork that another thread is in.
const FORK_WAIT: Duration = Duration::from_secs(6);
/// A record finds the logger ended by a fork at most so often.
const TRIES: u32 = 3;
/// A year: longer ones have no end that a clock could tell.
const MAX_TIMEOUT: Duration = Duration::from_secs(365 * 24 * 3600);

/// Forks that are under way: no logger may be opened, as its thread would not be there in the child.
static FORKING: AtomicU32 = AtomicU32::new(0);
/// Loggers that are being opened, detached from Python: a fork waits for them. It is changed, and compared with [`FORKING`], while attached.
static OPENING: AtomicU32 = AtomicU32::new(0);
/// The same of loggers that are being ended.
static ENDING: AtomicU32 = AtomicU32::new(0);

#[pyclass(subclass, weakref, frozen, name = "Logger", module = "predlog._native")]
pub(crate) struct Logger {
    config: Config,
    strict: bool,
    as_text: AtomicU64,
    /// Python's log has why it cannot be opened.
    told: AtomicBool,
    state: Mutex<State>,
}

/// Locked for a copy only, by threads that are attached to Python: so no fork finds it locked, and never while Python code runs.
struct State {
    open: Option<(Arc<predlog::Logger>, Guard)>,
    /// A thread is about to open it.
    opening: bool,
    /// By the caller, for good.
    closed: bool,
    /// Of the loggers that ended for a fork.
    past: Report,
}

#[pymethods]
impl Logger {
    /// Reads the configuration, and opens nothing.
    #[new]
    #[pyo3(signature = (name, text, variables, keywords, strict))]
    fn new(
        name: Option<String>,
        text: Option<String>,
        variables: Vec<(String, String)>,
        keywords: &str,
        strict: bool,
    ) -> PyResult<Self> {
        let config = Config::from_layers(name.zip(text), variables, Some(keywords)).map_err(to_python)?;
        let state = Mutex::new(State { open: None, opening: false, closed: false, past: Report::default() });
        Ok(Logger { config, strict, as_text: AtomicU64::new(0), told: AtomicBool::new(false), state })
    }

    /// Opens it now, and not with the first record, so that the caller sees why it cannot be.
    fn _open(&self, py: Python<'_>) -> PyResult<()> {
        self.current(py).map(|_| ())
    }

    /// `log_batch` of what `_columns.source()` makes, waiting up to `timeout` seconds for room in the queue. `fields` are those of all rows. Returns
    /// how many were accepted. TypeError: nothing was logged, as the columns have types that are not for this way.
    fn _log_columns<'py>(
        &self,
        py: Python<'py>,
        inputs: &Bound<'py, PyAny>,
        outputs: Option<&Bound<'py, PyAny>>,
        fields: &Bound<'py, PyDict>,
        timeout: f64,
    ) -> PyResult<u64> {
        let deadline = Instant::now() + seconds(timeout)?.min(MAX_TIMEOUT);
        let (inputs, outputs) = (frame::chunks(inputs)?, outputs.map(frame::chunks).transpose()?);
        let context = Context::new(converter(py)?, self.strict);
        let keywords = Keywords::new(fields)?;
        let fields = Fields::read(&keywords.given(), &context)?;
        self.as_text.fetch_add(context.as_text.get(), Ordering::Relaxed);
        batch::log(py, self, &inputs, outputs.as_ref(), &fields, deadline)
    }

    /// What turned out to be true of the prediction `id`, as a record of the model `<model_name>.actuals`.
    #[pyo3(signature = (id, model_name, actuals, *, model_version=None, timestamp=None, revision=None))]
    #[expect(clippy::too_many_arguments, reason = "they are Python's keywords")]
    fn actuals<'py>(
        &self,
        py: Python<'py>,
        id: Bound<'py, PyAny>,
        model_name: &Bound<'py, PyAny>,
        actuals: &Bound<'py, PyAny>,
        model_version: Option<&Bound<'py, PyAny>>,
        timestamp: Option<&Bound<'py, PyAny>>,
        revision: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, Outcome>> {
        let context = Context::new(converter(py)?, self.strict);
        // None is no id.
        let id = if id.is_none() { PyString::new(py, "").into_any() } else { id };
        let named = Named { model_version, id: Some(&id), timestamp, ..Named::default() };
        let others = PyDict::new(py);
        if let Some(revision) = revision {
            others.set_item("revision", revision)?;
        }
        let fields = Fields::read(&Given { model_name, named, others: Some(&others) }, &context)?.for_actuals();
        let values = Value { object: actuals, context: &context };
        Outcome::new(py, self.push(py, fields.prediction(&(), &values, &fields.metadata()), &context)?)
    }

    /// Waits until all that was accepted is in its final place; False when `timeout` seconds were not enough.
    #[pyo3(signature = (timeout=30.0))]
    fn flush(&self, py: Python<'_>, timeout: f64) -> PyResult<bool> {
        let timeout = seconds(timeout)?;
        let Some(logger) = self.state.lock().open.as_ref().map(|(logger, _)| Arc::clone(logger)) else { return Ok(true) };
        Ok(py.detach(|| logger.flush(timeout)))
    }

    /// Delivers what was accepted, for up to `timeout` seconds, and takes no more. Says what became of all records. Closing again changes nothing.
    #[pyo3(signature = (timeout=5.0))]
    fn close<'py>(&self, py: Python<'py>, timeout: f64) -> PyResult<Bound<'py, PyDict>> {
        let timeout = seconds(timeout)?;
        self.state.lock().closed = true;
        self.end(py, timeout);
        self.snapshot(py)
    }

    /// The counters: accepted, delivered, on_disk, dropped (by reason), encoded_as_text and more.
    fn snapshot<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let (past, now) = {
            let state = self.state.lock();
            (state.past.clone(), state.open.as_ref().map(|(logger, _)| logger.snapshot()).unwrap_or_default())
        };
        let mut dropped: BTreeMap<&'static str, u64> = past.dropped;
        for (reason, count) in now.dropped {
            *dropped.entry(reason).or_default() += count;
        }
        let counters = PyDict::new(py);
        counters.set_item("accepted", past.accepted + now.accepted)?;
        counters.set_item("delivered", past.delivered + now.delivered)?;
        counters.set_item("on_disk", past.on_disk + now.on_disk)?;
        counters.set_item("dropped", dropped)?;
        counters.set_item("recovered", past.recovered + now.recovered)?;
        counters.set_item("digested", now.digested)?;
        counters.set_item("queue_bytes", now.queue_bytes)?;
        counters.set_item("spool_bytes", now.spool_bytes)?;
        counters.set_item("sink_failures", now.sink_failures)?;
        counters.set_item("encoded_as_text", self.as_text.load(Ordering::Relaxed))?;
        counters.set_item("problem", past.problem)?;
        Ok(counters)
    }

    /// Ends the logger for a fork. The next `log()`, in the parent as in the child, opens one again.
    fn _before_fork(&self, py: Python<'_>) {
        self.end(py, FORK_DEADLINE);
    }

    /// The child starts with no records of its own.
    fn _after_fork_in_child(&self) {
        let mut state = self.state.lock();
        (state.past, state.opening) = (Report::default(), false);
        self.as_text.store(0, Ordering::Relaxed);
    }
}

impl Logger {
    /// `log()`, whose arguments `call.rs` has read.
    pub(crate) fn log<'py>(
        &self,
        py: Python<'py>,
        inputs: &Bound<'py, PyAny>,
        outputs: Option<&Bound<'py, PyAny>>,
        given: &Given<'_, 'py>,
    ) -> PyResult<predlog::Outcome> {
        let context = Context::new(converter(py)?, self.strict);
        let mut fields = Fields::default();
        fields.fill(given, &context)?;
        let inputs = Value { object: inputs, context: &context };
        let outputs = outputs.map(|object| Value { object, context: &context });
        self.push(py, fields.prediction(&inputs, &outputs, &fields.metadata()), &context)
    }

    /// Logs it, and tells what `context` has seen meanwhile.
    fn push<I: Serialize + Copy, O: Serialize + Copy>(
        &self,
        py: Python<'_>,
        prediction: Prediction<'_, I, O>,
        context: &Context<'_>,
    ) -> PyResult<predlog::Outcome> {
        let outcome = self.try_push(py, prediction);
        let as_text = context.as_text.get();
        if as_text > 0 {
            self.as_text.fetch_add(as_text, Ordering::Relaxed);
        }
        match context.error.take() {
            Some(error) => Err(error),
            None => Ok(outcome),
        }
    }

    /// A fork may end the logger between its copy and the call: then the next one takes the record.
    fn try_push<I: Serialize + Copy, O: Serialize + Copy>(
        &self,
        py: Python<'_>,
        prediction: Prediction<'_, I, O>,
    ) -> predlog::Outcome {
        for _ in 0..TRIES {
            let Some(logger) = self.current_or_tell(py) else { break };
            match logger.log_around(prediction, &|wait| py.detach(wait)) {
                predlog::Outcome::Dropped(DropReason::Closed) => {}
                outcome => return outcome,
            }
        }
        self.drop_rows(py, DropReason::Closed, 1);
        predlog::Outcome::Dropped(DropReason::Closed)
    }

    /// The same for a thread that is not attached to Python, and has time until `deadline`. `open` is its copy of the logger, kept between calls.
    pub(crate) fn push_until<I: Serialize + Copy, O: Serialize + Copy>(
        &self,
        open: &mut Option<Arc<predlog::Logger>>,
        prediction: Prediction<'_, I, O>,
        deadline: Instant,
    ) -> predlog::Outcome {
        for _ in 0..TRIES {
            if open.is_none() {
                *open = Python::attach(|py| self.current_or_tell(py));
            }
            let Some(logger) = open else { break };
            match logger.log_until(prediction, deadline) {
                predlog::Outcome::Dropped(DropReason::Closed) => *open = None,
                outcome => return outcome,
            }
        }
        Python::attach(|py| self.drop_rows(py, DropReason::Closed, 1));
        predlog::Outcome::Dropped(DropReason::Closed)
    }

    /// Counts rows that no open logger counts.
    pub(crate) fn drop_rows(&self, _attached: Python<'_>, reason: DropReason, rows: u64) {
        *self.state.lock().past.dropped.entry(reason.name()).or_default() += rows;
    }

    /// The open logger, opened again after a fork; `None` when it was closed.
    #[inline]
    fn current(&self, py: Python<'_>) -> PyResult<Option<Arc<predlog::Logger>>> {
        if let Some((logger, _)) = &self.state.lock().open {
            return Ok(Some(Arc::clone(logger)));
        }
        self.reopen(py)
    }

    /// The same; why there is none is in Python's log, once until there is one again.
    #[inline]
    fn current_or_tell(&self, py: Python<'_>) -> Option<Arc<predlog::Logger>> {
        self.current(py).unwrap_or_else(|error| {
            if !self.told.swap(true, Ordering::Relaxed) {
                tell(py, &error);
            }
            None
        })
    }

    #[cold]
    fn reopen(&self, py: Python<'_>) -> PyResult<Option<Arc<predlog::Logger>>> {
        let until = Instant::now() + FORK_WAIT;
        loop {
            {
                let mut state = self.state.lock();
                if state.closed || state.open.is_some() {
                    return Ok(state.open.as_ref().map(|(logger, _)| Arc::clone(logger)));
                }
                // Attached to Python: no fork begins between the look at it and the count.
                if !state.opening && FORKING.load(Ordering::Acquire) == 0 {
                    state.opening = true;
                    OPENING.fetch_add(1, Ordering::AcqRel);
                    break;
                }
            }
            if Instant::now() >= until {
                return Err(PyRuntimeError::new_err("a fork, or another thread that opens the logger, is still under way"));
            }
            py.detach(|| std::thread::sleep(Duration::from_millis(1)));
        }
        // Files and databases are waited for: meanwhile other threads run. What is wrong for a moment only is not wrong the second time.
        let open = || predlog::Logger::open(&self.config);
        let opened = py.detach(|| open().or_else(|error| if is_config(&error) { Err(error) } else { open() }));
        let mut state = self.state.lock();
        state.opening = false;
        OPENING.fetch_sub(1, Ordering::AcqRel);
        let (logger, guard) = opened.map_err(to_python)?;
        let logger = Arc::new(logger);
        state.open = Some((Arc::clone(&logger), guard));
        let closed = state.closed;
        drop(state);
        self.told.store(false, Ordering::Relaxed);
        if closed {
            // Somebody has closed it meanwhile, and found nothing to end.
            drop(logger);
            self.end(py, FORK_DEADLINE);
            return Ok(None);
        }
        Ok(Some(logger))
    }

    fn end(&self, py: Python<'_>, timeout: Duration) {
        let Some((logger, guard)) = self.state.lock().open.take() else { return };
        drop(logger);
        // A child of a fork meanwhile would have the worker's locks, and nobody who unlocks them.
        ENDING.fetch_add(1, Ordering::AcqRel);
        let report = py.detach(|| guard.shutdown(timeout));
        ENDING.fetch_sub(1, Ordering::AcqRel);
        let past = &mut self.state.lock().past;
        past.accepted += report.accepted;
        past.delivered += report.delivered;
        past.on_disk += report.on_disk;
        past.recovered += report.recovered;
        for (reason, count) in report.dropped {
            *past.dropped.entry(reason).or_default() += count;
        }
        past.problem = report.problem;
    }
}

/// Marks a step of a fork:
/// - `begins`: from here on no logger is opened. Waits for those that are being opened: they are open then, and known.
/// - `ready`: all loggers that are known were ended. Waits for those that other threads are ending.
/// - `parent`, `child`: it is over.
///
/// Without these waits the child would keep files open and have what other threads had locked, and not these threads.
#[pyfunction]
pub(crate) fn forking(py: Python<'_>, step: &str) {
    match step {
        "begins" => {
            FORKING.fetch_add(1, Ordering::AcqRel);
            wait_for(py, &OPENING);
        }
        "ready" => wait_for(py, &ENDING),
        // Its begin was not seen where this module is imported meanwhile.
        "parent" => _ = FORKING.fetch_update(Ordering::AcqRel, Ordering::Acquire, |forks| forks.checked_sub(1)),
        _ => {
            predlog::Logger::after_fork_in_child();
            for threads in [&FORKING, &OPENING, &ENDING] {
                threads.store(0, Ordering::Release);
            }
        }
    }
}

/// Waits for other threads, for a while.
fn wait_for(py: Python<'_>, threads: &AtomicU32) {
    let until = Instant::now() + FORK_DEADLINE;
    while threads.load(Ordering::Acquire) > 0 && Instant::now() < until {
        py.detach(|| std::thread::sleep(Duration::from_millis(1)));
    }
}

/// Says in Python's log why nothing is logged. Whatever its handlers raise is nothing to the caller.
fn tell(py: Python<'_>, error: &PyErr) {
    let log = || py.import("logging")?.call_method1("getLogger", ("predlog",));
    let message = "predictions are dropped, as the logger cannot be opened: %s";
    _ = log().and_then(|log| log.call_method1("error", (message, error.value(py))));
}

fn converter(py: Python<'_>) -> PyResult<&Bound<'_, PyAny>> {
    static CONVERT: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    CONVERT.import(py, "predlog._convert", "convert")
}

fn seconds(timeout: f64) -> PyResult<Duration> {
    Duration::try_from_secs_f64(timeout)
        .map_err(|_| PyValueError::new_err(format!("timeout={timeout}: expected seconds, from 0; pass a number such as 5.0")))
}

fn is_config(error: &predlog::Error) -> bool {
    matches!(error.kind(), predlog::ErrorKind::Config)
}

fn to_python(error: predlog::Error) -> PyErr {
    if is_config(&error) { PyValueError::new_err(error.to_string()) } else { PyRuntimeError::new_err(error.to_string()) }
}
