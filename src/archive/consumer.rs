//! The consumer group: which partitions are ours, from where, and the queues that workers read them from.

use super::job::{Job, Start};
use super::lease::{Lease, Leases, TopicPartition, called};
use super::position::Position;
use super::queue::Queue;
use super::range::Fault;
use super::status::{Counters, Progress};
use super::table::Table;
use super::topic::{self, Tags, TopicId};
use super::worker::Unfinished;
use rdkafka::bindings as sys;
use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{Offset, TopicPartitionList};
use std::collections::{HashMap, HashSet};
use std::ffi::{CStr, CString};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

pub(super) type Consumer = BaseConsumer<Group>;

/// The longest that one question to the brokers may take.
pub(super) const ANSWER: Duration = Duration::from_secs(10);
/// Tries before a partition is given up, and with it this consumer: the next one begins anew.
const TRIES: u32 = 12;
/// Topics of Kafka's own, which patterns do not take, as Java's consumers do: a group's offsets would be messages that make offsets.
pub(super) const INTERNAL: [&str; 3] = ["__consumer_offsets", "__transaction_state", "__share_group_state"];

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
    tags: Option<Tags>,
    /// Which topic each name meant when a partition of it was taken over.
    topics: parking_lot::Mutex<HashMap<Arc<str>, TopicId>>,
    queues: OnceLock<Vec<QueueHandle>>,
    /// What cannot be helped here: the archiver begins anew, or ends.
    pub broken: parking_lot::Mutex<Option<Fault>>,
    pub assigned: AtomicBool,
    /// The archiver is told to stop.
    stop: Arc<AtomicBool>,
    /// Nobody polls this consumer any more.
    pub closing: AtomicBool,
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
        let positions = self.retry(|| committed(consumer, partitions))?;
        let names = positions.iter().map(|(at, _)| at.topic.clone()).collect();
        let ids = self.retry(|| topic::ids(consumer, &names))?;
        let mut starts = TopicPartitionList::new();
        let mut taken = Vec::with_capacity(positions.len());
        for (at, position) in positions {
            let ask = || consumer.fetch_watermarks(&at.topic, at.partition, ANSWER).map_err(|error| format!("{at}: {error}"));
            let (first, end) = self.retry(ask)?;
            let id = ids.get(&at.topic).copied();
            let mut position = in_topic(&at, position, id, (first, end));
            let tag = match (&self.tags, id) {
                (Some(tags), Some(id)) => self.retry(|| tags.of(&at.topic, id))?,
                _ => None,
            };
            if let Some(table) = &self.table {
                position = self.retry(|| table.take_over(&called(&at, tag.as_deref()), position, end))?;
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
            taken.push((at, tag, position, next, until));
        }
        self.topics.lock().extend(ids);
        let rk = consumer.client().native_ptr();
        // SAFETY: the client and the list are alive; librdkafka copies the list.
        done(unsafe { sys::rd_kafka_incremental_assign(rk, starts.ptr()) })?;
        // Paused until its worker has taken each partition over: what was fetched before is thrown away and fetched again.
        consumer.pause(&starts).map_err(|error| error.to_string())?;
        for (at, tag, position, next, until) in taken {
            self.lead_to_worker(consumer, &at)?;
            let progress = Progress { stored: next, read: next, ..Progress::default() };
            self.counters.partitions.lock().insert(at.clone(), progress);
            tracing::info!(partition = %at, offset = position.offset, planned_end = position.end, "taken over");
            let lease = self.leases.grant(at.clone(), tag);
            // A worker that has ended says why by itself.
            let (worker, unfinished) = &self.workers[self.worker_of(&at)];
            unfinished.told();
            let _ = worker.send(Control::Take { lease, position, next, until });
        }
        Ok(())
    }

    fn retry<T>(&self, ask: impl FnMut() -> Result<T, String>) -> Result<T, String> {
        retry(ask, || self.stop.load(Ordering::Acquire) || self.closing.load(Ordering::Acquire))
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

    /// Asks whether the topics of the partitions that are held are still those that were taken over: of one that was made anew, offsets mean nothing any more.
    pub fn look_at_topics(&self, consumer: &Consumer) {
        let known = self.topics.lock().clone();
        let held: HashSet<Arc<str>> = self.counters.partitions().into_keys().map(|at| at.topic).collect();
        match topic::ids(consumer, &held) {
            Ok(ids) => {
                if let Some(topic) = ids.iter().find_map(|(topic, id)| (known.get(topic)? != id).then_some(topic)) {
                    *self.broken.lock() = Some(Fault::Again(format!("topic={topic} was deleted and made anew")));
                }
            }
            Err(error) => tracing::debug!(error, "whether topics were made anew is asked again"),
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

/// The position that was committed, as it stands in the topic that has the name now.
fn in_topic(at: &TopicPartition, position: Position, id: Option<TopicId>, (first, end): (i64, i64)) -> Position {
    let Some(offset) = position.offset else { return Position { topic: id, ..Position::default() } };
    // From its beginning also where a topic that nobody has read before is begun at its end.
    let anew = Position { offset: Some(first), topic: id, ..Position::default() };
    match (position.topic, id) {
        (Some(before), Some(now)) if before != now => {
            tracing::warn!(partition = %at, offset, "the topic was made anew since the offset was committed: it is read from its beginning");
            anew
        }
        (Some(_), _) if offset > end => {
            tracing::error!(partition = %at, offset, end, "the topic has lost messages that were stored: what comes next is stored from its end on");
            Position { offset: Some(end), ..anew }
        }
        _ if offset > end => {
            tracing::warn!(partition = %at, offset, end, "the group's offset lies behind the topic's end, so it was made anew: it is read from its beginning");
            anew
        }
        _ => Position { topic: id, ..position },
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

/// Asks until there is an answer, or nobody needs one any more: this is where a run that stops would wait for minutes.
fn retry<T>(mut ask: impl FnMut() -> Result<T, String>, is_over: impl Fn() -> bool) -> Result<T, String> {
    for _ in 1..TRIES {
        if is_over() {
            return Err("the archiver stops".to_owned());
        }
        match ask() {
            Err(error) if !is_over() => {
                tracing::warn!(%error, "asked again");
                std::thread::sleep(Duration::from_millis(500));
            }
            answer => return answer,
        }
    }
    ask()
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
    tags: Option<Tags>,
    stop: &Arc<AtomicBool>,
) -> Result<(Arc<Consumer>, Vec<Queue>), String> {
    let group = Group {
        leases: leases.clone(),
        counters: counters.clone(),
        start: job.start,
        until_end: job.until_end,
        workers,
        table,
        tags,
        topics: parking_lot::Mutex::default(),
        queues: OnceLock::new(),
        broken: parking_lot::Mutex::new(None),
        assigned: AtomicBool::new(false),
        stop: stop.clone(),
        closing: AtomicBool::new(false),
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
    let hidden = INTERNAL.into_iter().filter(|internal| !job.topics.iter().any(|topic| topic == internal));
    let hidden = hidden.map(|topic| format!("^{topic}$")).collect::<Vec<_>>().join(",");
    // A worker's queue holds what comes while it encodes; the fetches in flight come on top.
    let queued_kbytes = (16 * 1024 / workers).max(2 * 1024).to_string();
    for (name, value) in [
        ("queued.max.messages.kbytes", &*queued_kbytes),
        ("fetch.max.bytes", "4194304"),
        ("fetch.wait.max.ms", "100"),
        // librdkafka waits a second by default when a queue was full: ours are small, and empty again in milliseconds.
        ("fetch.queue.backoff.ms", "5"),
        ("topic.metadata.refresh.interval.ms", "30000"),
        ("topic.blacklist", &*hidden),
    ] {
        if job.client.get(name).is_none() {
            config.set(name, value);
        }
    }
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_stops_asks_no_more() {
        let asked = std::cell::Cell::new(0);
        let ask = || {
            asked.set(asked.get() + 1);
            Err::<(), _>("no answer".to_owned())
        };
        // Told to stop while it waits for the first answer.
        assert_eq!(retry(ask, || asked.get() == 1), Err("no answer".to_owned()));
        assert_eq!(retry(ask, || true), Err("the archiver stops".to_owned()));
        assert_eq!(asked.get(), 1);
        assert_eq!(retry(|| Ok(7), || false), Ok(7));
    }

    #[test]
    fn a_position_holds_in_the_topic_that_it_was_committed_for() {
        let (before, now) = (TopicId::parse("1"), TopicId::parse("2"));
        let at = TopicPartition { topic: "t".into(), partition: 0 };
        let committed = |topic| Position { offset: Some(40), state: true, end: Some(50), topic, from_table: false };
        let place = |topic, id, end| {
            let found = in_topic(&at, committed(topic), id, (3, end));
            assert_eq!(found.topic, id);
            (found.offset, found.state, found.end)
        };
        let as_it_is = (Some(40), true, Some(50));
        assert_eq!(place(now, now, 60), as_it_is);
        assert_eq!(place(None, now, 60), as_it_is, "it was committed before ids were kept");
        assert_eq!(place(before, None, 40), as_it_is, "the brokers do not say");
        let from_the_beginning = (Some(3), false, None);
        assert_eq!(place(before, now, 60), from_the_beginning);
        assert_eq!(place(None, now, 39), from_the_beginning);
        assert_eq!(place(now, now, 39), (Some(39), false, None), "messages were lost");
        let nothing = in_topic(&at, Position::default(), now, (3, 60));
        assert_eq!((nothing.offset, nothing.topic), (None, now));
    }
}
