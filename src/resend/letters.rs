//! `predlog replay`: dead letters to the sink again.
//!
//! A file is claimed first, by a name that no sink appends to. It goes when all of its records are owned; what the sink refuses again is by then in a new
//! file. What of a claimed file is owned is noted beside it (`<file>.sent.json`), so a replay that was killed goes on where it was.

use super::{Records, Sender, State};
use crate::error::{Error, ErrorKind};
use crate::sink::broker::dead_letter;
use crate::spool;
use rustix::fs::{FlockOperation, flock};
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
const SENT: &str = ".sent.json";
const LOCK: &str = ".replay.lock";
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
    let _lock = lock(&letters)?;
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
    for path in files(&letters).map_err(|error| failed("list", &letters, &error))? {
        let state = State::load(sent(&path), TO)?;
        let before = replayed.left;
        let torn = each_letter(&path, &mut |line| {
            let is_owned = record_of(line).and_then(crate::record::writer_of_line).is_some_and(|(writer, seq)| state.has(writer, seq));
            replayed.left += u64::from(!is_owned);
            Ok(())
        })?;
        replayed.torn += u64::from(torn);
        tell(&format!("{}: {} records{}", path.display(), replayed.left - before, if torn { ", and a torn end" } else { "" }));
    }
    Ok(replayed)
}

fn replay_file(dir: &Path, path: &Path, sender: &mut Sender, replayed: &mut Replayed) -> Result<(), Error> {
    let mut state = State::load(sent(path), TO)?;
    let (mut records, mut foreign) = (Records::default(), 0);
    let mut flush = |records: &mut Records, state: &mut State| {
        if records.is_empty() {
            return Ok(());
        }
        sender.send(records)?;
        replayed.sent += records.len();
        state.add(records.seqs())?;
        records.clear();
        Ok(())
    };
    let torn = each_letter(path, &mut |line| {
        let Some((record, (writer, seq))) = record_of(line).and_then(|record| Some((record, crate::record::writer_of_line(record)?)))
        else {
            foreign += 1;
            return Ok(());
        };
        if !state.has(writer, seq) && records.push(record) && records.is_full() {
            flush(&mut records, &mut state)?;
        }
        Ok(())
    })?;
    flush(&mut records, &mut state)?;
    if foreign > 0 {
        replayed.left += foreign;
        tracing::error!(path = %path.display(), lines = foreign, "lines that no logger made cannot be sent: their file stays");
        return Ok(());
    }
    let gone = if torn {
        // What was torn was never owned by the dead letters: those records are in the lanes or in the spool.
        replayed.torn += 1;
        spool::set_aside(dir, path)
    } else {
        fs::remove_file(path)
    };
    gone.and_then(|()| state.remove()).map_err(|error| failed("remove", path, &error))
}

fn record_of(line: &[u8]) -> Option<&[u8]> {
    let letter: Letter<'_> = serde_json::from_slice(line).ok()?;
    Some(letter.record.get().as_bytes())
}

/// Gives `each` the lines of a file; whether its last frame is torn.
fn each_letter(path: &Path, each: &mut dyn FnMut(&[u8]) -> Result<(), Error>) -> Result<bool, Error> {
    let unreadable = |error: io::Error| failed("read", path, &error);
    let bytes = read(path).map_err(unreadable)?;
    let mut rest = bytes.as_slice();
    let (mut zstd, mut text) = (zstd::bulk::Decompressor::new().map_err(unreadable)?, Vec::new());
    while !rest.is_empty() {
        let (len, size) = (zstd_safe::find_frame_compressed_size(rest), zstd_safe::get_frame_content_size(rest));
        let (Ok(len), Ok(Some(size @ 0..=MAX_FRAME))) = (len, size) else { return Ok(true) };
        let (frame, behind) = rest.split_at(len);
        text.clear();
        text.reserve(size as usize);
        if zstd.decompress_to_buffer(frame, &mut text).is_err() {
            return Ok(true);
        }
        text.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()).try_for_each(&mut *each)?;
        rest = behind;
    }
    Ok(false)
}

/// Read while nobody appends.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    file.lock_shared()?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// One replay of a directory at a time.
fn lock(letters: &Path) -> Result<File, Error> {
    let path = letters.join(LOCK);
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(|error| failed("open", &path, &error))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let message = format!("another replay holds path={}: wait until it has ended", path.display());
            Err(Error::new(ErrorKind::Storage, message))
        }
        Err(error) => Err(failed("lock", &path, &error.into())),
    }
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
