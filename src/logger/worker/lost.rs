//! Records that a sink has owned, and that neither it nor its dead letters could keep.

use super::Worker;
use crate::batch::Chunk;
use crate::ledger::ADOPTED_LANE;
use crate::record::writer_of_line;
use crate::stats::DropReason;

/// How many of the records that the sink has owned are lost.
#[derive(Debug, Default)]
pub(super) struct Lost {
    pub(super) own: u64,
    /// Of dead processes, since their last frame was owned.
    pub(super) of_others: u64,
}

impl Worker {
    /// What the sink owns and could not keep after all was accepted: it is counted as dropped, and stated.
    pub(super) fn count_lost(&mut self) {
        let (lines, own) = (self.shared.stats.lost.take(), self.backlog.own());
        let mut rows = 0;
        for line in lines.split_inclusive(|&byte| byte == b'\n') {
            // Statements are in no count; one that is missing is seen by its number.
            let Some((writer, seq)) = writer_of_line(line).filter(|(writer, _)| writer.lane() < ADOPTED_LANE) else { continue };
            rows += 1;
            *(if writer.process() == own { &mut self.lost.own } else { &mut self.lost.of_others }) += 1;
            if let Some(ledger) = &mut self.ledger {
                ledger.count(&Chunk::from_lines(writer, 1, seq, seq, line), Some(DropReason::NoSpace));
            }
        }
        self.shared.stats.drop_records(DropReason::NoSpace, rows);
    }
}
