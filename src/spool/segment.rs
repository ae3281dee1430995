//! A spool segment: frames of one model, one behind the other, in a file that only grows.

use super::frame::{FrameMeta, Parsed, next_magic, parse, unpack};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// A segment that takes frames. After a failed append it is as it was before.
#[derive(Debug)]
pub(crate) struct SegmentWriter {
    path: PathBuf,
    /// `None`: opened for each append, so that any number of segments costs no file descriptors.
    file: Option<File>,
    /// The end of the last frame that was written whole.
    len: u64,
    /// The file may be longer than `len`: an append failed, and so did cutting it off.
    torn: bool,
}

impl SegmentWriter {
    /// A new segment. `stays_open` between appends, which saves a few microseconds for each.
    pub(crate) fn create(path: PathBuf, stays_open: bool) -> io::Result<Self> {
        let file = OpenOptions::new().write(true).create_new(true).open(&path)?;
        Ok(SegmentWriter { path, file: stays_open.then_some(file), len: 0, torn: false })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Appends whole frames.
    pub(crate) fn append(&mut self, frames: &[u8]) -> io::Result<()> {
        if self.torn {
            self.cut(self.len)?;
        }
        let written = self.with_file(|mut file| {
            file.seek(SeekFrom::Start(self.len))?;
            file.write_all(frames)
        });
        if let Err(error) = written {
            self.torn = true;
            // The next append tries again if this fails; a reader cuts the torn end in any case.
            let _ = self.cut(self.len);
            return Err(error);
        }
        self.len += frames.len() as u64;
        Ok(())
    }

    /// Takes back what was appended behind `len`.
    pub(crate) fn cut(&mut self, len: u64) -> io::Result<()> {
        self.len = len;
        self.torn = true;
        self.with_file(|file| file.set_len(len))?;
        self.torn = false;
        Ok(())
    }

    pub(crate) fn sync(&self) -> io::Result<()> {
        self.with_file(File::sync_data)
    }

    fn with_file<T>(&self, work: impl FnOnce(&File) -> io::Result<T>) -> io::Result<T> {
        match &self.file {
            Some(file) => work(file),
            None => work(&OpenOptions::new().write(true).open(&self.path)?),
        }
    }
}

/// What a segment holds, read from its file.
#[derive(Debug)]
pub(crate) struct Contents {
    pub(crate) frames: Vec<FrameMeta>,
    /// Places where something stood that is not a frame, and was skipped. A torn end does not count: it was never owned.
    pub(crate) damaged: u64,
}

/// Reads all frames' descriptions and checks each frame's checksum.
pub(crate) fn read(path: &Path) -> io::Result<Contents> {
    let file = File::open(path)?;
    if file.metadata()?.len() == 0 {
        return Ok(Contents { frames: Vec::new(), damaged: 0 });
    }
    // SAFETY: a segment that is read is no longer written (its writer is closed, or dead and its directory's lock is held), and is only ever removed whole.
    let bytes = unsafe { memmap2::Mmap::map(&file)? };
    let mut contents = Contents { frames: Vec::new(), damaged: 0 };
    let mut at = 0;
    while at < bytes.len() {
        match parse(&bytes[at..], at as u64) {
            Parsed::Frame(frame) => {
                at += frame.total_bytes() as usize;
                contents.frames.push(frame);
            }
            // A length that damage made larger looks like a torn end, but then more frames follow.
            torn_or_damaged => match next_magic(&bytes[at..]) {
                Some(skip) => {
                    contents.damaged += 1;
                    at += skip;
                }
                None => {
                    contents.damaged += u64::from(matches!(torn_or_damaged, Parsed::Damaged));
                    break;
                }
            },
        }
    }
    Ok(contents)
}

/// Reads the lines of frames of one segment.
pub(crate) struct SegmentReader {
    file: File,
    bytes: Vec<u8>,
    zstd: zstd::bulk::Decompressor<'static>,
}

impl std::fmt::Debug for SegmentReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SegmentReader").field("file", &self.file).finish_non_exhaustive()
    }
}

impl SegmentReader {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Ok(SegmentReader { file: File::open(path)?, bytes: Vec::new(), zstd: zstd::bulk::Decompressor::new()? })
    }

    /// The lines of `frame`, into `raw`, which is cleared first.
    pub(crate) fn load(&mut self, frame: &FrameMeta, raw: &mut Vec<u8>) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(frame.offset))?;
        self.bytes.resize(frame.total_bytes() as usize, 0);
        self.file.read_exact(&mut self.bytes)?;
        raw.clear();
        unpack(&self.bytes, frame, &mut self.zstd, raw)
    }
}
