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
    /// That there is no room was said.
    told: bool,
}

/// Why letters are not kept.
enum NotKept {
    /// There is no room for them.
    NoRoom(String),
    Failed(String),
}

impl DeadLetters {
    pub(crate) fn new(dir: &Path, sink: &'static str, process: Uuid, max_bytes: u64) -> Self {
        DeadLetters { dir: dir.join(DIR), sink, process, files: 0, max_bytes, told: false }
    }

    /// Appends all of them, synced, or none; counts them, and says so.
    ///
    /// Where there is no room, a logger's are lost, which it counts and states: kept back they would hold up all behind them, for ever.
    ///
    /// # Errors
    /// With the path, and what to do.
    pub(crate) fn bury(&mut self, letters: &[Letter<'_>], now: Timestamp, stats: &Stats) -> Result<(), String> {
        let records: u64 = letters.iter().map(|letter| letter.record_lines().count() as u64).sum();
        let (topic, reason) = letters.first().map_or(("", ""), |letter| (letter.topic, letter.reason));
        let sink = self.sink;
        match self.append(letters, now) {
            Ok(()) => {
                self.told = false;
                stats.unstorable.fetch_add(records, Ordering::Relaxed);
                tracing::error!(
                    sink,
                    records,
                    topic,
                    reason,
                    "the broker refuses predictions for good; they are in the dead-letter directory"
                );
                Ok(())
            }
            Err(NotKept::NoRoom(error)) if stats.lost.is_stated() => {
                letters.iter().flat_map(Letter::record_lines).for_each(|line| stats.lost.add(line));
                if !std::mem::replace(&mut self.told, true) {
                    tracing::error!(
                        sink,
                        error,
                        topic,
                        reason,
                        "predictions that the broker refuses for good are dropped until there is room; they are counted as no_space"
                    );
                }
                Ok(())
            }
            Err(NotKept::NoRoom(error) | NotKept::Failed(error)) => {
                tracing::error!(error, "cannot keep dead letters; their batch is tried again");
                Err(error)
            }
        }
    }

    fn append(&mut self, letters: &[Letter<'_>], now: Timestamp) -> Result<(), NotKept> {
        let explain = |error: io::Error| not_kept(&error, format!("cannot keep dead letters in {}", self.dir.display()));
        std::fs::create_dir_all(&self.dir).map_err(explain)?;
        let used = bytes_in(&self.dir).map_err(explain)?;
        if used >= self.max_bytes {
            let (dir, most) = (self.dir.display(), self.max_bytes);
            return Err(NotKept::NoRoom(format!(
                "dead letters in {dir} have {used} of {}.fallback.max_bytes={most} bytes: look at them, and move them elsewhere",
                self.sink
            )));
        }
        let mut text = Vec::new();
        letters.iter().for_each(|letter| write_lines(&mut text, letter, now));
        let frame = zstd::bulk::compress(&text, ZSTD_LEVEL).map_err(explain)?;
        let path = self.dir.join(format!("{}-{}-{}.ndjson.zst", self.sink, self.process, self.files));
        let appended = append(&path, &frame);
        let len = appended.map_err(|error| not_kept(&error, format!("cannot append dead letters to {}", path.display())))?;
        if len > FILE_BYTES {
            self.files += 1;
        }
        Ok(())
    }
}

fn not_kept(error: &io::Error, what: String) -> NotKept {
    let why = format!("{what}: {error}");
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => NotKept::NoRoom(format!("{why}; free some space")),
        _ => NotKept::Failed(why),
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

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: &[u8] = b"{\"a\":1}\n{\"a\":2}";

    #[test]
    fn without_room_a_loggers_letters_are_lost_to_be_stated_and_those_at_rest_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let mut letters = DeadLetters::new(dir.path(), "kafka", Uuid::from_u128(1), 1_000);
        let bury = |letters: &mut DeadLetters, stats: &Stats| {
            letters.bury(&[Letter { topic: "t", reason: "r", lines: LINES }], Timestamp::from_micros(0), stats)
        };
        let (at_rest, logger) = (Stats::default(), Stats::default());
        logger.lost.state();
        bury(&mut letters, &logger).unwrap();
        assert_eq!((logger.snapshot().unstorable, logger.lost.take()), (2, vec![]));
        let full = dir.path().join(DIR).join("full");
        File::create(&full).unwrap().set_len(1_000).unwrap();
        let error = bury(&mut letters, &at_rest).unwrap_err();
        assert!(error.contains("kafka.fallback.max_bytes=1000") && error.contains("move them elsewhere"), "{error}");
        bury(&mut letters, &logger).unwrap();
        assert_eq!((logger.snapshot().unstorable, logger.lost.take()), (2, [LINES, b"\n"].concat()));
        assert_eq!(logger.lost.take(), b"");
        std::fs::remove_file(&full).unwrap();
        bury(&mut letters, &logger).unwrap();
        assert_eq!(logger.snapshot().unstorable, 4);
    }
}
