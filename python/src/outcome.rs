//! What `log()` answers.

use predlog::{DropReason, Invalid};
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
    invalid: Option<Invalid>,
}

#[pymethods]
impl Outcome {
    /// What was wrong with it, and what was expected, when the reason is `invalid`.
    #[getter]
    fn problem(&self) -> Option<String> {
        self.invalid.map(|invalid| invalid.to_string())
    }

    fn __bool__(&self) -> bool {
        self.reason.is_none()
    }

    fn __repr__(&self) -> String {
        match (self.seq, self.reason) {
            (Some(seq), _) => format!("Outcome(seq={seq})"),
            (None, reason) => {
                let problem = self.problem().map(|problem| format!(", problem={problem:?}")).unwrap_or_default();
                format!("Outcome(reason={:?}{problem})", reason.unwrap_or_default())
            }
        }
    }
}

impl From<predlog::Outcome> for Outcome {
    fn from(outcome: predlog::Outcome) -> Self {
        match outcome {
            predlog::Outcome::Accepted { seq } => Outcome { seq: Some(seq), reason: None, invalid: None },
            predlog::Outcome::Dropped(reason) => {
                let invalid = if let DropReason::Invalid(invalid) = reason { Some(invalid) } else { None };
                Outcome { seq: None, reason: Some(reason.name()), invalid }
            }
        }
    }
}
