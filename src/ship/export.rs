//! SQLite rows become sealed files on their way to the bucket.
//!
//! ```text
//! a plan, kept in the database -> files in <dir>/export/, each with its marker -> (uploaded, marker and file go) -> the plan is done
//! ```
//!
//! A crash anywhere repeats the plan: the same rows give the same names, and with the sticky column types the same bytes.

use super::{Feed, UploadSettings};
use crate::clock::Timestamp;
use crate::format::seal::{FrameInfo, FrameSource};
use crate::outbox::{Outbox, Relative};
use crate::record::timestamp_of_line;
use crate::sink::parquet::SealInto;
use crate::sink::sqlite::{Plan, SqliteExport, SqliteSettings};
use crate::sink::{SinkError, SinkErrorKind};
use crate::stats::Stats;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Rows are sorted and sealed by frames of about this many bytes.
const FRAME_BYTES: usize = 1 << 20;
/// The rows lie on disk for seconds only.
const ZSTD_LEVEL: i32 = 1;
/// Where rows go that belong to no model, since no logger wrote them.
const NO_MODEL: &str = "unknown";

/// Exports the rows of a SQLite store for the [`Shipper`](super::Shipper): when there are `max_rows`, or the oldest has waited for `every`.
pub struct SqliteFeed {
    settings: SqliteSettings,
    max_rows: u64,
    every: Duration,
    stats: Arc<Stats>,
    seal_into: SealInto,
    /// Opened when it is needed: a database that is locked or damaged now is the sink's to report and to heal.
    export: Option<SqliteExport>,
    current: Option<Current>,
    /// The first row that no plan has, and since when it has waited.
    waiting: Option<(i64, SystemTime)>,
    swept: bool,
}

/// A plan whose files are made.
struct Current {
    plan: Plan,
    files: Vec<Relative>,
}

impl SqliteFeed {
    /// For the store of `settings`. The database is opened when it is needed.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn open(settings: SqliteSettings, upload: &UploadSettings, stats: Arc<Stats>) -> Result<Self, String> {
        let dir = &settings.dir;
        let failed = |error: io::Error| format!("cannot make the outbox in dir={}: {error}", dir.display());
        let seal_into = SealInto::new(dir).map_err(failed)?;
        Ok(SqliteFeed {
            max_rows: upload.max_rows,
            every: upload.every,
            settings,
            stats,
            seal_into,
            export: None,
            current: None,
            waiting: None,
            swept: false,
        })
    }

    /// The plan to make files of now: the one that a crash or an error left, or a new one when it is due.
    fn plan(&mut self, force: bool) -> Result<Option<Plan>, SinkError> {
        let export = match &mut self.export {
            Some(export) => export,
            none => none.insert(SqliteExport::open(self.settings.clone())?),
        };
        let now = SystemTime::now();
        // A new plan of no rows is none.
        if let Some(plan) = export.plan(0, now.into())? {
            return Ok(Some(plan));
        }
        let Some(pending) = export.pending()? else {
            self.waiting = None;
            return Ok(None);
        };
        let since = match self.waiting {
            Some((rowid, since)) if rowid == pending.first_rowid => since,
            // Seen while running: it has just come. Seen at the start, its own time says how long it has waited, within reason: a record's
            // time is its caller's to choose.
            Some(_) => now,
            None if self.swept => now,
            None => at(pending.oldest).clamp(now - self.every.min(Duration::from_secs(86_400)), now),
        };
        self.waiting = Some((pending.first_rowid, since));
        let old = now.duration_since(since).is_ok_and(|age| age >= self.every);
        // What waits may be all that the disk has room for: the store takes no more until it is gone.
        if !force && !old && pending.rows < self.max_rows && export.has_room()? {
            return Ok(None);
        }
        export.plan(self.max_rows, now.into())
    }

    /// Makes the plan's files.
    fn make(&mut self, plan: Plan, outbox: &Outbox) -> Result<Current, String> {
        let root = self.settings.dir.join("export");
        fs::create_dir_all(&root).map_err(|error| format!("cannot create path={}: {error}", root.display()))?;
        let export = self.export.as_mut().ok_or("the database is not open")?;
        let mut made = 0;
        for model in &plan.models {
            let mut rows = Rows::of(export, &plan, model, &root)?;
            let model = if model.is_empty() { NO_MODEL } else { model };
            made += self.seal_into.seal(model, &root, &mut rows, &self.stats).map_err(|error| error.to_string())?;
        }
        let listed = outbox.sealed(true).map_err(|error| format!("cannot list export/: {error}"))?;
        let files: Vec<Relative> =
            listed.into_iter().map(|entry| entry.relative).filter(|file| outbox.is_pending(file)).collect();
        if (files.len() as u64) < made {
            return Err(format!("export/ has {} files of the {made} that were made; something else deletes there", files.len()));
        }
        Ok(Current { plan, files })
    }
}

impl Feed for SqliteFeed {
    fn fill(&mut self, outbox: &Outbox, force: bool) -> Result<bool, String> {
        if self.current.is_some() {
            return Ok(true);
        }
        let plan = self.plan(force).map_err(|error| error.to_string())?;
        if !self.swept {
            sweep(outbox).map_err(|error| format!("cannot tidy export/: {error}"))?;
            self.swept = true;
        }
        let Some(plan) = plan else { return Ok(false) };
        self.current = Some(self.make(plan, outbox)?);
        Ok(true)
    }

    fn settle(&mut self, outbox: &Outbox) -> Result<bool, String> {
        let (Some(current), Some(export)) = (&self.current, &mut self.export) else { return Ok(false) };
        // Only the uploader takes a marker away, and only with a proof.
        if let Some(open) = current.files.iter().find(|file| outbox.is_pending(file)) {
            if !outbox.path(open).exists() {
                tracing::warn!(file = %open, "an export was deleted before it was uploaded; it is made again");
                self.current = None;
            }
            return Ok(false);
        }
        match export.done(&current.plan, SystemTime::now().into()) {
            Ok(()) => {
                (self.current, self.waiting) = (None, None);
                Ok(true)
            }
            Err(error) => {
                // The plan's database is set aside: there is nothing to note any more.
                if error.kind == SinkErrorKind::Damaged {
                    self.current = None;
                }
                Err(error.to_string())
            }
        }
    }

    fn oldest(&self) -> Option<SystemTime> {
        self.waiting.map(|(_, since)| since)
    }
}

/// Deletes exports that are proven stored: a crash came between the marker and the file.
fn sweep(outbox: &Outbox) -> io::Result<()> {
    for entry in outbox.sealed(true)? {
        if !outbox.is_pending(&entry.relative) {
            outbox.delete(&entry.relative)?;
        }
    }
    Ok(())
}

fn at(timestamp: Timestamp) -> SystemTime {
    match u64::try_from(timestamp.micros()) {
        Ok(micros) => SystemTime::UNIX_EPOCH + Duration::from_micros(micros),
        Err(_) => SystemTime::UNIX_EPOCH,
    }
}

/// The lines of one model of a plan, on disk: sealing reads them up to three times, and they may be more than memory should hold.
struct Rows {
    file: File,
    frames: Vec<FrameInfo>,
    /// Offset and length of each frame in the file.
    places: Vec<(u64, usize)>,
    zstd: zstd::bulk::Decompressor<'static>,
}

impl Rows {
    fn of(export: &mut SqliteExport, plan: &Plan, model: &str, dir: &Path) -> Result<Rows, String> {
        let path = dir.join(".rows");
        let failed = |error: io::Error| format!("cannot write path={}: {error}", path.display());
        let mut writer = RowsWriter::create(&path).map_err(failed)?;
        let mut written = Ok(());
        let mut each = |line: &[u8]| {
            if written.is_ok() {
                written = writer.push(line);
            }
        };
        export.lines(plan, model, &mut each).map_err(|error| error.to_string())?;
        written.and_then(|()| writer.finish()).map_err(failed)
    }
}

impl FrameSource for Rows {
    fn frames(&self) -> &[FrameInfo] {
        &self.frames
    }

    fn load(&mut self, index: usize, into: &mut Vec<u8>) -> io::Result<()> {
        let (Some(frame), Some(&(offset, len))) = (self.frames.get(index), self.places.get(index)) else {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        };
        let mut packed = vec![0; len];
        self.file.read_exact_at(&mut packed, offset)?;
        let size = usize::try_from(frame.raw_bytes).map_err(io::Error::other)?;
        into.reserve(size);
        self.zstd.decompress_to_buffer(&packed, into)?;
        Ok(())
    }
}

struct RowsWriter {
    file: File,
    offset: u64,
    frames: Vec<FrameInfo>,
    places: Vec<(u64, usize)>,
    raw: Vec<u8>,
    rows: u64,
    min_ts: i64,
    max_ts: i64,
    zstd: zstd::bulk::Compressor<'static>,
}

impl RowsWriter {
    fn create(path: &Path) -> io::Result<Self> {
        let file = File::options().read(true).write(true).create(true).truncate(true).open(path)?;
        // Nameless from here on: whatever happens, the disk gets it back.
        fs::remove_file(path)?;
        Ok(RowsWriter {
            file,
            offset: 0,
            frames: Vec::new(),
            places: Vec::new(),
            raw: Vec::new(),
            rows: 0,
            min_ts: i64::MAX,
            max_ts: i64::MIN,
            zstd: zstd::bulk::Compressor::new(ZSTD_LEVEL)?,
        })
    }

    fn push(&mut self, line: &[u8]) -> io::Result<()> {
        // A line without a time is no row: sealing says so.
        if let Some(ts) = timestamp_of_line(line) {
            (self.min_ts, self.max_ts) = (self.min_ts.min(ts), self.max_ts.max(ts));
        }
        self.raw.extend_from_slice(line);
        self.rows += 1;
        if self.raw.len() >= FRAME_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.rows == 0 {
            return Ok(());
        }
        let packed = self.zstd.compress(&self.raw)?;
        self.file.write_all(&packed)?;
        let (min_ts, max_ts) = if self.min_ts <= self.max_ts { (self.min_ts, self.max_ts) } else { (i64::MIN, i64::MIN) };
        self.frames.push(FrameInfo { min_ts, max_ts, rows: self.rows, raw_bytes: self.raw.len() as u64 });
        self.places.push((self.offset, packed.len()));
        self.offset += packed.len() as u64;
        (self.rows, self.min_ts, self.max_ts) = (0, i64::MAX, i64::MIN);
        self.raw.clear();
        Ok(())
    }

    fn finish(mut self) -> io::Result<Rows> {
        self.flush()?;
        let zstd = zstd::bulk::Decompressor::new()?;
        Ok(Rows { file: self.file, frames: self.frames, places: self.places, zstd })
    }
}

#[cfg(test)]
#[path = "export_tests.rs"]
mod tests;
