//! Which records of a topic partition are stored: a logger that crashed may send some again.

use crate::record::{Writer, writer_of_line};
use crate::seqset::SeqSet;
use std::collections::HashMap;

const MAGIC: &[u8; 8] = b"PLSEEN1\n";
const ZSTD_LEVEL: i32 = 1;
/// Reading a state stops here: it would be no state of ours.
const MAX_STATE: usize = 1 << 30;
/// `","seq":` and the writer before it: what neighbours from one lane share.
const WRITER_LEN: usize = 39;

/// The (writer, seq) that are stored.
#[derive(Debug, Default)]
pub(super) struct Seen {
    writers: Vec<(Writer, SeqSet)>,
    index: HashMap<Writer, usize>,
    /// The text of the writer that came last, and its place.
    last: Option<([u8; WRITER_LEN], usize)>,
    bytes: usize,
}

impl Seen {
    /// Notes a line. `false` when it was there before; a line of another program than ours is always new.
    #[inline]
    pub fn insert(&mut self, line: &[u8]) -> bool {
        let Some((place, seq)) = self.find(line) else { return true };
        self.writers[place].1.insert(seq)
    }

    #[inline]
    fn find(&mut self, line: &[u8]) -> Option<(usize, u64)> {
        let (text, seq) = tail(line)?;
        if let Some((last, place)) = &self.last
            && last == text
        {
            return Some((*place, seq));
        }
        // Whole, since the short cut looks at less.
        let (writer, seq) = writer_of_line(line)?;
        let place = *self.index.entry(writer).or_insert_with(|| {
            self.writers.push((writer, SeqSet::default()));
            self.writers.len() - 1
        });
        self.last = Some((*text, place));
        Some((place, seq))
    }

    /// Forgets the smallest `seq`s of the writers with the most, until about so many bytes are left. Returns whether anything was forgotten.
    pub fn keep_within(&mut self, bytes: usize) -> bool {
        self.bytes = self.writers.iter().map(|(_, set)| 64 + set.bytes()).sum();
        let mut forgot = false;
        while self.bytes > bytes {
            let Some((_, largest)) = self.writers.iter_mut().max_by_key(|(_, set)| set.bytes()) else { break };
            match largest.forget_oldest() {
                Some(freed) => self.bytes = self.bytes.saturating_sub(freed),
                None => break,
            }
            forgot = true;
        }
        forgot
    }

    /// Nothing of ours was seen.
    pub fn is_empty(&self) -> bool {
        self.writers.is_empty()
    }

    pub fn encode(&mut self) -> std::io::Result<Vec<u8>> {
        let mut plain = MAGIC.to_vec();
        plain.extend((self.writers.len() as u32).to_le_bytes());
        for (writer, set) in &mut self.writers {
            plain.extend(writer.process().as_bytes());
            plain.push(writer.lane());
            set.encode(&mut plain);
        }
        zstd::bulk::compress(&plain, ZSTD_LEVEL)
    }

    /// What [`encode`](Self::encode) made.
    pub fn decode(state: &[u8]) -> Option<Seen> {
        let plain = zstd::stream::Decoder::new(state).ok().and_then(|decoder| {
            let mut plain = Vec::new();
            std::io::Read::read_to_end(&mut std::io::Read::take(decoder, MAX_STATE as u64), &mut plain).ok()?;
            Some(plain)
        })?;
        let mut rest = plain.strip_prefix(MAGIC.as_slice())?;
        let (count, after) = rest.split_first_chunk()?;
        rest = after;
        let mut seen = Seen::default();
        for place in 0..u32::from_le_bytes(*count) {
            let (process, after) = rest.split_first_chunk()?;
            let (lane, after) = after.split_first()?;
            rest = after;
            let writer = Writer::new(uuid::Uuid::from_bytes(*process), *lane);
            seen.index.insert(writer, place as usize);
            seen.writers.push((writer, SeqSet::decode(&mut rest)?));
        }
        rest.is_empty().then_some(seen)
    }
}

/// The text of the writer and the `seq` at the end of a line, as far as their places tell.
#[inline]
fn tail(line: &[u8]) -> Option<(&[u8; WRITER_LEN], u64)> {
    const SEQ_KEY: &[u8] = b"\",\"seq\":";
    let line = line.strip_suffix(b"\n").unwrap_or(line).strip_suffix(b"}")?;
    let mut seq = 0_u64;
    let mut scale = 1_u64;
    let mut at = line.len();
    while let Some(digit) = at.checked_sub(1).map(|before| line[before].wrapping_sub(b'0')).filter(|digit| *digit < 10) {
        if line.len() - at >= 19 {
            return None;
        }
        seq += u64::from(digit) * scale;
        scale = scale.wrapping_mul(10);
        at -= 1;
    }
    let head = line[..at].strip_suffix(SEQ_KEY)?;
    Some((head.last_chunk::<WRITER_LEN>()?, seq))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(process: u128, lane: u8, seq: u64) -> String {
        format!("{{\"a\":1,\"writer\":\"{}\",\"seq\":{seq}}}\n", Writer::new(uuid::Uuid::from_u128(process), lane))
    }

    #[test]
    fn a_record_is_new_once_also_after_it_was_kept() {
        let mut seen = Seen::default();
        for (process, lane, seq) in [(1, 0, 0), (1, 1, 0), (2, 0, 0), (1, 0, 70_000), (1, 0, 123_456_789_012)] {
            let line = line(process, lane, seq);
            assert!(seen.insert(line.as_bytes()));
            assert!(!seen.insert(line.as_bytes()));
        }
        let mut seen = Seen::decode(&seen.encode().unwrap()).unwrap();
        assert!(!seen.insert(line(1, 0, 123_456_789_012).as_bytes()));
        assert!(!seen.insert(line(2, 0, 0).as_bytes()));
        assert!(seen.insert(line(2, 0, 1).as_bytes()));
        assert!(seen.insert(b"{\"id\":\"a\"}") && seen.insert(b"{\"id\":\"a\"}"), "another program's lines are all new");
        assert!(Seen::decode(b"nonsense").is_none());
    }

    #[test]
    fn every_other_seq_fits_a_bit_and_the_oldest_are_forgotten_first() {
        let mut seen = Seen::default();
        (0..1_000_000).step_by(2).for_each(|seq| assert!(seen.insert(line(1, 0, seq).as_bytes())));
        assert!(!seen.keep_within(1 << 20));
        assert!(seen.keep_within(1 << 16));
        assert!(!seen.insert(line(1, 0, 999_998).as_bytes()));
        assert!(seen.insert(line(1, 0, 0).as_bytes()));
    }
}
