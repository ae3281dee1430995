//! What the stores of a dead process's directory have already of a segment that it left.
//!
//! It died after its store had taken records, and before it knew that (SQLite), or before it removed what it had stored (Parquet). The same store leaves
//! them out by itself; another sink, after a change of the mode, would store them a second time.

use crate::record::Writer;
use crate::seqs::SeqRanges;
use crate::sink::SinkError;
#[cfg(feature = "parquet")]
use crate::sink::parquet::sealed_since;
#[cfg(feature = "sqlite")]
use crate::sink::sqlite::stored_of;
use crate::spool::{ClosedSegment, SpoolIndex};
use std::collections::{BTreeSet, HashMap};
use std::io;
use std::path::Path;

/// Of one segment, so of one model.
#[derive(Debug, Default)]
pub(super) struct Stored {
    /// By the raw JSON text of the model's name.
    sealed: SpoolIndex,
    model: Vec<u8>,
    rows: HashMap<Writer, SeqRanges>,
}

impl Stored {
    /// What is in the database of the directory `root`.
    pub(super) fn in_database(root: &Path, segment: &ClosedSegment) -> Result<Self, SinkError> {
        let mut rows = HashMap::<Writer, SeqRanges>::new();
        let runs = || segment.frames.iter().flat_map(|frame| &frame.runs);
        for process in runs().map(|run| run.writer.process()).collect::<BTreeSet<_>>() {
            rows.extend(stored_of(root, process)?);
        }
        if !runs().any(|run| rows.get(&run.writer).is_some_and(|seqs| seqs.intersects(run.first, run.last))) {
            rows.clear();
        }
        Ok(Stored { rows, ..Stored::default() })
    }

    /// With what is in sealed files that are not older than the segment.
    pub(super) fn and_sealed(mut self, root: &Path, segment: &ClosedSegment) -> io::Result<Self> {
        let since = std::fs::metadata(&segment.path)?.modified()?;
        self.sealed = sealed_since(root, &segment.model_name, since)?;
        crate::json::escape::write_escaped(&mut self.model, segment.model_name.as_bytes());
        Ok(self)
    }

    /// Nothing of the segment is stored.
    pub(super) fn is_empty(&self) -> bool {
        self.sealed.is_empty() && self.rows.is_empty()
    }

    pub(super) fn contains(&self, writer: Writer, seq: u64) -> bool {
        self.sealed.contains(&self.model, writer, seq) || self.rows.get(&writer).is_some_and(|seqs| seqs.contains(seq))
    }
}

/// A build without that store made none.
#[cfg(not(feature = "sqlite"))]
fn stored_of(_root: &Path, _process: uuid::Uuid) -> Result<HashMap<Writer, SeqRanges>, SinkError> {
    Ok(HashMap::new())
}

/// A build without that store made none.
#[cfg(not(feature = "parquet"))]
fn sealed_since(_root: &Path, _model_name: &str, _since: std::time::SystemTime) -> io::Result<SpoolIndex> {
    Ok(SpoolIndex::default())
}
