//! Sealed files that have been kept long enough.

use super::Worker;
use crate::outbox::Entry;
use crate::ship::expired::Expired;
use crate::ship::{Event, Retain};
use std::time::{Duration, Instant, SystemTime};

/// How often the sealed files are listed at most.
const RETAIN_EVERY: Duration = Duration::from_secs(1);

impl Worker {
    /// Deletes sealed files that are past their retention: with upload, of those that are proven stored; without, of all.
    pub(super) fn retain(&mut self) -> Result<(), String> {
        if self.retain == Retain::default() || self.retained.is_some_and(|at| at.elapsed() < RETAIN_EVERY) {
            return Ok(());
        }
        self.retained = Some(Instant::now());
        let sealed = self.outbox.sealed(false).map_err(|error| format!("cannot list predictions/: {error}"))?;
        let due = self.past_retention(&sealed);
        self.note_expired(&due)?;
        let (mut files, mut freed) = (0, 0);
        for entry in due {
            self.outbox.delete(&entry.relative).map_err(|error| format!("cannot delete path={}: {error}", entry.relative))?;
            self.outbox.done(&entry.relative).map_err(|error| format!("cannot clear path={}: {error}", entry.relative))?;
            freed += entry.bytes;
            files += 1;
        }
        if files > 0 {
            tracing::debug!(files, bytes = freed, "deleted local files past their retention");
            (self.observer)(Event::Deleted { files, bytes: freed });
        }
        Ok(())
    }

    fn past_retention<'a>(&self, sealed: &'a [Entry]) -> Vec<&'a Entry> {
        let uploads = self.settings.url.is_some();
        let mut bytes: u64 = sealed.iter().filter(|entry| !entry.relative.is_ledger()).map(|entry| entry.bytes).sum();
        let mut due = Vec::new();
        for entry in sealed {
            let age = SystemTime::now().duration_since(entry.modified).unwrap_or_default();
            let old = |most: Duration| age > most;
            let go = if entry.relative.is_ledger() {
                // Statements outlive the records that they are about.
                self.retain.age.is_some_and(|most| old(most.saturating_mul(2)))
            } else {
                self.retain.age.is_some_and(old) || self.retain.bytes.is_some_and(|most| bytes > most)
            };
            if go && !(uploads && self.outbox.is_pending(&entry.relative)) {
                bytes -= if entry.relative.is_ledger() { 0 } else { entry.bytes };
                due.push(entry);
            }
        }
        due
    }

    /// Before they are deleted: after a crash in between a file is noted and there, which an audit understands.
    fn note_expired(&self, due: &[&Entry]) -> Result<(), String> {
        if due.is_empty() {
            return Ok(());
        }
        let dir = self.outbox.root();
        let mut expired = Expired::load(dir).unwrap_or_else(|error| {
            tracing::warn!(%error, dir = %dir.display(), "expired.json is begun anew; an audit will miss what was deleted before");
            Expired::default()
        });
        for entry in due {
            if let Err(error) = expired.add(&self.outbox.path(&entry.relative), entry.relative.is_ledger()) {
                tracing::warn!(%error, path = %entry.relative, "a file past its retention cannot be read; an audit will miss its records");
            }
        }
        expired.save(dir).map_err(|error| format!("cannot write expired.json in dir={}: {error}", dir.display()))
    }
}
