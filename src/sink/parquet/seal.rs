//! The threads that turn segments into Parquet files.

use crate::batch::Origin;
use crate::clock::{Clock, Now, SystemClock};
use crate::format::seal::{FrameInfo, FrameSource, SealError, SealJob, seal};
use crate::format::store::SchemaStore;
use crate::ledger::LEDGER_MODEL;
use crate::outbox::Outbox;
use crate::spool::ClosedSegment;
use crate::spool::frame::FrameMeta;
use crate::spool::segment::SegmentReader;
use crate::stats::Stats;
use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

/// A segment that could not be sealed is tried again after this, then twice as long each time.
const RETRY_MIN: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(10);

/// Where segments are sealed to.
#[derive(Clone, Debug)]
pub(crate) struct SealInto {
    dir: PathBuf,
    schemas: SchemaStore,
    outbox: Outbox,
}

impl SealInto {
    pub(crate) fn new(dir: &Path) -> io::Result<Self> {
        Ok(SealInto { dir: dir.to_owned(), schemas: SchemaStore::new(dir), outbox: Outbox::open(dir, true)? })
    }

    /// Seals `source`, the records of one model, into files under `<root>/predictions/` (the ledger's: `<root>/ledger/`), each announced to the outbox
    /// before it appears, and returns how many files those were. `root` is the directory itself or one below it.
    pub(crate) fn seal(
        &self,
        model_name: &str,
        root: &Path,
        source: &mut dyn FrameSource,
        stats: &Stats,
    ) -> Result<u64, SealError> {
        loop {
            let failed = |source| SealError::Load { index: 0, source };
            let ledger = model_name == LEDGER_MODEL;
            let base =
                if ledger { crate::ledger::schema() } else { self.schemas.load_or_learn_again(model_name).map_err(failed)? };
            let mut schema = base.clone();
            let mut checked = false;
            let mut outdated = false;
            let mut on_bad_line = |line: &[u8], error: &crate::format::decode::LineError| {
                self.dead_letter(model_name, line, &error.to_string(), stats)
            };
            let mut before_publish = |file: &crate::format::seal::SealedFile, grown: &crate::format::schema::ModelSchema| {
                if !checked && !ledger {
                    checked = true;
                    outdated = !self.schemas.save(model_name, &base, grown)?;
                }
                if outdated {
                    return Err(io::Error::other("another process has changed the schema"));
                }
                let below = root.strip_prefix(&self.dir).map_err(io::Error::other)?.join(&file.relative);
                let relative =
                    below.to_string_lossy().parse().map_err(|why: String| io::Error::new(io::ErrorKind::InvalidData, why))?;
                self.outbox.announce(&relative)
            };
            let mut job = SealJob::new(model_name, root, &mut schema, &mut on_bad_line, &mut before_publish);
            job.fsync = true;
            match seal(job, source) {
                Ok(files) => return Ok(files.len() as u64),
                Err(SealError::Refused { .. }) if outdated => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// A line that is no record (the spool's checksums make that a defect of ours, not of a disk) is kept with its reason.
    fn dead_letter(&self, model_name: &str, line: &[u8], reason: &str, stats: &Stats) {
        stats.unstorable.fetch_add(1, Ordering::Relaxed);
        let letter = serde_json::json!({"model_name": model_name, "reason": reason, "line": String::from_utf8_lossy(line)});
        let dir = self.dir.join("dead-letter");
        let written = std::fs::create_dir_all(&dir).and_then(|()| {
            let mut file = std::fs::OpenOptions::new().append(true).create(true).open(dir.join("records.ndjson"))?;
            file.write_all(format!("{letter}\n").as_bytes())
        });
        match written {
            Ok(()) => {
                tracing::error!(%reason, dir = %dir.display(), "a record cannot be stored in columns; it is in the dead-letter directory")
            }
            Err(error) => {
                tracing::error!(%reason, %error, %letter, "a record cannot be stored in columns, nor in the dead-letter directory")
            }
        }
    }
}

/// The frames of a segment, for sealing.
pub(super) struct SegmentFrames {
    infos: Vec<FrameInfo>,
    metas: Vec<FrameMeta>,
    reader: SegmentReader,
}

impl SegmentFrames {
    fn open(segment: &ClosedSegment) -> io::Result<Self> {
        let info = |frame: &FrameMeta| FrameInfo {
            min_ts: frame.min_ts,
            max_ts: frame.max_ts,
            rows: u64::from(frame.rows),
            raw_bytes: u64::from(frame.raw_bytes),
        };
        Ok(SegmentFrames {
            infos: segment.frames.iter().map(info).collect(),
            metas: segment.frames.clone(),
            reader: SegmentReader::open(&segment.path)?,
        })
    }
}

impl FrameSource for SegmentFrames {
    fn frames(&self) -> &[FrameInfo] {
        &self.infos
    }

    fn load(&mut self, index: usize, into: &mut Vec<u8>) -> io::Result<()> {
        self.reader.load(&self.metas[index], into)
    }
}

/// Threads that seal, and the queue before them.
#[derive(Debug)]
pub(super) struct Sealers {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    now: Now,
}

#[derive(Debug)]
struct Shared {
    into: SealInto,
    stats: Arc<Stats>,
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Job>,
    sealing: Vec<Job>,
    progress: Progress,
    stopping: bool,
    upload_waits: u64,
}

#[derive(Clone, Debug)]
struct Job {
    segment: ClosedSegment,
    /// [`Origin::Live`]: its records were accepted by this process.
    origin: Origin,
    bytes: u64,
}

/// Own records.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Progress {
    pub(super) finished: u64,
    pub(super) pending: u64,
}

impl Sealers {
    pub(super) fn start(into: SealInto, stats: Arc<Stats>) -> io::Result<Self> {
        let shared = Arc::new(Shared { into, stats, state: Mutex::default(), wake: Condvar::new() });
        let count = std::thread::available_parallelism().map_or(1, |cores| cores.get().min(2));
        let spawn = |index: usize| {
            let shared = Arc::clone(&shared);
            crate::thread::spawn(format!("predlog-seal-{index}"), move || shared.run())
        };
        let threads = (0..count).map(spawn).collect::<io::Result<Vec<_>>>()?;
        Ok(Sealers { shared, threads, now: SystemClock::default().now() })
    }

    /// The time of the last `maintain`: `write` has no time of its own.
    pub(super) fn now(&self) -> Now {
        self.now
    }

    pub(super) fn set_now(&mut self, now: Now) {
        self.now = now;
    }

    pub(super) fn add(&self, segment: ClosedSegment, origin: Origin) {
        let bytes = segment.frames.iter().map(FrameMeta::total_bytes).sum();
        let mut state = self.shared.state.lock();
        if origin == Origin::Live {
            state.progress.pending += segment.predictions();
        }
        state.waiting.push_back(Job { segment, origin, bytes });
        self.shared.wake.notify_one();
    }

    pub(super) fn progress(&self) -> Progress {
        self.shared.state.lock().progress
    }

    /// Bytes of segments that are not sealed yet.
    pub(super) fn bytes(&self) -> u64 {
        let state = self.shared.state.lock();
        state.waiting.iter().chain(&state.sealing).map(|job| job.bytes).sum()
    }

    /// Bytes of sealed files that are not uploaded yet, as of the last seal.
    pub(super) fn waiting_upload(&self) -> u64 {
        self.shared.state.lock().upload_waits
    }

    /// The segments that are not sealed yet.
    pub(super) fn segments(&self) -> Vec<ClosedSegment> {
        let state = self.shared.state.lock();
        state.waiting.iter().chain(&state.sealing).map(|job| job.segment.clone()).collect()
    }

    /// Ends the threads, each after the segment that it is at. What waits is left for the next start.
    pub(super) fn stop(&mut self) {
        self.shared.state.lock().stopping = true;
        self.shared.wake.notify_all();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a sealing thread panicked; its segment is left for the next start");
            }
        }
    }
}

impl Drop for Sealers {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn run(&self) {
        let mut retry = RETRY_MIN;
        while let Some(job) = self.next() {
            let sealed = self.seal(&job);
            let mut state = self.state.lock();
            state.sealing.retain(|other| other.segment.path != job.segment.path);
            match sealed {
                Ok(()) => {
                    retry = RETRY_MIN;
                    if job.origin == Origin::Live {
                        state.progress.pending -= job.segment.predictions();
                        state.progress.finished += job.segment.predictions();
                    }
                }
                Err(error) => {
                    tracing::error!(path = %job.segment.path.display(), %error, retry_in = ?retry, "cannot seal a segment; it is kept and tried again");
                    self.stats.sink_failures.fetch_add(1, Ordering::Relaxed);
                    state.waiting.push_back(job);
                    if !state.stopping {
                        self.wake.wait_for(&mut state, retry);
                    }
                    retry = (retry * 2).min(RETRY_MAX);
                }
            }
        }
    }

    fn next(&self) -> Option<Job> {
        let mut state = self.state.lock();
        loop {
            if state.stopping {
                return None;
            }
            if let Some(job) = state.waiting.pop_front() {
                state.sealing.push(job.clone());
                return Some(job);
            }
            self.wake.wait(&mut state);
        }
    }

    fn seal(&self, job: &Job) -> Result<(), SealError> {
        let failed = |action: &'static str, source| SealError::Io { action, path: job.segment.path.clone(), source };
        let mut source = SegmentFrames::open(&job.segment).map_err(|source| failed("open", source))?;
        let files = self.into.seal(&job.segment.model_name, &self.into.dir, &mut source, &self.stats)?;
        self.stats.sealed_files.fetch_add(files, Ordering::Relaxed);
        if job.segment.damaged > 0 {
            self.stats.damaged.fetch_add(job.segment.damaged, Ordering::Relaxed);
            crate::spool::set_aside(&self.into.dir, &job.segment.path).map_err(|source| failed("set aside", source))?;
        } else {
            std::fs::remove_file(&job.segment.path).map_err(|source| failed("remove", source))?;
        }
        let waits = self.into.outbox.pending_bytes().map_err(|source| failed("look into the outbox after", source))?;
        self.state.lock().upload_waits = waits;
        Ok(())
    }
}
