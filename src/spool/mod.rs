//! Records on disk before they reach their final place: segments of checksummed zstd frames, one model a segment.
//!
//! `<root>/<model>/<created>-<n>.ndjson.zst`, where `<model>` is the model's partition name, `<created>` UTC microseconds and `<n>` a count.

pub(crate) mod frame;
pub(crate) mod segment;

use crate::batch::Batch;
use crate::clock::Now;
use crate::format::path::model_partition;
use crate::ledger::LEDGER_MODEL;
use crate::record::{Writer, raw_model_name, timestamp_of_line};
use crate::rotation::{Rotation, RotationReason, RotationSettings};
use crate::seqs::SeqRanges;
use frame::{Body, FrameBuilder, FrameMeta};
use segment::SegmentWriter;
use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

/// How the lines are compressed. A fast level: a line is compressed again, in columns, when it reaches its file.
const ZSTD_LEVEL: i32 = -3;
/// Segments that keep their file open. A batch may have more models: the files of the others are open only while they are written, and the
/// segments least recently written are closed at the next [`Spool::rotate`].
const MAX_OPEN_SEGMENTS: usize = 128;

/// Segments that take records, under one directory that this process owns.
#[derive(Debug)]
pub(crate) struct Spool {
    root: PathBuf,
    /// By the raw JSON text of the model's name.
    open: HashMap<Vec<u8>, OpenSegment>,
    zstd: Zstd,
    /// Batches of as many bytes are not compressed.
    raw_from: u64,
    scratch: Vec<u8>,
    created: u64,
}

struct Zstd(zstd::bulk::Compressor<'static>);

impl Zstd {
    fn body(&mut self, raw: bool) -> Body<'_> {
        if raw { Body::Raw } else { Body::Compressed(&mut self.0) }
    }
}

impl std::fmt::Debug for Zstd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Zstd")
    }
}

#[derive(Debug)]
struct OpenSegment {
    writer: SegmentWriter,
    rotation: Rotation,
    model_name: String,
    frames: Vec<FrameMeta>,
    /// Lines of the batch at hand.
    building: FrameBuilder,
    /// Length and frames before the batch at hand: where a failed one is taken back to.
    saved: Option<(u64, usize)>,
    rows: u64,
    last_write: u64,
}

/// A segment that takes no more.
#[derive(Debug, Clone)]
pub(crate) struct ClosedSegment {
    pub(crate) path: PathBuf,
    pub(crate) model_name: String,
    pub(crate) frames: Vec<FrameMeta>,
    pub(crate) rows: u64,
    /// Frames that were damaged and are not among `frames`.
    pub(crate) damaged: u64,
}

impl ClosedSegment {
    /// It holds statements of the ledger, not predictions.
    pub(crate) fn is_ledger(&self) -> bool {
        self.model_name == LEDGER_MODEL
    }

    /// How many predictions it holds.
    pub(crate) fn predictions(&self) -> u64 {
        if self.is_ledger() { 0 } else { self.rows }
    }
}

impl Spool {
    /// A spool under `root`, which is made when the first record comes. What lies there already stays as it is; see [`segments`].
    pub(crate) fn new(root: PathBuf) -> io::Result<Self> {
        let mut zstd = zstd::bulk::Compressor::new(ZSTD_LEVEL)?;
        zstd.include_checksum(true)?;
        Ok(Spool { root, open: HashMap::new(), zstd: Zstd(zstd), raw_from: u64::MAX, scratch: Vec::new(), created: 0 })
    }

    /// Batches of at least so many bytes are stored as they are: for segments that are read again within minutes, where compressing them would take the time
    /// of those who do.
    #[cfg(feature = "parquet")]
    pub(crate) fn raw_from(self, bytes: u64) -> Self {
        Spool { raw_from: bytes, ..self }
    }

    /// Where the segments lie.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Appends the records of `batch` for which `keep(model, writer, seq)` holds, and returns how many those were.
    /// All of them are in the files when this returns, or none.
    pub(crate) fn append(&mut self, batch: &Batch<'_>, now: Now, keep: impl Fn(&[u8], Writer, u64) -> bool) -> io::Result<u64> {
        let raw = batch.bytes() >= self.raw_from;
        let appended = self.collect(batch, now, &keep, raw).and_then(|rows| self.flush(now, raw).map(|()| rows));
        if appended.is_err() {
            self.roll_back();
        }
        appended
    }

    fn collect(&mut self, batch: &Batch<'_>, now: Now, keep: &impl Fn(&[u8], Writer, u64) -> bool, raw: bool) -> io::Result<u64> {
        let mut rows = 0;
        for chunk in &batch.chunks {
            let mut lines = chunk.lines().peekable();
            while let Some((_, line)) = lines.peek() {
                let model = raw_model_name(line).ok_or_else(|| not_ours(line))?;
                let segment = open_segment(&mut self.open, &self.root, &mut self.created, model, now)?;
                segment.last_write = batch.id;
                // Most batches have one model: stay with it as long as the text at the name's place is the same.
                while let Some((seq, line)) = lines.next_if(|(_, line)| has_model(line, model)) {
                    if keep(model, chunk.writer, seq) {
                        let ts = timestamp_of_line(line).ok_or_else(|| not_ours(line))?;
                        segment.building.push(chunk.writer, seq, ts, line);
                        rows += 1;
                        if segment.building.is_full() {
                            segment.write_frame(&mut self.zstd.body(raw), &mut self.scratch)?;
                        }
                    }
                }
            }
        }
        Ok(rows)
    }

    fn flush(&mut self, now: Now, raw: bool) -> io::Result<()> {
        for segment in self.open.values_mut() {
            if !segment.building.is_empty() {
                segment.write_frame(&mut self.zstd.body(raw), &mut self.scratch)?;
            }
        }
        for segment in self.open.values_mut() {
            if let Some((_, frames)) = segment.saved.take() {
                let new = &segment.frames[frames..];
                let rows = new.iter().map(|frame| u64::from(frame.rows)).sum();
                let bytes = new.iter().map(|frame| u64::from(frame.raw_bytes)).sum();
                segment.rotation.wrote(rows, bytes, now);
                segment.rows += rows;
            }
        }
        Ok(())
    }

    fn roll_back(&mut self) {
        for segment in self.open.values_mut() {
            segment.building = FrameBuilder::default();
            if let Some((len, frames)) = segment.saved.take() {
                segment.frames.truncate(frames);
                if let Err(error) = segment.writer.cut(len) {
                    // The writer knows, and cuts again before its next append.
                    tracing::warn!(path = %segment.writer.path().display(), %error, "cannot take back a failed batch yet");
                }
            }
        }
    }

    /// Makes what was appended survive a loss of power.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.open.values().try_for_each(|segment| segment.writer.sync())
    }

    /// Closes the segments that are due, or all.
    pub(crate) fn rotate(
        &mut self,
        settings: &RotationSettings,
        now: Now,
        all: bool,
    ) -> Vec<(ClosedSegment, Option<RotationReason>)> {
        let surplus = self.surplus();
        let due: Vec<(Vec<u8>, Option<RotationReason>)> = self
            .open
            .iter()
            .filter_map(|(model, segment)| {
                let reason = segment.rotation.due(settings, now);
                let finish = reason.is_some() || (all && segment.rows > 0) || surplus.contains(model);
                finish.then(|| (model.clone(), reason))
            })
            .collect();
        if all {
            // What a failed batch opened and never filled.
            self.open.retain(|_, segment| segment.rows > 0 || std::fs::remove_file(segment.writer.path()).is_err());
        }
        due.into_iter()
            .filter_map(|(model, reason)| self.open.remove(&model).map(|segment| (segment.contents(), reason)))
            .collect()
    }

    fn surplus(&self) -> Vec<Vec<u8>> {
        let mut by_age: Vec<_> =
            self.open.iter().filter(|(_, segment)| segment.rows > 0).map(|(model, s)| (s.last_write, model)).collect();
        by_age.sort_unstable();
        let surplus = by_age.len().saturating_sub(MAX_OPEN_SEGMENTS);
        by_age.into_iter().take(surplus).map(|(_, model)| model.clone()).collect()
    }

    /// The open segments as they are now.
    #[cfg(feature = "parquet")]
    pub(crate) fn open_segments(&self) -> impl Iterator<Item = ClosedSegment> + '_ {
        self.open.values().map(OpenSegment::contents)
    }

    /// Records in segments that are still open.
    pub(crate) fn open_rows(&self) -> u64 {
        self.open.values().map(|segment| segment.rows).sum()
    }

    /// Those of them that are predictions.
    #[cfg(feature = "parquet")]
    pub(crate) fn open_predictions(&self) -> u64 {
        self.open.values().filter(|segment| segment.model_name != LEDGER_MODEL).map(|segment| segment.rows).sum()
    }

    /// Bytes on disk of segments that are still open.
    pub(crate) fn open_bytes(&self) -> u64 {
        self.open.values().map(|segment| segment.writer.len()).sum()
    }
}

fn has_model(line: &[u8], model: &[u8]) -> bool {
    const AT: usize = crate::record::encode::MODEL_NAME_AT;
    // The quote behind the name: without it `wine` would take the lines of `wine2`.
    line.get(AT..AT + model.len()) == Some(model) && line.get(AT + model.len()) == Some(&b'"')
}

fn not_ours(line: &[u8]) -> io::Error {
    let start = String::from_utf8_lossy(&line[..line.len().min(80)]);
    io::Error::new(io::ErrorKind::InvalidData, format!("a line is not one that log() made: {start:?}"))
}

fn open_segment<'a>(
    open: &'a mut HashMap<Vec<u8>, OpenSegment>,
    root: &Path,
    created: &mut u64,
    model: &[u8],
    now: Now,
) -> io::Result<&'a mut OpenSegment> {
    if !open.contains_key(model) {
        let model_name = decode_name(model)?;
        let dir = root.join(model_partition(&model_name));
        std::fs::create_dir_all(&dir)?;
        let path = dir.join(format!("{:020}-{created:06}.ndjson.zst", now.wall.micros().max(0)));
        *created += 1;
        let segment = OpenSegment {
            writer: SegmentWriter::create(path, open.len() < MAX_OPEN_SEGMENTS)?,
            rotation: Rotation::open(now),
            model_name,
            frames: Vec::new(),
            building: FrameBuilder::default(),
            saved: None,
            rows: 0,
            last_write: 0,
        };
        open.insert(model.to_vec(), segment);
    }
    open.get_mut(model).ok_or_else(|| io::Error::other("the segment that was just opened is gone"))
}

fn decode_name(raw: &[u8]) -> io::Result<String> {
    let quoted = [b"\"", raw, b"\""].concat();
    serde_json::from_slice(&quoted).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

impl OpenSegment {
    fn write_frame(&mut self, body: &mut Body<'_>, scratch: &mut Vec<u8>) -> io::Result<()> {
        self.saved.get_or_insert((self.writer.len(), self.frames.len()));
        scratch.clear();
        let frame = self.building.finish(scratch, self.writer.len(), body)?;
        self.writer.append(scratch)?;
        self.frames.push(frame);
        Ok(())
    }

    fn contents(&self) -> ClosedSegment {
        ClosedSegment {
            path: self.writer.path().to_owned(),
            model_name: self.model_name.clone(),
            frames: self.frames.clone(),
            rows: self.rows,
            damaged: 0,
        }
    }
}

/// The segments under a spool's directory, oldest first. None when the directory is not there.
pub(crate) fn segments(root: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for model in read_dir(root)? {
        for segment in read_dir(&model)? {
            if segment.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.ends_with(".ndjson.zst")) {
                paths.push(segment);
            }
        }
    }
    paths.sort_by(|left, right| left.file_name().cmp(&right.file_name()));
    Ok(paths)
}

/// `<created>-<n>.ndjson.zst`, without what was put before it since.
#[cfg(feature = "parquet")]
pub(crate) fn name_in_spool(name: &str) -> &str {
    let start = name.rmatch_indices('-').nth(1).map_or(0, |(at, _)| at + 1);
    &name[start..]
}

/// Whether no frame of the segment was ever whole, so that nothing in it was ever owned: its process died before, or while it wrote the first.
pub(crate) fn holds_nothing(path: &Path) -> io::Result<bool> {
    let contents = segment::read(path)?;
    Ok(contents.frames.is_empty() && contents.damaged == 0)
}

fn read_dir(dir: &Path) -> io::Result<Vec<PathBuf>> {
    match std::fs::read_dir(dir) {
        Ok(entries) => entries.map(|entry| entry.map(|entry| entry.path())).collect(),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Reads a segment that nobody writes any more. `None` when there is no sound record in it.
pub(crate) fn open_closed(path: &Path) -> io::Result<Option<ClosedSegment>> {
    let contents = segment::read(path)?;
    let Some(first) = contents.frames.first() else {
        return Ok(None);
    };
    let mut raw = Vec::new();
    segment::SegmentReader::open(path)?.load(first, &mut raw)?;
    let model = raw_model_name(&raw).ok_or_else(|| not_ours(&raw))?;
    Ok(Some(ClosedSegment {
        path: path.to_owned(),
        model_name: decode_name(model)?,
        rows: contents.frames.iter().map(|frame| u64::from(frame.rows)).sum(),
        damaged: contents.damaged,
        frames: contents.frames,
    }))
}

/// Keeps a damaged file of frames for a person to look at, in `<dir>/damaged/`.
pub(crate) fn set_aside(dir: &Path, segment: &Path) -> io::Result<()> {
    let damaged = dir.join("damaged");
    let kept = damaged.join(format!("{}-{}", crate::unique::uuid(), segment.file_name().unwrap_or_default().to_string_lossy()));
    std::fs::create_dir_all(&damaged)?;
    std::fs::rename(segment, &kept)?;
    tracing::error!(kept = %kept.display(), "a file had damaged frames; all sound ones were delivered, and the file is kept");
    Ok(())
}

/// Which records the segments of a spool hold, by the raw text of the model's name and by writer.
#[derive(Debug, Default)]
pub(crate) struct SpoolIndex {
    seqs: HashMap<Vec<u8>, HashMap<Writer, SeqRanges>>,
}

impl SpoolIndex {
    /// Adds a segment's records. A run has all that its writer wrote for the model between its first and its last.
    pub(crate) fn add(&mut self, segment: &ClosedSegment) {
        let mut model = Vec::new();
        crate::json::escape::write_escaped(&mut model, segment.model_name.as_bytes());
        let writers = self.seqs.entry(model).or_default();
        for run in segment.frames.iter().flat_map(|frame| &frame.runs) {
            writers.entry(run.writer).or_default().insert(run.first, run.last);
        }
    }

    /// Adds a range that a finished file holds.
    #[cfg(feature = "parquet")]
    pub(crate) fn add_range(&mut self, model_name: &str, writer: Writer, first: u64, last: u64) {
        let mut model = Vec::new();
        crate::json::escape::write_escaped(&mut model, model_name.as_bytes());
        self.seqs.entry(model).or_default().entry(writer).or_default().insert(first, last);
    }

    /// Adds a batch that was appended whole.
    #[cfg(feature = "parquet")]
    pub(crate) fn add_batch(&mut self, batch: &Batch<'_>) {
        for chunk in &batch.chunks {
            for (seq, line) in chunk.lines() {
                if let Some(model) = raw_model_name(line) {
                    let writers = match self.seqs.get_mut(model) {
                        Some(writers) => writers,
                        None => self.seqs.entry(model.to_vec()).or_default(),
                    };
                    writers.entry(chunk.writer).or_default().insert(seq, seq);
                }
            }
        }
    }

    /// Nothing is in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.seqs.is_empty()
    }

    pub(crate) fn contains(&self, model: &[u8], writer: Writer, seq: u64) -> bool {
        self.seqs.get(model).and_then(|writers| writers.get(&writer)).is_some_and(|ranges| ranges.contains(seq))
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
