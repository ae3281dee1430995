//! `direct.backlog = "kafka"`: what a direct store has not uploaded goes to the topic, on a thread of its own, until nothing waits.
//!
//! Rows go by the plans that the upload would have made, files by their markers: what is owned by the brokers counts as uploaded. A kill
//! gives the plan or the batch at hand again.

use crate::config::Config;
use crate::error::{Error, ErrorKind};
use crate::logger::{Guard, Service};
use crate::outbox::Outbox;
use crate::resend::parquet::ParquetSource;
use crate::resend::{End, Records, Sender, State, send_all, try_lock};
use crate::sink::SinkError;
use crate::sink::kafka::KafkaSink;
use crate::sink::sqlite::{Plan, SqliteExport, SqliteSettings};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

/// The longest that the brokers may fail: whoever begins anew sends what they have of a plan once more.
const PATIENCE: Duration = Duration::from_secs(365 * 24 * 3_600);
/// After a failure.
const RETRY: Duration = Duration::from_secs(5);
/// Rows of a plan: what a kill gives twice.
const PLAN_ROWS: u64 = 10_000;
/// How far a file was sent; beside the files.
const STATE: &str = ".backlog-to-kafka";

/// The thread.
#[derive(Debug)]
struct Drain {
    end: End,
    thread: Option<JoinHandle<()>>,
}

struct Worker {
    dir: PathBuf,
    /// Where there is a database.
    rows: Option<SqliteSettings>,
    sender: Sender,
    end: End,
}

/// Starts it, where there is a store at all.
pub(super) fn attach(config: &Config, mut guard: Guard) -> Result<Guard, Error> {
    let dir = config.direct.dir.clone();
    let settings = super::direct::sqlite_settings(config);
    let rows = settings.path().exists().then_some(settings);
    if rows.is_none() && !dir.join("outbox").is_dir() {
        return Ok(guard);
    }
    let stats = Arc::default();
    let sink = KafkaSink::open(config.kafka.clone(), crate::unique::uuid(), Arc::clone(&stats))
        .map_err(|error| Error::new(ErrorKind::Config, error))?;
    let end = End::default();
    let worker = Worker { dir, rows, sender: Sender::new(Box::new(sink), stats, PATIENCE, end.clone()), end: end.clone() };
    let thread = crate::thread::spawn("predlog-drain", move || worker.run())
        .map_err(|error| Error::new(ErrorKind::Storage, format!("cannot start a thread: {error}")))?;
    guard.attach(Box::new(Drain { end, thread: Some(thread) }));
    Ok(guard)
}

impl Service for Drain {
    fn stop(&mut self, deadline: Instant) {
        // The batch at hand is waited for until then: a start that does not know what became of it gives it, or its plan, again. An error would say that it ends already.
        let _ = self.end.set(deadline);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            if thread.join().is_err() {
                tracing::error!("the thread that sends the backlog panicked");
            }
        }
    }
}

impl Worker {
    fn run(mut self) {
        while !self.ends() {
            match self.drain() {
                // The processes that share the directory take turns.
                Ok(None) => std::thread::park_timeout(RETRY),
                Ok(Some(sent)) => {
                    if !self.ends() {
                        tracing::info!(dir = %self.dir.display(), records = sent, "what direct mode has left is in Kafka");
                    }
                    break;
                }
                Err(error) if self.ends() => tracing::debug!(%error, "ended before what direct mode has left was in Kafka"),
                Err(error) => {
                    tracing::warn!(%error, retry_in = ?RETRY, "cannot send what direct mode has left");
                    std::thread::park_timeout(RETRY);
                }
            }
        }
        if let Err(error) = self.sender.close() {
            tracing::debug!(%error, "the sink of the backlog did not close");
        }
    }

    fn ends(&self) -> bool {
        self.end.get().is_some()
    }

    /// Sends all that waits, or until it is to end. `None` when another process is at it.
    fn drain(&mut self) -> Result<Option<u64>, Error> {
        // The shipper's lock: what this process sends another one must not upload.
        let Some(_lock) = try_lock(&self.dir.join("ship.lock"))? else { return Ok(None) };
        Ok(Some(self.send_rows()? + self.send_files()?))
    }

    fn send_rows(&mut self) -> Result<u64, Error> {
        let Some(settings) = self.rows.clone() else { return Ok(0) };
        let mut export = SqliteExport::open(settings).map_err(storage)?;
        let mut sent = 0;
        while !self.ends() {
            let Some(plan) = export.plan(PLAN_ROWS, SystemTime::now().into()).map_err(storage)? else { break };
            sent += self.send_plan(&mut export, &plan)?;
            self.drop_exports()?;
            export.done(&plan, SystemTime::now().into()).map_err(storage)?;
        }
        Ok(sent)
    }

    fn send_plan(&mut self, export: &mut SqliteExport, plan: &Plan) -> Result<u64, Error> {
        let (mut records, mut sent, mut foreign) = (Records::default(), 0, 0);
        for model in &plan.models {
            let mut failed = None;
            let mut each = |line: &[u8]| {
                if failed.is_some() {
                    return;
                }
                foreign += u64::from(!records.push(line));
                if records.is_full() {
                    failed = self.sender.send(&mut records).err();
                    sent += records.len();
                    records.clear();
                }
            };
            export.lines(plan, model, &mut each).map_err(storage)?;
            failed.map_or(Ok(()), Err)?;
        }
        if !records.is_empty() {
            self.sender.send(&mut records)?;
        }
        if foreign > 0 {
            tracing::error!(rows = foreign, "rows that no logger wrote are not sent; they stay in the database");
        }
        Ok(sent + records.len())
    }

    /// Files that the upload had made of the plan's rows.
    fn drop_exports(&self) -> Result<(), Error> {
        let failed = |error: std::io::Error| io(&self.dir, &error);
        let outbox = Outbox::open(&self.dir, true).map_err(failed)?;
        for entry in outbox.pending().map_err(failed)?.into_iter().filter(|entry| entry.relative.is_export()) {
            outbox.delete(&entry.relative).and_then(|()| outbox.done(&entry.relative)).map_err(failed)?;
        }
        Ok(())
    }

    fn send_files(&mut self) -> Result<u64, Error> {
        let dir = self.dir.clone();
        let failed = |error: std::io::Error| io(&dir, &error);
        let outbox = Outbox::open(&dir, true).map_err(failed)?;
        let mut state = State::load(dir.join(STATE), "kafka")?;
        let mut sent = 0;
        for entry in outbox.pending().map_err(failed)?.into_iter().filter(|entry| !entry.relative.is_export()) {
            let mut source = ParquetSource::of(outbox.clone(), vec![entry.relative.clone()]);
            let end = self.end.clone();
            sent += send_all(&mut source, &mut self.sender, &mut state, &mut |_| end.get().is_none())?;
            if self.ends() {
                return Ok(sent);
            }
            outbox.done(&entry.relative).map_err(failed)?;
        }
        state.remove().map_err(failed)?;
        Ok(sent)
    }
}

fn storage(error: SinkError) -> Error {
    Error::new(ErrorKind::Storage, error.to_string())
}

fn io(dir: &std::path::Path, error: &std::io::Error) -> Error {
    Error::new(ErrorKind::Storage, format!("cannot read or write the outbox of dir={}: {error}", dir.display()))
}
