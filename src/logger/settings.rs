//! What a logger can be told.

use crate::lane::BUFFERS;
use bytesize::ByteSize;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The queue between `log()` and the sink: `[logger]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LoggerSettings {
    /// What an accepted record survives.
    pub durability: Durability,
    /// What happens when records come faster than the sink takes them.
    pub overflow: Overflow,
    /// With `overflow = "block"`: the longest that a call of `log()` waits before it drops.
    #[serde(with = "humantime_serde")]
    pub block_limit: Duration,
    /// Memory for records that wait, all of it reserved at start.
    pub queue_bytes: ByteSize,
    /// The number of lanes, 1 to 64. Not set: one for each core, up to 8.
    pub lanes: Option<usize>,
    /// A record longer than this is kept with its largest fields replaced by their digests.
    pub max_record_bytes: ByteSize,
    /// The most that the spool may take on disk.
    pub spool_max_bytes: ByteSize,
}

impl Default for LoggerSettings {
    fn default() -> Self {
        LoggerSettings {
            durability: Durability::Process,
            overflow: Overflow::Spill,
            block_limit: Duration::from_millis(10),
            queue_bytes: ByteSize::mib(64),
            lanes: None,
            max_record_bytes: ByteSize::mib(1),
            spool_max_bytes: ByteSize::gib(1),
        }
    }
}

/// What an accepted record survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// Nothing: lanes on the heap. For read-only file systems.
    Memory,
    /// A kill of the process: lanes in a mapped file, which the kernel keeps.
    Process,
    /// A loss of power: the lanes are synced every few milliseconds; [`wait_durable`](crate::Logger::wait_durable) waits for it.
    Fsync,
}

/// What happens when the lanes are full or the sink is down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Overflow {
    /// The worker writes to the spool what the sink does not take, and gives it to the sink later. `log()` drops only when that is too slow or full.
    Spill,
    /// `log()` drops.
    Drop,
    /// `log()` waits, up to `block_limit`, and then drops.
    Block,
}

impl LoggerSettings {
    /// How many lanes, and how many bytes each of their buffers has. A buffer takes at least one record of any size that is kept.
    pub(crate) fn lane_shape(&self) -> (usize, usize) {
        // A record may pass the limit by its envelope: names, ids and metadata.
        let record = self.max_record_bytes.as_u64() as usize + 16 * 1024;
        let queue = self.queue_bytes.as_u64() as usize;
        let wanted =
            self.lanes.unwrap_or_else(|| std::thread::available_parallelism().map_or(4, |cores| cores.get().clamp(2, 8)));
        let lanes = wanted.min(queue / (BUFFERS * record)).clamp(1, crate::lane::MAX_LANES);
        // Whole pages; and never less than a record needs, even where queue_bytes is less than a few of them.
        let buffer = (queue / (BUFFERS * lanes)).max(record + 1024).next_multiple_of(4096);
        (lanes, buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_always_takes_the_largest_record() {
        for queue in [0, 1 << 20, 3 << 20, 64 << 20, 1 << 30] {
            for lanes in [None, Some(1), Some(64)] {
                let settings = LoggerSettings { queue_bytes: ByteSize::b(queue), lanes, ..LoggerSettings::default() };
                let (count, buffer) = settings.lane_shape();
                assert!(crate::lane::Lanes::max_line(buffer) >= settings.max_record_bytes.as_u64() as usize + 16 * 1024);
                assert!((1..=64).contains(&count));
                assert!(
                    count == 1 || (count * BUFFERS * buffer) as u64 <= queue + (count * BUFFERS) as u64 * 4096,
                    "{count} x {BUFFERS} x {buffer} > {queue}"
                );
            }
        }
    }
}
