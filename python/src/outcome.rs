//! What `log()` answers.

use predlog::DropReason;
use pyo3::ffi;
use pyo3::prelude::*;
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

/// What became of a prediction: true when it was accepted.
#[pyclass(frozen, module = "predlog._native")]
pub(crate) struct Outcome {
    seq: AtomicU64,
    dropped: Option<DropReason>,
}

thread_local! {
    /// The last one of an accepted prediction. Hardly anybody keeps them, and then the next call gives the same object again.
    static LAST: Cell<Option<Py<Outcome>>> = const { Cell::new(None) };
}

impl Outcome {
    pub fn new(py: Python<'_>, outcome: predlog::Outcome) -> PyResult<Bound<'_, Self>> {
        match outcome {
            predlog::Outcome::Accepted { seq } => Self::accepted(py, seq),
            predlog::Outcome::Dropped(reason) => Bound::new(py, Outcome { seq: AtomicU64::new(0), dropped: Some(reason) }),
        }
    }

    #[inline]
    fn accepted(py: Python<'_>, seq: u64) -> PyResult<Bound<'_, Self>> {
        // A thread that ends has none any more.
        let kept = LAST.try_with(Cell::take).ok().flatten();
        let last = match kept {
            // SAFETY: it is a live object, and the thread is attached.
            Some(last) if unsafe { ffi::Py_REFCNT(last.as_ptr()) } == 1 => {
                // Nobody else has it, and so nobody sees it change.
                last.get().seq.store(seq, Ordering::Relaxed);
                last
            }
            _ => Py::new(py, Outcome { seq: AtomicU64::new(seq), dropped: None })?,
        };
        let outcome = last.bind(py).clone();
        _ = LAST.try_with(|kept| kept.set(Some(last)));
        Ok(outcome)
    }
}

#[pymethods]
impl Outcome {
    /// Its place among the records of its writer, from 0; None when it was dropped.
    #[getter]
    fn seq(&self) -> Option<u64> {
        self.dropped.is_none().then(|| self.seq.load(Ordering::Relaxed))
    }

    /// Why it was dropped; None when it was accepted.
    #[getter]
    fn reason(&self) -> Option<&'static str> {
        self.dropped.map(DropReason::name)
    }

    /// What was wrong with it, and what was expected, when the reason is `invalid`.
    #[getter]
    fn problem(&self) -> Option<String> {
        let Some(DropReason::Invalid(invalid)) = self.dropped else { return None };
        Some(invalid.to_string())
    }

    fn __bool__(&self) -> bool {
        self.dropped.is_none()
    }

    fn __repr__(&self) -> String {
        let Some(reason) = self.reason() else { return format!("Outcome(seq={})", self.seq.load(Ordering::Relaxed)) };
        let problem = self.problem().map(|problem| format!(", problem={problem:?}")).unwrap_or_default();
        format!("Outcome(reason={reason:?}{problem})")
    }
}
