//! The thread that ships.

mod retain;

use super::noted;
use super::settings::UploadSettings;
use super::store::{Target, UploadError, UploadErrorKind};
use super::uploader::{Fault, Pace, Uploader};
use super::{Event, Feed, Observer, Retain, ShipStatus};
use crate::outbox::{Entry, Outbox, Relative};
use crate::retry::Backoff;
use parking_lot::Mutex;
use rustix::fs::{FlockOperation, flock};
use std::collections::HashMap;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc as std_mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::{Notify, mpsc, watch};

const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));
/// How long one file that failed lets others go first.
const FILE_BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// How often it looks for what other processes sealed, for rows that are due, and for what is past its retention.
const TICK: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));
/// How often it tries for the lock that another process holds while someone waits.
const LOCK_RETRY: Duration = Duration::from_millis(100);
/// How long a failing store is left in peace at most while someone waits.
const URGENT: Duration = Duration::from_secs(1);

/// Uploads what is sealed in one directory, and deletes what is proven stored and past its retention.
///
/// It works on a thread and a runtime of its own. Of the processes that share a directory one ships at a time (`<dir>/ship.lock`); the others
/// look again later.
///
/// Dropping it stops it like [`stop`](Shipper::stop), without a word of what is left.
#[derive(Debug)]
pub struct Shipper {
    nudge: Nudge,
    commands: mpsc::UnboundedSender<ShipNow>,
    stop: watch::Sender<bool>,
    status: Arc<Mutex<ShipStatus>>,
    thread: Option<JoinHandle<()>>,
}

/// Wakes the shipper: a file was sealed.
#[derive(Clone, Debug)]
pub struct Nudge(Arc<Notify>);

impl Nudge {
    /// Wakes the shipper, without waiting for it. While it backs off from a failing store it sleeps on.
    pub fn nudge(&self) {
        self.0.notify_one();
    }
}

struct ShipNow {
    deadline: Instant,
    reply: std_mpsc::SyncSender<bool>,
}

impl Shipper {
    /// Starts to ship what is in `dir`. The store itself is not asked: one that is away now may come back; see [`super::probe`].
    ///
    /// # Errors
    /// The settings are wrong, or the directory or the thread cannot be made.
    pub fn start(
        settings: UploadSettings,
        dir: &Path,
        retain: Retain,
        feed: Option<Box<dyn Feed>>,
        observer: Observer,
    ) -> Result<Shipper, UploadError> {
        let failed = |message| UploadError { kind: UploadErrorKind::Settings, message };
        settings.validate().map_err(failed)?;
        let outbox = Outbox::open(dir, false).map_err(|error| failed(format!("cannot open dir={}: {error}", dir.display())))?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| failed(format!("cannot start the upload's runtime: {error}")))?;
        let (commands, inbox) = mpsc::unbounded_channel();
        let (stop, stopped) = watch::channel(false);
        let nudge = Nudge(Arc::new(Notify::new()));
        let status = Arc::new(Mutex::new(ShipStatus::default()));
        let worker = Worker {
            tick: (settings.every / 4).clamp(TICK.0, TICK.1),
            settings,
            outbox,
            retain,
            feed,
            observer,
            status: status.clone(),
            target: None,
            pace: Pace::new(),
            backoff: Backoff::new(BACKOFF.0, BACKOFF.1, fastrand::u64(..)),
            held_back: HashMap::new(),
            noted: false,
            retained: None,
            stopped,
        };
        let woken = nudge.0.clone();
        let thread = crate::thread::spawn("predlog-ship", move || {
            runtime.block_on(worker.run(inbox, woken));
            // A name lookup that hangs must not keep the thread.
            runtime.shutdown_background();
        });
        let thread = thread.map_err(|error| failed(format!("cannot start the upload's thread: {error}")))?;
        Ok(Shipper { nudge, commands, stop, status, thread: Some(thread) })
    }

    /// What wakes this shipper.
    pub fn nudge(&self) -> Nudge {
        self.nudge.clone()
    }

    /// Uploads everything that is sealed, and every row that no file has, now: blocks until all is proven stored (true), or the deadline
    /// passed or the shipper stopped first (false).
    pub fn ship_now(&self, deadline: Duration) -> bool {
        let (reply, answer) = std_mpsc::sync_channel(1);
        let sent = self.commands.send(ShipNow { deadline: Instant::now() + deadline, reply });
        sent.is_ok() && answer.recv_timeout(deadline).unwrap_or(false)
    }

    /// How it stands.
    pub fn status(&self) -> ShipStatus {
        self.status.lock().clone()
    }

    /// Stops: what is being uploaded is given up (the next start uploads it), and the thread ends. Blocks for as long as the file system takes,
    /// and two seconds more when a large file was on its way.
    pub fn stop(mut self) -> ShipStatus {
        self.end();
        self.status()
    }

    fn end(&mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the upload's thread panicked");
        }
    }
}

impl Drop for Shipper {
    fn drop(&mut self) {
        self.end();
    }
}

/// How a round ended.
#[derive(Debug, PartialEq, Eq)]
enum Round {
    /// Nothing is left to do.
    Clean,
    /// Something is left that waits for its time.
    Left,
    /// The store fails: not before this.
    Failed(Duration),
    /// Another process ships.
    Busy,
    Stopped,
}

struct Worker {
    settings: UploadSettings,
    outbox: Outbox,
    retain: Retain,
    feed: Option<Box<dyn Feed>>,
    observer: Observer,
    status: Arc<Mutex<ShipStatus>>,
    tick: Duration,
    /// Made at the first need, and anew after a failure: credentials may have changed since.
    target: Option<Target>,
    pace: Pace,
    backoff: Backoff,
    /// Files that failed, and until when others go first.
    held_back: HashMap<Relative, (Backoff, Instant)>,
    /// Where this worker uploads to is noted.
    noted: bool,
    /// When retention was looked at last.
    retained: Option<Instant>,
    stopped: watch::Receiver<bool>,
}

impl Worker {
    async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<ShipNow>, woken: Arc<Notify>) {
        let mut waiting: Vec<ShipNow> = Vec::new();
        let mut stopped = self.stopped.clone();
        loop {
            while let Ok(command) = inbox.try_recv() {
                waiting.push(command);
            }
            waiting.retain(|command| command.deadline > Instant::now());
            let round = self.round(!waiting.is_empty()).await;
            if round == Round::Stopped {
                return;
            }
            if round == Round::Clean {
                for command in waiting.drain(..) {
                    // Whoever asked may have gone.
                    let _ = command.reply.try_send(true);
                }
            }
            let urgent = !waiting.is_empty();
            let (pause, hears) = match round {
                Round::Failed(pause) if urgent => (pause.min(URGENT), false),
                Round::Failed(pause) => (pause, false),
                Round::Left | Round::Busy if urgent => (LOCK_RETRY, true),
                _ => (self.tick, true),
            };
            tokio::select! {
                // An error says that the handle is gone.
                _ = stopped.wait_for(|stop| *stop) => return,
                command = inbox.recv() => match command {
                    Some(command) => waiting.push(command),
                    None => return,
                },
                () = woken.notified(), if hears => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// One pass over what is to be done, if no other process is at it. `force`: everything, also what is not due.
    async fn round(&mut self, force: bool) -> Round {
        let lock = match self.lock() {
            Ok(Some(lock)) => lock,
            Ok(None) => {
                self.report_pending(&[]);
                return Round::Busy;
            }
            Err(error) => return self.failed(format!("cannot lock ship.lock: {error}")),
        };
        let mut round = self.locked_round(force).await;
        // Also while the store is away: what is proven stored need not fill the disk meanwhile.
        if round != Round::Stopped
            && let Err(error) = self.retain()
        {
            round = self.failed(error);
        }
        // Said aloud: a child that was forked meanwhile would hold the lock on.
        if let Err(error) = flock(&lock, FlockOperation::Unlock) {
            tracing::warn!(%error, "cannot unlock ship.lock");
        }
        round
    }

    fn lock(&self) -> std::io::Result<Option<File>> {
        let path = self.outbox.root().join("ship.lock");
        let file = File::options().create(true).truncate(false).write(true).open(path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(file)),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    async fn locked_round(&mut self, force: bool) -> Round {
        if self.settings.url.is_none() {
            return Round::Clean;
        }
        loop {
            let fed = match self.feed.as_mut().map(|feed| feed.fill(&self.outbox, force)) {
                Some(Ok(fed)) => fed,
                None => false,
                Some(Err(error)) => {
                    // Files that are sealed go up all the same.
                    self.note(format!("cannot export rows: {error}"));
                    match self.upload(force).await {
                        Round::Clean | Round::Left => return Round::Failed(self.backoff.failed()),
                        round => return round,
                    }
                }
            };
            match self.upload(force).await {
                Round::Clean => {}
                round => return round,
            }
            let settled = match self.feed.as_mut().filter(|_| fed).map(|feed| feed.settle(&self.outbox)) {
                Some(Ok(settled)) => settled,
                None => false,
                Some(Err(error)) => return self.failed(format!("cannot mark rows as uploaded: {error}")),
            };
            // One more look: what came meanwhile.
            if !settled {
                return if fed { Round::Left } else { Round::Clean };
            }
        }
    }

    /// Uploads what is pending, oldest first, until the store fails.
    async fn upload(&mut self, force: bool) -> Round {
        let pending = match self.outbox.pending() {
            Ok(pending) => pending,
            Err(error) => return self.failed(format!("cannot read the outbox: {error}")),
        };
        self.report_pending(&pending);
        self.held_back.retain(|relative, _| pending.iter().any(|entry| entry.relative == *relative));
        let mut left = false;
        for entry in &pending {
            if !force && self.held_back.get(&entry.relative).is_some_and(|(_, until)| Instant::now() < *until) {
                left = true;
                continue;
            }
            match self.one(entry).await {
                Ok(()) => {}
                Err(Fault::Stopped) => return Round::Stopped,
                Err(Fault::Local(error)) => {
                    self.hold_back(&entry.relative);
                    self.note(error);
                    left = true;
                }
                Err(Fault::Remote(error)) => {
                    self.hold_back(&entry.relative);
                    self.target = None;
                    return self.failed(error);
                }
            }
        }
        let pending = match self.outbox.pending() {
            Ok(pending) => pending,
            Err(error) => return self.failed(format!("cannot read the outbox: {error}")),
        };
        self.report_pending(&pending);
        if left || !pending.is_empty() { Round::Left } else { Round::Clean }
    }

    async fn one(&mut self, entry: &Entry) -> Result<(), Fault> {
        if self.target.is_none() {
            self.target = Target::open(&self.settings).map_err(|error| Fault::Remote(error.message))?;
        }
        let Some(target) = &self.target else { return Ok(()) };
        let started = Instant::now();
        let mut uploader = Uploader {
            target,
            outbox: &self.outbox,
            multipart_bytes: self.settings.multipart_bytes.as_u64(),
            pace: &mut self.pace,
            stop: self.stopped.clone(),
        };
        uploader.store(entry).await?;
        self.backoff.succeeded();
        self.held_back.remove(&entry.relative);
        if !self.noted {
            noted::note(self.outbox.root(), &noted::name(&self.settings))
                .map_err(|error| Fault::Local(format!("stored, but cannot note where: {error}")))?;
            self.noted = true;
        }
        // The marker first: a file without a marker is proven stored, so a crash between the two loses nothing and uploads nothing twice.
        let local = |error| Fault::Local(format!("stored, but cannot clear path={}: {error}", entry.relative));
        self.outbox.done(&entry.relative).map_err(local)?;
        if entry.relative.is_export() {
            self.outbox.delete(&entry.relative).map_err(local)?;
        }
        {
            let mut status = self.status.lock();
            status.uploaded_files += 1;
            status.uploaded_bytes += entry.bytes;
            status.last_error = None;
        }
        (self.observer)(Event::Uploaded { bytes: entry.bytes, took: started.elapsed() });
        Ok(())
    }

    fn hold_back(&mut self, relative: &Relative) {
        let new = || (Backoff::new(FILE_BACKOFF.0, FILE_BACKOFF.1, fastrand::u64(..)), Instant::now());
        let (backoff, until) = self.held_back.entry(relative.clone()).or_insert_with(new);
        *until = Instant::now() + backoff.failed();
    }

    /// Counts a failure and keeps its text.
    fn note(&self, error: String) {
        tracing::warn!(%error, "upload failed; it is tried again");
        (self.observer)(Event::Failed { error: &error });
        let mut status = self.status.lock();
        status.failures += 1;
        status.last_error = Some(error);
    }

    fn failed(&mut self, error: String) -> Round {
        self.note(error);
        Round::Failed(self.backoff.failed())
    }

    fn report_pending(&self, pending: &[Entry]) {
        let bytes = pending.iter().map(|entry| entry.bytes).sum();
        let unexported = self.feed.as_ref().and_then(|feed| feed.oldest());
        let oldest = pending.first().map(|entry| entry.modified).into_iter().chain(unexported).min();
        let mut status = self.status.lock();
        (status.pending_files, status.pending_bytes, status.oldest) = (pending.len() as u64, bytes, oldest);
        drop(status);
        let lag = oldest.and_then(|at| at.elapsed().ok()).unwrap_or_default();
        (self.observer)(Event::Pending { files: pending.len() as u64, bytes, lag });
    }
}
