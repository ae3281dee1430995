//! The memory under the lanes: a file mapped shared, or anonymous pages.
//!
//! Layout: one page with the header (magic, version, number of lanes, bytes of a buffer, process), [`CONTROL_BYTES`] of control blocks
//! ([`Control`], [`BUFFERS`] a lane), then the buffers, lane by lane. All numbers are little-endian: a directory does not move between machines of
//! different byte orders while a process is down.

use super::{BUFFERS, MAX_LANES};
use memmap2::{MmapMut, MmapOptions};
use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;
use std::sync::atomic::AtomicU64;
use uuid::Uuid;

const MAGIC: &[u8; 8] = b"PREDLANE";
const VERSION: u32 = 2;
const HEADER_BYTES: usize = 4096;
const CONTROL_BYTES: usize = MAX_LANES * BUFFERS * size_of::<Control>();

/// A buffer's state as the next process reads it. A buffer holds records that nobody owns while `released` < `epoch`.
#[repr(C, align(64))]
#[derive(Debug)]
pub(super) struct Control {
    pub(super) base_seq: AtomicU64,
    pub(super) epoch: AtomicU64,
    pub(super) released: AtomicU64,
}

#[derive(Debug)]
pub(super) struct Memory {
    /// Only reached through the raw pointer: the map itself is never borrowed as a slice while lanes live.
    map: MmapMut,
    base: *mut u8,
}

// SAFETY: the pointer is to the map that the struct owns, which does not move; who may write where is settled by the lanes' locks.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Memory {
    pub(super) fn anonymous(process: Uuid, lanes: usize, buffer_bytes: usize) -> io::Result<Self> {
        Self::over(MmapOptions::new().len(total_bytes(lanes, buffer_bytes)).map_anon()?, process, lanes, buffer_bytes)
    }

    pub(super) fn file(path: &Path, process: Uuid, lanes: usize, buffer_bytes: usize) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
        let mapped = reserve(&file, total_bytes(lanes, buffer_bytes)).and_then(|()| {
            // SAFETY: the file was created just now, under a name that only this process uses, in a directory whose lock it holds.
            unsafe { MmapOptions::new().map_mut(&file) }
        });
        match mapped {
            Ok(map) => Self::over(map, process, lanes, buffer_bytes),
            Err(error) => {
                std::fs::remove_file(path)?;
                Err(error)
            }
        }
    }

    fn over(mut map: MmapMut, process: Uuid, lanes: usize, buffer_bytes: usize) -> io::Result<Self> {
        populate(&map);
        let header = Header { process, lanes, buffer_bytes };
        map[..Header::LEN].copy_from_slice(&header.to_bytes());
        let base = map.as_mut_ptr();
        Ok(Memory { map, base })
    }

    pub(super) fn control(&self, lane: usize, buffer: usize) -> &Control {
        assert!(lane < MAX_LANES && buffer < BUFFERS, "lane={lane} buffer={buffer}");
        // SAFETY: the control blocks lie in the map (each map is longer), are aligned to 64 bytes since the map is to a page, and are only
        // ever reached as atomics.
        unsafe { &*self.base.add(HEADER_BYTES).cast::<Control>().add(lane * BUFFERS + buffer) }
    }

    /// # Safety
    /// The caller is the only one to reach these bytes of the buffer: it holds the lane's lock, and the buffer is the active one.
    #[expect(clippy::mut_from_ref, reason = "the lanes' locks settle who may write; see above")]
    pub(super) unsafe fn buffer_mut(
        &self,
        lane: usize,
        buffer: usize,
        buffer_bytes: usize,
        from: usize,
        len: usize,
    ) -> &mut [u8] {
        let start = data_at(lane, buffer, buffer_bytes) + from;
        assert!(from + len <= buffer_bytes && start + len <= self.map.len(), "lane={lane} buffer={buffer} from={from} len={len}");
        // SAFETY: in bounds (checked above); exclusive by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.base.add(start), len) }
    }

    /// # Safety
    /// Nobody writes to the first `len` bytes of the buffer while the slice lives.
    pub(super) unsafe fn buffer(&self, lane: usize, buffer: usize, buffer_bytes: usize, len: usize) -> &[u8] {
        let start = data_at(lane, buffer, buffer_bytes);
        assert!(len <= buffer_bytes && start + len <= self.map.len(), "lane={lane} buffer={buffer} len={len}");
        // SAFETY: in bounds (checked above); not written by the caller's promise.
        unsafe { std::slice::from_raw_parts(self.base.add(start), len) }
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        self.map.flush()
    }
}

/// Makes all pages present and writable now: a first touch is a page fault, which would cost a call of `log()` more than all else that it does.
/// A kernel that does not know how (Linux before 5.14) leaves it to the first touches.
#[cfg(target_os = "linux")]
fn populate(map: &MmapMut) {
    if let Err(error) = map.advise(memmap2::Advice::PopulateWrite) {
        tracing::debug!(%error, "the lanes' pages are not made present at the start");
    }
}

#[cfg(not(target_os = "linux"))]
fn populate(_map: &MmapMut) {}

/// The first page of a lanes file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) process: Uuid,
    pub(super) lanes: usize,
    pub(super) buffer_bytes: usize,
}

impl Header {
    const LEN: usize = 40;

    fn to_bytes(self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&(self.lanes as u32).to_le_bytes());
        bytes[16..24].copy_from_slice(&(self.buffer_bytes as u64).to_le_bytes());
        bytes[24..].copy_from_slice(self.process.as_bytes());
        bytes
    }

    /// From a whole lanes file.
    pub(super) fn read(file: &[u8]) -> Result<Self, String> {
        let bytes = file.get(..Self::LEN).ok_or_else(|| format!("it has only {} bytes", file.len()))?;
        if &bytes[..8] != MAGIC {
            return Err("it does not start as a lanes file".to_owned());
        }
        let u32_at = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let version = u32_at(8);
        if version != VERSION {
            return Err(format!("its version is {version}, and this program reads {VERSION}"));
        }
        let lanes = u32_at(12) as usize;
        let buffer_bytes = usize::try_from(u64::from(u32_at(16)) | u64::from(u32_at(20)) << 32).unwrap_or(usize::MAX);
        let mut process = [0; 16];
        process.copy_from_slice(&bytes[24..40]);
        if lanes == 0 || lanes > MAX_LANES || buffer_bytes > file.len() || total_bytes(lanes, buffer_bytes) != file.len() {
            return Err(format!(
                "its header says lanes={lanes} buffer_bytes={buffer_bytes}, which is not its length of {}",
                file.len()
            ));
        }
        Ok(Header { process: Uuid::from_bytes(process), lanes, buffer_bytes })
    }

    /// A buffer's control numbers and its bytes, from a whole lanes file: (base_seq, epoch, released, data).
    pub(super) fn buffer<'a>(&self, file: &'a [u8], lane: usize, buffer: usize) -> (u64, u64, u64, &'a [u8]) {
        let control = HEADER_BYTES + (lane * BUFFERS + buffer) * size_of::<Control>();
        let number = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&file[control + at..control + at + 8]);
            u64::from_le_bytes(bytes)
        };
        let start = data_at(lane, buffer, self.buffer_bytes);
        (number(0), number(8), number(16), &file[start..start + self.buffer_bytes])
    }
}

fn data_at(lane: usize, buffer: usize, buffer_bytes: usize) -> usize {
    HEADER_BYTES + CONTROL_BYTES + (lane * BUFFERS + buffer) * buffer_bytes
}

fn total_bytes(lanes: usize, buffer_bytes: usize) -> usize {
    data_at(lanes, 0, buffer_bytes)
}

/// Gives the file `len` bytes that the disk really has. Where the file system cannot reserve (`EOPNOTSUPP`), zeros are written.
fn reserve(file: &File, len: usize) -> io::Result<()> {
    match rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), 0, len as u64) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {
            let zeros = vec![0; 1 << 20];
            let mut left = len;
            let mut file = file;
            while left > 0 {
                let part = left.min(zeros.len());
                io::Write::write_all(&mut file, &zeros[..part])?;
                left -= part;
            }
            file.sync_all()
        }
        Err(error) => Err(error.into()),
    }
}
