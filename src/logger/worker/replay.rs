//! What waits in segments goes to the sink, while what is new leaves room for it.

use super::super::backlog::Next;
use super::{InFlight, What, Worker};
use crate::clock::Now;
use crate::rotation::RotationSettings;
use crate::sink::SinkError;
use std::time::Instant;

/// Frames of the backlog that may be on their way at one time, for a sink that answers later.
const REPLAY_WINDOW: usize = 4;

impl Worker {
    /// Gives the sink a part of what waits in segments. `true` when there is more.
    pub(super) fn replay(&mut self, now: Now) -> bool {
        if self.down.is_some() {
            return false;
        }
        if let Some(spool) = &mut self.spool
            && self.backlog.is_empty()
            && spool.open_rows() > 0
            && self.shared.lanes.used_bytes() < self.shared.lanes.capacity() / 4
        {
            let closed = spool.rotate(&RotationSettings::default(), now, true);
            closed.into_iter().for_each(|(segment, _)| self.backlog.add(segment));
        }
        let replaying = self.in_flight.iter().filter(|batch| matches!(batch.what, What::Replay(_))).count();
        let live_waits = self.shared.lanes.used_bytes() > self.shared.lanes.capacity() / 8;
        if replaying >= REPLAY_WINDOW || !self.pace.allows(now.monotonic, live_waits) {
            return false;
        }
        match self.replay_next(now) {
            Ok(worked) => worked,
            Err(error) => {
                self.failed(error, now);
                false
            }
        }
    }

    fn replay_next(&mut self, now: Now) -> Result<bool, SinkError> {
        let frame = match self.backlog.next(&mut *self.sink, &self.shared.stats)? {
            Next::Idle => return Ok(false),
            Next::Moved => return Ok(true),
            Next::Frame(frame) => frame,
        };
        self.batch_id += 1;
        let batch = self.backlog.batch(self.batch_id);
        if let Err(error) = self.sink.write(&batch) {
            self.backlog.rewind();
            return Err(error);
        }
        self.pace.replayed(frame.bytes);
        self.in_flight.push_back(InFlight { id: self.batch_id, what: What::Replay(frame), since: Instant::now() });
        self.poll_commits(now);
        Ok(true)
    }

    /// A sink that is down, and has no batch to try it with, is asked whether it takes records again.
    pub(super) fn probe(&mut self, now: Now) -> bool {
        let has_batch = self.held.is_some() && self.spool.is_none();
        if self.down.is_none() || now.monotonic < self.retry_at || has_batch {
            return false;
        }
        match self.sink.probe() {
            Ok(()) => {
                self.recovered(now);
                true
            }
            Err(error) => {
                self.failed(error, now);
                false
            }
        }
    }
}
