//! The consumer group: which partitions are ours, from where, and the queues that workers read them from.

use super::encoder::{Headers, Message};
use super::job::{Job, Start};
use super::lease::{Lease, Leases, TopicPartition};
use super::position::Position;
use super::range::Fault;
use super::status::{Counters, Progress};
use super::table::Table;
use super::worker::Unfinished;
use rdkafka::bindings as sys;
use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{Offset, TopicPartitionList};
use std::collections::HashMap;
use std::ffi::{CStr, CString, c_int};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

pub(super) type Consumer = BaseConsumer<Group>;

/// The longest that one question to the brokers may take.
pub(super) const ANSWER: Duration = Duration::from_secs(10);
/// Tries before a partition is given up, and with it this consumer: the next one begins anew.
const TRIES: u32 = 12;
/// Messages that a worker takes at one time, and about how many bytes: what it has taken, librdkafka does not count any more and fetches anew.
const BATCH: usize = 1_024;
const BATCH_BYTES: usize = 4 << 20;

/// What a worker is told.
#[derive(Debug)]
pub(super) enum Control {
    /// A partition is ours, from this position.
    Take {
        lease: Lease,
        position: Position,
        /// The offset that it is read from.
        next: i64,
        /// Where it ends, for a run that ends.
        until: Option<i64>,
    },
    /// A partition is not ours any more.
    Drop(TopicPartition),
    /// No more messages will come.
    Stop,
}

/// A worker, as the group tells it what to do.
type Told = (Sender<Control>, Arc<Unfinished>);

/// The consumer's context: takes partitions over and gives them away.
pub(super) struct Group {
    pub leases: Arc<Leases>,
    counters: Arc<Counters>,
    start: Start,
    until_end: bool,
    workers: Vec<Told>,
    table: Option<Arc<Table>>,
    queues: OnceLock<Vec<QueueHandle>>,
    /// What cannot be helped here: the archiver begins anew, or ends.
    pub broken: parking_lot::Mutex<Option<Fault>>,
    pub assigned: AtomicBool,
}

/// A worker's queue as the group sees it.
struct QueueHandle(NonNull<sys::rd_kafka_queue_t>);

// SAFETY: librdkafka's queues may be used from any thread; workers keep theirs alive until the group is polled no more.
unsafe impl Send for QueueHandle {}
// SAFETY: as above.
unsafe impl Sync for QueueHandle {}

impl ClientContext for Group {
    fn log(&self, level: RDKafkaLogLevel, fac: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => tracing::error!(fac, "{message}"),
            RDKafkaLogLevel::Error | RDKafkaLogLevel::Warning => tracing::warn!(fac, "{message}"),
            _ => tracing::debug!(fac, "{message}"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "the consumer reports an error");
    }
}

impl ConsumerContext for Group {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, event: RDKafkaRespErr, partitions: &mut TopicPartitionList) {
        match event {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => {
                if let Err(why) = self.take(consumer, partitions) {
                    *self.broken.lock() = Some(Fault::Again(why));
                }
                self.assigned.store(true, Ordering::Release);
            }
            _ => self.give_away(consumer, partitions),
        }
    }
}

impl Group {
    fn take(&self, consumer: &Consumer, partitions: &TopicPartitionList) -> Result<(), String> {
        let positions = retry(|| committed(consumer, partitions))?;
        let mut starts = TopicPartitionList::new();
        let mut taken = Vec::with_capacity(positions.len());
        for (at, mut position) in positions {
            let ask = || consumer.fetch_watermarks(&at.topic, at.partition, ANSWER).map_err(|error| format!("{at}: {error}"));
            let (first, end) = retry(ask)?;
            if let Some(table) = &self.table {
                position = retry(|| table.take_over(&at, position, end))?;
            }
            let next = match (position.offset, self.start) {
                (Some(offset), _) if offset < first => {
                    tracing::error!(partition = %at, lost = first - offset, "messages were deleted by the topic's retention before they were stored");
                    first
                }
                (Some(offset), _) => offset,
                (None, Start::Earliest) => first,
                (None, Start::Latest) => end,
            };
            starts.add_partition_offset(&at.topic, at.partition, Offset::Offset(next)).map_err(|error| error.to_string())?;
            let until = self.until_end.then(|| end.max(next));
            taken.push((at, position, next, until));
        }
        let rk = consumer.client().native_ptr();
        // SAFETY: the client and the list are alive; librdkafka copies the list.
        done(unsafe { sys::rd_kafka_incremental_assign(rk, starts.ptr()) })?;
        // Paused until its worker has taken each partition over: what was fetched before is thrown away and fetched again.
        consumer.pause(&starts).map_err(|error| error.to_string())?;
        for (at, position, next, until) in taken {
            self.lead_to_worker(consumer, &at)?;
            let progress = Progress { stored: next, read: next, ..Progress::default() };
            self.counters.partitions.lock().insert(at.clone(), progress);
            tracing::info!(partition = %at, offset = position.offset, planned_end = position.end, "taken over");
            let lease = self.leases.grant(at.clone());
            // A worker that has ended says why by itself.
            let (worker, unfinished) = &self.workers[self.worker_of(&at)];
            unfinished.told();
            let _ = worker.send(Control::Take { lease, position, next, until });
        }
        Ok(())
    }

    fn give_away(&self, consumer: &Consumer, partitions: &TopicPartitionList) {
        for element in partitions.elements() {
            let at = TopicPartition { topic: element.topic().into(), partition: element.partition() };
            self.leases.revoke(&at);
            self.counters.partitions.lock().remove(&at);
            tracing::info!(partition = %at, "given away");
            let _ = self.workers[self.worker_of(&at)].0.send(Control::Drop(at));
        }
        // SAFETY: the client and the list are alive; librdkafka copies the list.
        if let Err(why) = done(unsafe { sys::rd_kafka_incremental_unassign(consumer.client().native_ptr(), partitions.ptr()) }) {
            *self.broken.lock() = Some(Fault::Again(why));
        }
    }

    fn worker_of(&self, at: &TopicPartition) -> usize {
        // Neighbouring partitions to different workers; any topic to any.
        let topic: usize = at.topic.bytes().map(usize::from).sum();
        (topic + at.partition.unsigned_abs() as usize) % self.workers.len()
    }

    fn lead_to_worker(&self, consumer: &Consumer, at: &TopicPartition) -> Result<(), String> {
        let topic = CString::new(&*at.topic).map_err(|error| error.to_string())?;
        let queue = self.queues.get().and_then(|queues| queues.get(self.worker_of(at))).ok_or("the consumer has no queues")?;
        // SAFETY: the client is alive, the name ends in NUL, and the reference to the partition's queue is given back at once.
        unsafe {
            let from = sys::rd_kafka_queue_get_partition(consumer.client().native_ptr(), topic.as_ptr(), at.partition);
            if from.is_null() {
                return Err(format!("{at}: librdkafka has no queue for it"));
            }
            sys::rd_kafka_queue_forward(from, queue.0.as_ptr());
            sys::rd_kafka_queue_destroy(from);
        }
        Ok(())
    }
}

fn committed(consumer: &Consumer, partitions: &TopicPartitionList) -> Result<Vec<(TopicPartition, Position)>, String> {
    let asked = consumer.committed_offsets(partitions.clone(), ANSWER).map_err(|error| format!("committed offsets: {error}"))?;
    asked
        .elements()
        .into_iter()
        .map(|element| {
            let at = TopicPartition { topic: element.topic().into(), partition: element.partition() };
            element.error().map_err(|error| format!("{at}: committed offset: {error}"))?;
            let position = match element.offset() {
                Offset::Offset(offset) => Position::parse(offset, element.metadata()),
                _ => Position::default(),
            };
            Ok((at, position))
        })
        .collect()
}

fn retry<T>(mut ask: impl FnMut() -> Result<T, String>) -> Result<T, String> {
    let mut tries = 1;
    loop {
        match ask() {
            Err(error) if tries < TRIES => {
                tracing::warn!(%error, "asked again");
                tries += 1;
                std::thread::sleep(Duration::from_millis(500));
            }
            answer => return answer,
        }
    }
}

fn done(error: *mut sys::rd_kafka_error_t) -> Result<(), String> {
    if error.is_null() {
        return Ok(());
    }
    // SAFETY: not null, so an error of ours, with a text that lives as long as it.
    unsafe {
        let text = CStr::from_ptr(sys::rd_kafka_error_string(error)).to_string_lossy().into_owned();
        sys::rd_kafka_error_destroy(error);
        Err(text)
    }
}

/// Joins the group: nothing comes before the consumer is polled.
pub(super) fn join(
    job: &Job,
    leases: &Arc<Leases>,
    counters: &Arc<Counters>,
    workers: Vec<Told>,
    table: Option<Arc<Table>>,
) -> Result<(Arc<Consumer>, Vec<Queue>), String> {
    let group = Group {
        leases: leases.clone(),
        counters: counters.clone(),
        start: job.start,
        until_end: job.until_end,
        workers,
        table,
        queues: OnceLock::new(),
        broken: parking_lot::Mutex::new(None),
        assigned: AtomicBool::new(false),
    };
    let count = group.workers.len();
    let consumer: Arc<Consumer> =
        Arc::new(config(job, count).create_with_context(group).map_err(|error| format!("cannot make the consumer: {error}"))?);
    let queues: Vec<Queue> = (0..count).map(|_| Queue::new(&consumer)).collect::<Result<_, _>>()?;
    let handles = queues.iter().map(|queue| QueueHandle(queue.native)).collect();
    // Set once, here.
    let _ = consumer.context().queues.set(handles);
    let topics: Vec<&str> = job.topics.iter().map(String::as_str).collect();
    consumer.subscribe(&topics).map_err(|error| format!("topics={:?}: {error}", job.topics))?;
    Ok((consumer, queues))
}

/// Properties that exactly once depends on.
fn promised(job: &Job) -> [(&'static str, &str); 7] {
    [
        ("group.id", &job.group),
        ("enable.auto.commit", "false"),
        ("enable.auto.offset.store", "false"),
        ("auto.offset.reset", if job.start == Start::Earliest { "earliest" } else { "latest" }),
        ("partition.assignment.strategy", "cooperative-sticky"),
        ("isolation.level", "read_committed"),
        // librdkafka counts the event at a partition's end as a message when it reads in batches: after a pause, which each rebalance is, it then
        // leaves out the message that comes at that offset (seen with 2.12.1, in `rd_kafka_q_serve_rkmessages`).
        ("enable.partition.eof", "false"),
    ]
}

/// # Errors
/// A property that was given and contradicts what the archiver needs.
pub(super) fn check(job: &Job) -> Result<(), String> {
    for (name, value) in promised(job) {
        if let Some(given) = job.client.get(name).filter(|given| *given != value) {
            return Err(format!(
                "kafka.properties.\"{name}\"={given:?} conflicts with {value:?}, which an archiver needs: remove the property"
            ));
        }
    }
    Ok(())
}

fn config(job: &Job, workers: usize) -> ClientConfig {
    let mut config = job.client.clone();
    for (name, value) in promised(job) {
        config.set(name, value);
    }
    // A worker's queue holds what comes while it encodes; the fetches in flight come on top.
    let queued_kbytes = (16 * 1024 / workers).max(2 * 1024).to_string();
    for (name, value) in [
        ("queued.max.messages.kbytes", &*queued_kbytes),
        ("fetch.max.bytes", "4194304"),
        ("fetch.wait.max.ms", "100"),
        // librdkafka waits a second by default when a queue was full: ours are small, and empty again in milliseconds.
        ("fetch.queue.backoff.ms", "5"),
        ("topic.metadata.refresh.interval.ms", "30000"),
    ] {
        if job.client.get(name).is_none() {
            config.set(name, value);
        }
    }
    config
}

/// A worker's queue.
pub(super) struct Queue {
    native: NonNull<sys::rd_kafka_queue_t>,
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
    fn new(consumer: &Arc<Consumer>) -> Result<Queue, String> {
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
