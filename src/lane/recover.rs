//! Reading the lanes of a process that died.

use super::memory::Header;
use super::{BUFFERS, checksum};
use crate::batch::{Chunk, FRAME_HEADER};
use crate::record::{Writer, writer_of_line};
use std::fs::File;
use std::io;
use std::path::Path;

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

impl DeadLanes {
    /// The records that `log()` had accepted and that no sink was known to own: lane by lane, in the order of seq.
    pub(crate) fn chunks(&self) -> Vec<Chunk<'_>> {
        let mut chunks = Vec::new();
        for lane in 0..self.header.lanes {
            let writer = Writer::new(self.header.process, lane as u8);
            let mut buffers: Vec<_> = (0..BUFFERS).map(|buffer| self.header.buffer(&self.map, lane, buffer)).collect();
            buffers.sort_by_key(|&(_, epoch, ..)| epoch);
            for (base_seq, epoch, released, data) in buffers {
                if released < epoch {
                    let (rows, len) = valid_prefix(writer, base_seq, epoch, data);
                    if rows > 0 {
                        chunks.push(Chunk::from_lane(writer, base_seq, rows, &data[..len]));
                    }
                }
            }
        }
        chunks
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
