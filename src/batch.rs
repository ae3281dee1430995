//! Batches of encoded records, and when one is due.

use crate::clock::Now;
use crate::record::{Writer, seq_of_line};
use bytesize::ByteSize;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// When what waits in the lanes is handed to the sink: at whichever limit is reached first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BatchSettings {
    /// At this many records.
    pub max_rows: u64,
    /// At this many bytes of encoded records.
    pub max_bytes: ByteSize,
    /// When the oldest record has waited this long.
    #[serde(with = "humantime_serde")]
    pub max_age: Duration,
}

impl Default for BatchSettings {
    fn default() -> Self {
        BatchSettings { max_rows: 20_000, max_bytes: ByteSize::mib(4), max_age: Duration::from_millis(200) }
    }
}

/// Says when a batch is due. Pure: it holds limits and counts, never data, and time is an argument.
#[derive(Clone, Debug)]
pub struct Batcher {
    settings: BatchSettings,
    first_seen: Option<Duration>,
    last_reason: Option<BatchReason>,
}

/// Which limit made a batch due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchReason {
    /// `batch.max_rows`.
    Rows,
    /// `batch.max_bytes`.
    Bytes,
    /// `batch.max_age`.
    Age,
}

impl Batcher {
    /// A batcher with nothing waiting.
    pub fn new(settings: BatchSettings) -> Self {
        Batcher { settings, first_seen: None, last_reason: None }
    }

    /// Looks at what waits (`rows`, `bytes`) and says whether it is due. The age starts when rows are first seen waiting.
    pub fn due(&mut self, rows: u64, bytes: u64, now: Now) -> Option<BatchReason> {
        if rows == 0 {
            self.first_seen = None;
            return None;
        }
        let first_seen = *self.first_seen.get_or_insert(now.monotonic);
        let reason = if rows >= self.settings.max_rows {
            Some(BatchReason::Rows)
        } else if bytes >= self.settings.max_bytes.as_u64() {
            Some(BatchReason::Bytes)
        } else if now.monotonic.saturating_sub(first_seen) >= self.settings.max_age {
            Some(BatchReason::Age)
        } else {
            None
        };
        self.last_reason = reason.or(self.last_reason);
        reason
    }

    /// How long nothing need be looked at, when rows come as they did lately: until the age is reached where the last batch was due by its age.
    /// `None` when a batch may fill up at any moment.
    pub fn rest(&self, now: Now) -> Option<Duration> {
        let waited = self.first_seen.map_or(Duration::ZERO, |first_seen| now.monotonic.saturating_sub(first_seen));
        (self.last_reason == Some(BatchReason::Age)).then(|| self.settings.max_age.saturating_sub(waited))
    }

    /// A batch was taken: the next row that waits starts a new age.
    pub fn taken(&mut self) {
        self.first_seen = None;
    }
}

/// Where a batch's records come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// This process's lanes.
    Live,
    /// The spool: records that a sink could not take before, or that a dead process left. The sink may have some of them.
    Replay,
}

/// Records on their way to a sink, borrowed from the lanes or from a spool frame.
#[derive(Debug)]
pub struct Batch<'a> {
    /// Grows by one with each batch of a process; [`crate::sink::Sink::commit`] answers with it.
    pub id: u64,
    /// Where the records come from.
    pub origin: Origin,
    /// The records, a chunk for each run of one writer, in the order of that writer's `seq`.
    pub chunks: Vec<Chunk<'a>>,
}

impl Batch<'_> {
    /// The number of records.
    pub fn rows(&self) -> u64 {
        self.chunks.iter().map(|chunk| chunk.rows).sum()
    }

    /// The bytes of the records' lines.
    pub fn bytes(&self) -> u64 {
        self.chunks.iter().map(|chunk| chunk.data.len() as u64).sum()
    }
}

/// A run of one writer's records, `seq` rising.
#[derive(Clone, Copy, Debug)]
pub struct Chunk<'a> {
    /// Who wrote them.
    pub writer: Writer,
    /// How many.
    pub rows: u64,
    /// The smallest `seq`.
    pub first_seq: u64,
    /// The largest `seq`. The run is gapless when `last_seq - first_seq + 1 == rows`.
    pub last_seq: u64,
    data: &'a [u8],
    layout: Layout,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    /// Each line behind a header of [`FRAME_HEADER`] bytes whose first four are its length.
    Lane,
    /// Lines one after the other.
    Ndjson,
}

/// Bytes before each line in a lane: its length and its checksum, both little-endian `u32`.
pub(crate) const FRAME_HEADER: usize = 8;

impl<'a> Chunk<'a> {
    /// A gapless run as it lies in a lane's buffer.
    pub(crate) fn from_lane(writer: Writer, first_seq: u64, rows: u64, data: &'a [u8]) -> Self {
        Chunk { writer, rows, first_seq, last_seq: (first_seq + rows).saturating_sub(1), data, layout: Layout::Lane }
    }

    /// Lines as they lie in a spool frame, or as a test makes them: each ends in `\n`, with its `seq` at its end.
    pub fn from_lines(writer: Writer, rows: u64, first_seq: u64, last_seq: u64, data: &'a [u8]) -> Self {
        Chunk { writer, rows, first_seq, last_seq, data, layout: Layout::Ndjson }
    }

    /// The lines, each with its `seq` and with its `\n`.
    pub fn lines(&self) -> Lines<'a> {
        Lines { rest: self.data, layout: self.layout, next_seq: self.first_seq }
    }

    /// The run is gapless.
    pub fn is_gapless(&self) -> bool {
        self.rows > 0 && self.last_seq - self.first_seq + 1 == self.rows
    }
}

/// The lines of a [`Chunk`].
#[derive(Clone, Debug)]
pub struct Lines<'a> {
    rest: &'a [u8],
    layout: Layout,
    next_seq: u64,
}

impl<'a> Iterator for Lines<'a> {
    type Item = (u64, &'a [u8]);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        match self.layout {
            Layout::Lane => {
                let (header, rest) = self.rest.split_at_checked(FRAME_HEADER)?;
                let len = u32::from_le_bytes([header[0], header[1], header[2], header[3]]) as usize;
                let (line, rest) = rest.split_at_checked(len)?;
                self.rest = rest;
                let seq = self.next_seq;
                self.next_seq += 1;
                Some((seq, line))
            }
            Layout::Ndjson => {
                if self.rest.is_empty() {
                    return None;
                }
                let end = memchr::memchr(b'\n', self.rest).map_or(self.rest.len(), |at| at + 1);
                let (line, rest) = self.rest.split_at(end);
                self.rest = rest;
                // A spool frame is checksummed, so its lines are ours and end in their seq; `next_seq` only guards a foreign one.
                let seq = seq_of_line(line).unwrap_or(self.next_seq);
                self.next_seq = seq + 1;
                Some((seq, line))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;

    fn at(millis: u64) -> Now {
        Now { monotonic: Duration::from_millis(millis), wall: Timestamp::from_micros(0) }
    }

    fn batcher() -> Batcher {
        Batcher::new(BatchSettings { max_rows: 3, max_bytes: ByteSize::b(100), max_age: Duration::from_millis(10) })
    }

    #[test]
    fn is_due_at_whichever_limit_comes_first() {
        assert_eq!(batcher().due(3, 1, at(0)), Some(BatchReason::Rows));
        assert_eq!(batcher().due(2, 100, at(0)), Some(BatchReason::Bytes));
        assert_eq!(batcher().due(2, 99, at(0)), None);
    }

    #[test]
    fn age_starts_with_the_first_row_seen_and_again_after_a_batch_was_taken() {
        let mut batcher = batcher();
        assert_eq!(batcher.due(0, 0, at(0)), None);
        assert_eq!(batcher.due(1, 1, at(50)), None);
        assert_eq!(batcher.due(1, 1, at(59)), None);
        assert_eq!(batcher.due(1, 1, at(60)), Some(BatchReason::Age));
        batcher.taken();
        assert_eq!(batcher.due(1, 1, at(61)), None);
        assert_eq!(batcher.due(1, 1, at(71)), Some(BatchReason::Age));
    }

    #[test]
    fn rests_until_the_age_is_reached_while_batches_are_due_by_their_age() {
        let mut batcher = batcher();
        assert_eq!(batcher.rest(at(0)), None);
        batcher.due(1, 1, at(50));
        batcher.due(1, 1, at(60));
        batcher.taken();
        assert_eq!(batcher.rest(at(61)), Some(Duration::from_millis(10)));
        batcher.due(1, 1, at(62));
        assert_eq!(batcher.rest(at(66)), Some(Duration::from_millis(6)));
        assert_eq!(batcher.rest(at(80)), Some(Duration::ZERO));
        batcher.due(3, 1, at(80));
        batcher.taken();
        assert_eq!(batcher.rest(at(81)), None);
    }

    #[test]
    fn reads_lines_with_their_seq() {
        let writer = Writer::new(uuid::Uuid::from_u128(7), 1);
        let text = format!("{{\"a\":1,\"writer\":\"{writer}\",\"seq\":4}}\n{{\"a\":2,\"writer\":\"{writer}\",\"seq\":9}}\n");
        let chunk = Chunk::from_lines(writer, 2, 4, 9, text.as_bytes());
        assert_eq!(chunk.lines().map(|(seq, _)| seq).collect::<Vec<_>>(), [4, 9]);
        assert!(!chunk.is_gapless());
    }
}
