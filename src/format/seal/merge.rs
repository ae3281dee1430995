//! Rows of overlapping frames in the order of their timestamps.

use super::super::decode::time::Clock;
use super::super::decode::{LineError, invalid_utf8, timestamp_of};
use super::{BadLines, FrameInfo, FrameSource, SealError};

/// Buffers that are kept for the next frames, in bytes.
const SPARE_BYTES: usize = 2 << 20;

/// A line of a loaded frame.
#[derive(Clone, Copy)]
struct Row {
    timestamp: i64,
    frame: u32,
    start: u32,
    end: u32,
}

/// A loaded frame, until its last row is written.
#[derive(Default)]
struct Loaded {
    text: String,
    rows: usize,
}

pub(super) struct Merge {
    /// For each frame the smallest timestamp of those after it.
    later: Vec<i64>,
    loaded: Vec<Loaded>,
    loaded_bytes: usize,
    /// Rows that are not written yet.
    rows: Vec<Row>,
    spare: Vec<Vec<u8>>,
    clock: Clock,
}

impl Merge {
    pub fn new(frames: &[FrameInfo]) -> Self {
        let mut later = vec![i64::MAX; frames.len()];
        for at in (1..frames.len()).rev() {
            later[at - 1] = later[at].min(frames[at].min_ts);
        }
        let loaded = Vec::with_capacity(frames.len());
        Merge { later, loaded, loaded_bytes: 0, rows: Vec::new(), spare: Vec::new(), clock: Clock::default() }
    }

    /// Bytes of the frames that have rows to write.
    pub fn loaded_bytes(&self) -> usize {
        self.loaded_bytes
    }

    /// Rows up to this timestamp can be written once frame `index` is loaded: those that come later with the same one come after them.
    pub fn watermark(&self, index: usize) -> i64 {
        self.later[index]
    }

    /// Loads the next frame and finds its rows. Blank lines are none.
    pub fn load(&mut self, index: usize, source: &mut dyn FrameSource, bad: &mut BadLines<'_>) -> Result<(), SealError> {
        let mut bytes = self.spare.pop().unwrap_or_default();
        bytes.clear();
        source.load(index, &mut bytes).map_err(|source| SealError::Load { index, source })?;
        let text = String::from_utf8(bytes).unwrap_or_else(|error| only_utf8(error.as_bytes(), bad));
        let (Ok(frame), Ok(_)) = (u32::try_from(index), u32::try_from(text.len())) else {
            let source = std::io::Error::new(std::io::ErrorKind::FileTooLarge, "a frame is at most 4 GiB, a segment 2^32 frames");
            return Err(SealError::Load { index, source });
        };
        let before = self.rows.len();
        let mut start = 0;
        for end in memchr::memchr_iter(b'\n', text.as_bytes()).chain([text.len()]) {
            let line = &text[start..end];
            match timestamp_of(line, &mut self.clock) {
                // The casts are exact: the text is shorter than 2^32.
                Ok(timestamp) => self.rows.push(Row { timestamp, frame, start: start as u32, end: end as u32 }),
                Err(_) if line.trim_ascii().is_empty() => {}
                Err(error) => bad.add(line.as_bytes(), &error),
            }
            start = end + 1;
        }
        self.loaded_bytes += text.len();
        self.loaded.push(Loaded { text, rows: self.rows.len() - before });
        if self.rows.len() == before {
            self.release(index);
        }
        // Stable: rows of one microsecond stay in the order of arrival. The sort exploits that both parts are in order, or nearly so.
        self.rows.sort_by_key(|row| row.timestamp);
        Ok(())
    }

    /// Gives all rows up to `limit` to `write`, in order.
    pub fn emit(&mut self, limit: i64, mut write: impl FnMut(i64, &str) -> Result<(), SealError>) -> Result<(), SealError> {
        let count = self.rows.partition_point(|row| row.timestamp <= limit);
        for at in 0..count {
            let row = self.rows[at];
            let frame = &mut self.loaded[row.frame as usize];
            write(row.timestamp, &frame.text[row.start as usize..row.end as usize])?;
            frame.rows -= 1;
            if frame.rows == 0 {
                self.release(row.frame as usize);
            }
        }
        self.rows.drain(..count);
        Ok(())
    }

    /// Frees a frame whose rows are all written.
    fn release(&mut self, index: usize) {
        let text = std::mem::take(&mut self.loaded[index].text);
        self.loaded_bytes -= text.len();
        let spare: usize = self.spare.iter().map(Vec::capacity).sum();
        if spare + text.capacity() <= SPARE_BYTES {
            self.spare.push(text.into_bytes());
        }
    }
}

/// The lines that are UTF-8; the others are reported.
fn only_utf8(bytes: &[u8], bad: &mut BadLines<'_>) -> String {
    let mut text = String::with_capacity(bytes.len());
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        match std::str::from_utf8(line) {
            Ok(line) => text.push_str(line),
            Err(_) => {
                let line = line.strip_suffix(b"\n").unwrap_or(line);
                let error: LineError = invalid_utf8(line);
                bad.add(line, &error);
            }
        }
    }
    text
}
