//! What `log()` answers.

use pyo3::prelude::*;

/// What became of a prediction: true when it was accepted.
#[pyclass(frozen, module = "predlog._native")]
#[derive(Clone, Copy)]
pub(crate) struct Outcome {
    /// Its place among the records of its writer, from 0; None when it was dropped.
    #[pyo3(get)]
    seq: Option<u64>,
    /// Why it was dropped; None when it was accepted.
    #[pyo3(get)]
    reason: Option<&'static str>,
}

#[pymethods]
impl Outcome {
    fn __bool__(&self) -> bool {
        self.reason.is_none()
    }

    fn __repr__(&self) -> String {
        match (self.seq, self.reason) {
            (Some(seq), _) => format!("Outcome(seq={seq})"),
            (None, reason) => format!("Outcome(reason={:?})", reason.unwrap_or_default()),
        }
    }
}

impl From<predlog::Outcome> for Outcome {
    fn from(outcome: predlog::Outcome) -> Self {
        match outcome {
            predlog::Outcome::Accepted { seq } => Outcome { seq: Some(seq), reason: None },
            predlog::Outcome::Dropped(reason) => Outcome { seq: None, reason: Some(reason.name()) },
        }
    }
}
