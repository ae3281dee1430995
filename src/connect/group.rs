//! What a consumer group has committed, asked and changed from outside of the group.

use crate::connect::rest::PartitionOffset;
use rdkafka::bindings as sys;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::{Offset, TopicPartitionList};
use std::ffi::{CStr, CString, c_int};
use std::ptr::NonNull;
use std::time::Duration;

/// The longest that one question to the brokers may take.
const ANSWER: Duration = Duration::from_secs(10);
const ANSWER_MS: c_int = 10_000;

/// A group, seen by somebody who is not in it.
pub(super) struct Group {
    name: CString,
    consumer: BaseConsumer,
}

impl Group {
    /// # Errors
    /// The client's settings are wrong.
    pub fn open(client: &ClientConfig, name: &str) -> Result<Group, String> {
        let consumer = client.clone().set("group.id", name).set("enable.auto.commit", "false").create();
        let consumer = consumer.map_err(|error| format!("group={name}: cannot make a client: {error}"))?;
        let name = CString::new(name).map_err(|_| format!("group={name:?} has a NUL character"))?;
        Ok(Group { name, consumer })
    }

    /// Each topic partition that something is committed for.
    ///
    /// # Errors
    /// The brokers do not answer, or refuse it.
    pub fn committed(&self) -> Result<Vec<PartitionOffset>, String> {
        let metadata = self.consumer.fetch_metadata(None, ANSWER).map_err(|error| format!("cannot list topics: {error}"))?;
        let mut partitions = TopicPartitionList::new();
        for topic in metadata.topics() {
            for partition in topic.partitions() {
                partitions.add_partition(topic.name(), partition.id());
            }
        }
        if partitions.count() == 0 {
            return Ok(Vec::new());
        }
        let committed = self.consumer.committed_offsets(partitions, ANSWER);
        let committed = committed.map_err(|error| format!("cannot read what the group has committed: {error}"))?;
        let known = committed.elements().into_iter().filter_map(|element| match element.offset() {
            Offset::Offset(offset) => {
                Some(PartitionOffset { topic: element.topic().to_owned(), partition: element.partition(), offset: Some(offset) })
            }
            _ => None,
        });
        Ok(known.collect())
    }

    /// Commits offsets, and forgets those that are `None`. Nobody may be in the group.
    ///
    /// # Errors
    /// The brokers do not answer, or refuse it.
    pub fn alter(&self, changes: &[PartitionOffset]) -> Result<(), String> {
        let (mut moved, mut forgotten) = (TopicPartitionList::new(), TopicPartitionList::new());
        for change in changes {
            match change.offset {
                Some(offset) => {
                    let added = moved.add_partition_offset(&change.topic, change.partition, Offset::Offset(offset));
                    added.map_err(|error| format!("kafka_offset={offset}: {error}"))?;
                }
                None => drop(forgotten.add_partition(&change.topic, change.partition)),
            }
        }
        if moved.count() > 0 {
            // The text beside an offset, a plan of the archiver's, goes with the old offset.
            self.consumer.commit(&moved, CommitMode::Sync).map_err(|error| format!("cannot commit: {error}"))?;
        }
        if forgotten.count() > 0 { self.forget(&forgotten) } else { Ok(()) }
    }

    /// The client has no safe call for this one.
    fn forget(&self, partitions: &TopicPartitionList) -> Result<(), String> {
        let native = self.consumer.client().native_ptr();
        // SAFETY: the client lives as long as `self`; a queue of it is destroyed before it (at the end of this call).
        let queue = unsafe { sys::rd_kafka_queue_new(native) };
        // SAFETY: the name and the list live through the call, which copies them.
        let mut request = unsafe { sys::rd_kafka_DeleteConsumerGroupOffsets_new(self.name.as_ptr(), partitions.ptr()) };
        // SAFETY: all are alive; the call copies the request; no options stands for the defaults. The event is read by `answer` alone.
        unsafe {
            sys::rd_kafka_DeleteConsumerGroupOffsets(native, &raw mut request, 1, std::ptr::null(), queue);
            sys::rd_kafka_DeleteConsumerGroupOffsets_destroy(request);
            let answer = match NonNull::new(sys::rd_kafka_queue_poll(queue, ANSWER_MS)) {
                Some(event) => {
                    let answer = answer(event);
                    sys::rd_kafka_event_destroy(event.as_ptr());
                    answer
                }
                None => Err(format!("the brokers do not answer within {ANSWER:?}")),
            };
            sys::rd_kafka_queue_destroy(queue);
            answer.map_err(|error| format!("cannot forget offsets: {error}"))
        }
    }
}

/// What came of deleting offsets: of the request, of the group, of each partition.
///
/// # Safety
/// `event` is the answer to `rd_kafka_DeleteConsumerGroupOffsets`, and alive.
unsafe fn answer(event: NonNull<sys::rd_kafka_event_t>) -> Result<(), String> {
    let event = event.as_ptr();
    // SAFETY: the event is alive, and everything that is read here belongs to it; texts are copied.
    unsafe {
        if sys::rd_kafka_event_error(event) != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Err(CStr::from_ptr(sys::rd_kafka_event_error_string(event)).to_string_lossy().into_owned());
        }
        let result = sys::rd_kafka_event_DeleteConsumerGroupOffsets_result(event);
        let mut count = 0;
        let groups = sys::rd_kafka_DeleteConsumerGroupOffsets_result_groups(result, &raw mut count);
        for index in 0..count {
            let group = *groups.add(index);
            let error = sys::rd_kafka_group_result_error(group);
            if !error.is_null() {
                return Err(CStr::from_ptr(sys::rd_kafka_error_string(error)).to_string_lossy().into_owned());
            }
            let Some(partitions) = sys::rd_kafka_group_result_partitions(group).as_ref() else { continue };
            for at in 0..usize::try_from(partitions.cnt).unwrap_or(0) {
                let error = (*partitions.elems.add(at)).err;
                if error != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
                    return Err(CStr::from_ptr(sys::rd_kafka_err2str(error)).to_string_lossy().into_owned());
                }
            }
        }
        Ok(())
    }
}
