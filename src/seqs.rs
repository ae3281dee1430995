//! Which `seq`s of a writer are stored: ranges, not only the highest, since older records may be replayed behind newer ones.

use std::collections::BTreeMap;

/// A set of `seq`s as ranges, each from its first to its last, both included. Neighbours are merged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SeqRanges {
    /// first -> last
    ranges: BTreeMap<u64, u64>,
}

impl SeqRanges {
    /// Nothing yet.
    pub fn new() -> Self {
        SeqRanges::default()
    }

    /// Adds `first..=last`. A range that ends before it starts adds nothing.
    pub fn insert(&mut self, first: u64, last: u64) {
        if first > last {
            return;
        }
        let (mut first, mut last) = (first, last);
        if let Some((&before, &end)) = self.ranges.range(..=first).next_back()
            && end.saturating_add(1) >= first
        {
            first = before;
            last = last.max(end);
        }
        while let Some((&next, &end)) = self.ranges.range(first..).next() {
            if next > last.saturating_add(1) {
                break;
            }
            last = last.max(end);
            self.ranges.remove(&next);
        }
        self.ranges.insert(first, last);
    }

    /// Takes `first..=last` out. A range that ends before it starts takes nothing.
    pub fn remove(&mut self, first: u64, last: u64) {
        if first > last {
            return;
        }
        // From the last one that reaches into it, down.
        while let Some((&start, &end)) = self.ranges.range(..=last).next_back().filter(|(_, end)| **end >= first) {
            self.ranges.remove(&start);
            if end > last {
                self.ranges.insert(last + 1, end);
            }
            if start < first {
                self.ranges.insert(start, first - 1);
            }
        }
    }

    /// Whether `seq` is in the set.
    pub fn contains(&self, seq: u64) -> bool {
        self.ranges.range(..=seq).next_back().is_some_and(|(_, &last)| seq <= last)
    }

    /// Whether all of `first..=last` is in the set.
    pub fn contains_all(&self, first: u64, last: u64) -> bool {
        self.ranges.range(..=first).next_back().is_some_and(|(_, &end)| last <= end)
    }

    /// Whether any of `first..=last` is in the set.
    pub fn intersects(&self, first: u64, last: u64) -> bool {
        self.ranges.range(..=last).next_back().is_some_and(|(_, &end)| first <= end)
    }

    /// The ranges, rising.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.ranges.iter().map(|(&first, &last)| (first, last))
    }

    /// How many `seq`s are in the set.
    pub fn count(&self) -> u64 {
        self.iter().map(|(first, last)| last - first + 1).sum()
    }

    /// Nothing is in the set.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }
}

impl Extend<(u64, u64)> for SeqRanges {
    fn extend<T: IntoIterator<Item = (u64, u64)>>(&mut self, ranges: T) {
        ranges.into_iter().for_each(|(first, last)| self.insert(first, last));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn is_the_set_that_it_says(
            inserts in proptest::collection::vec((0u64..60, 0u64..8), 0..20),
            removes in proptest::collection::vec((0u64..70, 0u64..8), 0..6),
            probe in 0u64..70,
            len in 0u64..9,
        ) {
            let mut ranges = SeqRanges::new();
            let mut model = BTreeSet::new();
            for (first, len) in inserts {
                ranges.insert(first, first + len);
                model.extend(first..=first + len);
            }
            for (first, len) in removes {
                ranges.remove(first, first + len);
                model.retain(|seq| !(first..=first + len).contains(seq));
            }
            prop_assert_eq!(ranges.count(), model.len() as u64);
            prop_assert_eq!(ranges.contains(probe), model.contains(&probe));
            prop_assert_eq!(ranges.contains_all(probe, probe + len), (probe..=probe + len).all(|seq| model.contains(&seq)));
            prop_assert_eq!(ranges.intersects(probe, probe + len), (probe..=probe + len).any(|seq| model.contains(&seq)));
            let apart = ranges.iter().zip(ranges.iter().skip(1)).all(|(left, right)| left.1 + 1 < right.0);
            prop_assert!(apart, "{:?}", ranges);
        }
    }

    #[test]
    fn reaches_the_last_seq_there_is() {
        let mut ranges = SeqRanges::new();
        ranges.insert(u64::MAX, u64::MAX);
        ranges.insert(0, u64::MAX - 1);
        assert_eq!(ranges.iter().collect::<Vec<_>>(), [(0, u64::MAX)]);
        ranges.remove(3, u64::MAX);
        assert_eq!(ranges.iter().collect::<Vec<_>>(), [(0, 2)]);
    }
}
