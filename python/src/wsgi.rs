//! One HTTP request and its response, as werkzeug has them, on which Flask is built. What is looked at are their attributes: their properties parse what is only
//! read here, and a header that is not there is an exception, raised and caught. In Python that is a few dozen microseconds of each request.

use crate::body::{MAX_BYTES, as_json, capture, is_json};
use crate::fields::{Given, Named};
use crate::logger::Logger;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyBytes, PyDict, PyList, PyString, PyTuple};

/// Logs `request`, and `response` where there is one: JSON in, JSON out, status. Without a response its status is `status_code`. `error` is the text of an
/// exception.
#[pyfunction]
#[pyo3(signature = (logger, model_name, model_version, request, response, *, status_code=None, error=None, latency_ms=None))]
#[expect(clippy::too_many_arguments, reason = "one call of Python's")]
pub(crate) fn log_wsgi<'py>(
    py: Python<'py>,
    logger: &Bound<'py, Logger>,
    model_name: &Bound<'py, PyAny>,
    model_version: Option<&Bound<'py, PyAny>>,
    request: &Bound<'py, PyAny>,
    response: Option<&Bound<'py, PyAny>>,
    status_code: Option<Bound<'py, PyAny>>,
    error: Option<&Bound<'py, PyAny>>,
    latency_ms: Option<&Bound<'py, PyAny>>,
) -> PyResult<()> {
    let environ = request.getattr(intern!(py, "environ"))?.cast_into::<PyDict>()?;
    let inputs = inputs(request, &environ)?.unwrap_or_else(|| py.None().into_bound(py));
    let (outputs, status_code) = match response {
        Some(response) => (outputs(response)?, Some(response.getattr(intern!(py, "status_code"))?)),
        None => (None, status_code),
    };
    let (request_id, traceparent) =
        (environ.get_item(intern!(py, "HTTP_X_REQUEST_ID"))?, environ.get_item(intern!(py, "HTTP_TRACEPARENT"))?);
    let named = Named {
        model_version,
        status_code: status_code.as_ref(),
        error,
        latency_ms,
        request_id: request_id.as_ref(),
        traceparent: traceparent.as_ref(),
        ..Named::default()
    };
    logger.get().log(py, &inputs, outputs.as_ref(), &Given { model_name, named, others: None }).map(|_| ())
}

/// The JSON body, or else the query.
fn inputs<'py>(request: &Bound<'py, PyAny>, environ: &Bound<'py, PyDict>) -> PyResult<Option<Bound<'py, PyAny>>> {
    let py = request.py();
    let content_type = environ.get_item(intern!(py, "CONTENT_TYPE"))?;
    let content_type = text(content_type.as_ref());
    if content_type.is_empty() || is_json(content_type) {
        let length = environ.get_item(intern!(py, "CONTENT_LENGTH"))?;
        let length = str::from_utf8(text(length.as_ref())).ok().and_then(|length| length.parse::<usize>().ok());
        if length.is_some_and(|length| length > MAX_BYTES) {
            return Ok(None);
        }
        // Where the view has read it, werkzeug keeps it.
        let attributes = request.getattr(intern!(py, "__dict__"))?.cast_into::<PyDict>()?;
        let is_there = length.is_some_and(|length| length > 0) || environ.contains(intern!(py, "HTTP_TRANSFER_ENCODING"))?;
        let body = match attributes.get_item(intern!(py, "_cached_data"))? {
            Some(body) => body,
            None if is_there => capture(py, "unread")?.call1((request,))?,
            None => py.None().into_bound(py),
        };
        if !body.is_none() {
            let body: PyBackedBytes = body.extract()?;
            // A shorter one is what was left when the view had read of it.
            if body.len() > MAX_BYTES || length.is_some_and(|length| body.len() < length) {
                return Ok(None);
            }
            // Who does not say what it is may send anything.
            let is_json = !content_type.is_empty() || matches!(body.trim_ascii_start().first(), Some(b'{' | b'['));
            if !body.is_empty() && is_json {
                let encoding = environ.get_item(intern!(py, "HTTP_CONTENT_ENCODING"))?;
                return as_json(py, body, text(encoding.as_ref()));
            }
        }
    }
    if text(environ.get_item(intern!(py, "QUERY_STRING"))?.as_ref()).is_empty() {
        return Ok(None);
    }
    let lists = request.getattr(intern!(py, "args"))?.call_method0(intern!(py, "lists"))?;
    capture(py, "parameters")?.call1((lists,)).map(Some)
}

/// The JSON body, where it is there already: a stream is not read, it is the client's.
fn outputs<'py>(response: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
    let py = response.py();
    let (mut content_type, mut encoding) = (None, None);
    for header in response.getattr(intern!(py, "headers"))?.try_iter()? {
        let header = header?.cast_into::<PyTuple>()?;
        let (name, value) = (header.get_item(0)?, header.get_item(1)?);
        let found = text(Some(&name));
        if found.eq_ignore_ascii_case(b"content-type") {
            content_type = Some(value);
        } else if found.eq_ignore_ascii_case(b"content-encoding") {
            encoding = Some(value);
        }
    }
    if !is_json(text(content_type.as_ref())) || response.getattr(intern!(py, "direct_passthrough"))?.is_truthy()? {
        return Ok(None);
    }
    let parts = response.getattr(intern!(py, "response"))?;
    let body = match whole(&parts) {
        Some(body) => body,
        None if parts.is_instance_of::<PyList>() || parts.is_instance_of::<PyTuple>() => {
            response.call_method0(intern!(py, "get_data"))?.extract()?
        }
        // Of others `get_data()` makes a list, and so another response.
        None => return Ok(None),
    };
    if body.len() > MAX_BYTES { Ok(None) } else { as_json(py, body, text(encoding.as_ref())) }
}

/// A body in one part, as views' answers have it.
fn whole(parts: &Bound<'_, PyAny>) -> Option<PyBackedBytes> {
    let parts = parts.cast_exact::<PyList>().ok().filter(|parts| parts.len() == 1)?;
    Some(parts.get_item(0).ok()?.cast_into_exact::<PyBytes>().ok()?.into())
}

/// Empty where it is none.
fn text<'a>(value: Option<&'a Bound<'_, PyAny>>) -> &'a [u8] {
    let text = value.and_then(|value| value.cast::<PyString>().ok()?.to_str().ok());
    text.unwrap_or_default().as_bytes()
}
