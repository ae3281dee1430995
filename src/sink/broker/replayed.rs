//! What brokers own of replays that failed: its frames come again, and go without it.

use crate::batch::{Batch, Origin};
use crate::sink::Kept;
use std::collections::VecDeque;

/// Remembered until the batch that left it out is owned, however often that fails before.
#[derive(Debug, Default)]
pub(crate) struct Replayed {
    /// It has not come again yet.
    waits: Kept,
    /// What batches on their way were given without, oldest first.
    left_out: VecDeque<(u64, Kept)>,
}

impl Replayed {
    /// What of the batch need not be sent. Live batches never failed before.
    pub(crate) fn leave_out(&mut self, batch: &Batch<'_>) -> Kept {
        let mut known = Kept::new();
        if batch.origin == Origin::Live || self.waits.is_empty() {
            return known;
        }
        for chunk in &batch.chunks {
            let Some(waits) = self.waits.get_mut(&chunk.writer) else { continue };
            let found = known.entry(chunk.writer).or_default();
            found.extend(chunk.lines().map(|(seq, _)| (seq, seq)).filter(|(seq, _)| waits.contains(*seq)));
            found.iter().for_each(|(first, last)| waits.remove(first, last));
        }
        known.retain(|_, seqs| !seqs.is_empty());
        self.waits.retain(|_, seqs| !seqs.is_empty());
        if !known.is_empty() {
            self.left_out.push_back((batch.id, known.clone()));
        }
        known
    }

    /// All batches through this one are owned.
    pub(crate) fn owned(&mut self, through: Option<u64>) {
        while self.left_out.front().is_some_and(|(batch, _)| Some(*batch) <= through) {
            self.left_out.pop_front();
        }
    }

    /// The batches on their way failed; `sent` is owned of them all the same.
    pub(crate) fn failed(&mut self, sent: Kept) {
        let all = self.left_out.drain(..).map(|(_, seqs)| seqs).chain([sent]);
        for (writer, seqs) in all.flatten() {
            self.waits.entry(writer).or_default().extend(seqs.iter());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::Chunk;
    use crate::record::Writer;
    use uuid::Uuid;

    fn writer() -> Writer {
        Writer::new(Uuid::from_u128(1), 0)
    }

    fn kept(seqs: impl IntoIterator<Item = u64>) -> Kept {
        let mut kept = Kept::new();
        kept.entry(writer()).or_default().extend(seqs.into_iter().map(|seq| (seq, seq)));
        kept
    }

    /// What of a batch of these seqs is left out.
    fn give(replayed: &mut Replayed, id: u64, origin: Origin, seqs: &[u64]) -> Vec<u64> {
        let lines: String = seqs.iter().map(|seq| format!("{{\"writer\":\"{}\",\"seq\":{seq}}}\n", writer())).collect();
        let chunk = Chunk::from_lines(writer(), seqs.len() as u64, seqs[0], seqs[seqs.len() - 1], lines.as_bytes());
        let known = replayed.leave_out(&Batch { id, origin, chunks: vec![chunk] });
        known.values().flat_map(|seqs| seqs.iter()).flat_map(|(first, last)| first..=last).collect()
    }

    #[test]
    fn what_is_owned_is_left_out_until_its_batch_is_owned_however_often_that_fails() {
        let mut replayed = Replayed::default();
        assert_eq!(give(&mut replayed, 1, Origin::Replay, &[0, 2, 4]), [0; 0]);
        assert_eq!(give(&mut replayed, 2, Origin::Replay, &[1, 3, 5]), [0; 0]);
        replayed.failed(kept([0, 3, 4]));
        // The first fails again before the second comes, with one more of it.
        assert_eq!(give(&mut replayed, 3, Origin::Replay, &[0, 2, 4]), [0, 4]);
        replayed.failed(kept([2]));
        assert_eq!(give(&mut replayed, 4, Origin::Live, &[0, 2, 4]), [0; 0]);
        assert_eq!(give(&mut replayed, 5, Origin::Replay, &[0, 2, 4]), [0, 2, 4]);
        assert_eq!(give(&mut replayed, 6, Origin::Replay, &[1, 3, 5]), [3]);
        // One of the two is owned when the other fails.
        replayed.owned(Some(5));
        replayed.failed(kept([1]));
        assert_eq!(replayed.waits, kept([1, 3]));
        assert_eq!(give(&mut replayed, 7, Origin::Replay, &[1, 3, 5]), [1, 3]);
        replayed.owned(Some(7));
        assert!(replayed.waits.is_empty() && replayed.left_out.is_empty(), "{replayed:?}");
    }
}
