//! Sealing: a segment of raw lines becomes sorted Parquet files, in bounded memory, or nothing happens.
//!
//! Frames arrive in the order they were written and overlap a little in time. They are loaded in order; a row is written once no frame that is
//! not loaded yet can have an earlier one. Rows of one UTC day go to one file at a time. All files are complete under hidden names before the
//! first is renamed, so a failure leaves no trace and the segment can be sealed again; sealing it again with the same schema gives the same names
//! and the same bytes.

mod file;
mod merge;

use std::io;
use std::path::{Path, PathBuf};

use parquet::errors::ParquetError;

pub use super::parquet::WriterRanges;

use super::decode::LineError;
use super::infer::Inference;
use super::schema::ModelSchema;
use file::Files;
use merge::Merge;

/// What is known of a frame of raw lines of one model before it is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameInfo {
    /// The smallest timestamp in it, UTC microseconds. If a row is earlier than this says, files are still sorted, but there may be more of them.
    pub min_ts: i64,
    /// The largest.
    pub max_ts: i64,
    /// Lines in it.
    pub rows: u64,
    /// Its size when loaded.
    pub raw_bytes: u64,
}

/// A segment's frames, in the order they were written.
pub trait FrameSource {
    /// All frames. The same at each call.
    fn frames(&self) -> &[FrameInfo];

    /// Puts the raw lines of a frame into `into`, which is empty. Called in the order of the frames, once in each pass; there can be three.
    ///
    /// # Errors
    /// The frame cannot be read: sealing stops, and leaves no trace.
    fn load(&mut self, index: usize, into: &mut Vec<u8>) -> io::Result<()>;
}

/// A file that is complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedFile {
    /// Where it is, or will be once [`SealJob::before_publish`] has agreed.
    pub path: PathBuf,
    /// The same relative to [`SealJob::root`], with `/` between components.
    pub relative: String,
    /// Rows in it.
    pub rows: u64,
    /// Its size.
    pub bytes: u64,
    /// The timestamp of its first row, UTC microseconds.
    pub min_ts: i64,
    /// The timestamp of its last row.
    pub max_ts: i64,
    /// Whose records are in it.
    pub writers: WriterRanges,
}

/// What to seal with. [`SealJob::new`] has the defaults.
pub struct SealJob<'a> {
    /// The model, exactly as given by its user.
    pub model_name: &'a str,
    /// Files go below `<root>/predictions/<model partition>/<date>/`.
    pub root: &'a Path,
    /// The model's column types: grown by what the segment shows.
    pub schema: &'a mut ModelSchema,
    /// Raw lines that are decoded at a time, in bytes.
    pub window_bytes: usize,
    /// Raw frames that are held in memory, in bytes. When frames overlap in time by more, the file is closed early and another begun.
    pub memory_bytes: usize,
    /// Whether files and directories are flushed to the disk before and after they are renamed.
    pub fsync: bool,
    /// Called once for each line that is no row, with why. A retry of the segment calls it again.
    pub on_bad_line: &'a mut dyn FnMut(&[u8], &LineError),
    /// Called for each file, with the schema it was written by, when all files are complete and none is renamed. An error stops all.
    pub before_publish: &'a mut dyn FnMut(&SealedFile, &ModelSchema) -> io::Result<()>,
}

impl<'a> SealJob<'a> {
    /// Raw lines decoded at a time.
    pub const DEFAULT_WINDOW_BYTES: usize = 1 << 20;
    /// Raw frames held in memory.
    pub const DEFAULT_MEMORY_BYTES: usize = 4 << 20;

    /// A job with the default sizes, which takes about 24 MiB at its peak, and without fsync.
    pub fn new(
        model_name: &'a str,
        root: &'a Path,
        schema: &'a mut ModelSchema,
        on_bad_line: &'a mut dyn FnMut(&[u8], &LineError),
        before_publish: &'a mut dyn FnMut(&SealedFile, &ModelSchema) -> io::Result<()>,
    ) -> Self {
        let (window_bytes, memory_bytes) = (Self::DEFAULT_WINDOW_BYTES, Self::DEFAULT_MEMORY_BYTES);
        SealJob { model_name, root, schema, window_bytes, memory_bytes, fsync: false, on_bad_line, before_publish }
    }
}

/// Why a segment was not sealed. No temporary file is left; files that were renamed before a later rename failed stay, and are replaced by the
/// same bytes when the segment is sealed again.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// A frame cannot be loaded.
    #[error("cannot load a frame: index={index}: {source}")]
    Load {
        /// Which one.
        index: usize,
        /// Why.
        source: io::Error,
    },
    /// A file or directory cannot be made, flushed or renamed.
    #[error("cannot {action}: path={path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write Parquet: path={path}: {source}")]
    Write {
        /// The temporary file.
        path: PathBuf,
        /// Why not.
        source: ParquetError,
    },
    /// The caller did not agree to publish.
    #[error("not published: path={path}: {source}")]
    Refused {
        /// The file that was next.
        path: PathBuf,
        /// The caller's reason.
        source: io::Error,
    },
}

impl SealError {
    /// The kind of the input or output error beneath, if there is one: `StorageFull` for a full disk.
    pub fn io_kind(&self) -> Option<io::ErrorKind> {
        match self {
            SealError::Load { source, .. } | SealError::Io { source, .. } | SealError::Refused { source, .. } => {
                Some(source.kind())
            }
            SealError::Write { source: ParquetError::External(source), .. } => {
                source.downcast_ref::<io::Error>().map(io::Error::kind)
            }
            SealError::Write { .. } => None,
        }
    }
}

/// Seals a segment: decodes, sorts and writes all its rows, then publishes the files. An empty segment gives none.
///
/// If the schema is empty, it is inferred from the whole segment first. Otherwise rows are decoded by it as it is; at the first row with a field
/// that it lacks, the whole segment is read to infer the new columns, and sealing starts again with the grown schema. The job's schema keeps
/// what was learnt, also if sealing fails.
///
/// # Errors
/// See [`SealError`]. Everything can be tried again.
pub fn seal(mut job: SealJob<'_>, source: &mut dyn FrameSource) -> Result<Vec<SealedFile>, SealError> {
    let mut grown = job.schema.is_empty();
    if grown {
        infer(job.schema, source)?;
    }
    let mut reported = 0;
    loop {
        match attempt(&mut job, source, !grown, &mut reported)? {
            Some(files) => return files.publish(&mut job),
            None => grown = true,
        }
    }
}

/// Reads the whole segment for its column types. Returns whether the schema grew.
fn infer(schema: &mut ModelSchema, source: &mut dyn FrameSource) -> Result<bool, SealError> {
    let mut inference = Inference::new();
    let mut frame = Vec::new();
    for index in 0..source.frames().len() {
        frame.clear();
        source.load(index, &mut frame).map_err(|source| SealError::Load { index, source })?;
        let valid = simdutf8::basic::from_utf8(&frame).ok();
        let mut start = 0;
        for end in memchr::memchr_iter(b'\n', &frame).chain([frame.len()]) {
            // A bad line is reported when it is decoded.
            let _ = match valid.and_then(|text| text.get(start..end)) {
                Some("") => Ok(()),
                Some(line) => inference.push_str(line),
                None => inference.push_line(&frame[start..end]),
            };
            start = end + 1;
        }
    }
    Ok(schema.merge(&inference.schema()))
}

/// Writes all files of the segment under hidden names. `None` if the schema has grown on the way (only if it `may_grow`): start again.
fn attempt(
    job: &mut SealJob<'_>,
    source: &mut dyn FrameSource,
    mut may_grow: bool,
    reported: &mut u64,
) -> Result<Option<Files>, SealError> {
    let total_rows = source.frames().iter().map(|frame| frame.rows).sum();
    let mut files = Files::new(job, total_rows);
    let mut merge = Merge::new(source.frames());
    let mut bad = BadLines { seen: 0, reported, report: &mut *job.on_bad_line };
    for index in 0..source.frames().len() {
        merge.load(index, source, &mut bad)?;
        let limit = if merge.loaded_bytes() > job.memory_bytes { i64::MAX } else { merge.watermark(index) };
        merge.emit(limit, |timestamp, line| files.push(timestamp, line, &mut bad))?;
        if may_grow && files.new_field() {
            if infer(job.schema, source)? {
                return Ok(None);
            }
            // The field can have no column, by a limit of the schema: it stays in the JSON column.
            may_grow = false;
        }
    }
    files.finish()?;
    Ok(Some(files))
}

/// Reports each bad line once, however often the segment is read: each pass meets the same ones in the same order.
struct BadLines<'a> {
    seen: u64,
    reported: &'a mut u64,
    report: &'a mut dyn FnMut(&[u8], &LineError),
}

impl BadLines<'_> {
    fn add(&mut self, line: &[u8], error: &LineError) {
        self.seen += 1;
        if self.seen > *self.reported {
            *self.reported = self.seen;
            (self.report)(line, error);
        }
    }
}
