//! One frame of a spool segment: a zstd skippable frame that describes (so that `zstdcat segment | jq` reads just the lines), then a zstd frame
//! of NDJSON lines of one model.
//!
//! The zstd frame is compressed, or has the lines as they are, in raw blocks (RFC 8878, 3.1.1.2): what costs nothing where records come in a flood.
//!
//! The skippable frame (RFC 8878, 3.1.2), little-endian: magic `0x184D2A5D`, size of the rest, then [`VERSION`] u8, compressed bytes u32,
//! raw bytes u32, rows u32, smallest and largest timestamp i64 (UTC microseconds), the number of runs u16, each run (process 16 bytes, lane u8,
//! rows u32, first seq u64, last seq u64), and crc32c u32 of all before it and of the zstd frame behind it.

use crate::batch::Chunk;
use crate::checksum::{crc32c, crc32c_append};
use crate::record::Writer;
use std::io;
use uuid::Uuid;

const MAGIC: [u8; 4] = 0x184D_2A5Du32.to_le_bytes();
const VERSION: u8 = 1;
const FIXED: usize = 1 + 4 + 4 + 4 + 8 + 8 + 2;
const RUN: usize = 16 + 1 + 4 + 8 + 8;
/// Raw bytes after which a frame is closed: what a reader must hold at a time.
pub(crate) const FRAME_BYTES: usize = 1 << 20;
/// A frame that says it is larger than this is damaged: a line is at most a lane's buffer.
const MAX_FRAME_BYTES: usize = 1 << 30;

/// What begins a zstd frame of raw blocks: the magic number, and a descriptor that says: one segment, its size in four bytes, no checksum (ours is of all).
/// No other frame here begins so: the compressor's have a checksum.
const RAW_FRAME: [u8; 5] = [0x28, 0xB5, 0x2F, 0xFD, 0b1010_0000];
/// The most bytes of a block.
const RAW_BLOCK: usize = 128 << 10;

/// How a frame has its lines.
pub(crate) enum Body<'a> {
    Compressed(&'a mut zstd::bulk::Compressor<'static>),
    /// In raw blocks.
    Raw,
}

/// What a frame says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FrameMeta {
    /// Where the frame starts in its segment.
    pub(crate) offset: u64,
    /// Bytes of the describing frame.
    pub(crate) header_bytes: u32,
    /// Bytes of the zstd frame.
    pub(crate) compressed_bytes: u32,
    pub(crate) raw_bytes: u32,
    pub(crate) rows: u32,
    pub(crate) min_ts: i64,
    pub(crate) max_ts: i64,
    pub(crate) runs: Vec<Run>,
}

/// Records of one writer that follow each other in a frame, seq rising: all that this writer wrote for the model from `first` to `last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) writer: Writer,
    pub(crate) rows: u32,
    pub(crate) first: u64,
    pub(crate) last: u64,
}

impl FrameMeta {
    /// Bytes of the whole frame in its segment.
    pub(crate) fn total_bytes(&self) -> u64 {
        u64::from(self.header_bytes) + u64::from(self.compressed_bytes)
    }

    /// The frame's lines as chunks of a batch. `raw` is what the zstd frame holds.
    pub(crate) fn chunks<'a>(&self, raw: &'a [u8]) -> Vec<Chunk<'a>> {
        let mut rest = raw;
        let mut chunks = Vec::with_capacity(self.runs.len());
        for run in &self.runs {
            let mut end = 0;
            for _ in 0..run.rows {
                end += memchr::memchr(b'\n', &rest[end..]).map_or(rest.len() - end, |at| at + 1);
            }
            let (data, behind) = rest.split_at(end);
            chunks.push(Chunk::from_lines(run.writer, u64::from(run.rows), run.first, run.last, data));
            rest = behind;
        }
        chunks
    }

    /// The frame with only those of its records for which `keep` holds; `raw` is cut to their lines.
    pub(crate) fn retain(&self, raw: &mut Vec<u8>, keep: impl Fn(Writer, u64) -> bool) -> FrameMeta {
        let (mut lines, mut runs) = (Vec::with_capacity(raw.len()), Vec::with_capacity(self.runs.len()));
        for chunk in self.chunks(raw) {
            let (mut rows, mut ends) = (0, None);
            for (seq, line) in chunk.lines().filter(|(seq, _)| keep(chunk.writer, *seq)) {
                lines.extend_from_slice(line);
                rows += 1;
                ends = Some((ends.map_or(seq, |(first, _)| first), seq));
            }
            runs.extend(ends.map(|(first, last)| Run { writer: chunk.writer, rows, first, last }));
        }
        *raw = lines;
        let rows = runs.iter().map(|run| run.rows).sum();
        FrameMeta { raw_bytes: raw.len() as u32, rows, runs, ..self.clone() }
    }
}

/// Collects the lines of one model until they are a frame.
#[derive(Debug)]
pub(crate) struct FrameBuilder {
    raw: Vec<u8>,
    /// Room for the compressed lines, kept.
    packed: Vec<u8>,
    rows: u32,
    min_ts: i64,
    max_ts: i64,
    runs: Vec<Run>,
}

impl Default for FrameBuilder {
    fn default() -> Self {
        FrameBuilder { raw: Vec::new(), packed: Vec::new(), rows: 0, min_ts: i64::MAX, max_ts: i64::MIN, runs: Vec::new() }
    }
}

impl FrameBuilder {
    #[inline]
    pub(crate) fn push(&mut self, writer: Writer, seq: u64, ts: i64, line: &[u8]) {
        self.raw.extend_from_slice(line);
        self.rows += 1;
        self.min_ts = self.min_ts.min(ts);
        self.max_ts = self.max_ts.max(ts);
        match self.runs.last_mut() {
            Some(run) if run.writer == writer && seq > run.last => {
                run.rows += 1;
                run.last = seq;
            }
            _ => self.runs.push(Run { writer, rows: 1, first: seq, last: seq }),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows == 0
    }

    pub(crate) fn is_full(&self) -> bool {
        self.raw.len() >= FRAME_BYTES || self.runs.len() == usize::from(u16::MAX)
    }

    /// Appends the frame to `out` and starts a new one. `offset` is where `out` will stand in the segment.
    pub(crate) fn finish(&mut self, out: &mut Vec<u8>, offset: u64, body: &mut Body<'_>) -> io::Result<FrameMeta> {
        let start = out.len();
        let size = FIXED + self.runs.len() * RUN + 4;
        let header_bytes = 8 + size;
        out.resize(start + header_bytes, 0);
        match body {
            Body::Raw => raw_frame(&self.raw, out),
            Body::Compressed(zstd) => {
                self.packed.clear();
                self.packed.reserve(zstd::zstd_safe::compress_bound(self.raw.len()));
                match zstd.compress_to_buffer(&self.raw, &mut self.packed) {
                    Ok(compressed) => out.extend_from_slice(&self.packed[..compressed]),
                    Err(error) => {
                        out.truncate(start);
                        return Err(error);
                    }
                }
            }
        }
        let compressed = out.len() - start - header_bytes;
        let meta = FrameMeta {
            offset: offset + start as u64,
            header_bytes: header_bytes as u32,
            compressed_bytes: compressed as u32,
            raw_bytes: self.raw.len() as u32,
            rows: self.rows,
            min_ts: self.min_ts,
            max_ts: self.max_ts,
            runs: std::mem::take(&mut self.runs),
        };
        let (header, body) = out[start..].split_at_mut(header_bytes);
        write_header(header, &meta, body);
        self.raw.clear();
        let (raw, packed) = (std::mem::take(&mut self.raw), std::mem::take(&mut self.packed));
        *self = FrameBuilder { raw, packed, ..FrameBuilder::default() };
        Ok(meta)
    }
}

/// Appends a zstd frame of raw blocks that hold `lines`, which are at least one.
fn raw_frame(lines: &[u8], out: &mut Vec<u8>) {
    out.reserve(lines.len() + lines.len() / RAW_BLOCK * 3 + 16);
    out.extend_from_slice(&RAW_FRAME);
    // A frame's lines are counted in 32 bits everywhere here.
    out.extend_from_slice(&(lines.len() as u32).to_le_bytes());
    let mut blocks = lines.chunks(RAW_BLOCK).peekable();
    while let Some(block) = blocks.next() {
        let header = (block.len() as u32) << 3 | u32::from(blocks.peek().is_none());
        out.extend_from_slice(&header.to_le_bytes()[..3]);
        out.extend_from_slice(block);
    }
}

/// The lines of the frame that `bytes` are, whole, into `raw`, which is empty. Its checksum is looked at, as that of a compressed one is by its decompressor.
pub(crate) fn unpack(
    bytes: &[u8],
    meta: &FrameMeta,
    zstd: &mut zstd::bulk::Decompressor<'_>,
    raw: &mut Vec<u8>,
) -> io::Result<()> {
    let damaged = |what: String| io::Error::new(io::ErrorKind::InvalidData, format!("a frame at offset={} {what}", meta.offset));
    let body = bytes.get(meta.header_bytes as usize..).unwrap_or_default();
    raw.reserve(meta.raw_bytes as usize);
    match body.strip_prefix(&RAW_FRAME) {
        Some(blocks) => {
            if !matches!(parse(bytes, meta.offset), Parsed::Frame(_)) {
                return Err(damaged("has another checksum than it says".to_owned()));
            }
            let mut rest = blocks.get(size_of::<u32>()..).unwrap_or_default();
            while let [a, b, c, behind @ ..] = rest {
                let block = u32::from_le_bytes([*a, *b, *c, 0]) as usize >> 3;
                let (lines, behind) = behind.split_at_checked(block).unwrap_or((behind, &[]));
                raw.extend_from_slice(lines);
                rest = behind;
            }
        }
        None => {
            zstd.decompress_to_buffer(body, raw)?;
        }
    }
    let (len, says) = (raw.len(), meta.raw_bytes as usize);
    if len == says { Ok(()) } else { Err(damaged(format!("holds {len} bytes and says {says}"))) }
}

fn write_header(header: &mut [u8], meta: &FrameMeta, body: &[u8]) {
    let mut at = 0;
    let mut put = |bytes: &[u8]| {
        header[at..at + bytes.len()].copy_from_slice(bytes);
        at += bytes.len();
    };
    put(&MAGIC);
    put(&(meta.header_bytes - 8).to_le_bytes());
    put(&[VERSION]);
    put(&meta.compressed_bytes.to_le_bytes());
    put(&meta.raw_bytes.to_le_bytes());
    put(&meta.rows.to_le_bytes());
    put(&meta.min_ts.to_le_bytes());
    put(&meta.max_ts.to_le_bytes());
    put(&(meta.runs.len() as u16).to_le_bytes());
    for run in &meta.runs {
        put(run.writer.process().as_bytes());
        put(&[run.writer.lane()]);
        put(&run.rows.to_le_bytes());
        put(&run.first.to_le_bytes());
        put(&run.last.to_le_bytes());
    }
    let end = header.len() - 4;
    let crc = crc32c_append(crc32c(&header[..end]), body);
    header[end..].copy_from_slice(&crc.to_le_bytes());
}

/// What stands at the start of `bytes`.
#[derive(Debug)]
pub(crate) enum Parsed {
    /// A whole, sound frame.
    Frame(FrameMeta),
    /// The start of a frame whose end is missing: the process died while it wrote.
    Torn,
    /// Something else.
    Damaged,
}

/// Reads the frame at the start of `bytes`, which stand at `offset` in their segment.
pub(crate) fn parse(bytes: &[u8], offset: u64) -> Parsed {
    if bytes.len() < 8 {
        return Parsed::Torn;
    }
    let u32_at = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let size = u32_at(4) as usize;
    if bytes[..4] != MAGIC
        || size < FIXED + 4
        || !(size - FIXED - 4).is_multiple_of(RUN)
        || size > FIXED + 4 + RUN * usize::from(u16::MAX)
    {
        return Parsed::Damaged;
    }
    let header_bytes = 8 + size;
    if bytes.len() < header_bytes {
        return Parsed::Torn;
    }
    let meta = match read_header(&bytes[..header_bytes], offset) {
        Some(meta) if meta.raw_bytes as usize <= MAX_FRAME_BYTES => meta,
        _ => return Parsed::Damaged,
    };
    let Some(body) = bytes.get(header_bytes..header_bytes + meta.compressed_bytes as usize) else { return Parsed::Torn };
    let crc = crc32c_append(crc32c(&bytes[..header_bytes - 4]), body);
    if crc == u32_at(header_bytes - 4) { Parsed::Frame(meta) } else { Parsed::Damaged }
}

fn read_header(header: &[u8], offset: u64) -> Option<FrameMeta> {
    let mut rest = header.get(8..)?;
    let mut take = |len: usize| -> Option<&[u8]> {
        let (taken, behind) = rest.split_at_checked(len)?;
        rest = behind;
        Some(taken)
    };
    if take(1)? != [VERSION] {
        return None;
    }
    let compressed_bytes = u32::from_le_bytes(take(4)?.try_into().ok()?);
    let raw_bytes = u32::from_le_bytes(take(4)?.try_into().ok()?);
    let rows = u32::from_le_bytes(take(4)?.try_into().ok()?);
    let min_ts = i64::from_le_bytes(take(8)?.try_into().ok()?);
    let max_ts = i64::from_le_bytes(take(8)?.try_into().ok()?);
    let count = u16::from_le_bytes(take(2)?.try_into().ok()?);
    let mut runs = Vec::with_capacity(usize::from(count));
    for _ in 0..count {
        let process = Uuid::from_bytes(take(16)?.try_into().ok()?);
        let lane = take(1)?[0];
        runs.push(Run {
            writer: Writer::new(process, lane),
            rows: u32::from_le_bytes(take(4)?.try_into().ok()?),
            first: u64::from_le_bytes(take(8)?.try_into().ok()?),
            last: u64::from_le_bytes(take(8)?.try_into().ok()?),
        });
    }
    (runs.iter().map(|run| u64::from(run.rows)).sum::<u64>() == u64::from(rows)).then_some(FrameMeta {
        offset,
        header_bytes: header.len() as u32,
        compressed_bytes,
        raw_bytes,
        rows,
        min_ts,
        max_ts,
        runs,
    })
}

/// Where the next frame may start in `bytes`, behind their first byte: damage is skipped up to there.
pub(crate) fn next_magic(bytes: &[u8]) -> Option<usize> {
    memchr::memmem::find(bytes.get(1..)?, &MAGIC).map(|at| at + 1)
}
