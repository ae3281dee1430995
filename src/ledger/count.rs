//! How many records there are of each model and hour.

use super::{Entry, Kind};
use crate::batch::Chunk;
use crate::clock::Timestamp;
use crate::record::encode::{MODEL_NAME_AT, TIMESTAMP_AT};
use crate::record::raw_model_name;
use std::collections::HashMap;

/// The bytes of a timestamp that name its hour: `2026-11-23T03`.
pub(crate) const HOUR_LEN: usize = 13;

/// The hour of a time, as [`Entry::hour`] has it.
pub(crate) fn hour_of(at: Timestamp) -> String {
    hour_text(&at.format()[..HOUR_LEN])
}

fn hour_text(hour: &[u8]) -> String {
    format!("{}:00:00Z", String::from_utf8_lossy(hour))
}

/// Counts by model and hour. Made for runs of the same: then a line costs two comparisons.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    counts: Vec<Count>,
    /// Hour and raw name to the place in `counts`.
    places: HashMap<Vec<u8>, usize>,
    at: usize,
}

#[derive(Debug)]
struct Count {
    /// The hour, the raw name, and the quote behind it: without that `wine` would take the lines of `wine2`.
    key: Vec<u8>,
    rows: u64,
}

impl Count {
    #[inline]
    fn is_of(&self, line: &[u8]) -> bool {
        let (hour, name) = self.key.split_at(HOUR_LEN);
        line.get(TIMESTAMP_AT..TIMESTAMP_AT + HOUR_LEN) == Some(hour)
            && line.get(MODEL_NAME_AT..MODEL_NAME_AT + name.len()) == Some(name)
    }
}

impl Counts {
    /// How many models and hours there are.
    pub(crate) fn len(&self) -> usize {
        self.counts.len()
    }

    /// Counts the lines of `chunk`.
    pub(crate) fn add(&mut self, chunk: &Chunk<'_>) {
        for (_, line) in chunk.lines() {
            match self.counts.get_mut(self.at).filter(|count| count.is_of(line)) {
                Some(count) => count.rows += 1,
                None => self.add_other(line),
            }
        }
    }

    fn add_other(&mut self, line: &[u8]) {
        let hour = line.get(TIMESTAMP_AT..TIMESTAMP_AT + HOUR_LEN);
        let (Some(hour), Some(name)) = (hour, raw_model_name(line)) else { return };
        let key = [hour, name, b"\""].concat();
        self.at = self.place(key);
        self.counts[self.at].rows += 1;
    }

    fn place(&mut self, key: Vec<u8>) -> usize {
        if let Some(&at) = self.places.get(&key) {
            return at;
        }
        self.places.insert(key.clone(), self.counts.len());
        self.counts.push(Count { key, rows: 0 });
        self.counts.len() - 1
    }

    /// An entry for each model and hour.
    pub(crate) fn entries(&self, kind: Kind) -> impl Iterator<Item = Entry> + '_ {
        self.counts.iter().map(move |count| {
            let (hour, name) = count.key.split_at(HOUR_LEN);
            let model_name = serde_json::from_slice(&[b"\"", name].concat()).ok();
            Entry { model_name, hour: Some(hour_text(hour)), ..Entry::new(kind, count.rows) }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Writer;
    use std::time::Instant;

    fn lines(models: &[&str], count: u64) -> Vec<u8> {
        let mut text = Vec::new();
        for seq in 0..count {
            let model = models[seq as usize % models.len()];
            let at = Timestamp::from_micros(1_763_868_858_123_456 + seq.cast_signed() * 1_000_000);
            let line = format!(
                "{{\"timestamp\":\"{at}\",\"model_name\":\"{model}\",\"inputs\":{{\"a\":[1.5,2.5,3.5],\"b\":\"some text\"}}}}\n"
            );
            text.extend_from_slice(line.as_bytes());
        }
        text
    }

    fn counted(models: &[&str], count: u64) -> Vec<(String, String, u64)> {
        let text = lines(models, count);
        let chunk = Chunk::from_lines(Writer::new(uuid::Uuid::nil(), 0), count, 0, count - 1, &text);
        let mut counts = Counts::default();
        counts.add(&chunk);
        let entries = counts.entries(Kind::Accepted);
        entries.map(|entry| (entry.model_name.unwrap(), entry.hour.unwrap(), entry.rows)).collect()
    }

    #[test]
    fn a_model_whose_name_starts_another_has_its_own_count() {
        let (early, late) = ("2025-11-23T03:00:00Z", "2025-11-23T04:00:00Z");
        let row = |model: &str, hour: &str, rows| (model.to_owned(), hour.to_owned(), rows);
        assert_eq!(
            counted(&["wine", "wine2", "w\\\"ine"], 3_000),
            [
                row("wine", early, 514),
                row("wine2", early, 514),
                row("w\"ine", early, 514),
                row("wine", late, 486),
                row("wine2", late, 486),
                row("w\"ine", late, 486)
            ]
        );
    }

    #[test]
    fn a_record_costs_little() {
        let text = lines(&["wine"], 1_000);
        let chunk = Chunk::from_lines(Writer::new(uuid::Uuid::nil(), 0), 1_000, 0, 999, &text);
        let walk = |counts: &mut dyn FnMut(&Chunk<'_>)| {
            let best = (0..20).map(|_| {
                let start = Instant::now();
                (0..100).for_each(|_| counts(&chunk));
                start.elapsed().as_secs_f64() * 1e9 / 100_000.0
            });
            best.fold(f64::INFINITY, f64::min)
        };
        let mut counts = Counts::default();
        let counted = walk(&mut |chunk| counts.add(chunk));
        let walked = walk(&mut |chunk| assert!(chunk.lines().all(|(_, line)| !std::hint::black_box(line).is_empty())));
        println!("{:.1} ns a record more than walking the lines", counted - walked);
        // The goal is 15 ns; a debug build on a busy machine gets ten times that.
        assert!(counted - walked < 150.0, "{counted:.1} ns, of which {walked:.1} to walk the lines");
        assert_eq!(counts.entries(Kind::Accepted).map(|entry| entry.rows).sum::<u64>(), 2_000_000);
    }
}
