//! The thread between the lanes and the sink.

mod ending;
mod failure;
mod flush;
mod lost;
mod replay;

use super::backlog::{Backlog, Frame};
use super::home::Home;
use super::ledger::Ledger;
use super::pace::Pace;
use super::{Durability, Report, Shared};
use crate::batch::{Batch, BatchSettings, Batcher, Chunk, Origin};
use crate::clock::Now;
use crate::lane::{BUFFERS, Taken};
use crate::ledger::Entries;
use crate::sink::{Kept, Maintained, Sink, SinkError, SinkErrorKind};
use crate::spool::Spool;
use flush::Flush;
use lost::Lost;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// The longest sleep while a sink is to answer, somebody waits, or records come so fast that a batch may fill up: a filled buffer wakes the worker
/// anyway.
const TICK: Duration = Duration::from_millis(5);
/// The longest sleep when no batch is due sooner. Each wake-up takes the core from a thread that serves.
const CALM_TICK: Duration = Duration::from_millis(25);
/// How often the sink may do what time asks for.
const MAINTAIN_EVERY: Duration = Duration::from_millis(100);
/// What neither the sink nor the spool has taken is given to the spool again after this.
const SPILL_EVERY: Duration = Duration::from_millis(500);
/// A failing sink is tried again after this, then twice as long each time, up to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);

pub(super) struct Worker {
    shared: Arc<Shared>,
    batcher: Batcher,
    sink: Box<dyn Sink>,
    spool: Option<Spool>,
    backlog: Backlog,
    pace: Pace,
    home: Option<Home>,
    ledger: Option<Ledger>,
    batch_id: u64,
    /// Batches that the sink has, and does not own yet.
    in_flight: VecDeque<InFlight>,
    /// Buffers that neither the sink nor the spool has taken.
    held: Option<Vec<Taken>>,
    /// When they are given to the spool again.
    spill_at: Duration,
    retry_at: Duration,
    retry_wait: Duration,
    down: Option<SinkError>,
    last_maintain: Duration,
    maintained: Maintained,
    backlog_bytes: u64,
    /// Own records: those that the sink has owned, and those in the own spool.
    owned: u64,
    spooled: u64,
    lost: Lost,
    flush: Option<Flush>,
    synced: u64,
}

/// What a worker is made of.
pub(super) struct Parts {
    pub batch: BatchSettings,
    pub sink: Box<dyn Sink>,
    pub spool: Option<Spool>,
    pub backlog: Backlog,
    pub pace: Pace,
    pub home: Option<Home>,
    pub ledger: Option<Ledger>,
}

struct InFlight {
    id: u64,
    what: What,
    since: Instant,
}

enum What {
    Live(Vec<Taken>),
    Replay(Frame),
    /// What the ledger says.
    Statement(Entries),
}

/// Whatever ends the thread, nobody must wait for it any more.
struct Ended(Arc<Shared>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.lanes.close();
        self.0.control.ended();
    }
}

impl Worker {
    pub(super) fn new(shared: Arc<Shared>, parts: Parts) -> Self {
        let Parts { batch, sink, spool, backlog, pace, home, ledger } = parts;
        shared.stats.lost.state();
        Worker {
            shared,
            batcher: Batcher::new(batch),
            sink,
            spool,
            backlog,
            pace,
            home,
            ledger,
            batch_id: 0,
            in_flight: VecDeque::new(),
            held: None,
            spill_at: Duration::ZERO,
            retry_at: Duration::ZERO,
            retry_wait: RETRY_MIN,
            down: None,
            last_maintain: Duration::ZERO,
            maintained: Maintained::default(),
            backlog_bytes: 0,
            owned: 0,
            spooled: 0,
            lost: Lost::default(),
            flush: None,
            synced: 0,
        }
    }

    pub(super) fn run(mut self) -> Report {
        let _ended = Ended(Arc::clone(&self.shared));
        let mut idle_since = None;
        loop {
            let asked = self.shared.control.asked();
            let now = self.shared.clock.now();
            self.start_flush(asked.flush);
            let worked = self.turn(now, asked.shutdown.is_some());
            self.end_flush();
            if let Some(deadline) = asked.shutdown
                && (self.is_done() || Instant::now() >= deadline)
            {
                return self.finish(now);
            }
            if worked {
                idle_since = None;
                continue;
            }
            let idle = now.monotonic.saturating_sub(*idle_since.get_or_insert(now.monotonic));
            self.shared.control.sleep(self.pause(now, idle, asked.shutdown.is_some()));
        }
    }

    /// How long nobody needs the worker.
    fn pause(&self, now: Now, idle: Duration, ending: bool) -> Duration {
        if ending || self.flush.is_some() {
            return TICK;
        }
        if idle > Duration::from_secs(1) {
            return CALM_TICK;
        }
        let busy = !self.in_flight.is_empty() || self.held.is_some() || self.backlog_bytes > 0;
        let asked_often = busy || self.shared.settings.durability == Durability::Fsync;
        let rest = self.batcher.rest(now).filter(|_| !asked_often);
        rest.map_or(TICK, |rest| rest.clamp(TICK, CALM_TICK))
    }

    /// One look at everything. `true` when there may be more to do at once.
    fn turn(&mut self, now: Now, ending: bool) -> bool {
        self.backlog.look_for_dead(now, &self.shared.stats);
        self.sync(ending);
        self.poll_commits(now);
        // Before all that would be given to it: a sink that is down takes nothing until it is asked.
        let recovered = self.probe(now);
        let taken = self.take_due(now, ending);
        let worked = taken.is_some();
        if let Some(taken) = taken {
            self.deliver(taken, now);
        }
        self.state(now, ending);
        self.maintain(now, ending);
        let replayed = self.replay(now);
        self.publish();
        worked || replayed || recovered
    }

    /// Under `fsync`, makes what was accepted durable, and tells those who wait for it.
    fn sync(&mut self, ending: bool) {
        if self.shared.settings.durability != Durability::Fsync {
            return;
        }
        let accepted: u64 = self.shared.lanes.accepted().iter().sum();
        if accepted == self.synced && !ending && accepted != 0 {
            return;
        }
        match self.shared.lanes.sync() {
            Ok(durable) => {
                self.synced = durable.iter().sum();
                self.shared.control.durable(durable);
            }
            Err(error) => tracing::error!(%error, "cannot sync the lanes; records are not durable until it works again"),
        }
    }

    /// The buffers that are due, or those that were held back and may be tried again.
    fn take_due(&mut self, now: Now, ending: bool) -> Option<Vec<Taken>> {
        if self.held.is_some() {
            return if self.may_try_held(now) { self.held.take() } else { None };
        }
        let pending = self.shared.lanes.pending();
        if self.window_is_full() && (self.spool.is_none() || !pending.half_full) {
            return None;
        }
        let due = self.batcher.due(pending.rows, pending.bytes, now).is_some();
        let hurry = pending.rows > 0 && (ending || self.flush.is_some() || self.window_is_full());
        if !due && !hurry {
            return None;
        }
        let taken = self.shared.lanes.take();
        self.batcher.taken();
        (!taken.is_empty()).then_some(taken)
    }

    /// What is held goes to the spool where there is one, and else to the sink, once that says that it takes records.
    fn may_try_held(&mut self, now: Now) -> bool {
        if self.spool.is_some() {
            return self.down.is_none() || now.monotonic >= self.spill_at;
        }
        if self.down.is_none() || now.monotonic < self.retry_at {
            return self.down.is_none();
        }
        // Only the write shows whether it has recovered, so that the waits grow while it fails.
        match self.sink.probe() {
            Ok(()) => true,
            Err(error) => {
                self.failed(error, now);
                false
            }
        }
    }

    /// To the sink, or to the spool, or held.
    fn deliver(&mut self, taken: Vec<Taken>, now: Now) {
        // A sink with a spool before it is tried by `probe` alone: what it fails at would only be late in the spool.
        let down = if self.spool.is_some() { self.down.is_some() } else { self.is_down(now) };
        let sink_first = !down && !self.under_pressure() && !self.window_is_full();
        if sink_first {
            match self.write(&taken) {
                Ok(()) => {
                    self.in_flight.push_back(InFlight { id: self.batch_id, what: What::Live(taken), since: Instant::now() });
                    self.poll_commits(now);
                    return;
                }
                Err(error) => self.failed(error, now),
            }
        }
        self.keep(taken, &Kept::new(), now);
    }

    /// To the spool, but for what the sink has kept; or held.
    fn keep(&mut self, taken: Vec<Taken>, kept: &Kept, now: Now) {
        // What is left of a full disk is for what the sink has to get off it.
        let full = self.down.as_ref().is_some_and(|down| down.kind == SinkErrorKind::NoSpace);
        match if full { None } else { self.spill(&taken, kept, now) } {
            Some(Ok(rows)) => {
                self.spooled += rows;
                self.owned += taken.iter().map(|taken| taken.rows).sum::<u64>() - rows;
                self.release(taken);
            }
            Some(Err(error)) => {
                self.spool_failed(error, now);
                self.hold(taken, now);
            }
            None => self.hold(taken, now),
        }
    }

    /// What is held already is older.
    fn hold(&mut self, taken: Vec<Taken>, now: Now) {
        self.spill_at = now.monotonic + SPILL_EVERY;
        self.held.get_or_insert_default().extend(taken);
    }

    fn write(&mut self, taken: &[Taken]) -> Result<(), SinkError> {
        self.batch_id += 1;
        let shared = Arc::clone(&self.shared);
        let chunks = taken.iter().map(|taken| shared.lanes.chunk(taken)).collect();
        let batch = Batch { id: self.batch_id, origin: Origin::Live, chunks };
        self.shared.stats.batch_rows.observe(batch.rows() as f64);
        self.sink.write(&batch)?;
        self.pace.live(batch.bytes());
        Ok(())
    }

    /// A statement of the ledger goes the way of the records: to the sink, or to the spool.
    fn state(&mut self, now: Now, ending: bool) {
        // A statement must not be what a sink is tried with: its failure would put off the next time that the sink is asked.
        let down = self.down.is_some();
        if down && self.spool.is_none() {
            return;
        }
        let left = self.held.is_none() && !self.in_flight.iter().any(|batch| matches!(batch.what, What::Live(_)));
        let last = ending && left && self.shared.lanes.pending().rows == 0;
        let Some(ledger) = &mut self.ledger else { return };
        let Some(entries) = ledger.take(&self.shared.lanes, &self.shared.drops, now, last) else { return };
        if !down {
            self.batch_id += 1;
            let batch = Batch { id: self.batch_id, origin: Origin::Live, chunks: vec![entries.chunk()] };
            match self.sink.write(&batch) {
                Ok(()) => {
                    let what = What::Statement(entries);
                    self.in_flight.push_back(InFlight { id: self.batch_id, what, since: Instant::now() });
                    return self.poll_commits(now);
                }
                Err(error) => self.failed(error, now),
            }
        }
        self.keep_statement(entries, &Kept::new(), now);
    }

    fn keep_statement(&mut self, entries: Entries, kept: &Kept, now: Now) {
        let spilled = self.spill_chunks(vec![entries.chunk()], kept, now);
        if let Some(Err(error)) = &spilled {
            tracing::debug!(%error, "a statement waits in memory");
        }
        if let Some(ledger) = &mut self.ledger {
            match spilled {
                Some(Ok(_)) => ledger.owned(),
                Some(Err(_)) | None => ledger.give_back(entries),
            }
        }
    }

    /// Appends to the spool what the sink has not kept. `None` when there is no spool, or it is full.
    fn spill(&mut self, taken: &[Taken], kept: &Kept, now: Now) -> Option<Result<u64, SinkError>> {
        let shared = Arc::clone(&self.shared);
        self.spill_chunks(taken.iter().map(|taken| shared.lanes.chunk(taken)).collect(), kept, now)
    }

    fn spill_chunks(&mut self, chunks: Vec<Chunk<'_>>, kept: &Kept, now: Now) -> Option<Result<u64, SinkError>> {
        if !self.spool_has_room() {
            return None;
        }
        let spool = self.spool.as_mut()?;
        self.batch_id += 1;
        let batch = Batch { id: self.batch_id, origin: Origin::Live, chunks };
        let appended = spool.append(&batch, now, |_, writer, seq| !kept.get(&writer).is_some_and(|seqs| seqs.contains(seq)));
        let durable = |rows| match self.shared.settings.durability {
            Durability::Fsync => spool.sync().map(|()| rows),
            Durability::Memory | Durability::Process => Ok(rows),
        };
        Some(appended.and_then(durable).map_err(|error| SinkError::io("spool", "append to the spool", spool.root(), &error)))
    }

    /// Asks the sink what it owns by now, and frees those buffers.
    fn poll_commits(&mut self, now: Now) {
        if self.in_flight.is_empty() {
            return;
        }
        let answer = self.sink.commit();
        self.count_lost();
        match answer {
            Ok(owned) => {
                while self.in_flight.front().is_some_and(|batch| Some(batch.id) <= owned) {
                    let Some(batch) = self.in_flight.pop_front() else { break };
                    self.shared.stats.batch_seconds.observe(batch.since.elapsed().as_secs_f64());
                    self.is_owned(batch.what);
                    self.recovered(now);
                }
            }
            Err(error) => {
                self.failed(error, now);
                let kept = self.sink.kept();
                self.backlog.rewind();
                // None of them is owned: all go the other way, oldest first.
                for batch in std::mem::take(&mut self.in_flight) {
                    match batch.what {
                        What::Live(taken) => self.keep(taken, &kept, now),
                        What::Statement(entries) => self.keep_statement(entries, &kept, now),
                        What::Replay(_) => {}
                    }
                }
            }
        }
    }

    fn is_owned(&mut self, what: What) {
        match what {
            What::Live(taken) => {
                self.owned += taken.iter().map(|taken| taken.rows).sum::<u64>();
                self.release(taken);
            }
            What::Statement(_) => self.ledger.iter_mut().for_each(Ledger::owned),
            What::Replay(frame) => {
                self.backlog.owned();
                if frame.own {
                    self.spooled -= frame.rows.min(self.spooled);
                    self.owned += frame.rows;
                } else {
                    let lost = std::mem::take(&mut self.lost.of_others).min(frame.rows);
                    self.shared.stats.recovered_delivered.fetch_add(frame.rows - lost, Ordering::Relaxed);
                }
            }
        }
    }

    /// Own records in their final place.
    fn delivered(&self) -> u64 {
        self.owned.saturating_sub(self.maintained.pending).saturating_sub(self.lost.own)
    }

    fn release(&mut self, taken: Vec<Taken>) {
        if let Some(ledger) = &mut self.ledger {
            taken.iter().for_each(|taken| ledger.count(&self.shared.lanes.chunk(taken), None));
        }
        taken.into_iter().for_each(|taken| self.shared.lanes.release(taken));
        self.shared.control.released();
    }

    fn is_down(&self, now: Now) -> bool {
        self.down.is_some() && now.monotonic < self.retry_at
    }

    /// The sink is slower than what comes in: the spool, which is faster, takes the difference while it has room.
    fn under_pressure(&self) -> bool {
        self.spool_has_room() && self.shared.lanes.used_bytes() > self.shared.lanes.capacity() / 2
    }

    fn spool_has_room(&self) -> bool {
        let taken = self.shared.stats.spool_bytes.load(Ordering::Relaxed);
        self.spool.is_some() && taken < self.shared.settings.spool_max_bytes.as_u64()
    }

    /// The sink has as many batches as it may have. With a spool, each lane keeps two buffers for the way there: one that takes lines, and one
    /// that is appended.
    fn window_is_full(&self) -> bool {
        let live = self.in_flight.iter().filter(|batch| matches!(batch.what, What::Live(_))).count();
        live >= if self.spool.is_some() { BUFFERS - 2 } else { BUFFERS - 1 }
    }

    /// What time asks of the sink.
    fn maintain(&mut self, now: Now, ending: bool) {
        let closes = self.closing_flush();
        let soon = ending || closes || self.flush.is_some();
        if !soon && now.monotonic.saturating_sub(self.last_maintain) < MAINTAIN_EVERY {
            return;
        }
        self.last_maintain = now.monotonic;
        self.backlog_bytes = self.backlog.bytes();
        let maintained = self.sink.maintain(now, closes || (ending && self.shared.lanes.pending().rows == 0));
        self.count_lost();
        match maintained {
            Ok(maintained) => {
                self.maintained = maintained;
                if closes && let Some(flush) = &mut self.flush {
                    flush.finished = Some(maintained.finished + maintained.pending);
                }
            }
            Err(error) => self.failed(error, now),
        }
    }

    /// Own records that the sink owns and that lie in its intermediate files, and those in the spool.
    fn on_disk(&self) -> u64 {
        self.spooled + self.maintained.pending
    }

    fn publish(&mut self) {
        let stats = &self.shared.stats;
        self.shared.publish_accepted();
        stats.delivered.store(self.delivered(), Ordering::Release);
        stats.on_disk.store(self.on_disk(), Ordering::Release);
        let spool = self.spool.as_ref().map_or(0, Spool::open_bytes) + self.backlog_bytes + self.maintained.pending_bytes;
        stats.spool_bytes.store(spool, Ordering::Release);
    }
}
