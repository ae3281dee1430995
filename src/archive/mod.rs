//! Topics to Parquet objects or a Delta table, exactly once.
//!
//! ```text
//! consumer group -> a range of offsets of each topic partition -> Encoder -> objects -> store -> offsets
//! ```
//!
//! *Once.* What is stored is decided before anything is: the end of a range is committed beside the group's offset (a plan, see `position`), then its
//! objects are put, then the offset. The objects of a range, and which rows they have, follow from its messages alone. So a crash between any
//! two steps, or a partition that moves to another instance, ends in the same objects: whoever comes next finds the plan and makes them again,
//! skipping those that are there. An instance that was thrown out of the group cannot commit a plan, so it cannot put anything new.
//!
//! *A Delta table.* The files of a range become part of it in one commit, which also says how far the topic partition is stored: that decides when the
//! group's offset says otherwise. It is made between the objects and the offset.
//!
//! *Replays.* A logger that crashed may send a record again. The format of predictions knows which (writer, seq) it has stored, and leaves
//! a second one out; what it knows is stored with each range, as a state of that offset.

mod consumer;
mod dead_letter;
pub mod encoder;
mod job;
mod lease;
pub mod metrics;
mod offsets;
mod position;
pub mod predictions;
mod preflight;
mod probe;
mod queue;
mod range;
#[cfg(feature = "avro")]
pub(crate) mod registry;
mod scratch;
mod settings;
mod status;
mod store;
mod table;
mod topic;
mod worker;

pub use job::{Job, OnBad, SameKey, Start, TableTarget};
pub use lease::TopicPartition;
pub use scratch::ScratchDir;
pub use status::{Counters, Progress};

use crate::error::{Error, ErrorKind};
use crate::retry::Backoff;
use crate::ship::Target;
use consumer::{Control, join};
use dead_letter::DeadTopic;
use lease::Leases;
use offsets::Offsets;
use preflight::Preflight;
use range::Fault;
use rdkafka::consumer::Consumer as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};
use store::{Requests, Storer};
use table::Table;
use topic::Tags;
use worker::{Unfinished, Worker};

/// Below the target's URL: `<group>/<topic>+<partition>.json`, with the time up to which everything is stored.
const WATERMARKS: &str = "_watermark";
/// How often the group is served.
const POLL: Duration = Duration::from_millis(50);
/// How often topics are asked for, which may have been made anew.
const LOOK_AT_TOPICS: Duration = Duration::from_secs(10);
const RETRY_MIN: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(30);
/// How long requests in flight may take when a run ends.
const GOODBYE: Duration = Duration::from_secs(5);

/// Archives one job, in this process.
pub struct Archiver {
    job: Job,
    counters: Arc<Counters>,
    stop: Arc<AtomicBool>,
    /// Topics that were told of as missing.
    missing: parking_lot::Mutex<Vec<String>>,
}

/// How a run ended.
enum End {
    /// It was told to, or everything is stored.
    Done,
    /// It may work when it is begun again.
    Again(String),
}

impl End {
    /// # Errors
    /// What never passes.
    fn by(fault: Fault) -> Result<End, String> {
        match fault {
            Fault::Again(why) => Ok(End::Again(why)),
            Fault::Fatal(why) => Err(why),
        }
    }
}

impl Archiver {
    /// Nothing is asked or started yet.
    pub fn new(job: Job) -> Archiver {
        Archiver { job, counters: Arc::default(), stop: Arc::default(), missing: parking_lot::Mutex::default() }
    }

    /// Counts and progress; they go on after this.
    pub fn counters(&self) -> Arc<Counters> {
        self.counters.clone()
    }

    /// Set it to stop: what is not stored then stays in Kafka, for the next run.
    pub fn stop_flag(&self) -> Arc<AtomicBool> {
        self.stop.clone()
    }

    /// Archives until it is stopped, or everything is stored (`until_end`). What may pass is tried again for ever.
    ///
    /// # Errors
    /// What never passes: a target that cannot be made of its settings, a bucket that is not there, credentials that are none, dead letters without a topic, a
    /// message that cannot be stored under [`OnBad::Stop`]; of a run that ends, a topic that is not there.
    pub fn run(&self) -> Result<(), Error> {
        let fatal = |why: String| Error::new(ErrorKind::Storage, why);
        consumer::check(&self.job).map_err(|why| Error::new(ErrorKind::Config, why))?;
        let target = Target::open(&self.job.target).map_err(|error| fatal(error.to_string()))?;
        let target = target.ok_or_else(|| Error::new(ErrorKind::Config, "upload.url is not set: expected where objects go"))?;
        self.probe(&target).map_err(fatal)?;
        let mut backoff = Backoff::new(RETRY_MIN, RETRY_MAX, fastrand::u64(..));
        while !self.stop.load(Ordering::Acquire) {
            let before = self.counters.ranges.load(Ordering::Relaxed);
            match self.run_once(&target).map_err(fatal)? {
                End::Done => return Ok(()),
                End::Again(why) => {
                    if self.counters.ranges.load(Ordering::Relaxed) > before {
                        backoff.succeeded();
                    }
                    let wait = backoff.failed();
                    self.counters.failures.fetch_add(1, Ordering::Relaxed);
                    tracing::error!(error = why, retry_in = ?wait, "archiving begins again from what is stored");
                    self.sleep(wait);
                }
            }
        }
        Ok(())
    }

    fn probe(&self, target: &Target) -> Result<(), String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| format!("cannot start a runtime: {error}"))?;
        runtime.block_on(probe::probe(target)).map_err(|error| error.message)
    }

    fn sleep(&self, wait: Duration) {
        let until = Instant::now() + wait;
        while Instant::now() < until && !self.stop.load(Ordering::Acquire) {
            std::thread::sleep(POLL);
        }
    }

    /// Asks whether the topics are there. `Some`: how the run ends before it begins.
    ///
    /// # Errors
    /// What never passes.
    fn preflight(&self) -> Result<Option<End>, String> {
        let (preflight, (answer, answered)) = (Preflight::of(&self.job), mpsc::channel());
        // Not waited for by a run that is stopped, which does not listen any more.
        let asking = std::thread::Builder::new().name("predlog-ask".to_owned()).spawn(move || drop(answer.send(preflight.ask())));
        if let Err(error) = asking {
            return Ok(Some(End::Again(format!("cannot start a thread: {error}"))));
        }
        let missing = loop {
            match answered.recv_timeout(POLL) {
                Ok(Ok(missing)) => break missing,
                Ok(Err(fault)) => return End::by(fault).map(Some),
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    return Ok(Some(End::Again("the thread that asks panicked".to_owned())));
                }
                Err(mpsc::RecvTimeoutError::Timeout) if self.stop.load(Ordering::Acquire) => return Ok(Some(End::Done)),
                Err(mpsc::RecvTimeoutError::Timeout) => {}
            }
        };
        if !missing.is_empty() && self.job.until_end {
            return Err(format!(
                "topics={missing:?}: the brokers have none of this name, or that matches: expected topics that are there, of a run that ends"
            ));
        }
        let mut told = self.missing.lock();
        if !missing.is_empty() && *told != missing {
            tracing::warn!(topics = ?missing, "the brokers have none of this name, or that matches: what comes is stored once they are made");
        }
        *told = missing;
        Ok(None)
    }

    /// # Errors
    /// What never passes.
    fn run_once(&self, target: &Target) -> Result<End, String> {
        if let Some(end) = self.preflight()? {
            return Ok(end);
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("predlog-store")
            .enable_all()
            .build()
            .map_err(|error| format!("cannot start the threads that store: {error}"))?;
        let table = match self.job.table.as_ref().map(|target| Table::open(target, &self.job.group)).transpose() {
            Ok(table) => table.map(Arc::new),
            Err(fault) => return End::by(fault),
        };
        let leases = Arc::new(Leases::default());
        let (controls, receivers): (Vec<_>, Vec<_>) = (0..self.job.threads.max(1)).map(|_| mpsc::channel()).unzip();
        let unfinished: Vec<Arc<Unfinished>> = controls.iter().map(|_| Arc::default()).collect();
        let workers = controls.iter().cloned().zip(unfinished.iter().cloned()).collect();
        let tags = (self.job.same_key == SameKey::KeepBoth).then(|| Tags::new(target.clone(), runtime.handle().clone()));
        let joined = join(&self.job, &leases, &self.counters, workers, table.clone(), tags, &self.stop);
        let (consumer, queues) = match joined {
            Ok(joined) => joined,
            Err(why) => return Ok(End::Again(why)),
        };
        let dead_topic = match DeadTopic::open(&self.job.client, &self.job.on_bad) {
            Ok(topic) => topic,
            Err(why) => return Ok(End::Again(why)),
        };
        let (stopping, stop) = tokio::sync::watch::channel(false);
        let storer = Arc::new(Storer {
            target: target.clone(),
            state_prefix: self.job.state_prefix.clone(),
            watermark_prefix: format!("{WATERMARKS}/{}", self.job.group),
            offsets: Offsets { consumer: consumer.clone(), leases: leases.clone() },
            dead_topic,
            table,
            same_key: self.job.same_key,
            counters: self.counters.clone(),
            runtime: runtime.handle().clone(),
            requests: Requests::default(),
            stopping: stop,
        });
        let end = std::thread::scope(|scope| {
            let workers: Vec<_> = receivers
                .into_iter()
                .zip(queues)
                .zip(&unfinished)
                .map(|((control, queue), unfinished)| {
                    let worker = Worker::new(&self.job, control, storer.clone(), self.counters.clone(), unfinished);
                    scope.spawn(move || worker.run(queue))
                })
                .collect();
            let end = self.serve(&consumer, runtime.handle(), &unfinished, || {
                workers.iter().any(std::thread::ScopedJoinHandle::is_finished)
            });
            consumer.context().closing.store(true, Ordering::Release);
            leases.revoke_all();
            // Nobody listens when no request is in flight.
            let _ = stopping.send(true);
            controls.iter().for_each(|control| {
                let _ = control.send(Control::Stop);
            });
            let faults = workers.into_iter().filter_map(|worker| match worker.join() {
                Ok(Ok(())) => None,
                Ok(Err(fault)) => Some(fault),
                Err(_) => Some(Fault::Again("a worker panicked".to_owned())),
            });
            worst(end?, faults)
        });
        drop(storer);
        runtime.shutdown_timeout(GOODBYE);
        end
    }

    /// Serves the group until something ends it.
    ///
    /// # Errors
    /// What never passes.
    fn serve(
        &self,
        consumer: &Arc<consumer::Consumer>,
        runtime: &tokio::runtime::Handle,
        unfinished: &[Arc<Unfinished>],
        worker_ended: impl Fn() -> bool,
    ) -> Result<End, String> {
        let group = consumer.context();
        let mut looked = Instant::now();
        loop {
            if looked.elapsed() >= LOOK_AT_TOPICS {
                looked = Instant::now();
                let consumer = consumer.clone();
                drop(runtime.spawn_blocking(move || consumer.context().look_at_topics(&consumer)));
            }
            match consumer.poll(POLL) {
                Some(Err(error)) if is_fatal(&error) => return Ok(End::Again(error.to_string())),
                Some(Err(error)) => tracing::debug!(%error, "the group reports an error"),
                // All partitions lead to the workers' queues.
                Some(Ok(message)) => return Ok(End::Again(format!("a message came astray: {message:?}"))),
                None => {}
            }
            let all_stored = || unfinished.iter().all(|partitions| partitions.is_none());
            let ended = self.job.until_end && group.assigned.load(Ordering::Acquire) && all_stored();
            let stopped = self.stop.load(Ordering::Acquire);
            // Behind that: who breaks something says so before the partition counts as none.
            match group.broken.lock().take() {
                Some(Fault::Again(_)) if stopped => {}
                Some(fault) => return End::by(fault),
                None => {}
            }
            if stopped || worker_ended() || ended {
                return Ok(End::Done);
            }
        }
    }
}

fn is_fatal(error: &rdkafka::error::KafkaError) -> bool {
    matches!(error, rdkafka::error::KafkaError::MessageConsumptionFatal(_))
}

/// # Errors
/// A fault that never passes.
fn worst(end: End, faults: impl Iterator<Item = Fault>) -> Result<End, String> {
    let mut end = end;
    for fault in faults {
        match fault {
            Fault::Fatal(why) => return Err(why),
            Fault::Again(why) => end = End::Again(why),
        }
    }
    Ok(end)
}
