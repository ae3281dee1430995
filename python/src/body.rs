//! The bodies of requests and responses, as servers have them.

use crate::json::Json;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::PyBytes;

/// Larger bodies are not kept in memory to be logged.
pub(crate) const MAX_BYTES: usize = 1024 * 1024;

/// Whether a body of this content type is one that is logged.
pub(crate) fn is_json(content_type: &[u8]) -> bool {
    content_type.windows(4).any(|part| part.eq_ignore_ascii_case(b"json"))
}

/// A body as JSON, or as its text where it is none; `None` where there is nothing, or an `encoding` (HTTP's) that is not known.
pub(crate) fn as_json<'py>(py: Python<'py>, body: PyBackedBytes, encoding: &[u8]) -> PyResult<Option<Bound<'py, PyAny>>> {
    if body.is_empty() {
        return Ok(None);
    }
    if encoding.is_empty() || encoding == b"identity" {
        return Ok(Some(Bound::new(py, Json::from(body))?.into_any()));
    }
    let encoding: String = encoding.iter().map(|byte| char::from(*byte)).collect();
    let json = capture(py, "as_json")?.call1((PyBytes::new(py, &body), encoding))?;
    Ok((!json.is_none()).then_some(json))
}

/// A function of `predlog._capture`: what happens seldom is Python's.
pub(crate) fn capture<'py>(py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
    py.import("predlog._capture")?.getattr(name)
}
