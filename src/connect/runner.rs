//! Runs connectors: an archiver for each, on a thread of its own.

use super::group::Group;
use super::job::group_of;
use super::rest::{PartitionOffset, Tasks};
use super::store::Connector;
use crate::archive::{Archiver, Counters, Job, TopicPartition};
use crate::error::Error;
use parking_lot::Mutex;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

/// The longest that the brokers are waited for when only the cluster's id is asked.
const CLUSTER_ID: Duration = Duration::from_secs(2);

/// Makes the job of a connector, of which the runner sets group and threads.
pub type MakeJob = dyn Fn(&Connector) -> Result<Job, Error> + Send + Sync;

/// [`Tasks`] by the [archiver](crate::archive): the tasks of a connector are its archiver's threads.
pub struct Runner {
    client: ClientConfig,
    make: Box<MakeJob>,
    runs: Mutex<BTreeMap<String, Run>>,
    cluster_id: OnceLock<String>,
}

/// A connector that was begun.
#[derive(Default)]
struct Run {
    stop: Arc<AtomicBool>,
    counters: Arc<Counters>,
    /// Why it ended by itself.
    failure: Arc<Mutex<Option<String>>>,
    /// How far each partition was read when the active topics were forgotten.
    forgotten: BTreeMap<TopicPartition, i64>,
    thread: Option<JoinHandle<()>>,
}

impl Run {
    fn failed(why: String) -> Run {
        Run { failure: Arc::new(Mutex::new(Some(why))), ..Run::default() }
    }

    fn begin(job: Job, name: &str) -> Run {
        let archiver = Archiver::new(job);
        let failure = Arc::<Mutex<Option<String>>>::default();
        let (stop, counters, told, connector) = (archiver.stop_flag(), archiver.counters(), failure.clone(), name.to_owned());
        let thread = std::thread::Builder::new().name("predlog-connector".to_owned()).spawn(move || {
            if let Err(error) = archiver.run() {
                tracing::error!(connector, %error, "the connector's tasks have failed");
                *told.lock() = Some(error.to_string());
            }
        });
        match thread {
            Ok(thread) => Run { stop, counters, failure, thread: Some(thread), ..Run::default() },
            Err(error) => Run::failed(format!("cannot start a thread: {error}")),
        }
    }

    fn join(self) {
        self.stop.store(true, Ordering::Release);
        if self.thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("a connector's thread panicked");
        }
    }
}

impl Runner {
    /// `client` reaches the brokers for what is asked about groups; `make` makes the job of a connector.
    pub fn new(client: ClientConfig, make: impl Fn(&Connector) -> Result<Job, Error> + Send + Sync + 'static) -> Runner {
        Runner { client, make: Box::new(make), runs: Mutex::default(), cluster_id: OnceLock::new() }
    }

    fn group(&self, name: &str) -> Result<Group, String> {
        Group::open(&self.client, &group_of(name))
    }
}

impl Tasks for Runner {
    fn start(&self, connector: &Connector) {
        self.stop(&connector.name);
        let run = match (self.make)(connector) {
            Ok(mut job) => {
                job.group = group_of(&connector.name);
                job.threads = connector.tasks.clamp(1, std::thread::available_parallelism().map_or(1, usize::from));
                Run::begin(job, &connector.name)
            }
            Err(error) => {
                tracing::error!(connector = connector.name, %error, "the connector cannot be started");
                Run::failed(error.to_string())
            }
        };
        self.runs.lock().insert(connector.name.clone(), run);
    }

    fn stop(&self, name: &str) {
        // Not under the lock: others may ask while this waits.
        let run = self.runs.lock().remove(name);
        if let Some(run) = run {
            run.join();
        }
    }

    fn shut_down(&self) {
        let runs = std::mem::take(&mut *self.runs.lock());
        // All are told before the first is waited for.
        runs.values().for_each(|run| run.stop.store(true, Ordering::Release));
        runs.into_values().for_each(Run::join);
    }

    fn failure(&self, name: &str) -> Option<String> {
        let runs = self.runs.lock();
        let run = runs.get(name)?;
        let why = run.failure.lock().clone();
        let ended = run.thread.as_ref().is_none_or(JoinHandle::is_finished);
        why.or_else(|| ended.then(|| "its thread has ended without a reason: see the log of this worker".to_owned()))
    }

    fn offsets(&self, connector: &Connector) -> Result<Vec<PartitionOffset>, String> {
        self.group(&connector.name)?.committed()
    }

    fn alter_offsets(&self, connector: &Connector, changes: &[PartitionOffset]) -> Result<(), String> {
        self.group(&connector.name)?.alter(changes)
    }

    fn reset_offsets(&self, connector: &Connector) -> Result<(), String> {
        let group = self.group(&connector.name)?;
        let forget = |at: PartitionOffset| PartitionOffset { offset: None, ..at };
        let committed: Vec<_> = group.committed()?.into_iter().map(forget).collect();
        group.alter(&committed)
    }

    fn active_topics(&self, name: &str) -> BTreeSet<String> {
        let runs = self.runs.lock();
        let Some(run) = runs.get(name) else { return BTreeSet::new() };
        let read = |at: &TopicPartition| run.forgotten.get(at).copied().unwrap_or(0);
        let partitions = run.counters.partitions();
        let active = partitions.iter().filter(|(at, progress)| progress.read > read(at));
        active.map(|(at, _)| at.topic.to_string()).collect()
    }

    fn reset_active_topics(&self, name: &str) {
        if let Some(run) = self.runs.lock().get_mut(name) {
            run.forgotten = run.counters.partitions().into_iter().map(|(at, progress)| (at, progress.read)).collect();
        }
    }

    fn cluster_id(&self) -> Option<String> {
        if let Some(known) = self.cluster_id.get() {
            return Some(known.clone());
        }
        let consumer: BaseConsumer = self.client.create().ok()?;
        let id = consumer.client().fetch_cluster_id(CLUSTER_ID)?;
        Some(self.cluster_id.get_or_init(|| id).clone())
    }
}
