//! `predlog replay`: dead letters to the sink again.
//!
//! A file is claimed first, by a name that no sink appends to. It goes when all of its records are owned; what the sink refuses again is by then in a new
//! file. What of a claimed file is owned is noted beside it (`<file>.sent`), so a replay that was killed goes on where it was.

use super::{Mark, Records, Sender, Source, State, lock, send_all};
use crate::error::{Error, ErrorKind};
use crate::record::writer_of_line;
use crate::sink::broker::dead_letter;
use crate::spool;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use uuid::Uuid;
use zstd::zstd_safe;

const EXTENSION: &str = ".ndjson.zst";
/// What the names of claimed files begin with.
const CLAIMED: &str = "replay-";
const SENT: &str = ".sent";
const LOCK: &str = ".replay.lock";
/// The one part of a file.
const LINES: &str = "lines";
/// Whatever sink the rest is sent to: what is owned need not be sent again.
const TO: &str = "replay";
/// No frame is larger: it holds what one look at the sink's reports refused.
const MAX_FRAME: u64 = 1 << 30;

/// What became of the dead letters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Replayed {
    /// Records that the sink has taken.
    pub(crate) sent: u64,
    /// Records that it refused again: they are in a new file.
    pub(crate) refused: u64,
    /// Records that are still in their file: lines that no logger made, or all of them in a dry run.
    pub(crate) left: u64,
    /// Files whose end was torn by a crash, now in `<dir>/damaged/`.
    pub(crate) torn: u64,
}

impl Replayed {
    /// All dead letters are delivered.
    pub(crate) fn is_clean(&self) -> bool {
        self.refused == 0 && self.left == 0 && self.torn == 0
    }
}

/// A line of the file.
#[derive(Deserialize)]
struct Letter<'a> {
    #[serde(borrow)]
    record: &'a RawValue,
}

/// Sends the dead letters of `dir`. `tell` is given what is happening, a line at a time.
///
/// # Errors
/// Another replay is at it; a file cannot be read; the sink does not take records now.
pub(crate) fn replay(dir: &Path, mut sender: Sender, tell: &mut dyn FnMut(&str)) -> Result<Replayed, Error> {
    let letters = dir.join(dead_letter::DIR);
    let mut replayed = Replayed::default();
    if !letters.exists() {
        return Ok(replayed);
    }
    let _lock = lock(&letters.join(LOCK))?;
    tell_of_no_records(&letters, tell);
    let claimed = claim(&letters).map_err(|error| failed("claim the files in", &letters, &error))?;
    for (at, path) in claimed.iter().enumerate() {
        replay_file(dir, path, &mut sender, &mut replayed)?;
        tell(&format!("file {} of {}: {} records given to the sink so far", at + 1, claimed.len(), replayed.sent));
    }
    replayed.refused = sender.close()?;
    replayed.sent = replayed.sent.saturating_sub(replayed.refused);
    Ok(replayed)
}

/// Counts the dead letters of `dir`, and changes nothing.
///
/// # Errors
/// A file cannot be read.
pub(crate) fn count(dir: &Path, tell: &mut dyn FnMut(&str)) -> Result<Replayed, Error> {
    let letters = dir.join(dead_letter::DIR);
    let mut replayed = Replayed::default();
    tell_of_no_records(&letters, tell);
    for path in files(&letters).map_err(|error| failed("list", &letters, &error))? {
        let sent = State::load(sent(&path), TO)?.through(LINES);
        let mut file = Letters::open(&path)?;
        while file.next_line().is_some() {}
        let left = file.lines - sent;
        replayed.left += left;
        replayed.torn += u64::from(file.torn);
        tell(&format!("{}: {left} records{}", path.display(), if file.torn { ", and a torn end" } else { "" }));
    }
    Ok(replayed)
}

/// Lines that no column can take are no records: no other sink could take them either.
fn tell_of_no_records(letters: &Path, tell: &mut dyn FnMut(&str)) {
    let path = letters.join("records.ndjson");
    if path.exists() {
        tell(&format!("{}: lines that are no records, which cannot be sent; look at them", path.display()));
    }
}

fn replay_file(dir: &Path, path: &Path, sender: &mut Sender, replayed: &mut Replayed) -> Result<(), Error> {
    let mut state = State::load(sent(path), TO)?;
    let mut file = Letters::open(path)?;
    let sent = send_all(&mut file, sender, &mut state, &mut |_| true);
    replayed.sent += sent?;
    if file.foreign > 0 {
        replayed.left += file.foreign;
        tracing::error!(path = %path.display(), lines = file.foreign, "lines that no logger made cannot be sent: their file stays");
        return Ok(());
    }
    let gone = if file.torn {
        // What was torn was never owned by the dead letters: those records are in the lanes or in the spool.
        replayed.torn += 1;
        spool::set_aside(dir, path)
    } else {
        fs::remove_file(path)
    };
    gone.and_then(|()| state.remove()).map_err(|error| failed("remove", path, &error))
}

/// The lines of a file.
struct Letters {
    bytes: Vec<u8>,
    /// Where the next frame begins.
    at: usize,
    zstd: zstd::bulk::Decompressor<'static>,
    /// The frame at hand, and where its next line begins.
    text: Vec<u8>,
    text_at: usize,
    /// Lines so far, and those of them that no logger made.
    lines: u64,
    foreign: u64,
    /// The last frame is not whole.
    torn: bool,
}

impl Letters {
    fn open(path: &Path) -> Result<Self, Error> {
        let opened = read(path).and_then(|bytes| Ok((bytes, zstd::bulk::Decompressor::new()?)));
        let (bytes, zstd) = opened.map_err(|error| failed("read", path, &error))?;
        Ok(Letters { bytes, at: 0, zstd, text: Vec::new(), text_at: 0, lines: 0, foreign: 0, torn: false })
    }

    /// The next line, and its number, from 1.
    fn next_line(&mut self) -> Option<(u64, &[u8])> {
        while self.text_at == self.text.len() {
            if !self.next_frame() {
                return None;
            }
        }
        let rest = &self.text[self.text_at..];
        let len = memchr::memchr(b'\n', rest).map_or(rest.len(), |at| at + 1);
        let line = &self.text[self.text_at..self.text_at + len];
        self.text_at += len;
        self.lines += 1;
        Some((self.lines, line))
    }

    fn next_frame(&mut self) -> bool {
        let rest = &self.bytes[self.at..];
        if rest.is_empty() || self.torn {
            return false;
        }
        self.torn = true;
        let (len, size) = (zstd_safe::find_frame_compressed_size(rest), zstd_safe::get_frame_content_size(rest));
        let (Ok(len), Ok(Some(size @ 0..=MAX_FRAME))) = (len, size) else { return false };
        self.text = Vec::with_capacity(size as usize);
        self.text_at = 0;
        if self.zstd.decompress_to_buffer(&rest[..len], &mut self.text).is_err() {
            self.text.clear();
            return false;
        }
        self.torn = false;
        self.at += len;
        true
    }
}

impl Source for Letters {
    fn next(&mut self, state: &State, records: &mut Records) -> Result<Option<Mark>, Error> {
        let owned = state.through(LINES);
        let mut through = None;
        while !records.is_full() {
            let Some((number, line)) = self.next_line() else { break };
            let is_owned = number <= owned;
            let is_ours = record_of(line)
                .is_some_and(|record| if is_owned { writer_of_line(record).is_some() } else { records.push(record) });
            self.foreign += u64::from(!is_ours);
            through = (!is_owned).then_some(number);
        }
        Ok(through.map(|through| Mark { part: LINES.to_owned(), through }))
    }
}

/// The record in a line of the file.
fn record_of(line: &[u8]) -> Option<&[u8]> {
    let letter: Letter<'_> = serde_json::from_slice(line).ok()?;
    Some(letter.record.get().as_bytes())
}

/// Read while nobody appends.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    file.lock_shared()?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Gives each file that sinks append to a name of its own. Returns all that are claimed, oldest first.
fn claim(letters: &Path) -> io::Result<Vec<PathBuf>> {
    for path in files(letters)? {
        if !is_claimed(&path) {
            // A sink appends under this lock, and looks whether the file has its name still.
            let file = File::open(&path)?;
            file.lock()?;
            fs::rename(&path, letters.join(format!("{CLAIMED}{}{EXTENSION}", Uuid::now_v7())))?;
        }
    }
    files(letters)
}

fn files(letters: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(letters) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut paths = entries.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<Vec<_>>>()?;
    paths.retain(|path| path.to_string_lossy().ends_with(EXTENSION));
    paths.sort();
    Ok(paths)
}

fn is_claimed(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(CLAIMED))
}

/// Where it is noted what of a file is owned.
fn sent(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(SENT);
    name.into()
}

fn failed(doing: &str, path: &Path, error: &io::Error) -> Error {
    Error::new(ErrorKind::Storage, format!("cannot {doing} path={}: {error}", path.display()))
}

#[cfg(test)]
#[path = "letters_tests.rs"]
mod tests;
