//! A sink in memory, for tests: it keeps what it is given and fails when told to.

use super::{Kept, Maintained, Sink, SinkError, SinkErrorKind};
use crate::batch::Batch;
use crate::clock::Now;
use crate::record::Writer;
use crate::seqs::SeqRanges;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;

/// Keeps records in memory. Clones share what they keep, so a test keeps one and gives the other to the logger; a clone also stands for
/// the same backend after a restart.
#[derive(Clone, Debug, Default)]
pub struct MemorySink {
    shared: Arc<Mutex<Shared>>,
    uncommitted: Vec<Stored>,
    last_written: Option<u64>,
}

/// A record that a [`MemorySink`] has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Who wrote it.
    pub writer: Writer,
    /// Its place among that writer's records.
    pub seq: u64,
    /// Its line, with the `\n`.
    pub line: Vec<u8>,
}

#[derive(Debug, Default)]
struct Shared {
    records: Vec<Stored>,
    seqs: HashMap<Writer, SeqRanges>,
    failing: Option<SinkErrorKind>,
}

impl MemorySink {
    /// An empty one.
    pub fn new() -> Self {
        MemorySink::default()
    }

    /// What it owns, in the order of arrival.
    pub fn records(&self) -> Vec<Stored> {
        self.shared.lock().records.clone()
    }

    /// From now on each call fails with `kind`, or with `None`, none does.
    pub fn fail_with(&self, kind: Option<SinkErrorKind>) {
        self.shared.lock().failing = kind;
    }

    fn check(&self) -> Result<(), SinkError> {
        match self.shared.lock().failing {
            Some(kind) => Err(SinkError::new("memory", kind, "told to fail")),
            None => Ok(()),
        }
    }
}

impl Sink for MemorySink {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn write(&mut self, batch: &Batch<'_>) -> Result<(), SinkError> {
        self.uncommitted.clear();
        self.check()?;
        for chunk in &batch.chunks {
            let records = chunk.lines().map(|(seq, line)| Stored { writer: chunk.writer, seq, line: line.to_vec() });
            self.uncommitted.extend(records);
        }
        self.last_written = Some(batch.id);
        Ok(())
    }

    fn commit(&mut self) -> Result<Option<u64>, SinkError> {
        self.check().inspect_err(|_| self.uncommitted.clear())?;
        let mut shared = self.shared.lock();
        for record in self.uncommitted.drain(..) {
            let seqs = shared.seqs.entry(record.writer).or_default();
            if !seqs.contains(record.seq) {
                seqs.insert(record.seq, record.seq);
                shared.records.push(record);
            }
        }
        Ok(self.last_written)
    }

    fn kept(&mut self) -> Kept {
        Kept::new()
    }

    fn maintain(&mut self, _now: Now, _force: bool) -> Result<Maintained, SinkError> {
        Ok(Maintained::default())
    }

    fn probe(&mut self) -> Result<(), SinkError> {
        self.check()
    }

    fn spools(&self) -> bool {
        false
    }

    fn adopt(&mut self, segment: &std::path::Path) -> Result<(), SinkError> {
        Err(SinkError::new("memory", SinkErrorKind::Unavailable, format!("takes no segments; path={}", segment.display())))
    }

    fn close(&mut self, _now: Now) -> Result<Maintained, SinkError> {
        Ok(Maintained::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::conformance::{self, Harness};

    struct Memory(MemorySink);

    impl Harness for Memory {
        fn open(&mut self) -> Box<dyn Sink> {
            Box::new(MemorySink { shared: self.0.shared.clone(), ..MemorySink::default() })
        }

        fn stored(&mut self) -> Vec<conformance::Row> {
            self.0.records().iter().map(|record| conformance::Row::of_line(&record.line)).collect()
        }

        fn fail(&mut self, failing: bool) -> bool {
            self.0.fail_with(failing.then_some(SinkErrorKind::Unavailable));
            true
        }
    }

    #[test]
    fn keeps_the_contract() {
        conformance::run(|| Memory(MemorySink::new()));
    }
}
