//! JSON that is encoded already, such as the body of a request: no Python object is made of its values.

use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::PyBytes;
use serde_json::value::RawValue;

/// JSON text, kept to the letter but for the white space between its tokens. What is no JSON is made plain by `predlog._convert`.
#[pyclass(frozen, module = "predlog._native")]
pub(crate) struct Json {
    body: PyBackedBytes,
}

#[pymethods]
impl Json {
    #[new]
    fn new(body: PyBackedBytes) -> Self {
        Json { body }
    }

    fn __bytes__<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.body)
    }

    fn __repr__(&self) -> String {
        format!("Json(<{} bytes>)", self.body.len())
    }
}

impl From<PyBackedBytes> for Json {
    fn from(body: PyBackedBytes) -> Self {
        Json { body }
    }
}

impl Json {
    /// The one value, if that is what the text is.
    pub fn value(&self) -> Option<&RawValue> {
        serde_json::from_slice(&self.body).ok()
    }
}
