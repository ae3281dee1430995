//! Lines from anywhere, as a batch takes them.

use crate::batch::Chunk;
use crate::record::{Writer, writer_of_line};
use std::ops::Range;

/// A batch ends at so many records or bytes.
const MAX_ROWS: usize = 10_000;
const MAX_BYTES: usize = 4 << 20;

/// Lines in any order, which become chunks: by writer, `seq` rising, each record once.
#[derive(Debug, Default)]
pub(crate) struct Records {
    lines: Vec<u8>,
    places: Vec<(Writer, u64, Range<usize>)>,
    sorted: Vec<u8>,
}

impl Records {
    /// Adds a line, with or without its `\n`. `false` when it is not one that a logger made: nobody could say whose it is.
    #[must_use]
    pub(crate) fn push(&mut self, line: &[u8]) -> bool {
        let Some((writer, seq)) = writer_of_line(line) else { return false };
        let start = self.lines.len();
        self.lines.extend_from_slice(line.strip_suffix(b"\n").unwrap_or(line));
        self.lines.push(b'\n');
        self.places.push((writer, seq, start..self.lines.len()));
        true
    }

    /// It is time to send them.
    pub(crate) fn is_full(&self) -> bool {
        self.places.len() >= MAX_ROWS || self.lines.len() >= MAX_BYTES
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    pub(crate) fn len(&self) -> u64 {
        self.places.len() as u64
    }

    pub(crate) fn clear(&mut self) {
        self.lines.clear();
        self.places.clear();
    }

    /// The records, sorted; of a record that was added twice the first.
    pub(crate) fn chunks(&mut self) -> Vec<Chunk<'_>> {
        self.places.sort_by_key(|(writer, seq, place)| (*writer, *seq, place.start));
        self.places.dedup_by_key(|(writer, seq, _)| (*writer, *seq));
        self.sorted.clear();
        for (_, _, place) in &self.places {
            self.sorted.extend_from_slice(&self.lines[place.clone()]);
        }
        let mut rest = self.sorted.as_slice();
        let runs = self.places.chunk_by(|left, right| left.0 == right.0);
        runs.filter_map(|run| {
            let (first, last) = (run.first()?, run.last()?);
            let (data, behind) = rest.split_at(run.iter().map(|(_, _, place)| place.len()).sum());
            rest = behind;
            Some(Chunk::from_lines(first.0, run.len() as u64, first.1, last.1, data))
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn lines_in_any_order_become_chunks_by_writer_each_record_once() {
        let (one, two) = (Writer::new(Uuid::from_u128(1), 0), Writer::new(Uuid::from_u128(2), 0));
        let line = |writer: Writer, seq: u64| format!("{{\"id\":\"a\",\"writer\":\"{writer}\",\"seq\":{seq}}}");
        let mut records = Records::default();
        for (writer, seq) in [(two, 5), (one, 9), (one, 2), (two, 5), (one, 3)] {
            assert!(records.push(line(writer, seq).as_bytes()));
        }
        assert!(!records.push(b"{\"seq\":1}\n"));
        let chunks = records.chunks();
        let seqs: Vec<(Writer, Vec<u64>)> =
            chunks.iter().map(|chunk| (chunk.writer, chunk.lines().map(|(seq, _)| seq).collect())).collect();
        assert_eq!(seqs, [(one, vec![2, 3, 9]), (two, vec![5])]);
        assert_eq!((chunks[0].rows, chunks[0].first_seq, chunks[0].last_seq), (3, 2, 9));
        assert_eq!(records.len(), 4);
    }
}
