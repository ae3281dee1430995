//! `Logger.log` as Python calls it, by its fast convention: a function with `**fields` gets a tuple and a dict from PyO3, made for each call.

use crate::fields::{self, Given};
use crate::forks::{ATTENTION, SETTLED, catch_up, under_way};
use crate::logger::Logger;
use crate::outcome::Outcome;
use crate::told;
use pyo3::exceptions::{PyRuntimeError, PyTypeError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyString, PyTuple, PyType};
use std::ffi::CStr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;

/// The first arguments, which need no name; behind them come [`fields::NAMES`]. All other keywords are metadata.
const POSITIONAL: [&str; 3] = ["model_name", "inputs", "outputs"];
const ARGUMENTS: usize = POSITIONAL.len() + fields::NAMES.len();

/// With the signature that `inspect` reads.
const DOC: &CStr = c"log($self, /, model_name, inputs, outputs=None, *, model_version=None, id=None, timestamp=None, request_id=None, row_index=None, \
status_code=None, error=None, latency_ms=None, sample_weight=None, metadata=None, traceparent=None, **fields)\n--\n\n\
Logs a prediction, and says what became of it: an Outcome, which is true where it was accepted.\n\n\
All but the first three go by name; other keywords are metadata. `timestamp` is a datetime, seconds since 1970 or an RFC 3339 text. What has no JSON\n\
form is kept as its text, and what does not fit its field as metadata of its name, counted in snapshot()['encoded_as_text']: nothing is raised\n\
for it but by a logger with strict=True.";

/// Adds the method to the class.
pub(crate) fn add_log(class: &Bound<'_, PyType>) -> PyResult<()> {
    let method = ffi::PyMethodDef {
        ml_name: c"log".as_ptr(),
        ml_meth: ffi::PyMethodDefPointer { PyCFunctionFastWithKeywords: log },
        ml_flags: ffi::METH_FASTCALL | ffi::METH_KEYWORDS,
        ml_doc: DOC.as_ptr(),
    };
    // The class keeps a pointer to it, and is never gone.
    let method = Box::leak(Box::new(method));
    // SAFETY: `class` is a type; `method` lives for ever, and its function has the convention that its flags say.
    let descriptor = unsafe {
        let descriptor = ffi::PyDescr_NewMethod(class.as_type_ptr(), method);
        Bound::from_owned_ptr_or_err(class.py(), descriptor)?
    };
    class.setattr("log", descriptor)
}

unsafe extern "C" fn log(
    logger: *mut ffi::PyObject,
    arguments: *const *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: Python calls this, on an attached thread.
    let py = unsafe { Python::assume_attached() };
    // SAFETY: all of these are alive during the call, and the descriptor has checked that `logger` is a Logger; there are `count` positional arguments,
    // and one more for each name.
    let arguments = unsafe {
        let names = Borrowed::from_ptr_or_opt(py, names).map(|names| names.cast_unchecked::<PyTuple>());
        let named = names.map_or(0, |names| ffi::PyTuple_Size(names.as_ptr()));
        let all = if arguments.is_null() { &[] } else { std::slice::from_raw_parts(arguments, (count + named) as usize) };
        Arguments { logger: Borrowed::from_ptr(py, logger), all, positional: count as usize, names }
    };
    let attention = ATTENTION.load(Ordering::Relaxed);
    if attention != 0 {
        if attention & SETTLED != 0 {
            return closed(py);
        }
        // Before the call counts: a child begins with none.
        catch_up(py);
        told::give_waiting(py);
    }
    under_way(1);
    let called = catch_unwind(AssertUnwindSafe(|| arguments.call(py)));
    under_way(-1);
    let raised = match called {
        Ok(Ok(outcome)) => return outcome.into_ptr(),
        Ok(Err(error)) => error,
        Err(_) => PyRuntimeError::new_err("log() panicked, which is an error in predlog"),
    };
    raised.restore(py);
    std::ptr::null_mut()
}

/// The interpreter ends: it stops threads that wait for it, and not all of what they are in can be stopped.
#[cold]
#[inline(never)]
fn closed(py: Python<'_>) -> *mut ffi::PyObject {
    match Outcome::new(py, predlog::Outcome::Dropped(predlog::DropReason::Closed)) {
        Ok(outcome) => outcome.into_ptr(),
        Err(error) => {
            error.restore(py);
            std::ptr::null_mut()
        }
    }
}

struct Arguments<'a, 'py> {
    logger: Borrowed<'a, 'py, PyAny>,
    /// Positional ones, and then a value for each name.
    all: &'a [*mut ffi::PyObject],
    positional: usize,
    names: Option<Borrowed<'a, 'py, PyTuple>>,
}

impl<'a, 'py> Arguments<'a, 'py> {
    fn call(&self, py: Python<'py>) -> PyResult<Bound<'py, Outcome>> {
        if self.positional > POSITIONAL.len() {
            let (most, given) = (POSITIONAL.len(), self.positional);
            return Err(PyTypeError::new_err(format!(
                "log() takes {most} positional arguments, {given} were given: name the others"
            )));
        }
        // SAFETY: Python's arguments are alive during the call.
        let value = |at: usize| -> Borrowed<'a, 'py, PyAny> { unsafe { Borrowed::from_ptr(py, self.all[at]) } };
        let mut values: [Option<Borrowed<'a, 'py, PyAny>>; ARGUMENTS] = [None; ARGUMENTS];
        for (at, slot) in values.iter_mut().enumerate().take(self.positional) {
            *slot = Some(value(at));
        }
        let mut others = None;
        let names = self.names.iter().flat_map(|names| names.iter_borrowed());
        for (at, name) in names.enumerate() {
            let value = value(self.positional + at);
            match position(&name)? {
                Some(found) if values[found].is_some() => {
                    return Err(PyTypeError::new_err(format!("log() got multiple values for argument '{}'", &*name)));
                }
                Some(found) => values[found] = Some(value),
                None => others.get_or_insert_with(|| PyDict::new(py)).set_item(name, value)?,
            }
        }
        let missing = |at: usize| PyTypeError::new_err(format!("log() is missing the argument '{}'", POSITIONAL[at]));
        let [model_name, inputs, outputs, named @ ..] = &values;
        let model_name = model_name.as_deref().ok_or_else(|| missing(0))?;
        let inputs = inputs.as_deref().ok_or_else(|| missing(1))?;
        let named = named.each_ref().map(|value| value.as_deref().filter(|value| !value.is_none()));
        let given = Given { model_name, named: named.into(), others: others.as_ref() };
        // SAFETY: the descriptor has checked it.
        let logger = unsafe { self.logger.cast_unchecked::<Logger>() };
        Outcome::new(py, logger.get().log(py, inputs, outputs.as_deref(), &given)?)
    }
}

/// Which argument it is. Names in a call's source are interned, so that most often the pointers are the same.
fn position(name: &Bound<'_, PyAny>) -> PyResult<Option<usize>> {
    static INTERNED: PyOnceLock<[Py<PyString>; ARGUMENTS]> = PyOnceLock::new();
    let py = name.py();
    let text = |at: usize| POSITIONAL.get(at).copied().unwrap_or_else(|| fields::NAMES[at - POSITIONAL.len()]);
    let interned = INTERNED.get_or_init(py, || std::array::from_fn(|at| PyString::intern(py, text(at)).unbind()));
    if let Some(found) = interned.iter().position(|known| known.as_ptr() == name.as_ptr()) {
        return Ok(Some(found));
    }
    // A name with lone surrogates is none of them.
    let Ok(name) = name.cast::<PyString>()?.to_str() else { return Ok(None) };
    Ok((0..ARGUMENTS).find(|&at| text(at) == name))
}
