//! What a consumer group has committed, asked and changed from outside of the group.

use crate::connect::rest::PartitionOffset;
use rdkafka::bindings as sys;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};
use std::ffi::{CStr, CString, c_int};
use std::ptr::NonNull;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// The longest that one question to the brokers may take.
const ANSWER: Duration = Duration::from_secs(10);
const ANSWER_MS: c_int = 10_000;
/// Between two questions, while the brokers settle who coordinates the group.
const SETTLE: Duration = Duration::from_millis(100);

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
        let committed = patiently(kafka_code, || self.consumer.committed_offsets(partitions.clone(), ANSWER));
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
            let done = patiently(kafka_code, || self.consumer.commit(&moved, CommitMode::Sync));
            done.map_err(|error| format!("cannot commit: {error}"))?;
        }
        if forgotten.count() > 0 {
            let done = patiently(|refusal: &Refusal| Some(refusal.code.into()), || self.forget(&forgotten));
            done.map_err(|refusal| format!("cannot forget offsets: {}", refusal.reason))?;
        }
        Ok(())
    }

    /// The client has no safe call for this one.
    fn forget(&self, partitions: &TopicPartitionList) -> Result<(), Refusal> {
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
                None => Err(Refusal {
                    code: sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__TIMED_OUT,
                    reason: format!("the brokers do not answer within {ANSWER:?}"),
                }),
            };
            sys::rd_kafka_queue_destroy(queue);
            answer
        }
    }
}

/// What the brokers say when they do not do something.
struct Refusal {
    code: sys::rd_kafka_resp_err_t,
    reason: String,
}

fn kafka_code(error: &KafkaError) -> Option<RDKafkaErrorCode> {
    error.rdkafka_error_code()
}

/// Asks again, for as long as one answer may take, while the group's coordinator moves or starts: librdkafka finds the new one by itself, and hands
/// the refusal of the old one out all the same.
fn patiently<T, E>(code: impl Fn(&E) -> Option<RDKafkaErrorCode>, mut ask: impl FnMut() -> Result<T, E>) -> Result<T, E> {
    let started = Instant::now();
    loop {
        match ask() {
            Err(error) if code(&error).is_some_and(passes) && started.elapsed() < ANSWER => sleep(SETTLE),
            answer => return answer,
        }
    }
}

fn passes(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode::{CoordinatorLoadInProgress, CoordinatorNotAvailable, NotCoordinator, WaitingForCoordinator};
    matches!(code, NotCoordinator | CoordinatorNotAvailable | CoordinatorLoadInProgress | WaitingForCoordinator)
}

/// What came of deleting offsets: of the request, of the group, of each partition.
///
/// # Safety
/// `event` is the answer to `rd_kafka_DeleteConsumerGroupOffsets`, and alive.
unsafe fn answer(event: NonNull<sys::rd_kafka_event_t>) -> Result<(), Refusal> {
    const DONE: sys::rd_kafka_resp_err_t = sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR;
    let event = event.as_ptr();
    // SAFETY: each caller's text is alive, and is copied.
    let refused = |code, text| Err(Refusal { code, reason: unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned() });
    // SAFETY: the event is alive, and everything that is read here belongs to it; texts are copied.
    unsafe {
        let code = sys::rd_kafka_event_error(event);
        if code != DONE {
            return refused(code, sys::rd_kafka_event_error_string(event));
        }
        let result = sys::rd_kafka_event_DeleteConsumerGroupOffsets_result(event);
        let mut count = 0;
        let groups = sys::rd_kafka_DeleteConsumerGroupOffsets_result_groups(result, &raw mut count);
        for index in 0..count {
            let group = *groups.add(index);
            let error = sys::rd_kafka_group_result_error(group);
            if !error.is_null() {
                return refused(sys::rd_kafka_error_code(error), sys::rd_kafka_error_string(error));
            }
            let Some(partitions) = sys::rd_kafka_group_result_partitions(group).as_ref() else { continue };
            for at in 0..usize::try_from(partitions.cnt).unwrap_or(0) {
                let code = (*partitions.elems.add(at)).err;
                if code != DONE {
                    return refused(code, sys::rd_kafka_err2str(code));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_coordinator_that_moves_is_asked_again_and_another_refusal_is_told_at_once() {
        let moves = || Err(KafkaError::ConsumerCommit(RDKafkaErrorCode::NotCoordinator));
        let mut answers = [moves(), moves(), Ok(7)].into_iter();
        assert_eq!(patiently(kafka_code, || answers.next().unwrap()), Ok(7));
        let refused = KafkaError::ConsumerCommit(RDKafkaErrorCode::GroupAuthorizationFailed);
        let mut answers = [Err(refused.clone()), Ok(7)].into_iter();
        assert_eq!(patiently(kafka_code, || answers.next().unwrap()), Err(refused));
    }
}
