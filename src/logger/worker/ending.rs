//! The end of a worker: when it is reached, and where what could not be delivered stays.

use super::super::ledger::Ledger;
use super::super::{Durability, Report};
use super::{InFlight, What, Worker};
use crate::batch::{Batch, Origin};
use crate::clock::Now;
use crate::lane::Taken;
use crate::rotation::RotationSettings;
use crate::sink::Kept;
use crate::spool::Spool;
use crate::stats::DropReason;

impl Worker {
    pub(super) fn is_done(&self) -> bool {
        let empty = self.held.is_none() && self.in_flight.is_empty() && self.shared.lanes.pending().rows == 0;
        let spooled =
            self.spooled > 0 || !self.backlog.is_empty() || self.spool.as_ref().is_some_and(|spool| spool.open_rows() > 0);
        // Also what was adopted, which is nobody's pending.
        let sealing = self.maintained.pending_bytes > 0;
        empty && !spooled && !sealing && self.down.is_none() && self.has_stated()
    }

    /// The ledger's last word is kept.
    fn has_stated(&self) -> bool {
        self.ledger.as_ref().is_none_or(Ledger::has_ended)
    }

    /// The end: what could not be delivered stays where the next start finds it.
    pub(super) fn finish(mut self, now: Now) -> Report {
        if self.shared.settings.durability == Durability::Memory {
            self.spill_the_rest(now);
            self.state(now, true);
        }
        let accepted: u64 = self.shared.lanes.accepted().iter().sum();
        let in_lanes = accepted - self.left_lanes();
        self.leave_statement(now, in_lanes == 0);
        match self.sink.close(now) {
            Ok(maintained) => self.maintained = maintained,
            Err(error) => self.failed(error, now),
        }
        if let Some(spool) = &mut self.spool {
            spool.rotate(&RotationSettings::default(), now, true);
        }
        let mut on_disk = self.on_disk();
        if self.shared.settings.durability == Durability::Memory {
            self.shared.stats.drop_records(DropReason::Shutdown, in_lanes);
        } else {
            on_disk += in_lanes;
        }
        self.publish();
        let snapshot = self.shared.stats.snapshot();
        let problem =
            self.down.as_ref().map(ToString::to_string).or_else(|| (on_disk > 0).then(|| "the deadline passed first".to_owned()));
        if let Some(home) = self.home.take() {
            // Without a last statement the next start finds the lanes, and makes it.
            if in_lanes == 0
                && self.has_stated()
                && let Err(error) = std::fs::remove_file(home.lanes())
            {
                tracing::debug!(%error, "no lanes file to remove");
            }
            if let Err(error) = home.remove_if_empty() {
                tracing::warn!(%error, "cannot remove this process's empty directory; the next start does");
            }
        }
        Report {
            accepted,
            delivered: self.delivered(),
            on_disk,
            dropped: snapshot.dropped.into_iter().collect(),
            recovered: snapshot.recovered_delivered,
            problem,
            ..Report::default()
        }
    }

    /// What only this process knows, such as what it has dropped, is left in its spool where the sink has not taken it, however full that is, and whether
    /// or not records may go there. `last`: none are left in the lanes.
    fn leave_statement(&mut self, now: Now, last: bool) {
        let (Some(ledger), Some(home)) = (&mut self.ledger, &self.home) else { return };
        if ledger.has_ended() {
            return;
        }
        for batch in std::mem::take(&mut self.in_flight) {
            if let What::Statement(entries) = batch.what {
                ledger.give_back(entries);
            }
        }
        let opened = if self.spool.is_some() { Ok(self.spool.take()) } else { Spool::new(home.spool()).map(Some) };
        let lanes = &self.shared.lanes;
        let left = opened.and_then(|mut spool| {
            ledger.hurry(now);
            while let (Some(spool), Some(entries)) = (&mut spool, ledger.take(lanes, &self.shared.drops, now, last)) {
                let batch = Batch { id: self.batch_id + 1, origin: Origin::Live, chunks: vec![entries.chunk()] };
                spool.append(&batch, now, |_, _, _| true).and_then(|_| spool.sync())?;
                ledger.owned();
            }
            Ok(spool)
        });
        match left {
            Ok(spool) => self.spool = spool,
            Err(error) => tracing::error!(%error, "the ledger's last statement is lost: an audit will say that it is missing"),
        }
    }

    /// Accepted, and gone with the process.
    fn lose(&mut self, taken: Vec<Taken>) {
        for taken in taken {
            if let Some(ledger) = &mut self.ledger {
                ledger.count(&self.shared.lanes.chunk(&taken), Some(DropReason::Shutdown));
            }
            self.shared.lanes.release(taken);
        }
    }

    /// Lanes on the heap die now: the spool, if there is one, takes what is in them.
    fn spill_the_rest(&mut self, now: Now) {
        let live = |batch: InFlight| match batch.what {
            What::Live(taken) => taken,
            What::Replay(_) | What::Statement(_) => Vec::new(),
        };
        let in_flight = std::mem::take(&mut self.in_flight).into_iter().flat_map(live);
        let mut rest: Vec<Taken> = self.held.take().into_iter().flatten().chain(in_flight).collect();
        loop {
            if !rest.is_empty() {
                let taken = std::mem::take(&mut rest);
                match self.spill(&taken, &Kept::new(), now) {
                    Some(Ok(rows)) => {
                        self.spooled += rows;
                        self.release(taken);
                    }
                    Some(Err(_)) | None => self.lose(taken),
                }
            }
            rest = self.shared.lanes.take();
            if rest.is_empty() {
                return;
            }
        }
    }
}
