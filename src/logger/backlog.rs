//! Records that wait in spool segments: this process's own, after the sink was down, and those of dead processes.

use super::home::Home;
use super::stored::Stored;
use crate::batch::{Batch, Origin};
use crate::clock::Now;
use crate::sink::{Sink, SinkError, SinkErrorKind};
use crate::spool::frame::FrameMeta;
use crate::spool::segment::SegmentReader;
use crate::spool::{self, ClosedSegment};
use crate::stats::Stats;
use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Duration;
use uuid::Uuid;

/// How often to look for processes that have died.
const LOOK_FOR_DEAD_EVERY: Duration = Duration::from_secs(15);

#[derive(Debug)]
pub(super) struct Backlog {
    dir: Option<PathBuf>,
    /// Directories of the other modes: what was left there when the mode was changed is delivered too.
    others: Vec<PathBuf>,
    own: Uuid,
    /// What dead processes did not live to state is stated for them.
    ledger: bool,
    segments: VecDeque<PathBuf>,
    /// Segments that could not be read: they are tried again at the next look, so that none holds up those behind it.
    unreadable: Vec<PathBuf>,
    current: Option<Current>,
    adopted: Vec<Home>,
    next_look: Duration,
}

/// A segment that is being replayed, frame by frame.
#[derive(Debug)]
struct Current {
    segment: ClosedSegment,
    reader: SegmentReader,
    /// Frames that were given to the sink, and those of them that it owns.
    given: usize,
    owned: usize,
    /// The frame that was loaded last, and its lines.
    frame: Option<FrameMeta>,
    raw: Vec<u8>,
    /// What of it needs not be given again.
    stored: Stored,
}

impl Current {
    fn open(segment: ClosedSegment, stored: Stored) -> io::Result<Self> {
        let reader = SegmentReader::open(&segment.path)?;
        Ok(Current { segment, reader, given: 0, owned: 0, frame: None, raw: Vec::new(), stored })
    }

    /// Loads the next frame, without what is stored. `false` when there is no other.
    fn load(&mut self) -> io::Result<bool> {
        let Some(frame) = self.segment.frames.get(self.given) else { return Ok(false) };
        self.reader.load(frame, &mut self.raw)?;
        self.given += 1;
        self.frame = Some(if self.stored.is_empty() {
            frame.clone()
        } else {
            frame.retain(&mut self.raw, |writer, seq| !self.stored.contains(writer, seq))
        });
        Ok(true)
    }
}

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Nothing, or nothing before the sink owns what it was given.
    Idle,
    /// A segment was finished or handed over.
    Moved,
    /// A frame is loaded: see [`Backlog::batch`].
    Frame(Frame),
}

/// A frame on its way to the sink.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Frame {
    /// Predictions in it.
    pub(super) rows: u64,
    pub(super) bytes: u64,
    /// Its records are this process's, not those of a dead one.
    pub(super) own: bool,
}

impl Backlog {
    pub(super) fn new(dir: Option<PathBuf>, others: Vec<PathBuf>, own: Uuid, ledger: bool) -> Self {
        Backlog {
            dir,
            others,
            own,
            ledger,
            segments: VecDeque::new(),
            unreadable: Vec::new(),
            current: None,
            adopted: Vec::new(),
            next_look: Duration::ZERO,
        }
    }

    /// This process.
    pub(super) fn own(&self) -> Uuid {
        self.own
    }

    pub(super) fn add(&mut self, segment: ClosedSegment) {
        self.segments.push_back(segment.path);
    }

    /// Nothing waits that can be read.
    pub(super) fn is_empty(&self) -> bool {
        self.segments.is_empty() && self.current.is_none()
    }

    /// Bytes of the segments that wait.
    pub(super) fn bytes(&self) -> u64 {
        let current = self.current.iter().map(|current| &current.segment.path);
        let segments = self.segments.iter().chain(&self.unreadable);
        segments.chain(current).filter_map(|path| std::fs::metadata(path).ok()).map(|metadata| metadata.len()).sum()
    }

    /// Takes over what dead processes left, at the start and then now and again.
    pub(super) fn look_for_dead(&mut self, now: Now, stats: &Stats) {
        let Some(dir) = &self.dir else { return };
        if now.monotonic < self.next_look {
            return;
        }
        self.next_look = now.monotonic + LOOK_FOR_DEAD_EVERY;
        self.segments.extend(self.unreadable.drain(..));
        // The own directory last, and its records first: what a process had of another directory's records when it died is then known to
        // the sink before these are given to it again.
        let mut found = Vec::new();
        for dir in self.others.iter().chain([dir]) {
            match Home::dead(dir) {
                Ok(homes) => found.push(homes),
                Err(error) => {
                    tracing::warn!(dir = %dir.display(), %error, "cannot look for what other processes left; will look again")
                }
            }
        }
        found.into_iter().rev().flatten().for_each(|home| self.take_over(home, now, stats));
    }

    fn take_over(&mut self, home: Home, now: Now, stats: &Stats) {
        let moved = home.lanes_to_spool(now, self.ledger).and_then(|rows| Ok((rows, spool::segments(&home.spool())?)));
        match moved {
            Ok((rows, segments)) => {
                if !segments.is_empty() {
                    tracing::info!(process = ?home.process(), from_lanes = rows, segments = segments.len(), "takes over a dead process's records");
                }
                self.segments.extend(segments);
                self.adopted.push(home);
                self.finish_adopted();
            }
            // Its lock is dropped with it, so the next look finds it again.
            Err(error) => {
                stats.sink_failures.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(process = ?home.process(), %error, "cannot take over a dead process's records yet; will try again");
            }
        }
    }

    /// Removes the directories of dead processes whose segments are all done.
    fn finish_adopted(&mut self) {
        let homes = std::mem::take(&mut self.adopted);
        for home in homes {
            let spool = home.spool();
            let waits = |path: &Path| path.starts_with(&spool);
            if self.segments.iter().chain(&self.unreadable).any(|path| waits(path))
                || self.current.as_ref().is_some_and(|current| waits(&current.segment.path))
            {
                self.adopted.push(home);
            } else if let Err(error) = home.remove_if_empty() {
                tracing::warn!(%error, "cannot remove a dead process's empty directory");
            }
        }
    }

    /// Loads the next frame, or hands a whole segment to a sink that takes those.
    pub(super) fn next(&mut self, sink: &mut dyn Sink, stats: &Stats) -> Result<Next, SinkError> {
        if self.current.is_none() && !self.open_next(sink, stats)? {
            return Ok(Next::Idle);
        }
        let Some(current) = &mut self.current else { return Ok(Next::Moved) };
        match current.load() {
            Ok(true) => {}
            Ok(false) if current.owned == current.given => return self.finish_segment(stats),
            Ok(false) => return Ok(Next::Idle),
            // What is counted for its frames must not be counted for another's.
            Err(_) if current.owned < current.given => return Ok(Next::Idle),
            Err(error) => {
                let path = current.segment.path.clone();
                self.current = None;
                return Ok(self.put_off(path, &error, stats));
            }
        }
        let Some(frame) = &current.frame else { return Ok(Next::Idle) };
        let rows = if current.segment.is_ledger() { 0 } else { u64::from(frame.rows) };
        let own = frame.runs.first().is_some_and(|run| run.writer.process() == self.own);
        Ok(Next::Frame(Frame { rows, bytes: u64::from(frame.raw_bytes), own }))
    }

    /// The frame that was loaded last, as a batch.
    pub(super) fn batch(&self, id: u64) -> Batch<'_> {
        let chunks = self.current.as_ref().and_then(|current| Some(current.frame.as_ref()?.chunks(&current.raw)));
        Batch { id, origin: Origin::Replay, chunks: chunks.unwrap_or_default() }
    }

    /// The sink owns the oldest frame that it was given.
    pub(super) fn owned(&mut self) {
        if let Some(current) = &mut self.current {
            current.owned += 1;
        }
    }

    /// The sink owns none of the others: they are given again.
    pub(super) fn rewind(&mut self) {
        if let Some(current) = &mut self.current {
            current.given = current.owned;
        }
    }

    /// What is wrong is a file's own: neither the sink nor the segments behind it are to suffer from it.
    fn put_off(&mut self, path: PathBuf, error: &io::Error, stats: &Stats) -> Next {
        stats.sink_failures.fetch_add(1, Ordering::Relaxed);
        tracing::error!(path = %path.display(), %error, retry_in = ?LOOK_FOR_DEAD_EVERY, "records that wait in a file cannot be read; it is kept, and read again later");
        self.unreadable.push(path);
        Next::Moved
    }

    /// Opens the next segment that the sink does not take whole. `false` when there is none.
    fn open_next(&mut self, sink: &mut dyn Sink, stats: &Stats) -> Result<bool, SinkError> {
        let Some(path) = self.segments.front().cloned() else { return Ok(false) };
        let opened = match spool::open_closed(&path) {
            Ok(opened) => opened,
            Err(error) => {
                self.segments.pop_front();
                self.put_off(path, &error, stats);
                return Ok(true);
            }
        };
        let read = |error: io::Error| SinkError::io("spool", "read", &path, &error);
        match opened {
            Some(segment) => {
                let first = segment.frames.first().and_then(|frame| frame.runs.first());
                let foreign = first.is_none_or(|run| run.writer.process() != self.own);
                if foreign {
                    stats.recovered.fetch_add(segment.predictions(), Ordering::Relaxed);
                }
                let root = self.root_of(&path).filter(|_| foreign);
                let in_database = root.map_or_else(|| Ok(Stored::default()), |root| Stored::in_database(root, &segment))?;
                // Another directory may be on another file system, where a rename does not reach.
                let whole = sink.spools() && in_database.is_empty();
                if whole && self.dir.as_ref().is_some_and(|dir| path.starts_with(dir)) {
                    let rows = segment.predictions();
                    sink.adopt(&path)?;
                    stats.recovered_delivered.fetch_add(rows, Ordering::Relaxed);
                } else {
                    let stored = root.map_or_else(|| Ok(Stored::default()), |root| in_database.and_sealed(root, &segment));
                    self.current = Some(stored.and_then(|stored| Current::open(segment, stored)).map_err(read)?);
                }
            }
            // Other damage is kept to be looked at.
            None if spool::holds_nothing(&path).map_err(read)? => {
                std::fs::remove_file(&path).map_err(|error| SinkError::io("spool", "remove", &path, &error))?;
            }
            None => {
                stats.damaged.fetch_add(1, Ordering::Relaxed);
                self.set_aside(&path)?;
            }
        }
        self.segments.pop_front();
        if self.current.is_none() {
            self.finish_adopted();
        }
        Ok(true)
    }

    fn finish_segment(&mut self, stats: &Stats) -> Result<Next, SinkError> {
        if let Some(current) = &self.current {
            let path = current.segment.path.clone();
            if current.segment.damaged > 0 {
                stats.damaged.fetch_add(current.segment.damaged, Ordering::Relaxed);
                self.set_aside(&path)?;
            } else {
                std::fs::remove_file(&path).map_err(|error| SinkError::io("spool", "remove", &path, &error))?;
            }
        }
        self.current = None;
        self.finish_adopted();
        Ok(Next::Moved)
    }

    /// The directory that a segment is of.
    fn root_of(&self, path: &Path) -> Option<&Path> {
        self.dir.iter().chain(&self.others).map(PathBuf::as_path).find(|dir| path.starts_with(dir))
    }

    fn set_aside(&self, path: &Path) -> Result<(), SinkError> {
        let no_dir =
            || SinkError::new("spool", SinkErrorKind::Damaged, format!("no directory for the damaged path={}", path.display()));
        let dir = self.root_of(path).ok_or_else(no_dir)?;
        spool::set_aside(dir, path).map_err(|error| SinkError::io("spool", "set aside", path, &error))
    }
}
