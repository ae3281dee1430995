//! What became of a logger's records, over all the loggers that were opened for it one after another: a fork ends one, and the next record opens another.

use predlog::Report;
use predlog::stats::Snapshot;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use std::collections::BTreeMap;

#[derive(Clone, Default)]
pub(crate) struct Totals {
    pub accepted: u64,
    pub delivered: u64,
    pub on_disk: u64,
    pub dropped: BTreeMap<&'static str, u64>,
    pub problem: Option<String>,
    /// What a report has not.
    more: More,
}

#[derive(Clone, Default)]
struct More {
    recovered: u64,
    digested: u64,
    unstorable: u64,
    damaged: u64,
    queue_bytes: u64,
    spool_bytes: u64,
    sink_failures: u64,
    uploaded_files: u64,
    upload_failures: u64,
    upload_pending_files: u64,
}

impl Totals {
    /// Of one that is open.
    pub fn add_open(&mut self, now: &Snapshot, health: Result<(), String>) {
        self.found(now.recovered_delivered);
        self.accepted += now.accepted;
        self.delivered += now.delivered;
        self.on_disk += now.on_disk;
        self.drop(now.dropped.iter().copied());
        self.problem = health.err();
        self.more.add(now);
    }

    /// Of one that has ended, and was so last.
    pub fn add_ended(&mut self, report: Report, last: &Snapshot) {
        self.found(last.recovered_delivered);
        self.accepted += report.accepted;
        self.delivered += report.delivered;
        self.on_disk += report.on_disk;
        self.drop(report.dropped);
        self.problem = report.problem;
        self.more.add(last);
        // They wait for nobody any more.
        (self.more.queue_bytes, self.more.spool_bytes, self.more.upload_pending_files) = (0, 0, 0);
    }

    /// The next one has delivered what was found in the directory: at first what those before it have left there.
    fn found(&mut self, recovered: u64) {
        let left = self.on_disk.min(recovered);
        self.on_disk -= left;
        self.delivered += left;
    }

    pub fn drop(&mut self, dropped: impl IntoIterator<Item = (&'static str, u64)>) {
        for (reason, count) in dropped {
            *self.dropped.entry(reason).or_default() += count;
        }
    }

    pub fn to_python<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let counters = PyDict::new(py);
        counters.set_item("accepted", self.accepted)?;
        counters.set_item("delivered", self.delivered)?;
        counters.set_item("on_disk", self.on_disk)?;
        counters.set_item("dropped", &self.dropped)?;
        counters.set_item("problem", &self.problem)?;
        let more = &self.more;
        for (name, count) in [
            ("recovered", more.recovered),
            ("digested", more.digested),
            ("unstorable", more.unstorable),
            ("damaged", more.damaged),
            ("queue_bytes", more.queue_bytes),
            ("spool_bytes", more.spool_bytes),
            ("sink_failures", more.sink_failures),
            ("uploaded_files", more.uploaded_files),
            ("upload_failures", more.upload_failures),
            ("upload_pending_files", more.upload_pending_files),
        ] {
            counters.set_item(name, count)?;
        }
        Ok(counters)
    }
}

impl More {
    fn add(&mut self, now: &Snapshot) {
        self.recovered += now.recovered;
        self.digested += now.digested;
        self.unstorable += now.unstorable;
        self.damaged += now.damaged;
        self.queue_bytes += now.queue_bytes;
        self.spool_bytes += now.spool_bytes;
        self.sink_failures += now.sink_failures;
        self.uploaded_files += now.uploaded_files;
        self.upload_failures += now.upload_failures;
        self.upload_pending_files += now.upload_pending_files;
    }
}
