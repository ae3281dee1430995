//! A sink that keeps nothing: to measure what is before it.

use super::{Kept, Maintained, Sink, SinkError, SinkErrorKind};
use crate::batch::Batch;
use crate::clock::Now;

/// Owns at once what it is given, and forgets it.
#[derive(Clone, Copy, Debug, Default)]
pub struct DiscardSink {
    last_written: Option<u64>,
}

impl Sink for DiscardSink {
    fn name(&self) -> &'static str {
        "discard"
    }

    fn write(&mut self, batch: &Batch<'_>) -> Result<(), SinkError> {
        self.last_written = Some(batch.id);
        Ok(())
    }

    fn commit(&mut self) -> Result<Option<u64>, SinkError> {
        Ok(self.last_written)
    }

    fn kept(&mut self) -> Kept {
        Kept::new()
    }

    fn maintain(&mut self, _now: Now, _force: bool) -> Result<Maintained, SinkError> {
        Ok(Maintained::default())
    }

    fn probe(&mut self) -> Result<(), SinkError> {
        Ok(())
    }

    fn spools(&self) -> bool {
        false
    }

    fn adopt(&mut self, segment: &std::path::Path) -> Result<(), SinkError> {
        Err(SinkError::new("discard", SinkErrorKind::Unavailable, format!("takes no segments; path={}", segment.display())))
    }

    fn close(&mut self, _now: Now) -> Result<Maintained, SinkError> {
        Ok(Maintained::default())
    }
}
