//! One HTTP request and its response, as an ASGI server passes them. What a middleware does for each of their messages is Python's (`predlog/asgi.py`): its
//! interpreter is in the processor's caches anyway, and a call from there to here, among all that a server does, costs more than what it saves.

use crate::body::{MAX_BYTES, as_json, capture, is_json};
use crate::fields::{Given, Named};
use crate::logger::Logger;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyBytes, PyDict, PyInt, PyString, PyTuple};

/// Logs a request and its response, of which `request` and `response` are the bodies, `None` where they were too large: JSON in, JSON out, status. `started` is
/// the message that the response began with, if it did. `error` is the text of an exception that the application has raised. What is no message of ASGI's is
/// left alone.
#[pyfunction]
#[pyo3(signature = (logger, model_name, model_version, scope, request, started, response, latency_ms, error))]
#[expect(clippy::too_many_arguments, reason = "one call of Python's")]
pub(crate) fn log_asgi<'py>(
    py: Python<'py>,
    logger: &Bound<'py, Logger>,
    model_name: &Bound<'py, PyAny>,
    model_version: Option<&Bound<'py, PyAny>>,
    scope: &Bound<'py, PyAny>,
    request: &Bound<'py, PyAny>,
    started: Option<&Bound<'py, PyAny>>,
    response: &Bound<'py, PyAny>,
    latency_ms: &Bound<'py, PyAny>,
    error: Option<&Bound<'py, PyAny>>,
) -> PyResult<()> {
    let headers = Headers::of(scope);
    let inputs = inputs(&headers, scope, kept(request))?.unwrap_or_else(|| py.None().into_bound(py));
    let outputs = match (started.map(Headers::of), kept(response)) {
        (Some(headers), Some(body)) if headers.is_json() => as_json(py, body, headers.content_encoding())?,
        _ => None,
    };
    let status = started.and_then(|started| get(started, intern!(py, "status")));
    let status = status.or_else(|| error.map(|_| PyInt::new(py, 500).into_any()));
    let (request_id, traceparent) = (latin_1(headers.request_id.as_ref()), latin_1(headers.traceparent.as_ref()));
    let named = Named {
        model_version,
        status_code: status.as_ref(),
        error,
        latency_ms: Some(latency_ms),
        request_id: request_id.as_ref(),
        traceparent: traceparent.as_ref(),
        ..Named::default()
    };
    logger.get().log(py, &inputs, outputs.as_ref(), &Given { model_name, named, others: None }).map(|_| ())
}

/// A body, where it is not too large.
fn kept(body: &Bound<'_, PyAny>) -> Option<PyBackedBytes> {
    let body: PyBackedBytes = match body.extract() {
        Ok(body) => body,
        Err(_) if body.is_none() => return None,
        Err(_) => body.py().get_type::<PyBytes>().call1((body,)).ok()?.extract().ok()?,
    };
    Some(body).filter(|body| body.len() <= MAX_BYTES)
}

/// The JSON body, or else the query.
fn inputs<'py>(
    headers: &Headers<'py>,
    scope: &Bound<'py, PyAny>,
    request: Option<PyBackedBytes>,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    let py = scope.py();
    if headers.content_type.is_none() || headers.is_json() {
        let Some(body) = request else { return Ok(None) };
        if let Some(json) = as_json(py, body, headers.content_encoding())? {
            return Ok(Some(json));
        }
    }
    match get(scope, intern!(py, "query_string")) {
        Some(query) if query.is_truthy()? => capture(py, "query")?.call1((query,)).map(Some),
        _ => Ok(None),
    }
}

/// Those that are looked at.
#[derive(Default)]
struct Headers<'py> {
    content_type: Option<Bound<'py, PyBytes>>,
    content_encoding: Option<Bound<'py, PyBytes>>,
    request_id: Option<Bound<'py, PyBytes>>,
    traceparent: Option<Bound<'py, PyBytes>>,
}

impl<'py> Headers<'py> {
    /// Those of a scope or of a message: pairs of bytes.
    fn of(mapping: &Bound<'py, PyAny>) -> Self {
        let mut read = Headers::default();
        let Some(headers) = get(mapping, intern!(mapping.py(), "headers")) else { return read };
        for pair in headers.try_iter().into_iter().flatten().map_while(Result::ok) {
            if let Ok(pair) = pair.cast::<PyTuple>() {
                // What servers and frameworks have them in.
                if let (Ok(name), Ok(value)) = (pair.get_borrowed_item(0), pair.get_borrowed_item(1)) {
                    read.add(&name, &value);
                }
            } else if let (Ok(name), Ok(value)) = (pair.get_item(0), pair.get_item(1)) {
                read.add(&name, &value);
            }
        }
        read
    }

    fn add(&mut self, name: &Bound<'py, PyAny>, value: &Bound<'py, PyAny>) {
        let (Ok(name), Ok(value)) = (name.cast::<PyBytes>(), value.cast::<PyBytes>()) else { return };
        if let Some(slot) = self.slot(name.as_bytes()) {
            *slot = Some(value.clone());
        }
    }

    fn slot(&mut self, name: &[u8]) -> Option<&mut Option<Bound<'py, PyBytes>>> {
        let slots = [
            (b"content-type".as_slice(), &mut self.content_type),
            (b"content-encoding", &mut self.content_encoding),
            (b"x-request-id", &mut self.request_id),
            (b"traceparent", &mut self.traceparent),
        ];
        slots.into_iter().find(|(wanted, _)| wanted.eq_ignore_ascii_case(name)).map(|(_, slot)| slot)
    }

    fn is_json(&self) -> bool {
        self.content_type.as_ref().is_some_and(|kind| is_json(kind.as_bytes()))
    }

    /// Empty where there is none.
    fn content_encoding(&self) -> &[u8] {
        self.content_encoding.as_ref().map_or(&[], |encoding| encoding.as_bytes())
    }
}

/// A value of a mapping, `None` where it has none.
fn get<'py>(mapping: &Bound<'py, PyAny>, key: &Bound<'py, PyString>) -> Option<Bound<'py, PyAny>> {
    match mapping.cast::<PyDict>() {
        Ok(dict) => dict.get_item(key).ok().flatten(),
        Err(_) => mapping.get_item(key).ok(),
    }
}

/// Headers are bytes that stand for characters.
fn latin_1<'py>(bytes: Option<&Bound<'py, PyBytes>>) -> Option<Bound<'py, PyAny>> {
    let bytes = bytes?;
    let text: String = bytes.as_bytes().iter().map(|byte| char::from(*byte)).collect();
    Some(PyString::new(bytes.py(), &text).into_any())
}
