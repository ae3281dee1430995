//! What was accepted, where it is, and what was dropped and why: plain counters, read by `/metrics`, by [`Report`](crate::Report) and by tests.

use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use serde::{Serialize, Serializer};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Why a record was not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DropReason {
    /// The prediction itself: see [`Invalid`](crate::record::encode::Invalid).
    Invalid(crate::record::encode::Invalid),
    /// The lanes were full: records came faster than the sink and the spool take them.
    QueueFull,
    /// The lanes were full because the disk is; or a broker refuses the record for good, and the dead letters have no room for it.
    NoSpace,
    /// The lanes were full because the sink does not take records.
    SinkUnavailable,
    /// The logger was shut down.
    Closed,
    /// The process ended with records in lanes that do not outlive it (`durability = "memory"`).
    Shutdown,
}

impl DropReason {
    const COUNT: usize = 6;

    /// All names, in the order of [`index`](Self::index).
    const NAMES: [&'static str; Self::COUNT] = ["invalid", "queue_full", "no_space", "sink_unavailable", "closed", "shutdown"];

    fn index(self) -> usize {
        match self {
            DropReason::Invalid(_) => 0,
            DropReason::QueueFull => 1,
            DropReason::NoSpace => 2,
            DropReason::SinkUnavailable => 3,
            DropReason::Closed => 4,
            DropReason::Shutdown => 5,
        }
    }

    /// The name in metrics and reports.
    pub fn name(self) -> &'static str {
        Self::NAMES[self.index()]
    }
}

/// Records that were accepted, and that neither the sink nor its dead letters can keep: their lines, on their way to the ledger.
#[derive(Debug, Default)]
pub(crate) struct Lost {
    is_stated: AtomicBool,
    lines: Mutex<Vec<u8>>,
}

impl Lost {
    /// From now on a logger's worker [takes](Self::take) them, counts them as dropped and states that. Without one no record may be lost here: it is at rest
    /// somewhere else.
    pub(crate) fn state(&self) {
        self.is_stated.store(true, Ordering::Release);
    }

    #[cfg(any(feature = "kafka", feature = "nats"))]
    pub(crate) fn is_stated(&self) -> bool {
        self.is_stated.load(Ordering::Acquire)
    }

    /// Without its end.
    #[cfg(any(feature = "kafka", feature = "nats"))]
    pub(crate) fn add(&self, line: &[u8]) {
        let mut lines = self.lines.lock();
        lines.extend_from_slice(line);
        lines.push(b'\n');
    }

    /// Those since the last call, each with its end.
    pub(crate) fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.lines.lock())
    }
}

/// The counters of one logger.
#[derive(Debug)]
pub struct Stats {
    pub(crate) lost: Lost,
    pub(crate) accepted: AtomicU64,
    pub(crate) delivered: AtomicU64,
    pub(crate) digested: AtomicU64,
    pub(crate) recovered: AtomicU64,
    pub(crate) recovered_delivered: AtomicU64,
    pub(crate) damaged: AtomicU64,
    pub(crate) unstorable: AtomicU64,
    dropped: [AtomicU64; DropReason::COUNT],
    pub(crate) queue_bytes: AtomicU64,
    pub(crate) on_disk: AtomicU64,
    pub(crate) spool_bytes: AtomicU64,
    pub(crate) sink_failures: AtomicU64,
    pub(crate) sink_up: AtomicU64,
    pub(crate) sealed_files: AtomicU64,
    pub(crate) uploaded_files: AtomicU64,
    pub(crate) uploaded_bytes: AtomicU64,
    pub(crate) upload_failures: AtomicU64,
    pub(crate) upload_pending_files: AtomicU64,
    /// Milliseconds, so that it fits an integer; shown in seconds.
    pub(crate) upload_lag_ms: AtomicU64,
    pub(crate) batch_rows: Histogram,
    pub(crate) batch_seconds: Histogram,
    pub(crate) upload_seconds: Histogram,
}

impl Default for Stats {
    fn default() -> Self {
        let zero = AtomicU64::default;
        Stats {
            lost: Lost::default(),
            accepted: zero(),
            delivered: zero(),
            digested: zero(),
            recovered: zero(),
            recovered_delivered: zero(),
            damaged: zero(),
            unstorable: zero(),
            dropped: Default::default(),
            queue_bytes: zero(),
            on_disk: zero(),
            spool_bytes: zero(),
            sink_failures: zero(),
            sink_up: AtomicU64::new(1),
            sealed_files: zero(),
            uploaded_files: zero(),
            uploaded_bytes: zero(),
            upload_failures: zero(),
            upload_pending_files: zero(),
            upload_lag_ms: zero(),
            batch_rows: Histogram::new(exponential_buckets(1.0, 10.0, 7)),
            batch_seconds: Histogram::new(exponential_buckets(0.000_1, 4.0, 9)),
            upload_seconds: Histogram::new(exponential_buckets(0.01, 4.0, 8)),
        }
    }
}

/// The counters at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Snapshot {
    /// Records that `log()` took.
    pub accepted: u64,
    /// Accepted records that are in their final place.
    pub delivered: u64,
    /// Accepted records in intermediate files: spool segments.
    pub on_disk: u64,
    /// Records that were not kept, by reason, those that are not zero.
    #[serde(serialize_with = "as_map")]
    pub dropped: Vec<(&'static str, u64)>,
    /// Accepted records with fields past `max_record_bytes` or the depth limit, replaced by their digests.
    pub digested: u64,
    /// Records of dead processes that this one took over.
    pub recovered: u64,
    /// Of these, the ones in their final place.
    pub recovered_delivered: u64,
    /// Frames of the spool that were damaged and set aside.
    pub damaged: u64,
    /// Records that no column could take; they are in `<dir>/dead-letter/`.
    pub unstorable: u64,
    /// Bytes in the lanes.
    pub queue_bytes: u64,
    /// Bytes of spool segments.
    pub spool_bytes: u64,
    /// Calls of the sink that failed.
    pub sink_failures: u64,
    /// Files sealed.
    pub sealed_files: u64,
    /// Files proven uploaded.
    pub uploaded_files: u64,
    /// Bytes of these files.
    pub uploaded_bytes: u64,
    /// Uploads that failed and are tried again.
    pub upload_failures: u64,
    /// Files that wait for their upload.
    pub upload_pending_files: u64,
}

fn as_map<S: Serializer>(counts: &[(&'static str, u64)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(counts.iter().copied())
}

impl Stats {
    pub(crate) fn drop_record(&self, reason: DropReason) {
        self.dropped[reason.index()].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn drop_records(&self, reason: DropReason, rows: u64) {
        self.dropped[reason.index()].fetch_add(rows, Ordering::Relaxed);
    }

    /// The counters now. They are read one after the other: while records flow, sums may differ by what flowed meanwhile.
    pub fn snapshot(&self) -> Snapshot {
        let get = |counter: &AtomicU64| counter.load(Ordering::Acquire);
        let dropped = DropReason::NAMES.iter().zip(&self.dropped).map(|(name, count)| (*name, get(count)));
        Snapshot {
            accepted: get(&self.accepted),
            delivered: get(&self.delivered),
            on_disk: get(&self.on_disk),
            dropped: dropped.filter(|(_, count)| *count > 0).collect(),
            digested: get(&self.digested),
            recovered: get(&self.recovered),
            recovered_delivered: get(&self.recovered_delivered),
            damaged: get(&self.damaged),
            unstorable: get(&self.unstorable),
            queue_bytes: get(&self.queue_bytes),
            spool_bytes: get(&self.spool_bytes),
            sink_failures: get(&self.sink_failures),
            sealed_files: get(&self.sealed_files),
            uploaded_files: get(&self.uploaded_files),
            uploaded_bytes: get(&self.uploaded_bytes),
            upload_failures: get(&self.upload_failures),
            upload_pending_files: get(&self.upload_pending_files),
        }
    }

    fn counters(&self) -> [(&'static str, &'static str, &AtomicU64); 11] {
        [
            ("predlog_accepted", "Records that log() took", &self.accepted),
            ("predlog_delivered", "Accepted records in their final place", &self.delivered),
            ("predlog_digested", "Records with fields past the limits, replaced by their digests", &self.digested),
            ("predlog_recovered", "Records of dead processes that were taken over", &self.recovered),
            ("predlog_damaged_frames", "Spool frames that were damaged and set aside", &self.damaged),
            ("predlog_unstorable", "Records put into the dead-letter directory", &self.unstorable),
            ("predlog_sink_failures", "Calls of the sink that failed", &self.sink_failures),
            ("predlog_sealed_files", "Parquet files sealed", &self.sealed_files),
            ("predlog_uploaded_files", "Files proven uploaded", &self.uploaded_files),
            ("predlog_uploaded_bytes", "Bytes of files proven uploaded", &self.uploaded_bytes),
            ("predlog_upload_failures", "Uploads that failed and are tried again", &self.upload_failures),
        ]
    }

    fn gauges(&self) -> [(&'static str, &'static str, f64); 6] {
        let get = |gauge: &AtomicU64| gauge.load(Ordering::Acquire) as f64;
        [
            ("predlog_queue_bytes", "Bytes in the lanes", get(&self.queue_bytes)),
            ("predlog_on_disk", "Accepted records in spool segments", get(&self.on_disk)),
            ("predlog_spool_bytes", "Bytes of spool segments", get(&self.spool_bytes)),
            ("predlog_sink_up", "1 while the sink takes records", get(&self.sink_up)),
            ("predlog_upload_pending_files", "Files that wait for their upload", get(&self.upload_pending_files)),
            (
                "predlog_upload_lag_seconds",
                "Age of the oldest file that waits for its upload",
                get(&self.upload_lag_ms) / 1_000.0,
            ),
        ]
    }
}

impl Collector for Stats {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for (name, help, value) in self.counters() {
            let counter = ConstCounter::new(value.load(Ordering::Acquire));
            counter.encode(encoder.encode_descriptor(name, help, None, counter.metric_type())?)?;
        }
        let mut family =
            encoder.encode_descriptor("predlog_dropped", "Records that were not kept, by reason", None, MetricType::Counter)?;
        for (name, value) in DropReason::NAMES.iter().zip(&self.dropped) {
            let counter = ConstCounter::new(value.load(Ordering::Acquire));
            counter.encode(family.encode_family(&[("reason", *name)])?)?;
        }
        for (name, help, value) in self.gauges() {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        let histograms = [
            ("predlog_batch_rows", "Records in a batch", &self.batch_rows),
            ("predlog_batch_seconds", "Time from a batch's write to its commit", &self.batch_seconds),
            ("predlog_upload_seconds", "Time of one file's upload", &self.upload_seconds),
        ];
        for (name, help, histogram) in histograms {
            histogram.encode(encoder.encode_descriptor(name, help, None, histogram.metric_type())?)?;
        }
        Ok(())
    }
}

/// The counters of `[[sinks]]`, by their names: `predlog_sink_accepted_total{sink="recent"}`.
#[cfg(feature = "server")]
#[derive(Debug)]
pub(crate) struct SinkStats(pub(crate) Vec<(String, std::sync::Arc<Stats>)>);

#[cfg(feature = "server")]
impl Collector for SinkStats {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Some((_, first)) = self.0.first() else { return Ok(()) };
        let named = |name: &str| name.replacen("predlog_", "predlog_sink_", 1);
        for (at, (name, help, _)) in first.counters().into_iter().enumerate() {
            let name = named(name);
            let mut family = encoder.encode_descriptor(&name, help, None, MetricType::Counter)?;
            for (sink, stats) in &self.0 {
                let counter = ConstCounter::new(stats.counters()[at].2.load(Ordering::Acquire));
                counter.encode(family.encode_family(&[("sink", &**sink)])?)?;
            }
        }
        let mut family = encoder.encode_descriptor(
            "predlog_sink_dropped",
            "Records that were not kept, by reason",
            None,
            MetricType::Counter,
        )?;
        for (sink, stats) in &self.0 {
            for (reason, value) in DropReason::NAMES.iter().zip(&stats.dropped) {
                let counter = ConstCounter::new(value.load(Ordering::Acquire));
                counter.encode(family.encode_family(&[("sink", &**sink), ("reason", *reason)])?)?;
            }
        }
        for (at, (name, help, _)) in first.gauges().into_iter().enumerate() {
            let name = named(name);
            let mut family = encoder.encode_descriptor(&name, help, None, MetricType::Gauge)?;
            for (sink, stats) in &self.0 {
                ConstGauge::new(stats.gauges()[at].2).encode(family.encode_family(&[("sink", &**sink)])?)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::registry::Registry;
    use std::sync::Arc;

    #[test]
    fn metrics_are_prometheus_text() {
        let stats = Arc::new(Stats::default());
        stats.accepted.store(3, Ordering::Release);
        stats.drop_record(DropReason::QueueFull);
        stats.upload_lag_ms.store(1_500, Ordering::Release);
        stats.batch_rows.observe(50.0);
        let mut registry = Registry::default();
        registry.register_collector(Box::new(stats.clone()));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for line in [
            "predlog_accepted_total 3",
            "predlog_dropped_total{reason=\"queue_full\"} 1",
            "predlog_dropped_total{reason=\"no_space\"} 0",
            "predlog_upload_lag_seconds 1.5",
            "predlog_batch_rows_count 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }
}
