//! Messages that no broker takes: `<dir>/dead-letter/<sink>-<process>-<n>.ndjson.zst`, a line for each record, readable by `zstdcat file | jq`.

use crate::clock::Timestamp;
use crate::json::escape::write_str;
use crate::stats::Stats;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use uuid::Uuid;

const ZSTD_LEVEL: i32 = 3;
/// A file larger than this is followed by another.
const FILE_BYTES: u64 = 64 << 20;
/// The directory below the fallback's.
pub(crate) const DIR: &str = "dead-letter";

/// Records that no broker takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Letter<'a> {
    pub(crate) topic: &'a str,
    pub(crate) reason: &'a str,
    /// Their lines.
    pub(crate) lines: &'a [u8],
}

impl<'a> Letter<'a> {
    /// The records in it.
    pub(crate) fn record_lines(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        self.lines.split(|&byte| byte == b'\n').filter(|line| !line.is_empty())
    }
}

/// Appends to this process's dead letters.
#[derive(Debug)]
pub(crate) struct DeadLetters {
    dir: PathBuf,
    sink: &'static str,
    process: Uuid,
    files: u64,
    max_bytes: u64,
}

impl DeadLetters {
    pub(crate) fn new(dir: &Path, sink: &'static str, process: Uuid, max_bytes: u64) -> Self {
        DeadLetters { dir: dir.join(DIR), sink, process, files: 0, max_bytes }
    }

    /// Appends all of them, synced, or none; counts them, and says so.
    ///
    /// # Errors
    /// With the path, and what to do.
    pub(crate) fn bury(&mut self, letters: &[Letter<'_>], now: Timestamp, stats: &Stats) -> Result<(), String> {
        let kept = self.append(letters, now);
        match &kept {
            Ok(()) => {
                let records: u64 = letters.iter().map(|letter| letter.record_lines().count() as u64).sum();
                stats.unstorable.fetch_add(records, Ordering::Relaxed);
                let (sink, topic, reason) =
                    letters.first().map_or((self.sink, "", ""), |letter| (self.sink, letter.topic, letter.reason));
                tracing::error!(
                    sink,
                    records,
                    topic,
                    reason,
                    "the broker refuses predictions for good; they are in the dead-letter directory"
                );
            }
            Err(error) => tracing::error!(error, "cannot keep dead letters; their batch is tried again"),
        }
        kept
    }

    fn append(&mut self, letters: &[Letter<'_>], now: Timestamp) -> Result<(), String> {
        let explain = |error: io::Error| format!("cannot keep dead letters in {}: {error}", self.dir.display());
        std::fs::create_dir_all(&self.dir).map_err(explain)?;
        let used = bytes_in(&self.dir).map_err(explain)?;
        if used >= self.max_bytes {
            let (dir, most) = (self.dir.display(), self.max_bytes);
            return Err(format!(
                "dead letters in {dir} have {used} of {}.fallback.max_bytes={most} bytes: look at them, and move them elsewhere",
                self.sink
            ));
        }
        let mut text = Vec::new();
        letters.iter().for_each(|letter| write_lines(&mut text, letter, now));
        let frame = zstd::bulk::compress(&text, ZSTD_LEVEL).map_err(explain)?;
        let path = self.dir.join(format!("{}-{}-{}.ndjson.zst", self.sink, self.process, self.files));
        let len = append(&path, &frame).map_err(|error| format!("cannot append dead letters to {}: {error}", path.display()))?;
        if len > FILE_BYTES {
            self.files += 1;
        }
        Ok(())
    }
}

/// All of `frame` is in the file, or none: what is behind the end of a failed write is cut off.
fn append(path: &Path, frame: &[u8]) -> io::Result<u64> {
    let mut file = open_locked(path)?;
    let before = file.metadata()?.len();
    if let Err(error) = file.write_all(frame).and_then(|()| file.sync_data()) {
        file.set_len(before)?;
        return Err(error);
    }
    Ok(before + frame.len() as u64)
}

/// A replay takes a file by renaming it under its lock: whoever has waited for that opens another one.
fn open_locked(path: &Path) -> io::Result<File> {
    loop {
        let file = OpenOptions::new().append(true).create(true).open(path)?;
        file.lock()?;
        let (mine, there) = (file.metadata()?, std::fs::metadata(path));
        if there.is_ok_and(|there| (there.dev(), there.ino()) == (mine.dev(), mine.ino())) {
            return Ok(file);
        }
    }
}

fn bytes_in(dir: &Path) -> io::Result<u64> {
    std::fs::read_dir(dir)?.map(|entry| entry.and_then(|entry| entry.metadata()).map(|metadata| metadata.len())).sum()
}

/// `{"time":…,"topic":…,"reason":…,"record":<the line>}`
fn write_lines(out: &mut Vec<u8>, letter: &Letter<'_>, now: Timestamp) {
    for line in letter.record_lines() {
        out.extend_from_slice(b"{\"time\":\"");
        out.extend_from_slice(now.to_string().as_bytes());
        out.extend_from_slice(b"\",\"topic\":");
        write_str(out, letter.topic);
        out.extend_from_slice(b",\"reason\":");
        write_str(out, letter.reason);
        out.extend_from_slice(b",\"record\":");
        out.extend_from_slice(line);
        out.extend_from_slice(b"}\n");
    }
}
