//! What is on its way: the spool segments of all processes of a directory, those that run too.

use super::tally::{HOUR, Tally};
use super::{Run, Standing, unreadable};
use crate::batch::Chunk;
use crate::error::Error;
use crate::format::path::model_partition;
use crate::lane::recover::recover;
use crate::ledger::{LEDGER_MODEL, Stated, is_ledger};
use crate::record::{raw_model_name, timestamp_of_line};
use crate::spool::frame::{FrameMeta, Parsed, next_magic, parse};
use crate::spool::segments;
use std::collections::{HashMap, HashSet};
use std::fs::{File, TryLockError};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// How much of a segment is read at a time.
const READ_BYTES: u64 = 1 << 20;
/// Segments change their place while they are listed: after so many looks those that are left are being written.
const LOOKS: usize = 20;

/// The processes that have a directory under `<dir>/writers/`, and whether they run.
pub(super) fn homes(dir: &Path) -> io::Result<HashMap<Uuid, Standing>> {
    let mut homes = HashMap::new();
    for path in directories(&dir.join("writers"))? {
        let Some(process) = path.file_name().and_then(|name| Uuid::try_parse(name.to_str()?).ok()) else { continue };
        // Locked and unlocked at once: whoever starts meanwhile looks for dead processes again later.
        let standing = match File::open(path.join("lock")).map(|lock| lock.try_lock()) {
            Ok(Err(TryLockError::WouldBlock)) => Standing::Running,
            Ok(_) => Standing::Left,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        // Lanes that could not be read were set aside: nobody will state what was in them.
        let unread = standing == Standing::Left && path.join("lanes.damaged").exists();
        homes.insert(process, if unread { Standing::Gone } else { standing });
    }
    Ok(homes)
}

fn directories(path: &Path) -> io::Result<Vec<PathBuf>> {
    match std::fs::read_dir(path) {
        Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

impl Run<'_> {
    /// The ledger's entries in segments.
    pub(super) fn spool_entries(&mut self, dir: &Path) -> Result<(), Error> {
        let (book, cells) = (&mut self.book, &mut self.tally.cells);
        let mut line = |line: &[u8]| {
            if let Some(stated) = Stated::from_line(line) {
                book.add(stated, cells);
            }
        };
        each_line(dir, true, &mut line).map_err(|error| unreadable(dir, &error))
    }

    /// Predictions in segments.
    pub(super) fn spool_records(&mut self, dir: &Path) -> Result<(), Error> {
        let tally = &mut self.tally;
        each_line(dir, false, &mut |line| pending(line, tally)).map_err(|error| unreadable(dir, &error))?;
        each_left_line(dir, &mut |line| pending(line, tally)).map_err(|error| unreadable(dir, &error))
    }
}

fn pending(line: &[u8], tally: &mut Tally) {
    let (Some((writer, seq)), Some(timestamp)) = (crate::record::writer_of_line(line), timestamp_of_line(line)) else { return };
    let name = raw_model_name(line).and_then(|raw| serde_json::from_slice::<String>(&[b"\"", raw, b"\""].concat()).ok());
    if !is_ledger(writer)
        && let Some(name) = name
    {
        let model = tally.cells.model(&name);
        let place = tally.cells.at(model, timestamp.div_euclid(HOUR));
        let writer = tally.writer(writer);
        tally.pending(writer, seq, timestamp, place);
    }
}

/// Gives `each` the lines of all segments of the ledger, or of all others.
fn each_line(dir: &Path, ledger: bool, each: &mut dyn FnMut(&[u8])) -> io::Result<()> {
    let directory = model_partition(LEDGER_MODEL);
    let mut read = HashSet::new();
    for _ in 0..LOOKS {
        let mut moved = false;
        for home in directories(&dir.join("writers"))? {
            for path in segments(&home.join("spool"))? {
                let of_ledger = path.parent().and_then(Path::file_name).is_some_and(|name| name.to_str() == Some(&directory));
                if of_ledger != ledger || read.contains(&path) {
                    continue;
                }
                match File::open(&path) {
                    Ok(file) => lines(file, each)?,
                    // Sealed, or taken over by another process: then it is elsewhere now.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => moved = true,
                    Err(error) => return Err(error),
                }
                read.insert(path);
            }
        }
        if !moved {
            break;
        }
    }
    Ok(())
}

/// Gives `each` the lines that dead processes left in their lanes, and that no sink is known to own.
fn each_left_line(dir: &Path, each: &mut dyn FnMut(&[u8])) -> io::Result<()> {
    for home in directories(&dir.join("writers"))? {
        // Held while they are read: who starts meanwhile looks for dead processes again later.
        let Ok(lock) = File::open(home.join("lock")) else { continue };
        if lock.try_lock().is_err() {
            continue;
        }
        match recover(&home.join("lanes")) {
            Ok(lanes) => {
                let chunks = lanes.chunks();
                chunks.iter().flat_map(Chunk::lines).for_each(|(_, line)| each(line));
            }
            // It had no lanes file, or has ended with none; what cannot be read is told by whoever takes it over.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidData) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The lines of a segment, which may be written at the same time: it is read, not mapped, and ends where a frame is not whole.
fn lines(mut file: File, each: &mut dyn FnMut(&[u8])) -> io::Result<()> {
    let (mut bytes, mut raw, mut at) = (Vec::new(), Vec::new(), 0);
    let mut zstd = zstd::bulk::Decompressor::new()?;
    loop {
        match parse(&bytes[at..], 0) {
            Parsed::Frame(frame) => {
                load(&frame, &bytes[at..], &mut raw, &mut zstd)?;
                raw.split_inclusive(|byte| *byte == b'\n').for_each(&mut *each);
                at += frame.total_bytes() as usize;
            }
            Parsed::Damaged if bytes.len() > at => match next_magic(&bytes[at..]) {
                Some(skip) => at += skip,
                None => at = bytes.len(),
            },
            Parsed::Torn | Parsed::Damaged => {
                bytes.drain(..at);
                at = 0;
                if (&mut file).take(READ_BYTES).read_to_end(&mut bytes)? == 0 {
                    // A length that damage made larger looks like a torn end, but then more frames follow.
                    match next_magic(&bytes) {
                        Some(skip) => at = skip,
                        None => return Ok(()),
                    }
                }
            }
        }
    }
}

fn load(frame: &FrameMeta, bytes: &[u8], raw: &mut Vec<u8>, zstd: &mut zstd::bulk::Decompressor<'_>) -> io::Result<()> {
    let start = frame.header_bytes as usize;
    raw.clear();
    raw.reserve(frame.raw_bytes as usize);
    zstd.decompress_to_buffer(&bytes[start..start + frame.compressed_bytes as usize], raw)?;
    Ok(())
}
