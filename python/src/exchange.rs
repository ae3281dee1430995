//! One HTTP request and its response, as an ASGI server passes them: what `predlog/asgi.py` would do in Python for each of their messages, at a
//! part of its time.

use crate::fields::{Given, Named};
use crate::json::Json;
use crate::logger::Logger;
use parking_lot::Mutex;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyBytes, PyDict, PyFloat, PyInt, PyString, PyTuple};
use std::time::{Duration, Instant};

/// Larger bodies are not kept in memory to be logged.
const MAX_BODY_BYTES: usize = 1024 * 1024;

/// Messages are looked at, and never changed. What is no message of ASGI's is left alone.
#[pyclass(frozen, module = "predlog._native")]
pub(crate) struct Exchange {
    start: Instant,
    /// Never locked while Python code may run.
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    request: Body,
    response: Body,
    response_headers: Headers,
    status: Option<u16>,
    latency: Option<Duration>,
    logged: bool,
}

/// A body in the parts that it came in.
#[derive(Default)]
struct Body {
    parts: Vec<PyBackedBytes>,
    size: usize,
}

/// Those that are looked at.
#[derive(Default)]
struct Headers {
    content_type: Option<Vec<u8>>,
    content_encoding: Option<Vec<u8>>,
    request_id: Option<Vec<u8>>,
    traceparent: Option<Vec<u8>>,
}

#[pymethods]
impl Exchange {
    #[new]
    fn new() -> Self {
        Exchange { start: Instant::now(), seen: Mutex::default() }
    }

    /// A message that the application has received.
    fn received(&self, message: &Bound<'_, PyAny>) {
        if is_type(message, "http.request")
            && let Some(part) = part(message)
        {
            self.seen.lock().request.add(part);
        }
    }

    /// A message that it sends. True when the request can be logged once it is sent: an exception is not to be expected any more.
    fn sent(&self, message: &Bound<'_, PyAny>) -> bool {
        if is_type(message, "http.response.body") {
            let more = get(message, intern!(message.py(), "more_body")).is_some_and(|more| more.is_truthy().unwrap_or(true));
            let part = part(message);
            let mut seen = self.seen.lock();
            if let Some(part) = part.filter(|_| seen.response_headers.is_json()) {
                seen.response.add(part);
            }
            if more {
                return false;
            }
            seen.latency.get_or_insert_with(|| self.start.elapsed());
            return seen.status.is_some_and(|status| status < 500);
        }
        if is_type(message, "http.response.start") {
            let py = message.py();
            let status = get(message, intern!(py, "status")).and_then(|status| status.extract().ok());
            let headers = get(message, intern!(py, "headers")).map(|headers| Headers::read(&headers)).unwrap_or_default();
            let mut seen = self.seen.lock();
            (seen.status, seen.response_headers) = (status, headers);
        }
        false
    }

    /// Logs the exchange, if it is not logged yet. `error` is the text of an exception that the application has raised.
    #[pyo3(signature = (logger, model_name, model_version, route, scope, error=None))]
    #[expect(clippy::too_many_arguments, reason = "one call of Python's")]
    fn log<'py>(
        &self,
        py: Python<'py>,
        logger: &Bound<'py, Logger>,
        model_name: &Bound<'py, PyAny>,
        model_version: Option<&Bound<'py, PyAny>>,
        route: &str,
        scope: &Bound<'py, PyAny>,
        error: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<()> {
        let mut seen = {
            let mut seen = self.seen.lock();
            if seen.logged {
                return Ok(());
            }
            std::mem::replace(&mut *seen, Seen { logged: true, ..Seen::default() })
        };
        if Seen::is_of_another(scope, route) {
            return Ok(());
        }
        let headers = get(scope, intern!(py, "headers")).map(|headers| Headers::read(&headers)).unwrap_or_default();
        let inputs = seen.inputs(py, &headers, scope)?;
        let outputs = seen.response.take(py, seen.response_headers.content_encoding.as_deref())?;
        let status = seen.status.or(error.is_some().then_some(500)).map(|status| PyInt::new(py, status).into_any());
        let latency = seen.latency.unwrap_or_else(|| self.start.elapsed());
        let latency = PyFloat::new(py, latency.as_secs_f64() * 1e3).into_any();
        let request_id = headers.request_id.as_deref().map(|value| latin_1(py, value));
        let traceparent = headers.traceparent.as_deref().map(|value| latin_1(py, value));
        let named = Named {
            model_version,
            status_code: status.as_ref(),
            error,
            latency_ms: Some(&latency),
            request_id: request_id.as_ref(),
            traceparent: traceparent.as_ref(),
            ..Named::default()
        };
        let none = py.None().into_bound(py);
        let inputs = inputs.as_ref().unwrap_or(&none);
        logger.get().log(py, inputs, outputs.as_ref(), &Given { model_name, named, others: None }).map(|_| ())
    }
}

impl Seen {
    /// Of two routes that fit a path, the application knows which one it took.
    fn is_of_another(scope: &Bound<'_, PyAny>, route: &str) -> bool {
        let py = scope.py();
        let taken = get(scope, intern!(py, "route")).and_then(|route| route.getattr(intern!(py, "path")).ok());
        let taken = taken.as_ref().and_then(|path| path.cast::<PyString>().ok()?.to_str().ok());
        taken.is_some_and(|path| path != route && differ(route, path))
    }

    /// The JSON body, or else the query.
    fn inputs<'py>(
        &mut self,
        py: Python<'py>,
        headers: &Headers,
        scope: &Bound<'py, PyAny>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        if headers.content_type.is_none() || headers.is_json() {
            if self.request.size > MAX_BODY_BYTES {
                return Ok(None);
            }
            if let Some(body) = self.request.take(py, headers.content_encoding.as_deref())? {
                return Ok(Some(body));
            }
        }
        match get(scope, intern!(py, "query_string")) {
            Some(query) if query.is_truthy()? => Ok(Some(capture(py, "query")?.call1((query,))?)),
            _ => Ok(None),
        }
    }
}

impl Body {
    fn add(&mut self, part: PyBackedBytes) {
        self.size += part.len();
        if self.size > MAX_BODY_BYTES {
            self.parts = Vec::new();
        } else if !part.is_empty() {
            self.parts.push(part);
        }
    }

    /// What was kept, as JSON.
    fn take<'py>(&mut self, py: Python<'py>, encoding: Option<&[u8]>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let mut parts = std::mem::take(&mut self.parts);
        let body = match parts.len() {
            0 => return Ok(None),
            1 => parts.remove(0),
            _ => PyBackedBytes::from(PyBytes::new(py, &parts.iter().map(|part| &**part).collect::<Vec<_>>().concat())),
        };
        match encoding {
            None | Some(b"identity") => Ok(Some(Bound::new(py, Json::from(body))?.into_any())),
            Some(encoding) => {
                let json = capture(py, "as_json")?.call1((PyBytes::new(py, &body), latin_1(py, encoding)))?;
                Ok((!json.is_none()).then_some(json))
            }
        }
    }
}

impl Headers {
    /// From pairs of bytes.
    fn read(headers: &Bound<'_, PyAny>) -> Self {
        let mut read = Headers::default();
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

    fn add(&mut self, name: &Bound<'_, PyAny>, value: &Bound<'_, PyAny>) {
        let (Ok(name), Ok(value)) = (name.cast::<PyBytes>(), value.cast::<PyBytes>()) else { return };
        if let Some(slot) = self.slot(name.as_bytes()) {
            *slot = Some(value.as_bytes().to_vec());
        }
    }

    fn slot(&mut self, name: &[u8]) -> Option<&mut Option<Vec<u8>>> {
        let slots = [
            (b"content-type".as_slice(), &mut self.content_type),
            (b"content-encoding", &mut self.content_encoding),
            (b"x-request-id", &mut self.request_id),
            (b"traceparent", &mut self.traceparent),
        ];
        slots.into_iter().find(|(wanted, _)| wanted.eq_ignore_ascii_case(name)).map(|(_, slot)| slot)
    }

    fn is_json(&self) -> bool {
        self.content_type.as_deref().is_some_and(|kind| kind.to_ascii_lowercase().windows(4).any(|part| part == b"json"))
    }
}

/// Whether `taken`, a route of the application that fits the path which was asked for, stands for less than `route`, which fits it too: it has a text where
/// `route` has a parameter. How parameters are called and converted is each one's own. Behind a mount `taken` lacks what stands before it.
fn differ(route: &str, taken: &str) -> bool {
    let is_parameter = |part: &str| part.contains('{');
    for (wanted, found) in route.rsplit('/').zip(taken.trim_start_matches('/').rsplit('/')) {
        if is_parameter(wanted) && !is_parameter(found) {
            return true;
        }
        if wanted.ends_with(":path}") || found.ends_with(":path}") {
            // It stands for any number of parts: those before it have no counterparts.
            return false;
        }
    }
    false
}

/// The bytes of a message.
fn part(message: &Bound<'_, PyAny>) -> Option<PyBackedBytes> {
    let py = message.py();
    let part = get(message, intern!(py, "body"))?;
    if let Ok(part) = part.extract() {
        return Some(part);
    }
    py.get_type::<PyBytes>().call1((part,)).ok()?.extract().ok()
}

fn is_type(message: &Bound<'_, PyAny>, kind: &str) -> bool {
    get(message, intern!(message.py(), "type"))
        .is_some_and(|found| found.cast::<PyString>().is_ok_and(|found| found.to_str().is_ok_and(|found| found == kind)))
}

/// A value of a mapping, `None` where it has none.
fn get<'py>(mapping: &Bound<'py, PyAny>, key: &Bound<'py, PyString>) -> Option<Bound<'py, PyAny>> {
    match mapping.cast::<PyDict>() {
        Ok(dict) => dict.get_item(key).ok().flatten(),
        Err(_) => mapping.get_item(key).ok(),
    }
}

/// Headers are bytes that stand for characters.
fn latin_1<'py>(py: Python<'py>, bytes: &[u8]) -> Bound<'py, PyAny> {
    let text: String = bytes.iter().map(|byte| char::from(*byte)).collect();
    PyString::new(py, &text).into_any()
}

/// What happens seldom is Python's.
fn capture<'py>(py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
    py.import("predlog._capture")?.getattr(name)
}
