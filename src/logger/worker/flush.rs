//! Flushes that somebody waits for.

use super::Worker;

/// A flush that is under way.
pub(super) struct Flush {
    ticket: u64,
    /// Accepted records when it was asked for: until so many have left the lanes, batches do not wait to be due.
    accepted: u64,
    /// With a sink that has intermediate files: they are closed when `finished` reaches this.
    pub finished: Option<u64>,
}

impl Worker {
    pub(super) fn start_flush(&mut self, asked: Option<u64>) {
        if let Some(ticket) = asked
            && self.flush.as_ref().is_none_or(|flush| flush.ticket < ticket)
        {
            let accepted = self.shared.lanes.accepted().iter().sum();
            self.flush = Some(Flush { ticket, accepted, finished: None });
        }
    }

    pub(super) fn left_lanes(&self) -> u64 {
        self.owned + self.spooled
    }

    /// All that the flush is for has left the lanes and the spool, and the sink has not been asked to close its files yet.
    pub(super) fn closing_flush(&self) -> bool {
        self.flush
            .as_ref()
            .is_some_and(|flush| flush.finished.is_none() && self.left_lanes() >= flush.accepted && self.spooled == 0)
    }

    pub(super) fn end_flush(&mut self) {
        if let Some(flush) = &self.flush
            && flush.finished.is_some_and(|finished| self.maintained.finished >= finished)
        {
            self.shared.control.flushed(flush.ticket);
            self.flush = None;
        }
    }
}
