//! How the archiver stands.

use super::lease::TopicPartition;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counts since the start.
#[derive(Debug, Default)]
pub struct Counters {
    /// Messages whose range is stored.
    pub messages: AtomicU64,
    /// Rows in stored objects.
    pub rows: AtomicU64,
    /// Bytes of stored objects.
    pub bytes: AtomicU64,
    /// Ranges stored.
    pub ranges: AtomicU64,
    /// Messages that could not be stored.
    pub rejected: AtomicU64,
    /// Rows that were stored before, and left out.
    pub duplicates: AtomicU64,
    /// Tries that failed, and were or will be made again.
    pub failures: AtomicU64,
    pub(super) partitions: Mutex<BTreeMap<TopicPartition, Progress>>,
}

/// How a topic partition stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Everything before this offset is stored.
    pub stored: i64,
    /// Everything before this offset was read.
    pub read: i64,
    /// The offset behind the newest message, as far as is known.
    pub newest: i64,
    /// The watermark: messages up to this time, milliseconds since 1970, are stored. 0: none yet.
    pub up_to: i64,
}

impl Counters {
    pub(super) fn up_to(&self, at: &TopicPartition, millis: i64) {
        if let Some(progress) = self.partitions.lock().get_mut(at) {
            progress.up_to = progress.up_to.max(millis);
        }
    }

    pub(super) fn stored(&self, at: &TopicPartition, end: i64, messages: u64, rows: u64, bytes: u64) {
        self.messages.fetch_add(messages, Ordering::Relaxed);
        self.rows.fetch_add(rows, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.ranges.fetch_add(1, Ordering::Relaxed);
        if let Some(progress) = self.partitions.lock().get_mut(at) {
            progress.stored = end;
        }
    }

    /// Each topic partition that is assigned.
    pub fn partitions(&self) -> BTreeMap<TopicPartition, Progress> {
        self.partitions.lock().clone()
    }

    /// All messages up to this time, milliseconds since 1970, are stored, of all partitions that are assigned; `None` while one has none.
    pub fn watermark(&self) -> Option<i64> {
        self.partitions.lock().values().map(|progress| progress.up_to).min().filter(|millis| *millis > 0)
    }

    /// Messages that are not stored yet.
    pub fn lag(&self) -> u64 {
        self.partitions.lock().values().map(|progress| u64::try_from(progress.newest - progress.stored).unwrap_or(0)).sum()
    }
}
