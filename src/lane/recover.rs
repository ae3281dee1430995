//! Reading the lanes of a process that died.

use super::memory::Header;
use super::{BUFFERS, checksum};
use crate::batch::{Chunk, FRAME_HEADER};
use crate::record::{Writer, writer_of_line};
use std::fs::File;
use std::io;
use std::path::Path;
use uuid::Uuid;

/// The lanes file of a dead process, mapped for reading.
#[derive(Debug)]
pub(crate) struct DeadLanes {
    map: memmap2::Mmap,
    header: Header,
}

/// Opens the lanes file of a process that is known to be dead: the caller holds its directory's lock.
///
/// # Errors
/// The file cannot be read, or (`InvalidData`) is not a lanes file.
pub(crate) fn recover(path: &Path) -> io::Result<DeadLanes> {
    let file = File::open(path)?;
    // SAFETY: the caller holds the lock of the directory, so no process writes to the file or cuts it short.
    let map = unsafe { memmap2::Mmap::map(&file)? };
    let header = Header::read(&map)
        .map_err(|why| io::Error::new(io::ErrorKind::InvalidData, format!("{} cannot be recovered: {why}", path.display())))?;
    Ok(DeadLanes { map, header })
}

/// A buffer's use, as the process left it.
struct DeadBuffer<'a> {
    /// The sink was known to own it.
    released: bool,
    chunk: Chunk<'a>,
}

impl DeadLanes {
    /// The records that `log()` had accepted and that no sink was known to own: lane by lane, in the order of seq.
    pub(crate) fn chunks(&self) -> Vec<Chunk<'_>> {
        let buffers = (0..self.header.lanes).flat_map(|lane| self.buffers(lane));
        buffers.filter(|buffer| !buffer.released && buffer.chunk.rows > 0).map(|buffer| buffer.chunk).collect()
    }

    /// All records that are still to be read, those that a sink owns too: nothing is written over them before their buffer's next use.
    pub(crate) fn all_chunks(&self) -> Vec<Chunk<'_>> {
        let buffers = (0..self.header.lanes).flat_map(|lane| self.buffers(lane));
        buffers.filter(|buffer| buffer.chunk.rows > 0).map(|buffer| buffer.chunk).collect()
    }

    /// How many records each lane had accepted.
    pub(crate) fn accepted(&self) -> Vec<u64> {
        let end = |buffer: &DeadBuffer<'_>| buffer.chunk.first_seq + buffer.chunk.rows;
        (0..self.header.lanes).map(|lane| self.buffers(lane).last().map_or(0, end)).collect()
    }

    /// Whose lanes they were.
    pub(crate) fn process(&self) -> Uuid {
        self.header.process
    }

    /// A lane's buffers that were ever used, the oldest use first.
    fn buffers(&self, lane: usize) -> Vec<DeadBuffer<'_>> {
        let writer = Writer::new(self.header.process, lane as u8);
        let mut buffers: Vec<_> = (0..BUFFERS).map(|buffer| self.header.buffer(&self.map, lane, buffer)).collect();
        buffers.sort_by_key(|&(_, epoch, ..)| epoch);
        let dead = |(base_seq, epoch, released, data)| {
            let (rows, len) = valid_prefix(writer, base_seq, epoch, data);
            DeadBuffer { released: released >= epoch, chunk: Chunk::from_lane(writer, base_seq, rows, &data[..len]) }
        };
        buffers.into_iter().filter(|&(_, epoch, ..)| epoch > 0).map(dead).collect()
    }
}

/// How many whole records a buffer starts with, and their bytes. A record that was being written when the process died fails its checksum,
/// and so does one that an earlier use of the buffer left behind.
fn valid_prefix(writer: Writer, base_seq: u64, epoch: u64, data: &[u8]) -> (u64, usize) {
    let (mut rows, mut at) = (0, 0);
    while let Some(header) = data.get(at..at + FRAME_HEADER) {
        let len = u32::from_le_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let crc = u32::from_le_bytes([header[4], header[5], header[6], header[7]]);
        let Some(line) = data.get(at + FRAME_HEADER..at + FRAME_HEADER + len) else { break };
        if len == 0 || checksum(epoch, line) != crc || writer_of_line(line) != Some((writer, base_seq + rows)) {
            break;
        }
        at += FRAME_HEADER + len;
        rows += 1;
    }
    (rows, at)
}
