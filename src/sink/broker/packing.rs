//! `packing = "ndjson"`: many records a message.

use super::flight::Mark;
use crate::record::Writer;

/// A message is sent when it has so many bytes: past it compression gains little, and a consumer's memory is spared.
const PACK_BYTES: usize = 128 * 1024;

/// Records that go into one message: those of one topic, one key and one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) topic: usize,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) hash: u16,
}

/// A message in the making.
#[derive(Debug)]
pub(crate) struct Pack {
    pub(crate) place: Place,
    pub(crate) lines: Vec<u8>,
    /// Their `index` is set when the message has one.
    pub(crate) marks: Vec<Mark>,
}

/// Collects lines into messages.
#[derive(Debug, Default)]
pub(crate) struct Packer {
    open: Vec<Pack>,
    /// The pack that the last line went to: the next one's, most often.
    last: usize,
    spare: Vec<Pack>,
}

impl Packer {
    /// Adds a line; a message that is full is returned.
    pub(crate) fn add(&mut self, place: &Place, max_bytes: usize, writer: Writer, seq: u64, line: &[u8]) -> Option<Pack> {
        let at = self.find(place);
        let most = PACK_BYTES.min(max_bytes);
        let full = (!self.open[at].lines.is_empty() && self.open[at].lines.len() + line.len() > most).then(|| {
            let next = self.fresh(place.clone());
            std::mem::replace(&mut self.open[at], next)
        });
        let pack = &mut self.open[at];
        pack.lines.extend_from_slice(line);
        match pack.marks.last_mut() {
            Some(mark) if mark.writer == writer && mark.last_seq + 1 == seq => mark.last_seq = seq,
            _ => pack.marks.push(Mark { index: 0, writer, first_seq: seq, last_seq: seq }),
        }
        full
    }

    /// Ends the batch: the messages that are not full.
    pub(crate) fn finish(&mut self) -> Vec<Pack> {
        self.last = 0;
        std::mem::take(&mut self.open)
    }

    /// Takes a sent message's room back.
    pub(crate) fn reuse(&mut self, mut pack: Pack) {
        if self.spare.len() < 8 {
            pack.lines.clear();
            pack.marks.clear();
            self.spare.push(pack);
        }
    }

    fn find(&mut self, place: &Place) -> usize {
        if self.open.get(self.last).is_none_or(|pack| pack.place != *place) {
            self.last = match self.open.iter().position(|pack| pack.place == *place) {
                Some(at) => at,
                None => {
                    let fresh = self.fresh(place.clone());
                    self.open.push(fresh);
                    self.open.len() - 1
                }
            };
        }
        self.last
    }

    fn fresh(&mut self, place: Place) -> Pack {
        match self.spare.pop() {
            Some(pack) => Pack { place, ..pack },
            None => Pack { place, lines: Vec::with_capacity(PACK_BYTES + 4096), marks: Vec::new() },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn lines_of_one_place_share_a_message_until_it_is_full() {
        let (mut packer, writer) = (Packer::default(), Writer::new(Uuid::from_u128(1), 0));
        let place = |topic| Place { topic, key: None, hash: 0 };
        for seq in 0..4 {
            assert!(packer.add(&place(seq as usize % 2), 25, writer, seq, b"0123456789").is_none());
        }
        let full = packer.add(&place(0), 25, writer, 4, b"0123456789").unwrap();
        let seqs = |pack: &Pack| pack.marks.iter().map(|mark| (mark.first_seq, mark.last_seq)).collect::<Vec<_>>();
        assert_eq!((full.lines.len(), seqs(&full)), (20, vec![(0, 0), (2, 2)]));
        let rest = packer.finish();
        assert_eq!(rest.iter().map(seqs).collect::<Vec<_>>(), [vec![(4, 4)], vec![(1, 1), (3, 3)]]);
        assert!(packer.finish().is_empty());
    }
}
