//! Where records go: the [`Sink`] trait, its contract, and one backend a file.

pub mod broker;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
pub mod discard;
#[cfg(any(feature = "parquet", feature = "sqlite"))]
pub(crate) mod disk;
pub mod kafka;
pub mod memory;
pub mod nats;
#[cfg(feature = "parquet")]
pub(crate) mod parquet;
#[cfg(feature = "sqlite")]
pub mod sqlite;

use crate::batch::Batch;
use crate::clock::Now;
use crate::record::Writer;
use crate::seqs::SeqRanges;
use std::collections::HashMap;
use std::fmt;

/// Which records of which writer.
pub type Kept = HashMap<Writer, SeqRanges>;

/// A backend that keeps records.
///
/// # Contract
///
/// One thread calls it, in this order: any number of [`write`](Sink::write)s, each followed by calls to [`commit`](Sink::commit) until it
/// answers with that batch's id or a later one; [`maintain`](Sink::maintain) between batches, at least each second; [`close`](Sink::close) once, last.
///
/// *Ownership.* A batch belongs to the caller until `commit` has answered with its id or a later one. Only then may the caller forget it.
/// A sink that answers owns the records: it keeps them through a kill of the process, and, where the caller opened it with
/// `durability = fsync`, through a loss of power.
///
/// *Failure.* When `write` or `commit` fails, no batch since the last answer is owned: the caller keeps them, and gives the same records
/// again, now or after a restart, in batches that may be cut differently. The sink is still usable: a later call may succeed
/// (the disk has room again, the lock is free). A sink never panics and never blocks for longer than its own documented time.
///
/// *Once.* A record is (writer, seq). A sink that has it already skips it: whatever is given twice is kept once. It keeps what it has per writer together
/// with the records (in the same transaction, or in the same file), as ranges: a replay brings older records behind newer ones.
///
/// *Order.* Chunks come in the order of their writer's seq within a batch; replays may come behind live batches.
///
/// The suite in [`conformance`] checks all of this, and every sink here runs it.
pub trait Sink: Send {
    /// The name in metrics and messages: `sqlite`.
    fn name(&self) -> &'static str;

    /// Takes records in. `Ok` says that they are on their way, not that they are kept.
    ///
    /// # Errors
    /// The batch was not taken; see the contract.
    fn write(&mut self, batch: &Batch<'_>) -> Result<(), SinkError>;

    /// Makes what was written kept, and says through which batch it is: the id of the last batch that the sink owns, `None` before the first.
    /// A sink whose backend answers later returns the id it has so far, at once.
    ///
    /// # Errors
    /// Nothing since the last answer is owned; see the contract.
    fn commit(&mut self) -> Result<Option<u64>, SinkError>;

    /// The live records of the batches that failed last which the sink owns all the same: those need not be given again. Asked once after each error.
    /// A sink that takes a batch whole or not at all answers with none.
    fn kept(&mut self) -> Kept;

    /// Work that time asks for: rotation, retention. `force` asks to finish what is open now (a flush or a shutdown).
    ///
    /// # Errors
    /// What could not be done will be tried again by the next call; nothing is lost.
    fn maintain(&mut self, now: Now, force: bool) -> Result<Maintained, SinkError>;

    /// Says whether the sink could take records now, without writing any; a readiness probe and the caller's retries ask it.
    ///
    /// # Errors
    /// Why it could not.
    fn probe(&mut self) -> Result<(), SinkError>;

    /// Whether [`write`](Sink::write) itself goes to spool segments. The caller then never puts a spool of its own before the sink, and gives it
    /// segments that other processes left with [`adopt`](Sink::adopt).
    fn spools(&self) -> bool;

    /// Takes over a spool segment that nobody writes any more, by renaming it: from then on its records are the sink's.
    ///
    /// # Errors
    /// The segment is where it was. A sink that does not spool always answers with an error; it is never asked.
    fn adopt(&mut self, segment: &std::path::Path) -> Result<(), SinkError>;

    /// Finishes. What is not owned stays with the caller.
    ///
    /// # Errors
    /// What could not be finished; the next start does.
    fn close(&mut self, now: Now) -> Result<Maintained, SinkError>;
}

/// Where the records are that were given with [`Origin::Live`](crate::batch::Origin::Live), for a sink with intermediate files of its own.
/// A sink whose records are in their final place at `commit` answers with zeros.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Maintained {
    /// Records that have left intermediate files for their final place since the sink was opened.
    pub finished: u64,
    /// Records that the sink owns and that still lie in intermediate files, such as an open segment.
    pub pending: u64,
    /// Bytes of these files, those with statements of the ledger too, which count as no records.
    pub pending_bytes: u64,
}

/// What a sink could not do.
#[derive(Debug, thiserror::Error)]
#[error("sink={sink}: {message}")]
pub struct SinkError {
    /// The sink's name.
    pub sink: &'static str,
    /// What the caller can expect.
    pub kind: SinkErrorKind,
    /// What happened, with the values, and what to do.
    pub message: String,
}

/// What the caller of a failed sink can expect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SinkErrorKind {
    /// It may work later: a lock that another process holds, a broker that is away.
    Unavailable,
    /// No room: it works when there is some.
    NoSpace,
    /// What it stored before is damaged; it was set aside or must be looked at.
    Damaged,
}

impl fmt::Display for SinkErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SinkErrorKind::Unavailable => "unavailable",
            SinkErrorKind::NoSpace => "no_space",
            SinkErrorKind::Damaged => "damaged",
        })
    }
}

impl SinkError {
    /// An error of the sink called `sink`.
    pub fn new(sink: &'static str, kind: SinkErrorKind, message: impl Into<String>) -> Self {
        SinkError { sink, kind, message: message.into() }
    }

    /// From an error of the file system, `doing` what to `path`.
    pub fn io(sink: &'static str, doing: &str, path: &std::path::Path, error: &std::io::Error) -> Self {
        let kind = match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => SinkErrorKind::NoSpace,
            _ => SinkErrorKind::Unavailable,
        };
        SinkError::new(sink, kind, format!("cannot {doing} path={}: {error}", path.display()))
    }
}
