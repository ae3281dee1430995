//! A thread that asks the brokers, so that the worker never waits for them: whether they answer, and for topics that are missing.

use super::produce::Producer;
use super::settings::KafkaSettings;
use crate::sink::broker::answer::Answer;
use parking_lot::Mutex;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::producer::Producer as _;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The longest that brokers may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// How often topics that are missing are looked for while records for them come.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Topics that are known to be missing: whoever posts predictions may name any number of models.
const MAX_MISSING: usize = 10_000;

/// More than the errors that come with one failed connection.
const EVENTS: usize = 16;

enum Request {
    Ask(Arc<Producer>, Option<String>),
    Create(String),
    Ledger(Arc<Producer>, String),
    Look(Arc<Producer>, Vec<String>),
}

/// Why topics are not there, by their names.
pub(super) type Missing = Arc<HashMap<String, String>>;

#[derive(Default)]
struct Shared {
    brokers: Answer,
    /// Why the last topic could not be made.
    not_created: Mutex<Option<String>>,
    ledger: Answer,
    missing: Mutex<Missing>,
}

/// The thread's handle. It ends when this is dropped, after the request at hand.
pub(super) struct Prober {
    requests: Option<Sender<Request>>,
    shared: Arc<Shared>,
    looked: Option<Instant>,
    thread: Option<JoinHandle<()>>,
}

impl std::fmt::Debug for Prober {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Prober")
    }
}

impl Prober {
    pub(super) fn start(config: ClientConfig, settings: &KafkaSettings) -> std::io::Result<Self> {
        let (requests, received) = channel();
        let shared = Arc::new(Shared::default());
        let answers = Arc::clone(&shared);
        let create = settings.create_topics;
        let creator = Creator { config, partitions: settings.partitions, replication: settings.replication, client: None };
        let thread = crate::thread::spawn("predlog-kafka", move || {
            let mut creator = creator;
            for request in received {
                match request {
                    Request::Ask(producer, topic) => {
                        answers.brokers.give(ask(&producer, topic.as_deref(), ANSWER_WITHIN));
                    }
                    Request::Create(topic) => *answers.not_created.lock() = creator.create(&topic).err(),
                    Request::Ledger(producer, topic) => {
                        let there = if create {
                            creator.create_and_see(&producer, &topic)
                        } else {
                            ask(&producer, Some(&topic), ANSWER_WITHIN)
                        };
                        answers.ledger.give(there);
                    }
                    Request::Look(producer, mut topics) => {
                        topics.extend(answers.missing.lock().keys().cloned());
                        topics.truncate(MAX_MISSING);
                        if !topics.is_empty()
                            && let Some(missing) = creator.missing(&producer, topics, create)
                        {
                            *answers.missing.lock() = Arc::new(missing);
                        }
                    }
                }
            }
        })?;
        Ok(Prober { requests: Some(requests), shared, looked: None, thread: Some(thread) })
    }

    /// Whether the brokers answer. Waits for `patience`; an answer that comes later is given to the next call.
    pub(super) fn probe(&self, producer: &Arc<Producer>, topic: Option<&str>, patience: Duration) -> Result<(), String> {
        let ask = || self.send(Request::Ask(Arc::clone(producer), topic.map(str::to_owned)));
        match self.shared.brokers.within(patience, ask) {
            Some(Err(why)) => Err(self.shared.not_created.lock().as_ref().map_or(why.clone(), |topic| format!("{why}; {topic}"))),
            Some(Ok(())) => Ok(()),
            None => Err("the brokers have not answered yet".to_owned()),
        }
    }

    /// Whether the ledger's topic is there, after it was made if it may be. `None`: the brokers have not answered within `patience`.
    pub(super) fn ledger(&self, producer: &Arc<Producer>, topic: &str, patience: Duration) -> Option<Result<(), String>> {
        self.shared.ledger.within(patience, || self.send(Request::Ledger(Arc::clone(producer), topic.to_owned())))
    }

    /// Looks for topics that took no message, and again for those that were missing before.
    pub(super) fn look_for(&mut self, producer: &Arc<Producer>, topics: impl IntoIterator<Item = String>) {
        self.looked = Some(Instant::now());
        self.send(Request::Look(Arc::clone(producer), topics.into_iter().collect()));
    }

    /// Topics that the brokers say are not there. They are looked for again now and then.
    pub(super) fn missing(&mut self, producer: &Arc<Producer>) -> Missing {
        let missing = Arc::clone(&self.shared.missing.lock());
        if !missing.is_empty() && self.looked.is_none_or(|at| at.elapsed() > LOOK_EVERY) {
            self.look_for(producer, []);
        }
        missing
    }

    /// Makes a topic, if it is not there.
    pub(super) fn create(&self, topic: &str) {
        self.send(Request::Create(topic.to_owned()));
    }

    fn send(&self, request: Request) {
        // The thread ends only when `requests` is dropped.
        if let Some(requests) = &self.requests
            && requests.send(request).is_err()
        {
            tracing::error!("the thread that asks the Kafka brokers has ended");
        }
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        self.requests = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that asks the Kafka brokers panicked");
        }
    }
}

/// How an error begins that says that no broker was reached.
pub(super) const NO_ANSWER: &str = "the brokers do not answer";

/// Whether a broker answers, and has the topic.
pub(super) fn ask(producer: &Producer, topic: Option<&str>, within: Duration) -> Result<(), String> {
    let metadata = producer.client().fetch_metadata(topic, within).map_err(|error| {
        // Why, librdkafka says in an event of its own, and that comes by a poll.
        (0..EVENTS).for_each(|_| producer.poll(Duration::ZERO));
        let why = producer.context().last_error().map_or_else(String::new, |why| format!(": {why}"));
        format!("{NO_ANSWER}: {error}{why}")
    })?;
    let Some(topic) = topic else { return Ok(()) };
    let Some(found) = metadata.topics().iter().find(|found| found.name() == topic) else {
        return Err(format!("topic={topic}: the brokers say nothing about it"));
    };
    match found.error().map(RDKafkaErrorCode::from) {
        None => Ok(()),
        Some(RDKafkaErrorCode::UnknownTopicOrPartition) => Err(does_not_exist(topic)),
        // An election is under way: producing waits for its end.
        Some(RDKafkaErrorCode::LeaderNotAvailable) => Ok(()),
        Some(code) => Err(format!("topic={topic}: {code}")),
    }
}

/// Why a topic could not be made; `for_good` when asking again changes nothing.
struct NotCreated {
    why: String,
    for_good: bool,
}

fn is_refusal(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::InvalidTopic
            | RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::ClusterAuthorizationFailed
            | RDKafkaErrorCode::PolicyViolation
            | RDKafkaErrorCode::InvalidPartitions
            | RDKafkaErrorCode::InvalidReplicationFactor
    )
}

fn does_not_exist(topic: &str) -> String {
    format!("topic={topic} does not exist: create it, or set kafka.create_topics = true")
}

/// Makes topics.
pub(super) struct Creator {
    pub(super) config: ClientConfig,
    pub(super) partitions: u32,
    pub(super) replication: u16,
    pub(super) client: Option<AdminClient<DefaultClientContext>>,
}

impl Creator {
    /// Makes the topic, and waits until the brokers know it: one may answer before it has heard of what another made.
    pub(super) fn create_and_see(&mut self, producer: &Producer, topic: &str) -> Result<(), String> {
        self.create(topic)?;
        let deadline = Instant::now() + ANSWER_WITHIN;
        loop {
            match ask(producer, Some(topic), ANSWER_WITHIN) {
                Err(_) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(20)),
                answer => return answer,
            }
        }
    }

    /// Which of the topics are not there, and why. `None`: the brokers do not say.
    fn missing(&mut self, producer: &Producer, topics: Vec<String>, create: bool) -> Option<HashMap<String, String>> {
        let metadata = producer.client().fetch_metadata(None, ANSWER_WITHIN).ok()?;
        let there: HashSet<&str> = metadata.topics().iter().map(|found| found.name()).collect();
        let missing = topics.into_iter().filter(|topic| !there.contains(topic.as_str())).filter_map(|topic| {
            let why =
                if create { self.try_create(&topic).err().filter(|error| error.for_good)?.why } else { does_not_exist(&topic) };
            Some((topic, why))
        });
        Some(missing.collect())
    }

    pub(super) fn create(&mut self, topic: &str) -> Result<(), String> {
        self.try_create(topic).map_err(|error| error.why)
    }

    fn try_create(&mut self, topic: &str) -> Result<(), NotCreated> {
        let explain = |why: String| NotCreated { why: format!("cannot create topic={topic}: {why}"), for_good: false };
        let client = match self.client.take() {
            Some(client) => client,
            None => self.config.create().map_err(|error| explain(format!("{error}")))?,
        };
        let replication = TopicReplication::Fixed(i32::from(self.replication));
        let new = NewTopic::new(topic, i32::try_from(self.partitions).unwrap_or(i32::MAX), replication);
        let options =
            AdminOptions::new().operation_timeout(Some(Duration::from_secs(5))).request_timeout(Some(Duration::from_secs(5)));
        let created = futures_executor::block_on(client.create_topics([&new], &options));
        self.client = Some(client);
        let results = created
            .map_err(|error| NotCreated { why: format!("{NO_ANSWER}: {}", explain(error.to_string()).why), for_good: false })?;
        for result in results {
            match result {
                Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((_, code)) => {
                    let (partitions, replication) = (self.partitions, self.replication);
                    let error = explain(format!("{code} (kafka.partitions={partitions}, kafka.replication={replication})"));
                    return Err(NotCreated { for_good: is_refusal(code), ..error });
                }
            }
        }
        Ok(())
    }
}
