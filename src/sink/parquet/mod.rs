//! The parquet store: records go to the spool, a segment for each model, and each finished segment is sealed into Parquet files under
//! `<dir>/predictions/`.
//!
//! `commit` owns a record once its frame is in a spool file (and synced, under `fsync`). A segment is removed only when its Parquet files are complete,
//! synced and announced to the outbox; sealing it again after a crash gives the same files.

mod seal;
mod stored;

use super::{Kept, Maintained, Sink, SinkError, SinkErrorKind, disk};
use crate::batch::{Batch, Origin};
use crate::clock::Now;
use crate::rotation::RotationSettings;
use crate::spool::{self, Spool, SpoolIndex};
use crate::stats::Stats;
use seal::Sealers;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(crate) use seal::SealInto;
pub(crate) use stored::sealed_since;

const NAME: &str = "parquet";
/// Batches of as many bytes, which are those of more than some 10 MB/s, wait for the sealers as they are: compressing and unpacking them would take three
/// tenths of the CPU time of a record on its way to its column, for a file that is gone within minutes.
const RAW_FROM: u64 = 2 << 20;

/// What a [`ParquetSink`] is told.
#[derive(Clone, Debug)]
pub(crate) struct ParquetSettings {
    /// `<dir>`.
    pub(crate) dir: PathBuf,
    /// Where this process's segments lie, under `<dir>/writers/`.
    pub(crate) spool: PathBuf,
    pub(crate) rotation: RotationSettings,
    /// Commits survive a loss of power.
    pub(crate) fsync: bool,
    /// Bytes of segments, and of files that wait for an upload, past which no more records are taken.
    pub(crate) max_disk_bytes: u64,
    /// Files are uploaded. Without it a finished file waits for nothing.
    pub(crate) uploads: bool,
}

/// The sink of `store = "parquet"`.
#[derive(Debug)]
pub(crate) struct ParquetSink {
    settings: ParquetSettings,
    spool: Spool,
    sealers: Sealers,
    /// What is stored, known only once a replay has asked for it.
    index: Option<SpoolIndex>,
    last_written: Option<u64>,
}

impl ParquetSink {
    pub(crate) fn open(settings: ParquetSettings, stats: Arc<Stats>) -> Result<Self, SinkError> {
        let spool = Spool::new(settings.spool.clone())
            .map_err(|error| SinkError::io(NAME, "open the spool", &settings.spool, &error))?
            .raw_from(RAW_FROM);
        let into =
            SealInto::new(&settings.dir).map_err(|error| SinkError::io(NAME, "make the outbox in", &settings.dir, &error))?;
        let sealers = Sealers::start(into, stats).map_err(|error| {
            SinkError::new(NAME, SinkErrorKind::Unavailable, format!("cannot start the sealing threads: {error}"))
        })?;
        Ok(ParquetSink { settings, spool, sealers, index: None, last_written: None })
    }

    fn io(&self, doing: &str, error: &std::io::Error) -> SinkError {
        SinkError::io(NAME, doing, &self.settings.spool, error)
    }

    fn unsealed_bytes(&self) -> u64 {
        self.spool.open_bytes() + self.sealers.bytes()
    }

    fn disk_bytes(&self) -> u64 {
        let files = if self.settings.uploads { self.sealers.waiting_upload() } else { 0 };
        self.unsealed_bytes() + files
    }

    fn check_disk(&self) -> Result<(), SinkError> {
        let (used, max) = (self.disk_bytes(), self.settings.max_disk_bytes);
        if used < max {
            // A segment goes only when its files are complete: a disk that is full of segments would stay so, as there is no room for files.
            return disk::check_free(NAME, &self.settings.dir, self.unsealed_bytes(), "the files that segments become");
        }
        let message = format!(
            "used={used} bytes are not in finished or uploaded files yet, which reaches upload.max_disk_bytes={max} (for one of [[sinks]]: its max_bytes) in dir={}",
            self.settings.dir.display()
        );
        Err(SinkError::new(NAME, SinkErrorKind::NoSpace, message))
    }

    /// Closes segments and gives them to the sealers. Their records' buffers are free by now: the caller frees them before it calls `maintain`,
    /// so that no lane still holds a record of a segment that is gone.
    fn rotate(&mut self, now: Now, all: bool) {
        for (segment, reason) in self.spool.rotate(&self.settings.rotation, now, all) {
            tracing::debug!(path = %segment.path.display(), rows = segment.rows, ?reason, "seals a segment");
            self.sealers.add(segment, Origin::Live);
        }
    }

    fn maintained(&self) -> Maintained {
        let sealing = self.sealers.progress();
        Maintained {
            finished: sealing.finished,
            pending: self.spool.open_predictions() + sealing.pending,
            pending_bytes: self.spool.open_bytes() + self.sealers.bytes(),
        }
    }
}

impl Sink for ParquetSink {
    fn name(&self) -> &'static str {
        NAME
    }

    fn write(&mut self, batch: &Batch<'_>) -> Result<(), SinkError> {
        self.check_disk()?;
        if batch.origin == Origin::Replay && self.index.is_none() {
            self.index =
                Some(stored::index(&self.settings.dir, &self.spool, &self.sealers).map_err(|error| self.io("read", &error))?);
        }
        let index = self.index.as_ref().filter(|_| batch.origin == Origin::Replay);
        let now = self.sealers.now();
        let keep = |model: &[u8], writer, seq| index.is_none_or(|index| !index.contains(model, writer, seq));
        let appended =
            self.spool.append(batch, now, keep).and_then(|_| if self.settings.fsync { self.spool.sync() } else { Ok(()) });
        appended.map_err(|error| self.io("append to", &error))?;
        if let Some(index) = &mut self.index {
            index.add_batch(batch);
        }
        self.last_written = Some(batch.id);
        Ok(())
    }

    fn commit(&mut self) -> Result<Option<u64>, SinkError> {
        Ok(self.last_written)
    }

    fn kept(&mut self) -> Kept {
        Kept::new()
    }

    fn maintain(&mut self, now: Now, force: bool) -> Result<Maintained, SinkError> {
        self.sealers.set_now(now);
        // Open segments that take all the room would make none before they are due.
        let full = self.check_disk().is_err();
        self.rotate(now, force || full);
        Ok(self.maintained())
    }

    fn probe(&mut self) -> Result<(), SinkError> {
        self.check_disk()?;
        let probe = self.settings.spool.join(format!(".probe-{}", crate::unique::uuid()));
        // More than a file system block: a full disk often still takes an empty file.
        let written = std::fs::create_dir_all(&self.settings.spool).and_then(|()| std::fs::write(&probe, [0; 8192]));
        let removed = std::fs::remove_file(&probe);
        written.map_err(|error| self.io("write to", &error))?;
        removed.map_err(|error| self.io("remove from", &error))
    }

    fn spools(&self) -> bool {
        true
    }

    fn adopt(&mut self, segment: &Path) -> Result<(), SinkError> {
        let failed = |error: std::io::Error| SinkError::io(NAME, "take over", segment, &error);
        let model = segment.parent().and_then(Path::file_name).unwrap_or_default();
        let name = segment.file_name().unwrap_or_default().to_string_lossy();
        let dir = self.settings.spool.join(model);
        // In place of what a process before has put there: each crash in a row would make the name longer, until no file system takes it.
        let own = dir.join(format!("{}-{}", crate::unique::uuid(), spool::name_in_spool(&name)));
        std::fs::create_dir_all(&dir).and_then(|()| std::fs::rename(segment, &own)).map_err(failed)?;
        if let Some(segment) = spool::open_closed(&own).map_err(failed)? {
            if let Some(index) = &mut self.index {
                index.add(&segment);
            }
            self.sealers.add(segment, Origin::Replay);
        }
        Ok(())
    }

    fn close(&mut self, now: Now) -> Result<Maintained, SinkError> {
        self.sealers.set_now(now);
        self.rotate(now, true);
        self.sealers.stop();
        Ok(self.maintained())
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
