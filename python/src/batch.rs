//! `log_batch()`: columns to records, on all cores, with no Python object for a cell and detached from Python.

use crate::columns::{Cell, Column};
use crate::fields::Fields;
use crate::frame::{Chunks, to_python};
use crate::logger::Logger;
use arrow_array::{Array, ArrayRef};
use arrow_schema::ArrowError;
use predlog::{DropReason, Invalid, Outcome};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

/// Rows that a thread takes at a time.
const PART_ROWS: usize = 8192;
/// More threads would only wait for the lanes.
const MAX_THREADS: usize = 8;

/// Rows that lie in one chunk of the inputs and in one of the outputs.
struct Part {
    inputs: ArrayRef,
    outputs: Option<ArrayRef>,
    first: usize,
}

/// Logs a record for each row, and returns how many were accepted.
///
/// # Errors
/// TypeError, when nothing was logged yet: inputs and outputs differ in length, or have a type without a JSON form.
pub(crate) fn log(
    py: Python<'_>,
    logger: &Logger,
    inputs: &Chunks,
    outputs: Option<&Chunks>,
    fields: &Fields<'_>,
    deadline: Instant,
) -> PyResult<u64> {
    for chunk in inputs.iter().chain(outputs.into_iter().flatten()) {
        // Types are the same in all rows.
        Column::new(&chunk.slice(0, 0)).map_err(to_python)?;
    }
    let rows = |chunks: &Chunks| chunks.iter().map(|chunk| chunk.len()).sum::<usize>();
    if let Some(outputs) = outputs.filter(|outputs| rows(outputs) != rows(inputs)) {
        let message = format!("outputs have {} rows, inputs {}: expected the same number", rows(outputs), rows(inputs));
        return Err(PyTypeError::new_err(message));
    }
    let parts = parts(inputs, outputs);
    // One more than cores: the logger's own has one's share meanwhile.
    let threads = std::thread::available_parallelism().map_or(1, |cores| cores.get() + 1).min(MAX_THREADS).min(parts.len());
    let (next, accepted) = (AtomicUsize::new(0), AtomicU64::new(0));
    let work = || {
        while let Some(part) = parts.get(next.fetch_add(1, Ordering::Relaxed)) {
            match log_part(logger, part, fields, deadline) {
                Ok(rows) => _ = accepted.fetch_add(rows, Ordering::Relaxed),
                // Others are logged, so that it is too late for another way.
                Err(_) => {
                    let (reason, rows) = (DropReason::Invalid(Invalid::Unserializable), part.inputs.len() as u64);
                    Python::attach(|py| logger.drop_rows(py, reason, rows));
                }
            }
        }
    };
    py.detach(|| {
        std::thread::scope(|scope| {
            for _ in 1..threads {
                // Where no thread can be had, this one does it all.
                _ = std::thread::Builder::new().spawn_scoped(scope, work);
            }
            work();
        });
    });
    Ok(accepted.into_inner())
}

fn parts(inputs: &Chunks, outputs: Option<&Chunks>) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut first = 0;
    let mut answers = outputs.into_iter().flatten().filter(|chunk| !chunk.is_empty());
    let (mut answer, mut used) = (answers.next(), 0);
    for chunk in inputs {
        let mut at = 0;
        while at < chunk.len() {
            let room = answer.map_or(PART_ROWS, |answer| answer.len() - used);
            let len = PART_ROWS.min(chunk.len() - at).min(room);
            let outputs = answer.map(|answer| answer.slice(used, len));
            parts.push(Part { inputs: chunk.slice(at, len), outputs, first });
            (at, first, used) = (at + len, first + len, used + len);
            if answer.is_some_and(|answer| answer.len() == used) {
                (answer, used) = (answers.next(), 0);
            }
        }
    }
    parts
}

fn log_part(logger: &Logger, part: &Part, fields: &Fields<'_>, deadline: Instant) -> Result<u64, ArrowError> {
    let inputs = Column::new(&part.inputs)?;
    let outputs = part.outputs.as_ref().map_or(Ok(Column::Null), Column::new)?;
    let metadata = fields.metadata();
    let mut accepted = 0;
    let mut open = None;
    for row in 0..part.inputs.len() {
        let (inputs, outputs) = (Cell { column: &inputs, row }, Cell { column: &outputs, row });
        let prediction = fields.prediction(&inputs, &outputs, &metadata).row_index((part.first + row) as u64);
        accepted += u64::from(matches!(logger.push_until(&mut open, prediction, deadline), Outcome::Accepted { .. }));
    }
    Ok(accepted)
}
