//! What is asked of the group's consumer for partitions that are held: commits, seeks, messages.

use super::consumer::{ANSWER, Consumer};
use super::lease::{Lease, Leases, TopicPartition};
use super::position::Position;
use rdkafka::consumer::{CommitMode, Consumer as _};
use rdkafka::{Offset, TopicPartitionList};
use std::sync::Arc;
use std::time::Duration;

/// The longest wait for an answer that nobody needs.
const NUDGE: Duration = Duration::from_millis(100);

/// Commits, for partitions that are held.
#[derive(Clone)]
pub(super) struct Offsets {
    pub consumer: Arc<Consumer>,
    pub leases: Arc<Leases>,
}

impl Offsets {
    /// Commits the position; `None` when the lease is lost.
    pub fn commit(&self, lease: &Lease, offset: i64, position: &Position) -> Option<Result<(), String>> {
        self.leases.while_held(lease, || {
            let mut list = TopicPartitionList::with_capacity(1);
            let mut element = list.add_partition(&lease.at.topic, lease.at.partition);
            element.set_offset(Offset::Offset(offset)).map_err(|error| error.to_string())?;
            element.set_metadata(position.to_string());
            self.consumer.commit(&list, CommitMode::Sync).map_err(|error| error.to_string())
        })
    }

    /// Has the messages of a partition come from this offset on, whatever came before.
    pub fn seek(&self, lease: &Lease, offset: i64) -> Result<(), String> {
        let sought = self.leases.while_held(lease, || {
            self.consumer
                .seek(&lease.at.topic, lease.at.partition, Offset::Offset(offset), ANSWER)
                .map_err(|error| format!("{}: cannot go to offset={offset}: {error}", lease.at))
        });
        sought.unwrap_or(Ok(()))
    }

    /// How far each partition was read, of this consumer, what transactions leave behind their messages too.
    pub fn positions(&self) -> Vec<(TopicPartition, i64)> {
        let Ok(positions) = self.consumer.position() else { return Vec::new() };
        let known = positions.elements().into_iter().filter_map(|element| match element.offset() {
            Offset::Offset(offset) => {
                Some((TopicPartition { topic: element.topic().into(), partition: element.partition() }, offset))
            }
            _ => None,
        });
        known.collect()
    }

    /// Lets the messages of a partition come, if it is still held.
    pub fn resume(&self, lease: &Lease) -> Result<(), String> {
        let resumed = self.leases.while_held(lease, || {
            let mut list = TopicPartitionList::with_capacity(1);
            list.add_partition(&lease.at.topic, lease.at.partition);
            self.consumer.resume(&list).map_err(|error| format!("{}: {error}", lease.at))
        });
        resumed.unwrap_or(Ok(()))
    }

    /// Has the brokers of these partitions asked for messages at once. librdkafka's threads look for partitions that were resumed when something wakes them,
    /// and else once a second (seen with 2.12.1, `rd_kafka_toppar_pause_resume`): any request wakes them.
    pub fn nudge(&self, partitions: &[TopicPartition]) {
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for at in partitions {
            // Of a name without NUL, as all topics are, this does not fail.
            let _ = list.add_partition_offset(&at.topic, at.partition, Offset::Offset(0));
        }
        // What they answer does not matter, nor whether they do.
        let _ = self.consumer.offsets_for_times(list, NUDGE);
    }
}
