//! The queue that a worker reads the messages of its partitions from.

use super::consumer::Consumer;
use super::encoder::{Headers, Message};
use super::lease::TopicPartition;
use rdkafka::bindings as sys;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::types::RDKafkaRespErr;
use std::collections::HashMap;
use std::ffi::{CStr, CString, c_int};
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::time::Duration;

/// Messages that a worker takes at one time, and about how many bytes: what it has taken, librdkafka does not count any more and fetches anew.
const BATCH: usize = 1_024;
const BATCH_BYTES: usize = 4 << 20;

/// A worker's queue.
pub(super) struct Queue {
    pub native: NonNull<sys::rd_kafka_queue_t>,
    /// The queue lives no longer than its client.
    consumer: Arc<Consumer>,
    batch: Vec<*mut sys::rd_kafka_message_t>,
    /// Of the messages that came last.
    mean_bytes: usize,
    names: HashMap<usize, Arc<str>>,
}

// SAFETY: librdkafka's handles may be used from any thread.
unsafe impl Send for Queue {}

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: made by `rd_kafka_queue_new` and given back once.
        unsafe { sys::rd_kafka_queue_destroy(self.native.as_ptr()) };
    }
}

/// What came out of a queue.
pub(super) enum Received<'a> {
    Message(Message<'a>),
    /// Something that passes, or that the group's own poll tells of too.
    Error(String),
}

impl Queue {
    pub fn new(consumer: &Arc<Consumer>) -> Result<Queue, String> {
        // SAFETY: the client is alive.
        let native = NonNull::new(unsafe { sys::rd_kafka_queue_new(consumer.client().native_ptr()) }).ok_or("no memory")?;
        Ok(Queue {
            native,
            consumer: consumer.clone(),
            batch: vec![ptr::null_mut(); BATCH],
            mean_bytes: 0,
            names: HashMap::new(),
        })
    }

    /// Waits for messages, and shows each to `each` with its topic.
    pub fn receive(&mut self, wait: Duration, mut each: impl FnMut(&Arc<str>, Received<'_>)) {
        let wait = c_int::try_from(wait.as_millis()).unwrap_or(c_int::MAX);
        let most = (BATCH_BYTES / self.mean_bytes.max(1)).clamp(1, BATCH);
        // SAFETY: the queue is alive, and the array has room for so many.
        let count = unsafe { sys::rd_kafka_consume_batch_queue(self.native.as_ptr(), wait, self.batch.as_mut_ptr(), most) };
        // All are given back at the end, also when `each` panics.
        let received = Owned(&self.batch[..usize::try_from(count).unwrap_or(0)]);
        let mut last: (usize, Option<Arc<str>>) = (0, None);
        let mut bytes = 0;
        for &native in received.0 {
            // SAFETY: librdkafka filled so many of the array with messages, which are ours until they are destroyed.
            let message = unsafe { &*native };
            bytes += message.len;
            if last.0 != message.rkt as usize || last.1.is_none() {
                last = (
                    message.rkt as usize,
                    Some(self.names.entry(message.rkt as usize).or_insert_with(|| name_of(message.rkt)).clone()),
                );
            }
            let Some(topic) = &last.1 else { continue };
            each(topic, view(topic, message, native));
        }
        if !received.0.is_empty() {
            self.mean_bytes = bytes / received.0.len();
        }
    }

    /// The offset behind the newest message, as the last fetch said.
    pub fn newest(&self, at: &TopicPartition) -> Option<i64> {
        let topic = CString::new(&*at.topic).ok()?;
        let (mut low, mut high) = (0, 0);
        // SAFETY: the client is alive, the name ends in NUL, and both numbers have room.
        let error = unsafe {
            sys::rd_kafka_get_watermark_offsets(
                self.consumer.client().native_ptr(),
                topic.as_ptr(),
                at.partition,
                &mut low,
                &mut high,
            )
        };
        (error == RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR && high >= 0).then_some(high)
    }
}

fn name_of(topic: *const sys::rd_kafka_topic_t) -> Arc<str> {
    if topic.is_null() {
        return "".into();
    }
    // SAFETY: a message keeps its topic alive, whose name ends in NUL.
    unsafe { CStr::from_ptr(sys::rd_kafka_topic_name(topic)) }.to_string_lossy().into()
}

struct Owned<'a>(&'a [*mut sys::rd_kafka_message_t]);

impl Drop for Owned<'_> {
    fn drop(&mut self) {
        // SAFETY: each is a message of ours that was not given back yet.
        self.0.iter().for_each(|message| unsafe { sys::rd_kafka_message_destroy(*message) });
    }
}

fn view<'a>(topic: &'a str, message: &'a sys::rd_kafka_message_t, native: *mut sys::rd_kafka_message_t) -> Received<'a> {
    match message.err {
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR => {}
        error => return Received::Error(RDKafkaErrorCode::from(error).to_string()),
    }
    let mut kind = sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
    // SAFETY: the message is alive.
    let timestamp = unsafe { sys::rd_kafka_message_timestamp(native, &mut kind) };
    // SAFETY: the message says how many bytes are there, and they live as long as it.
    let bytes = |start: *mut std::ffi::c_void, len: usize| unsafe {
        (!start.is_null()).then(|| std::slice::from_raw_parts(start.cast::<u8>().cast_const(), len))
    };
    // SAFETY: as `message`, which borrows the same.
    let headers: &'a NativeHeaders = unsafe { &*native.cast::<NativeHeaders>() };
    Received::Message(Message {
        topic,
        partition: message.partition,
        offset: message.offset,
        timestamp: (timestamp >= 0).then_some(timestamp),
        key: bytes(message.key, message.key_len),
        value: bytes(message.payload, message.len),
        headers,
    })
}

/// A message of librdkafka's, for its headers.
#[repr(transparent)]
struct NativeHeaders(sys::rd_kafka_message_t);

impl Headers for NativeHeaders {
    fn visit(&self, visitor: &mut dyn FnMut(&str, Option<&[u8]>) -> bool) {
        let mut headers = ptr::null_mut();
        // SAFETY: the message is alive, and so are its headers while it is borrowed.
        let error = unsafe { sys::rd_kafka_message_headers(&raw const self.0, &mut headers) };
        if error != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
            return;
        }
        for index in 0.. {
            let (mut name, mut value, mut len) = (ptr::null(), ptr::null(), 0);
            // SAFETY: as above; what it returns lives as long as the headers, the name ends in NUL, the value has `len` bytes.
            let (name, value) = unsafe {
                let error = sys::rd_kafka_header_get_all(headers, index, &mut name, &mut value, &mut len);
                if error != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
                    return;
                }
                let value = (!value.is_null()).then(|| std::slice::from_raw_parts(value.cast::<u8>(), len));
                (CStr::from_ptr(name).to_string_lossy(), value)
            };
            if !visitor(&name, value) {
                return;
            }
        }
    }
}
