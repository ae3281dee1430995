//! The queue between `log()` and the worker: a few lanes, each a few buffers in memory that outlives the process.
//!
//! `log()` copies an encoded line into a lane under its lock and wakes nobody; the worker swaps the buffers and gives the filled ones to the sink.
//! With `durability = process` the buffers are a file mapped shared: when the process is killed the kernel keeps the pages, and
//! [`recover`](recover::recover) reads them. A buffer is free again only when the sink has said that it owns the records.

mod memory;
pub(crate) mod recover;

use crate::batch::{Chunk, FRAME_HEADER};
use crate::checksum::crc32c_append;
use crate::record::{WRITER_LEN, Writer};
use memory::Memory;
use parking_lot::{Mutex, MutexGuard};
use std::cell::Cell;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use uuid::Uuid;

/// The most lanes there can be.
pub(crate) const MAX_LANES: usize = 64;
/// Buffers of a lane: one takes lines, and the others are on their way, so that a sink which answers later (a broker) has the next batch
/// before it has answered for the last.
pub(crate) const BUFFERS: usize = 8;
/// Bytes that the lane adds to a line: the header, the writer and the largest seq.
const OVERHEAD: usize = FRAME_HEADER + WRITER_TEXT + 20 + TAIL.len();
const WRITER_TEXT: usize = b",\"writer\":\"".len() + WRITER_LEN + b"\",\"seq\":".len();
const TAIL: &[u8] = b"}\n";

/// All lanes of a process.
#[derive(Debug)]
pub(crate) struct Lanes {
    memory: Memory,
    lanes: Vec<Lane>,
    buffer_bytes: usize,
}

#[derive(Debug)]
struct Lane {
    writer: Writer,
    writer_text: [u8; WRITER_TEXT],
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// The buffer that takes lines.
    active: usize,
    buffers: [Buffer; BUFFERS],
    next_seq: u64,
    /// Counts the uses of the lane's buffers: a checksum is seeded with it, so that lines of an earlier use never pass for new ones.
    epoch: u64,
    closed: bool,
}

#[derive(Debug, Clone, Copy)]
struct Buffer {
    stage: Stage,
    epoch: u64,
    base_seq: u64,
    rows: u64,
    len: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Free,
    Active,
    /// Full: a caller has moved on to the other buffer, and the worker has not come yet.
    Sealed,
    /// The worker has it.
    Taken,
}

/// What became of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Push {
    /// It is in the lane. `wake` says that a buffer has just been filled: the worker should come before its time.
    Accepted { seq: u64, wake: bool },
    /// No buffer of the lane has room.
    Full,
    /// The logger was shut down.
    Closed,
}

/// A buffer that the worker has taken: its bytes stand still until it is released.
#[derive(Debug)]
pub(crate) struct Taken {
    lane: usize,
    buffer: usize,
    epoch: u64,
    pub(crate) writer: Writer,
    pub(crate) first_seq: u64,
    pub(crate) rows: u64,
    len: usize,
}

/// What waits in all lanes.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pending {
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
    /// A buffer that takes lines is at least half full.
    pub(crate) half_full: bool,
}

impl Lanes {
    /// Lanes on the heap: what is in them dies with the process.
    pub(crate) fn in_memory(process: Uuid, count: usize, buffer_bytes: usize) -> io::Result<Self> {
        Self::over(Memory::anonymous(process, count, buffer_bytes)?, process, count, buffer_bytes)
    }

    /// Lanes in the new file `path`, whose space is all reserved now: a full disk is an error here and not a SIGBUS later.
    pub(crate) fn in_file(path: &Path, process: Uuid, count: usize, buffer_bytes: usize) -> io::Result<Self> {
        Self::over(Memory::file(path, process, count, buffer_bytes)?, process, count, buffer_bytes)
    }

    fn over(memory: Memory, process: Uuid, count: usize, buffer_bytes: usize) -> io::Result<Self> {
        let lanes = (0..count).map(|lane| Lane::new(Writer::new(process, lane as u8), &memory, lane)).collect();
        Ok(Lanes { memory, lanes, buffer_bytes })
    }

    /// The longest line (without writer and seq) that a buffer can take.
    #[cfg(test)]
    pub(crate) fn max_line(buffer_bytes: usize) -> usize {
        buffer_bytes.saturating_sub(OVERHEAD)
    }

    /// Appends a line to this thread's lane, or to another when that one is in use just now, or full.
    #[inline]
    pub(crate) fn push(&self, line: &[u8]) -> Push {
        let own = thread_number() % self.lanes.len();
        if let Some(state) = self.lanes[own].state.try_lock() {
            let pushed = self.push_locked(own, state, line);
            if pushed != Push::Full {
                return pushed;
            }
        }
        self.push_elsewhere(own, line)
    }

    #[cold]
    fn push_elsewhere(&self, own: usize, line: &[u8]) -> Push {
        for step in 1..self.lanes.len() {
            let at = (own + step) % self.lanes.len();
            if let Some(state) = self.lanes[at].state.try_lock() {
                let pushed = self.push_locked(at, state, line);
                if pushed != Push::Full {
                    return pushed;
                }
            }
        }
        // All are in use or full: waits for one's own, for as long as a copy takes.
        self.push_locked(own, self.lanes[own].state.lock(), line)
    }

    #[inline]
    fn push_locked(&self, at: usize, mut state: MutexGuard<'_, State>, line: &[u8]) -> Push {
        let lane = &self.lanes[at];
        let state = &mut *state;
        if state.closed {
            return Push::Closed;
        }
        let mut wake = false;
        if state.buffers[state.active].len + line.len() + OVERHEAD > self.buffer_bytes {
            // A line that no buffer can take must not cost the active one its place.
            if line.len() + OVERHEAD > self.buffer_bytes || !state.swap(&self.memory, at, Stage::Sealed) {
                return Push::Full;
            }
            wake = true;
        }
        let (active, seq) = (state.active, state.next_seq);
        let buffer = &mut state.buffers[active];
        // SAFETY: the lane's lock is held and the buffer is the active one, so nobody else reads or writes it; the length was checked above.
        let to = unsafe { self.memory.buffer_mut(at, active, self.buffer_bytes, buffer.len, line.len() + OVERHEAD) };
        let written = lane.write_frame(to, line, seq, buffer.epoch);
        buffer.len += written;
        buffer.rows += 1;
        state.next_seq += 1;
        Push::Accepted { seq, wake }
    }

    /// What waits to be taken.
    pub(crate) fn pending(&self) -> Pending {
        let mut pending = Pending::default();
        for lane in &self.lanes {
            let state = lane.state.lock();
            for buffer in state.buffers.iter().filter(|buffer| matches!(buffer.stage, Stage::Active | Stage::Sealed)) {
                pending.rows += buffer.rows;
                pending.bytes += buffer.len as u64;
                pending.half_full |= buffer.len >= self.buffer_bytes / 2;
            }
        }
        pending
    }

    /// Bytes in all buffers that are not free, taken ones included.
    pub(crate) fn used_bytes(&self) -> u64 {
        let used =
            |lane: &Lane| lane.state.lock().buffers.iter().filter(|b| b.stage != Stage::Free).map(|b| b.len as u64).sum::<u64>();
        self.lanes.iter().map(used).sum()
    }

    /// Bytes that all buffers can hold.
    pub(crate) fn capacity(&self) -> u64 {
        (self.lanes.len() * BUFFERS * self.buffer_bytes) as u64
    }

    /// Takes at most one buffer of each lane, the oldest first, and leaves another for the callers.
    pub(crate) fn take(&self) -> Vec<Taken> {
        (0..self.lanes.len()).filter_map(|at| self.take_from(at)).collect()
    }

    fn take_from(&self, at: usize) -> Option<Taken> {
        let lane = &self.lanes[at];
        let mut state = lane.state.lock();
        let sealed = (0..BUFFERS).filter(|&index| state.buffers[index].stage == Stage::Sealed);
        let sealed = sealed.min_by_key(|&index| state.buffers[index].epoch);
        let index = match sealed {
            Some(index) => index,
            None => {
                let active = state.active;
                if state.buffers[active].rows == 0 || !state.swap(&self.memory, at, Stage::Sealed) {
                    return None;
                }
                active
            }
        };
        let buffer = &mut state.buffers[index];
        buffer.stage = Stage::Taken;
        let Buffer { epoch, base_seq, rows, len, .. } = *buffer;
        Some(Taken { lane: at, buffer: index, epoch, writer: lane.writer, first_seq: base_seq, rows, len })
    }

    /// The records of a taken buffer.
    pub(crate) fn chunk<'a>(&'a self, taken: &'a Taken) -> Chunk<'a> {
        // SAFETY: a taken buffer is written by nobody until `release`, which consumes `taken`, from which this borrows.
        let data = unsafe { self.memory.buffer(taken.lane, taken.buffer, self.buffer_bytes, taken.len) };
        Chunk::from_lane(taken.writer, taken.first_seq, taken.rows, data)
    }

    /// The sink owns the records of `taken`: the buffer is free again.
    pub(crate) fn release(&self, taken: Taken) {
        self.memory.control(taken.lane, taken.buffer).released.store(taken.epoch, Ordering::Release);
        let mut state = self.lanes[taken.lane].state.lock();
        let buffer = &mut state.buffers[taken.buffer];
        *buffer = Buffer { stage: Stage::Free, rows: 0, len: 0, ..*buffer };
    }

    /// How many records each lane has accepted.
    pub(crate) fn accepted(&self) -> Vec<u64> {
        self.lanes.iter().map(|lane| lane.state.lock().next_seq).collect()
    }

    /// Makes what was accepted so far survive a loss of power, and returns the counts (as [`accepted`](Self::accepted)) for which it holds.
    pub(crate) fn sync(&self) -> io::Result<Vec<u64>> {
        let accepted = self.accepted();
        self.memory.sync()?;
        Ok(accepted)
    }

    /// From now on [`push`](Self::push) answers [`Push::Closed`].
    pub(crate) fn close(&self) {
        self.lanes.iter().for_each(|lane| lane.state.lock().closed = true);
    }
}

impl Lane {
    fn new(writer: Writer, memory: &Memory, lane: usize) -> Self {
        let mut writer_text = [0; WRITER_TEXT];
        writer_text.copy_from_slice(format!(",\"writer\":\"{writer}\",\"seq\":").as_bytes());
        let free = Buffer { stage: Stage::Free, epoch: 0, base_seq: 0, rows: 0, len: 0 };
        let mut state = State { active: 0, buffers: [free; BUFFERS], next_seq: 0, epoch: 0, closed: false };
        state.activate(memory, lane, 0);
        Lane { writer, writer_text, state: Mutex::new(state) }
    }

    /// Writes header, line, writer and seq to the start of `to`, which has room for them, and returns how many bytes that was.
    #[inline]
    fn write_frame(&self, to: &mut [u8], line: &[u8], seq: u64, epoch: u64) -> usize {
        let (header, body) = to.split_at_mut(FRAME_HEADER);
        let mut end = 0;
        let mut digits = itoa::Buffer::new();
        for part in [line, &self.writer_text, digits.format(seq).as_bytes(), TAIL] {
            body[end..end + part.len()].copy_from_slice(part);
            end += part.len();
        }
        header[..4].copy_from_slice(&(end as u32).to_le_bytes());
        header[4..].copy_from_slice(&checksum(epoch, &body[..end]).to_le_bytes());
        FRAME_HEADER + end
    }
}

impl State {
    /// Makes a free buffer the active one and leaves the active one as `stage`; `false` when none is free.
    fn swap(&mut self, memory: &Memory, lane: usize, stage: Stage) -> bool {
        let Some(free) = self.buffers.iter().position(|buffer| buffer.stage == Stage::Free) else { return false };
        self.buffers[self.active].stage = stage;
        self.activate(memory, lane, free);
        true
    }

    fn activate(&mut self, memory: &Memory, lane: usize, index: usize) {
        self.epoch += 1;
        let control = memory.control(lane, index);
        // The first seq before the epoch: a reader of a dead process's file believes a buffer by its epoch.
        control.base_seq.store(self.next_seq, Ordering::Release);
        control.epoch.store(self.epoch, Ordering::Release);
        self.active = index;
        self.buffers[index] = Buffer { stage: Stage::Active, epoch: self.epoch, base_seq: self.next_seq, rows: 0, len: 0 };
    }
}

/// The checksum of a line in a buffer's `epoch`-th use.
#[inline]
fn checksum(epoch: u64, line: &[u8]) -> u32 {
    crc32c_append(epoch as u32, line)
}

/// A small number for each thread, so that threads spread over the lanes.
#[inline]
fn thread_number() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static NUMBER: Cell<usize> = const { Cell::new(usize::MAX) });
    NUMBER.with(|number| {
        if number.get() == usize::MAX {
            number.set(NEXT.fetch_add(1, Ordering::Relaxed));
        }
        number.get()
    })
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
