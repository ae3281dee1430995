//! A worker: reads the messages of its partitions, and ends their ranges.

use super::consumer::Control;
use super::job::Job;
use super::lease::TopicPartition;
use super::position::Position;
use super::queue::{Queue, Received};
use super::range::{Fault, Partition, Rules, Taken};
use super::status::Counters;
use super::store::{Abandoned, Storer};
use crate::clock::{Clock as _, Now, SystemClock};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Duration;

/// The longest that a worker waits for messages: then it looks at its ranges' ages.
const WAIT: Duration = Duration::from_millis(50);
/// How often all ranges are looked at.
const LOOK: Duration = Duration::from_millis(100);

/// Partitions of a worker that are not at their end yet, for a run that ends; those that it was told of and does not know yet count too.
#[derive(Debug, Default)]
pub(super) struct Unfinished(AtomicUsize, AtomicUsize);

impl Unfinished {
    /// The worker is told of one more.
    pub fn told(&self) {
        self.1.fetch_add(1, Ordering::AcqRel);
    }

    fn taken_over(&self) {
        // In this order: between the two it counts twice, never not at all.
        self.0.fetch_add(1, Ordering::AcqRel);
        self.1.fetch_sub(1, Ordering::AcqRel);
    }

    pub fn is_none(&self) -> bool {
        self.1.load(Ordering::Acquire) == 0 && self.0.load(Ordering::Acquire) == 0
    }
}

/// How often a partition without new messages says up to when everything is stored.
const MARK: Duration = Duration::from_secs(30);
/// A message may be this much older than the moment when the brokers show it.
const DELAY: Duration = Duration::from_secs(10);

pub(super) struct Worker<'a> {
    job: &'a Job,
    control: Receiver<Control>,
    storer: Arc<Storer>,
    counters: Arc<Counters>,
    clock: SystemClock,
    partitions: Vec<Partition>,
    index: HashMap<TopicPartition, usize>,
    /// Where the last message went.
    last: Option<(Arc<str>, i32, usize)>,
    looked: Duration,
    /// Batches that were received.
    batches: u64,
    /// When the watermarks of partitions that have nothing more were told.
    marked: Duration,
    unfinished: &'a Unfinished,
}

impl<'a> Worker<'a> {
    pub fn new(
        job: &'a Job,
        control: Receiver<Control>,
        storer: Arc<Storer>,
        counters: Arc<Counters>,
        unfinished: &'a Unfinished,
    ) -> Self {
        Worker {
            job,
            control,
            storer,
            counters,
            clock: SystemClock::default(),
            partitions: Vec::new(),
            index: HashMap::new(),
            last: None,
            looked: Duration::ZERO,
            batches: 0,
            marked: Duration::ZERO,
            unfinished,
        }
    }

    /// Works until it is told to stop.
    pub fn run(mut self, mut queue: Queue) -> Result<(), Fault> {
        loop {
            if !self.obey()? {
                return Ok(());
            }
            let mut fault = None;
            self.batches += 1;
            let now = self.clock.now();
            queue.receive(WAIT, |topic, received| {
                if fault.is_none() {
                    fault = self.take(topic, &received, now).err();
                }
            });
            fault.map_or(Ok(()), Err)?;
            let now = self.clock.now();
            if now.monotonic.saturating_sub(self.looked) >= LOOK {
                self.looked = now.monotonic;
                self.look(now, &queue)?;
                self.mark(now);
            }
            self.keep_within_memory()?;
        }
    }

    fn rules(&self) -> Rules<'a> {
        Rules { format: &*self.job.format, rotation: &self.job.rotation, on_bad: &self.job.on_bad, log_bad: self.job.log_bad }
    }

    /// Does what it is told. `false` to stop.
    ///
    /// Only between two batches: a partition's messages come once it is taken over here, so those of a batch that was received before belong to an earlier
    /// assignment, which may have been further on. Taken for this one's, they would hide what lies before them.
    fn obey(&mut self) -> Result<bool, Fault> {
        let mut taken = Vec::new();
        loop {
            match self.control.try_recv() {
                Ok(Control::Take { lease, position, next, until }) => {
                    taken.push(lease.at.clone());
                    self.forget(&lease.at);
                    self.restore(&lease, position)?;
                    self.index.insert(lease.at.clone(), self.partitions.len());
                    self.partitions.push(Partition::new(lease.clone(), position, next, until));
                    self.unfinished.taken_over();
                    self.storer.offsets.resume(&lease).map_err(Fault::Again)?;
                }
                Ok(Control::Drop(at)) => self.forget(&at),
                Ok(Control::Stop) | Err(TryRecvError::Disconnected) => return Ok(false),
                Err(TryRecvError::Empty) => {
                    if !taken.is_empty() {
                        self.storer.offsets.nudge(&taken);
                    }
                    return Ok(true);
                }
            }
        }
    }

    fn restore(&self, lease: &super::lease::Lease, position: Position) -> Result<(), Fault> {
        let state = match position {
            Position { offset: Some(offset), state, from_table, .. } if state || from_table => {
                match self.storer.runtime.block_on(self.storer.load_state(lease, offset, state)) {
                    Ok(state) => state,
                    // It is given away already.
                    Err(Abandoned) => return Ok(()),
                }
            }
            _ => None,
        };
        Ok(self.job.format.restore(&lease.at.topic, lease.at.partition, state.as_deref())?)
    }

    fn forget(&mut self, at: &TopicPartition) {
        if let Some(place) = self.index.remove(at) {
            self.partitions.swap_remove(place);
            if let Some(moved) = self.partitions.get(place) {
                self.index.insert(moved.lease.at.clone(), place);
            }
        }
        self.last = None;
    }

    /// Where a partition is; `None` when it is not ours any more.
    fn place(&mut self, topic: &Arc<str>, partition: i32) -> Option<usize> {
        if let Some((last, number, place)) = &self.last
            && Arc::ptr_eq(last, topic)
            && *number == partition
        {
            return Some(*place);
        }
        let at = TopicPartition { topic: topic.clone(), partition };
        let place = self.index.get(&at).copied();
        self.last = place.map(|place| (topic.clone(), partition, place));
        place
    }

    fn take(&mut self, topic: &Arc<str>, received: &Received<'_>, now: Now) -> Result<(), Fault> {
        let message = match received {
            Received::Message(message) => message,
            Received::Error(error) => {
                tracing::warn!(%topic, error, "the brokers report an error");
                return Ok(());
            }
        };
        let Some(mut place) = self.place(topic, message.partition) else { return Ok(()) };
        if self.partitions[place].doubts(message.offset) {
            let partition = &mut self.partitions[place];
            tracing::debug!(?message, next = partition.next, "is not what was asked for: asked again");
            self.storer.offsets.seek(&partition.lease, partition.next).map_err(Fault::Again)?;
            partition.passed_over = Some(self.batches);
        }
        // What else lies in this batch came before the seek.
        if self.partitions[place].passed_over == Some(self.batches) {
            return Ok(());
        }
        let rules = self.rules();
        while self.partitions[place].push(message, now, &rules)? == Taken::RotateFirst {
            self.finish(place)?;
            match self.place(topic, message.partition) {
                Some(found) => place = found,
                None => return Ok(()),
            }
        }
        if self.partitions[place].is_full(&rules) {
            self.finish(place)?;
        }
        Ok(())
    }

    /// Ends the range, and waits for the one before it: ranges of a partition are stored in order.
    fn finish(&mut self, place: usize) -> Result<(), Fault> {
        let partition = &mut self.partitions[place];
        if partition.settle().is_err() {
            // Lost: what it holds is somebody else's to store.
            let at = partition.lease.at.clone();
            self.forget(&at);
            return Ok(());
        }
        let finished = partition.finish(&self.job.on_bad)?;
        partition.stores(self.storer.submit(finished));
        Ok(())
    }

    /// Ends the ranges that are due.
    fn look(&mut self, now: Now, queue: &Queue) -> Result<(), Fault> {
        self.find_ends(queue);
        let rules = self.rules();
        let mut unfinished = 0;
        let mut place = 0;
        while place < self.partitions.len() {
            let held = self.partitions.len();
            let partition = &mut self.partitions[place];
            if partition.look().is_err() {
                let at = partition.lease.at.clone();
                self.forget(&at);
                continue;
            }
            if partition.is_due(now, &rules) {
                self.finish(place)?;
            }
            if self.partitions.len() == held {
                self.report(place, queue);
                unfinished += usize::from(!self.partitions[place].is_done());
                place += 1;
            }
        }
        self.unfinished.0.store(unfinished, Ordering::Release);
        Ok(())
    }

    /// Tells the partitions that are read to their end. The last offsets of a topic with transactions are no messages: where nothing comes, the consumer is
    /// asked how far it is.
    fn find_ends(&mut self, queue: &Queue) {
        let mut quiet = false;
        for partition in &mut self.partitions {
            let came = std::mem::take(&mut partition.came);
            match queue.newest(&partition.lease.at) {
                Some(newest) if partition.next >= newest => partition.read_to(newest),
                Some(_) => quiet |= !came,
                None => {}
            }
        }
        if !quiet {
            return;
        }
        for (at, position) in self.storer.offsets.positions() {
            let Some(place) = self.index.get(&at) else { continue };
            if queue.newest(&at).is_some_and(|newest| position >= newest) {
                self.partitions[*place].read_to(position);
            }
        }
    }

    /// A partition that has nothing more is stored up to now, but for what is on its way to the brokers.
    fn mark(&mut self, now: Now) {
        if now.monotonic.saturating_sub(self.marked) < MARK {
            return;
        }
        self.marked = now.monotonic;
        let millis = now.wall.micros() / 1_000 - DELAY.as_millis() as i64;
        for partition in self.partitions.iter().filter(|partition| partition.is_caught_up()) {
            self.storer.submit_mark(partition.lease.clone(), Some(partition.next), millis);
        }
    }

    fn report(&mut self, place: usize, queue: &Queue) {
        let partition = &mut self.partitions[place];
        self.counters.rejected.fetch_add(std::mem::take(&mut partition.rejected), Ordering::Relaxed);
        let newest = queue.newest(&partition.lease.at);
        if let Some(progress) = self.counters.partitions.lock().get_mut(&partition.lease.at) {
            progress.read = partition.next;
            progress.newest = newest.unwrap_or(progress.newest).max(progress.read);
        }
    }

    /// Ends the largest ranges while all together hold too much.
    fn keep_within_memory(&mut self) -> Result<(), Fault> {
        let share = self.job.memory / self.job.threads.max(1);
        loop {
            let held: usize = self.partitions.iter().map(Partition::memory).sum();
            if held <= share {
                return Ok(());
            }
            let largest = (0..self.partitions.len())
                .filter(|place| self.partitions[*place].may_end())
                .max_by_key(|place| self.partitions[*place].memory());
            match largest {
                Some(place) => self.finish(place)?,
                None => return Ok(()),
            }
        }
    }
}
