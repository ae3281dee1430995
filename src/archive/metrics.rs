//! The archiver's counters, as Prometheus reads them.

use super::status::Counters;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use std::sync::Arc;
use std::sync::atomic::Ordering;

#[derive(Debug)]
struct Collected(Arc<Counters>);

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Place {
    topic: String,
    partition: i32,
}

/// The text of `/metrics`.
pub fn encode(counters: &Arc<Counters>) -> String {
    let mut registry = Registry::with_prefix("predlog_archive");
    registry.register_collector(Box::new(Collected(counters.clone())));
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = prometheus_client::encoding::text::encode(&mut text, &registry);
    text
}

impl Collector for Collected {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        let counters = &self.0;
        for (name, help, counter) in [
            ("messages", "Messages whose range is stored", &counters.messages),
            ("rows", "Rows in stored objects", &counters.rows),
            ("bytes", "Bytes of stored objects", &counters.bytes),
            ("ranges", "Ranges of offsets that are stored", &counters.ranges),
            ("rejected", "Messages that could not be stored", &counters.rejected),
            ("duplicates", "Rows that were stored before and are left out", &counters.duplicates),
            ("failures", "Tries that failed and were made again", &counters.failures),
        ] {
            let counter = ConstCounter::new(counter.load(Ordering::Relaxed));
            counter.encode(encoder.encode_descriptor(name, help, None, counter.metric_type())?)?;
        }
        let partitions = counters.partitions();
        let mut gauge = |name: &str, help: &str, of: fn(&super::Progress) -> f64| {
            let mut family = encoder.encode_descriptor(name, help, None, prometheus_client::metrics::MetricType::Gauge)?;
            for (at, progress) in &partitions {
                let place = Place { topic: at.topic.to_string(), partition: at.partition };
                ConstGauge::new(of(progress)).encode(family.encode_family(&place)?)?;
            }
            Ok(())
        };
        gauge("lag", "Messages of the partition that are not stored yet", |progress| {
            (progress.newest - progress.stored).max(0) as f64
        })?;
        gauge("watermark_seconds", "Everything up to this time is stored, seconds since 1970", |progress| {
            progress.up_to as f64 / 1_000.0
        })
    }
}
