//! Which `seq`s of a writer were seen: at most a bit and a bit for each, and a few bytes for a run.
//!
//! The files of several models that share a lane have every other `seq` each, a billion ranges of one in the worst case. So blocks of 65,536 are runs
//! while these are few, then bits, and one run again when they are full.

use std::collections::BTreeMap;

/// Runs of a block, past which its bits take less.
const MAX_RUNS: usize = 512;
const WORDS: usize = 1 << 10;
const BLOCK: u32 = 1 << 16;

/// A set of `seq`s, made for inserting them nearly in order.
#[derive(Debug, Default)]
pub(crate) struct SeqSet {
    blocks: BTreeMap<u64, Block>,
    /// The block that was used last, taken out of the map.
    current: Option<(u64, Block)>,
}

#[derive(Debug)]
enum Block {
    /// First and last, both included, rising, apart.
    Runs(Vec<(u16, u16)>),
    /// And how many are set.
    Bits(Box<[u64; WORDS]>, u32),
}

impl SeqSet {
    /// Adds `seq`, and says whether it was new.
    #[inline]
    pub(crate) fn insert(&mut self, seq: u64) -> bool {
        let (key, at) = (seq >> 16, seq as u16);
        match &mut self.current {
            Some((current, block)) if *current == key => block.insert(at),
            _ => self.turn_to(key).insert(at),
        }
    }

    /// Adds `first..=last`.
    #[cfg(feature = "cli")]
    pub(crate) fn insert_range(&mut self, first: u64, last: u64) {
        for key in first >> 16..=last >> 16 {
            let start = if key == first >> 16 { first as u16 } else { 0 };
            let end = if key == last >> 16 { last as u16 } else { u16::MAX };
            let block = self.turn_to(key);
            if (start, end) == (0, u16::MAX) {
                *block = Block::Runs(vec![(0, u16::MAX)]);
            } else {
                (start..=end).for_each(|at| {
                    block.insert(at);
                });
            }
        }
    }

    /// Whether `seq` is in the set.
    #[inline]
    pub(crate) fn contains(&self, seq: u64) -> bool {
        let (key, at) = (seq >> 16, seq as u16);
        match &self.current {
            Some((current, block)) if *current == key => block.contains(at),
            _ => self.blocks.get(&key).is_some_and(|block| block.contains(at)),
        }
    }

    /// About the memory that it takes, in bytes.
    #[cfg(feature = "archive")]
    pub(crate) fn bytes(&self) -> usize {
        self.blocks.values().map(Block::bytes).sum::<usize>() + self.current.as_ref().map_or(0, |(_, block)| block.bytes())
    }

    /// Forgets the block of the smallest `seq`s, if there is another one. Returns the memory that it took.
    #[cfg(feature = "archive")]
    pub(crate) fn forget_oldest(&mut self) -> Option<usize> {
        self.put_back();
        if self.blocks.len() < 2 {
            return None;
        }
        self.blocks.pop_first().map(|(_, block)| block.bytes())
    }

    /// Appends the set: the number of blocks, and for each its key, its number of runs and these, or for bits the number 65,535 and these.
    #[cfg(feature = "archive")]
    pub(crate) fn encode(&mut self, into: &mut Vec<u8>) {
        self.put_back();
        into.extend((self.blocks.len() as u32).to_le_bytes());
        for (key, block) in &self.blocks {
            into.extend(key.to_le_bytes());
            match block {
                Block::Runs(runs) => {
                    into.extend((runs.len() as u16).to_le_bytes());
                    runs.iter().for_each(|(first, last)| into.extend([first.to_le_bytes(), last.to_le_bytes()].concat()));
                }
                Block::Bits(words, _) => {
                    into.extend(u16::MAX.to_le_bytes());
                    words.iter().for_each(|word| into.extend(word.to_le_bytes()));
                }
            }
        }
    }

    /// What [`encode`](Self::encode) wrote, taken off the front of `from`. `None` when it is cut off.
    #[cfg(feature = "archive")]
    pub(crate) fn decode(from: &mut &[u8]) -> Option<SeqSet> {
        let mut set = SeqSet::default();
        for _ in 0..u32::from_le_bytes(take(from)?) {
            let key = u64::from_le_bytes(take(from)?);
            let block = match u16::from_le_bytes(take(from)?) {
                u16::MAX => {
                    let mut words = Box::new([0u64; WORDS]);
                    for word in words.iter_mut() {
                        *word = u64::from_le_bytes(take(from)?);
                    }
                    let count = words.iter().map(|word| word.count_ones()).sum();
                    Block::Bits(words, count)
                }
                runs => {
                    let mut list = Vec::with_capacity(usize::from(runs));
                    for _ in 0..runs {
                        list.push((u16::from_le_bytes(take(from)?), u16::from_le_bytes(take(from)?)));
                    }
                    Block::Runs(list)
                }
            };
            set.blocks.insert(key, block);
        }
        Some(set)
    }

    /// The set as ranges, rising; neighbours are merged.
    #[cfg(feature = "cli")]
    pub(crate) fn ranges(&mut self, mut each: impl FnMut(u64, u64)) {
        self.put_back();
        let mut open: Option<(u64, u64)> = None;
        for (key, block) in &self.blocks {
            block.runs(|first, last| {
                let (first, last) = (key << 16 | u64::from(first), key << 16 | u64::from(last));
                open = Some(match open {
                    Some((start, end)) if end.checked_add(1) == Some(first) => (start, last),
                    Some((start, end)) => {
                        each(start, end);
                        (first, last)
                    }
                    None => (first, last),
                });
            });
        }
        if let Some((first, last)) = open {
            each(first, last);
        }
    }

    fn put_back(&mut self) {
        if let Some((key, block)) = self.current.take() {
            self.blocks.insert(key, block);
        }
    }

    #[cold]
    fn turn_to(&mut self, key: u64) -> &mut Block {
        self.put_back();
        let block = self.blocks.remove(&key).unwrap_or(Block::Runs(Vec::new()));
        &mut self.current.insert((key, block)).1
    }
}

impl Block {
    #[inline]
    fn insert(&mut self, at: u16) -> bool {
        match self {
            Block::Runs(runs) => match runs.last_mut() {
                Some((_, last)) if last.checked_add(1) == Some(at) => {
                    *last = at;
                    true
                }
                _ => self.insert_apart(at),
            },
            Block::Bits(words, count) => {
                let (word, bit) = (usize::from(at >> 6), 1u64 << (at & 63));
                let new = words[word] & bit == 0;
                words[word] |= bit;
                *count += u32::from(new);
                if *count == BLOCK {
                    *self = Block::Runs(vec![(0, u16::MAX)]);
                }
                new
            }
        }
    }

    fn insert_apart(&mut self, at: u16) -> bool {
        let Block::Runs(runs) = self else { return self.insert(at) };
        let next = runs.partition_point(|&(first, _)| first <= at);
        let (touches_before, within) = match next.checked_sub(1).map(|before| runs[before]) {
            Some((_, last)) => (last.checked_add(1) == Some(at), at <= last),
            None => (false, false),
        };
        if within {
            return false;
        }
        let touches_next = runs.get(next).is_some_and(|&(first, _)| at.checked_add(1) == Some(first));
        match (touches_before, touches_next) {
            (true, true) => {
                runs[next - 1].1 = runs[next].1;
                runs.remove(next);
            }
            (true, false) => runs[next - 1].1 = at,
            (false, true) => runs[next].0 = at,
            (false, false) => runs.insert(next, (at, at)),
        }
        if runs.len() > MAX_RUNS {
            let mut words = Box::new([0u64; WORDS]);
            let mut count = 0;
            for &(first, last) in runs.iter() {
                for at in first..=last {
                    words[usize::from(at >> 6)] |= 1 << (at & 63);
                    count += 1;
                }
            }
            *self = Block::Bits(words, count);
        }
        true
    }

    #[cfg(feature = "archive")]
    fn bytes(&self) -> usize {
        match self {
            Block::Runs(runs) => 32 + runs.capacity() * 4,
            Block::Bits(..) => 32 + WORDS * 8,
        }
    }

    #[inline]
    fn contains(&self, at: u16) -> bool {
        match self {
            Block::Runs(runs) => {
                let next = runs.partition_point(|&(first, _)| first <= at);
                next.checked_sub(1).is_some_and(|before| at <= runs[before].1)
            }
            Block::Bits(words, _) => words[usize::from(at >> 6)] & 1 << (at & 63) != 0,
        }
    }

    fn runs(&self, mut each: impl FnMut(u16, u16)) {
        match self {
            Block::Runs(runs) => runs.iter().for_each(|&(first, last)| each(first, last)),
            Block::Bits(words, _) => {
                let mut at = 0;
                while let Some(first) = next_bit(words, at, true) {
                    let end = next_bit(words, first, false).unwrap_or(BLOCK);
                    each(first as u16, (end - 1) as u16);
                    at = end;
                }
            }
        }
    }
}

/// The first place from `from` on whose bit is as `set` says.
#[cfg(feature = "archive")]
fn take<const N: usize>(from: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = from.split_first_chunk()?;
    *from = rest;
    Some(*taken)
}

fn next_bit(words: &[u64; WORDS], from: u32, set: bool) -> Option<u32> {
    let flip = if set { 0 } else { u64::MAX };
    let mut at = from;
    while at < BLOCK {
        let word = (words[(at >> 6) as usize] ^ flip) >> (at & 63);
        if word != 0 {
            return Some(at + word.trailing_zeros());
        }
        at = (at | 63) + 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn ranges(set: &mut SeqSet) -> Vec<(u64, u64)> {
        let mut ranges = Vec::new();
        set.ranges(|first, last| ranges.push((first, last)));
        ranges
    }

    proptest! {
        #[test]
        fn is_the_set_that_it_says(seqs in proptest::collection::vec(prop_oneof![0u64..40, 65_500u64..65_560, 200_000u64..200_010], 0..80)) {
            let (mut set, mut model) = (SeqSet::default(), BTreeSet::new());
            for seq in seqs {
                prop_assert_eq!(set.insert(seq), model.insert(seq));
            }
            let mut listed = BTreeSet::new();
            let ranges = ranges(&mut set);
            prop_assert!(ranges.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0));
            ranges.into_iter().for_each(|(first, last)| listed.extend(first..=last));
            prop_assert_eq!(&listed, &model);
            prop_assert!((0..70_000).step_by(7).all(|seq| set.contains(seq) == model.contains(&seq)));
        }
    }

    #[test]
    fn every_other_seq_becomes_bits_and_a_full_block_one_run_again() {
        let mut set = SeqSet::default();
        (0..196_608).step_by(2).for_each(|seq| assert!(set.insert(seq)));
        assert_eq!(ranges(&mut set).len(), 98_304);
        assert!(matches!(set.blocks[&0], Block::Bits(_, 32_768)));
        (1..196_608).step_by(2).for_each(|seq| assert!(set.insert(seq)));
        assert!((0..196_608).all(|seq| !set.insert(seq)));
        assert_eq!(ranges(&mut set), [(0, 196_607)]);
        assert!(set.blocks.values().all(|block| matches!(block, Block::Runs(runs) if runs.len() == 1)));
        set.insert_range(196_600, 400_000);
        assert_eq!(ranges(&mut set), [(0, 400_000)]);
    }
}
