//! The sink: batches in, acknowledgements out.

use super::connect::Target;
use super::messages::Messages;
use super::publish::{self, Command, Commands, ENDED, Poison, Shared};
use super::settings::NatsSettings;
use super::stream::Wanted;
use crate::batch::{Batch, Origin};
use crate::clock::{Clock, Now, SystemClock};
use crate::sink::broker::dead_letter::{DeadLetters, Letter};
use crate::sink::broker::flight::Progress;
use crate::sink::broker::replayed::Replayed;
use crate::sink::broker::topic::{NATS, TopicTemplate};
use crate::sink::{Kept, Maintained, Sink, SinkError, SinkErrorKind};
use crate::stats::Stats;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::mpsc::unbounded_channel;
use uuid::Uuid;

const NAME: &str = "nats";
/// The longest that [`Sink::probe`] waits: the answer of slower servers is given to the next probe.
const PATIENCE: Duration = Duration::from_millis(50);

/// Streams to NATS JetStream.
pub struct NatsSink {
    settings: NatsSettings,
    messages: Messages,
    shared: Arc<Shared>,
    /// What they hold is bounded by the lanes, which keep what is in it.
    commands: Option<Commands>,
    thread: Option<JoinHandle<()>>,
    dead_letters: DeadLetters,
    stats: Arc<Stats>,
    clock: SystemClock,
    /// The last batch that is owned.
    owned: Option<u64>,
    /// Why nothing is sent until the stream answers again.
    down: Option<String>,
    kept: Kept,
    replayed: Replayed,
}

impl std::fmt::Debug for NatsSink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NatsSink").field("settings", &self.settings).field("down", &self.down).finish_non_exhaustive()
    }
}

impl NatsSink {
    /// Connects in the background: this does not wait for servers. `process` names this process's dead letters.
    ///
    /// # Errors
    /// A file that cannot be read, a template that makes no subject, no thread.
    pub fn open(settings: NatsSettings, process: Uuid, stats: Arc<Stats>) -> Result<Self, String> {
        let template =
            TopicTemplate::parse(&settings.subject, &NATS).map_err(|expected| format!("nats.subject: expected {expected}"))?;
        let target = Target::new(&settings)?;
        let wanted = (Wanted::new(&settings)?, Wanted::ledger(&settings)?);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| format!("cannot start the runtime: {error}"))?;
        let shared = Arc::new(Shared::default());
        let (commands, received) = unbounded_channel();
        let running = publish::run(target, settings.clone(), wanted, Arc::clone(&shared), received);
        let thread = crate::thread::spawn("predlog-nats", move || {
            runtime.block_on(running);
            // A resolver that hangs must not hold up the end.
            runtime.shutdown_background();
        });
        let thread = thread.map_err(|error| format!("cannot start a thread: {error}"))?;
        let max_bytes = settings.fallback.max_bytes.as_u64();
        Ok(NatsSink {
            messages: Messages::new(&settings, template),
            dead_letters: DeadLetters::new(&settings.fallback.dir, NAME, process, max_bytes),
            settings,
            shared,
            commands: Some(commands),
            thread: Some(thread),
            stats,
            clock: SystemClock::default(),
            owned: None,
            down: None,
            kept: Kept::new(),
            replayed: Replayed::default(),
        })
    }

    fn failing(&self) -> Option<String> {
        self.shared.flight().failing().map(str::to_owned)
    }

    /// `false` when the thread has ended.
    fn command(&self, command: Command) -> bool {
        self.commands.as_ref().is_some_and(|commands| commands.send(command).is_ok())
    }

    /// Poison is owned when it is with the dead letters.
    fn bury(&mut self) {
        let poison = self.shared.take_poison();
        let letters: Vec<Letter<'_>> = poison.iter().map(Poison::letter).collect();
        if !letters.is_empty() {
            let kept = self.dead_letters.bury(&letters, self.clock.wall(), &self.stats);
            self.shared.settle(&poison, &kept);
        }
    }

    /// Ends the thread. What has no acknowledgement by now is the caller's: it is in the lanes or in the spool.
    fn end(&mut self) {
        self.commands = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread with the NATS connection panicked");
        }
    }
}

impl Drop for NatsSink {
    fn drop(&mut self) {
        self.end();
    }
}

fn unavailable(why: impl Into<String>) -> SinkError {
    SinkError::new(NAME, SinkErrorKind::Unavailable, why)
}

impl Sink for NatsSink {
    fn name(&self) -> &'static str {
        NAME
    }

    fn write(&mut self, batch: &Batch<'_>) -> Result<(), SinkError> {
        // While the last messages of a failed flight wait for their reports, and until the stream answers, the fallback is the better place.
        if let Some(why) = self.failing().or_else(|| self.down.clone()) {
            return Err(unavailable(why));
        }
        let live = batch.origin == Origin::Live;
        let skip = self.replayed.leave_out(batch);
        let slot = self.shared.flight().begin(batch.id, live);
        match self.messages.make(batch, &skip, slot) {
            Ok(made) => {
                let messages = made.messages.len();
                self.shared.flight().expect(slot, messages, &made.marks);
                if !self.command(Command::Send(made.messages)) {
                    (0..messages).for_each(|_| self.shared.flight().fail(slot, || ENDED.to_owned()));
                }
            }
            Err(why) => self.shared.flight().fail_batch(slot, || why),
        }
        Ok(())
    }

    fn commit(&mut self) -> Result<Option<u64>, SinkError> {
        self.bury();
        let progress = self.shared.flight().progress(self.owned);
        match progress {
            Progress::Owned(owned) => {
                self.owned = owned;
                self.replayed.owned(owned);
                Ok(owned)
            }
            Progress::Failed { cause, kept, replayed } => {
                self.kept = kept;
                self.replayed.failed(replayed);
                self.down = Some(cause.clone());
                Err(unavailable(cause))
            }
        }
    }

    fn kept(&mut self) -> Kept {
        std::mem::take(&mut self.kept)
    }

    fn maintain(&mut self, _now: Now, _force: bool) -> Result<Maintained, SinkError> {
        Ok(Maintained::default())
    }

    fn probe(&mut self) -> Result<(), SinkError> {
        if let Some(why) = self.failing() {
            return Err(unavailable(why));
        }
        let answer = self.shared.stream.within(PATIENCE, || {
            self.command(Command::Ask);
        });
        answer.unwrap_or_else(|| Err("the servers have not answered yet".to_owned())).map_err(unavailable)?;
        self.down = None;
        Ok(())
    }

    fn spools(&self) -> bool {
        false
    }

    fn adopt(&mut self, segment: &std::path::Path) -> Result<(), SinkError> {
        Err(unavailable(format!("takes no segments; path={}", segment.display())))
    }

    fn close(&mut self, _now: Now) -> Result<Maintained, SinkError> {
        self.end();
        Ok(Maintained::default())
    }
}
