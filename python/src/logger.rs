//! The Python class `predlog.Logger`, but for how its configuration is found, which is Python's (`predlog/__init__.py`).

use crate::encode::{Context, Value};
use crate::ending::{Ended, named_sinks};
use crate::fields::{Fields, Given, Keywords, Named};
use crate::forks::{DEADLINE, ENDING, FORKER, FORKING, OPENING, catch_up, forked, this_thread};
use crate::outcome::Outcome;
use crate::totals::Totals;
use crate::{batch, frame, told};
use parking_lot::Mutex;
use predlog::{Config, DropReason, Guard, Prediction};
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyString};
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// `log()` waits so long for a fork that another thread is in.
const FORK_WAIT: Duration = Duration::from_secs(6);
/// A record finds the logger ended by a fork at most so often.
const TRIES: u32 = 3;
/// A year: longer ones have no end that a clock could tell.
const MAX_TIMEOUT: Duration = Duration::from_secs(365 * 24 * 3600);

/// How long a logger that could not be opened is not tried again: at first, and at most.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// How often a wait looks for Python's signals.
const SIGNALS_EVERY: Duration = Duration::from_millis(100);

#[pyclass(subclass, weakref, frozen, name = "Logger", module = "predlog._native")]
pub(crate) struct Logger {
    config: Config,
    strict: bool,
    as_text: AtomicU64,
    /// Python's log has why it cannot be opened.
    told: AtomicBool,
    pub(crate) state: Mutex<State>,
}

/// Locked for a copy only, by threads that are attached to Python: so no fork finds it locked, and never while Python code runs.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) open: Option<(Arc<predlog::Logger>, Guard)>,
    /// A thread is about to open it.
    opening: bool,
    /// Threads that are ending it.
    pub(crate) ending: u32,
    /// Those that nobody waits for any more, as a signal came.
    pub(crate) left: Vec<JoinHandle<Ended>>,
    /// By the caller, for good.
    pub(crate) closed: bool,
    /// It could not be opened: until when it is not tried again, and how long that was.
    failed: Option<(Instant, Duration)>,
    /// Of the loggers that ended for a fork.
    pub(crate) past: Totals,
    /// The same of each of `[[sinks]]`.
    pub(crate) sinks: BTreeMap<String, Totals>,
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
        // It is opened again after a fork, where the process may be in another directory by then.
        let config = config.with_absolute_dirs();
        let state = Mutex::default();
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
        let named = Named { model_version, timestamp, ..Named::default() };
        let others = PyDict::new(py);
        if let Some(revision) = revision {
            others.set_item("revision", revision)?;
        }
        let fields = Fields::read(&Given { model_name, named, others: Some(&others) }, &context)?;
        let fields = fields.for_actuals(context.text(&id)?);
        let values = Value { object: actuals, context: &context };
        Outcome::new(py, self.push(py, fields.prediction(&(), &values, &fields.metadata()), &context)?)
    }

    /// Waits until all that was accepted is in its final place; False when `timeout` seconds were not enough.
    #[pyo3(signature = (timeout=30.0))]
    fn flush(&self, py: Python<'_>, timeout: f64) -> PyResult<bool> {
        catch_up(py);
        let timeout = seconds(timeout)?;
        let logger = {
            let state = self.state.lock();
            match &state.open {
                Some((logger, _)) => Arc::clone(logger),
                // What a logger that ended has left is in the directory.
                None => return Ok(state.past.on_disk == 0),
            }
        };
        if py.detach(|| logger.flush(timeout.min(SIGNALS_EVERY))) {
            return Ok(true);
        }
        // By another thread, so that this one sees Python's signals, such as Ctrl-C.
        let rest = timeout.saturating_sub(SIGNALS_EVERY);
        let thread = predlog::thread::spawn("predlog-flush", move || logger.flush(rest))?;
        while !thread.is_finished() {
            py.check_signals()?;
            py.detach(|| std::thread::sleep(Duration::from_millis(2)));
        }
        Ok(thread.join().unwrap_or(false))
    }

    /// Delivers what was accepted, for up to `timeout` seconds, and takes no more. Says what became of all records. Closing again changes nothing.
    /// After an interrupt, such as Ctrl-C, it goes on with that beside whatever comes next.
    #[pyo3(signature = (timeout=5.0))]
    fn close<'py>(&self, py: Python<'py>, timeout: f64) -> PyResult<Bound<'py, PyDict>> {
        let timeout = seconds(timeout)?;
        self.state.lock().closed = true;
        self.end_unless_interrupted(py, timeout)?;
        self.snapshot(py)
    }

    /// The counters: accepted, delivered, on_disk, dropped (by reason), encoded_as_text and more; what is wrong now; and the same of each of `[[sinks]]`.
    fn snapshot<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        catch_up(py);
        self.note_left(py);
        let (mut totals, mut sinks, open) = {
            let state = self.state.lock();
            (state.past.clone(), state.sinks.clone(), state.open.as_ref().map(|(logger, _)| Arc::clone(logger)))
        };
        if let Some(open) = open {
            totals.add_open(&open.snapshot(), open.health());
            for (name, sink) in named_sinks(&open) {
                sinks.entry(name).or_default().add_open(&sink.snapshot(), sink.health());
            }
        }
        let counters = totals.to_python(py)?;
        counters.set_item("encoded_as_text", self.as_text.load(Ordering::Relaxed))?;
        let by_name = PyDict::new(py);
        for (name, totals) in sinks {
            by_name.set_item(name, totals.to_python(py)?)?;
        }
        counters.set_item("sinks", by_name)?;
        Ok(counters)
    }

    /// The child starts with no records of its own.
    fn _after_fork_in_child(&self) {
        let mut state = self.state.lock();
        if let Some(open) = state.open.take() {
            // Nobody has asked before this fork: its thread is not here, and would be waited for.
            std::mem::forget(open);
        }
        // Nor are these here.
        std::mem::take(&mut state.left).into_iter().for_each(std::mem::forget);
        *state = State { closed: state.closed, ..State::default() };
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
            self.count_texts(as_text);
        }
        match context.error.take() {
            Some(error) => Err(error),
            None => Ok(outcome),
        }
    }

    #[cold]
    #[inline(never)]
    fn count_texts(&self, as_text: u64) {
        self.as_text.fetch_add(as_text, Ordering::Relaxed);
        // PyO3 does not know that `call.rs` is attached: what was dropped since, such as an exception with the values of its frames, waits until it attaches.
        Python::attach(|_| ());
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
        self.state.lock().past.drop([(reason.name(), rows)]);
    }

    /// The open logger, opened again after a fork; `None` when it was closed.
    #[inline]
    fn current(&self, py: Python<'_>) -> PyResult<Option<Arc<predlog::Logger>>> {
        catch_up(py);
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
                // It is not tried with each record, nor waited for by the thread that forks: a signal's handler, or another one's hook.
                let failed = state.failed.is_some_and(|(until, _)| Instant::now() < until);
                if state.closed || state.open.is_some() || failed || FORKER.load(Ordering::Acquire) == this_thread() {
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
        told::listen(py);
        let again = self.state.lock().failed.is_none();
        let open = || predlog::Logger::open(&self.config);
        let opened = py.detach(|| open().or_else(|error| if is_config(&error) || !again { Err(error) } else { open() }));
        let mut state = self.state.lock();
        state.opening = false;
        OPENING.fetch_sub(1, Ordering::AcqRel);
        let (logger, guard) = opened.map_err(|error| {
            let wait = state.failed.map_or(RETRY.0, |(_, wait)| (2 * wait).min(RETRY.1));
            state.failed = Some((Instant::now() + wait, wait));
            to_python(error)
        })?;
        state.failed = None;
        let logger = Arc::new(logger);
        state.open = Some((Arc::clone(&logger), guard));
        let closed = state.closed;
        drop(state);
        self.told.store(false, Ordering::Relaxed);
        if closed {
            // Somebody has closed it meanwhile, and found nothing to end.
            drop(logger);
            self.end(py, DEADLINE);
            return Ok(None);
        }
        Ok(Some(logger))
    }
}

impl Drop for Logger {
    fn drop(&mut self) {
        // Nobody has closed it. Other threads of Python's run meanwhile.
        if let Some((logger, guard)) = self.state.get_mut().open.take() {
            if forked() {
                // The parent's: its thread is not here, and would be waited for.
                return std::mem::forget((logger, guard));
            }
            drop(logger);
            _ = Python::try_attach(|py| {
                // As `begin_to_end()`.
                ENDING.fetch_add(1, Ordering::AcqRel);
                py.detach(|| guard.shutdown(DEADLINE));
                ENDING.fetch_sub(1, Ordering::AcqRel);
            });
        }
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

pub(crate) fn seconds(timeout: f64) -> PyResult<Duration> {
    if timeout == f64::INFINITY {
        return Ok(MAX_TIMEOUT);
    }
    Duration::try_from_secs_f64(timeout)
        .map(|timeout| timeout.min(MAX_TIMEOUT))
        .map_err(|_| PyValueError::new_err(format!("timeout={timeout}: expected seconds, from 0; pass a number such as 5.0")))
}

fn is_config(error: &predlog::Error) -> bool {
    matches!(error.kind(), predlog::ErrorKind::Config)
}

fn to_python(error: predlog::Error) -> PyErr {
    if is_config(&error) { PyValueError::new_err(error.to_string()) } else { PyRuntimeError::new_err(error.to_string()) }
}
